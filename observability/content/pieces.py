"""Text that comes in deltas: put together up to a limit, with a note of how much is missing."""

from typing import Final

from observability.content.keepers import Limits, note_text
from observability.wire.sift import UNKNOWN

JOINED_AT: Final = 64
"""Deltas: each costs 50 bytes beside its letters, which for a long answer would be a megabyte."""


class Pieces:
    """One text."""

    __slots__ = ("_joined", "_kept", "_lost", "_room")

    def __init__(self, limits: Limits) -> None:
        self._kept: list[str] = []
        self._joined = 0  # of these, what was joined
        self._room = limits.string_bytes
        self._lost = 0

    def add(self, text: object) -> int:
        """The next delta; what is no text is none. How many characters are held for it."""
        if not isinstance(text, str):
            return 0
        room = self._room
        if len(text) > room:
            self._lost += len(text) - room
            text = text[:room]
        if not text:
            return 0
        kept = self._kept
        kept.append(text)
        if len(kept) - self._joined >= JOINED_AT:
            kept[self._joined :] = ["".join(kept[self._joined :])]
            self._joined += 1
        self._room = room - len(text)
        return len(text)

    def text(self, mark: bytes, *, cut: bool = False) -> str:
        """The whole, or its beginning with a note. `cut`: its end did not come."""
        text = "".join(self._kept)
        if self._lost or cut:
            text += note_text(mark, b"c;%d" % (self._lost or UNKNOWN))
        return text

    def __bool__(self) -> bool:
        return bool(self._kept)


class Grown:
    """One text that comes in deltas, or (DashScope without `incremental_output`) whole so far in each event.

    Which of the two, the texts themselves say: of the second kind each begins with the one before, and grows.
    """

    __slots__ = ("_grows", "_is_prefix", "_last", "_pieces")

    def __init__(self, limits: Limits) -> None:
        self._pieces = Pieces(limits)
        self._last = ""
        self._is_prefix = True
        self._grows = False

    def add(self, text: object) -> int:
        """The next one. How many characters are held for it."""
        if not isinstance(text, str) or not text:
            return 0
        if self._is_prefix and self._last:
            self._is_prefix = text.startswith(self._last)
            self._grows = self._grows or len(text) > len(self._last)
        held = 0
        if self._is_prefix:
            held = len(text) - len(self._last)
            self._last = text
        elif self._last:
            held = -len(self._last)
            self._last = ""
        return held + self._pieces.add(text)

    def text(self, mark: bytes) -> str:
        """The whole, or its beginning with a note."""
        return self._last if self._is_prefix and self._grows else self._pieces.text(mark)

    def __bool__(self) -> bool:
        return bool(self._pieces)
