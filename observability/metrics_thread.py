"""The thread of control that sends the host's metrics over OTLP, where the environment wants that.

Nothing waits for it: a collector that hangs holds up this thread alone, for as long as the exporter's timeout, and then
the next interval begins. What it refuses is said in the log and goes with the next numbers; that it takes no metrics at
all (Phoenix takes traces alone) is said once.
"""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from observability.board import Board
from observability.environment import without_secrets
from observability.exposition import METRICS_FOLDER, HostCollector
from observability.lines import LineWriter
from observability.log import get_logger
from observability.metrics_settings import MetricsSettings, count_failure, metrics_of, open_exporter, start_of

if TYPE_CHECKING:
    from observability.host_metrics import HostMetrics

Described = Iterable[Mapping[str, str]]

_NO_METRICS = re.compile(r"code: (?:404|405|501|StatusCode\.UNIMPLEMENTED)\b")
"""In an exporter's words: the path, or the gRPC service, is not there."""

SENT_FILE = "sent.json"
"""Beside the counts: what delta numbers have been taken."""

_log = get_logger(__name__)


class MetricsThread:
    """Started where an exporter is wanted; else it does nothing at all."""

    def __init__(self, runtime: Path, board: Board, lines: LineWriter, described: Callable[[], Described]) -> None:
        """`described`: what `exposition.description` makes of the Model APIs in force."""
        self._folder = runtime / METRICS_FOLDER
        self._board = board
        self._lines = lines
        self._described = described
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the environment, and begin."""
        settings = metrics_of(os.environ)
        for complaint in settings.complaints:
            _log.warning("environment_not_understood", complaint=complaint)
        if settings.exporters:
            self._thread = threading.Thread(target=self._run, args=(settings,), name="metrics", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Send the last numbers, for so long at most."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, settings: MetricsSettings) -> None:
        try:
            started_ns = start_of(self._folder, time.time_ns())  # first: the rest takes half a second
            from observability.host_metrics import HostMetrics  # noqa: PLC0415  (25 MB, only where wanted)

            exporters = logging.getLogger("opentelemetry.exporter")
            reasons = _Reasons()
            exporters.handlers[:], exporters.propagate = [reasons], False
            sent = self._folder / SENT_FILE if settings.delta else None
            metrics = HostMetrics(open_exporter(os.environ, settings, self._lines), started_ns, sent)
        except Exception as error:  # noqa: BLE001 - a variable we do not know of must not cost /metrics
            _log.error("environment_not_understood", complaint=without_secrets(f"{error!r}; no metrics are sent"))
            return
        stopped = False
        while not stopped:
            stopped = self._stop.wait(settings.interval_s)
            if self._send(metrics):
                reasons.not_taken_said = False
            else:
                with contextlib.suppress(OSError):  # the log has the reason
                    count_failure(self._folder)
        with contextlib.suppress(Exception):
            metrics.shutdown()

    def _send(self, metrics: "HostMetrics") -> bool:
        try:
            collector = HostCollector(self._folder, self._board, self._described(), exemplars=True)
            return metrics.export(collector.collect(), time.time_ns())
        except Exception as error:  # noqa: BLE001 - the next interval may do better; it may quote what it sends
            _say(f"{type(error).__name__}: {error}", logging.ERROR)
            return False


def _say(reason: str, level: int) -> None:
    _log.log(level, "metrics_not_delivered", reason=without_secrets(reason))


class _Reasons(logging.Handler):
    """What exporters say becomes the reason in a line of ours."""

    not_taken_said = False
    """The log has it that nobody there takes metrics."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            reason = record.getMessage()
            if not _NO_METRICS.search(reason):
                _say(reason, record.levelno)
            elif not self.not_taken_said:
                self.not_taken_said = True
                right = "OTEL_METRICS_EXPORTER=none, or OTEL_EXPORTER_OTLP_METRICS_ENDPOINT to one that takes them"
                _log.warning("metrics_not_taken", reason=without_secrets(reason), right=right)
        except Exception:  # noqa: BLE001  (as in observability.log)
            self.handleError(record)
