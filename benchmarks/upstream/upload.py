"""Reads a request body in constant memory: its hash, its length, its files, and what the answer depends on.

Up to `PARSED_BYTES` a JSON body is kept and parsed. A longer one (inline images) is hashed as it passes and only its
two ends are kept: there ``model``, ``stream``, ``include_usage``, ``n`` and ``size`` are looked for with regular
expressions, since official SDKs send ``messages`` first and those keys last. A text that contains the same words fools
it; a simulator may be. Forms pass whatever their length, and so do the data URLs in JSON: see `parts`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp.web import BaseRequest

from benchmarks.upstream.ledger import Entry, File
from benchmarks.upstream.parts import DataUrls, Form

PARSED_BYTES = 1024 * 1024
END_BYTES = 16 * 1024
READ_BYTES = 64 * 1024
FORM = "multipart/form-data"

_MODEL = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_INCLUDE_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_COUNT = re.compile(rb'"n"\s*:\s*(\d{1,4})')
_SIZE = re.compile(rb'"size"\s*:\s*"(\d{1,5}[*x]\d{1,5})"')


class BadBodyError(ValueError):
    """The body is not the JSON object that the operation needs."""


@dataclass(slots=True)
class Upload:
    """What was read. `document`: the parsed body, the fields of a form, or what the ends of a long body say."""

    body_bytes: int = 0
    digest: bytes = b""  # names the request in ids: does not change when stream_options is added to a parsed body
    document: dict[str, Any] = field(default_factory=dict)
    files: Sequence[File] = ()  # as the ledger has them
    heads: Sequence[bytes] = ()  # the first bytes of each file of a form

    @property
    def file_bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)


async def read_upload(request: BaseRequest, pace_ms: int, entry: Entry) -> Upload:
    """Reads to the end of the body, keeping the entry's count (and at the end its hash).

    Raises BadBodyError and parts.BadFormError.
    """
    if request.headers.get("Content-Type", "")[: len(FORM)].lower() == FORM:
        return await _read_form(request, pace_ms, entry)
    if pace_ms == 0 and (request.content_length or PARSED_BYTES) < READ_BYTES:
        raw = await request.content.read()  # the usual small body in one go
        entry.body_bytes = len(raw)
        entry.body_sha256 = hashlib.sha256(raw).hexdigest()
        return _parsed(raw, entry)
    sha256 = hashlib.sha256()
    head = bytearray()
    tail = b""
    urls = DataUrls()
    while piece := await request.content.read(READ_BYTES):
        sha256.update(piece)
        entry.body_bytes += len(piece)
        if len(head) < PARSED_BYTES:
            head += piece
        tail = (tail + piece)[-END_BYTES:]
        urls.feed(piece)
        if pace_ms:
            await asyncio.sleep(pace_ms / 1000)
    entry.body_sha256 = sha256.hexdigest()
    if entry.body_bytes <= PARSED_BYTES:
        return _parsed(bytes(head), entry)
    entry.files = urls.files
    ends = bytes(head[:END_BYTES]) + b"\n" + tail
    return Upload(entry.body_bytes, sha256.digest(), _guessed(ends), urls.files)


async def _read_form(request: BaseRequest, pace_ms: int, entry: Entry) -> Upload:
    sha256 = hashlib.sha256()
    form = Form(request.headers.get("Content-Type", ""))
    while piece := await request.content.read(READ_BYTES):
        sha256.update(piece)
        entry.body_bytes += len(piece)
        form.feed(piece)
        if pace_ms:
            await asyncio.sleep(pace_ms / 1000)
    form.end()
    entry.body_sha256 = sha256.hexdigest()
    entry.files = form.files
    named = [form.fields, [(file.name, file.filename, file.sha256) for file in form.files]]  # without the boundary
    digest = hashlib.sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).digest()
    return Upload(entry.body_bytes, digest, dict(form.fields), form.files, form.heads)


def _guessed(ends: bytes) -> dict[str, Any]:
    """What the ends of a long body say."""
    models, counts, sizes = (pattern.findall(ends) for pattern in (_MODEL, _COUNT, _SIZE))
    many: dict[str, Any] = {"n": int(counts[-1]) if counts else None, "size": sizes[-1].decode() if sizes else None}
    return {
        "model": orjson.loads(b'"' + models[-1] + b'"') if models else "",
        "stream": _STREAM.search(ends) is not None,
        "stream_options": {"include_usage": _INCLUDE_USAGE.search(ends) is not None},
        "parameters": many,
        **many,
    }


def _parsed(raw: bytes, entry: Entry) -> Upload:
    if not raw:
        return Upload(0, hashlib.sha256(raw).digest())
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadBodyError(f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(document, dict):
        raise BadBodyError("The JSON body of your request is not an object")
    urls = DataUrls()
    if b";base64," in raw:
        urls.feed(raw)
        entry.files = urls.files
    named = {key: value for key, value in document.items() if key != "stream_options"}
    digest = hashlib.sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).digest()
    return Upload(len(raw), digest, document, urls.files)
