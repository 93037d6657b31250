"""What an observer sheds, counted in prometheus-client's files (PROMETHEUS_MULTIPROC_DIR), added up by `exposition`.

Each reason is there from the start with 0: an alert on a rate must see the first one that is shed.
"""

import threading
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from observability import names

RECORDS: Final = ("lines_blocked", "lines_failed", "behind", "malformed")
SPANS: Final = ("queue_full", "behind", "export_failed", "rejected", "shutdown", "malformed")


class DropCounters:
    """What an observer sheds: records whose line was not written, and spans. Callable from any thread."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._records = Counter(
            names.prometheus_name(names.SLUICEWAY_RECORDS_DROPPED),
            "Requests that have no line in the log, by reason",
            ("reason",),
            registry=registry,
        )
        self._spans = Counter(
            names.prometheus_name(names.SLUICEWAY_SPANS_DROPPED),
            "Spans that were not delivered; their requests are in the log and the metrics all the same",
            ("reason",),
            registry=registry,
        )
        self._content = Counter(
            names.prometheus_name(names.SLUICEWAY_CONTENT_DROPPED),
            "Lines and spans without the content that was recorded for them, by reason",
            ("reason",),
            registry=registry,
        )
        self._lock = threading.Lock()
        self.spans_dropped = 0
        """In all, for the last line of a process, whose metrics end with the gateway."""

        for reason in RECORDS:
            self._records.labels(reason)
        for reason in SPANS:
            self._spans.labels(reason)

    def records(self, reason: str, count: int = 1) -> None:
        """Lines shed; one of RECORDS."""
        self._records.labels(reason).inc(count)

    def spans(self, reason: str, count: int = 1) -> None:
        """Spans shed; one of SPANS."""
        self._spans.labels(reason).inc(count)
        with self._lock:
            self.spans_dropped += count

    def content(self, reason: str, count: int = 1) -> None:
        """One record's content left out: overload, shed, behind, redaction or failed (in line and spans), or
        lines_crowded or spans_crowded; event_ and a reason as of spans; upload_ and why it is not stored."""
        self._content.labels(reason).inc(count)
