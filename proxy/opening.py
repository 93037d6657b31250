"""The beginning of an answer, held back while the exchange may still go elsewhere: before the commit.

A stream is held until its first event, or until its first output where that has a deadline; what is read is scanned
here and sent by the relay. An answer that is not wanted is kept whole, as far as it is small: if no target gives a
better one, it is what the client gets. All of it is bounded by `hold_response_bytes`.
"""

import asyncio
from typing import Final, NamedTuple

from observability.observation import Observation
from proxy.deadline import FirstOutput
from proxy.errors import UpstreamError
from proxy.relay import is_whole, read
from proxy.routing import Choice
from proxy.upstream.connection import Connection
from proxy.upstream.response import ResponseHead

KEEP_S: Final = 2.0
"""How long the body of a refusal may take. Refusals come whole in a segment or two; one that does not is not waited for
while another target could be answering."""


class Opening(NamedTuple):
    """What was read of a body before anything of it was sent."""

    held: list[bytes]
    refused: bool
    """The first event of the stream is an error."""


async def first_output(
    connection: Connection, observation: Observation, clock: FirstOutput | None, *, until_output: bool, limit_bytes: int
) -> Opening:
    """Read a stream until its first event (or output), its end, or `limit_bytes`. Raises UpstreamError.

    The scanner must be open. Comments are no events; deltas without content are no output.
    """
    held: list[bytes] = []
    held_bytes = 0
    scanner = observation.scanner
    assert scanner is not None
    findings = scanner.findings
    while held_bytes <= limit_bytes:
        data = connection.read_nowait()
        if data is None:
            data = await read(connection, observation)
        if not data:
            whole = is_whole(observation)
            if findings.error_code is not None:
                return Opening(held, refused=True)
            if not whole:
                raise UpstreamError("upstream_truncated", "the stream ended before its end", response_started=True)
            break
        if clock is not None:
            clock.packet()
        held.append(data)
        held_bytes += len(data)
        observation.scan(data)
        if findings.first_output:
            break
        if findings.error_code is not None:
            return Opening(held, refused=True)
        if findings.failed or (findings.events and not until_output):
            break
    return Opening(held, refused=False)


async def rest(connection: Connection, observation: Observation, held: list[bytes], limit_bytes: int) -> bool:
    """Read on to the end of the body and add it to `held`; False where it is larger, slow or broken off."""
    held_bytes = sum(map(len, held))
    try:
        async with asyncio.timeout(KEEP_S):
            while held_bytes <= limit_bytes:
                data = await read(connection, observation)
                if not data:
                    return True
                held.append(data)
                held_bytes += len(data)
                observation.scan(data)
    except (TimeoutError, UpstreamError):
        pass
    return False


class Kept:
    """An answer that was not sent, whole: what the client gets when nobody has a better one. A source for the relay."""

    body_complete = True

    def __init__(self, choice: Choice, head: ResponseHead, body: list[bytes], *, usage_asked: bool) -> None:
        self.choice = choice
        """Who gave it."""
        self.head = head
        self.usage_asked = usage_asked
        """As in the exchange, of the request that it answers."""
        self._body = b"".join(body)

    @property
    def held_bytes(self) -> int:
        """Of the body, unread."""
        return len(self._body)

    def read_nowait(self) -> bytes:
        """The body, then b""."""
        body, self._body = self._body, b""
        return body

    async def read(self) -> bytes:
        """As `read_nowait`."""
        return self.read_nowait()
