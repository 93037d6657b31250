"""An observer's rooms, put together: socket → metrics, spans, lines; and how it ends.

SIGTERM: read what is still in the sockets, write the lines, send the spans for at most five seconds, end.
"""

import asyncio
import os
import signal
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from observability import log, names
from observability.counters import DropCounters
from observability.emitter import socket_path
from observability.environment import without_secrets
from observability.exposition import METRICS_FOLDER
from observability.observer.events import Destination, destination_of, open_events
from observability.observer.export import SpanExport
from observability.observer.intake import Intake
from observability.observer.logs import LineEncoder
from observability.observer.metrics import RecordMetrics
from observability.observer.notes import Notes
from observability.observer.sinks import RecordSinks
from observability.observer.spans import SpanEncoder
from observability.observer.tracing import open_export, tracing_of
from observability.observer.uploads import open_uploads, uploading_of

LINES_TIMEOUT_S = 2.0
SPANS_TIMEOUT_S = 5.0
"""At the end. Who takes our lines and spans at all takes a full queue of them in a second or two."""


async def observe(index: int, runtime: Path) -> None:
    """Be observer `index` until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    lines = log.set_up("observer", runtime=runtime)
    logger = log.get_logger(__name__)
    drops = DropCounters()
    tracing, destination, uploading = tracing_of(os.environ), destination_of(os.environ), uploading_of(os.environ)
    for complaint in dict.fromkeys((*tracing.complaints, *destination.complaints, *uploading.complaints)):
        logger.warning("environment_not_understood", complaint=complaint)
    export = None
    if tracing.exporters:
        try:
            export = open_export(os.environ, tracing, lines, drops.spans)
        except Exception as error:  # noqa: BLE001 - a variable we do not know of must not cost the log and the metrics
            logger.error("environment_not_understood", complaint=without_secrets(f"{error!r}; there are no spans"))
    events = _open_events(destination, drops, logger)
    uploads = open_uploads(uploading, drops.content)
    latest = names.wants_latest(os.environ)
    spans = (SpanEncoder(tracing.length_max, latest=latest), export) if export is not None else None
    metrics = RecordMetrics(known=runtime / METRICS_FOLDER / "known", latest=latest)
    sinks = RecordSinks(
        metrics,
        lines,
        drops,
        spans,
        LineEncoder(latest=latest),
        content_on_spans=destination.on_spans,
        events=events,
        uploads=uploads,
    )
    intake = Intake(socket_path(runtime, index), loop, sinks)
    notes = Notes(runtime / METRICS_FOLDER, index, metrics, lines, export)
    notes.keep()
    logger.info("observer_started", index=index, tracing=list(tracing.exporters))
    await stop.wait()
    intake.drain()
    if not await asyncio.to_thread(lines.flush, LINES_TIMEOUT_S):
        lines.abandon()  # before the workers hear that we are gone: each line is counted by one of us only
    await asyncio.sleep(0)  # one turn of the loop: the acknowledgements of those lines
    intake.close()
    closing = [asyncio.to_thread(one.close, SPANS_TIMEOUT_S) for one in (export, events, uploads) if one is not None]
    await asyncio.gather(*closing)
    logger.info("observer_stopped", index=index, malformed_batches=intake.malformed, spans_dropped=drops.spans_dropped)
    await asyncio.to_thread(lines.close, LINES_TIMEOUT_S)
    notes.end()  # after the last line: it tells how much waits


def _open_events(destination: Destination, drops: DropCounters, logger: FilteringBoundLogger) -> SpanExport | None:
    """The way of recorded content as events, where it is asked for."""
    if not destination.events:
        return None

    def dropped(reason: str, count: int) -> None:
        drops.content(f"event_{reason}", count)

    try:
        return open_events(os.environ, destination, dropped)
    except Exception as error:  # noqa: BLE001 - as above
        logger.error("environment_not_understood", complaint=without_secrets(f"{error!r}; there are no events"))
        return None
