"""The certificate of the data listener: read, checked, and read again when its files change.

A pair of files is loaded into a context of its own, and only where that succeeds new handshakes get it: who renews a
certificate writes two files, and in between they do not fit together. Running connections keep what they began with.
"""

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import Final

from observability.log import get_logger

LOOK_S: Final = 5.0
"""How often the files are looked at, in a thread: two system calls; on a network's file system they may take long."""

_log = get_logger(__name__)
_Stamp = tuple[tuple[int, int, int] | None, ...]


class CertificateError(Exception):
    """The files cannot be used. `key` is that of `tls` which is at fault, the rest what a complaint says."""

    def __init__(self, key: str, wrong: str, right: str) -> None:
        super().__init__(f"tls.{key}: {wrong}")
        self.key = key
        self.wrong = wrong
        self.right = right


def context_of(certificate: str, key: str | None) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or newer, HTTP/1.1. `key` None: it is in the certificate's file.

    Raises CertificateError.
    """
    _check_readable("certificate", certificate)
    if key is not None:
        _check_readable("key", key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=certificate)
    except ssl.SSLError:
        wrong = f"{certificate!r} holds no PEM certificate"
        raise CertificateError("certificate", wrong, "name the file of the certificate and its chain") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a handshake is 1 ms of CPU for 0.01 ms of the client's
    context.set_alpn_protocols(["http/1.1"])
    asked: list[bool] = []

    def no_passphrase() -> str:
        """In place of OpenSSL's own question on the terminal."""
        asked.append(True)
        return ""

    where, named = ("certificate", certificate) if key is None else ("key", key)
    try:
        context.load_cert_chain(certificate, key, password=no_passphrase)
    except ssl.SSLError as error:
        if asked:
            wrong, right = f"the key in {named!r} has a passphrase", "take it off: `openssl pkey -in FILE -out FILE2`"
        elif error.reason == "KEY_VALUES_MISMATCH":
            wrong, right = f"the key in {named!r} is not the certificate's", "name the two files of one pair"
        elif key is None:
            where, wrong = "key", f"it is missing, and {certificate!r} holds no usable key"
            right = "name the file of the certificate's key"
        else:
            reason = "" if error.reason in (None, "NO_START_LINE", "PEM_LIB") else f" ({error.reason})"
            wrong, right = f"{named!r} holds no usable PEM key{reason}", "name the file of the certificate's key"
        raise CertificateError(where, wrong, right) from None
    except OSError as error:  # it was there a moment ago
        raise CertificateError(where, f"{named!r} cannot be read ({error.strerror})", "name a readable file") from None
    return context


def _check_readable(key: str, name: str) -> None:
    right = "name a readable file"
    if os.path.exists(name) and not os.path.isfile(name):  # a pipe would be waited for
        raise CertificateError(key, f"{name!r} is no file", right)
    try:
        with open(name, "rb"):
            pass
    except OSError as error:
        raise CertificateError(key, f"{name!r} cannot be read ({error.strerror})", right) from None


class Identity:
    """What the data listener shows who it is: `context` is for the next handshake."""

    def __init__(self, certificate: str, key: str | None) -> None:
        """Raises CertificateError."""
        self._files = certificate, key
        self._stamp: _Stamp | None = _stamp(self._files)
        self.context = context_of(certificate, key)

    def prepared(self, certificate: str, key: str | None) -> Callable[[], None]:
        """Read another pair, on any thread; the answer, on the loop's, shows it from then on. CertificateError."""
        files = certificate, key
        stamp, context = _stamp(files), context_of(certificate, key)

        def show() -> None:
            self._files, self._stamp, self.context = files, stamp, context

        return show

    async def watch(self) -> None:
        """Look at the files for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Take the pair over if it has changed and is whole. What is not is told once, and stays unused."""
        files = self._files
        stamp, context, fault = await asyncio.to_thread(_changed, files, self._stamp)
        if files != self._files:  # another generation came meanwhile
            return
        self._stamp = stamp
        if fault is not None:
            _log.warning("certificate_not_reloaded", reason=str(fault))
        elif context is not None:
            self.context = context
            _log.info("certificate_reloaded", certificate=files[0])


def _changed(
    files: tuple[str, str | None], known: _Stamp | None
) -> tuple[_Stamp, ssl.SSLContext | None, CertificateError | None]:
    stamp = _stamp(files)  # before reading: what changes in between is seen next time
    if stamp == known:
        return stamp, None, None
    try:
        return stamp, context_of(*files), None
    except CertificateError as error:
        return stamp, None, error


def _stamp(files: tuple[str, str | None]) -> _Stamp:
    """What changes when a file does, be it written, replaced or linked elsewhere (as Kubernetes does)."""
    stamps: list[tuple[int, int, int] | None] = []
    for name in files:
        try:
            facts = os.stat(name) if name is not None else None
        except OSError:
            facts = None
        stamps.append(None if facts is None else (facts.st_mtime_ns, facts.st_size, facts.st_ino))
    return tuple(stamps)
