"""What an upstream's URLs may lead to: nowhere nearer than the upstream itself."""

from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest

from proxy.config import file as config_file
from proxy.config.compile import compile_snapshot
from proxy.config.targets import Egress, Service, Tls
from proxy.errors import UpstreamError
from proxy.translate.downloads import IMAGES_MAX, Downloads, place_of
from proxy.translate.reach import Reach, reach_of, reach_of_host
from proxy.upstream.pools import Pools
from proxy.upstream.resolver import Resolver
from tests.fakes.dashscope_images import DashScopeImages
from tests.fakes.names import found
from tests.fakes.scripted import ReadRequest, Reset, Scripted, Send
from tests.fakes.worker import document_of

WORLD, NETWORK, MACHINE = Reach


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("8.8.8.8", WORLD),
        ("2606:4700::1111", WORLD),
        ("10.0.0.1", NETWORK),
        ("192.168.1.1", NETWORK),
        ("127.0.0.1", NETWORK),
        ("0.0.0.0", NETWORK),
        ("::1", NETWORK),
        ("fd00::1", NETWORK),
        ("::ffff:10.0.0.1", NETWORK),
        ("100.64.0.1", NETWORK),
        ("100.100.100.200", MACHINE),
        ("169.254.169.254", MACHINE),
        ("::ffff:169.254.169.254", MACHINE),
        ("fe80::1%eth0", MACHINE),
        ("fd00:ec2::254", MACHINE),
        ("", WORLD),
    ],
)
def test_addresses(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("example.com", WORLD),
        ("8.8.8.8", WORLD),
        ("10.0.0.1", NETWORK),
        ("localhost", NETWORK),
        ("a.LocalHost.", NETWORK),
        ("169.254.169.254", MACHINE),
        ("169.254.169.254.", MACHINE),
        ("0x7f.1", MACHINE),
        ("2852039166", MACHINE),
        ("0xa9fea9fe", MACHINE),
        ("a1.b2", WORLD),
        ("::1", NETWORK),
        ("2606:4700::1", WORLD),
    ],
)
def test_hosts_that_others_look_up(host: str, reach: Reach) -> None:
    assert reach_of_host(host) is reach


def service(base_url: str = "https://dashscope.example") -> Service:
    document = orjson.dumps(document_of(base_url, provider="dashscope")).decode()
    return compile_snapshot(config_file.parse(document, {}, "test"), 7, {}).services["sim"]


@pytest.fixture
async def store() -> AsyncIterator[DashScopeImages]:
    async with DashScopeImages() as store:
        store.stored = {"a": b"x"}
        yield store


async def fetch(url: str, peer: str, egress: Egress | None = None, times: int = 1) -> int:
    """How many images can be had for a service that is at `peer`, where every name leads to this machine."""
    pools = Pools(Resolver(found("127.0.0.1")))
    async with Downloads(pools, replace(service(), egress=egress), peer) as downloads:
        return len(await downloads.open([url] * times))


@pytest.mark.parametrize("host", ["127.0.0.1", "store.example"])
@pytest.mark.parametrize("peer", ["8.8.8.8", ""])
async def test_a_service_of_the_world_cannot_have_our_own_network_asked(
    store: DashScopeImages, host: str, peer: str
) -> None:
    url = f"{store.url}/stored/a".replace("127.0.0.1", host)
    assert await fetch(url, "10.0.0.1") == 1
    assert len(store.fetched) == 1
    with pytest.raises(UpstreamError, match="where the service itself is not"):
        await fetch(url, peer)
    assert len(store.fetched) == 1, "it was asked all the same"


async def test_one_of_our_network_cannot_have_our_machine_asked() -> None:
    with pytest.raises(UpstreamError, match="where the service itself is not"):
        await fetch("http://169.254.169.254/latest/meta-data", "10.0.0.1")


async def test_behind_an_egress_proxy_the_host_tells() -> None:
    egress = Egress("127.0.0.1", 1)
    for url in ("http://localhost/a", "http://0x7f.1/a", "http://[::1]/a"):
        with pytest.raises(UpstreamError, match="where the service itself is not"):
            await fetch(url, "127.0.0.1", egress)
    with pytest.raises(UpstreamError, match="egress proxy"):  # it is asked, and there is none
        await fetch("http://store.example/a", "127.0.0.1", egress)


async def test_there_are_not_more_connections_than_images_may_be(store: DashScopeImages) -> None:
    assert await fetch(f"{store.url}/stored/a", "10.0.0.1", times=IMAGES_MAX) == IMAGES_MAX
    with pytest.raises(UpstreamError, match="more than"):
        await fetch(f"{store.url}/stored/a", "10.0.0.1", times=IMAGES_MAX + 1)
    assert len(store.fetched) == IMAGES_MAX


async def test_an_image_comes_by_a_connection_of_its_own() -> None:
    """At the service's own address there may be idle ones, which may be dead."""
    once = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    async with Scripted(ReadRequest(), Send(once), ReadRequest(), Reset()) as upstream:
        known = service(f"http://127.0.0.1:{upstream.port}")
        pools = Pools()
        pools.adopt([known])
        connection = await pools.of(known).acquire()
        connection.begin(b"GET", 1000)
        connection.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.request_complete = True
        assert (await connection.read_head()).status == 200
        assert await connection.read() == b"x"
        pools.of(known).release(connection)
        assert pools.of(known).idle_connections == 1
        async with Downloads(pools, known, "127.0.0.1") as downloads:
            assert len(await downloads.open([f"http://127.0.0.1:{upstream.port}/a"])) == 1
        pools.close()


def test_the_certificate_of_the_gateway_is_for_the_service_alone() -> None:
    tls = Tls(ca="ca.pem", certificate="own.pem", key="own.key")
    known = replace(service(), tls=tls)
    assert place_of("https://dashscope.example/a", known)[0].tls == tls
    for elsewhere in ("https://store.example/a", "https://dashscope.example:444/a"):
        assert place_of(elsewhere, known)[0].tls == Tls(ca="ca.pem")
