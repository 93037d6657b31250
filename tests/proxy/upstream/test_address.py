"""How a connection comes about, or does not: names, addresses, TLS."""

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ports import free_port
from proxy.config.targets import Tls
from proxy.errors import UpstreamError
from proxy.upstream.address import Address
from proxy.upstream.tls import TlsFilesError
from tests.fakes.certificates import Authority
from tests.fakes.names import found
from tests.fakes.scripted import ReadHead, Scripted, Send, Unaccepting
from tests.proxy.upstream.conftest import NewPool

REQUEST = b"GET / HTTP/1.1\r\nhost: upstream\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


def open_sockets() -> int:
    """Sockets only: libuv opens other files when it first needs them."""
    files = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(os.path.islink(file) and os.readlink(file).startswith("socket:") for file in files)


async def failure(pool: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await pool.acquire()
    assert raised.value.kind == "connect_failed"
    assert not raised.value.response_started
    assert pool.open_connections == 0
    return raised.value


async def test_refused(new_pool: NewPool) -> None:
    error = await failure(new_pool(free_port()))
    assert error.message == "cannot connect to the upstream: connection refused"


async def test_stalls(new_pool: NewPool) -> None:
    with Unaccepting() as listener:
        error = await failure(new_pool(listener.port, connect_timeout_ms=30))
        assert "no connection within 30 ms" in error.message


@pytest.mark.parametrize("host", ["a..b", ".", ".a", "a" * 64 + ".invalid"])
async def test_impossible_name(new_pool: NewPool, host: str) -> None:
    error = await failure(new_pool(80, host=host))
    assert error.message == "cannot connect to the upstream: the service's host is no valid name"


async def test_unknown_name(new_pool: NewPool) -> None:
    error = await failure(new_pool(80, host="no-such-host.invalid"))
    assert "its name was not resolved" in error.message


async def test_no_address(new_pool: NewPool) -> None:
    assert "has no address" in (await failure(new_pool(1, host="none.invalid", lookup=found()))).message


async def test_cancelling_leaves_no_socket(new_pool: NewPool) -> None:
    with Unaccepting() as listener:
        pool = new_pool(listener.port)
        before = open_sockets()
        task = asyncio.create_task(pool.acquire())
        while open_sockets() == before:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while open_sockets() != before:
            await asyncio.sleep(0)


async def test_cancelling_the_handshake_leaves_no_socket(new_pool: NewPool, authority: Authority) -> None:
    async with Scripted() as upstream:  # accepts, and says nothing of TLS
        pool = new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file)
        task = asyncio.create_task(pool.acquire())
        accepted = await upstream.connection(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await accepted.closed.wait()
        assert pool.open_connections == 0


async def test_handshake_that_stalls(new_pool: NewPool, authority: Authority) -> None:
    async with Scripted() as upstream:
        pool = new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file, connect_timeout_ms=50)
        assert "no connection within 50 ms" in (await failure(pool)).message
        await (await upstream.connection(0)).closed.wait()


async def test_server_that_speaks_no_tls(new_pool: NewPool, authority: Authority) -> None:
    async with Scripted(Send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as upstream:
        pool = new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file)
        assert "TLS: " in (await failure(pool)).message


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_tls(new_pool: NewPool, authority: Authority, name: str) -> None:
    """By name and by address; twice over one connection, with a large body in between."""
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n" + bytes(3_000_000)
    server = authority.server_context(name)
    async with Scripted(ReadHead(), Send(large), ReadHead(), Send(ANSWER), tls=server) as upstream:
        pool = new_pool(upstream.port, scheme="https", host=name, tls_ca=authority.ca_file)
        for size in (3_000_000, 2):
            connection = await pool.acquire()
            connection.begin(b"GET", 60_000)
            connection.write(REQUEST)
            connection.request_complete = True
            await connection.read_head()
            received = most = 0
            while data := await connection.read():
                received += len(data)
                most = max(most, connection.held_bytes)
            assert (received, most < 600_000) == (size, True)
            pool.release(connection)
            assert pool.idle_connections == 1
        assert len(upstream.connections) == 1


@pytest.mark.parametrize(
    ("names", "how", "reason"),
    [
        (["other.invalid"], {}, "not valid for '127.0.0.1'"),
        (["127.0.0.1"], {"expired": True}, "expired"),
        (["127.0.0.1"], {"self_signed": True}, "self-signed"),
    ],
    ids=["wrong name", "expired", "self-signed"],
)
async def test_certificate_refused(
    new_pool: NewPool, authority: Authority, names: list[str], how: dict[str, bool], reason: str
) -> None:
    server = authority.server_context(*names, **how)
    async with Scripted(ReadHead(), Send(ANSWER), tls=server) as upstream:
        error = await failure(new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file))
        assert "TLS certificate refused" in error.message
        assert reason in error.message
        assert upstream.heads == []


async def test_certificate_of_an_unknown_authority(new_pool: NewPool, authority: Authority) -> None:
    """Without `tls_ca` only the system's authorities count."""
    async with Scripted(ReadHead(), Send(ANSWER), tls=authority.server_context("127.0.0.1")) as upstream:
        error = await failure(new_pool(upstream.port, scheme="https"))
        assert "TLS certificate refused" in error.message


async def test_old_tls_is_refused(new_pool: NewPool, authority: Authority) -> None:
    server = authority.server_context("127.0.0.1")
    server.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        server.minimum_version = server.maximum_version = ssl.TLSVersion.TLSv1_1
    async with Scripted(ReadHead(), tls=server) as upstream:
        error = await failure(new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file))
        assert "TLS" in error.message or "reset" in error.message


async def test_tls_context(authority: Authority) -> None:
    address = Address("https", "localhost", 443, Tls(ca=str(authority.ca_file)))
    context = address.tls
    assert context is not None
    assert context is address.tls
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert Address("http", "localhost", 80).tls is None


async def test_authorities_that_cannot_be_read(new_pool: NewPool, tmp_path: Path) -> None:
    """An error when the pool is made, not of the first request; one line that names the file."""
    broken, missing = tmp_path / "ca.pem", tmp_path / "missing.pem"
    broken.write_text("no certificate")
    for path, reason in (
        (broken, "it holds no PEM certificates"),
        (missing, "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(TlsFilesError) as raised:
            new_pool(443, scheme="https", tls_ca=path)
        assert str(raised.value) == f"tls.ca: {str(path)!r} cannot be used: {reason}"


async def test_system_authorities_are_loaded_once_and_files_each_time(authority: Authority) -> None:
    one, other = (Address("https", host, 443) for host in ("a.invalid", "b.invalid"))
    assert one.tls is other.tls
    own, again = (Address("https", "a.invalid", 443, Tls(ca=str(authority.ca_file))) for _ in range(2))
    assert own.tls is not again.tls
    assert own.tls is not one.tls
