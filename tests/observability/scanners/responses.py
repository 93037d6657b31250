"""What the tables of responses are made of: a case is a body as an upstream sends it, and what must have been found."""

import base64
import json
import random
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
SSE = "text/event-stream;charset=UTF-8"
LONG = base64.b64encode(random.Random(2).randbytes(52_500)).decode()
"""70,000 characters, more than is decoded at once. They do not shrink: what shrinks too much is not looked at."""


@dataclass(frozen=True)
class Case:
    """One response."""

    name: str
    protocol: str
    operation: str
    body: bytes
    facts: dict[str, Any] = field(default_factory=dict)
    """Findings that differ from those of a response that says nothing."""
    content_type: str = JSON
    status: int = 200


def events(*documents: object, end: str = "\n\n", done: bool = False) -> bytes:
    """A stream of the OpenAI kind."""
    lines = [f"data: {json.dumps(document, ensure_ascii=False)}{end}" for document in documents]
    return ("".join(lines) + (f"data: [DONE]{end}" if done else "")).encode()


def typed_events(*documents: dict[str, Any]) -> bytes:
    """A stream whose events are named by their type, as of Anthropic."""
    return b"".join(f"event: {document['type']}\n".encode() + events(document) for document in documents)


def answer(protocol: str, operation: str, name: str, body: object, *, status: int = 200, **facts: Any) -> Case:
    """A JSON answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Case(name, protocol, operation, raw, facts, JSON, status)


def stream(protocol: str, operation: str, name: str, body: bytes, *, status: int = 200, **facts: Any) -> Case:
    """A stream."""
    return Case(name, protocol, operation, body, facts, SSE, status)


def plain(name: str, operation: str, document: object, *, status: int = 200, **facts: Any) -> Case:
    """A JSON answer of the OpenAI protocol."""
    return answer("openai", operation, name, document, status=status, **facts)


USAGE = {"prompt_tokens": 13, "completion_tokens": 7, "total_tokens": 20}
NAMES = {"response_id": "c-1", "response_model": "qwen-plus"}
TOKENS = {"input_tokens": 13, "output_tokens": 7, "usage_seen": True}
STOPPED = {"finish_reasons": ["stop"], "complete": True}
STREAMED = {**NAMES, "first_output": True, "output_events": 1}
OPENAI_ERROR = {"error": {"message": "m", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}}
