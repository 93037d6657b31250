"""A gateway with two scripted targets, and one question to it: what tests of routing and fallback have in common.

Upstreams are scripted on real sockets: `one` is the first target, `two` the fallback.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from observability.record import Record
from tests.fakes.raw import connect
from tests.fakes.scripted import ReadRequest, Scripted, Send, Step
from tests.fakes.worker import KEY, FakeWorker, document_of, running

CHAT = b'{"messages":[{"role":"user","content":"hi"}],"model":"qwen-plus"}'
STREAM = b'{"messages":[],"model":"qwen-plus","stream":true,"stream_options":{"include_usage":true}}'
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
ERROR = b'data: {"error":{"message":"boom","code":"overloaded_now"}}\n\n'
PING = b": ping\n\n"
LAST = b"0\r\n\r\n"


def answer(status: int, body: bytes = b'{"choices":[],"id":"x"}', *lines: bytes) -> bytes:
    head = b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (status, len(body))
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def says(data: bytes, *more: Step) -> tuple[Step, ...]:
    """Every connection: read a request, say that, again."""
    return (ReadRequest(), Send(data), *more, ReadRequest(), Send(data), *more)


OK = says(answer(200))


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes


async def ask(
    worker: FakeWorker,
    body: bytes = CHAT,
    *lines: bytes,
    path: bytes = b"/v1/chat/completions",
    kind: bytes = b"application/json",
) -> Answer:
    head = b"\r\n".join(
        (
            b"POST " + path + b" HTTP/1.1",
            b"Host: gateway.test",
            b"Authorization: Bearer " + KEY.encode(),
            b"Content-Type: " + kind,
            b"Content-Length: %d" % len(body),
            b"Connection: close",
            *lines,
        )
    )
    async with connect(worker.port) as client:
        client.writer.write(head + b"\r\n\r\n" + body)
        got = await asyncio.wait_for(client.reader.read(-1), 20)
    head, _, rest = got.partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ")[1]), head, rest)


@contextlib.asynccontextmanager
async def gateway(
    one: Scripted | int,
    two: Scripted | int,
    service: dict[str, Any] | None = None,
    limits: Any = None,
    provider: str = "openai",
    **model_api: Any,
) -> AsyncIterator[FakeWorker]:
    """A chat Model API whose first target is `one` and whose fallback is `two` (a number: a port nobody listens on)."""
    ports = [side if isinstance(side, int) else side.port for side in (one, two)]
    document = document_of(
        f"http://127.0.0.1:{ports[0]}",
        service={"cooldown": {"failures": 0}, **(service or {})},
        limits=limits,
        provider=provider,
        model_api={"fallback": [{"service": "two"}], **model_api},
    )
    document["services"].append(
        {
            "name": "two",
            "provider": provider,
            "base_url": f"http://127.0.0.1:{ports[1]}",
            "api_keys": ["sk-two"],
            "cooldown": {"failures": 0},
        }
    )
    async with running(document) as worker:
        yield worker


def verdicts(record: Record) -> list[tuple[str, str, int | None]]:
    return [(one["service"], one["verdict"], one.get("status")) for one in record["attempts"]]


def bodies(upstream: Scripted) -> list[bytes]:
    return [body for connection in upstream.connections for body in connection.bodies]


async def record_of(worker: FakeWorker) -> Record:
    return await asyncio.wait_for(worker.records.get(), 10)


NOBODY = 1
"""A port that nobody listens on."""
