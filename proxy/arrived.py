"""A request that has arrived whole, as nearly all small ones do: its message for aiohttp, made without its parser.

The head was checked to be strict (`proxy.framing`), so that it has one reading, and splitting it at its line ends is
that reading. aiohttp's parser, with a StreamReader between itself and who reads, takes 9 µs for a small chat with five
header lines, and 12 with an SDK's eighteen; this takes 3, and 7. What is not plain (another version than 1.1, a
framing, upgrading or twofold field, a body that is still on its way) is left to the parser, and so is every refusal.

Pure. Source: RFC 9112 §3, §5, §6.3; for what a message holds, aiohttp's own `RawRequestMessage`.
"""

import re
from typing import Any, Final

from aiohttp import HttpVersion11
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import CIMultiDict, CIMultiDictProxy, istr
from yarl import URL

from proxy.arrived_body import ArrivedBody
from proxy.body import SMALL_BODY_BYTES
from proxy.headers import Spellings

LINES_MAX: Final = 64
"""Header lines. SDKs send 20, browsers behind proxies 40; more are left to the parser, which counts them."""
COUNTED_BYTES: Final = 2048
"""Of a head: the lines of a larger one are counted before they are split, else 64 KiB of lines of four bytes, which the
parser refuses at the 257th, would hold everybody up for 3 ms."""

_MESSAGE: Final[Any] = RawRequestMessage  # its stub says it is a tuple, which compiled code would insist on
_METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_LINES: Final = re.compile(rb"([^:]++): ?([^\r]*+)\r\n")
_URL: Final = URL("/")
"""Of every message: nobody asks, the path is in the message too, and to build one costs 1.5 µs. Nor does anybody ask
for `compression`, which is None here."""
_PLAIN: Final = 0
_NOT_PLAIN: Final = -1
_LENGTH: Final = 1
_HOST: Final = 2
_CONNECTION: Final = 4
_SPECIAL: Final = {
    b"content-length": _LENGTH,
    b"host": _HOST,
    b"connection": _CONNECTION,
    **dict.fromkeys((b"transfer-encoding", b"upgrade", b"proxy-connection", b"sec-websocket-key1"), _NOT_PLAIN),
    **{
        name: 8 << number
        for number, name in enumerate(
            (b"content-location", b"content-range", b"content-type", b"etag", b"max-forwards", b"server", b"user-agent")
        )
    },
}
"""Each a bit: two of one are left to the parser, which refuses most of them."""
_USUAL_CONNECTION: Final = {b"keep-alive": False, b"Keep-Alive": False, b"close": True, b"Close": True}


def _known(name: bytes) -> tuple[istr, int]:
    """A name as aiohttp's messages have it, and its bit."""
    return istr(name.decode("ascii")), _SPECIAL.get(name.lower(), _PLAIN)


_NAMES: Final = Spellings(_known)


Arrived = tuple[Any, StreamReader, bytes]
"""Message, body, and what stands behind the request."""


def message_of(head: bytes, behind: bytes) -> Arrived | None:
    """Message, body and what stands behind the request; None where it is not plain, or not here whole.

    `head`: strict (`framing.head_fault`), the empty line included.
    """
    end = head.index(b"\r\n")
    words = head[:end].split(b" ")
    method = _METHODS.get(words[0])
    target = words[1]
    if method is None or words[2] != b"HTTP/1.1" or target == b"*" or not target.isascii():
        return None
    if not behind and method == "POST":  # its body is on its way: httpx sends it by itself, and every fifth is seen so
        return None
    if len(head) > COUNTED_BYTES and head.count(b"\n") > LINES_MAX + 2:
        return None
    raw = _LINES.findall(head, end + 2)
    if len(raw) > LINES_MAX or b" \r\n" in head or b":  " in head or b"\t" in head:  # white space to be taken off
        return None
    names = _NAMES
    pairs: list[tuple[str, str]] = []
    seen = length = 0
    close = False
    for name, value in raw:
        text, bit = names[name]
        pairs.append((text, value.decode("utf-8", "surrogateescape")))
        if bit:
            if bit == _NOT_PLAIN or bit & seen:
                return None
            seen |= bit
            if bit == _LENGTH:
                if not value.isdigit() or len(value) > 5:
                    return None
                length = int(value)
            elif bit == _CONNECTION:
                usual = _USUAL_CONNECTION.get(value)
                if usual is None:
                    return None
                close = usual
    if not seen & _HOST or length > SMALL_BODY_BYTES or length > len(behind):
        return None
    body = EMPTY_PAYLOAD
    if length:
        body = ArrivedBody(behind[:length])
        behind = behind[length:]
    path = target.decode("ascii")
    message = _MESSAGE(
        method, path, HttpVersion11, CIMultiDictProxy(CIMultiDict(pairs)), tuple(raw), close, None, False, False, _URL
    )
    return message, body, behind
