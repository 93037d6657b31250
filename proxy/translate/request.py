"""An OpenAI image request, form or JSON, as DashScope's JSON, while it passes (protocols.md §3.2).

A translator is a `Rewriter` of another kind: one pass over one body, produced anew for each attempt, which reads the
tape from its beginning. A file of a form becomes a data URL as it comes; the string of an image in JSON passes as it is
written. Held is only what is text: the fields that are known, TEXT_BYTES_MAX each. Pure: bytes in, bytes out.

What DashScope has no equal for (`quality`, `style`, `background`, `user`, `output_format`, …) is dropped, as fields
that nobody knows are; `size` is written with a star, and `auto` is DashScope's own default. Beyond OpenAI's fields
there are `negative_prompt`, `seed`, `watermark`, `prompt_extend`, `function`, and `parameters`, an object that goes
over them.
"""

import re
from typing import Any, Final

import orjson

from observability.codings.decode import codings_of
from observability.scanners import is_form, is_json, media_type
from observability.wire.json_fields import WALKED_OF_REQUEST_MAX, JsonFields
from observability.wire.json_paths import Field, Path, Paths
from observability.wire.multipart_fields import boundary_of
from proxy.errors import GatewayError, TargetUnusableError
from proxy.rewrite import Rewriter
from proxy.translate.form import FormError, FormReader, Part, PartEnd
from proxy.translate.models import Call, Layout
from proxy.translate.pictures import DataUrl
from proxy.translate.writing import Envelope

TEXT_BYTES_MAX: Final = 131072
"""Of one field. OpenAI's longest prompt has 32,000 characters, of up to four bytes; DashScope's 2,000."""
SLICE_BYTES: Final = 65536
"""Of JSON, read at once: what its short images take of the room for values is free again after each."""

_NUMBERS: Final = ("n", "seed", "partial_images")
_SWITCHES: Final = ("stream", "watermark", "prompt_extend")
_OTHERS: Final = ("prompt", "size", "response_format", "negative_prompt", "function", "parameters")
_TEXTS: Final = frozenset((*_NUMBERS, *_SWITCHES, *_OTHERS))
_IMAGE_NAME: Final = re.compile(r"images?(?:\[[0-9]{0,4}\])?")
_SIZE: Final = re.compile(r"([0-9]+)[xX]([0-9]+)")
_FLAGS: Final = {"true": True, "false": False}

_IMAGE: Final[frozenset[Path]] = frozenset(
    (("image",), ("images", "*"), ("images", "*", "image_url"), ("images", "*", "url"))
)
_MASK: Final[frozenset[Path]] = frozenset((("mask",), ("mask", "image_url"), ("mask", "url")))
_FILE_ID: Final[frozenset[Path]] = frozenset((("images", "*", "file_id"), ("mask", "file_id")))
_WANTED: Final = Paths([*((name,) for name in sorted(_TEXTS)), *sorted(_IMAGE), *sorted(_MASK), *sorted(_FILE_ID)])
_QUOTE: Final = ord('"')


class Translator(Rewriter):
    """What forms and JSON have in common. `texts` is complete when the body is over."""

    __slots__ = ("_envelope", "texts")

    def __init__(self, call: Call, model: str, operation: str) -> None:
        super().__init__()
        wants_image = operation == "images.edits"
        self._envelope = Envelope(call.layout, model, wants_image=wants_image and call.layout is not Layout.PROMPT)
        self.texts: dict[str, Any] = {}
        """Field → value, of those that are known and there."""

    @property
    def streams(self) -> bool:
        """The answer is wanted as a stream of events."""
        return self.texts.get("stream") is True

    @property
    def inline(self) -> bool:
        """The images are wanted in the answer, not their URLs."""
        return self.texts.get("response_format") == "b64_json"

    def _take(self, name: str, value: Any) -> None:
        """A field that is known."""
        if name in self.texts:
            raise GatewayError("bad_request", f"the request has {name} twice")
        if value is None or (name == "size" and value == "auto"):
            return
        if name == "size" and isinstance(value, str) and (sides := _SIZE.fullmatch(value)):
            value = "*".join(sides.groups())
        if name == "parameters" and not isinstance(value, dict):
            raise GatewayError("bad_request", "parameters has to be an object")
        if name == "response_format" and value not in ("url", "b64_json"):
            raise GatewayError("bad_request", "response_format has to be url or b64_json")
        self.texts[name] = value


class FormTranslator(Translator):
    """Of a multipart/form-data body."""

    __slots__ = ("_file", "_is_mask", "_name", "_reader", "_text")

    def __init__(self, call: Call, model: str, operation: str, boundary: bytes) -> None:
        """`boundary`: as `boundary_of` gives it."""
        super().__init__(call, model, operation)
        self._reader = FormReader(boundary)
        self._name = ""  # of the part that is read
        self._is_mask = False
        self._file: DataUrl | None = None
        self._text: bytearray | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next piece of the body."""
        out: list[bytes] = []
        try:
            events = self._reader.feed(data)
        except FormError as error:
            raise GatewayError("bad_request", f"the form cannot be read: {error}") from None
        for event in events:
            if isinstance(event, Part):
                out.append(self._begin(event))
            elif isinstance(event, PartEnd):
                out.append(self._end_part())
            elif self._file is not None:
                out.append(self._file.feed(event))
            elif self._text is not None:
                self._text += event
                if len(self._text) > TEXT_BYTES_MAX:
                    raise GatewayError("bad_request", f"{self._name} has more than {TEXT_BYTES_MAX} bytes")
        return [piece for piece in out if piece]

    def end(self) -> list[bytes]:
        """The body is over."""
        if not self._reader.complete:
            raise GatewayError("bad_request", "the form ends before its end")
        return [self._envelope.end(self.texts)]

    def _begin(self, part: Part) -> bytes:
        self._name = part.name
        is_image = _IMAGE_NAME.fullmatch(part.name) is not None
        self._is_mask = part.name == "mask"
        self._file = self._text = None
        if (is_image or self._is_mask) and part.is_file:
            self._file = DataUrl(part.content_type)
            return (self._envelope.begin_mask() if self._is_mask else self._envelope.begin_image()) + b'"'
        if is_image or self._is_mask or part.name in _TEXTS:
            self._text = bytearray()
        return b""

    def _end_part(self) -> bytes:
        file, text = self._file, self._text
        self._file = self._text = None
        if file is not None:
            if not file.size:
                raise GatewayError("bad_request", f"{'the mask' if self._is_mask else 'an image'} is empty")
            return file.end() + (b'"' if self._is_mask else b'"' + self._envelope.end_image())
        if text is None:
            return b""
        try:
            value = text.decode()
        except UnicodeDecodeError:
            raise GatewayError("bad_request", "a field of the form is no UTF-8") from None
        if self._is_mask:  # a URL, in place of a file
            return self._envelope.begin_mask() + orjson.dumps(value)
        if self._name not in _TEXTS:
            return self._envelope.begin_image() + orjson.dumps(value) + self._envelope.end_image()
        self._take(self._name, _value_of(self._name, value))
        return b""


class JsonTranslator(Translator):
    """Of a JSON body."""

    __slots__ = ("_fields", "_in_picture")

    def __init__(self, call: Call, model: str, operation: str) -> None:
        super().__init__(call, model, operation)
        self._fields = JsonFields(_WANTED, value_bytes_max=TEXT_BYTES_MAX, walked_max=WALKED_OF_REQUEST_MAX)
        self._in_picture = False  # of the value that is open some was sent

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next piece of the body."""
        out: list[bytes] = []
        for start in range(0, len(data), SLICE_BYTES):
            self._follow_slice(data[start : start + SLICE_BYTES], out)
        return [piece for piece in out if piece]

    def _follow_slice(self, data: bytes, out: list[bytes]) -> None:
        fields = self._fields
        base = fields.offset
        fields.feed(data)
        for field in fields.fields:
            self._read(field, data, base, out)
        fields.fields.clear()  # they are read, and what they held may be held again
        fields.held_bytes = 0
        if fields.duplicates:
            raise GatewayError("bad_request", f"the request has {min(fields.duplicates)} twice")
        if fields.failed:
            raise GatewayError("bad_request", "the request body is no JSON that can be read")
        start, path = fields.open_start, fields.open_path
        if start is not None and path is not None and (path in _IMAGE or path in _MASK):
            self._open(path, data, base, start, out)

    def end(self) -> list[bytes]:
        """The body is over."""
        self._fields.end()
        if not self._fields.complete or self._fields.trailing:
            raise GatewayError("bad_request", "the request body is no JSON that can be read")
        return [self._envelope.end(self.texts)]

    def _read(self, field: Field, data: bytes, base: int, out: list[bytes]) -> None:
        """A value came to its end."""
        if field.path in _IMAGE or field.path in _MASK:
            is_mask = field.path in _MASK
            if self._in_picture or (field.start >= base and data[field.start - base] == _QUOTE):
                self._begin(field.path, out)
                out.append(data[max(field.start, base) - base : field.end - base])
                self._in_picture = False
                out.append(b"" if is_mask else self._envelope.end_image())
            else:
                self._read_other(field, out)
            return
        if field.path in _FILE_ID:
            if field.raw != b"null":
                raise TargetUnusableError("bad_request", "images by file_id cannot be passed on: give their URLs")
            return
        name = field.path[0]
        if field.raw is None:
            raise GatewayError("bad_request", f"{name} has more than {TEXT_BYTES_MAX} bytes")
        self._take(name, _decoded(field.raw))

    def _read_other(self, field: Field, out: list[bytes]) -> None:
        """In the place of an image there is something else than a string: null, or a short list of strings."""
        value = None if field.raw is None else _decoded(field.raw)
        if value is None and field.raw is not None:
            return
        if field.path != ("image",) or not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise GatewayError("bad_request", f"{field.path[0]} has to be given by URLs or data URLs")
        for one in value:
            out += (self._envelope.begin_image(), orjson.dumps(one), self._envelope.end_image())

    def _open(self, path: Path, data: bytes, base: int, start: int, out: list[bytes]) -> None:
        """An image has begun and goes on in the next piece: what came of it passes."""
        if start >= base and data[start - base] != _QUOTE:
            return  # it will be read when it is over
        if start < base and not self._in_picture:
            return
        self._begin(path, out)
        out.append(data[max(start, base) - base :])

    def _begin(self, path: Path, out: list[bytes]) -> None:
        if not self._in_picture:
            self._in_picture = True
            out.append(self._envelope.begin_mask() if path in _MASK else self._envelope.begin_image())


def translator_of(content_type: str, content_encoding: str, call: Call, model: str, operation: str) -> Translator:
    """The translator for a body; the head's fields as received. TargetUnusableError for one that cannot be read."""
    kind = media_type(content_type)
    if codings_of(content_encoding):
        message = "an image request for this service has to come without Content-Encoding"
        raise TargetUnusableError("bad_request", message)
    if is_json(kind):
        return JsonTranslator(call, model, operation)
    boundary = boundary_of(content_type) if is_form(kind) else None
    if boundary is None:
        raise TargetUnusableError("bad_request", "an image request has to be JSON or a form with parts")
    return FormTranslator(call, model, operation, boundary)


def _value_of(name: str, text: str) -> Any:
    """A form knows only text: what the fields mean that are none."""
    if name in _NUMBERS:
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else text
    if name in _SWITCHES:
        return _FLAGS.get(text.lower(), text)
    return _decoded(text.encode()) if name == "parameters" else text


def _decoded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise GatewayError("bad_request", "a value of the request cannot be read") from None
