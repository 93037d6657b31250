"""The edge, with raw sockets: one test for each row of what aiohttp decides by itself and a gateway must decide."""

import asyncio
import socket

import orjson
import pytest

from observability.board import CELLS, Cell
from proxy.config.snapshot import Limits
from proxy.server import EdgeServer
from tests.fakes.raw import RawClient, connect
from tests.fakes.scripted import Fin, ReadBody, ReadHead, ReadToEnd, Reset, Scripted, Send, Stall, Tell, Wait
from tests.fakes.worker import KEY, FakeWorker, document_of, running
from tests.proxy.test_framing import BAD_HEADS

SECRET = b"sk-SECRET-never-shown"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def post(body: bytes = b"{}", *lines: bytes, version: bytes = b"1.1", length: int | None = None) -> bytes:
    """A chat request with a consumer key."""
    head = (
        b"POST /v1/chat/completions HTTP/" + version + b"\r\nHost: x\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"
    )
    length = (
        b""
        if any(b"ransfer-" in line for line in lines)
        else b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    )
    return head + length + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


async def refused(client: RawClient, worker: FakeWorker, status: int, kind: str) -> None:
    """The next answer is a refusal of that kind, in JSON, recorded, and it closes the connection."""
    answer = await client.answer()
    assert answer.status == status
    assert answer.headers["x-sluiceway-error"] == kind
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    assert orjson.loads(answer.body)["error"]["message"]
    assert SECRET not in answer.head + answer.body
    fields = await worker.fields()
    assert fields["error.type"] == kind
    assert fields["sluiceway.outcome"] == "rejected"
    assert fields["sluiceway.error.origin"] == "client"
    assert fields["http.response.status_code"] == status
    assert SECRET.decode() not in str(fields)
    assert await client.rest() == (b"", "fin")


@pytest.mark.parametrize("head", [case[0] for case in BAD_HEADS.values()], ids=BAD_HEADS)
async def test_shapes_that_two_parsers_read_differently_are_refused(
    head: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with_secret = head[:-2] + b"Authorization: Bearer " + SECRET + b"\r\n\r\n" if head.count(b"\r\n") > 1 else head
    async with (
        Scripted(ReadHead(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as w,
    ):
        async with connect(w.port) as client:
            client.send(with_secret + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
            await refused(client, w, 400, "bad_request")
        assert not upstream.connections
        assert w.records.empty()
    shown = capfd.readouterr()
    assert SECRET.decode() not in shown.out + shown.err


async def test_a_client_that_goes_on_sending_reads_its_refusal_all_the_same() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost : x\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(30):
            client.send(b"x" * 100_000)
            await client.writer.drain()
        await refused(client, worker, 400, "bad_request")


PARSER_REFUSALS = {
    "double Content-Length": b"Content-Length: 2\r\nContent-Length: 3\r\n",
    "odd Content-Length": b"Content-Length: +2\r\n",
    "double Host": b"Host: y\r\n",
    "no Host": None,
}


@pytest.mark.parametrize("lines", PARSER_REFUSALS.values(), ids=PARSER_REFUSALS)
async def test_what_the_parser_refuses_is_answered_and_recorded_by_us(
    lines: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    host = b"" if lines is None else b"Host: x\r\n" + lines
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\n" + host + b"Authorization: Bearer " + SECRET + b"\r\n\r\nab"
        )
        await refused(client, worker, 400, "bad_request")
    shown = capfd.readouterr()
    assert SECRET.decode() not in shown.out + shown.err


async def test_a_head_above_the_limit_is_431_before_and_after_it_is_whole() -> None:
    async with running(document_of("http://127.0.0.1:9", limits={"max_head_bytes": 4096})) as worker:
        for end in (b"\r\n\r\n", b""):
            async with connect(worker.port) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + SECRET + b"a" * 5000 + end)
                await refused(client, worker, 431, "head_too_large")
        async with connect(worker.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 300 + b"\r\n")
            await refused(client, worker, 431, "head_too_large")


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\nHost: x\n\n", b"\x16\x03\x01\x02\x00\x01", b"{}\r\n"])
async def test_bytes_that_cannot_become_a_request_are_refused_at_once(start: bytes) -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        client.send(start)
        await refused(client, worker, 400, "bad_request")


@pytest.mark.parametrize("bad", [b"ZZ\r\nxx\r\n", b"3\r\nabcd\r\n", b"3\nabc\r\n"])
async def test_a_bad_chunk_in_a_later_segment_fails_the_body_at_once(bad: bytes) -> None:
    begun = asyncio.Event()
    script = (ReadHead(), ReadBody(len(b"5\r\nhello\r\n")), Tell(begun), ReadToEnd())
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(post(b"5\r\nhello\r\n", b"Transfer-Encoding: chunked"))
            await asyncio.wait_for(begun.wait(), 10)
            client.send(bad)
            await refused(client, worker, 400, "bad_request")
        connection = await upstream.connection(0)
        await asyncio.wait_for(connection.closed.wait(), 10)
        assert b"0\r\n\r\n" not in connection.bodies[-1]  # the upstream sees that the request is not whole


CUTS = {
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Reset(), "upstream_reset"),
    "chunked, FIN": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Fin(), "upstream_truncated"),
    "length, FIN": (b"Content-Length: 10\r\n\r\nhello", Fin(), "upstream_truncated"),
}


@pytest.mark.parametrize(("rest", "end", "error"), CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_cut_answer_is_cut(rest: bytes, end: Fin | Reset, error: str, version: bytes) -> None:
    seen = asyncio.Event()
    script = (ReadHead(), ReadBody(2), Send(b"HTTP/1.1 200 OK\r\n" + rest), Wait(seen), end)
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(post(version=version))
            answer = await client.head()
            data = b""
            while b"hello" not in data:
                data += await client.reader.read(100)
            seen.set()
            more, how = await client.rest()
            chunked = answer.headers.get("transfer-encoding") == "chunked"
            eof_framed = not chunked and "content-length" not in answer.headers
            assert how == ("reset" if eof_framed else "fin")
            assert eof_framed == (version == b"1.0" and b"chunked" in rest)
            assert b"0\r\n" not in data + more
        fields = await worker.fields()
        assert fields["sluiceway.outcome"] == "upstream_aborted"
        assert fields["error.type"] == error
        assert fields["sluiceway.error.origin"] == "upstream"
        assert fields["http.response.status_code"] == 200


async def test_the_upstreams_head_is_written_as_it_came() -> None:
    lines = b'x-A: \xe9\xff\r\nX-b:  two\r\nx-a: again\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nETag: "q"\r\n'
    script = (ReadHead(), ReadBody(2), Send(b"HTTP/1.1 203 So So\r\n" + lines + b"Content-Length: 2\r\n\r\nok"))
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(post())
            answer = await client.answer()
    own = [line for line in answer.head.split(b"\r\n") if line.startswith(b"x-sluiceway-")]
    expected = b"HTTP/1.1 203 So So\r\n" + lines.replace(b":  two", b": two") + b"Content-Length: 2\r\n"
    assert answer.head == expected + b"\r\n".join(own) + b"\r\n\r\n"
    assert [line.split(b":")[0] for line in own] == [
        b"x-sluiceway-request-id",
        b"x-sluiceway-service",
        b"x-sluiceway-attempts",
        b"x-sluiceway-generation",
    ]
    assert answer.body == b"ok"


async def test_a_304_keeps_its_length_and_has_no_body() -> None:
    script = (
        ReadHead(),
        ReadBody(2),
        Send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n"),
        ReadHead(),
        ReadBody(2),
        Send(OK),
    )
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(post())
            answer = await client.answer(bodiless=True)
            assert (answer.status, answer.headers["content-length"]) == (304, "77")
            client.send(post())
            assert (await client.answer()).body == b"{}"


async def test_expect_is_answered_when_the_body_will_be_taken() -> None:
    async with (
        Scripted(ReadHead(), ReadBody(2), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"{}", b"Expect: 100-continue")[:-2])
        assert (await client.head()).head == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"{}")
        assert (await client.answer()).status == 200
        assert b"xpect" not in upstream.heads[0]


async def test_a_refusal_reads_no_body_as_the_next_request() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        inner = b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        client.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 400\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        client.send(inner + b"a" * (400 - len(inner)))
        client.send(inner)
        assert await client.rest() == (b"", "fin")
        assert (await worker.fields())["error.type"] == "no_route"
        assert worker.records.empty()


async def test_slow_heads_bodies_and_readers_have_limits_of_their_own() -> None:
    limits = {"head_timeout_ms": 200, "body_idle_timeout_ms": 200, "write_idle_timeout_ms": 300}
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
    script = (ReadHead(), ReadBody(2), Send(big), Send(b"x" * 100_000, times=1000))
    async with (
        Scripted.each((ReadHead(), ReadToEnd()), script) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits=limits)) as worker,
    ):
        async with connect(worker.port) as client:
            client.send(b"GET /v1 HTTP/1.1\r\nHo")
            await refused(client, worker, 408, "client_timeout")
        async with connect(worker.port) as client:
            client.send(post(b"x" * 100_000)[:-1000])
            await refused(client, worker, 408, "client_timeout")
        async with connect(worker.port, limit=1024) as client:
            client.send(post())
            fields = await worker.fields()  # nothing is read here, so the gateway ends it
            assert fields["sluiceway.outcome"] == "client_aborted"
            assert fields["sluiceway.client_blocked_ms"] > 200
        connection = await upstream.connection(1)
        await asyncio.wait_for(connection.closed.wait(), 10)


async def test_a_client_that_leaves_while_its_upload_is_paused_is_noticed() -> None:
    async with (
        Scripted(ReadHead(), Stall()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
    ):
        async with connect(worker.port) as client:
            client.send(post(b"", length=50_000_000))
            # Piece by piece until the edge stops reading: what is in flight then is small enough for the FIN behind it
            # to get through the closed window.
            while not any(edge._reading_paused for edge in worker.server.live):
                client.send(b"x" * 65536)
                await client.writer.drain()
                await asyncio.sleep(0)
        fields = await worker.fields()
        assert fields["sluiceway.outcome"] == "client_aborted"
        assert fields["http.response.status_code"] == 499


async def test_pipelined_requests_are_answered_in_order_each_with_its_record() -> None:
    script = tuple(step for n in range(3) for step in (ReadHead(), ReadBody(2), Send(OK.replace(b"{}", b"%02d" % n))))
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(post() + post(b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked") + post())
            assert [(await client.answer()).body for _ in range(3)] == [b"00", b"01", b"02"]
        for _ in range(3):
            assert (await worker.fields())["sluiceway.outcome"] == "ok"
        assert len(upstream.connections) == 1


async def test_a_flood_of_pipelined_requests_is_not_read_while_one_runs() -> None:
    async with Scripted(ReadHead(), ReadBody(2), Stall()) as upstream:
        async with running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker, connect(worker.port) as client:
            client.send(post() * 40_000)
            (edge,) = await _until(lambda: [e for e in worker.server.live if e._buffer_paused])
            assert len(edge._tail) <= 65536 + 262144


async def test_a_request_in_many_segments_is_one_request() -> None:
    async with (
        Scripted(ReadHead(), ReadBody(2), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post():
            client.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await client.answer()).status == 200


async def test_a_draining_worker_serves_what_is_on_the_connection_and_closes_it() -> None:
    async with (
        Scripted(*(ReadHead(), ReadBody(2), Send(OK)) * 2) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(post())
        assert "connection" not in (await client.answer()).headers
        worker.server.draining = True
        client.send(post())
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.rest() == (b"", "fin")


async def test_probes_answer_and_make_no_record() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        for path, status in (("/-/healthz", 200), ("/-/readyz", 200), ("/-/nothing", 404)):
            client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (await client.answer()).status == status
        worker.handler.ready = False
        client.send(b"GET /-/readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer()).status == 503
        assert worker.records.empty()


async def test_connections_above_the_limit_are_answered_503() -> None:
    async with running(document_of("http://127.0.0.1:9", limits={"max_connections": 1})) as worker:
        async with connect(worker.port) as first:
            first.send(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await first.answer()).status == 200
            async with connect(worker.port) as second:
                second.send(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = await second.answer()
                assert (answer.status, answer.headers["x-sluiceway-error"]) == (503, "overloaded")
                assert answer.headers["retry-after"] == "1"
        assert (await worker.fields())["sluiceway.error.origin"] == "gateway"


async def test_connections_are_counted() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker:
        async with connect(worker.port):
            async with connect(worker.port):
                await _until(lambda: worker.row[Cell.CONNECTIONS] == 2)
            await _until(lambda: worker.row[Cell.CONNECTIONS] == 1)
        await _until(lambda: worker.row[Cell.CONNECTIONS] == 0)


async def test_an_option_that_aiohttp_does_not_know_is_an_error(limits: Limits) -> None:
    async def nothing(request: object) -> None: ...

    with pytest.raises(TypeError):
        EdgeServer(nothing, limits, memoryview(bytearray(CELLS * 8)).cast("Q"), no_such_option=1)  # type: ignore[arg-type]


@pytest.fixture
def limits() -> Limits:
    """The defaults."""
    from proxy.config import file as config_file
    from proxy.config.compile import compile_snapshot

    return compile_snapshot(config_file.parse(orjson.dumps(document_of("http://x")).decode(), {}, "t"), 1).limits


async def _until(look: object, turns: int = 100_000) -> list:  # type: ignore[type-arg]
    """What `look` finds, as soon as it finds something; gives the loop its turns in between."""
    async with asyncio.timeout(10):
        for _ in range(turns):
            if found := look():  # type: ignore[operator]
                return found
            await asyncio.sleep(0.001)
    raise AssertionError("never found")
