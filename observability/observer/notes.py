"""What an observer writes down for control, every few seconds: exemplars, and how full its queues are."""

import asyncio
import contextlib
import os
from pathlib import Path

from observability import exemplars, queues
from observability.lines import LineWriter
from observability.observer.export import SpanExport
from observability.observer.metrics import RecordMetrics


class Notes:
    """Those of observer `index`, in the folder of the metrics. `export` is None where tracing is off."""

    def __init__(
        self, folder: Path, index: int, metrics: RecordMetrics, lines: LineWriter, export: SpanExport | None
    ) -> None:
        self._folder = folder
        self._index = index
        self._metrics = metrics
        self._lines = lines
        self._export = export
        self._file: exemplars.ExemplarFile | None = None
        if export is not None and exemplars.wanted(os.environ):
            metrics.keep_exemplars()
            self._file = exemplars.ExemplarFile(exemplars.file_of(folder, index))
        self._timer: asyncio.TimerHandle | None = None

    def keep(self) -> None:
        """Now, and every few seconds from now on."""
        with contextlib.suppress(OSError):  # a disk without room: the next time may do better
            self._write()
        self._timer = asyncio.get_running_loop().call_later(exemplars.WRITE_EVERY_S, self.keep)

    def end(self) -> None:
        """The last time."""
        self.keep()
        assert self._timer is not None
        self._timer.cancel()

    def _write(self) -> None:
        waiting = self._export.waiting_bytes if self._export is not None else 0
        queues.write(self._folder, self._index, queues.Queued(waiting, self._lines.waiting_bytes))
        if self._file is not None:
            self._file.write(self._metrics.exemplars())
