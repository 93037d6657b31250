"""The examples in the documents of the systems that this one stands in for, base URL, key and file names aside.

Every example is there with its parameters, in words of its own: of DashScope's native chat, of its OpenAI-compatible
chat (the openai SDK, langchain_openai, curl), and of the platforms' image endpoint in DashScope's format.
"""

import asyncio
import shutil
from collections.abc import Mapping
from typing import Any

import dashscope
import orjson
import pytest
import requests
from langchain_openai import ChatOpenAI
from openai import OpenAI

from tests.e2e.sdks.bed import KEY, Bed, fields_of, in_thread

pytestmark = pytest.mark.asyncio(loop_scope="package")

MESSAGES: list[Any] = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Who are you?"},
]
CHAT = {
    "sluiceway.operation": "chat.completions",
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "dashscope",
    "gen_ai.request.model": "qwen-plus",
    "sluiceway.usage.source": "upstream",
    "sluiceway.outcome": "ok",
}


def check(record: Mapping[str, Any], expected: Mapping[str, Any], used: tuple[int, int]) -> None:
    """The record is of that call, and says the tokens that the caller was told."""
    expected = {**expected, "gen_ai.usage.input_tokens": used[0], "gen_ai.usage.output_tokens": used[1]}
    assert fields_of(dict(record), dict(expected)) == expected


# -- DashScope's own chat --------------------------------------------------------------------------------------------


async def test_generation(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{bed.url('text')}/api/v1")

    def call() -> Any:
        return dashscope.Generation.call(api_key=KEY, model="qwen3.6-plus", messages=MESSAGES, result_format="message")

    answer, (record,) = await bed.records(in_thread(call))
    assert (answer.status_code, answer.code, answer.message) == (200, "", "")
    (choice,) = answer.output.choices
    assert choice.finish_reason == "stop"
    assert choice.message.content
    expected = {**CHAT, "sluiceway.operation": "text-generation", "gen_ai.request.model": "qwen3.6-plus"}
    check(record, expected, (answer.usage.input_tokens, answer.usage.output_tokens))
    assert record["sluiceway.upstream_request_id"] == answer.request_id


# -- the OpenAI-compatible chat: openai ------------------------------------------------------------------------------


def client_of(bed: Bed) -> OpenAI:
    return OpenAI(api_key=KEY, base_url=f"{bed.url('text')}/v1")


async def test_chat(bed: Bed) -> None:
    def call() -> Any:
        with client_of(bed) as client:
            return client.chat.completions.create(model="qwen-plus", messages=MESSAGES)

    answer, (record,) = await bed.records(in_thread(call))
    assert answer.choices[0].message.content
    assert answer.model_dump_json()
    check(record, CHAT, (answer.usage.prompt_tokens, answer.usage.completion_tokens))


async def test_chat_streamed(bed: Bed) -> None:
    def call() -> Any:
        usage: Any = {"include_usage": True}
        with client_of(bed) as client:
            return list(
                client.chat.completions.create(model="qwen-plus", messages=MESSAGES, stream=True, stream_options=usage)
            )

    chunks, (record,) = await bed.records(in_thread(call))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    usage = chunks[-1].usage
    check(record, {**CHAT, "gen_ai.request.stream": True}, (usage.prompt_tokens, usage.completion_tokens))


TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "get_current_time", "description": "What time it is.", "parameters": {}}},
    {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string", "description": "A city, or a county."}},
            },
            "required": ["location"],
        },
    },
]


async def test_function_calling(bed: Bed) -> None:
    """Round after round, until no tool is asked for; the answers so far, and what the tools said, go back each time."""
    messages: list[Any] = [{"content": "What is the weather in Singapore?", "role": "user"}]

    def rounds() -> list[Any]:
        answers = []
        with client_of(bed) as client:
            for _ in range(2):  # the second with what a tool said, whether it was asked for or not
                answer = client.chat.completions.create(model="qwen-plus", messages=messages, tools=TOOLS).model_dump()
                answers.append(answer)
                said = answer["choices"][0]["message"]
                messages.append({**said, "content": said["content"] or ""})
                messages.append({"name": "get_current_weather", "role": "tool", "content": "It is rainy today."})
        return answers

    answers, records = await bed.records(in_thread(rounds), 2)
    for answer, record in zip(answers, records, strict=True):
        check(record, CHAT, (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]))


# -- the OpenAI-compatible chat: langchain_openai --------------------------------------------------------------------


async def test_langchain_invoke(bed: Bed) -> None:
    def call() -> Any:
        llm = ChatOpenAI(api_key=KEY, base_url=f"{bed.url('text')}/v1", model="qwen-plus")  # type: ignore[arg-type]
        return llm.invoke(MESSAGES)

    answer, (record,) = await bed.records(in_thread(call))
    assert answer.content
    assert answer.response_metadata["model_name"] == "qwen-plus"
    assert answer.response_metadata["finish_reason"] == "stop"
    usage = answer.response_metadata["token_usage"]
    check(record, CHAT, (usage["prompt_tokens"], usage["completion_tokens"]))


async def test_langchain_stream(bed: Bed) -> None:
    def call() -> Any:
        llm = ChatOpenAI(
            api_key=KEY,  # type: ignore[arg-type]
            base_url=f"{bed.url('text')}/v1",
            model="qwen-plus",
            stream_usage=True,
        )
        return list(llm.stream(MESSAGES))

    chunks, (record,) = await bed.records(in_thread(call))
    assert "".join(chunk.content for chunk in chunks)
    (usage,) = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    check(record, {**CHAT, "gen_ai.request.stream": True}, (usage["input_tokens"], usage["output_tokens"]))


# -- curl ------------------------------------------------------------------------------------------------------------


async def said_by(name: str, *arguments: str) -> bytes:
    """What a program says."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"there is no {name} here")
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said


async def curl(*arguments: str) -> bytes:
    return await said_by("curl", "--silent", "--show-error", *arguments)


def posted(url: str, body: Any, key: str = KEY) -> tuple[str, ...]:
    """The arguments of the documents' examples; the JSON is laid out over lines, as there."""
    data = orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()
    headers = ("--header", f"Authorization: Bearer {key}", "--header", "Content-Type: application/json")
    return ("--location", url, *headers, "--data", data)


async def test_curl(bed: Bed) -> None:
    url = f"{bed.url('text')}/v1/chat/completions"
    said, (record,) = await bed.records(curl(*posted(url, {"model": "qwen-plus", "messages": MESSAGES})))
    usage = orjson.loads(said)["usage"]
    check(record, CHAT, (usage["prompt_tokens"], usage["completion_tokens"]))


async def test_curl_streamed(bed: Bed) -> None:
    """The usage is not asked for, and not shown; the record has it all the same."""
    url = f"{bed.url('text')}/v1/chat/completions"
    body = {"model": "qwen-plus", "messages": MESSAGES, "stream": True}
    said, (record,) = await bed.records(curl(*posted(url, body)))
    events = said.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    chunks = [orjson.loads(event.removeprefix(b"data: ")) for event in events[:-2]]
    assert all(chunk["choices"] and not chunk.get("usage") for chunk in chunks)
    assert fields_of(record, CHAT) == CHAT
    assert record["gen_ai.usage.output_tokens"] > 0


async def test_curl_with_a_wrong_key(bed: Bed) -> None:
    url = f"{bed.url('text')}/v1/chat/completions"
    said, (record,) = await bed.records(curl(*posted(url, {"model": "qwen-plus", "messages": MESSAGES}, "sk-wrong")))
    error = orjson.loads(said)["error"]
    assert error.pop("message")
    assert error == {"type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
    assert record["http.response.status_code"] == 401


# -- the image endpoint in DashScope's format ------------------------------------------------------------------------

CAT = "A white mechanical cat sitting beside a minimal desk, cinematic lighting, high detail."
PICTURES = {
    "text": {
        "model": "qwen-image-2.0-pro",
        "input": {"messages": [{"role": "user", "content": [{"text": CAT}]}]},
        "parameters": {"size": "2048*2048", "n": 1, "prompt_extend": True, "watermark": False},
    },
    "reference image": {
        "model": "wan2.6-image",
        "input": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "A clean hero image of this product."},
                        {"type": "image", "image": "https://example.com/reference.png"},
                    ],
                }
            ]
        },
        "parameters": {"size": "1K", "prompt_extend": True, "enable_interleave": False, "n": 1},
    },
}
PAINTED = {
    "sluiceway.operation": "multimodal-generation",
    "sluiceway.protocol": "dashscope",
    "gen_ai.operation.name": "generate_content",
    "gen_ai.output.type": "image",
    "sluiceway.usage.images": 1,
    "sluiceway.outcome": "ok",
}


FETCH = """
const [url, key, body] = process.argv.slice(1);
const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };
const res = await fetch(url, { method: "POST", headers, body: JSON.stringify(JSON.parse(body)) });
console.log(JSON.stringify(await res.json()));
"""


@pytest.mark.parametrize("body", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("by", ["curl", "fetch", "requests"])
async def test_the_image_endpoint(bed: Bed, body: dict[str, Any], by: str) -> None:
    url = f"{bed.url('pictures')}/aliyun/v1/images/generations"

    def ask() -> Any:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        return requests.post(url, headers=headers, json=body, timeout=120).json()

    if by == "curl":
        said, (record,) = await bed.records(curl("-X", "POST", *posted(url, body)[1:]))
        answer = orjson.loads(said)
    elif by == "fetch":
        arguments = ("--input-type=module", "-e", FETCH, url, KEY, orjson.dumps(body).decode())
        said, (record,) = await bed.records(said_by("node", *arguments))
        answer = orjson.loads(said)
    else:
        answer, (record,) = await bed.records(in_thread(ask))
    (choice,) = answer["output"]["choices"]
    assert choice["message"]["content"][0]["image"].startswith("http")
    assert answer["usage"]["image_count"] == 1
    expected = {**PAINTED, "gen_ai.request.model": body["model"]}
    assert fields_of(record, expected) == expected
    if body["parameters"]["size"] == "2048*2048":
        assert (record["sluiceway.image.width"], record["sluiceway.image.height"]) == (2048, 2048)


async def test_the_image_endpoint_of_another_provider(bed: Bed) -> None:
    url = f"{bed.url('gpt-pictures')}/aliyun/v1/images/generations"
    said, (record,) = await bed.records(curl("-X", "POST", *posted(url, PICTURES["text"])[1:]))
    message = "only aliyun channel is supported on /aliyun/v1/images/generations"
    error = {"message": message, "type": "invalid_request_error", "code": "invalid_request"}
    assert orjson.loads(said) == {"error": error}
    assert (record["http.response.status_code"], record["error.type"]) == (400, "bad_request")
