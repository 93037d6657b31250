"""Pieces that pass from connection to connection past the relay: each at once, none lost, no more than is read."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from observability.observation import Observation
from observability.sampling import TraceContext
from proxy.outbox import Outbox
from proxy.passage import Passage
from proxy.upstream.connection import Connection
from tests.e2e.traffic import CHAT, chat_body
from tests.fakes.worker import KEY, document_of, running

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"data: [DONE]\n\n"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(number: int, text: str = "x") -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%d%b"}}]}\n\n' % (number, text.encode())


def request() -> bytes:
    body = chat_body(stream=True)
    return (
        b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (CHAT.encode(), KEY.encode(), len(body), body)
    )


async def upstream(answer: Answer) -> tuple[asyncio.Server, str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        try:
            await answer(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_each_event_arrives_before_the_next_is_written() -> None:
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def answer(writer: asyncio.StreamWriter) -> None:
        for number in range(100):
            writer.write(chunk(event(number)))
            assert await asyncio.wait_for(seen.get(), 10) == number
        writer.write(chunk(END) + b"0\r\n\r\n")

    server, url = await upstream(answer)
    async with server, running(document_of(url)) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        writer.write(request())
        await reader.readuntil(b"\r\n\r\n")
        for number in range(100):
            assert await reader.readexactly(len(chunk(event(number)))) == chunk(event(number))
            seen.put_nowait(number)
        assert await reader.readuntil(b"0\r\n\r\n") == chunk(END) + b"0\r\n\r\n"
        fields = await worker.fields()
        assert (fields["sluiceway.outcome"], fields["sluiceway.response.events"]) == ("ok", 101)
        writer.close()


async def test_small_pieces_wait_for_a_reader_that_stops() -> None:
    written = 0
    piece = chunk(event(0, "x" * 4000))
    total = 32 * 1024 * 1024 // len(piece)

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        for _ in range(total):
            writer.write(piece)
            written += len(piece)
            await writer.drain()
            await asyncio.sleep(0)  # each piece by itself: together they would be the relay's
        writer.write(chunk(END) + b"0\r\n\r\n")

    server, url = await upstream(answer)
    async with server, running(document_of(url)) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        writer.write(request())
        before = -1
        while written != before:  # until it stands still: nobody says so
            before = written
            await asyncio.sleep(0.3)
        assert 0 < written < 20 * 1024 * 1024  # the sockets of loopback take some MiB each
        await reader.readuntil(b"\r\n\r\n")
        received = 0
        while not (data := await reader.read(1 << 20)).endswith(b"0\r\n\r\n"):
            received += len(data)
        received += len(data)
        assert received >= total * len(event(0, "x" * 4000)) + len(END)  # chunks that met on the way are one
        fields = await worker.fields()
        assert (fields["sluiceway.outcome"], fields["sluiceway.response.events"]) == ("ok", total + 1)
        writer.close()


class Leaving:
    """A reader that takes `takes` pieces, and then has left."""

    blocked = False

    def __init__(self, takes: int) -> None:
        self.taken: list[bytes] = []
        self._takes = takes

    def send(self, head: bytes, data: bytes, *, last: bool) -> None:
        if len(self.taken) == self._takes:
            raise ConnectionResetError("the client left")
        self.taken.append(data)

    async def drain(self) -> None: ...


async def passing(reader: Leaving) -> tuple[Connection, Passage, "asyncio.Task[None]"]:
    """A passage that waits for its first piece."""
    loop = asyncio.get_running_loop()
    connection = Connection(loop, lambda _: None, Outbox(loop))
    connection.begin(b"POST", 0)
    connection.data_received(HEAD)
    observation = Observation("0" * 32, TraceContext("a" * 32, None, None, None), "c" * 16, "d" * 16)
    passage = Passage(connection, reader, observation, None)
    task = asyncio.create_task(passage.run())
    while connection.sink is None:
        await asyncio.sleep(0)
    return connection, passage, task


async def test_what_comes_behind_a_failure_is_not_passed_on() -> None:
    reader = Leaving(1)
    connection, _, task = await passing(reader)
    connection.data_received(chunk(b"one"))
    connection.data_received(chunk(b"two"))
    reader.taken.clear()  # it would take more
    connection.data_received(chunk(b"three"))
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(task, 10)
    assert reader.taken == []
    assert connection.read_nowait() == b"three"


async def test_a_passage_that_failed_and_is_cancelled_is_freed_at_once() -> None:
    """A client that leaves cancels the relay, and a piece may come just before: its error leads back to the passage."""
    gc.collect()
    gc.disable()
    try:
        connection, passage, task = await passing(Leaving(0))
        connection.data_received(chunk(b"one"))
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        connection.abort()
        del connection, passage, task
        assert [one for one in gc.get_objects() if isinstance(one, Passage | Connection)] == []
    finally:
        gc.enable()
