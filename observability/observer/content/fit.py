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

TEXT_BYTES_MIN: Final = 80
"""Texts are not cut below it: names, digests and types stay whole."""
ITEMS_MAX: Final = 2048
"""Messages, or parts of the only one, that are kept at all, from both ends: 40,000 short ones took half a second."""
_OMITTED: Final = "omitted"
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

    def __init__(self, bytes_max: int | None) -> None:
        self._bytes_max = bytes_max
        self.sizes: list[int] = []
        """Of the texts, in bytes of JSON: a Chinese character is three."""
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
        return str(key[: TEXT_BYTES_MIN * 2])

    def _text(self, text: str) -> str:
        missing = text.missing if isinstance(text, CutText) else 0
        if missing:
            self.cut = True
            self.missing_bytes += max(0, missing)
        size = len(orjson.dumps(text)) - 2
        self.sizes.append(size)
        if self._bytes_max is None or size <= self._bytes_max:
            if not missing:
                return text
            return f"{text}… [cut]" if missing == UNKNOWN else f"{text}… [{missing} more bytes]"
        self.cut = True
        limit = len(text) * self._bytes_max // size
        more = len(text) - limit + max(0, missing)
        return f"{text[:limit]}… [{'over ' if missing == UNKNOWN else ''}{more} more]"


def fit(items: list[Any], max_bytes: int) -> Fitted:
    """Messages, or parts, as JSON of at most `max_bytes`."""
    whole = _Shape(None)
    few, left_out_bytes = _few(items)
    data = orjson.dumps(whole.of(few))
    true_bytes = len(data) + left_out_bytes + whole.missing_bytes
    if len(data) <= max_bytes or not items:
        return Fitted(data.decode(), true_bytes, whole.cut or few is not items)
    items = few
    limit = _limit(sorted(whole.sizes), len(data) - max_bytes)
    while True:
        data = orjson.dumps(_Shape(limit).of(items))
        if len(data) <= max_bytes or limit <= TEXT_BYTES_MIN:
            break
        limit = max(TEXT_BYTES_MIN, limit * 3 // 4)  # its first characters have more bytes than the others
    if len(data) > max_bytes:
        data = _thinned(_Shape(limit).of(items), max_bytes)
    return Fitted(data.decode(), true_bytes, True)


def _few(items: list[Any]) -> tuple[list[Any], int]:
    """The items without those in the middle of too many, and how many bytes these have."""
    if len(own := _parts(items)) > ITEMS_MAX:
        parts, left_out_bytes = _few(own)
        return [{**items[0], "parts": parts}], left_out_bytes
    if len(items) <= ITEMS_MAX:
        return items, 0
    side = ITEMS_MAX // 2
    middle = items[side:-side]
    said = _omitted(items, len(middle))
    left_out_bytes = len(orjson.dumps(middle, default=list)) - len(orjson.dumps(said)) - 2
    return [*items[:side], said, *items[-side:]], left_out_bytes


def _limit(sizes: list[int], excess: int) -> int:
    """The size to which the longest texts have to be cut so that so many bytes are saved."""
    saved = taken = 0
    while sizes:
        longest = sizes.pop()
        taken += 1
        following = sizes[-1] if sizes else 0
        step = (longest - following) * taken
        if saved + step >= excess + taken * _MARK_BYTES:
            return max(TEXT_BYTES_MIN, longest - -(-(excess + taken * _MARK_BYTES - saved) // taken))
        saved += step
    return TEXT_BYTES_MIN


def _thinned(items: list[Any], max_bytes: int) -> bytes:
    """Without items from the middle; of a single message, without parts."""
    if parts := _parts(items):
        room = max_bytes - len(orjson.dumps([{**items[0], "parts": []}]))
        kept = orjson.loads(_thinned(parts, room)) if room > 2 and len(parts) > 1 else [_omitted(parts, 1)]
        some, none = (orjson.dumps([{**items[0], "parts": some}]) for some in (kept, []))
        return next((data for data in (some, none) if len(data) <= max_bytes), b"[]")
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
    kept = [*items[:first], _omitted(items, sum(map(_count, items[first:last]))), *items[last:]]
    data = orjson.dumps(kept)
    return data if len(data) <= max_bytes else b"[]"


def _parts(items: list[Any]) -> list[Any]:
    """Of the only message, or none."""
    parts = items[0].get("parts") if len(items) == 1 and isinstance(items[0], dict) else None
    return parts if isinstance(parts, list) else []


def _count(item: Any) -> int:
    """How many items it stands for."""
    part = next(iter(_parts([item])), item)
    if isinstance(part, dict) and part.get("generic_type") == _OMITTED and type(part.get("content")) is int:
        return int(part["content"])
    return 1


def _omitted(items: list[Any], count: int) -> dict[str, Any]:
    """What stands in place of messages or parts."""
    part = {"type": "generic", "generic_type": _OMITTED, "content": count}
    example = items[0] if isinstance(items[0], dict) else {}
    if "parts" not in example:
        return part
    return {**{key: example[key] for key in ("role", "finish_reason") if key in example}, "parts": [part]}
