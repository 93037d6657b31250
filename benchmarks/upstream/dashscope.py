"""DashScope's own protocol, text-generation and multimodal-generation: pure functions from a request to a Reply.

Its SSE differs from everyone's: ``id:``, ``event:result``, a comment ``:HTTP_STATUS/200``, ``data:`` without a space,
no ``[DONE]``; the last event is the one whose finish_reason is not the string "null". Every event says the usage so
far.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.upstream import dashscope_media
from benchmarks.upstream.answers import (
    JSON,
    Asked,
    Event,
    Reply,
    Text,
    question_of,
    request_id,
    text_for,
    tokens_of,
)
from benchmarks.upstream.dashscope_media import SSE, event_of
from benchmarks.upstream.errors import broken
from benchmarks.upstream.fills import MARK, Fill, parts_of
from benchmarks.upstream.ledger import Usage
from benchmarks.upstream.script import Script

IMAGE_MODELS = ("qwen-image", "z-image", "wan2.")
SPEECH_MODELS = ("qwen-tts", "qwen3-tts")


def text_generation(asked: Asked) -> Reply:
    """``/services/aigc/text-generation/generation``: result_format text (default) or message."""
    return _generation(asked, str(asked.object("parameters").get("result_format") or "text"))


def multimodal_generation(asked: Asked) -> Reply:
    """``/services/aigc/multimodal-generation/generation``: parts in and out, images or speech, as the model is."""
    if asked.model.startswith(IMAGE_MODELS):
        return dashscope_media.images(asked)
    if asked.model.startswith(SPEECH_MODELS):
        return dashscope_media.spoken(asked)
    return _generation(asked, "parts")


def _question(asked: Asked) -> tuple[str, int]:
    given = asked.document.get("input")
    if not isinstance(given, dict):
        return "", tokens_of(asked.upload.body_bytes)
    if isinstance(given.get("prompt"), str):
        return given["prompt"], tokens_of(len(given["prompt"].encode()))
    return question_of(given.get("messages"))


def _generation(asked: Asked, shape: str) -> Reply:
    question, tokens = _question(asked)
    script = asked.script
    text = text_for(question, script)
    name = request_id(asked.upload.digest)
    usage = _counted(tokens, tokens_of(text.size) + script.reasoning_tokens, script, last=True)
    if not asked.streams_natively:
        said = None if script.usage == "absent" else usage
        body = _body(name, _output(shape, text.value, "stop"), said)
        return Reply(JSON, name, parts_of(body, *text.fills()), usage=said)
    incremental = asked.object("parameters").get("incremental_output") is True
    events = _events(name, text, usage, script, shape=shape, incremental=incremental)
    return Reply(SSE, name, events=events, error_event=broken("dashscope", script, asked.upload.digest))


def _counted(asked: int, output: int, script: Script, *, last: bool) -> Usage:
    reasoning = script.reasoning_tokens or None if last else None
    return Usage(asked, output, script.cached_tokens, script.cache_write_tokens or None, reasoning)


def _output(shape: str, text: str, finish: str) -> dict[str, Any]:
    if shape == "text":
        return {"text": text, "finish_reason": finish}
    content: Any = text if shape == "message" else ([{"text": text}] if text else [])
    return {"choices": [{"finish_reason": finish, "message": {"role": "assistant", "content": content}}]}


def _body(name: str, output: dict[str, Any], usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {"output": output, "request_id": name}
    details = {"cached_tokens": usage.cache_read_tokens}
    if usage.cache_creation_tokens is not None:
        details["cache_creation_input_tokens"] = usage.cache_creation_tokens
    said: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": (usage.input_tokens or 0) + (usage.output_tokens or 0),
        "prompt_tokens_details": details,
    }
    if usage.reasoning_tokens:
        said["output_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return {"output": output, "usage": said, "request_id": name}


def _events(name: str, text: Text, usage: Usage, script: Script, *, shape: str, incremental: bool) -> Iterator[Event]:
    """The first event is empty, as the vendor's often is; without incremental_output each repeats all text so far."""
    number = 1
    spoken = ""

    def event(value: str, finish: str, output_tokens: int, *fills: Fill) -> Event:
        part = _counted(usage.input_tokens or 0, output_tokens, script, last=finish == "stop")
        said = None if script.usage == "absent" else part
        parts = parts_of(_body(name, _output(shape, value, finish), said), *fills)
        return Event(event_of(number, parts), output=value != "", usage=said)

    yield event("", "null", 0)
    for piece, fills, so_far in text.deltas(script.events):
        number += 1
        spoken = piece if incremental or fills else spoken + piece
        shown = (Fill("text", 0, so_far),) if fills and not incremental else fills
        yield event(spoken, "null", tokens_of(so_far), *shown)
    number += 1
    last = "" if incremental else (MARK if text.filled >= 0 else spoken)
    end = event(last, "stop", usage.output_tokens or 0, *(text.fills() if last == MARK else ()))
    yield Event(end.parts, usage=end.usage)
