"""Width and height of an image whose first bytes pass by: PNG, JPEG, WebP and GIF. Pure, holds under 100 bytes.

The first three that matter have both in their first 30 bytes. A JPEG has them in its frame header, behind segments that
may be long (a thumbnail, a colour profile): those are jumped over by their lengths, whatever the pieces are.
Sources: PNG (W3C) 11.2.1, GIF89a 18, RFC 9649 (WebP), ITU T.81 B.2.2 (JPEG).
"""

import struct

HEAD_BYTES = 30
"""A WebP says its size last of all."""
SEGMENTS_MAX = 256
"""Of a JPEG, before its frame header. A colour profile in many parts has up to 20."""

_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_FRAME_BYTES = 9
"""Marker, length, precision, height, width."""
_TYPES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"PK\x03\x04", "application/zip"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}


class ImageSize:
    """`feed` the first bytes until `settled`, then `end`: `size` and `media_type` are what they will be."""

    __slots__ = ("_held", "_segments", "_skip", "_walking", "media_type", "settled", "size")

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        """Pixels: width, height."""
        self.media_type: str | None = None
        """As the first bytes say; None where they say nothing that is known here."""
        self.settled = False
        self._held = b""
        self._skip = 0  # bytes of a JPEG to be jumped over
        self._segments = 0
        self._walking = False  # from segment to segment of a JPEG

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self.settled:
            return
        if not self._walking:
            room = HEAD_BYTES - len(self._held)
            self._held += data[:room]
            if len(self._held) < HEAD_BYTES:
                return
            self.media_type = type_of(self._held)
            self._walking = self.media_type == "image/jpeg"
            if not self._walking:
                self._settle(_size_in(self._held, self.media_type))
                return
            head, self._held = self._held, b""
            self._skip = 2  # the marker of its beginning
            self._walk(head)
            data = data[room:]
        self._walk(data)

    def end(self) -> None:
        """There are no more bytes."""
        if not self.settled and not self._walking:
            self.media_type = type_of(self._held)
            self._settle(_size_in(self._held.ljust(HEAD_BYTES, b"\0"), self.media_type))
        self.settled = True

    def _settle(self, size: tuple[int, int] | None) -> None:
        self.size = size
        self.settled = True
        self._held = b""

    def _walk(self, data: bytes) -> None:
        """Jump from marker to marker of a JPEG until the frame header."""
        pos = 0
        while not self.settled:
            if self._skip:
                step = min(self._skip, len(data) - pos)
                self._skip -= step
                pos += step
            wanted = _FRAME_BYTES - len(self._held)
            self._held += data[pos : pos + wanted]
            pos += wanted
            if len(self._held) < _FRAME_BYTES:
                return
            mark, marker, length, _, height, width = struct.unpack(">BBHBHH", self._held)
            self._segments += 1
            if mark != 0xFF or length < 2 or self._segments > SEGMENTS_MAX:
                self._settle(None)
            elif marker in _FRAME_HEADERS:
                self._settle((width, height) if width and height else None)
            elif marker == 0xFF:  # padding in front of a marker
                self._held = self._held[1:]
            else:
                # what was read beyond the marker and its length belongs to the segment, or to the next one
                behind, self._held = self._held[4:], b""
                self._skip = length - 2
                taken = min(self._skip, len(behind))
                self._skip -= taken
                self._held = behind[taken:]


def type_of(head: bytes) -> str | None:
    """The media type that the first bytes of a file show."""
    for start, media_type in _TYPES:
        if head.startswith(start):
            return media_type
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    return "video/mp4" if head[4:8] == b"ftyp" else None


def _size_in(head: bytes, media_type: str | None) -> tuple[int, int] | None:
    """The size in the first HEAD_BYTES bytes."""
    width = height = 0
    match media_type:
        case "image/png":
            width, height = struct.unpack_from(">II", head, 16)
        case "image/gif":
            width, height = struct.unpack_from("<HH", head, 6)
        case "image/webp" if head[12:16] == b"VP8X":
            width = int.from_bytes(head[24:27], "little") + 1
            height = int.from_bytes(head[27:30], "little") + 1
        case "image/webp" if head[12:16] == b"VP8L" and head[20] == 0x2F:
            bits = int.from_bytes(head[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case "image/webp" if head[12:16] == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", head, 26))
        case _:
            pass
    return (width, height) if width and height else None
