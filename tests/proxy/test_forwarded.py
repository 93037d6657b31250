"""Whose address it is: networks, X-Forwarded-For, PROXY headers; first as bytes, then at a worker's socket."""

import asyncio
import socket
from collections.abc import Sequence

import pytest

from proxy.forwarded import HEADER_BYTES_MAX, Proxies, ProxyHeader, ProxyHeaderError, network_of
from tests.fakes.raw import connect
from tests.fakes.scripted import ReadRequest, Scripted, Send
from tests.fakes.worker import document_of, running
from tests.proxy.test_edge import OK, _until, post, refused

OURS = ["127.0.0.1", "10.0.0.0/8"]
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def binary(command: int, kind: int, body: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes([command, kind]) + len(body).to_bytes(2, "big") + body


def tcp4(source: str, port: int, more: bytes = b"") -> bytes:
    """Version 2, TCP over IPv4."""
    addresses = socket.inet_aton(source) + socket.inet_aton("10.9.9.9")
    return binary(0x21, 0x11, addresses + port.to_bytes(2, "big") + b"\x01\xbb" + more)


def tcp6(source: str, port: int) -> bytes:
    """Version 2, TCP over IPv6."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + bytes(16)
    return binary(0x21, 0x21, addresses + port.to_bytes(2, "big") + b"\x01\xbb")


# -- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("networks", "address", "trusted"),
    [
        (["10.0.0.0/8"], "10.255.0.1", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["10.0.0.0/8", "192.0.2.7"], "192.0.2.7", True),
        (["192.0.2.7"], "192.0.2.8", False),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "::ffff:11.1.2.3", False),
        (["::ffff:10.0.0.0/104"], "10.1.2.3", True),
        (["fd00::/8"], "fd12::1", True),
        (["fd00::/8"], "fe12::1", False),
        (["0.0.0.0/0"], "203.0.113.9", True),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["::/0"], "203.0.113.9", False),
        (["10.0.0.0/8"], "no address", False),
    ],
)
def test_trusted(networks: Sequence[str], address: str, trusted: bool) -> None:
    proxies = Proxies(networks)
    assert [proxies.trusts(address) for _ in range(2)] == [trusted] * 2


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    proxies = Proxies(["10.0.0.0/8"])
    for number in range(10_000):
        proxies.trusts(f"{number}")
    assert len(proxies._known) <= 4096


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0.1/8", "host", "10.0.0", "10.0.0.0/8 "])
def test_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        network_of(text)


# -- X-Forwarded-For -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.0.0.2,10.0.0.3"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9,"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:port"], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]x"], "10.0.0.1"),
        ("10.0.0.1", ["1" * 5000], "10.0.0.1"),
        (None, ["203.0.113.9"], None),
    ],
)
def test_client_of(peer: str | None, lines: Sequence[str], client: str | None) -> None:
    assert Proxies(["10.0.0.0/8"]).client_of(peer, lines) == client


def test_the_walk_is_bounded() -> None:
    proxies = Proxies(["10.0.0.0/8"])
    assert proxies.client_of("10.0.0.1", [", ".join(["203.0.113.9", *(["10.0.0.2"] * 31)])]) == "203.0.113.9"
    assert proxies.client_of("10.0.0.1", [", ".join(["203.0.113.9", *(["10.0.0.2"] * 32)])]) == "10.0.0.2"


# -- PROXY headers ---------------------------------------------------------------------------------------------------

HEADERS = {
    "v1 tcp4": (b"PROXY TCP4 203.0.113.9 10.0.0.9 56324 443\r\n", ("203.0.113.9", 56324)),
    "v1 tcp6": (b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n", ("2001:db8::1", 4711)),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1 unknown, more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "v2 tcp4": (tcp4("203.0.113.9", 56324), ("203.0.113.9", 56324)),
    "v2 tcp6": (tcp6("2001:db8::1", 4711), ("2001:db8::1", 4711)),
    "v2 mapped": (tcp6("::ffff:203.0.113.9", 4711), ("203.0.113.9", 4711)),
    "v2 with TLVs": (tcp4("203.0.113.9", 1, b"\x04\x00\x03abc" * 50), ("203.0.113.9", 1)),
    "v2 local": (binary(0x20, 0x00, b""), None),
    "v2 local with addresses": (binary(0x20, 0x11, bytes(12)), None),
    "v2 unspec": (binary(0x21, 0x00, b"abc"), None),
    "v2 unix": (binary(0x21, 0x31, bytes(216)), None),
    "v2 udp": (binary(0x21, 0x12, bytes(12)), None),
}
BROKEN = {
    "no CRLF": b"PROXY TCP4 203.0.113.9 10.0.0.9 56324 443\n",
    "no family": b"PROXY TCP5 203.0.113.9 10.0.0.9 56324 443\r\n",
    "too few": b"PROXY TCP4 203.0.113.9 10.0.0.9 56324\r\n",
    "two spaces": b"PROXY  TCP4 203.0.113.9 10.0.0.9 56324 443\r\n",
    "other family": b"PROXY TCP4 2001:db8::1 ::1 56324 443\r\n",
    "no address": b"PROXY TCP4 proxy.example 10.0.0.9 56324 443\r\n",
    "no port": b"PROXY TCP4 203.0.113.9 10.0.0.9 65536 443\r\n",
    "long": b"PROXY UNKNOWN " + b"a" * 107,
    "version 1 in binary": SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
    "command": SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
    "short": binary(0x21, 0x11, bytes(11)),
    "large": binary(0x21, 0x11, bytes(HEADER_BYTES_MAX)),
}
REQUESTS = {
    "get": b"GET / HTTP/1.1\r\n",
    "post": b"POST /",
    "put": b"PUT /",
    "tls": b"\x16\x03\x01",
    "empty lines": b"\r\n\r\nGET /",
}


@pytest.mark.parametrize(("header", "peer"), HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_header_in_any_pieces(header: bytes, peer: tuple[str, int] | None, step: int) -> None:
    reader = ProxyHeader()
    data = header + b"GET /"
    for start in range(0, len(data), step):
        rest = reader.take(data[start : start + step])
        if rest is not None:
            assert rest + data[start + step :] == b"GET /"
            break
    assert reader.peer == peer
    assert not reader.absent


@pytest.mark.parametrize("header", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("step", [1, 10_000])
def test_a_broken_header(header: bytes, step: int) -> None:
    reader = ProxyHeader()
    with pytest.raises(ProxyHeaderError):
        for start in range(0, len(header), step):
            assert reader.take(header[start : start + step]) is None


@pytest.mark.parametrize("data", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("step", [1, 10_000])
def test_something_else(data: bytes, step: int) -> None:
    reader = ProxyHeader()
    for start in range(0, len(data), step):
        rest = reader.take(data[start : start + step])
        if rest is not None:
            assert rest + data[start + step :] == data
            break
    assert reader.absent


# -- at a worker -----------------------------------------------------------------------------------------------------


async def test_who_is_believed() -> None:
    async with (
        Scripted(*(ReadRequest(), Send(OK)) * 3) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", trusted_proxies=["127.0.0.0/8"])) as worker,
        connect(worker.port) as client,
    ):
        for lines, address in (
            ((b"X-Forwarded-For: 203.0.113.9",), "203.0.113.9"),
            ((b"x-forwarded-for: 1.1.1.1, 203.0.113.9", b"X-FORWARDED-FOR: 127.0.0.2"), "203.0.113.9"),
            ((), "127.0.0.1"),
        ):
            client.send(post(b"{}", *lines))
            assert (await client.answer()).status == 200
            assert (await worker.fields())["client.address"] == address
        assert b"X-Forwarded-For: 203.0.113.9\r\n" in upstream.connections[0].heads[0]
        assert b"127.0.0.1" not in upstream.connections[0].heads[2].partition(b"\r\n\r\n")[0].replace(b"Host: 127", b"")


@pytest.mark.parametrize("trusted", [[], ["192.0.2.0/24"]], ids=["nobody", "others"])
async def test_who_is_not_believed(trusted: list[str]) -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", trusted_proxies=trusted)) as worker,
    ):
        async with connect(worker.port) as client:
            client.send(post(b"{}", b"X-Forwarded-For: 203.0.113.9"))
            assert (await client.answer()).status == 200
            assert (await worker.fields())["client.address"] == "127.0.0.1"
        for header in (HEADERS["v1 tcp4"][0], HEADERS["v2 tcp4"][0]):
            async with connect(worker.port) as client:
                client.send(header + post())
                await refused(client, worker, 400, "bad_request")


@pytest.mark.parametrize("header", ["v1 tcp4", "v2 tcp4"])
@pytest.mark.parametrize("apart", [False, True])
async def test_a_proxy_header_names_the_client(header: str, apart: bool) -> None:
    data, _ = HEADERS[header]
    async with (
        Scripted(*(ReadRequest(), Send(OK)) * 2) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", trusted_proxies=["127.0.0.1"])) as worker,
        connect(worker.port) as client,
    ):
        if apart:
            client.send(data[:5])
            await _until(lambda: [edge for edge in worker.server.live if edge._head_at])
            client.send(data[5:])
            client.send(post())
        else:
            client.send(data + post())
        assert (await client.answer()).status == 200
        client.send(post(b"{}", b"X-Forwarded-For: 198.51.100.1"))  # of whom the header named, who is nobody's proxy
        assert (await client.answer()).status == 200
        assert [(await worker.fields())["client.address"] for _ in range(2)] == ["203.0.113.9"] * 2
        assert upstream.connections[0].heads[0].startswith(b"POST ")


async def test_a_proxy_header_of_a_trusted_proxy_goes_on_with_x_forwarded_for() -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(
            document_of(f"http://127.0.0.1:{upstream.port}", trusted_proxies=["127.0.0.1", "10.0.0.0/8"])
        ) as worker,
        connect(worker.port) as client,
    ):
        client.send(b"PROXY TCP4 10.1.1.1 10.9.9.9 1 2\r\n" + post(b"{}", b"X-Forwarded-For: 198.51.100.1, 10.2.2.2"))
        assert (await client.answer()).status == 200
        assert (await worker.fields())["client.address"] == "198.51.100.1"


async def test_a_proxy_that_only_looks_whether_we_are_there() -> None:
    """Its own connection, without a client: LOCAL, and with nothing behind it."""
    async with (
        running(document_of("http://127.0.0.1:9", trusted_proxies=["127.0.0.1"])) as worker,
        connect(worker.port) as client,
    ):
        client.send(HEADERS["v2 local"][0])
        client.writer.write_eof()
        assert await client.rest() == (b"", "fin")
        assert worker.records.empty()


@pytest.mark.parametrize("header", BROKEN.values(), ids=BROKEN)
async def test_a_broken_proxy_header_is_a_bad_request(header: bytes) -> None:
    async with (
        running(document_of("http://127.0.0.1:9", trusted_proxies=["127.0.0.1"])) as worker,
        connect(worker.port) as client,
    ):
        client.send(header)
        await refused(client, worker, 400, "bad_request")


async def test_a_slow_proxy_header_is_refused() -> None:
    limits = {"head_timeout_ms": 100}
    async with (
        running(document_of("http://127.0.0.1:9", trusted_proxies=["127.0.0.1"], limits=limits)) as worker,
        connect(worker.port) as client,
    ):
        client.send(b"PROXY TCP4 203.0.")
        await refused(client, worker, 408, "client_timeout")


async def test_a_request_that_cannot_be_read_has_the_address_too() -> None:
    async with (
        running(document_of("http://127.0.0.1:9", trusted_proxies=["127.0.0.1"])) as worker,
        connect(worker.port) as client,
    ):
        client.send(HEADERS["v1 tcp4"][0] + b"NONSENSE\r\n\r\n")
        assert (await asyncio.wait_for(client.answer(), 10)).status == 400
        assert (await worker.fields())["client.address"] == "203.0.113.9"
