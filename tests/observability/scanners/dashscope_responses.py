"""Streams and JSON answers of the DashScope protocol."""

import json
from typing import Any

from tests.observability.scanners.responses import JSON, OPENAI_ERROR, SSE, STOPPED, Case


def dashscope_events(*documents: object, name: str = "result", status: int = 200) -> bytes:
    """A stream of the DashScope kind, without spaces."""
    return "".join(
        f"id:{number}\nevent:{name}\n:HTTP_STATUS/{status}\ndata:{json.dumps(document, ensure_ascii=False)}\n\n"
        for number, document in enumerate(documents, 1)
    ).encode()


def native(
    name: str, body: object, *, operation: str = "text-generation", status: int = 200, sse: bool = False, **facts: Any
) -> Case:
    """An answer of the DashScope protocol."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Case(name, "dashscope", operation, raw, facts, SSE if sse else JSON, status)


def packet(content: object, reason: str = "null", tokens: int = 1, index: int | None = None) -> dict[str, Any]:
    """One event of a DashScope stream."""
    choice: dict[str, Any] = {"message": {"content": content, "role": "assistant"}, "finish_reason": reason}
    if index is not None:
        choice["index"] = index
    usage = {
        "input_tokens": 18,
        "output_tokens": tokens,
        "total_tokens": 18 + tokens,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    return {"output": {"choices": [choice]}, "usage": usage, "request_id": "r-9"}


def text(words: str, reason: str) -> dict[str, Any]:
    """One event in `result_format: text`."""
    return {
        "output": {"text": words, "finish_reason": reason},
        "usage": {"input_tokens": 18, "output_tokens": 2},
        "request_id": "r-9",
    }


NATIVE = {"upstream_request_id": "r-9", "input_tokens": 18, "usage_seen": True}
CACHED = {**NATIVE, "cache_read_tokens": 2}
FINAL = {**STOPPED, "usage_final": True}
DASHSCOPE_ERROR = {"code": "InvalidParameter", "message": "m", "request_id": "r-9"}
VISION = {
    "input_tokens": 18,
    "output_tokens": 4,
    "image_tokens": 7,
    "video_tokens": 3,
    "input_tokens_details": {"text_tokens": 11, "image_tokens": 7},
    "output_tokens_details": {"text_tokens": 4, "reasoning_tokens": 1, "audio_tokens": 2},
    "input_tokens_extra": None,
}

DASHSCOPE = [
    native(
        "stream",
        dashscope_events(packet(""), packet("a"), packet("b", tokens=2), packet("", "stop", 3)),
        sse=True,
        **CACHED,
        **FINAL,
        output_tokens=3,
        events=4,
        output_events=2,
        first_output=True,
    ),
    native(
        "stream, cut",
        dashscope_events(packet("a"), packet("ab", tokens=2)),
        sse=True,
        **CACHED,
        output_tokens=2,
        events=2,
        output_events=2,
        first_output=True,
    ),
    native(
        "stream of text",
        dashscope_events(text("a", "null"), text("ab", "stop")),
        sse=True,
        **NATIVE,
        **FINAL,
        output_tokens=2,
        events=2,
        output_events=2,
        first_output=True,
    ),
    native(
        "stream of two choices",
        dashscope_events(
            packet("a", index=0), packet("b", tokens=2, index=1), packet("", "stop", 5, 0), packet("", "length", 7, 1)
        ),
        sse=True,
        **CACHED,
        output_tokens=12,
        events=4,
        output_events=2,
        first_output=True,
        finish_reasons=["stop", "length"],
        complete=True,
        usage_final=True,
    ),
    native(
        "stream of parts",
        dashscope_events(packet([]), packet([{"text": ""}]), packet([{"text": "a"}], "stop")),
        sse=True,
        operation="multimodal-generation",
        **CACHED,
        **FINAL,
        output_tokens=1,
        events=3,
        output_events=1,
        first_output=True,
    ),
    native(
        "stream of reasoning",
        dashscope_events(
            {"output": {"choices": [{"message": {"content": "", "reasoning_content": "hm"}, "finish_reason": "null"}]}}
        ),
        sse=True,
        events=1,
        output_events=1,
        first_output=True,
    ),
    native(
        "stream of speech",
        dashscope_events(
            {"output": {"audio": {"data": "QUJD", "url": ""}, "finish_reason": "null"}},
            {
                "output": {"audio": {"data": "", "url": "u"}, "finish_reason": "stop"},
                "usage": {"input_tokens": 18, "output_tokens": 2, "characters": 11},
                "request_id": "r-9",
            },
        ),
        sse=True,
        operation="multimodal-generation",
        **NATIVE,
        **FINAL,
        output_tokens=2,
        characters=11,
        events=2,
        output_events=2,
        first_output=True,
    ),
    native(
        "error in a stream",
        dashscope_events(packet("a")) + dashscope_events(DASHSCOPE_ERROR, name="error", status=400),
        sse=True,
        **CACHED,
        output_tokens=1,
        events=2,
        output_events=1,
        first_output=True,
        error_code="InvalidParameter",
        complete=True,
    ),
    native(
        "error stream with status",
        dashscope_events({"code": "Throttling.RateQuota", "message": "m"}, name="error", status=429),
        sse=True,
        status=429,
        events=1,
        error_code="Throttling.RateQuota",
        complete=True,
    ),
    native(
        "error stream without code",
        dashscope_events({}, name="error"),
        sse=True,
        events=1,
        error_code="error",
        complete=True,
    ),
    native("answer", packet("hi", "stop", 5), **CACHED, **FINAL, output_tokens=5, output_events=1, first_output=True),
    native(
        "answer with empty code",
        {**packet("hi", "stop", 5), "code": "", "message": ""},
        **CACHED,
        **FINAL,
        output_tokens=5,
        output_events=1,
        first_output=True,
    ),
    native(
        "answer of text", text("hi", "stop"), **NATIVE, **FINAL, output_tokens=2, output_events=1, first_output=True
    ),
    native(
        "vision",
        {**packet([{"text": "hi"}], "stop"), "usage": VISION},
        operation="multimodal-generation",
        **NATIVE,
        **FINAL,
        output_tokens=4,
        image_tokens=7,
        video_tokens=3,
        audio_tokens=2,
        reasoning_tokens=1,
        output_events=1,
        first_output=True,
    ),
    native(
        "image",
        {
            "output": {"choices": [{"finish_reason": "stop", "message": {"content": [{"image": "u"}]}}]},
            "usage": {"image_count": 1, "width": 1328, "height": 1024},
            "request_id": "r-9",
        },
        operation="multimodal-generation",
        **FINAL,
        upstream_request_id="r-9",
        usage_seen=True,
        images=1,
        image_width=1328,
        image_height=1024,
        output_events=1,
        first_output=True,
    ),
    native(
        "image not counted by its usage",
        {
            "output": {
                "choices": [{"finish_reason": "stop", "message": {"content": [{"image": "u"}, {"image": "v"}]}}]
            },
            "usage": {"size": "1328*1024"},
        },
        operation="multimodal-generation",
        **FINAL,
        usage_seen=True,
        images=2,
        image_width=1328,
        image_height=1024,
        output_events=1,
        first_output=True,
    ),
    native(
        "transcription",
        {
            "output": {"choices": [{"finish_reason": "stop", "message": {"content": [{"text": "hi"}]}}]},
            "usage": {"seconds": 2.5, "input_tokens": 18},
            "request_id": "r-9",
        },
        operation="multimodal-generation",
        **NATIVE,
        **FINAL,
        seconds=2.5,
        output_events=1,
        first_output=True,
    ),
    native(
        "large answer",
        {"padding": "y" * 70_000, **packet("x" * 30_000, "stop", 5)},
        **CACHED,
        **FINAL,
        output_tokens=5,
        output_events=1,
        first_output=True,
    ),
    native(
        "large speech",
        {"output": {"audio": {"data": "QUJD" * 30_000}, "finish_reason": "stop"}, "usage": {"characters": 3}},
        operation="multimodal-generation",
        **FINAL,
        usage_seen=True,
        characters=3,
        output_events=1,
        first_output=True,
    ),
    native(
        "error with status 200",
        DASHSCOPE_ERROR,
        error_code="InvalidParameter",
        upstream_request_id="r-9",
        complete=True,
    ),
    native(
        "error", DASHSCOPE_ERROR, status=400, error_code="InvalidParameter", upstream_request_id="r-9", complete=True
    ),
    native("error of the OpenAI kind", OPENAI_ERROR, status=401, error_code="invalid_api_key", complete=True),
    native(
        "odd types",
        {
            "output": {"choices": [None, {"message": "x", "finish_reason": 3}], "text": None, "audio": []},
            "usage": {"input_tokens": "1", "seconds": "x", "width": 2},
            "request_id": 7,
            "code": 0,
        },
        complete=True,
        usage_seen=True,
        usage_final=True,
    ),
    *(
        native(f"code {code}", {"code": code, "message": "m", "output": None}, error_code=error, complete=True)
        for code, error in ((400, "400"), (200, None))
    ),
    native(
        "stream that says when it is finished",
        dashscope_events(
            {"output": {"choices": [{"message": {"content": [{"image": "u"}]}}], "finished": False}},
            {"output": {"choices": [], "finished": True}, "usage": {"image_count": 1}},
        ),
        operation="multimodal-generation",
        sse=True,
        usage_seen=True,
        usage_final=True,
        images=1,
        first_output=True,
        output_events=1,
        complete=True,
        events=2,
    ),
    native("output of another kind", {"output": "x", "usage": None}, complete=True),
]
