"""Bodies too large to hold: a body is a list of parts, bytes or a `Fill` that makes its bytes when they are sent.

JSON with a large value in it is written by `parts_of`: the document is encoded with a mark in place of the value, then
split at the mark.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

PIECE_BYTES = 64 * 1024
MARK = "\ue000fill\ue000"  # private-use characters: nobody's model or id contains them
_MARK_BYTES = MARK.encode()


def _repeated(words: bytes) -> bytes:
    return (words * (PIECE_BYTES // len(words) + 1))[:PIECE_BYTES]


_NOISE = b"".join(hashlib.sha256(struct.pack(">I", n)).digest() for n in range(1536))  # 64 KiB as base64
# signature, IHDR, width and height: 24 bytes, and like the next a multiple of three, so that noise can follow directly
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", 1024, 1024)
_WAV_HEAD = b"RIFF\xff\xff\xff\xffWAVE"
_MP4_HEAD = b"\0\0\0\x18ftypisom\0\0\x02\0isommp42"
# kind → the first bytes and the pattern that follows them
_PATTERNS = {
    "text": (b"", _repeated(b"the water lifts the gate and the boat goes on through the lock ")),
    "png": (_PNG_HEAD, _NOISE),
    "wav": (_WAV_HEAD, _NOISE),
    "mp4": (_MP4_HEAD, _NOISE),
    "image": (base64.b64encode(_PNG_HEAD), base64.b64encode(_NOISE)),  # the base64 of the same PNG
    "sound": (base64.b64encode(_WAV_HEAD), base64.b64encode(_NOISE)),
}
assert len(_PATTERNS["image"][1]) == PIECE_BYTES


@dataclass(frozen=True, slots=True)
class Fill:
    """`size` bytes cut out of an endless pattern at `start`: words, a PNG of 1024 by 1024, sound or a film."""

    kind: str  # text | png | wav | mp4 | image (a PNG as base64) | sound (a WAV as base64)
    start: int
    size: int

    def pieces(self) -> Iterator[bytes]:
        """The bytes, at most 64 KiB at a time."""
        head, block = _PATTERNS[self.kind]
        at, end = self.start, self.start + self.size
        if at < len(head):
            yield head[at:end]
            at = min(end, len(head))
        while at < end:
            offset = at % len(block)
            piece = block[offset : offset + end - at]
            yield piece
            at += len(piece)


Parts = list[bytes | Fill]


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


def bytes_of(parts: Parts) -> Iterator[bytes]:
    """The parts as bytes, at most 64 KiB of a fill at a time."""
    for part in parts:
        if isinstance(part, Fill):
            yield from part.pieces()
        else:
            yield part
