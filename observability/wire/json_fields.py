"""Reads chosen values out of one JSON document that passes by in pieces, without holding it.

How it works: only containers that lie on a wanted path are walked token by token (they have few members); everything
else is jumped over in C. Inside a string the next quote is looked for with `bytes.find`, so 64 MiB of base64 cost a
memchr; other nested values are jumped over by `observability.wire.json_skip`. What is held is bounded: wanted values up
to `value_bytes_max` each and `HELD_BYTES_MAX` together, one key up to `KEY_BYTES_MAX`, one byte a level of nesting.

The scanner never raises on any input; it sets `failed` and ignores the rest. It checks the structure of what it walks,
and of what it skips the balance of brackets and that quotes stand where JSON has them. It is no validator: `[1 2]` in a
skipped value passes.
"""

import json
import re
from collections.abc import Callable
from typing import ClassVar

from observability.wire import json_paths, json_skip
from observability.wire.json_paths import KEY_BYTES_MAX, Field, Node, Path, Paths, folded
from observability.wire.json_skip import Skip

VALUE_BYTES_MAX = 16384
"""Of one wanted value. A usage object with all details has under 1 KiB, a model name under 100 bytes."""
HELD_BYTES_MAX = 262144
"""Of all wanted values together: 128 choices with 2 KiB each."""
FIELDS_MAX = 2048
"""Wanted values; the scanner gives up beyond. The OpenAI protocol allows n=128, of each choice 11 values are wanted."""
WALKED_MAX = 65536
"""Values walked in Python, about 3 µs each, before the scanner gives up; an embeddings answer has 2048 at most."""
WALKED_OF_REQUEST_MAX = 1024
"""The same for requests, which anybody may send: they have about 30 members, and as many parameters."""

_SPACE = re.compile(json_paths.SPACE)
_SCALAR = re.compile(json_paths.SCALAR + rb"*+")

_BOM = b"\xef\xbb\xbf"
_QUOTE, _COMMA, _COLON, _BACKSLASH = b'",:\\'
_BRACE, _BRACE_END, _BRACKET, _BRACKET_END = b"{}[]"
_SCALAR_STARTS = frozenset(b"-0123456789tfnNI")

_START, _VALUE, _FIRST_VALUE, _FIRST_KEY, _NEXT_KEY, _IN_KEY = range(6)
_AFTER_KEY, _IN_STRING, _IN_SCALAR, _IN_SKIPPED, _AFTER_VALUE, _DONE = range(6, 12)


class JsonFields:
    """One pass over one document: `feed` its pieces in order, then `end`; read the attributes at any time."""

    __slots__ = (
        "_bom",
        "_escaped",
        "_field_from",
        "_field_held",
        "_field_start",
        "_frames",
        "_indices",
        "_key",
        "_lookalikes",
        "_node",
        "_seen",
        "_skip",
        "_state",
        "_value_bytes_max",
        "_walked",
        "_walked_max",
        "counts",
        "document_end",
        "document_start",
        "duplicates",
        "failed",
        "fields",
        "held_bytes",
        "lookalikes",
        "offset",
        "open_path",
        "trailing",
    )

    def __init__(self, paths: Paths, *, value_bytes_max: int = VALUE_BYTES_MAX, walked_max: int = WALKED_MAX) -> None:
        self.fields: list[Field] = []
        """What was found so far, in the order of the document; of duplicates the later is what most parsers take."""
        self.counts: dict[Path, int] = {}
        """Elements begun, for each counted array that came."""
        self.duplicates: set[str] = set()
        """Wanted top-level keys that came more than once."""
        self.lookalikes: set[str] = set()
        """Wanted top-level keys that came in other letters: servers in Go and .NET take `Model` for `model`."""
        self.document_start: int | None = None
        """Offset of the document's first byte (its brace) in the stream."""
        self.document_end: int | None = None
        """Offset after its last byte; None until then."""
        self.trailing = False
        """Something other than white space follows the document."""
        self.failed = False
        """The document is malformed or nested too deeply."""
        self.offset = 0
        """Bytes fed so far."""
        self.held_bytes = 0
        """Bytes of captured values."""
        self.open_path: Path | None = None
        """Of the wanted value that has begun and not ended."""
        self._value_bytes_max = value_bytes_max
        self._walked_max = walked_max
        self._state = _START
        self._walked = 0
        self._lookalikes = paths.lookalikes
        self._bom = 0  # bytes of a byte order mark seen
        self._node: Node | None = paths.root  # of the value to come
        self._frames: list[tuple[Node, bool]] = []  # containers being walked: what is wanted below, is it an array
        self._indices: list[int] = []  # position in each array being walked
        self._seen: set[bytes] = set()
        self._key = bytearray()
        self._skip = Skip()
        self._escaped = False
        self._field_start = 0
        self._field_from = 0  # where the field begins in the present piece
        self._field_held: bytearray | None = None

    @property
    def complete(self) -> bool:
        """The document was whole."""
        return self._state == _DONE and not self.failed

    @property
    def open_start(self) -> int | None:
        """Offset of the first byte of that value."""
        return self._field_start if self.open_path is not None else None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream, of any size."""
        end = len(data)
        pos = 0
        while pos < end and not self.failed:
            pos = self._STEPS[self._state](self, data, pos)
        if self.open_path is not None:
            self._hold_field(data[self._field_from : self._field_from + self._value_bytes_max + 1])
            self._field_from = 0
        self.offset += end

    def end(self) -> None:
        """The stream ended: a number at the top level is whole only now."""
        if self._state == _IN_SCALAR and not self._frames and not self.failed:
            self._state = _DONE
            self.document_end = self.offset

    # Each step takes the piece and a position before its end, and returns the position it came to.

    def _fail(self, data: bytes) -> int:
        self.failed = True
        self.open_path = None
        self._field_held = None
        self._key.clear()
        return len(data)

    def _start(self, data: bytes, pos: int) -> int:
        at = self.offset + pos
        if at == self._bom < 3 and data[pos] == _BOM[at]:
            self._bom += 1
            return pos + 1
        if self._bom % 3:  # a part of a mark
            return self._fail(data)
        pos = self._space(data, pos)
        if pos < len(data):
            self.document_start = self.offset + pos
            self._state = _VALUE
        return pos

    def _value(self, data: bytes, pos: int) -> int:
        pos = self._space(data, pos)
        if pos == len(data):
            return pos
        self._walked += 1
        if self._walked > self._walked_max or len(self.fields) >= FIELDS_MAX:
            return self._fail(data)
        byte, node = data[pos], self._node
        if node is not None and node.path is not None and not (byte == _BRACE and node.keys):
            self.open_path = node.path
            self._field_start = self.offset + pos
            self._field_from = pos
            self._field_held = bytearray()
        if byte == _QUOTE:
            self._state = _IN_STRING
            return pos + 1
        if byte == _BRACE:
            if node is not None and node.keys:
                return self._walk_into(node, False, pos)
            return self._skip_into(_BRACE_END, pos)
        if byte == _BRACKET:
            if node is not None and (node.elements is not None or node.counted is not None):
                return self._walk_into(node, True, pos)
            return self._skip_into(_BRACKET_END, pos)
        if byte not in _SCALAR_STARTS:
            return self._fail(data)
        self._state = _IN_SCALAR
        return pos

    def _walk_into(self, node: Node, is_array: bool, pos: int) -> int:
        self._frames.append((node, is_array))  # never more than the longest path
        if is_array:
            self._indices.append(0)
            if node.counted is not None:
                self.counts[node.counted] = 0
        self._state = _FIRST_VALUE if is_array else _FIRST_KEY
        return pos + 1

    def _skip_into(self, closer: int, pos: int) -> int:
        self._skip.begin(closer)
        self._state = _IN_SKIPPED
        return pos + 1

    def _first_value(self, data: bytes, pos: int) -> int:
        pos = self._space(data, pos)
        if pos == len(data):
            return pos
        if data[pos] == _BRACKET_END:
            return self._close(data, pos)
        self._next_element()
        return pos

    def _next_element(self) -> None:
        node = self._frames[-1][0]
        if node.counted is not None:
            self.counts[node.counted] += 1
        self._node = node.elements
        self._state = _VALUE

    def _next_key(self, data: bytes, pos: int) -> int:
        match = self._frames[-1][0].members.match(data, pos)
        if match is not None and match.end() > pos:
            pos = match.end()
            self._state = _NEXT_KEY
        pos = self._space(data, pos)
        if pos == len(data):
            return pos
        if data[pos] == _QUOTE:
            self._state = _IN_KEY
            return pos + 1
        if data[pos] == _BRACE_END and self._state == _FIRST_KEY:
            return self._close(data, pos)
        return self._fail(data)

    def _in_key(self, data: bytes, pos: int) -> int:
        stop = self._string_end(data, pos)
        # One byte more than a key may have is held: enough to see that it is none of ours.
        self._key += data[pos : stop if stop >= 0 else len(data)][: KEY_BYTES_MAX + 2 - len(self._key)]
        if stop < 0:
            return len(data)
        raw = bytes(self._key[:-1])
        self._key.clear()
        if len(raw) <= KEY_BYTES_MAX and _BACKSLASH in raw:
            try:
                raw = json.loads(b'"%b"' % raw, strict=False).encode("utf-8", "surrogatepass")
            except ValueError:
                return self._fail(data)
        self._node = self._frames[-1][0].keys.get(raw)
        if len(self._frames) == 1:
            if self._node is None:
                if (alike := self._lookalikes.get(folded(raw))) is not None:
                    self.lookalikes.add(alike)
            else:
                if raw in self._seen:
                    self.duplicates.add(raw.decode())
                self._seen.add(raw)
        self._state = _AFTER_KEY
        return stop

    def _after_key(self, data: bytes, pos: int) -> int:
        pos = self._space(data, pos)
        if pos == len(data):
            return pos
        if data[pos] != _COLON:
            return self._fail(data)
        self._state = _VALUE
        return pos + 1

    def _in_string(self, data: bytes, pos: int) -> int:
        stop = self._string_end(data, pos)
        return self._value_end(data, stop) if stop >= 0 else len(data)

    def _in_scalar(self, data: bytes, pos: int) -> int:
        stop = pos if (match := _SCALAR.match(data, pos)) is None else match.end()
        return self._value_end(data, stop) if stop < len(data) else stop

    def _in_skipped(self, data: bytes, pos: int) -> int:
        stop = self._skip.take(data, pos)
        if stop >= 0:
            return self._value_end(data, stop)
        return len(data) if stop == json_skip.MORE else self._fail(data)

    def _after_value(self, data: bytes, pos: int) -> int:
        pos = self._space(data, pos)
        if pos == len(data):
            return pos
        is_array = self._frames[-1][1]
        if data[pos] == _COMMA:
            if is_array:
                self._indices[-1] += 1
                self._next_element()
            else:
                self._state = _NEXT_KEY
            return pos + 1
        if data[pos] == (_BRACKET_END if is_array else _BRACE_END):
            return self._close(data, pos)
        return self._fail(data)

    def _done(self, data: bytes, pos: int) -> int:
        if self._space(data, pos) < len(data):
            self.trailing = True
        return len(data)

    def _close(self, data: bytes, pos: int) -> int:
        if self._frames.pop()[1]:
            self._indices.pop()
        return self._value_end(data, pos + 1)

    def _value_end(self, data: bytes, pos: int) -> int:
        if self.open_path is not None:
            self._end_field(data, pos)
        if self._frames:
            self._state = _AFTER_VALUE
        else:
            self._state = _DONE
            self.document_end = self.offset + pos
        return pos

    def _hold_field(self, piece: bytes) -> None:
        if self._field_held is not None:
            self._field_held += piece
            if len(self._field_held) > self._value_bytes_max:
                self._field_held = None

    def _end_field(self, data: bytes, pos: int) -> None:
        assert self.open_path is not None
        end = self.offset + pos
        raw = None
        room = min(self._value_bytes_max, HELD_BYTES_MAX - self.held_bytes)
        if self._field_held is not None and end - self._field_start <= room:
            raw = bytes(self._field_held) + data[self._field_from : pos]
            self.held_bytes += len(raw)
        self.fields.append(Field(self.open_path, tuple(self._indices), raw, self._field_start, end))
        self.open_path = None
        self._field_held = None

    def _string_end(self, data: bytes, pos: int) -> int:
        """The position after the quote that ends the open string, or less than 0: it goes on in the next piece."""
        stop = json_skip.string_end(data, pos + self._escaped)
        self._escaped = stop == json_skip.OPEN_ESCAPED
        return stop

    @staticmethod
    def _space(data: bytes, pos: int) -> int:
        return pos if (match := _SPACE.match(data, pos)) is None else match.end()

    _STEPS: ClassVar[tuple[Callable[["JsonFields", bytes, int], int], ...]] = (
        _start,
        _value,
        _first_value,
        _next_key,
        _next_key,
        _in_key,
        _after_key,
        _in_string,
        _in_scalar,
        _in_skipped,
        _after_value,
        _done,
    )
