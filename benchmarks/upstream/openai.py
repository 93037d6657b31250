"""The OpenAI protocol's texts, at ``/v1`` and at DashScope's ``/compatible-mode/v1``: chat, completions, embeddings.

Shapes as in the vendor's documentation of the compatible mode: a role-only chunk first, ``usage: null`` in every chunk,
and with ``include_usage`` one more chunk with no choices before ``[DONE]``. Pure functions from a request to a Reply.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator
from typing import Any

from benchmarks.upstream.answers import (
    CREATED,
    JSON,
    SSE,
    Asked,
    Event,
    Reply,
    Text,
    question_of,
    text_for,
    tokens_of,
)
from benchmarks.upstream.errors import broken
from benchmarks.upstream.fills import Fill, Parts, framed, parts_of
from benchmarks.upstream.ledger import Usage
from benchmarks.upstream.script import Script

DIMENSIONS = 64  # of an embedding when the request names none


def chat(asked: Asked) -> Reply:
    """``/chat/completions``."""
    question, tokens = question_of(asked.document.get("messages"))
    tokens = tokens or tokens_of(asked.upload.body_bytes)
    return _completion(asked, "chatcmpl-", text_for(question, asked.script), tokens)


def completions(asked: Asked) -> Reply:
    """``/completions``."""
    prompt = asked.document.get("prompt")
    question = prompt if isinstance(prompt, str) else str(prompt or "")
    return _completion(asked, "cmpl-", text_for(question, asked.script), tokens_of(len(question.encode())))


def _completion(asked: Asked, prefix: str, text: Text, tokens: int) -> Reply:
    script = asked.script
    usage = _counted(tokens, tokens_of(text.size) + script.reasoning_tokens, script, script.reasoning_tokens)
    base = {"id": prefix + asked.name[:24], "created": CREATED, "model": asked.model}
    is_chat = prefix == "chatcmpl-"
    if asked.streams:
        asked_for = asked.object("stream_options").get("include_usage") is True
        base["object"] = "chat.completion.chunk" if is_chat else "text_completion"
        events = _chunks(base, text, usage, script, is_chat=is_chat, include_usage=asked_for)
        return Reply(SSE, asked.name, events=events, error_event=broken("openai", script, asked.upload.digest))
    base["object"] = "chat.completion" if is_chat else "text_completion"
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if is_chat:
        choice["message"] = {"role": "assistant", "content": text.value}
    else:
        choice["text"] = text.value
    said = None if script.usage == "absent" else usage
    answer = {**base, "choices": [choice], "system_fingerprint": None, **({"usage": _usage(said)} if said else {})}
    return Reply(JSON, asked.name, parts_of(answer, *text.fills()), usage=said)


def _chunks(
    base: dict[str, Any], text: Text, usage: Usage, script: Script, *, is_chat: bool, include_usage: bool
) -> Iterator[Event]:
    where = script.usage if include_usage or script.usage in ("finish", "every") else "absent"
    base = {**base, "system_fingerprint": None}

    def chunk(piece: str, finish: str | None, said: Usage | None, *fills: Fill, first: bool = False) -> Parts:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
        if is_chat:
            choice["delta"] = {"role": "assistant", "content": ""} if first else {"content": piece}
        else:
            choice["text"] = piece
        return _data(parts_of({**base, "choices": [choice], "usage": _usage(said) if said else None}, *fills))

    if is_chat:
        yield Event(chunk("", None, None, first=True))
    for piece, fills, so_far in text.deltas(script.events):
        part = _counted(usage.input_tokens or 0, tokens_of(so_far), script) if where == "every" else None
        yield Event(chunk(piece, None, part, *fills), output=True, usage=part)
    said = usage if where in ("finish", "every") else None
    yield Event(chunk("", "stop", said), usage=said)
    if where == "late":
        yield Event(_data(parts_of({**base, "choices": [], "usage": _usage(usage)})), usage=usage)
    if script.done:
        yield Event([b"data: [DONE]\n\n"])


def _counted(asked: int, output: int, script: Script, reasoning: int = 0) -> Usage:
    return Usage(asked, output, script.cached_tokens, script.cache_write_tokens or None, reasoning)


def _usage(usage: Usage) -> dict[str, Any]:
    details = {"cached_tokens": usage.cache_read_tokens}
    if usage.cache_creation_tokens is not None:
        details["cache_write_tokens"] = usage.cache_creation_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": (usage.input_tokens or 0) + (usage.output_tokens or 0),
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _data(parts: Parts) -> Parts:
    return framed(b"data: ", parts, b"\n\n")


def embeddings(asked: Asked) -> Reply:
    """``/embeddings``; ``encoding_format`` float, or base64 (of little-endian 32-bit floats) as official SDKs ask."""
    given = asked.document.get("input", "")
    inputs = given if isinstance(given, list) else [given]
    dimensions = asked.number("dimensions", DIMENSIONS)
    packed = asked.document.get("encoding_format") == "base64"
    data = []
    for index, item in enumerate(inputs):
        numbers = vector(str(item), dimensions)
        value = base64.b64encode(struct.pack(f"<{dimensions}f", *numbers)).decode() if packed else numbers
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = sum(tokens_of(len(str(item).encode())) for item in inputs)
    answer: dict[str, Any] = {"object": "list", "data": data, "model": asked.model}
    usage = Usage(documents=len(data) or None)
    if asked.script.usage != "absent":
        answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        usage.input_tokens = tokens
    return Reply(JSON, asked.name, parts_of(answer), usage=usage)


def vector(text: str, dimensions: int) -> list[float]:
    """Numbers from the text's hash that 32-bit floats hold exactly, so that both encodings say the same."""
    values: list[float] = []
    block = text.encode()
    while len(values) < dimensions:
        block = hashlib.sha256(block).digest()
        values.extend((byte - 128) / 128 for byte in block)
    return values[:dimensions]
