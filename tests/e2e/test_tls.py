"""A whole gateway that speaks TLS: the official SDKs, the probes, a new certificate and a drain."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.fakes.certificates import Authority
from tests.fakes.gateway import Gateway
from tests.fakes.programs import nginx, program
from tests.fakes.raw_tls import connect_tls
from tests.fakes.scripted import Fin, ReadHead, ReadRequest, Scripted, Send
from tests.fakes.simulated import Simulated
from tests.fakes.worker import KEY, document_of, running

MESSAGES: Any = [{"role": "user", "content": "What lifts a boat over a hill?"}]
TURN_S = 60
HEALTHZ = b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CUT = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def https(gateway: Gateway) -> str:
    return gateway.url.replace("http:", "https:")


async def test_the_official_sdk(tmp_path: Path, authority: Authority) -> None:
    tls = {"certificate": str(authority.issue("127.0.0.1"))}
    context = authority.trusting()
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url, tls=tls), tmp_path) as gateway,
    ):
        url = https(gateway) + "/v1"

        def ask() -> str | None:
            with OpenAI(base_url=url, api_key=KEY, http_client=httpx.Client(verify=context), max_retries=0) as client:
                answer = client.chat.completions.create(model="qwen-plus", messages=MESSAGES)
                return answer.choices[0].message.content

        assert await asyncio.to_thread(ask)
        http = httpx.AsyncClient(verify=context)
        async with AsyncOpenAI(base_url=url, api_key=KEY, http_client=http, max_retries=0) as client:
            stream = await client.chat.completions.create(model="qwen-plus", messages=MESSAGES, stream=True)
            assert [chunk.choices[0].finish_reason async for chunk in stream if chunk.choices][-1] == "stop"
        records = await gateway.records(2)
        assert [record["sluiceway.outcome"] for record in records] == ["ok", "ok"]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            async with session.get(f"{https(gateway)}/-/readyz") as answer:
                assert (answer.status, await answer.text()) == (200, "ready\n")
        assert await gateway.readiness() == 200  # control's listener has no TLS
        assert not gateway.complaints()


async def test_a_new_certificate_without_a_restart(tmp_path: Path, authority: Authority) -> None:
    certificate = authority.issue("127.0.0.1")
    document = document_of("http://127.0.0.1:9", tls={"certificate": str(certificate)})
    async with Gateway.serving(document, tmp_path) as gateway:
        certificate.write_bytes(b"".join(authority.pair("127.0.0.1")))
        await gateway.lines.wait("certificate_reloaded")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.trusting())) as session:
            async with session.get(f"{https(gateway)}/-/healthz") as answer:
                assert answer.status == 200
        assert not gateway.complaints()


async def test_a_stream_ends_well_though_the_gateway_is_stopped(tmp_path: Path, authority: Authority) -> None:
    document = {"tls": {"certificate": str(authority.issue("127.0.0.1"))}}
    headers = {"Authorization": f"Bearer {KEY}", "x-sim-id": "drained", "x-sim-gate-after": "3"}
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url, **document), tmp_path) as gateway,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.trusting())) as session,
    ):
        url = f"{https(gateway)}/v1/chat/completions"
        async with session.post(url, json=body, headers=headers) as answer:
            gateway.signal(signal.SIGTERM)
            await gateway.lines.wait("worker_draining")
            await upstream.open("drained")
            assert b"[DONE]" in await asyncio.wait_for(answer.read(), TURN_S)
        assert await gateway.wait() == 0
        assert [record["sluiceway.outcome"] for record in gateway.records_so_far()] == ["ok"]


@pytest.mark.parametrize("polite", [True, False])
async def test_an_idle_connection_does_not_hold_up_the_end(tmp_path: Path, authority: Authority, polite: bool) -> None:
    document = document_of("http://127.0.0.1:9", tls={"certificate": str(authority.issue("127.0.0.1"))})
    async with (
        Gateway.serving(document, tmp_path) as gateway,
        connect_tls(gateway.port, authority.trusting()) as client,
    ):
        client.polite = polite
        client.send(HEALTHZ)
        assert (await client.answer()).status == 200
        gateway.signal(signal.SIGTERM)
        assert await client.rest() == (b"", "fin")
        assert await gateway.wait() == 0
        assert not gateway.lines.of("drain_timeout")


@pytest.mark.parametrize("key", ["certificate", "key"])
async def test_a_file_that_is_not_there_is_told_at_the_start(tmp_path: Path, authority: Authority, key: str) -> None:
    tls = {"certificate": str(authority.issue("127.0.0.1")), key: "/nowhere/file.pem"}
    with pytest.raises(AssertionError, match=rf"tls\.{key}: '/nowhere/file\.pem' cannot be read"):
        async with Gateway.serving(document_of("http://127.0.0.1:9", tls=tls), tmp_path):
            pass


async def test_what_stands_in_front_changes_with_a_generation(tmp_path: Path, authority: Authority) -> None:
    one, two = authority.issue("127.0.0.1"), authority.issue("localhost", "127.0.0.1")
    page = {"Origin": "https://app.example.com", "X-Forwarded-For": "203.0.113.9"}
    url = "/v1/chat/completions"
    async with (
        Gateway.serving(document_of("http://127.0.0.1:9", tls={"certificate": str(one)}), tmp_path) as gateway,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.trusting())) as session,
    ):

        async def ask(host: str) -> str | None:
            async with session.options(f"https://{host}:{gateway.port}{url}", headers=page) as answer:
                assert answer.status == 204
                return answer.headers.get("Access-Control-Allow-Origin")

        assert await ask("127.0.0.1") is None
        document = orjson.loads(gateway.file.read_bytes())
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask("localhost")
        document |= {"trusted_proxies": ["127.0.0.0/8"], "cors": {"origins": [page["Origin"]]}}
        document["tls"]["certificate"] = str(two)
        gateway.file.write_bytes(orjson.dumps(document))
        await gateway.lines.wait("configuration_in_force", generation=2)
        assert await ask("127.0.0.1") == page["Origin"]  # on the connection of before
        assert await ask("localhost") == page["Origin"]
        records = await gateway.records(3)
        assert [record["client.address"] for record in records] == ["127.0.0.1", "203.0.113.9", "203.0.113.9"]
        document["tls"] = {}
        gateway.file.write_bytes(orjson.dumps(document))
        (line,) = await gateway.lines.wait("configuration_refused")
        assert "tls: TLS cannot begin or end while the gateway runs" in str(line["complaints"])


# -- clients of other makers -----------------------------------------------------------------------------------------


async def test_behind_a_real_nginx(tmp_path: Path, authority: Authority) -> None:
    """It speaks TLS to the gateway, keeps its connections, and says whose request it is."""
    tls = {"certificate": str(authority.issue("127.0.0.1"))}
    headers = {"Authorization": f"Bearer {KEY}", "X-Forwarded-For": "203.0.113.9"}
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 900_000}], "stream": True}
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url, tls=tls, trusted_proxies=["127.0.0.1"]), tmp_path) as gateway,
        nginx(
            tmp_path,
            f"""location / {{
                proxy_pass https://gateway; proxy_http_version 1.1; proxy_set_header Connection "";
                proxy_set_header X-Forwarded-For $http_x_forwarded_for; proxy_request_buffering off;
                proxy_buffering off; client_max_body_size 0; proxy_ssl_name 127.0.0.1;
                proxy_ssl_verify on; proxy_ssl_trusted_certificate {authority.ca_file};
            }}""",
            http=f"upstream gateway {{ server 127.0.0.1:{gateway.port}; keepalive 4; }}",
        ) as front,
        aiohttp.ClientSession() as session,
    ):
        for _ in range(5):
            url = f"http://127.0.0.1:{front.port}/v1/chat/completions"
            async with session.post(url, json=body, headers=headers) as answer:
                assert answer.status == 200
                assert b"[DONE]" in await answer.read()
        records = await gateway.records(5)
        assert {(one["sluiceway.outcome"], one["client.address"]) for one in records} == {("ok", "203.0.113.9")}
        metrics = await gateway.metrics()
        assert metrics['sluiceway_connections{worker="0"}'] == 1
        assert not gateway.complaints()


@pytest.mark.parametrize("version", ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"])
@pytest.mark.parametrize("proxied", ["", "--haproxy-protocol"])
async def test_a_real_curl(tmp_path: Path, authority: Authority, version: str, proxied: str) -> None:
    tls = {"certificate": str(authority.issue("127.0.0.1"))}
    early = b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\n{}"
    (tmp_path / "body").write_bytes(b"x" * 30_000_000)
    async with (
        Scripted.each((ReadHead(), Send(early)), (ReadRequest(), Send(CUT), Fin())) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", tls=tls, trusted_proxies=["127.0.0.1"])) as worker,
    ):

        async def curl(*options: str) -> tuple[int | None, bytes]:
            process = await asyncio.create_subprocess_exec(
                program("curl"),
                *("-q", "-s", "--noproxy", "*", "--cacert", str(authority.ca_file), *version.split(), *proxied.split()),
                *("-H", f"Authorization: Bearer {KEY}", "-H", "Expect:", *options),
                f"https://127.0.0.1:{worker.port}/v1/chat/completions",
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await asyncio.wait_for(process.communicate(), TURN_S)
            return process.returncode, out

        # an early answer reaches whoever is in the middle of an upload
        assert await curl("--data-binary", f"@{tmp_path}/body", "-w", "%{http_code}") == (0, b"{}413")
        # and one that ends with the connection, and is cut, is no success
        code, out = await curl("--http1.0", "-d", "{}")
        assert (code != 0, out) == (True, b"half")
