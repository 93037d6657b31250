"""The client side of a worker: our subclass of aiohttp's `RequestHandler`, on its low-level `web.Server`.

aiohttp parses requests. What it decides by itself and a gateway must decide is here:

* Bytes are fed to its parser one message at a time, each checked before (`proxy.intake`).
* Refusals (malformed heads, bad chunks, slow heads) reach the same handler as other requests do, as a `GatewayError`
  under `REFUSAL`: answered in JSON, recorded, and the offending line is shown to nobody.
* Answers are written by `proxy.downstream`: head bytes as they are given, and a cut answer is cut, never ended.
* A connection above `max_connections` is the newcomer's trouble: its first request is refused, and it does not stay.
* TLS has no FIN of one direction: an answer's end over it is told by close_notify, and a cut that must look like one
  does without.
* One sweep over all connections in place of a timer for each wait: slow heads, slow bodies, readers that take nothing,
  and clients that left while their upload was paused (no read, so no EOF: only the TCP state tells).
"""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import ERROR, RequestPayloadError, _ErrInfo

from observability.log import get_logger
from proxy import tcp
from proxy.config.snapshot import Limits
from proxy.errors import GatewayError, forget_frames
from proxy.forwarded import ProxyHeader
from proxy.intake import Intake, refusal_of

if TYPE_CHECKING:
    from proxy.server import EdgeServer

_log = get_logger(__name__)

REFUSAL: Final = web.RequestKey("sluiceway.refusal", GatewayError)
"""Set on the request that stands for bytes which never became one."""

READ_BUFFER_BYTES: Final = 65536
"""aiohttp pauses a body above twice this; its default of 512 KiB costs 1.1 MiB for each throttled upload."""
LINGERING_S: Final = 5.0
"""How long an unread body is drained after an answer, so that the client reads the answer and not a reset."""
TLS_BUFFER_BYTES: Final = 65536
"""What is read ahead, and written ahead, of TLS before the one or the other is paused: as without it. uvloop's own are
256 and 512 KiB."""
UPLOAD_PIECE_BYTES: Final = 1024
"""Of a request body, or its rest, in `body_idle_timeout_ms`: less is no piece, else 10 bytes/s would hold a connection
for ever. In the 30 s of the default it is 34 bytes/s; the slowest mobile links have thirty times that."""
TAKEN_PIECE_BYTES: Final = 65536
"""Of an answer that waits, or all of it, in `write_idle_timeout_ms`: as much as is held here for a reader. In the 60 s
of the default it is 1.1 KB/s, less than a telephone modem of 1991. Who keeps up with small events is never judged."""
SURPLUS_S: Final = 1.0
"""How long a connection above `max_connections` may take for its first head, and to leave once it is answered."""

_NO_WRITER: Final = cast(AbstractStreamWriter, None)
"""aiohttp wants a writer for each request; answers here are written by `proxy.downstream`."""


class Edge(Intake):
    """One client connection."""

    __slots__ = (
        "_awaited",
        "_closing",
        "_closing_at",
        "_taken_at",
        "_taken_bytes",
        "channel",
        "idle_at",
        "open_ended",
        "outbox",
        "parting",
        "secure",
        "written_bytes",
    )

    def __init__(self, server: "EdgeServer", **options: Any) -> None:
        super().__init__(server, **options)
        self.channel: asyncio.Transport | None = None
        """The transport until the connection is lost; aiohttp's own attribute goes away when closing begins."""
        self.outbox = server.outbox
        """What is written to the client goes through it."""
        self._taken_bytes = 0
        self._taken_at = 0.0  # since when so many were taken and more waits; 0: nothing waits
        self._awaited = False  # the last sweep saw somebody wait for the body
        self.open_ended = False
        """The running answer's end is the connection's, and it has not come yet (`proxy.downstream`)."""
        self.idle_at = self._loop.time()
        """Since when a next request is awaited, where none is running."""
        self.written_bytes = 0
        """Answer bytes handed to the transport; less what it and the kernel hold of them, they are what was taken."""
        self.secure = False
        """Over TLS."""
        self._closing = False  # over TLS: what is written goes out, then close_notify, then the client's is awaited
        self._closing_at = 0.0
        self.parting = False
        """It closes, and nobody was being served."""

    # -- connection --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.idle_at = self._loop.time()  # with TLS the handshake is over only now
        self.channel = channel = cast(Any, self.transport)
        if self.secure:
            channel.set_read_buffer_limits(TLS_BUFFER_BYTES)
            channel.set_write_buffer_limits(TLS_BUFFER_BYTES)
        else:
            proxies = self._server.trusted_proxies
            if proxies is not None and self.peername is not None and proxies.trusts(str(self.peername[0])):
                self._introduction = ProxyHeader()
        if channel is not None:
            tcp.hold_little(channel)
        if self._server.full:
            self._surplus_at = time.monotonic()
            self._server.surplus += 1
            self._lingering_time = SURPLUS_S
        self._server.enter(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.leave(self)
        self._server.surplus -= bool(self._surplus_at)
        self.channel = None
        self._tail.clear()
        self._heads.clear()
        super().connection_lost(exc)
        self._body = EMPTY_PAYLOAD  # which knows its connection

    # -- one request after the other ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve requests until the connection closes, each in this one task.

        aiohttp makes a task and a writer for each request and answers for the handler where it must; ours answers by
        itself, and leaving those out is 8 % of a small request's CPU. Cancelled when the client leaves.
        """
        task = asyncio.current_task()  # here and not for each request: it is 5 µs in Python 3.11
        serve = self._request_handler
        assert task is not None
        assert serve is not None
        try:
            while not self._force_close:
                if not self._messages:
                    self._waiter = self._loop.create_future()
                    try:
                        await self._waiter
                    finally:
                        self._waiter = None
                request = self._next_request(task)
                try:
                    response = await serve(request)
                    keep = bool(response.keep_alive) and request._payload.is_eof()  # noqa: SLF001
                finally:
                    self._request_in_progress = False
                    self._current_request = None
                    del request._task  # noqa: SLF001 - a cycle through the traceback otherwise
                    if self._handler_waiter is not None:
                        self._handler_waiter.set_result(None)
                if not keep or self._close or self._force_close:
                    break
                del request, response  # an idle connection holds nothing of them, nor of a body that nobody read
                self._body = EMPTY_PAYLOAD
                if self.writing_paused:  # of answers that nobody reads no more are made
                    await self._drain_helper()
                self._busy = False
                if self._tail or self._buffer_paused:
                    self._take_tail()
                if self._messages:
                    await asyncio.sleep(0)  # one of many that came at once: it is the turn of other connections
                else:
                    self._await_next()
            if self._refused or not self._body.is_eof():
                await self._linger()
        except (ConnectionError, asyncio.CancelledError) as error:  # the client left
            forget_frames(error)  # nor is it raised: kept by the task, it would keep this frame, and the frame the task
        except Exception:  # noqa: BLE001 - the handler answers its own errors: this is one of ours
            _log.exception("connection_failed")
        finally:
            self.force_close()

    def _next_request(self, task: "asyncio.Task[None]") -> web.BaseRequest:
        """The first that waits, as aiohttp hands it to a handler."""
        make_request = self._request_factory
        assert make_request is not None
        message, payload = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if isinstance(message, _ErrInfo):
            request = make_request(ERROR, payload, self, _NO_WRITER, task)
            request[REFUSAL] = refusal_of(message)
        else:
            request = make_request(message, payload, self, _NO_WRITER, task)
        self._current_request = request
        self._request_in_progress = True
        return request

    def _await_next(self) -> None:
        """Arm aiohttp's keep-alive clock: one handle for as many requests as it lasts."""
        self.idle_at = self._loop.time()
        self._next_keepalive_close_time = self.idle_at + self._keepalive_timeout
        if self._keepalive_handle is None and self._keepalive_timeout > 0:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    def _process_keepalive(self) -> None:
        """The keep-alive clock of aiohttp runs out: not while a head arrives, which has a limit of its own."""
        if self._head_at:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    async def _linger(self) -> None:
        """FIN, and for a while what the client still sends is read: closed at once, it might see a reset, no answer.

        TLS does the same when it is closed, which follows: close_notify, then it reads and drops.
        """
        if self.transport is None or self.transport.is_closing() or self.secure:
            return
        self.outbox.flush()
        self.transport.write_eof()
        with contextlib.suppress(TimeoutError, GatewayError, ConnectionError, RequestPayloadError):
            async with asyncio.timeout(self._lingering_time):
                while not (self._refused or self._body.is_eof()):
                    await self._body.readany()
        if self._refused:  # what comes is dropped, and nobody follows it to its end: until the client's leaving cancels
            await asyncio.sleep(self._lingering_time)

    def _resume_reading_if_drained(self) -> None:
        """aiohttp would re-read its own queue here; ours is `_take_tail`."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp calls this after every read of a body; feeding its parser nothing would cost 5 µs each time."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    # -- bytes out ---------------------------------------------------------------------------------------------------

    def force_close(self) -> None:
        """Close; what is written still goes out. But an answer that is cut where EOF is its end is cut with RST."""
        self.outbox.flush()
        if self.open_ended:
            self.abort()
        if self.secure and not self._closing:
            self._closing = True
            self.parting = self.idle
            self._taken_at = self._closing_at = time.monotonic()
        super().force_close()

    def abort(self) -> None:
        """Close at once; what is written and not taken is lost."""
        channel = self.channel
        if channel is None:
            return
        if self.open_ended:
            tcp.reset_on_close(channel)
        self._force_close = True
        channel.abort()

    @property
    def flushing(self) -> bool:
        """Something that was written is on its way to the client still, and worth waiting for: to one that was idle
        when it was closed, no longer than for any goodbye."""
        channel = self.channel
        if channel is None or (self.parting and time.monotonic() - self._closing_at > LINGERING_S):
            return False
        return bool(channel.get_write_buffer_size() or (self.secure and tcp.unacknowledged(channel)))

    # -- time --------------------------------------------------------------------------------------------------------

    def sweep(self, now: float, limits: Limits) -> None:
        """Judge what this connection is waiting for. Called a few times a second."""
        channel = self.channel
        if channel is None:
            return
        if self._closing:
            self._judge_goodbye(channel, now, limits.write_idle_timeout_ms)
            return
        if self._surplus_at and not self._busy and now - self._surplus_at > SURPLUS_S:
            if self._heads.begun:
                self._refuse_surplus()
            else:
                self.force_close()
            return
        if self._head_at and limits.head_timeout_ms and now - self._head_at > limits.head_timeout_ms / 1000:
            self.refuse(GatewayError("client_timeout", "the request head did not arrive in time"))
            return
        if self._reading_paused or self._buffer_paused:
            self._awaited = False
            if tcp.peer_gone(channel):
                self.abort()
                return
        elif self.unread:
            self._judge_upload(now, limits.body_idle_timeout_ms)
        if unsent := channel.get_write_buffer_size():
            self._judge_reader(now, self.written_bytes - unsent - tcp.unacknowledged(channel), limits)
        else:
            self._taken_at = 0.0

    def _judge_goodbye(self, channel: asyncio.Transport, now: float, idle_timeout_ms: int) -> None:
        """End a connection over TLS whose client takes what is left in drops, or took all and does not say goodbye.

        The kernel is asked: up to 64 KiB lie between TLS and it, where nobody can see them, but only if it is full.
        """
        taken = tcp.acknowledged(channel)
        waits = tcp.unacknowledged(channel) > 0
        limit_s = idle_timeout_ms / 1000 if waits else self._lingering_time
        if taken - self._taken_bytes >= (TAKEN_PIECE_BYTES if waits else 1):
            self._taken_bytes, self._taken_at = taken, now
        elif limit_s and now - self._taken_at > limit_s:
            if waits:
                tcp.reset_on_close(channel)
            self.abort()

    def _judge_upload(self, now: float, idle_timeout_ms: int) -> None:
        """End a body that is awaited and does not come. The clock runs from the first sweep that sees the wait."""
        body = self._body
        awaited = body._waiter is not None  # noqa: SLF001 - somebody waits for the body right now
        if self._awaited and 0 < body._size < UPLOAD_PIECE_BYTES:  # noqa: SLF001
            awaited = True  # a drop came in this very turn, and nobody has had the time to read it: it ends no wait
        if awaited and not self._awaited:
            self._progress_at = now  # before, nobody asked for it: the upstream, or no `100 Continue` yet
        self._awaited = awaited
        if self._arrived_bytes - self._marked_bytes >= UPLOAD_PIECE_BYTES:
            self._marked_bytes = self._arrived_bytes
            self._progress_at = now
        elif awaited and idle_timeout_ms and now - self._progress_at > idle_timeout_ms / 1000:
            self._refused = True
            self._body.set_exception(GatewayError("client_timeout", "the request body stopped arriving"))

    def _judge_reader(self, now: float, taken_bytes: int, limits: Limits) -> None:
        """End an answer that waits for its reader and is not taken, or only in drops."""
        if not self._taken_at or taken_bytes - self._taken_bytes >= TAKEN_PIECE_BYTES:
            self._taken_bytes = taken_bytes
            self._taken_at = now
        elif limits.write_idle_timeout_ms and now - self._taken_at > limits.write_idle_timeout_ms / 1000:
            assert self.channel is not None
            tcp.reset_on_close(self.channel)  # else the kernel keeps its megabytes until they are taken, in hours
            self.abort()
