"""How connections end, with raw sockets: the one too many, cut answers without a length, drains, limits."""

import asyncio

import pytest

from tests.fakes.raw import connect
from tests.fakes.scripted import Fin, ReadBody, ReadHead, ReadRequest, Scripted, Send, Stall, Tell, Wait
from tests.fakes.worker import document_of, running
from tests.proxy.test_edge import OK, _until, post

HEALTHZ = b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


# -- connections above the limit -------------------------------------------------------------------------------------


async def test_a_connection_above_the_limit_is_refused_and_those_below_are_not() -> None:
    async with (
        Scripted(ReadRequest(), Send(OK), ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits={"max_connections": 1})) as worker,
        connect(worker.port) as first,
    ):
        first.send(post())
        assert (await first.answer()).status == 200
        async with connect(worker.port) as second:
            second.send(post())
            answer = await second.answer()
            assert (answer.status, answer.headers["x-sluiceway-error"]) == (503, "overloaded")
            assert answer.headers["connection"] == "close"
            assert answer.headers["retry-after"] == "1"
            assert await second.rest() == (b"", "fin")
            first.send(post())
            assert (await first.answer()).status == 200
        outcomes = [(await worker.fields())["sluiceway.outcome"] for _ in range(3)]
        assert outcomes == ["ok", "rejected", "ok"]


async def test_a_connection_above_the_limit_does_not_stay() -> None:
    async with (
        running(document_of("http://127.0.0.1:9", limits={"max_connections": 1})) as worker,
        connect(worker.port) as first,
    ):
        first.send(HEALTHZ)
        assert (await first.answer()).status == 200
        async with connect(worker.port) as silent, connect(worker.port) as slow:
            slow.send(b"POST /v1/chat/compl")
            assert await silent.rest() == (b"", "fin")
            assert (await slow.answer()).status == 503
            assert await slow.rest() == (b"", "fin")
            await _until(lambda: [True] if len(worker.server.live) == 1 else [])
        assert (await worker.fields())["error.type"] == "overloaded"
        assert worker.records.empty()
        first.send(HEALTHZ)
        assert (await first.answer()).status == 200


async def test_a_place_that_comes_free_is_free_though_others_are_being_refused() -> None:
    async with running(document_of("http://127.0.0.1:9", limits={"max_connections": 1})) as worker:
        async with connect(worker.port) as first:
            first.send(HEALTHZ)
            assert (await first.answer()).status == 200
            async with connect(worker.port):
                await _until(lambda: [True] if worker.server.surplus else [])
                first.leave()
                await _until(lambda: [True] if len(worker.server.live) == 1 else [])
                async with connect(worker.port) as next_one:
                    for _ in range(2):
                        next_one.send(HEALTHZ)
                        assert "connection" not in (await next_one.answer()).headers
        await _until(lambda: [True] if not worker.server.live else [])
        assert worker.server.surplus == 0


async def test_probes_are_answered_above_the_limit() -> None:
    async with (
        running(document_of("http://127.0.0.1:9", limits={"max_connections": 1})) as worker,
        connect(worker.port) as first,
    ):
        first.send(HEALTHZ)
        assert (await first.answer()).status == 200
        async with connect(worker.port) as second:
            second.send(HEALTHZ + HEALTHZ)
            answer = await second.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await second.rest() == (b"", "fin")
        assert worker.records.empty()


# -- cut answers whose end would be EOF ------------------------------------------------------------------------------


async def test_an_answer_without_a_length_is_reset_when_the_worker_ends() -> None:
    async with (
        Scripted(ReadRequest(), Send(CHUNKED + b"5\r\nhello\r\n"), Stall()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(version=b"1.0"))
        await client.head()
        assert await client.reader.readexactly(5) == b"hello"
        await worker.server.shutdown(0.1)
        assert await client.rest() == (b"", "reset")


async def test_an_answer_without_a_length_is_reset_when_nobody_reads_it() -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with (
        Scripted(ReadRequest(), Send(CHUNKED), Send(piece, times=2000), Stall()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits={"write_idle_timeout_ms": 200})) as worker,
        connect(worker.port, limit=1024) as client,
    ):
        client.send(post(version=b"1.0"))
        assert (await worker.fields())["sluiceway.outcome"] == "client_aborted"
        assert (await client.rest())[1] == "reset"


async def test_an_answer_without_a_length_that_is_whole_ends_in_good_order() -> None:
    async with (
        Scripted(ReadRequest(), Send(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(version=b"1.0"))
        await client.head()
        assert await client.rest() == (b"hello", "fin")


async def test_an_early_answer_without_a_length_ends_before_the_upload_does() -> None:
    early = b"HTTP/1.1 413 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
    async with (
        Scripted(ReadHead(), Send(early)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"x" * 100_000, length=1_000_000, version=b"1.0"))
        assert (await client.head()).status == 413
        # The edge lingers for 5 s: half of that is enough to tell, on the slowest machine too.
        assert await asyncio.wait_for(client.rest(), 2.5) == (b"no", "fin")


async def test_a_cut_answer_to_a_running_upload_is_no_fault_of_the_gateway(capfd: pytest.CaptureFixture[str]) -> None:
    cut = b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
    async with (
        Scripted(ReadHead(), Send(cut), Fin()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"x" * 100_000, length=1_000_000))
        await client.rest()
        assert (await worker.fields())["sluiceway.outcome"] == "upstream_aborted"
        await _until(lambda: [True] if not worker.server.live else [])
    shown = capfd.readouterr()
    assert "connection_failed" not in shown.out + shown.err


# -- drain -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("answer_bytes", [OK, CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"], ids=["length", "chunked"])
async def test_an_answer_that_comes_while_draining_says_that_it_is_the_last(
    version: bytes, answer_bytes: bytes
) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()
    async with (
        Scripted(ReadRequest(), Tell(arrived), Wait(go), Send(answer_bytes)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"{}", b"Connection: keep-alive", version=version))
        await asyncio.wait_for(arrived.wait(), 10)
        worker.server.draining = True
        go.set()
        answer = await client.head()
        assert answer.headers["connection"] == "close"
        assert answer.head.count(b"onnection:") == 1
        body, end = await client.rest()
        assert (b"{}" in body, end) == (True, "fin")


# -- limits that were judged wrongly ---------------------------------------------------------------------------------


async def test_the_wait_for_a_body_begins_when_it_is_asked_for() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()
    document = {"limits": {"body_idle_timeout_ms": 400}, "service": {"max_connections": 1}}
    async with (
        Scripted(ReadRequest(), Tell(arrived), Wait(go), Send(OK), ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", **document)) as worker,
        connect(worker.port) as first,
        connect(worker.port) as second,
    ):
        first.send(post())
        await asyncio.wait_for(arrived.wait(), 10)
        second.send(post(b"", b"Expect: 100-continue", length=100_000))
        await asyncio.sleep(0.6)  # longer than the limit, while the only upstream connection is another's
        go.set()
        assert (await second.head()).status == 100
        await asyncio.sleep(0.15)  # three sweeps and more, well below the limit
        second.send(b"x" * 100_000)
        assert (await second.answer()).status == 200


async def test_a_head_that_arrives_is_not_an_idle_connection() -> None:
    limits = {"keepalive_timeout_ms": 300, "head_timeout_ms": 5000}
    async with (
        Scripted(ReadRequest(), Send(OK), ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits=limits)) as worker,
        connect(worker.port) as client,
    ):
        client.send(post())
        await client.answer()
        client.send(post()[:40])
        await _until(lambda: [edge for edge in worker.server.live if edge._heads.begun])
        await asyncio.sleep(0.5)  # longer than the connection may be idle
        client.send(post()[40:])
        assert (await client.answer()).status == 200
        assert await client.rest() == (b"", "fin")  # and now it is idle


# -- answers that come too early -------------------------------------------------------------------------------------


async def test_an_answer_during_the_upload_is_relayed_and_the_upload_stopped() -> None:
    early = b"HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    async with (
        Scripted(ReadHead(), ReadBody(10_000), Send(early), Stall()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"x" * 200_000, length=50_000_000))
        answer = await client.answer()
        assert (answer.status, answer.body, answer.headers["connection"]) == (413, b"{}", "close")
