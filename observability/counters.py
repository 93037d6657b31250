"""Counters that a process keeps by itself, in prometheus-client's files where the host has them.

`sluiceway.requests` is counted by the worker, so that it is exact while observers are slow, shedding or dead. With
PROMETHEUS_MULTIPROC_DIR set before this module is imported, each process counts in a memory-mapped file that outlives
it, and `observability.exposition` adds the files up; without it (a test) the counts are the process's own.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter

from observability import names

SERIES_MAX: Final = 10_000
"""Label sets of one process. Model APIs x consumers x services x outcomes that occur are some hundreds; a status or a
configuration gone wild ends in the series of `other`, 100 bytes each."""

OTHER: Final = "other"


class RequestCounter:
    """`sluiceway_requests_total{model_api,consumer,service,outcome,status}`; one instance in a process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._counter = Counter(
            names.prometheus_name(names.SLUICEWAY_REQUESTS),
            "Requests on the data listener, refused ones included",
            ("model_api", "consumer", "service", "outcome", "status"),
            registry=registry,
        )
        self._series: dict[tuple[str, str, str, str, int], Counter] = {}

    def count(self, model_api: str, consumer: str, service: str, outcome: str, status: int) -> None:
        """Count one finished request; about 1 µs. What is unknown is the empty string; `status` as in the record."""
        key = (model_api, consumer, service, outcome, status)
        series = self._series.get(key)
        if series is None:
            series = self._make(key)
        series.inc()

    def _make(self, key: tuple[str, str, str, str, int]) -> Counter:
        if len(self._series) >= SERIES_MAX:
            return self._counter.labels(OTHER, OTHER, OTHER, key[3], OTHER)
        series = self._series[key] = self._counter.labels(*map(str, key))
        return series


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

    def records(self, reason: str, count: int = 1) -> None:
        """Lines shed: lines_blocked, behind or malformed."""
        self._records.labels(reason).inc(count)

    def spans(self, reason: str, count: int = 1) -> None:
        """Spans shed: queue_full, behind, export_failed, shutdown or malformed."""
        self._spans.labels(reason).inc(count)
