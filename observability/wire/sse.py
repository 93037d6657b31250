"""Splits a stream of server-sent events, in pieces of any size, without holding more than one small event.

How it works: line ends are made LF first (only where the piece contains a CR at all), so that the rest knows one kind.
An event that lies whole in a piece, fields in the usual order, is taken by one regular expression (about 1 µs);
anything else goes line by line. What is held is one unfinished event of at most `data_bytes_max`; the data of a larger
one are handed out in pieces as they come, so that 64 MB of base64 in one line pass without being held.

It is lenient where servers are: the last event counts without its blank line (see `end`). Names and data stay bytes.
Source: HTML standard, 9.2.6 "Interpreting an event stream".
"""

import re
from enum import IntEnum
from typing import NamedTuple

DATA_BYTES_MAX = 65536
"""Of an event handed out in one piece. Text events have a few hundred bytes; up to here they are decoded at once."""
NAME_BYTES_MAX = 256
"""Of an event's name, the rest is cut. The longest in use has about 50."""

_BOM = b"\xef\xbb\xbf"
_EVENT = re.compile(
    rb"(?:id:[^\n]*+\n)?(?:event: ?+([^\n]*+)\n)?(?::[^\n]*+\n)?data: ?+([^\n]*+)\n\n",
)
# Between events: line by line, 64 KB of line feeds took 50 ms.
_NOTHING = re.compile(rb"(?:(?::[^\n]*+)?\n)++")


class Part(IntEnum):
    """Which part of an event's data one item carries."""

    WHOLE = 0
    PIECE = 1
    """Of an event larger than `data_bytes_max`; more follows."""
    LAST = 2
    """The end of such an event (may be empty)."""


class Item(NamedTuple):
    """An event, or a part of a large one."""

    name: bytes
    """The value of `event:`, empty if there was none. Of a large event final only with its last part."""
    data: bytes
    part: Part


class SseSplitter:
    """One pass over one stream: `feed` gives the events that are over (and parts of large ones), `end` the last."""

    __slots__ = (
        "_after_cr",
        "_data",
        "_data_bytes",
        "_data_bytes_max",
        "_in_data_line",
        "_large",
        "_line",
        "_name",
        "_skip_line",
        "_start",
    )

    def __init__(self, *, data_bytes_max: int = DATA_BYTES_MAX) -> None:
        self._data_bytes_max = data_bytes_max
        self._start: bytes | None = b""  # the first bytes, until it is clear that they are no byte order mark
        self._after_cr = False
        self._line = bytearray()  # an unfinished line, without its line end
        self._skip_line = False  # the unfinished line is too long to be held and no data
        self._in_data_line = False  # the unfinished line is data of a large event, handed out as it comes
        self._name = b""
        self._data: list[bytes] | None = None  # the event's data lines so far; None: no data field yet
        self._data_bytes = 0
        self._large = False  # data of the event were handed out already

    def feed(self, piece: bytes) -> list[Item]:
        """Take the next piece of the stream; returns what it finished, in order."""
        if not piece:
            return []
        if self._start is not None:
            piece = self._start + piece
            if len(piece) < 3 and _BOM.startswith(piece):
                self._start = piece
                return []
            self._start = None
            piece = piece.removeprefix(_BOM)
        if self._after_cr or b"\r" in piece:
            piece = self._only_lf(piece)
        items: list[Item] = []
        pos = 0
        if self._line or self._skip_line or self._in_data_line:
            pos = piece.find(b"\n") + 1
            if pos == 0:
                self._extend_line(piece, items)
                return items
            self._extend_line(piece[: pos - 1], items)
            self._end_line(items)
        end = len(piece)
        while pos < end:
            if self._data is None and not self._name:
                if (match := _EVENT.match(piece, pos)) is not None:
                    name, data = match.groups()
                    if len(data) <= self._data_bytes_max:
                        items.append(Item(name[:NAME_BYTES_MAX] if name else b"", data, Part.WHOLE))
                        pos = match.end()
                        continue
                elif (match := _NOTHING.match(piece, pos)) is not None:
                    pos = match.end()
                    continue
            stop = piece.find(b"\n", pos)
            if stop < 0:
                self._extend_line(piece[pos:], items)
                break
            self._extend_line(piece[pos:stop], items)
            self._end_line(items)
            pos = stop + 1
        return items

    def end(self) -> list[Item]:
        """The stream ended cleanly; returns an event that lacks only its blank line.

        The standard drops it, but servers that close right after the last line exist, and clients that read lines
        (DashScope's SDK) take it.
        """
        items: list[Item] = []
        if self._line or self._skip_line or self._in_data_line:
            self._end_line(items)
        self._end_event(items)
        return items

    def _only_lf(self, piece: bytes) -> bytes:
        if self._after_cr:
            piece = piece.removeprefix(b"\n")
        self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _extend_line(self, piece: bytes, items: list[Item]) -> None:
        if self._skip_line:
            return
        if self._in_data_line:
            self._hand_out(piece, items)
            return
        self._line += piece
        if len(self._line) + self._data_bytes <= self._data_bytes_max + 6:  # len("data: ")
            return
        if not self._line.startswith(b"data:"):
            name_line_bytes_max = NAME_BYTES_MAX + 7  # len("event: ")
            self._skip_line = len(self._line) > max(self._data_bytes_max, name_line_bytes_max)
            if self._skip_line:
                self._end_field(bytes(self._line[:name_line_bytes_max]), items)
                self._line.clear()
            return
        self._in_data_line = True
        value = bytes(self._line[5:]).removeprefix(b" ")
        self._line.clear()
        self._begin_data(items)
        self._hand_out(value, items)

    def _end_line(self, items: list[Item]) -> None:
        line = bytes(self._line)
        self._line.clear()
        if self._in_data_line or self._skip_line:
            self._in_data_line = self._skip_line = False
        elif line:
            self._end_field(line, items)
        else:
            self._end_event(items)

    def _end_field(self, line: bytes, items: list[Item]) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._name = value[:NAME_BYTES_MAX]
        elif name == b"data":
            self._begin_data(items)
            if self._large:
                self._hand_out(value, items)
                return
            assert self._data is not None
            self._data.append(value)
            self._data_bytes += len(value)
            if self._data_bytes > self._data_bytes_max:
                self._hand_out(b"", items)

    def _begin_data(self, items: list[Item]) -> None:
        """A further data line begins: the data before it end with a line feed."""
        if self._data is None:
            self._data = []
        elif self._large:
            items.append(Item(self._name, b"\n", Part.PIECE))
        else:
            self._data.append(b"\n")
            self._data_bytes += 1

    def _hand_out(self, piece: bytes, items: list[Item]) -> None:
        """From here on the event is a large one: nothing of it is held."""
        if self._data:
            piece = b"".join(self._data) + piece
            self._data.clear()
            self._data_bytes = 0
        self._large = True
        if piece:
            items.append(Item(self._name, piece, Part.PIECE))

    def _end_event(self, items: list[Item]) -> None:
        if self._large:
            items.append(Item(self._name, b"", Part.LAST))
        elif self._data is not None:
            items.append(Item(self._name, b"".join(self._data), Part.WHOLE))
        self._name = b""
        self._data = None
        self._data_bytes = 0
        self._large = False
