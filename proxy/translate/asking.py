"""Small questions to an upstream beside the request itself: whole answers of a bounded size."""

from typing import Final

from proxy.errors import UpstreamError
from proxy.upstream.connection import Connection
from proxy.upstream.pool import Pool
from proxy.upstream.response import ResponseHead

ANSWER_BYTES_MAX: Final = 1 << 20
"""Of an answer about images: it names them by URLs of some hundred bytes, and has 2 KiB; a long prompt that was
rewritten comes once for each."""


async def ask(pool: Pool, method: bytes, request: bytes, idle_timeout_ms: int) -> tuple[ResponseHead, bytes]:
    """Send a whole request, answer what comes. Raises UpstreamError, TargetUnusableError."""
    connection = await pool.acquire()
    try:
        connection.begin(method, idle_timeout_ms)
        connection.write(request)
        connection.request_complete = True
        head = await connection.read_head()
        return head, await read_whole(connection, head)
    finally:
        pool.release(connection)


async def read_whole(connection: Connection, head: ResponseHead) -> bytes:
    """The body of an answer. Raises UpstreamError."""
    if head.content_encoding.lower() not in (b"", b"identity"):
        raise UpstreamError(
            "upstream_protocol", "the answer is encoded, which was not asked for", response_started=True
        )
    pieces: list[bytes] = []
    size = 0
    while data := await connection.read():
        pieces.append(data)
        size += len(data)
        if size > ANSWER_BYTES_MAX:
            message = f"the answer about images is larger than {ANSWER_BYTES_MAX} bytes"
            raise UpstreamError("upstream_protocol", message, response_started=True)
    return b"".join(pieces)
