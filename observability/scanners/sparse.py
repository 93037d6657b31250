"""What `wire.json_fields` found of a large document, in the shape of that document: one reader serves all sizes."""

from typing import Any

import orjson

from observability.wire.json_fields import JsonFields
from observability.wire.json_paths import Path

TOO_LARGE = "…"
"""In a sparse document: a value that was there and was not held."""


def sparse_document(fields: JsonFields) -> dict[str, Any]:
    """What `fields` found, in the shape of the document it was found in.

    Elements that were only counted are None, as are those before the first wanted one; a value that was too large to be
    held is TOO_LARGE; one that does not decode is left out.
    """
    document: dict[str, Any] = {}
    for path, count in fields.counts.items():
        _place(document, path, (), [None] * count)
    for field in fields.fields:
        try:
            value = TOO_LARGE if field.raw is None else orjson.loads(field.raw)
        except orjson.JSONDecodeError:
            continue
        _place(document, field.path, field.indices, value)
    return document


def event_document(fields: JsonFields) -> dict[str, Any]:
    """The sparse document of an event; ValueError if the event's data were no whole document."""
    fields.end()
    if not fields.complete or fields.trailing:
        raise ValueError("the data of an event are no JSON document")
    return sparse_document(fields)


def _place(document: dict[str, Any], path: Path, indices: tuple[int, ...], value: object) -> None:
    positions = iter(indices)
    where: Any = document
    for depth, step in enumerate(path):
        key: Any = next(positions) if step == "*" else step
        if isinstance(where, list):
            where.extend([None] * (key + 1 - len(where)))
        if depth == len(path) - 1:
            where[key] = value
            return
        kind = list if path[depth + 1] == "*" else dict
        below = where[key] if isinstance(where, list) else where.get(key)
        if not isinstance(below, kind):
            below = where[key] = kind()
        where = below
