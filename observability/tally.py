"""`sluiceway.requests`, counted by the workers themselves: exact while observers are slow, shedding or dead.

A worker slot has two files that outlive its process, so that nothing is forgotten by a kill: an array of 64-bit
counts, mapped, and beside it one line of JSON for each of them with its labels. A count is an addition in memory
(0.3 µs; prometheus-client's own mapped value asks the kernel for the process id each time, 6 µs). A series is made by
writing its line first and counting then: a process that dies between the two leaves a count of 0. Only the owner of a
slot writes, its successor goes on where it was, and anybody reads.
"""

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson

from observability import names

SERIES_MAX: Final = 10_000
"""Label sets of one worker. Model APIs x consumers x services x outcomes that occur are some hundreds; a status or a
configuration gone wild ends in the series of `other`, one for each outcome."""

OTHER: Final = "other"
LABELS: Final = ("model_api", "consumer", "service", "outcome", "status")

Key = tuple[str, str, str, str, int | str]
"""A value for each of LABELS."""


class RequestCounter:
    """Counts finished requests. One for each worker slot, one at a time."""

    def __init__(self, folder: Path, slot: int) -> None:
        """`folder`: of the files, made by the supervisor. OSError where they cannot be."""
        path = self._labels = folder / f"requests-{slot}.labels"
        with path.open("a+b") as file:
            file.truncate(path.read_bytes().rfind(b"\n") + 1)  # a line that was cut by a kill
        with path.with_suffix(".counts").open("a+b") as file:
            # taken from the disk now: a mapped page that finds no room later would kill the worker (SIGBUS)
            os.posix_fallocate(file.fileno(), 0, SERIES_MAX * 8)
            self._counts = memoryview(mmap.mmap(file.fileno(), SERIES_MAX * 8)).cast("Q")
        self._rows: dict[Key, int] = {key: row for row, key in enumerate(_keys(path))}
        for outcome in names.OUTCOMES:
            self._make((OTHER, OTHER, OTHER, outcome, OTHER))

    def count(self, model_api: str, consumer: str, service: str, outcome: str, status: int) -> None:
        """Count one finished request. What is unknown is the empty string; `status` as in the record."""
        key = (model_api, consumer, service, outcome, status)
        row = self._rows.get(key)
        if row is None:
            row = self._make(key)
        self._counts[row] += 1

    def _make(self, key: Key) -> int:
        rows = self._rows
        if key not in rows and len(rows) < SERIES_MAX:
            with contextlib.suppress(OSError):  # the disk is full
                with self._labels.open("ab") as file:
                    file.write(orjson.dumps(key, option=orjson.OPT_APPEND_NEWLINE))
                rows[key] = len(rows)
        row = rows.get(key)
        return rows[OTHER, OTHER, OTHER, key[3], OTHER] if row is None else row


def request_totals(folder: Path) -> dict[tuple[str, ...], int]:
    """Labels → requests of all slots, living and dead, without zeros. A file that cannot be read is left out."""
    totals: dict[tuple[str, ...], int] = {}
    for path in sorted(folder.glob("requests-*.labels")):
        try:
            counts = memoryview(path.with_suffix(".counts").read_bytes()).cast("Q")
            keys = list(_keys(path))
        except (OSError, ValueError, TypeError):
            continue
        for key, count in zip(keys, counts, strict=False):
            if count:
                labels = tuple(map(str, key))
                totals[labels] = totals.get(labels, 0) + count
    return totals


def _keys(path: Path) -> Iterator[Key]:
    for line in path.read_bytes().splitlines():
        model_api, consumer, service, outcome, status = orjson.loads(line)
        yield model_api, consumer, service, outcome, status
