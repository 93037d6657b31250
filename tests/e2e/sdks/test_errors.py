"""What each official SDK raises for the gateway's own errors: as answers, and inside streams that break off."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from dashscope import Generation
from dashscope.aigc.generation import AioGeneration

from proxy.errors import CUTS, KINDS
from tests.e2e.sdks.bed import KEY, OTHER_KEY, WAYS, Bed, fields_of, in_thread
from tests.proxy.test_errors import BODIES

pytestmark = pytest.mark.asyncio(loop_scope="package")

MESSAGES: list[Any] = [
    {"role": "user", "content": "What lifts a boat over a hill? Ein Schleusentor, 水閘, and patience."}
]


# -- the same chat by each SDK: its pieces, or its answer as a list of one -------------------------------------------


async def chat(url: str, way: str, key: str, model: str, stream: bool, headers: dict[str, str]) -> list[Any]:
    options: dict[str, Any] = {"model": model, "messages": MESSAGES, "stream": stream, "extra_headers": headers}
    if stream:  # else the gateway asks for it, and holds each event until it is whole
        options["stream_options"] = {"include_usage": True}
    if way == "async":
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            answer = await client.chat.completions.create(**options)
            return [chunk async for chunk in answer] if stream else [answer]

    def run() -> list[Any]:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            answer = client.chat.completions.create(**options)
            return list(answer) if stream else [answer]

    return await in_thread(run)  # type: ignore[no-any-return]


async def message(url: str, way: str, key: str, model: str, stream: bool, headers: dict[str, str]) -> list[Any]:
    options: dict[str, Any] = {"model": model, "max_tokens": 9, "messages": MESSAGES, "stream": stream}
    options["extra_headers"] = headers
    if way == "async":
        async with anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0) as client:
            answer = await client.messages.create(**options)
            return [event async for event in answer] if stream else [answer]

    def run() -> list[Any]:
        with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0) as client:
            answer = client.messages.create(**options)
            return list(answer) if stream else [answer]

    return await in_thread(run)  # type: ignore[no-any-return]


async def generation(url: str, way: str, key: str, model: str, stream: bool, headers: dict[str, str]) -> list[Any]:
    options: dict[str, Any] = {"model": model, "messages": MESSAGES, "headers": headers, "api_key": key}
    options |= {"base_address": f"{url}/api/v1", "stream": stream, "result_format": "message"}
    if stream:
        options["incremental_output"] = True
    if way == "async":
        answer: Any = await AioGeneration.call(**options)
        return [piece async for piece in answer] if stream else [answer]

    def run() -> list[Any]:
        answer: Any = Generation.call(**options)
        return list(answer) if stream else [answer]

    return await in_thread(run)  # type: ignore[no-any-return]


# -- as answers ------------------------------------------------------------------------------------------------------

CAUSES: dict[str, tuple[str, str, str, dict[str, str]]] = {
    # kind → Model API, key, model, what the upstream does
    "unauthenticated": ("text", "sk-nobody", "qwen-plus", {}),
    "forbidden": ("forbidden", OTHER_KEY, "qwen-plus", {}),
    "no_route": ("nowhere", KEY, "qwen-plus", {}),
    "model_unknown": ("model_unknown", KEY, "qwen-plus", {}),
    "body_too_large": ("body_too_large", KEY, "qwen-plus", {}),
    "connect_failed": ("connect_failed", KEY, "qwen-plus", {}),
    "upstream_timeout": ("upstream_timeout", KEY, "qwen-plus", {"x-sim-head-delay-ms": "60000"}),
    "first_token_timeout": ("first_token_timeout", KEY, "qwen-plus", {"x-sim-first-token-delay-ms": "60000"}),
    "overloaded": ("overloaded", KEY, "qwen-plus", {}),
}
OPENAI = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    413: openai.APIStatusError,
    502: openai.InternalServerError,
    503: openai.InternalServerError,
    504: openai.InternalServerError,
}
ANTHROPIC = {
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError,
    413: anthropic.RequestTooLargeError,
    502: anthropic.InternalServerError,
    503: anthropic.ServiceUnavailableError,
    504: anthropic.GatewayTimeoutError,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CAUSES)
async def test_openai(bed: Bed, kind: str, way: str) -> None:
    status = KINDS[kind].status
    error, record = await refused(bed, kind, way, lambda *arguments: raised(chat(*arguments), openai.APIError))
    assert isinstance(error, OPENAI[status])
    assert (error.status_code, error.type, error.code) == (status, *BODIES[kind][:2])
    assert error.response.headers["x-sluiceway-error"] == kind
    assert error.response.headers["x-sluiceway-request-id"] == record["sluiceway.request_id"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CAUSES)
async def test_anthropic(bed: Bed, kind: str, way: str) -> None:
    status = KINDS[kind].status
    error, record = await refused(bed, kind, way, lambda *arguments: raised(message(*arguments), anthropic.APIError))
    assert isinstance(error, ANTHROPIC[status])
    assert error.status_code == status
    assert error.body["error"]["type"] == BODIES[kind][2]
    assert error.body["request_id"] == record["sluiceway.request_id"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CAUSES)
async def test_dashscope(bed: Bed, kind: str, way: str) -> None:
    (answer,), record = await refused(bed, kind, way, generation)
    assert (answer.status_code, answer.code) == (KINDS[kind].status, BODIES[kind][3])
    assert answer.message
    assert answer.request_id == record["sluiceway.request_id"]


async def refused(bed: Bed, kind: str, way: str, call: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    """What an SDK makes of an error of that kind, and its record."""
    base, key, model, script = CAUSES[kind]
    running: asyncio.Task[Any] | None = None
    name = uuid.uuid4().hex
    if kind == "overloaded":  # a request runs, and one is the limit
        script_of_it = {"x-sim-id": name, "x-sim-gate-after": "0"}
        running = asyncio.create_task(chat(bed.url(base), "async", KEY, model, False, script_of_it))
        await bed.upstream.arrived(name)
    stream = kind == "first_token_timeout"  # whose answer is no stream: none has begun
    result, (record,) = await bed.records(call(bed.url(base), way, key, model, stream, script))
    expected = {
        "http.response.status_code": KINDS[kind].status,
        "error.type": kind,
        "sluiceway.outcome": KINDS[kind].outcome,
        "sluiceway.error.origin": KINDS[kind].origin,
    }
    assert fields_of(record, expected) == expected
    if running is not None:
        _, (record_of_it,) = await bed.records(release(bed, name, running))
        assert record_of_it["sluiceway.outcome"] == "ok"
    return result, record


async def release(bed: Bed, name: str, running: "asyncio.Task[Any]") -> None:
    await bed.upstream.open(name)
    await running


async def test_a_request_that_names_no_model_where_one_is_needed(bed: Bed) -> None:
    call = raised(chat(bed.url("model_missing"), "async", KEY, "", False, {}), openai.APIError)
    error, (record,) = await bed.records(call)
    assert type(error) is openai.BadRequestError
    assert error.code == record["error.type"] == "model_missing"


async def raised(call: Any, kind: type[Exception]) -> Any:
    """The error that a call ends with."""
    with pytest.raises(kind) as caught:
        await call
    return caught.value


# -- inside a stream -------------------------------------------------------------------------------------------------

BREAKS = {
    # how the upstream ends → Model API, control, kind
    "reset": ("text", {"x-sim-reset-after": "4"}, "upstream_reset"),
    "closed": ("text", {"x-sim-truncate-after": "4"}, "upstream_truncated"),
    "idle": ("upstream_timeout", {"x-sim-stall-after": "4"}, "upstream_timeout"),
}


async def broken(bed: Bed, how: str, way: str, call: Callable[..., Any]) -> tuple[Any, str]:
    """What an SDK makes of a stream that breaks off this way, and the kind of error that it is."""
    base, script, kind = BREAKS[how]
    result, (record,) = await bed.records(call(bed.url(base), way, KEY, "qwen-plus", True, script))
    expected = {
        "http.response.status_code": 200,
        "gen_ai.request.stream": True,
        "error.type": kind,
        "sluiceway.outcome": "upstream_aborted",
        "sluiceway.error.origin": "upstream",
    }
    assert fields_of(record, expected) == expected
    return result, kind


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_of_openai(bed: Bed, how: str, way: str) -> None:
    error, kind = await broken(bed, how, way, lambda *arguments: raised(chat(*arguments), openai.APIError))
    assert type(error) is openai.APIError  # no status, no broken connection: what a provider says in mid-stream
    assert (error.type, error.code) == BODIES[kind][:2]
    assert error.message


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_of_responses(bed: Bed, how: str, way: str) -> None:
    """The error is one of its events; who goes on reading is told of the connection."""
    seen: list[Any] = []

    async def call(url: str, way: str, key: str, model: str, stream: bool, headers: dict[str, str]) -> None:
        options: dict[str, Any] = {"model": model, "input": "Who are you?", "stream": stream, "extra_headers": headers}
        if way == "async":
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
                async for event in await client.responses.create(**options):
                    seen.append(event)  # noqa: PERF401 - what came before the error counts
            return

        def run() -> None:
            with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
                for event in client.responses.create(**options):
                    seen.append(event)  # noqa: PERF402

        await in_thread(run)

    error, kind = await broken(bed, how, way, lambda *arguments: raised(call(*arguments), openai.APIError))
    assert type(error) is openai.APIConnectionError
    assert seen[-1].type == "error"
    assert (seen[-1].code, seen[-1].sequence_number) == (BODIES[kind][1], len(seen) - 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_of_anthropic(bed: Bed, how: str, way: str) -> None:
    error, kind = await broken(bed, how, way, lambda *arguments: raised(message(*arguments), anthropic.APIError))
    assert type(error) is anthropic.APIStatusError
    assert error.body["error"]["type"] == BODIES[kind][2]
    assert error.body["error"]["message"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_of_dashscope(bed: Bed, how: str, way: str) -> None:
    pieces, kind = await broken(bed, how, way, generation)
    assert {piece.status_code for piece in pieces[:-1]} == {200}
    status = (CUTS if kind in CUTS else KINDS)[kind].status
    assert (pieces[-1].status_code, pieces[-1].code) == (status, BODIES[kind][3])
    assert pieces[-1].message


@pytest.mark.parametrize("way", WAYS)
async def test_inside_an_event_the_connection_breaks(bed: Bed, way: str) -> None:
    """No SDK is given half a document to parse."""
    script = {"x-sim-chunk-bytes": "50", "x-sim-truncate-after": "3"}
    call = raised(chat(bed.url("text"), way, KEY, "qwen-plus", True, script), openai.APIError)
    error, (record,) = await bed.records(call)
    assert type(error) is openai.APIConnectionError
    assert record["error.type"] == "upstream_truncated"
