"""What only the TCP connection itself tells, and no event of the event loop does. Linux."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from typing import Final

# States of Linux's tcp_states.h in which the peer has sent FIN or reset: CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING.
_PEER_GONE: Final = frozenset((7, 8, 9, 11))
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
_TCP_NOTSENT_LOWAT: Final = 25  # of Linux's tcp.h; Python's socket has it from 3.12 on
UNSENT_BYTES: Final = 262144
"""What the kernel takes from us beyond what is on its way. Left to itself it takes 4 MiB for each slow reader, and as
much from the upstream before we stop reading there: 8 MiB a reader, which a container's limit counts too."""


def peer_gone(channel: asyncio.Transport) -> bool:
    """The other side has left, though we do not read and so see no end."""
    connection = channel.get_extra_info("socket")
    if connection is None:
        return False
    with contextlib.suppress(OSError):
        state: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return state[0] in _PEER_GONE
    return True


def hold_little(channel: asyncio.Transport) -> None:
    """The kernel is to hold little of what a slow reader does not take. A fast one does not notice."""
    connection = channel.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def unacknowledged(channel: asyncio.Transport) -> int:
    """Bytes that the kernel took and the other side has not: up to 4 MiB, so that we see a slow reader take nothing for
    minutes, and then a MiB at once."""
    connection = channel.get_extra_info("socket")
    if connection is None:
        return 0
    with contextlib.suppress(OSError):
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0


def acknowledged(channel: asyncio.Transport) -> int:
    """Bytes that the other side has taken since the connection began (`tcpi_bytes_acked` of tcp_info)."""
    connection = channel.get_extra_info("socket")
    if connection is None:
        return 0
    try:
        facts: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    except OSError:
        return 0
    return int.from_bytes(facts[120:128], sys.byteorder)


def has_unread(channel: asyncio.Transport) -> bool:
    """Something waits in the kernel: closing now would answer it with a reset."""
    connection = channel.get_extra_info("socket")
    if connection is None:
        return False
    try:
        # uvloop hands out a pseudo-socket without recv; its descriptor is asked through a duplicate
        with socket.socket(fileno=socket.dup(connection.fileno())) as peek:
            return bool(peek.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def reset_on_close(channel: asyncio.Transport) -> None:
    """Closing will send RST instead of FIN (SO_LINGER of 0 s)."""
    connection = channel.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
