"""Each operation of each scenario leaves every field that applies to it, and no other; and its times add up.

Which fields there are is `observability.names`; what an answer says is the simulated upstream's to know.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import pytest
import pytest_asyncio

from observability import names as n
from tests.e2e import every_route
from tests.e2e.calls import CALLS, Call
from tests.e2e.every_route import MODEL_APIS, USAGE, Bed, Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAITS: Final = (n.SLUICEWAY_UPLOAD_MS, n.SLUICEWAY_CONNECT_MS, n.SLUICEWAY_UPSTREAM_MS, n.SLUICEWAY_CLIENT_BLOCKED_MS)
ALWAYS: Final = {
    *(n.TIMESTAMP, n.LEVEL, n.EVENT, n.TRACE_ID, n.SPAN_ID),
    *(n.HTTP_REQUEST_METHOD, n.HTTP_ROUTE, n.HTTP_RESPONSE_STATUS_CODE, n.URL_PATH, n.URL_SCHEME),
    *(n.CLIENT_ADDRESS, n.USER_AGENT_ORIGINAL, n.NETWORK_PROTOCOL_VERSION),
    *(n.GEN_AI_OPERATION_NAME, n.GEN_AI_PROVIDER_NAME),
    *(n.SLUICEWAY_REQUEST_ID, n.SLUICEWAY_CLIENT_REQUEST_ID, n.SLUICEWAY_UPSTREAM_REQUEST_ID),
    *(n.SLUICEWAY_OUTCOME, n.SLUICEWAY_MODEL_API, n.SLUICEWAY_RESOURCE_GROUP, n.SLUICEWAY_SCENARIO),
    *(n.SLUICEWAY_PROTOCOL, n.SLUICEWAY_OPERATION, n.SLUICEWAY_CONSUMER, n.SLUICEWAY_SERVICE),
    *(n.SLUICEWAY_ATTEMPTS, n.SLUICEWAY_FALLBACK, n.SLUICEWAY_GENERATION),
    *(n.SLUICEWAY_REQUEST_BYTES, n.SLUICEWAY_RESPONSE_BYTES, n.SLUICEWAY_USAGE_SOURCE),
    *(n.SLUICEWAY_DURATION_MS, n.SLUICEWAY_TIME_TO_FIRST_BYTE_MS, *WAITS, n.SLUICEWAY_OVERHEAD_MS),
}
OF_A_STREAM: Final = {
    *(n.GEN_AI_REQUEST_STREAM, n.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK),
    *(n.SLUICEWAY_RESPONSE_EVENTS, n.SLUICEWAY_TIME_TO_FIRST_TOKEN_MS),
}
OF_A_FAILURE: Final = {n.ERROR_TYPE, n.SLUICEWAY_ERROR_ORIGIN}
NAMED: Final = {n.GEN_AI_REQUEST_MODEL, n.SLUICEWAY_UPSTREAM_MODEL}
ID, MODEL, WHY = n.GEN_AI_RESPONSE_ID, n.GEN_AI_RESPONSE_MODEL, n.GEN_AI_RESPONSE_FINISH_REASONS
DETAILS: Final = {
    *(n.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, n.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS),
    n.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
}
SAID_OF_ITSELF: Final = {
    **{name: {ID, MODEL, WHY} for name in ("chat.completions", "completions", "responses", "messages")},
    **{name: {WHY} for name in ("text-generation", "multimodal-generation", "speech-synthesizer")},
    **{name: {ID, MODEL} for name in ("reranks", "rerank", "score")},
    "embeddings": {MODEL},
}
"""By operation: what its answers always say beside a usage. Of tasks, who is finished says why."""
MAY: Final = {
    **dict.fromkeys(
        ("chat.completions", "completions", "responses", "text-generation", "multimodal-generation"), DETAILS
    ),
    **{name: {ID, MODEL} for name in ("models", "files", "uploads", "fine_tuning")},
    "batches": {ID, *DETAILS, n.GEN_AI_USAGE_INPUT_TOKENS, n.GEN_AI_USAGE_OUTPUT_TOKENS},
    "multimodal-embedding": {n.GEN_AI_USAGE_OUTPUT_TOKENS},
    "tasks": {
        *(n.GEN_AI_USAGE_INPUT_TOKENS, n.GEN_AI_USAGE_OUTPUT_TOKENS, n.SLUICEWAY_IMAGE_WIDTH, n.SLUICEWAY_IMAGE_HEIGHT)
    },
}
"""By operation: what the answers of some models, or of some of its paths, say."""


def must(call: Call, *, streams: bool) -> set[str]:
    usage = {USAGE[name] for name in call.usage}
    names_model = call.body is not None and "model" in call.body
    spoken = (n.GEN_AI_USAGE_INPUT_TOKENS, n.GEN_AI_USAGE_OUTPUT_TOKENS)
    return (
        ALWAYS
        | (OF_A_STREAM if streams else set())
        | (NAMED if names_model else set())
        | (OF_A_FAILURE if call.status >= 400 else set())
        | ({n.GEN_AI_OUTPUT_TYPE} if call.output_type is not None else set())
        | SAID_OF_ITSELF.get(call.operation, set())
        | ({WHY} if call.operation == "tasks" and call.usage else set())
        | (set(spoken) if streams and call.operation == "audio.speech" else set())
        | usage
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    async with every_route.running(tmp_path_factory.mktemp("fields")) as bed:
        yield bed


def cases() -> list[Any]:
    found = []
    for call in CALLS:
        serving = (name for name, (scenario, _, protocols) in MODEL_APIS.items()
                   if call.scenario == scenario and call.protocol in protocols)  # fmt: skip
        model_api = next(serving)
        found.append(pytest.param(call, model_api, False, id=call.name))
        if call.streams is not None:
            found.append(pytest.param(call.streaming, model_api, True, id=f"{call.name} as a stream"))
    return found


@pytest.mark.parametrize(("call", "model_api", "streams"), cases())
async def test_the_fields_of_an_operation(bed: Bed, call: Call, model_api: str, streams: bool) -> None:
    record = (await bed.ask(call, model_api)).record
    expected = must(call, streams=streams)
    assert expected - set(record) == set()
    assert set(record) - expected - MAY.get(call.operation, set()) == set()
    complete(record)


IMAGE: Final = next(call for call in CALLS if call.operation == "images.generations")


@pytest.mark.parametrize("model", ["qwen-image-plus", "wan2.5-t2i-preview"])
@pytest.mark.parametrize("more", [{}, {"stream": True}, {"response_format": "b64_json"}], ids=str)
async def test_the_fields_of_a_translated_image(bed: Bed, model: str, more: dict[str, Any]) -> None:
    call = replace(IMAGE, body={"model": model, "prompt": "a cat", **more}, usage=("images",))
    exchange: Exchange = await bed.ask(call, "translated", headers={"x-sim-task-steps": "0"})
    assert exchange.status == 200
    # its events are the gateway's own: no chunk of the upstream's is first
    expected = must(call, streams="stream" in more) - {n.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK}
    if model.startswith("wan"):
        expected |= {n.SLUICEWAY_TASK_ID, WHY}
    assert expected - set(exchange.record) == set()
    assert exchange.record[n.SLUICEWAY_UPSTREAM_MODEL] == model
    complete(exchange.record)


def complete(record: dict[str, Any]) -> None:
    """Nothing is there without a value; the four waits and the gateway's own time are the whole of the duration."""
    assert [name for name, value in record.items() if value in ("", [], None)] == []
    times = [record[name] for name in (*WAITS, n.SLUICEWAY_OVERHEAD_MS)]
    assert min(times) >= 0
    assert sum(times) == pytest.approx(record[n.SLUICEWAY_DURATION_MS], abs=1)


@pytest.mark.parametrize(
    ("protocol", "said"),
    [("openai", "chat.completions"), ("anthropic", "messages"), ("dashscope", "text-generation")],
)
async def test_the_upstreams_own_request_id(bed: Bed, protocol: str, said: str) -> None:
    """OpenAI and Anthropic say it in the head of an answer alone, DashScope in the body too."""
    call = next(call for call in CALLS if (call.protocol, call.operation) == (protocol, said))
    for one in (call, call.streaming):
        exchange = await bed.ask(one, "text-qwen")
        header = "request-id" if protocol == "anthropic" else "x-request-id"
        [value] = [value for name, value in exchange.headers.items() if name.lower() == header]
        assert exchange.record[n.SLUICEWAY_UPSTREAM_REQUEST_ID] == value
