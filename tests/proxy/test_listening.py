"""Connections before their first byte of HTTP: handshakes that fail, hang or are too many, and PROXY before TLS."""

import asyncio
import socket
import ssl
from typing import Any

import pytest

from tests.fakes.certificates import Authority
from tests.fakes.raw import connect
from tests.fakes.raw_tls import connect_tls
from tests.fakes.scripted import ReadRequest, Scripted, Send
from tests.fakes.worker import FakeWorker, document_of, running
from tests.proxy.test_edge import OK, _until, post
from tests.proxy.test_edge_endings import HEALTHZ
from tests.proxy.test_forwarded import BROKEN, HEADERS

BELIEVED = ["127.0.0.1"]


@pytest.fixture
def context(listener_authority: Authority) -> ssl.SSLContext:
    return listener_authority.trusting()


async def arrived(worker: FakeWorker, count: int) -> None:
    """So many connections are in their handshake."""
    await _until(lambda: [True] if worker.server.arriving == count else [])


async def test_what_is_offered(listener_tls: dict[str, Any], context: ssl.SSLContext) -> None:
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with (
        running(document_of("http://127.0.0.1:9", tls=listener_tls)) as worker,
        connect_tls(worker.port, context) as client,
    ):
        assert client.tls.selected_alpn_protocol() == "http/1.1"
        assert client.tls.version() == "TLSv1.3"
        client.send(HEALTHZ.replace(b"healthz", b"readyz"))
        assert (await client.answer()).body == b"ready\n"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_an_old_version_has_no_handshake(listener_tls: dict[str, Any], context: ssl.SSLContext) -> None:
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with running(document_of("http://127.0.0.1:9", tls=listener_tls)) as worker:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connect_tls(worker.port, context):
                pass
        assert not worker.server.live


async def test_plain_http_is_told_nothing_and_makes_no_record(
    listener_tls: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(document_of("http://127.0.0.1:9", tls=listener_tls)) as worker:
        for _ in range(3):
            async with connect(worker.port) as client:
                client.send(HEALTHZ)
                assert (await client.rest())[0] == b""
        async with connect(worker.port) as probe:
            await arrived(worker, 1)
            probe.leave()
        await arrived(worker, 0)
        assert worker.records.empty()
    shown = capfd.readouterr()
    assert shown.out.count("handshakes_failed") == 1
    assert "Traceback" not in shown.out + shown.err


async def test_a_handshake_that_does_not_come_is_ended(listener_tls: dict[str, Any]) -> None:
    limits = {"head_timeout_ms": 200}
    async with (
        running(document_of("http://127.0.0.1:9", tls=listener_tls, limits=limits)) as worker,
        connect(worker.port) as silent,
        connect(worker.port) as slow,
    ):
        slow.send(b"\x16\x03\x01\x02")
        await arrived(worker, 2)
        assert (await silent.rest())[0] == b""
        assert (await slow.rest())[0] == b""
        await arrived(worker, 0)
        assert not worker.server.live


async def test_handshakes_count_as_connections(
    listener_tls: dict[str, Any], context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.listening.TOLD_MAX", 1)
    document = document_of("http://127.0.0.1:9", tls=listener_tls, limits={"max_connections": 2})
    async with running(document) as worker, connect_tls(worker.port, context) as first:
        first.send(HEALTHZ)
        assert (await first.answer()).status == 200
        async with connect(worker.port), connect(worker.port):
            await arrived(worker, 2)
            async with connect(worker.port) as beyond:
                assert (await beyond.rest())[0] == b""  # at once: no handshake timeout has passed
                assert worker.server.arriving == 2
        await arrived(worker, 0)
        async with connect_tls(worker.port, context) as second:
            second.send(HEALTHZ)
            assert (await second.answer()).status == 200


async def test_a_drain_waits_for_a_handshake(listener_tls: dict[str, Any], context: ssl.SSLContext) -> None:
    async with running(document_of("http://127.0.0.1:9", tls=listener_tls)) as worker:
        async with connect(worker.port) as client:
            await arrived(worker, 1)
            worker.server.draining = True
            worker.listener.close()
            assert worker.server.close_idle(0.0) == 1
            client.leave()
        await _until(lambda: [True] if not worker.server.close_idle(0.0) else [])


async def test_a_socket_that_cannot_accept_is_tried_again(
    listener_tls: dict[str, Any], context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor mutes the socket of a worker that hangs: once it goes on, accepting fails for a while."""
    monkeypatch.setattr("proxy.listening.ACCEPT_PAUSE_S", 0.05)
    async with running(document_of("http://127.0.0.1:9", tls=listener_tls)) as worker:
        listener: socket.socket = worker.listener._listener  # type: ignore[attr-defined]
        listener.shutdown(socket.SHUT_RD)
        await _until(lambda: [True] if worker.listener._paused else [])  # type: ignore[attr-defined]
        listener.listen(16)
        async with connect_tls(listener.getsockname()[1], context) as client:
            client.send(HEALTHZ)
            assert (await client.answer()).status == 200


# -- PROXY before TLS ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["v1 tcp4", "v2 tcp4", "v2 with TLVs", "v2 local", "none"])
async def test_a_proxy_header_comes_before_the_handshake(
    listener_tls: dict[str, Any], context: ssl.SSLContext, header: str
) -> None:
    data, peer = HEADERS.get(header, (b"", None))
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", tls=listener_tls, trusted_proxies=BELIEVED)) as worker,
        connect_tls(worker.port, context, first=data) as client,
    ):
        client.send(post())
        assert (await client.answer()).status == 200
        assert (await worker.fields())["client.address"] == (peer[0] if peer else "127.0.0.1")


@pytest.mark.parametrize("header", ["v1 tcp4", "v2 tcp4"])
async def test_a_proxy_header_in_pieces(listener_tls: dict[str, Any], context: ssl.SSLContext, header: str) -> None:
    data, _ = HEADERS[header]
    tls, reads, writes = context, ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = tls.wrap_bio(reads, writes, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    async with (
        running(document_of("http://127.0.0.1:9", tls=listener_tls, trusted_proxies=BELIEVED)) as worker,
        connect(worker.port) as client,
    ):
        first = writes.read()
        for piece in (data[:1], data[1:20], data[20:] + first[:3], first[3:]):
            client.send(piece)
            for _ in range(20):
                await asyncio.sleep(0)
        assert (await asyncio.wait_for(client.reader.readexactly(1), 10)) == b"\x16"


async def test_a_proxy_header_that_is_not_believed_is_no_handshake(
    listener_tls: dict[str, Any], context: ssl.SSLContext
) -> None:
    async with running(document_of("http://127.0.0.1:9", tls=listener_tls, trusted_proxies=["10.0.0.0/8"])) as worker:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connect_tls(worker.port, context, first=HEADERS["v1 tcp4"][0]):
                pass


NONE = {"http": b"POST / HTTP/1.1\r\n\r\n", "crlf": b"\r\n"}


@pytest.mark.parametrize("header", [*BROKEN.values(), *NONE.values()], ids=[*BROKEN, *NONE])
async def test_a_broken_proxy_header_before_tls(listener_tls: dict[str, Any], header: bytes) -> None:
    document = document_of(
        "http://127.0.0.1:9", tls=listener_tls, trusted_proxies=BELIEVED, limits={"head_timeout_ms": 300}
    )
    async with running(document) as worker, connect(worker.port) as client:
        client.send(header)
        assert (await client.rest())[0] == b""
        await arrived(worker, 0)


async def test_x_forwarded_for_over_tls(listener_tls: dict[str, Any], context: ssl.SSLContext) -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", tls=listener_tls, trusted_proxies=BELIEVED)) as worker,
        connect_tls(worker.port, context) as client,
    ):
        client.send(post(b"{}", b"X-Forwarded-For: 203.0.113.9"))
        assert (await client.answer()).status == 200
        fields = await worker.fields()
        assert (fields["client.address"], fields["url.scheme"]) == ("203.0.113.9", "https")
