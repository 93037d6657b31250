"""Every error form of every operation that is read: nothing but the error is found, and the answer is whole."""

import json

from tests.observability.scanners.anthropic_messages import ERROR
from tests.observability.scanners.dashscope_responses import dashscope_events
from tests.observability.scanners.responses import JSON, OPENAI_ERROR, SSE, Case, events, typed_events

OPERATIONS = {
    "openai": (
        *("chat.completions", "completions", "responses", "embeddings"),
        *("images.generations", "images.edits", "images.variations"),
        *("audio.speech", "audio.transcriptions", "audio.translations"),
        *("models", "files", "uploads", "batches", "fine_tuning"),
    ),
    "anthropic": ("messages", "messages.count_tokens"),
    "dashscope": (
        *("text-generation", "multimodal-generation", "image-generation", "speech-synthesizer"),
        *("text2image", "image2image", "out-painting", "virtual-model", "background-generation"),
        *("video-generation", "image2video", "text-embedding", "multimodal-embedding", "text-rerank", "tasks"),
    ),
    "vllm": ("rerank", "score"),
}
OPENAI_LIKE = [*(("openai", operation) for operation in OPERATIONS["openai"]), ("dashscope", "reranks")]
OPENAI_LIKE += [("vllm", operation) for operation in OPERATIONS["vllm"]]

THROTTLED = {"code": "Throttling.RateQuota", "message": "m", "request_id": "r-1"}
OLD_VLLM = {"object": "error", "message": "m", "type": "NotFoundError", "param": None, "code": 404}
REFUSED = {"error_code": "invalid_api_key", "complete": True}
SLOWED = {"error_code": "Throttling.RateQuota", "upstream_request_id": "r-1", "complete": True}
OVERLOADED = {"error_code": "overloaded_error", "upstream_request_id": "req_1", "complete": True}


def _raw(document: object) -> bytes:
    return json.dumps(document).encode()


ERRORS = [
    case
    for protocol, operation in OPENAI_LIKE
    for case in (
        Case("error", protocol, operation, _raw(OPENAI_ERROR), REFUSED, JSON, 401),
        Case("error, large", protocol, operation, _raw({"x": "y" * 70_000, **OPENAI_ERROR}), REFUSED, JSON, 401),
        Case("error with status 200", protocol, operation, _raw(OPENAI_ERROR), REFUSED, JSON),
        Case("error event", protocol, operation, events(OPENAI_ERROR), {**REFUSED, "events": 1}, SSE),
        Case("error as a stream's type", protocol, operation, _raw(OPENAI_ERROR), REFUSED, SSE, 401),
        Case(
            "older vLLM's error",
            protocol,
            operation,
            _raw(OLD_VLLM),
            {"error_code": "NotFoundError", "complete": True},
            JSON,
            404,
        ),
        Case("DashScope's error", protocol, operation, _raw(THROTTLED), SLOWED, JSON, 429),
        Case("an error page", protocol, operation, b"<html>", {"complete": True}, "text/html", 502),
    )
]
ERRORS += [
    case
    for operation in OPERATIONS["anthropic"]
    for case in (
        Case("error", "anthropic", operation, _raw(ERROR), OVERLOADED, JSON, 529),
        Case("error, large", "anthropic", operation, _raw({"x": "y" * 70_000, **ERROR}), OVERLOADED, JSON, 529),
        Case("error with status 200", "anthropic", operation, _raw(ERROR), OVERLOADED, JSON),
        Case("error event", "anthropic", operation, typed_events(ERROR), {**OVERLOADED, "events": 1}, SSE),
        Case("error as a stream's type", "anthropic", operation, _raw(ERROR), OVERLOADED, SSE, 529),
        Case("DashScope's error", "anthropic", operation, _raw(THROTTLED), SLOWED, JSON, 429),
        Case("error of the OpenAI kind", "anthropic", operation, _raw(OPENAI_ERROR), REFUSED, JSON, 401),
    )
]
ERRORS += [
    case
    for operation in OPERATIONS["dashscope"]
    for case in (
        Case("error", "dashscope", operation, _raw(THROTTLED), SLOWED, JSON, 429),
        Case("error, large", "dashscope", operation, _raw({"x": "y" * 70_000, **THROTTLED}), SLOWED, JSON, 429),
        Case("error with status 200", "dashscope", operation, _raw({**THROTTLED, "output": {}}), SLOWED, JSON),
        Case(
            "error event",
            "dashscope",
            operation,
            dashscope_events(THROTTLED, name="error", status=429),
            {**SLOWED, "events": 1},
            SSE,
        ),
        Case(
            "error event with a status",
            "dashscope",
            operation,
            dashscope_events(THROTTLED, name="error", status=429),
            {**SLOWED, "events": 1},
            SSE,
            429,
        ),
        Case("error as a stream's type", "dashscope", operation, b"\r\n " + _raw(THROTTLED), SLOWED, SSE, 429),
        Case("error of the OpenAI kind", "dashscope", operation, _raw(OPENAI_ERROR), REFUSED, JSON, 401),
    )
]
