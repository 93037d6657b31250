"""Jumps over JSON that nobody wants, for `observability.wire.json_fields`.

Strings: `string_end` looks for the quote with memchr. Containers: `Skip`, which tries one expression first, that takes
strings, scalars and containers without containers; then looks at the brackets of a window one by one (60 ns each, a
value of a few bytes is over by then), and then takes whole windows, twice as large each time, until one holds the
value's end, which is then looked for by halves. So the work is in proportion to the bytes of the value, however small
it is and however it is nested.

A window is reduced to its brackets in C: what is inside quotes is cut out, everything but brackets is deleted, then
innermost pairs are removed. What remains are the closers of containers that began before the window and the openers of
those that go on after it. That costs 4 to 12 ns a byte of a usual document, 50 where all bytes are brackets, and
100 where these stay so near to DEPTH_MAX that they must be counted one by one.

No validator: `[1 2]` passes. But what lenient parsers (YAML, Gson, JSON5) read differently fails, since who may ask for
which model must not depend on whose reading is right: quotes and brackets that they hide in comments, in single quotes
or in bare words. So outside strings there are only the characters of JSON's scalars and its punctuation, a string
begins only after a comma, a colon or an opener, and a colon follows only a string.
"""

import re
import string
from itertools import islice

from observability.wire import json_paths

DEPTH_MAX = 512
"""Nested containers. orjson gives up at 1024, CPython's json at about 1000; tool schemas stay below 30."""

MORE, MALFORMED = -1, -2
"""What `Skip.take` says where the value goes on after the piece, and where it is none."""

OPEN, OPEN_ESCAPED = -1, -2
"""What `string_end` says of a string without end; OPEN_ESCAPED: the first byte of the next piece is escaped."""

WINDOW_BYTES_MAX = 8192
"""Large enough that calls cost nothing, small enough that the temporary pieces (one for each quote) do not either."""
WINDOW_BYTES_MIN = 256
"""The first window, and the last: brackets are looked at one by one."""

_STEPS_MAX = 2
# Brackets up to which the expression is tried: an element of an embeddings answer takes one, a message two.

_SKIPPED = re.compile(
    rb"(?:" + json_paths.ATOMS + rb"|(?:" + json_paths.LEAF + rb")" + json_paths.SPACE + rb'(?!"))*+', re.DOTALL
)
# Everything up to the next bracket that matters, to a string too long for an expression, or to what is no JSON.
_ESCAPES = re.compile(rb'(?:\\.[^"\\]{0,256}+)++', re.DOTALL)
_RUNS = re.compile(rb"([\[{]++)([\]}]*+)")
_BRACKET = re.compile(rb"[\[\]{}]")

_SPACE_BYTES = b" \t\n\r"
_QUOTE = ord('"')
_OPENERS = frozenset(b"{[")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_CLOSER_OF = bytes.maketrans(b"{[", b"}]")

# What a byte outside strings is: a comma or an opener, a colon, a quote (of a whole string), the end of another value
# (`0`: a part of a scalar or a closer), or nothing that JSON has there.
_CLASSES = bytearray(b"!" * 256)
for _class, _members in (
    (b",", b",{["),
    (b":", b":"),
    (b'"', b'"'),
    (b"0", b"-+.}]" + string.digits.encode() + string.ascii_letters.encode()),
):
    for _byte in _members:
        _CLASSES[_byte] = _class[0]
# What `_read` is told of the byte before: it must see a key before its colon, and a comma before that.
_LAST = {b",": b",", b":": b",", b'"': b',"', b"0": b"0"}


class Skip:
    """Jumps over one container after another: `begin` behind its opener, then `take` until it is over."""

    __slots__ = ("_closers", "_escaped", "_last", "_string_open")

    def __init__(self) -> None:
        self._closers = bytearray()  # of the open containers, innermost last
        self._string_open = False
        self._escaped = False
        self._last = b","  # the class of the last byte that was no space, of _LAST

    def begin(self, closer: int) -> None:
        """A container begins whose end is the bracket `closer`."""
        self._closers.append(closer)
        self._last = b","

    def take(self, data: bytes, pos: int) -> int:
        """Go on at `pos`: the position after the container's last bracket, or MORE or MALFORMED."""
        window_bytes, grows, steps = WINDOW_BYTES_MIN, True, 0
        while True:
            if self._string_open:
                stop = string_end(data, pos + self._escaped)
                self._escaped = stop == OPEN_ESCAPED
                if stop < 0:
                    return MORE
                self._string_open = False
                pos = stop
            if pos == len(data):
                return MORE
            if steps < _STEPS_MAX and self._last == b",":
                steps += 1
                pos = self._step(data, pos)
            else:
                # not to end between a backslash and what it escapes; there is none outside strings
                window = data[pos : pos + window_bytes].rstrip(b"\\")
                if not window:
                    return MALFORMED
                if window_bytes > WINDOW_BYTES_MIN:
                    jumped = self._jump(window)
                    pos += len(window) if jumped else 0
                    grows = grows and jumped
                else:
                    stop = self._walk(window)
                    pos = pos + stop if stop >= 0 else MALFORMED
                window_bytes = window_bytes * 2 if grows else max(window_bytes // 2, WINDOW_BYTES_MIN)
                window_bytes = min(window_bytes, WINDOW_BYTES_MAX)
            if pos < 0 or not self._closers:
                return pos

    def _step(self, data: bytes, pos: int) -> int:
        """Jump to the next bracket and over it; where something else is in the way, only to it."""
        match = _SKIPPED.match(data, pos)
        stop = pos if match is None else match.end()
        if tail := data[pos:stop].rstrip(_SPACE_BYTES):
            self._last = _LAST[tail[-1:].translate(_CLASSES)]
        if stop == len(data):
            return stop
        byte = data[stop]
        if byte == _QUOTE:
            self._string_open = True
            self._last = b',"'
        elif byte in _OPENERS:
            if not self._open(byte):
                return MALFORMED
            self._last = b","
        elif byte in b"}]":
            if self._closers.pop() != byte:
                return MALFORMED
            self._last = b"0"
        else:
            return stop
        return stop + 1

    def _open(self, opener: int) -> bool:
        self._closers.append(opener + 2)  # } and ] are two after { and [
        return len(self._closers) <= DEPTH_MAX

    def _walk(self, window: bytes) -> int:
        """Look at the brackets one by one: the position after the last one, or after the window; or MALFORMED."""
        window = _masked(window)
        end = self._end_in(window)
        if end < 0:
            return MALFORMED
        seen = _read(window[:end], self._last)
        if seen is None:
            return MALFORMED
        self._last, _, self._string_open = seen
        return end

    def _end_in(self, window: bytes) -> int:
        start = 0
        outside = True
        for part in window.split(b'"'):
            if outside:
                for order, bracket in enumerate(part.translate(None, _NOT_BRACKETS)):
                    if bracket in _OPENERS:
                        if not self._open(bracket):
                            return MALFORMED
                    elif self._closers.pop() != bracket:
                        return MALFORMED
                    elif not self._closers:
                        return start + next(islice(_BRACKET.finditer(part), order, None)).end()
            start += len(part) + 1
            outside = not outside
        return len(window)

    def _jump(self, window: bytes) -> bool:
        """Jump over the whole window; False: the value may end in it, it must be looked at closely."""
        seen = _read(_masked(window), self._last)
        reduced = None if seen is None else reduce_brackets(seen[1].translate(None, _NOT_BRACKETS))
        if seen is None or reduced is None:
            return False
        closers, opened, height_max = reduced
        kept = len(self._closers) - len(closers)
        if kept <= 0 or len(self._closers) + height_max > DEPTH_MAX or self._closers[: kept - 1 : -1] != closers:
            return False
        self._closers[kept:] = opened
        self._last, _, self._string_open = seen
        return True


def _masked(window: bytes) -> bytes:
    """The same with all quotes and backslashes that are escaped, and what escapes them, made `_`."""
    if b"\\" in window:
        window = window.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    return window


def _read(window: bytes, last: bytes) -> tuple[bytes, bytes, bool] | None:
    """Read a masked window that begins outside a string, behind a byte of the class `last`; None: it is no JSON.

    Returns the class of its last byte, what is outside strings, each of which is one quote, and whether one is open.
    """
    parts = window.split(b'"')
    outside = b'"'.join(parts[::2])
    if string_open := len(parts) % 2 == 0:
        outside += b'"'
    classes = last + outside.translate(_CLASSES, _SPACE_BYTES)
    if b"!" in classes:
        return None
    if b'"' in classes or b":" in classes:
        # without the keys, whose colons they take with them, no colon may be left, and a comma is before each string
        values = classes.replace(b',":', b",")
        if b":" in values or values.count(b',"') < values.count(b'"'):
            return None
    return _LAST[classes[-1:]], outside, string_open


def reduce_brackets(brackets: bytes) -> tuple[bytes, bytes, int] | None:
    """Take out all pairs; None where brackets of two kinds meet.

    Returns the closers without opener, the closers that the openers left wait for (outermost first), and a bound for
    the height: of the containers open at once, of those that were opened here.
    """
    # A round of `replace` takes the innermost pairs, 5 ns a byte. Once it takes less than an eighth, pairs are far
    # apart, and going from one to the next is faster: a run of openers and one of closers cost 0.5 µs, however long.
    rounds = 0
    size = len(brackets) + 1
    while len(brackets) * 8 < size * 7 or rounds == 0:
        size = len(brackets)
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
        rounds += 1
    rest = brackets.lstrip(b"}]")
    closers = brackets[: len(brackets) - len(rest)]
    opened = bytearray()
    height_max = 0
    for up, down in _RUNS.findall(rest):
        opened += up.translate(_CLOSER_OF)
        height_max = max(height_max, len(opened))
        if down:
            meeting = opened[: -len(down) - 1 : -1]
            if not down.startswith(meeting):
                return None
            del opened[-len(down) :]
            closers += down[len(meeting) :]
    return closers, bytes(opened), height_max + 2 * rounds


def string_end(data: bytes, pos: int) -> int:
    """The position after the quote that ends the string in which `pos` is; OPEN or OPEN_ESCAPED if there is none."""
    quote = data.find(b'"', pos)
    while True:
        slash = data.find(b"\\", pos, quote if quote >= 0 else len(data))
        if slash < 0:
            return quote + 1 if quote >= 0 else OPEN
        match = _ESCAPES.match(data, slash)
        if match is None:  # the backslash is the last byte
            return OPEN_ESCAPED
        pos = match.end()
        if 0 <= quote < pos:  # that one was escaped
            quote = data.find(b'"', pos)
