"""What single backends read beside the conventions, by `tracing.compat`."""

import pytest

from observability import names
from observability.observer.compat import compatible
from observability.record import Record
from observability.telemetry import COMPATIBLE
from tests.fakes.otlp_sink import attributes_of
from tests.observability.observer.test_spans import ATTEMPTS, spans_of
from tests.observability.records import record

STREAM = {names.GEN_AI_REQUEST_STREAM: True, names.SLUICEWAY_TIME_TO_FIRST_TOKEN_MS: 500.25}
REASONING = {names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: 40}


def added(wanted: list[str], fields: dict | None = None) -> tuple[dict, dict]:
    """What the two spans have more than those of a record without `compat`."""
    plain = [attributes_of(span) for span in spans_of(record(fields))]
    more = [attributes_of(span) for span in spans_of(record(fields, compat=wanted))]
    assert all(one.items() >= other.items() for one, other in zip(more, plain, strict=True))
    server, client = ({k: v for k, v in one.items() if k not in two} for one, two in zip(more, plain, strict=True))
    return server, client


def test_there_is_none_unless_asked_for():
    assert added([], STREAM) == ({}, {})


def test_openinference():
    server, client = added(["openinference"], STREAM | REASONING)
    assert server == {"openinference.span.kind": "CHAIN"}
    assert client == {"openinference.span.kind": "LLM", "llm.token_count.completion_details.reasoning": 40}


def test_openinference_has_a_kind_for_each_attempt():
    kinds = [attributes_of(span)["openinference.span.kind"] for span in spans_of(tried(["openinference"]))]
    assert kinds == ["CHAIN", "LLM", *["CHAIN"] * len(ATTEMPTS)]
    assert not any("openinference.span.kind" in attributes_of(span) for span in spans_of(tried(["langfuse"]))[2:])


def tried(wanted: list[str]) -> Record:
    return record(attempts=ATTEMPTS, compat=wanted)


def test_langfuse():
    server, client = added(["langfuse"], STREAM)
    assert server == {"langfuse.observation.type": "span"}
    assert client == {
        "langfuse.observation.type": "generation",
        "langfuse.observation.completion_start_time": "2023-11-14T22:13:20.500250Z",
    }


def test_arms():
    server, client = added(["arms"], STREAM)
    assert server == {"gen_ai.span.kind": "ENTRY"}
    assert client == {
        "gen_ai.span.kind": "LLM",
        "gen_ai.usage.total_tokens": 1101,
        "gen_ai.response.time_to_first_token": 499_750_000,
    }


def test_signoz():
    assert added(["signoz"], STREAM) == ({}, {"gen_ai.server.ttft": 0.50025})
    assert added(["signoz"]) == ({}, {})


def test_several_do_not_disturb_one_another():
    server, client = added(list(COMPATIBLE), STREAM)
    assert len(server) == 3
    assert len(client) == 1 + 2 + 3 + 1


@pytest.mark.parametrize(
    ("operation", "kinds"),
    [
        ("chat", ("LLM", "generation", "LLM")),
        ("generate_content", ("LLM", "generation", "LLM")),
        ("video_generation", ("LLM", "generation", "LLM")),
        ("embeddings", ("EMBEDDING", "embedding", "EMBEDDING")),
        ("rerank", ("RERANKER", "retriever", "RERANKER")),
        ("score", ("RERANKER", "retriever", "RERANKER")),
        ("fetch_task", ("CHAIN", "span", None)),
    ],
)
def test_kinds(operation, kinds):
    _, client = compatible(record({names.GEN_AI_OPERATION_NAME: operation}), COMPATIBLE)
    found = (client["openinference.span.kind"], client["langfuse.observation.type"], client.get("gen_ai.span.kind"))
    assert found == kinds


@pytest.mark.parametrize("wanted", COMPATIBLE)
def test_a_refused_request_has_one_span_and_no_harm_done(wanted):
    bare = {name: None for name in record()["fields"] if name.startswith("gen_ai.")}
    (server,) = spans_of(record(bare, client=None, attempts=None, compat=[wanted]))
    assert server.name == "POST /v1/chat/completions"
