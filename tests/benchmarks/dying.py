"""A contestant that passes bytes on, and dies at the second request for embeddings: ``dying PORT UPSTREAM``."""

import asyncio
import os
import sys

SEEN = []


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            SEEN.extend([b"POST"] * data.count(b"POST /v1/embeddings"))
            if len(SEEN) > 1:
                os._exit(1)
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def _serve(port: int, upstream: str) -> None:
    host, _, upstream_port = upstream.partition(":")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(host, int(upstream_port))
        await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))

    server = await asyncio.start_server(relay, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
