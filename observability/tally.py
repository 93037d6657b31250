"""`sluiceway.requests`, counted by the workers themselves: exact while observers are slow, shedding or dead.

A row of the board has two files that outlive its process, so that nothing is forgotten by a kill: an array of 64-bit
counts, mapped, and beside it one line of JSON for each of them with its labels. A count is an addition in memory
(0.3 µs; prometheus-client's own mapped value asks the kernel for the process id each time, 6 µs). A series is made by
writing its line first and counting then: a process that dies between the two leaves a count of 0. Only the owner of a
row writes, its successor goes on where it was, and anybody reads.

The first counts are those of `other` and have no line: where no line can be written (a full disk, too many series),
the sum is still right. A line that does not read keeps its number, and only its own count is lost to readers.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson

from observability import names, whole_lines

SERIES_MAX: Final = 10_000
"""Label sets of one worker. Model APIs x consumers x services x outcomes that occur are some hundreds; a status or a
configuration gone wild ends in the series of `other`, one for each outcome."""

OTHER: Final = "other"
LABELS: Final = ("model_api", "consumer", "service", "outcome", "status")

Key = tuple[str, str, str, str, int | str]
"""A value for each of LABELS."""

_OTHERS: Final[tuple[Key, ...]] = tuple((OTHER, OTHER, OTHER, outcome, OTHER) for outcome in names.OUTCOMES)
"""Whose counts are the first, in this order."""


class RequestCounter:
    """Counts finished requests. One for each row of the board, one at a time."""

    def __init__(self, folder: Path, row: int) -> None:
        """`folder`: of the files, made by the supervisor. OSError where they cannot be; no content of theirs is one."""
        path = self._labels = folder / f"requests-{row}.labels"
        keys = list(_keys(whole_lines.begin(path)))
        with path.with_suffix(".counts").open("a+b") as file:
            # taken from the disk now: a mapped page that finds no room later would kill the worker (SIGBUS)
            os.posix_fallocate(file.fileno(), 0, SERIES_MAX * 8)
            self._counts = memoryview(mmap.mmap(file.fileno(), SERIES_MAX * 8)).cast("Q")
        self._rows = {key: row for row, key in enumerate(keys[:SERIES_MAX]) if key is not None}
        self._rows_made = len(keys)

    def count(self, model_api: str, consumer: str, service: str, outcome: str, status: int) -> None:
        """Count one finished request. What is unknown is the empty string; `status` as in the record."""
        key = (model_api, consumer, service, outcome, status)
        row = self._rows.get(key)
        if row is None:
            row = self._make(key)
        self._counts[row] += 1

    def _make(self, key: Key) -> int:
        if self._rows_made >= SERIES_MAX or not whole_lines.append(self._labels, orjson.dumps(key) + b"\n"):
            return self._rows[OTHER, OTHER, OTHER, key[3], OTHER]
        row = self._rows[key] = self._rows_made
        self._rows_made += 1
        return row


def request_totals(folder: Path) -> dict[tuple[str, ...], int]:
    """Labels → requests of all workers, living and dead, without zeros. A file that cannot be read is left out."""
    totals: dict[tuple[str, ...], int] = {}
    for path in sorted(folder.glob("requests-*.labels")):
        try:
            counts = memoryview(path.with_suffix(".counts").read_bytes()).cast("Q")
            keys = list(_keys(path.read_bytes()))
        except (OSError, TypeError):  # TypeError: no whole number of counts
            continue
        for key, count in zip(keys, counts, strict=False):
            if count and key is not None:
                labels = tuple(map(str, key))
                totals[labels] = totals.get(labels, 0) + count
    return totals


def _keys(labels: bytes) -> Iterator[Key | None]:
    """The key of each row, None for a line that is none. What follows the last line end is a line being written."""
    yield from _OTHERS
    for line in labels.split(b"\n")[:-1]:
        yield _key(line)


def _key(line: bytes) -> Key | None:
    try:
        model_api, consumer, service, outcome, status = values = orjson.loads(line)
    except (ValueError, TypeError):
        return None
    well = all(isinstance(value, str) for value in values[:4]) and isinstance(status, int | str)
    return (model_api, consumer, service, outcome, status) if well else None
