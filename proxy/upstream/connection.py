"""One HTTP/1.1 connection to an upstream: writes a request as it is told to, reads one response at a time.

The data path, and the reason for a client of our own (2.5 times the requests per second of the whole gateway with
`aiohttp.ClientSession`): no task and no stream per connection, a future only when the caller really has to wait, one
timer per connection. A response that arrives whole in one segment wakes its reader once.

One exchange:

    connection.begin(b"POST", idle_timeout_ms=300_000)
    connection.write(head_and_body)         # or write, drain, write, drain …
    connection.request_complete = True
    head = await connection.read_head()
    while piece := await connection.read():
        …
    pool.release(connection)

The upload may run beside `read_head()` (one waiter for each direction). A response that starts while the caller is
still uploading ends the wait in `drain()`: look at `head_ready` then. `abort()` is right at any time, twice too.

Memory is bounded both ways: writing stops being accepted silently above WRITE_HIGH_BYTES (`drain()` waits), reading
pauses above READ_HIGH_BYTES, which one more segment of at most 256 KiB (asyncio's and uvloop's read size) may overrun.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, cast

from proxy.errors import UpstreamError
from proxy.outbox import Outbox
from proxy.upstream.leftover import leftover
from proxy.upstream.response import ResponseError, ResponseHead, ResponseReader

READ_HIGH_BYTES: Final = 65536
"""Unread body above which the socket is not read; resumed at half. The same as the edge's buffer towards the client."""
READ_HIGH_PIECES: Final = 2048
"""The same for the number of pieces: a piece costs 41 bytes beside its content, which counts where chunks are tiny."""
SINK_BYTES_MAX: Final = 16384
"""Larger pieces wake who waits: the loop reads 32 of them before it writes one, so nobody would see a slow reader."""
WRITE_HIGH_BYTES: Final = 65536
"""Bytes handed to the transport and not yet taken by the kernel, above which `drain()` waits."""


class Connection:
    """See the module; an `asyncio.Protocol` but for the base (setup.py). `on_closed` is called once, at any end."""

    __slots__ = (
        "_activity_at",
        "_busy",
        "_failure",
        "_idle_timeout_s",
        "_loop",
        "_on_closed",
        "_outbox",
        "_reading_paused",
        "_request_complete",
        "_response",
        "_timer",
        "_transport",
        "_waiter",
        "_write_waiter",
        "_writing_paused",
        "closed",
        "created_at",
        "idle_since",
        "response_started",
        "reused",
        "sink",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_closed: Callable[["Connection"], None], outbox: Outbox
    ) -> None:
        self._loop = loop
        self._outbox = outbox
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._response = ResponseReader()
        self._waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_timeout_s = 0.0
        self._activity_at = 0.0
        self._busy = False
        self._reading_paused = False
        self._writing_paused = False
        self._request_complete = False
        self._failure: tuple[str, str] | None = None
        self.sink: Callable[[], None] | None = None
        """Told of each small piece that is not the last, in place of who waits (`proxy.passage`)."""
        self.reused = False
        """Served a request before: its death before any response byte may be nobody's fault."""
        self.closed = False
        """Nothing can be written any more, no byte will come; what came can still be read."""
        self.response_started = False
        """A byte of the response to the current request was seen (of a 1xx too)."""
        self.created_at = 0.0
        """Instant of the pool's clock, seconds."""
        self.idle_since = 0.0
        """Instant of the pool's clock, seconds, of the last release."""

    def begin(self, method: bytes, idle_timeout_ms: int) -> None:
        """Prepare for one exchange. `idle_timeout_ms`: see `read()`; 0 = none."""
        assert not self._busy, "the last exchange is not released"
        self._busy = True
        self._response.reset(head_request=method == b"HEAD")
        self.response_started = False
        self._request_complete = False
        self._idle_timeout_s = idle_timeout_ms / 1000
        self._activity_at = self._loop.time()
        if self.closed:  # between the pool's look at it and now
            self._failure = ("upstream_protocol", "the upstream closed the connection before the request")
        elif idle_timeout_ms:
            self._arm_timer()

    def write(self, data: bytes) -> None:
        """Send bytes of the request; head, body and framing are the caller's. Dropped once the connection is lost."""
        if self._transport is not None and not self.closed:
            self._outbox.write(self._transport, data)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        """Like `write()` for several pieces in one system call."""
        if self._transport is not None and not self.closed:
            self._outbox.writelines(self._transport, pieces)

    def bare(self) -> asyncio.Transport | None:
        """The transport, which has all that was written: for `by_file`. None once the connection is lost."""
        self._outbox.flush()
        return None if self.closed else self._transport

    @property
    def request_complete(self) -> bool:
        """Set by the caller when the last byte of the request was written.

        Until then the idle clock of the head stands still (the client may be slow), and a connection that is released
        is closed instead of used again.
        """
        return self._request_complete

    @request_complete.setter
    def request_complete(self, value: bool) -> None:
        self._request_complete = value
        self._activity_at = self._loop.time()

    async def drain(self) -> None:
        """Wait while more than WRITE_HIGH_BYTES are unsent.

        Returns at once when the response head is there: an upstream that answers early wants no more of the body.
        Raises UpstreamError when the connection is lost before that, or when it takes nothing for the idle timeout.
        """
        while self._response.head is None:
            if self._failure is not None:
                raise self._error()
            if not self._writing_paused:
                return
            assert self._write_waiter is None, "one writer at a time"
            waiter = self._write_waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._write_waiter = None

    @property
    def head_ready(self) -> bool:
        """`read_head()` would not wait."""
        return self._response.head is not None

    async def read_head(self) -> ResponseHead:
        """The head of the final response; 1xx before it are dropped.

        Raises UpstreamError: `upstream_protocol` (closed before the head was whole, malformed, over the limits) or
        `upstream_timeout` (no byte for the idle timeout; the clock starts when the request is complete).
        """
        while (head := self._response.head) is None:
            if self._failure is not None:
                raise self._error()
            await self.arrival()
        return head

    async def read(self) -> bytes:
        """The next bytes of the body, b"" at its end. Chunk framing is taken off, content codings are left alone.

        Raises UpstreamError, after everything that came before the fault was read: `upstream_reset`,
        `upstream_truncated` (closed before the end or, over TLS, without saying so; malformed) or `upstream_timeout`
        (no byte for the idle timeout; the clock stands still while reading is paused, as the caller does not keep up).
        """
        response = self._response
        while not response.pieces:
            if response.complete:
                return b""
            if self._failure is not None:
                raise self._error()
            await self.arrival()
        return self._take()

    def read_nowait(self) -> bytes | None:
        """Like `read()`, but None where that would wait."""
        response = self._response
        if response.pieces:
            return self._take()
        if response.complete:
            return b""
        if self._failure is not None:
            raise self._error()
        return None

    @property
    def body_complete(self) -> bool:
        """The last byte of the body has come; some may still be unread."""
        return self._response.complete

    @property
    def held_bytes(self) -> int:
        """Body bytes that came and were not read yet."""
        return self._response.held_bytes

    def finish(self) -> bool:
        """End the exchange; True if the connection can serve another one. `Pool.release()` calls it."""
        self._busy = False
        if self.closed or not self._request_complete or not self._response.reusable or self._writing_paused:
            return False
        self._resume_reading()  # an idle connection must hear of its end
        self.reused = True
        return True

    def abort(self) -> None:
        """Close at once, without waiting for unsent bytes. A reader that waits gets an UpstreamError."""
        if not self.closed:
            self._fail("upstream_reset", "the gateway closed the upstream connection")

    def _take(self) -> bytes:
        response = self._response
        data = response.take()
        if (
            self._reading_paused
            and response.held_bytes <= READ_HIGH_BYTES // 2
            and len(response.pieces) <= READ_HIGH_PIECES // 2
        ):
            self._resume_reading()
        return data

    def _resume_reading(self) -> None:
        if self._reading_paused and not self.closed:
            assert self._transport is not None
            self._reading_paused = False
            self._activity_at = self._loop.time()
            self._transport.resume_reading()

    @property
    def readable(self) -> bool:
        """`read_nowait` has bytes, the end or an error to tell."""
        response = self._response
        return bool(response.pieces) or response.complete or self._failure is not None

    def arrival(self) -> asyncio.Future[None]:
        """Done when something came: spurious wake-ups are allowed, the callers look again."""
        assert self._waiter is None or self._waiter.done(), "one reader at a time"
        self._waiter = self._loop.create_future()
        return self._waiter

    def wake(self) -> None:
        """Whoever awaits the next `arrival` is to look now."""
        _wake(self._waiter)

    def _error(self) -> UpstreamError:
        assert self._failure is not None
        kind, message = self._failure
        return UpstreamError(kind, message, response_started=self.response_started)

    def _arm_timer(self) -> None:
        """One timer for as many exchanges as it lasts: it looks at `_activity_at` when it fires, and fires again."""
        due_at = self._activity_at + self._idle_timeout_s
        if self._timer is not None:
            if self._timer.when() <= due_at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._busy or not self._idle_timeout_s or self._response.complete:
            return
        if not self._waits_for_upstream():
            self._activity_at = self._loop.time()
        elif self._loop.time() >= self._activity_at + self._idle_timeout_s:
            waiting_for = "the rest of the response" if self.response_started else "an answer"
            if self._writing_paused and self._response.head is None:
                waiting_for = "the upstream to take the request"
            self._fail("upstream_timeout", f"idle for {self._idle_timeout_s:g} s while waiting for {waiting_for}")
            return
        self._arm_timer()

    def _waits_for_upstream(self) -> bool:
        """Silence is the upstream's: not while we do not read, nor while it has no complete request to answer.

        An upload that the upstream does not take is its silence too, or a dead peer would hold the exchange for ever.
        """
        if self._reading_paused:
            return False
        return self._request_complete or self._writing_paused or self._response.head is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's only behaves like one
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if not self._busy or response.complete or self.closed:
            self._close()  # nobody asked for this: whatever is sent next could be answered by it
            return
        self.response_started = True
        self._activity_at = self._loop.time()
        try:
            response.feed(data)
        except ResponseError as error:
            self._fail("upstream_protocol" if response.head is None else "upstream_truncated", str(error))
            return
        sink = self.sink
        if sink is not None and 0 < response.held_bytes < SINK_BYTES_MAX and not response.complete:
            sink()
            return
        if (
            response.held_bytes > READ_HIGH_BYTES or len(response.pieces) > READ_HIGH_PIECES
        ) and not self._reading_paused:
            assert self._transport is not None
            self._reading_paused = True
            self._transport.pause_reading()
        _wake(self._waiter)
        if response.head is not None:
            _wake(self._write_waiter)

    def eof_received(self) -> None:
        announced = self._hear_out()
        if not self._busy or self._response.complete or (announced and self._response.end()):
            self._close()
        elif self._response.head is None:
            when = "in the middle of" if self.response_started else "before"
            self._fail("upstream_protocol", f"the upstream closed the connection {when} its response head")
        else:
            self._fail("upstream_truncated", "the upstream closed the connection before the end of its response")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.closed:
            return
        if exc is None:
            self.eof_received()
            return
        self._hear_out()
        if not self._busy or self._response.complete:
            self._close()
        elif self._response.head is None:
            when = "in the middle of" if self.response_started else "before"
            self._fail("upstream_protocol", f"the upstream reset the connection {when} its response head ({exc})")
        else:
            self._fail("upstream_reset", f"the upstream reset the connection before the end of its response ({exc})")

    def _hear_out(self) -> bool:
        """Take what had come and was not read; see `leftover` for that and the answer."""
        if not self._busy or self._response.complete or self._transport is None:
            return True
        data, announced = leftover(self._transport)
        if data:
            self.response_started = True
            try:
                self._response.feed(data)
            except ResponseError:
                pass  # the end is the better reason
        return announced

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._activity_at = self._loop.time()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._activity_at = self._loop.time()
        _wake(self._write_waiter)

    def _fail(self, kind: str, message: str) -> None:
        self._failure = (kind, message)
        self._close()

    def _close(self) -> None:
        """Leave the socket: abort() sends FIN where all was read and RST where it was not, and never waits."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._response.close()
        if self._transport is not None:
            self._transport.abort()
        _wake(self._waiter)
        _wake(self._write_waiter)
        self._on_closed(self)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():  # done: cancelled, or woken in this turn of the loop already
        waiter.set_result(None)
