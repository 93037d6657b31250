"""TLS per service: sessions that are resumed, and by whom; client certificates; no verification where it is said."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from proxy.config.service_tls import digest_of_files
from proxy.config.targets import Tls
from proxy.errors import UpstreamError
from proxy.upstream.address import Address
from proxy.upstream.tls import SESSIONS_MAX, TlsFilesError
from tests.fakes.certificates import Authority, halves
from tests.fakes.listening import Listening
from tests.fakes.scripted import ReadHead, Scripted, Send
from tests.proxy.upstream.conftest import NewPool

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class Resuming(Listening):
    """Answers one request a connection and closes; `resumed` says of each handshake whether it resumed a session."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(tls=tls)
        self.resumed: list[bool | None] = []
        self.shown: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        self.resumed.append(tls.session_reused)
        shown: Any = tls.getpeercert()
        if shown:
            self.shown.append(shown["subject"][0][0][1])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        writer.close()


async def ask(pool: Any) -> None:
    connection = await pool.acquire()
    connection.begin(b"GET", 60_000)
    connection.write(b"GET / HTTP/1.1\r\nhost: upstream\r\n\r\n")
    connection.request_complete = True
    try:
        await connection.read_head()
        while await connection.read():
            pass
    finally:
        pool.release(connection)


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
async def test_a_session_is_resumed(new_pool: NewPool, authority: Authority, version: ssl.TLSVersion) -> None:
    server = authority.server_context("127.0.0.1")
    server.minimum_version = server.maximum_version = version
    async with Resuming(server) as upstream:
        pool = new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file)
        for _ in range(4):
            await ask(pool)
        assert upstream.resumed == [False, True, True, True]
        assert not pool._handshaken


@VERSIONS
async def test_no_session_is_shared_with_a_service_that_shows_or_trusts_something_else(
    new_pool: NewPool, authority: Authority, version: ssl.TLSVersion
) -> None:
    server = authority.server_context("127.0.0.1")
    server.minimum_version = server.maximum_version = version
    server.load_verify_locations(authority.ca_file)
    server.verify_mode = ssl.CERT_OPTIONAL
    shown = str(authority.issue("search-team"))
    ca = str(authority.ca_file)
    async with Resuming(server) as upstream:
        for tls in (Tls(ca=ca), Tls(ca=ca, certificate=shown), Tls(insecure=True), Tls(ca=ca)):
            await ask(new_pool(upstream.port, scheme="https", tls=tls))
        assert upstream.resumed == [False] * 4
        assert upstream.shown == ["search-team"]


async def test_a_failed_handshake_costs_the_session(new_pool: NewPool, authority: Authority) -> None:
    """In case it was that which failed."""
    async with Resuming(authority.server_context("127.0.0.1")) as upstream:
        pool = new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file)
        await ask(pool)
        context = pool._tls
        assert context is not None
        assert list(context._sessions) == ["127.0.0.1"]
        port = upstream.port
    async with Scripted(Send(b"no TLS"), port=port):
        with pytest.raises(UpstreamError, match="TLS: "):
            await ask(pool)
    assert list(context._sessions) == []


async def test_sessions_are_bounded(new_pool: NewPool, authority: Authority) -> None:
    async with Resuming(authority.server_context("127.0.0.1")) as upstream:
        pool = new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file)
        await ask(pool)
        context = pool._tls
        assert context is not None
        ((_, session),) = context._sessions.items()
        context._sessions.clear()
        context._sessions.update((f"{number}.test", session) for number in range(SESSIONS_MAX))
        await ask(pool)
        assert (len(context._sessions), list(context._sessions)[-1]) == (SESSIONS_MAX, "127.0.0.1")


@pytest.mark.parametrize("apart", [False, True])
async def test_a_client_certificate_is_shown(new_pool: NewPool, authority: Authority, apart: bool) -> None:
    """From one file with its key, or from two."""
    server = authority.server_context("127.0.0.1")
    server.load_verify_locations(authority.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    pem = authority.issue("search-team")
    certificate, key = halves(pem) if apart else (pem, None)
    async with Resuming(server) as upstream:
        tls = Tls(str(authority.ca_file), str(certificate), None if key is None else str(key))
        await ask(new_pool(upstream.port, scheme="https", tls=tls))
        assert upstream.shown == ["search-team"]


@VERSIONS
async def test_a_server_that_wants_a_certificate_and_gets_none(
    new_pool: NewPool, authority: Authority, version: ssl.TLSVersion
) -> None:
    """TLS 1.2 refuses within the handshake; in 1.3 the refusal comes behind it, in the place of an answer."""
    server = authority.server_context("127.0.0.1")
    server.minimum_version = server.maximum_version = version
    server.load_verify_locations(authority.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    async with Resuming(server) as upstream:
        with pytest.raises(UpstreamError) as raised:
            await ask(new_pool(upstream.port, scheme="https", tls_ca=authority.ca_file))
        early = version == ssl.TLSVersion.TLSv1_2
        assert raised.value.kind == ("connect_failed" if early else "upstream_protocol")


@pytest.mark.parametrize("how", [{"expired": True}, {"self_signed": True}, {}], ids=["expired", "self-signed", "name"])
async def test_insecure_verifies_nothing(new_pool: NewPool, authority: Authority, how: dict[str, bool]) -> None:
    name = "127.0.0.1" if how else "other.invalid"
    async with Scripted(ReadHead(), Send(ANSWER), tls=authority.server_context(name, **how)) as upstream:
        await ask(new_pool(upstream.port, scheme="https", tls=Tls(insecure=True)))


async def test_files_that_cannot_be_used_any_more(new_pool: NewPool, authority: Authority, tmp_path: Path) -> None:
    """They were good when the configuration was checked."""
    certificate, key = halves(authority.issue("search-team"))
    _, other_key = halves(authority.issue("other-team"))
    sealed = authority.issue("search-team", passphrase=b"secret")
    for tls, reason in (
        (Tls(certificate=str(tmp_path / "none.pem")), "No such file or directory"),
        (Tls(certificate=str(certificate), key=str(other_key)), "they do not fit"),
        (Tls(certificate=str(certificate)), "they do not fit"),
        (Tls(certificate=str(sealed)), "they do not fit"),
    ):
        with pytest.raises(TlsFilesError) as raised:
            new_pool(443, scheme="https", tls=tls)
        assert str(raised.value) == f"tls.certificate: {tls.certificate!r} cannot be used with its key: {reason}"
    assert Address("https", "a.test", 443, Tls(certificate=str(certificate), key=str(key))).tls is not None


def test_a_digest_tells_contents_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("ab")
    two.write_text("c")
    digests = [digest_of_files((str(one), str(two)))]
    one.write_text("a")
    two.write_text("bc")
    digests.append(digest_of_files((str(one), str(two))))
    digests.append(digest_of_files((None, str(one), None)))
    one.unlink()
    digests.append(digest_of_files((str(one),)))
    assert len(set(digests)) == 4
    assert digest_of_files((None, None)) == ""
