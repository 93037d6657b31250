"""Reads chosen form fields out of one multipart/form-data body that passes by in pieces, without holding it.

How it works: the content of a part is jumped over by looking for the next `--boundary` with `bytes.find`, so a file
costs 0.15 ns a byte; of a piece only as many bytes are kept for the next as may be the beginning of a delimiter. The
head of each part is held, up to `HEAD_BYTES_MAX`, and the value of a wanted field up to `value_bytes_max`.

Servers disagree on sloppy bodies: boundaries within a line or behind the end, bare line feeds, text behind a boundary,
two names in one part, names with spaces, quotes hidden in file names, charsets. Who may ask for which model must not
depend on whose reading is right, so whatever has two readings makes the scanner fail (`failed`); it never raises.
Sources: RFC 2046 5.1 (framing), RFC 7578 (form-data).
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
_CONTROL = re.compile(rb"[\0-\x08\n-\x1f\x7f]")
_PLAIN = (b"", b"7bit", b"8bit", b"binary")
_UTF_8 = (b"utf-8", b"utf8")
_CHARSETS = (*_UTF_8, b"us-ascii", b"iso-8859-1")
"""Read alike while all is ASCII. Java clients write the last; utf-7 and utf-16 turn other bytes into a name."""
_NESTED = (b"multipart/", b"message/")
_READ_ONCE = (b"content-disposition", b"content-length", b"content-transfer-encoding", b"content-type")

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
        "_ascii_only",
        "_carry",
        "_content_start",
        "_delimiter",
        "_head",
        "_head_start",
        "_length",
        "_names",
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
        """`boundary`: as `boundary_of` gives it. `names`: of the wanted fields, in lower case."""
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
        self._delimiter = b"\r\n--" + boundary
        self._value_bytes_max = value_bytes_max
        self._state = _CONTENT  # of nothing, as if a line had just ended
        self._carry = b"\r\n"  # the end of the content that was fed, as long as a delimiter less a byte at most
        self._head = bytearray()  # of the part that begins, from behind the boundary
        self._head_start = 0
        self._parts = 0
        self._seen: set[str] = set()
        self._content_start = 0
        self._value: bytearray | None = None  # of the open field, and what of the delimiter came; None: none is kept
        self._ascii_only = False  # the open field says a charset in which other characters would be others
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
        at = self._search(data, pos)
        if self._value is not None:
            # with what may be the beginning of the delimiter, which is cut off when it is over
            room = self._value_bytes_max + len(self._delimiter) - len(self._value)
            self._value += data[pos : min(pos + room, len(data))]
        if at is not None:
            joined = self._carry + data[pos : pos + 2]
            before = joined[: len(self._carry) + at - pos] if at < pos + 2 else data[at - 2 : at]
            return self._begin_head(data, at, preceded=before.endswith(b"\r\n"))
        self._carry = self._tail(data, pos)
        if self._value is not None:
            begun = self._carry[self._carry.rfind(b"\r") :]
            certain = self.offset + len(data) - self._content_start
            certain -= len(begun) if self._delimiter.startswith(begun) else 0
            if certain > self._value_bytes_max:
                self._value = None
        return len(data)

    def _search(self, data: bytes, pos: int) -> int | None:
        """Where the next `--boundary` begins; in an earlier piece: below `pos`, counted back from there.

        Wherever it stands. Only at the beginning of a line it is a delimiter, but there are servers that take it for
        one within a line (Django), or behind a bare CR (Werkzeug), and a file that has it by chance does not exist.
        """
        dashes = self._delimiter[2:]
        at = (self._carry + data[pos : pos + len(dashes) - 1]).find(dashes)
        if at >= 0:
            return pos - len(self._carry) + at
        at = data.find(dashes, pos)
        return at if at >= 0 else None

    def _tail(self, data: bytes, pos: int) -> bytes:
        """What has to be kept of the content: a delimiter may have begun in it."""
        size = len(self._delimiter) - 1
        return data[-size:] if len(data) - pos >= size else (self._carry + data[pos:])[-size:]

    def _begin_head(self, data: bytes, at: int, *, preceded: bool) -> int:
        """`--boundary` begins at `at`, which may be in an earlier piece. `preceded`: by the end of a line."""
        self._parts += 1
        if not preceded or self._parts > PARTS_MAX:
            return self._fail(data)
        if self._parts == 1 and self.offset + at > 2:  # Tornado reads what stands before all parts as one of them
            return self._fail(data)
        if self.open_name is not None:
            end = self.offset + at - 2
            size = end - self._content_start
            raw = None if self._value is None or size > self._value_bytes_max else bytes(self._value[:size])
            if self._ascii_only and raw is not None and not raw.isascii():
                return self._fail(data)
            self.fields.append(FormField(self.open_name, raw, self._content_start, end, self._length))
            self.open_name = self._value = None
        self._carry = b""
        self._state = _HEAD
        pos = at + len(self._delimiter) - 2
        self._head_start = self.offset + pos
        return pos

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
        self._carry = b""  # the end of the head is no part of a delimiter: some servers see none right behind a head
        self._state = _CONTENT
        return pos + at + 4 - before

    def _begin_part(self, head: bytes) -> bool:
        """Read the head of a part, from behind the boundary to its last line end. False: it is not to be trusted."""
        values = self._values_of(head)
        # without a disposition the head may be what some servers take for an empty one, and the real one stands behind
        if values is None or b"content-disposition" not in values:
            return False
        disposition = values[b"content-disposition"]
        parameters = _parameters(disposition)
        charset = _charset_of(values.get(b"content-type", b""))
        if parameters is None or charset is None:
            return False
        name = parameters.get(b"name", b"")
        self.open_name = self._names.get(name)
        if self.open_name is None:
            meant = _meant(name)
            return meant != b"_charset_" and meant not in self._names
        if disposition.partition(b";")[0].strip().lower() != b"form-data":
            return False
        if self.open_name in self._seen:
            self.duplicates.add(self.open_name)
        self._seen.add(self.open_name)
        is_file = not {b"filename", b"filename*"}.isdisjoint(parameters)
        is_plain = values.get(b"content-transfer-encoding", b"").lower() in _PLAIN
        self._value = bytearray() if is_plain and not is_file else None
        self._ascii_only = charset not in _UTF_8
        return True

    def _values_of(self, head: bytes) -> dict[bytes, bytes] | None:
        """The fields of a head that are read; None where one comes twice or a line is none. Notes `_length`."""
        values: dict[bytes, bytes] = {}
        self._length = None
        padding, *lines = head.split(b"\r\n")[:-1]
        at = self._head_start + len(padding) + 2
        if padding.strip(b" \t") or self._delimiter[2:] in head or not _is_utf_8(head):
            return None
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not _FIELD_NAME.fullmatch(name) or _CONTROL.search(value):
                return None
            key = name.lower()
            if key in _READ_ONCE:
                if key in values:
                    return None
                values[key] = value.strip(b" \t")
                if key == b"content-length" and values[key].isdigit():
                    start = at + len(line) - len(value.lstrip(b" \t"))
                    self._length = (start, start + len(values[key]))
            at += len(line) + 2
        return values

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
        if self._search(data, pos) is not None:  # Django and Tornado read parts behind the end, too
            return self._fail(data)
        self._carry = self._tail(data, pos)
        return len(data)

    _STEPS: ClassVar[tuple[Callable[["MultipartFields", bytes, int], int], ...]] = (
        _content,
        _in_head,
        _closing,
        _epilogue,
    )


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart/form-data content type; None where it is another type, or has no clear boundary.

    1 to 70 characters of RFC 2046, quoted or not. RFC 2231 pieces (`boundary*0`) and repeated ones are not clear; nor
    is a charset such as utf-7, in which servers may read the names of the fields.
    """
    kind, semicolon, rest = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data" or not semicolon or len(rest) > HEAD_BYTES_MAX:
        return None
    try:
        parameters = parameters_of(b";" + rest.rstrip().encode("ascii"))
    except UnicodeEncodeError:
        return None
    if parameters is None or any(key.startswith((b"boundary*", b"charset*")) for key in parameters):
        return None
    if parameters.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        return None
    boundary = parameters.get(b"boundary", b"")
    return boundary if _BOUNDARY.fullmatch(boundary) else None


def _parameters(disposition: bytes) -> dict[bytes, bytes] | None:
    """The parameters of a Content-Disposition. None where its name could be read in two ways."""
    _, semicolon, rest = disposition.partition(b";")
    if not semicolon:
        return {}
    parameters = parameters_of(b";" + rest)
    # `name=` inside a quoted file name is a parameter to servers that end the quotes elsewhere
    if parameters is None or len(_NAMES.findall(disposition)) != (b"name" in parameters):
        return None
    return None if b"\\" in parameters.get(b"name", b"") else parameters


def _charset_of(content_type: bytes) -> bytes | None:
    """What a part says of its charset, else utf-8. None where its content could be read in two ways."""
    kind = content_type.lower()
    if any(nested in kind for nested in _NESTED):
        return None
    if b"charset" not in kind:
        return _UTF_8[0]
    parameters = parameters_of(b";" + kind.partition(b";")[2])
    charset = None if parameters is None or kind.count(b"charset") > 1 else parameters.get(b"charset")
    return charset if charset in _CHARSETS else None


def _is_utf_8(head: bytes) -> bool:
    """Werkzeug gives a form without fields where it is not, Starlette takes it for Latin-1."""
    try:
        head.decode()
    except UnicodeDecodeError:
        return False
    return True


def _meant(name: bytes) -> bytes:
    """The field that lenient servers could take a name for.

    Django strips white space (of any alphabet), PHP also takes `'` for quotes and `model[0]` for `model`, and
    frameworks that fill in objects ignore the case.
    """
    text = name.decode().partition("[")[0]
    return text.strip().strip("'").strip().lower().encode()


def parameters_of(text: bytes) -> dict[bytes, bytes] | None:
    """`; key=value; key="value"` by key in lower case, quoted pairs as written; None where it is anything else, or has
    a key twice."""
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
