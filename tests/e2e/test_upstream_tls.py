"""TLS towards upstreams, end to end: what a client gets and what the record says; a real nginx judges."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.two_targets import OK, ask
from tests.fakes.certificates import Authority, halves
from tests.fakes.programs import nginx
from tests.fakes.scripted import Scripted
from tests.fakes.worker import document_of, running

JUDGED = (
    '{"subject":"$ssl_client_s_dn","verified":"$ssl_client_verify","resumed":"$ssl_session_reused","status":$status}'
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls_of(authority: Authority, **more: Any) -> dict[str, Any]:
    return {"tls": {"ca": str(authority.ca_file), **more}}


@pytest.mark.parametrize(
    ("name", "how", "reason"),
    [
        ("127.0.0.1", {"expired": True}, "certificate has expired"),
        ("other.test", {}, "certificate is not valid for '127.0.0.1'"),
        ("127.0.0.1", {"self_signed": True}, "self-signed certificate"),
    ],
    ids=["expired", "another name", "self-signed"],
)
async def test_a_certificate_is_refused(authority: Authority, name: str, how: dict[str, bool], reason: str) -> None:
    """502 with the reason, which the record has too; nothing of the request went out."""
    async with Scripted(*OK, tls=authority.server_context(name, **how)) as upstream:
        async with running(document_of(f"https://127.0.0.1:{upstream.port}", service=tls_of(authority))) as worker:
            got = await ask(worker)
            fields = await worker.fields()
        assert (got.status, upstream.heads) == (502, [])
        assert b"x-sluiceway-error: connect_failed" in got.head
        message = orjson.loads(got.body)["error"]["message"]
        assert message.startswith("cannot connect to the upstream: TLS certificate refused: ")
        assert reason in message
        assert fields["sluiceway.error.message"] == message
        assert (fields["error.type"], fields["sluiceway.outcome"]) == ("connect_failed", "upstream_error")


async def test_insecure_takes_any(authority: Authority) -> None:
    async with Scripted(*OK, tls=authority.server_context("other.test", self_signed=True)) as upstream:
        document = document_of(f"https://127.0.0.1:{upstream.port}", service={"tls": {"insecure": True}})
        async with running(document) as worker:
            assert (await ask(worker)).status == 200


def server(authority: Authority) -> str:
    """Of nginx: a certificate of its own, and a client's required."""
    certificate, key = halves(authority.issue("127.0.0.1"))
    return f"""
      ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
      ssl_client_certificate {authority.ca_file}; ssl_verify_client on; ssl_session_cache shared:tests:1m;
      keepalive_requests 2;
      location / {{ default_type application/json; return 200 '{{"id":"x","choices":[]}}'; }}
    """


async def test_nginx_asks_for_a_certificate_and_gets_it(authority: Authority, tmp_path: Path) -> None:
    """And the sessions of further connections are resumed: it closes each after two requests."""
    certificate, key = halves(authority.issue("search-team"))
    service = tls_of(authority, certificate=str(certificate), key=str(key))
    async with nginx(tmp_path, server(authority), listen="ssl", log_format=JUDGED) as upstream:
        async with running(document_of(f"https://127.0.0.1:{upstream.port}", service=service)) as worker:
            for _ in range(7):
                assert (await ask(worker)).status == 200
    lines = [orjson.loads(line) for line in upstream.access_log]
    assert {(line["subject"], line["verified"]) for line in lines} == {("CN=search-team", "SUCCESS")}
    assert [line["resumed"] for line in lines] == [".", ".", "r", "r", "r", "r", "r"]


async def test_nginx_asks_for_a_certificate_and_gets_none(authority: Authority, tmp_path: Path) -> None:
    """Its refusal is an answer, and passed on as such."""
    async with nginx(tmp_path, server(authority), listen="ssl", log_format=JUDGED) as upstream:
        document = document_of(f"https://127.0.0.1:{upstream.port}", service=tls_of(authority))
        async with running(document) as worker:
            got = await ask(worker)
            fields = await worker.fields()
    assert (got.status, b"No required SSL certificate was sent" in got.body) == (400, True)
    assert (fields["sluiceway.outcome"], fields["http.response.status_code"]) == ("upstream_error", 400)
    (line,) = [orjson.loads(line) for line in upstream.access_log]
    assert (line["subject"], line["verified"]) == ("", "NONE")


async def test_nginx_gets_one_of_another_authority(authority: Authority, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stranger = Authority(elsewhere).issue("search-team")
    service = tls_of(authority, certificate=str(stranger))
    async with nginx(tmp_path, server(authority), listen="ssl", log_format=JUDGED) as upstream:
        async with running(document_of(f"https://127.0.0.1:{upstream.port}", service=service)) as worker:
            got = await ask(worker)
    assert (got.status, b"The SSL certificate error" in got.body) == (400, True)
    (line,) = [orjson.loads(line) for line in upstream.access_log]
    assert line["verified"].startswith("FAILED")
