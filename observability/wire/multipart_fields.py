"""Reads chosen form fields out of one multipart/form-data body that passes by in pieces, without holding it.

How it works: the content of a part is jumped over by looking for the next delimiter with `bytes.find`, so a file costs
0.15 ns a byte; of a piece only what may be the beginning of a delimiter is kept for the next. The head of each part is
held, up to `HEAD_BYTES_MAX`, and the value of a wanted field up to `value_bytes_max`.

Servers disagree on sloppy bodies: bare line feeds, text behind a boundary, two names in one part, quotes hidden in
file names. Who may ask for which model must not depend on whose reading is right, so whatever has two readings makes
the scanner fail (`failed`); it never raises. Sources: RFC 2046 5.1 (framing), RFC 7578 (form-data).
"""

import re
from collections.abc import Callable, Collection
from typing import ClassVar, NamedTuple

VALUE_BYTES_MAX = 16384
"""Of one wanted value, as for JSON."""
HEAD_BYTES_MAX = 8192
"""Of one part: a file name of 255 characters, all percent-encoded, is under 4 KiB."""
PARTS_MAX = 2048
"""About 10 µs each in Python. Starlette and Django take 1000 fields, and Starlette 1000 files beside them."""

_BOUNDARY = re.compile(rb"(?:[0-9A-Za-z'()+_,\-./:=?]| (?! *$)){1,70}")
_PARAMETER = re.compile(
    rb"[ \t]*;[ \t]*(?:([^\s;=\"]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]++|\\.)*+)\"|([^\s;\"]*+))[ \t]*)?", re.DOTALL
)
_NAMES = re.compile(rb"(?<![0-9a-z_\-])name\s*(?:\*[0-9*]*+\s*)?=", re.IGNORECASE)
_FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PADDING = re.compile(rb"[ \t]*+")
_PLAIN = (b"7bit", b"8bit", b"binary")

_CR, _LF, _DASH = b"\r\n-"
_CONTENT, _HEAD, _CLOSING, _EPILOGUE = range(4)


class FormField(NamedTuple):
    """A wanted field."""

    name: str
    raw: bytes | None
    """The value as written; None where it is a file, encoded, or larger than what may be held."""
    start: int
    """Offset of its first byte in the stream."""
    end: int
    """Offset after its last byte."""
    length: tuple[int, int] | None
    """Offsets of the digits of the part's own Content-Length: servers ignore it, some clients write it."""


class MultipartFields:
    """One pass over one body: `feed` its pieces in order, then read the attributes at any time."""

    __slots__ = (
        "_carry",
        "_content_start",
        "_head",
        "_head_start",
        "_length",
        "_names",
        "_needle",
        "_parts",
        "_seen",
        "_state",
        "_value",
        "_value_bytes_max",
        "document_end",
        "duplicates",
        "failed",
        "fields",
        "offset",
        "open_name",
    )

    def __init__(self, boundary: bytes, names: Collection[str], *, value_bytes_max: int = VALUE_BYTES_MAX) -> None:
        """`boundary`: as `boundary_of` gives it. `names`: of the wanted fields."""
        self.fields: list[FormField] = []
        """What was found so far, in the order of the body; at most PARTS_MAX."""
        self.duplicates: set[str] = set()
        """Wanted names that came more than once."""
        self.document_end: int | None = None
        """Offset after the closing delimiter; None until then."""
        self.failed = False
        """The body is malformed, or could be read in two ways."""
        self.offset = 0
        """Bytes fed so far."""
        self.open_name: str | None = None
        """Of the wanted field whose value has begun and not ended."""
        self._names = {name.encode(): name for name in names}
        self._needle = b"\n--" + boundary
        self._value_bytes_max = value_bytes_max
        self._state = _CONTENT  # of the preamble, as if a line had just ended
        self._carry = b"\r\n"  # the end of what was fed, where it may begin a delimiter
        self._head = bytearray()  # of the part that begins, from behind the boundary
        self._head_start = 0
        self._parts = 0
        self._seen: set[str] = set()
        self._content_start = 0
        self._value: bytearray | None = None  # of the open field; None where there is none, or too much of it
        self._length: tuple[int, int] | None = None

    @property
    def complete(self) -> bool:
        """The closing delimiter came."""
        return self.document_end is not None and not self.failed

    @property
    def open_lost(self) -> bool:
        """There is such a value and it will not be kept: it is too large already, a file, or encoded."""
        return self.open_name is not None and self._value is None

    @property
    def part_start(self) -> int | None:
        """Offset of the head of a part that may be, or is, a wanted one, while head or value are not over."""
        if self.failed or (self._state != _HEAD and self.open_name is None):
            return None
        return self._head_start

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body, of any size."""
        end = len(data)
        pos = 0
        while pos < end and not self.failed:
            pos = self._STEPS[self._state](self, data, pos)
        self.offset += end

    # Each step takes the piece and a position before its end, and returns the position it came to.

    def _fail(self, data: bytes) -> int:
        self.failed = True
        self.open_name = self._value = None
        self._head.clear()
        return len(data)

    def _content(self, data: bytes, pos: int) -> int:
        needle, carry = self._needle, self._carry
        if carry:
            joined = carry + data[pos : pos + len(needle)]
            at = joined.find(needle)
            if 0 <= at <= 1:
                return self._delimiter(data, pos - len(carry) + at, preceded=joined[:at] == b"\r")
            self._carry = b""
            if (b"\r" + needle).startswith(joined) or needle.startswith(joined):
                self._carry = joined
                return len(data)
            if self._value is not None:
                self._keep(carry, self.offset + pos - len(carry))
        at = data.find(needle, pos)
        if at >= 0:
            preceded = at > 0 and data[at - 1] == _CR
            if self._value is not None:
                self._keep(data[pos : at - preceded], self.offset + pos)
            return self._delimiter(data, at, preceded=preceded)
        # A delimiter that goes on in the next piece begins at the last line feed, or at the last byte.
        stop = len(data)
        line = data.rfind(b"\n", max(pos, stop - len(needle)))
        if line >= 0 and needle.startswith(data[line:]):
            stop = line - (line > pos and data[line - 1] == _CR)
        elif data[-1] == _CR:
            stop -= 1
        self._carry = data[stop:]
        if self._value is not None:
            self._keep(data[pos:stop], self.offset + pos)
        return len(data)

    def _keep(self, content: bytes, start: int) -> None:
        """Take bytes of the content; those before its beginning are the end of the head."""
        assert self._value is not None
        self._value += content[max(0, self._content_start - start) :][: self._value_bytes_max + 1]
        if len(self._value) > self._value_bytes_max:
            self._value = None

    def _delimiter(self, data: bytes, at: int, *, preceded: bool) -> int:
        """The needle stands at `at`, which may be in an earlier piece."""
        self._parts += 1
        if not preceded or self._parts > PARTS_MAX:
            return self._fail(data)
        if self.open_name is not None:
            raw = None if self._value is None else bytes(self._value)
            end = self.offset + at - 1
            self.fields.append(FormField(self.open_name, raw, self._content_start, end, self._length))
            self.open_name = self._value = None
        self._carry = b""
        self._state = _HEAD
        self._head_start = self.offset + at + len(self._needle)
        return at + len(self._needle)

    def _in_head(self, data: bytes, pos: int) -> int:
        head = self._head
        before = len(head)
        head += data[pos : pos + HEAD_BYTES_MAX + 1 - before]
        if head[0] == _DASH:
            if len(head) == 1:
                return len(data)
            if head[1] != _DASH:
                return self._fail(data)
            self.document_end = self._head_start + 2
            self._state = _CLOSING
            head.clear()
            return pos + 2 - before
        if head[0] not in b" \t\r":
            return self._fail(data)
        at = head.find(b"\r\n\r\n", max(0, before - 3))
        if at < 0:
            return len(data) if len(head) <= HEAD_BYTES_MAX else self._fail(data)
        lines = bytes(head[: at + 2])
        head.clear()
        self._content_start = self._head_start + at + 4
        if not self._begin_part(lines):
            return self._fail(data)
        self._carry = b"\n"  # a delimiter right behind the head is none to some servers: it fails as a bare line feed
        self._state = _CONTENT
        return pos + at + 4 - before

    def _begin_part(self, head: bytes) -> bool:
        """Read the head of a part, from behind the boundary to its last line end. False: it is not to be trusted."""
        disposition: bytes | None = None
        plain, self._length = True, None
        padding, *lines = head.split(b"\r\n")[:-1]
        at = self._head_start + len(padding) + 2
        if padding.strip(b" \t") or self._needle in head:
            return False
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not _FIELD_NAME.fullmatch(name) or b"\n" in value or b"\r" in value or b"\0" in value:
                return False
            key = name.lower()
            if key == b"content-disposition":
                if disposition is not None:
                    return False
                disposition = value.strip(b" \t")
            elif key == b"content-length" and value.strip(b" \t").isdigit():
                start = at + len(line) - len(value.lstrip(b" \t"))
                self._length = (start, start + len(value.strip(b" \t")))
            elif key == b"content-transfer-encoding":
                plain = value.strip(b" \t").lower() in _PLAIN
            at += len(line) + 2
        parameters = _parameters(disposition) if disposition is not None else {}
        if parameters is None:
            return False
        name = parameters.get(b"name", b"")
        self.open_name = self._names.get(name)
        if self.open_name is not None:
            if self.open_name in self._seen:
                self.duplicates.add(self.open_name)
            self._seen.add(self.open_name)
            is_file = not {b"filename", b"filename*"}.isdisjoint(parameters)
            self._value = bytearray() if plain and not is_file else None
        return True

    def _closing(self, data: bytes, pos: int) -> int:
        match = _PADDING.match(data, pos)
        pos = pos if match is None else match.end()
        if pos == len(data):
            return pos
        if data[pos] not in (_CR, _LF):  # a longer boundary to some servers, the end to others
            return self._fail(data)
        self._state = _EPILOGUE
        return pos

    def _epilogue(self, data: bytes, pos: int) -> int:
        return len(data)

    _STEPS: ClassVar[tuple[Callable[["MultipartFields", bytes, int], int], ...]] = (
        _content,
        _in_head,
        _closing,
        _epilogue,
    )


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart/form-data content type; None where it is another type, or has no clear boundary.

    1 to 70 characters of RFC 2046, quoted or not. RFC 2231 pieces (`boundary*0`) and repeated ones are not clear.
    """
    kind, semicolon, rest = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data" or not semicolon or len(rest) > HEAD_BYTES_MAX:
        return None
    try:
        parameters = _parse(b";" + rest.rstrip().encode("ascii"))
    except UnicodeEncodeError:
        return None
    if parameters is None or any(key.startswith(b"boundary*") for key in parameters):
        return None
    boundary = parameters.get(b"boundary", b"")
    return boundary if _BOUNDARY.fullmatch(boundary) else None


def _parameters(disposition: bytes) -> dict[bytes, bytes] | None:
    """The parameters of a Content-Disposition. None where its name could be read in two ways."""
    _, semicolon, rest = disposition.partition(b";")
    if not semicolon:
        return {}
    parameters = _parse(b";" + rest)
    # `name=` inside a quoted file name is a parameter to servers that end the quotes elsewhere
    if parameters is None or len(_NAMES.findall(disposition)) != (b"name" in parameters):
        return None
    return None if b"\\" in parameters.get(b"name", b"") else parameters


def _parse(text: bytes) -> dict[bytes, bytes] | None:
    """`; key=value; key="value"` by key in lower case, quoted pairs as written; None where it is anything else."""
    parameters: dict[bytes, bytes] = {}
    pos = 0
    while pos < len(text):
        match = _PARAMETER.match(text, pos)
        if match is None or match.end() == pos:
            return None
        pos = match.end()
        if match[1] is None:  # `;;`, or a semicolon at the end
            continue
        key = match[1].lower()
        if key in parameters:
            return None
        parameters[key] = match[2] if match[2] is not None else match[3]
    return parameters
