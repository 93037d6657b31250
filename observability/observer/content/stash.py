"""What one worker has sent of contents whose records are still to come, and how it wants them redacted.

Contents travel ahead of their record on the same connection, so they wait for milliseconds. A record that never comes
(it was too large, the queue was full) leaves its content here until newer ones push it out.
"""

from typing import Final

import orjson

from observability.emitter import CONTENT_MESSAGE, REDACT_MESSAGE
from observability.redaction import PatternError, Redaction

STASH_BYTES_MAX: Final = 16 << 20
"""Of one worker: what it may have sent before the records of one batch, thirty times 160 KiB twice."""
_HEAD_BYTES: Final = 17
_LENGTH_BYTES: Final = 4


class Contents:
    """Of one connection."""

    def __init__(self) -> None:
        self.redaction: Redaction | None = Redaction()
        """None: what the worker asked for cannot be done, and nothing of what it sends is shown."""
        self._held: dict[bytes, dict[int, bytearray]] = {}
        self._held_bytes = 0

    def take(self, message: memoryview) -> bool:
        """A message of the worker's; False where it is of another kind. ValueError where it is malformed."""
        match bytes(message[:1]):
            case b"C" as kind if kind == CONTENT_MESSAGE:
                self._take_frames(message[1:])
            case b"R" as kind if kind == REDACT_MESSAGE:
                self._redact(orjson.loads(message[1:]))
            case _:
                return False
        return True

    def claim(self, request_id: str) -> dict[int, bytearray]:
        """What came for a request, by side; it is forgotten here."""
        sides = self._held.pop(bytes.fromhex(request_id), {})
        self._held_bytes -= sum(map(len, sides.values()))
        return sides

    def _take_frames(self, frames: memoryview) -> None:
        pos = 0
        while pos < len(frames):
            size = int.from_bytes(frames[pos : pos + _LENGTH_BYTES], "little")
            pos += _LENGTH_BYTES
            frame = frames[pos : pos + size]
            if len(frame) != size or size < _HEAD_BYTES:
                raise ValueError("a frame is cut")
            sides = self._held.setdefault(bytes(frame[: _HEAD_BYTES - 1]), {})
            sides.setdefault(frame[_HEAD_BYTES - 1], bytearray()).extend(frame[_HEAD_BYTES:])
            self._held_bytes += size - _HEAD_BYTES
            pos += size
        while self._held_bytes > STASH_BYTES_MAX:
            oldest = self._held.pop(next(iter(self._held)))
            self._held_bytes -= sum(map(len, oldest.values()))

    def _redact(self, patterns: list[str] | None) -> None:
        try:
            self.redaction = None if patterns is None else Redaction(patterns)
        except PatternError:  # `check` takes none of these; but rather nothing than too much
            self.redaction = None
