"""An OpenAI service and a DashScope service behind one Model API: each gets what is its own, whoever comes first."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from tests.e2e.two_targets import answer
from tests.fakes.dashscope_images import DashScopeImages, images_answer, refusal, task_answer
from tests.fakes.scripted import ReadRequest, Scripted, Send
from tests.fakes.worker import KEY, FakeWorker, document_of, running
from tests.proxy.translate.test_form import written

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
MADE = {"created": 1, "data": [{"url": "https://example.com/openai.png"}]}
FORM = "multipart/form-data; boundary=X-b.1"


@contextlib.asynccontextmanager
async def both(*, dashscope_first: bool, openai_says: bytes) -> AsyncIterator[tuple[Any, ...]]:
    async with (
        DashScopeImages() as dashscope,
        Scripted(ReadRequest(), Send(openai_says)) as openai,
        aiohttp.ClientSession() as client,
    ):
        one = {"name": "sim", "provider": "dashscope", "base_url": dashscope.url, "api_keys": ["sk-dash"]}
        two = {"name": "two", "provider": "openai", "base_url": f"http://127.0.0.1:{openai.port}", "api_keys": ["sk-o"]}
        if not dashscope_first:
            one["name"], two["name"] = two["name"], one["name"]
        api = {"scenario": "image", "protocols": ["openai"], "fallback": [{"service": "two"}]}
        document = document_of("http://127.0.0.1:1", model_api=api)
        document["services"] = [one, two]
        async with running(document) as worker:
            yield worker, dashscope, openai, client


async def ask(worker: FakeWorker, client: aiohttp.ClientSession, body: bytes, kind: str, path: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": kind}
    url = f"http://{worker.host}:{worker.port}/v1/images/{path}"
    async with client.post(url, data=body, headers=headers) as got:
        return got.status, orjson.loads(await got.read())


def edit(size: int) -> bytes:
    return written([("model", None, b"qwen-image"), ("image", b"", PNG * size), ("prompt", None, b"p")])


BODIES = {
    "small JSON": (orjson.dumps({"model": "qwen-image", "prompt": "p", "size": "8x9"}), "application/json"),
    "a small form": (edit(1), FORM),
    "a large form": (edit(2000), FORM),
}


@pytest.mark.parametrize(("body", "kind"), BODIES.values(), ids=list(BODIES))
async def test_from_dashscope_to_openai(body: bytes, kind: str) -> None:
    says = answer(200, orjson.dumps(MADE))
    async with both(dashscope_first=True, openai_says=says) as (worker, dashscope, openai, client):
        dashscope.answers = [refusal(503, "ServiceUnavailable")]
        path = "edits" if kind == FORM else "generations"
        assert await ask(worker, client, body, kind, path) == (200, MADE)
        [head] = openai.heads
        assert b"authorization: bearer sk-o" in head.lower()
        assert b"content-length: %d\r\n" % len(body) in head.lower()
        assert b"content-type: %b\r\n" % kind.lower().encode() in head.lower()
        assert openai.connections[0].bodies == [body]
        fields = await worker.fields()
        assert (fields["sluiceway.outcome"], fields["sluiceway.usage.images"]) == ("ok", 1)


@pytest.mark.parametrize("task", [True, False])
@pytest.mark.parametrize(("body", "kind"), BODIES.values(), ids=list(BODIES))
async def test_from_openai_to_dashscope(body: bytes, kind: str, task: bool) -> None:
    if task:
        body = body.replace(b"qwen-image", b"wan2.5-i2i")
    says = answer(500, b'{"error":{"message":"No.","code":"x"}}')
    async with both(dashscope_first=False, openai_says=says) as (worker, dashscope, _, client):
        url = "https://example.com/a.png"
        dashscope.answers = [task_answer("t-1", "PENDING") if task else images_answer(url)]
        dashscope.tasks["t-1"] = [task_answer("t-1", "SUCCEEDED", {"url": url})]
        status, made = await ask(worker, client, body, kind, "edits" if kind == FORM else "generations")
        assert (status, made["data"]) == (200, [{"url": url}])
        [request] = dashscope.requests
        assert request.headers["Authorization"] == "Bearer sk-dash"
        assert [picture.size for picture in request.pictures] == ([] if kind != FORM else [len(body) - len(edit(0))])
        fields = await worker.fields()
        assert (fields["sluiceway.outcome"], fields["sluiceway.usage.images"]) == ("ok", 1)
