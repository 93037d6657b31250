"""What makes a response: a table of whole ones, each cut in every way that a network may cut it.

The bytes go straight into `Connection.data_received()` through a transport that is none: the narrowest seam there is.
"""

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import UpstreamError
from proxy.outbox import Outbox
from proxy.upstream.connection import Connection
from proxy.upstream.response import (
    FRAMING_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    INTERIM_MAX,
    ResponseHead,
    ResponseReader,
)

End = Literal["open", "fin", "reset"]


class Transport(asyncio.Transport):
    """Takes what a transport is told, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.paused = False
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True


@dataclass
class Reading:
    """What came out of a connection that was fed with pieces."""

    head: ResponseHead | None
    body: bytes
    complete: bool
    reusable: bool
    error: str | None
    message: str = ""


@pytest.fixture(scope="module")
def parked_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Never run: `data_received()` only asks it for the time."""
    parked = asyncio.new_event_loop()
    yield parked
    parked.close()


def play(
    parked_loop: asyncio.AbstractEventLoop, pieces: Iterable[bytes], end: End = "open", method: bytes = b"POST"
) -> Reading:
    """One exchange: the pieces arrive one by one, then the connection ends or stays open."""
    connection = Connection(parked_loop, lambda _: None, Outbox(parked_loop))
    transport = Transport()
    connection.connection_made(transport)
    connection.begin(method, idle_timeout_ms=0)
    connection.request_complete = True
    body = []
    for piece in pieces:
        if transport.paused and (data := connection.read_nowait()):
            body.append(data)
        connection.data_received(piece)
        if transport.aborted:
            break
    if end == "fin":
        connection.eof_received()
        connection.connection_lost(None)
    elif end == "reset":
        connection.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
    error = None
    try:
        while data := connection.read_nowait():
            body.append(data)
    except UpstreamError as failure:
        error = failure
    head = connection._response.head
    complete = connection.body_complete
    assert connection.held_bytes == 0
    return Reading(
        head,
        b"".join(body),
        complete,
        connection.finish(),
        None if error is None else error.kind,
        "" if error is None else error.message,
    )


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def bytewise(data: bytes) -> list[bytes]:
    return cut(data, range(len(data)))


@dataclass(frozen=True)
class Whole:
    """A response, and what it is."""

    name: str
    data: bytes
    status: int
    body: bytes = b""
    framing: str = "length"
    reusable: bool = True
    method: bytes = b"POST"
    end: End = "open"
    reason: bytes = b"OK"
    version: str = "1.1"
    length: int | None = None
    headers: int = 1


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

WHOLES = [
    Whole("length", OK + b"Content-Length: 5\r\n\r\nhello", 200, b"hello", length=5),
    Whole("length of nothing", OK + b"content-length: 0\r\n\r\n", 200, length=0),
    Whole("trailing space in the length", OK + b"content-length: 5 \r\n\r\nhello", 200, b"hello", length=5),
    Whole("long", OK + b"content-length: 3000\r\n\r\n" + b"abc" * 1000, 200, b"abc" * 1000, length=3000),
    Whole("chunked", CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", 200, b"hello!", "chunked"),
    Whole("chunked, nothing", CHUNKED + b"0\r\n\r\n", 200, b"", "chunked"),
    Whole(
        "chunked, upper case",
        OK + b"TRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        200,
        b"0123456789",
        "chunked",
    ),
    Whole("chunk extensions", CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;last\r\n\r\n', 200, b"hello", "chunked"),
    Whole("trailers", CHUNKED + b"5\r\nhello\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n", 200, b"hello", "chunked"),
    Whole("until the end", OK + b"\r\nhello", 200, b"hello", "eof", reusable=False, end="fin", headers=0),
    Whole("until the end, nothing", OK + b"\r\n", 200, b"", "eof", reusable=False, end="fin", headers=0),
    Whole("204", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", "none", reason=b"No Content", headers=0),
    Whole(
        "204 with a length",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
        204,
        b"",
        "none",
        reason=b"No Content",
        length=5,
    ),
    Whole(
        "304 with a length",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        304,
        b"",
        "none",
        reason=b"Not Modified",
        length=5,
    ),
    Whole("HEAD with a length", OK + b"content-length: 5\r\n\r\n", 200, b"", "none", method=b"HEAD", length=5),
    Whole("HEAD without", OK + b"\r\n", 200, b"", "none", method=b"HEAD", headers=0),
    Whole("HEAD, chunked", CHUNKED, 200, b"", "none", method=b"HEAD"),
    Whole(
        "connection: close",
        OK + b"Connection: Close\r\ncontent-length: 2\r\n\r\nhi",
        200,
        b"hi",
        reusable=False,
        length=2,
        headers=2,
    ),
    Whole(
        "close among others",
        OK + b"connection: x, close\r\nconnection: y\r\ncontent-length: 2\r\n\r\nhi",
        200,
        b"hi",
        reusable=False,
        length=2,
        headers=3,
    ),
    Whole(
        "connection: keep-alive",
        OK + b"connection: keep-alive\r\ncontent-length: 2\r\n\r\nhi",
        200,
        b"hi",
        length=2,
        headers=2,
    ),
    Whole(
        "HTTP/1.0",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        200,
        b"hi",
        reusable=False,
        version="1.0",
        length=2,
    ),
    Whole(
        "HTTP/1.0 kept alive",
        b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 2\r\n\r\nhi",
        200,
        b"hi",
        version="1.0",
        length=2,
        headers=2,
    ),
    Whole("100 first", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 2\r\n\r\nhi", 200, b"hi", length=2),
    Whole(
        "1xx with headers first",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\ncontent-length: 7\r\n\r\n" * INTERIM_MAX
        + OK
        + b"content-length: 2\r\n\r\nhi",
        200,
        b"hi",
        length=2,
    ),
    Whole("no reason", b"HTTP/1.1 599 \r\ncontent-length: 0\r\n\r\n", 599, reason=b"", length=0),
    Whole(
        "reason that is not ASCII",
        b"HTTP/1.1 404 nicht gefunden \xfc\r\ncontent-length: 0\r\n\r\n",
        404,
        reason=b"nicht gefunden \xfc",
        length=0,
    ),
    Whole(
        "upgrade offered, not made",
        b"HTTP/1.1 200 OK\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nhi",
        200,
        b"hi",
        length=2,
        headers=3,
    ),
    Whole(
        "as many headers as may be",
        OK + b"a: b\r\n" * (HEADERS_MAX - 1) + b"content-length: 0\r\n\r\n",
        200,
        length=0,
        headers=HEADERS_MAX,
    ),
]


def check(case: Whole, reading: Reading, *, reusable: bool) -> None:
    head = reading.head
    assert head is not None, reading
    assert (head.status, head.reason, head.http_version) == (case.status, case.reason, case.version)
    assert (head.framing, head.content_length, len(head.headers)) == (case.framing, case.length, case.headers)
    assert (reading.error, reading.complete, reading.body, reading.reusable) == (None, True, case.body, reusable)


wholes = pytest.mark.parametrize("case", WHOLES, ids=lambda case: case.name)


@wholes
def test_whole(parked_loop: asyncio.AbstractEventLoop, case: Whole) -> None:
    check(case, play(parked_loop, [case.data], case.end, case.method), reusable=case.reusable)


@wholes
def test_byte_by_byte(parked_loop: asyncio.AbstractEventLoop, case: Whole) -> None:
    check(case, play(parked_loop, bytewise(case.data), case.end, case.method), reusable=case.reusable)


@pytest.mark.parametrize("surplus", [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 2", b"garbage", b"\0"])
@wholes
def test_with_surplus(parked_loop: asyncio.AbstractEventLoop, case: Whole, surplus: bytes) -> None:
    """What follows a response belongs to nobody: the response is good, the connection is not."""
    if case.framing == "eof":
        surplus = b""  # nothing can follow it
    for pieces in ([case.data + surplus], [case.data, surplus], bytewise(case.data + surplus)):
        check(case, play(parked_loop, [p for p in pieces if p], case.end, case.method), reusable=False)


@settings(max_examples=150, deadline=None)
@given(case=st.sampled_from(WHOLES), data=st.data())
def test_cut_anywhere(parked_loop: asyncio.AbstractEventLoop, case: Whole, data: Any) -> None:
    places = data.draw(st.lists(st.integers(1, len(case.data)), max_size=12))
    check(case, play(parked_loop, cut(case.data, places), case.end, case.method), reusable=case.reusable)


@settings(max_examples=150, deadline=None)
@given(
    case=st.sampled_from([c for c in WHOLES if c.framing != "eof"]),
    data=st.data(),
    end=st.sampled_from(["fin", "reset"]),
)
def test_cut_off_anywhere(parked_loop: asyncio.AbstractEventLoop, case: Whole, data: Any, end: End) -> None:
    """A response that breaks off is never taken for a whole one, and what came of it is what was sent."""
    length = data.draw(st.integers(0, len(case.data) - 1))
    places = data.draw(st.lists(st.integers(1, max(length, 1)), max_size=4))
    reading = play(parked_loop, [p for p in cut(case.data[:length], places) if p], end, case.method)
    assert not reading.complete
    assert not reading.reusable
    assert case.body.startswith(reading.body)
    if reading.head is None:
        assert reading.error == "upstream_protocol"
        assert ("reset" in reading.message) == (end == "reset")
        assert ("before" in reading.message) == (length == 0)
    else:
        assert reading.error == {"fin": "upstream_truncated", "reset": "upstream_reset"}[end]


@settings(max_examples=150, deadline=None)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=20),
    places=st.lists(st.integers(1, 4000), max_size=30),
)
def test_chunked_bodies(parked_loop: asyncio.AbstractEventLoop, chunks: list[bytes], places: list[int]) -> None:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    reading = play(parked_loop, cut(CHUNKED + framed + b"0\r\n\r\n", places))
    assert (reading.body, reading.complete, reading.reusable) == (b"".join(chunks), True, True)


HUGE = HEAD_BYTES_MAX + 1
LENGTH = b"content-length: 0\r\n\r\n"

REFUSED_HEADS = {
    "NUL in a value": OK + b"a: b\0c\r\n" + LENGTH,
    "CR in a value": OK + b"a: b\rc\r\n" + LENGTH,
    "LF in a value": OK + b"a: b\nc\r\n" + LENGTH,
    "a header injected by a bare LF": OK + b"a: b\nset-cookie: c\r\n" + LENGTH,
    "control character in a value": OK + b"a: b\x01c\r\n" + LENGTH,
    "lines that end with LF": OK.replace(b"\r", b"") + LENGTH.replace(b"\r", b""),
    "obs-fold": OK + b"a: b\r\n c\r\n" + LENGTH,
    "obs-fold of nothing": OK + b"a:\r\n\tc\r\n" + LENGTH,
    "space before the colon": OK + b"a : b\r\n" + LENGTH,
    "space before the name": OK + b" a: b\r\n" + LENGTH,
    "no name": OK + b": b\r\n" + LENGTH,
    "no colon": OK + b"ab\r\n" + LENGTH,
    "two lengths": OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "the same length twice": OK + b"content-length: 1\r\ncontent-length: 1\r\n\r\na",
    "list of lengths": OK + b"content-length: 1, 1\r\n\r\na",
    "signed length": OK + b"content-length: +1\r\n\r\na",
    "negative length": OK + b"content-length: -1\r\n\r\na",
    "no length": OK + b"content-length:\r\n\r\na",
    "length over 64 bits": OK + b"content-length: 99999999999999999999\r\n\r\na",
    "length and chunked": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "gzip, chunked": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, gzip": OK + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "tab behind chunked": OK + b"transfer-encoding: chunked \t\r\n\r\n0\r\n\r\n",
    "identity": OK + b"transfer-encoding: identity\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 Low\r\n" + LENGTH,
    "status 600": b"HTTP/1.1 600 High\r\n" + LENGTH,
    "status 20": b"HTTP/1.1 20 Short\r\n" + LENGTH,
    "status 2000": b"HTTP/1.1 2000 Long\r\n" + LENGTH,
    "no status": b"HTTP/1.1 OK\r\n" + LENGTH,
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\n" + LENGTH,
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n" + LENGTH,
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n" + LENGTH,
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n" + LENGTH,
    "an HTTP/2 server's first frame": b"\0\0\x12\4\0\0\0\0\0\0\3\0\0\0\x80\0\4\0\1\0\0\0\5\0\xff\xff\xff",
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x0a",
    "an HTML page": b"<html>502 Bad Gateway</html>\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\0",
    "101 without headers": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "too many 1xx": b"HTTP/1.1 102 Processing\r\n\r\n" * (INTERIM_MAX + 1) + OK + LENGTH,
    "too many headers": OK + b"a: b\r\n" * HEADERS_MAX + LENGTH,
    "one huge header": OK + b"a: " + b"b" * HUGE + b"\r\n" + LENGTH,
    "huge headers": OK + (b"a: " + b"b" * 1000 + b"\r\n") * 70 + LENGTH,
    "huge reason": b"HTTP/1.1 200 " + b"b" * HUGE + b"\r\n" + LENGTH,
    "a header without end": OK + b"a: " + b"b" * 2 * HUGE,
    "a name without end": OK + b"b" * 2 * HUGE,
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_HEADS)
def test_refused_heads(parked_loop: asyncio.AbstractEventLoop, name: str) -> None:
    data = REFUSED_HEADS[name]
    ways = [[data], cut(data, range(0, len(data), 7 if len(data) < 5000 else 4096))]
    if len(data) < 5000:
        ways.append(bytewise(data))
    for pieces in ways:
        reading = play(parked_loop, pieces)
        assert (reading.head, reading.body, reading.error) == (None, b"", "upstream_protocol"), reading
        assert not reading.reusable


REFUSED_BODIES = {
    "chunk longer than said": (b"5\r\nhello!\r\n0\r\n\r\n", b"hello"),
    "chunk without CRLF": (b"5\r\nhello0\r\n\r\n", b"hello"),
    "size that is no number": (b"5\r\nhello\r\nxyz\r\n", b"hello"),
    "negative size": (b"5\r\nhello\r\n-5\r\nhello\r\n", b"hello"),
    "size with 0x": (b"5\r\nhello\r\n0x5\r\nhello\r\n", b"hello"),
    "size over 64 bits": (b"5\r\nhello\r\nfffffffffffffffff\r\n", b"hello"),
    "lines that end with LF": (b"5\nhello\n0\n\n", b""),
    "no size": (b"5\r\nhello\r\n\r\n", b"hello"),
    "trailer that would frame the message": (b"5\r\nhello\r\n0\r\ncontent-length: 9\r\n\r\n", b"hello"),
    "endless extension": (b"5\r\nhello\r\n5;" + b"x" * (FRAMING_BYTES_MAX + 5000), b"hello"),
    "endless trailer": (b"5\r\nhello\r\n0\r\na: " + b"x" * (FRAMING_BYTES_MAX + 5000), b"hello"),
    "endless trailers": (b"5\r\nhello\r\n0\r\n" + b"a: b\r\n" * 12000, b"hello"),
}


@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_refused_bodies(parked_loop: asyncio.AbstractEventLoop, name: str) -> None:
    """What came before the fault is passed on, then the body breaks off: never a clean end."""
    chunks, body = REFUSED_BODIES[name]
    data = CHUNKED + chunks
    for pieces in (cut(data, range(0, len(data), 4096)), cut(data, range(0, len(data), 7))):
        reading = play(parked_loop, pieces)
        assert (reading.body, reading.complete, reading.error) == (body, False, "upstream_truncated"), reading


BODILESS = {
    "204 with a length": (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello", b"POST"),
    "204, chunked": (b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"POST"),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello", b"GET"),
    "304, chunked": (b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"GET"),
    "HEAD with a length": (OK + b"content-length: 5\r\n\r\nhello", b"HEAD"),
    "HEAD, chunked": (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"HEAD"),
    "204 and another answer": (b"HTTP/1.1 204 No Content\r\n\r\n" + OK + b"content-length: 1\r\n\r\na", b"POST"),
}


@pytest.mark.parametrize(("data", "method"), BODILESS.values(), ids=BODILESS)
def test_a_body_where_none_may_be_is_nobodys(
    parked_loop: asyncio.AbstractEventLoop, data: bytes, method: bytes
) -> None:
    """It is not passed on, and the connection serves no other request: what comes there might be its rest."""
    for pieces in ([data], cut(data, range(0, len(data), 7)), bytewise(data)):
        reading = play(parked_loop, pieces, method=method)
        assert (reading.body, reading.complete, reading.reusable) == (b"", True, False), reading


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_trailers_are_no_headers_of_the_next_response(step: int) -> None:
    reader = ResponseReader()
    for _ in range(2):
        for data in (
            CHUNKED + b"2\r\n{}\r\n0\r\nx-sum: 1\r\nset-cookie: a=b\r\n\r\n",
            OK + b"content-length: 2\r\n\r\n{}",
        ):
            reader.reset(head_request=False)
            for at in range(0, len(data), step):
                reader.feed(data[at : at + step])
            assert reader.reusable
            assert reader.head is not None
            assert len(reader.head.headers) == 1


def test_all_lines_of_content_encoding_count() -> None:
    reader = ResponseReader()
    reader.feed(OK + b"content-encoding: gzip\r\na: b\r\nContent-Encoding: br\r\ncontent-length: 0\r\n\r\n")
    assert reader.head is not None
    assert reader.head.content_encoding == b"gzip,br"


def test_headers_are_untouched(parked_loop: asyncio.AbstractEventLoop) -> None:
    data = (
        OK + b"X-Odd:  two\r\nset-cookie: a\r\nSet-Cookie: b\r\nx-latin: \xfc\r\nx-empty:\r\nContent-Length: 0\r\n\r\n"
    )
    head = play(parked_loop, [data]).head
    assert head is not None
    assert head.headers == [
        (b"X-Odd", b"two"),
        (b"set-cookie", b"a"),
        (b"Set-Cookie", b"b"),
        (b"x-latin", b"\xfc"),
        (b"x-empty", b""),
        (b"Content-Length", b"0"),
    ]


def test_large_pieces_are_not_copied(parked_loop: asyncio.AbstractEventLoop) -> None:
    connection = Connection(parked_loop, lambda _: None, Outbox(parked_loop))
    connection.connection_made(Transport())
    connection.begin(b"POST", idle_timeout_ms=0)
    segment = bytes(200_000)
    connection.data_received(OK + b"content-length: 200001\r\n\r\nx")
    assert connection.read_nowait() == b"x"
    connection.data_received(segment)
    assert connection.read_nowait() is segment
    assert connection.body_complete


def test_small_pieces_are_joined_and_large_ones_are_not(parked_loop: asyncio.AbstractEventLoop) -> None:
    connection = Connection(parked_loop, lambda _: None, Outbox(parked_loop))
    connection.connection_made(Transport())
    connection.begin(b"POST", idle_timeout_ms=0)
    connection.data_received(OK + b"\r\n")
    for size in (10, 20, 60_000, 60_000, 10, 70_000, 5):
        connection.data_received(bytes(size))
    sizes = []
    while data := connection.read_nowait():
        sizes.append(len(data))
    assert sizes == [60_030, 60_010, 70_000, 5]


def test_reading_pauses_and_resumes(parked_loop: asyncio.AbstractEventLoop) -> None:
    connection = Connection(parked_loop, lambda _: None, Outbox(parked_loop))
    transport = Transport()
    connection.connection_made(transport)
    connection.begin(b"POST", idle_timeout_ms=0)
    paused = []
    for data in (OK + b"\r\n" + bytes(65_536), bytes(1)):
        connection.data_received(data)
        paused.append(transport.paused)
    assert connection.read_nowait() == bytes(65_536)
    paused.append(transport.paused)
    assert paused == [False, True, False]


def test_many_tiny_pieces_pause_reading_too(parked_loop: asyncio.AbstractEventLoop) -> None:
    connection = Connection(parked_loop, lambda _: None, Outbox(parked_loop))
    transport = Transport()
    connection.connection_made(transport)
    connection.begin(b"POST", idle_timeout_ms=0)
    connection.data_received(CHUNKED + b"2\r\nab\r\n" * 3000)
    paused = [transport.paused]
    assert connection.read_nowait() == b"ab" * 3000
    paused.append(transport.paused)
    assert paused == [True, False]
