"""A supervisor of its own process, with children of a test's choosing (`child.py`).

Usage: supervised.py FOLDER JSON, where JSON has `workers`, `observers`, `control` (lists of word lists for child.py)
and may have `replacements` (word lists of those who take the workers' places, else the same), `drain_timeout_s`,
`worker_grace_s`, `silent_after_s`, `stuck_after_s`, `backoff_first_s`.
In the words {fd} and {folder} are filled in. The log goes to stdout, beside the children's own lines.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from observability.board import LANES, Board
from observability.log import get_logger, set_up
from proxy.children import Backoff, ChildSpec
from proxy.sockets import Listeners
from proxy.supervisor import Plan, Supervisor

CHILD = str(Path(__file__).with_name("child.py"))
GENERATION = 7


def main() -> int:
    folder, wish = Path(sys.argv[1]), json.loads(sys.argv[2])
    set_up("supervisor", runtime=folder)
    plan = plan_of(folder, wish)
    print(f"# supervisor listens {plan.listeners.address}", flush=True)
    return asyncio.run(Supervisor(plan, get_logger()).run())


def plan_of(folder: Path, wish: dict[str, Any]) -> Plan:
    workers = wish.get("workers", [])
    listeners = Listeners("127.0.0.1:0", max(1, len(workers)))
    board = folder / "board"
    backoff = Backoff(first_s=wish.get("backoff_first_s", 0.01))

    def spec(name: str, words: list[str], fd: int = -1, *extra: str) -> ChildSpec:
        filled = [word.format(fd=fd, folder=folder) for word in words]
        fds = (fd,) if fd >= 0 else ()
        return ChildSpec(name, (sys.executable, CHILD, name, *filled, *extra), fds=fds, backoff=backoff)

    def worker(slot: int, lane: int) -> ChildSpec:
        row = lane * len(workers) + slot
        words = wish.get("replacements", workers)[slot] if lane else workers[slot]
        extra = (f"board={board}", f"row={row}", f"generation={GENERATION}")
        return spec(f"worker-{slot}", words, listeners.fds[slot], *extra)

    def specs(kind: str) -> list[ChildSpec]:
        return [spec(f"{kind.removesuffix('s')}-{number}", words) for number, words in enumerate(wish.get(kind, []))]

    return Plan(
        runtime=folder,
        generation=GENERATION,
        board=Board.create(board, max(1, len(workers))),
        listeners=listeners,
        workers=[[worker(slot, lane) for lane in range(LANES)] for slot in range(len(workers))],
        observers=specs("observers"),
        control=specs("control"),
        drain_delay_s=0.0,
        drain_timeout_s=wish.get("drain_timeout_s", 60.0),
        worker_grace_s=wish.get("worker_grace_s", 5.0),
        silent_after_s=wish.get("silent_after_s", 60.0),
        stuck_after_s=wish.get("stuck_after_s", 60.0),
    )


if __name__ == "__main__":
    sys.exit(main())
