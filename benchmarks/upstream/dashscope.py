"""DashScope's own protocol, text-generation and multimodal-generation: pure functions from a request to a Reply.

Its SSE differs from everyone's: ``id:``, ``event:result``, a comment ``:HTTP_STATUS/200``, ``data:`` without a space,
no ``[DONE]``; the last event is the one whose finish_reason is not the string "null". Every event says the usage so
far.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.upstream.answers import (
    MARK,
    Event,
    Fill,
    Parts,
    Reply,
    Text,
    Usage,
    framed,
    parts_of,
    question_of,
    request_id,
    text_for,
    tokens_of,
)
from benchmarks.upstream.script import Script
from benchmarks.upstream.upload import Upload

JSON = "application/json"
SSE = "text/event-stream;charset=UTF-8"
IMAGE_MODELS = ("qwen-image", "z-image", "wan2.")

ERRORS = {
    400: "InvalidParameter",
    401: "InvalidApiKey",
    403: "AccessDenied",
    404: "ModelNotFound",
    429: "Throttling.RateQuota",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


def error(status: int, code: str, message: str, digest: bytes) -> Reply:
    """An error answer; `code` empty: the usual one for the status."""
    fields = {"code": code or ERRORS.get(status, "InternalError"), "message": message}
    name = request_id(digest)
    return Reply(JSON, name, parts_of({**fields, "request_id": name}), status=status)


def text_generation(upload: Upload, script: Script, *, stream: bool) -> Reply:
    """``/services/aigc/text-generation/generation``: result_format text (default) or message."""
    parameters = _parameters(upload)
    return _generation(upload, script, stream=stream, shape=str(parameters.get("result_format") or "text"))


def multimodal_generation(upload: Upload, script: Script, *, stream: bool) -> Reply:
    """``/services/aigc/multimodal-generation/generation``: parts in and out, or an image from an image model."""
    if str(upload.document.get("model", "")).startswith(IMAGE_MODELS):
        return _image(upload, script, stream=stream)
    return _generation(upload, script, stream=stream, shape="parts")


def _parameters(upload: Upload) -> dict[str, Any]:
    parameters = upload.document.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _question(upload: Upload) -> tuple[str, int]:
    asked = upload.document.get("input")
    if not isinstance(asked, dict):
        return "", tokens_of(upload.body_bytes)
    if isinstance(asked.get("prompt"), str):
        return asked["prompt"], tokens_of(len(asked["prompt"].encode()))
    return question_of(asked.get("messages"))


def _generation(upload: Upload, script: Script, *, stream: bool, shape: str) -> Reply:
    question, asked = _question(upload)
    text = text_for(question, script)
    name = request_id(upload.digest)
    output = tokens_of(text.size) + script.reasoning_tokens
    usage = Usage(asked, output, script.cached_tokens, script.reasoning_tokens)
    if not stream:
        said = None if script.usage == "absent" else usage
        body = _body(name, _output(shape, text.value, "stop"), said)
        return Reply(JSON, name, parts_of(body, *text.fills()), usage=said)
    incremental = _parameters(upload).get("incremental_output") is True
    events = _events(name, text, usage, script, shape=shape, incremental=incremental)
    return Reply(SSE, name, events=events, error_event=_failed(name, script))


def _output(shape: str, text: str, finish: str) -> dict[str, Any]:
    if shape == "text":
        return {"text": text, "finish_reason": finish}
    content: Any = text if shape == "message" else ([{"text": text}] if text else [])
    return {"choices": [{"finish_reason": finish, "message": {"role": "assistant", "content": content}}]}


def _body(name: str, output: dict[str, Any], usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {"output": output, "request_id": name}
    said: dict[str, Any] = {
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }
    if usage.reasoning:
        said["output_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return {"output": output, "usage": said, "request_id": name}


def _events(name: str, text: Text, usage: Usage, script: Script, *, shape: str, incremental: bool) -> Iterator[Event]:
    """The first event is empty, as the vendor's often is; without incremental_output each repeats all text so far."""
    number = 1
    spoken = ""

    def event(value: str, finish: str, output_tokens: int, *fills: Fill) -> Event:
        part = Usage(usage.input, output_tokens, usage.cached, usage.reasoning if finish == "stop" else 0)
        said = None if script.usage == "absent" else part
        parts = parts_of(_body(name, _output(shape, value, finish), said), *fills)
        return Event(_event(number, parts), output=value != "", usage=said)

    yield event("", "null", 0)
    for piece, fills, so_far in text.deltas(script.events):
        number += 1
        spoken = piece if incremental or fills else spoken + piece
        shown = (Fill("text", 0, so_far),) if fills and not incremental else fills
        yield event(spoken, "null", tokens_of(so_far), *shown)
    number += 1
    last = "" if incremental else (MARK if text.filled >= 0 else spoken)
    end = event(last, "stop", usage.output, *(text.fills() if last == MARK else ()))
    yield Event(end.parts, usage=end.usage)


def _event(number: int, parts: Parts) -> Parts:
    return framed(f"id:{number}\nevent:result\n:HTTP_STATUS/200\ndata:".encode(), parts, b"\n\n")


def _failed(name: str, script: Script) -> Event:
    body = {"code": script.error_code or "InternalError", "message": "The model failed", "request_id": name}
    return Event(framed(b"id:999\nevent:error\n:HTTP_STATUS/500\ndata:", parts_of(body), b"\n\n"))


def _image(upload: Upload, script: Script, *, stream: bool) -> Reply:
    """An image by URL; with ``answer-bytes`` as a data URL of that size, in JSON or in one line of SSE."""
    name = request_id(upload.digest)
    parameters = _parameters(upload)
    count = int(parameters.get("n") or 1)
    width, _, height = str(parameters.get("size") or "1024*1024").partition("*")
    fills: list[Fill] = []
    if script.answer_bytes >= 0:
        urls = ["data:image/png;base64," + MARK] * count
        fills = [Fill("image", 0, script.answer_bytes // 4 * 4)] * count
    else:
        urls = [f"https://dashscope-result.example.com/{name}-{n}.png" for n in range(count)]
    choices = [{"finish_reason": "stop", "message": {"role": "assistant", "content": [{"image": url}]}} for url in urls]
    output = {"choices": choices, "task_metric": {"TOTAL": count, "SUCCEEDED": count, "FAILED": 0}}
    body: dict[str, Any] = {"output": output, "request_id": name}
    if script.usage != "absent":
        body["usage"] = {"image_count": count, "width": int(width or 1024), "height": int(height or 1024)}
    parts = parts_of(body, *fills)
    if not stream:
        return Reply(JSON, name, parts)
    return Reply(SSE, name, events=[Event(_event(1, parts), output=True)], error_event=_failed(name, script))
