"""A way through an HTTP proxy: CONNECT (RFC 9110 §9.3.6), for https and for http upstreams alike.

The proxy resolves the upstream's name. Its answer is read to the end of its head and not a byte further: whoever could
put something behind it would speak in the upstream's place. Nothing of the answer but its status is told to anybody.
"""

import asyncio
import re
import socket
from http import HTTPStatus
from typing import Final

from proxy.config.targets import Egress

HEAD_BYTES_MAX: Final = 16384
"""Of the proxy's answer. That of tinyproxy has 0.1 KiB, squid's with a reason 0.5 KiB."""
_READ_BYTES: Final = 4096
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r\n")


class TunnelError(Exception):
    """The proxy did not open a way. The text says why; it holds neither its words nor its credentials."""


async def open_tunnel(connection: socket.socket, egress: Egress, host: str, port: int) -> None:
    """Have a proxy connect a new connection to `host` (IPv6 without brackets) and `port`.

    Raises TunnelError, or OSError where the connection is lost.
    """
    loop = asyncio.get_running_loop()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    credentials = b"" if egress.authorization is None else b"Proxy-Authorization: %b\r\n" % egress.authorization
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n".encode("ascii") + credentials + b"\r\n"
    await loop.sock_sendall(connection, head)
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) > HEAD_BYTES_MAX:
            raise TunnelError(f"its answer to CONNECT has more than {HEAD_BYTES_MAX} bytes")
        data = await loop.sock_recv(connection, _READ_BYTES)
        if not data:
            raise TunnelError("it closed the connection before it had answered CONNECT")
        received += data
    status_line = _STATUS_LINE.match(received)
    if status_line is None:
        raise TunnelError("its answer to CONNECT is no HTTP")
    status = int(status_line.group(1))
    if not 200 <= status < 300:
        raise TunnelError(f"it refused the connection: {_named(status)}")
    if len(received) > end + 4:
        raise TunnelError("it sent something behind its answer to CONNECT")


def _named(status: int) -> str:
    """With the usual words for it, for the proxy's own are anybody's."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
