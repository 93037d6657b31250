"""Whatever an upstream answers arrives as it was sent, byte for byte, and so does whatever a client asks.

Random heads (odd bytes, repeated names, odd spelling), bodies, framings and cuts into segments, through a worker on
real sockets. What may differ is listed here: hop-by-hop lines and those that Connection names, `x-sluiceway-*`,
framing, and towards the upstream credentials, Host and traces.
"""

import asyncio
import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fakes.raw import RawClient, connect
from tests.fakes.scripted import Breathe, Fin, ReadRequest, Scripted, Send, Step
from tests.fakes.worker import KEY, UPSTREAM_KEY, document_of, running

# Each example starts a worker and an upstream: some 10 ms. Sockets make it slow, not the strategies.
modest = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Line = tuple[bytes, bytes]

# -- strategies ------------------------------------------------------------------------------------------------------

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
_VISIBLE = bytes(range(0x21, 0x7F))
_TEXT = b"\t " + _VISIBLE + bytes(range(0x80, 0x100))
_SPECIAL = frozenset(
    b"accept-encoding api-key authorization baggage connection content-encoding content-length content-type "
    b"content_length expect host keep-alive proxy-authenticate proxy-authorization proxy-connection te traceparent "
    b"tracestate trailer transfer-encoding transfer_encoding upgrade x-api-key x_api_key".split()
)
"""Names that mean something to the gateway. None can come out of _TOKEN's letters; sampled ones are checked."""


def bytes_of(alphabet: bytes, min_size: int = 0, max_size: int = 30) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(alphabet), min_size=min_size, max_size=max_size).map(bytes)


values = bytes_of(_TEXT).map(lambda value: value.strip(b"\t "))
names = st.one_of(
    bytes_of(_TOKEN, 1, 12),
    st.sampled_from(
        (
            b"Set-Cookie",
            b"set-cookie",
            b"X-Request-Id",
            b"Date",
            b"SERVER",
            b"Vary",
            b"Location",
            b"ETag",
            b"Cookie",
            b"Via",
        )
    ),
).filter(lambda name: name.lower() not in _SPECIAL)
lines = st.lists(st.tuples(names, values), max_size=8)
hop_by_hop = st.lists(
    st.sampled_from(
        (
            (b"Keep-Alive", b"timeout=5"),
            (b"Connection", b"keep-alive, x-named"),
            (b"connection", b"X-Named"),
            (b"Proxy-Connection", b"keep-alive"),
            (b"Trailer", b"X-Late"),
            (b"X-Sluiceway-Service", b"forged"),
            (b"x-sluiceway-error", b"forged"),
        )
    ),
    max_size=3,
    unique=True,
)
content_types = st.sampled_from(
    (b"", b"application/json", b"application/x-ndjson", b"text/plain;charset=UTF-8", b"image/png", b"\xff;;=")
)
content_codings = st.sampled_from((b"", b"", b"", b"gzip", b"deflate", b"br", b"x"))

JSON_TEXT = (
    b'{"id":"a","model":"m","choices":[{"index":0,"finish_reason":"stop","message":{"content":"\\u00e9\xe6\xb0\xb4"}}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2}}'
)
SSE_TEXT = (
    b'data: {"id":"a","choices":[{"delta":{"content":"x"}}]}\r\n\r\n: ping\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3}}\n\ndata: [DONE]\n\n'
)
bodies = st.one_of(
    st.binary(max_size=200),
    st.sampled_from((JSON_TEXT, SSE_TEXT, JSON_TEXT[:-9], SSE_TEXT[:-20], gzip.compress(JSON_TEXT, mtime=0))),
    st.tuples(st.binary(min_size=1, max_size=9), st.sampled_from((65535, 65536, 65537, 300_001))).map(
        lambda drawn: (drawn[0] * drawn[1])[: drawn[1]]
    ),
)
cuts = st.lists(st.integers(0, 400_000), max_size=6)
"""Where bytes are cut: into chunks, or into segments. Folded onto the length."""


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    places = sorted({place % len(data) for place in at} - {0}) if data else []
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def chunked(body: bytes, at: Iterable[int], extension: bytes = b"") -> bytes:
    pieces = [b"%X%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in cut(body, at) if piece]
    return b"".join(pieces) + b"0\r\n\r\n"


def written(head: Sequence[Line], space: bytes) -> bytes:
    """Header lines with white space around their values, but for a tab behind `chunked`: that is refused."""
    ends = {name: b"" if name == b"Transfer-Encoding" else space for name, _ in head}
    return b"".join(b"%s:%s%s%s\r\n" % (name, space, value, ends[name]) for name, value in head) + b"\r\n"


def relayed(head: Iterable[Line]) -> list[Line]:
    """The lines that have to arrive, in their order."""
    dropped = {b"keep-alive", b"connection", b"proxy-connection", b"trailer", b"transfer-encoding"}
    if any(name.lower() == b"connection" for name, _ in head):
        dropped.add(b"x-named")
    return [
        (name, value)
        for name, value in head
        if name.lower() not in dropped and not name.lower().startswith(b"x-sluiceway-")
    ]


def lines_of(head: bytes) -> list[Line]:
    """The header lines of a head as the gateway writes it; white space behind a value is no part of it."""
    found = []
    for line in head[:-4].split(b"\r\n")[1:]:
        name, colon, value = line.partition(b": ")
        assert colon, line
        found.append((name, value.rstrip(b" \t")))
    return found


# -- responses -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Response:
    status: int
    reason: bytes
    head: tuple[Line, ...]
    framing: str
    body: bytes
    chunk_cuts: tuple[int, ...]
    extension: bytes
    segment_cuts: tuple[int, ...]
    interim: bytes
    space: bytes

    @property
    def wire(self) -> bytes:
        start = self.interim + b"HTTP/1.1 %d %s\r\n" % (self.status, self.reason) + written(self.head, self.space)
        if self.framing == "chunked":
            return start + chunked(self.body, self.chunk_cuts, self.extension)
        return start + self.body

    @property
    def steps(self) -> list[Step]:
        steps: list[Step] = [ReadRequest()]
        for segment in cut(self.wire, self.segment_cuts):
            steps += [Send(segment), Breathe()]
        return [*steps, Fin()] if self.framing == "eof" else steps


@st.composite
def responses(draw: st.DrawFn) -> Response:
    status = draw(st.sampled_from((200, 200, 200, 201, 204, 206, 299, 302, 304, 400, 404, 429, 500, 503, 529, 599)))
    framing = "none" if status in (204, 304) else draw(st.sampled_from(("length", "chunked", "eof")))
    body = b"" if framing == "none" else draw(bodies)
    head = draw(lines) + draw(hop_by_hop) + [(b"X-Named", b"by Connection")]
    if kind := draw(content_types):
        head.append((b"Content-Type", kind))
    if coding := draw(content_codings):
        head.append((b"content-encoding", coding))
    if framing == "length" or (status == 304 and draw(st.booleans())):
        head.append((b"CONTENT-LENGTH", b"%d" % (len(body) if framing == "length" else 77)))
    if framing == "chunked":
        head.append((b"Transfer-Encoding", b"chunked"))
    head = draw(st.permutations(head))
    interim = draw(
        st.sampled_from((b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 \r\nLink: </a>\r\n\r\n"))
    )
    return Response(
        status,
        draw(values),
        tuple(head),
        framing,
        body,
        tuple(draw(cuts)),
        draw(st.sampled_from((b"", b";a=b"))),
        tuple(draw(cuts)),
        interim,
        draw(st.sampled_from((b"", b" ", b" \t "))),
    )


ODD = Response(
    status=200,
    reason=b"\xc3\xa9 {\xff}",
    head=(
        (b"x-Odd", b"\xff\x80\tz"),
        (b"X-ODD", b""),
        (b"Set-Cookie", b"a=1"),
        (b"Date", b"never"),
        (b"set-cookie", b"b=2"),
    ),
    framing="eof",
    body=bytes(range(256)) * 3,
    chunk_cuts=(),
    extension=b"",
    segment_cuts=(3, 17, 100, 400),
    interim=b"",
    space=b" ",
)


@modest
@given(response=responses(), http_1_0=st.booleans())
@example(response=ODD, http_1_0=False)
@example(response=ODD, http_1_0=True)
async def test_answers_arrive_as_they_were_sent(response: Response, http_1_0: bool) -> None:
    async with (
        Scripted(*response.steps) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        version = b"1.0" if http_1_0 else b"1.1"
        client.send(asking(b'{"model":"m"}', (), version=version))
        head, body = await answer_of(client)
        fields = await worker.fields()
    status_line = head.partition(b"\r\n")[0]
    assert status_line == b"HTTP/1.1 %d %s" % (response.status, response.reason)
    got = lines_of(head)
    own = [name for name, _ in got if name.startswith(b"x-sluiceway-")]
    assert sorted(own) == [b"x-sluiceway-" + name for name in (b"attempts", b"generation", b"request-id", b"service")]
    framing = {(b"Transfer-Encoding", b"chunked"), (b"Connection", b"close")}
    assert [line for line in got if line[0] not in own and line not in framing] == relayed(response.head)
    assert body == response.body
    assert fields["sluiceway.response.bytes"] == len(response.body)
    assert fields["http.response.status_code"] == response.status


async def answer_of(client: RawClient) -> tuple[bytes, bytes]:
    """Head and body of an answer, whatever frames it."""
    head = await client.head()
    if head.status in (204, 304):
        return head.head, b""
    if head.headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await client.reader.readline(), 16):
            body += await client.reader.readexactly(size)
            assert await client.reader.readexactly(2) == b"\r\n"
        assert await client.reader.readexactly(2) == b"\r\n"
        return head.head, body
    if "content-length" in head.headers:
        return head.head, await client.reader.readexactly(int(head.headers["content-length"]))
    body, end = await client.rest()
    assert end == "fin"
    return head.head, body


SINGLE = frozenset((b"etag", b"server"))
"""Of the sampled names, those that aiohttp lets a request have only once (it answers 400)."""


def without_repeats(head: list[Line]) -> list[Line]:
    """Without the second and later lines of SINGLE."""
    seen: set[bytes] = set()
    kept = []
    for name, value in head:
        if name.lower() not in seen:
            kept.append((name, value))
        seen |= {name.lower()} & SINGLE
    return kept


# -- requests --------------------------------------------------------------------------------------------------------

PATH = b"/v1/chat/completions"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def asking(
    body: bytes,
    head: Sequence[Line],
    *,
    target: bytes = PATH,
    version: bytes = b"1.1",
    chunks: Iterable[int] | None = None,
    space: bytes = b" ",
) -> bytes:
    """A request on the wire; `chunks`: where its body is cut into chunks."""
    framing = (b"content-Length", b"%d" % len(body)) if chunks is None else (b"TRANSFER-encoding", b"chunked")
    own = written([(b"Host", b"gateway.test"), (b"Authorization", b"Bearer " + KEY.encode()), framing], b" ")
    start = b"POST %s HTTP/%s\r\n" % (target, version) + own[:-2] + written(head, space)
    return start + (body if chunks is None else chunked(body, chunks))


@modest
@given(
    body=bodies,
    head=st.tuples(lines.map(without_repeats), hop_by_hop).flatmap(
        lambda parts: st.permutations([*parts[0], *parts[1], (b"x-NAMED", b"n")])
    ),
    slash=st.sampled_from((b"", b"/")),
    query=st.one_of(st.none(), bytes_of(_VISIBLE.replace(b"#", b""))),
    kind=content_types,
    coding=content_codings,
    chunks=st.one_of(st.none(), cuts),
    segments=cuts,
    space=st.sampled_from((b"", b" ", b" \t ")),
)
async def test_requests_arrive_as_they_were_sent(
    body: bytes,
    head: list[Line],
    slash: bytes,
    query: bytes | None,
    kind: bytes,
    coding: bytes,
    chunks: list[int] | None,
    segments: list[int],
    space: bytes,
) -> None:
    target = PATH + slash + (b"" if query is None else b"?" + query)
    head = [*head, *([(b"content-TYPE", kind)] if kind else []), *([(b"Content-Encoding", coding)] if coding else [])]
    wire = asking(body, [*head, (b"baggage", b"a=b"), (b"X-Api-Key", b"k")], target=target, chunks=chunks, space=space)
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        connect(worker.port) as client,
    ):
        for segment in cut(wire, segments):
            client.send(segment)
            await asyncio.sleep(0)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"{}")
        fields = await worker.fields()
        [arrived] = upstream.connections[0].heads
        assert upstream.connections[0].bodies == [body]
    assert arrived.partition(b"\r\n")[0] == b"POST %s HTTP/1.1" % target
    got = lines_of(arrived)
    own = {
        (b"host", b"127.0.0.1:%d" % upstream.port),
        (b"authorization", b"Bearer " + UPSTREAM_KEY.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"transfer-encoding", b"chunked"),
    }
    assert [(name, value) for name, value in got if (name.lower(), value) not in own] == relayed(head)
    assert len([name for name, value in got if (name.lower(), value) in own]) == 3
    assert fields["sluiceway.request.bytes"] == len(body)
