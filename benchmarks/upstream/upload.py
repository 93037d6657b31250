"""Reads a request body in constant memory: its hash, its length, and what the answer depends on.

Up to `PARSED_BYTES` the body is kept and parsed. A longer one (inline images) is hashed as it passes and only its two
ends are kept: there ``model``, ``stream`` and ``include_usage`` are looked for with regular expressions, since official
SDKs send ``messages`` first and those keys last. A text that contains the same words fools it; a simulator may be.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp.web import BaseRequest

from benchmarks.upstream.ledger import Entry

PARSED_BYTES = 1024 * 1024
END_BYTES = 16 * 1024
READ_BYTES = 64 * 1024

_MODEL = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_INCLUDE_USAGE = re.compile(rb'"include_usage"\s*:\s*true')


class BadBodyError(ValueError):
    """The body is not the JSON object that the operation needs."""


@dataclass(slots=True)
class Upload:
    """What was read. `document` holds the parsed body, or for a long body only the keys found at its ends."""

    body_bytes: int = 0
    digest: bytes = b""  # names the request in ids: does not change when stream_options is added to a parsed body
    document: dict[str, Any] = field(default_factory=dict)


async def read_upload(request: BaseRequest, pace_ms: int, entry: Entry) -> Upload:
    """Reads to the end of the body, keeping the entry's count (and at the end its hash); raises BadBodyError."""
    if pace_ms == 0 and (request.content_length or PARSED_BYTES) < READ_BYTES:
        raw = await request.content.read()  # the usual small body in one go
        entry.body_bytes = len(raw)
        entry.body_sha256 = hashlib.sha256(raw).hexdigest()
        return _parsed(raw)
    sha256 = hashlib.sha256()
    head = bytearray()
    tail = b""
    while piece := await request.content.read(READ_BYTES):
        sha256.update(piece)
        entry.body_bytes += len(piece)
        if len(head) < PARSED_BYTES:
            head += piece
        tail = (tail + piece)[-END_BYTES:]
        if pace_ms:
            await asyncio.sleep(pace_ms / 1000)
    entry.body_sha256 = sha256.hexdigest()
    if entry.body_bytes <= PARSED_BYTES:
        return _parsed(bytes(head))
    ends = bytes(head[:END_BYTES]) + b"\n" + tail
    models = _MODEL.findall(ends)
    document: dict[str, Any] = {
        "model": orjson.loads(b'"' + models[-1] + b'"') if models else "",
        "stream": _STREAM.search(ends) is not None,
        "stream_options": {"include_usage": _INCLUDE_USAGE.search(ends) is not None},
    }
    return Upload(entry.body_bytes, sha256.digest(), document)


def _parsed(raw: bytes) -> Upload:
    if not raw:
        return Upload(0, hashlib.sha256(raw).digest())
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadBodyError(f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(document, dict):
        raise BadBodyError("The JSON body of your request is not an object")
    named = {key: value for key, value in document.items() if key != "stream_options"}
    digest = hashlib.sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).digest()
    return Upload(len(raw), digest, document)
