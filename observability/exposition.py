"""`GET /metrics`: the Prometheus text of the whole host.

What all processes, living and dead, counted in `<runtime>/metrics` (observers in prometheus-client's files, workers in
their tallies), and what the board knows: drops, running requests, connections, generations. A file that cannot be read
(its process was killed while it was made) is left out, the others count.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics_text
from prometheus_client.registry import Collector

from observability import names, queues
from observability.board import DROP_REASONS, Board, Cell
from observability.exemplars import with_exemplars
from observability.metrics_settings import failures_of
from observability.tally import LABELS, request_totals

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS_CONTENT_TYPE = openmetrics_text.CONTENT_TYPE_LATEST

METRICS_FOLDER = "metrics"
"""In the runtime directory: the value of PROMETHEUS_MULTIPROC_DIR."""


def exposition(runtime_dir: Path, board: Board, described: Iterable[Mapping[str, str]] = ()) -> bytes:
    """The metrics of this host, as `CONTENT_TYPE`. `described`: of each Model API what `description` makes.

    Reads and adds up files: some ms for a small host, longer with thousands of series. Call it in a thread.
    """
    registry = CollectorRegistry()
    registry.register(HostCollector(runtime_dir / METRICS_FOLDER, board, described))
    return generate_latest(registry)


def openmetrics(runtime_dir: Path, board: Board, described: Iterable[Mapping[str, str]] = ()) -> bytes:
    """The same as `OPENMETRICS_CONTENT_TYPE`, with exemplars: traces that are behind the buckets."""
    registry = CollectorRegistry()
    registry.register(HostCollector(runtime_dir / METRICS_FOLDER, board, described, exemplars=True))
    text: bytes = openmetrics_text.generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


def wants_openmetrics(accept: str) -> bool:
    """Does a scraper that sends this `Accept` take OpenMetrics? Prometheus asks for it where exemplars are on."""
    return any(part.split(";")[0].strip() == "application/openmetrics-text" for part in accept.split(","))


def description(model_api: str, scenario: str, resource_group: str, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of `sluiceway_model_api_info` for one Model API. Its own are there as `label_NAME`, with `_` for each
    character that Prometheus does not take; of two that become one the first counts."""
    described = {"model_api": model_api, "scenario": scenario, "resource_group": resource_group}
    for name, value in labels.items():
        described.setdefault("label_" + re.sub(r"[^a-zA-Z0-9_]", "_", name), value)
    return described


class HostCollector(Collector):
    """The files of a folder, the rows of a board and what the configuration says, as one set of metric families."""

    def __init__(
        self, folder: Path, board: Board, described: Iterable[Mapping[str, str]], *, exemplars: bool = False
    ) -> None:
        """`exemplars`: with those that observers have written down, where the reader can use them."""
        self._folder = folder
        self._board = board
        self._described = described
        self._exemplars = exemplars

    def collect(self) -> Iterable[Metric]:
        """All families; drops are one family, whoever counted them."""
        return with_exemplars(self._collect(), self._folder) if self._exemplars else self._collect()

    def _collect(self) -> Iterator[Metric]:
        dropped = CounterMetricFamily(
            names.prometheus_name(names.SLUICEWAY_RECORDS_DROPPED),
            "Requests that have no line in the log, by reason",
            labels=("reason",),
        )
        for reason, cell in DROP_REASONS.items():
            dropped.add_metric((reason,), self._board.total(cell))
        for family in merged(sorted(self._folder.glob("*.db"))):
            if family.name == dropped.name:
                dropped.samples += family.samples
            else:
                yield family
        yield dropped
        yield self._requests()
        yield self._model_apis()
        yield CounterMetricFamily(
            names.prometheus_name(names.SLUICEWAY_METRICS_EXPORT_FAILURES),
            "Times that the collector did not take these numbers, or not all of them",
            value=failures_of(self._folder),
        )
        yield from self._gauges()
        yield from self._queues()

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            names.prometheus_name(names.SLUICEWAY_REQUESTS),
            "Requests on the data listener, refused ones included",
            labels=LABELS,
        )
        for labels, count in request_totals(self._folder).items():
            family.add_metric(labels, count)
        return family

    def _queues(self) -> Iterator[Metric]:
        spans, lines = (
            GaugeMetricFamily(names.prometheus_name(name, "bytes"), text, labels=("observer",))
            for name, text in (
                (names.SLUICEWAY_SPANS_QUEUED, "Spans waiting for the collector"),
                (names.SLUICEWAY_LINES_QUEUED, "Lines waiting for who reads them"),
            )
        )
        for observer, queued in queues.read(self._folder):
            spans.add_metric((observer,), queued.spans)
            lines.add_metric((observer,), queued.lines)
        yield from (spans, lines)

    def _model_apis(self) -> Metric:
        name = names.prometheus_name(names.SLUICEWAY_MODEL_API_INFO)
        family = GaugeMetricFamily(name, "1 for each Model API, with what the configuration says of it")
        for labels in self._described:
            family.add_sample(name, dict(labels), 1)
        return family

    def _gauges(self) -> Iterator[Metric]:
        for name, unit, cell, text in (
            (names.HTTP_SERVER_ACTIVE_REQUESTS, "", Cell.ACTIVE, "Requests running now"),
            (names.SLUICEWAY_CONFIG_GENERATION, "", Cell.GENERATION, "The configuration in force; 0: not serving"),
            (names.SLUICEWAY_CONNECTIONS, "", Cell.CONNECTIONS, "Open connections of clients"),
            (names.SLUICEWAY_RECORDS_QUEUED, "bytes", Cell.QUEUED_BYTES, "Records waiting for an observer"),
        ):
            family = GaugeMetricFamily(names.prometheus_name(name, unit), text, labels=("worker",))
            for slot in range(self._board.slots):
                if cell == Cell.GENERATION:
                    value = self._board.generation(slot)
                else:  # two workers share a slot while one is replaced
                    value = sum(row[cell] for row in self._board.lanes(slot))
                family.add_metric((str(slot),), value)
            yield family


def merged(files: list[Path]) -> Iterable[Metric]:
    """The families of prometheus-client's files, added up; unreadable files are left out."""
    try:
        return _merge(files)
    except _UNREADABLE:
        return _merge([file for file in files if _is_readable(file)])


_UNREADABLE = (OSError, ValueError, RuntimeError, IndexError, struct.error)
"""What reading an empty, cut or overwritten file raises, JSON and UTF-8 errors among it."""


def _merge(files: list[Path]) -> Iterable[Metric]:
    families: Iterable[Metric] = MultiProcessCollector.merge(  # type: ignore[no-untyped-call]
        [str(file) for file in files], accumulate=True
    )
    return families


def _is_readable(file: Path) -> bool:
    try:
        _merge([file])
    except _UNREADABLE:
        return False
    return True
