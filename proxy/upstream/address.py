"""Where an upstream is and how it is reached: one address opens connections to it.

The name is resolved for every new connection (the operating system's resolver, in asyncio's thread pool) and the
answers are tried in their order. Certificates are always verified: against the system's authorities, or against those
of `tls_ca` alone.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

from proxy.errors import UpstreamError
from proxy.upstream.connection import Connection

_ALPN: Final = ["http/1.1"]
"""Said outright, so that no server chooses h2 for us."""

SockAddress = tuple[socket.AddressFamily, str, int]


class AuthoritiesError(OSError):
    """The authorities that a service names cannot be read. The text names the file and says why, in one line.

    It belongs behind `services[i].tls.ca: `, which only the configuration can say.
    """


@dataclass(frozen=True)
class Address:
    """One upstream: scheme `http` or `https`, host name or IP literal (IPv6 without brackets), port."""

    scheme: str
    host: str
    port: int
    tls_ca: str | None = None
    """PEM file of the only authorities that are trusted; None = the system's."""

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        """Made once. Raises AuthoritiesError."""
        if self.scheme != "https":
            return None
        if self.tls_ca is None:
            return _system_tls()
        try:
            return _tls(self.tls_ca)
        except ssl.SSLError as error:  # OpenSSL's own text tells nobody anything
            raise AuthoritiesError(f"{self.tls_ca!r} cannot be used: it holds no PEM certificates") from error
        except OSError as error:
            raise AuthoritiesError(f"{self.tls_ca!r} cannot be used: {error.strerror}") from error

    async def connect(self, factory: Callable[[], Connection], timeout_ms: int) -> Connection:
        """A new connection, TLS included, within `timeout_ms` (0 = no limit) for resolving and all tries together.

        Each of the resolved addresses gets an equal share of the time that is left, so that one that swallows packets
        (IPv6 without a route) cannot use up all of it. Raises UpstreamError(`connect_failed`); a caller that is
        cancelled leaves nothing open.
        """
        loop = asyncio.get_running_loop()
        due_at = loop.time() + timeout_ms / 1000 if timeout_ms else None
        candidates = await self._resolve(loop, due_at)
        reason = "the name has no address"
        for tried, (family, host, port) in enumerate(candidates):
            share_until = None
            if due_at is not None:
                now = loop.time()
                share_until = now + (due_at - now) / (len(candidates) - tried)
            try:
                async with asyncio.timeout_at(share_until):
                    _, connection = await loop.create_connection(
                        factory,
                        host,
                        port,
                        family=family,
                        ssl=self.tls,
                        server_hostname=None if self.tls is None else self.host,
                    )
                    return connection
            except TimeoutError as error:
                # the kernel's own ETIMEDOUT is a TimeoutError too, and has an errno
                reason = "the connection timed out" if error.errno else f"no connection within {timeout_ms} ms"
            except (OSError, ssl.SSLError) as error:
                reason = _reason(error)
        raise UpstreamError("connect_failed", f"cannot connect to the upstream: {reason}")

    async def _resolve(self, loop: asyncio.AbstractEventLoop, due_at: float | None) -> list[SockAddress]:
        try:
            async with asyncio.timeout_at(due_at):
                infos = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise UpstreamError(
                "connect_failed", "cannot connect to the upstream: its name was not resolved in time"
            ) from None
        except UnicodeError:  # an empty label (a..b) or one over 63 bytes: not even asked for
            raise UpstreamError(
                "connect_failed", "cannot connect to the upstream: the service's host is no valid name"
            ) from None
        except OSError as error:
            raise UpstreamError("connect_failed", f"cannot connect to the upstream: {_reason(error)}") from None
        return [(family, str(address[0]), int(address[1])) for family, _, _, _, address in infos]


def _tls(authorities: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_ALPN)
    return context


@cache
def _system_tls() -> ssl.SSLContext:
    """One for all services: loading the system's authorities takes some 20 ms. A file of a service's own is read again
    for each address, because it may have changed when the configuration is loaded again."""
    return _tls(None)


def _reason(error: OSError) -> str:
    """What went wrong, without addresses: the message goes to callers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"its name was not resolved ({error.strerror})"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    return error.strerror or type(error).__name__
