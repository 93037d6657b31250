"""Counts that must be exact, in shared memory that outlives the process that counts.

The supervisor makes one file with a row for each worker slot; a worker adds to its own row through a mapping, so a
count costs an integer addition (about 0.1 µs) and is still there when the worker was killed. Only the owner of a slot
writes its row while it lives; the supervisor writes it after that process is gone (`settle_lost`), and anybody reads.

Invariant of a quiet host: STARTED = HANDED = TAKEN + all DROPPED_*.
"""

import mmap
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path


class Cell(IntEnum):
    """The columns of a row. All but ACTIVE, CONNECTIONS, QUEUED_BYTES, GENERATION, HEARTBEAT and HELD_* only
    grow."""

    STARTED = 0
    """Requests that a worker began to serve (each owes one record)."""
    HANDED = 1
    """Records made, and records lost with their worker."""
    TAKEN = 2
    """Records that an observer acknowledged: their lines are written, their spans and metrics under way."""
    DROPPED_QUEUE_FULL = 3
    DROPPED_OVERSIZE = 4
    DROPPED_WORKER_LOST = 5
    DROPPED_OBSERVER_LOST = 6
    ACTIVE = 7
    """Requests running now."""
    CONNECTIONS = 8
    QUEUED_BYTES = 9
    """Records waiting for an observer."""
    GENERATION = 10
    """The configuration generation in force in this worker; 0 before it serves and from the moment it drains."""
    DROPPED_SHUTDOWN = 11
    HELD_DISK_BYTES = 12
    HELD_MEMORY_BYTES = 13
    """Request bodies held for a peek or a fallback."""
    HEARTBEAT = 14
    """When the worker's event loop last turned, in ms of CLOCK_MONOTONIC; 0 before it serves."""


CELLS = 16
"""Columns of a row, some to spare."""

DROP_REASONS = {
    "queue_full": Cell.DROPPED_QUEUE_FULL,
    "oversize": Cell.DROPPED_OVERSIZE,
    "worker_lost": Cell.DROPPED_WORKER_LOST,
    "observer_lost": Cell.DROPPED_OBSERVER_LOST,
    "shutdown": Cell.DROPPED_SHUTDOWN,
}


class Board:
    """The mapped file. Use `create` in the supervisor and `open` elsewhere."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._cells = memoryview(memory).cast("Q")

    @classmethod
    def create(cls, path: Path, slots: int) -> "Board":
        """Make the file with `slots` rows of zeros."""
        path.write_bytes(bytes(slots * CELLS * 8))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "Board":
        """Map an existing file."""
        with path.open("r+b") as file:
            return cls(mmap.mmap(file.fileno(), 0))

    @property
    def slots(self) -> int:
        """How many rows there are."""
        return len(self._cells) // CELLS

    def row(self, slot: int) -> memoryview:
        """The row of one slot: a writable view of CELLS unsigned 64-bit numbers, indexed by `Cell`."""
        return self._cells[slot * CELLS : (slot + 1) * CELLS]

    def rows(self) -> Iterator[memoryview]:
        """All rows in order."""
        for slot in range(self.slots):
            yield self.row(slot)

    def total(self, cell: Cell) -> int:
        """The sum of one column."""
        return sum(row[cell] for row in self.rows())

    def settle_lost(self, slot: int) -> int:
        """Count what the process of this slot took with it when it died.

        Requests that it had begun and not handed over, and records that no observer had acknowledged. Returns how many.
        """
        row = self.row(slot)
        unhanded = row[Cell.STARTED] - row[Cell.HANDED]
        settled = row[Cell.TAKEN] + sum(row[cell] for cell in DROP_REASONS.values())
        unsent = row[Cell.HANDED] - settled
        lost = max(0, unhanded) + max(0, unsent)
        row[Cell.DROPPED_WORKER_LOST] += lost
        row[Cell.HANDED] = row[Cell.STARTED]
        row[Cell.ACTIVE] = row[Cell.CONNECTIONS] = row[Cell.QUEUED_BYTES] = 0
        row[Cell.GENERATION] = row[Cell.HEARTBEAT] = 0
        row[Cell.HELD_DISK_BYTES] = row[Cell.HELD_MEMORY_BYTES] = 0
        return lost
