"""Does a worker's event loop still turn? It writes the time into its row of the board; control and supervisor look.

The times are milliseconds of CLOCK_MONOTONIC, the same for all processes of a host. What is done about a worker that
has fallen silent is `proxy.watch`.
"""

import asyncio
import time
from typing import Final

from observability.board import Board, Cell

BEAT_S: Final = 0.25
"""How often a worker writes: four writes into shared memory a second."""
SILENT_AFTER_S: Final = 3.0
"""Twelve missed beats. The longest a healthy loop is held up is ~0.1 s (a busy core, a full collection),
a second on a host that swaps; and a client has waited three seconds by then."""


def now_ms() -> int:
    """The clock of heartbeats."""
    return time.monotonic_ns() // 1_000_000


def beat(row: memoryview, loop: asyncio.AbstractEventLoop) -> None:
    """Write into the worker's `row` now and every BEAT_S from now on, for as long as the loop runs."""
    row[Cell.HEARTBEAT] = now_ms()
    loop.call_later(BEAT_S, beat, row, loop)


def silent_slots(board: Board, now: int) -> list[int]:
    """Slots whose worker serves and shows a heartbeat older than SILENT_AFTER_S."""
    oldest = now - SILENT_AFTER_S * 1000
    return [slot for slot in range(board.slots) if any(0 < row[Cell.HEARTBEAT] < oldest for row in board.serving(slot))]
