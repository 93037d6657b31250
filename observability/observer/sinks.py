"""Where the parts of a record go: metrics, spans, line; each may fail or be shed without the others.

Content (`names.CONTENT`) goes first: from line and spans where the observer is behind, and from either alone where its
own queue is more than half full, for a queue holds thousands of plain records and some hundreds with content.
"""

from collections.abc import Callable
from typing import Any

from observability import names
from observability.counters import DropCounters
from observability.facts import Facts, unpack
from observability.lines import LineWriter
from observability.log import get_logger
from observability.observer.content.attach import attach
from observability.observer.content.stash import Contents
from observability.observer.events import event_of, without_content
from observability.observer.export import BATCH_BYTES_MAX, SpanExport
from observability.observer.intake import Load
from observability.observer.logs import LineEncoder
from observability.observer.metrics import RecordMetrics
from observability.observer.naming import record_of
from observability.observer.spans import SpanEncoder
from observability.observer.uploads import Uploads
from observability.record import Record

_log = get_logger(__name__)


class RecordSinks:
    """The rooms of an observer behind one call. `tracing` is None where it is off."""

    def __init__(
        self,
        metrics: RecordMetrics,
        lines: LineWriter,
        drops: DropCounters,
        tracing: tuple[SpanEncoder, SpanExport] | None,
        line_encoder: LineEncoder | None = None,
        *,
        content_on_spans: bool = True,
        events: SpanExport | None = None,
        uploads: Uploads | None = None,
    ) -> None:
        """`events`: recorded content goes out as events too. `uploads`: it is stored, and lines say where only."""
        self._metrics = metrics
        self._lines = lines
        self._drops = drops
        self._tracing = tracing
        self._content_max = None if tracing is None or not content_on_spans else tracing[0].length_max
        self._line_encoder = line_encoder or LineEncoder()
        self._content_on_spans = content_on_spans
        self._events = events
        self._uploads = uploads

    def take(self, batch: list[Any], load: Load, settled: Callable[[int], None], contents: Contents) -> None:
        """Work through a batch: `intake.Sinks`."""
        records = self._named(batch, load, contents)
        if load is not Load.ALL:
            self._shed_content(records, "behind")
        for record in records:
            try:
                self._metrics.observe(record)
            except Exception:  # noqa: BLE001  (a record that is odd in one way must not cost the other 30 of its batch)
                _log.exception("metrics_failed")
        if self._uploads is not None:
            self._uploads.take(records)
        if self._events is not None:
            self._take_events(self._events, records)
        if self._tracing is not None:
            self._take_spans(*self._tracing, records, load)
        self._take_lines(records, load, lambda: settled(len(batch)))

    def _shed_content(self, records: list[Record], reason: str) -> None:
        """Take the content out of all these, and count those that had some."""
        for record in records:
            fields = record["fields"]
            if not names.CONTENT.isdisjoint(fields):
                record["fields"] = {name: value for name, value in fields.items() if name not in names.CONTENT}
                self._drops.content(reason)

    def _spared(self, records: list[Record], reason: str) -> list[Record]:
        """The same without content, for one of two who take them."""
        copies = [record.copy() for record in records]
        self._shed_content(copies, reason)
        return copies

    def _named(self, batch: list[Any], load: Load, contents: Contents) -> list[Record]:
        records = []
        for packed in batch:
            try:
                facts = unpack(packed)
                record = record_of(facts)
                if facts.content is not None:
                    self._add_content(record, facts, load, contents)
                records.append(record)
            except Exception:  # noqa: BLE001  (as below)
                _log.exception("record_malformed")
                self._drops.records("malformed")
        return records

    def _add_content(self, record: Record, facts: Facts, load: Load, contents: Contents) -> None:
        reason: str | None = "behind"
        try:
            if load is Load.ALL:
                reason = attach(record, facts, contents, self._content_max)
            else:
                contents.claim(facts.request_id)
        except Exception as error:  # noqa: BLE001  (as below; and nothing of what was half made)
            # not its message, nor its frames: they have the content
            _log.error("content_failed", error=type(error).__name__, request_id=facts.request_id)
            reason = "failed"
        if reason is not None:
            record["fields"][names.SLUICEWAY_CONTENT_DROPPED] = reason
            self._drops.content(reason)

    def _take_events(self, export: SpanExport, records: list[Record]) -> None:
        for record in records:
            try:
                event = event_of(record)
            except Exception as error:  # noqa: BLE001  (as below; without what it was about)
                _log.error("event_failed", error=type(error).__name__)
                self._drops.content("event_failed")
                continue
            if event is not None:
                export.offer(event, 1)

    def _take_spans(self, encoder: SpanEncoder, export: SpanExport, records: list[Record], load: Load) -> None:
        if not self._content_on_spans:
            records = [without_content(record) for record in records]
        if export.crowded:
            records = self._spared(records, "spans_crowded")
        for record in records:
            try:
                if load >= Load.NO_SPANS:
                    self._drops.spans("behind", _span_count(record))
                    continue
                spans = encoder.encode(record)
                data = b"".join(spans)
                if len(data) > BATCH_BYTES_MAX:  # a collector would refuse it whole
                    (spare,) = self._spared([record], "spans_oversize")
                    data = b"".join(encoder.encode(spare))
            except Exception:  # noqa: BLE001  (as above)
                _log.exception("spans_failed")
                self._drops.spans("malformed", _span_count(record))
                continue
            if spans:
                export.offer(data, len(spans))

    def _take_lines(self, records: list[Record], load: Load, settled: Callable[[], None]) -> None:
        if self._uploads is not None:
            records = [without_content(record) for record in records]
        elif self._lines.crowded:
            records = self._spared(records, "lines_crowded")
        lines: list[bytes] = []
        encode = self._line_encoder.encode
        shed = 0
        for record in records:
            try:
                if not record["logging"]:
                    continue
                if load is Load.METRICS_ONLY:
                    shed += 1
                    continue
                lines.append(encode(record))
            except Exception:  # noqa: BLE001  (as above)
                _log.exception("line_failed")
                self._drops.records("malformed")
        if shed:
            self._drops.records("behind", shed)
        if not lines:
            settled()
            return
        count = len(lines)
        drops = self._drops

        def settle(lost: int) -> None:
            if lost:
                drops.records("lines_failed", lost)
            settled()

        if not self._lines.write(b"".join(lines), settle):
            drops.records("lines_blocked", count)
            settled()


def _span_count(record: Record) -> int:
    if not (record["sampled"] and record["tracing"]):
        return 0
    attempts = len(record.get("attempts", ()))
    return 1 + ("client" in record) + (attempts if attempts > 1 else 0)
