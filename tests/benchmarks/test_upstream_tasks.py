"""Tasks, speech, embeddings and rerank of DashScope's protocol, and the errors of every protocol."""

import base64
import json
from http import HTTPStatus
from typing import Any

import dashscope
import pytest
from aiohttp import ClientSession
from dashscope.audio.http_tts import HttpSpeechSynthesizer

from benchmarks.upstream.dashscope_tasks import SUBMITTED
from benchmarks.upstream.server import Upstream
from tests.benchmarks.aside import aside
from tests.benchmarks.test_upstream_faults import entry_of

SERVICES = "/api/v1/services/"
IMAGES = SERVICES + "aigc/text2image/image-synthesis"
ASYNC = {"X-DashScope-Async": "enable"}
BODY = {"model": "wanx-v1", "input": {"prompt": "a lock"}, "parameters": {"n": 2}}


async def submitted(upstream: Upstream, session: ClientSession, path: str = IMAGES, query: str = "") -> str:
    async with session.post(f"{upstream.url}{path}{query}", json=BODY, headers=ASYNC) as answer:
        said = await answer.json()
    assert said["output"]["task_status"] == "PENDING"
    return said["output"]["task_id"]


async def fetched(upstream: Upstream, session: ClientSession, name: str) -> dict[str, Any]:
    async with session.get(f"{upstream.url}/api/v1/tasks/{name}/", headers={"x-sim-id": name}) as answer:
        assert answer.status == HTTPStatus.OK
        return await answer.json()


@pytest.mark.parametrize("operation", SUBMITTED)
async def test_a_task_goes_its_way(upstream: Upstream, session: ClientSession, operation: str) -> None:
    name = await submitted(upstream, session, SERVICES + operation)
    answers = [await fetched(upstream, session, name) for _ in range(4)]
    assert [answer["output"]["task_status"] for answer in answers] == ["PENDING", "RUNNING", "SUCCEEDED", "SUCCEEDED"]
    assert ["usage" in answer for answer in answers] == [False, False, True, True]
    entry = await entry_of(session, upstream, name)
    usage = answers[-1]["usage"]
    assert (entry["images"], entry["videos"]) == (usage.get("image_count"), usage.get("video_count"))
    assert (entry["task_id"], entry["seconds"]) == (name, usage.get("video_duration"))


async def test_its_results_are_there(upstream: Upstream, session: ClientSession) -> None:
    name = await submitted(upstream, session, query="?sim-task-steps=0&sim-result-bytes=100")
    results = (await fetched(upstream, session, name))["output"]["results"]
    assert len({result["url"] for result in results}) == 2
    for result in results:
        async with session.get(result["url"]) as answer:
            assert len(await answer.read()) == 100


async def test_tasks_that_do_not_succeed(upstream: Upstream, session: ClientSession) -> None:
    name = await submitted(upstream, session, query="?sim-task-steps=1&sim-task-end=FAILED&sim-error-code=Gone")
    assert (await fetched(upstream, session, name))["output"]["task_status"] == "RUNNING"
    failed = await fetched(upstream, session, name)
    assert (failed["output"]["task_status"], failed["output"]["code"], "usage" in failed) == ("FAILED", "Gone", False)
    name = await submitted(upstream, session, query="?sim-task-steps=0&sim-task-end=PARTLY")
    partly = await fetched(upstream, session, name)
    assert partly["output"]["task_metrics"] == {"TOTAL": 2, "SUCCEEDED": 1, "FAILED": 1}
    assert partly["usage"] == {"image_count": 1}
    assert (await fetched(upstream, session, "nobody"))["output"]["task_status"] == "UNKNOWN"


async def test_tasks_are_cancelled_and_listed(upstream: Upstream, session: ClientSession) -> None:
    name = await submitted(upstream, session)
    for status in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST):
        async with session.post(f"{upstream.url}/api/v1/tasks/{name}/cancel") as answer:
            assert answer.status == status
    async with session.get(f"{upstream.url}/api/v1/tasks/?status=CANCELED&page_size=1") as answer:
        said = await answer.json()
    assert (said["total"], [task["task_id"] for task in said["data"]]) == (1, [name])


async def test_who_asks_for_no_task_is_refused(upstream: Upstream, session: ClientSession) -> None:
    async with session.post(upstream.url + IMAGES, json=BODY) as answer:
        assert (answer.status, (await answer.json())["code"]) == (HTTPStatus.FORBIDDEN, "AccessDenied")
    async with session.post(upstream.url + IMAGES, json={**BODY, "model": "wan2.2-t2i-flash"}) as answer:
        assert (await answer.json())["output"]["task_status"] == "SUCCEEDED"


async def test_the_sdk_makes_images_and_videos(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashscope, "base_http_api_url", upstream.url + "/api/v1")
    options = {"api_key": "sk-x", "headers": {"Connection": "close", "x-sim-task-steps": "0"}}

    def made() -> tuple[Any, Any]:
        images = dashscope.ImageSynthesis.call(model="wanx-v1", prompt="a lock", n=2, **options)
        return images, dashscope.VideoSynthesis.call(model="wan2.5-t2v-preview", prompt="a lock", **options)

    images, video = await aside(made)
    assert (len(images.output.results), images.usage.image_count) == (2, 2)
    assert video.output.video_url.endswith(".mp4")


async def test_speech(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashscope, "base_http_api_url", upstream.url + "/api/v1")

    def spoken() -> tuple[Any, list[Any]]:
        options = {"model": "cosyvoice-v3-flash", "text": "hello", "voice": "v", "api_key": "sk-x"}
        return HttpSpeechSynthesizer.call(**options), list(HttpSpeechSynthesizer.call(stream=True, **options))

    whole, pieces = await aside(spoken)
    assert whole.audio_url.endswith(".wav")
    assert whole.usage["characters"] == 5
    assert b"".join(piece.audio_data or b"" for piece in pieces).startswith(b"RIFF")
    assert [piece.usage["characters"] for piece in pieces] == [1, 3, 5, 5]


async def test_speech_of_a_multimodal_model(upstream: Upstream, session: ClientSession) -> None:
    path = f"{upstream.url}{SERVICES}aigc/multimodal-generation/generation?sim-events=2"
    body = {"model": "qwen3-tts-flash", "input": {"text": "hello", "voice": "Cherry"}}
    async with session.post(path, json=body) as answer:
        assert (await answer.json())["usage"]["characters"] == 5
    async with session.post(path, json=body, headers={"X-DashScope-SSE": "enable"}) as answer:
        lines = [line[5:] for line in (await answer.text()).splitlines() if line.startswith("data:")]
    audio = [json.loads(line)["output"]["audio"] for line in lines]
    assert base64.b64decode(audio[0]["data"]).startswith(b"RIFF")
    assert [bool(one["url"]) for one in audio] == [False, False, True]


async def test_embeddings_and_rerank(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashscope, "base_http_api_url", upstream.url + "/api/v1")
    options = {"api_key": "sk-x", "headers": {"Connection": "close"}}

    def asked() -> tuple[Any, Any, Any]:
        return (
            dashscope.TextEmbedding.call(model="text-embedding-v4", input=["a", "b"], dimension=8, **options),
            dashscope.MultiModalEmbedding.call(model="m", input=[{"text": "a"}, {"image": "https://u"}], **options),
            dashscope.TextReRank.call(model="r", query="a", documents=["b", "a"], return_documents=True, **options),
        )

    texts, both, ranked = await aside(asked)
    assert [len(one["embedding"]) for one in texts.output["embeddings"]] == [8, 8]
    assert texts.usage["total_tokens"] == 2
    assert [one["type"] for one in both.output["embeddings"]] == ["text", "image"]
    assert [(one["index"], one["document"]["text"]) for one in ranked.output.results] == [(1, "a"), (0, "b")]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank/", "/compatible-api/v1/reranks"])
async def test_flat_rerank(upstream: Upstream, session: ClientSession, path: str) -> None:
    body = {"model": "r", "query": "a", "documents": ["b", "a", "c"], "top_n": 2}
    async with session.post(upstream.url + path, json=body, headers={"x-sim-id": "r"}) as answer:
        said = await answer.json()
    assert [(one["index"], one["relevance_score"]) for one in said["results"]] == [(1, 1.0), (0, 0.0)]
    entry = await entry_of(session, upstream, "r")
    assert (entry["input_tokens"], entry["documents"]) == (said["usage"]["total_tokens"], 2)


async def test_score(upstream: Upstream, session: ClientSession) -> None:
    body = {"model": "r", "queries": ["a"], "documents": ["b", "a"]}
    async with session.post(upstream.url + "/v1/score", json=body) as answer:
        assert [one["score"] for one in (await answer.json())["data"]] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("path", "where", "expected"),
    [
        ("/v1/responses", "error", {"code": "limit_requests", "type": "rate_limit_exceeded"}),
        ("/apps/anthropic/v1/messages", "error", {"type": "rate_limit_error"}),
        (IMAGES, None, {"code": "Throttling.RateQuota"}),
        ("/v1/score", "error", {"code": 429, "type": "RateLimitError"}),
    ],
)
@pytest.mark.parametrize(
    ("form", "status", "kind"),
    [("json", 429, "json"), ("sse", 429, "event-stream"), ("inside", 200, "json"), ("sse-inside", 200, "event-stream")],
)
async def test_errors_in_each_form(
    upstream: Upstream,
    session: ClientSession,
    path: str,
    where: str | None,
    expected: dict[str, Any],
    form: str,
    status: int,
    kind: str,
) -> None:
    query = f"?sim-status=429&sim-error-form={form}"
    async with session.post(upstream.url + path + query, json=BODY) as answer:
        assert (answer.status, answer.content_type.rpartition("/")[2]) == (status, kind)
        text = await answer.text()
    said = json.loads(text[text.index("{") :])
    error = said if where is None else said[where]
    assert error | expected == error


MESSAGES = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "Who are you?"}]}


async def test_messages(upstream: Upstream, session: ClientSession) -> None:
    query = "?sim-cached-tokens=7&sim-cache-write-tokens=2&sim-reasoning-tokens=3"
    headers = {"x-sim-id": "m"}
    async with session.post(f"{upstream.url}/v1/messages{query}", json=MESSAGES, headers=headers) as answer:
        said = await answer.json()
    assert [block["type"] for block in said["content"]] == ["thinking", "text"]
    assert said["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 7,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 3},
    }
    entry = await entry_of(session, upstream, "m")
    assert (entry["input_tokens"], entry["cache_read_tokens"], entry["cache_creation_tokens"]) == (12, 7, 2)


async def test_a_stream_of_messages(upstream: Upstream, session: ClientSession) -> None:
    path = upstream.url + "/apps/anthropic/v1/messages?sim-events=2"
    async with session.post(path, json=MESSAGES | {"stream": True}) as answer:
        events = [event.split("\n") for event in (await answer.text()).strip().split("\n\n")]
    kinds = ["message_start", "content_block_start", "ping", *["content_block_delta"] * 2]
    assert [event[0] for event in events] == [
        f"event: {kind}" for kind in (*kinds, "content_block_stop", "message_delta", "message_stop")
    ]
    said = [json.loads(event[1].removeprefix("data: ")) for event in events]
    assert [one["type"] for one in said] == [event[0].removeprefix("event: ") for event in events]
    assert said[0]["message"]["usage"]["output_tokens"] == 1
    assert said[-2]["usage"]["output_tokens"] == 6


async def test_tokens_are_counted(upstream: Upstream, session: ClientSession) -> None:
    async with session.post(upstream.url + "/v1/messages/count_tokens", json=MESSAGES) as answer:
        assert await answer.json() == {"input_tokens": 3}
