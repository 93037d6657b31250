"""What the edge reads of a connection, with raw sockets: empty lines, heads that arrive slowly, bodies, upgrades."""

import asyncio
import socket
import time
from typing import Any

import orjson
import pytest

from tests.fakes.raw import connect
from tests.fakes.scripted import Fin, ReadRequest, Scripted, Send, Tell, Wait
from tests.fakes.worker import document_of, running
from tests.observability.chunks import byte_by_byte
from tests.proxy.test_edge import OK, _until, post, refused


async def test_empty_lines_without_end_are_refused() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        client.send(b"\r\n" * 500_000)
        await refused(client, worker, 400, "bad_request")


async def test_an_empty_line_behind_a_body_begins_no_head() -> None:
    limits = {"head_timeout_ms": 100, "keepalive_timeout_ms": 60_000}
    async with (
        Scripted(ReadRequest(), Send(OK), ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits=limits)) as worker,
        connect(worker.port) as client,
    ):
        client.send(post() + b"\r\n")
        assert (await client.answer()).status == 200
        assert not client.reader.at_eof()
        with pytest.raises(TimeoutError):  # a refusal would come within 100 ms and two sweeps
            await asyncio.wait_for(client.reader.read(1), 0.4)
        client.send(post())
        assert (await client.answer()).status == 200


async def test_a_partial_head_behind_a_full_buffer_is_read_on() -> None:
    go, arrived = asyncio.Event(), asyncio.Event()
    script = (ReadRequest(), Tell(arrived), Wait(go), Send(OK), ReadRequest(), Send(OK))
    async with (
        Scripted(*script) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post())
        await asyncio.wait_for(arrived.wait(), 10)
        last = b"GET /-/healthz HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * 50_000 + b"\r\n\r\n"
        client.send(post(b"y" * 30_000) + last[:-10])
        await _until(lambda: [edge for edge in worker.server.live if edge._buffer_paused])
        client.send(last[-10:])
        go.set()
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]


UPGRADES = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
    "websocket": (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    "websocket, odd": (b"Connection: keep-alive, UPGRADE", b"upgrade: WebSocket"),
}
BODIES = {
    "length": (b'{"model":"m"}',),
    "large": (b'{"model":"' + b"m" * 300_000 + b'"}',),
    "chunked": (b'd\r\n{"model":"m"}\r\n0\r\n\r\n', b"Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("apart", [False, True])
async def test_an_upgrade_is_ignored_and_its_request_served(
    upgrade: tuple[bytes, ...], body: tuple[bytes, ...], apart: bool
) -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        request = post(*body, *upgrade)
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        end = request.index(b"\r\n\r\n") + 4
        if apart:
            client.send(request[:end])
            await _until(lambda: [edge for edge in worker.server.live if edge._current_request])
            client.send(request[end:])
        else:
            client.send(request + smuggled)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.rest() == (b"", "fin")
        (connection,) = upstream.connections
        assert orjson.loads(connection.bodies[0])["model"].startswith("m")
        assert b"pgrade" not in connection.heads[0]
        assert (await worker.fields())["sluiceway.outcome"] == "ok"
        assert worker.records.empty()


async def test_an_upgrade_without_a_body_is_a_request_too() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        client.send(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.rest() == (b"", "fin")


async def test_who_asks_again_and_again_and_reads_nothing_is_not_answered_without_end() -> None:
    """Probes are answered by the gateway itself, at once: only the client's reading holds them back."""
    probe = b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with running(document_of("http://127.0.0.1:9")) as worker:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (worker.host, worker.port))
        sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(client, probe * 400_000))
        await _until(lambda: [edge for edge in worker.server.live if edge.writing_paused])
        (edge,) = worker.server.live
        largest = 0
        for _ in range(2000):
            await asyncio.sleep(0)
            largest = max(largest, edge.channel.get_write_buffer_size())
        sending.cancel()
        client.close()
        assert 0 < largest < 1 << 20


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "byte by byte"])
async def test_the_trailers_of_a_request_are_no_headers_of_the_next(apart: bool) -> None:
    """aiohttp's parser took the last one for that; behind a proxy that shares connections it is somebody else's."""
    trailed = post(b"2\r\n{}\r\n0\r\nX-One: 1\r\nX-Leaked: 1\r\n\r\n", b"Transfer-Encoding: chunked")
    async with (
        Scripted(*(ReadRequest(), Send(OK)) * 4) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        for _ in range(2):
            for piece in byte_by_byte(trailed) if apart else [trailed]:
                client.send(piece)
                await asyncio.sleep(0)
            assert (await client.answer()).status == 200
            client.send(post(b'{"x":1}'))
            assert (await client.answer()).status == 200
        (connection,) = upstream.connections
        assert not [head for head in connection.heads if b"X-" in head]
        assert connection.bodies == [b"{}", b'{"x":1}'] * 2


async def test_a_chunked_body_that_cannot_be_read_goes_nowhere_where_that_is_known() -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"2\r\n{}\r\n0x0\r\n\r\n", b"Transfer-Encoding: chunked"))
        await refused(client, worker, 400, "bad_request")
        assert not upstream.connections


# -- pipelining ------------------------------------------------------------------------------------------------------

GET = b" HTTP/1.1\r\nHost: x\r\n\r\n"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"


async def test_errors_in_the_middle_stay_in_their_place() -> None:
    """What the gateway answers by itself waits for what was asked before, and does not end the connection."""
    async with (
        Scripted(*(ReadRequest(), Send(OK)) * 3) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        strange = post().replace(b"sk-test", b"sk-strange")
        client.send(post() + b"GET /nothing" + GET + post() + strange + b"GET /v1/chat/completions" + GET + post())
        assert [(await client.answer()).status for _ in range(6)] == [200, 404, 200, 401, 405, 200]
        records = [await worker.fields() for _ in range(6)]
        assert [fields["http.response.status_code"] for fields in records] == [200, 404, 200, 401, 405, 200]


async def test_what_stands_behind_a_malformed_request_is_never_read() -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post() + b"GET  /two-spaces" + GET + post())
        assert (await client.answer()).status == 200
        await worker.fields()
        await refused(client, worker, 400, "bad_request")
        assert worker.records.empty()
        assert len(upstream.connections[0].heads) == 1


async def test_what_stands_behind_an_answer_that_was_cut_is_never_read() -> None:
    async with (
        Scripted(ReadRequest(), Send(CUT), Fin()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post() + post())
        await client.head()
        assert (await client.rest())[0] == b"{}"
        assert (await worker.fields())["sluiceway.outcome"] == "upstream_aborted"
        await _until(lambda: [True] if not worker.server.live else [])
        assert worker.records.empty()


async def test_what_stands_behind_connection_close_is_never_read() -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"{}", b"Connection: close") + post())
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.rest() == (b"", "fin")
        await worker.fields()
        assert worker.records.empty()


async def test_a_body_that_ends_badly_ends_what_was_sent_behind_it() -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"2\r\n{}x\r\n0\r\n\r\n", b"Transfer-Encoding: chunked") + post())
        await refused(client, worker, 400, "bad_request")
        assert worker.records.empty()


# -- since when time is the gateway's own ----------------------------------------------------------------------------


async def test_the_clock_starts_when_the_head_was_read() -> None:
    """What is done before the request reaches its handler is overhead too."""
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
    ):
        make = worker.server.request_factory

        def slowly(*arguments: Any) -> Any:
            time.sleep(0.05)
            return make(*arguments)

        worker.server.request_factory = slowly
        async with connect(worker.port) as client:
            client.send(post())
            assert (await client.answer()).status == 200
        assert (await worker.fields())["sluiceway.overhead_ms"] >= 50


async def test_the_wait_for_a_head_that_does_not_come_is_not_the_gateways() -> None:
    async with (
        running(document_of("http://127.0.0.1:9", limits={"head_timeout_ms": 400})) as worker,
        connect(worker.port) as client,
    ):
        client.send(post()[:40])
        assert (await client.answer()).status == 408
        assert (await worker.fields())["sluiceway.duration_ms"] < 400
