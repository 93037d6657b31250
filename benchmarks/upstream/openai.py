"""The OpenAI protocol, at ``/v1`` and at DashScope's ``/compatible-mode/v1``: pure functions from a request to a Reply.

Shapes as in the vendor's documentation of the compatible mode: a role-only chunk first, ``usage: null`` in every chunk,
and with ``include_usage`` one more chunk with no choices before ``[DONE]``.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator
from typing import Any

from benchmarks.upstream.answers import (
    CREATED,
    MARK,
    Event,
    Fill,
    Parts,
    Reply,
    Text,
    Usage,
    framed,
    identity,
    parts_of,
    question_of,
    text_for,
    tokens_of,
)
from benchmarks.upstream.script import Script
from benchmarks.upstream.upload import Upload

JSON = "application/json"
SSE = "text/event-stream"
MODELS = ("qwen-plus", "qwen-max", "qwen3-vl-plus", "qwen-image", "text-embedding-v4")
IMAGE_BYTES = 3072  # of a b64_json image when the script names no size
DIMENSIONS = 64  # of an embedding when the request names none

# status → (type, code)
ERRORS = {
    400: ("invalid_request_error", "invalid_parameter_error"),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "access_denied"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("rate_limit_exceeded", "limit_requests"),
    500: ("server_error", "internal_error"),
}


def error(status: int, code: str, message: str, digest: bytes) -> Reply:
    """An error answer; `code` empty: the usual one for the status."""
    kind, usual = ERRORS.get(status, ("server_error", f"http_{status}"))
    fields = {"message": message, "type": kind, "param": None, "code": code or usual}
    return Reply(JSON, identity(digest), parts_of({"error": fields, "request_id": identity(digest)}), status=status)


def chat(upload: Upload, script: Script) -> Reply:
    """``/chat/completions``."""
    question, asked = question_of(upload.document.get("messages"))
    return _completion(upload, script, "chatcmpl-", text_for(question, script), asked or tokens_of(upload.body_bytes))


def completions(upload: Upload, script: Script) -> Reply:
    """``/completions``."""
    prompt = upload.document.get("prompt")
    question = prompt if isinstance(prompt, str) else str(prompt or "")
    return _completion(upload, script, "cmpl-", text_for(question, script), tokens_of(len(question.encode())))


def _completion(upload: Upload, script: Script, prefix: str, text: Text, asked: int) -> Reply:
    document = upload.document
    usage = Usage(asked, tokens_of(text.size) + script.reasoning_tokens, script.cached_tokens, script.reasoning_tokens)
    base = {"id": prefix + identity(upload.digest)[:24], "created": CREATED, "model": str(document.get("model", ""))}
    is_chat = prefix == "chatcmpl-"
    if document.get("stream") is True:
        options = document.get("stream_options")
        asked_for = isinstance(options, dict) and options.get("include_usage") is True
        base["object"] = "chat.completion.chunk" if is_chat else "text_completion"
        events = _chunks(base, text, usage, script, is_chat=is_chat, include_usage=asked_for)
        failed = {"error": {"message": "The model failed", "type": "server_error", "param": None,
                            "code": script.error_code or "internal_error"}}  # fmt: skip
        return Reply(SSE, identity(upload.digest), events=events, error_event=Event(_data(parts_of(failed))))
    base["object"] = "chat.completion" if is_chat else "text_completion"
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if is_chat:
        choice["message"] = {"role": "assistant", "content": text.value}
    else:
        choice["text"] = text.value
    said = None if script.usage == "absent" else usage
    answer = {**base, "choices": [choice], "system_fingerprint": None, **({"usage": _usage(said)} if said else {})}
    return Reply(JSON, identity(upload.digest), parts_of(answer, *text.fills()), usage=said)


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
        part = Usage(usage.input, tokens_of(so_far), usage.cached) if where == "every" else None
        yield Event(chunk(piece, None, part, *fills), output=True, usage=part)
    said = usage if where in ("finish", "every") else None
    yield Event(chunk("", "stop", said), usage=said)
    if where == "late":
        yield Event(_data(parts_of({**base, "choices": [], "usage": _usage(usage)})), usage=usage)
    if script.done:
        yield Event([b"data: [DONE]\n\n"])


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _data(parts: Parts) -> Parts:
    return framed(b"data: ", parts, b"\n\n")


def embeddings(upload: Upload, script: Script) -> Reply:
    """``/embeddings``; ``encoding_format`` float, or base64 (of little-endian 32-bit floats) as official SDKs ask."""
    asked = upload.document.get("input", "")
    inputs = asked if isinstance(asked, list) else [asked]
    dimensions = int(upload.document.get("dimensions") or DIMENSIONS)
    packed = upload.document.get("encoding_format") == "base64"
    data = []
    for index, item in enumerate(inputs):
        vector = _vector(str(item), dimensions)
        value = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode() if packed else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = sum(tokens_of(len(str(item).encode())) for item in inputs)
    usage = None if script.usage == "absent" else Usage(tokens, 0)
    said = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if usage else {}
    answer = {"object": "list", "data": data, "model": str(upload.document.get("model", "")), **said}
    return Reply(JSON, identity(upload.digest), parts_of(answer), usage=usage)


def _vector(text: str, dimensions: int) -> list[float]:
    """Numbers from the text's hash that 32-bit floats hold exactly, so that both encodings say the same."""
    values: list[float] = []
    block = text.encode()
    while len(values) < dimensions:
        block = hashlib.sha256(block).digest()
        values.extend((byte - 128) / 128 for byte in block)
    return values[:dimensions]


def images(upload: Upload, script: Script) -> Reply:
    """``/images/generations``: a URL or inline base64 of any size, whole or as events of a stream."""
    document = upload.document
    model = str(document.get("model", ""))
    newer = model.startswith("gpt-image")  # answers inline only, and counts tokens
    inline = newer or document.get("response_format") == "b64_json"
    count = int(document.get("n") or 1)
    size = (script.answer_bytes if script.answer_bytes >= 0 else IMAGE_BYTES) // 4 * 4  # whole base64 groups
    fill = Fill("image", 0, size)
    asked = tokens_of(len(str(document.get("prompt", "")).encode()))
    usage = Usage(asked, TOKENS_PER_GENERATED * count) if newer and script.usage != "absent" else None
    if document.get("stream") is True:
        partial = int(document.get("partial_images") or 0)
        return Reply(SSE, identity(upload.digest), events=_image_events(fill, partial, usage))
    name = identity(upload.digest)
    if inline:
        data = [{"b64_json": MARK} for _ in range(count)]
    else:
        data = [{"url": f"https://dashscope-result.example.com/{name}-{n}.png"} for n in range(count)]
    said = {"usage": _image_usage(usage)} if usage else {}
    fills = [fill] * count if inline else []
    return Reply(JSON, name, parts_of({"created": CREATED, "data": data, **said}, *fills), usage=usage)


TOKENS_PER_GENERATED = 1056


def _image_usage(usage: Usage) -> dict[str, Any]:
    details = {"text_tokens": usage.input, "image_tokens": 0}
    total = usage.input + usage.output
    return {"input_tokens": usage.input, "output_tokens": usage.output, "total_tokens": total,
            "input_tokens_details": details}  # fmt: skip


def _image_events(fill: Fill, partial: int, usage: Usage | None) -> Iterator[Event]:
    for index in range(partial):
        body = {"type": "image_generation.partial_image", "partial_image_index": index, "b64_json": MARK}
        before = b"event: image_generation.partial_image\ndata: "
        yield Event(framed(before, parts_of(body, fill), b"\n\n"), output=True)
    said = {"usage": _image_usage(usage)} if usage else {}
    done = {"type": "image_generation.completed", "created_at": CREATED, "b64_json": MARK, **said}
    before = b"event: image_generation.completed\ndata: "
    yield Event(framed(before, parts_of(done, fill), b"\n\n"), output=True, usage=usage)


def models() -> Reply:
    """``GET /models``."""
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "system"} for name in MODELS]
    digest = hashlib.sha256(b"models").digest()
    return Reply(JSON, identity(digest), parts_of({"object": "list", "data": data}))
