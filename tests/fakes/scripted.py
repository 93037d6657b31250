"""An upstream that does exactly what its script says, one step after the other, on real sockets.

    async with Scripted(ReadHead(), Send(b"HTTP/1.1 200 OK\\r\\n"), Reset()) as upstream:
        …connect to 127.0.0.1:upstream.port…

A script is for one connection. `Scripted(*steps)` plays the same script on every connection; `Scripted.each(a, b)`
plays `a` on the first and `b` on the second and all later ones. After its last step a connection is
left open until the other side closes it or the upstream ends. What was received is in `connections`, and `closed` of a
connection is set when the other side is gone, so that no test has to sleep.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from proxy.tcp import reset_on_close
from tests.fakes.listening import READ_BUFFER_BYTES, Listening


@dataclass(frozen=True)
class ReadHead:
    """Until the empty line that ends a request head."""


@dataclass(frozen=True)
class ReadBody:
    """That many bytes."""

    size: int


@dataclass(frozen=True)
class ReadRequest:
    """One whole request, as its head frames it. The body is kept without chunk lines; trailers are a fault."""


@dataclass(frozen=True)
class ReadToEnd:
    """Until the other side closes its direction."""


@dataclass(frozen=True)
class Send:
    """These bytes, `times` times. `apart`: byte by byte, each in a segment of its own as far as the kernel lets it."""

    data: bytes
    times: int = 1
    apart: bool = False


@dataclass(frozen=True)
class Wait:
    """Until the test sets the event."""

    event: asyncio.Event


@dataclass(frozen=True)
class Tell:
    """Set the event: the script has come this far."""

    event: asyncio.Event


@dataclass(frozen=True)
class Breathe:
    """Let the other side, where it runs in the same loop, read what was sent before more is."""


@dataclass(frozen=True)
class Stall:
    """Neither read nor write until the upstream ends."""


@dataclass(frozen=True)
class Fin:
    """Close in good order: nothing more will be sent. What the other side still sends is read."""


@dataclass(frozen=True)
class BareFin:
    """Close the TCP connection for writing, whatever TLS thinks: without close_notify, or right behind it after Fin."""


@dataclass(frozen=True)
class Reset:
    """Close with a TCP reset."""


Step = ReadHead | ReadBody | ReadRequest | ReadToEnd | Send | Breathe | Wait | Tell | Stall | Fin | BareFin | Reset


@dataclass
class Received:
    """What one connection received."""

    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """The other side closed or reset the connection, or the script did."""
    end: str | None = None
    """How the other side left: `eof` or `reset`; None as long as it has not, or where the script closed."""


class Scripted(Listening):
    """See the module."""

    def __init__(self, *steps: Step, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(tls=tls, host=host, port=port)
        self._scripts: list[Sequence[Step]] = [steps]
        self._accepted = asyncio.Condition()
        self.connections: list[Received] = []

    @classmethod
    def each(cls, *scripts: Sequence[Step], tls: ssl.SSLContext | None = None) -> Self:
        """One script for each connection; the last one serves all that come later."""
        upstream = cls(tls=tls)
        upstream._scripts = list(scripts)
        return upstream

    @property
    def heads(self) -> list[bytes]:
        """All request heads, connection by connection."""
        return [head for connection in self.connections for head in connection.heads]

    async def connection(self, number: int) -> Received:
        """The connection of that number (from 0), waiting until it is accepted."""
        async with self._accepted:
            await self._accepted.wait_for(lambda: len(self.connections) > number)
        return self.connections[number]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Play the script that is this connection's."""
        script = self._scripts[min(len(self.connections), len(self._scripts) - 1)]
        received = Received()
        self.connections.append(received)
        async with self._accepted:
            self._accepted.notify_all()
        try:
            for step in script:
                await self._play(step, reader, writer, received)
                if isinstance(step, Reset):
                    return
            while await reader.read(READ_BUFFER_BYTES):
                pass
            received.end = "eof"
        except asyncio.IncompleteReadError:
            received.end = "eof"
        except ConnectionError:
            received.end = "reset"
        except (ValueError, TypeError, AssertionError, asyncio.LimitOverrunError) as error:
            self.faults.append(error)
        finally:
            received.closed.set()
            writer.transport.abort()

    async def _play(
        self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received: Received
    ) -> None:
        match step:
            case ReadHead():
                received.heads.append(await reader.readuntil(b"\r\n\r\n"))
            case ReadBody(size):
                received.bodies.append(await reader.readexactly(size))
            case ReadRequest():
                head = await reader.readuntil(b"\r\n\r\n")
                received.heads.append(head)
                received.bodies.append(await self._read_body(head.lower(), reader))
            case ReadToEnd():
                received.bodies.append(await reader.read())
            case Send(data, times, apart):
                await self._send(writer, data, times, apart)
            case Breathe():
                await asyncio.sleep(0)
            case Wait(event):
                await event.wait()
            case Tell(event):
                event.set()
            case Stall():
                await asyncio.get_running_loop().create_future()
            case Fin():
                # Closing both directions could turn into a reset, if anything came that was not read. TLS has no half.
                if writer.can_write_eof():
                    writer.write_eof()
                else:
                    writer.close()
            case BareFin():
                with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as connection:
                    connection.shutdown(socket.SHUT_WR)
            case Reset():
                reset_on_close(writer.transport)
                writer.transport.abort()

    @staticmethod
    async def _read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
        if b"\r\ntransfer-encoding: chunked\r\n" in head:
            body = bytearray()
            while size := int(await reader.readuntil(b"\n"), 16):
                body += await reader.readexactly(size)
                assert await reader.readexactly(2) == b"\r\n"
            assert await reader.readexactly(2) == b"\r\n"
            return bytes(body)
        _, found, rest = head.partition(b"\r\ncontent-length: ")
        return await reader.readexactly(int(rest.partition(b"\r\n")[0])) if found else b""

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, data: bytes, times: int, apart: bool) -> None:
        for _ in range(times):
            for piece in [data[i : i + 1] for i in range(len(data))] if apart else [data]:
                writer.write(piece)
                await writer.drain()
                if apart:
                    await asyncio.sleep(0)  # lets the other side, on the same loop, read this byte by itself


class Unaccepting:
    """A listener whose queue is full, so that a further connect gets no answer at all (Linux drops its SYN)."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.socket()
        self._fillers: list[socket.socket] = []
        self._host = host
        self.port = port

    def __enter__(self) -> Self:
        self._listener.bind((self._host, self.port))
        self._listener.listen(0)
        self.port = self._listener.getsockname()[1]
        # A queue of 0 takes one connection; two more attempts make sure that it is full whatever the kernel counts.
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((self._host, self.port))
            self._fillers.append(filler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for filler in self._fillers:
            filler.close()
        self._listener.close()
