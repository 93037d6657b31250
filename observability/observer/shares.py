"""Who used what, and whose fault it was: counters by consumer, service and origin.

The conventions' histograms have no such labels. Consumers, services and Model APIs come from the configuration, so
their number is bounded; types of errors come from providers, and are bounded where all metrics bound them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter

from observability import names

SERIES_MAX = 2000
"""Of each; as of the histograms. Beyond it services and types, or consumers and services, are no longer told apart."""
OTHER: Final = "other"

_TOKENS: Final = (
    ("input", names.GEN_AI_USAGE_INPUT_TOKENS),
    ("output", names.GEN_AI_USAGE_OUTPUT_TOKENS),
    ("cache_read", names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
    ("cache_creation", names.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS),
    ("reasoning", names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS),
)
_Add = Callable[[float], None]


class Shares:
    """Both counters. `bounded` maps types of errors to a bounded number of them. For one thread."""

    def __init__(self, bounded: Callable[[str], str], registry: CollectorRegistry | None) -> None:
        self._bounded = bounded
        self._tokens = Counter(
            names.prometheus_name(names.SLUICEWAY_TOKENS),
            "Tokens, as the upstream reported them; cache_* are part of input, reasoning of output",
            ("model_api", "consumer", "service", "type"),
            registry=registry,
        )
        self._errors = Counter(
            names.prometheus_name(names.SLUICEWAY_ERRORS),
            "Requests that ended with an error, by whose fault it was",
            ("model_api", "service", "origin", "error_type"),
            registry=registry,
        )
        self._used: dict[tuple[str, str, str, str], _Add] = {}
        self._failed: dict[tuple[str, str, str, str], _Add] = {}

    def add_tokens(self, fields: Mapping[str, Any], model_api: str) -> None:
        """Count the usage in a record's fields, which the upstream has named."""
        consumer, service = fields.get(names.SLUICEWAY_CONSUMER, ""), fields.get(names.SLUICEWAY_SERVICE, "")
        for kind, name in _TOKENS:
            tokens = fields.get(name)
            if tokens:
                key = (model_api, consumer, service, kind)
                add = self._used.get(key)
                if add is None:
                    if len(self._used) >= SERIES_MAX:
                        key = (model_api, OTHER, OTHER, kind)
                    add = self._used[key] = _adding(self._tokens, key)
                add(tokens)

    def add_error(self, fields: Mapping[str, Any], model_api: str) -> None:
        """Count a record that has an `error.type`."""
        key = (
            model_api,
            fields.get(names.SLUICEWAY_SERVICE, ""),
            fields.get(names.SLUICEWAY_ERROR_ORIGIN, ""),
            self._bounded(fields[names.ERROR_TYPE]),
        )
        add = self._failed.get(key)
        if add is None:
            if len(self._failed) >= SERIES_MAX:
                key = (model_api, OTHER, key[2], OTHER)
            add = self._failed[key] = _adding(self._errors, key)
        add(1)


def _adding(counter: Counter, key: tuple[str, ...]) -> _Add:
    """What adds to one series: in files without a lock (`observer.metric_files`), which one thread does not need."""
    value = counter.labels(*key)._value  # noqa: SLF001 - its own check of each amount costs more than the addition
    add: _Add = getattr(value, "add", value.inc)
    return add
