"""The message of a request that has arrived whole is the one that aiohttp's parser would have made of it."""

import asyncio
import string
import tracemalloc
from typing import Any

import pytest
from aiohttp.http_parser import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from hypothesis import given
from hypothesis import strategies as st

from proxy.arrived import LINES_MAX, ArrivedBody, message_of
from proxy.body import SMALL_BODY_BYTES
from proxy.framing import head_fault

POST = b"POST /v1/chat/completions?a=%20 HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n"


class Protocol:
    """What aiohttp's parser asks of the connection."""

    _reading_paused = False

    def resume_reading(self, *_: Any, **__: Any) -> None: ...
    def pause_reading(self) -> None: ...


def parsed(head: bytes, behind: bytes) -> tuple[Any, StreamReader]:
    """By aiohttp: raises what it raises."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(Protocol(), loop, 2**16, max_line_size=65536, max_field_size=65536, max_headers=256)  # type: ignore[arg-type]
        messages, _, _ = parser.feed_data(head)
        ((message, payload),) = messages
        length = int(message.headers.get("Content-Length", "0"))
        if length:
            parser.feed_data(behind[:length])
        return message, payload
    finally:
        loop.close()


def items(message: Any) -> list[tuple[str, str]]:
    """Names in lower case: aiohttp writes those it knows in its own way."""
    return [(name.lower(), value) for name, value in message.headers.items()]


def check_same(head: bytes, behind: bytes = b"") -> bool:
    """Is it read here, and as aiohttp reads it?"""
    assert head_fault(head) is None
    found = message_of(head, behind)
    if found is None:
        return False
    message, body, rest = found
    theirs, payload = parsed(head, behind)
    for name in ("method", "path", "version", "raw_headers", "should_close", "upgrade", "chunked"):
        assert getattr(message, name) == getattr(theirs, name), name
    assert items(message) == items(theirs)
    assert (body is EMPTY_PAYLOAD) == (payload is EMPTY_PAYLOAD)
    data = b"" if payload is EMPTY_PAYLOAD else payload.read_nowait()
    assert body.is_eof()
    assert body.total_bytes == len(data)
    assert body.read_nowait() == data
    assert body.read_nowait() == b""
    assert data + rest == behind
    return True


@pytest.mark.parametrize(
    ("lines", "behind"),
    [
        (b"", b""),
        (b"", b"GET /next HTTP/1.1\r\n"),
        (b"Content-Length: 0\r\n", b"x"),
        (b"Content-Length: 5\r\nContent-Type: application/json\r\n", b"hello"),
        (b"content-length:5\r\nX-Empty:\r\n", b"helloGET / HTTP/1.1\r\n"),
        (b"Content-Length: 00005\r\n", b"hello"),
        (b"Connection: keep-alive\r\nX-Two: 1\r\nX-Two: 2\r\n", b""),
        (b"Connection: Close\r\n", b""),
        (b"X-Bytes: \xff\xc3\xa9\r\nX-Colons: a:b: c\r\n", b""),
        (b"Expect: 100-continue\r\nContent-Length: 2\r\n", b"{}"),
    ],
)
def test_plain_requests_are_read_here(lines: bytes, behind: bytes) -> None:
    assert check_same((POST if behind else GET) + lines + b"\r\n", behind)


@pytest.mark.parametrize(
    ("head", "behind"),
    [
        (POST + b"\r\n", b""),
        (POST + b"Content-Length: 6\r\n\r\n", b"hello"),
        (POST + b"Content-Length: %d\r\n\r\n" % (SMALL_BODY_BYTES + 1), b"x" * (SMALL_BODY_BYTES + 1)),
        (POST + b"Content-Length: +5\r\n\r\n", b"hello"),
        (POST + b"Content-Length: 5, 5\r\n\r\n", b"hello"),
        (POST + b"Content-Length: \xb2\r\n\r\n", b"hello"),
        (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", b"hello"),
        (GET + b"Content-Length:\r\n\r\n", b""),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n"),
        (GET + b"Host: b\r\n\r\n", b""),
        (GET + b"User-Agent: a\r\nUser-Agent: b\r\n\r\n", b""),
        (GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", b""),
        (GET + b"Connection: close\r\nConnection: keep-alive\r\n\r\n", b""),
        (GET + b"Connection: keep-alive, x\r\n\r\n", b""),
        (GET + b"Proxy-Connection: close\r\n\r\n", b""),
        (GET + b"X-Space: a \r\n\r\n", b""),
        (GET + b"X-Space:  a\r\n\r\n", b""),
        (GET + b"X-Tab:\ta\r\n\r\n", b""),
        (GET + b"X: 1\r\n" * LINES_MAX + b"\r\n", b""),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", b""),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(head: bytes, behind: bytes) -> None:
    assert not check_same(head, behind)


NAMES = st.sampled_from(
    [
        "Content-Length",
        "content-type",
        "Connection",
        "User-Agent",
        "X-A",
        "x-a",
        "Accept",
        "Cookie",
        "Upgrade",
        "Server",
    ]
) | st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=12)
VALUES = st.sampled_from([b"5", b"0", b"close", b"keep-alive", b"Upgrade", b"a/b;c=d"]) | st.binary(max_size=8).map(
    lambda raw: bytes(byte for byte in raw if byte == 9 or 32 <= byte < 127 or byte > 127)
)


@given(
    st.sampled_from([b"GET", b"POST", b"DELETE", b"HEAD"]),
    st.text(string.ascii_letters + "/%?=&.;:@!$'()*+,~^|{}\"<>[]`_-", max_size=20),
    st.lists(st.tuples(NAMES, st.sampled_from([b":", b": ", b":  "]), VALUES), max_size=8),
    st.binary(max_size=12),
)
def test_any_strict_head_is_read_as_aiohttp_reads_it(
    method: bytes, path: str, lines: list[tuple[str, bytes, bytes]], behind: bytes
) -> None:
    head = method + b" /" + path.encode() + b" HTTP/1.1\r\nHost: a\r\n"
    head += b"".join(name.encode() + colon + value + b"\r\n" for name, colon, value in lines) + b"\r\n"
    if head_fault(head) is None:
        check_same(head, behind)


def test_the_lines_of_a_head_that_has_too_many_are_not_split() -> None:
    """It would be 3 ms and 2 MiB of lines for 64 KiB."""
    head = GET + b"a:\r\n" * 16_000 + b"\r\n"
    tracemalloc.start()
    try:
        assert message_of(head, b"") is None
        assert tracemalloc.get_traced_memory()[1] < 2 * len(head)
    finally:
        tracemalloc.stop()


async def test_a_body_is_given_once() -> None:
    body = ArrivedBody(b"all of it")
    assert (await body.readany(), await body.readany()) == (b"all of it", b"")
