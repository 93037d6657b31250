"""Recorded content of a whole host: facts in place of base64, memory that is bounded, and events. For secrets see
`test_secrets`."""

import asyncio
import base64
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import orjson

from benchmarks import machine
from tests.e2e.traffic import ask, document_of
from tests.fakes.gateway import Gateway
from tests.fakes.otlp_sink import OtlpSink, attributes_of
from tests.fakes.simulated import Simulated
from tests.observability.wire.test_media import png

MIB = 1 << 20
IMAGE_BYTES = 15 * MIB
"""20 MiB as base64."""
UPLOADS = 6
PEAK_BYTES_MAX = 150_000_000


def recording(document: dict[str, Any], **monitoring: Any) -> dict[str, Any]:
    document["model_apis"][0]["monitoring"] = {"record_request": True, "record_response": True, **monitoring}
    return document


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
