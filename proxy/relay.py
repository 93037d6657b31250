"""Phase 7: the response to the client. The head is the commit; then read, write, observe, piece by piece.

Observing is one plain call after each write. A response that came whole in one segment is one write.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from observability.content.scanning import recorded_scanner
from observability.observation import Observation, now_ns
from observability.scanners import media_type, response_scanner
from proxy.errors import UpstreamError
from proxy.exchange import Exchange
from proxy.headers import response_head
from proxy.passage import Passage, drain
from proxy.rewrite import UsageChunkFilter
from proxy.upstream.connection import Connection
from proxy.upstream.response import ResponseHead

EVENT_STREAM = "text/event-stream"


class Downstream(Protocol):
    """The client's side of an answer (`proxy.downstream`)."""

    committed: bool
    ended: bool
    events: bool

    def begin(self, head: bytes, *, status: int, framing: str, keep_alive: bool) -> bytes:
        """Commit to a head."""

    def send(self, head: bytes, data: bytes, *, last: bool) -> None:
        """Write."""

    @property
    def blocked(self) -> bool:
        """The client does not keep up."""

    async def drain(self) -> None:
        """Wait for it."""


class Source(Protocol):
    """Where the body of an answer comes from: an upstream's connection, or what was kept of an answer."""

    @property
    def body_complete(self) -> bool:
        """The last byte has come; some may still be unread."""

    @property
    def held_bytes(self) -> int:
        """Bytes that came and were not read yet."""

    def read_nowait(self) -> bytes | None:
        """The next bytes, b"" at the end, None where they must be awaited."""

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Raises UpstreamError."""


async def relay(
    exchange: Exchange, source: Source, head: ResponseHead, added: bytes, held: Sequence[bytes] = ()
) -> None:
    """Send the response that `source` has begun. `added`: whole header lines of the gateway's.

    `held`: pieces of its body that were read already, and scanned by the scanner that is open.

    Raises UpstreamError where the upstream broke off (the handler cuts what the client has of it), ConnectionError
    where the client left.
    """
    observation = exchange.observation
    response = exchange.response
    if not held:
        open_scanner(exchange, head)
    withheld = UsageChunkFilter() if exchange.usage_asked and observation.stream else None
    pending = _begin(exchange, head, added, changed=withheld is not None)
    streams = observation.stream and head.status < 400
    passage: Passage | None = None
    try:
        while True:
            scanned = bool(held)
            data = b"".join(held) if held else source.read_nowait()
            held = ()
            if data is None:
                if pending:  # the head does not wait for the body
                    response.send(pending, b"", last=False)
                    pending = b""
                    observation.committed(head.status)
                passage = passage or _passage(source, response, observation, withheld)
                data = await _more(source, observation, passage)
            last = not data or (source.body_complete and not source.held_bytes)
            out = data if withheld is None else _filtered(withheld, data, last=last)
            # The last piece of a stream is looked at before it is sent: what breaks off must not end in good order.
            whole = last and (not streams or is_whole(observation, b"" if scanned else data))
            if out or pending or last:
                response.send(pending, out, last=whole)
                if pending:
                    observation.committed(head.status)
                    pending = b""
            observation.tap(data, scanned=scanned or (last and streams))
            if last:
                break
            if response.blocked:
                await drain(response, observation)
        if not whole:
            raise UpstreamError("upstream_truncated", "the stream ended before its end", response_started=True)
    except UpstreamError as error:
        if not response.committed:  # not a byte has gone out: the client gets an answer, not a cut connection
            raise UpstreamError("upstream_protocol", error.message, response_started=True) from error
        raise
    if observation.scanner is not None:
        observation.scanner.end()
    if response.blocked:
        await drain(response, observation)


def is_whole(observation: Observation, last_piece: bytes = b"") -> bool:
    """A stream that ends here: is it complete for its protocol, as far as anybody can tell?"""
    if last_piece:
        observation.scan(last_piece)
    scanner = observation.scanner
    if scanner is None:
        return True
    scanner.end()
    return scanner.findings.complete or scanner.findings.failed


def _begin(exchange: Exchange, head: ResponseHead, added: bytes, *, changed: bool) -> bytes:
    """The head for the client, which commits when it is sent."""
    framing = _framing(exchange, head, changed=changed)
    keep_alive = exchange.keep_alive
    if exchange.observation.stream and head.status < 400 and not head.content_encoding:
        exchange.response.events = framing in ("chunked", "eof")
    lines = response_head(
        head, added, framing=framing, keep_alive=keep_alive and framing != "eof", http_1_0=exchange.http_1_0
    )
    return exchange.response.begin(lines, status=head.status, framing=framing, keep_alive=keep_alive)


def _passage(
    source: Source, response: Downstream, observation: Observation, withheld: UsageChunkFilter | None
) -> Passage | None:
    """The way past this task, where the source has one."""
    return Passage(source, response, observation, withheld) if isinstance(source, Connection) else None


async def _more(source: Source, observation: Observation, passage: Passage | None) -> bytes:
    """Wait for the next bytes that are this task's to send."""
    if passage is None:
        return await read(source, observation)
    while True:
        await passage.run()
        if (data := source.read_nowait()) is not None:
            return data


async def read(source: Source, observation: Observation) -> bytes:
    """Wait for the next bytes of a body; the wait is the upstream's."""
    began_ns = now_ns()
    try:
        return await source.read()
    finally:
        observation.upstream_ns += now_ns() - began_ns


def _filtered(withheld: UsageChunkFilter, data: bytes, *, last: bool) -> bytes:
    out = withheld.feed(data)
    return out + withheld.end() if last else out


def is_stream(head: ResponseHead) -> bool:
    """The answer says that it is a stream of events."""
    content_type = head.content_type
    if content_type == b"application/json":  # as most are: 0.4 µs for the look at any other
        return False
    return media_type(content_type.decode("latin-1")) == EVENT_STREAM


def open_scanner(exchange: Exchange, head: ResponseHead) -> None:
    """Attach the scanner that the response's type asks for."""
    route = exchange.route
    assert route is not None
    observation = exchange.observation
    observation.stream = is_stream(head)
    operation: Any = route.operation
    asked = observation.request_scanner
    recording = observation.recording
    scanner = response_scanner if recording is None or not recording.answers else partial(recorded_scanner, recording)
    observation.scanner = scanner(
        operation.protocol,
        operation.name,
        head.content_type.decode("latin-1"),
        head.status,
        head.content_encoding.decode("latin-1"),
        choices=None if asked is None else asked.n,
    )


def _framing(exchange: Exchange, head: ResponseHead, *, changed: bool) -> str:
    """How the client's side is framed: as the upstream's, unless that would not do."""
    if head.framing == "none" or (head.framing == "length" and not changed):
        return head.framing
    return "eof" if exchange.http_1_0 else "chunked"
