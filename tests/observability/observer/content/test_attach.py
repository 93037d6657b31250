"""What comes into a record of an answer: as much as may be, always JSON, and the truth about what is missing."""

import json
from typing import Any

import orjson
import pytest

from observability import names
from observability.content.capture import Plan, Recording
from observability.content.scanning import recorded_scanner
from observability.facts import pack, unpack
from observability.observation import Observation
from observability.observer.content.attach import attach
from observability.observer.content.stash import Contents
from observability.observer.naming import record_of
from observability.sampling import TraceContext
from tests.observability.records import CLIENT_SPAN_ID, SPAN_ID, TRACE_ID

REQUEST_ID = "ab" * 16


def recorded(body: bytes, content_type: str, status: int, max_bytes: int, protocol: str = "openai") -> dict[str, Any]:
    """The fields of an answer."""
    recording = Recording(Plan(request=False, response=True, max_bytes=max_bytes, sample=1.0), REQUEST_ID)
    observation = Observation(REQUEST_ID, TraceContext(TRACE_ID, None, None, None), SPAN_ID, CLIENT_SPAN_ID)
    observation.upstream_status = status
    operation = "chat.completions" if protocol == "openai" else "text-generation"
    scanner = recorded_scanner(recording, protocol, operation, content_type, status)
    scanner.feed(body)
    scanner.end()
    observation.scanner = scanner
    content, frames = recording.close()
    facts = unpack(orjson.loads(orjson.dumps(pack(observation, 2, content))))
    record = record_of(facts)
    contents = Contents()
    contents.take(memoryview(b"C" + b"".join(len(frame).to_bytes(4, "little") + frame for frame in frames)))
    assert attach(record, facts, contents) is None
    return record["fields"]


def stream(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


@pytest.mark.parametrize("content_type", ["application/octet-stream", "image/png", "application/grpc"])
def test_an_error_that_is_a_file_is_told_of(content_type):
    fields = recorded(b"\x89PNG\r\n\x1a\nnothing", content_type, 502, 1000)
    assert json.loads(fields[names.SLUICEWAY_ERROR_BODY])["bytes"] == 15
    assert names.GEN_AI_OUTPUT_MESSAGES not in fields


@pytest.mark.parametrize("letter", ["x", "\u00e4", "\u4f60", "\U0001f511", "\n"])
@pytest.mark.parametrize("max_bytes", [0, 2, 50, 300, 1000, 3000, 70_000])
def test_what_was_said_and_the_error_behind_it_share_the_room(max_bytes, letter):
    error = {"error": {"message": letter * 2000, "code": "boom"}}
    body = stream({"choices": [{"index": 0, "delta": {"content": letter * 2000}}]}, error)
    fields = recorded(body, "text/event-stream", 200, max_bytes)
    said = [fields[name] for name in (names.GEN_AI_OUTPUT_MESSAGES, names.SLUICEWAY_ERROR_BODY) if name in fields]
    for text in said:
        json.loads(text)
    assert sum(len(text.encode()) for text in said) <= max(2, max_bytes)
    whole = max_bytes == 70_000
    assert (names.SLUICEWAY_CONTENT_TRUNCATED not in fields) == whole
    assert whole or fields[names.SLUICEWAY_CONTENT_OUTPUT_BYTES] > len(letter.encode()) * 4000
