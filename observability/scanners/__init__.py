"""Scanners: bytes of a body in, facts out, for each protocol and operation.

`response_scanner` and `request_scanner` choose; what they return never raises and never holds more than one small
document. How responses are scanned stands in `base`; what they mean in a module for each family of operations.
"""

from observability.scanners.base import Scanner
from observability.scanners.choice import (
    behind,
    is_form,
    is_json,
    media_type,
    reading,
    reads_alike,
    request_scanner,
    response_scanner,
    unread,
)
from observability.scanners.request import RequestScanner

__all__ = [
    "RequestScanner",
    "Scanner",
    "behind",
    "is_form",
    "is_json",
    "media_type",
    "reading",
    "reads_alike",
    "request_scanner",
    "response_scanner",
    "unread",
]
