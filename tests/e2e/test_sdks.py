"""The official SDKs, unchanged, through the gateway: each call gives what it gives without the gateway, and one record.

Only base URL and API key are set; the ids under which the simulated upstream remembers a request, and its faults, ride
in extra headers, which both SDKs let a user send. Every case runs with the synchronous and the asynchronous client.
"""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from dashscope import Generation, MultiModalConversation, TextEmbedding
from dashscope.aigc.generation import AioGeneration
from dashscope.aigc.multimodal_conversation import AioMultiModalConversation
from dashscope.api_entities.aio_session import close_shared_aio_session
from dashscope.api_entities.http_request import close_shared_sync_session
from openai import AsyncOpenAI, OpenAI

from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-consumer"
UPSTREAM_KEY = "sk-provider"
WAYS = ("sync", "async")

QUESTION = "What lifts a boat over a hill? Ein Schleusentor, 水閘, and patience." * 3
MESSAGES = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": QUESTION}]
PICTURE = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 300).decode()  # 100 KB
PARTS = [{"role": "user", "content": [{"image": PICTURE}, {"text": QUESTION}]}]
URL_PARTS = [
    {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": QUESTION}],
    }
]


@dataclass
class Bed:
    """A gateway before a simulated upstream."""

    gateway: Gateway
    upstream: Simulated

    async def record(self, call: Awaitable[Any]) -> tuple[Any, dict[str, Any]]:
        """What a call gives, and the one record that it leaves. A second record would fail the next call."""
        before = len(self.gateway.lines.of("request"))
        result = await call
        records = await self.gateway.records(before + 1)
        assert len(records) == before + 1
        return result, records[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    folder: Path = tmp_path_factory.mktemp("sdks")
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), folder) as gateway,
    ):
        yield Bed(gateway, upstream)
        close_shared_sync_session()
        await close_shared_aio_session()
        assert not gateway.lines.other
        assert not gateway.errors


def document_of(upstream: str) -> dict[str, Any]:
    def api(name: str, scenario: str, protocols: list[str], service: str) -> dict[str, Any]:
        return {
            "name": name,
            "scenario": scenario,
            "protocols": protocols,
            "base_path": "/" if name == "chat" else f"/{name}",
            "routing": {"single": {"service": service}},
        }

    return {
        "services": [
            {"name": "qwen", "provider": "dashscope", "base_url": upstream, "api_keys": [UPSTREAM_KEY]},
            {"name": "openai", "provider": "openai", "base_url": f"{upstream}/v1", "api_keys": [UPSTREAM_KEY]},
            {"name": "local", "provider": "vllm", "base_url": upstream},
        ],
        "consumers": [{"name": "team", "keys": [KEY]}],
        "model_apis": [
            api("chat", "text", ["openai", "dashscope"], "qwen"),
            api("vectors", "embedding", ["openai"], "qwen"),
            api("pictures", "image", ["dashscope"], "qwen"),
            api("openai", "text", ["openai"], "openai"),
            api("openai-vectors", "embedding", ["openai"], "openai"),
            api("openai-pictures", "image", ["openai"], "openai"),
            api("local", "text", ["openai"], "local"),
        ],
    }


# -- OpenAI ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """One call of the OpenAI SDK: `resource` is a dotted name of the client, `options` its arguments."""

    resource: str
    options: Mapping[str, Any]
    operation: str
    gen_ai_operation: str
    finish_reasons: list[str] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the record."""

    async def through(self, base_url: str, way: str, headers: Mapping[str, str], key: str = KEY) -> Any:
        """Call, by this way; a stream as the list of its chunks."""
        options = {**self.options, "extra_headers": dict(headers)}
        if way == "async":
            async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
                answer = await self._method(client)(**options)
                if options.get("stream"):
                    return [chunk.model_dump() async for chunk in answer]
                return answer.model_dump()
        return await asyncio.to_thread(self._call, base_url, key, options)

    def _call(self, base_url: str, key: str, options: dict[str, Any]) -> Any:
        with OpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
            answer = self._method(client)(**options)
            if options.get("stream"):
                return [chunk.model_dump() for chunk in answer]
            return answer.model_dump()

    def _method(self, client: OpenAI | AsyncOpenAI) -> Callable[..., Any]:
        found: Any = client
        for name in self.resource.split("."):
            found = getattr(found, name)
        return found  # type: ignore[no-any-return]


def asking(resource: str, operation: str, gen_ai: str, **options: Any) -> Ask:
    reasons = ["stop"] if resource.endswith("completions.create") else None
    return Ask(resource, options, operation, gen_ai, reasons)


STREAM: dict[str, Any] = {"stream": True}
USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def chat(**options: Any) -> Ask:
    options = {"model": "qwen-plus", "messages": MESSAGES, **options}
    return asking("chat.completions.create", "chat.completions", "chat", **options)


def complete(**options: Any) -> Ask:
    options = {"model": "qwen2.5-coder", "prompt": QUESTION, **options}
    return asking("completions.create", "completions", "text_completion", **options)


def embed(**options: Any) -> Ask:
    options = {"model": "text-embedding-v4", "input": ["a lock", "a weir", "水閘"], **options}
    return asking("embeddings.create", "embeddings", "embeddings", **options)


def paint(**options: Any) -> Ask:
    options = {"prompt": QUESTION, **options}
    ask = asking("images.generate", "images.generations", "generate_content", **options)
    more = {"gen_ai.output.type": "image", "sluiceway.usage.images": options.get("n", 1)}
    return Ask(ask.resource, options, ask.operation, ask.gen_ai_operation, None, more)


TEXT = {
    "chat": chat(),
    "chat, streamed": chat(**STREAM),
    "chat, streamed with usage": chat(**USAGE),
    "chat, streamed without usage": chat(stream=True, stream_options={"include_usage": False}),
    "chat, a picture of 100 KB": chat(model="qwen3-vl-plus", messages=URL_PARTS),
    "chat, a picture of 100 KB, streamed": chat(model="qwen3-vl-plus", messages=URL_PARTS, **USAGE),
    "completions": complete(),
    "completions, streamed": complete(**STREAM),
    "completions, streamed with usage": complete(**USAGE),
}
VECTORS = {"float": embed(encoding_format="float"), "base64, the default": embed(), "one text": embed(input="a lock")}
PICTURES = {
    "url": paint(model="dall-e-3"),
    "two b64_json": paint(model="dall-e-2", response_format="b64_json", n=2),
    "with tokens": paint(model="gpt-image-1"),
    "streamed": paint(model="gpt-image-1", stream=True, partial_images=1),
}
PLACES = {
    # base path of the gateway, provider, service, base path of the upstream
    "dashscope": ("", "dashscope", "qwen", "/compatible-mode/v1"),
    "openai": ("/openai", "openai", "openai", "/v1"),
    "vllm": ("/local", "vllm", "local", "/v1"),
}
OPENAI_CASES = [
    *((f"{place}: {name}", place, "", ask) for place in PLACES for name, ask in TEXT.items()),
    *((f"{p}: embeddings, {name}", p, "vectors", a) for p in ("dashscope", "openai") for name, a in VECTORS.items()),
    *((f"openai: images, {name}", "openai", "pictures", ask) for name, ask in PICTURES.items()),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("place", "suffix", "ask"), [case[1:] for case in OPENAI_CASES], ids=[c[0] for c in OPENAI_CASES]
)
async def test_openai(bed: Bed, place: str, suffix: str, ask: Ask, way: str) -> None:
    base, provider, service, upstream_base = PLACES[place]
    if suffix:
        base = f"{base}-{suffix}" if base else f"/{suffix}"
    direct = await ask.through(bed.upstream.url + upstream_base, way, {})
    name = uuid.uuid4().hex
    call = ask.through(f"{bed.gateway.url}{base}/v1", way, {"x-sim-id": name, "x-request-id": name})
    result, record = await bed.record(call)
    assert result == direct
    entry = await bed.upstream.finished(name)
    check(record, ask.operation, ask.gen_ai_operation, provider, service, ask.options, ask.finish_reasons, ask.more)
    check_tokens(record, entry, usage_of(result))
    assert record["sluiceway.protocol"] == "openai"
    assert record["sluiceway.client_request_id"] == name
    assert credentials(entry) == ([] if provider == "vllm" else [f"Bearer {UPSTREAM_KEY}"])


def check(
    record: dict[str, Any],
    operation: str,
    gen_ai_operation: str,
    provider: str,
    service: str,
    options: Mapping[str, Any],
    finish_reasons: list[str] | None,
    more: Mapping[str, Any],
) -> None:
    """What every record of a call that went well says."""
    expected = {
        "sluiceway.operation": operation,
        "gen_ai.operation.name": gen_ai_operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": options["model"],
        "gen_ai.request.stream": True if options.get("stream") else None,
        "gen_ai.response.finish_reasons": finish_reasons,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "sluiceway.service": service,
        "sluiceway.consumer": "team",
        "sluiceway.attempts": 1,
        "sluiceway.outcome": "ok",
        "error.type": None,
        "sluiceway.error.origin": None,
        **more,
    }
    assert {key: record.get(key) for key in expected} == expected


def check_tokens(record: dict[str, Any], entry: dict[str, Any], said: tuple[int, int | None] | None) -> None:
    """The record's tokens are those that the upstream said, and those that the caller was told, where it was."""
    recorded = (record.get("gen_ai.usage.input_tokens"), record.get("gen_ai.usage.output_tokens"))
    if said is not None:
        assert (recorded[0], recorded[1] or 0) == (said[0], said[1] or 0)
    if entry["input_tokens"] is None:
        assert (recorded, said) == ((None, None), None)
    else:
        assert (recorded[0], recorded[1] or 0) == (entry["input_tokens"], entry["output_tokens"] or 0)
        assert record["sluiceway.usage.source"] == "upstream"


def usage_of(result: Any) -> tuple[int, int | None] | None:
    """Input and output tokens that an answer, or the last chunk of a stream that has any, tells its caller."""
    for answer in reversed(result if isinstance(result, list) else [result]):
        usage = answer.get("usage")
        if usage and usage.get("image_count"):
            return None  # the SDK says 0 tokens where the answer says none
        if usage and "prompt_tokens" in usage:
            return usage["prompt_tokens"], usage.get("completion_tokens")
        if usage and "input_tokens" in usage:
            return usage["input_tokens"], usage["output_tokens"]
    return None


def credentials(entry: dict[str, Any]) -> list[str]:
    """What the upstream got as credentials."""
    return [value for name, value in entry["headers"] if name in ("authorization", "x-api-key", "api-key")]


# -- OpenAI: errors --------------------------------------------------------------------------------------------------

REFUSALS = {
    "wrong key": ("/v1", "sk-wrong", openai.AuthenticationError, 401, "unauthenticated", "invalid_api_key"),
    "no such route": ("/nowhere/v1", KEY, openai.NotFoundError, 404, "no_route", "no_route"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("base", "key", "kind", "status", "error_type", "code"), REFUSALS.values(), ids=REFUSALS)
async def test_openai_refused(
    bed: Bed, base: str, key: str, kind: type[openai.APIStatusError], status: int, error_type: str, code: str, way: str
) -> None:
    error, record = await bed.record(raised(chat().through(bed.gateway.url + base, way, {}, key)))
    assert type(error) is kind
    assert (error.status_code, error.code) == (status, code)
    assert error.response.headers["x-sluiceway-error"] == error_type
    assert record["sluiceway.outcome"] == "rejected"
    assert (record["error.type"], record["sluiceway.error.origin"]) == (error_type, "client")
    assert "sluiceway.service" not in record


UPSTREAM_ERRORS = {
    400: (openai.BadRequestError, "client"),
    429: (openai.RateLimitError, "upstream"),
    500: (openai.InternalServerError, "upstream"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", UPSTREAM_ERRORS)
async def test_openai_upstream_errors(bed: Bed, status: int, stream: bool, way: str) -> None:
    kind, origin = UPSTREAM_ERRORS[status]
    ask = chat(stream=stream)
    script = {"x-sim-status": str(status), "x-sim-retry-after": "7"}
    direct = await raised(ask.through(bed.upstream.url + "/compatible-mode/v1", way, script))
    error, record = await bed.record(raised(ask.through(bed.gateway.url + "/v1", way, script)))
    assert type(error) is type(direct) is kind
    assert (error.status_code, error.code, error.message, error.body) == (
        *(direct.status_code, direct.code, direct.message, direct.body),
    )
    assert error.response.headers["retry-after"] == "7"
    assert "x-sluiceway-error" not in error.response.headers
    assert record["sluiceway.outcome"] == "upstream_error"
    assert (record["error.type"], record["sluiceway.error.origin"]) == (error.code, origin)
    assert record["http.response.status_code"] == status


@pytest.mark.parametrize("way", WAYS)
async def test_openai_error_in_a_stream(bed: Bed, way: str) -> None:
    ask = chat(**STREAM)
    script = {"x-sim-error-after": "2", "x-sim-events": "4"}
    direct = await raised(ask.through(bed.upstream.url + "/compatible-mode/v1", way, script))
    error, record = await bed.record(raised(ask.through(bed.gateway.url + "/v1", way, script)))
    assert type(error) is type(direct) is openai.APIError
    assert (error.code, error.message, error.body) == (direct.code, direct.message, direct.body)
    assert record["sluiceway.outcome"] == "upstream_error"
    assert (record["error.type"], record["sluiceway.error.origin"]) == (error.code, "upstream")
    assert record["http.response.status_code"] == 200


async def raised(call: Awaitable[Any]) -> Any:
    """The SDK's error that a call ends with."""
    with pytest.raises(openai.APIError) as caught:
        await call
    return caught.value


# -- traces ----------------------------------------------------------------------------------------------------------

CALLERS_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLERS_SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(("base", "propagated"), [("/local", True), ("/openai", False), ("", False)])
async def test_traces_go_to_services_of_our_own_alone(bed: Bed, base: str, propagated: bool) -> None:
    name = uuid.uuid4().hex
    headers = {
        "x-sim-id": name,
        "traceparent": f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-01",
        "tracestate": "vendor=value",
        "baggage": "customer=42",
    }
    _, record = await bed.record(chat().through(f"{bed.gateway.url}{base}/v1", "async", headers))
    entry = await bed.upstream.finished(name)
    assert record["trace_id"] == CALLERS_TRACE
    sent = [value for key, value in entry["headers"] if key == "traceparent"]
    if propagated:
        [(version, trace, span, flags)] = [value.split("-") for value in sent]
        assert (version, trace, flags) == ("00", CALLERS_TRACE, "01")
        assert span not in (CALLERS_SPAN, record["span_id"])  # the CLIENT span, child of the request's own
        assert ["tracestate", "vendor=value"] in entry["headers"]
    else:
        assert not sent
        assert "tracestate" not in dict(entry["headers"])
    assert "baggage" not in dict(entry["headers"])


# -- DashScope -------------------------------------------------------------------------------------------------------

# The SDK turns incremental_output=False into True and adds the pieces up itself, except for models of such names.
CUMULATIVE_TEXT = "qwen-deep-research"
CUMULATIVE_PARTS = "qwen-omni-turbo"


@dataclass(frozen=True)
class Native:
    """One call of DashScope's SDK: of `Generation`, or of `MultiModalConversation`."""

    parts: bool
    options: Mapping[str, Any]
    base: str = ""
    finish_reasons: tuple[str, ...] = ("stop",)
    gen_ai_operation: str = "chat"
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def operation(self) -> str:
        return "multimodal-generation" if self.parts else "text-generation"

    async def through(self, url: str, way: str, headers: Mapping[str, str], key: str = KEY) -> Any:
        """Call, by this way. Answers dicts without the HTTP headers, which are the gateway's to add to."""
        options = {**self.options, "headers": dict(headers), "api_key": key, "base_address": f"{url}/api/v1"}
        if way == "async":
            answer: Any = await (AioMultiModalConversation if self.parts else AioGeneration).call(**options)
            if options.get("stream"):
                return [plain(piece) async for piece in answer]
            return plain(answer)
        return await asyncio.to_thread(self._call, options)

    def _call(self, options: dict[str, Any]) -> Any:
        answer: Any = (MultiModalConversation if self.parts else Generation).call(**options)
        return [plain(piece) for piece in answer] if options.get("stream") else plain(answer)


def plain(answer: Any) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "headers"}


def text(**options: Any) -> Native:
    return Native(False, {"model": "qwen-plus", "messages": MESSAGES, "result_format": "message", **options})


def parts(**options: Any) -> Native:
    return Native(True, {"model": "qwen3-vl-plus", "messages": PARTS, **options})


def picture(**options: Any) -> Native:
    asked = {"model": "qwen-image", "messages": [{"role": "user", "content": [{"text": QUESTION}]}], **options}
    more = {
        "gen_ai.output.type": "image",
        "sluiceway.usage.images": options.get("n", 1),
        "sluiceway.image.width": 1328,
        "sluiceway.image.height": 800,
        "sluiceway.usage.source": "upstream",
    }
    reasons = ("stop",) * options.get("n", 1)  # of one choice for each image
    return Native(True, {"size": "1328*800", **asked}, "/pictures", reasons, "generate_content", more)


NATIVE_CASES = {
    "message": text(),
    "text": text(result_format="text"),
    "text from a prompt": Native(False, {"model": "qwen-plus", "prompt": QUESTION}),
    "streamed": text(stream=True, incremental_output=True),
    "streamed text": text(stream=True, incremental_output=True, result_format="text"),
    "streamed, the SDK adds up": text(stream=True, incremental_output=False),
    "streamed, cumulative": text(stream=True, incremental_output=False, model=CUMULATIVE_TEXT),
    "streamed text, cumulative": text(
        stream=True, incremental_output=False, model=CUMULATIVE_TEXT, result_format="text"
    ),
    "a picture of 100 KB": parts(),
    "a picture of 100 KB, streamed": parts(stream=True, incremental_output=True),
    "a picture of 100 KB, cumulative": parts(stream=True, incremental_output=False, model=CUMULATIVE_PARTS),
    "an image": picture(),
    "two images": picture(n=2),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("native", NATIVE_CASES.values(), ids=NATIVE_CASES)
async def test_dashscope(bed: Bed, native: Native, way: str) -> None:
    direct = await native.through(bed.upstream.url, way, {})
    name = uuid.uuid4().hex
    call = native.through(bed.gateway.url + native.base, way, {"x-sim-id": name})
    result, record = await bed.record(call)
    assert result == direct
    answers = result if isinstance(result, list) else [result]
    assert {answer["status_code"] for answer in answers} == {200}
    entry = await bed.upstream.finished(name)
    options = native.options
    reasons = list(native.finish_reasons)
    check(record, native.operation, native.gen_ai_operation, "dashscope", "qwen", options, reasons, native.more)
    check_tokens(record, entry, usage_of(result))
    assert record["sluiceway.protocol"] == "dashscope"
    assert record["sluiceway.upstream_request_id"] == answers[0]["request_id"]
    assert credentials(entry) == [f"Bearer {UPSTREAM_KEY}"]


@pytest.mark.parametrize("way", WAYS)
async def test_dashscope_with_a_wrong_key(bed: Bed, way: str) -> None:
    answer, record = await bed.record(text().through(bed.gateway.url, way, {}, "sk-wrong"))
    check_refusal(answer, record, 401, "InvalidApiKey", "unauthenticated")


async def test_dashscope_without_a_route(bed: Bed) -> None:
    def call() -> Any:
        address = f"{bed.gateway.url}/api/v1"
        return TextEmbedding.call("text-embedding-v4", "a lock", api_key=KEY, base_address=address)

    answer, record = await bed.record(asyncio.to_thread(call))
    check_refusal(answer, record, 404, "NotFound", "no_route")


def check_refusal(answer: Mapping[str, Any], record: dict[str, Any], status: int, code: str, error_type: str) -> None:
    """The SDK shows the gateway's own error as it shows its provider's."""
    assert (answer["status_code"], answer["code"]) == (status, code)
    assert answer["message"]
    assert answer["request_id"] == record["sluiceway.request_id"]
    assert (record["sluiceway.outcome"], record["error.type"]) == ("rejected", error_type)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("status", "origin"), [(400, "client"), (429, "upstream"), (500, "upstream")])
async def test_dashscope_upstream_errors(bed: Bed, status: int, origin: str, stream: bool, way: str) -> None:
    native = text(stream=stream, **({"incremental_output": True} if stream else {}))
    script = {"x-sim-status": str(status)}
    direct = await native.through(bed.upstream.url, way, script)
    result, record = await bed.record(native.through(bed.gateway.url, way, script))
    assert result == direct
    answer = result[-1] if stream else result
    assert (answer["status_code"], answer["code"]) == (status, record["error.type"])
    assert (record["sluiceway.outcome"], record["sluiceway.error.origin"]) == ("upstream_error", origin)


@pytest.mark.parametrize("way", WAYS)
async def test_dashscope_error_in_a_stream(bed: Bed, way: str) -> None:
    native = text(stream=True, incremental_output=True)
    script = {"x-sim-error-after": "2", "x-sim-events": "4"}
    direct = await native.through(bed.upstream.url, way, script)
    result, record = await bed.record(native.through(bed.gateway.url, way, script))
    assert result == direct
    assert result[-1]["code"] == record["error.type"] == "InternalError"
    assert (record["sluiceway.outcome"], record["http.response.status_code"]) == ("upstream_error", 200)
