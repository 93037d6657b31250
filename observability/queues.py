"""How full an observer's queues are, for /metrics: one small file each, written every few seconds.

A file of its own and not prometheus-client's: that would have one for each process that ever lived, and what a killed
observer had in its queue is gone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson


class Queued(NamedTuple):
    """Bytes that wait."""

    spans: int
    """For the collector."""
    lines: int
    """For whoever reads stdout."""


def write(folder: Path, index: int, queued: Queued) -> None:
    """Of observer `index`. Raises OSError where the disk has no room."""
    path = folder / f"queues-{index}.json"
    new = path.with_suffix(".new")
    new.write_bytes(orjson.dumps(tuple(queued)))
    new.replace(path)


def read(folder: Path) -> Iterator[tuple[str, Queued]]:
    """Index and depth of every observer that has written it; what does not read is left out."""
    for path in sorted(folder.glob("queues-*.json")):
        try:
            spans, lines = orjson.loads(path.read_bytes())
            yield path.stem.removeprefix("queues-"), Queued(int(spans), int(lines))
        except (OSError, ValueError, TypeError):
            continue
