"""OpenAI image requests to DashScope services, through a whole worker: what goes up and comes back."""

import asyncio
import base64
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from proxy.translate import downloads, tasks
from tests.fakes.dashscope_images import REQUEST_ID, DashScopeImages, images_answer, refusal, task_answer
from tests.fakes.scripted import Fin, ReadHead, ReadRequest, Reset, Scripted, Send
from tests.fakes.worker import KEY, UPSTREAM_KEY, FakeWorker, document_of, running
from tests.proxy.translate.test_form import written

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3
GENERATE = {"prompt": "a lock", "model": "qwen-image", "size": "1024x768"}
SYNC = "/api/v1/services/aigc/multimodal-generation/generation"
TASK = {"prompt": "a lock", "model": "wan2.2-t2i-flash"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_WAIT_S", 0.01)


def loads(data: bytes) -> Any:
    return orjson.loads(data)


def events_of(data: bytes) -> list[Any]:
    """Of server-sent events; an event says its name as `type` too."""
    found: list[Any] = []
    for event in data.decode().split("\n\n")[:-1]:
        name, _, said = event.rpartition("data: ")
        found.append(loads(said.encode()) if name or said.startswith("{") else event)
        assert not name or name == f"event: {found[-1]['type']}\n"
    return found


class Bed:
    """A worker before one or two DashScopes, and a client."""

    def __init__(self, worker: FakeWorker, one: DashScopeImages, two: DashScopeImages, client: aiohttp.ClientSession):
        self.worker = worker
        self.one = one
        self.two = two
        self.client = client

    async def read(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body, as far as it comes."""
        seen = b""
        async with self.stream(asked) as answer:
            with contextlib.suppress(aiohttp.ClientPayloadError):
                async for piece in answer.content.iter_any():
                    seen += piece
            return answer.status, seen

    def stream(self, asked: dict[str, Any]) -> Any:
        """The answer as it comes."""
        url = f"http://{self.worker.host}:{self.worker.port}/v1/images/generations"
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        return self.client.post(url, data=orjson.dumps({"stream": True, **asked}), headers=headers)

    async def post(
        self, asked: Any, path: str = "/v1/images/generations", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON (or the events of a stream, comments as texts) and head of what comes."""
        body, kind = (asked, "multipart/form-data; boundary=X-b.1") if isinstance(asked, bytes) else (None, "")
        headers = {"Authorization": f"Bearer {KEY}", **headers}
        if body is None:
            body, kind = orjson.dumps(asked), "application/json"
        async with self.client.post(
            f"http://{self.worker.host}:{self.worker.port}{path}", data=body, headers={**headers, "Content-Type": kind}
        ) as answer:
            lines = {name.lower(): value for name, value in answer.headers.items()}
            data = await answer.read()
            return answer.status, events_of(data) if answer.content_type == "text/event-stream" else loads(data), lines


@contextlib.asynccontextmanager
async def serving(
    *, fallback: bool | list[dict[str, Any]] = False, service: dict[str, Any] | None = None, **model_api: Any
) -> AsyncIterator[Bed]:
    async with DashScopeImages() as one, DashScopeImages() as two, aiohttp.ClientSession() as client:
        api: dict[str, Any] = {"scenario": "image", "protocols": ["openai"], **model_api}
        if fallback:
            api["fallback"] = [{"service": "two"}] if fallback is True else fallback
        document = document_of(one.url, provider="dashscope", service=service, model_api=api)
        document["services"].append(
            {"name": "two", "provider": "dashscope", "base_url": two.url, "api_keys": ["sk-two"]}
        )
        async with running(document) as worker:
            yield Bed(worker, one, two, client)


def said(body: bytes, *lines: bytes, status: int = 200) -> bytes:
    head = b"".join(line + b"\r\n" for line in (b"Content-Length: %d" % len(body), *lines))
    return b"HTTP/1.1 %d Said\r\n%b\r\n%b" % (status, head, body)


@contextlib.asynccontextmanager
async def one_target(port: int) -> AsyncIterator[tuple[FakeWorker, aiohttp.ClientSession]]:
    api = {"scenario": "image", "protocols": ["openai"]}
    document = document_of(f"http://127.0.0.1:{port}", provider="dashscope", model_api=api)
    async with running(document) as worker, aiohttp.ClientSession() as client:
        yield worker, client


async def test_generations_at_once() -> None:
    async with serving() as bed:
        bed.one.answers = [images_answer("https://example.com/a.png", "https://example.com/b.png")]
        status, body, headers = await bed.post(
            GENERATE, **{"x-dashscope-async": "enable", "Accept-Encoding": "gzip", "x-mine": "1"}
        )
        assert (status, headers["content-type"]) == (200, "application/json")
        assert [one["url"] for one in body["data"]] == ["https://example.com/a.png", "https://example.com/b.png"]
        assert abs(body["created"] - time.time()) < 3600
        assert headers["x-request-id"] == REQUEST_ID
        assert headers["x-sluiceway-service"] == "sim"
        [request] = bed.one.requests
        assert (request.method, request.path) == ("POST", SYNC)
        assert request.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["x-mine"] == "1"
        assert "x-dashscope-async" not in request.headers
        assert "Accept-Encoding" not in request.headers
        assert request.document == {
            "input": {"messages": [{"role": "user", "content": [{"text": "a lock"}]}]},
            "model": "qwen-image",
            "parameters": {"size": "1024*768", "n": 1},
        }
        fields = await bed.worker.fields()
        expected = {
            "sluiceway.outcome": "ok",
            "sluiceway.operation": "images.generations",
            "sluiceway.protocol": "openai",
            "gen_ai.provider.name": "dashscope",
            "gen_ai.operation.name": "generate_content",
            "gen_ai.request.model": "qwen-image",
            "sluiceway.usage.images": 2,
            "sluiceway.usage.source": "upstream",
            "sluiceway.image.width": 1024,
            "sluiceway.image.height": 768,
            "sluiceway.upstream_request_id": REQUEST_ID,
            "sluiceway.attempts": 1,
            "http.response.status_code": 200,
        }
        assert {key: fields.get(key) for key in expected} == expected
        assert "gen_ai.request.stream" not in fields


@pytest.mark.parametrize("asked", [GENERATE, TASK])
async def test_nothing_is_said_of_a_body_that_is_not_sent(asked: dict[str, Any]) -> None:
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING") if asked is TASK else images_answer("https://example.com/a")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "SUCCEEDED", {"url": "https://example.com/a"})]
        digests = dict.fromkeys(("Content-MD5", "Digest", "Content-Digest", "Repr-Digest"), "x")
        status, _, _ = await bed.post(asked, **digests, **{"X-DashScope-SSE": "enable", "X-Other": "y"})
        assert status == 200
        [request] = bed.one.requests
        assert not {*digests, "X-DashScope-SSE"} & request.headers.keys()
        assert request.headers["X-Other"] == "y"


@pytest.mark.parametrize("model", [None, "qwen-image-max"])
async def test_the_targets_model_decides_and_is_sent(model: str | None) -> None:
    async with serving(routing={"single": {"service": "sim", "model": model}}) as bed:
        bed.one.answers = [images_answer("https://example.com/a.png")]
        status, _, _ = await bed.post({**GENERATE, "model": "wanx-v1" if model else "qwen-image"})
        assert status == 200
        assert bed.one.requests[0].path == SYNC
        assert bed.one.requests[0].document["model"] == (model or "qwen-image")


async def test_base_path_prefix_and_image_paths() -> None:
    path = "/api/v1/services/aigc/image-generation/generation"
    service = {"image_paths": {"qwen-*": path}}
    async with serving(service=service, base_path="/images", strip_base_path=False) as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "SUCCEEDED", {"url": "https://example.com/a.png"})]
        status, body, _ = await bed.post(GENERATE, "/images/v1/images/generations/")
        assert (status, body["data"]) == (200, [{"url": "https://example.com/a.png"}])
        [request] = bed.one.requests
        assert request.path == f"/images{path}"
        assert request.document["input"]["messages"][0]["content"] == [{"text": "a lock"}]


EDIT = written(
    [
        ("image[]", b"image/png", PNG * 500),  # larger than what is read whole
        ("image[]", b"image/png", b"\xff\xd8\xff" + bytes(1000)),
        *(("prompt", None, b"a lock"), ("model", None, b"qwen-image-edit"), ("size", None, b"512x512")),
    ]
)


@pytest.mark.parametrize("fallback", [False, True])
async def test_an_edit_whose_model_stands_last(fallback: bool) -> None:
    async with serving(fallback=fallback) as bed:
        bed.one.answers = [images_answer("https://example.com/a.png")]
        status, body, _ = await bed.post(EDIT, "/v1/images/edits")
        assert (status, body["data"]) == (200, [{"url": "https://example.com/a.png"}])
        [request] = bed.one.requests
        assert request.path == SYNC
        assert request.headers["Transfer-Encoding"] == "chunked"
        assert [(one.kind, one.size, one.sha256) for one in request.pictures] == [
            ("image/png", len(PNG) * 500, hashlib.sha256(PNG * 500).hexdigest()),
            ("image/jpeg", 1003, hashlib.sha256(b"\xff\xd8\xff" + bytes(1000)).hexdigest()),
        ]
        assert request.document["input"]["messages"][0]["content"] == [
            {"image": "data:0"},
            {"image": "data:1"},
            {"text": "a lock"},
        ]
        fields = await bed.worker.fields()
        assert fields["sluiceway.request.bytes"] == len(EDIT)
        assert fields["gen_ai.request.model"] == "qwen-image-edit"
        assert fields["sluiceway.usage.images"] == 1


async def test_an_edit_is_sent_again_to_the_next_target() -> None:
    async with serving(fallback=True) as bed:
        bed.one.answers = [refusal(503, "ServiceUnavailable")]
        bed.two.answers = [images_answer("https://example.com/a.png")]
        status, _, headers = await bed.post(EDIT, "/v1/images/edits")
        assert (status, headers["x-sluiceway-service"], headers["x-sluiceway-attempts"]) == (200, "two", "2")
        assert bed.one.requests[0].pictures == bed.two.requests[0].pictures
        assert bed.one.requests[0].document == bed.two.requests[0].document


REFUSALS = [
    (refusal(400, "InvalidParameter", "size is wrong"), 400, "client"),
    (refusal(200, "DataInspectionFailed"), 400, "client"),
    (refusal(429, "Throttling.RateQuota"), 429, "upstream"),
    (refusal(500, "InternalError"), 500, "upstream"),
]


@pytest.mark.parametrize(("said", "status", "origin"), REFUSALS)
async def test_the_upstreams_no(said: tuple[int, dict[str, Any]], status: int, origin: str) -> None:
    async with serving() as bed:
        bed.one.answers = [said]
        bed.one.headers = {"Retry-After": "7"}
        answered, body, headers = await bed.post(GENERATE)
        code = said[1]["code"]
        assert (answered, body["error"]["code"], body["error"]["message"]) == (status, code, said[1]["message"])
        assert "x-sluiceway-error" not in headers
        assert headers.get("retry-after") == ("7" if status == 429 else None)
        fields = await bed.worker.fields()
        assert (fields["sluiceway.outcome"], fields["error.type"]) == ("upstream_error", code)
        assert fields["sluiceway.error.origin"] == origin
        assert fields["sluiceway.upstream_request_id"] == REQUEST_ID


async def test_the_last_no_goes_out_where_all_say_no() -> None:
    async with serving(fallback=True) as bed:
        bed.one.answers = [refusal(503, "ServiceUnavailable")]
        bed.two.answers = [refusal(429, "Throttling")]
        status, body, headers = await bed.post(GENERATE)
        assert (status, body["error"]["code"], headers["x-sluiceway-attempts"]) == (429, "Throttling", "2")
        assert (await bed.worker.fields())["error.type"] == "Throttling"


OWN_REFUSALS: list[tuple[str, Any, int, str]] = [
    ("/v1/images/generations", {"prompt": "p"}, 400, "model_missing"),
    ("/v1/images/generations", {"model": "qwen-image"}, 400, "bad_request"),
    ("/v1/images/edits", {"model": "qwen-image", "prompt": "p"}, 400, "bad_request"),
    ("/v1/images/edits", EDIT[:-50], 400, "bad_request"),
    ("/v1/images/edits", written([("image", b"", PNG), ("mask", b"", PNG * 99), ("prompt", None, b"p"),
                                  ("model", None, b"qwen-image")]), 400, "bad_request"),
    ("/v1/images/edits", written([("image", b"", PNG * 99), ("mask", b"", PNG), ("prompt", None, b"p"),
                                  ("model", None, b"qwen-image")]), 400, "bad_request"),
    ("/v1/images/variations", written([("image", b"", PNG), ("model", None, b"dall-e-2")]), 400, "bad_request"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "asked", "status", "kind"), OWN_REFUSALS)
async def test_what_the_gateway_refuses(path: str, asked: Any, status: int, kind: str) -> None:
    async with serving() as bed:
        bed.one.answers = [images_answer("https://example.com/a.png")]
        answered, body, headers = await bed.post(asked, path)
        assert (answered, headers["x-sluiceway-error"]) == (status, kind)
        assert body["error"]["type"] == "invalid_request_error"
        assert bed.one.requests == []
        assert (await bed.worker.fields())["sluiceway.outcome"] == "rejected"


@pytest.mark.parametrize("times", [1, 200], ids=["small", "large"])
async def test_a_mask_goes_to_a_target_that_takes_it(times: int) -> None:
    fallback = [{"service": "two", "model": "wanx2.1-imageedit"}]
    async with serving(routing={"single": {"service": "sim", "model": "qwen-image"}}, fallback=fallback) as bed:
        bed.one.answers = [images_answer("https://example.com/a.png")]
        bed.two.answers = [task_answer("t-2", "PENDING")]
        bed.two.tasks["t-2"] = [task_answer("t-2", "SUCCEEDED", {"url": "https://example.com/b.png"})]
        parts = [("image", b"", PNG * times), ("mask", b"", PNG), ("prompt", None, b"p"), ("model", None, b"x")]
        status, _body, headers = await bed.post(written(parts), "/v1/images/edits")
        assert (status, headers["x-sluiceway-service"]) == (200, "two")
        assert [one.size for one in bed.two.requests[0].pictures] == [len(PNG) * times, len(PNG)]


async def test_an_edit_whose_model_nobody_needs_to_know() -> None:
    routing = {"single": {"service": "sim", "model": "wan2.5-i2i-preview"}}
    async with serving(routing=routing) as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "SUCCEEDED", {"url": "https://example.com/a.png"})]
        unnamed = EDIT.replace(b'name="model"', b'name="mudel"')
        status, _, _ = await bed.post(unnamed, "/v1/images/edits")
        assert status == 200
        assert bed.one.requests[0].document["model"] == "wan2.5-i2i-preview"
        assert bed.one.requests[0].document["input"] == {"images": ["data:0", "data:1"], "prompt": "a lock"}


# -- tasks -----------------------------------------------------------------------------------------------------------


async def test_a_task_is_followed_to_its_end() -> None:
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [
            task_answer("t-1", "PENDING"),
            refusal(503, "ServiceUnavailable"),
            task_answer("t-1", "RUNNING"),
            task_answer("t-1", "SUCCEEDED", {"url": "https://example.com/a.png"}, {"code": "DataInspectionFailed"}),
        ]
        status, body, _ = await bed.post({**TASK, "n": 2}, **{"X-DashScope-WorkSpace": "llm-1", "x-mine": "1"})
        assert (status, body["data"]) == (200, [{"url": "https://example.com/a.png"}])
        [request] = bed.one.requests
        assert request.path == "/api/v1/services/aigc/text2image/image-synthesis"
        assert request.headers["X-DashScope-Async"] == "enable"
        for look in bed.one.asked:
            assert (look.method, look.path) == ("GET", "/api/v1/tasks/t-1")
            assert look.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
            assert look.headers["X-DashScope-WorkSpace"] == "llm-1"
            assert "x-mine" not in look.headers
        fields = await bed.worker.fields()
        assert fields["sluiceway.task_id"] == "t-1"
        assert (fields["sluiceway.outcome"], fields["sluiceway.usage.images"]) == ("ok", 1)
        assert fields["sluiceway.overhead_ms"] < fields["sluiceway.upstream_ms"]
        assert bed.one.cancelled.empty()


@pytest.mark.parametrize(
    ("ends", "status", "code"),
    [
        (task_answer("t-1", "FAILED", code="DataInspectionFailed", message="No."), 400, "DataInspectionFailed"),
        (task_answer("t-1", "FAILED", code="InternalError.Timeout"), 504, "InternalError.Timeout"),
        (task_answer("t-1", "SUCCEEDED", {"code": "Throttling", "message": "No."}), 429, "Throttling"),
        (refusal(404, "NotFound"), 404, "NotFound"),
    ],
)
async def test_a_task_that_fails(ends: tuple[int, dict[str, Any]], status: int, code: str) -> None:
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [ends]
        answered, body, _ = await bed.post(TASK)
        assert (answered, body["error"]["code"]) == (status, code)
        fields = await bed.worker.fields()
        assert (fields["sluiceway.outcome"], fields["error.type"]) == ("upstream_error", code)
        assert fields["http.response.status_code"] == status


async def test_a_failed_task_is_tried_elsewhere_and_a_doubtful_one_is_not() -> None:
    async with serving(fallback=True) as bed:
        bed.two.answers = [images_answer("https://example.com/a.png")]
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "FAILED", code="InternalError")]
        bed.two.tasks["t-2"] = [task_answer("t-2", "SUCCEEDED", {"url": "https://example.com/b.png"})]
        bed.two.answers = [task_answer("t-2", "PENDING")]
        status, body, headers = await bed.post(TASK)
        assert (status, headers["x-sluiceway-service"]) == (200, "two")
        assert body["data"] == [{"url": "https://example.com/b.png"}]
        bed.one.answers = [refusal(500, "InternalError")]  # who knows what became of it
        status, body, headers = await bed.post(TASK)
        assert (status, headers["x-sluiceway-service"]) == (500, "sim")


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_no_second_task_while_the_first_may_be_under_way(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What says of a request that nothing was done says of a look nothing of the task."""
    monkeypatch.setattr(tasks, "WAIT_MAX_S", 0.01)
    async with serving(fallback=True, service={"api_keys": ["sk-a", "sk-b"]}, fallback_on=[401, 429, 503]) as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [refusal(status, "Later")]
        bed.two.answers = [images_answer("https://example.com/a.png")]
        answered, _, headers = await bed.post(TASK)
        assert (answered, headers["x-sluiceway-attempts"]) == (status, "1")
        assert (len(bed.one.requests), len(bed.two.requests)) == (1, 0)


async def test_a_task_that_cannot_be_asked_for() -> None:
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [refusal(503, "ServiceUnavailable", "Later.")]
        status, body, _ = await bed.post(TASK)
        assert (status, body["error"]["message"]) == (503, "Later.")
        assert (await bed.worker.fields())["sluiceway.task_id"] == "t-1"


async def test_a_task_whose_upstream_is_gone() -> None:
    made = said(orjson.dumps(task_answer("t-1", "PENDING")[1]), b"Connection: close")
    scripts = ((ReadRequest(), Send(made), Fin()), (ReadRequest(), Reset()))
    async with Scripted.each(*scripts) as upstream, one_target(upstream.port) as (worker, client):
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        url = f"http://{worker.host}:{worker.port}/v1/images/generations"
        async with client.post(url, data=orjson.dumps(TASK), headers=headers) as got:
            assert (got.status, got.headers["x-sluiceway-error"]) == (502, "upstream_protocol")
        assert len(upstream.heads) >= 1 + tasks.FAILURES_MAX


async def test_whom_a_failure_counts_against() -> None:
    """An error of the service's own begins its cool-down; what it says with 200 may be the caller's fault."""
    async with serving(fallback=True, service={"cooldown": {"failures": 1, "base_ms": 60000}}) as bed:
        bed.two.answers = [images_answer("https://example.com/a.png")]
        for said_first, tried in ((refusal(200, "InternalError"), 1), (refusal(500, "InternalError"), 1), (None, 0)):
            bed.one.requests.clear()
            if said_first is not None:
                bed.one.answers = [said_first]
            status, _, headers = await bed.post(GENERATE)
            assert (status, headers["x-sluiceway-service"], len(bed.one.requests)) == (200, "two", tried)


async def test_a_task_in_a_stream_counts_against_whoever_lost_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "WAIT_MAX_S", 0.01)
    async with serving(fallback=True, service={"cooldown": {"failures": 1, "base_ms": 60000}}) as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [refusal(500, "InternalError")]
        bed.two.answers = [images_answer("https://example.com/a.png")]
        _, events, _ = await bed.post({**TASK, "stream": True})
        assert events[-1]["error"]["code"] == "InternalError"
        _, _, headers = await bed.post(GENERATE)
        assert headers["x-sluiceway-service"] == "two"


async def test_a_client_that_leaves_has_its_task_cancelled() -> None:
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "PENDING")]
        asking = asyncio.create_task(bed.post(TASK))
        await bed.one.looked.wait()
        asking.cancel()
        assert await asyncio.wait_for(bed.one.cancelled.get(), 10) == "t-1"
        fields = await bed.worker.fields()
        assert (fields["sluiceway.outcome"], fields["sluiceway.task_id"]) == ("client_aborted", "t-1")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_its_task_has_a_name(stream: bool) -> None:
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.may_answer.clear()
        asking = asyncio.create_task(bed.post({**TASK, "stream": stream}))
        await asyncio.wait_for(bed.one.came.wait(), 10)
        asking.cancel()
        assert (await bed.worker.fields())["sluiceway.outcome"] == "client_aborted"
        bed.one.may_answer.set()
        assert await asyncio.wait_for(bed.one.cancelled.get(), 10) == "t-1"


async def test_what_answers_at_once_is_cut_when_its_client_leaves() -> None:
    async with serving() as bed:
        bed.one.answers = [images_answer("https://example.com/a")]
        bed.one.may_answer.clear()
        asking = asyncio.create_task(bed.post(GENERATE))
        await asyncio.wait_for(bed.one.came.wait(), 10)
        asking.cancel()
        assert (await bed.worker.fields())["sluiceway.outcome"] == "client_aborted"
        await asyncio.wait_for(bed.one.left.wait(), 10)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_drain_that_takes_too_long_cancels_tasks(stream: bool) -> None:
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "PENDING")]
        asking = asyncio.create_task(bed.read({**TASK, "stream": stream}))
        await bed.one.looked.wait()
        bed.worker.handler.stopping = True
        bed.worker.server.cut_running()
        status, seen = await asking
        assert status == (200 if stream else 503)
        error = loads(seen.rpartition(b"data: ")[2])["error"]
        assert error["message"].startswith("the gateway shuts down")
        assert await asyncio.wait_for(bed.one.cancelled.get(), 10) == "t-1"


async def test_a_task_that_runs_is_left_alone() -> None:
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "RUNNING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "RUNNING")]
        asking = asyncio.create_task(bed.post(TASK))
        await bed.one.looked.wait()
        asking.cancel()
        await bed.worker.fields()
        bed.one.answers = [task_answer("t-2", "PENDING")]
        bed.one.tasks["t-2"] = [task_answer("t-2", "PENDING")]
        bed.one.looked.clear()
        asking = asyncio.create_task(bed.post(TASK))
        await bed.one.looked.wait()
        asking.cancel()
        assert await asyncio.wait_for(bed.one.cancelled.get(), 10) == "t-2"


async def test_the_total_timeout_ends_a_task_and_cancels_it() -> None:
    async with serving(service={"total_timeout_ms": 300}) as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "PENDING")]
        status, _, headers = await bed.post(TASK)
        assert (status, headers["x-sluiceway-error"]) == (504, "upstream_timeout")
        assert await asyncio.wait_for(bed.one.cancelled.get(), 10) == "t-1"


async def test_a_task_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASK_S", 0.2)
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "RUNNING")]
        status, _, headers = await bed.post(TASK)
        assert (status, headers["x-sluiceway-error"]) == (504, "upstream_timeout")


@pytest.mark.parametrize("made", [(200, {"output": {}}), (200, {"output": {"task_id": "../x"}}), (200, {})])
async def test_no_task_was_made(made: tuple[int, dict[str, Any]]) -> None:
    async with serving() as bed:
        bed.one.answers = [made]
        status, _, headers = await bed.post(TASK)
        assert (status, headers["x-sluiceway-error"]) == (502, "upstream_protocol")


async def test_looks_that_hang_end_before_the_task_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "LOOK_S", 0.05)
    monkeypatch.setattr(tasks, "WAIT_MAX_S", 0.01)
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.may_look.clear()
        status, body, headers = await bed.post(TASK)
        assert (status, headers["x-sluiceway-error"]) == (504, "upstream_timeout")
        assert "what became of the task" in body["error"]["message"]
        assert len(bed.one.asked) >= tasks.FAILURES_MAX
        assert await asyncio.wait_for(bed.one.cancelled.get(), 10) == "t-1"


async def test_a_total_timeout_stands_in_place_of_the_time_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASK_S", 0.0)
    async with serving(service={"total_timeout_ms": 60000}) as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        running = [task_answer("t-1", "RUNNING")] * 2
        bed.one.tasks["t-1"] = [*running, task_answer("t-1", "SUCCEEDED", {"url": "https://example.com/a"})]
        status, body, _ = await bed.post(TASK)
        assert (status, body["data"]) == (200, [{"url": "https://example.com/a"}])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_task_that_nobody_tells_of_is_cancelled(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "WAIT_MAX_S", 0.01)
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [refusal(500, "InternalError")]
        await bed.post({**TASK, "stream": stream})
        assert await asyncio.wait_for(bed.one.cancelled.get(), 10) == "t-1"


# -- images in the answer --------------------------------------------------------------------------------------------


async def test_images_are_fetched_where_the_upstream_put_them() -> None:
    async with serving() as bed, DashScopeImages() as store:
        store.stored = {"a.png": PNG * 300, "b.png": b"x"}
        bed.one.answers = [images_answer(f"{store.url}/stored/a.png?Signature=%2F&x=1", f"{store.url}/stored/b.png")]
        status, body, headers = await bed.post({**GENERATE, "response_format": "b64_json"})
        assert (status, headers["content-type"]) == (200, "application/json")
        assert [base64.b64decode(one["b64_json"]) for one in body["data"]] == [PNG * 300, b"x"]
        assert all(set(one) == {"b64_json"} for one in body["data"])
        assert {one.path for one in store.fetched} == {"/stored/a.png?Signature=%2F&x=1", "/stored/b.png"}
        assert all("Authorization" not in one.headers for one in store.fetched)
        fields = await bed.worker.fields()
        assert (fields["sluiceway.outcome"], fields["sluiceway.usage.images"]) == ("ok", 2)
        assert fields["sluiceway.response.bytes"] > len(PNG) * 400


async def test_fetching_needs_no_place_among_the_services_connections() -> None:
    async with serving(service={"max_connections": 1, "connect_timeout_ms": 2000}) as bed:
        bed.one.stored = {"a": PNG * 300}
        bed.one.answers = [images_answer(*[f"{bed.one.url}/stored/a"] * 3)]
        status, body, _ = await bed.post({**GENERATE, "response_format": "b64_json"})
        assert (status, len(body["data"])) == (200, 3)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("{store}/stored/none.png", "answered 404"),
        ("ftp://127.0.0.1/a", "leads nowhere"),
        ("http://127.0.0.1:1/a", "connect"),
        ("http://u:p@127.0.0.1/a", "leads nowhere"),
        ("http://127.0.0.1:99999/a", "is none"),
        ("x", "leads nowhere"),
        ("http://a b/", "leads nowhere"),
        ("http://127.0.0.1/a b", "belong into no URL"),
    ],
)
async def test_an_image_that_cannot_be_had_is_an_error_with_a_status(url: str, why: str) -> None:
    async with serving() as bed, DashScopeImages() as store:
        store.stored = {"a.png": PNG}
        bed.one.answers = [images_answer(f"{store.url}/stored/a.png", url.format(store=store.url))]
        status, body, headers = await bed.post({**GENERATE, "response_format": "b64_json"})
        assert status == 502
        assert headers["x-sluiceway-error"] == ("connect_failed" if why == "connect" else "upstream_protocol")
        assert "image cannot be fetched" in body["error"]["message"]
        assert why in body["error"]["message"]
        assert (await bed.worker.fields())["sluiceway.outcome"] == "upstream_error"


async def test_an_image_that_breaks_off_cuts_the_answer() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    async with serving() as bed, Scripted(ReadRequest(), Send(head + b"x" * 5000), Fin()) as store:
        bed.one.answers = [images_answer(f"http://127.0.0.1:{store.port}/a.png")]
        with pytest.raises(aiohttp.ClientPayloadError):
            await bed.post({**GENERATE, "response_format": "b64_json"})
        fields = await bed.worker.fields()
        assert (fields["sluiceway.outcome"], fields["error.type"]) == ("upstream_aborted", "upstream_truncated")
        assert fields["sluiceway.usage.images"] == 1


STORES = {
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
    "too large": b"HTTP/1.1 200 OK\r\nContent-Length: 67108865\r\n\r\n",
    "encoded": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
    "not HTTP": b"hello\r\n\r\n",
}


@pytest.mark.parametrize("said", STORES.values(), ids=list(STORES))
async def test_what_a_store_may_not_say(said: bytes) -> None:
    async with serving() as bed, Scripted(ReadRequest(), Send(said), Fin()) as store:
        bed.one.answers = [images_answer(f"http://127.0.0.1:{store.port}/a.png")]
        status, _, headers = await bed.post({**GENERATE, "response_format": "b64_json"})
        assert (status, headers["x-sluiceway-error"]) == (502, "upstream_protocol")
        assert len(store.heads) == 1


async def test_an_image_without_a_length_that_grows_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "IMAGE_BYTES_MAX", 70000)
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    async with serving() as bed, Scripted(ReadRequest(), Send(head), Send(b"x" * 1000, times=71), Fin()) as store:
        bed.one.answers = [images_answer(f"http://127.0.0.1:{store.port}/a.png")]
        with pytest.raises(aiohttp.ClientPayloadError):
            await bed.post({**GENERATE, "response_format": "b64_json"})


# -- streams ---------------------------------------------------------------------------------------------------------


async def test_a_stream_of_a_task_has_signs_of_life_and_then_the_images() -> None:
    async with serving() as bed:
        bed.one.stored = {"a": PNG, "b": b"x"}
        bed.one.answers = [task_answer("t-1", "PENDING")]
        urls = [{"url": f"{bed.one.url}/stored/{name}"} for name in bed.one.stored]
        bed.one.tasks["t-1"] = [
            task_answer("t-1", "PENDING"),
            task_answer("t-1", "RUNNING"),
            task_answer("t-1", "SUCCEEDED", *urls),
        ]
        status, events, headers = await bed.post({**TASK, "stream": True, "n": 2, "partial_images": 1})
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert events[:3] == [": the task was made", ": the task is pending", ": the task is running"]
        assert [event["type"] for event in events[3:]] == ["image_generation.completed"] * 2
        assert [base64.b64decode(event["b64_json"]) for event in events[3:]] == [PNG, b"x"]
        fields = await bed.worker.fields()
        expected = {
            "sluiceway.outcome": "ok",
            "gen_ai.request.stream": True,
            "sluiceway.response.events": 2,
            "sluiceway.usage.images": 2,
            "sluiceway.usage.source": "upstream",
            "sluiceway.task_id": "t-1",
        }
        assert {key: fields.get(key) for key in expected} == expected
        assert fields["sluiceway.time_to_first_byte_ms"] < fields["sluiceway.time_to_first_token_ms"]


async def test_a_stream_of_an_edit_that_is_answered_at_once() -> None:
    async with serving() as bed:
        bed.one.stored = {"a": PNG}
        bed.one.answers = [images_answer(f"{bed.one.url}/stored/a", input_tokens=3, output_tokens=4, width=8, height=9)]
        parts = [("image", b"", PNG), ("prompt", None, b"p"), ("model", None, b"qwen-image"), ("stream", None, b"true")]
        status, [event], _ = await bed.post(written(parts), "/v1/images/edits")
        assert (status, event["type"], event["size"]) == (200, "image_edit.completed", "8x9")
        assert base64.b64decode(event["b64_json"]) == PNG
        assert event["usage"]["total_tokens"] == 7
        assert (await bed.worker.fields())["sluiceway.outcome"] == "ok"


async def test_a_no_before_a_stream_has_a_status() -> None:
    async with serving() as bed:
        bed.one.answers = [refusal(429, "Throttling")]
        status, body, _ = await bed.post({**TASK, "stream": True})
        assert (status, body["error"]["code"]) == (429, "Throttling")


async def test_a_no_in_a_stream_is_an_event() -> None:
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "FAILED", code="DataInspectionFailed", message="No.")]
        status, events, _ = await bed.post({**TASK, "stream": True})
        assert (status, events[-1]["error"]["code"]) == (200, "DataInspectionFailed")
        fields = await bed.worker.fields()
        assert (fields["sluiceway.outcome"], fields["error.type"]) == ("upstream_error", "DataInspectionFailed")
        assert fields["sluiceway.error.origin"] == "client"


async def test_a_stream_whose_task_is_lost_is_cut_after_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASK_S", 0.2)
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "PENDING")]
        async with bed.stream(TASK) as answer:
            seen = b""
            with pytest.raises(aiohttp.ClientPayloadError):
                async for piece in answer.content.iter_any():
                    seen += piece
        *signs, error = events_of(seen)
        assert error["error"]["code"] == "upstream_timeout"
        assert all(sign.startswith(": the task ") for sign in signs)
        assert (await bed.worker.fields())["error.type"] == "upstream_timeout"
        assert await asyncio.wait_for(bed.one.cancelled.get(), 10) == "t-1"


@pytest.mark.parametrize("task", [True, False])
async def test_a_stream_that_breaks_off_inside_an_image_is_only_cut(task: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    async with serving() as bed, Scripted(ReadRequest(), Send(head + b"x" * 5000), Fin()) as store:
        url = f"http://127.0.0.1:{store.port}/a"
        bed.one.answers = [task_answer("t-1", "PENDING") if task else images_answer(url)]
        bed.one.tasks["t-1"] = [task_answer("t-1", "SUCCEEDED", {"url": url})]
        async with bed.stream(TASK if task else GENERATE) as answer:
            seen = b""
            with pytest.raises(aiohttp.ClientPayloadError):
                async for piece in answer.content.iter_any():
                    seen += piece
        begun = seen.rpartition(b"\n\n")[2]
        assert begun.startswith(b"event: image_generation.completed\ndata: {")
        assert b"upstream_truncated" not in begun
        fields = await bed.worker.fields()
        assert (fields["sluiceway.outcome"], fields["error.type"]) == ("upstream_aborted", "upstream_truncated")


async def test_an_upstreams_word_for_a_task_is_no_event() -> None:
    async with serving() as bed:
        bed.one.stored = {"a": PNG}
        bed.one.answers = [task_answer("t-1", "PENDING")]
        done = task_answer("t-1", "SUCCEEDED", {"url": f"{bed.one.url}/stored/a"})
        bed.one.tasks["t-1"] = [task_answer("t-1", 'x\n\ndata: {"type":"y"}'), done]
        _, events, _ = await bed.post({**TASK, "stream": True})
        assert events[:2] == [": the task was made", ": the task is under way"]
        assert len(events) == 3


async def test_a_client_that_leaves_its_stream_has_its_task_cancelled() -> None:
    async with serving() as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "PENDING")]
        asking = asyncio.create_task(bed.post({**TASK, "stream": True}))
        await bed.one.looked.wait()
        asking.cancel()
        assert await asyncio.wait_for(bed.one.cancelled.get(), 10) == "t-1"
        assert (await bed.worker.fields())["sluiceway.outcome"] == "client_aborted"


# -- keys, routes and what goes wrong on the way -----------------------------------------------------------------------


async def test_a_key_that_is_used_up_makes_way_for_the_next() -> None:
    async with serving(service={"api_keys": ["sk-a", "sk-b"]}) as bed:
        bed.one.answers = [refusal(429, "Throttling"), images_answer("https://example.com/a.png")]
        status, _, headers = await bed.post(EDIT, "/v1/images/edits")
        assert (status, headers["x-sluiceway-attempts"]) == (200, "2")
        assert {one.headers["Authorization"] for one in bed.one.requests} == {"Bearer sk-a", "Bearer sk-b"}
        assert bed.one.requests[0].pictures == bed.one.requests[1].pictures


async def test_the_callers_own_key_goes_upstream() -> None:
    async with serving(auth="passthrough", service={"api_keys": []}) as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [task_answer("t-1", "SUCCEEDED", {"url": "https://example.com/a.png"})]
        status, _, _ = await bed.post(TASK)
        assert status == 200
        assert bed.one.requests[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_by_model_with_another_name() -> None:
    routing = {"by_model": [{"match": "gpt-image-*", "service": "two", "model": "qwen-image-edit-max"},
                            {"match": "*", "service": "sim"}]}  # fmt: skip
    async with serving(routing=routing) as bed:
        bed.two.answers = [images_answer("https://example.com/a.png")]
        edit = EDIT.replace(b"qwen-image-edit", b"gpt-image-1")
        status, _, _ = await bed.post(edit, "/v1/images/edits")
        assert (status, bed.two.requests[0].document["model"]) == (200, "qwen-image-edit-max")
        fields = await bed.worker.fields()
        assert fields["gen_ai.request.model"] == "gpt-image-1"
        assert fields["sluiceway.upstream_model"] == "qwen-image-edit-max"


async def test_two_models_are_refused_before_the_end_goes_upstream() -> None:
    twice = EDIT.replace(b"--X-b.1--", b'--X-b.1\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--X-b.1--')
    async with serving() as bed:
        bed.one.answers = [images_answer("https://example.com/a.png")]
        status, body, _ = await bed.post(twice, "/v1/images/edits")
        assert status == 400
        assert "twice" in body["error"]["message"]
        assert bed.one.requests == []


async def test_a_large_json_edit_streams_too() -> None:
    async with serving() as bed:
        bed.one.answers = [images_answer("https://example.com/a.png")]
        url = "data:image/png;base64," + base64.b64encode(PNG * 400).decode()
        asked = {"images": [{"image_url": url}, {"image_url": url}], "prompt": "p", "model": "qwen-image-edit"}
        status, _, _ = await bed.post(asked, "/v1/images/edits")
        assert status == 200
        [request] = bed.one.requests
        assert [(one.kind, one.size) for one in request.pictures] == [("image/png", len(PNG) * 400)] * 2
        assert request.headers["Transfer-Encoding"] == "chunked"


MADE = orjson.dumps(images_answer("https://example.com/a.png")[1])
UPSTREAMS: dict[str, tuple[bytes, int, str]] = {
    "early and refused": (said(orjson.dumps(refusal(413, "TooLarge")[1]), status=413), 413, ""),
    "early and content": (said(MADE), 502, "upstream_protocol"),
}


@pytest.mark.parametrize(("answer", "status", "kind"), UPSTREAMS.values(), ids=list(UPSTREAMS))
async def test_an_upstream_that_answers_before_it_has_all(answer: bytes, status: int, kind: str) -> None:
    async with Scripted(ReadHead(), Send(answer)) as upstream, one_target(upstream.port) as (worker, client):
        body = written([("model", None, b"qwen-image"), ("prompt", None, b"p"), ("image", b"", PNG * 1300)])
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "multipart/form-data; boundary=X-b.1"}
        url = f"http://{worker.host}:{worker.port}/v1/images/edits"
        async with client.post(url, data=body, headers=headers) as got:
            assert (got.status, got.headers.get("x-sluiceway-error", "")) == (status, kind)


ANSWERS = {
    "no JSON": said(b"hello"),
    "encoded": said(MADE, b"Content-Encoding: gzip"),
    "too large": said(MADE[:-1] + b" " * 2000000 + b"}"),
    "cut": said(MADE)[:-9],
    "without an image": said(b'{"output":{"choices":[]}}'),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
async def test_an_answer_that_is_none(answer: bytes) -> None:
    async with Scripted(ReadRequest(), Send(answer), Fin()) as upstream, one_target(upstream.port) as (worker, client):
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        url = f"http://{worker.host}:{worker.port}/v1/images/generations"
        async with client.post(url, data=orjson.dumps(GENERATE), headers=headers) as got:
            assert (got.status, (await got.json())["error"]["type"]) == (502, "server_error")
        assert (await worker.fields())["sluiceway.error.origin"] == "upstream"
