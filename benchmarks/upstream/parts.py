"""Files in a request body, hashed as they pass: the parts of a form, and data URLs in JSON.

Both take the body in pieces of any size and hold one piece, what may be the beginning of a delimiter, the fields of a
form that are text (`FIELD_BYTES` each, `PARTS_MAX` of them) and the first `HELD_BYTES` of each file.
"""

from __future__ import annotations

import binascii
import hashlib
import re

from benchmarks.upstream.ledger import File
from benchmarks.upstream.store import HELD_BYTES

PARTS_MAX = 64
FIELD_BYTES = 64 * 1024
HEAD_BYTES = 8 * 1024

_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^;\s]+))', re.IGNORECASE)
_PARAMETER = re.compile(r'\b(name|filename)="((?:[^"\\]|\\.)*)"')
_DATA_URL = re.compile(rb'"data:([^",]{0,100});base64,')
_LONGEST_START = 120  # of the above


class BadFormError(ValueError):
    """The body is not the form that its content type says."""


class _Hashed:
    """One file on its way."""

    def __init__(self, name: str, filename: str | None, content_type: str) -> None:
        self._name, self._filename, self._content_type = name, filename, content_type
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self.head = bytearray()

    def feed(self, data: bytes) -> None:
        self._sha256.update(data)
        self._bytes += len(data)
        if len(self.head) < HELD_BYTES:
            self.head += data[: HELD_BYTES - len(self.head)]

    def file(self) -> File:
        return File(self._name, self._filename, self._content_type, self._bytes, self._sha256.hexdigest())


class Form:
    """A multipart/form-data body. A name that comes twice (`image[]`) is a list of files, but the last of texts."""

    def __init__(self, content_type: str) -> None:
        found = _BOUNDARY.search(content_type)
        if found is None:
            raise BadFormError("The form has no boundary")
        self._delimiter = b"\r\n--" + (found[1] or found[2]).encode()
        self._held = b"\r\n"
        self._in_head = False
        self._ended = False
        self._name: str | None = None  # of the open part; None: before the first
        self._open: _Hashed | None = None
        self._text = bytearray()
        self.fields: dict[str, str] = {}
        self.files: list[File] = []
        self.heads: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """The next piece; raises BadFormError."""
        self._held += data
        while not self._ended and self._step():
            pass

    def end(self) -> None:
        """The body is over; raises BadFormError where the form is not."""
        if not self._ended:
            raise BadFormError("The form breaks off")

    def _step(self) -> bool:
        """One head or one delimiter; False: more bytes are needed."""
        if self._in_head:
            if self._held.startswith(b"--"):
                self._ended = True
                return False
            head, found, rest = self._held.partition(b"\r\n\r\n")
            if not found:
                if len(head) > HEAD_BYTES:
                    raise BadFormError("The head of a part is too long")
                return False
            self._begin(head.decode("utf-8", "replace"))
            self._held, self._in_head = rest, False
            return True
        content, found, rest = self._held.partition(self._delimiter)
        if not found:
            keep = len(self._delimiter) - 1
            self._take(self._held[:-keep])
            self._held = self._held[-keep:]
            return False
        self._take(content)
        self._finish()
        self._held, self._in_head = rest, True
        return True

    def _begin(self, head: str) -> None:
        if len(self.files) + len(self.fields) >= PARTS_MAX:
            raise BadFormError("The form has too many parts")
        named = dict(_PARAMETER.findall(head))
        self._name = named.get("name", "")
        kind = re.search(r"^content-type:\s*(.*?)\s*$", head, re.IGNORECASE | re.MULTILINE)
        if "filename" in named:
            self._open = _Hashed(self._name or "", named["filename"], kind[1] if kind else "")

    def _take(self, content: bytes) -> None:
        if self._open is not None:
            self._open.feed(content)
        elif self._name is not None:
            self._text += content
            if len(self._text) > FIELD_BYTES:
                raise BadFormError(f"The field {self._name} is too long")

    def _finish(self) -> None:
        if self._open is not None:
            self.files.append(self._open.file())
            self.heads.append(bytes(self._open.head))
        elif self._name is not None:
            self.fields[self._name] = self._text.decode("utf-8", "replace")
        self._open, self._name = None, None
        self._text.clear()


class DataUrls:
    """The data URLs of a JSON body (those in base64), decoded as they pass."""

    def __init__(self) -> None:
        self._held = b""
        self._open: _Hashed | None = None
        self.files: list[File] = []

    def feed(self, data: bytes) -> None:
        """The next piece."""
        self._held += data
        while self._step():
            pass

    def _step(self) -> bool:
        if self._open is None:
            found = _DATA_URL.search(self._held)
            if found is None or len(self.files) >= PARTS_MAX:
                self._held = self._held[-_LONGEST_START:]
                return False
            self._open = _Hashed("", None, found[1].decode("latin-1"))
            self._held = self._held[found.end() :]
        text, quote, rest = self._held.partition(b'"')
        whole = len(text) // 4 * 4
        try:
            self._open.feed(binascii.a2b_base64(text[:whole]))
        except binascii.Error:
            self._open = None  # no base64: no file
            self._held = rest
            return bool(quote)
        if not quote:
            self._held = text[whole:]
            return False
        self.files.append(self._open.file())
        self._open, self._held = None, rest
        return True
