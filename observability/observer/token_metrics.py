"""Tokens as metrics: one histogram by the conventions of v1.41, which dashboards read today, or the latest ones.

The latest (`names.LATEST_OPT_IN`) have no common histogram any more: a counter for each kind of token, cached and
reasoning ones among them, and a histogram for each of input and output.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Counter

from observability import names
from observability.exemplars import Trace
from observability.observer.quick_histogram import QuickHistogram

_MODALITY: Final = names.prometheus_name(names.GEN_AI_TOKEN_MODALITY)
_UNKNOWN: Final = "unknown"
"""The modality where a provider does not split its counts, or splits some of them only."""

_COUNTED: Final = {
    names.GEN_AI_USAGE_INPUT_TOKENS: names.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS,
    names.GEN_AI_USAGE_OUTPUT_TOKENS: names.GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS,
    names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: names.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS,
    names.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: names.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS,
    names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: names.GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS,
}
_SPREAD: Final = {
    names.GEN_AI_USAGE_INPUT_TOKENS: names.GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS,
    names.GEN_AI_USAGE_OUTPUT_TOKENS: names.GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS,
}


class TokenMetrics(Protocol):
    """The instruments of one of the two."""

    @property
    def histograms(self) -> Sequence[QuickHistogram]:
        """Those of them that have exemplars."""

    def observe(self, key: tuple[str, ...], fields: Mapping[str, Any], trace: Trace | None) -> None:
        """Count the usage in a record's fields under the values of the labels."""


class TokenUsage:
    """v1.41: `gen_ai.client.token.usage` with `gen_ai.token.type` input or output."""

    def __init__(self, labels: tuple[str, ...], registry: CollectorRegistry | None) -> None:
        self._histogram = QuickHistogram(
            names.prometheus_name(names.GEN_AI_CLIENT_TOKEN_USAGE),
            "Tokens of one operation, as the upstream reported them",
            (*labels, names.prometheus_name(names.GEN_AI_TOKEN_TYPE)),
            buckets=names.TOKEN_BUCKETS,
            registry=registry,
        )
        self._children: dict[tuple[str, ...], QuickHistogram] = {}
        self.histograms = (self._histogram,)

    def observe(self, key: tuple[str, ...], fields: Mapping[str, Any], trace: Trace | None) -> None:
        """As in `TokenMetrics`."""
        for kind, name in (("input", names.GEN_AI_USAGE_INPUT_TOKENS), ("output", names.GEN_AI_USAGE_OUTPUT_TOKENS)):
            tokens = fields.get(name)
            if tokens is not None:
                child = self._children.get((*key, kind))
                if child is None:
                    child = self._children[*key, kind] = self._histogram.labels(*key, kind)
                child.count(tokens, trace)


class InferenceUsage:
    """The latest: `gen_ai.client.inference.usage.*` and `gen_ai.client.inference.operation.*`."""

    def __init__(self, labels: tuple[str, ...], registry: CollectorRegistry | None) -> None:
        self._counters = {
            field: Counter(
                names.prometheus_name(name),
                "Tokens, as the upstream reported them",
                (*labels, _MODALITY),
                registry=registry,
            )
            for field, name in _COUNTED.items()
        }
        self._histograms = {
            field: QuickHistogram(
                names.prometheus_name(name),
                "Tokens of one operation, as the upstream reported them",
                labels,
                buckets=names.TOKEN_BUCKETS,
                registry=registry,
            )
            for field, name in _SPREAD.items()
        }
        self.histograms = tuple(self._histograms.values())

    def observe(self, key: tuple[str, ...], fields: Mapping[str, Any], trace: Trace | None) -> None:
        """As in `TokenMetrics`."""
        for field, counter in self._counters.items():
            tokens = fields.get(field)
            if tokens is not None:
                counter.labels(*key, _UNKNOWN).inc(tokens)
                if field in self._histograms:
                    self._histograms[field].labels(*key).count(tokens, trace)
