"""The metrics of a host over OTLP: what /metrics shows, in OpenTelemetry's names, units and shapes.

One process of a host sends them (control), from the same files as `observability.exposition`: the sums of all workers
and observers, living and dead. So they are one series each, whatever is restarted, and the SDK's own instruments, which
live and die with a process, are not needed: its exporters are.

Cumulative numbers count from the host's start. Delta ones are what was added since the last time that a collector took
them; that is kept in a file, so that nothing is counted twice or lost when this process is started again. What a
collector refuses is in the next delta.

Imports OpenTelemetry, 25 MB: only where it is wanted (`observability.metrics_settings`).
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import Metric as Family
from prometheus_client.samples import Exemplar as FamilyExemplar

from observability import names
from observability.environment import SCOPE, resource, scope_version
from observability.log import get_logger

MESSAGE_BYTES_MAX = 3 << 20
"""Of one message, by `_Series.size`: collectors take 4 MiB by default. A histogram's point has some 0.7 KiB, and 3
where the models have long names that are not Latin."""

_SECONDS: Final = (
    names.GEN_AI_CLIENT_OPERATION_DURATION,
    names.GEN_AI_CLIENT_INFERENCE_DURATION,
    names.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK,
    names.GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK,
    names.GEN_AI_SERVER_REQUEST_DURATION,
    names.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN,
    names.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN,
    names.SLUICEWAY_OVERHEAD_DURATION,
)
_TOKENS: Final = (
    names.GEN_AI_CLIENT_TOKEN_USAGE,
    names.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS,
    names.GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS,
    names.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS,
    names.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS,
    names.GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS,
    names.GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS,
    names.GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS,
)
_COUNTS: Final = (
    (names.SLUICEWAY_REQUESTS, "{request}"),
    (names.SLUICEWAY_ERRORS, "{request}"),
    (names.SLUICEWAY_TOKENS, "{token}"),
    (names.SLUICEWAY_ATTEMPTS, "{attempt}"),
    (names.SLUICEWAY_IMAGES, "{image}"),
    (names.SLUICEWAY_COST, "{cost}"),
    (names.SLUICEWAY_RECORDS_DROPPED, "{record}"),
    (names.SLUICEWAY_SPANS_DROPPED, "{span}"),
    (names.SLUICEWAY_CONTENT_DROPPED, "{record}"),
    (names.SLUICEWAY_METRICS_EXPORT_FAILURES, "{export}"),
    (names.HTTP_SERVER_ACTIVE_REQUESTS, "{request}"),
    (names.SLUICEWAY_CONNECTIONS, "{connection}"),
    (names.SLUICEWAY_CONFIG_GENERATION, "1"),
    (names.SLUICEWAY_MODEL_API_INFO, "1"),
)
_BYTES: Final = (names.SLUICEWAY_RECORDS_QUEUED, names.SLUICEWAY_SPANS_QUEUED, names.SLUICEWAY_LINES_QUEUED)
_KNOWN: Final = {
    **{names.prometheus_name(name, "seconds"): (name, "s") for name in _SECONDS},
    **{names.prometheus_name(name): (name, "{token}") for name in _TOKENS},
    **{names.prometheus_name(name): (name, unit) for name, unit in _COUNTS},
    **{names.prometheus_name(name, "bytes"): (name, "By") for name in _BYTES},
}
"""Prometheus' name of a family → OpenTelemetry's, and its unit."""

_ADDED_UP: Final = frozenset({names.HTTP_SERVER_ACTIVE_REQUESTS, names.SLUICEWAY_CONNECTIONS})
"""Gauges that make sense as a sum over workers and hosts: up-down counters, in OpenTelemetry's words."""

_ATTRIBUTES: Final = {
    names.prometheus_name(name): name
    for name in (
        names.GEN_AI_OPERATION_NAME,
        names.GEN_AI_PROVIDER_NAME,
        names.GEN_AI_REQUEST_MODEL,
        names.GEN_AI_RESPONSE_MODEL,
        names.GEN_AI_TOKEN_TYPE,
        names.GEN_AI_TOKEN_MODALITY,
        names.ERROR_TYPE,
        names.SLUICEWAY_MODEL_API,
    )
}

_Labels = tuple[tuple[str, str], ...]
_Numbers = list[float]
"""Of a counter its one; of a histogram the counts of its buckets, the last one's without a bound, and the sum."""

_log = get_logger(__name__)


class _Series(NamedTuple):
    """One line of a family."""

    labels: _Labels
    numbers: _Numbers
    bounds: Sequence[float] = ()
    """Of a histogram's buckets, but for the last."""
    exemplars: Sequence[Exemplar] = ()

    @property
    def size(self) -> int:
        """Bytes of its point, nearly: numbers have eight, an attribute ten beside its texts, an exemplar sixty."""
        texts = sum(10 + len(_ATTRIBUTES.get(name, name)) + len(value.encode()) for name, value in self.labels)
        return 64 + texts + 8 * (len(self.numbers) + len(self.bounds)) + 64 * len(self.exemplars)


class HostMetrics:
    """Sends what `collect` gives to an exporter, as often as it is told. Used in one thread at a time."""

    def __init__(self, exporter: MetricExporter, started_ns: int, sent: Path | None) -> None:
        """`started_ns`: of the host, Unix time. `sent`: where delta numbers are remembered; None: cumulative ones."""
        self._exporter = exporter
        self._started_ns = started_ns
        self._sent = _Sent(sent, started_ns) if sent is not None else None
        self._resource = resource()
        self._scope = InstrumentationScope(SCOPE, scope_version())

    def export(self, families: Iterable[Family], now_ns: int) -> bool:
        """Send all; False where some of it was not taken. Blocks, as long as the exporter's timeout allows."""
        whole = True
        for metrics, numbers in self._messages(families, now_ns):
            scoped = ScopeMetrics(self._scope, metrics, "")
            data = MetricsData([ResourceMetrics(self._resource, [scoped], self._resource.schema_url)])
            if self._exporter.export(data) is not MetricExportResult.SUCCESS:
                whole = False
            elif self._sent is not None:
                self._sent.take(numbers, now_ns)
        if self._sent is not None:
            self._sent.keep()
        return whole

    def shutdown(self) -> None:
        """Give up waiting and retrying."""
        self._exporter.shutdown()

    def _messages(
        self, families: Iterable[Family], now_ns: int
    ) -> Iterator[tuple[list[Metric], dict[tuple[str, _Labels], _Numbers]]]:
        """Metrics of MESSAGE_BYTES_MAX at most, and the numbers that are in them."""
        metrics: list[Metric] = []
        numbers: dict[tuple[str, _Labels], _Numbers] = {}
        room = MESSAGE_BYTES_MAX
        for family in families:
            if family.name not in _KNOWN:
                continue
            part: list[_Series] = []
            for one in _series(family):
                if one.size > room and numbers:
                    if part:
                        metrics.append(self._metric(family, part, now_ns))
                    yield metrics, numbers
                    metrics, numbers, part, room = [], {}, [], MESSAGE_BYTES_MAX
                part.append(one)
                numbers[family.name, one.labels] = one.numbers
                room -= one.size
            if part:
                metrics.append(self._metric(family, part, now_ns))
        if metrics:
            yield metrics, numbers

    def _metric(self, family: Family, series: Sequence[_Series], now_ns: int) -> Metric:
        name, unit = _KNOWN[family.name]
        temporality = AggregationTemporality.CUMULATIVE if self._sent is None else AggregationTemporality.DELTA
        data: Sum | Gauge | Histogram
        if family.type == "gauge":
            points = [_number(one.labels, one.numbers[0], self._started_ns, now_ns) for one in series]
            data = Gauge(points)
            if name in _ADDED_UP:
                data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=False)
        elif family.type == "histogram":
            data = Histogram([self._histogram(family.name, one, now_ns) for one in series], temporality)
        else:
            counts: list[NumberDataPoint] = []
            for one in series:
                since_ns, (added,) = self._added(family.name, one)
                counts.append(_number(one.labels, added, since_ns, now_ns, whole=name != names.SLUICEWAY_COST))
            data = Sum(counts, temporality, is_monotonic=True)
        return Metric(name, family.documentation, unit, data)

    def _histogram(self, family: str, one: _Series, now_ns: int) -> HistogramDataPoint:
        since_ns, added = self._added(family, one)
        counts = [round(count) for count in added[:-1]]
        exemplars = [exemplar for exemplar in one.exemplars if exemplar.time_unix_nano >= since_ns]
        nothing: Any = None  # least and greatest are in no file
        return HistogramDataPoint(
            _attributes(one.labels),
            since_ns,
            now_ns,
            sum(counts),
            added[-1],
            counts,
            one.bounds,
            nothing,
            nothing,
            exemplars,
        )

    def _added(self, family: str, one: _Series) -> tuple[int, _Numbers]:
        if self._sent is None:
            return self._started_ns, one.numbers
        return self._sent.since_ns(family, one.labels), self._sent.added(family, one.labels, one.numbers)


class _Sent:
    """What a collector has taken, series by series, with the time until which. Kept in a file."""

    def __init__(self, path: Path, started_ns: int) -> None:
        self._path = path
        self._started_ns = started_ns
        self._taken: dict[tuple[str, _Labels], tuple[int, _Numbers]] = {}
        try:
            for family, labels, until_ns, numbers in orjson.loads(path.read_bytes()):
                self._taken[family, tuple((name, value) for name, value in labels)] = until_ns, numbers
        except (OSError, ValueError, TypeError):  # the first time, or cut: then all from the start is new
            self._taken.clear()

    def since_ns(self, family: str, labels: _Labels) -> int:
        """The beginning of the next interval."""
        taken = self._taken.get((family, labels))
        return self._started_ns if taken is None else taken[0]

    def added(self, family: str, labels: _Labels, numbers: _Numbers) -> _Numbers:
        """What has come since."""
        taken = self._taken.get((family, labels))
        if taken is None or len(taken[1]) != len(numbers):
            return numbers
        return [max(0.0, now - then) for now, then in zip(numbers, taken[1], strict=True)]

    def take(self, numbers: dict[tuple[str, _Labels], _Numbers], until_ns: int) -> None:
        """These have arrived."""
        for (family, labels), values in numbers.items():
            _, before = self._taken.get((family, labels), (0, values))
            # a file of a process that could not be read for once makes sums smaller, and is no reason to begin again
            kept = [max(pair) for pair in zip(before, values, strict=True)] if len(before) == len(values) else values
            self._taken[family, labels] = until_ns, kept

    def keep(self) -> None:
        """Write it down, for the process after this one."""
        rows = [(family, labels, *taken) for (family, labels), taken in self._taken.items()]
        new = self._path.with_suffix(".new")
        try:
            new.write_bytes(orjson.dumps(rows))
            new.replace(self._path)
        except OSError as error:
            _log.warning("metrics_not_remembered", reason=str(error))


def _series(family: Family) -> Iterator[_Series]:
    """Every series of a family."""
    if family.type != "histogram":
        for sample in family.samples:
            if sample.name.endswith("_created"):  # of counts in memory; files have none
                continue
            yield _Series(tuple(sorted(sample.labels.items())), [float(sample.value)])
        return
    buckets: dict[_Labels, dict[float, float]] = {}
    sums: dict[_Labels, float] = {}
    exemplars: dict[_Labels, list[Exemplar]] = {}
    for sample in family.samples:
        labels = tuple(sorted(item for item in sample.labels.items() if item[0] != "le"))
        if "le" in sample.labels:
            buckets.setdefault(labels, {})[float(sample.labels["le"])] = float(sample.value)
            if sample.exemplar is not None:
                exemplars.setdefault(labels, []).append(_exemplar(sample.exemplar))
        elif sample.name.endswith("_sum"):
            sums[labels] = float(sample.value)
    for labels, counted in buckets.items():
        bounds = sorted(counted)
        totals = [0.0, *(counted[bound] for bound in bounds)]
        numbers = [upper - lower for lower, upper in pairwise(totals)]
        yield _Series(labels, [*numbers, sums.get(labels, 0.0)], bounds[:-1], exemplars.get(labels, ()))


def _exemplar(kept: FamilyExemplar) -> Exemplar:
    ids = {name: int(digits, 16) for name, digits in kept.labels.items()}
    return Exemplar({}, kept.value, round(float(kept.timestamp or 0) * 1e9), ids["span_id"], ids["trace_id"])


def _number(labels: _Labels, value: float, since_ns: int, now_ns: int, *, whole: bool = True) -> NumberDataPoint:
    return NumberDataPoint(_attributes(labels), since_ns, now_ns, round(value) if whole else value)


def _attributes(labels: _Labels) -> dict[str, str]:
    """What is empty at Prometheus is absent here."""
    return {_ATTRIBUTES.get(name, name): value for name, value in labels if value}
