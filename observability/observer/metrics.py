"""A record's metrics: the GenAI histograms and Sluiceway's own, in prometheus-client's multiprocess files.

PROMETHEUS_MULTIPROC_DIR has to be set before prometheus_client is imported for the first time (`observer.main` sees
to it); without it the metrics live in this process alone, as tests want them.

Label values come from callers and providers, so their number is bounded: a model name beyond the first 200 becomes
`other`, an error type beyond the first 100 `_OTHER`, and after 2,000 label sets (the SDK's own limit for an instrument)
models are no longer told apart. The names are kept in files too, which all observers of a host share: the counts of an
observer outlive it, so a new set of 200 names for each restart would be no bound, and a model that is `other` at one of
them and has its name at the next would have no right sum.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
from prometheus_client import CollectorRegistry, Counter

from observability import names, whole_lines
from observability.exemplars import Seen, Trace
from observability.observer.quick_histogram import QuickHistogram
from observability.observer.shares import Shares
from observability.observer.token_metrics import InferenceUsage, TokenMetrics, TokenUsage
from observability.record import Record

MODELS_MAX: Final = 200
ERROR_TYPES_MAX = 100
SERIES_MAX: Final = 2000
OTHER: Final = "other"
OTHER_ERROR: Final = "_OTHER"

_LABELS: Final = tuple(
    names.prometheus_name(name)
    for name in (
        names.GEN_AI_OPERATION_NAME,
        names.GEN_AI_PROVIDER_NAME,
        names.GEN_AI_REQUEST_MODEL,
        names.GEN_AI_RESPONSE_MODEL,
        names.ERROR_TYPE,
        names.SLUICEWAY_MODEL_API,
    )
)
_COST_LABELS: Final = ("model_api", "consumer", "service", "model", "currency")
_REPORTED: Final = frozenset({names.USAGE_UPSTREAM, names.USAGE_PARTIAL})
"""Usage that the upstream named. An estimate is a fact of the log line, but no measurement."""

_Key = tuple[str, str, str, str, str, str]


class _Names:
    """The first `limit` values that come; all others are `other`. With a file, they are the first of all observers.

    Two that find the last room at once may both take it: there are at most as many too much as there are observers.
    """

    def __init__(self, limit: int, other: str, path: Path | None) -> None:
        self._known: dict[str, str] = {"": ""}
        self._limit = limit
        self._other = other
        self._path = path
        self._read_bytes = 0
        if path is not None:
            with contextlib.suppress(OSError):
                whole_lines.begin(path)
            self._learn(path)

    def _learn(self, path: Path) -> None:
        """What has been written since the last time, by whomever."""
        lines = whole_lines.since(path, self._read_bytes)
        self._read_bytes += len(lines)
        for line in lines.split(b"\n"):
            with contextlib.suppress(orjson.JSONDecodeError):
                value = orjson.loads(line)
                if isinstance(value, str) and not self._full:
                    self._known[value] = _printable(value)

    @property
    def _full(self) -> bool:
        return len(self._known) > self._limit

    def bounded(self, value: str) -> str:
        known = self._known.get(value)
        if known is None and not self._full:
            if self._path is not None:
                self._learn(self._path)
            known = self._known.get(value)
            if known is None and not self._full:
                known = self._known[value] = _printable(value)
                if self._path is not None:
                    whole_lines.append(self._path, orjson.dumps(value) + b"\n")
        return self._other if known is None else known


def _printable(value: str) -> str:
    """Prometheus reads no page in which a label has a NUL, and a model's name is the caller's to choose."""
    return (
        value
        if value.isprintable()
        else "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in value)
    )


class _Series:
    """The histograms of one label set, made when they are first needed: an unused one would be 16 lines of zeros."""

    __slots__ = ("_of", "duration", "first_chunk", "key", "per_token", "request", "ttft")

    def __init__(self, key: _Key, of: "RecordMetrics") -> None:
        self.key = key
        self._of = of
        self.request = of.request_duration.labels(*key)
        self.duration: QuickHistogram | None = None
        self.first_chunk: QuickHistogram | None = None
        self.ttft: QuickHistogram | None = None
        self.per_token: QuickHistogram | None = None

    def observe_duration(self, duration_s: float, trace: Trace | None) -> None:
        if self.duration is None:
            self.duration = self._of.duration_of(self.key[0]).labels(*self.key)
        self.duration.count(duration_s, trace)

    def observe_first_chunk(self, first_chunk_s: float, trace: Trace | None) -> None:
        if self.first_chunk is None:
            self.first_chunk = self._of.first_chunk_of(self.key[0]).labels(*self.key)
        self.first_chunk.count(first_chunk_s, trace)

    def observe_ttft(self, ttft_s: float, trace: Trace | None) -> None:
        if self.ttft is None:
            self.ttft = self._of.time_to_first_token.labels(*self.key)
        self.ttft.count(ttft_s, trace)

    def observe_per_token(self, per_token_s: float, trace: Trace | None) -> None:
        if self.per_token is None:
            self.per_token = self._of.time_per_output_token.labels(*self.key)
        self.per_token.count(per_token_s, trace)


def _histogram(
    name: str,
    text: str,
    buckets: tuple[float, ...],
    registry: CollectorRegistry | None,
    labels: tuple[str, ...] = _LABELS,
) -> QuickHistogram:
    return QuickHistogram(names.prometheus_name(name, "seconds"), text, labels, buckets=buckets, registry=registry)


def _pair(
    name: str, of_inference: str | None, text: str, registry: CollectorRegistry | None
) -> tuple[QuickHistogram, QuickHistogram]:
    """Of what the upstream took: of all operations, or beside it one of inference."""
    general = _histogram(name, text, names.DURATION_BUCKETS, registry)
    if of_inference is None:
        return general, general
    return general, _histogram(of_inference, text, names.DURATION_BUCKETS, registry)


class RecordMetrics:
    """All metrics that come from records; one instance in a process."""

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        known: Path | None = None,
        *,
        latest: bool = False,
    ) -> None:
        """`known`: beginning of the names of the files with the known names, the same for all observers of a host.

        `latest`: by the latest conventions (`names.LATEST_OPT_IN`).
        """
        text = "The upstream's time: first attempt until the response was whole"
        name, newer = names.GEN_AI_CLIENT_OPERATION_DURATION, names.GEN_AI_CLIENT_INFERENCE_DURATION
        self.operation_duration, self.inference_duration = _pair(name, newer if latest else None, text, registry)
        text = "Streams: from the start of the last attempt until its first event"
        name, newer = (
            names.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK,
            names.GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK,
        )
        self.operation_first_chunk, self.inference_first_chunk = _pair(name, newer if latest else None, text, registry)
        self._tokens: TokenMetrics = (InferenceUsage if latest else TokenUsage)(_LABELS, registry)
        text = "Accept until the answer was out"
        self.request_duration = _histogram(names.GEN_AI_SERVER_REQUEST_DURATION, text, names.DURATION_BUCKETS, registry)
        text = "Streams that succeeded: accept until the first event with output"
        self.time_to_first_token = _histogram(
            names.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN, text, names.TIME_TO_FIRST_TOKEN_BUCKETS, registry
        )
        text = "Streams that succeeded: mean pace after the first token"
        self.time_per_output_token = _histogram(
            names.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN, text, names.TIME_PER_OUTPUT_TOKEN_BUCKETS, registry
        )
        text = "The gateway's own time: duration less the waits for client and upstream"
        self.overhead = _histogram(
            names.SLUICEWAY_OVERHEAD_DURATION, text, names.OVERHEAD_BUCKETS, registry, ("model_api",)
        )
        self.images = Counter(
            names.prometheus_name(names.SLUICEWAY_IMAGES), "Images made", ("model_api",), registry=registry
        )
        self.cost = Counter(
            names.prometheus_name(names.SLUICEWAY_COST), "Cost by the prices file", _COST_LABELS, registry=registry
        )
        self.attempts = Counter(
            names.prometheus_name(names.SLUICEWAY_ATTEMPTS),
            "Attempts at an upstream",
            ("model_api", "service", "verdict"),
            registry=registry,
        )
        self._exemplars = False
        self._models = _Names(MODELS_MAX, OTHER, known and known.with_suffix(".models"))
        self._error_types = _Names(ERROR_TYPES_MAX, OTHER_ERROR, known and known.with_suffix(".error_types"))
        self._series: dict[_Key, _Series] = {}
        self._shares = Shares(self._error_types.bounded, registry)
        self._overhead: dict[str, QuickHistogram] = {}
        self._attempts: dict[tuple[str, str, str], Counter] = {}
        self._costs: dict[tuple[str, str, str, str, str], Counter] = {}

    def keep_exemplars(self) -> None:
        """From now on, of the requests that are traced."""
        self._exemplars = True

    def exemplars(self) -> Iterator[Seen]:
        """What was seen last in each bucket."""
        for histogram in (
            self.request_duration,
            *dict.fromkeys((self.operation_duration, self.inference_duration)),
            *dict.fromkeys((self.operation_first_chunk, self.inference_first_chunk)),
            self.time_to_first_token,
            self.time_per_output_token,
            self.overhead,
            *self._tokens.histograms,
        ):
            yield from histogram.exemplars()

    def duration_of(self, operation: str) -> QuickHistogram:
        """Of the upstream's time: the latest conventions have two."""
        return self.inference_duration if operation in names.INFERENCE else self.operation_duration

    def first_chunk_of(self, operation: str) -> QuickHistogram:
        """Likewise."""
        return self.inference_first_chunk if operation in names.INFERENCE else self.operation_first_chunk

    def observe(self, record: Record) -> None:
        """Count one record. Durations are taken in seconds from the fields' milliseconds."""
        if not record["metrics"]:
            return
        fields = record["fields"]
        model_api: str = fields.get(names.SLUICEWAY_MODEL_API, "")
        trace = None
        if self._exemplars and record["sampled"] and record["tracing"]:
            trace = Trace(record["trace_id"], record["span_id"], record["end_ns"] / 1e9)
        overhead_ms = fields.get(names.SLUICEWAY_OVERHEAD_MS)
        if overhead_ms is not None:
            overhead = self._overhead.get(model_api)
            if overhead is None:
                overhead = self._overhead[model_api] = self.overhead.labels(model_api)
            overhead.count(overhead_ms / 1e3, trace)
        images = fields.get(names.SLUICEWAY_USAGE_IMAGES)
        if images:
            self.images.labels(model_api).inc(images)
        if names.GEN_AI_USAGE_COST in fields:
            self._add_cost(fields, model_api)
        if names.ERROR_TYPE in fields:
            self._shares.add_error(fields, model_api)
        self._count_attempts(record, model_api)
        if names.GEN_AI_OPERATION_NAME in fields:
            self._observe_operation(record, fields, self._series_of(fields, model_api), trace)

    def _add_cost(self, fields: dict[str, Any], model_api: str) -> None:
        model = self._models.bounded(fields.get(names.SLUICEWAY_UPSTREAM_MODEL, ""))
        consumer, service = fields.get(names.SLUICEWAY_CONSUMER, ""), fields.get(names.SLUICEWAY_SERVICE, "")
        key = (model_api, consumer, service, model, fields[names.SLUICEWAY_USAGE_CURRENCY])
        counter = self._costs.get(key)
        if counter is None:
            if len(self._costs) >= SERIES_MAX:
                key = (model_api, OTHER, OTHER, OTHER, key[4])
            counter = self._costs[key] = self.cost.labels(*key)
        counter.inc(fields[names.GEN_AI_USAGE_COST])

    def _count_attempts(self, record: Record, model_api: str) -> None:
        for attempt in record.get("attempts", ()):
            key = (model_api, attempt["service"], attempt["verdict"])
            counter = self._attempts.get(key)
            if counter is None:
                counter = self._attempts[key] = self.attempts.labels(*key)
            counter.inc()

    def _observe_operation(self, record: Record, fields: dict[str, Any], series: _Series, trace: Trace | None) -> None:
        series.request.count(fields.get(names.SLUICEWAY_DURATION_MS, 0) / 1e3, trace)
        client = record.get("client")
        if client is not None:
            series.observe_duration((client["end_ns"] - client["start_ns"]) / 1e9, trace)
        output_tokens = None
        if fields.get(names.SLUICEWAY_USAGE_SOURCE) in _REPORTED:
            self._tokens.observe(series.key, fields, trace)
            self._shares.add_tokens(fields, series.key[-1])
            output_tokens = fields.get(names.GEN_AI_USAGE_OUTPUT_TOKENS)
        first_chunk_s = fields.get(names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)
        if first_chunk_s is not None:
            series.observe_first_chunk(first_chunk_s, trace)
        ttft_ms = fields.get(names.SLUICEWAY_TIME_TO_FIRST_TOKEN_MS)
        if ttft_ms is None or fields.get(names.SLUICEWAY_OUTCOME) != names.OUTCOME_OK:
            return
        series.observe_ttft(ttft_ms / 1e3, trace)
        if client is not None and output_tokens is not None and output_tokens > 1:
            after_first_s = (client["end_ns"] - record["start_ns"]) / 1e9 - ttft_ms / 1e3
            series.observe_per_token(max(0.0, after_first_s) / (output_tokens - 1), trace)

    def _series_of(self, fields: dict[str, Any], model_api: str) -> _Series:
        key = (
            fields[names.GEN_AI_OPERATION_NAME],
            fields.get(names.GEN_AI_PROVIDER_NAME, ""),
            self._models.bounded(fields.get(names.GEN_AI_REQUEST_MODEL, "")),
            self._models.bounded(fields.get(names.GEN_AI_RESPONSE_MODEL, "")),
            self._error_types.bounded(fields.get(names.ERROR_TYPE, "")),
            model_api,
        )
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= SERIES_MAX:
                key = (*key[:2], OTHER, OTHER, *key[4:])
                series = self._series.get(key)
            if series is None:
                series = self._series[key] = _Series(key, self)
        return series
