"""Listening sockets: opened once by the supervisor, inherited by the processes that accept from them.

The data listener has one socket for each worker slot, all on one address (SO_REUSEPORT): the kernel spreads connections
evenly, and because the supervisor holds them too, a connection that arrives while a worker is being replaced waits in
the backlog in place of being refused.

SO_REUSEPORT would also let a second gateway of the same user take half of the connections in silence. So the first
socket is bound without it, which fails where anybody listens, and only then opened for its siblings; Linux reads the
option of both sides at each bind (tried on 6.18), so there is no moment at which two gateways both succeed.
"""

import errno
import os
import socket
from collections.abc import Sequence
from typing import Final

BACKLOG = 4096
"""Per socket. The kernel caps it at net.core.somaxconn, which is 4096 by default since Linux 5.4: a burst of that many
connections waits while a worker starts (~0.5 s); a longer queue would only be answered after its clients gave up."""


KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
"""Whoever is gone without a word (a machine that lost its power, a NAT that forgot) is found out after 60 + 4 x 15 s,
not after Linux's two hours; the probes also keep a NAT from forgetting a stream that thinks for minutes. Set on the
listening socket: what is accepted inherits them, which costs a connection nothing."""


class AddressError(Exception):
    """An address cannot be listened on. The text is one line that says which, why and what to do."""


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT` → host and port. Raises ValueError with a sentence."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} is not HOST:PORT: an IPv6 address is written in brackets, [::1]:8080")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:8080")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """The inverse of `parse_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen_alone(text: str, backlog: int = BACKLOG) -> socket.socket:
    """Listen on an address that nobody else listens on. Raises AddressError."""
    try:
        host, port = parse_address(text)
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except ValueError as error:
        raise AddressError(str(error)) from None
    except OSError as error:
        raise AddressError(f"cannot listen on {text}: the host is not known here ({error.strerror})") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else TIME_WAIT blocks a restart for a minute
        for option in KEEPALIVE:
            listener.setsockopt(*option)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise AddressError(_advice(text, error)) from None
    return listener


def _advice(text: str, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"{text} is taken by another process: stop it (`ss -ltnp` names it) or choose another address"
        case errno.EACCES:
            return f"{text} is a port of the system's: choose one above 1023, or give the right to bind to it"
        case errno.EADDRNOTAVAIL:
            return f"{text} is no address of this machine: choose one of its own, or 0.0.0.0 for all of them"
        case _:
            return f"cannot listen on {text}: {error.strerror}"


class Listeners:
    """The sockets of the worker slots, by descriptor; a slot's number never changes while this object lives.

    A slot is open; or parked: closed while its worker cannot be started; or muted: it listens no more though its worker
    holds it too. Either way the kernel gives its share of the connections to the others and none waits for nobody.
    """

    def __init__(self, text: str, slots: int) -> None:
        """Listen on `HOST:PORT` (port 0: any free one) with one socket a slot. Raises AddressError."""
        first = listen_alone(text)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._family = first.family
        self._address = first.getsockname()
        self._fds = [first.detach()]
        self._parked: set[int] = set()
        self._muted: set[int] = set()
        try:
            for _ in range(1, slots):
                self._fds.append(self._sibling().detach())
        except OSError as error:
            self.close()
            raise AddressError(_advice(text, error)) from None

    @property
    def fds(self) -> Sequence[int]:
        """One descriptor a slot."""
        return tuple(self._fds)

    @property
    def address(self) -> str:
        """`HOST:PORT` as bound."""
        return format_address(*self._address[:2])

    def park(self, slot: int) -> None:
        """Close the socket of a slot, connections in its backlog included, but keep its number. Again: nothing."""
        if slot in self._parked or not self._fds:
            return
        nowhere = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(nowhere, self._fds[slot], inheritable=False)
        os.close(nowhere)
        self._parked.add(slot)
        self._muted.discard(slot)

    def mute(self, slot: int) -> bool:
        """Stop listening on a slot's socket, for its worker too; connections in its backlog are reset.

        Not where nobody else would take its share: then it is left as it is. Returns whether the slot is muted.
        """
        closed = self._parked | self._muted
        if slot not in closed and len(closed) + 1 < len(self._fds):
            with self._borrowed(slot) as listener:
                listener.shutdown(socket.SHUT_RD)  # of the socket, where a close is of the descriptor; it stays bound
            self._muted.add(slot)
        return slot in self._muted

    def unmute(self, slot: int) -> None:
        """Listen again where the slot was muted. Raises AddressError if the kernel does not let us."""
        if slot not in self._muted or not self._fds:
            return
        try:
            with self._borrowed(slot) as listener:
                listener.listen(BACKLOG)
        except OSError as error:
            raise AddressError(_advice(self.address, error)) from None
        self._muted.discard(slot)

    def unpark(self, slot: int) -> None:
        """Listen again where the slot was parked or muted. Raises AddressError if the address was taken meanwhile."""
        self.unmute(slot)
        if slot not in self._parked or not self._fds:
            return
        if len(self._parked) == len(self._fds):  # nobody of ours holds the address now
            listener = listen_alone(self.address)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        else:
            try:
                listener = self._sibling()
            except OSError as error:
                raise AddressError(_advice(self.address, error)) from None
        os.dup2(listener.fileno(), self._fds[slot], inheritable=False)
        listener.close()
        self._parked.discard(slot)

    def close(self) -> None:
        """Close this process's copies. A worker that accepts keeps its own."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _borrowed(self, slot: int) -> socket.socket:
        """A socket object for a slot, to be closed; the slot's own descriptor stays."""
        return socket.socket(fileno=os.dup(self._fds[slot]))

    def _sibling(self) -> socket.socket:
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            for option in KEEPALIVE:
                listener.setsockopt(*option)
            listener.bind(self._address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener
