"""The data listener of one worker: from an inherited socket to an `Edge` for each connection.

Without TLS the event loop accepts, and a PROXY header is read by the edge (`proxy.intake`). With TLS the socket is
accepted from here, because three things have to happen before the handshake: a PROXY header is taken off (looked at
with MSG_PEEK, so that not a byte of the handshake is read), the context is chosen (the certificate may have been
renewed), and the connection is counted: the event loop tells nobody of it before its handshake is over. So such
connections are bounded too, in number (`max_connections` and a few to be told so) and in time (`head_timeout_ms`).
"""

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol

from observability.log import get_logger
from proxy.config.snapshot import Snapshot
from proxy.forwarded import HEADER_BYTES_MAX, Peer, ProxyHeader, ProxyHeaderError
from proxy.listener_tls import Identity
from proxy.server import EdgeServer

ACCEPTED_AT_ONCE: Final = 16
"""In one turn of the loop. A handshake is up to 1 ms of it, and running answers wait for that."""
TOLD_MAX: Final = 64
"""Connections above `max_connections` that get so far as to be told: a handshake each. Others are closed at once."""
ACCEPT_PAUSE_S: Final = 0.5
"""After a failure to accept (no descriptor is left, or the supervisor has muted the socket)."""
HANDSHAKE_S: Final = 60.0
"""Where `head_timeout_ms` is 0: a handshake holds a place, and somebody must end it."""
GOODBYE_S: Final = 86400.0
"""From close to the end, as far as the event loop is concerned: it counts what a slow reader takes as nothing. The edge
ends what stands still (`Edge.sweep`)."""
COMPLAIN_S: Final = 60.0
"""Between two lines about failed handshakes. Scanners and probes that only connect make many."""

_log = get_logger(__name__)


class Listening(Protocol):
    """What accepts connections."""

    def close(self) -> None:
        """Accept no more. Those that run, and those in their handshake, go on."""

    def prepared(self, snapshot: Snapshot) -> Callable[[], None]:
        """Make what this generation needs, on any thread; the answer, on the loop's, takes it over.

        CertificateError where it cannot be."""


async def listen(server: EdgeServer, listener: socket.socket, snapshot: Snapshot) -> Listening:
    """Accept from a listening socket, which is this object's from now on. CertificateError where `tls` has one."""
    loop = asyncio.get_running_loop()
    if snapshot.tls is None:
        return Plain(await loop.create_server(server, sock=listener))
    return Secure(server, listener, Identity(*snapshot.tls))


def _nothing() -> None:
    """Of what a generation changes."""


class Plain:
    """Without TLS: the event loop's own."""

    def __init__(self, accepting: asyncio.AbstractServer) -> None:
        self._accepting = accepting

    def close(self) -> None:
        """Accept no more."""
        self._accepting.close()

    def prepared(self, snapshot: Snapshot) -> Callable[[], None]:
        """Nothing here depends on it: whether there is TLS is decided when the gateway starts."""
        return _nothing


class Secure:
    """With TLS."""

    def __init__(self, server: EdgeServer, listener: socket.socket, identity: Identity) -> None:
        self._server = server
        self._listener = listener
        self._identity = identity
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed = 0
        self._complained_at = -COMPLAIN_S
        self._paused: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._watching = self._loop.create_task(identity.watch())
        self._resume()

    def close(self) -> None:
        """Accept no more."""
        self._watching.cancel()
        if self._paused is not None:
            self._paused.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    def prepared(self, snapshot: Snapshot) -> Callable[[], None]:
        """The certificate that this generation names."""
        return self._identity.prepared(*snapshot.tls) if snapshot.tls is not None else _nothing

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno != errno.EINVAL:  # muted: not for long, and the supervisor has told
                    _log.warning("accept_failed", reason=error.strerror)
                self._loop.remove_reader(self._listener.fileno())
                self._paused = self._loop.call_later(ACCEPT_PAUSE_S, self._resume)
                return
            if self._server.crowded(TOLD_MAX):
                connection.close()
                continue
            task = self._loop.create_task(self._begin(connection, str(peer[0])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _begin(self, connection: socket.socket, peer: str) -> None:
        """From accept to the end of the handshake; from there on the edge has it."""
        server = self._server
        server.arriving += 1
        timeout_s = server.limits.head_timeout_ms / 1000 or HANDSHAKE_S
        taken = False
        try:
            connection.setblocking(False)
            edge = server()
            edge.secure = True
            proxies = server.trusted_proxies
            if proxies is not None and proxies.trusts(peer):
                async with asyncio.timeout(timeout_s):
                    announced = await self._introduced(connection)
                if announced is not None:
                    edge.announce(announced)
            taken = True
            await self._loop.connect_accepted_socket(
                lambda: edge,
                connection,
                ssl=self._identity.context,
                ssl_handshake_timeout=timeout_s,
                ssl_shutdown_timeout=GOODBYE_S,
            )
        except (OSError, ProxyHeaderError) as error:
            self._complain(error)
        finally:
            server.arriving -= 1
            if not taken:
                connection.close()

    async def _introduced(self, connection: socket.socket) -> Peer | None:
        """Whom the PROXY header names, if there is one; it is taken off, and nothing behind it."""
        header = ProxyHeader()
        begun = False
        while True:
            try:
                data = connection.recv(HEADER_BYTES_MAX, socket.MSG_PEEK)
            except BlockingIOError:
                await self._readable(connection)
                continue
            if not data:
                raise ConnectionResetError("the client left before its handshake")
            if not begun and data[0] not in b"P\r":  # neither version's first byte: a handshake's is 22
                return None
            begun = True
            rest = header.take(data)
            if header.absent:
                raise ProxyHeaderError("it is none")
            connection.recv(len(data) - len(rest or b""))
            if rest is not None:
                return header.peer

    async def _readable(self, connection: socket.socket) -> None:
        came = asyncio.Event()
        self._loop.add_reader(connection.fileno(), came.set)
        try:
            await came.wait()
        finally:
            with contextlib.suppress(OSError, ValueError):
                self._loop.remove_reader(connection.fileno())

    def _complain(self, error: Exception) -> None:
        """A line now and then, with the number of failures since the last one and why the last of them failed.

        Who connects and leaves, as probes of a TCP port do, has failed at nothing.
        """
        if isinstance(error, ConnectionResetError):
            return
        self._failed += 1
        now = time.monotonic()
        if now - self._complained_at >= COMPLAIN_S:
            reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else str(error)
            _log.warning("handshakes_failed", count=self._failed, reason=reason or type(error).__name__)
            self._complained_at, self._failed = now, 0
