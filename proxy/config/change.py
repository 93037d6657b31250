"""From one configuration to the next: what a running gateway cannot change."""

from typing import Any, Final

from pydantic import BaseModel

from proxy.config.complaints import Complaint, shown
from proxy.config.model import Document

_LASTING: Final = ("listen", "tls", "workers", "observers", "admin.listen", "state", "spool_dir")
"""Sockets are opened and processes counted once, by a supervisor that reads no configuration; and what is kept in a
folder must be found where it was put."""
_CHANGED: Final = "it cannot change while the gateway runs"


def lasting_changes(running: Document, wanted: Document) -> list[Complaint]:
    """A complaint for each difference that takes a restart. A gateway that began with an option of its command line in
    place of a key has that in both documents."""
    complaints = []
    for path in _LASTING:
        before, after = _at(running, path), _at(wanted, path)
        if before != after:
            plain = not isinstance(before, BaseModel)
            wrong = f"{shown(before)} cannot become {shown(after)} while the gateway runs" if plain else _CHANGED
            complaints.append(Complaint(path, wrong, "restart the gateway, or put it back as it was"))
    return complaints


def _at(document: Document, path: str) -> Any:
    value: Any = document
    for step in path.split("."):
        value = getattr(value, step)
    return value
