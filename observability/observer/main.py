"""The observer process: `python -m observability.observer --index I --runtime DIR`.

Reads its arguments, prepares what has to be there before the rooms are imported, and runs them (`observer.process`)
until SIGTERM. SIGINT is ignored: Ctrl-C in a terminal reaches the whole group, and the supervisor ends observers when
the workers have drained.
"""

import argparse
import os
import signal
from pathlib import Path

from observability.descriptors import open_standard_descriptors
from observability.observer.courtesy import let_others_go_first


def main(arguments: list[str] | None = None) -> int:
    """Run an observer; returns the exit code."""
    open_standard_descriptors()
    parser = argparse.ArgumentParser(prog="python -m observability.observer")
    parser.add_argument("--index", type=int, required=True, help="which observer of this host")
    parser.add_argument("--runtime", type=Path, required=True, help="the host's runtime directory")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    let_others_go_first()
    # prometheus_client decides when it is first imported whether it counts in files.
    folder = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(options.runtime / "metrics")))
    folder.mkdir(exist_ok=True)
    import uvloop  # noqa: PLC0415

    from observability.observer import metric_files  # noqa: PLC0415

    metric_files.set_up()
    from observability.observer.process import observe  # noqa: PLC0415

    uvloop.run(observe(options.index, options.runtime))
    return 0
