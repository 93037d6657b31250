"""Keeps what can be read of a JSON document that passes by in pieces: its text, up to a limit, and facts of its media.

How it works: outside strings bytes are copied up to the next quote, inside them up to the closing one, both looked for
in C. A string that begins as base64 does (a data URL, or BARE_BYTES of nothing else) goes to a `MediaDigest` instead,
and a note of its facts takes its place; of a string that is too long the beginning is kept and a note of how much is
missing. Once `bytes_max` are kept the sieve is full and looks at nothing more. So what is held is bounded, however
large the document, and megabytes of an image cost what hashing them costs.

Notes are put into strings: a NUL, the exchange's own `mark` (which nobody outside can know), and what is noted. The
result is JSON as far as the document was; where it ended early (`full`, or a cut) its brackets are not closed.
"""

import json
import re
from typing import Final, NamedTuple

from observability.wire.json_skip import OPEN_ESCAPED, string_end
from observability.wire.media import Media, MediaDigest

BARE_BYTES: Final = 512
"""Of a string that is base64 without saying so. Shorter ones are kept as they are: a thumbnail of 380 bytes."""
HEAD_BYTES: Final = 4096
"""Looked at before a string counts as base64: no text has so many characters without a space or a full stop."""
LINE_BYTES: Final = 60
"""Of a line of wrapped base64: 64 (PEM) or 76 (MIME); a list of words, one a line, has shorter ones."""
NOTE_BYTES_MAX: Final = 320
"""Of a note: mark, type and digest, each at most 100 bytes, and numbers."""
UNKNOWN: Final = -1
"""Of how much is missing, where nobody counted."""

_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=\\"
_META_BYTES_MAX: Final = 256
_LINE_END: Final = re.compile(rb"(?:\\r)?\\n")
_KINDS: Final = (re.compile(rb"[A-Z]"), re.compile(rb"[a-z]"), re.compile(rb"[0-9]"))
_SHORT_BYTES: Final = 256
_SHORT: Final = re.compile(rb'(?:[^"]*+"(?! {0,4}+[dD][aA][tT][aA]:)[^"\\]{0,256}+")++')
# Strings that need no judgement, as many as there are in a row: keys, roles and names cost 0.1 µs each and not 1.
_HEAD, _TEXT, _LOST, _MEDIA = range(4)


class Sift:
    """One pass over one document: `feed` its pieces, `end`, read `out`."""

    __slots__ = (
        "_bytes_max",
        "_digest",
        "_escaped",
        "_held",
        "_in_string",
        "_lost",
        "_mark",
        "_start",
        "_state",
        "_string_bytes_max",
        "full",
        "out",
    )

    def __init__(self, mark: bytes, *, string_bytes_max: int, bytes_max: int) -> None:
        """`mark`: letters and digits. The limits are of bytes as written, notes aside."""
        self.out = bytearray()
        """What is kept: at most `bytes_max` and a note."""
        self.full = False
        """`bytes_max` is reached: the rest of the document is not looked at."""
        self._mark = b"\\u0000" + mark
        self._string_bytes_max = string_bytes_max
        self._bytes_max = bytes_max
        self._in_string = self._escaped = False
        self._state = _HEAD
        self._held = b""  # of a string that is not judged yet
        self._start = 0  # of the open string in `out`
        self._lost = 0  # bytes of it that are not kept
        self._digest: MediaDigest | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        pos, end = 0, len(data)
        while pos < end and not self.full:
            if self._in_string:
                stop = string_end(data, pos + self._escaped)
                self._escaped = stop == OPEN_ESCAPED
                if stop < 0:
                    self._take(data[pos:] if pos else data)
                    return
                self._in_string = False
                self._take(data[pos : stop - 1])
                self._close_string()
                pos = stop
            elif (short := self._short_run(data, pos)) > pos:
                self.out += data[pos:short]
                pos = short
            else:
                quote = data.find(b'"', pos)
                stop = quote + 1 if quote >= 0 else end
                room = self._room()
                self.out += data[pos : min(stop, pos + room)]
                if stop - pos > room:
                    self.full = True
                elif quote >= 0:
                    self._in_string = True
                    self._state = _HEAD
                    self._start = len(self.out)
                pos = stop

    def end(self) -> None:
        """The document is over, or cut: an open string is closed, and says that something is missing."""
        if self._in_string and not self.full:
            self._in_string = False
            if self._state == _HEAD:
                self._judge(self._held)
            self._close_string(cut=True)

    def _room(self) -> int:
        """Bytes that may still be kept; a note may have gone beyond."""
        return max(0, self._bytes_max - len(self.out))

    def _short_run(self, data: bytes, pos: int) -> int:
        """Where a run of short strings ends that begins here and has room."""
        if self._string_bytes_max < _SHORT_BYTES:
            return pos
        match = _SHORT.match(data, pos, pos + self._room())
        return pos if match is None else match.end()

    def _take(self, piece: bytes) -> None:
        """A piece of the open string."""
        if self._digest is not None:
            self._digest.feed_base64(piece)
        elif self._state == _HEAD:
            head = self._held + piece if self._held else piece
            if self._in_string and len(head) < HEAD_BYTES:
                self._held = head
            else:
                self._judge(head)
        elif self._state == _TEXT:
            self._keep(piece)
        else:
            self._lost += len(piece)

    def _judge(self, head: bytes) -> None:
        """Text or base64? `head`: the beginning of the string, HEAD_BYTES at least where it has as many."""
        self._held = b""
        start = media_start(head)
        if start is None:
            self._state = _TEXT
            self._keep(head)
            return
        self._state = _MEDIA
        self._digest = MediaDigest(start.media_type)
        self._digest.feed_base64(head[start.at :])

    def _keep(self, piece: bytes) -> None:
        room = min(self._string_bytes_max - (len(self.out) - self._start), self._room())
        if len(piece) <= room:
            self.out += piece
            return
        self.out += piece[:room]
        self._lost = len(piece) - room
        self._state = _LOST
        del self.out[_whole_until(self.out, self._start) :]
        if len(self.out) >= self._bytes_max - 12:  # as much as an escape may have taken back
            self._lost = UNKNOWN
            self._close_string()
            self.full = True

    def _close_string(self, *, cut: bool = False) -> None:
        if self._digest is not None:
            self.out += self._mark + media_note(self._digest.end(whole=not cut))
            self._digest = None
        elif self._state == _LOST or cut:
            if cut:
                del self.out[_whole_until(self.out, self._start) :]
            self.out += b"%bc;%d" % (self._mark, UNKNOWN if cut else self._lost)
        self.out += b'"'
        self._state = _HEAD
        self._lost = 0


class Start(NamedTuple):
    """Where base64 begins in a string, and what it is said to be."""

    at: int
    media_type: str


def media_start(head: bytes) -> Start | None:
    """Does a string that begins so, as it is written in JSON, hold a file as base64? None: it is text."""
    begin = len(head[:4]) - len(head[:4].lstrip(b" ")) + 5  # up to four blanks, as a careless client has them
    if head[begin - 5 : begin].lower() == b"data:":
        comma = head.find(b",", begin, begin + _META_BYTES_MAX)
        meta = _unescaped(head[begin:comma]) if comma >= 0 else ""
        media_type, _, parameters = meta.partition(";")
        if parameters.lower().rpartition(";")[2].strip() == "base64":
            return Start(comma + 1, media_type)
        return None
    if len(head) < BARE_BYTES:
        return None
    sample = head[:HEAD_BYTES]
    if sample.translate(None, _LETTERS) or not all(kind.search(sample) for kind in _KINDS):  # the second: hex, digits
        return None
    if b"\\" in sample:
        lines = _LINE_END.split(sample)
        if len(lines) > 1 and (len(lines[0]) < LINE_BYTES or len({len(line) for line in lines[:-1]}) > 1):
            return None
    return Start(0, "")


def _unescaped(text: bytes) -> str:
    """What stands in a JSON string; empty where it is none."""
    try:
        return str(json.loads(b'"%b"' % text, strict=False))
    except ValueError:
        return ""


def media_note(media: Media) -> bytes:
    """A note of the facts, as `read_note` takes it."""
    return b"m;%b;%d;%b;%d;%d" % (
        media.media_type.encode("ascii"),
        media.bytes,
        media.sha256.encode("ascii"),
        media.width,
        media.height,
    )


def read_note(note: str) -> Media | int:
    """What stands behind the mark: a file's facts, or how many bytes are missing (UNKNOWN). ValueError for others."""
    kind, _, rest = note.partition(";")
    if kind == "c":
        return int(rest)
    if kind != "m":
        raise ValueError("a note is of a file or of a cut")
    media_type, size, sha256, width, height = rest.split(";")
    return Media(media_type, int(size), sha256, int(width), int(height))


def _whole_until(out: bytearray, start: int) -> int:
    """Where the last whole character of a string that was cut ends: not within an escape, nor within UTF-8."""
    end = len(out)
    slash = out.rfind(b"\\", max(start, end - 6))
    if slash >= 0:
        run = slash + 1 - len(out[start : slash + 1].rstrip(b"\\")) - start
        escape_bytes = 6 if out[slash + 1 : slash + 2] == b"u" else 2
        if run % 2 == 1 and slash + escape_bytes > end:
            return slash
    for back in range(1, min(4, end - start) + 1):
        byte = out[end - back]
        if byte < 0x80:
            return end
        if byte >= 0xC0:
            need = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return end - back if need > back else end
    return end
