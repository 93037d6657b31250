"""A supervisor of its own process, with children of a test's choosing (`child.py`).

Usage: supervised.py FOLDER JSON, where JSON has `workers`, `observers`, `control` (lists of word lists for child.py)
and may have `drain_timeout_s`, `worker_grace_s`, `silent_after_s`, `stuck_after_s`, `backoff_first_s`.
In the words {fd} and {folder} are filled in. The log goes to stdout, beside the children's own lines.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from observability.board import Board
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

    def specs(kind: str) -> list[ChildSpec]:
        made = []
        for slot, words in enumerate(wish.get(kind, [])):
            fd = listeners.fds[slot] if kind == "workers" else -1
            filled = [word.format(fd=fd, folder=folder) for word in words]
            extra = (f"board={board}", f"slot={slot}", f"generation={GENERATION}") if kind == "workers" else ()
            name = f"{kind.removesuffix('s')}-{slot}"
            argv = (sys.executable, CHILD, name, *filled, *extra)
            made.append(ChildSpec(name, argv, fds=(fd,) if kind == "workers" else (), backoff=backoff))
        return made

    return Plan(
        runtime=folder,
        generation=GENERATION,
        board=Board.create(board, max(1, len(workers))),
        listeners=listeners,
        workers=specs("workers"),
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
