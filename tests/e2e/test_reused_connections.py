"""Connections that serve a second request: an upstream's that died meanwhile, and a client's that heard an error.

The upstream is scripted on real sockets. How exchanges end is the table of `test_ending_table`.
"""

import orjson
import pytest

from tests.fakes.raw import connect
from tests.fakes.scripted import Fin, ReadBody, ReadHead, ReadRequest, Reset, Scripted, Send
from tests.fakes.worker import KEY, document_of, running

PLAIN_BODY = b'{"model":"m","messages":[]}'


def request(body: bytes) -> bytes:
    head = (
        b"POST /v1/chat/completions HTTP/1.1",
        b"Host: gateway.test",
        b"Authorization: Bearer " + KEY.encode(),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    )
    return b"\r\n".join(head) + b"\r\n\r\n" + body


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
            fields = await worker.fields()
            assert (fields["sluiceway.outcome"], fields["sluiceway.attempts"]) == ("ok", attempts)
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


async def test_a_clients_connection_is_as_good_as_before_where_the_upstream_failed() -> None:
    async with (
        Scripted(ReadRequest(), Fin()) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        for _ in range(2):
            client.send(request(PLAIN_BODY))
            answer = await client.answer()
            assert (answer.status, answer.headers["x-sluiceway-error"]) == (502, "upstream_protocol")
            assert answer.headers["x-sluiceway-service"] == "sim"
            assert orjson.loads(answer.body)["error"]["message"]
