"""What the simulated upstream says: the official SDKs understand it, and it says the same thing twice."""

import base64
import json
from http import HTTPStatus

import dashscope
import openai
import pytest
from aiohttp import ClientSession

from benchmarks.upstream.server import Upstream
from tests.benchmarks.aside import aside

CHAT = "/compatible-mode/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Who are you?"}]
SPOKEN = "You said: Who are you?"


@pytest.fixture
async def sdk(upstream: Upstream) -> openai.AsyncOpenAI:
    async with openai.AsyncOpenAI(base_url=upstream.url + "/v1", api_key="sk-x", max_retries=0) as client:
        yield client


async def test_chat_echoes_and_counts(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="qwen-plus", messages=QUESTION)
    assert answer.choices[0].message.content == SPOKEN
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 6, 9)


async def test_chat_stream_says_usage_in_a_chunk_of_its_own_when_asked(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="qwen-plus", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SPOKEN
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 9


async def test_chat_stream_without_include_usage_says_null_throughout(
    upstream: Upstream, session: ClientSession
) -> None:
    async with session.post(upstream.url + CHAT, json={"model": "m", "messages": QUESTION, "stream": True}) as answer:
        lines = [line.removeprefix("data: ") for line in (await answer.text()).splitlines() if line]
    assert lines.pop() == "[DONE]"
    assert all(json.loads(line)["usage"] is None and json.loads(line)["choices"] for line in lines)


@pytest.mark.parametrize(
    ("where", "with_usage"),
    [("finish", [False, False, False, True]), ("every", [False, True, True, True]), ("absent", [False] * 4)],
)
async def test_usage_may_come_elsewhere(sdk: openai.AsyncOpenAI, where: str, with_usage: list[bool]) -> None:
    stream = await sdk.chat.completions.create(
        model="m", messages=QUESTION, stream=True, extra_query={"sim-usage": where, "sim-events": "2"}
    )
    assert [chunk.usage is not None async for chunk in stream] == with_usage


async def test_completions(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.completions.create(model="m", prompt="Once")
    assert answer.choices[0].text == "You said: Once"
    stream = await sdk.completions.create(model="m", prompt="Once", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "You said: Once"


async def test_embeddings_are_the_same_in_both_encodings(sdk: openai.AsyncOpenAI) -> None:
    packed = await sdk.embeddings.create(model="m", input=["a", "b"], dimensions=40)  # the SDK asks for base64
    plain = await sdk.embeddings.create(model="m", input=["a", "b"], dimensions=40, encoding_format="float")
    assert [one.embedding for one in packed.data] == [one.embedding for one in plain.data]
    assert len(plain.data[0].embedding) == 40
    assert plain.data[0].embedding != plain.data[1].embedding
    assert plain.usage.total_tokens == 2


async def test_images_by_url_and_inline(sdk: openai.AsyncOpenAI) -> None:
    by_url = await sdk.images.generate(model="qwen-image", prompt="a lock", n=2)
    assert len({image.url for image in by_url.data}) == 2
    inline = await sdk.images.generate(
        model="gpt-image-1", prompt="a lock", extra_query={"sim-answer-bytes": str(1 << 20)}
    )
    assert len(inline.data[0].b64_json) == 1 << 20
    assert base64.b64decode(inline.data[0].b64_json).startswith(b"\x89PNG")
    assert inline.usage.total_tokens == 2 + 1056


async def test_an_image_as_one_line_of_a_stream(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.images.generate(
        model="gpt-image-1", prompt="a lock", stream=True, partial_images=1, extra_query={"sim-answer-bytes": "400000"}
    )
    events = [event async for event in stream]
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert [len(event.b64_json) for event in events] == [400000, 400000]


async def test_models(sdk: openai.AsyncOpenAI) -> None:
    assert "qwen-plus" in [model.id async for model in sdk.models.list()]


async def test_an_error_status_in_the_shape_of_openai(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        await sdk.chat.completions.create(
            model="m", messages=QUESTION, extra_headers={"x-sim-status": "429", "x-sim-retry-after": "7"}
        )
    assert raised.value.code == "limit_requests"
    assert raised.value.response.headers["retry-after"] == "7"


async def test_an_error_event_inside_a_200_stream(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="m", messages=QUESTION, stream=True, extra_query={"sim-error-after": "1"}
    )
    assert [(await anext(stream)).choices[0].delta.content for _ in range(2)] == ["", "You"]
    with pytest.raises(openai.APIError):
        await anext(stream)


async def test_dashscope_text(upstream: Upstream) -> None:
    answer = await aside(_generation, upstream)
    assert answer.status_code == HTTPStatus.OK
    assert answer.output.text == SPOKEN
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 6)
    message = await aside(_generation, upstream, result_format="message")
    assert message.output.choices[0].message.content == SPOKEN


@pytest.mark.parametrize("incremental", [True, False])
async def test_dashscope_stream(upstream: Upstream, incremental: bool) -> None:
    events = await aside(_generation, upstream, stream=True, result_format="message", incremental_output=incremental)
    texts = [event.output.choices[0].message.content for event in events]
    assert ("".join(texts) if incremental else texts[-1]) == SPOKEN
    assert [event.output.choices[0].finish_reason for event in events] == ["null"] * (len(events) - 1) + ["stop"]
    assert [event.usage.output_tokens for event in events] == [0, 1, 3, 4, 5, 6, 6]


async def test_dashscope_frames_events_its_own_way(upstream: Upstream, session: ClientSession) -> None:
    path = "/api/v1/services/aigc/text-generation/generation?sim-events=1&sim-error-after=1"
    body = {"model": "m", "input": {"prompt": "x"}}
    async with session.post(upstream.url + path, json=body, headers={"X-DashScope-SSE": "enable"}) as answer:
        events = (await answer.text()).split("\n\n")
    assert [event.splitlines()[:3] for event in events[:2]] == [
        ["id:1", "event:result", ":HTTP_STATUS/200"],
        ["id:2", "event:result", ":HTTP_STATUS/200"],
    ]
    assert events[2].startswith('id:999\nevent:error\n:HTTP_STATUS/500\ndata:{"code":"InternalError"')


async def test_dashscope_image_says_what_is_billed(upstream: Upstream, session: ClientSession) -> None:
    body = {
        "model": "qwen-image-plus",
        "input": {"messages": [{"role": "user", "content": [{"text": "a lock"}]}]},
        "parameters": {"size": "1328*1000"},
    }
    path = "/api/v1/services/aigc/multimodal-generation/generation"
    async with session.post(upstream.url + path, json=body) as answer:
        said = await answer.json()
    assert said["usage"] == {"image_count": 1, "width": 1328, "height": 1000}
    assert said["output"]["choices"][0]["message"]["content"][0]["image"].startswith(upstream.url + "/results/")


async def test_the_same_request_gets_the_same_bytes_though_stream_options_were_added(
    upstream: Upstream, session: ClientSession
) -> None:
    asked = {"model": "m", "messages": QUESTION, "stream": True}
    added = {**asked, "stream_options": {"include_usage": True}}
    bodies = []
    for document in (asked, asked, added):
        async with session.post(upstream.url + CHAT, json=document) as answer:
            bodies.append((await answer.text()).split("\n\n"))
    assert bodies[0] == bodies[1]
    assert bodies[0] == [event for event in bodies[2] if '"choices":[]' not in event]


async def test_a_misspelt_control_is_refused(upstream: Upstream, session: ClientSession) -> None:
    async with session.post(upstream.url + CHAT + "?sim-evnets=3", json={}) as answer:
        assert answer.status == 400
        assert "evnets" in await answer.text()


def _generation(upstream: Upstream, **options: object) -> object:
    """One call of the SDK; a stream is read to its end."""
    answer = dashscope.Generation.call(
        model="qwen-plus",
        messages=QUESTION,
        api_key="sk-x",
        base_address=upstream.url + "/api/v1",
        headers={"Connection": "close"},
        **options,
    )
    return list(answer) if options.get("stream") else answer
