"""The last words of an upstream that refuses an upload: read although writing to it has failed.

A server that answers 413 and closes while we still send makes our next write fail, and asyncio then drops the
connection without another look at what had come. The kernel still has it: an early 4xx says more than a broken pipe.
Only for plain connections: what came over TLS cannot be read without the transport.
"""

import asyncio
import os
from typing import Final

LEFTOVER_BYTES: Final = 65536
"""Read at most: a refusal is small, and what is more than this ends as a reset."""


def leftover(transport: asyncio.BaseTransport) -> bytes:
    """What came and was not read on a connection that is being lost; b"" if there is nothing. To be called in
    `connection_lost()`, while the socket is still open; does not wait."""
    if transport.get_extra_info("sslcontext") is not None:
        return b""
    try:
        return os.read(transport.get_extra_info("socket").fileno(), LEFTOVER_BYTES)
    except (OSError, AttributeError, ValueError):  # nothing, another error, or no socket any more
        return b""
