"""Recorded content of a whole host: no secret and no base64 in any line, span or file, and memory that is bounded."""

import asyncio
import base64
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import orjson

from benchmarks import machine
from tests.e2e.traffic import CHAT, KEY, ask, document_of
from tests.e2e.two_targets import answer
from tests.fakes.gateway import Gateway
from tests.fakes.otlp_sink import OtlpSink, attributes_of
from tests.fakes.scripted import ReadRequest, Scripted, Send
from tests.fakes.simulated import Simulated
from tests.observability.wire.test_media import png

MIB = 1 << 20
IMAGE_BYTES = 15 * MIB
"""20 MiB as base64."""
UPLOADS = 6
PEAK_BYTES_MAX = 150_000_000
SERVICE_KEY = "upstream-key-of-no-known-format"

SECRETS = {
    "the consumer's key": KEY,
    "the service's key": SERVICE_KEY,
    "a header": "hdr-secret-0123456789",
    "a cookie": "cookie-secret-0123456789",
    "the query": "query-secret-0123456789",
    "a key in a message": "sk-proj-abcdefghijklmnop",
    "a bearer token": "tok.en-0123456789",
    "a password": "hunter2hunter2",
    "an e-mail address": "jane.doe@mail.example",
    "a card": "4111 1111 1111 1111",
    "a phone number": "+49 30 12345678",
    "one of our own": "CUST-654321",
    "in tool arguments": "args-secret-0123456789",
    "across two deltas": "sk-delta-abcdefghijklmnop",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "in a link": "signature-0123456789",
}


def recording(document: dict[str, Any], **monitoring: Any) -> dict[str, Any]:
    document["model_apis"][0]["monitoring"] = {"record_request": True, "record_response": True, **monitoring}
    return document


def question() -> bytes:
    said = (
        f"my key is {SECRETS['a key in a message']}, Authorization: Bearer {SECRETS['a bearer token']}, "
        f"password={SECRETS['a password']}, write to {SECRETS['an e-mail address']} or call "
        f"{SECRETS['a phone number']}, card {SECRETS['a card']}, customer {SECRETS['one of our own']}, "
        f"{SECRETS['AWS']}, https://x.example/a.png?Expires=1&Signature={SECRETS['in a link']}"
    )
    arguments = json.dumps({"api_key": SECRETS["in tool arguments"]})
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    return json.dumps({"messages": messages, "model": "m", "metadata": {"password": SECRETS["a password"]}}).encode()


def answers() -> list[bytes]:
    """An answer, a stream and an error, each of which repeats what it was sent."""
    plain = json.dumps({"choices": [{"message": {"content": question().decode()}, "finish_reason": "stop"}]}).encode()
    first, second = SECRETS["across two deltas"][:10], SECRETS["across two deltas"][10:]
    deltas = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("take ", first, second, " and")]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in (*deltas, last)) + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
    error = {"error": {"message": f"key {SERVICE_KEY} is wrong, you said {question().decode()}", "code": "bad_key"}}
    return [answer(200, plain), head + body, answer(400, json.dumps(error).encode())]


def found_in(name: str, data: bytes) -> list[str]:
    text = data.decode("utf-8", "replace")
    return [f"{kind} in {name}" for kind, secret in SECRETS.items() if secret in text]


async def test_no_secret_is_in_any_line_span_or_file(tmp_path: Path) -> None:
    steps = [step for said in answers() for step in (ReadRequest(), Send(said))]
    with OtlpSink() as sink:
        async with Scripted(*steps) as upstream:
            document = recording(document_of(f"http://127.0.0.1:{upstream.port}", redact=["CUST-[0-9]{6}"]))
            document["services"][0] |= {"api_keys": [SERVICE_KEY]}
            environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
            async with Gateway.serving(document, tmp_path, environ=environ) as gateway:
                body = question()
                for number in range(3):
                    path = f"{CHAT}?api_key={SECRETS['the query']}"
                    head = {"x_secret": SECRETS["a header"], "cookie": f"session={SECRETS['a cookie']}"}
                    got = await ask(gateway.port, f"r-{number}", body, path, **head)
                    assert got.status == (400 if number == 2 else 200)
                lines = await gateway.records(3)
                stored = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".yaml"]
                assert stored  # state and spool; the configuration itself, in .yaml files, has keys
                files = {str(path): path.read_bytes() for path in stored}
            assert len(upstream.heads) == 3
            assert all(SERVICE_KEY.encode() in head for head in upstream.heads)  # they are what was looked for
        spans = sink.spans
    assert all("gen_ai.input.messages" in line for line in lines)
    assert "[REDACTED] and" in lines[1]["gen_ai.output.messages"]
    assert json.loads(lines[2]["sluiceway.error.body"])["error"]["code"] == "bad_key"
    client = [attributes_of(span) for span in spans if "gen_ai.input.messages" in attributes_of(span)]
    assert len(client) == 3
    said = [found_in("a line", orjson.dumps(line)) for line in gateway.lines.all]
    said += [found_in("a span", span.SerializeToString()) for span in spans]
    said += [found_in(name, data) for name, data in files.items()]
    assert [one for some in said for one in some] == []
    assert gateway.complaints() == []


async def test_large_images_cost_no_memory_and_their_facts_are_right(tmp_path: Path) -> None:
    images = [png(640, 480) + random.Random(number).randbytes(IMAGE_BYTES) for number in range(UPLOADS)]
    async with Simulated.running() as upstream:
        async with Gateway.serving(recording(document_of(upstream.url)), tmp_path) as gateway:
            (worker,) = gateway.pids("proxy.worker")

            async def upload(number: int) -> None:
                url = b"data:image/png;base64," + base64.b64encode(images[number])
                part = b'{"type":"image_url","image_url":{"url":"%b"}}' % url
                ending = b',{"type":"text","text":"image %d"}]}],"model":"qwen-plus"}' % number
                body = b'{"messages":[{"role":"user","content":[' + part + ending
                assert (await ask(gateway.port, f"image-{number}", body)).status == 200

            machine.reset_peak_memory(worker)
            await asyncio.gather(*(upload(number) for number in range(UPLOADS)))
            peak_bytes = machine.peak_memory_bytes(worker)
            lines = {line["sluiceway.client_request_id"]: line for line in await gateway.records(UPLOADS)}
    assert peak_bytes < PEAK_BYTES_MAX
    for number, image in enumerate(images):
        (message,) = json.loads(lines[f"image-{number}"]["gen_ai.input.messages"])
        blob, text = message["parts"]
        assert (blob["bytes"], blob["sha256"]) == (len(image), hashlib.sha256(image).hexdigest())
        assert (blob["width"], blob["height"]) == (640, 480)
        assert text["content"] == f"image {number}"
    assert max(len(orjson.dumps(line)) for line in gateway.lines.all) < 8000


async def test_expressions_follow_the_configuration(tmp_path: Path) -> None:
    async with Simulated.running() as upstream:
        document = recording(document_of(upstream.url))
        async with Gateway.serving(document, tmp_path) as gateway:
            body = b'{"messages":[{"role":"user","content":"customer CUST-654321"}],"model":"qwen-plus"}'
            await ask(gateway.port, "before", body)
            changed = {**json.loads(gateway.file.read_bytes()), "redact": ["CUST-[0-9]{6}"]}
            gateway.file.write_bytes(orjson.dumps(changed))
            await gateway.lines.wait("configuration_in_force", generation=2)
            await ask(gateway.port, "after", body)
            lines = {line["sluiceway.client_request_id"]: line for line in await gateway.records(2)}
    assert "CUST-654321" in lines["before"]["gen_ai.input.messages"]
    assert "CUST" not in lines["after"]["gen_ai.input.messages"]


async def test_content_goes_out_as_events_where_it_is_asked_for(tmp_path: Path) -> None:
    with OtlpSink() as sink:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "EVENT_ONLY",
        }
        async with (
            Simulated.running() as upstream,
            Gateway.serving(recording(document_of(upstream.url)), tmp_path, environ=environ) as gateway,
        ):
            await ask(gateway.port, "one", b'{"messages":[{"role":"user","content":"hi"}],"model":"qwen-plus"}')
            (line,) = await gateway.records(1)
        spans, logs = sink.spans, sink.logs
    (event,) = logs
    (message,) = attributes_of(event)["gen_ai.input.messages"]
    assert message == {"role": "user", "parts": [{"type": "text", "content": "hi"}]}
    assert json.loads(line["gen_ai.input.messages"]) == [message]
    assert spans
    assert not [span for span in spans if "gen_ai.input.messages" in attributes_of(span)]
    assert event.span_id in {span.span_id for span in spans}
