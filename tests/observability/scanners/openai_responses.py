"""Streams and JSON answers of the OpenAI protocol's responses."""

from typing import Any

from tests.observability.scanners.responses import LONG, Case, events, plain, stream, typed_events

USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 123,
}
TOKENS = {
    "input_tokens": 36,
    "output_tokens": 87,
    "cache_read_tokens": 8,
    "cache_creation_tokens": 2,
    "reasoning_tokens": 64,
    "usage_seen": True,
}
NAMES = {"response_id": "resp_1", "response_model": "gpt-x"}
TOLD = {"first_output": True, "output_events": 1}
ENDED = {"finish_reasons": ["completed"], "complete": True, "usage_final": True}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "model": "gpt-x",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    "usage": USAGE,
}
EMPTY = {**RESPONSE, "output": [], "usage": None, "status": "in_progress"}
INCOMPLETE = {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
FAILED = {**RESPONSE, "status": "failed", "output": [], "error": {"code": "server_error", "message": "m"}}
CREATED = {"type": "response.created", "response": EMPTY, "sequence_number": 0}
IN_PROGRESS = {"type": "response.in_progress", "response": EMPTY, "sequence_number": 1}
ITEM = {"type": "response.output_item.added", "output_index": 0, "item": {"id": "msg_1", "type": "message"}}
TEXT_DONE = {"type": "response.output_text.done", "text": "hi"}


def delta(kind: str = "output_text", said: str = "hi") -> dict[str, Any]:
    """One delta."""
    return {"type": f"response.{kind}.delta", "item_id": "msg_1", "output_index": 0, "delta": said}


def ended(response: dict[str, Any]) -> dict[str, Any]:
    """The last event."""
    return {"type": f"response.{response['status']}", "response": response, "sequence_number": 9}


def responses(name: str, body: bytes, **facts: Any) -> Case:
    """A stream."""
    return stream("openai", "responses", name, body, **facts)


KINDS = ("refusal", "reasoning_text", "reasoning_summary_text", "function_call_arguments", "audio", "audio.transcript")

RESPONSES = [
    responses(
        "stream",
        typed_events(CREATED, IN_PROGRESS, ITEM, delta(said=""), delta(), delta(), TEXT_DONE, ended(RESPONSE)),
        **{**NAMES, **TOKENS, **TOLD, **ENDED, "output_events": 2},
        events=8,
    ),
    *(
        responses(
            f"{kind} is output",
            typed_events(CREATED, delta(kind), ended(RESPONSE)),
            **NAMES,
            **TOKENS,
            **TOLD,
            **ENDED,
            events=3,
        )
        for kind in KINDS
    ),
    responses(
        "a partial image is output",
        typed_events(
            CREATED, {"type": "response.image_generation_call.partial_image", "partial_image_b64": "QUJD" * 30_000}
        ),
        **NAMES,
        **TOLD,
        events=2,
    ),
    *(
        responses(
            f"without deltas, {size}",
            typed_events(
                CREATED,
                {"type": "response.output_item.done", "item": {"type": "image_generation_call", "result": result}},
                ended({**RESPONSE, "output": [{"type": "image_generation_call", "result": result}]}),
            ),
            **NAMES,
            **TOKENS,
            **TOLD,
            **ENDED,
            events=3,
        )
        for size, result in {"small": "QUJD", "large": LONG}.items()
    ),
    responses(
        "incomplete",
        typed_events(CREATED, delta(), ended(INCOMPLETE)),
        **{**NAMES, **TOKENS, **TOLD, **ENDED, "finish_reasons": ["max_output_tokens"]},
        events=3,
    ),
    responses(
        "failed",
        typed_events(CREATED, delta(), ended(FAILED)),
        **{**NAMES, **TOKENS, **TOLD, **ENDED, "finish_reasons": ["failed"], "usage_final": False},
        events=3,
        error_code="server_error",
    ),
    responses(
        "failed without a reason",
        typed_events(ended({**EMPTY, "status": "failed"})),
        **NAMES,
        events=1,
        finish_reasons=["failed"],
        error_code="failed",
        complete=True,
    ),
    responses(
        "error event",
        typed_events(CREATED, {"type": "error", "code": "rate_limit_exceeded", "message": "m", "param": None}),
        **NAMES,
        events=2,
        error_code="rate_limit_exceeded",
        complete=True,
    ),
    responses(
        "error event without code",
        typed_events(CREATED, {"type": "error", "code": None, "message": "m", "param": None}),
        **NAMES,
        events=2,
        error_code="error",
        complete=True,
    ),
    responses("cut", typed_events(CREATED, delta()), **NAMES, **TOLD, events=2),
    responses(
        "[DONE] behind it",
        typed_events(CREATED, delta(), ended(RESPONSE)) + b"data: [DONE]\n\n",
        **NAMES,
        **TOKENS,
        **TOLD,
        **ENDED,
        events=4,
    ),
    responses(
        "as DashScope frames it",
        b"".join(
            f"id:{at}\nevent:{one['type']}\n:HTTP_STATUS/200\n".encode() + events(one).replace(b"data: ", b"data:")
            for at, one in enumerate((CREATED, delta(), ended(RESPONSE)))
        ),
        **NAMES,
        **TOKENS,
        **TOLD,
        **ENDED,
        events=3,
    ),
    responses(
        "larger than what is decoded at once",
        typed_events(
            {"type": "response.created", "response": {"instructions": LONG, **EMPTY}},
            delta(said=LONG),
            ended({**RESPONSE, "output": [{"content": LONG}], "usage": USAGE}),
        ),
        **NAMES,
        **TOKENS,
        **TOLD,
        **ENDED,
        events=3,
    ),
    responses(
        "odd types",
        typed_events({"type": "response.created", "response": 5}, {"type": "response.completed", "response": None})
        + events({"type": 7}, {"type": "response.incomplete", "response": {"status": [], "incomplete_details": {}}}),
        events=4,
        finish_reasons=["incomplete"],
        complete=True,
    ),
    plain("answer", "responses", RESPONSE, **NAMES, **TOKENS, **TOLD, **ENDED),
    plain(
        "large answer",
        "responses",
        {"instructions": "y" * 70_000, **RESPONSE, "output": [{"content": "x" * 70_000}]},
        **NAMES,
        **TOKENS,
        **TOLD,
        **ENDED,
    ),
    plain(
        "incomplete answer",
        "responses",
        INCOMPLETE,
        **{**NAMES, **TOKENS, **TOLD, **ENDED, "finish_reasons": ["max_output_tokens"]},
    ),
    plain(
        "failed answer",
        "responses",
        FAILED,
        **{**NAMES, **TOKENS, **ENDED, "finish_reasons": ["failed"]},
        error_code="server_error",
    ),
    plain("in the background", "responses", {**EMPTY, "status": "queued"}, **NAMES, complete=True),
]
