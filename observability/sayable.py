"""Records with something in them that JSON cannot say. Not compiled (setup.py): Python counts how deep it recurses."""

from typing import Any

import orjson


def dumps_anyhow(record: Any) -> bytes:
    """A record with something that JSON cannot say: a lone surrogate, an integer beyond 64 bits, a foreign type.

    No text of a caller should come here with one (each is bounded where it is read): it is what keeps an oversight from
    costing the record.

    Empty where even that fails (nested without end): such a record has no size that would do, and counts as oversize.
    """
    try:
        return orjson.dumps(_sayable(record))
    except (TypeError, RecursionError):
        return b""


def _sayable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_sayable(str(key)): _sayable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(item) for item in value]
    if value is None or isinstance(value, float | bool | orjson.Fragment):
        return value
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 64:
        return value
    return _sayable(str(value))
