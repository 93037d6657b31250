"""Streams that break off: what came is there unchanged, then one event more that says why, then the cut.

The upstream is scripted on real sockets. What an SDK makes of it is in `test_sdk_errors`.
"""

import asyncio
import gzip
from dataclasses import dataclass, field

import orjson
import pytest

from proxy.errors import error_event
from tests.fakes.raw import RawClient, connect
from tests.fakes.scripted import Breathe, Fin, ReadRequest, Reset, Scripted, Send, Stall, Step, Wait
from tests.fakes.worker import KEY, FakeWorker, document_of, running

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n%b\r\n"
LAST = b"0\r\n\r\n"


@dataclass(frozen=True)
class Stream:
    """A stream of one operation as far as it comes: `events` with output, then `done`, its end."""

    protocol: str
    operation: str
    path: str
    events: tuple[bytes, ...]
    done: bytes
    more: dict[str, object] = field(default_factory=lambda: {"stream": True})
    headers: bytes = b""

    @property
    def so_far(self) -> bytes:
        return b"".join(self.events)

    def error(self, kind: str, message: str, request_id: str, number: int | None = None) -> bytes:
        """The event that says it."""
        number = len(self.events) if number is None else number
        return error_event(kind, message, self.protocol, self.operation, request_id, number)

    def request(self, version: bytes = b"1.1") -> bytes:
        body = orjson.dumps({"model": "m", "stream_options": {"include_usage": True}, **self.more})
        head = (
            b"POST %b HTTP/%b" % (self.path.encode(), version),
            b"Host: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + KEY.encode(),
            b"Content-Length: %d\r\n%b" % (len(body), self.headers),
        )
        return b"\r\n".join(head) + b"\r\n" + body


def _typed(*kinds: str) -> tuple[bytes, ...]:
    return tuple(
        b'event: %b\ndata: {"type":"%b","sequence_number":%d}\n\n' % (kind.encode(), kind.encode(), number)
        for number, kind in enumerate(kinds)
    )


CHAT = Stream(
    *("openai", "chat.completions", "/v1/chat/completions"),
    (
        b'data: {"id":"r1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
        b'data: {"id":"r1","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n',
    ),
    b'data: {"id":"r1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
)
RESPONSES = Stream(
    *("openai", "responses", "/v1/responses"),
    _typed("response.created", "response.output_text.delta"),
    b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n',
)
MESSAGES = Stream(
    *("anthropic", "messages", "/v1/messages"),
    (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m1"}}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n',
    ),
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)
NATIVE = Stream(
    *("dashscope", "text-generation", "/api/v1/services/aigc/text-generation/generation"),
    (
        b'id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"text":"","finish_reason":"null"}}\n\n',
        b'id:2\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"text":"hi","finish_reason":"null"}}\n\n',
    ),
    b'id:3\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"text":"hi","finish_reason":"stop"}}\n\n',
    more={},
    headers=b"X-DashScope-SSE: enable\r\n",
)
STREAMS = {stream.operation: stream for stream in (CHAT, RESPONSES, MESSAGES, NATIVE)}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def document(upstream: Scripted, **service: int) -> dict[str, object]:
    return document_of(
        f"http://127.0.0.1:{upstream.port}",
        provider="dashscope",
        service=dict(service),
        model_api={"protocols": ["openai", "anthropic", "dashscope"]},
    )


async def broken(client: RawClient, seen: asyncio.Event | None = None, until: bytes = b"") -> tuple[bytes, str, bytes]:
    """The body of an answer that is cut, how, and its request's id. `seen` is set as soon as `until` has come."""
    answer = await client.head()
    data = b""
    if seen is not None:
        while not data.endswith(until + b"\r\n"):
            data += await asyncio.wait_for(client.reader.read(65536), 10)
        seen.set()
    rest, how = await client.rest()
    data += rest
    request_id = answer.headers["x-sluiceway-request-id"].encode()
    if answer.headers.get("transfer-encoding") != "chunked":
        return data, how, request_id
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        assert size != b"0", "it looks whole"
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body, how, request_id


async def ended(worker: FakeWorker, outcome: str, error: str | None) -> str:
    """What the record says of it; answers the message."""
    fields = await worker.fields()
    assert (fields["sluiceway.outcome"], fields.get("error.type")) == (outcome, error)
    assert fields["http.response.status_code"] == 200
    message: str = fields.get("sluiceway.error.message", "")
    return message


ENDS: dict[str, tuple[tuple[Step, ...], str, dict[str, int]]] = {
    "reset": ((Reset(),), "upstream_reset", {}),
    "closed": ((Fin(),), "upstream_truncated", {}),
    "malformed": ((Send(b"ZZ\r\n"),), "upstream_truncated", {}),
    "whole by its framing": ((Send(LAST),), "upstream_truncated", {}),
    "idle": ((Stall(),), "upstream_timeout", {"idle_timeout_ms": 150}),
    "too long": ((Stall(),), "upstream_timeout", {"total_timeout_ms": 300}),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("operation", STREAMS)
async def test_a_stream_that_breaks_off_is_told_why(operation: str, end: str) -> None:
    stream = STREAMS[operation]
    steps, kind, service = ENDS[end]
    seen = asyncio.Event()
    script = (ReadRequest(), Send(CHUNKED % b"" + b"".join(map(chunk, stream.events))), Wait(seen), *steps)
    async with Scripted(*script) as upstream, running(document(upstream, **service)) as worker:
        async with connect(worker.port) as client:
            client.send(stream.request())
            body, how, request_id = await broken(client, seen, stream.events[-1])
        message = await ended(worker, "upstream_aborted", kind)
        assert how == "fin"
        assert body == stream.so_far + stream.error(kind, message, request_id.decode())
        assert message


@pytest.mark.parametrize("operation", STREAMS)
async def test_a_stream_that_a_drain_cuts_is_told_why(operation: str) -> None:
    stream = STREAMS[operation]
    script = (ReadRequest(), Send(CHUNKED % b"" + b"".join(map(chunk, stream.events))), Stall())
    async with Scripted(*script) as upstream, running(document(upstream)) as worker:
        async with connect(worker.port) as client:
            client.send(stream.request())
            seen = asyncio.Event()
            reading = asyncio.create_task(broken(client, seen, stream.events[-1]))
            await asyncio.wait_for(seen.wait(), 10)
            worker.handler.stopping = True
            worker.server.cut_running()
            body, how, request_id = await reading
    message = "the gateway shuts down and the request was not answered in time"
    assert body == stream.so_far + stream.error("draining", message, request_id.decode())
    assert how == "fin"


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_stream_that_breaks_off_before_its_first_event_is_told_why(version: bytes) -> None:
    async with (
        Scripted(ReadRequest(), Send(CHUNKED % b""), Stall()) as upstream,
        running(document(upstream, idle_timeout_ms=150)) as worker,
        connect(worker.port) as client,
    ):
        client.send(CHAT.request(version))
        body, how, request_id = await broken(client)
        message = await ended(worker, "upstream_aborted", "upstream_timeout")
        assert body == CHAT.error("upstream_timeout", message, request_id.decode(), 0)
        assert how == ("reset" if version == b"1.0" else "fin")  # where EOF is the end, only a reset tells a cut


PIECES = {
    "CRLF": tuple(event.replace(b"\n", b"\r\n") for event in CHAT.events),
    "CR": tuple(event.replace(b"\n", b"\r") for event in CHAT.events),
    "byte by byte": tuple(bytes([byte]) for byte in CHAT.so_far),
    "a comment": (*CHAT.events, b": keep-alive\n\n"),
}


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
async def test_however_its_events_are_written_and_cut_into_pieces(pieces: tuple[bytes, ...]) -> None:
    seen = asyncio.Event()
    sending = [step for piece in pieces for step in (Send(chunk(piece)), Breathe())]
    async with (
        Scripted(ReadRequest(), Send(CHUNKED % b""), *sending, Wait(seen), Reset()) as upstream,
        running(document(upstream)) as worker,
        connect(worker.port) as client,
    ):
        client.send(CHAT.request())
        body, _, request_id = await broken(client, seen, pieces[-1])
        message = await ended(worker, "upstream_aborted", "upstream_reset")
        assert body == b"".join(pieces) + CHAT.error("upstream_reset", message, request_id.decode())


async def test_of_an_event_that_the_gateway_holds_nothing_was_sent() -> None:
    """It looks for the usage that it asked for, event by event: half an event stays with it."""
    stream = Stream(
        *("openai", "chat.completions", "/v1/chat/completions", CHAT.events, b""),
        more={"stream": True, "stream_options": {}},
    )
    seen = asyncio.Event()
    sent = CHUNKED % b"" + b"".join(map(chunk, CHAT.events)) + chunk(b'data: {"id":')
    async with (
        Scripted(ReadRequest(), Send(sent), Wait(seen), Reset()) as upstream,
        running(document(upstream)) as worker,
        connect(worker.port) as client,
    ):
        client.send(stream.request())
        body, _, request_id = await broken(client, seen, CHAT.events[-1])
        message = await ended(worker, "upstream_aborted", "upstream_reset")
        assert body == CHAT.so_far + CHAT.error("upstream_reset", message, request_id.decode())


HALF = b'data: {"id":"r1","cho'
ERROR = b'data: {"error":{"message":"boom","type":"server_error","code":"overloaded_now"}}\n\n'
ZIPPED = gzip.compress(CHAT.so_far, 0)[:-8]  # as it is, and without the trailer: it ends as a stream would
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
COUNTED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
REFUSED = b"HTTP/1.1 500 No\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SILENT = {
    # head, what comes before the reset
    "inside an event": (CHUNKED % b"", CHAT.so_far + HALF),
    "behind one line end": (CHUNKED % b"", CHAT.so_far[:-1]),
    "behind its end": (CHUNKED % b"", CHAT.so_far + CHAT.done),
    "behind an error": (CHUNKED % b"", CHAT.so_far + ERROR),
    "encoded": (CHUNKED % b"Content-Encoding: gzip\r\n", ZIPPED),
    "JSON": (PLAIN, b'{"id":"r1","choices":[\n\n'),
    "with a length": (COUNTED, CHAT.so_far),
    "an error status": (REFUSED, CHAT.so_far),
}


@pytest.mark.parametrize(("head", "sent"), SILENT.values(), ids=SILENT)
async def test_where_no_event_can_follow_there_is_only_the_cut(head: bytes, sent: bytes) -> None:
    seen = asyncio.Event()
    counted = b"Content-Length" in head
    async with (
        Scripted(ReadRequest(), Send(head + (sent if counted else chunk(sent))), Wait(seen), Reset()) as upstream,
        running(document(upstream)) as worker,
        connect(worker.port) as client,
    ):
        client.send(CHAT.request())
        if counted:
            await client.head()
            assert await client.reader.readexactly(len(sent)) == sent
            seen.set()
            assert await client.rest() == (b"", "fin")
        else:
            assert (await broken(client, seen, sent))[:2] == (sent, "fin")
        fields = await worker.fields()
        assert (fields["sluiceway.outcome"], fields["error.type"]) == ("upstream_aborted", "upstream_reset")
