"""A part of a file as the next bytes of a request: in its place, and at every point at which the upstream may fail."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.errors import UpstreamError
from proxy.upstream.by_file import send_file, takes_files
from proxy.upstream.connection import Connection
from tests.fakes.certificates import Authority
from tests.fakes.scripted import Fin, ReadBody, ReadHead, ReadToEnd, Reset, Scripted, Send, Stall, Wait
from tests.proxy.upstream.conftest import NewPool

HEAD = b"POST / HTTP/1.1\r\nhost: upstream\r\ncontent-length: 100000000\r\n\r\n"
ANSWER = b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nno!"
LARGE = 1 << 26
"""More than what the kernel takes on both sides of a connection that nobody reads."""
SHORT_MS = 40
LONG_MS = 60_000


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """LARGE bytes, of which the first MiB are no zeros."""
    descriptor = os.open(tmp_path / "held", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, os.urandom(1 << 20))
    os.ftruncate(descriptor, LARGE)
    yield descriptor
    assert _open_twice() == []
    os.close(descriptor)


def _open_twice() -> list[str]:
    """Sockets of this process that have a second descriptor: closed by the first, they would stay."""
    sockets: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if (target := os.readlink(f"/proc/self/fd/{number}")).startswith("socket:"):
                sockets.append(target)
    return [one for one in set(sockets) if sockets.count(one) > 1]


def begin(connection: Connection, idle_timeout_ms: int = LONG_MS) -> None:
    connection.begin(b"POST", idle_timeout_ms)
    connection.write(HEAD)


async def test_its_bytes_come_behind_what_was_written_and_before_what_is_written_next(
    new_pool: NewPool, file: int
) -> None:
    before, after, size = os.urandom(12_000_000), b"and the rest", 30_000_000
    may_read = asyncio.Event()
    whole = len(before) + size + len(after)
    async with Scripted(ReadHead(), Wait(may_read), ReadBody(whole), Send(ANSWER)) as upstream:
        connection = await (pool := new_pool(upstream.port)).acquire()
        begin(connection)
        assert takes_files(connection)
        connection.write(before)
        assert connection._writing_paused  # some of it is still here
        sending = asyncio.ensure_future(send_file(connection, file, 1000, size))
        await asyncio.sleep(0)
        may_read.set()
        assert await sending == size
        connection.write(after)
        connection.request_complete = True
        assert (await connection.read_head()).status == 413
        assert await connection.read() == b"no!"
        assert upstream.connections[0].bodies == [before + os.pread(file, size, 1000) + after]
        pool.release(connection)
        assert await pool.acquire() is connection  # nothing is left that would wake it, or keep it from its next


async def test_its_bytes_do_not_overtake_the_few_that_wait_in_the_transport(new_pool: NewPool, file: int) -> None:
    before, size = os.urandom(20_000), 100_000
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = await (pool := new_pool(listener.getsockname()[1])).acquire()
        upstream, _ = listener.accept()
        with upstream:
            begin(connection)
            transport = connection.bare()
            assert transport is not None
            full = len(HEAD)
            with contextlib.suppress(BlockingIOError):
                while True:
                    full += os.sendfile(transport.get_extra_info("socket").fileno(), file, 0, LARGE)
            connection.write(before)
            assert transport.get_write_buffer_size()
            assert not connection._writing_paused
            _received(upstream, full)  # now the kernel would take more at once
            assert await send_file(connection, file, 0, size) == size
            assert _received(upstream, len(before) + size) == before + os.pread(file, size, 0)
            pool.release(connection)


def _received(channel: socket.socket, size: int) -> bytes:
    channel.settimeout(10)
    received = bytearray()
    while len(received) < size:
        received += channel.recv(size - len(received))
    return bytes(received)


async def test_an_answer_and_the_end_while_what_was_written_is_still_here(new_pool: NewPool, file: int) -> None:
    may_answer = asyncio.Event()
    async with Scripted(ReadHead(), Wait(may_answer), Send(ANSWER), Fin(), Stall()) as upstream:
        connection = await (pool := new_pool(upstream.port)).acquire()
        begin(connection)
        connection.write(bytes(LARGE))
        sending = asyncio.ensure_future(send_file(connection, file, 0, LARGE))
        await asyncio.sleep(0)
        may_answer.set()
        assert await sending == 0
        assert (await connection.read_head()).status == 413
        pool.release(connection)


async def test_an_answer_that_comes_before_ends_it(new_pool: NewPool, file: int) -> None:
    may_answer = asyncio.Event()
    async with Scripted(ReadHead(), Wait(may_answer), Send(ANSWER), Stall()) as upstream:
        connection = await (pool := new_pool(upstream.port)).acquire()
        begin(connection)
        sending = asyncio.ensure_future(send_file(connection, file, 0, LARGE))
        while not connection._writing_paused:
            await asyncio.sleep(0)
        may_answer.set()
        assert 0 < await sending < LARGE
        assert connection.head_ready
        assert await send_file(connection, file, 0, LARGE) == 0
        pool.release(connection)


async def test_an_upstream_that_takes_nothing_times_out(new_pool: NewPool, file: int) -> None:
    async with Scripted(ReadHead(), Stall()) as upstream:
        connection = await (pool := new_pool(upstream.port)).acquire()
        begin(connection, SHORT_MS)
        with pytest.raises(UpstreamError, match="take the request") as raised:
            await send_file(connection, file, 0, LARGE)
        assert raised.value.kind == "upstream_timeout"
        pool.release(connection)


@pytest.mark.parametrize("end", [Reset(), Fin()], ids=["reset", "fin"])
async def test_an_upstream_that_leaves_meanwhile(new_pool: NewPool, file: int, end: Reset | Fin) -> None:
    may_leave = asyncio.Event()
    async with Scripted(ReadHead(), Wait(may_leave), end) as upstream:
        connection = await (pool := new_pool(upstream.port)).acquire()
        begin(connection)
        sending = asyncio.ensure_future(send_file(connection, file, 0, LARGE))
        while not connection._writing_paused:
            await asyncio.sleep(0)
        may_leave.set()
        with pytest.raises(UpstreamError, match="before its response head") as raised:
            await sending
        assert (raised.value.kind, raised.value.response_started) == ("upstream_protocol", False)
        with pytest.raises(UpstreamError):
            await send_file(connection, file, 0, LARGE)
        pool.release(connection)


async def test_an_upstream_that_left_unnoticed(new_pool: NewPool, file: int) -> None:
    async with Scripted(ReadHead(), Reset()) as upstream:
        connection = await (pool := new_pool(upstream.port)).acquire()
        begin(connection)
        with pytest.raises(UpstreamError) as raised:
            while True:
                await send_file(connection, file, 0, 1 << 20)
        assert raised.value.kind == "upstream_protocol"
        pool.release(connection)


async def test_who_waits_may_be_cancelled(new_pool: NewPool, file: int) -> None:
    async with Scripted(ReadHead(), ReadToEnd()) as upstream:
        connection = await (pool := new_pool(upstream.port)).acquire()
        begin(connection)
        sending = asyncio.ensure_future(send_file(connection, file, 0, LARGE))
        while not connection._writing_paused:
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait((sending,))
        pool.release(connection)
        await (await upstream.connection(0)).closed.wait()


async def test_a_file_that_is_shorter_says_so(new_pool: NewPool, file: int) -> None:
    os.ftruncate(file, 5000)
    async with Scripted(ReadHead(), ReadBody(5000), Send(ANSWER)) as upstream:
        connection = await (pool := new_pool(upstream.port)).acquire()
        begin(connection)
        assert await send_file(connection, file, 0, LARGE) == 5000
        pool.release(connection)


async def test_what_cannot_be_sent_like_this_is_left_to_others(new_pool: NewPool, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    async with Scripted(ReadHead(), Stall()) as upstream:
        connection = await (pool := new_pool(upstream.port)).acquire()
        begin(connection)
        assert await send_file(connection, folder, 0, LARGE) == 0
        assert not connection.closed
        pool.release(connection)
    os.close(folder)


async def test_not_over_tls(new_pool: NewPool, authority: Authority) -> None:
    async with Scripted(ReadHead(), tls=authority.server_context("127.0.0.1")) as upstream:
        pool = new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file)
        connection = await pool.acquire()
        assert not takes_files(connection)
        pool.release(connection)
