"""prometheus-client's files of counts, with their disk space taken before it is mapped, and counted in quickly.

The library makes a file longer without taking the space and maps it: a count in a page for which the disk has no room
ends the process by SIGBUS, and its successor, and theirs. Here space is taken first (`posix_fallocate`). Where there is
none, new series are counted in memory, which /metrics does not see: lines and spans go on, and so do the series that
have their place.

A count of the library's own looks its place up, packs two doubles and copies them, 1.5 µs, and a record makes some
twenty of them; ours adds to the mapped number itself.
"""

import contextlib
import os
import threading
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from observability.log import get_logger

FIRST_BYTES = 1 << 16
"""Of a new file; prometheus-client's own number."""

_ENTRY_BYTES = 32
"""Of an entry beside its key: two doubles, a length, padding."""

_log = get_logger(__name__)


def set_up() -> None:
    """Let this process count in such files. Once, before its first metric."""
    # By default the library asks the kernel who it is for each count, 9 of 72 µs a record; this process never forks.
    process_id = os.getpid()
    values.MmapedDict = MetricFile  # type: ignore[attr-defined, assignment]
    values.ValueClass = _counting(values.MultiProcessValue(lambda: process_id))  # type: ignore[no-untyped-call]


def _counting(library: type[Any]) -> type[Any]:
    """The library's class of one count in a file, whose `inc` is our own."""
    lock = threading.Lock()

    class Count(library):  # type: ignore[misc]
        """One number of a file; any thread may add to it."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._cell = self._file.cell(self._key)

        def inc(self, amount: float) -> None:
            """Add. The place stays the same for the life of a file; the map moves when the file grows."""
            cell = self._cell
            if cell is None:
                super().inc(amount)
                return
            with lock:  # to read, add and write is three steps
                self._file.cells[cell] += amount

        def add(self, amount: float) -> None:
            """The same for a number that only one thread adds to."""
            cell = self._cell
            if cell is None:
                super().inc(amount)
            else:
                self._file.cells[cell] += amount

        def get(self) -> float:
            """The number now."""
            return float(self._file.cells[self._cell]) if self._cell is not None else float(super().get())

    return Count


class MetricFile(MmapedDict):
    """A file of counts; see the library's class for its content. Not for reading."""

    _told = False

    def __init__(self, filename: str) -> None:
        self._unplaced: dict[str, tuple[float, float]] = {}
        """Counted in memory. The number of series is bounded where they are made (`observer.metrics`)."""
        self.cells = memoryview(b"").cast("d")
        """The map as doubles: values are at multiples of eight bytes, whatever the length of their keys."""
        self._mapped: Any = None
        try:
            with open(filename, "a+b") as file:
                os.posix_fallocate(file.fileno(), 0, max(FIRST_BYTES, os.fstat(file.fileno()).st_size))
            super().__init__(filename)  # type: ignore[no-untyped-call]
        except OSError as error:
            self._tell(error)
            with contextlib.suppress(OSError):
                os.unlink(filename)
            self._f: Any = None
            self._positions: dict[str, int] = {}
            self._used = self._capacity = 0

    def read_value(self, key: str) -> tuple[float, float]:
        """The value and its time, from the file or from memory."""
        if key not in self._positions:
            if key not in self._unplaced and not self._make_room(key):
                self._unplaced[key] = 0.0, 0.0
            if key in self._unplaced:
                return self._unplaced[key]
        value: tuple[float, float] = super().read_value(key)  # type: ignore[no-untyped-call]
        return value

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Set the value; the library has read it before."""
        if key in self._unplaced:
            self._unplaced[key] = value, timestamp
        else:
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def cell(self, key: str) -> int | None:
        """Where in `cells` the value of a key is that was read before; None: it is counted in memory."""
        if key not in self._positions:
            return None
        if self._mapped is not self._m:
            self._mapped = self._m
            self.cells = memoryview(self._m).cast("d")
        return self._positions[key] // 8

    def close(self) -> None:
        """As the library closes it; a map of which a view is left cannot be."""
        self.cells.release()
        self._mapped = None
        super().close()  # type: ignore[no-untyped-call]

    def _make_room(self, key: str) -> bool:
        """Take the space that the library will need to add the key: it doubles the file as often as it must."""
        if self._f is None:
            return False
        needed, capacity = self._used + len(key.encode()) + _ENTRY_BYTES, self._capacity
        while capacity < needed:
            capacity *= 2
        try:
            if capacity > self._capacity:
                os.posix_fallocate(self._f.fileno(), 0, capacity)
        except OSError as error:
            os.truncate(self._f.fileno(), self._capacity)  # what it had taken before the space was at its end
            self._tell(error)
            return False
        return True

    @classmethod
    def _tell(cls, error: OSError) -> None:
        if not cls._told:
            cls._told = True
            _log.error("metrics_not_stored", reason=str(error))
