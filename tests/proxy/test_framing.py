"""Strict heads and the end of chunked bodies, each case whole and in pieces."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.framing import ChunkedBody, FramingError, HeadCollector, HeadTooLargeError, head_fault

GOOD_HEADS = {
    "plain": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "query and encoded path": b"POST /v1/a%2Fb?x=%2e%2e/..&y HTTP/1.1\r\nHost: x\r\n\r\n",
    "dots that are no segments": b"GET /a..b/.c/d./... HTTP/1.1\r\nHost: x\r\n\r\n",
    "chunked, any case": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:  Chunked \r\n\r\n",
    "tab and empty values": b"GET / HTTP/1.1\r\nHost:\tx\r\nX-Empty:\r\n\r\n",
    "obs-text in a value": b"GET / HTTP/1.1\r\nHost: x\r\nX: \xc3\xa9\xff\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "underscore elsewhere": b"GET / HTTP/1.1\r\nHost: x\r\nX_Custom: 1\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "a host behind other lines": b"GET / HTTP/1.1\r\nA: b\r\nHOST: my_host.example:8080\r\n\r\n",
    "an address": b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80 \r\n\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "Connection": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close, x-own, hosts, content-lengths\r\n\r\n",
    "encoded letters": b"GET /a%20b%e9 HTTP/1.1\r\nHost: x\r\n\r\n",
}
BAD_HEADS = {
    "two spaces before the target": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "request line"),
    "two spaces before the version": (b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n", "request line"),
    "HTTP/0.9": (b"GET /\r\n\r\n", "request line"),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", "version"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", "request line"),
    "fragment": (b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", "request line"),
    "absolute-form": (b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "request line"),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT"),
    "* without OPTIONS": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS"),
    "lower-case method": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", "request line"),
    "dot segment": (b"GET /a/../b HTTP/1.1\r\nHost: x\r\n\r\n", "dot segment"),
    "dot segment at the end": (b"GET /a/.. HTTP/1.1\r\nHost: x\r\n\r\n", "dot segment"),
    "single dot": (b"GET /a/./b HTTP/1.1\r\nHost: x\r\n\r\n", "dot segment"),
    "encoded dot segment": (b"GET /a/%2e%2E/b HTTP/1.1\r\nHost: x\r\n\r\n", "dot segment"),
    "half encoded": (b"GET /a/.%2e/b HTTP/1.1\r\nHost: x\r\n\r\n", "dot segment"),
    "encoded slash behind dots": (b"GET /a/..%2fb HTTP/1.1\r\nHost: x\r\n\r\n", "dot segment"),
    "obs-fold": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", "header line"),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", "header line"),
    "bare LF in headers": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", "header line"),
    "bare CR in a value": (b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", "header line"),
    "NUL": (b"GET / HTTP/1.1\r\nHost: x\x00\r\n\r\n", "header line"),
    "control character": (b"GET / HTTP/1.1\r\nHost: x\x01\r\n\r\n", "header line"),
    "no colon": (b"GET / HTTP/1.1\r\nHost\r\n\r\n", "header line"),
    "empty name": (b"GET / HTTP/1.1\r\n: x\r\n\r\n", "header line"),
    "gzip, chunked": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "single chunked"),
    "chunked, chunked": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        "single chunked",
    ),
    "chunked twice": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        "single chunked",
    ),
    "identity": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", "single chunked"),
    "on HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"),
    "both lengths": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        "exclude each other",
    ),
    "dot segment behind a backslash": (b"GET /a\\..\\b HTTP/1.1\r\nHost: x\r\n\r\n", "dot segment"),
    "dot segment with a parameter": (b"GET /a/..;b/c HTTP/1.1\r\nHost: x\r\n\r\n", "dot segment"),
    "backslash": (b"GET /a\\b HTTP/1.1\r\nHost: x\r\n\r\n", "backslash"),
    "encoded backslash": (b"GET /a%5Cb HTTP/1.1\r\nHost: x\r\n\r\n", "backslash"),
    "encoded NUL": (b"GET /a%00 HTTP/1.1\r\nHost: x\r\n\r\n", "control character"),
    "CONNECT with a path": (b"CONNECT /a HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT"),
    "a host with a path": (b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", "Host"),
    "a host with a user": (b"GET / HTTP/1.1\r\nA: b\r\nhost: u@x\r\n\r\n", "Host"),
    "a list of hosts": (b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", "Host"),
    "Connection: host": (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close, Host\r\n\r\n", "Connection"),
    "a second Connection": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: b\r\nConnection:content-type ,x\r\n\r\n",
        "Connection",
    ),
    "Content_Type": (b"POST / HTTP/1.1\r\nHost: x\r\nContent_Type: a/b\r\n\r\n", "underscore"),
    "Content_Length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent_Length: 3\r\n\r\n", "underscore"),
    "Transfer_Encoding beside": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer_Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "underscore",
    ),
}


@pytest.mark.parametrize("head", GOOD_HEADS.values(), ids=GOOD_HEADS)
def test_strict_heads_pass(head: bytes) -> None:
    assert head_fault(head) is None


@pytest.mark.parametrize(("head", "words"), BAD_HEADS.values(), ids=BAD_HEADS)
def test_other_heads_are_refused_with_the_rule_and_not_the_line(head: bytes, words: str) -> None:
    fault = head_fault(head)
    assert fault is not None
    assert words in fault
    assert "x:443" not in fault


@pytest.mark.parametrize("head", GOOD_HEADS.values(), ids=GOOD_HEADS)
@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("step", [1, 7, 100000])
def test_heads_are_collected_one_after_the_other(head: bytes, before: bytes, step: int) -> None:
    collector = HeadCollector(4096)
    for _ in range(2):
        data, found = before + head + b"GET", None
        for at in range(0, len(data), step):
            if found := collector.take(data[at : at + step]):
                break
        assert found is not None
        assert found[0] == head
        assert b"GET".startswith(found[1])
        assert not collector.begun


@pytest.mark.parametrize("head", [case[0] for case in BAD_HEADS.values()], ids=BAD_HEADS)
@pytest.mark.parametrize("step", [1, 7, 100000])
def test_a_bad_head_is_refused_in_pieces_too(head: bytes, step: int) -> None:
    collector = HeadCollector(4096)
    with pytest.raises(FramingError):
        for at in range(0, len(head), step):
            collector.take(head[at : at + step])


PARTIAL_HEADS = {
    "a bare LF": (b"GET / HTTP/1.1\nHost", FramingError, "a bare LF"),
    "a bare LF first": (b"\n", FramingError, "a bare LF"),
    "a TLS hello on a plain port": (b"\x16\x03\x01\x02", FramingError, "not an HTTP/1.x request"),
    "a CR that begins no empty line": (b"\rGET", FramingError, "not an HTTP/1.x request"),
    "three empty lines": (b"\r\n\r\n\r\n", FramingError, "empty lines"),
    "too many bytes": (b"GET / HTTP/1.1\r\nX: " + b"a" * 100, HeadTooLargeError, "larger than"),
}


@pytest.mark.parametrize(("head", "error", "words"), PARTIAL_HEADS.values(), ids=PARTIAL_HEADS)
@pytest.mark.parametrize("step", [1, 3, 100000])
def test_a_partial_head_is_refused_as_soon_as_it_cannot_become_one(
    head: bytes, error: type[FramingError], words: str, step: int
) -> None:
    collector = HeadCollector(64)
    with pytest.raises(error, match=words):
        for at in range(0, len(head), step):
            collector.take(head[at : at + step])


def test_empty_lines_begin_no_head_and_are_counted_for_each() -> None:
    collector = HeadCollector(4096)
    assert collector.take(b"\r\n\r") is None
    assert collector.begun  # half an empty line is something that is awaited
    assert collector.take(b"\n") is None
    assert not collector.begun
    assert collector.take(b"GET / HTTP/1.1\r\n\r\n\r\n\r\n") == (b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n")
    assert collector.take(b"\r\n\r\n") is None
    with pytest.raises(FramingError):
        collector.take(b"\r\n")


def test_a_head_that_trickles_in_is_looked_at_once() -> None:
    head = b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 15000 + b"\r\n"
    collector = HeadCollector(len(head))
    began_s = time.process_time()
    found = None
    for at in range(0, len(head), 8):
        found = collector.take(head[at : at + 8])
    assert found == (head, b"")
    assert time.process_time() - began_s < 1.0  # it takes 0.01 s; looking at all of it for every piece took 9 s


BODIES = {
    "one chunk": b"3\r\nabc\r\n0\r\n\r\n",
    "several, with extension and padding": b"1;a=b\r\nx\r\n0A \t;q\r\n0123456789\r\n00\r\n\r\n",
    "with trailers": b"2\r\n\r\n\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
    "empty": b"0\r\n\r\n",
    "tiny ones in every spelling": b"1\r\n\n\r\n"
    + b"0002;\r\n\r\n\r\nF \t;a=b\r\n0\r\n\r\n0123456789\r\n000000000000000b\r\n"
    + b"x" * 11
    + b"\r\n10\r\n0123456789abcdef\r\na\r\n0123456789\r\n0\r\n\r\n",
}
BAD_BODIES = {
    "no number": b"ZZ\r\nxx\r\n",
    "negative": b"-1\r\n",
    "prefix": b"0x3\r\nabc\r\n",
    "too many digits": b"00000000000000003\r\nabc\r\n",
    "longer data behind tiny chunks": b"1\r\na\r\n1\r\nb\r\n1\r\ncd\r\n0\r\n\r\n",
    "shorter data behind tiny chunks": b"1\r\na\r\n3\r\nb\r\n0\r\n\r\n",
    "bare LF in a run of tiny chunks": b"1\r\na\r\n1\nb\r\n0\r\n\r\n",
    "longer data": b"3\r\nabcd\r\n0\r\n\r\n",
    "bare LF behind the size": b"3\nabc\r\n0\r\n\r\n",
    "bare LF behind the data": b"3\r\nabc\n0\r\n\r\n",
    "endless size line": b"1;" + b"a" * 400,
    "endless trailers": b"0\r\n" + b"X: 1\r\n" * 2000,
    "a trailer without colon": b"0\r\nX\r\n\r\n",
    "a folded trailer": b"0\r\nX: 1\r\n 2\r\n\r\n",
    "a NUL in a trailer": b"0\r\nX: \0\r\n\r\n",
    "a bare CR in a trailer": b"0\r\nX: a\rb\r\n\r\n",
    "a trailer that frames": b"0\r\nContent-Length: 1\r\n\r\n",
    "a trailer that frames, underscored": b"0\r\ntransfer_encoding: chunked\r\n\r\n",
    "a trailer that routes": b"0\r\nHOST: x\r\n\r\n",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("tail", [b"", b"GET / HTTP/1.1\r\n", b"\r\n0\r\n\r\n"])
def test_the_end_of_a_chunked_body_is_found_whole_and_byte_by_byte(body: bytes, tail: bytes) -> None:
    whole = ChunkedBody()
    assert whole.scan(body + tail) == len(body)
    assert whole.done
    pieces = ChunkedBody()
    for at in range(len(body)):
        assert not pieces.done
        assert pieces.scan(body[at : at + 1]) == 1
    assert pieces.done


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@given(cuts=st.lists(st.integers(0, 80), max_size=5))
def test_chunks_and_trailers_are_told_apart(body: bytes, cuts: list[int]) -> None:
    """What a parser is shown of the pieces is the body without its trailers."""
    end = body.rindex(b"0\r\n", 0, body.index(b"\r\n\r\n", body.rindex(b"0\r\n")) + 2) + 3
    scanner, shown, bounds = ChunkedBody(), b"", [0, *sorted(min(at, len(body)) for at in cuts), len(body)]
    for start, stop in itertools.pairwise(bounds):
        piece = body[start:stop]
        scanner.scan(piece)
        shown += piece[: scanner.chunks_end]
    assert scanner.done
    assert shown == body[:end]


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    tail=st.binary(max_size=20),
    cuts=st.lists(st.integers(1, 60), min_size=1),
)
def test_any_chunking_finds_the_same_end(chunks: list[bytes], tail: bytes, cuts: list[int]) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    data, scanner, taken, turn = body + tail, ChunkedBody(), 0, 0
    while not scanner.done:
        piece = data[taken : taken + cuts[turn % len(cuts)]]
        taken += scanner.scan(piece)
        turn += 1
    assert taken == len(body)


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
@pytest.mark.parametrize("step", [1, 7, 100000])
def test_malformed_chunks_are_errors(body: bytes, step: int) -> None:
    scanner = ChunkedBody()
    with pytest.raises(FramingError):
        for at in range(0, len(body), step):
            scanner.scan(body[at : at + step])


@pytest.mark.parametrize("chunk", [b"1\r\na\r\n", b"01;\r\na\r\n"])
def test_tiny_chunks_cost_little(chunk: bytes) -> None:
    data = chunk * (1_000_000 // len(chunk))
    began_s = time.process_time()
    assert ChunkedBody().scan(data) == len(data)
    assert time.process_time() - began_s < 0.08  # it takes 0.01 s; one by one it took 0.2 s
