"""What is recorded of OpenAI image requests that DashScope answers: the client's question, the upstream's answer."""

import base64
import hashlib
import json
from typing import Any

import pytest

from proxy.translate import tasks
from tests.fakes.dashscope_images import DashScopeImages, images_answer, refusal, task_answer
from tests.proxy.translate.test_attempts import EDIT, GENERATE, PNG, TASK, Bed, serving

RECORDED = {"record_request": True, "record_response": True}
URL = "https://example.com/a.png"
LINK = {"type": "uri", "modality": "image", "uri": URL}
LOCK = [{"role": "user", "parts": [{"type": "text", "content": "a lock"}]}]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_WAIT_S", 0.01)


async def recorded(bed: Bed) -> tuple[Any, Any, Any]:
    """What was asked and answered, and the error."""
    fields = await bed.worker.fields()
    of = ("gen_ai.input.messages", "gen_ai.output.messages", "sluiceway.error.body")
    asked, answered, error = (json.loads(fields[name]) if name in fields else None for name in of)
    return asked, answered, error


async def test_generations_at_once() -> None:
    async with serving(monitoring=RECORDED) as bed:
        bed.one.answers = [images_answer(URL, URL)]
        await bed.post(GENERATE)
        asked, [answered], error = await recorded(bed)
    assert (asked, error) == (LOCK, None)
    assert (answered["parts"], answered["finish_reason"]) == ([LINK, LINK], "stop")


async def test_an_edit_is_its_prompt_and_the_facts_of_its_images() -> None:
    async with serving(monitoring=RECORDED, fallback=True) as bed:
        bed.one.answers = [refusal(503, "ServiceUnavailable")]
        bed.two.answers = [images_answer(URL)]
        await bed.post(EDIT, "/v1/images/edits")
        [asked], [answered], error = await recorded(bed)
    first, second, text = asked["parts"]
    assert (first["bytes"], first["sha256"]) == (len(PNG) * 500, hashlib.sha256(PNG * 500).hexdigest())
    assert (second["bytes"], text["content"]) == (1003, "a lock")
    assert (answered["parts"], error) == ([LINK], None)


async def test_images_that_the_gateway_fetched_are_links_all_the_same() -> None:
    async with serving(monitoring=RECORDED) as bed, DashScopeImages() as store:
        store.stored = {"a.png": PNG * 300}
        bed.one.answers = [images_answer(f"{store.url}/stored/a.png?Signature=abcdefgh")]
        _, body, _ = await bed.post({**GENERATE, "response_format": "b64_json"})
        assert base64.b64decode(body["data"][0]["b64_json"]) == PNG * 300
        _, [answered], _ = await recorded(bed)
    assert answered["parts"] == [{**LINK, "uri": f"{store.url}/stored/a.png?Signature=[REDACTED]"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_of_a_task_its_last_word_is_recorded(stream: bool) -> None:
    async with serving(monitoring=RECORDED) as bed:
        bed.one.stored = {"a": PNG}
        bed.one.answers = [task_answer("t-1", "PENDING")]
        url = f"{bed.one.url}/stored/a"
        bed.one.tasks["t-1"] = [task_answer("t-1", "RUNNING"), task_answer("t-1", "SUCCEEDED", {"url": url})]
        await bed.post({**TASK, "stream": stream})
        asked, [answered], error = await recorded(bed)
    assert (asked, error) == (LOCK, None)
    assert (answered["parts"], answered["finish_reason"]) == ([{**LINK, "uri": url}], "stop")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "ends",
    [
        task_answer("t-1", "FAILED", code="DataInspectionFailed", message="No."),
        task_answer("t-1", "SUCCEEDED", {"code": "Throttling", "message": "No."}),
        refusal(404, "NotFound"),
    ],
)
async def test_of_a_task_that_fails_the_upstreams_words(ends: tuple[int, dict[str, Any]], stream: bool) -> None:
    async with serving(monitoring=RECORDED) as bed:
        bed.one.answers = [task_answer("t-1", "PENDING")]
        bed.one.tasks["t-1"] = [ends]
        await bed.post({**TASK, "stream": stream})
        _, answered, error = await recorded(bed)
    assert (answered, error) == (None, ends[1])


async def test_of_two_that_refuse_the_one_that_the_client_heard_of() -> None:
    async with serving(monitoring=RECORDED, fallback=True) as bed:
        bed.one.answers = [refusal(500, "First")]
        bed.two.answers = [refusal(500, "Second")]
        _, body, _ = await bed.post(GENERATE)
        _, answered, error = await recorded(bed)
    assert (body["error"]["code"], answered, error["code"]) == ("Second", None, "Second")


async def test_nothing_of_it_where_the_client_does_not_want_it() -> None:
    async with serving(monitoring=RECORDED) as bed:
        for answer in (images_answer(URL), refusal(400, "InvalidParameter")):
            bed.one.answers = [answer]
            await bed.post(GENERATE, **{"x-sluiceway-record": "off"})
            assert await recorded(bed) == (None, None, None)
