"""What the tests of whole hosts share: a document, requests as bytes, and clients that note what they got."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

KEY = "sk-e2e-consumer-key"
CHAT = "/v1/chat/completions"
NATIVE = "/api/v1/services/aigc/text-generation/generation"
LAST_CHUNK = b"0\r\n\r\n"
WAIT_S = 60.0
"""Bound of every wait; nothing depends on how long one takes."""


def document_of(upstream: str, **top: Any) -> dict[str, Any]:
    """One Model API at `/` for OpenAI's and DashScope's protocol, served by the simulated upstream."""
    service = {"name": "sim", "provider": "dashscope", "base_url": upstream, "api_keys": ["sk-e2e-service-key"]}
    model_api = {
        "name": "chat",
        "scenario": "text",
        "protocols": ["openai", "dashscope"],
        "routing": {"single": {"service": "sim"}},
    }
    return {
        "services": [{**service, **top.pop("service", {})}],
        "consumers": [{"name": "team", "keys": [KEY]}],
        "model_apis": [model_api],
        **top,
    }


def chat_body(question: str = "Hello", *, stream: bool = False, usage: bool = False, size: int = 0) -> bytes:
    """A chat request as SDKs send it, `messages` first; its text is padded to about `size` bytes."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": question + " x" * (size // 2)}],
        "model": "qwen-plus",
    }
    if stream:
        body["stream"] = True
    if usage:
        body["stream_options"] = {"include_usage": True}
    return orjson.dumps(body)


def head_of(path: str, name: str, length: int, *, key: str = KEY, **headers: str) -> bytes:
    """A request head; `name` is its x-request-id, underscores in header names are hyphens."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: gateway.test",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        f"x-request-id: {name}",
        *(f"{header.replace('_', '-')}: {value}" for header, value in headers.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode()


@dataclass
class Got:
    """What a client got of one answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    """The framing came to its end."""

    @property
    def error(self) -> str | None:
        """The gateway's own error kind."""
        return self.headers.get("x-sluiceway-error")

    @property
    def reusable(self) -> bool:
        """The connection may carry another request."""
        return self.whole and self.headers.get("connection", "").lower() != "close"


class Client:
    """One connection that reads answers as they come. Those that a test leaves open are closed by `leave_all`."""

    _open: ClassVar[set["Client"]] = set()

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._open.add(self)

    @classmethod
    async def to(cls, port: int) -> "Client":
        """Connect to 127.0.0.1:port."""
        return cls(*await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), WAIT_S))

    async def send(self, data: bytes) -> None:
        """Write and wait for the kernel's room. A peer that has closed is not an error: its answer may be there."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), WAIT_S)

    async def receive(self, got: Got, until_bytes: int | None = None) -> Got:
        """Read an answer into `got`; to its end, to the connection's, or until the body has so many bytes."""
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._receive(got, until_bytes)
        return got

    async def _receive(self, got: Got, until_bytes: int | None) -> None:
        if not got.status:
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            for line in lines[1:-2]:
                name, _, value = line.partition(":")
                got.headers[name.lower()] = value.strip()
            got.status = int(lines[0].split(" ")[1])
        chunked = got.headers.get("transfer-encoding") == "chunked"
        length = int(got.headers.get("content-length", 0))
        while until_bytes is None or len(got.body) < until_bytes:
            if chunked:
                size = int((await self.reader.readuntil(b"\r\n")).decode(), 16)
                got.body += (await self.reader.readexactly(size + 2))[:-2]
                if not size:
                    got.whole = True
                    return
            elif len(got.body) >= length:
                got.whole = True
                return
            elif piece := await self.reader.read(65536):
                got.body += piece
            else:
                return

    def leave(self) -> None:
        """Close at once."""
        self.writer.transport.abort()
        self._open.discard(self)

    @classmethod
    def leave_all(cls) -> None:
        """Close whatever is open."""
        for client in list(cls._open):
            client.leave()


async def ask(port: int, name: str, body: bytes | None = None, path: str = CHAT, **headers: str) -> Got:
    """One request on a connection of its own. ConnectionError where there is none."""
    client = await Client.to(port)
    try:
        body = chat_body() if body is None else body
        await client.send(head_of(path, name, len(body), **headers) + body)
        return await client.receive(Got())
    finally:
        client.leave()


async def refused(port: int) -> None:
    """Wait until nobody listens there any more."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                client = await Client.to(port)
            except ConnectionRefusedError:
                return
            client.leave()
            await asyncio.sleep(0.01)  # the end of a listener is no event that we could await
