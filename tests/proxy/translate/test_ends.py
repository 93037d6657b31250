"""What an image request held is freed at its end, however that comes, without a collection."""

import asyncio
import gc
from typing import Any

import orjson
import pytest

from proxy.translate import tasks
from proxy.translate.downloads import Downloads
from proxy.translate.request import Translator
from proxy.translate.tasks import Task
from tests.fakes.dashscope_images import DashScopeImages, images_answer, refusal, task_answer
from tests.fakes.raw import connect
from tests.fakes.scripted import Fin, ReadRequest, ReadToEnd, Scripted, Send, Step
from tests.fakes.worker import FakeWorker, document_of, running
from tests.proxy.test_edge import post
from tests.proxy.test_no_cycles import HELD, no_collection
from tests.proxy.translate.test_form import written

__all__ = ["no_collection"]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 500
FORM = b"Content-Type: multipart/form-data; boundary=X-b.1"
JSON = b"Content-Type: application/json"


def edit(*parts: tuple[str, bytes | None, bytes]) -> bytes:
    body = written([("image", b"", PNG), ("prompt", None, b"p"), ("model", None, b"qwen-image"), *parts])
    return post(body, FORM).replace(b"/chat/completions", b"/images/edits")


def make(**asked: Any) -> bytes:
    body = orjson.dumps({"prompt": "p", "model": "qwen-image", **asked})
    return post(body, JSON).replace(b"/chat/completions", b"/images/generations")


TASK = {"model": "wanx-v1"}
ENDS = {
    "answered": (make(), [images_answer("https://example.com/a.png")], False),
    "refused": (make(), [refusal(400, "InvalidParameter")], False),
    "an edit": (edit(), [images_answer("https://example.com/a.png")], False),
    "a mask": (edit(("mask", b"", PNG)), [images_answer("https://example.com/a.png")], False),
    "two prompts": (edit(("prompt", None, b"q")), [images_answer("https://example.com/a.png")], False),
    "fetched": (make(response_format="b64_json"), [images_answer("{url}/stored/a", "{url}/stored/a")], False),
    "not there": (make(response_format="b64_json"), [images_answer("{url}/stored/a", "{url}/stored/b", "x")], False),
    "a task": (make(**TASK), [task_answer("done", "PENDING")], False),
    "a failed task": (make(**TASK), [task_answer("failed", "PENDING")], False),
    "a stream": (make(**TASK, stream=True), [task_answer("done", "PENDING")], False),
    "a failed stream": (make(**TASK, stream=True), [task_answer("failed", "PENDING")], False),
    "a task that was left": (make(**TASK), [task_answer("running", "PENDING")], True),
    "a stream that was left": (make(**TASK, stream=True), [task_answer("running", "PENDING")], True),
}


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(("sent", "answers", "leaves"), ENDS.values(), ids=list(ENDS))
async def test_nothing_of_it_outlives_it(
    sent: bytes, answers: list[tuple[int, dict[str, Any]]], leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "FIRST_WAIT_S", 0.01)
    async with DashScopeImages() as upstream:
        upstream.answers = orjson.loads(orjson.dumps(answers).replace(b"{url}", upstream.url.encode()))
        upstream.stored = {"a": PNG}
        upstream.tasks = {
            "done": [task_answer("done", "SUCCEEDED", {"url": f"{upstream.url}/stored/a"})],
            "failed": [task_answer("failed", "FAILED", code="InternalError")],
            "running": [task_answer("running", "RUNNING")],
        }
        api = {"scenario": "image", "protocols": ["openai"]}
        async with running(document_of(upstream.url, provider="dashscope", model_api=api)) as worker:
            gc.collect()
            async with connect(worker.port) as client:
                client.send(sent)
                if leaves:
                    await upstream.looked.wait()
                    client.leave()
                else:
                    await client.answer()
            async with asyncio.timeout(10):
                while worker.server.live:
                    await asyncio.sleep(0.01)
            assert await _freed(worker) == []


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000
STORES: dict[str, tuple[bytes, tuple[Step, ...], bool]] = {
    "breaks off": (make(response_format="b64_json"), (Send(HALF), Fin()), False),
    "breaks off in a stream": (make(stream=True), (Send(HALF), Fin()), False),
    "breaks off in a task's stream": (make(**TASK, stream=True), (Send(HALF), Fin()), False),
    "says nothing in a task's stream": (make(**TASK, stream=True), (Fin(),), False),
    "is left": (make(response_format="b64_json"), (Send(HALF), ReadToEnd()), True),
    "is left in a task's stream": (make(**TASK, stream=True), (Send(HALF), ReadToEnd()), True),
}


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(("sent", "steps", "leaves"), STORES.values(), ids=list(STORES))
async def test_nothing_outlives_a_store_that(
    sent: bytes, steps: tuple[Step, ...], leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "FIRST_WAIT_S", 0.01)
    async with DashScopeImages() as upstream, Scripted(ReadRequest(), *steps) as store:
        url = f"http://127.0.0.1:{store.port}/a"
        is_task = b"wanx" in sent
        upstream.answers = [task_answer("done", "PENDING") if is_task else images_answer(url)]
        upstream.tasks = {"done": [task_answer("done", "SUCCEEDED", {"url": url})]}
        api = {"scenario": "image", "protocols": ["openai"]}
        async with running(document_of(upstream.url, provider="dashscope", model_api=api)) as worker:
            gc.collect()
            async with connect(worker.port) as client:
                client.send(sent)
                if leaves:
                    await client.reader.readuntil(b'b64_json":"')
                    client.leave()
                else:
                    await client.rest()
            async with asyncio.timeout(10):
                while worker.server.live:
                    await asyncio.sleep(0.01)
            await asyncio.wait_for(store.connections[0].closed.wait(), 10)
            assert await _freed(worker) == []


@pytest.mark.usefixtures("no_collection")
async def test_nothing_outlives_a_task_that_was_left_before_it_had_a_name() -> None:
    async with DashScopeImages() as upstream:
        upstream.answers = [task_answer("unborn", "PENDING")]
        upstream.may_answer.clear()
        api = {"scenario": "image", "protocols": ["openai"]}
        async with running(document_of(upstream.url, provider="dashscope", model_api=api)) as worker:
            gc.collect()
            async with connect(worker.port) as client:
                client.send(make(**TASK))
                await asyncio.wait_for(upstream.came.wait(), 10)
                client.leave()
            await worker.fields()
            upstream.may_answer.set()
            assert await asyncio.wait_for(upstream.cancelled.get(), 10) == "unborn"
            assert await _freed(worker) == []


async def _freed(worker: FakeWorker, turns: int = 200) -> list[object]:
    """What is left after some time; the test's own upstream has idle connections in the pool."""
    left: list[object] = []
    for _ in range(turns):
        while not worker.records.empty():
            worker.records.get_nowait()
        kinds = (*HELD[:-1], Task, Translator, Downloads)
        left = [one for one in gc.get_objects() if isinstance(one, kinds)]
        if not left:
            break
        await asyncio.sleep(0.01)
    return left
