"""As `raw`, over TLS: a client that sees how a connection ends, which TLS libraries keep to themselves.

    async with connect_tls(port, context) as client:
        client.send(b"GET / …")
        answer = await client.answer()
        assert await client.rest() == (b"", "fin")

An end is `fin` where it was announced (close_notify, then FIN), `cut` for a FIN without that, or `reset`.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

from tests.fakes.raw import WAIT_S, RawClient


class TlsClient(RawClient):
    """One connection. Its `reader` gets what was decrypted."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext, limit: int
    ) -> None:
        super().__init__(asyncio.StreamReader(limit=limit), writer)
        self.tcp = reader
        self.listens = asyncio.Event()
        """Cleared: nothing is read from the connection."""
        self.listens.set()
        self.polite = True
        """Answers close_notify with its own, as TLS libraries do."""
        self.announced = asyncio.Event()
        """The gateway has said that it sends no more."""
        self.end = "cut"
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")
        self._pump: asyncio.Task[None] | None = None

    async def handshake(self) -> None:
        """To its end; ssl.SSLError or ConnectionError where there is none."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                data = await asyncio.wait_for(self.tcp.read(65536), WAIT_S)
                if not data:
                    raise ConnectionResetError("closed in the handshake") from None
                self._in.write(data)
            else:
                self._flush()
                self._pump = asyncio.create_task(self._read())
                return

    def send(self, data: bytes) -> None:
        """Encrypt bytes and hand them to the kernel."""
        self.tls.write(data)
        self._flush()

    def say_goodbye(self) -> None:
        """Close in good order: close_notify, then FIN."""
        self._unwrap()
        self.writer.write_eof()

    async def rest(self) -> tuple[bytes, str]:
        """All that still comes, and how it ends."""
        data = b""
        while piece := await asyncio.wait_for(self.reader.read(65536), WAIT_S):
            data += piece
        assert self._pump is not None
        await asyncio.wait_for(self._pump, WAIT_S)
        return data, self.end

    def stop(self) -> None:
        """Read no more."""
        if self._pump is not None:
            self._pump.cancel()

    def _flush(self) -> None:
        self.writer.write(self._out.read())

    def _unwrap(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self._flush()

    async def _read(self) -> None:
        try:
            while True:
                self._take()
                await self.listens.wait()
                data = await self.tcp.read(65536)
                if not data:
                    break
                self._in.write(data)
            self.end = "fin" if self.announced.is_set() else "cut"
        except ConnectionError:
            self.end = "reset"
        finally:
            self.reader.feed_eof()

    def _take(self) -> None:
        while not self.announced.is_set():
            try:
                data = self.tls.read(65536)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self.reader.feed_data(data)
            else:
                self.announced.set()
                if self.polite:
                    self._unwrap()
        self._in.read()  # nothing may come behind it


@contextlib.asynccontextmanager
async def connect_tls(
    port: int, context: ssl.SSLContext, *, limit: int = 1 << 20, first: bytes = b"", kernel_bytes: int = 0
) -> AsyncIterator[TlsClient]:
    """A connection to 127.0.0.1:port, its handshake done, closed at the end.

    `first`: sent before TLS begins. `kernel_bytes`: what is read ahead, by the kernel and by us; 0: as they like.
    """
    connection = socket.socket()
    connection.setblocking(False)
    if kernel_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kernel_bytes)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=kernel_bytes or 65536)
    client = TlsClient(reader, writer, context, limit)
    try:
        writer.write(first)
        await client.handshake()
        yield client
    finally:
        client.stop()
        writer.transport.abort()
