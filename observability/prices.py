"""What one exchange costs: a price and a record's fields in, an amount out. Pure.

A price travels with the record, as a list in the order of `Price`; `proxy.config.prices` reads them from a file.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from observability import names

MILLION: Final = 1_000_000
_REPORTED: Final = frozenset({names.USAGE_UPSTREAM, names.USAGE_PARTIAL})
"""Tokens that the upstream named. An estimate would be a made-up bill: it has no input at all."""


class Price(NamedTuple):
    """Of one model. None: that kind is not charged for, or charged as what it is a part of."""

    currency: str
    input: float | None
    """A million tokens, as the next four."""
    cached_input: float | None
    """Read from the provider's cache; None: as the input."""
    cache_write: float | None
    """Written to it; None: as the input."""
    output: float | None
    reasoning: float | None
    """None: as the output."""
    image: float | None
    """Each."""
    characters: float | None
    """A million."""
    second: float | None
    """Each, of audio and video."""


def cost_of(price: Price, fields: Mapping[str, Any]) -> float | None:
    """What the usage in a record's fields costs; None where there is nothing that the price is for."""
    parts = [
        (price.image, fields.get(names.SLUICEWAY_USAGE_IMAGES)),
        (price.second, fields.get(names.SLUICEWAY_USAGE_SECONDS)),
        (_each(price.characters), fields.get(names.SLUICEWAY_USAGE_CHARACTERS)),
    ]
    if fields.get(names.SLUICEWAY_USAGE_SOURCE) in _REPORTED:
        parts += _tokens(price, fields)
    charged = [rate * count for rate, count in parts if rate is not None and count is not None]
    return round(sum(charged), 12) if charged else None


def _tokens(price: Price, fields: Mapping[str, Any]) -> list[tuple[float | None, float | None]]:
    """Each token once: cached ones are a part of the input, and reasoning a part of the output, in every record."""
    cached: int = fields.get(names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS) or 0
    written: int = fields.get(names.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS) or 0
    reasoning: int = fields.get(names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS) or 0
    parts: list[tuple[float | None, float | None]] = []
    total = fields.get(names.GEN_AI_USAGE_INPUT_TOKENS)
    if total is not None:
        parts.append((_each(price.input), max(0, total - cached - written)))
        parts.append((_each(price.input if price.cached_input is None else price.cached_input), cached))
        parts.append((_each(price.input if price.cache_write is None else price.cache_write), written))
    total = fields.get(names.GEN_AI_USAGE_OUTPUT_TOKENS)
    if total is not None:
        reasoning = min(reasoning, total)
        parts.append((_each(price.output), total - reasoning))
        parts.append((_each(price.output if price.reasoning is None else price.reasoning), reasoning))
    return parts


def _each(for_a_million: float | None) -> float | None:
    return None if for_a_million is None else for_a_million / MILLION
