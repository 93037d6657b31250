"""Refusals and interim answers at the edge, with raw sockets: who gets none, which close the connection."""

import pytest

from tests.fakes.raw import RawClient, connect
from tests.fakes.scripted import ReadRequest, Scripted, Send
from tests.fakes.worker import document_of, running
from tests.proxy.test_edge import OK, _until, post


async def test_http_1_0_gets_no_interim_answer() -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        request = post(b"{}", b"Expect: 100-continue", version=b"1.0")
        client.send(request[:-2])
        await _until(lambda: [edge for edge in worker.server.live if edge._current_request])
        client.send(request[-2:])
        assert (await client.answer()).status == 200


async def test_a_refused_head_request_gets_no_body() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n")
        assert (await client.head()).status == 400
        assert await client.rest() == (b"", "fin")


async def _refused(client: RawClient, request: bytes) -> bool:
    """Sends a request that no route takes; whether the connection is kept."""
    client.send(request.replace(b"/v1/chat", b"/nowhere"))
    answer = await client.answer()
    assert answer.status == 404
    return answer.headers.get("connection") != "close"


async def test_a_refusal_of_a_request_that_is_all_here_keeps_the_connection() -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        assert await _refused(client, post(b"x" * 5000))
        assert await _refused(client, post(b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"))
        assert await _refused(client, post(b""))
        client.send(post(b'{"whole":1}'))
        assert (await client.answer()).status == 200
        assert upstream.connections[0].bodies == [b'{"whole":1}']


@pytest.mark.parametrize("request_bytes", [post(b"x" * 500, length=501), post(b"x" * 70_000)], ids=["more", "large"])
async def test_a_refusal_of_a_request_that_is_not_here_or_is_large_closes(request_bytes: bytes) -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        assert not await _refused(client, request_bytes)
        assert await client.rest() == (b"", "fin")
