"""The names module keeps its own rule, and says which span carries what."""

import pytest

from observability import names

CONSTANTS = {
    constant: value
    for constant, value in vars(names).items()
    if isinstance(value, str) and "." in value and constant.isupper() and not constant.startswith("_")
}


@pytest.mark.parametrize(("constant", "value"), CONSTANTS.items())
def test_a_constant_is_its_name_in_capitals(constant, value):
    if constant != "SLUICEWAY_LABEL_PREFIX":
        assert constant == value.upper().replace(".", "_").replace("-", "_")


def test_no_name_is_there_twice():
    assert len(set(CONSTANTS.values())) == len(CONSTANTS)


@pytest.mark.parametrize(
    ("name", "server", "client"),
    [
        ("http.route", True, False),
        ("url.path", True, False),
        ("client.address", True, False),
        ("error.type", True, True),
        ("gen_ai.request.model", False, True),
        ("sluiceway.usage.images", False, True),
        ("sluiceway.image.width", False, True),
        ("sluiceway.outcome", True, False),
        ("sluiceway.service", True, True),
        ("sluiceway.upstream_model", True, True),
        ("sluiceway.upstream_ms", True, False),
        ("somebody.else", False, False),
    ],
)
def test_which_span_carries_a_field(name, server, client):
    assert (names.on_server(name), names.on_client(name)) == (server, client)


def test_prometheus_spelling():
    assert names.prometheus_name("gen_ai.client.token.usage") == "gen_ai_client_token_usage"
    assert names.prometheus_name("sluiceway.overhead.duration", "seconds") == "sluiceway_overhead_duration_seconds"
