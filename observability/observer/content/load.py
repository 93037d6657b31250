"""Reads what a worker kept of a body: a tree of JSON whose texts are redacted and whose media are facts.

What was cut is closed where its last whole value ends. A text that was cut is a `CutText`, which knows how much is
missing; base64 that is still there (small bodies come as they were) becomes facts here.
"""

import json
import re
from typing import Any, Final

import orjson

from observability.redaction import MARGIN, REDACTED, Redaction, is_secret_name
from observability.wire.media import Media
from observability.wire.sift import BARE_BYTES, UNKNOWN, Sift, read_note

DEPTH_MAX: Final = 100
"""Nested containers that are looked into; tool schemas stay below 30."""

_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}:,]|[^\s"\[\]{}:,]++', re.DOTALL)
_CLOSER: Final = {b"{": b"}", b"[": b"]"}
_DATA_URL: Final = re.compile(r"data:([\w/+.-]{0,100})[^,\s]{0,100};base64,[\w+/=-]*+")
_BARE: Final = re.compile(rf"(?<![\w+/-])[\w+/-]{{{BARE_BYTES},}}+={{0,2}}", re.ASCII)
_TOO_DEEP: Final = "[nested too deeply]"


class CutText(str):
    """A text of which only the beginning is known."""

    __slots__ = ("missing",)
    missing: int
    """Bytes; UNKNOWN: nobody counted them."""


def cut_text(text: str, missing: int) -> CutText:
    """A CutText of so many missing bytes."""
    made = CutText(text)
    made.missing = missing
    return made


def load(data: bytes, mark: str, redaction: Redaction, *, is_json: bool, cut: bool) -> Any:
    """The tree. What claims to be JSON and is none, is text."""
    resolver = _Resolver(mark, redaction)
    if is_json:
        sift = Sift(mark.encode("ascii"), string_bytes_max=len(data), bytes_max=2 * len(data) + 1024)
        sift.feed(data)
        sift.end()
        sifted = bytes(sift.out)
        try:
            return resolver.resolve(_loads(sifted), 0)
        except (ValueError, RecursionError):
            pass
        try:
            return resolver.resolve(_loads(closed(sifted)), 0)
        except (ValueError, RecursionError):
            data = sifted
    text = data.decode("utf-8", "replace")
    return resolver.text(text, UNKNOWN if cut else 0)


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:  # bytes that are no UTF-8, half a pair of surrogates, NaN: not to orjson's taste
        return json.loads(data.decode("utf-8", "replace"), strict=False)


class _Resolver:
    def __init__(self, mark: str, redaction: Redaction) -> None:
        self._note = "\0" + mark
        self._redaction = redaction

    def resolve(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, dict | list) and depth >= DEPTH_MAX:
            return _TOO_DEEP
        if isinstance(value, dict):
            return {
                self._key(key): REDACTED
                if isinstance(item, str) and is_secret_name(key)
                else self.resolve(item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.resolve(item, depth + 1) for item in value]
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:  # as JSON is written here, it has no place
            return str(value)
        return value

    def _key(self, text: str) -> str:
        key = self._string(text)
        return key if isinstance(key, str) else f"[{key.media_type}]"

    def _string(self, text: str) -> Any:
        missing = 0
        if "\0" in text:
            before, found, note = text.partition(self._note)
            if found:
                try:
                    noted = read_note(note)
                except ValueError:
                    noted = UNKNOWN
                if isinstance(noted, Media):
                    return noted
                text, missing = before, noted
        return self.text(text, missing)

    def text(self, text: str, missing: int) -> str:
        if not text.isascii():  # half a pair of surrogates is no text to anybody
            text = text.encode("utf-8", "replace").decode("utf-8")
        if "base64," in text:
            text = _DATA_URL.sub(_told, text)
        if len(text) >= BARE_BYTES:
            text = _BARE.sub(_told, text)
        redacted = self._redaction.text(text, cut=missing != 0)
        if not missing:
            return redacted
        return cut_text(redacted, missing if missing == UNKNOWN else missing + min(MARGIN, len(text)))


def _told(match: "re.Match[str]") -> str:
    """Base64 within a text."""
    kind = (match[1] or "data") if match.re is _DATA_URL else "data"
    return f"[{kind}, {len(match[0])} characters]"


def closed(data: bytes) -> bytes:
    """A document that was cut, up to its last whole value, with all brackets closed."""
    closers: list[bytes] = []
    keys: list[bool] = []  # for each open container: is it an object whose next string is a key?
    until, tail = 0, b""
    for match in _TOKENS.finditer(data):
        token = match[0]
        if token in _CLOSER:
            closers.append(_CLOSER[token])
            keys.append(token == b"{")
            if len(closers) > 2 * DEPTH_MAX:
                break
        elif token in (b"}", b"]"):
            if not closers or closers.pop() != token:
                break
            keys.pop()
        elif token == b",":
            if closers:
                keys[-1] = closers[-1] == b"}"
            continue
        elif token == b":":
            continue
        elif keys and keys[-1]:
            keys[-1] = False
            continue
        elif match.end() == len(data) and not token.endswith(b'"'):
            break  # a number that may go on
        until, tail = match.end(), b"".join(reversed(closers))
    return data[:until] + tail
