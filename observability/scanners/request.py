"""What the gateway reads of a request body: the model above all, wherever it stands.

Official SDKs send `messages` before `model`, so with inline images the model comes after megabytes. A body that is
whole and small is decoded at once (`whole`); any other passes through `wire.json_fields` piece by piece.
"""

from typing import Any, NamedTuple

import orjson

from observability.wire.json_fields import JsonFields
from observability.wire.json_paths import Field, Path, Paths

WHOLE_BYTES_MAX = 65536
"""Of a body decoded at once; beyond, scanning is faster than decoding and holds nothing."""

_OPENAI = Paths([("model",), ("stream",), ("stream_options",), ("n",), ("size",)])
_DASHSCOPE = Paths([("model",), ("parameters", "n"), ("parameters", "size")])


class RequestScanner:
    """Takes one request body, by `feed` and `end` or by `whole`. Never raises; attributes may be read at any time."""

    __slots__ = (
        "_absorbed",
        "_fields",
        "_off",
        "_paths",
        "complete",
        "duplicates",
        "failed",
        "include_usage",
        "model",
        "n",
        "size",
        "stream",
    )

    def __init__(self, paths: Paths | None) -> None:
        """`paths`: None for a body that cannot be read (not JSON); everything stays unknown then."""
        self.model: str | None = None
        """A non-empty string, at most 16 KiB."""
        self.stream: bool | None = None
        self.include_usage: bool | None = None
        """`stream_options.include_usage`."""
        self.n: int | None = None
        """Images or choices asked for."""
        self.size: str | None = None
        """Of images: `1024x1024` (OpenAI), `1024*1024` (DashScope), `auto`."""
        self.duplicates: set[str] = set()
        """Top-level keys among those read that came more than once: servers may disagree on which one counts."""
        self.complete = False
        """The body was one whole JSON document."""
        self.failed = False
        """The body is no JSON document that can be read."""
        self._paths = paths
        self._fields: JsonFields | None = None
        self._off = paths is None
        self._absorbed = 0

    @property
    def model_duplicated(self) -> bool:
        """`model` came more than once at the top level."""
        return "model" in self.duplicates

    @property
    def fields(self) -> JsonFields | None:
        """The scan behind `feed`, with the offsets needed to rewrite values in flight; None before it, and where
        `whole` decoded the body at once."""
        return self._fields

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        if self._off or self._paths is None:
            return
        if self._fields is None:
            self._fields = JsonFields(self._paths)
        fields = self._fields
        try:
            fields.feed(data)
            if len(fields.fields) > self._absorbed:
                self._absorb(fields)
            if fields.failed:
                self._switch_off()
        except Exception:  # noqa: BLE001 - whatever is wrong in here must not hurt the exchange; `failed` is counted
            self._switch_off()

    def end(self) -> None:
        """The body is over."""
        if self._off or self._fields is None:
            return
        self._fields.end()
        self.complete = self._fields.complete and not self._fields.trailing
        if not self.complete and self._fields.offset:
            self._switch_off()

    def whole(self, body: bytes) -> None:
        """Take a body that is all there, instead of `feed` and `end`."""
        if self._off or self._paths is None:
            return
        # orjson keeps the last of several equal keys silently, and a key may be written with \u escapes.
        if len(body) <= WHOLE_BYTES_MAX and b"\\u00" not in body and not _repeats(body):
            try:
                document = orjson.loads(body)
            except orjson.JSONDecodeError:
                pass  # a byte order mark, NaN or just no JSON: the scanner knows
            else:
                if isinstance(document, dict):
                    self._read_document(document, self._paths)
                self.complete = True
                return
        self.feed(body)
        self.end()

    def _switch_off(self) -> None:
        self._off = True
        self.failed = True

    def _absorb(self, fields: JsonFields) -> None:
        for field in fields.fields[self._absorbed :]:
            self._read(field.path, _value_of(field))
        self._absorbed = len(fields.fields)
        self.duplicates = fields.duplicates

    def _read_document(self, document: dict[str, Any], paths: Paths) -> None:
        model = document.get("model")
        if model is not None:
            self.model = model if isinstance(model, str) and model else None
        rest = _REST_OF[paths]
        if not rest.keys.isdisjoint(document):
            for path in rest.paths:
                value: Any = document
                for key in path:
                    value = value.get(key) if isinstance(value, dict) else None
                if value is not None:
                    self._read(path, value)

    def _read(self, path: Path, value: Any) -> None:
        key = path[-1]
        if key == "model":
            self.model = value if isinstance(value, str) and value else None
        elif key == "stream":
            self.stream = value if isinstance(value, bool) else None
        elif key == "stream_options":
            asked = value.get("include_usage") if isinstance(value, dict) else None
            self.include_usage = asked if isinstance(asked, bool) else None
        elif key == "n":
            self.n = value if type(value) is int and value >= 0 else None
        elif key == "size":
            self.size = value if isinstance(value, str) and len(value) <= 64 else None


class _Rest(NamedTuple):
    """What is read beside the model, and the keys of the document by which to see at once that there is nothing."""

    keys: frozenset[str]
    paths: tuple[Path, ...]


def _rest_of(paths: Paths) -> _Rest:
    rest = tuple(path for path in paths.paths if path != ("model",))
    return _Rest(frozenset(path[0] for path in rest), rest)


_REST_OF = {paths: _rest_of(paths) for paths in (_OPENAI, _DASHSCOPE)}


def _repeats(body: bytes) -> bool:
    """May a key that servers could disagree on be there twice?"""
    if body.count(b'"model"') > 1:
        return True
    # "stream" with its quote covers stream_options too; without either, one search is enough
    return b'"stream' in body and (body.count(b'"stream"') > 1 or body.count(b'"stream_options"') > 1)


def paths_of(protocol: str) -> Paths | None:
    """What is read of requests of a protocol; None: nothing is."""
    return {"openai": _OPENAI, "dashscope": _DASHSCOPE}.get(protocol)


def _value_of(field: Field) -> object:
    """None where it is too large or does not decode."""
    if field.raw is None:
        return None
    try:
        return orjson.loads(field.raw)
    except orjson.JSONDecodeError:
        return None
