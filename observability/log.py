"""The processes' own lines: structlog, JSON, one object a line, to stdout.

Every process calls `set_up` once and then logs with `get_logger`. A line has `timestamp` (ISO 8601, UTC, ms), `level`,
`event` and what the caller adds. Libraries that use the standard `logging` go through the same door. Lines pass a
bounded writer thread (`observability.lines`), so a reader of our stdout that is stuck cannot hold up a process.
"""

import atexit
import logging
import os
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import orjson
import structlog

from observability import names
from observability.lines import LineFile, LineWriter

EXIT_TIMEOUT_S = 1.0
"""How long an ending process waits for its last lines: a reader that is alive needs a few ms."""

LOCK_NAME = "lines.lock"
"""In the runtime directory: who writes to the stdout that all processes share."""


def set_up(process: str, *, level: str = "info", runtime: Path | None = None, fd: int = 1) -> LineWriter:
    """Configure the logging of this process; call it once, before anything logs.

    `process` is put into every line (`worker`, `observer`, …). With `runtime`, processes of one host take turns on
    their common stdout. Returns the writer; its rest is written when the interpreter ends.
    """
    runtime_lock = runtime / LOCK_NAME if runtime is not None else None
    writer = LineWriter(fd, runtime_lock)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _Stamp(process),
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=cast(Any, LineFile(writer))),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(max(number, logging.WARNING))  # libraries speak when something is wrong
    logging.captureWarnings(True)
    atexit.register(writer.close, EXIT_TIMEOUT_S)
    return writer


def get_logger(name: str | None = None) -> structlog.typing.FilteringBoundLogger:
    """A logger; `name` is the module's and becomes the field `module`."""
    values = {"module": name} if name else {}
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger(**values))


class _Bridge(logging.Handler):
    """Lines of libraries that use the standard logging, in our shape."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            structlog.get_logger(module=record.name).log(record.levelno, record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001  (a log line must never hurt; the standard way to say so is on stderr)
            self.handleError(record)


class _Stamp:
    """Adds when and who."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._pid = os.getpid()

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        now = datetime.now(UTC)
        event[names.TIMESTAMP] = f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z"
        event["process"] = self._process
        event["pid"] = self._pid
        return event


def _dumps(event: MutableMapping[str, Any], **_options: object) -> bytes:
    """One line, in the order in which a person reads it; what JSON cannot say is written as `repr` says it."""
    first = {key: event[key] for key in (names.TIMESTAMP, names.LEVEL, names.EVENT) if key in event}
    ordered = {**first, **event}
    try:
        return orjson.dumps(ordered, default=repr)
    except TypeError:  # a lone surrogate, an integer beyond 64 bits
        return orjson.dumps({key: repr(value) for key, value in ordered.items()})
