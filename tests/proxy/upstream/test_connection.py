"""One test for each point at which an upstream can stall, leave or misbehave, over real sockets."""

import asyncio
from collections.abc import Sequence

import pytest

from proxy.errors import UpstreamError
from proxy.upstream.connection import READ_HIGH_BYTES, WRITE_HIGH_BYTES, Connection
from tests.fakes.scripted import Fin, ReadBody, ReadHead, ReadToEnd, Reset, Scripted, Send, Stall, Step, Tell, Wait
from tests.proxy.upstream.conftest import NewPool

HEAD = b"POST / HTTP/1.1\r\nhost: upstream\r\ncontent-length: 2\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"content-length: 10\r\n\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
SEGMENT_BYTES = 262144
"""What asyncio and uvloop read at most at once."""
SHORT_MS = 40
"""An idle timeout that a test waits for."""
LONG_MS = 60_000
"""One that it does not."""


def send(connection: Connection, *, idle_timeout_ms: int = LONG_MS, method: bytes = b"POST") -> None:
    """A whole small request."""
    connection.begin(method, idle_timeout_ms)
    connection.write(HEAD + b"{}")
    connection.request_complete = True


async def read_all(connection: Connection) -> bytes:
    pieces = []
    while piece := await connection.read():
        pieces.append(piece)
    return b"".join(pieces)


async def upload_for_ever(connection: Connection) -> None:
    while True:
        connection.write(bytes(WRITE_HIGH_BYTES))
        await connection.drain()
        await asyncio.sleep(0)


async def fate(connection: Connection) -> tuple[bytes, UpstreamError]:
    """The body until the error that must end it, and that error."""
    pieces = []
    try:
        while piece := await connection.read():
            pieces.append(piece)
    except UpstreamError as error:
        assert connection.closed
        return b"".join(pieces), error
    pytest.fail(f"a clean end after {pieces}")


async def test_small_answer_wakes_its_reader_once(new_pool: NewPool) -> None:
    answer = OK + b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    async with Scripted(ReadHead(), ReadBody(2), Send(answer)) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection)
        reading = connection.read_head()
        waiter = reading.send(None)  # runs to the one wait there is …
        assert asyncio.isfuture(waiter)
        waiter._asyncio_future_blocking = False
        await waiter
        with pytest.raises(StopIteration) as done:  # … and from there to the end
            reading.send(None)
        assert done.value.value.status == 200
        assert connection.body_complete
        assert (connection.read_nowait(), connection.read_nowait()) == (b"{}", b"")
        pool.release(connection)
        assert pool.idle_connections == 1
        assert upstream.heads == [HEAD]
        assert upstream.connections[0].bodies == [b"{}"]


BEFORE_HEAD: dict[str, tuple[Sequence[Step], str, bool]] = {
    "FIN before the head": ([Fin()], "closed the connection before its response head", False),
    "RST before the head": ([Reset()], "reset the connection before its response head", False),
    "FIN in the head": ([Send(OK + b"a: b"), Fin()], "closed the connection in the middle of its response head", True),
    "FIN after a 1xx": ([Send(b"HTTP/1.1 100 Continue\r\n\r\n"), Fin()], "in the middle of its response head", True),
    "no HTTP": ([Send(b"hello\r\n\r\n")], "malformed response head", True),
    "101": ([Send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")], "101", True),
}


@pytest.mark.parametrize("name", BEFORE_HEAD)
async def test_ends_before_its_head(new_pool: NewPool, name: str) -> None:
    steps, message, started = BEFORE_HEAD[name]
    async with Scripted(ReadHead(), ReadBody(2), *steps) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection)
        with pytest.raises(UpstreamError, match=message) as raised:
            await connection.read_head()
        assert (raised.value.kind, raised.value.response_started) == ("upstream_protocol", started)
        assert (connection.response_started, connection.reused, connection.head_ready) == (started, False, False)
        pool.release(connection)


async def test_reset_in_the_head(new_pool: NewPool) -> None:
    seen = asyncio.Event()
    async with Scripted(ReadHead(), ReadBody(2), Send(OK + b"a: b"), Wait(seen), Reset()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection)
        while not connection.response_started:  # a reset throws away what was not read yet
            await asyncio.sleep(0)
        seen.set()
        with pytest.raises(UpstreamError, match="reset the connection in the middle of") as raised:
            await connection.read_head()
        assert raised.value.kind == "upstream_protocol"
        pool.release(connection)


@pytest.mark.parametrize("sent", [b"", OK + b"a: b", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["silence", "part", "1xx"])
async def test_stalls_before_its_head_is_whole(new_pool: NewPool, sent: bytes) -> None:
    async with Scripted(ReadHead(), ReadBody(2), Send(sent), Stall()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection, idle_timeout_ms=SHORT_MS)
        with pytest.raises(UpstreamError) as raised:
            await connection.read_head()
        assert (raised.value.kind, raised.value.response_started) == ("upstream_timeout", bool(sent))
        pool.release(connection)


BODIES = {
    "length": (LENGTH + b"hello", b"hello"),
    "in a chunk": (CHUNKED + b"5\r\nhello\r\n5\r\nhel", b"hellohel"),
    "between chunks": (CHUNKED + b"5\r\nhello\r\n", b"hello"),
    "in a chunk size": (CHUNKED + b"5\r\nhello\r\n5", b"hello"),
    "in the last chunk": (CHUNKED + b"5\r\nhello\r\n0\r\n", b"hello"),
    "in a trailer": (CHUNKED + b"5\r\nhello\r\n0\r\na: b", b"hello"),
}


@pytest.mark.parametrize("where", BODIES)
async def test_fin_in_the_body(new_pool: NewPool, where: str) -> None:
    data, body = BODIES[where]
    async with Scripted(ReadHead(), ReadBody(2), Send(data), Fin()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection)
        assert (await connection.read_head()).status == 200
        got, error = await fate(connection)
        assert (got, error.kind, error.outcome) == (body, "upstream_truncated", "upstream_aborted")
        pool.release(connection)


@pytest.mark.parametrize("where", [*BODIES, "until the end"])
async def test_reset_in_the_body(new_pool: NewPool, where: str) -> None:
    data, body = BODIES.get(where, (OK + b"\r\nhello", b"hello"))
    read = asyncio.Event()
    async with Scripted(ReadHead(), ReadBody(2), Send(data), Wait(read), Reset()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection)
        await connection.read_head()
        got = b""
        while len(got) < len(body):
            got += await connection.read()
        read.set()
        rest, error = await fate(connection)
        assert (got + rest, error.kind, error.response_started) == (body, "upstream_reset", True)
        pool.release(connection)


@pytest.mark.parametrize("where", [*BODIES, "until the end"])
async def test_stall_in_the_body(new_pool: NewPool, where: str) -> None:
    data, body = BODIES.get(where, (OK + b"\r\nhello", b"hello"))
    async with Scripted(ReadHead(), ReadBody(2), Send(data), Stall()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection, idle_timeout_ms=SHORT_MS)
        await connection.read_head()
        got, error = await fate(connection)
        assert (got, error.kind, error.outcome) == (body, "upstream_timeout", "upstream_aborted")
        pool.release(connection)


async def test_malformed_chunk(new_pool: NewPool) -> None:
    async with Scripted(ReadHead(), ReadBody(2), Send(CHUNKED + b"5\r\nhello\r\nzz\r\n"), Stall()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection)
        await connection.read_head()
        got, error = await fate(connection)
        assert (got, error.kind) == (b"hello", "upstream_truncated")
        assert "malformed response body" in error.message
        pool.release(connection)


@pytest.mark.parametrize(
    ("answer", "method", "body", "kept"),
    [
        (CHUNKED + b"5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n", b"POST", b"hello", True),
        (OK + b"\r\nhello", b"POST", b"hello", False),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n", b"POST", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", b"GET", b"", True),
        (LENGTH, b"HEAD", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH + b"0123456789", b"POST", b"0123456789", True),
        (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nhi", b"POST", b"hi", False),
        (LENGTH + b"0123456789garbage", b"POST", b"0123456789", False),
    ],
    ids=["chunked", "until the end", "204", "304", "HEAD", "1xx", "connection: close", "garbage after it"],
)
async def test_whole_answer(new_pool: NewPool, answer: bytes, method: bytes, body: bytes, kept: bool) -> None:
    """Twice, the second time one byte at a time: on the same connection if the first answer kept it."""
    end: list[Step] = [] if kept else [Fin()]
    script: list[Step] = [
        ReadHead(),
        ReadBody(2),
        Send(answer),
        *end,
        ReadHead(),
        ReadBody(2),
        Send(answer, apart=True),
    ]
    again: list[Step] = [ReadHead(), ReadBody(2), Send(answer, apart=True), *end]
    async with Scripted.each(script, again) as upstream:
        pool = new_pool(upstream.port)
        for turn in range(2):
            connection = await pool.acquire()
            assert connection.reused is (kept and turn == 1)
            send(connection, method=method)
            assert (await connection.read_head()).status in {200, 204, 304}
            assert await read_all(connection) == body
            pool.release(connection)
            while not kept and not connection.closed:  # the surplus may come later than the end of the answer
                await asyncio.sleep(0)
            assert pool.idle_connections == (1 if kept else 0)


async def test_answer_before_the_upload_ends(new_pool: NewPool) -> None:
    """The upstream refuses after the head and reads no more: drain() must not wait for it."""
    answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nno!"
    may_answer = asyncio.Event()
    async with Scripted(ReadHead(), Wait(may_answer), Send(answer), Stall()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        connection.begin(b"POST", LONG_MS)
        connection.write(HEAD)
        uploaded = 0
        while not connection.head_ready:
            connection.write(bytes(WRITE_HIGH_BYTES))
            uploaded += WRITE_HIGH_BYTES
            if connection._writing_paused:
                may_answer.set()
            await connection.drain()
        assert (await connection.read_head()).status == 413
        assert await read_all(connection) == b"no!"
        await connection.drain()  # still no reason to wait
        pool.release(connection)
        assert (connection.closed, pool.open_connections) == (True, 0)  # half a request is on it


async def test_answer_before_the_upload_ends_then_fin(new_pool: NewPool) -> None:
    answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 3\r\n\r\nno!"
    async with Scripted(ReadHead(), Send(answer), Fin()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        connection.begin(b"POST", LONG_MS)
        connection.write(HEAD)
        head = await connection.read_head()
        await (await upstream.connection(0)).closed.wait()
        connection.write(bytes(10))  # to nobody: not an error of the response
        await connection.drain()
        assert (head.status, await read_all(connection)) == (400, b"no!")
        pool.release(connection)


async def test_upload_waits_for_a_slow_upstream(new_pool: NewPool) -> None:
    """What is written and not taken stays under the high-water mark plus one piece."""
    size = 4_000_000
    piece = bytes(50_000)
    may_read = asyncio.Event()
    async with Scripted(ReadHead(), Wait(may_read), ReadBody(size), Send(LENGTH + b"0123456789")) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        connection.begin(b"POST", LONG_MS)
        connection.write(HEAD)
        assert connection._transport is not None
        most = 0

        async def upload() -> None:
            nonlocal most
            for _ in range(size // len(piece)):
                connection.write(piece)
                assert connection._transport is not None
                most = max(most, connection._transport.get_write_buffer_size())
                await connection.drain()

        uploading = asyncio.create_task(upload())
        while connection._write_waiter is None:
            await asyncio.sleep(0)
        assert not uploading.done()
        may_read.set()
        await uploading
        connection.request_complete = True
        assert most <= WRITE_HIGH_BYTES + len(piece)
        assert (await connection.read_head()).status == 200
        assert await read_all(connection) == b"0123456789"
        assert upstream.connections[0].bodies == [bytes(size)]
        pool.release(connection)
        assert pool.idle_connections == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "eof"])
async def test_download_waits_for_a_slow_reader(new_pool: NewPool, framing: str) -> None:
    """What is received and not read stays bounded, whatever the framing, and all of it arrives in the end."""
    times, piece = 250, b"x" * 20_000
    head, part, end = {
        "length": (OK + b"content-length: 5000000\r\n\r\n", piece, b""),
        "chunked": (CHUNKED, b"%x\r\n%b\r\n" % (len(piece), piece), b"0\r\n\r\n"),
        "eof": (OK + b"\r\n", piece, b""),
    }[framing]
    all_sent = asyncio.Event()
    script: list[Step] = [ReadHead(), ReadBody(2), Send(head), Send(part, times), Send(end), Tell(all_sent), Fin()]
    async with Scripted(*script) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection, idle_timeout_ms=LONG_MS)
        await connection.read_head()
        while not connection._reading_paused:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
            assert connection.held_bytes <= READ_HIGH_BYTES + SEGMENT_BYTES
        assert not all_sent.is_set()
        received = most = 0
        while data := await connection.read():
            received += len(data)
            most = max(most, connection.held_bytes)
        assert (received, most <= READ_HIGH_BYTES + SEGMENT_BYTES) == (times * len(piece), True)
        assert all_sent.is_set()
        pool.release(connection)


async def test_idle_clock_stands_still_while_the_reader_is_slow(new_pool: NewPool) -> None:
    size = 3_000_000
    head = OK + b"content-length: %d\r\n\r\n" % size
    async with Scripted(ReadHead(), ReadBody(2), Send(head), Send(bytes(size)), Stall()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection, idle_timeout_ms=SHORT_MS)
        await connection.read_head()
        while not connection._reading_paused:
            await asyncio.sleep(0)
        await asyncio.sleep(SHORT_MS / 1000 * 3)  # time itself is what is tested here
        assert len(await read_all(connection)) == size
        pool.release(connection)


async def test_idle_clock_of_the_head_starts_when_the_upload_ends(new_pool: NewPool) -> None:
    async with Scripted(ReadHead(), ReadBody(2), Stall()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        connection.begin(b"POST", SHORT_MS)
        connection.write(HEAD)
        reading = asyncio.create_task(connection.read_head())
        await asyncio.sleep(SHORT_MS / 1000 * 3)  # time itself is what is tested here: a slow client
        assert not reading.done()
        connection.write(b"{}")
        connection.request_complete = True
        with pytest.raises(UpstreamError, match="waiting for an answer") as raised:
            await reading
        assert raised.value.kind == "upstream_timeout"
        pool.release(connection)


async def test_upload_that_is_not_taken_times_out(new_pool: NewPool) -> None:
    async with Scripted(ReadHead(), Stall()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        connection.begin(b"POST", SHORT_MS)
        connection.write(HEAD)
        with pytest.raises(UpstreamError, match="take the request") as raised:
            await upload_for_ever(connection)
        assert raised.value.kind == "upstream_timeout"
        pool.release(connection)


async def test_reset_during_the_upload(new_pool: NewPool) -> None:
    async with Scripted(ReadHead(), Reset()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        connection.begin(b"POST", LONG_MS)
        connection.write(HEAD)
        with pytest.raises(UpstreamError, match="reset the connection before") as raised:
            await upload_for_ever(connection)
        assert (raised.value.kind, raised.value.response_started) == ("upstream_protocol", False)
        pool.release(connection)


@pytest.mark.parametrize("answer", [LENGTH + b"0123456789", CHUNKED + b"5\r\nhello\r\n"], ids=["whole", "part"])
async def test_refusal_survives_the_reset_that_follows_it(new_pool: NewPool, answer: bytes) -> None:
    """The upstream answers and resets the connection, and our next write fails before the answer was read."""
    async with Scripted(ReadHead(), Send(answer), Reset()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        connection.begin(b"POST", LONG_MS)
        assert connection._transport is not None
        connection._transport.pause_reading()  # so that the write is sure to be the first to know
        connection.write(HEAD)
        await (await upstream.connection(0)).closed.wait()
        while not connection.closed:
            connection.write(bytes(1000))
            await asyncio.sleep(0)
        await connection.drain()
        assert (await connection.read_head()).status == 200
        if answer.startswith(LENGTH):
            assert await read_all(connection) == b"0123456789"
        else:
            got, error = await fate(connection)
            assert (got, error.kind) == (b"hello", "upstream_reset")
        pool.release(connection)


async def test_one_timer_serves_many_exchanges(new_pool: NewPool) -> None:
    """A kept connection's timer neither fires while idle nor misses a shorter limit of the next exchange."""
    answered: list[Step] = [ReadHead(), ReadBody(2), Send(LENGTH + b"0123456789")]
    async with Scripted(*answered, *answered, ReadHead(), Stall()) as upstream:
        pool = new_pool(upstream.port)
        for _ in range(2):
            connection = await pool.acquire()
            send(connection, idle_timeout_ms=LONG_MS)
            await connection.read_head()
            await read_all(connection)
            pool.release(connection)
        connection = await pool.acquire()
        assert connection.reused
        send(connection, idle_timeout_ms=SHORT_MS)
        with pytest.raises(UpstreamError, match="waiting for an answer"):
            await connection.read_head()
        pool.release(connection)


@pytest.mark.parametrize("stage", ["head", "body", "upload"])
async def test_cancelled_while_waiting(new_pool: NewPool, stage: str) -> None:
    """The owner lets go: the upstream sees the connection close, and the pool has its place back."""
    sent = {"head": b"", "body": LENGTH + b"hello", "upload": b""}[stage]
    script: list[Step] = (
        [ReadHead(), Stall()] if stage == "upload" else [ReadHead(), ReadBody(2), Send(sent), ReadToEnd()]
    )
    waiting = asyncio.Event()
    async with Scripted(*script) as upstream:
        pool = new_pool(upstream.port, max_connections=1)

        async def exchange() -> None:
            connection = await pool.acquire()
            try:
                if stage == "upload":
                    connection.begin(b"POST", LONG_MS)
                    connection.write(HEAD)
                    while True:
                        connection.write(bytes(WRITE_HIGH_BYTES))
                        if connection._writing_paused:
                            waiting.set()
                        await connection.drain()
                send(connection)
                if stage == "body":
                    await connection.read_head()
                    await connection.read()
                waiting.set()
                await connection.read_head() if stage == "head" else await connection.read()
            finally:
                pool.release(connection)

        task = asyncio.create_task(exchange())
        await waiting.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.open_connections == 0
        if stage != "upload":
            await (await upstream.connection(0)).closed.wait()


async def test_abort_wakes_the_reader(new_pool: NewPool) -> None:
    async with Scripted(ReadHead(), Stall()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        send(connection)
        reading = asyncio.create_task(connection.read_head())
        await asyncio.sleep(0)
        connection.abort()
        connection.abort()
        with pytest.raises(UpstreamError):
            await reading
        pool.release(connection)


async def test_closed_between_acquire_and_begin(new_pool: NewPool) -> None:
    may_end = asyncio.Event()
    async with Scripted(Wait(may_end), Fin()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        may_end.set()
        while not connection.closed:
            await asyncio.sleep(0)
        send(connection)
        with pytest.raises(UpstreamError) as raised:
            await connection.read_head()
        assert (raised.value.kind, raised.value.response_started) == ("upstream_protocol", False)
        pool.release(connection)
