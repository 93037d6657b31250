"""What is kept of one body that is recorded: one keeper for each kind of body.

A keeper takes the pieces as they pass and holds a bounded part of them, counted in `RECORDED`, an account of the whole
process: where that is full a keeper lets go of everything and says so (`lost`). None of them raises on any input.
"""

from typing import Final, NamedTuple

import orjson

from observability.codings.account import Account
from observability.redaction import MARGIN
from observability.wire.media import MediaDigest
from observability.wire.sift import NOTE_BYTES_MAX, Sift, media_note

RECORDED: Final = Account(64 << 20)
"""What the running exchanges of a worker hold for recording: 400 at their limit of 160 KiB, 10,000 ordinary chats."""
RAW_BYTES_MAX: Final = 65536
"""Of a body that goes to the observer as it is: sifting is then its work."""
BRIEF_BYTES_MAX: Final = 4096
"""An error has some hundred bytes; a vector has more than this, and nobody reads it."""
BESIDE_BYTES: Final = 32 << 10
"""Kept beside twice `content_max_bytes`: keys, roles, notes of media, and what is about to be redacted."""


class Limits(NamedTuple):
    """Of what is kept of one body."""

    mark: bytes
    """Of notes: the exchange's own, which nobody outside can know."""
    string_bytes: int
    """Of one text: MARGIN of it is given up where it is cut."""
    body_bytes: int


def limits_of(mark: bytes, content_max_bytes: int) -> Limits:
    """For a `content_max_bytes`."""
    return Limits(mark, content_max_bytes + MARGIN, 2 * content_max_bytes + BESIDE_BYTES)


class Keeper:
    """Takes one body. `kind`: of what `contents` gives: J for JSON (with notes), T for text."""

    __slots__ = ("_held_bytes", "cut", "failed", "lost")

    kind = "J"

    def __init__(self) -> None:
        self.cut = False
        """The content ends early: its brackets may be open."""
        self.lost = False
        """Nothing is kept: there was no room for it, or it failed."""
        self.failed = False
        """A bug."""
        self._held_bytes = 0

    def __del__(self) -> None:
        RECORDED.change(-self._held_bytes)

    def take(self, data: bytes) -> None:
        """`feed`, but whatever is wrong with the recording does not hurt the exchange."""
        try:
            self.feed(data)
        except Exception:  # noqa: BLE001 - as said
            self._fail()

    def give(self) -> bytes:
        """`contents`, or nothing where it was lost, or something is wrong with it."""
        try:
            return b"" if self.lost else self.contents()
        except Exception:  # noqa: BLE001 - as said
            self._fail()
            return b""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        raise NotImplementedError

    def end(self) -> None:
        """The body is whole."""

    def contents(self) -> bytes:
        """What was kept. To be asked once, at the end of the exchange."""
        raise NotImplementedError

    def _hold(self, size: int) -> bool:
        """So many bytes are held. False: there is no room, and nothing may be held any more."""
        if self.lost:
            return False
        if not RECORDED.change(size - self._held_bytes):
            self._give_up()
            return False
        self._held_bytes = size
        return True

    def _fail(self) -> None:
        self.failed = True
        self._give_up()

    def _give_up(self) -> None:
        self.lost = True
        RECORDED.change(-self._held_bytes)
        self._held_bytes = 0


class JsonKeeper(Keeper):
    """A JSON body: as it is where it is small, sifted where it is not."""

    __slots__ = ("_limits", "_raw", "_sift", "_whole")

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits
        self._raw = bytearray()  # not a list: pieces may be of a byte
        self._sift: Sift | None = None
        self._whole = False

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        if self.lost:
            return
        sift = self._sift
        if sift is not None:
            if not sift.full:
                sift.feed(data)
                self._settle(len(sift.out))
            return
        if len(self._raw) + len(data) > RAW_BYTES_MAX:
            limits = self._limits
            sift = self._sift = Sift(limits.mark, string_bytes_max=limits.string_bytes, bytes_max=limits.body_bytes)
            sift.feed(bytes(self._raw))
            sift.feed(data)
            self._raw.clear()
            self._settle(len(sift.out))
        else:
            self._raw += data
            self._settle(len(self._raw))

    def end(self) -> None:
        """The body is whole."""
        self._whole = True

    def contents(self) -> bytes:
        """The document, or its beginning."""
        sift = self._sift
        self.cut = not self._whole
        if sift is None:
            return bytes(self._raw)
        sift.end()
        self.cut = self.cut or sift.full
        return bytes(sift.out)

    def _settle(self, size: int) -> None:
        if not self._hold(size):
            self._raw.clear()
            self._sift = None


class BriefKeeper(JsonKeeper):
    """A JSON body that is kept only where it is brief: an answer of vectors, or an error, or the name of a task."""

    __slots__ = ("_is_long",)

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._is_long = False

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._is_long = self._is_long or len(self._raw) + len(data) > BRIEF_BYTES_MAX
        if not self._is_long:
            super().feed(data)

    def contents(self) -> bytes:
        """The document, or nothing."""
        return b"" if self._is_long else super().contents()


class TextKeeper(Keeper):
    """A body of text: its beginning."""

    __slots__ = ("_bytes_max", "_text", "_whole")

    kind = "T"

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._bytes_max = limits.string_bytes
        self._text = bytearray()
        self._whole = False

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        room = self._bytes_max - len(self._text)
        if room <= 0 or self.lost:
            self.cut = True
            return
        self.cut = len(data) > room
        self._text += data[:room]
        if not self._hold(len(self._text)):
            self._text.clear()

    def end(self) -> None:
        """The body is whole."""
        self._whole = True

    def contents(self) -> bytes:
        """The text, or its beginning."""
        self.cut = self.cut or not self._whole
        return bytes(self._text)


class MediaKeeper(Keeper):
    """A body that is a file: its facts."""

    __slots__ = ("_digest", "_mark", "_whole")

    def __init__(self, limits: Limits, media_type: str) -> None:
        super().__init__()
        self._mark = limits.mark
        self._digest = MediaDigest(media_type)
        self._whole = False

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._digest.feed(data)

    def end(self) -> None:
        """The body is whole."""
        self._whole = True

    def contents(self) -> bytes:
        """A JSON string that is a note."""
        media = self._digest.end(whole=self._whole)
        return orjson.dumps(note_text(self._mark, media_note(media))) if media.bytes else b""


def note_text(mark: bytes, note: bytes) -> str:
    """A note as a text that is put into a document before it is written as JSON."""
    assert len(note) <= NOTE_BYTES_MAX
    return "\0" + (mark + note).decode("ascii")
