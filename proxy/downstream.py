"""The answer to one request, written as bytes to the client's connection.

aiohttp's own response adds `Server`, `Date` and `Content-Type`, re-encodes header bytes, and ends a chunked answer in
good order when its handler returns, whatever happened. Here the head goes out as it is given, and what was broken off
looks broken off.
"""

from typing import Any, Final

from aiohttp import web

from proxy.cors import with_lines
from proxy.edge import Edge
from proxy.headers import connection_line

_BLANK_LINES: Final = (b"\n\n", b"\n\r\n", b"\r\r")
"""The end of an event: two line ends, each of them LF, CRLF or CR."""


class DownstreamResponse(web.StreamResponse):
    """One answer, written as bytes: head as given, body framed as `begin` says.

    aiohttp only sees that it is over: `prepare` and `write_eof` do nothing, `keep_alive` is ours.
    """

    cors: bytes | None = None
    """Lines that let a page read the answer, in place of the upstream's; None: no page asked."""

    events = False
    """The body is plain server-sent events of no given length: one of the gateway's own can stand behind them."""
    _tail = b""
    """Of such a body: as much of what was sent as tells an event that is over."""

    def __init__(self, edge: Edge) -> None:  # not super().__init__: it builds a header map that nobody would read
        self._edge = edge
        self._status = 0
        self._keep_alive = False
        self._chunks = False
        self.committed = False
        """The head went out: nothing may be retried from here on."""
        self.ended = False
        """The last byte was written and the framing is whole."""

    def begin(self, head: bytes, *, status: int, framing: str, keep_alive: bool) -> bytes:
        """Take a head: all of it, empty line included; `framing` is length, chunked, eof or none.

        Answers the head for the caller to `send`, alone or with the first piece of the body: that is the commit. Where
        the connection has become one that closes (a drain began while the upstream was awaited), the head says so.
        """
        self._keep_alive = keep_alive and framing != "eof"
        if self._keep_alive and self._edge.last_request:
            self._keep_alive = False
            head = _closing(head)
        if self.cors is not None:
            head = with_lines(head, self.cors)
        self._status = status
        self._chunks = framing == "chunked"
        self._edge.open_ended = framing == "eof"
        return head

    def send(self, head: bytes, data: bytes, *, last: bool) -> None:
        """Write a head (or nothing) and a piece of the body in one go. ConnectionResetError where the client left."""
        channel, outbox = self._edge.transport, self._edge.outbox
        if channel is None or channel.is_closing():
            raise ConnectionResetError("the client left")
        self._edge.written_bytes += len(head) + len(data)
        self.committed = True
        if self.events and data:
            self._tail = data[-3:] if len(data) > 2 else (self._tail + data)[-3:]
        if self._chunks:
            if data:
                end = b"0\r\n\r\n" if last else b""
                if len(data) < 16384:
                    outbox.write(channel, b"%s%x\r\n%s\r\n%s" % (head, len(data), data, end))
                else:  # not copied: above 16 KiB a second copy costs more than the pieces of a writelines
                    outbox.writelines(channel, (b"%s%x\r\n" % (head, len(data)), data, b"\r\n" + end))
            elif head or last:
                outbox.write(channel, head + b"0\r\n\r\n" if last else head)
        elif head:
            outbox.write(channel, head + data if len(data) < 65536 else head)
            if len(data) >= 65536:
                outbox.write(channel, data)
        elif data:
            outbox.write(channel, data)
        if last:
            self.ended = True
            self._edge.open_ended = False

    @property
    def blocked(self) -> bool:
        """More is written than the client takes: await `drain` before the next piece."""
        return self._edge.writing_paused

    async def drain(self) -> None:
        """Wait for a slow reader. ConnectionResetError where it left."""
        await self._edge._drain_helper()  # noqa: SLF001

    @property
    def between_events(self) -> bool:
        """Another event may follow: it is a stream of them, and none has begun. One that has cannot be taken back."""
        return self.events and not self.ended and (not self._tail or self._tail.endswith(_BLANK_LINES))

    def say_continue(self) -> None:
        """Answer `Expect: 100-continue`: the body will be taken."""
        if self._edge.transport is not None:
            self._edge.outbox.write(self._edge.transport, b"HTTP/1.1 100 Continue\r\n\r\n")

    def cut(self) -> None:
        """Break off so that the client sees it is not whole: FIN without an end, RST where EOF is the end."""
        self._keep_alive = False
        self._edge.force_close()

    def close_after(self) -> None:
        """Close the connection when the answer is over (an unread body is drained first, for LINGERING_S)."""
        self._keep_alive = False

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Done already."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Done already."""


def _closing(head: bytes) -> bytes:
    """A head that keeps its connection, as one that closes it."""
    kept = connection_line(keep_alive=True, http_1_0=True)
    lines = head[: -len(kept)] if head.endswith(kept) else head[:-2]
    return lines + connection_line(keep_alive=False, http_1_0=False)
