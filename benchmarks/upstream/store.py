"""What requests made and others may ask for later: tasks, files, jobs.

The newest `KEPT` of each kind are kept, with at most `HELD_BYTES` of a file's content: 16 MB in all. Their names depend
on the request that made them, so the same request makes the same thing once more, fresh.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

KEPT = 256
HELD_BYTES = 64 * 1024


class Store:
    """Things by kind and name, oldest first. A thing is a dictionary that its protocol fills as it likes."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        """http or https: of the URLs under which results are served."""
        self._kinds: dict[str, OrderedDict[str, dict[str, Any]]] = {}

    def put(self, kind: str, name: str, thing: dict[str, Any]) -> None:
        """Keeps a thing, as the newest; forgets the oldest where there are too many."""
        things = self._of(kind)
        things.pop(name, None)
        things[name] = thing
        if len(things) > KEPT:
            things.popitem(last=False)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """A thing that was not forgotten."""
        return self._of(kind).get(name)

    def drop(self, kind: str, name: str) -> None:
        """Forgets a thing, if it is there."""
        self._of(kind).pop(name, None)

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Oldest first."""
        return list(self._of(kind).values())

    def _of(self, kind: str) -> OrderedDict[str, dict[str, Any]]:
        return self._kinds.setdefault(kind, OrderedDict())
