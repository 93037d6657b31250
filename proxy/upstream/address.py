"""Where an upstream is and how it is reached: one address opens connections to it.

Name → addresses (`resolver`) → the first that answers (`dial`) → through the egress proxy, where there is one
(`tunnel`) → TLS (`tls`). What goes wrong behind TCP at one address leads to the next one, as long as there is time.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, cast

from proxy.config.targets import PLAIN_TLS, Egress, Tls
from proxy.errors import UpstreamError
from proxy.upstream.connection import Connection
from proxy.upstream.dial import Dialled, dial, reason_of
from proxy.upstream.resolver import Candidate, Resolver, UnresolvedError, is_name
from proxy.upstream.tls import Context, context_of
from proxy.upstream.tunnel import TunnelError, open_tunnel

UPGRADES_MAX: Final = 3
"""Addresses at which TCP was there and nothing more. The next one mends a machine that is ill; a certificate or an
egress proxy that refuses will not be another at the fourth."""


class Opened(NamedTuple):
    """A new connection."""

    connection: Connection
    peer: str
    """The address, as a text, that it leads to: the upstream's, or the egress proxy's."""
    handshaken: ssl.SSLObject | None
    """Its TLS."""


class _FailedError(Exception):
    """One way to the upstream failed; the text says why, without addresses: it goes to callers."""


@dataclass(frozen=True)
class Address:
    """One upstream: scheme `http` or `https`, host name or IP literal (IPv6 without brackets), port."""

    scheme: str
    host: str
    port: int
    options: Tls = PLAIN_TLS
    """Of https."""
    egress: Egress | None = None

    @cached_property
    def tls(self) -> Context | None:
        """Made once. Raises TlsFilesError."""
        return context_of(self.options) if self.scheme == "https" else None

    @cached_property
    def dialled(self) -> tuple[str, int]:
        """Host and port that TCP connections go to."""
        return (self.host, self.port) if self.egress is None else (self.egress.host, self.egress.port)

    @cached_property
    def verified(self) -> str:
        """The name that a certificate has to be for: without the dot that only DNS wants (RFC 6066 §3)."""
        return self.host.removesuffix(".")

    @cached_property
    def named(self) -> bool:
        """What is dialled is a name, whose addresses may change."""
        return is_name(self.dialled[0])

    async def connect(self, factory: Callable[[], Connection], timeout_ms: int, resolver: Resolver) -> Opened:
        """A new connection, TLS included, within `timeout_ms` (0 = no limit) for resolving and all tries together.

        Once TCP is there, an address gets an equal share of the time that is left, so that one that answers and then
        says nothing cannot use up all of it. Raises UpstreamError(`connect_failed`); a caller that is cancelled leaves
        nothing open.
        """
        loop = asyncio.get_running_loop()
        due_at = loop.time() + timeout_ms / 1000 if timeout_ms else None
        whose = "" if self.egress is None else "the egress proxy: "
        try:
            candidates = await resolver.candidates(*self.dialled, due_at)
        except UnresolvedError as error:
            raise _connect_failed(f"{whose}{error}") from None
        reason = f"{whose}the name has no address"
        for _ in range(UPGRADES_MAX):
            if not candidates:
                break
            try:
                async with asyncio.timeout_at(due_at):
                    dialled = await dial(candidates, None if due_at is None else due_at - loop.time())
            except TimeoutError:
                reason = f"{whose}no connection within {timeout_ms} ms"
                break
            candidate = _judged(dialled, candidates, resolver)
            if candidate is None:
                assert dialled.error is not None
                reason = f"{whose}{reason_of(dialled.error)}"
                break
            share_until = None
            if due_at is not None:
                now = loop.time()
                share_until = now + (due_at - now) / (len(candidates) + 1)
            try:
                async with asyncio.timeout_at(share_until):
                    return await self._upgrade(loop, factory, dialled)
            except TimeoutError:
                reason = f"no connection within {timeout_ms} ms"
            except _FailedError as error:
                reason = str(error)
            resolver.avoid(candidate)
        raise _connect_failed(reason)

    async def _upgrade(
        self, loop: asyncio.AbstractEventLoop, factory: Callable[[], Connection], dialled: Dialled
    ) -> Opened:
        """From a TCP connection to one that takes requests. Raises _FailedError, and TimeoutError only of a timeout."""
        assert dialled.socket is not None
        assert dialled.candidate is not None
        if self.egress is not None:
            try:
                await open_tunnel(dialled.socket, self.egress, self.host, self.port)
            except BaseException as error:
                dialled.socket.close()
                if isinstance(error, TunnelError):
                    raise _FailedError(f"the egress proxy: {error}") from None
                if isinstance(error, OSError) and error.errno:
                    raise _FailedError(f"the egress proxy: {reason_of(error)}") from None
                raise
        tls = self.tls
        try:
            transport, connection = await loop.create_connection(
                cast(Any, factory), sock=dialled.socket, ssl=tls, server_hostname=None if tls is None else self.verified
            )
        except OSError as error:
            if isinstance(error, TimeoutError) and not error.errno:
                raise
            if tls is not None:
                tls.forget(self.verified)
            raise _FailedError(_tls_reason(error)) from None
        return Opened(connection, dialled.candidate.address[0], transport.get_extra_info("ssl_object"))


def _judged(dialled: Dialled, candidates: list[Candidate], resolver: Resolver) -> Candidate | None:
    """The candidate that answered, if any: it and those that failed are taken out of the list."""
    for failed in dialled.failed:
        candidates.remove(failed)
        resolver.avoid(failed)
    for slow in dialled.slow:
        resolver.avoid(slow)
    if dialled.candidate is not None:
        candidates.remove(dialled.candidate)
        resolver.trust(dialled.candidate)
    return dialled.candidate


def _connect_failed(reason: str) -> UpstreamError:
    return UpstreamError("connect_failed", f"cannot connect to the upstream: {reason}")


def _tls_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, ConnectionAbortedError):  # so both loops end a handshake of 60 s
        return "TLS: the handshake took too long"
    return reason_of(error)
