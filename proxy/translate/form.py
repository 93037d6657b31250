"""Reads a multipart/form-data body that passes by in pieces: the heads of its parts, and their content as it comes.

`observability.wire.multipart_fields` looks into the same body for the model and refuses what servers could read in two
ways; here the gateway is the server, and one reading is enough: the strict one. A delimiter is CRLF, two dashes and the
boundary, and behind it a CRLF or two dashes; at most one line end stands before the first, and nothing but such behind
the last. Of a piece no more is held than what may be the beginning of a delimiter, and the head of a part up to
HEAD_BYTES_MAX. Pure. Sources: RFC 2046 §5.1 (framing), RFC 7578 (form-data).
"""

import re
from enum import Enum
from typing import Final, NamedTuple

from observability.wire.multipart_fields import HEAD_BYTES_MAX, parameters_of

PARTS_MAX: Final = 256
"""OpenAI's largest form has 16 images and a dozen fields. A part costs 10 µs."""

_FIELD_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN: Final = (b"", b"7bit", b"8bit", b"binary")
_READ: Final = (b"content-disposition", b"content-type", b"content-transfer-encoding")
_LINE_ENDS: Final = b"\r\n"


class FormError(ValueError):
    """The body is none that can be read; the text says why and repeats nothing of it."""


class Part(NamedTuple):
    """A part begins."""

    name: str
    is_file: bool
    """It has a file name."""
    content_type: bytes
    """As written, empty where there is none."""


class PartEnd(Enum):
    """It is over."""

    END = 0


Event = Part | bytes | PartEnd
"""Of a part: first a Part, then its content in pieces that are not empty, then PartEnd."""


class _State(Enum):
    CONTENT = 0  # of a part, or of nothing before the first
    HEAD = 1
    EPILOGUE = 2


class FormReader:
    """One pass over one body: `feed` its pieces in order; `complete` says whether it came to its end."""

    __slots__ = ("_delimiter", "_in_part", "_parts", "_rest", "_state", "complete")

    def __init__(self, boundary: bytes) -> None:
        """`boundary`: as `boundary_of` gives it."""
        self.complete = False
        """The closing delimiter came."""
        self._delimiter = b"\r\n--" + boundary
        self._rest = b"\r\n"  # what was fed and is not over; the first delimiter needs no line end
        self._state = _State.CONTENT
        self._in_part = False
        self._parts = 0

    def feed(self, data: bytes) -> list[Event]:
        """What the next piece says. FormError."""
        data = self._rest + data
        events: list[Event] = []
        pos = 0
        while True:
            if self._state is _State.CONTENT:
                end = self._content(data, pos, events)
            elif self._state is _State.HEAD:
                end = self._head(data, pos, events)
            else:
                if data[pos:].strip(_LINE_ENDS):
                    raise FormError("something stands behind its last part")
                end = None
                pos = len(data)
            if end is None:
                break
            pos = end
        if self._state is _State.CONTENT:
            pos = self._pass(data, pos, events)
        self._rest = data[pos:]
        return events

    def _content(self, data: bytes, pos: int, events: list[Event]) -> int | None:
        """To behind the next delimiter; None: it is not whole here."""
        at = data.find(self._delimiter, pos)
        if at < 0:
            return None
        end = at + len(self._delimiter) + 2
        if end > len(data):
            return None
        behind = data[end - 2 : end]
        if behind not in (b"\r\n", b"--"):
            raise FormError("a boundary has something behind it")
        if self._in_part:
            if at > pos:
                events.append(data[pos:at])
            events.append(PartEnd.END)
        elif data[pos:at] not in (b"", b"\r\n"):
            raise FormError("something stands before its first part")
        self._in_part = False
        if behind == b"--":
            self.complete = True
            self._state = _State.EPILOGUE
        else:
            self._parts += 1
            if self._parts > PARTS_MAX:
                raise FormError(f"it has more than {PARTS_MAX} parts")
            self._state = _State.HEAD
        return end

    def _pass(self, data: bytes, pos: int, events: list[Event]) -> int:
        """What of a part's content can be no beginning of a delimiter; answers where the rest begins."""
        if not self._in_part:
            begun = data[pos : pos + len(self._delimiter)]
            if not (self._delimiter.startswith(begun) or (b"\r\n" + self._delimiter).startswith(begun)):
                raise FormError("something stands before its first part")
            return pos
        at = data.find(self._delimiter, pos)  # all of it, and not what stands behind it
        keep = at if at >= 0 else data.find(b"\r", max(pos, len(data) - len(self._delimiter) + 1))
        if keep < 0:
            keep = len(data)
        if keep > pos:
            events.append(data[pos:keep])
        return keep

    def _head(self, data: bytes, pos: int, events: list[Event]) -> int | None:
        """To behind the empty line of a part's head; None: it is not whole here."""
        end = data.find(b"\r\n\r\n", pos, pos + HEAD_BYTES_MAX + 4)
        if end < 0:
            if len(data) - pos > HEAD_BYTES_MAX:
                raise FormError(f"the head of a part has more than {HEAD_BYTES_MAX} bytes")
            return None
        events.append(_part_of(data[pos:end]))
        self._in_part = True
        self._state = _State.CONTENT
        return end + 4


def _part_of(head: bytes) -> Part:
    values: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        key = name.lower()
        if not colon or not _FIELD_NAME.fullmatch(name) or key in values:
            raise FormError("the head of a part is malformed")
        if key in _READ:
            values[key] = value.strip(b" \t")
    kind, semicolon, rest = values.get(b"content-disposition", b"").partition(b";")
    parameters = parameters_of(semicolon + rest)
    if kind.strip().lower() != b"form-data" or parameters is None or b"name" not in parameters:
        raise FormError("a part has no clear name")
    if values.get(b"content-transfer-encoding", b"").lower() not in _PLAIN:
        raise FormError("a part has a Content-Transfer-Encoding")
    is_file = not parameters.keys().isdisjoint((b"filename", b"filename*"))
    name = parameters[b"name"]
    return Part(name.decode("utf-8", "replace"), is_file, values.get(b"content-type", b""))
