"""The deadlines of an attempt: until the first byte of the answer's body, and until its first output.

Both run from the start of the attempt, over connecting, sending and waiting for the head. They stand still while the
client's body is awaited (a slow upload is not the upstream's fault), and before it is known that a stream was asked for
(a whole answer takes as long as it takes). One `asyncio` timeout scope that is moved, no timers of its own.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType

from proxy.errors import UpstreamError


class FirstOutput:
    """An async context around an attempt, from its start until `stop`.

    What is still running inside at a deadline is cancelled, and the context raises UpstreamError
    (first_packet_timeout or first_token_timeout). 0 ms: no such deadline.
    """

    def __init__(self, packet_timeout_ms: int, token_timeout_ms: int, streams: Callable[[], bool]) -> None:
        """`streams`: is it known by now that the client asked for a stream?"""
        self._packet_timeout_ms = packet_timeout_ms
        self._token_timeout_ms = token_timeout_ms
        self._streams = streams
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._began_at = self._loop.time()  # moved by the time that the clock stood still
        self._paused_at: float | None = None
        self._stopped = False

    async def __aenter__(self) -> "FirstOutput":
        await self._scope.__aenter__()
        self.look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped = True
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError:
            if not self._scope.expired():
                raise
            what, timeout_ms = self._due()
            name = what.removeprefix("first_")
            message = f"no first {name} within {timeout_ms} ms"
            raise UpstreamError(f"{what}_timeout", message) from None

    def pause(self) -> None:
        """The client is waited for."""
        if self._paused_at is None and not self._stopped:
            self._paused_at = self._loop.time()
            self._move_to(None)

    def resume(self) -> None:
        """It is not any more."""
        if self._paused_at is not None:
            self._began_at += self._loop.time() - self._paused_at
            self._paused_at = None
            self.look()

    def look(self) -> None:
        """Something changed that the deadlines depend on."""
        if self._stopped or self._paused_at is not None or not self._streams():
            return
        timeout_ms = self._due()[1]
        self._move_to(self._began_at + timeout_ms / 1000 if timeout_ms else None)

    def packet(self) -> None:
        """The first byte of the body has come."""
        if self._packet_timeout_ms:
            self._packet_timeout_ms = 0
            self.look()

    def stop(self) -> None:
        """There is output: no deadline holds any more."""
        if not self._stopped:
            self._stopped = True
            self._move_to(None)

    def _move_to(self, when: float | None) -> None:
        if not self._scope.expired():  # else it is being cancelled already, and what is cancelled may still call here
            self._scope.reschedule(when)

    def _due(self) -> tuple[str, int]:
        """The deadline that comes first, and its milliseconds."""
        packet_ms, token_ms = self._packet_timeout_ms, self._token_timeout_ms
        if packet_ms and (not token_ms or packet_ms <= token_ms):
            return "first_packet", packet_ms
        return "first_token", token_ms
