"""What the gateway changes in passing: the model and `stream_options.include_usage` of requests, and the chunk that
answers the latter, so that the client gets the stream it would have got.

A rewriter follows a body with a scan of its own (`observability.wire`), lets every piece pass as the object it is, and
cuts only those in which something changes: one for the model, one for the usage. It holds bytes back only while a value
that it may replace is open, 24 KiB at most. Pure: bytes in, bytes out. Everything that is not changed stays as it was,
byte for byte; so does the rest of a body from where it cannot be read.
"""

import re
from typing import Final

import orjson
from mypy_extensions import mypyc_attr

from observability.scanners import is_form, is_json, media_type
from observability.wire.json_fields import VALUE_BYTES_MAX, WALKED_OF_REQUEST_MAX, JsonFields
from observability.wire.json_paths import Field, Path, Paths
from observability.wire.multipart_fields import MultipartFields, boundary_of

MAX_HELD_EVENT_BYTES: Final = 16384
"""A usage chunk is under 1 KiB; an event that grows beyond this is none, and passes."""
WHOLE_BYTES_MAX: Final = 65536
"""Of a body decoded at once. A chat of many messages is decoded in half the time of a scan whatever its size; one long
string, an image, is scanned faster from 16 KiB on, and larger bodies have one."""

_MODEL: Final[Path] = ("model",)
_STREAM: Final[Path] = ("stream",)
_OPTIONS: Final[Path] = ("stream_options",)
_OF_MODEL: Final = Paths([_MODEL])
_OF_USAGE: Final = Paths([_STREAM, _OPTIONS])
_OF_BOTH: Final = Paths([_MODEL, _STREAM, _OPTIONS])
_OF_OPTIONS: Final = Paths([("include_usage",)])

_ASK: Final = b'"include_usage":true'
_ASK_MEMBER: Final = b',"stream_options":{"include_usage":true}'
_MODEL_VALUE: Final = re.compile(rb'"model"[ \t\n\r]*+:[ \t\n\r]*+("(?:[^"\\]++|\\.)*+")', re.DOTALL)

Edit = tuple[int, int, bytes]
"""Offsets of the first byte replaced and of the one after the last, and what goes there instead."""


@mypyc_attr(allow_interpreted_subclasses=True)  # proxy.translate's
class Rewriter:
    """One pass over one body, by `feed` and `end` or by `whole`; what they answer is to be sent.

    This one changes nothing.
    """

    __slots__ = ("_held", "_sent", "asked", "duplicated", "failed", "renamed")

    def __init__(self) -> None:
        self.renamed = False
        """The model has the wanted name."""
        self.asked = False
        """Usage is asked for in the client's place."""
        self.duplicated = False
        """There is a second model. All are replaced that can be, and the caller refuses the body."""
        self.failed = False
        """The body may have kept its model: it cannot be read, was cut, or has a model too large to be held."""
        self._held = bytearray()  # what was fed from the offset `_sent` on
        self._sent = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next piece of the body, of any size. Only a piece in which something changes is copied."""
        edits, hold_from = self._follow(data)
        held = self._held
        if not edits and not held and hold_from is None:
            self._sent += len(data)
            return [data] if data else []
        if not edits and hold_from == self._sent:
            held += data
            return []
        base = self._sent + len(held)
        pieces: list[bytes] = []
        done = self._sent
        for start, end, replacement in edits:
            pieces += self._cut(data, base, done, start)
            pieces.append(replacement)
            done = end
        stop = base + len(data) if hold_from is None else hold_from
        pieces += self._cut(data, base, done, stop)
        # a value that is still open began behind the one that ended, so in this piece
        self._held = bytearray(data[stop - base :])
        self._sent = stop
        return [piece for piece in pieces if piece]

    def _cut(self, data: bytes, base: int, start: int, end: int) -> tuple[bytes, bytes]:
        """The bytes between two offsets: of what is held, and of the piece, which begins at `base`."""
        held = bytes(self._held[start - self._sent : end - self._sent]) if start < base else b""
        return held, data[max(start, base) - base : max(end, base) - base]

    def end(self) -> list[bytes]:
        """The body is over: what was held back to its last byte."""
        self._finish()
        held, self._held = bytes(self._held), bytearray()
        self._sent += len(held)
        return [held] if held else []

    def whole(self, body: bytes) -> bytes:
        """Take a body that is all there, instead of `feed` and `end`."""
        pieces = self.feed(body) + self.end()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _follow(self, data: bytes) -> tuple[list[Edit], int | None]:
        """What changes now, in order, and from which offset on bytes must wait; None: none must."""
        return [], None

    def _finish(self) -> None:
        """The body is over."""


class BodyRewriter(Rewriter):
    """Rewrites the top-level `model` of a JSON document, or asks for usage, or both.

    `model` is replaced where it is a string. Usage is asked for where `stream` is true and `stream_options` are absent,
    null, or an object in which `include_usage` is absent, null or false; with `feed` only options behind `stream`,
    since others are gone by then. Everything else, repeated keys too, is the upstream's to judge.
    """

    __slots__ = ("_ask", "_fields", "_looks_ahead", "_model", "_options_seen", "_read_count", "_streams")

    def __init__(self, model: str | None, ask_usage: bool) -> None:
        """`model`: the name to be written, None to leave it as it is."""
        super().__init__()
        self._model = None if model is None else orjson.dumps(model)
        self._ask = ask_usage  # still to be seen to
        self._fields: JsonFields | None = None
        self._read_count = 0
        self._streams: bool | None = None  # None: not seen yet
        self._options_seen = False
        self._looks_ahead = False  # nothing was sent yet: stream may come behind stream_options

    def whole(self, body: bytes) -> bytes:
        """Take a body that is all there, instead of `feed` and `end`. The same object where nothing changes.

        Of a body that can be read, that is.
        """
        written = self._at_once(body)
        if written is None:
            self._looks_ahead = True
            written = super().whole(body)
        return written

    def _at_once(self, body: bytes) -> bytes | None:
        """`whole` for nearly every small body: 2 µs instead of 30. None where it must be scanned."""
        # where a key stands once, and is not written with \u escapes, it is the one that orjson found
        # (`find` costs half of `in` for bytes, and that of a single byte nothing)
        if len(body) > WHOLE_BYTES_MAX or (body.find(b"\\") >= 0 and body.find(b"\\u00") >= 0):
            return None
        model = self._model
        if model is None and body.find(b'"stream"') < 0:
            return body
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(document, dict):
            return body
        asked = self._ask and document.get("stream") is True
        if asked and ("stream_options" in document or body.count(b'"stream"') > 1):
            return None
        if model is None or "model" not in document:
            start = end = 0
            model = b""
        else:
            key = body.find(b'"model"')
            value = _MODEL_VALUE.match(body, key)
            if value is None or body.find(b'"model"', key + 7) >= 0:
                return None
            start, end = value.span(1)
            if end - start > VALUE_BYTES_MAX:
                return None
            self.renamed = True
        if asked:
            self.asked = True
            brace = body.rindex(b"}")
            return b"".join((body[:start], model, body[end:brace], _ASK_MEMBER, body[brace:]))
        return body if body[start:end] == model else b"".join((body[:start], model, body[end:]))

    def _follow(self, data: bytes) -> tuple[list[Edit], int | None]:
        fields = self._fields
        if fields is None:
            paths = _OF_BOTH if self._ask and self._model is not None else _OF_USAGE if self._ask else _OF_MODEL
            fields = self._fields = JsonFields(paths, walked_max=WALKED_OF_REQUEST_MAX)
        fields.feed(data)
        edits: list[Edit] = []
        if len(fields.fields) > self._read_count:
            edits = self._edits(fields.fields[self._read_count :])
            self._read_count = len(fields.fields)
        self.duplicated = "model" in fields.duplicates
        if fields.failed:
            self.failed = True
        elif fields.document_end is not None and self._may_ask:
            self._ask, self.asked = False, True
            brace = fields.document_end - 1  # of an object, since it has a member
            edits.append((brace, brace, _ASK_MEMBER))
        return edits, self._hold_from(fields)

    def _hold_from(self, fields: JsonFields) -> int | None:
        start = fields.open_start
        if start is None or not (fields.open_path == _MODEL or (fields.open_path == _OPTIONS and self._may_ask)):
            return None
        if fields.offset - start <= VALUE_BYTES_MAX:
            return start
        if fields.open_path == _MODEL:
            self.failed = True
        return None

    @property
    def _may_ask(self) -> bool:
        return self._ask and self._streams is True and not self._options_seen

    def _edits(self, fields: list[Field]) -> list[Edit]:
        edits: list[Edit] = []
        if self._looks_ahead:
            fields = sorted(fields, key=lambda field: field.path != _STREAM)
        for field in fields:
            if field.path == _STREAM:
                self._ask = self._ask and self._streams is None
                self._streams = field.raw == b"true"
            elif field.path == _OPTIONS:
                asking = None if field.raw is None or not self._may_ask else _asking(field.raw)
                self._ask = self._ask and not self._options_seen
                self._options_seen = True
                if asking is not None:
                    self.asked = True
                    edits.append((field.start, field.end, asking))
            elif field.raw is None:
                self.failed = True
            elif field.raw.startswith(b'"') and self._model is not None:
                self.renamed = True
                if field.raw != self._model:
                    edits.append((field.start, field.end, self._model))
        return sorted(edits) if self._looks_ahead else edits

    def _finish(self) -> None:
        fields = self._fields
        if fields is not None and fields.offset:
            fields.end()
            self.failed = self.failed or not fields.complete or fields.trailing


class MultipartRewriter(Rewriter):
    """Replaces the value of the `model` field of a multipart/form-data body, and the Content-Length of its part."""

    __slots__ = ("_form", "_model", "_read_count")

    def __init__(self, model: str, boundary: bytes | None) -> None:
        """`boundary`: as `boundary_of` gives it; None: the body cannot be read."""
        super().__init__()
        self._model = model.encode()
        self._form = None if boundary is None else MultipartFields(boundary, ["model"])
        self._read_count = 0
        self.failed = boundary is None

    def _follow(self, data: bytes) -> tuple[list[Edit], int | None]:
        form = self._form
        if form is None:
            return [], None
        form.feed(data)
        edits: list[Edit] = []
        for field in form.fields[self._read_count :]:
            if field.raw is None:
                self.failed = True
                continue
            self.renamed = True
            if field.raw != self._model:
                if field.length is not None:
                    edits.append((*field.length, b"%d" % len(self._model)))
                edits.append((field.start, field.end, self._model))
        self._read_count = len(form.fields)
        self.duplicated = "model" in form.duplicates
        if form.failed or form.open_lost:
            self.failed = True
            return edits, None
        return edits, form.part_start

    def _finish(self) -> None:
        self.failed = self.failed or (self._form is not None and self._form.offset > 0 and not self._form.complete)


def rewriter_of(content_type: str, content_encoding: str, *, model: str | None, ask_usage: bool) -> Rewriter:
    """The rewriter for a body; the head's fields as received. `model`: to be written, None to leave it as it is.

    A body that is encoded, or neither JSON nor a form with parts, passes unchanged, and has `failed` from the start
    where a model was to be written.
    """
    kind = media_type(content_type)
    if content_encoding.strip().lower() in ("", "identity"):
        if is_json(kind):
            return BodyRewriter(model, ask_usage)
        if model is not None and is_form(kind):
            return MultipartRewriter(model, boundary_of(content_type))
    unchanged = Rewriter()
    unchanged.failed = model is not None
    return unchanged


def _asking(options: bytes) -> bytes | None:
    """`stream_options` with `include_usage` set; None where they are to stay."""
    if options == b"null":
        return b"{%b}" % _ASK
    fields = JsonFields(_OF_OPTIONS, walked_max=WALKED_OF_REQUEST_MAX)
    fields.feed(options)
    if not options.startswith(b"{") or not fields.complete or fields.duplicates:
        return None
    if not fields.fields:
        comma = b"," if options[1:-1].strip() else b""
        return b"%b%b%b}" % (options[:-1], comma, _ASK)
    value = fields.fields[0]
    if value.raw not in (b"false", b"null"):
        return None
    return b"%btrue%b" % (options[: value.start], options[value.end :])


class UsageChunkFilter:
    """Takes the usage chunk (`"choices": []` with a usage) out of a stream of server-sent events.

    `feed` answers what may go on to the client; how the stream is cut into pieces changes nothing. Bytes wait here only
    while an event is not whole, MAX_HELD_EVENT_BYTES at most. A byte of a piece is looked at a fixed number of times,
    however many events there are: a piece may hold 30 000 (256 KiB of keep-alive comments).
    """

    __slots__ = ("_held", "_passing", "withheld")

    def __init__(self) -> None:
        self._held = b""
        self._passing = False  # in an event that grew too large to be a usage chunk
        self.withheld = 0
        """Chunks taken out."""

    def feed(self, data: bytes) -> bytes:
        """The bytes that may go on."""
        searched = 0
        if self._held:
            searched = max(len(self._held) - _BLANK_BYTES, 0)  # there is no whole blank line in what is held
            data = self._held + data
        out = []
        kept = start = 0  # what is not in `out` yet, and the event that is not whole yet
        usage_at = data.find(_USAGE)
        for blank in _BLANK_LINE.finditer(data, searched):
            end = blank.end()
            if start <= usage_at < end:
                usage_at = data.find(_USAGE, end)
                if not self._passing and end - start <= MAX_HELD_EVENT_BYTES and _is_usage_chunk(data[start:end]):
                    out.append(data[kept:start])
                    kept = end
                    self.withheld += 1
            self._passing = False
            start = end
        if self._passing or len(data) - start > MAX_HELD_EVENT_BYTES:
            self._passing = True
            start = max(len(data) - _BLANK_BYTES, start)  # with what may be the first part of the blank line
        self._held = data[start:]
        passed = data[kept:start]
        return b"".join((*out, passed)) if out else passed

    def end(self) -> bytes:
        """What is still held when the stream is over."""
        held, self._held = self._held, b""
        return held


_USAGE: Final = b'"usage"'
_BLANK_LINE: Final = re.compile(rb"\n\r?\n|\r\r")
"""The end of an event: two line ends, each of them LF, CRLF or CR (of the mixed pairs those that occur)."""
_BLANK_BYTES: Final = 2
"""So many bytes of a blank line can have come without it being whole."""


_EMPTY_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')
"""Looked for before an event is decoded: servers that were asked for usage write `"usage":null` into every chunk, and
decoding costs half of the time that such an event takes here."""


def _is_usage_chunk(event: bytes) -> bool:
    if not _EMPTY_CHOICES.search(event):
        return False
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    try:
        document = orjson.loads(b"\n".join(lines))
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and document.get("choices") == [] and isinstance(document.get("usage"), dict)
