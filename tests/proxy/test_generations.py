"""One generation of the configuration after the other, as a worker takes them: what stays warm, and what goes."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.config import file as config_file
from proxy.config.compile import compile_snapshot
from proxy.config.snapshot import Snapshot
from proxy.upstream.pools import Pools
from proxy.upstream.tls import TlsFilesError
from tests.e2e.two_targets import OK, answer, ask, record_of
from tests.fakes.certificates import Authority
from tests.fakes.scripted import ReadHead, ReadRequest, Scripted, Send, Tell, Wait
from tests.fakes.worker import UPSTREAM_KEY, FakeWorker, document_of, running


def snapshot_of(document: dict[str, Any], generation: int) -> Snapshot:
    return compile_snapshot(config_file.parse(orjson.dumps(document).decode(), {}, "test"), generation)


def swap(worker: FakeWorker, snapshot: Snapshot) -> None:
    worker.pipeline.adopt(snapshot)
    worker.handler.snapshot = snapshot


async def test_connections_stay_where_the_service_is_the_same() -> None:
    async with Scripted(*OK) as upstream:
        document = document_of(f"http://127.0.0.1:{upstream.port}")
        async with running(document) as worker:
            assert (await ask(worker)).status == 200
            document["services"][0]["idle_timeout_ms"] = 5000  # nothing that concerns a connection's making
            document["services"][0]["api_keys"] = ["sk-other"]
            swap(worker, snapshot_of(document, 8))
            got = await ask(worker)
            assert (got.status, b"x-sluiceway-generation: 8\r\n" in got.head + b"\r\n") == (200, True)
            assert [b"sk-other" in head for head in upstream.connections[0].heads] == [False, True]
            assert len(upstream.connections) == 1


@pytest.mark.parametrize("change", [{"base_url": "http://localhost:{port}"}, {"max_connections": 7}, {"name": "other"}])
async def test_connections_go_where_it_is_another(change: dict[str, Any]) -> None:
    async with Scripted(*OK) as upstream:
        document = document_of(f"http://127.0.0.1:{upstream.port}")
        async with running(document) as worker:
            assert (await ask(worker)).status == 200
            for key, value in change.items():
                said = value.format(port=upstream.port) if isinstance(value, str) else value
                document["services"][0][key] = said
            document["model_apis"][0]["routing"]["single"]["service"] = document["services"][0]["name"]
            swap(worker, snapshot_of(document, 8))
            await asyncio.wait_for(upstream.connections[0].closed.wait(), 10)
            assert (await ask(worker)).status == 200
            assert len(upstream.connections) == 2


async def test_each_address_of_a_service_by_itself() -> None:
    async with Scripted(*OK) as one, Scripted(*OK) as two, Scripted(*OK) as three:
        urls = {"openai": f"http://127.0.0.1:{one.port}", "anthropic": f"http://127.0.0.1:{two.port}"}
        document = document_of("", service={"base_urls": urls}, model_api={"protocols": ["openai", "anthropic"]})
        del document["services"][0]["base_url"]
        async with running(document) as worker:
            for path in (b"/v1/chat/completions", b"/v1/messages", b"/v1/messages"):
                assert (await ask(worker, path=path)).status == 200
            for upstream, line in ((one, b"authorization: Bearer "), (two, b"x-api-key: ")):
                assert line + UPSTREAM_KEY.encode() in upstream.connections[0].heads[0]
                assert f"127.0.0.1:{upstream.port}".encode() in upstream.connections[0].heads[0]
            urls["anthropic"] = f"http://127.0.0.1:{three.port}"
            swap(worker, snapshot_of(document, 8))
            await asyncio.wait_for(two.connections[0].closed.wait(), 10)
            assert (await ask(worker)).status == (await ask(worker, path=b"/v1/messages")).status == 200
            assert [len(upstream.connections) for upstream in (one, two, three)] == [1, 1, 1]
            fields = [(await record_of(worker))["fields"] for _ in range(5)]
            assert {one["sluiceway.service"] for one in fields} == {"sim"}


async def test_connections_go_where_a_file_has_another_content(tmp_path: Path) -> None:
    """A client certificate that was renewed at its place."""
    authority, shown = Authority(tmp_path), tmp_path / "client.pem"
    shutil.copy(authority.issue("search-team"), shown)
    async with Scripted(*OK, tls=authority.server_context("127.0.0.1")) as upstream:
        tls = {"ca": str(authority.ca_file), "certificate": str(shown)}
        document = document_of(f"https://127.0.0.1:{upstream.port}", service={"tls": tls})
        async with running(document) as worker:
            for generation, certificate in ((8, None), (9, authority.issue("search-team"))):
                assert (await ask(worker)).status == 200
                if certificate is not None:
                    shutil.copy(certificate, shown)
                swap(worker, snapshot_of(document, generation))
                assert len(upstream.connections) == 1
            await asyncio.wait_for(upstream.connections[0].closed.wait(), 10)
            assert (await ask(worker)).status == 200
            assert len(upstream.connections) == 2


async def test_connections_go_where_the_way_is_another() -> None:
    tunnel = Send(b"HTTP/1.1 200 OK\r\n\r\n")
    async with Scripted(*OK) as upstream, Scripted(ReadHead(), tunnel, *OK) as proxy:
        document = document_of(f"http://127.0.0.1:{upstream.port}")
        async with running(document) as worker:
            assert (await ask(worker)).status == 200
            document["services"][0]["egress_proxy"] = f"http://127.0.0.1:{proxy.port}"
            swap(worker, snapshot_of(document, 8))
            await asyncio.wait_for(upstream.connections[0].closed.wait(), 10)
            assert (await ask(worker)).status == 200
            assert (len(upstream.connections), len(proxy.connections)) == (1, 1)


async def test_a_request_ends_under_the_generation_that_it_began_with() -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    script = (ReadRequest(), Tell(asked), Wait(go), Send(answer(503)), ReadRequest(), Send(answer(200)))
    async with Scripted(*script) as upstream, Scripted(*OK) as spare, Scripted(*OK) as later:
        document = document_of(
            f"http://127.0.0.1:{upstream.port}",
            service={"cooldown": {"failures": 0}},
            model_api={"fallback": [{"service": "spare"}]},
        )
        document["services"].append({**document["services"][0], "name": "spare"})
        document["services"][1]["base_url"] = f"http://127.0.0.1:{spare.port}"
        async with running(document) as worker:
            asking = asyncio.ensure_future(ask(worker))
            await asyncio.wait_for(asked.wait(), 10)
            swap(worker, snapshot_of(document_of(f"http://127.0.0.1:{later.port}"), 8))
            assert (await ask(worker)).status == 200
            assert (await record_of(worker))["fields"]["sluiceway.generation"] == 8
            go.set()
            got = await asking
            assert (got.status, b"x-sluiceway-generation: 7" in got.head) == (200, True)
            fields = (await record_of(worker))["fields"]
            assert (fields["sluiceway.service"], fields["sluiceway.generation"]) == ("spare", 7)
            # what served it belongs to nobody any more
            for connection in (upstream.connections[0], spare.connections[0]):
                await asyncio.wait_for(connection.closed.wait(), 10)


async def test_a_generation_that_cannot_be_served_changes_nothing(tmp_path: Any) -> None:
    async with Scripted(*OK) as upstream:
        document = document_of(f"http://127.0.0.1:{upstream.port}")
        async with running(document) as worker:
            assert (await ask(worker)).status == 200
            before = list(worker.pipeline._pools)
            ca = Authority(tmp_path).ca_file
            bad = snapshot_of(document_of("https://127.0.0.1:1", service={"tls": {"ca": str(ca)}}), 8)
            ca.write_text("no certificate any more")
            with pytest.raises(TlsFilesError, match=r"service sim: tls\.ca"):
                worker.pipeline.adopt(bad)
            assert list(worker.pipeline._pools) == before
            assert (await ask(worker)).status == 200
            assert len(upstream.connections) == 1


async def test_a_service_that_went_keeps_one_pool_and_its_limit() -> None:
    """Requests that began before have all the connections of `max_connections` together, not each its own."""
    document = document_of("http://127.0.0.1:9", service={"max_connections": 1})
    (service,) = snapshot_of(document, 1).services.values()
    pools = Pools()
    pools.adopt([service])
    pools.adopt([])
    assert pools.of(service) is pools.of(service)


async def test_a_service_has_one_pool_for_each_host_however_many_protocols_are_there() -> None:
    urls = {"openai": "http://127.0.0.1:9/v1", "anthropic": "http://127.0.0.1:9/anthropic", "vllm": "http://[::1]:9"}
    document = document_of("http://127.0.0.1:9", service={"base_url": None, "base_urls": urls})
    pools = Pools()
    for generation in (1, 2):
        (service,) = snapshot_of(document, generation).services.values()
        pools.adopt((service, *service.others.values()))
        of = {protocol: pools.of(service.at(protocol)) for protocol in urls}
        assert of["openai"] is of["anthropic"] is not of["vllm"]
        assert set(pools) == set(of.values())  # what `close` closes
