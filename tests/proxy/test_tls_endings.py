"""The endings of connections over TLS, as `test_edge_endings` has them without: none may look like another."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from proxy.edge import Edge
from tests.fakes.certificates import Authority
from tests.fakes.raw_tls import TlsClient, connect_tls
from tests.fakes.scripted import Fin, ReadHead, ReadRequest, ReadToEnd, Scripted, Send, Stall, Tell, Wait
from tests.fakes.worker import FakeWorker, document_of, running
from tests.proxy.test_edge import OK, _until, post
from tests.proxy.test_edge_endings import CHUNKED, HEALTHZ

Connect = Callable[..., AbstractAsyncContextManager[TlsClient]]


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2], ids=["1.3", "1.2"])
def connect(request: pytest.FixtureRequest, listener_authority: Authority) -> Connect:
    """`connect_tls` with one version of TLS, to a worker."""
    context = listener_authority.trusting()
    context.minimum_version = context.maximum_version = request.param
    return lambda worker, **options: connect_tls(worker.port, context, **options)


@pytest.fixture
def serving(listener_tls: dict[str, Any]) -> Callable[..., AbstractAsyncContextManager[FakeWorker]]:
    """A worker with TLS before an upstream (or none)."""

    def serving(upstream: Scripted | None = None, **document: Any) -> AbstractAsyncContextManager[FakeWorker]:
        url = f"http://127.0.0.1:{upstream.port}" if upstream else "http://127.0.0.1:9"
        return running(document_of(url, tls=listener_tls, **document))

    return serving


def the_edge(worker: FakeWorker) -> Edge:
    (edge,) = worker.server.live
    return edge


async def test_requests_and_their_goodbye(serving: Any, connect: Connect) -> None:
    async with (
        Scripted(ReadRequest(), Send(OK), ReadRequest(), Send(OK)) as upstream,
        serving(upstream) as worker,
        connect(worker) as client,
    ):
        client.send(post())
        assert (await client.answer()).status == 200
        client.send(HEALTHZ)
        assert (await client.answer()).status == 200
        client.send(post(b"{}", b"Connection: close"))
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.rest() == (b"", "fin")
        assert [(await worker.fields())["client.address"] for _ in range(2)] == ["127.0.0.1"] * 2
        await _until(lambda: [True] if not worker.server.live else [])


async def test_an_idle_connection_ends_in_good_order(serving: Any, connect: Connect) -> None:
    async with serving(limits={"keepalive_timeout_ms": 100}) as worker, connect(worker) as client:
        client.send(HEALTHZ)
        assert (await client.answer()).status == 200
        assert await client.rest() == (b"", "fin")


@pytest.mark.parametrize("goodbye", [True, False], ids=["announced", "aborted"])
async def test_a_client_that_leaves_ends_its_request(serving: Any, connect: Connect, goodbye: bool) -> None:
    async with (
        Scripted(ReadRequest(), Send(CHUNKED + b"5\r\nhello\r\n"), ReadToEnd()) as upstream,
        serving(upstream) as worker,
        connect(worker) as client,
    ):
        client.send(post())
        await client.head()
        if goodbye:
            client.say_goodbye()
        else:
            client.leave()
        assert (await worker.fields())["sluiceway.outcome"] == "client_aborted"
        await asyncio.wait_for(upstream.connections[0].closed.wait(), 10)
        await _until(lambda: [True] if not worker.server.live else [])


async def test_a_client_that_leaves_while_its_upload_is_paused_is_noticed(serving: Any, connect: Connect) -> None:
    async with (
        Scripted(ReadHead(), Stall()) as upstream,
        serving(upstream) as worker,
        connect(worker) as client,
    ):
        client.send(post(b"", length=100_000_000))
        piece = b"x" * 65536
        while not [edge for edge in worker.server.live if edge._reading_paused]:
            client.send(piece)
            await asyncio.sleep(0)
        client.say_goodbye()
        assert (await worker.fields())["sluiceway.outcome"] == "client_aborted"


# -- answers that end with the connection ----------------------------------------------------------------------------


async def test_an_answer_without_a_length_that_is_whole_is_announced(serving: Any, connect: Connect) -> None:
    async with (
        Scripted(ReadRequest(), Send(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")) as upstream,
        serving(upstream) as worker,
        connect(worker) as client,
    ):
        client.send(post(version=b"1.0"))
        await client.head()
        assert await client.rest() == (b"hello", "fin")


async def test_an_answer_without_a_length_that_the_upstream_cuts_is_reset(serving: Any, connect: Connect) -> None:
    may_end = asyncio.Event()
    async with (
        Scripted(ReadRequest(), Send(CHUNKED + b"5\r\nhello\r\n"), Wait(may_end), Fin()) as upstream,
        serving(upstream) as worker,
        connect(worker) as client,
    ):
        client.send(post(version=b"1.0"))
        await client.head()
        assert await client.reader.readexactly(5) == b"hello"
        may_end.set()
        assert await client.rest() == (b"", "reset")
        assert (await worker.fields())["sluiceway.outcome"] == "upstream_aborted"


async def test_an_answer_without_a_length_is_reset_when_the_worker_ends(serving: Any, connect: Connect) -> None:
    async with (
        Scripted(ReadRequest(), Send(CHUNKED + b"5\r\nhello\r\n"), Stall()) as upstream,
        serving(upstream) as worker,
        connect(worker) as client,
    ):
        client.send(post(version=b"1.0"))
        await client.head()
        assert await client.reader.readexactly(5) == b"hello"
        await worker.server.shutdown(0.1)
        assert await client.rest() == (b"", "reset")


async def test_an_answer_without_a_length_is_reset_when_nobody_reads_it(serving: Any, connect: Connect) -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with (
        Scripted(ReadRequest(), Send(CHUNKED), Send(piece, times=2000), Stall()) as upstream,
        serving(upstream, limits={"write_idle_timeout_ms": 200}) as worker,
        connect(worker) as client,
    ):
        client.listens.clear()
        client.send(post(version=b"1.0"))
        assert (await worker.fields())["sluiceway.outcome"] == "client_aborted"
        client.listens.set()
        assert (await client.rest())[1] == "reset"


async def test_a_chunked_answer_that_is_cut_has_no_end(serving: Any, connect: Connect) -> None:
    may_end = asyncio.Event()
    async with (
        Scripted(ReadRequest(), Send(CHUNKED + b"5\r\nhello\r\n"), Wait(may_end), Fin()) as upstream,
        serving(upstream) as worker,
        connect(worker) as client,
    ):
        client.send(post())
        await client.head()
        may_end.set()
        assert (await client.rest())[0] == b"5\r\nhello\r\n"


# -- answers before the upload is over -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_an_early_answer_is_whole_though_the_upload_goes_on(
    serving: Any, connect: Connect, version: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    early = b"HTTP/1.1 413 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
    async with (
        Scripted(ReadHead(), Send(early)) as upstream,
        serving(upstream) as worker,
        connect(worker) as client,
    ):
        client.polite = False
        client.send(post(b"x" * 100_000, length=10_000_000, version=version))
        await asyncio.wait_for(client.announced.wait(), 10)
        for _ in range(90):  # what comes behind the answer is read and dropped: a reset would take the answer away
            client.send(b"x" * 100_000)
            await client.writer.drain()
        assert (await client.head()).status == 413
        assert b"no" in (await asyncio.wait_for(client.reader.read(), 10))
        client.say_goodbye()
        assert (await client.rest())[1] == "fin"
    shown = capfd.readouterr()
    assert "connection_failed" not in shown.out + shown.err


async def test_who_does_not_answer_the_goodbye_is_not_waited_for(
    serving: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.server.LINGERING_S", 0.1)
    async with serving() as worker, connect(worker) as client:
        client.polite = False
        client.send(HEALTHZ.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        assert (await client.answer()).status == 200
        assert await client.rest() == (b"", "fin")
        await _until(lambda: [True] if not worker.server.live else [])


@pytest.mark.parametrize("drain", [False, True])
async def test_who_is_slow_gets_all_before_the_goodbye(
    serving: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch, drain: bool
) -> None:
    """What lies between TLS and the kernel is seen by nobody, and is on its way all the same."""
    monkeypatch.setattr("proxy.server.LINGERING_S", 0.05)
    size = 2_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    async with (
        Scripted(ReadRequest(), Send(answer), Send(b"x" * 100_000, times=size // 100_000)) as upstream,
        serving(upstream, limits={"body_idle_timeout_ms": 500}) as worker,  # a sweep each 50 ms
        connect(worker, limit=2 * size, kernel_bytes=16384) as client,
    ):
        client.listens.clear()
        await _until(lambda: list(worker.server.live))
        edge = the_edge(worker)
        assert edge.channel is not None
        kernels = edge.channel.get_extra_info("socket")
        kernels.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)  # so that the rest is not all in there
        client.send(post(b"{}", *([] if drain else [b"Connection: close"])))
        await _until(lambda: [edge for edge in worker.server.live if edge.writing_paused])
        while not (edge._closing or edge.idle):
            client.listens.set()
            await asyncio.sleep(0)
            client.listens.clear()
            await asyncio.sleep(0)
        assert edge.flushing
        assert worker.server.close_idle(0.0) == 1  # a drain waits for it
        await asyncio.sleep(0.5)  # ten times as long as a client may take that has taken all
        client.listens.set()
        await client.head()
        body, end = await client.rest()
        assert (len(body), end) == (size, "fin")


async def test_who_takes_nothing_more_of_a_closing_connection_is_cut(serving: Any, connect: Connect) -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with (
        Scripted(ReadRequest(), Send(CHUNKED), Send(piece, times=100), Stall()) as upstream,
        serving(upstream, limits={"write_idle_timeout_ms": 300}) as worker,
        connect(worker, kernel_bytes=16384) as client,
    ):
        client.listens.clear()
        client.send(post())
        await _until(lambda: [edge for edge in worker.server.live if edge.writing_paused])
        the_edge(worker).force_close()
        await _until(lambda: [True] if not worker.server.live else [])
        client.listens.set()
        assert (await client.rest())[1] != "fin"


async def test_a_refusal_is_read_though_more_is_sent(serving: Any, connect: Connect) -> None:
    async with serving() as worker, connect(worker) as client:
        client.send(b"GET / HTTP/9\r\n\r\n" + b"x" * 500_000)
        answer = await client.answer()
        assert (answer.status, answer.headers["x-sluiceway-error"]) == (400, "bad_request")
        assert await client.rest() == (b"", "fin")
        assert (await worker.fields())["sluiceway.outcome"] == "rejected"


# -- limits and drain ------------------------------------------------------------------------------------------------


async def test_a_slow_head_is_refused(serving: Any, connect: Connect) -> None:
    async with serving(limits={"head_timeout_ms": 500}) as worker, connect(worker) as client:
        client.send(b"POST /v1/chat/comp")
        assert (await client.answer()).status == 408
        assert await client.rest() == (b"", "fin")
        assert (await worker.fields())["error.type"] == "client_timeout"


async def test_a_connection_above_the_limit_is_told(serving: Any, connect: Connect) -> None:
    async with serving(limits={"max_connections": 1}) as worker, connect(worker) as first:
        first.send(HEALTHZ)
        assert (await first.answer()).status == 200
        async with connect(worker) as second:
            second.send(post())
            answer = await second.answer()
            assert (answer.status, answer.headers["x-sluiceway-error"]) == (503, "overloaded")
            assert await second.rest() == (b"", "fin")
        first.send(HEALTHZ)
        assert (await first.answer()).status == 200


async def test_a_drain_ends_what_is_idle_and_lets_what_runs_end(serving: Any, connect: Connect) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()
    async with (
        Scripted(ReadRequest(), Tell(arrived), Wait(go), Send(OK)) as upstream,
        serving(upstream) as worker,
        connect(worker) as running_one,
        connect(worker) as idle,
    ):
        idle.send(HEALTHZ)
        await idle.answer()
        running_one.send(post())
        await asyncio.wait_for(arrived.wait(), 10)
        worker.server.draining = True
        worker.listener.close()
        worker.server.close_idle(0.0)
        assert await idle.rest() == (b"", "fin")
        assert worker.server.close_idle(0.0) == 1
        go.set()
        answer = await running_one.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await running_one.rest() == (b"", "fin")
        await _until(lambda: [True] if not worker.server.close_idle(0.0) else [])


# -- memory ----------------------------------------------------------------------------------------------------------


async def test_what_nobody_takes_is_not_held_without_end(serving: Any, connect: Connect) -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with (
        Scripted(ReadRequest(), Send(CHUNKED), Send(piece, times=2000), Stall()) as upstream,
        serving(upstream) as worker,
        connect(worker) as client,
    ):
        client.listens.clear()
        client.send(post())
        await _until(lambda: [edge for edge in worker.server.live if edge.writing_paused])
        held = the_edge(worker).channel.get_write_buffer_size()
        for _ in range(500):
            await asyncio.sleep(0)
            held = max(held, the_edge(worker).channel.get_write_buffer_size())
        assert 0 < held < 512 * 1024


async def test_pipelined_requests_are_answered_in_order(serving: Any, connect: Connect) -> None:
    async with (
        Scripted(ReadRequest(), Send(OK), ReadRequest(), Send(OK)) as upstream,
        serving(upstream) as worker,
        connect(worker) as client,
    ):
        missing = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
        client.send(post() + missing + HEALTHZ + post() + missing)
        assert [(await client.answer()).status for _ in range(5)] == [200, 404, 200, 200, 404]
