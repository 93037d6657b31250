"""The Anthropic protocol, at ``/v1`` and at DashScope's ``/apps/anthropic/v1``: messages and messages/count_tokens.

Tokens of the cache stand beside the input, not in it. A stream says its usage twice: what is known at the start in
``message_start``, and the totals in ``message_delta``. With ``reasoning-tokens`` a block of thinking comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.upstream.answers import JSON, SSE, Asked, Event, Reply, Text, question_of, text_for, tokens_of
from benchmarks.upstream.errors import broken
from benchmarks.upstream.fills import Fill, framed, parts_of
from benchmarks.upstream.ledger import Usage

THOUGHT = "The user asks. "
SIGNATURE = "c2lnbmVk"


def messages(asked: Asked) -> Reply:
    """``/messages``."""
    question, script = question_of(asked.document.get("messages"))[0], asked.script
    text = text_for(question, script)
    usage = Usage(
        _input_tokens(asked) + script.cached_tokens + script.cache_write_tokens,
        tokens_of(text.size) + script.reasoning_tokens,
        script.cached_tokens,
        script.cache_write_tokens,
        script.reasoning_tokens or None,
    )
    name = "req_" + asked.name[:24]
    if asked.streams:
        failed = broken("anthropic", script, asked.upload.digest)
        return Reply(SSE, name, events=_events(asked, text, usage), error_event=failed, id_header="request-id")
    content = [*([_thinking(THOUGHT)] if usage.reasoning_tokens else []), {"type": "text", "text": text.value}]
    said = None if script.usage == "absent" else usage
    document = _message(asked, content, "end_turn", said)
    return Reply(JSON, name, parts_of(document, *text.fills()), usage=said, id_header="request-id")


def count_tokens(asked: Asked) -> Reply:
    """``/messages/count_tokens``: the number is the answer, and no usage."""
    body = {"input_tokens": _input_tokens(asked)}
    return Reply(JSON, "req_" + asked.name[:24], parts_of(body), id_header="request-id")


def _input_tokens(asked: Asked) -> int:
    """Of the messages and the system prompt, none of them from the cache."""
    system = asked.document.get("system")
    tokens = question_of(asked.document.get("messages"))[1]
    tokens += tokens_of(len(system.encode())) if isinstance(system, str) else question_of([{"content": system}])[1]
    return tokens or tokens_of(asked.upload.body_bytes)


def _message(asked: Asked, content: list[Any], reason: str | None, usage: Usage | None) -> dict[str, Any]:
    return {
        "id": "msg_" + asked.name[:24],
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        **({} if usage is None else {"usage": _usage(usage)}),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    read, created = usage.cache_read_tokens or 0, usage.cache_creation_tokens or 0
    said: dict[str, Any] = {
        "input_tokens": (usage.input_tokens or 0) - read - created,
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        said["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return said


def _thinking(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": SIGNATURE if text else ""}


def _event(kind: str, fields: dict[str, Any], *fills: Fill, said: Usage | None = None, output: bool = False) -> Event:
    parts = parts_of({"type": kind, **fields}, *fills)
    return Event(framed(f"event: {kind}\ndata: ".encode(), parts, b"\n\n"), output, said)


def _events(asked: Asked, text: Text, usage: Usage) -> Iterator[Event]:
    absent = asked.script.usage == "absent"
    start = Usage(usage.input_tokens, 1, usage.cache_read_tokens, usage.cache_creation_tokens)
    said = None if absent else start
    yield _event("message_start", {"message": _message(asked, [], None, said)}, said=said)
    index = 0
    if usage.reasoning_tokens:
        yield _event("content_block_start", {"index": 0, "content_block": _thinking("")})
        delta = {"type": "thinking_delta", "thinking": THOUGHT}
        yield _event("content_block_delta", {"index": 0, "delta": delta}, output=True)
        yield _event("content_block_delta", {"index": 0, "delta": {"type": "signature_delta", "signature": SIGNATURE}})
        yield _event("content_block_stop", {"index": 0})
        index = 1
    yield _event("content_block_start", {"index": index, "content_block": {"type": "text", "text": ""}})
    yield _event("ping", {})
    for piece, fills, _ in text.deltas(asked.script.events):
        delta = {"type": "text_delta", "text": piece}
        yield _event("content_block_delta", {"index": index, "delta": delta}, *fills, output=True)
    yield _event("content_block_stop", {"index": index})
    end: dict[str, Any] = {"delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    said = None if absent else usage
    yield _event("message_delta", end if said is None else {**end, "usage": _usage(said)}, said=said)
    yield _event("message_stop", {})
