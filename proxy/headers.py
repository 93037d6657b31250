"""Heads, as bytes: what of a head goes on to the other side, and what the gateway adds.

Lines pass in their order and with the bytes they came with. Taken out: hop-by-hop fields and those that `Connection`
names (RFC 9110 §7.6.1), credentials (written anew as the provider wants them), `x-sluiceway-*` of either side, and
what an upstream must not see (`baggage`, and the caller's trace headers: where a service asks for them it gets ours).
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, TypeVar

from observability.codings.decode import READABLE

Lines = Iterable[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
CREDENTIALS: Final = frozenset((b"authorization", b"x-api-key", b"api-key"))
_OURS_TO_SAY: Final = frozenset((b"host", b"content-length", b"expect", b"baggage", b"traceparent", b"tracestate"))
_NEVER_UPSTREAM: Final = HOP_BY_HOP | CREDENTIALS | _OURS_TO_SAY
_NOBODY: Final[frozenset[bytes]] = frozenset()
_USUAL_CONNECTION: Final = frozenset((b"keep-alive", b"Keep-Alive", b"close", b"Close"))
OWN_PREFIX: Final = b"x-sluiceway-"
READABLE_CODINGS: Final = tuple(coding.encode() for coding in READABLE)
"""What the scanners decode: `Accept-Encoding` is narrowed to these."""


# What becomes of a header line: plain numbers, because a look at a member of an enumeration costs as much as the line.
PASS: Final = 0
DROP: Final = 1
CODINGS: Final = 2
"""Accept-Encoding: narrowed."""
LENGTH: Final = 4
"""Content-Length of a response: passed where the framing stays, and whatever `Connection` names: it is the framing."""
CONNECTION: Final = 5
"""Dropped, and what it names too."""


_Learnt = TypeVar("_Learnt")


class Spellings(dict[bytes, _Learnt]):
    """What is to be known of a name, as it is written: learnt once for each spelling, so that a line costs one look-up.

    Bounded: clients choose the spellings, so beyond MAX_SPELLINGS, and for names over MAX_NAME_BYTES, it is worked out
    each time. Together at most 64 KiB of names; real ones have up to 40 bytes.
    """

    MAX_SPELLINGS: Final = 1024
    MAX_NAME_BYTES: Final = 64

    def __init__(self, learn: Callable[[bytes], _Learnt]) -> None:
        super().__init__()
        self._learn = learn

    def __missing__(self, name: bytes) -> _Learnt:
        learnt = self._learn(name)
        if len(self) < self.MAX_SPELLINGS and len(name) <= self.MAX_NAME_BYTES:
            self[name] = learnt
        return learnt


def _fates(special: dict[bytes, int]) -> Spellings[int]:
    """Fates by name; `special`: of names in lower case."""

    def fate_of(name: bytes) -> int:
        lowered = name.lower()
        return DROP if lowered.startswith(OWN_PREFIX) else special.get(lowered, PASS)

    return Spellings(fate_of)


_UPSTREAM: Final = _fates(
    dict.fromkeys(_NEVER_UPSTREAM, DROP) | {b"accept-encoding": CODINGS, b"connection": CONNECTION}
)
_DOWNSTREAM: Final = _fates(dict.fromkeys(HOP_BY_HOP, DROP) | {b"content-length": LENGTH})


class ResponseLines(Protocol):
    """What of an upstream's head is written on."""

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    connection: bytes | None


def connection_named(value: bytes | None) -> frozenset[bytes]:
    """The field names that the value of a `Connection` line lists, in lower case."""
    if value is None or value in _USUAL_CONNECTION:
        return _NOBODY
    return frozenset(token.strip().lower() for token in value.split(b","))


def _without_named(lines: Lines) -> list[tuple[bytes, bytes]]:
    """The lines but for `Connection` and all that it names."""
    lowered = [(name.lower(), name, value) for name, value in lines]
    named = connection_named(b",".join(value for low, _, value in lowered if low == b"connection"))
    return [(name, value) for low, name, value in lowered if low != b"connection" and low not in named]


class Added(NamedTuple):
    """Lines of the gateway's own for an upstream, as they are written, and the names of client lines they replace."""

    block: bytes
    replaced: frozenset[bytes]


def added(lines: Lines) -> Added:
    """Prepare lines; their names are in lower case."""
    block = b"".join(b"%s: %s\r\n" % line for line in lines)
    return Added(block, frozenset(name for name, _ in lines if name not in CREDENTIALS))  # credentials go anyway


def request_head(
    method: bytes,
    target: bytes,
    host: bytes,
    client_lines: Lines,
    own: Added,
    *,
    content_length: int | None,
    chunked: bool,
    pass_codings: bool,
) -> bytes:
    """The head for the upstream. `own` lines (the service's) replace client lines of the same name.

    `content_length` None and not `chunked`: no body. `pass_codings` False leaves `Accept-Encoding` out, so that the
    answer comes unencoded.
    """
    parts = [method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n"]
    dropped = own.replaced
    fates = _UPSTREAM
    for name, value in client_lines:
        fate = fates[name]
        if fate == PASS:
            if not dropped or name.lower() not in dropped:
                parts += (name, b": ", value, b"\r\n")
        elif fate == CONNECTION and value not in _USUAL_CONNECTION:
            return request_head(
                method,
                target,
                host,
                _without_named(client_lines),
                own,
                content_length=content_length,
                chunked=chunked,
                pass_codings=pass_codings,
            )
        elif fate == CODINGS:
            narrowed = narrow_codings(value) if pass_codings else b""
            if narrowed and b"accept-encoding" not in dropped:
                parts += (name, b": ", narrowed, b"\r\n")
    parts.append(own.block)
    if chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n\r\n")
    elif content_length is not None:
        parts.append(b"Content-Length: %d\r\n\r\n" % content_length)
    else:
        parts.append(b"\r\n")
    return b"".join(parts)


def narrow_codings(value: bytes) -> bytes:
    """An `Accept-Encoding` value without the codings that the scanners cannot read; empty if none is left."""
    return _narrowed(value) if len(value) <= _REMEMBERED_BYTES else _narrowed.__wrapped__(value)


_REMEMBERED_BYTES: Final = 64
"""Of a value of Accept-Encoding: browsers send 23, SDKs up to 30. With the 256 that are remembered, at most 16 KiB."""


_KEPT_CODINGS: Final = frozenset((*READABLE_CODINGS, b"identity"))


@lru_cache(maxsize=256)
def _narrowed(value: bytes) -> bytes:
    """Remembered, because working it out takes a quarter of the time of a whole request head (0.85 of 3.3 µs)."""
    kept = [item.strip() for item in value.split(b",") if item.partition(b";")[0].strip().lower() in _KEPT_CODINGS]
    return b", ".join(kept)


def response_head(
    upstream: ResponseLines,
    added: bytes,
    *,
    framing: str,
    keep_alive: bool,
    http_1_0: bool,
) -> bytes:
    """The head for the client: the upstream's lines as they came, `added` (whole lines), and our own framing.

    `framing`: length keeps the upstream's Content-Length; chunked and eof drop it; none keeps it as information
    (HEAD, 304), but for a 204, which must not have one (RFC 9110 §8.6).
    """
    status, reason = upstream.status, upstream.reason
    usual = status == 200 and reason == b"OK"
    parts = [b"HTTP/1.1 200 OK\r\n" if usual else b"HTTP/1.1 %d %s\r\n" % (status, reason)]
    dropped = connection_named(upstream.connection)
    keep_length = framing == "length" or (framing == "none" and upstream.status != 204)
    fates = _DOWNSTREAM
    for name, value in upstream.headers:
        fate = fates[name]
        if fate == PASS:
            if not dropped or name.lower() not in dropped:
                parts += (name, b": ", value, b"\r\n")
        elif fate == LENGTH and keep_length:
            parts += (name, b": ", value, b"\r\n")
    parts.append(added)
    if framing == "chunked":
        parts.append(b"Transfer-Encoding: chunked\r\n")
    parts.append(connection_line(keep_alive=keep_alive, http_1_0=http_1_0))
    return b"".join(parts)


def connection_line(*, keep_alive: bool, http_1_0: bool) -> bytes:
    """The last line of a head and the empty line: what becomes of the client's connection."""
    if not keep_alive:
        return b"Connection: close\r\n\r\n"
    return b"Connection: keep-alive\r\n\r\n" if http_1_0 else b"\r\n"
