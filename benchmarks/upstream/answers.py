"""What both protocols share: the text that is answered, how tokens are counted, and bodies too large to hold.

A body is a list of parts: bytes, or a `Fill` that makes its bytes when they are sent. JSON with a large value in it is
written by `parts_of`: the document is encoded with a mark in place of the value, then split at the mark.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.upstream.script import Script

CREATED = 1_716_430_652  # the one of the vendor's documentation: answers have no clock in them
PIECE_BYTES = 64 * 1024
LONGEST_ECHO = 16 * 1024  # characters of the question that are repeated
TOKENS_PER_IMAGE = 100
MARK = "\ue000fill\ue000"  # private-use characters: nobody's model or id contains them
_MARK_BYTES = MARK.encode()


@dataclass(frozen=True, slots=True)
class Fill:
    """`size` bytes cut out of an endless pattern at `start`: words, or the base64 of a PNG of 1024 by 1024."""

    kind: str  # text | image
    start: int
    size: int

    def pieces(self) -> Iterator[bytes]:
        """The bytes, at most 64 KiB at a time."""
        block = _WORDS if self.kind == "text" else _NOISE
        at, end = self.start, self.start + self.size
        if self.kind == "image" and at < len(_PNG_HEAD):
            yield _PNG_HEAD[at:end]
            at = min(end, len(_PNG_HEAD))
        while at < end:
            offset = at % PIECE_BYTES
            piece = block[offset : offset + end - at]
            yield piece
            at += len(piece)


def _repeated(words: bytes) -> bytes:
    return (words * (PIECE_BYTES // len(words) + 1))[:PIECE_BYTES]


_WORDS = _repeated(b"the water lifts the gate and the boat goes on through the lock ")
_NOISE = base64.b64encode(b"".join(hashlib.sha256(struct.pack(">I", n)).digest() for n in range(1536)))
# 24 bytes: signature, IHDR, width and height; 32 characters of base64 without padding, so the noise can follow directly
_PNG_HEAD = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", 1024, 1024))
assert len(_NOISE) == PIECE_BYTES

Parts = list[bytes | Fill]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the answer will say them; `reasoning` is part of output, `cached` part of input."""

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One SSE event, encoded. `output`: carries generated output; `usage`: what it says, for the ledger."""

    parts: Parts
    output: bool = False
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A response before pace and faults: JSON (`parts`) or a stream (`events`, made while it is sent)."""

    content_type: str
    request_id: str
    parts: Parts | None = None
    events: Iterable[Event] = ()
    usage: Usage | None = None  # of a JSON answer
    error_event: Event | None = None  # what the protocol sends when a stream fails
    status: int = 200


def parts_of(document: Any, *fills: Fill) -> Parts:
    """The document as JSON, each MARK in it replaced by the next fill."""
    pieces = orjson.dumps(document).split(_MARK_BYTES)
    parts: Parts = [pieces[0]]
    for fill, piece in zip(fills, pieces[1:], strict=True):
        parts += (fill, piece)
    return parts


def length_of(parts: Parts) -> int:
    """Bytes that the parts will make."""
    return sum(part.size if isinstance(part, Fill) else len(part) for part in parts)


def framed(before: bytes, parts: Parts, after: bytes) -> Parts:
    """The parts of an SSE event between its first and its last bytes."""
    return [before, *parts, after]


def tokens_of(text_bytes: int) -> int:
    """Four bytes of UTF-8 are a token, rounded up."""
    return (text_bytes + 3) // 4


def identity(digest: bytes) -> str:
    """32 hexadecimal digits that depend on the request alone."""
    return digest[:16].hex()


def request_id(digest: bytes) -> str:
    """The same as DashScope writes it, with dashes."""
    name = digest[:16].hex()
    return f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}"


def question_of(messages: Any) -> tuple[str, int]:
    """Text of the last user message, and the input tokens of all: their text, and a fixed number for each image."""
    last, tokens = "", 0
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        text = content if isinstance(content, str) else ""
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                text += part["text"]
            else:
                tokens += TOKENS_PER_IMAGE
        tokens += tokens_of(len(text.encode()))
        if isinstance(message, dict) and message.get("role") == "user":
            last = text
    return last, tokens


@dataclass(frozen=True, slots=True)
class Text:
    """The generated text: an echo of the question, or `answer-bytes` of words that are made when they are sent."""

    words: str
    filled: int  # bytes; -1: the words count

    @property
    def value(self) -> str:
        """The text, or MARK where it is filled in later."""
        return self.words if self.filled < 0 else MARK

    def fills(self) -> tuple[Fill, ...]:
        """What replaces MARK in a JSON answer."""
        return () if self.filled < 0 else (Fill("text", 0, self.filled),)

    @property
    def size(self) -> int:
        """Bytes of UTF-8."""
        return len(self.words.encode()) if self.filled < 0 else self.filled

    def deltas(self, events: int) -> Iterator[tuple[str, tuple[Fill, ...], int]]:
        """`events` pieces of nearly equal length (0: a word each, or 64 KiB each): value, fill, bytes so far."""
        if self.filled >= 0:
            count = events or max(1, -(-self.filled // PIECE_BYTES))
            for n in range(count):
                start, end = self.filled * n // count, self.filled * (n + 1) // count
                yield MARK, (Fill("text", start, end - start),), end
            return
        so_far = 0
        for piece in _cut(self.words, events):
            so_far += len(piece.encode())
            yield piece, (), so_far


def text_for(question: str, script: Script) -> Text:
    """What a model answers to this question under this script."""
    if script.answer_bytes >= 0:
        return Text("", script.answer_bytes)
    words = f"You said: {question[:LONGEST_ECHO]}"
    if script.events > len(words):  # every event with output carries at least one character
        words = (words + " ") * (script.events // (len(words) + 1) + 1)
    return Text(words, -1)


def _cut(words: str, events: int) -> Iterator[str]:
    if events:
        for n in range(events):
            yield words[len(words) * n // events : len(words) * (n + 1) // events]
        return
    start = 0
    while start < len(words):
        end = words.find(" ", start + 1)
        end = len(words) if end < 0 else end
        yield words[start:end]
        start = end
