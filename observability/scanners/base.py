"""How a response is scanned: framing here, meaning in a reader for each protocol.

A Scanner takes the bytes of one response body as they pass and keeps its Findings up to date. It undoes the framing
(server-sent events, one JSON document, a content coding) and gives decoded documents to a Reader, which knows what the
protocol means by them. Documents up to WHOLE_BYTES_MAX are decoded at once by orjson; larger ones pass through
`wire.json_fields`, which finds the reader's `paths` without holding the rest, and reach the reader as a sparse document
of the same shape: one reader serves both.
"""

import re
from typing import Any, ClassVar

import orjson
from mypy_extensions import mypyc_attr

from observability.codings.decode import Decoder
from observability.findings import Findings
from observability.scanners.sparse import event_document, sparse_document
from observability.wire.json_fields import JsonFields
from observability.wire.json_paths import Path, Paths
from observability.wire.sse import Part, SseSplitter

WHOLE_BYTES_MAX = 65536
"""Of a document decoded at once: about 0.1 ms of orjson, and the most that a scanner holds of a body."""
TEXT_MAX = 256
"""Characters kept of an id, a model name or a code."""
CHOICES_MAX = 128
"""The OpenAI protocol's own limit of `n`."""

ERROR_PATHS: list[Path] = [
    ("error",),
    ("error", "code"),
    ("error", "type"),
    ("error", "message"),
    ("object",),
    ("code",),
    ("message",),
    ("request_id",),
]
"""Wanted of every answer, for `error_code_of`."""

_CODE = re.compile(r"[A-Za-z0-9][\w.:/()-]*", re.ASCII)
_EARLY_LOADS_MAX = 4
# A body may be whole before its connection says so; after this many pieces that only looked like its end we wait.


class Choices:
    """Which choices of a response were seen, and how they finished."""

    __slots__ = ("_open", "_reasons", "expected")

    def __init__(self) -> None:
        self.expected = 1
        """So many belong to the response, at least: one may end before the next has begun."""
        self._reasons: dict[int, str | None] = {}
        self._open = 0

    def see(self, index: int, reason: str | None) -> bool:
        """Note a choice, finished if there is a reason; True if that changed anything. Later reasons win."""
        reasons = self._reasons
        if index in reasons:
            before = reasons[index]
            if reason is None or reason == before:
                return False
            self._open -= before is None
        elif len(reasons) >= CHOICES_MAX:
            return False
        else:
            self._open += reason is None
        reasons[index] = reason
        return True

    @property
    def finished(self) -> bool:
        """All that were seen have finished, and as many were seen as there are."""
        return self._open == 0 and len(self._reasons) >= self.expected

    def finish_reasons(self) -> list[str]:
        """In the order of the index."""
        if len(self._reasons) == 1:  # as nearly always
            return [reason for reason in self._reasons.values() if reason is not None]
        return [reason for _, reason in sorted(self._reasons.items()) if reason is not None]


@mypyc_attr(allow_interpreted_subclasses=True)  # observability.content's
class Reader:
    """What the documents of one operation mean. Writes `findings`; may raise, the scanner then switches itself off."""

    __slots__ = ("findings",)

    paths: ClassVar[Paths]
    """What is looked for in a document too large to be decoded at once."""
    untyped_is_json: ClassVar[bool] = True
    """A body without a content type is taken for JSON: small internal servers leave it out."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings

    def expect(self, choices: int) -> None:
        """The request asked for so many choices. Said before the first event, if at all."""

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """One event of a stream; an event whose data are not a JSON object comes with an empty document."""
        raise NotImplementedError

    def body(self, document: dict[str, Any]) -> None:
        """A whole response."""
        raise NotImplementedError

    def done(self) -> None:
        """The stream said `[DONE]`."""
        self._settle(True)

    def end(self) -> None:
        """The stream ended cleanly. One that ended with an error is whole."""
        if self.findings.error_code is not None:
            self.findings.complete = True

    def output(self) -> None:
        """An event or a whole response carried output."""
        self.findings.first_output = True
        self.findings.output_events += 1

    def _settle(self, complete: bool) -> None:
        """Whether the stream is whole, as far as it has come; its usage is final then."""
        findings = self.findings
        findings.complete = complete
        findings.usage_final = complete and findings.usage_seen and findings.error_code is None


@mypyc_attr(allow_interpreted_subclasses=True)  # observability.content's
class Scanner:
    """Takes the bytes of one response body. This one looks at nothing: for bodies whose content says nothing."""

    __slots__ = ("_off", "findings")

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._off = False

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body. Never raises: a scanner that fails switches itself off."""
        if self._off:
            return
        try:
            self._take(data)
        except Exception:  # noqa: BLE001 - whatever is wrong in here must not hurt the exchange; `failed` is counted
            self.switch_off()

    def end(self) -> None:
        """The body ended cleanly (not called where it was cut). Never raises."""
        if self._off:
            return
        try:
            self._finish()
        except Exception:  # noqa: BLE001 - as above
            self.switch_off()

    def switch_off(self) -> None:
        """Stop looking: what is known may be incomplete."""
        self._off = True
        self.findings.failed = True
        self.findings.usage_final = False

    def _take(self, data: bytes) -> None:
        if data:
            self.findings.first_output = True

    def _finish(self) -> None:
        self.findings.complete = True


class JsonScanner(Scanner):
    """One JSON document."""

    __slots__ = ("_early_loads", "_fields", "_held", "_held_bytes", "_is_read", "_reader")

    def __init__(self, reader: Reader) -> None:
        self.findings = reader.findings
        self._off = False
        self._reader = reader
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._fields: JsonFields | None = None  # once the document is larger than what is held
        self._is_read = False
        self._early_loads = 0

    def switch_off(self) -> None:
        """Stop looking."""
        super().switch_off()
        self._held.clear()
        self._fields = None

    def _take(self, data: bytes) -> None:
        if self._fields is not None:
            self._fields.feed(data)
            self._read_fields(self._fields)
        elif not self._is_read:
            self._hold(data)
        elif data.strip():  # something follows the document: a client's JSON parser will refuse the body
            self.switch_off()

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > WHOLE_BYTES_MAX:
            self._fields = self._fields_of_held()
            self._read_fields(self._fields)
        elif data.endswith((b"}", b"}\n")) and self._early_loads < _EARLY_LOADS_MAX:
            self._early_loads += 1
            self._load()

    def _load(self) -> bool:
        try:
            document = orjson.loads(self._held[0] if len(self._held) == 1 else b"".join(self._held))
        except orjson.JSONDecodeError:
            return False
        self._held.clear()
        self._read(document)
        return True

    def _read(self, document: object) -> None:
        self._is_read = True
        if isinstance(document, dict):
            self._reader.body(document)
            self.findings.usage_final = self.findings.usage_seen

    def _fields_of_held(self) -> JsonFields:
        fields = JsonFields(self._reader.paths)
        for piece in self._held:
            fields.feed(piece)
        self._held.clear()
        return fields

    def _read_fields(self, fields: JsonFields) -> None:
        if fields.complete and not self._is_read:
            self._read(sparse_document(fields))

    def _finish(self) -> None:
        if self._held_bytes == 0:
            return  # no body: nothing is known, and nothing is wrong
        if not self._is_read and (self._fields is not None or not self._load()):
            # Too large for orjson, or not to its taste: a byte order mark, NaN, bytes that are no UTF-8, trailing data.
            fields = self._fields if self._fields is not None else self._fields_of_held()
            fields.end()
            self._fields = fields
            self._read(sparse_document(fields))
        if self._fields is not None and (not self._fields.complete or self._fields.trailing):
            self.switch_off()
        else:
            self.findings.complete = True


@mypyc_attr(allow_interpreted_subclasses=True)  # observability.content's
class SseScanner(Scanner):
    """A stream of server-sent events with one JSON document each.

    Errors come as one plain document under this content type too (DashScope): a body that begins with a brace, as no
    stream does, is read as JSON.
    """

    __slots__ = ("_begun", "_done", "_fields", "_json", "_reader", "_splitter")

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader.findings)
        self._reader = reader
        self._splitter = SseSplitter(data_bytes_max=WHOLE_BYTES_MAX)
        self._fields: JsonFields | None = None  # of the large event that is passing
        self._done = False
        self._begun = False  # something other than white space came
        self._json: JsonScanner | None = None

    def _take(self, data: bytes) -> None:
        if not self._begun and (first := data.lstrip()[:1]):
            self._begun = True
            if first == b"{":
                self._json = JsonScanner(self._reader)
        if self._json is not None:
            self._json.feed(data)
        elif not self._done:
            for item in self._splitter.feed(data):
                self._item(*item)

    def _finish(self) -> None:
        if self._json is not None:
            self._json.end()
            return
        if not self._done:
            for item in self._splitter.end():
                self._item(*item)
        self._reader.end()

    def _item(self, name: bytes, data: bytes, part: Part) -> None:
        if self._done:  # clients stop reading at [DONE]
            return
        if part is not Part.WHOLE:
            if self._fields is None:
                self._fields = JsonFields(self._reader.paths)
            self._fields.feed(data)
            if part is Part.LAST:
                fields, self._fields = self._fields, None
                self.findings.events += 1
                self._reader.event(name, event_document(fields))
            return
        self.findings.events += 1
        if data == b"[DONE]":
            self._done = True
            self._reader.done()
            return
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            document = None
            if data.lstrip().startswith(b"{"):
                fields = JsonFields(self._reader.paths)
                fields.feed(data)
                document = event_document(fields)
        self._reader.event(name, document if isinstance(document, dict) else {})


class DecodingScanner(Scanner):
    """Undoes a content coding in front of another scanner."""

    __slots__ = ("_decoder", "_inner")

    def __init__(self, decoder: Decoder, inner: Scanner) -> None:
        super().__init__(inner.findings)
        self._decoder: Decoder | None = decoder
        self._inner = inner

    def switch_off(self) -> None:
        """Stop looking."""
        super().switch_off()
        self._inner.switch_off()
        self._decoder = None  # its window is counted

    def _take(self, data: bytes) -> None:
        decoder = self._decoder
        if decoder is None:
            return
        for piece in decoder.feed(data):
            self._inner.feed(piece)
        if decoder.failed:
            self.switch_off()

    def _finish(self) -> None:
        decoder, self._decoder = self._decoder, None
        if decoder is None:
            return
        if decoder.complete:
            self._inner.end()
        elif decoder.bytes_in:
            self.switch_off()


def text_of(value: object) -> str | None:
    """A non-empty string, cut to TEXT_MAX characters, or None: `value` is none."""
    return value[:TEXT_MAX] if isinstance(value, str) and value else None


def code_of(value: object) -> str | None:
    """An error's code, or None. A sentence is none: it is in every record, and may quote what was asked."""
    text = text_of(value)
    return text if text is not None and _CODE.fullmatch(text) else None


def index_of(choice: dict[str, Any], position: int) -> int:
    """A choice's index, its position in the list where it does not say."""
    index = choice.get("index")
    return index if type(index) is int and index >= 0 else position


def kind_of(name: bytes, document: dict[str, Any]) -> str:
    """The type of an event, where events have one: its data say it, else its name."""
    kind = document.get("type")
    return kind if isinstance(kind, str) else name.decode("utf-8", "replace")


def error_code_of(document: dict[str, Any]) -> str | None:
    """The code of an error in one of the shapes that servers of the OpenAI protocol use; None: it is no error.

    `{"error": {"code", "type"}}` (the protocol), `{"object": "error", …}` (older vLLM), `{"code", "message"}`
    (DashScope, seen in its compatible mode too); Anthropic's has a type alone. The code, else the type, else "error";
    numbers only repeat the status.
    """
    error = document.get("error")
    if not error:
        if "choices" in document or "data" in document:
            return None
        if document.get("object") != "error" and not ("message" in document and text_of(document.get("code"))):
            return None
        error = document
    if not isinstance(error, dict):
        return "error"
    return code_of(error.get("code")) or code_of(error.get("type")) or "error"
