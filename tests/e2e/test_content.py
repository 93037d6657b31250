"""Recorded content, through a worker with real sockets: what is asked and answered becomes messages, and only where
it may."""

import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from observability import names
from tests.e2e.two_targets import CHAT, SSE, answer, ask, chunk, says
from tests.fakes.scripted import ReadRequest, Scripted, Send
from tests.fakes.worker import FakeWorker, document_of, running
from tests.observability.coded import encoded
from tests.observability.wire.test_media import png

RECORDED = {"record_request": True, "record_response": True}
WHOLE = json.dumps(
    {
        "id": "a",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ahoy"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
).encode()
QUESTION = [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
AHOY = [{"role": "assistant", "parts": [{"type": "text", "content": "ahoy"}], "finish_reason": "stop"}]


@contextlib.asynccontextmanager
async def recording(
    script: tuple[Any, ...], monitoring: dict[str, Any] | None = None, **top: Any
) -> AsyncIterator[tuple[FakeWorker, Scripted]]:
    model_api = {"monitoring": RECORDED if monitoring is None else monitoring, **top.pop("model_api", {})}
    async with (
        Scripted(*script) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", model_api=model_api, **top)) as worker,
    ):
        yield worker, upstream


def said(fields: dict[str, Any], name: str) -> Any:
    return json.loads(fields[name]) if name in fields else None


def streamed(*events: Any) -> tuple[Any, ...]:
    body = b"".join(
        b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events
    )
    return ReadRequest(), Send(SSE + chunk(body) + b"0\r\n\r\n")


async def test_nothing_is_recorded_unless_it_is_asked_for():
    async with recording(says(answer(200, WHOLE)), {}) as (worker, _):
        await ask(worker)
        fields = await worker.fields()
        assert not [name for name in fields if "messages" in name or "content" in name]


async def test_a_chat_becomes_messages():
    async with recording(says(answer(200, WHOLE))) as (worker, _):
        await ask(worker)
        fields = await worker.fields()
        assert said(fields, names.GEN_AI_INPUT_MESSAGES) == QUESTION
        assert said(fields, names.GEN_AI_OUTPUT_MESSAGES) == AHOY
        assert fields[names.GEN_AI_USAGE_INPUT_TOKENS] == 3


@pytest.mark.parametrize(("request_side", "response_side"), [(True, False), (False, True)])
async def test_each_side_is_a_switch_of_its_own(request_side, response_side):
    monitoring = {"record_request": request_side, "record_response": response_side}
    async with recording(says(answer(200, WHOLE)), monitoring) as (worker, _):
        await ask(worker)
        fields = await worker.fields()
        assert (names.GEN_AI_INPUT_MESSAGES in fields, names.GEN_AI_OUTPUT_MESSAGES in fields) == (
            request_side,
            response_side,
        )


@pytest.mark.parametrize("line", [b"x-sluiceway-record: off", b"X-Sluiceway-Record: OFF ", b"x-sluiceway-record: no"])
async def test_a_client_that_does_not_want_it_always_wins_and_the_upstream_does_not_hear_of_it(line):
    async with recording(says(answer(200, WHOLE))) as (worker, upstream):
        await ask(worker, CHAT, line)
        fields = await worker.fields()
        assert names.GEN_AI_INPUT_MESSAGES not in fields
        assert names.GEN_AI_OUTPUT_MESSAGES not in fields
        (head,) = upstream.heads
        assert b"sluiceway" not in head.lower()


async def test_a_sample_is_of_traces_and_the_same_everywhere():
    async with recording(says(answer(200, WHOLE)) * 2, {**RECORDED, "content_sample": 0.5}) as (worker, _):
        for digit, recorded in (("7", True), ("8", False), ("0", True), ("f", False)):
            trace = b"traceparent: 00-" + b"a" * 16 + digit.encode() * 16 + b"-00f067aa0ba902b7-01"
            await ask(worker, CHAT, trace)
            assert (names.GEN_AI_INPUT_MESSAGES in await worker.fields()) == recorded


async def test_a_stream_is_put_together():
    def delta(index: int, reason: str | None = None, **said: Any) -> dict[str, Any]:
        return {"choices": [{"index": index, "delta": said, "finish_reason": reason}]}

    script = streamed(
        delta(0, role="assistant", content=""),
        delta(0, reasoning_content="hm"),
        delta(1, content="two"),
        delta(0, content="ah"),
        delta(0, content="oy"),
        delta(0, tool_calls=[{"index": 0, "id": "t1", "function": {"name": "look", "arguments": '{"a"'}}]),
        delta(0, tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
        delta(0, "tool_calls"),
        delta(1, "length"),
        b"[DONE]",
    )
    async with recording(script) as (worker, _):
        await ask(worker, b'{"messages":[{"role":"user","content":"hi"}],"model":"m","stream":true,"n":2}')
        assert said(await worker.fields(), names.GEN_AI_OUTPUT_MESSAGES) == [
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "content": "hm"},
                    {"type": "text", "content": "ahoy"},
                    {"type": "tool_call", "id": "t1", "name": "look", "arguments": '{"a":1}'},
                ],
                "finish_reason": "tool_calls",
            },
            {"role": "assistant", "parts": [{"type": "text", "content": "two"}], "finish_reason": "length"},
        ]


@pytest.mark.parametrize("coding", ["gzip", "br"])
async def test_encoded_bodies_are_read(coding):
    line = b"Content-Encoding: " + coding.encode()
    script = says(answer(200, encoded(WHOLE, coding), line))
    async with recording(script) as (worker, _):
        await ask(worker, encoded(CHAT, coding), line)
        fields = await worker.fields()
        assert said(fields, names.GEN_AI_INPUT_MESSAGES) == QUESTION
        assert said(fields, names.GEN_AI_OUTPUT_MESSAGES) == AHOY


async def test_an_encoded_body_that_is_not_read_to_its_end_says_so():
    body = b'{"messages":[{"role":"user","content":"hi"}],"bomb":"' + b"x" * 3_000_000 + b'"}'
    line = b"Content-Encoding: gzip"
    async with recording(says(answer(200, WHOLE))) as (worker, upstream):
        await ask(worker, encoded(body, "gzip"), line)
        fields = await worker.fields()
        assert upstream.connections[0].bodies == [encoded(body, "gzip")]
    assert said(fields, names.GEN_AI_INPUT_MESSAGES) == QUESTION
    assert fields[names.SLUICEWAY_CONTENT_TRUNCATED] is True


async def test_no_credential_of_the_client_is_recorded_though_it_sends_several():
    other = "another/key+of-no-format"
    body = json.dumps({"messages": [{"role": "user", "content": f"it is {other}"}], "model": "m"}).replace("/", "\\/")
    async with recording(says(answer(200, WHOLE))) as (worker, _):
        await ask(worker, body.encode(), b"x-api-key: " + other.encode())
        (message,) = said(await worker.fields(), names.GEN_AI_INPUT_MESSAGES)
    assert message["parts"] == [{"type": "text", "content": "it is [REDACTED]"}]


@pytest.mark.parametrize("size", [2_000, 3_000_000])
async def test_an_image_is_facts(size):
    image = png(640, 480) + bytes(range(256)) * (size // 256)
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    content = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = json.dumps({"messages": [{"role": "user", "content": content}], "model": "m"}).encode()
    async with recording(says(answer(200, WHOLE))) as (worker, upstream):
        await ask(worker, body)
        fields = await worker.fields()
        assert upstream.connections[0].bodies == [body]
    (message,) = said(fields, names.GEN_AI_INPUT_MESSAGES)
    assert message["parts"] == [
        {"type": "text", "content": "what is it?"},
        {
            "type": "blob",
            "modality": "image",
            "mime_type": "image/png",
            "content": "",
            "bytes": len(image),
            "sha256": hashlib.sha256(image).hexdigest(),
            "width": 640,
            "height": 480,
        },
    ]
    assert names.SLUICEWAY_CONTENT_TRUNCATED not in fields


async def test_what_is_too_long_is_cut_and_says_so():
    text = "word " * 40_000
    body = json.dumps(
        {"messages": [{"role": "user", "content": text}, {"role": "user", "content": "why?"}], "model": "m"}
    )
    async with recording(says(answer(200, WHOLE)), {**RECORDED, "content_max_bytes": 1000}) as (worker, _):
        await ask(worker, body.encode())
        fields = await worker.fields()
    first, second = said(fields, names.GEN_AI_INPUT_MESSAGES)
    assert len(fields[names.GEN_AI_INPUT_MESSAGES]) <= 1000
    assert first["parts"][0]["content"].startswith("word word")
    assert second["parts"] == [{"type": "text", "content": "why?"}]
    assert fields[names.SLUICEWAY_CONTENT_TRUNCATED] is True
    assert abs(fields[names.SLUICEWAY_CONTENT_INPUT_BYTES] - len(text)) < 300


async def test_a_form_is_its_fields_and_the_facts_of_its_files():
    image = png(64, 32) + bytes(100_000)
    parts = [
        b'Content-Disposition: form-data; name="model"\r\n\r\nm',
        b'Content-Disposition: form-data; name="prompt"\r\n\r\na cat',
        b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n' + image,
    ]
    body = b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + b"--XX--\r\n"
    script = says(answer(200, b'{"data":[{"url":"https://x.example/made.png"}]}'))
    async with recording(script, model_api={"scenario": "image"}) as (worker, upstream):
        kind = b'multipart/form-data; boundary="XX"'
        assert (await ask(worker, body, path=b"/v1/images/edits", kind=kind)).status == 200
        fields = await worker.fields()
        assert upstream.connections[0].bodies == [body]
    (message,) = said(fields, names.GEN_AI_INPUT_MESSAGES)
    text, blob = message["parts"]
    assert text == {"type": "text", "content": "a cat"}
    assert (blob["bytes"], blob["width"], blob["height"]) == (len(image), 64, 32)
    assert blob["sha256"] == hashlib.sha256(image).hexdigest()
    (made,) = said(fields, names.GEN_AI_OUTPUT_MESSAGES)
    assert made["parts"] == [{"type": "uri", "modality": "image", "uri": "https://x.example/made.png"}]


async def test_speech_is_facts():
    audio = b"ID3" + bytes(range(256)) * 500
    head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: %d\r\n\r\n" % len(audio)
    async with recording(says(head + audio), model_api={"scenario": "speech"}) as (worker, _):
        got = await ask(worker, b'{"model":"m","input":"hello","voice":"x"}', path=b"/v1/audio/speech")
        assert got.body == audio
        fields = await worker.fields()
    assert said(fields, names.GEN_AI_INPUT_MESSAGES)[0]["parts"] == [{"type": "text", "content": "hello"}]
    (message,) = said(fields, names.GEN_AI_OUTPUT_MESSAGES)
    (blob,) = message["parts"]
    assert (blob["modality"], blob["mime_type"], blob["bytes"]) == ("audio", "audio/mpeg", len(audio))
    assert blob["sha256"] == hashlib.sha256(audio).hexdigest()


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("kept", [False, True])
async def test_of_vectors_nothing_is_kept_but_what_was_embedded_and_errors(status, kept):
    document = {"error": {"code": "no"}} if kept else {"data": [{"embedding": [0.125] * 50_000}]}
    async with recording(says(answer(status, json.dumps(document).encode())), model_api={"scenario": "embedding"}) as (
        worker,
        _,
    ):
        await ask(worker, b'{"model":"m","input":["one","two"]}', path=b"/v1/embeddings")
        fields = await worker.fields()
    (message,) = said(fields, names.GEN_AI_INPUT_MESSAGES)
    assert [part["content"] for part in message["parts"]] == ["one", "two"]
    assert (names.SLUICEWAY_ERROR_BODY in fields) == kept
    assert names.SLUICEWAY_CONTENT_TRUNCATED not in fields
    assert names.GEN_AI_OUTPUT_MESSAGES not in fields


@pytest.mark.parametrize("size", [1_000, 200_000])
async def test_images_in_an_answer_are_facts(size):
    image = png(64, 32) + bytes(range(256)) * (size // 256)
    body = json.dumps({"data": [{"b64_json": base64.b64encode(image).decode()}], "created": 1}).encode()
    async with recording(says(answer(200, body)), model_api={"scenario": "image"}) as (worker, _):
        await ask(worker, b'{"model":"m","prompt":"a cat"}', path=b"/v1/images/generations")
        (message,) = said(await worker.fields(), names.GEN_AI_OUTPUT_MESSAGES)
    (blob,) = message["parts"]
    assert blob["sha256"] == hashlib.sha256(image).hexdigest()


async def test_a_large_event_of_a_stream_is_facts():
    image = png(64, 32) + bytes(range(256)) * 1000
    event = {"type": "image_generation.completed", "b64_json": base64.b64encode(image).decode()}
    async with recording(streamed(event), model_api={"scenario": "image"}) as (worker, _):
        await ask(worker, b'{"model":"m","prompt":"a cat","stream":true}', path=b"/v1/images/generations")
        (message,) = said(await worker.fields(), names.GEN_AI_OUTPUT_MESSAGES)
    (blob,) = message["parts"]
    assert blob["sha256"] == hashlib.sha256(image).hexdigest()
