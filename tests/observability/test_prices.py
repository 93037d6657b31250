"""What usage costs: each token once, whatever the protocol calls its parts."""

import pytest

from observability import names
from observability.prices import Price, cost_of

NOTHING = Price("USD", None, None, None, None, None, None, None, None)
FULL = Price("USD", 2.0, 0.2, 2.5, 8.0, 10.0, 0.04, 15.0, 0.001)
INPUT, OUTPUT = names.GEN_AI_USAGE_INPUT_TOKENS, names.GEN_AI_USAGE_OUTPUT_TOKENS
READ, WRITTEN = names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, names.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS
REASONING, SOURCE = names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, names.SLUICEWAY_USAGE_SOURCE


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        (FULL, {INPUT: 1_000_000, OUTPUT: 0}, 2.0),
        (FULL, {INPUT: 1000, OUTPUT: 100}, 0.0028),
        (FULL, {INPUT: 1000, READ: 600, WRITTEN: 100, OUTPUT: 100}, (300 * 2 + 600 * 0.2 + 100 * 2.5 + 800) / 1e6),
        (FULL, {INPUT: 1000, OUTPUT: 100, REASONING: 40}, (2000 + 60 * 8 + 40 * 10) / 1e6),
        (FULL._replace(cached_input=None, cache_write=None), {INPUT: 1000, READ: 600, WRITTEN: 100}, 0.002),
        (FULL._replace(reasoning=None), {OUTPUT: 100, REASONING: 40}, 0.0008),
        (FULL, {OUTPUT: 10, REASONING: 40}, 0.0001),  # a provider that contradicts itself costs nothing below zero
        (FULL, {INPUT: 10, READ: 40}, 40 * 0.2 / 1e6),
        (NOTHING._replace(image=0.04), {names.SLUICEWAY_USAGE_IMAGES: 3, INPUT: 50}, 0.12),
        (NOTHING._replace(characters=15.0), {names.SLUICEWAY_USAGE_CHARACTERS: 2000}, 0.03),
        (NOTHING._replace(second=0.001), {names.SLUICEWAY_USAGE_SECONDS: 2.5}, 0.0025),
        (NOTHING, {INPUT: 1000}, None),
        (FULL, {}, None),
        (FULL._replace(input=0.0), {INPUT: 5}, 0.0),  # free is a price
    ],
)
def test_cost(price, usage, cost):
    found = cost_of(price, {SOURCE: "upstream", **usage})
    assert found == (None if cost is None else pytest.approx(cost, abs=1e-11))


@pytest.mark.parametrize(("source", "charged"), [("upstream", True), ("partial", True), ("estimated", False)])
def test_an_estimate_is_no_bill(source, charged):
    assert (cost_of(FULL, {SOURCE: source, OUTPUT: 100}) is not None) is charged


def test_images_count_where_no_tokens_are_told():
    assert cost_of(FULL, {SOURCE: "none", names.SLUICEWAY_USAGE_IMAGES: 2}) == pytest.approx(0.08)
