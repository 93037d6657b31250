"""The way through an egress proxy, with one that does exactly what the test says."""

import asyncio
from base64 import b64encode

import pytest

from proxy.config.targets import Egress
from proxy.errors import UpstreamError
from proxy.upstream.tunnel import HEAD_BYTES_MAX
from tests.fakes.certificates import Authority
from tests.fakes.names import Names, found
from tests.fakes.scripted import Fin, ReadHead, Reset, Scripted, Send, Stall, Step
from tests.proxy.upstream.conftest import NewPool
from tests.proxy.upstream.test_addresses import asked

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
OPEN = b"HTTP/1.0 200 Connection established\r\nProxy-agent: x\r\n\r\n"
SECRET = b"Basic " + b64encode(b"team:s3cret")


@pytest.mark.parametrize(
    ("host", "target"), [("api.test", b"api.test:8000"), ("2001:db8::1", b"[2001:db8::1]:8000"), ("192.0.2.1", None)]
)
async def test_the_proxy_is_asked_for_the_upstream(new_pool: NewPool, host: str, target: bytes | None) -> None:
    """By its name, which only the proxy resolves; then the connection is the upstream's, and serves again."""
    target = target or host.encode() + b":8000"
    names = found("127.0.0.1")
    for authorization, line in ((None, b""), (SECRET, b"Proxy-Authorization: " + SECRET + b"\r\n")):
        script = (ReadHead(), Send(OPEN), *(ReadHead(), Send(ANSWER)) * 2)
        async with Scripted(*script) as proxy:
            egress = Egress("proxy.test", proxy.port, authorization)
            pool = new_pool(8000, host=host, egress=egress, lookup=names)
            assert await asked(pool) is await asked(pool)
            connect, first, _ = proxy.heads
            assert connect == b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, line)
            assert first.startswith(b"GET / HTTP/1.1\r\n")
    assert set(names.asked) == {"proxy.test"}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (
            [Send(b"HTTP/1.1 407 s3cret said\r\nProxy-Authenticate: Basic\r\nContent-Length: 6\r\n\r\ns3cret")],
            "it refused the connection: 407 Proxy Authentication Required",
        ),
        ([Send(b"HTTP/1.1 599 Odd\r\n\r\n")], "it refused the connection: 599"),
        ([Send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")], "it refused the connection: 101 Switching Protocols"),
        ([Send(OPEN + ANSWER)], "it sent something behind its answer to CONNECT"),
        ([Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")], "it sent something behind its answer to CONNECT"),
        ([Send(b"SSH-2.0-OpenSSH\r\n\r\n")], "its answer to CONNECT is no HTTP"),
        ([Send(b"HTTP/1.1 200 OK\n\r\n\r\n")], "its answer to CONNECT is no HTTP"),
        (
            [Send(b"HTTP/1.1 200 OK\r\nX: " + bytes(HEAD_BYTES_MAX))],
            f"its answer to CONNECT has more than {HEAD_BYTES_MAX} bytes",
        ),
        ([Send(b"HTTP/1.1 200 O"), Fin()], "it closed the connection before it had answered CONNECT"),
        ([Reset()], "connection reset"),
    ],
)
async def test_the_proxy_opens_no_way(new_pool: NewPool, scheme: str, steps: list[Step], reason: str) -> None:
    async with Scripted(ReadHead(), *steps) as proxy:
        pool = new_pool(8000, scheme=scheme, host="api.test", egress=Egress("127.0.0.1", proxy.port, SECRET))
        with pytest.raises(UpstreamError) as raised:
            await pool.acquire()
        error = raised.value
        assert (error.kind, pool.open_connections) == ("connect_failed", 0)
        assert error.message == f"cannot connect to the upstream: the egress proxy: {reason}"
        await asyncio.wait_for(proxy.connections[0].closed.wait(), 10)


async def test_an_answer_that_comes_byte_by_byte(new_pool: NewPool) -> None:
    async with Scripted(ReadHead(), Send(OPEN, apart=True), ReadHead(), Send(ANSWER)) as proxy:
        await asked(new_pool(8000, host="api.test", egress=Egress("127.0.0.1", proxy.port)))


async def test_a_proxy_that_says_nothing(new_pool: NewPool) -> None:
    """The time for a connection is the proxy's too."""
    async with Scripted(ReadHead(), Stall()) as proxy:
        pool = new_pool(8000, host="api.test", egress=Egress("127.0.0.1", proxy.port), connect_timeout_ms=50)
        with pytest.raises(UpstreamError, match="no connection within 50 ms"):
            await pool.acquire()


async def test_a_proxy_that_is_not_there(new_pool: NewPool) -> None:
    async with Scripted() as proxy:
        port = proxy.port
    with pytest.raises(UpstreamError, match="cannot connect to the upstream: the egress proxy: connection refused"):
        await new_pool(8000, host="api.test", egress=Egress("127.0.0.1", port)).acquire()
    names = Names()
    with pytest.raises(UpstreamError, match="the egress proxy: the name has no address"):
        await new_pool(8000, host="api.test", egress=Egress("proxy.test", port), lookup=names).acquire()


async def test_the_second_address_of_a_proxy_is_tried(new_pool: NewPool) -> None:
    script = (ReadHead(), Send(OPEN), ReadHead(), Send(ANSWER))
    async with Scripted(*script) as proxy, Scripted(ReadHead(), Reset(), host="127.0.0.2", port=proxy.port) as bad:
        egress = Egress("proxy.test", proxy.port)
        await asked(new_pool(8000, host="api.test", egress=egress, lookup=found("127.0.0.2", "127.0.0.1")))
        assert len(bad.heads) == 1


async def test_tls_is_with_the_upstream_and_not_with_the_proxy(new_pool: NewPool, authority: Authority) -> None:
    """A certificate for the proxy's name is not the upstream's; nothing of the request was sent."""
    async with Scripted(ReadHead(), tls=authority.server_context("proxy.test")) as upstream:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OPEN)
            there, on = await asyncio.open_connection("127.0.0.1", upstream.port)

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    target.write(data)
                target.close()

            await asyncio.gather(copy(reader, on), copy(there, writer), return_exceptions=True)

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pool = new_pool(
            8000,
            scheme="https",
            host="api.test",
            egress=Egress("proxy.test", port, SECRET),
            tls_ca=authority.ca_file,
            lookup=found("127.0.0.1"),
        )
        with pytest.raises(UpstreamError, match=r"TLS certificate refused: .*not valid for 'api.test'"):
            await pool.acquire()
        assert upstream.heads == []
        server.close()
        await server.wait_closed()


def test_a_proxys_password_is_not_in_its_repr() -> None:
    assert b"Basic".decode() not in repr(Egress("proxy.test", 3128, SECRET))
