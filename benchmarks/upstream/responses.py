"""The OpenAI protocol's responses: JSON, and a stream of typed events that ends with ``response.completed``."""

from __future__ import annotations

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
from benchmarks.upstream.errors import document_of
from benchmarks.upstream.fills import Fill, framed, parts_of
from benchmarks.upstream.ledger import Usage


def responses(asked: Asked) -> Reply:
    """``/responses``; ``input`` is a text or a list of messages."""
    given, script = asked.document.get("input"), asked.script
    question, tokens = (given, tokens_of(len(given.encode()))) if isinstance(given, str) else question_of(given)
    text = text_for(question, script)
    output = tokens_of(text.size) + script.reasoning_tokens
    usage = Usage(
        tokens or tokens_of(asked.upload.body_bytes),
        output,
        script.cached_tokens,
        script.cache_write_tokens or None,
        script.reasoning_tokens,
    )
    said = None if script.usage == "absent" else usage
    if asked.streams:
        error = document_of("openai", 500, script.error_code, "The model failed", asked.upload.digest)["error"]
        body = {"type": "error", "code": error["code"], "message": error["message"], "param": None}
        failed = Event(_framed(body | {"sequence_number": 999}))
        return Reply(SSE, asked.name, events=_events(asked, text, said), error_event=failed)
    document = _response(asked, "completed", [_message(asked, text.value, "completed")], said)
    return Reply(JSON, asked.name, parts_of(document, *text.fills()), usage=said)


def _response(asked: Asked, status: str, output: list[Any], usage: Usage | None) -> dict[str, Any]:
    """The whole of a response so far."""
    return {
        "id": "resp_" + asked.name[:24],
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": asked.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "temperature": 1.0,
        "top_p": 1.0,
        "metadata": {},
        "usage": None if usage is None else _usage(usage),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    details = {"cached_tokens": usage.cache_read_tokens}
    if usage.cache_creation_tokens is not None:
        details["cache_write_tokens"] = usage.cache_creation_tokens
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": details,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": (usage.input_tokens or 0) + (usage.output_tokens or 0),
    }


def _message(asked: Asked, text: str | None, status: str) -> dict[str, Any]:
    """The one item of output; None: without content yet."""
    content = [] if text is None else [_part(text)]
    identity = "msg_" + asked.name[:24]
    return {"id": identity, "type": "message", "status": status, "role": "assistant", "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _framed(body: dict[str, Any], *fills: Fill) -> list[bytes | Fill]:
    return framed(b"event: %s\ndata: " % body["type"].encode(), parts_of(body, *fills), b"\n\n")


def _events(asked: Asked, text: Text, usage: Usage | None) -> Iterator[Event]:
    number = -1

    def event(kind: str, *fills: Fill, said: Usage | None = None, **fields: Any) -> Event:
        nonlocal number
        number += 1
        body = {"type": f"response.{kind}", "sequence_number": number, **fields}
        return Event(_framed(body, *fills), output=kind.endswith(".delta"), usage=said)

    item: dict[str, Any] = {"item_id": "msg_" + asked.name[:24], "output_index": 0, "content_index": 0}
    begun = _response(asked, "in_progress", [], None)
    yield event("created", response=begun)
    yield event("in_progress", response=begun)
    yield event("output_item.added", output_index=0, item=_message(asked, None, "in_progress"))
    yield event("content_part.added", **item, part=_part(""))
    for piece, fills, _ in text.deltas(asked.script.events):
        yield event("output_text.delta", *fills, **item, delta=piece, logprobs=[])
    fills = text.fills()
    yield event("output_text.done", *fills, **item, text=text.value, logprobs=[])
    yield event("content_part.done", *fills, **item, part=_part(text.value))
    whole = _message(asked, text.value, "completed")
    yield event("output_item.done", *fills, output_index=0, item=whole)
    yield event("completed", *fills, said=usage, response=_response(asked, "completed", [whole], usage))
