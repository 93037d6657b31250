"""Reads what a worker kept of a body: a tree of JSON whose texts are redacted and whose media are facts.

What was cut is closed where its last whole value ends. A text that was cut is a `CutText`, which knows how much is
missing; base64 that is still there (small bodies come as they were) becomes facts here.
"""

import json
import re
from typing import Any, Final

import orjson

from observability.redaction import MARGIN, REDACTED, Redaction, compile_own, is_secret_name
from observability.wire.media import Media, clean_type
from observability.wire.sift import BARE_BYTES, UNKNOWN, Sift, read_note

DEPTH_MAX: Final = 100
"""Nested containers that are looked into; tool schemas stay below 30."""

_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}:,]|[^\s"\[\]{}:,]++', re.DOTALL)
_CLOSER: Final = {b"{": b"}", b"[": b"]"}
# Base64 within a text may be written once more: in lines, as JSON (`\/`, `\n`) or as a part of a URL (`%2B`).
_LINE_END: Final = r"=?=?(?:\r?\n|(?:\\{1,7}r)?\\{1,7}n)[ \t]{0,16}+"
_LINE: Final = rf"{_LINE_END}[\w+/-]{{60,}}+"
_LAST_LINE: Final = rf"(?:{_LINE_END}(?:[\w+/-]{{20,}}+|[\w+/-]{{1,19}}+=))?"
_DATA_URL: Final = re.compile(
    r"data:([\w/+.\\-]{0,100}+)(?:;(?!\s{0,4}base64,)[^;,\s]{0,100}+){0,8}+;\s{0,4}base64,"
    rf"(?:[\w+/-]++|\\{{1,7}}(?:/|u00)|%[23]|{_LINE})*+{_LAST_LINE}=*+",
    re.ASCII | re.IGNORECASE,
)
_BARE: Final = re.compile(
    rf"(?<![\w+/-])[\w+/-]{{20,}}+(?:[\\%]{{1,7}}[\w+/-]++|{_LINE})*+{_LAST_LINE}={{0,2}}", re.ASCII
)
_LONG_WORD: Final = compile_own(r"[0-9A-Za-z_+/-]{20}")
"""In every text that has such base64, and in hardly any other: 4 ns a character, where the expression takes 24."""
_ESCAPES: Final = re.compile(r"[\\%]++")
_PIECE_CHARACTERS: Final = 16
"""Of base64 between two escapes, at least and on the whole; words that stand in lines are shorter."""
_KINDS: Final = (re.compile(r"[A-Z]"), re.compile(r"[a-z]"), re.compile(r"[0-9]"))
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_TOO_DEEP: Final = "[nested too deeply]"


_NOTE_GROWTH: Final = 10
"""A note has ten times as many characters as the shortest data URL."""


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
        data = data.removeprefix(_BYTE_ORDER_MARK)
        room = _NOTE_GROWTH * len(data) + 1024
        sift = Sift(mark.encode("ascii"), string_bytes_max=room, bytes_max=room)
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
    text = data.replace(b"\0", b"").decode("utf-8", "replace")  # as UTF-16 a key would be none to any expression
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
                if is_secret_name(key) and _may_be_secret(item)
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
        if "base64," in text.lower():
            text = _DATA_URL.sub(lambda url: _told(url, clean_type(url[1].replace("\\/", "/")) or "data"), text)
        if len(text) >= BARE_BYTES and _LONG_WORD.search(text) is not None:
            text = _BARE.sub(_told_if_base64, text)
        redacted = self._redaction.text(text, cut=missing != 0)
        if not missing:
            return redacted
        return cut_text(redacted, missing if missing == UNKNOWN else missing + min(MARGIN, len(text)))


def _may_be_secret(item: Any) -> bool:
    """Is it a value of its own, or some of them? What is in an object has names of its own: a schema's `password`."""
    if isinstance(item, list):
        return any(map(_may_be_secret, item))
    return isinstance(item, str | int | float) and not isinstance(item, bool)


def _told(match: "re.Match[str]", kind: str = "data") -> str:
    """Base64 within a text."""
    return f"[{kind}, {len(match[0])} characters]"


def _told_if_base64(match: "re.Match[str]") -> str:
    text = match[0]
    if len(text) < BARE_BYTES or not all(kind.search(text) for kind in _KINDS):  # then: hex, digits, letters
        return text
    if len(_ESCAPES.findall(text)) * _PIECE_CHARACTERS > len(text):
        return text
    return _told(match)


def closed(data: bytes) -> bytes:
    """A document that was cut, up to its last whole value, with all brackets closed."""
    closers: list[bytes] = []  # for what is open at `until`
    keys: list[bool] = []  # for each open container: is it an object whose next string is a key?
    until = 0
    for match in _TOKENS.finditer(data):
        token = match[0]
        if token in _CLOSER:
            if len(closers) == 2 * DEPTH_MAX:
                break
            closers.append(_CLOSER[token])
            keys.append(token == b"{")
        elif token in (b"}", b"]"):
            if not closers or closers[-1] != token:
                break
            closers.pop()
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
        until = match.end()
    return data[:until] + b"".join(reversed(closers))
