"""Upstreams that play what a fault schedule says, request by request, on real sockets.

Every answer carries a mark of its own, `<s0:r1#2>` (service, request, how often that service has seen it), in its head
and in every piece of its body, so that whatever a client gets tells where it came from. What a service does is looked
up by request, so that it does not depend on the order in which concurrent requests arrive.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proxy.tcp import reset_on_close
from tests.fakes.listening import READ_BUFFER_BYTES, Listening

PAUSE_S = 0.02
"""Between two segments of an answer, or in the middle of an upload: time passing is what is tested."""
FILLING = b"".join(b"%07d," % number for number in range(50_000))
"""No two places of it are alike: bytes that are lost, repeated or out of order do not go unnoticed."""


@dataclass(frozen=True)
class Play:
    """One behaviour. `end` other than `whole` breaks the answer off (where no head is sent: before it)."""

    kind: str = "answer"
    """answer (JSON), stream, error_event (a stream that begins with one), garbled (no HTTP), silence."""
    end: str = "whole"
    """whole, fin, reset, stall; of a stream also short: its framing is whole, its `[DONE]` is missing."""
    status: int = 200
    retry_after: bytes | None = None
    padding: int = 0
    """Bytes added to a JSON answer."""
    events: int = 1
    """With output, of a stream, before it ends."""
    framing: str = "length"
    """length, chunked, eof (streams: the last two)."""
    early: bool = False
    """Answer when the head of the request has come; the body is read afterwards."""
    apart: bool = False
    """In two segments."""
    close: bool = False
    """Close the connection behind a whole answer, unannounced."""

    @property
    def whole(self) -> bool:
        """Nothing is missing. Whoever reports an error as an event ends there, with or without a last word."""
        return self.end == "whole" or (self.kind == "error_event" and self.end == "short")

    @property
    def prompt(self) -> bool:
        """A JSON answer that comes at once and is small enough to be kept for later."""
        return self.kind == "answer" and self.end == "whole" and not self.apart and not self.padding

    @property
    def broken(self) -> bool:
        """The connection, or what is said on it, is at fault."""
        return self.kind == "garbled" or self.end in {"fin", "reset", "short"}

    @property
    def refuses(self) -> bool:
        """The status says that nothing was done."""
        return self.kind == "answer" and self.status in {401, 403, 429, 503}

    def payload(self, mark: bytes) -> bytes:
        """The whole body that is meant, without framing."""
        if self.kind == "answer":
            return b'{"id":"%s","output":{},"choices":[],"pad":"%s"}' % (mark, FILLING[: self.padding])
        if self.kind in {"garbled", "silence"}:
            return b""
        event = b'data: {"id":"%s","choices":[{"index":0,"delta":%s}]}\n\n'
        pieces = [b": %s\n\n" % mark, event % (mark, b'{"role":"assistant","content":""}')]
        if self.kind == "error_event":
            pieces = [b'data: {"error":{"message":"%s","code":"overloaded_now"}}\n\n' % mark]
        pieces += [event % (mark, b'{"content":"%s"}' % mark)] * self.events
        if self.end == "whole":
            pieces.append(b'data: {"id":"%s","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n' % mark)
            pieces.append(b"data: [DONE]\n\n")
        return b"".join(pieces)

    def head(self, mark: bytes) -> bytes:
        """Of the answer."""
        kind = b"application/json" if self.kind == "answer" else b"text/event-stream"
        lines = [b"HTTP/1.1 %d Said" % self.status, b"Content-Type: " + kind, b"X-Mark: " + mark]
        if self.retry_after is not None:
            lines.append(b"Retry-After: " + self.retry_after)
        if self.framing == "length":
            lines.append(b"Content-Length: %d" % len(self.payload(mark)))
        elif self.framing == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
        return b"\r\n".join((*lines, b"", b""))

    def sent(self, mark: bytes) -> list[bytes]:
        """What goes over the wire, in segments: of an answer that is broken off only its beginning."""
        if self.kind == "silence":
            return []
        if self.kind == "garbled":
            return [b"HTP/1.1 200 OK\r\n\r\n"]
        payload = self.payload(mark)
        if self.kind == "answer" and self.end != "whole":
            payload = payload[: len(payload) // 2]
        half = len(payload) // 2 if self.apart else len(payload)
        pieces = [piece for piece in (payload[:half], payload[half:]) if piece]
        if self.framing == "chunked":
            pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
            if self.end in {"whole", "short"}:
                pieces[-1] += b"0\r\n\r\n"
        return [self.head(mark) + pieces[0], *pieces[1:]]


@dataclass
class Seen:
    """One request as a service saw it."""

    request: str
    service: str
    key: str
    mark: bytes
    play: Play
    body: bytearray = field(default_factory=bytearray)
    """As far as it came, without chunk lines."""
    body_whole: bool = False


class Service(Listening):
    """An upstream that plays what the schedule says, request by request, on any number of connections."""

    def __init__(self, name: str, plays: Mapping[str, Sequence[Play]], seen: list[Seen]) -> None:
        """`plays`: request → what is done with it the first time, the second time, …; then a plain 200.

        `seen`: where requests are told, those of all services together.
        """
        super().__init__()
        self.name = name
        self._plays = plays
        self._seen = seen

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Its requests, one after the other."""
        try:
            while await self._exchange(reader, writer):
                pass
            while await reader.read(READ_BUFFER_BYTES):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the gateway left
        except Exception as error:  # noqa: BLE001 - told at the end
            self.faults.append(error)
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; False where the connection is not used again."""
        head = await reader.readuntil(b"\r\n\r\n")
        seen = self._look(head)
        play = seen.play
        if not play.early:
            await _read_body(head.lower(), reader, seen)
        for number, piece in enumerate(play.sent(seen.mark)):
            if number:
                await asyncio.sleep(PAUSE_S)
            if writer.is_closing():
                return False  # the gateway left meanwhile
            writer.write(piece)
            await writer.drain()
        if play.end == "reset":
            await asyncio.sleep(0)  # uvloop writes at the end of a turn
            reset_on_close(writer.transport)
            writer.transport.abort()
            return False
        ends = play.end == "fin" or (play.end == "whole" and (play.close or play.framing == "eof"))
        if ends and not writer.is_closing():
            writer.write_eof()
        if play.early:
            await _read_body(head.lower(), reader, seen)
        return play.end in {"whole", "short"} and play.framing != "eof" and not play.close and play.kind != "garbled"

    def _look(self, head: bytes) -> Seen:
        """Which request is this, and what is done with it?"""
        request = head.lower().split(b"\r\nx-request-id: ")[1].split(b"\r\n")[0].decode()
        earlier = sum((seen.request, seen.service) == (request, self.name) for seen in self._seen)
        plays = self._plays[request]
        play = plays[earlier] if earlier < len(plays) else Play()
        key = head.split(b"Bearer ")[1].split(b"\r\n")[0].decode()
        mark = b"<%s:%s#%d>" % (self.name.encode(), request.encode(), earlier)
        seen = Seen(request, self.name, key, mark, play)
        self._seen.append(seen)
        return seen


async def _read_body(head: bytes, reader: asyncio.StreamReader, seen: Seen) -> None:
    if b"\r\ntransfer-encoding: chunked\r\n" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await _read(size, reader, seen)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
    else:
        await _read(int(head.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0]), reader, seen)
    seen.body_whole = True


async def _read(size: int, reader: asyncio.StreamReader, seen: Seen) -> None:
    while size:
        piece = await reader.read(size)
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        seen.body += piece
        size -= len(piece)
