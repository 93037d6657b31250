"""What the gateway reads of a request body: the model above all, wherever it stands.

Official SDKs send `messages` before `model`, so with inline images the model comes after megabytes. A JSON body that
is whole and small is decoded at once (`whole`); any other passes through `wire.json_fields` piece by piece, and a form
through `wire.multipart_fields`. An encoded body is decoded for looking only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from observability.codings.account import REQUESTS
from observability.codings.decode import Decoder, UnreadableEncodingError, codings_of
from observability.wire.json_fields import VALUE_BYTES_MAX, WALKED_OF_REQUEST_MAX, JsonFields
from observability.wire.json_paths import Field, Path, Paths
from observability.wire.multipart_fields import FormField, MultipartFields

WHOLE_BYTES_MAX = 65536
"""Of a body decoded at once; beyond, scanning is faster than decoding and holds nothing."""

RATIO_MAX = 32
"""Decoded bytes of an encoded body for each encoded one. Chats reach 3, files and logs 4 to 16, tool schemas 3 to 15,
indented rows of numbers 30. Decoded bytes are what scanning costs, 240 ns each at worst, without a pause for others:
82 KB that unfolded 200 times stopped a worker for 3.9 s."""
RATIO_GRACE_BYTES = 65536
"""Beside them. What is small when decoded passes whatever its ratio: forty readings of one file reach 60."""

_MODEL_CHARS_PLAIN = 1024
# A longer model is left to the scan, which knows how many bytes it was written with: 12 a character at most.
_SIZE_CHARS_MAX = 64
_DIGITS_MAX = 9

_MODEL: Path = ("model",)
_OPENAI = Paths([_MODEL, ("stream",), ("stream_options",), ("n",), ("size",)])
_DASHSCOPE = Paths([_MODEL, ("parameters", "n"), ("parameters", "size")])
_ANTHROPIC = Paths([_MODEL, ("stream",)])
_VLLM = Paths([_MODEL])
_SPEECH = Paths([_MODEL, ("stream_format",)])
_PATHS_OF = {"openai": _OPENAI, "dashscope": _DASHSCOPE, "anthropic": _ANTHROPIC, "vllm": _VLLM}
_PATHS_OF_OPERATION = {("openai", "audio.speech"): _SPEECH}
_NO_MODEL = frozenset(
    (*(("openai", operation) for operation in ("models", "files", "uploads", "batches")), ("dashscope", "tasks"))
)
# Their bodies are files, or name one; DashScope's own SDK cancels a task with an empty model.
_FORM_NAMES = ("model", "stream", "n", "size")
_FLAGS = {b"true": True, b"false": False}


class RequestScanner:
    """Takes one JSON body, by `feed` and `end` or by `whole`. Never raises; attributes may be read at any time."""

    __slots__ = (
        "_absorbed",
        "_crowded",
        "_decoder",
        "_fields",
        "_off",
        "_paths",
        "_told",
        "complete",
        "duplicates",
        "failed",
        "include_usage",
        "lookalikes",
        "model",
        "model_seen",
        "n",
        "reads",
        "size",
        "stream",
    )

    def __init__(self, paths: Paths | None) -> None:
        """`paths`: None for a body that cannot be read (of an unknown kind); everything stays unknown then."""
        self.model: str | None = None
        """A non-empty string, at most 16 KiB as written."""
        self.model_seen = False
        """There is a model, of whatever kind: its value came to its end, or is too large."""
        self.stream: bool | None = None
        self.include_usage: bool | None = None
        """`stream_options.include_usage`."""
        self.n: int | None = None
        """Images or choices asked for."""
        self.size: str | None = None
        """Of images: `1024x1024` (OpenAI), `1024*1024` (DashScope), `auto`."""
        self.duplicates: set[str] = set()
        """Top-level keys among those read that came more than once: servers may disagree on which one counts."""
        self.lookalikes: set[str] = set()
        """Of these, those that came in other letters."""
        self.reads = paths is not None
        """It is a body of a kind that is read, whatever is in it."""
        self.complete = False
        """The body was one whole JSON document, or one whole form."""
        self.failed = False
        """The body is none that can be read."""
        self._paths = paths
        self._decoder: Decoder | None = None
        self._crowded = False
        self._fields: JsonFields | MultipartFields | None = None
        self._off = paths is None  # nothing is read any more
        self._absorbed = 0

    @property
    def settled(self) -> bool:
        """Whether there is a model, and which, is known: the first came, or the document is over or unreadable.

        A second model can still come: `model_duplicated` is to be watched to the end.
        """
        if self.model_seen or self._off:
            return True
        return self._fields is not None and self._fields.document_end is not None

    @property
    def over(self) -> bool:
        """The document has come to its end: what was not found is not in it."""
        return not self.failed and self._fields is not None and self._fields.document_end is not None

    @property
    def model_valid(self) -> bool:
        """The model is one that can be asked for; where it was seen and is not: no string, empty or too large."""
        return self.model is not None

    @property
    def model_duplicated(self) -> bool:
        """`model` came more than once at the top level, or in other letters: there are servers that read `Model` too.

        Of a body taken by `whole` the letters are looked at where it was `strict`.
        """
        return "model" in self.duplicates or "model" in self.lookalikes

    @property
    def crowded(self) -> bool:
        """It failed because too many encoded bodies are being looked at: no fault of the body's."""
        return self._crowded or (self._decoder is not None and self._decoder.crowded)

    @property
    def decodes(self) -> bool:
        """It still looks at the body, and has to decode it for that."""
        return self._decoder is not None and not self._off

    def decode(self, encoding: str) -> None:
        """The body is encoded (Content-Encoding, not empty). To be said before the first byte."""
        if self._off or not codings_of(encoding):
            return
        self._told: Callable[[bytes], None] | None = None
        try:
            # JSON can be deflate without its header, and an upstream that heeds no Content-Encoding reads that
            self._decoder = Decoder(
                encoding, ratio_max=RATIO_MAX, grace_bytes=RATIO_GRACE_BYTES, account=REQUESTS, raw=False
            )
        except UnreadableEncodingError:
            self._switch_off()

    def tell(self, told: Callable[[bytes], None]) -> None:
        """Of a body that `decodes`: have `told` hear what comes out, so that it is decoded once."""
        self._told = told

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        if self._off:
            return
        try:
            if self._decoder is None:
                self._take(data)
                return
            for piece in self._decoder.feed(data):
                if self._told is not None:
                    self._told(piece)
                self._take(piece)
                if self.failed:
                    return
            if self._decoder.failed:
                self._switch_off()
        except Exception:  # noqa: BLE001 - whatever is wrong in here must not hurt the exchange; `failed` is counted
            self._switch_off()

    def end(self) -> None:
        """The body is over."""
        if self._off:
            return
        self._off = True
        decoder = self._decoder
        self._let_go()
        if decoder is not None and decoder.bytes_in and not decoder.complete:
            self.failed = True
        elif self._fields is not None:
            self.complete = self._is_complete()
            self.failed = not self.complete and self._fields.offset > 0

    def whole(self, body: bytes, *, strict: bool = False) -> None:
        """Take a body that is all there, instead of `feed` and `end`."""
        if self._off:
            return
        # orjson keeps the last of several equal keys silently, and a key may be written with \u escapes. (For bytes
        # `find` costs half of `in`, which first tries them as a number; a single one is found 40 times as fast.)
        if (
            self._paths is not None
            and self._decoder is None
            and len(body) <= WHOLE_BYTES_MAX
            and not (body.find(b"\\") >= 0 and body.find(b"\\u00") >= 0)
            and not _repeats(body)
        ):
            try:
                document = orjson.loads(body)
            except orjson.JSONDecodeError:
                pass  # a byte order mark, NaN or just no JSON: the scanner knows
            else:
                if not isinstance(document, dict) or (
                    not (strict and _has_lookalike(document)) and self._read_document(document, self._paths)
                ):
                    self._off = self.complete = True
                    return
        self.feed(body)
        self.end()

    def _switch_off(self) -> None:
        self._off = True
        self.failed = True
        self._let_go()

    def _let_go(self) -> None:
        """The decoder has megabytes of a window that others wait for, and the exchange may last for minutes."""
        self._crowded = self.crowded
        self._decoder = None

    def _take(self, data: bytes) -> None:
        fields = self._fields
        if fields is None:
            assert self._paths is not None
            fields = self._fields = JsonFields(self._paths, walked_max=WALKED_OF_REQUEST_MAX)
            self.duplicates, self.lookalikes = fields.duplicates, fields.lookalikes
        assert isinstance(fields, JsonFields)
        fields.feed(data)
        if len(fields.fields) > self._absorbed:
            for field in fields.fields[self._absorbed :]:
                self._read(field.path, _value_of(field))
            self._absorbed = len(fields.fields)
        open_start = fields.open_start
        if open_start is not None and fields.offset - open_start > VALUE_BYTES_MAX and fields.open_path == _MODEL:
            self.model_seen, self.model = True, None
        if fields.failed:
            self._switch_off()

    def _is_complete(self) -> bool:
        fields = self._fields
        assert isinstance(fields, JsonFields)
        fields.end()
        return fields.complete and not fields.trailing

    def _read_document(self, document: dict[str, Any], paths: Paths) -> bool:
        """False: the model is so long that it must be looked at as written."""
        model = document.get("model")
        if model is not None:
            self.model_seen = True
            if isinstance(model, str) and model:
                if len(model) > _MODEL_CHARS_PLAIN:
                    return False
                self.model = model
        elif "model" in document:
            self.model_seen = True
        rest = _REST_OF[paths]
        if not rest.keys.isdisjoint(document):
            for path in rest.paths:
                value: Any = document
                for key in path:
                    value = value.get(key) if isinstance(value, dict) else None
                if value is not None:
                    self._read(path, value)
        return True

    def _read(self, path: Path, value: Any) -> None:
        key = path[-1]
        if key == "model":
            self.model_seen = True
            self.model = value if isinstance(value, str) and value else None
        elif key == "stream":
            self.stream = value if isinstance(value, bool) else None
        elif key == "stream_format":  # of speech: events, or the bytes themselves
            self.stream = value == "sse"
        elif key == "stream_options":
            asked = value.get("include_usage") if isinstance(value, dict) else None
            self.include_usage = asked if isinstance(asked, bool) else None
        elif key == "n":
            self.n = value if type(value) is int and value >= 0 else None
        elif key == "size":
            self.size = value if isinstance(value, str) and len(value) <= _SIZE_CHARS_MAX else None


class FormScanner(RequestScanner):
    """Takes one multipart/form-data body; facts as of JSON, from the form fields of the same names."""

    __slots__ = ("_form",)

    def __init__(self, boundary: bytes | None) -> None:
        """`boundary`: None where the content type gives none that is clear; the scanner has failed then."""
        super().__init__(None)
        self.reads = True
        if boundary is None:
            self.failed = True
            return
        self._form = self._fields = MultipartFields(boundary, _FORM_NAMES)
        self.duplicates = self._form.duplicates
        self._off = False

    def _take(self, data: bytes) -> None:
        form = self._form
        form.feed(data)
        if len(form.fields) > self._absorbed:
            for field in form.fields[self._absorbed :]:
                self._read((field.name,), _form_value_of(field))
            self._absorbed = len(form.fields)
        if form.open_name == "model" and form.open_lost:
            self.model_seen, self.model = True, None
        if form.failed:
            self._switch_off()

    def _is_complete(self) -> bool:
        return self._form.complete


class _Rest(NamedTuple):
    """What is read beside the model, and the keys of the document by which to see at once that there is nothing."""

    keys: frozenset[str]
    paths: tuple[Path, ...]


def _rest_of(paths: Paths) -> _Rest:
    rest = tuple(path for path in paths.paths if path != _MODEL)
    return _Rest(frozenset(path[0] for path in rest), rest)


_REST_OF = {paths: _rest_of(paths) for paths in (*_PATHS_OF.values(), *_PATHS_OF_OPERATION.values())}


def _has_lookalike(document: dict[str, Any]) -> bool:
    """Is there a `model` in other letters? (No letter beyond ASCII is folded to one of these five.)"""
    for key in document:  # noqa: SIM110 - 0.3 µs, where `any` takes 1
        if len(key) == 5 and key != "model" and key.lower() == "model":
            return True
    return False


def _repeats(body: bytes) -> bool:
    """May a key that servers could disagree on be there twice?"""
    if body.count(b'"model"') > 1:
        return True
    # "stream" with its quote covers stream_options too; without either, one search is enough
    return body.find(b'"stream') >= 0 and (body.count(b'"stream"') > 1 or body.count(b'"stream_options"') > 1)


def paths_of(protocol: str, operation: str) -> Paths | None:
    """What is read of such requests; None: nothing is."""
    key = (protocol, operation)
    return None if key in _NO_MODEL else _PATHS_OF_OPERATION.get(key) or _PATHS_OF.get(protocol)


def has_forms(protocol: str, operation: str) -> bool:
    """Do such requests name their model in form fields?"""
    return protocol == "openai" and (protocol, operation) not in _NO_MODEL


def _value_of(field: Field) -> object:
    """None where it is too large or does not decode."""
    if field.raw is None:
        return None
    try:
        return orjson.loads(field.raw)
    except orjson.JSONDecodeError:
        return None


def _form_value_of(field: FormField) -> object:
    """A form knows only text: what the fields mean that are none. None where it is not that."""
    raw = field.raw
    if raw is None:
        return None
    if field.name == "stream":
        return _FLAGS.get(raw.lower())  # Python clients also write True
    if field.name == "n":
        return int(raw) if raw.isdigit() and len(raw) <= _DIGITS_MAX else None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
