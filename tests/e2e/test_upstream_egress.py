"""A real egress proxy between the gateway and a TLS nginx: tinyproxy, which asks for credentials."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import orjson
import pytest

from tests.e2e.two_targets import CHAT, ask
from tests.fakes.certificates import Authority, halves
from tests.fakes.gateway import Gateway
from tests.fakes.programs import Nginx, Tinyproxy, nginx, tinyproxy
from tests.fakes.worker import KEY, document_of, running

ANSWER = '{"id":"x","choices":[]}'


class Between(NamedTuple):
    upstream: Nginx
    proxy: Tinyproxy
    ca: str

    def document(self, **service: Any) -> dict[str, Any]:
        return document_of(f"https://127.0.0.1:{self.upstream.port}", service={"tls": {"ca": self.ca}, **service})

    def url(self, credentials: str = "team:s3cret@") -> str:
        return f"http://{credentials}127.0.0.1:{self.proxy.port}"

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.upstream.port}"


@contextlib.asynccontextmanager
async def standing(folder: Path) -> AsyncIterator[Between]:
    authority = Authority(folder)
    certificate, key = halves(authority.issue("127.0.0.1"))
    server = f"""
      ssl_certificate {certificate}; ssl_certificate_key {key}; keepalive_requests 1;
      location / {{ default_type application/json; return 200 '{ANSWER}'; }}
    """
    async with nginx(folder, server, listen="ssl", log_format="$ssl_session_reused") as upstream:
        async with tinyproxy(folder, "BasicAuth team s3cret") as proxy:
            yield Between(upstream, proxy, str(authority.ca_file))


@pytest.fixture
async def between(tmp_path: Path) -> AsyncIterator[Between]:
    async with standing(tmp_path) as between:
        yield between


async def test_through_the_proxy_of_a_service(between: Between) -> None:
    """TLS is with nginx, and its sessions are resumed through the proxy too."""
    async with running(between.document(egress_proxy=between.url())) as worker:
        for _ in range(3):
            got = await ask(worker)
            assert (got.status, got.body.decode()) == (200, ANSWER)
    assert between.proxy.connects == [between.target] * 3
    assert await between.upstream.logged(3) == [".", "r", "r"]


@pytest.mark.parametrize("credentials", ["", "team:wr0ng@", "s3cret:team@"], ids=["none", "wrong", "swapped"])
async def test_the_proxy_refuses(between: Between, credentials: str) -> None:
    """The reason is told, and nothing else of it."""
    async with running(between.document(egress_proxy=between.url(credentials))) as worker:
        got = await ask(worker)
        record = await worker.records.get()
    assert (got.status, between.upstream.access_log) == (502, [])
    message = orjson.loads(got.body)["error"]["message"]
    assert message.startswith("cannot connect to the upstream: the egress proxy: it refused the connection: 40")
    assert record["fields"]["sluiceway.error.message"] == message
    assert record["fields"]["error.type"] == "connect_failed"
    said = got.head + got.body + repr(record).encode()
    assert not [secret for secret in (b"s3cret", b"wr0ng", b"Basic", b"tinyproxy") if secret in said]


async def test_an_upstream_that_the_proxy_cannot_reach(between: Between) -> None:
    document = between.document(egress_proxy=between.url(), base_url="https://127.0.0.1:1")
    async with running(document) as worker:
        message = orjson.loads((await ask(worker)).body)["error"]["message"]
    assert message.startswith("cannot connect to the upstream: the egress proxy: it refused the connection: 50")


async def test_plain_http_goes_by_connect_too(tmp_path: Path) -> None:
    async with nginx(tmp_path, f"location / {{ return 200 '{ANSWER}'; }}") as upstream:
        async with tinyproxy(tmp_path) as proxy:
            service = {"egress_proxy": f"http://127.0.0.1:{proxy.port}"}
            async with running(document_of(f"http://127.0.0.1:{upstream.port}", service=service)) as worker:
                assert (await ask(worker)).status == 200
            assert proxy.connects == [f"127.0.0.1:{upstream.port}"]


async def status(gateway: Gateway) -> int:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    url = f"{gateway.url}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=CHAT, headers=headers) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize(
    ("exceptions", "service", "through"),
    [
        ("", {}, True),
        ("localhost,10.0.0.0/8", {}, True),
        ("localhost, 127.0.0.0/8", {}, False),
        ("", {"egress_proxy": "none"}, False),
    ],
)
async def test_the_environments_proxy(
    between: Between, tmp_path: Path, exceptions: str, service: dict[str, Any], through: bool
) -> None:
    """HTTPS_PROXY and NO_PROXY of a gateway as a user starts it."""
    environ = {"HTTPS_PROXY": between.url(), "NO_PROXY": exceptions, "https_proxy": "", "no_proxy": ""}
    folder = tmp_path / "gateway"
    folder.mkdir()
    async with Gateway.serving(between.document(**service), folder, environ=environ) as gateway:
        assert await status(gateway) == 200
        await gateway.records(1)
        assert gateway.complaints() == []
    assert between.proxy.connects == ([between.target] if through else [])
    assert b"s3cret" not in orjson.dumps(gateway.lines.all) + bytes(gateway.errors)
