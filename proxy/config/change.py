"""From one configuration to the next: what a running gateway cannot change."""

from typing import Any, Final

from proxy.config.complaints import Complaint, shown
from proxy.config.model import Document

_LASTING: Final = ("listen", "workers", "observers", "admin.listen", "state", "spool_dir")
"""Sockets are opened and processes counted once, by a supervisor that reads no configuration; and what is kept in a
folder must be found where it was put."""
_RIGHT: Final = "restart the gateway, or put it back as it was"


def lasting_changes(running: Document, wanted: Document) -> list[Complaint]:
    """A complaint for each difference that takes a restart. A gateway that began with an option of its command line in
    place of a key has that in both documents."""
    complaints = []
    for path in _LASTING:
        before, after = _at(running, path), _at(wanted, path)
        if before != after:
            wrong = f"{shown(before)} cannot become {shown(after)} while the gateway runs"
            complaints.append(Complaint(path, wrong, _RIGHT))
    if (running.tls.certificate is None) != (wanted.tls.certificate is None):
        complaints.append(Complaint("tls", "TLS cannot begin or end while the gateway runs", _RIGHT))
    return complaints


def _at(document: Document, path: str) -> Any:
    value: Any = document
    for step in path.split("."):
        value = getattr(value, step)
    return value
