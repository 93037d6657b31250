"""Makes messages as short as they have to be: JSON of at most so many bytes, valid, that says what is missing.

First the longest texts are cut, all to the same length, so that a document pasted into one message does not cost the
question that follows it. Where that is not enough messages are left out of the middle: the first ones say what it is
about, the last ones what is asked. Whatever was cut, here or in the worker, ends with how much is missing.
"""

from typing import Any, Final, NamedTuple

import orjson

from observability.observer.content.load import CutText
from observability.observer.content.parts import blob
from observability.wire.media import Media
from observability.wire.sift import UNKNOWN

TEXT_CHARACTERS_MIN: Final = 80
"""Texts are not cut below it: names, digests and types stay whole."""
_MARK_BYTES: Final = 40
"""Of what is said in place of the rest of a text."""


class Fitted(NamedTuple):
    """What goes into a record."""

    json: str
    bytes: int
    """Of the JSON as it would have been; at least, where nobody counted."""
    cut: bool
    """Something is missing."""


class _Shape:
    """A copy of a tree with its texts cut, and what was seen on the way."""

    def __init__(self, characters_max: int | None) -> None:
        self._characters_max = characters_max
        self.lengths: list[int] = []
        self.missing_bytes = 0
        self.cut = False

    def of(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {self._key(key): self.of(item) for key, item in value.items()}
        if isinstance(value, Media):  # in a part of a kind that is not known here
            return blob(value)
        if isinstance(value, list):
            return [self.of(item) for item in value]
        return value

    def _key(self, key: str) -> str:
        if isinstance(key, CutText):
            self.cut = True
        return str(key[: TEXT_CHARACTERS_MIN * 2])

    def _text(self, text: str) -> str:
        missing = text.missing if isinstance(text, CutText) else 0
        if missing:
            self.cut = True
            self.missing_bytes += max(0, missing)
        self.lengths.append(len(text))
        limit = self._characters_max
        if limit is None or len(text) <= limit:
            if not missing:
                return text
            return f"{text}… [cut]" if missing == UNKNOWN else f"{text}… [{missing} more bytes]"
        self.cut = True
        more = len(text) - limit + max(0, missing)
        return f"{text[:limit]}… [{'over ' if missing == UNKNOWN else ''}{more} more]"


def fit(items: list[Any], max_bytes: int) -> Fitted:
    """Messages, or parts, as JSON of at most `max_bytes`."""
    whole = _Shape(None)
    data = orjson.dumps(whole.of(items))
    true_bytes = len(data) + whole.missing_bytes
    if len(data) <= max_bytes:
        return Fitted(data.decode(), true_bytes, whole.cut)
    limit = _limit(sorted(whole.lengths), len(data) - max_bytes)
    while True:
        data = orjson.dumps(_Shape(limit).of(items))
        if len(data) <= max_bytes or limit <= TEXT_CHARACTERS_MIN:
            break
        limit = max(TEXT_CHARACTERS_MIN, limit * 3 // 4)  # characters of several bytes, or escapes
    if len(data) > max_bytes:
        data = _thinned(_Shape(limit).of(items), max_bytes)
    return Fitted(data.decode(), true_bytes, True)


def _limit(lengths: list[int], excess: int) -> int:
    """The length to which the longest texts have to be cut so that so many characters are saved."""
    saved = taken = 0
    while lengths:
        longest = lengths.pop()
        taken += 1
        following = lengths[-1] if lengths else 0
        step = (longest - following) * taken
        if saved + step >= excess + taken * _MARK_BYTES:
            return max(TEXT_CHARACTERS_MIN, longest - -(-(excess + taken * _MARK_BYTES - saved) // taken))
        saved += step
    return TEXT_CHARACTERS_MIN


def _thinned(items: list[Any], max_bytes: int) -> bytes:
    """Without items from the middle; of a single message, without parts."""
    parts = items[0].get("parts") if len(items) == 1 and isinstance(items[0], dict) else None
    if parts:
        room = max_bytes - len(orjson.dumps([{**items[0], "parts": []}]))
        kept = orjson.loads(_thinned(parts, room)) if room > 2 and len(parts) > 1 else []
        data = orjson.dumps([{**items[0], "parts": kept}])
        return data if len(data) <= max_bytes else b"[]"
    sizes = [len(orjson.dumps(item)) + 1 for item in items]
    room = max_bytes - 2 - len(orjson.dumps(_omitted(items, len(items)))) - 1
    first, last = 0, len(items)
    while first < last:  # from both ends, the last one first
        at = last - 1 if len(items) - last <= first else first
        if sizes[at] > room:
            break
        room -= sizes[at]
        if at == first and len(items) - last > first:
            first += 1
        else:
            last -= 1
    kept = [*items[:first], _omitted(items, last - first), *items[last:]]
    data = orjson.dumps(kept)
    return data if len(data) <= max_bytes else b"[]"


def _omitted(items: list[Any], count: int) -> dict[str, Any]:
    """What stands in place of messages or parts."""
    part = {"type": "generic", "generic_type": "omitted", "content": count}
    example = items[0] if isinstance(items[0], dict) else {}
    if "parts" not in example:
        return part
    return {**{key: example[key] for key in ("role", "finish_reason") if key in example}, "parts": [part]}
