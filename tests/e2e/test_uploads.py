"""Recorded content by reference, from a request to the file: what has the content, and what only says where it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_content_host import recording
from tests.e2e.test_secrets import SECRETS, found_in, question
from tests.e2e.traffic import ask, document_of
from tests.fakes.gateway import Gateway
from tests.fakes.otlp_sink import OtlpSink, attributes_of
from tests.fakes.simulated import Simulated

MESSAGES, REF = "gen_ai.input.messages", "gen_ai.input.messages_ref"


@pytest.mark.parametrize(("mode", "on_spans", "events"), [("NO_CONTENT", False, 0), ("SPAN_AND_EVENT", True, 1)])
async def test_lines_say_where_it_is_and_spans_have_what_the_mode_says(
    tmp_path: Path, mode: str, on_spans: bool, events: int
) -> None:
    prompts = tmp_path / "prompts"
    with OtlpSink() as sink:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1000",  # of spans, not of files where spans have none
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": mode,
            "OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK": "upload",
            "OTEL_INSTRUMENTATION_GENAI_UPLOAD_BASE_PATH": f"file://{prompts}",
        }
        async with (
            Simulated.running() as upstream,
            Gateway.serving(
                recording(document_of(upstream.url, redact=["CUST-[0-9]{6}"])), tmp_path, environ=environ
            ) as gateway,
        ):
            body = json.loads(question())
            body["messages"].append({"role": "user", "content": "word " * 400})
            assert (await ask(gateway.port, "one", json.dumps(body).encode())).status == 200
            (line,) = await gateway.records(1)
        assert gateway.complaints() == []
        client = next(found for span in sink.spans if REF in (found := attributes_of(span)))
        logs = [attributes_of(log) for log in sink.logs]
    inputs, outputs = (Path(line[name].removeprefix("file://")) for name in (REF, "gen_ai.output.messages_ref"))
    assert inputs.name == f"{line['sluiceway.request_id']}_inputs.json"
    assert sorted(path for path in prompts.rglob("*") if path.is_file()) == sorted([inputs, outputs])
    stored: list[Any] = json.loads(inputs.read_bytes())
    assert "[REDACTED]" in stored[0]["parts"][0]["content"]
    assert ("sluiceway.content.truncated" in line) is on_spans
    assert [one for path in (inputs, outputs) for one in found_in(path.name, path.read_bytes())] == [], SECRETS
    assert MESSAGES not in line
    assert client[REF] == line[REF]
    assert (MESSAGES in client) is on_spans
    assert [(log[REF], log[MESSAGES]) for log in logs] == [(line[REF], stored)] * events


async def test_a_store_that_cannot_be_is_said_and_costs_only_the_content(tmp_path: Path) -> None:
    environ = {
        "OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK": "upload",
        "OTEL_INSTRUMENTATION_GENAI_UPLOAD_BASE_PATH": "no-such-store://bucket",
    }
    async with (
        Simulated.running() as upstream,
        Gateway.serving(recording(document_of(upstream.url)), tmp_path, environ=environ) as gateway,
    ):
        assert (await ask(gateway.port, "one")).status == 200
        (line,) = await gateway.records(1)
        metrics = await gateway.metrics()
        (said,) = await gateway.lines.wait("content_not_stored")
    assert "Protocol not known: no-such-store" in said["reason"]
    assert MESSAGES not in line
    assert line["sluiceway.content.dropped"] == "upload_off"
    assert metrics['sluiceway_content_dropped_total{reason="upload_off"}'] == 1
