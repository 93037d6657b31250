"""How exchanges end: what the client sees, that the upstream is closed at once, and what the record says.

The upstream is scripted on real sockets; each case names the last thing that it or the client does.
"""

import asyncio
import socket
from typing import Any

import orjson
import pytest

from tests.fakes.raw import RawClient, connect
from tests.fakes.scripted import Fin, ReadBody, ReadHead, ReadToEnd, Reset, Scripted, Send, Stall, Step, Tell, Wait
from tests.fakes.worker import KEY, document_of, running

STREAM_BODY = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
PLAIN_BODY = b'{"model":"m","messages":[]}'
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SSE_EOF_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
ROLE = b'data: {"id":"r1","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"id":"r1","model":"m-1","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
FINISH = b'data: {"id":"r1","model":"m-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"r1","model":"m-1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"boom","type":"server_error","code":"overloaded_now"}}\n\n'
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def request(body: bytes, *lines: bytes, length: int | None = None) -> bytes:
    head = (
        b"POST /v1/chat/completions HTTP/1.1",
        b"Host: gateway.test",
        b"Authorization: Bearer " + KEY.encode(),
        b"Content-Type: application/json",
        b"Content-Length: %d" % (len(body) if length is None else length),
        *lines,
    )
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def streaming(*after_head: Step, head: bytes = SSE_HEAD) -> tuple[Step, ...]:
    return (ReadHead(), ReadBody(len(STREAM_BODY)), Send(head), *after_head)


async def read_until(client: RawClient, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        data += await asyncio.wait_for(client.reader.read(65536), 10)
    return data


def check(fields: dict[str, Any], **expected: Any) -> None:
    names = {
        "outcome": "sluiceway.outcome",
        "status": "http.response.status_code",
        "error": "error.type",
        "origin": "sluiceway.error.origin",
        "source": "sluiceway.usage.source",
        "output": "gen_ai.usage.output_tokens",
        "input": "gen_ai.usage.input_tokens",
        "attempts": "sluiceway.attempts",
    }
    assert {key: fields.get(names[key]) for key in expected} == expected


async def closed(upstream: Scripted, number: int = 0) -> None:
    connection = await upstream.connection(number)
    await asyncio.wait_for(connection.closed.wait(), 10)


# -- the client leaves -----------------------------------------------------------------------------------------------


async def test_client_leaves_before_the_head() -> None:
    asked = asyncio.Event()
    script = (ReadHead(), ReadBody(len(PLAIN_BODY)), Tell(asked))
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(request(PLAIN_BODY))
            await asyncio.wait_for(asked.wait(), 10)
            client.leave()
            await closed(upstream)
        check(await worker.fields(), outcome="client_aborted", status=499, error=None, origin=None, source="none")


async def test_client_leaves_in_mid_stream() -> None:
    script = streaming(Send(chunk(ROLE) + chunk(TOKEN) + chunk(TOKEN)))
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(request(STREAM_BODY))
            await read_until(client, TOKEN + b"\r\n")
            client.leave()
            await closed(upstream)
        fields = await worker.fields()
        check(fields, outcome="client_aborted", status=200, error=None, source="estimated", output=2)
        assert fields["sluiceway.time_to_first_token_ms"] > 0


async def test_client_leaves_in_mid_stream_with_usage_in_every_chunk() -> None:
    with_usage = TOKEN.replace(b"}]}", b'}}],"usage":{"prompt_tokens":11,"completion_tokens":2}}')
    with_usage = with_usage.replace(b'{"content":"hi"}}}', b'{"content":"hi"}}')
    script = streaming(Send(chunk(ROLE) + chunk(with_usage)))
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(request(STREAM_BODY))
            await read_until(client, b"completion_tokens")
            client.leave()
            await closed(upstream)
        check(await worker.fields(), outcome="client_aborted", source="partial", input=11, output=2)


async def test_client_leaves_during_its_upload() -> None:
    async with (
        Scripted(ReadHead(), ReadToEnd()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
    ):
        async with connect(worker.port) as client:
            client.send(request(b"x" * 300_000, length=1_000_000))
            await upstream.connection(0)
            client.leave()
            await closed(upstream)
        fields = await worker.fields()
        check(fields, outcome="client_aborted", status=499, error=None, source="none")
        assert 0 < fields["sluiceway.request.bytes"] <= 300_000


@pytest.mark.parametrize("done", [DONE, b""], ids=["after DONE", "DONE never came"])
async def test_client_leaves_right_after_the_end_of_the_stream(done: bytes) -> None:
    events = (ROLE, TOKEN, FINISH, USAGE, *((done,) if done else ()))
    script = streaming(Send(b"".join(chunk(event) for event in events)))
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(request(STREAM_BODY))
            await read_until(client, (done or USAGE) + b"\r\n")
            client.leave()
            await closed(upstream)
        check(await worker.fields(), outcome="ok", status=200, error=None, source="upstream", input=11, output=5)


# -- the upstream breaks off -----------------------------------------------------------------------------------------


BEFORE_THE_HEAD = {
    "reset": (Reset(), 502, "upstream_protocol"),
    "fin": (Fin(), 502, "upstream_protocol"),
    "garbage": (Send(b"SSH-2.0-OpenSSH_9\r\n\r\n"), 502, "upstream_protocol"),
    "stall": (Stall(), 504, "upstream_timeout"),
    "stall in the head": (Send(b"HTTP/1.1 200 OK\r\nX"), 504, "upstream_timeout"),
}


@pytest.mark.parametrize(("end", "status", "kind"), BEFORE_THE_HEAD.values(), ids=BEFORE_THE_HEAD)
async def test_upstream_fails_before_its_head(end: Step, status: int, kind: str) -> None:
    script = (ReadHead(), ReadBody(len(PLAIN_BODY)), end)
    async with Scripted(*script) as upstream:
        document = document_of(f"http://127.0.0.1:{upstream.port}", service={"idle_timeout_ms": 150})
        async with running(document) as worker, connect(worker.port) as client:
            client.send(request(PLAIN_BODY))
            answer = await client.answer()
            assert (answer.status, answer.headers["x-sluiceway-error"]) == (status, kind)
            assert answer.headers["x-sluiceway-service"] == "sim"
            assert orjson.loads(answer.body)["error"]["message"]
            check(
                await worker.fields(),
                outcome="upstream_error",
                status=status,
                error=kind,
                origin="upstream",
                attempts=1,
            )
            client.send(request(PLAIN_BODY))  # the client's connection is as good as before
            assert (await client.answer()).status == status


MID_STREAM = {
    "reset": ((Reset(),), "upstream_reset"),
    "truncated": ((Fin(),), "upstream_truncated"),
    "malformed chunk": ((Send(b"ZZ\r\n"),), "upstream_truncated"),
    "stall": ((), "upstream_timeout"),
}


@pytest.mark.parametrize(("end", "error"), MID_STREAM.values(), ids=MID_STREAM)
async def test_upstream_breaks_off_in_mid_stream(end: tuple[Step, ...], error: str) -> None:
    seen = asyncio.Event()
    script = streaming(Send(chunk(ROLE) + chunk(TOKEN)), Wait(seen), *end)
    async with Scripted(*script) as upstream:
        document = document_of(f"http://127.0.0.1:{upstream.port}", service={"idle_timeout_ms": 150})
        async with running(document) as worker, connect(worker.port) as client:
            client.send(request(STREAM_BODY))
            await read_until(client, TOKEN + b"\r\n")
            seen.set()
            rest, how = await client.rest()
            assert LAST not in rest  # never looks whole
            assert how == "fin"
            fields = await worker.fields()
            check(fields, outcome="upstream_aborted", status=200, error=error, origin="upstream", source="estimated")
            await closed(upstream)


async def test_connection_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with running(document_of(f"http://127.0.0.1:{unused.getsockname()[1]}")) as worker:
            async with connect(worker.port) as client:
                client.send(request(PLAIN_BODY))
                answer = await client.answer()
                assert (answer.status, answer.headers["x-sluiceway-error"]) == (502, "connect_failed")
            fields = await worker.fields()
            check(fields, outcome="upstream_error", error="connect_failed", origin="upstream")
            assert fields["sluiceway.error.message"] == "cannot connect to the upstream: connection refused"


async def test_total_timeout() -> None:
    async with Scripted(ReadHead(), ReadBody(len(PLAIN_BODY))) as upstream:
        document = document_of(f"http://127.0.0.1:{upstream.port}", service={"total_timeout_ms": 150})
        async with running(document) as worker, connect(worker.port) as client:
            client.send(request(PLAIN_BODY))
            answer = await client.answer()
            assert (answer.status, answer.headers["x-sluiceway-error"]) == (504, "upstream_timeout")
            check(await worker.fields(), outcome="upstream_error", error="upstream_timeout", origin="upstream")
            await closed(upstream)


# -- complete in one way or another ----------------------------------------------------------------------------------


async def test_eof_without_done_is_complete() -> None:
    script = streaming(Send(ROLE + TOKEN + FINISH + USAGE), Fin(), head=SSE_EOF_HEAD)
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(request(STREAM_BODY))
            assert (await client.answer()).body == ROLE + TOKEN + FINISH + USAGE
        check(await worker.fields(), outcome="ok", error=None, source="upstream", output=5)


async def test_a_stream_with_one_choice_of_two_is_cut() -> None:
    body = orjson.dumps({"n": 2, **orjson.loads(STREAM_BODY)})
    script = (ReadHead(), ReadBody(len(body)), Send(SSE_EOF_HEAD), Send(ROLE + TOKEN + FINISH + USAGE), Fin())
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(request(body))
            await read_until(client, USAGE)
            rest, _ = await client.rest()
            assert LAST not in rest
        check(await worker.fields(), outcome="upstream_aborted", error="upstream_truncated", source="partial", output=5)


async def test_an_error_event_in_a_200_stream() -> None:
    script = streaming(Send(chunk(ROLE) + chunk(ERROR) + LAST))
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(request(STREAM_BODY))
            assert (await client.answer()).body == ROLE + ERROR
        check(await worker.fields(), outcome="upstream_error", status=200, error="overloaded_now", origin="upstream")


STATUSES = {
    400: "client",
    401: "upstream",
    404: "client",
    413: "client",
    429: "upstream",
    500: "upstream",
    503: "upstream",
}


@pytest.mark.parametrize(("status", "origin"), STATUSES.items())
async def test_upstream_errors_pass_through_untouched(status: int, origin: str) -> None:
    body = b'{"error":{"message":"no","type":"t","code":"provider_code"}}'
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    script = (ReadHead(), ReadBody(len(PLAIN_BODY)), Send(head + body))
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(request(PLAIN_BODY))
            answer = await client.answer()
            assert (answer.status, answer.body) == (status, body)
            assert "x-sluiceway-error" not in answer.headers
        check(await worker.fields(), outcome="upstream_error", status=status, error="provider_code", origin=origin)


async def test_an_error_without_a_code_is_its_status() -> None:
    script = (ReadHead(), ReadBody(len(PLAIN_BODY)), Send(b"HTTP/1.1 502 X\r\nContent-Length: 4\r\n\r\noops"))
    async with Scripted(*script) as upstream, running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker:
        async with connect(worker.port) as client:
            client.send(request(PLAIN_BODY))
            assert (await client.answer()).body == b"oops"
        check(await worker.fields(), outcome="upstream_error", error="502", origin="upstream")


# -- connections that were used before -------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("size", [len(PLAIN_BODY), 60_000], ids=["small", "held"])
async def test_a_reused_connection_that_died_is_replaced_once(size: int) -> None:
    body = PLAIN_BODY.ljust(size)
    first = (ReadHead(), ReadBody(size), Send(OK), ReadHead(), Reset())
    async with (
        Scripted.each(first, (ReadHead(), ReadBody(size), Send(OK))) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        for attempts in (1, 2):
            client.send(request(body))
            answer = await client.answer()
            assert (answer.status, answer.headers["x-sluiceway-attempts"]) == (200, str(attempts))
            check(await worker.fields(), outcome="ok", attempts=attempts)
        assert upstream.connections[1].bodies == [body]


async def test_a_reused_connection_that_died_under_a_large_body_is_an_error() -> None:
    first = (ReadHead(), ReadBody(len(PLAIN_BODY)), Send(OK), ReadHead(), ReadBody(200_000), Reset())
    async with (
        Scripted(*first) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(request(PLAIN_BODY))
        assert (await client.answer()).status == 200
        client.send(request(b"x" * 400_000))
        answer = await client.head()
        assert (answer.status, answer.headers["x-sluiceway-error"]) == (502, "upstream_protocol")
        assert len(upstream.connections) == 1


async def test_an_answer_during_the_upload_is_relayed_and_the_upload_stopped() -> None:
    early = b"HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    async with (
        Scripted(ReadHead(), ReadBody(10_000), Send(early), Stall()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        client.send(request(b"x" * 200_000, length=50_000_000))
        answer = await client.answer()
        assert (answer.status, answer.body, answer.headers["connection"]) == (413, b"{}", "close")
        check(await worker.fields(), outcome="upstream_error", status=413, origin="client")
