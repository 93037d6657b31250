"""The last words of an upstream: what came on a connection that is being lost and was never given to us.

Two cases. A server that answers 413 and closes while we still send makes our next write fail, and asyncio then drops
the connection without another look at what had come; the kernel still has it, and an early 4xx says more than a broken
pipe. And uvloop, when a TLS connection ends while reading is paused, forgets what it had read ahead, up to 256 KiB; the
TLS object still has it, and knows whether the peer announced the end (close_notify).

What the kernel has of a TLS connection cannot be read without the transport.
"""

import asyncio
import os
import ssl
from typing import Final

LEFTOVER_BYTES: Final = 65536
"""Read from the kernel at most: a refusal is small, and what is more than this ends as a reset."""
_TLS_READ_BYTES: Final = 262144
"""At once. Together no more than the transport reads ahead: 256 KiB and one more segment."""


def leftover(transport: asyncio.BaseTransport) -> tuple[bytes, bool]:
    """What came and was not read, and whether its end can be believed: False for TLS without close_notify.

    To be called in `eof_received()` or `connection_lost()`, while the socket is still open; does not wait.
    """
    if transport.get_extra_info("sslcontext") is not None:
        return _tls_leftover(transport.get_extra_info("ssl_object"))
    try:
        return os.read(transport.get_extra_info("socket").fileno(), LEFTOVER_BYTES), True
    except (OSError, AttributeError, ValueError):  # nothing, another error, or no socket any more
        return b"", True


def _tls_leftover(tls: ssl.SSLObject) -> tuple[bytes, bool]:
    pieces = []
    try:
        while piece := tls.read(_TLS_READ_BYTES):
            pieces.append(piece)
    except ssl.SSLZeroReturnError:  # close_notify came, and ours was sent
        pass
    except (ssl.SSLError, AttributeError, ValueError):  # wants more, is broken, or is no longer there
        return b"".join(pieces), False
    return b"".join(pieces), True
