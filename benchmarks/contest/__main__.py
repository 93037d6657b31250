"""The command: ``python -m benchmarks.contest``; see the package's description."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

from benchmarks.contest import judge, report
from benchmarks.contest.contestants import CONTESTANTS
from benchmarks.contest.run import SCALING, Options, in_temporary_folder
from benchmarks.contest.workloads import WORKLOADS


def _arguments() -> argparse.Namespace:
    contestants = [one.name for one in CONTESTANTS]
    workloads = [*(one.name for one in WORKLOADS), SCALING]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contest")
    parser.add_argument("--contestants", help=f"comma-separated: {', '.join(contestants)}; all by default")
    parser.add_argument("--workloads", help=f"comma-separated: {', '.join(workloads)}; all by default")
    parser.add_argument("--rounds", type=int, help="of every workload; by default each has its own number")
    parser.add_argument("--seconds", type=float, help="of every measurement, at most")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of streams and the largest bodies")
    parser.add_argument("--json", type=Path, help="where the figures go, instead of benchmarks/results")
    parser.add_argument("--render", type=Path, help="only make RESULTS.md and the charts anew, from such a file")
    arguments = parser.parse_args()
    for given, known in ((arguments.contestants, contestants), (arguments.workloads, workloads)):
        for name in (given or "").split(","):
            if name and name not in known:
                parser.error(f"no {name}: choose from {', '.join(known)}")
    return arguments


def main() -> int:
    """Exit: 0; 1 when the figures are no result; 2 when a tool is missing."""
    arguments = _arguments()
    if arguments.render:
        result = json.loads(arguments.render.read_text())
        report.write(result)
        print(report.closing(result))
        return 0
    missing = [tool for tool in ("wrk", "nginx", "taskset") if shutil.which(tool) is None]
    if missing:
        print(f"missing: {', '.join(missing)}; apt-get install wrk nginx util-linux", file=sys.stderr)
        return 2
    if len(os.sched_getaffinity(0)) < 2:
        print("two cores are needed: one for the contestants, one for everything else", file=sys.stderr)
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # 5,000 streams have 10,000 sockets in a proxy
    options = Options(rounds=arguments.rounds, seconds=arguments.seconds, scale=arguments.scale)
    if arguments.contestants:
        options.contestants = arguments.contestants.split(",")
    if arguments.workloads:
        options.workloads = arguments.workloads.split(",")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # what was started is ended then too
    try:
        result = in_temporary_folder(options, lambda so_far: report.keep(so_far, arguments.json))
    except (KeyboardInterrupt, SystemExit):
        print(f"ended early; --render {arguments.json or report.SO_FAR} makes RESULTS.md of what was measured")
        return 130
    partial = [arguments.contestants, arguments.workloads, arguments.rounds, arguments.seconds, arguments.json]
    whole = not any(partial) and arguments.scale == 1.0
    print(f"saved as {report.save(result, arguments.json, whole=whole)}")
    if whole:
        report.write(result)
    else:
        print("RESULTS.md is left as it is, because this was not the whole run; --render FILE writes it all the same")
    print(report.closing(result))
    return 1 if judge.complaints(result) else 0


if __name__ == "__main__":
    sys.exit(main())
