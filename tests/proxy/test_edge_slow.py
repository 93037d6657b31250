"""Slow clients, with raw sockets: those who trickle are ended by the limits on idleness, the merely slow are not."""

import asyncio
import socket

import pytest

from proxy import tcp
from tests.fakes.raw import connect
from tests.fakes.scripted import ReadHead, ReadRequest, ReadToEnd, Scripted, Send, Stall
from tests.fakes.worker import FakeWorker, document_of, running
from tests.proxy.test_edge import OK, _until, post, refused

LARGE = 50_000_000
BIG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_that_comes_in_drops_has_stopped_arriving(chunked: bool) -> None:
    """30 bytes in each tenth of the limit: each drop is in time, and there would be 100 s of them."""
    async with (
        Scripted(ReadHead(), ReadToEnd()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits={"body_idle_timeout_ms": 400})) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"", b"Transfer-Encoding: chunked") if chunked else post(b"", length=100_000))

        async def trickle() -> None:
            while True:
                client.send(b"18\r\n%s\r\n" % (b"x" * 24) if chunked else b"x" * 30)
                await asyncio.sleep(0.04)

        trickling = asyncio.ensure_future(trickle())
        try:
            await refused(client, worker, 408, "client_timeout")
        finally:
            trickling.cancel()


async def test_a_slow_upload_is_taken() -> None:
    """A piece of 1 KiB in a quarter of the limit, for twice the limit."""
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits={"body_idle_timeout_ms": 1200})) as worker,
        connect(worker.port) as client,
    ):
        body = b"x" * 1100 * 8
        client.send(post(b"", length=len(body)))
        for at in range(0, len(body), 1100):
            await asyncio.sleep(0.3)
            client.send(body[at : at + 1100])
        assert (await client.answer()).status == 200
        assert upstream.connections[0].bodies == [body]


async def test_the_next_request_of_a_connection_has_a_time_of_its_own() -> None:
    async with (
        Scripted(ReadRequest(), Send(OK), ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits={"body_idle_timeout_ms": 1000})) as worker,
        connect(worker.port) as client,
    ):
        for _ in range(2):
            client.send(post(b"{}")[:-2])
            await asyncio.sleep(0.6)  # twice that is longer than the limit
            client.send(b"{}")
            assert (await client.answer()).status == 200


async def _reader(worker: FakeWorker, receive_bytes: int) -> socket.socket:
    """A client that has asked and whose kernel takes hardly more than it reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (worker.host, worker.port))
    await loop.sock_sendall(client, post())
    return client


async def test_an_answer_that_is_taken_in_drops_is_not_taken() -> None:
    """3 KB in each tenth of the limit: half of what has to be taken."""
    script = (ReadRequest(), Send(BIG), Send(b"x" * 100_000, times=LARGE // 100_000))
    async with (
        Scripted(*script) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits={"write_idle_timeout_ms": 600})) as worker,
    ):
        client = await _reader(worker, 8192)

        async def sip() -> None:
            while await asyncio.get_running_loop().sock_recv(client, 3000):
                await asyncio.sleep(0.06)

        sipping = asyncio.ensure_future(sip())
        try:
            fields = await worker.fields()
            assert fields["sluiceway.outcome"] == "client_aborted"
            with pytest.raises(ConnectionResetError):  # what the kernel still had for it is dropped
                await asyncio.wait_for(sipping, 10)
        finally:
            sipping.cancel()
            client.close()


async def test_a_slow_reader_is_not_ended_by_what_the_kernel_holds_for_it() -> None:
    """It takes six times what it has to, but behind megabytes in the kernel our own buffer does not move."""
    script = (ReadRequest(), Send(BIG), Send(b"x" * 100_000, times=LARGE // 100_000))
    async with (
        Scripted(*script) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits={"write_idle_timeout_ms": 500})) as worker,
    ):
        client = await _reader(worker, 65536)
        loop = asyncio.get_running_loop()
        await _until(lambda: [edge for edge in worker.server.live if edge.writing_paused])
        for _ in range(60):  # 1.5 s, three times the limit
            await loop.sock_recv(client, 20_000)
            await asyncio.sleep(0.025)
        assert worker.records.empty()
        client.close()
        assert (await worker.fields())["sluiceway.outcome"] == "client_aborted"


async def test_who_keeps_up_with_small_events_is_not_judged() -> None:
    """Nothing waits for it, however long the upstream says nothing."""
    chunked = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    script = (ReadRequest(), Send(chunked + b"8\r\n: ping\n\n\r\n"), Stall())
    async with (
        Scripted(*script) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits={"write_idle_timeout_ms": 100})) as worker,
        connect(worker.port) as client,
    ):
        client.send(post())
        await client.head()
        await asyncio.sleep(0.5)
        assert worker.records.empty()
        assert await client.reader.readexactly(13) == b"8\r\n: ping\n\n\r\n"


async def test_a_head_that_comes_in_drops_has_one_time_for_all_of_it() -> None:
    async with (
        running(document_of("http://127.0.0.1:9", limits={"head_timeout_ms": 400})) as worker,
        connect(worker.port) as client,
    ):
        client.send(b"GET /v1 HTTP/1.1\r\nHost: x\r\nX: ")

        async def trickle() -> None:
            while True:
                client.send(b"a")
                await asyncio.sleep(0.04)

        trickling = asyncio.ensure_future(trickle())
        try:
            await refused(client, worker, 408, "client_timeout")
        finally:
            trickling.cancel()


async def test_without_limits_on_time_nobody_is_ended() -> None:
    """0 is none, for each of the four."""
    limits = dict.fromkeys(
        ("head_timeout_ms", "body_idle_timeout_ms", "write_idle_timeout_ms", "keepalive_timeout_ms"), 0
    )
    script = (ReadRequest(), Send(BIG), Send(b"x" * 100_000, times=LARGE // 100_000))
    async with (
        Scripted(*script) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits=limits)) as worker,
        connect(worker.port) as head,
        connect(worker.port) as body,
        connect(worker.port, limit=1024) as reader,
        connect(worker.port) as idle,
    ):
        idle.send(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await idle.answer()).status == 200
        head.send(b"GET /v1 HTTP/1.1\r\nHo")
        body.send(post(b"{}", length=100))
        reader.send(post())
        await _until(lambda: [edge for edge in worker.server.live if edge.writing_paused])
        now = asyncio.get_running_loop().time
        for edge in tuple(worker.server.live):  # as a sweep in a day would find them
            edge.sweep(now() + 1, worker.server.limits)
            edge.sweep(now() + 86_400, worker.server.limits)
        assert len(worker.server.live) == 4
        assert worker.records.empty()
        for client in (head, body, reader):
            client.leave()
        idle.send(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await idle.answer()).status == 200


async def test_a_drop_that_comes_with_the_sweep_is_no_new_wait() -> None:
    async with (
        Scripted(ReadHead(), ReadToEnd()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"", length=100_000))
        (edge,) = await _until(lambda: [edge for edge in worker.server.live if edge.unread and edge._body._waiter])
        now = asyncio.get_running_loop().time()
        for second in range(33):  # the limit is 30 s
            edge.sweep(now + second, worker.server.limits)
            edge.data_received(b"x" * 10)
            edge.sweep(now + second + 0.5, worker.server.limits)
            await _until(lambda: [True] if edge._refused or edge._body._waiter else [])
        await refused(client, worker, 408, "client_timeout")


async def test_the_kernel_holds_little_for_who_takes_nothing() -> None:
    """By itself it would take 2.5 MB here, for each such reader."""
    script = (ReadRequest(), Send(BIG), Send(b"x" * 100_000, times=LARGE // 100_000))
    async with (
        Scripted(*script) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
    ):
        client = await _reader(worker, 400_000)
        read = 0
        while read < 20_000_000:  # as fast as it comes: so the kernel learns to hold much
            read += len(await asyncio.get_running_loop().sock_recv(client, 1 << 20))
        (edge,) = await _until(lambda: [edge for edge in worker.server.live if edge.writing_paused])
        await asyncio.sleep(0.3)
        held_bytes = tcp.unacknowledged(edge.channel)
        client.close()
        assert 0 < held_bytes < 1_000_000
