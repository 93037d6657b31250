"""A collector that misbehaves until it is told to heal: ``python -m benchmarks.faulty_collector --how HOW``.

It takes OTLP over HTTP on one port of 127.0.0.1, which it prints, and `asked` at its first connection. HOW is one of

* ``healthy``: answers at once;
* ``refusing``: nothing listens (the port is bound, so that nobody else gets it);
* ``hanging``: connections are taken and nothing is read of them;
* ``crawling``: requests are read, and answered with one byte a second;
* ``failing``: requests are read, and answered with 500.

The first line on stdin heals it: connections that hang are closed, answers that crawl are completed, and from then on
it is healthy, and says `healed`. At the end of stdin it prints what it took, as JSON: ``{"posts": {path: n}, "spans":
n}``; `spans` counts those of requests that were answered with 200 to the end.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import sys
from collections import Counter

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

HOW = ("healthy", "refusing", "hanging", "crawling", "failing")
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
_FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nfull"


class Collector:
    """One of them; `serve` until stdin ends."""

    def __init__(self, how: str) -> None:
        self._how = how
        self._healed = asyncio.Event()
        self.posts: Counter[str] = Counter()
        self.spans = 0
        self._asked = False

    async def serve(self, commands: asyncio.StreamReader) -> None:
        """Print the port, heal at the first line, end with the last."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, start_serving=self._how != "refusing")
        if self._how == "healthy":
            self._healed.set()
        print(server.sockets[0].getsockname()[1], flush=True)
        if await commands.readline():
            self._healed.set()
            await server.start_serving()
            print("healed", flush=True)
            await commands.read()
        server.close()
        print(json.dumps({"posts": self.posts, "spans": self.spans}), flush=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._asked:
            self._asked = True
            print("asked", flush=True)
        if self._how == "hanging" and not self._healed.is_set():
            await self._healed.wait()
            writer.transport.abort()
            return
        try:
            while (request := await _read(reader)) is not None:
                path, body = request
                self.posts[path] += 1
                if await self._answer(writer) and path == "/v1/traces":
                    message = ExportTraceServiceRequest.FromString(body)
                    self.spans += sum(
                        len(scope.spans) for resource in message.resource_spans for scope in resource.scope_spans
                    )
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> bool:
        """Write one; True where it is 200 and went out whole."""
        if self._how == "failing" and not self._healed.is_set():
            writer.write(_FAILED)
            await writer.drain()
            return False
        sent = 0
        while self._how == "crawling" and not self._healed.is_set() and sent < len(_OK) - 1:
            writer.write(_OK[sent : sent + 1])
            await writer.drain()
            sent += 1
            try:
                async with asyncio.timeout(1.0):
                    await self._healed.wait()
            except TimeoutError:
                pass
        writer.write(_OK[sent:])
        await writer.drain()
        return True


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes] | None:
    """Path and body of a request, the body decompressed; None at the end."""
    line = await reader.readline()
    if not line:
        return None
    length, compressed = 0, False
    while (header := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = header.decode("latin-1").partition(":")
        if name.lower() == "content-length":
            length = int(value)
        elif name.lower() == "content-encoding":
            compressed = value.strip().lower() == "gzip"
    body = await reader.readexactly(length)
    return line.split()[1].decode("latin-1"), gzip.decompress(body) if compressed else body


async def _main(how: str) -> None:
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    await Collector(how).serve(commands)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faulty_collector", description=__doc__)
    parser.add_argument("--how", choices=HOW, default="healthy")
    asyncio.run(_main(parser.parse_args().how))
