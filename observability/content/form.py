"""The keeper of a multipart/form-data body: its fields as text, its files as facts, also those that are base64.

Made for looking only. What decides which model is asked for is read by `wire.multipart_fields`, which refuses what has
two readings; here a part is what stands between two delimiters, and what is odd is left out.
"""

import re
from typing import Final

import orjson

from observability.content.keepers import Keeper, Limits, note_text
from observability.wire.media import MediaDigest, clean_type
from observability.wire.sift import HEAD_BYTES, UNKNOWN, media_note, media_start

PARTS_MAX: Final = 256
"""Kept. Image edits have up to 16 images; a form of more fields is no call of a model."""
PART_BYTES: Final = 512
"""What a part counts for beside its text: a name, the facts of a file."""
HEAD_BYTES_MAX: Final = 8192
NAME_CHARACTERS_MAX: Final = 64

_NAME: Final = re.compile(rb";\s*name=\"?([^\";\r\n]*)", re.IGNORECASE)
_FILE: Final = re.compile(rb";\s*filename\*?=", re.IGNORECASE)
_TYPE: Final = re.compile(rb"^content-type:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class FormKeeper(Keeper):
    """JSON of the form: a list of [name, text or note]."""

    __slots__ = (
        "_carry",
        "_delimiter",
        "_digest",
        "_ended",
        "_fields",
        "_head",
        "_is_base64",
        "_judged",
        "_limits",
        "_lost",
        "_text",
        "_total",
    )

    def __init__(self, limits: Limits, boundary: bytes) -> None:
        super().__init__()
        self._limits = limits
        self._delimiter = b"\r\n--" + boundary
        self._carry = b"\r\n"  # what may be the beginning of a delimiter; at first as if a line had ended
        self._fields: list[tuple[str, str]] = []
        self._head: bytearray | None = None  # of the part that begins
        self._text: bytearray | None = None  # of the open part, where it is a field
        self._lost = 0
        self._judged = False  # it is text, and not base64
        self._digest: MediaDigest | None = None  # of the open part, where it is a file
        self._is_base64 = False
        self._total = 0
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        if self.lost or self._ended:
            return
        data = self._carry + data
        self._carry = b""
        pos = 0
        while not self._ended:
            if self._head is not None:
                rest = self._in_head(self._head, data[pos:])
                if rest is None:
                    return
                data, pos = rest, 0
            at = data.find(self._delimiter, pos)
            if at < 0:
                keep = len(self._delimiter) - 1
                until = max(pos, len(data) - keep)
                self._content(data[pos:until])
                self._carry = data[until:]
                return
            self._content(data[pos:at])
            self._end_part()
            self._head = bytearray()
            pos = at + len(self._delimiter)

    def contents(self) -> bytes:
        """What was kept."""
        if not self._ended:
            self.cut = True
            self._content(self._carry)
            self._end_part(cut=True)
        return orjson.dumps(self._fields)

    def _in_head(self, head: bytearray, data: bytes) -> bytes | None:
        """The content behind the head, from its last line end on: that may begin the delimiter of an empty part."""
        before = len(head)
        head += data[:HEAD_BYTES_MAX]
        at = head.find(b"\r\n\r\n", max(0, before - 3))
        closing = head.startswith(b"--")
        if closing or len(self._fields) >= PARTS_MAX or (at < 0 and len(head) >= HEAD_BYTES_MAX):
            self.cut = not closing
            self._ended = True
            return None
        if at < 0:
            return None
        self._head = None
        self._begin_part(bytes(head[: at + 2]))
        return b"\r\n" + data[at + 4 - before :]

    def _begin_part(self, head: bytes) -> None:
        name = _NAME.search(head)
        kind = _TYPE.search(head)
        media_type = clean_type(kind[1].decode("latin-1")) if kind is not None else ""
        self._fields.append((name[1].decode("utf-8", "replace")[:NAME_CHARACTERS_MAX] if name is not None else "", ""))
        self._lost = -2  # the line end that was left in front
        if _FILE.search(head) or (media_type and not media_type.startswith("text/")):
            self._digest = MediaDigest(media_type)
            self._is_base64 = False
        else:
            self._text = bytearray()
            self._judged = False
        self._settle()

    def _content(self, piece: bytes) -> None:
        if self._lost < 0:
            skipped = min(-self._lost, len(piece))
            self._lost += skipped
            piece = piece[skipped:]
        if self._digest is not None:
            (self._digest.feed_base64 if self._is_base64 else self._digest.feed)(piece)
        elif self._text is not None:
            room = min(self._limits.string_bytes - len(self._text), self._limits.body_bytes - self._total)
            kept = piece[: max(0, room)]
            self._text += kept
            self._total += len(kept)
            self._lost += len(piece) - len(kept)
            if not self._judged and len(self._text) >= HEAD_BYTES:
                self._judge(self._text, piece[len(kept) :])
            self._settle()

    def _judge(self, text: bytearray, rest: bytes = b"") -> None:
        """Is the field base64, as those are that hold a data URL?"""
        self._judged = True
        start = media_start(bytes(text[:HEAD_BYTES]))
        if start is not None:
            self._digest = MediaDigest(start.media_type)
            self._digest.feed_base64(bytes(text[start.at :]) + rest)
            self._is_base64 = True
            self._total -= len(text)
            self._text = None

    def _settle(self) -> None:
        if not self._hold(self._total + PART_BYTES * len(self._fields)):
            self._text = self._digest = None
            self._fields.clear()

    def _end_part(self, *, cut: bool = False) -> None:
        if not self._fields:
            return
        if self._text is not None and not self._judged:
            self._judge(self._text)
        name, _ = self._fields[-1]
        mark = self._limits.mark
        if self._digest is not None:
            self._fields[-1] = (name, note_text(mark, media_note(self._digest.end(whole=not cut))))
        elif self._text is not None:
            text = self._text.decode("utf-8", "replace").replace("\0", " ")
            if cut or self._lost > 0:
                text += note_text(mark, b"c;%d" % (UNKNOWN if cut else self._lost))
            self._fields[-1] = (name, text)
        self._digest = self._text = None
        self._lost = 0
