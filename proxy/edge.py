"""The client side of a worker: our subclass of aiohttp's `RequestHandler`, on its low-level `web.Server`.

aiohttp parses requests. What it decides by itself and a gateway must decide is here:

* Bytes are fed to its parser one message at a time. A head is collected whole, checked (`proxy.framing`) and only then
  parsed; the end of each body is followed, and what comes behind it waits until the request is answered. So a refusal
  never leaves a second reading of the same bytes, and pipelined requests cost one bounded buffer.
* Refusals (malformed heads, bad chunks, slow heads) reach the same handler as other requests do, as a `GatewayError`
  under `REFUSAL`: answered in JSON, recorded, and the offending line is shown to nobody.
* Answers are written by `proxy.downstream`: head bytes as they are given, and a cut answer is cut, never ended.
* One sweep over all connections in place of a timer for each wait: slow heads, slow bodies, readers that take nothing,
  and clients that left while their upload was paused (no read, so no EOF: only the TCP state tells).
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import ERROR, RequestHandler, RequestPayloadError, _ErrInfo

from observability.log import get_logger
from proxy import tcp
from proxy.config.snapshot import Limits
from proxy.errors import GatewayError
from proxy.framing import ChunkedBody, FramingError, HeadCollector, HeadTooLargeError

if TYPE_CHECKING:
    from proxy.server import EdgeServer

_log = get_logger(__name__)

REFUSAL: Final = web.RequestKey("sluiceway.refusal", GatewayError)
"""Set on the request that stands for bytes which never became one."""

READ_BUFFER_BYTES: Final = 65536
"""aiohttp pauses a body above twice this; its default of 512 KiB costs 1.1 MiB for each throttled upload."""
TAIL_BYTES: Final = 65536
"""Bytes kept behind a running request (pipelining) before the connection is no longer read."""
MAX_HEADERS: Final = 256
"""Header lines of a request. Browsers send about 20, and nginx stops at 100."""


_NO_WRITER: Final = cast(AbstractStreamWriter, None)
"""aiohttp wants a writer for each request; answers here are written by `proxy.downstream`."""


class Edge(RequestHandler):
    """One client connection."""

    __slots__ = (
        "_body",
        "_busy",
        "_chunked",
        "_head_at",
        "_heads",
        "_last",
        "_left",
        "_progress_at",
        "_refused",
        "_server",
        "_tail",
        "_taken",
        "_taken_at",
        "channel",
        "written_bytes",
    )

    def __init__(self, server: "EdgeServer", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self.channel: asyncio.Transport | None = None
        """The transport until the connection is lost; aiohttp's own attribute goes away when closing begins."""
        self._heads = HeadCollector(server.limits.max_head_bytes)
        self._tail = bytearray()  # what came behind a running request
        self._head_at = 0.0  # since when a head is awaited that has begun; 0: none
        self._busy = False  # a request is being served; what comes behind its body waits
        self._left = 0  # bytes of a Content-Length body still to come
        self._chunked: ChunkedBody | None = None
        self._body: StreamReader = EMPTY_PAYLOAD
        self._refused = False  # nothing that still comes is read
        self._last = False  # nothing behind the running request is read
        self._progress_at = 0.0  # when the last body byte came, for the sweep
        self._taken = 0
        self._taken_at = 0.0
        self.written_bytes = 0
        """Answer bytes handed to the transport; less what it still holds, they are what the reader took."""

    # -- connection --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.channel = self.transport
        self._server.live.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.live.discard(self)
        self.channel = None
        self._tail.clear()
        self._heads.clear()
        super().connection_lost(exc)

    @property
    def idle(self) -> bool:
        """No request is running or has begun to arrive."""
        return not self._busy and not self._heads.begun

    # -- bytes in ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand bytes to aiohttp's parser, one message at a time."""
        if self._force_close or self._close or self._refused:
            return
        if self._left and len(data) <= self._left:  # the way of every piece of an upload but the last
            self._left -= len(data)
            self._progress_at = time.monotonic()
            super().data_received(data)
            return
        if not data:  # aiohttp goes on with what its own parser had to put by
            super().data_received(data)
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Split `data` at the ends of messages."""
        while data and not self._refused:
            if self._left:
                part, data = data[: self._left], data[self._left :]
                self._left -= len(part)
                self._progress_at = time.monotonic()
                super().data_received(part)
            elif self._chunked is not None:
                data = self._take_chunked(data)
            elif self._busy:
                if not self._last:
                    self._put_by(data)
                return
            else:
                data = self._take_head(data)

    def _take_chunked(self, data: bytes) -> bytes:
        assert self._chunked is not None
        try:
            end = self._chunked.scan(data)
        except FramingError as error:
            self._fail_body(str(error))
            return b""
        self._progress_at = time.monotonic()
        if self._chunked.done:
            self._chunked = None
        super().data_received(data if end == len(data) else data[:end])
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            self._messages.pop()
            self._fail_body("the body is malformed")
        return data[end:]

    def _put_by(self, data: bytes) -> None:
        self._tail += data
        if len(self._tail) > TAIL_BYTES and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _take_head(self, data: bytes) -> bytes:
        """Collect a head; once whole and strict, let the parser have it. Answers what stands behind the head."""
        try:
            found = self._heads.take(data)
        except HeadTooLargeError:
            limit = self._server.limits.max_head_bytes
            self.refuse(GatewayError("head_too_large", f"the request head is larger than {limit} bytes"))
            return b""
        except FramingError as fault:
            self.refuse(GatewayError("bad_request", f"malformed HTTP request: {fault}"))
            return b""
        if found is None:
            if not self._heads.begun:
                self._head_at = 0.0
            elif not self._head_at:
                self._head_at = time.monotonic()
            return b""
        self._head_at = 0.0
        self._feed_head(found[0])
        return found[1]

    def _feed_head(self, head: bytes) -> None:
        self._busy = True
        if self._server.over_limit:
            self.refuse(GatewayError("overloaded", "the gateway has as many connections as it may"))
            return
        waiting = len(self._messages)
        super().data_received(head)
        if len(self._messages) == waiting:
            # The parser took a whole head and made nothing of it: it must not swallow what follows.
            self.refuse(GatewayError("bad_request", "malformed HTTP request"))
            return
        message, payload = self._messages[-1]
        if isinstance(message, _ErrInfo):
            self._messages.pop()
            self.refuse(_refusal_of(message))
            return
        self._body = payload
        self._progress_at = time.monotonic()
        if message.chunked:
            self._chunked = ChunkedBody()
        elif payload is not EMPTY_PAYLOAD:
            self._left = int(message.headers["Content-Length"])
        if message.upgrade:
            # Ignored (RFC 9110 §7.8): a plain request. But the parser may take what follows for another protocol.
            self._last = True

    def refuse(self, error: GatewayError) -> None:
        """Answer `error` in place of a request that cannot be read, and read nothing more."""
        self._refused = True
        self._busy = True
        self._head_at = 0.0
        self._tail.clear()
        self._heads.clear()
        self._request_count += 1
        self._messages.append((_ErrInfo(status=error.status, exc=error, message=error.message), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail_body(self, fault: str) -> None:
        """A running request's body cannot be read on: whoever waits for it learns so at once."""
        self._refused = True
        self._left = 0
        self._chunked = None
        self._body.set_exception(GatewayError("bad_request", f"malformed request body: {fault}"))

    # -- one request after the other ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve requests until the connection closes, each in this one task.

        aiohttp makes a task and a writer for each request and answers for the handler where it must; ours answers by
        itself, and leaving those out is 8 % of a small request's CPU. Cancelled when the client leaves.
        """
        task = asyncio.current_task()  # here and not for each request: it is 5 µs in Python 3.11
        assert task is not None
        try:
            while not self._force_close and await self._serve_next(task):
                pass
            if self._refused and self.transport is not None:
                # A client that still sends would read a reset and no answer. Its leaving cancels this task.
                self.transport.write_eof()
                await asyncio.sleep(self._lingering_time)
        except ConnectionError:
            pass  # the client left while it was written to
        except Exception:  # noqa: BLE001 - the handler answers its own errors: this is one of ours
            _log.exception("connection_failed")
        finally:
            if self.transport is not None:
                self.transport.close()

    async def _serve_next(self, task: "asyncio.Task[None]") -> bool:
        """Wait for a request and serve it; False where it was the connection's last."""
        serve, make_request = self._request_handler, self._request_factory
        assert serve is not None
        assert make_request is not None
        if not self._messages:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message, payload = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        error = _refusal_of(message) if isinstance(message, _ErrInfo) else None
        head = ERROR if isinstance(message, _ErrInfo) else message
        request = make_request(head, payload, self, _NO_WRITER, task)
        if error is not None:
            request[REFUSAL] = error
        self._current_request = request
        self._request_in_progress = True
        try:
            response = await serve(request)
            keep = bool(response.keep_alive)
            if not payload.is_eof():
                await self._linger(payload)
                keep = False
        finally:
            self._request_in_progress = False
            self._current_request = None
            del request._task  # noqa: SLF001 - a cycle through the traceback otherwise
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)
        if not keep or self._close or self._force_close:
            return False
        self._busy = False
        if self._tail or self._buffer_paused:
            self._take_tail()
        if not self._messages:
            self._await_next()
        return True

    def _await_next(self) -> None:
        """Arm aiohttp's keep-alive clock: one handle for as many requests as it lasts."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None and self._keepalive_timeout > 0:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    async def _linger(self, payload: StreamReader) -> None:
        """Read on what the client still sends, for a while: closed at once, it would read a reset and no answer."""
        try:
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof():
                    await payload.readany()
        except (TimeoutError, GatewayError, ConnectionError, RequestPayloadError):
            pass

    def _take_tail(self) -> None:
        """Go on with what came behind the request that has just been answered."""
        if self._busy or self._force_close or self._close:
            return
        tail = bytes(self._tail)
        self._tail.clear()
        self._take(tail)
        if self._buffer_paused and len(self._tail) <= TAIL_BYTES // 2:
            self._resume_reading_for_buffer()

    def _resume_reading_if_drained(self) -> None:
        """aiohttp would re-read its own queue here; ours is `_take_tail`."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp calls this after every read of a body; feeding its parser nothing would cost 5 µs each time."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    # -- bytes out ---------------------------------------------------------------------------------------------------

    @property
    def last_request(self) -> bool:
        """The connection closes after the answer: nothing behind this request will be read."""
        return self._refused or self._last or self._server.draining

    @property
    def unread(self) -> bool:
        """The running request's body has not arrived whole."""
        return bool(self._left) or self._chunked is not None

    def reset(self) -> None:
        """Break the connection with RST: the only way to tell an EOF-framed answer's reader that it is cut."""
        channel = self.channel
        if channel is None:
            return
        tcp.reset_on_close(channel)
        self._force_close = True
        channel.abort()

    # -- time --------------------------------------------------------------------------------------------------------

    def sweep(self, now: float, limits: Limits) -> None:
        """Judge what this connection is waiting for. Called a few times a second."""
        channel = self.channel
        if channel is None:
            return
        if self._head_at:
            if limits.head_timeout_ms and now - self._head_at > limits.head_timeout_ms / 1000:
                self.refuse(GatewayError("client_timeout", "the request head did not arrive in time"))
            return
        if self._reading_paused or self._buffer_paused:
            if tcp.peer_gone(channel):
                channel.abort()
                return
        elif (
            (self._left or self._chunked is not None)
            and limits.body_idle_timeout_ms
            and self._body._waiter is not None  # noqa: SLF001 - somebody waits for the body right now
            and now - self._progress_at > limits.body_idle_timeout_ms / 1000
        ):
            self._refused = True
            self._body.set_exception(GatewayError("client_timeout", "the request body stopped arriving"))
        unsent = channel.get_write_buffer_size()
        if not unsent or self.written_bytes - unsent != self._taken:
            self._taken = self.written_bytes - unsent
            self._taken_at = now
        elif limits.write_idle_timeout_ms and now - self._taken_at > limits.write_idle_timeout_ms / 1000:
            channel.abort()


def _refusal_of(err_info: _ErrInfo) -> GatewayError:
    """Our own, or one for what the parser refused; its words may repeat the line, so they are not used."""
    if isinstance(err_info.exc, GatewayError):
        return err_info.exc
    if "Too many headers" in err_info.message or type(err_info.exc).__name__ == "LineTooLong":
        return GatewayError("head_too_large", f"too many or too long header lines (at most {MAX_HEADERS})")
    return GatewayError("bad_request", "malformed HTTP request")
