"""How a connection over TLS ends: announced (close_notify) or not, and with bytes that were not read yet."""

import asyncio

import pytest

from proxy.errors import UpstreamError
from proxy.upstream.connection import Connection
from tests.fakes.certificates import Authority
from tests.fakes.scripted import BareFin, Fin, ReadHead, Scripted, Send, Step, Tell, Wait
from tests.proxy.upstream.conftest import NewPool

OK = b"HTTP/1.1 200 OK\r\n"
LARGE_BYTES = 200_000
"""Above READ_HIGH_BYTES, so that reading pauses; below what the transports read ahead, so that all has come."""


async def begun(new_pool: NewPool, authority: Authority, upstream: Scripted) -> Connection:
    pool = new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file)
    connection = await pool.acquire()
    connection.begin(b"GET", 60_000)
    connection.write(b"GET / HTTP/1.1\r\nhost: upstream\r\n\r\n")
    connection.request_complete = True
    return connection


async def body(connection: Connection) -> tuple[int, str | None]:
    """Bytes read, and the kind of the error at their end."""
    size = 0
    try:
        while data := await connection.read():
            size += len(data)
    except UpstreamError as error:
        return size, error.kind
    return size, None


@pytest.mark.parametrize(
    ("framing", "ends", "kind"),
    [
        (b"connection: close\r\n", [Fin()], None),
        (b"connection: close\r\n", [BareFin()], "upstream_truncated"),
        (b"content-length: 4\r\n", [BareFin()], None),
        (b"content-length: 5\r\n", [Fin()], "upstream_truncated"),
        (b"content-length: 5\r\n", [BareFin()], "upstream_truncated"),
    ],
    ids=["announced", "bare", "bare, whole", "announced, short", "bare, short"],
)
async def test_end_of_an_answer(
    new_pool: NewPool, authority: Authority, framing: bytes, ends: list[Step], kind: str | None
) -> None:
    """RFC 9112 §9.8: a body that ends with its connection is whole only where TLS says that this is the end."""
    may_end = asyncio.Event()
    steps = [ReadHead(), Send(OK + framing + b"\r\nhalf"), Wait(may_end), *ends]
    async with Scripted(*steps, tls=authority.server_context("127.0.0.1")) as upstream:
        connection = await begun(new_pool, authority, upstream)
        await connection.read_head()
        may_end.set()
        assert await body(connection) == (4, kind)
        connection.abort()


async def test_bare_end_before_the_head(new_pool: NewPool, authority: Authority) -> None:
    async with Scripted(ReadHead(), BareFin(), tls=authority.server_context("127.0.0.1")) as upstream:
        connection = await begun(new_pool, authority, upstream)
        with pytest.raises(UpstreamError, match="closed the connection before its response head") as raised:
            await connection.read_head()
        assert raised.value.kind == "upstream_protocol"


@pytest.mark.parametrize("framing", [b"connection: close\r\n", b"content-length: %d\r\n" % LARGE_BYTES])
async def test_end_while_the_client_does_not_keep_up(new_pool: NewPool, authority: Authority, framing: bytes) -> None:
    """uvloop forgets what came over TLS and was not read when the connection ends while reading is paused."""
    sent = asyncio.Event()
    answer = OK + framing + b"\r\n" + bytes(LARGE_BYTES)
    steps = [ReadHead(), Send(answer), Fin(), BareFin(), Tell(sent)]
    async with Scripted(*steps, tls=authority.server_context("127.0.0.1")) as upstream:
        connection = await begun(new_pool, authority, upstream)
        await connection.read_head()
        await sent.wait()
        for _ in range(50):  # the loop looks for what has come in each of its turns
            await asyncio.sleep(0)
        assert await body(connection) == (LARGE_BYTES, None)
        connection.abort()
