"""Facts of media that pass by: how many bytes, their SHA-256, what kind, how wide and high. Nothing is held.

`MediaDigest` takes the bytes themselves (a part of a form, a body of audio) or base64 as it stands in a JSON string,
with JSON's escapes (`\\/`, `\\u002b` of .NET), line breaks, either alphabet, with or without padding, in pieces of any
size. All work on the bytes is done in C: 2 to 4 ns each (unescaping, `binascii`, `hashlib`).
"""

import binascii
import hashlib
import json
import re
from typing import Final, NamedTuple

from observability.wire.image_size import ImageSize

UNKNOWN_TYPE: Final = "application/octet-stream"
TYPE_CHARACTERS_MAX: Final = 100
"""Of a media type. The longest registered ones have 85."""

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_SPACE: Final = b" \t\r\n"
_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
_OPEN_ESCAPE: Final = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?\Z")
"""An escape that goes on in the next piece."""


class Media(NamedTuple):
    """What is kept of an image, a sound, a film, a file."""

    media_type: str
    """As declared, else as its first bytes show, else UNKNOWN_TYPE."""
    bytes: int
    """Decoded."""
    sha256: str
    """64 hexadecimal digits; empty: what was called base64 is none, or was cut, and its bytes are not known."""
    width: int = 0
    """Pixels; 0: not an image whose size is read, or not readable."""
    height: int = 0


class MediaDigest:
    """One file. `feed_base64` or `feed`, then `end`."""

    __slots__ = ("_bytes", "_declared", "_escape", "_hash", "_image", "_malformed", "_padded", "_quad")

    def __init__(self, media_type: str = "") -> None:
        """`media_type`: as declared by whoever sent it; empty where it was not."""
        self._declared = clean_type(media_type)
        self._hash = hashlib.sha256(usedforsecurity=False)
        self._image = ImageSize()
        self._bytes = 0
        self._escape = b""  # an unfinished escape
        self._quad = b""  # up to three characters of base64
        self._padded = False  # only padding may follow
        self._malformed = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file itself."""
        self._hash.update(data)
        self._bytes += len(data)
        if not self._image.settled:
            self._image.feed(data)

    def feed_base64(self, text: bytes) -> None:
        """Take the next characters of base64, as they are written in a JSON string."""
        if self._escape or b"\\" in text:
            text = self._unescaped(text)
        if b"-" in text or b"_" in text:
            text = text.translate(_URL_SAFE)
        if text.translate(None, _ALPHABET):  # something else is in it
            text = self._cleaned(text)
        elif self._padded and text:
            self._malformed = True
        text = self._quad + text if self._quad else text
        whole = len(text) & ~3
        self._quad = text[whole:]
        if whole:
            self.feed(binascii.a2b_base64(text[:whole] if self._quad else text))

    def end(self, *, whole: bool = True) -> Media:
        """The facts. `whole`: the file came to its end."""
        if self._escape or len(self._quad) == 1:
            self._malformed = True
        elif self._quad:
            self.feed(binascii.a2b_base64(self._quad + b"=" * (4 - len(self._quad))))
        self._quad = b""
        self._image.end()
        sha256 = self._hash.hexdigest() if whole and not self._malformed else ""
        media_type = self._declared or self._image.media_type or UNKNOWN_TYPE
        return Media(media_type, self._bytes, sha256, *(self._image.size or (0, 0)))

    def _unescaped(self, text: bytes) -> bytes:
        text = self._escape + text
        self._escape = b""
        if (match := _OPEN_ESCAPE.search(text[-5:])) is not None and _runs_odd(text, len(text) - 5, match):
            start = max(0, len(text) - 5) + match.start()
            self._escape, text = text[start:], text[:start]
        try:
            return json.loads(b'"%b"' % text.replace(b"\\/", b"/"), strict=False).encode("ascii")  # type: ignore[no-any-return]
        except ValueError:  # no escape of JSON's, or a character that is none of base64
            self._malformed = True
            return b""

    def _cleaned(self, text: bytes) -> bytes:
        """Without white space and padding; anything else makes it none."""
        text = text.translate(None, _SPACE)
        body, padding, rest = text.partition(b"=")
        if (body and self._padded) or rest.strip(b"="):
            self._malformed = True
        self._padded = self._padded or bool(padding)
        if body.translate(None, _ALPHABET):
            self._malformed = True
            return b""
        return body


def _runs_odd(text: bytes, tail_start: int, match: "re.Match[bytes]") -> bool:
    """Is the backslash that a match begins with one that escapes, and not one that is escaped itself?"""
    at = max(0, tail_start) + match.start()
    run = at + 1 - len(text[: at + 1].rstrip(b"\\"))
    return run % 2 == 1


def clean_type(media_type: str) -> str:
    """A media type without parameters, in lower case; empty where it is none."""
    kind = media_type.partition(";")[0].strip().lower()
    return kind if len(kind) <= TYPE_CHARACTERS_MAX and _TYPE.fullmatch(kind) else ""
