"""The middle of an answer: pieces go from the upstream's connection to the client's in the callback that brought them.

While nothing but the next piece is awaited the relay's task need not wake for it: that is a future, a turn of the loop
and eight coroutines for each event of a stream, 6 of 26 µs. The relay goes on where more than passing on is to be done:
the last piece, a failure, a reader that does not keep up.
"""

from typing import Protocol

from observability.observation import Observation, now_ns
from proxy.rewrite import UsageChunkFilter
from proxy.upstream.connection import Connection


class Reader(Protocol):
    """The client's side (`proxy.downstream`). Both raise ConnectionResetError where the client left."""

    def send(self, head: bytes, data: bytes, *, last: bool) -> None:
        """Write."""

    @property
    def blocked(self) -> bool:
        """The client does not keep up."""

    async def drain(self) -> None:
        """Wait for it."""


class Passage:
    """From one connection to one reader, for the relay of one answer. `withheld`: what goes through it is filtered."""

    __slots__ = ("_error", "_observation", "_response", "_source", "_spent_ns", "_stopped", "_withheld")

    def __init__(
        self, source: Connection, response: Reader, observation: Observation, withheld: UsageChunkFilter | None
    ) -> None:
        self._source = source
        self._response = response
        self._observation = observation
        self._withheld = withheld
        self._error: Exception | None = None
        self._spent_ns = 0
        self._stopped = False

    async def run(self) -> None:
        """Pass on what comes, until the source has what is not to be passed on, or until a slow reader has caught up.

        The wait is the upstream's, but for the time that passing on took. Raises what the reader raises.
        """
        source = self._source
        began_ns = now_ns()
        self._spent_ns = 0
        self._stopped = False
        source.sink = self._pass
        try:
            while not (self._stopped or source.readable):
                await source.arrival()
        finally:
            source.sink = None
            self._observation.upstream_ns += now_ns() - began_ns - self._spent_ns
            error, self._error = self._error, None  # even where it is cancelled: its traceback leads back here
        try:
            if error is not None:
                raise error
        finally:
            del error
        if self._stopped:
            await drain(self._response, self._observation)

    def _pass(self) -> None:
        """The source has a piece, and it is not the last one."""
        began_ns = now_ns()
        try:
            data = self._source.read_nowait()
            if data:
                out = data if self._withheld is None else self._withheld.feed(data)
                if out:
                    self._response.send(b"", out, last=False)
                self._observation.tap(data)
                self._stopped = self._response.blocked
        except Exception as error:  # noqa: BLE001 - it is the relay's, whose task is woken for it
            self._error = error
            self._stopped = True
        self._spent_ns += now_ns() - began_ns
        if self._stopped:
            self._source.sink = None  # what comes before the task runs is the relay's
            self._source.wake()


async def drain(response: Reader, observation: Observation) -> None:
    """Wait for a reader; the wait is the client's."""
    began_ns = now_ns()
    try:
        await response.drain()
    finally:
        observation.client_blocked_ns += now_ns() - began_ns
