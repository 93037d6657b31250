"""Streams and JSON answers of the Anthropic protocol."""

from typing import Any

from tests.observability.scanners.responses import LONG, Case, answer, events, stream, typed_events

START_USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 100,
    "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 1,
    "service_tier": "standard",
}
CACHED = {
    "input_tokens": 115,
    "raw_input_tokens": 10,
    "cache_creation_tokens": 5,
    "cache_read_tokens": 100,
    "usage_seen": True,
}
NAMES = {"response_id": "msg_1", "response_model": "claude-x"}
ENDED = {"finish_reasons": ["end_turn"], "complete": True, "usage_final": True}
TOLD = {"first_output": True, "output_events": 1}
PING = {"type": "ping"}
STOP = {"type": "message_stop"}
ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "m"}, "request_id": "req_1"}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {**START_USAGE, "output_tokens": 7},
}


def start(usage: object = START_USAGE) -> dict[str, Any]:
    """`message_start`."""
    return {
        "type": "message_start",
        "message": {**MESSAGE, "content": [], "stop_reason": None, "usage": usage},
    }


def delta(kind: str, **said: object) -> dict[str, Any]:
    """`content_block_delta`."""
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **said}}


def last(usage: object = {"output_tokens": 7}, reason: str | None = "end_turn") -> dict[str, Any]:
    """`message_delta`."""
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
BLOCK_STOP = {"type": "content_block_stop", "index": 0}
HI = delta("text_delta", text="hi")


def messages(name: str, body: bytes, **facts: Any) -> Case:
    """A stream."""
    return stream("anthropic", "messages", name, body, **facts)


def message(name: str, body: object, **facts: Any) -> Case:
    """A JSON answer."""
    return answer("anthropic", "messages", name, body, **facts)


ANTHROPIC = [
    messages(
        "stream",
        typed_events(start(), PING, BLOCK, delta("text_delta", text=""), HI, HI, BLOCK_STOP, last(), STOP),
        **{**NAMES, **CACHED, **ENDED, **TOLD, "output_events": 2},
        output_tokens=7,
        events=9,
    ),
    messages(
        "totals repeated at the end",
        typed_events(start({"input_tokens": 1}), HI, last({**START_USAGE, "output_tokens": 9}), STOP),
        **{**NAMES, **CACHED, **ENDED, **TOLD},
        output_tokens=9,
        events=4,
    ),
    messages(
        "totals grow, and null says nothing",
        typed_events(
            start(),
            HI,
            last({"input_tokens": 30, "cache_read_input_tokens": None, "output_tokens": 3}, None),
            last({"output_tokens": 8}),
            STOP,
        ),
        **{**NAMES, **CACHED, **ENDED, **TOLD, "input_tokens": 135, "raw_input_tokens": 30},
        output_tokens=8,
        events=5,
    ),
    messages(
        "thinking, its signature, a call",
        typed_events(
            start(),
            delta("thinking_delta", thinking="hm"),
            delta("signature_delta", signature="s"),
            delta("input_json_delta", partial_json=""),
            delta("input_json_delta", partial_json="{"),
            last({"output_tokens": 7, "output_tokens_details": {"thinking_tokens": 4}}, "tool_use"),
            STOP,
        ),
        **{**NAMES, **CACHED, **ENDED, "finish_reasons": ["tool_use"]},
        output_tokens=7,
        reasoning_tokens=4,
        events=7,
        first_output=True,
        output_events=2,
    ),
    messages(
        "a signature is no output",
        typed_events(start(), delta("signature_delta", signature="s")),
        **NAMES,
        **CACHED,
        output_tokens=1,
        events=2,
    ),
    messages(
        "cut",
        typed_events(start(), HI, HI),
        **NAMES,
        **CACHED,
        **{**TOLD, "output_events": 2},
        output_tokens=1,
        events=3,
    ),
    messages(
        "cut before its stop",
        typed_events(start(), HI, last()),
        **NAMES,
        **CACHED,
        **TOLD,
        output_tokens=7,
        events=3,
        finish_reasons=["end_turn"],
    ),
    messages(
        "types alone", events(start(), HI, last(), STOP), **NAMES, **CACHED, **TOLD, **ENDED, output_tokens=7, events=4
    ),
    messages(
        "names alone",
        b'event: content_block_delta\ndata: {"delta":{"text":"a"}}\n\nevent: message_stop\ndata: {}\n\n',
        **TOLD,
        complete=True,
        events=2,
    ),
    messages(
        "error in a stream",
        typed_events(start(), HI, ERROR),
        **NAMES,
        **CACHED,
        **TOLD,
        output_tokens=1,
        events=3,
        error_code="overloaded_error",
        upstream_request_id="req_1",
        complete=True,
    ),
    messages("named error", b"event: error\ndata: oops\n\n", events=1, error_code="error", complete=True),
    messages(
        "no cache",
        typed_events(start({"input_tokens": 10, "output_tokens": 1}), HI, last(), STOP),
        **NAMES,
        **TOLD,
        **ENDED,
        usage_seen=True,
        input_tokens=10,
        output_tokens=7,
        events=4,
    ),
    messages(
        "no usage",
        typed_events(start(None), HI, last(None), STOP),
        **NAMES,
        **TOLD,
        **{**ENDED, "usage_final": False},
        events=4,
    ),
    messages(
        "larger than what is decoded at once",
        typed_events(
            {"type": "message_start", "message": {"container": LONG, **start()["message"]}},
            delta("text_delta", text=LONG),
            delta("signature_delta", signature=LONG),
            {**last(), "padding": LONG},
            STOP,
        ),
        **NAMES,
        **CACHED,
        **TOLD,
        **ENDED,
        output_tokens=7,
        events=5,
    ),
    messages(
        "odd types",
        typed_events(
            {"type": "message_start", "message": []},
            {"type": "message_start", "message": {"id": 1, "usage": {"input_tokens": "1", "cache_creation": [1]}}},
            {"type": "content_block_delta", "delta": "x"},
            {"type": "message_delta", "delta": None, "usage": 5},
        )
        + b"data: []\n\n",
        usage_seen=True,
        events=5,
    ),
    message("answer", MESSAGE, **NAMES, **CACHED, **TOLD, **ENDED, output_tokens=7),
    message(
        "the cache by how long it is kept",
        {**MESSAGE, "usage": {"input_tokens": 1, "cache_creation": {"a": 2, "b": 3}, "output_tokens": 7}},
        **NAMES,
        **TOLD,
        **ENDED,
        usage_seen=True,
        input_tokens=6,
        raw_input_tokens=1,
        cache_creation_tokens=5,
        output_tokens=7,
    ),
    message(
        "large answer",
        {**MESSAGE, "content": [{"type": "text", "text": "x" * 80_000}] * 2},
        **NAMES,
        **CACHED,
        **TOLD,
        **ENDED,
        output_tokens=7,
    ),
    message(
        "cut answer",
        b'{"id":"msg_1","model":"claude-x","content":[{"text":"a"}',
        response_id="msg_1",
        response_model="claude-x",
        **TOLD,
        failed=True,
    ),
    answer("anthropic", "messages.count_tokens", "count", {"input_tokens": 2095}, **TOLD, complete=True),
]
