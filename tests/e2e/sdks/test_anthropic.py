"""The anthropic SDK, unchanged: before Anthropic's own service and DashScope's, which speaks its protocol too."""

import uuid
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.e2e.sdks.bed import KEY, UPSTREAM_KEY, WAYS, Bed, fields_of, in_thread

pytestmark = pytest.mark.asyncio(loop_scope="package")

QUESTION = "What lifts a boat over a hill? Ein Schleusentor, 水閘, and patience."
ASKED: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 1024,
    "system": "You are brief.",
    "messages": [{"role": "user", "content": QUESTION}],
}
PLACES = {
    # Model API → provider, service, base path of the upstream
    "claude": ("anthropic", "claude", ""),
    "text": ("dashscope", "qwen", "/apps/anthropic"),
}


def run(base_url: str, method: str, headers: dict[str, str], options: dict[str, Any]) -> Any:
    with Anthropic(base_url=base_url, api_key=KEY, max_retries=0) as client:
        if method == "stream":  # which puts the message together
            with client.messages.stream(extra_headers=headers, **options) as stream:
                return ["".join(stream.text_stream), stream.get_final_message().model_dump()]
        answer = getattr(client.messages, method)(extra_headers=headers, **options)
        return [event.model_dump() for event in answer] if options.get("stream") else answer.model_dump()


async def run_async(base_url: str, method: str, headers: dict[str, str], options: dict[str, Any]) -> Any:
    async with AsyncAnthropic(base_url=base_url, api_key=KEY, max_retries=0) as client:
        if method == "stream":
            async with client.messages.stream(extra_headers=headers, **options) as stream:
                text = "".join([piece async for piece in stream.text_stream])
                return [text, (await stream.get_final_message()).model_dump()]
        answer = await getattr(client.messages, method)(extra_headers=headers, **options)
        return [event.model_dump() async for event in answer] if options.get("stream") else answer.model_dump()


async def ran(base_url: str, method: str, way: str, options: dict[str, Any], **headers: str) -> Any:
    if way == "async":
        return await run_async(base_url, method, headers, options)
    return await in_thread(lambda: run(base_url, method, headers, options))


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("create", {}),
    "create, streamed": ("create", {"stream": True}),
    "stream": ("stream", {}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cached", [False, True], ids=["fresh", "cached"])
@pytest.mark.parametrize(("method", "options"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("place", PLACES)
async def test_messages(bed: Bed, place: str, method: str, options: dict[str, Any], cached: bool, way: str) -> None:
    provider, service, base = PLACES[place]
    options = {**ASKED, **options}
    script = {"x-sim-cached-tokens": "7", "x-sim-cache-write-tokens": "5"} if cached else {}
    direct = await ran(bed.upstream.url + base, method, way, options, **script)
    name = uuid.uuid4().hex
    result, (record,) = await bed.records(ran(bed.url(place), method, way, options, **script, **{"x-sim-id": name}))
    assert result == direct
    usage = usage_of(result)
    created, read = usage["cache_creation_input_tokens"] or 0, usage["cache_read_input_tokens"] or 0
    assert (created, read) == ((5, 7) if cached else (0, 0))
    expected = {
        "sluiceway.operation": "messages",
        "sluiceway.protocol": "anthropic",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": ASKED["model"],
        "gen_ai.request.stream": True if "stream" in (method, *options) else None,
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.usage.input_tokens": usage["input_tokens"] + created + read,
        "gen_ai.usage.output_tokens": usage["output_tokens"],
        "sluiceway.usage.source": "upstream",
        "sluiceway.service": service,
        "sluiceway.outcome": "ok",
        "http.response.status_code": 200,
    }
    assert fields_of(record, expected) == expected
    entry = await bed.upstream.finished(name)
    assert [value for key, value in entry["headers"] if key in ("authorization", "x-api-key")] == [UPSTREAM_KEY]


def usage_of(result: Any) -> dict[str, Any]:
    """As the SDK shows it; of a stream of events the last, with what only the first says."""
    if isinstance(result, dict):
        return result["usage"]  # type: ignore[no-any-return]
    if isinstance(result[0], str):
        return result[1]["usage"]  # type: ignore[no-any-return]
    begun = result[0]["message"]["usage"]
    (ended,) = [event["usage"] for event in result if event["type"] == "message_delta"]
    return begun | {name: value for name, value in ended.items() if value is not None}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
async def test_count_tokens(bed: Bed, place: str, way: str) -> None:
    provider, service, base = PLACES[place]
    options = {name: value for name, value in ASKED.items() if name != "max_tokens"}
    direct = await ran(bed.upstream.url + base, "count_tokens", way, options)
    result, (record,) = await bed.records(ran(bed.url(place), "count_tokens", way, options))
    assert result == direct
    assert result["input_tokens"] > 0
    expected = {
        "sluiceway.operation": "messages.count_tokens",
        "gen_ai.operation.name": "count_tokens",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": ASKED["model"],
        "gen_ai.usage.input_tokens": None,  # no model has read them
        "sluiceway.service": service,
        "sluiceway.outcome": "ok",
    }
    assert fields_of(record, expected) == expected


ERRORS = {
    400: (anthropic.BadRequestError, "client"),
    429: (anthropic.RateLimitError, "upstream"),
    500: (anthropic.InternalServerError, "upstream"),
    529: (anthropic.OverloadedError, "upstream"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", ERRORS)
async def test_errors_of_the_upstream(bed: Bed, status: int, way: str) -> None:
    kind, origin = ERRORS[status]
    script = {"x-sim-status": str(status)}
    direct = await raised(ran(bed.upstream.url, "create", way, ASKED, **script))
    error, (record,) = await bed.records(raised(ran(bed.url("claude"), "create", way, ASKED, **script)))
    assert type(error) is type(direct) is kind
    assert (error.status_code, error.message, error.body) == (status, direct.message, direct.body)
    assert error.request_id == direct.request_id  # its header's
    assert (record["sluiceway.outcome"], record["sluiceway.error.origin"]) == ("upstream_error", origin)
    assert record["error.type"] == error.body["error"]["type"]


@pytest.mark.parametrize("way", WAYS)
async def test_an_error_of_the_upstream_in_a_stream(bed: Bed, way: str) -> None:
    script = {"x-sim-error-after": "2", "x-sim-events": "4"}
    options = {**ASKED, "stream": True}
    direct = await raised(ran(bed.upstream.url, "create", way, options, **script))
    error, (record,) = await bed.records(raised(ran(bed.url("claude"), "create", way, options, **script)))
    assert type(error) is type(direct)
    assert error.body == direct.body
    assert (record["sluiceway.outcome"], record["http.response.status_code"]) == ("upstream_error", 200)
    assert record["error.type"] == error.body["error"]["type"]


async def raised(call: Any) -> Any:
    """The SDK's error that a call ends with."""
    with pytest.raises(anthropic.APIStatusError) as caught:
        await call
    return caught.value
