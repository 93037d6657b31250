"""A client that writes bytes as given and reads what comes: for what no HTTP library would send."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

WAIT_S = 10.0
"""Bound of every wait; no test depends on how long one takes."""


@dataclass
class Answer:
    """One response as it came."""

    status: int
    head: bytes
    headers: dict[str, str] = field(default_factory=dict)
    """Lower-case names; the last of several."""
    body: bytes = b""


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Hand bytes to the kernel."""
        self.writer.write(data)

    async def head(self) -> Answer:
        """The next response head."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT_S)
        lines = head[:-4].split(b"\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
        return Answer(int(lines[0].split(b" ")[1]), head, headers)

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """The next response, by Content-Length or chunked."""
        answer = await self.head()
        if bodiless:
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            while size := int(await asyncio.wait_for(self.reader.readline(), WAIT_S), 16):
                answer.body += await asyncio.wait_for(self.reader.readexactly(size), WAIT_S)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        elif "content-length" in answer.headers:
            length = int(answer.headers["content-length"])
            answer.body = await asyncio.wait_for(self.reader.readexactly(length), WAIT_S)
        return answer

    async def rest(self) -> tuple[bytes, str]:
        """All that still comes, and how it ends: `fin` or `reset`."""
        data = b""
        try:
            while piece := await asyncio.wait_for(self.reader.read(65536), WAIT_S):
                data += piece
        except ConnectionResetError:
            return data, "reset"
        return data, "fin"

    def leave(self) -> None:
        """Close at once."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connect(port: int, *, limit: int = 1 << 20) -> AsyncIterator[RawClient]:
    """A connection to 127.0.0.1:port, closed at the end. `limit`: what is read ahead."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
