"""Which lines of a head go on, where no random head of tests/e2e/test_fidelity.py gets to."""

from dataclasses import dataclass, field

import pytest

from proxy import headers
from proxy.headers import request_head, response_head

Lines = list[tuple[bytes, bytes]]


@dataclass
class Upstream:
    headers: Lines
    status: int = 200
    reason: bytes = b"OK"
    connection: bytes | None = field(init=False)

    def __post_init__(self) -> None:
        self.connection = b",".join(v for n, v in self.headers if n.lower() == b"connection") or None


def answered(upstream: Upstream, framing: str) -> bytes:
    return response_head(upstream, b"", framing=framing, keep_alive=True, http_1_0=False)


def asked(client: Lines, own: Lines, *, pass_codings: bool = True) -> list[bytes]:
    head = request_head(
        b"POST",
        b"/",
        b"host",
        client,
        headers.added(own),
        content_length=None,
        chunked=False,
        pass_codings=pass_codings,
    )
    return head.split(b"\r\n")[2:-2]


def test_the_length_of_an_answer_stays_whatever_connection_names() -> None:
    upstream = Upstream([(b"Connection", b"Content-Length, x-a"), (b"X-A", b"1"), (b"Content-length", b"5")])
    assert answered(upstream, "length") == b"HTTP/1.1 200 OK\r\nContent-length: 5\r\n\r\n"


@pytest.mark.parametrize(("status", "kept"), [(200, True), (304, True), (204, False)])  # 200: to a HEAD
def test_the_length_of_an_answer_without_body(status: int, kept: bool) -> None:
    head = answered(Upstream([(b"Content-Length", b"0")], status), "none")
    assert (b"Content-Length" in head) is kept


def test_a_length_that_is_the_upstreams_own_framing_goes() -> None:
    assert b"5" not in answered(Upstream([(b"Content-Length", b"5")]), "chunked")


def test_a_services_coding_replaces_the_clients() -> None:
    client = [(b"Accept-Encoding", b"gzip"), (b"ACCEPT-encoding", b"deflate"), (b"x-b", b"1")]
    own = [(b"accept-encoding", b"identity")]
    assert asked(client, own) == [b"x-b: 1", b"accept-encoding: identity"]
    assert asked(client, []) == [b"Accept-Encoding: gzip", b"ACCEPT-encoding: deflate", b"x-b: 1"]
    assert asked(client, own, pass_codings=False) == [b"x-b: 1", b"accept-encoding: identity"]


@pytest.mark.parametrize(
    ("value", "narrowed"),
    [
        (b"gzip, deflate, br, zstd", b"gzip, deflate, br, zstd"),
        (b"compress;q=1.0 , GZIP;q=0.5,BR,dcb,identity; q=0", b"GZIP;q=0.5, BR, identity; q=0"),
        (b"dcz", b""),
        (b"*", b""),
        (b"", b""),
        (b"dcb," * 100 + b"gzip", b"gzip"),
    ],
)
def test_codings_are_narrowed_to_what_can_be_read(value: bytes, narrowed: bytes) -> None:
    for _ in range(2):  # worked out, and remembered
        assert headers.narrow_codings(value) == narrowed


def test_what_is_remembered_of_codings_is_bounded() -> None:
    for number in range(300):
        headers.narrow_codings(b"gzip, x-%d" % number)
    full = headers._narrowed.cache_info()
    headers.narrow_codings(b"gzip, " + b"x" * 1000)
    assert headers._narrowed.cache_info() == full
    assert full.currsize == full.maxsize == 256


def test_what_is_learnt_of_names_is_bounded() -> None:
    fates = headers._fates({b"te": headers.DROP})
    for number in range(2 * fates.MAX_SPELLINGS):
        assert fates[b"n" * 1000 + b"%d" % number] == headers.PASS
    assert len(fates) == 0
    for number in range(2 * fates.MAX_SPELLINGS):
        assert (fates[b"n%d" % number], fates[b"TE"]) == (headers.PASS, headers.DROP)
    assert len(fates) == fates.MAX_SPELLINGS
