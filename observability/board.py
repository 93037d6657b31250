"""Counts that must be exact, in shared memory that outlives the process that counts.

The supervisor makes one file with LANES rows for each worker slot: while a worker is replaced, the old one and the new
one live side by side and each has a row of its own. A worker adds to its row through a mapping, so a count costs an
integer addition (about 0.1 µs) and is still there when the worker was killed. Only the process that has a row writes it
while it lives; the supervisor writes it after that process is gone (`settle_lost`), and anybody reads.

Invariant of a quiet host: STARTED = HANDED = TAKEN + all DROPPED_*.
"""

import mmap
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path


class Cell(IntEnum):
    """The columns of a row. All but ACTIVE, CONNECTIONS, QUEUED_BYTES, GENERATION, HEARTBEAT, DRAIN_MS, REPLACED
    and HELD_* only grow."""

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
    DRAIN_MS = 15
    """How long the worker may take to drain as it is configured now, in ms; UNLIMITED: for ever; 0: it did not say."""
    REPLACED = 16
    """1 from when another worker serves the slot in this one's place; the supervisor writes it."""


CELLS = 24
"""Columns of a row, some to spare."""
LANES = 2
"""Rows of a slot: a worker is replaced only when the one before it is gone, so there are never three."""
UNLIMITED = 2**63

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
        """Make the file with LANES rows of zeros for each of `slots`."""
        path.write_bytes(bytes(slots * LANES * CELLS * 8))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "Board":
        """Map an existing file."""
        with path.open("r+b") as file:
            return cls(mmap.mmap(file.fileno(), 0))

    @property
    def slots(self) -> int:
        """How many worker slots there are."""
        return len(self._cells) // CELLS // LANES

    def row(self, number: int) -> memoryview:
        """One row: a writable view of CELLS unsigned 64-bit numbers, indexed by `Cell`.

        The first row of slot s is s, the second one `slots` + s.
        """
        return self._cells[number * CELLS : (number + 1) * CELLS]

    def rows(self) -> Iterator[memoryview]:
        """All rows in order."""
        for number in range(self.slots * LANES):
            yield self.row(number)

    def lanes(self, slot: int) -> tuple[memoryview, ...]:
        """The rows of one slot."""
        return tuple(self.row(lane * self.slots + slot) for lane in range(LANES))

    def serving(self, slot: int) -> list[memoryview]:
        """The rows of those who take connections of a slot: one, two for a moment, or none."""
        return [row for row in self.lanes(slot) if row[Cell.GENERATION] and not row[Cell.REPLACED]]

    def generation(self, slot: int) -> int:
        """The configuration generation in force in a slot, of two the earlier; 0: nobody serves it."""
        return min((int(row[Cell.GENERATION]) for row in self.serving(slot)), default=0)

    def total(self, cell: Cell) -> int:
        """The sum of one column."""
        return sum(row[cell] for row in self.rows())

    def settle_lost(self, number: int) -> int:
        """Count what the process of this row took with it when it died.

        Requests that it had begun and not handed over, and records that no observer had acknowledged. Returns how many.
        """
        row = self.row(number)
        unhanded = row[Cell.STARTED] - row[Cell.HANDED]
        settled = row[Cell.TAKEN] + sum(row[cell] for cell in DROP_REASONS.values())
        unsent = row[Cell.HANDED] - settled
        lost = max(0, unhanded) + max(0, unsent)
        row[Cell.DROPPED_WORKER_LOST] += lost
        row[Cell.HANDED] = row[Cell.STARTED]
        row[Cell.ACTIVE] = row[Cell.CONNECTIONS] = row[Cell.QUEUED_BYTES] = 0
        row[Cell.GENERATION] = row[Cell.HEARTBEAT] = row[Cell.DRAIN_MS] = row[Cell.REPLACED] = 0
        row[Cell.HELD_DISK_BYTES] = row[Cell.HELD_MEMORY_BYTES] = 0
        return lost
