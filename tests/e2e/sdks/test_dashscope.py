"""DashScope's SDK, unchanged, with what `test_sdks` does not ask of it: embeddings, rerank, images, videos, speech.

Its classes call one address for all, `dashscope.base_http_api_url`, and tasks are polled there whatever a single call
says: the tests set it, as users do.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import dashscope
import pytest
from dashscope import (
    AioMultiModalEmbedding,
    AioTextReRank,
    HttpSpeechSynthesizer,
    ImageSynthesis,
    MultiModalConversation,
    MultiModalEmbedding,
    MultiModalEmbeddingItemText,
    TextEmbedding,
    TextReRank,
    VideoSynthesis,
)
from dashscope.aigc.image_synthesis import AioImageSynthesis
from dashscope.aigc.multimodal_conversation import AioMultiModalConversation
from dashscope.aigc.video_synthesis import AioVideoSynthesis

from tests.e2e.sdks.bed import KEY, Bed, fields_of, in_thread

pytestmark = pytest.mark.asyncio(loop_scope="package")

QUESTION = "What lifts a boat over a hill? Ein Schleusentor, 水閘, and patience."
TEXTS = ["a lock", "a weir", "水閘"]


def plain(answer: Any) -> dict[str, Any]:
    """An answer without its HTTP headers, which are the gateway's to add to."""
    return {key: value for key, value in answer.items() if key != "headers"}


Called = Callable[[], Awaitable[Any]]


async def both(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, base: str, call: Called, count: int = 1
) -> tuple[Any, list[dict[str, Any]]]:
    """What a call gives and the records that it leaves; straight to the upstream it gives the same."""
    monkeypatch.setattr(dashscope, "api_key", KEY)
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{bed.upstream.url}/api/v1")
    direct = await call()
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{bed.url(base)}/api/v1")
    result, records = await bed.records(call(), count)
    assert result == direct
    for record in records:
        expected = {
            "gen_ai.provider.name": "dashscope",
            "http.response.status_code": 200,
            "sluiceway.model_api": base,
            "sluiceway.protocol": "dashscope",
            "sluiceway.service": "qwen",
            "sluiceway.consumer": "team",
            "sluiceway.outcome": "ok",
            "error.type": None,
        }
        assert fields_of(record, expected) == expected
    return result, records


def at_once(call: Callable[..., Any], *arguments: Any, **options: Any) -> Called:
    """A synchronous or asynchronous call, as it is."""

    async def called() -> Any:
        if getattr(call, "__self__", call).__name__.startswith("Aio"):
            return plain(await call(*arguments, **options))
        return plain(await in_thread(lambda: call(*arguments, **options)))

    return called


# -- embeddings and rerank -------------------------------------------------------------------------------------------

EMBEDDED = {"gen_ai.operation.name": "embeddings", "sluiceway.usage.source": "upstream"}
ITEMS = [MultiModalEmbeddingItemText("a lock", 1), MultiModalEmbeddingItemText("水閘", 1)]
ASKED: dict[str, tuple[str, Called, str, dict[str, Any]]] = {
    "text-embedding": ("vectors", at_once(TextEmbedding.call, "text-embedding-v4", TEXTS), "text-embedding", EMBEDDED),
    "multimodal-embedding": (
        "vectors",
        at_once(MultiModalEmbedding.call, "multimodal-embedding-v1", ITEMS),
        "multimodal-embedding",
        EMBEDDED,
    ),
    "multimodal-embedding, aio": (
        "vectors",
        at_once(AioMultiModalEmbedding.call, "multimodal-embedding-v1", ITEMS),
        "multimodal-embedding",
        EMBEDDED,
    ),
    "rerank": (
        "ranks",
        at_once(TextReRank.call, "gte-rerank-v2", QUESTION, TEXTS, top_n=2, return_documents=True),
        "text-rerank",
        {"gen_ai.operation.name": "rerank", "sluiceway.usage.documents": 2},
    ),
    "rerank, aio": (
        "ranks",
        at_once(AioTextReRank.call, "gte-rerank-v2", QUESTION, TEXTS),
        "text-rerank",
        {"gen_ai.operation.name": "rerank", "sluiceway.usage.documents": 3},
    ),
}


@pytest.mark.parametrize(("base", "call", "operation", "expected"), ASKED.values(), ids=ASKED)
async def test_embeddings_and_rerank(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, base: str, call: Called, operation: str, expected: dict[str, Any]
) -> None:
    result, (record,) = await both(bed, monkeypatch, base, call)
    assert result["status_code"] == 200
    assert len(result["output"].get("embeddings") or result["output"]["results"]) in (2, 3)
    tokens = result["usage"].get("input_tokens", result["usage"]["total_tokens"])
    expected = {"sluiceway.operation": operation, "gen_ai.usage.input_tokens": tokens, **expected}
    assert fields_of(record, expected) == expected


# -- images and videos: tasks ----------------------------------------------------------------------------------------

SUBMITTED = {"gen_ai.request.model": "wanx2.1-t2i-turbo", "sluiceway.usage.images": None}
MADE = {"sluiceway.operation": "tasks", "gen_ai.operation.name": "fetch_task", "gen_ai.request.model": None}


async def submitted_and_fetched(api: Any, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
    """Submit, look once, then wait for the end."""

    def run() -> list[dict[str, Any]]:
        task = api.async_call(*arguments, **options)
        return [plain(answer) for answer in (task, api.fetch(task), api.wait(task))]

    if not api.__name__.startswith("Aio"):
        return await in_thread(run)  # type: ignore[no-any-return]
    task = await api.async_call(*arguments, **options)
    return [plain(answer) for answer in (task, await api.fetch(task), await api.wait(task))]


TASKS = {
    # Model API, class, model, further arguments, operation, usage of the finished task
    "text2image": ("pictures", ImageSynthesis, "wanx2.1-t2i-turbo", {"n": 2}, "text2image", {"images": 2}),
    "text2image, aio": ("pictures", AioImageSynthesis, "wanx2.1-t2i-turbo", {"n": 2}, "text2image", {"images": 2}),
    "image2image": (
        *("pictures", ImageSynthesis, "wanx2.1-imageedit"),
        {"base_image_url": "https://example.com/a.png", "function": "stylization_all", "n": 1},
        *("image2image", {"images": 1}),
    ),
    "video": ("films", VideoSynthesis, "wan2.2-t2v-plus", {"size": "1920*1080"}, "video-generation", {"videos": 1}),
    "video, aio": ("films", AioVideoSynthesis, "wan2.2-t2v-plus", {}, "video-generation", {"videos": 1}),
    "video of an image": (
        *("films", VideoSynthesis, "wan2.2-i2v-plus"),
        {"img_url": "https://example.com/a.png"},
        *("video-generation", {"videos": 1}),
    ),
}


@pytest.mark.parametrize(("base", "api", "model", "options", "operation", "made"), TASKS.values(), ids=TASKS)
async def test_tasks(
    bed: Bed,
    monkeypatch: pytest.MonkeyPatch,
    base: str,
    api: Any,
    model: str,
    options: dict[str, Any],
    operation: str,
    made: dict[str, int],
) -> None:
    async def call() -> list[dict[str, Any]]:
        return await submitted_and_fetched(api, model, QUESTION, headers={"x-sim-task-steps": "1"}, **options)

    results, (submitted, *fetched) = await both(bed, monkeypatch, base, call, 3)
    task_id = results[0]["output"]["task_id"]
    assert results[-1]["output"]["task_status"] == "SUCCEEDED"
    expected = {
        "sluiceway.operation": operation,
        "gen_ai.operation.name": "video_generation" if base == "films" else "generate_content",
        "gen_ai.request.model": model,
        "sluiceway.task_id": task_id,
        "sluiceway.usage.images": None,
        "sluiceway.usage.videos": None,
    }
    assert fields_of(submitted, expected) == expected
    for record in fetched:
        expected = {**MADE, "sluiceway.task_id": task_id, "http.request.method": "GET"}
        assert fields_of(record, expected) == expected
    expected = {f"sluiceway.usage.{name}": number for name, number in made.items()}
    assert fields_of(fetched[-1], expected) == expected


async def test_a_task_is_cancelled_and_listed(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    async def call() -> Any:
        def run() -> list[int]:
            task = ImageSynthesis.async_call("wanx2.1-t2i-turbo", QUESTION)
            cancelled = ImageSynthesis.cancel(task)
            listed = ImageSynthesis.list(page_size=5)
            return [cancelled.status_code, listed.status_code]

        return await in_thread(run)

    monkeypatch.setattr(dashscope, "api_key", KEY)
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{bed.url('pictures')}/api/v1")
    statuses, (_, cancelled, listed) = await bed.records(call(), 3)
    for record, status, name in ((cancelled, statuses[0], "manage_task"), (listed, statuses[1], "fetch_task")):
        expected = {"sluiceway.operation": "tasks", "gen_ai.operation.name": name, "http.response.status_code": status}
        assert fields_of(record, expected) == expected
    assert statuses[1] == 200


# -- speech ----------------------------------------------------------------------------------------------------------

SPOKEN = {"gen_ai.operation.name": "generate_content", "gen_ai.output.type": "speech"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_speech(bed: Bed, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    async def call() -> Any:
        def run() -> list[Any]:
            answer = HttpSpeechSynthesizer.call("cosyvoice-v3-flash", QUESTION, "longxiaochun", stream=stream)
            return [
                (one.audio_data, one.audio_url, plain(one.response) if one.response else None)
                for one in (answer if stream else [answer])  # type: ignore[union-attr]
            ]

        return await in_thread(run)

    results, (record,) = await both(bed, monkeypatch, "voices", call)
    assert results[-1][0] or results[-1][1]
    expected = {
        **SPOKEN,
        "sluiceway.operation": "speech-synthesizer",
        "gen_ai.request.model": "cosyvoice-v3-flash",
        "gen_ai.request.stream": True if stream else None,
        "sluiceway.usage.characters": results[-1][2]["usage"]["characters"],
    }
    assert fields_of(record, expected) == expected


@pytest.mark.parametrize("api", [MultiModalConversation, AioMultiModalConversation])
async def test_speech_of_a_multimodal_model(bed: Bed, monkeypatch: pytest.MonkeyPatch, api: Any) -> None:
    call = at_once(api.call, model="qwen3-tts-flash", text=QUESTION, voice="Cherry", language_type="English")
    result, (record,) = await both(bed, monkeypatch, "voices", call)
    assert result["output"]["audio"]["url"]
    expected = {
        **SPOKEN,
        "sluiceway.operation": "multimodal-generation",
        "gen_ai.request.model": "qwen3-tts-flash",
        "sluiceway.usage.source": "upstream",
    }
    assert fields_of(record, expected) == expected
