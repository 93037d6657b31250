"""DashScope's SDK, version 2: one client that speaks any of the three protocols, and DashScope's own for all but chat.

It takes any root as its base URL, and retries by itself unless it is told not to.
"""

from collections.abc import Callable
from typing import Any

import dashscope
import pytest
from dashscope.v2 import errors

from proxy.errors import KINDS
from tests.e2e.sdks.bed import KEY, OTHER_KEY, WAYS, Bed, fields_of, in_thread

pytestmark = pytest.mark.asyncio(loop_scope="package")

QUESTION = "What lifts a boat over a hill? Ein Schleusentor, 水閘, and patience."
ROOTS = {"native": "/api/v1", "openai": "/v1", "anthropic": ""}
OPERATIONS = {
    "native": ("text-generation", "dashscope"),
    "openai": ("chat.completions", "openai"),
    "anthropic": ("messages", "anthropic"),
}


def client_of(url: str, protocol: str = "native", key: str = KEY) -> dashscope.Client:
    return dashscope.Client(api_key=key, base_url=url + ROOTS[protocol], protocol=protocol, max_retries=0)


async def chat(url: str, way: str, protocol: str, *, stream: bool = False, key: str = KEY) -> Any:
    """A chat; of a stream its pieces, and what the SDK makes of them in the end."""
    options: dict[str, Any] = {"model": "qwen-plus", "messages": QUESTION, "stream": stream, "max_tokens": 99}
    if way == "async":
        settings: dict[str, Any] = {"protocol": protocol, "max_retries": 0}
        async with dashscope.AsyncClient(api_key=key, base_url=url + ROOTS[protocol], **settings) as client:
            answer: Any = await client.chat.completions.create(**options)
            return [piece async for piece in answer] if stream else answer

    def run() -> Any:
        with client_of(url, protocol, key) as client:
            answer = client.chat.completions.create(**options)
            return list(answer) if stream else answer

    return await in_thread(run)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("protocol", ROOTS)
async def test_chat(bed: Bed, protocol: str, stream: bool, way: str) -> None:
    answer, (record,) = await bed.records(chat(bed.url("text"), way, protocol, stream=stream))
    operation, spoken = OPERATIONS[protocol]
    expected = {
        "sluiceway.operation": operation,
        "sluiceway.protocol": spoken,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "qwen-plus",
        "gen_ai.request.stream": True if stream else None,
        "sluiceway.usage.source": "upstream",
        "sluiceway.outcome": "ok",
    }
    assert fields_of(record, expected) == expected
    if not stream:
        assert answer.choices[0].message.content
        assert record["gen_ai.usage.output_tokens"] == answer.usage.output_tokens


CALLS: dict[str, tuple[str, Callable[[dashscope.Client], Any], str, dict[str, Any]]] = {
    "embeddings": (
        "vectors",
        lambda client: client.embeddings.create(model="text-embedding-v4", input=["a lock", "a weir"]),
        "text-embedding",
        {"gen_ai.operation.name": "embeddings", "sluiceway.usage.documents": 2},
    ),
    "rerank": (
        "ranks",
        lambda client: client.rerank.create(model="gte-rerank-v2", query=QUESTION, documents=["a lock", "a weir"]),
        "text-rerank",
        {"gen_ai.operation.name": "rerank", "sluiceway.usage.documents": 2},
    ),
}


@pytest.mark.parametrize(("base", "call", "operation", "more"), CALLS.values(), ids=CALLS)
async def test_documents(
    bed: Bed, base: str, call: Callable[[dashscope.Client], Any], operation: str, more: dict[str, Any]
) -> None:
    def run() -> Any:
        with client_of(bed.url(base)) as client:
            return call(client)

    answer, (record,) = await bed.records(in_thread(run))
    assert answer.request_id == record["sluiceway.upstream_request_id"]
    expected = {"sluiceway.operation": operation, "sluiceway.outcome": "ok", **more}
    assert fields_of(record, expected) == expected


async def test_an_image(bed: Bed) -> None:
    """Submitted, and fetched until it is there: the simulated one is by the third time."""

    def run() -> Any:
        with client_of(bed.url("pictures")) as client:
            return client.images.generate(model="wanx2.1-t2i-turbo", prompt=QUESTION, n=2, poll_interval=0.01)

    job, (submitted, *fetched) = await bed.records(in_thread(run), 4)
    assert len(job.image_urls) == 2
    assert (submitted["sluiceway.operation"], submitted["sluiceway.task_id"]) == ("text2image", job.task_id)
    assert {(one["sluiceway.operation"], one["sluiceway.task_id"]) for one in fetched} == {("tasks", job.task_id)}
    assert [one.get("sluiceway.usage.images") for one in fetched] == [None, None, 2]


ERRORS = {
    # kind → Model API, key, what native raises
    "unauthenticated": ("text", "sk-nobody", errors.AuthenticationError),
    "forbidden": ("forbidden", OTHER_KEY, errors.PermissionDeniedError),
    "no_route": ("nowhere", KEY, errors.NotFoundError),
    "model_unknown": ("model_unknown", KEY, errors.NotFoundError),
    "connect_failed": ("connect_failed", KEY, errors.InternalServerError),
}


@pytest.mark.parametrize("protocol", ROOTS)
@pytest.mark.parametrize("kind", ERRORS)
async def test_errors(bed: Bed, kind: str, protocol: str) -> None:
    base, key, native = ERRORS[kind]

    async def raised() -> errors.APIStatusError:
        with pytest.raises(errors.APIStatusError) as caught:
            await chat(bed.url(base), "sync", protocol, key=key)
        return caught.value

    error, (record,) = await bed.records(raised())
    assert error.status_code == KINDS[kind].status == record["http.response.status_code"]
    assert error.message
    assert record["error.type"] == kind
    if protocol == "native" or error.status_code < 500:  # its table of statuses has no 502
        assert type(error) is native
    if protocol != "openai":  # whose errors have none
        assert error.request_id == record["sluiceway.request_id"]
