"""Bytes in: what a client sends becomes messages for aiohttp, one at a time, or a refusal.

A head is collected whole, checked (`proxy.framing`) and only then read: by `proxy.arrived` where the request is plain
and here whole, else by aiohttp's parser, which gets one message at a time. The end of each body is followed, and what
comes behind it waits until the request is answered. So a refusal never leaves a second reading of the same bytes, and
pipelined requests cost one bounded buffer.
"""

import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from proxy.arrived import Arrived, message_of
from proxy.errors import GatewayError
from proxy.forwarded import Peer, ProxyHeader, ProxyHeaderError
from proxy.framing import ChunkedBody, FramingError, HeadCollector, HeadTooLargeError

if TYPE_CHECKING:
    from proxy.server import EdgeServer

TAIL_BYTES: Final = 65536
"""Bytes kept behind a running request (pipelining) before the connection is no longer read."""
MAX_HEADERS: Final = 256
"""Header lines of a request. Browsers send about 20, and nginx stops at 100."""


class Intake(RequestHandler):
    """The receiving half of a client connection; `proxy.edge` is the rest of it."""

    __slots__ = (
        "_arrived_bytes",
        "_body",
        "_busy",
        "_chunked",
        "_head_at",
        "_heads",
        "_introduction",
        "_last",
        "_left",
        "_marked_bytes",
        "_progress_at",
        "_refused",
        "_server",
        "_surplus_at",
        "_tail",
        "arrived_ns",
    )

    def __init__(self, server: "EdgeServer", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._heads = HeadCollector(server.limits.max_head_bytes)
        self._tail = bytearray()  # what came behind a running request
        self._head_at = 0.0  # since when a head is awaited that has begun; 0: none
        self._introduction: ProxyHeader | None = None  # a trusted proxy may say first who connected
        self._busy = False  # a request is being served; what comes behind its body waits
        self._left = 0  # bytes of a Content-Length body still to come
        self._chunked: ChunkedBody | None = None
        self._body: StreamReader = EMPTY_PAYLOAD
        self._refused = False  # nothing that still comes is read
        self._last = False  # nothing behind the running request is read
        self._arrived_bytes = 0  # of all bodies that the parser reads, for the sweep
        self._marked_bytes = 0  # of these, so many had arrived …
        self._progress_at = 0.0  # … when the sweep saw progress for the last time
        self._surplus_at = 0.0  # when this connection came as one above the limit; 0: it did not
        self.arrived_ns = 0
        """When the latest request's head was read, whole: from here on the time is ours."""

    @property
    def idle(self) -> bool:
        """No request is running or has begun to arrive."""
        return not self._busy and not self._heads.begun

    @property
    def fresh(self) -> bool:
        """No request has come yet."""
        return not self._request_count and not self._heads.begun

    @property
    def deaf(self) -> bool:
        """Nothing behind the running request is read."""
        return self._refused or self._last

    @property
    def last_request(self) -> bool:
        """An answer whose head goes out now has to say that the connection closes after it."""
        return self.deaf or self._server.draining

    @property
    def unread(self) -> bool:
        """The running request's body has not arrived whole."""
        return bool(self._left) or self._chunked is not None

    def announce(self, peer: Peer) -> None:
        """A trusted proxy's PROXY header names who connected: from now on this is who it was."""
        self._cache["peername"] = peer  # where aiohttp looks first

    # -- bytes in ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand bytes to aiohttp's parser, one message at a time."""
        if self._force_close or self._close or self._refused:
            return
        if self._left and len(data) <= self._left:  # the way of every piece of an upload but the last
            self._left -= len(data)
            self._arrived_bytes += len(data)
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
                self._arrived_bytes += len(part)
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
        self._arrived_bytes += end
        chunks_end = self._chunked.chunks_end
        if self._chunked.done:
            self._chunked = None
            if chunks_end + 2 == end:  # no trailers, as always: only the empty line that stands in their place
                super().data_received(data if end == len(data) else data[:end])
            else:
                super().data_received(data[:chunks_end] + b"\r\n")
        elif chunks_end:
            super().data_received(data if chunks_end == len(data) else data[:chunks_end])
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            self._messages.pop()
            self._fail_body("the body is malformed")
        return data[end:]

    def _put_by(self, data: bytes) -> None:
        self._tail += data
        if len(self._tail) > TAIL_BYTES and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _take_head(self, data: bytes) -> bytes:
        """Collect a head; once whole and strict, have it read. Answers what stands behind what was read."""
        self.arrived_ns = time.monotonic_ns()
        if self._introduction is not None:
            data = self._take_introduction(self._introduction, data)
            if not data:
                return b""
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
        head, behind = found
        if not self._surplus_at and (arrived := message_of(head, behind)) is not None:
            return self._enqueue(arrived)
        self._feed_head(head)
        return behind

    def _take_introduction(self, introduction: ProxyHeader, data: bytes) -> bytes:
        """Read the PROXY header in front of the first request, if there is one. Answers what stands behind it."""
        try:
            rest = introduction.take(data)
        except ProxyHeaderError as fault:
            self.refuse(GatewayError("bad_request", f"malformed PROXY header: {fault}"))
            return b""
        if rest is None:
            self._head_at = self._head_at or time.monotonic()
            return b""
        self._head_at = 0.0
        self._introduction = None
        if introduction.peer is not None:
            self.announce(introduction.peer)
        return rest

    def _enqueue(self, arrived: Arrived) -> bytes:
        """Hand over a request that needs no parser, as aiohttp does with what its parser made. What is behind it."""
        message, self._body, behind = arrived
        self._busy = True
        self._request_count += 1
        self._messages.append((message, self._body))
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        return behind

    def _feed_head(self, head: bytes) -> None:
        self._busy = True
        if self._surplus_at:
            if not head.partition(b" ")[2].startswith(b"/-/"):  # probes are answered, and close all the same
                self._refuse_surplus()
                return
            self._last = True
        waiting = len(self._messages)
        super().data_received(head)
        if len(self._messages) == waiting:
            # The parser took a whole head and made nothing of it: it must not swallow what follows.
            self.refuse(GatewayError("bad_request", "malformed HTTP request"))
            return
        message, payload = self._messages[-1]
        if isinstance(message, _ErrInfo):
            self._messages.pop()
            self.refuse(refusal_of(message))
            return
        self._body = payload
        if message.chunked:
            self._chunked = ChunkedBody()
        elif payload is not EMPTY_PAYLOAD:
            self._left = int(message.headers["Content-Length"])
        if payload is not EMPTY_PAYLOAD:
            self._marked_bytes = self._arrived_bytes
            self._progress_at = time.monotonic()
        if message.upgrade:
            # Ignored (RFC 9110 §7.8): a plain request. But the parser may take what follows for another protocol.
            self._last = True

    def _refuse_surplus(self) -> None:
        self.refuse(GatewayError("overloaded", "the gateway has as many connections as it may"))

    def refuse(self, error: GatewayError) -> None:
        """Answer `error` in place of a request that cannot be read, and read nothing more."""
        self._refused = True
        self._busy = True
        self.arrived_ns = time.monotonic_ns()  # the last of a head that stopped may have come long ago
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

    def _take_tail(self) -> None:
        """Go on with what came behind the request that has just been answered."""
        if self._busy or self._force_close or self._close:
            return
        tail = bytes(self._tail)
        self._tail.clear()
        self._take(tail)
        if self._buffer_paused and len(self._tail) <= TAIL_BYTES // 2:
            self._resume_reading_for_buffer()


def refusal_of(err_info: _ErrInfo) -> GatewayError:
    """Our own, or one for what the parser refused; its words may repeat the line, so they are not used."""
    if isinstance(err_info.exc, GatewayError):
        return err_info.exc
    if "Too many headers" in err_info.message or type(err_info.exc).__name__ == "LineTooLong":
        return GatewayError("head_too_large", f"too many or too long header lines (at most {MAX_HEADERS})")
    return GatewayError("bad_request", "malformed HTTP request")
