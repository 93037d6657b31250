"""The macro benchmark, ``make bench``: one gateway worker with everything on against the plain aiohttp reverse proxy.

Method. Two cores. On one of them the contestant's worker alone: the gateway's (found as the process that runs
``proxy.worker``), or the whole plain proxy. On the other everything else: the generator (wrk), the upstream (nginx with
one fixed answer), the OTLP sink (nginx), the gateway's supervisor, control and observer. Same small chat request for
both, 64 kept-alive connections, rounds interleaved (gateway, plain, gateway, plain, …) after a warm-up, medians over
the rounds. ``routed`` is the same gateway through a Model API that routes by model with a fallback armed.

The gateway has everything on: consumer key, a span pair for every request exported over OTLP, metrics, a log line for
every request. After each of its rounds the run waits until its lines are written, so that its observer does not work
during the plain proxy's round, and that work is in its CPU figure. What counts beside the throughput:

* records: every answered request has its line, and ``sluiceway_records_dropped_total`` and
  ``sluiceway_spans_dropped_total`` stand still;
* a second run at a fixed rate, 70 % of what the gateway reached, in which no record may be dropped, and which it keeps;
* headroom: generator and upstream without a proxy do at least twice the best contestant, else the figures are theirs;
* the cores: nobody else's programs on the worker's, and some idle time on the other.

Exit: 0; 1 when one of these is not so, or a request failed; 2 when something is missing or breaks down.
``--quick`` shows in seconds that everything works, and is no result.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import machine
from benchmarks.contestants import (
    ANSWER,
    CHAT_PATH,
    KEY,
    REQUEST,
    ROUTED_PATH,
    Bench,
    Contestant,
    NotReadyError,
    metric,
)
from benchmarks.report import describe, save

CONNECTIONS = 64
HEADROOM = 2.0
FIXED_SHARE = 0.7
FOREIGN_SHARE = 0.05  # of the worker's core; more, and the machine was not ours
FULL = 0.95  # of the other core: generator or observer held the contestant back
SETTLE_S = 5.0  # no new line for so long: no more will come
SPANS_S = 1.5  # the last spans of a round wait a second for company; then they are sent, or counted as lost
DROPPED = "sluiceway_records_dropped_total"
SPANS_DROPPED = "sluiceway_spans_dropped_total"
RATE_KEPT = 0.98  # of the fixed rate; less, and the run was at another one

_LUA = """\
wrk.method = "POST"
wrk.body = %s
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n@{"requests": %%d, "seconds": %%f, "p50_ms": %%f, "p99_ms": %%f, "errors": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(slots=True)
class Plan:
    """How long everything takes."""

    rounds: int = 4
    round_s: int = 6
    warm_up_s: int = 2
    direct_s: int = 4
    fixed_s: int = 10


QUICK = Plan(rounds=1, round_s=2, warm_up_s=1, direct_s=1, fixed_s=2)


@dataclass(slots=True)
class Round:
    """One measurement of one contestant; the records and spans are the gateway's."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_s_per_1000: float = 0.0  # of all its processes
    worker_cpu_us: float = 0.0  # of the worker alone, a request
    worker_core_busy: float = 0.0  # shares of a core's time, from 0 to 1
    worker_core_foreign: float = 0.0  # taken by somebody else's processes
    other_core_busy: float = 0.0
    records: int | None = None
    records_missing: int | None = None  # answered requests without a line
    records_dropped: int | None = None  # counted as dropped by the gateway itself
    spans_dropped: int | None = None  # likewise


def chat_script(folder: Path) -> None:
    """What `generate` has wrk send."""
    (folder / "chat.lua").write_text(_LUA % (json.dumps(REQUEST.decode()), KEY))


def generate(bench: Bench, url: str, seconds: int) -> Round:
    """One run of wrk; raises RuntimeError when it fails."""
    command = ["taskset", "-c", str(bench.rest), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    script = str(bench.folder / "chat.lua")
    done = subprocess.run([*command, "-s", script, url + CHAT_PATH], capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("@")), None)
    if line is None:
        raise RuntimeError(f"wrk failed ({done.returncode}): {done.stdout} {done.stderr}")
    said = json.loads(line[1:])
    rate = said["requests"] / said["seconds"]
    return Round(said["requests"], rate, said["p50_ms"], said["p99_ms"], said["errors"])


def generate_fixed(bench: Bench, url: str, rate: float, seconds: int) -> tuple[Round, float]:
    """One run of benchmarks.load (rate 0: closed loop), and the rate that it reached."""
    body = bench.folder / "request.json"
    command = ["taskset", "-c", str(bench.rest), sys.executable, "-m", "benchmarks.load", url + CHAT_PATH]
    command += ["--rate", str(rate), "--seconds", str(seconds), "--connections", str(CONNECTIONS)]
    command += ["--body", f"@{body}", "--header", f"Authorization: Bearer {KEY}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"benchmarks.load failed ({done.returncode}): {done.stderr}")
    said = json.loads(done.stdout)
    result = Round(said["requests"], said["rate_done"], said["p50_ms"], said["p99_ms"], said["errors"])
    return result, said["rate_done"]


def settle(contestant: Contestant, expected: int) -> None:
    """Waits until the lines of all answered requests are written, or no more come."""
    assert contestant.log is not None
    last, since = -1, time.monotonic()
    while time.monotonic() - since < SETTLE_S:
        count = contestant.log.count()
        if count >= expected:
            return
        if count != last:
            last, since = count, time.monotonic()
        time.sleep(0.05)


def measure(bench: Bench, contestant: Contestant, seconds: int, rate: float | None = None) -> Round:
    """One round, with its CPU time and its records; `rate` None: as fast as it goes."""
    log = contestant.log
    lines = log.count() if log else 0
    before = dropped_so_far(contestant)
    cpu = machine.cpu_seconds(contestant.process.pid)
    own = machine.cpu_seconds(contestant.worker)
    cores = [machine.core_times(core) for core in (bench.core, bench.rest)]
    if rate is None:
        result = generate(bench, contestant.url, seconds)
    else:
        result, _ = generate_fixed(bench, contestant.url, rate, seconds)
    own = machine.cpu_seconds(contestant.worker) - own
    (mine, others), (mine_now, others_now) = cores, [machine.core_times(core) for core in (bench.core, bench.rest)]
    elapsed = mine_now.all - mine.all
    result.worker_core_busy = (mine_now.busy - mine.busy) / elapsed
    result.worker_core_foreign = max(0.0, mine_now.work - mine.work - own) / elapsed
    result.other_core_busy = (others_now.busy - others.busy) / (others_now.all - others.all)
    if log and contestant.metrics_url:
        settle(contestant, lines + result.requests)
        time.sleep(SPANS_S)
        result.records = log.count() - lines
        result.records_missing = max(0, result.requests - result.records)
        log.empty()
        result.records_dropped, result.spans_dropped = (
            int(now - then) for now, then in zip(dropped_so_far(contestant), before, strict=True)
        )
    spent = machine.cpu_seconds(contestant.process.pid) - cpu
    result.cpu_s_per_1000 = spent / max(1, result.requests) * 1000
    result.worker_cpu_us = own / max(1, result.requests) * 1e6
    return result


def dropped_so_far(contestant: Contestant) -> tuple[float, float]:
    """Records and spans that the gateway counts as dropped."""
    url = contestant.metrics_url
    return (metric(url, DROPPED), metric(url, SPANS_DROPPED)) if url else (0, 0)


_COUNTS = ("records", "records_missing", "records_dropped", "spans_dropped")


def median_of(rounds: list[Round]) -> Round:
    """Median of every figure; counts are summed, what is not known stays so."""
    merged: dict[str, float | None] = {}
    for name in Round.__dataclass_fields__:
        values = [value for value in (getattr(one, name) for one in rounds) if value is not None]
        summed = name in ("requests", "errors", *_COUNTS)
        merged[name] = (sum(values) if summed else statistics.median(values)) if values else None
    return Round(**merged)  # type: ignore[arg-type]  # the names are the fields'


def run(plan: Plan, only: str | None, folder: Path) -> dict[str, object]:
    """The whole benchmark; raises NotReadyError, RuntimeError, ValueError (one core)."""
    core, rest = machine.two_cores()
    bench = Bench(folder, core, rest)
    chat_script(folder)
    (folder / "request.json").write_bytes(REQUEST)
    try:
        bench.start_nginx()
        starters = {"gateway": bench.start_gateway, "plain": bench.start_plain}
        contestants = [start() for name, start in starters.items() if only in (None, name)]
        if only is None:  # the same gateway by another path: its model is looked for, and a fallback is armed
            gateway = contestants[0]
            contestants.append(replace(gateway, name="routed", url=gateway.url + ROUTED_PATH))
        direct = generate(bench, bench.upstream_url, plan.direct_s)
        _, load_capacity = generate_fixed(bench, bench.upstream_url, 0, plan.direct_s)
        for contestant in contestants:
            measure(bench, contestant, plan.warm_up_s)
        rounds: dict[str, list[Round]] = {contestant.name: [] for contestant in contestants}
        for number in range(plan.rounds):
            for contestant in contestants:
                rounds[contestant.name].append(measure(bench, contestant, plan.round_s))
                print(f"round {number + 1} {contestant.name}: {rounds[contestant.name][-1].requests_per_s:,.0f}/s")
        medians = {name: median_of(done) for name, done in rounds.items()}
        first = contestants[0]  # the gateway, unless left out
        fixed_rate = FIXED_SHARE * medians[first.name].requests_per_s
        fixed = {first.name: measure(bench, first, plan.fixed_s, fixed_rate)}
        exports = bench.exported()
    finally:
        bench.stop()
    best = max(one.requests_per_s for one in medians.values())
    return {
        "machine": machine.description(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "plan": {**asdict(plan), "connections": CONNECTIONS, "worker_core": core, "other_core": rest},
        "bytes": {"request": len(REQUEST), "response": len(ANSWER)},
        "rounds": {name: [asdict(one) for one in done] for name, done in rounds.items()},
        "medians": {name: asdict(one) for name, one in medians.items()},
        "ratio": _ratio(medians, "gateway", "plain"),
        "routed_ratio": _ratio(medians, "routed", "gateway"),
        "fixed": {"rate": fixed_rate, **{name: asdict(one) for name, one in fixed.items()}},
        "direct": asdict(direct),
        "load_capacity_per_s": load_capacity,
        "headroom": direct.requests_per_s / best,
        "exports": {path: {"posts": posts, "bytes": size} for path, (posts, size) in exports.items()},
        "complaints": complaints(medians, fixed, direct.requests_per_s / best, load_capacity / fixed_rate, fixed_rate),
    }


def _ratio(medians: dict[str, Round], one: str, other: str) -> float | None:
    if one not in medians or other not in medians:
        return None
    return medians[one].requests_per_s / medians[other].requests_per_s


def complaints(
    medians: dict[str, Round], fixed: dict[str, Round], headroom: float, load_headroom: float, fixed_rate: float
) -> list[str]:
    """What keeps the figures from being a result; empty when nothing does."""
    found = []
    if headroom < HEADROOM:
        found.append(f"generator and upstream do only {headroom:.2f} times the best contestant, not {HEADROOM:.0f}")
    if load_headroom < HEADROOM:
        found.append(f"the fixed-rate generator does only {load_headroom:.2f} times its rate, not {HEADROOM:.0f}")
    found += [
        f"{name}: {one.requests_per_s:,.1f}/s of the {fixed_rate:,.1f}/s asked for"
        for name, one in fixed.items()
        if one.requests_per_s < RATE_KEPT * fixed_rate
    ]
    runs = list(medians.items())
    runs += [(f"{name} at the fixed rate", one) for name, one in fixed.items()]
    for name, one in runs:
        if one.worker_core_foreign > FOREIGN_SHARE:
            found.append(f"{name}: {one.worker_core_foreign:.0%} of the worker's core went to other programs")
        if one.other_core_busy > FULL:
            found.append(f"{name}: the core of everything else was full ({one.other_core_busy:.0%})")
        if one.errors:
            found.append(f"{name}: {one.errors} requests failed")
        if one.records_missing or one.records_dropped:
            found.append(f"{name}: {one.records_missing} records missing, {one.records_dropped} dropped")
        if one.spans_dropped:
            found.append(f"{name}: {one.spans_dropped} spans dropped")
    return found


def missing_tools() -> list[str]:
    """What to install, one line each."""
    wanted = {"wrk": "wrk", "nginx": "nginx", "taskset": "util-linux"}
    return [
        f"{tool} is missing: apt-get install {package}" for tool, package in wanted.items() if not shutil.which(tool)
    ]


def main() -> int:
    """Runs it, prints the report, saves it as JSON; see the module's description for the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: that it works, no result")
    parser.add_argument("--only", choices=("gateway", "plain"), help="one contestant, no ratio")
    arguments = parser.parse_args()
    if missing := missing_tools():
        print("\n".join(missing), file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="sluiceway-bench-") as folder:
        try:
            result = run(QUICK if arguments.quick else Plan(), arguments.only, Path(folder))
        except (NotReadyError, ValueError, RuntimeError) as error:
            print(error, file=sys.stderr)
            return 2
    print(describe(result))
    print(f"saved as {save(result)}")
    return 1 if result["complaints"] else 0


if __name__ == "__main__":
    sys.exit(main())
