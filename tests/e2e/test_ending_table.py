"""Every way in which an exchange ends, and what its record says of it: one table, through a whole gateway.

A row says what the client does and what the upstream does, both on real sockets, and what must be known of it after:
outcome, `error.type`, `sluiceway.error.origin`, the status, input and output tokens, `sluiceway.usage.source`. Each row
is one request from an address of its own (127.0.7.N), by which its line is found, whatever became of it. For each row
there is exactly one line; the spans, as a collector got them, say the same under the same names; the four waits and the
overhead are the duration; and the client saw an answer that is whole where, and only where, the record says so.

Not here: `worker_lost` (`test_processes`), `internal` (`test_own_errors`), who is tried after whom (`test_fallback`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from observability import names
from observability.board import Cell
from proxy.errors import KINDS
from tests.e2e.endings import (
    ASKED,
    CHAT,
    CHAT_USAGE,
    CODED,
    CODED_NATIVE,
    COUNTED_TOKEN,
    DONE,
    EMBEDDINGS,
    END,
    ERROR,
    FINISH,
    GOT,
    IMAGES,
    JSON,
    KEY,
    M_DELTA,
    M_ERROR,
    M_LAST,
    M_START,
    M_STOP,
    MARK,
    MESSAGES,
    N_ERROR,
    NATIVE,
    NATIVE_STREAM,
    OTHER_KEY,
    PICTURES,
    PLAIN,
    R_DELTA,
    R_DONE,
    RESPONSES,
    ROLE,
    SEEN,
    SSE,
    SSE_TO_EOF,
    STREAM,
    TOKEN,
    TWO_CHOICES,
    TWO_LENGTHS,
    UNNAMED,
    UNREADABLE,
    VECTORS,
    WHOLE,
    Asks,
    Does,
    Scene,
    answer,
    changed,
    is_drained,
    is_one_too_many,
    leaves_after,
    leaves_once_asked,
    leaves_while_uploading,
    native,
    reads,
    said,
    sends,
    stops_uploading,
    takes_no_more_and_leaves,
    takes_nothing,
    uploads_far_too_much,
)
from tests.fakes.gateway import Gateway
from tests.fakes.otlp_sink import OtlpSink, attributes_of
from tests.fakes.raw import WAIT_S, RawClient
from tests.fakes.scripted import Fin, ReadHead, Reset, Scripted, Send, Step, Tell, Wait

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY = 1
"""A port that nobody listens on."""

# -- the table -------------------------------------------------------------------------------------------------------

Usage = tuple[int | None, int | None, str | None]
NONE: Usage = (None, None, "none")
UNROUTED: Usage = (None, None, None)
"""Nobody knows whom it was for."""
GUESSED: Usage = (None, 1, "estimated")
ALL: Usage = (11, 5, "upstream")


@dataclass(frozen=True)
class Row:
    """See the module. `upstream` None: nobody listens there; `second`: of the fallback."""

    name: str
    asks: Asks
    client: Does
    upstream: tuple[Step, ...] | None
    outcome: str
    error: str | None
    origin: str | None
    status: int
    usage: Usage
    service: Mapping[str, Any] = field(default_factory=dict)
    model_api: Mapping[str, Any] = field(default_factory=dict)
    second: tuple[Step, ...] | None = None
    attempts: int | None = None
    """None: 1, and 0 where the gateway refused."""


IDLE = {"idle_timeout_ms": 400}
BY_MODEL = {"routing": {"by_model": [{"match": "other*", "service": "{service}"}]}}
SECOND = {"fallback": [{"service": "{second}"}]}
GONE = "client_aborted", None, None
FAILED, CUT, REFUSED, GOOD = "upstream_error", "upstream_aborted", "rejected", ("ok", None, None)
UP, WE, YOU = "upstream", "gateway", "client"
MANY = Send(b"1000\r\n" + TOKEN.ljust(4096) + b"\r\n", times=20)
ENDLESS = Send(b"1000\r\n" + TOKEN.ljust(4096) + b"\r\n", times=100_000)
DRAWN: Usage = (None, -1, "estimated")
"""So many as were seen."""

# fmt: off
CLIENT_LEAVES = [
    Row("before the head", PLAIN, leaves_once_asked, (GOT, Tell(ASKED)), *GONE, 499, NONE),
    Row("while it uploads", PLAIN, leaves_while_uploading, (ReadHead(), Tell(ASKED)), *GONE, 499, NONE),
    Row("before the first event", STREAM, leaves_after(b"\r\n\r\n"), (GOT, SSE), *GONE, 200, NONE),
    Row("before the first token", STREAM, leaves_after(b"role"), (GOT, SSE, said(ROLE)), *GONE, 200, NONE),
    Row("mid-stream", STREAM, leaves_after(MARK), (GOT, SSE, said(ROLE, TOKEN)), *GONE, 200, GUESSED),
    Row("mid-stream, usage in each chunk", STREAM, leaves_after(MARK), (GOT, SSE, said(ROLE, COUNTED_TOKEN)),
        *GONE, 200, (11, 2, "partial")),
    Row("behind the finish reason", STREAM, leaves_after(b"stop"), (GOT, SSE, said(*WHOLE[:3])), *GOOD, 200, GUESSED),
    Row("before [DONE]", STREAM, leaves_after(b"}}\n\n"), (GOT, SSE, said(*WHOLE[:4])), *GOOD, 200, ALL),
    Row("behind [DONE]", STREAM, leaves_after(b"[DONE]"), (GOT, SSE, said(*WHOLE)), *GOOD, 200, ALL),
    Row("mid-body", PLAIN, leaves_after(b"r1"), (GOT, Send(JSON % (200, 999, CHAT_USAGE[:40]))), *GONE, 200, NONE),
    Row("takes no more and leaves", STREAM, takes_no_more_and_leaves, (GOT, SSE, MANY, Tell(ASKED)), *GONE, 200, DRAWN),
    Row("takes nothing and stays", STREAM, takes_nothing, (GOT, SSE, ENDLESS), *GONE, 200, DRAWN),
    Row("Anthropic, mid-stream", MESSAGES, leaves_after(MARK), (GOT, SSE, said(M_START, M_DELTA)),
        *GONE, 200, (11, 1, "partial")),
    Row("Anthropic, behind the last frame", MESSAGES, leaves_after(b"message_stop"),
        (GOT, SSE, said(M_START, M_DELTA, M_LAST, M_STOP)), *GOOD, 200, ALL),
    Row("DashScope, mid-stream", NATIVE_STREAM, leaves_after(MARK), (GOT, SSE, said(native(2, b"null"))),
        *GONE, 200, (11, 2, "partial")),
    Row("DashScope, behind the last frame", NATIVE_STREAM, leaves_after(b"stop"),
        (GOT, SSE, said(native(2, b"null"), native(5, b"stop"))), *GOOD, 200, ALL),
]
UPSTREAM_FAILS = [
    Row("refuses the connection", PLAIN, reads, None, FAILED, "connect_failed", UP, 502, NONE),
    Row("has no address", PLAIN, reads, None, FAILED, "connect_failed", UP, 502, NONE,
        {"base_url": "http://nowhere.invalid", "connect_timeout_ms": 2000}),
    Row("speaks no TLS", PLAIN, reads, (Send(b"SSH-2.0-OpenSSH_9\r\n"),), FAILED, "connect_failed", UP, 502, NONE,
        {"base_url": "https://127.0.0.1:{port}"}),
    Row("resets before its head", PLAIN, reads, (GOT, Reset()), FAILED, "upstream_protocol", UP, 502, NONE),
    Row("closes before its head", PLAIN, reads, (GOT, Fin()), FAILED, "upstream_protocol", UP, 502, NONE),
    Row("closes in its head", PLAIN, reads, (GOT, Send(b"HTTP/1.1 200 OK\r\nX"), Fin()),
        FAILED, "upstream_protocol", UP, 502, NONE),
    Row("is no HTTP", PLAIN, reads, (GOT, Send(b"SSH-2.0-OpenSSH_9\r\n\r\n")),
        FAILED, "upstream_protocol", UP, 502, NONE),
    Row("has two lengths", PLAIN, reads, (GOT, Send(TWO_LENGTHS)), FAILED, "upstream_protocol", UP, 502, NONE),
    Row("stalls before its head", PLAIN, reads, (GOT,), FAILED, "upstream_timeout", UP, 504, NONE, IDLE),
    Row("stalls in its head", PLAIN, reads, (GOT, Send(b"HTTP/1.1 200 OK\r\nX")),
        FAILED, "upstream_timeout", UP, 504, NONE, IDLE),
    Row("takes longer than it may", PLAIN, reads, (GOT,), FAILED, "upstream_timeout", UP, 504, NONE,
        {"total_timeout_ms": 150}),
    Row("no first packet", STREAM, reads, (GOT, SSE), FAILED, "first_packet_timeout", UP, 504, NONE,
        model_api={"first_packet_timeout_ms": 150}),
    Row("no first token", STREAM, reads, (GOT, SSE, said(ROLE)), FAILED, "first_token_timeout", UP, 504, NONE,
        model_api={"first_token_timeout_ms": 150}),
    Row("resets mid-stream", STREAM, reads, (GOT, SSE, said(ROLE, TOKEN), Wait(SEEN), Reset()),
        CUT, "upstream_reset", UP, 200, GUESSED),
    Row("cuts a chunked stream", STREAM, reads, (GOT, SSE, said(ROLE, TOKEN), Wait(SEEN), Fin()),
        CUT, "upstream_truncated", UP, 200, GUESSED),
    Row("cuts a stream that counts", STREAM, reads, (GOT, SSE, said(ROLE, COUNTED_TOKEN), Wait(SEEN), Fin()),
        CUT, "upstream_truncated", UP, 200, (11, 2, "partial")),
    Row("malformed chunk", STREAM, reads, (GOT, SSE, said(ROLE, TOKEN), Wait(SEEN), Send(b"ZZ\r\n")),
        CUT, "upstream_truncated", UP, 200, GUESSED),
    Row("ends a stream too early", STREAM, reads, (GOT, SSE, said(ROLE, TOKEN), END),
        CUT, "upstream_truncated", UP, 200, GUESSED),
    Row("one choice of two ends", TWO_CHOICES, reads, (GOT, SSE, said(*WHOLE[:4]), END),
        CUT, "upstream_truncated", UP, 200, (11, 5, "partial")),
    Row("stalls mid-stream", STREAM, reads, (GOT, SSE, said(ROLE, TOKEN)),
        CUT, "upstream_timeout", UP, 200, GUESSED, IDLE),
    Row("cuts a body with a length", PLAIN, reads, (GOT, Send(JSON % (200, 999, CHAT_USAGE[:90])), Wait(SEEN), Fin()),
        CUT, "upstream_truncated", UP, 200, NONE),
    Row("resets mid-body", PLAIN, reads, (GOT, Send(JSON % (200, 999, CHAT_USAGE[:90])), Wait(SEEN), Reset()),
        CUT, "upstream_reset", UP, 200, NONE),
    Row("stalls mid-body", PLAIN, reads, (GOT, Send(JSON % (200, 999, CHAT_USAGE[:90]))),
        CUT, "upstream_timeout", UP, 200, NONE, IDLE),
    Row("cuts Anthropic's stream", MESSAGES, reads, (GOT, SSE, said(M_START, M_DELTA), Wait(SEEN), Fin()),
        CUT, "upstream_truncated", UP, 200, (11, 1, "partial")),
    Row("resets behind [DONE], before the last chunk", STREAM, reads, (GOT, SSE, said(*WHOLE), Wait(SEEN), Reset()),
        CUT, "upstream_reset", UP, 200, ALL),
]
UPSTREAM_REFUSES = [
    *(Row(f"{status}", PLAIN, reads, answer(status, CODED), FAILED, "provider_code", YOU, status, NONE)
      for status in (400, 404, 405, 409, 413, 415, 422)),
    *(Row(f"{status}", PLAIN, reads, answer(status, CODED), FAILED, "provider_code", UP, status, NONE)
      for status in (401, 402, 403, 408, 429, 500, 503, 529)),
    Row("502 without a code", PLAIN, reads, answer(502, b"oops"), FAILED, "502", UP, 502, NONE),
    Row("500 that is cut", PLAIN, reads, (GOT, Send(JSON % (500, 999, CODED[:30])), Wait(SEEN), Fin()),
        CUT, "upstream_truncated", UP, 500, NONE),
    Row("413 during the upload", PLAIN, uploads_far_too_much, (ReadHead(), Send(JSON % (413, len(CODED), CODED))),
        FAILED, "provider_code", YOU, 413, NONE),
    Row("200 with an error in it", PLAIN, reads, answer(200, CODED), FAILED, "provider_code", UP, 200, NONE),
    Row("200 with DashScope's code in it", NATIVE, reads, answer(200, CODED_NATIVE),
        FAILED, "Arrearage", UP, 200, NONE),
    Row("200 as a stream, with DashScope's code", NATIVE_STREAM, reads, (GOT, SSE, said(N_ERROR), END),
        FAILED, "Arrearage", UP, 200, NONE),
    Row("an error event", STREAM, reads, (GOT, SSE, said(ROLE, TOKEN, ERROR), END),
        FAILED, "overloaded_now", UP, 200, GUESSED),
    Row("an error event of Anthropic's", MESSAGES, reads, (GOT, SSE, said(M_START, M_DELTA, M_ERROR), END),
        FAILED, "overloaded_error", UP, 200, (11, 1, "partial")),
    Row("an error event of DashScope's", NATIVE_STREAM, reads, (GOT, SSE, said(native(2, b"null"), N_ERROR), END),
        FAILED, "Arrearage", UP, 200, (11, 2, "partial")),
    Row("the second target answers", PLAIN, reads, answer(503, CODED), *GOOD, 200, ALL, model_api=SECOND,
        second=answer(200, CHAT_USAGE), attempts=2),
    Row("the second target refuses too", PLAIN, reads, answer(503, CODED), FAILED, "provider_code", UP, 500, NONE,
        model_api=SECOND, second=answer(500, CODED), attempts=2),
    Row("the second target is not there", PLAIN, reads, answer(503, CODED), FAILED, "provider_code", UP, 503, NONE,
        model_api=SECOND, attempts=2),
    Row("no target is there", PLAIN, reads, None, FAILED, "connect_failed", UP, 502, NONE,
        model_api=SECOND, attempts=2),
]
GATEWAY_REFUSES = [
    Row("no key", PLAIN, changed(KEY.encode(), b"sk-nobody"), None, REFUSED, "unauthenticated", YOU, 401, NONE),
    Row("another's key", PLAIN, changed(KEY.encode(), OTHER_KEY.encode()), None, REFUSED, "forbidden", YOU, 403, NONE,
        model_api={"consumers": ["team"]}),
    Row("no such path", PLAIN, changed(b"/chat/", b"/chats/"), None, REFUSED, "no_route", YOU, 404, UNROUTED),
    Row("no such method", PLAIN, changed(b"POST ", b"PUT "), None, REFUSED, "method_not_allowed", YOU, 405, UNROUTED),
    Row("too large", PLAIN, reads, None, REFUSED, "body_too_large", YOU, 413, NONE, model_api={"max_request_bytes": 9}),
    Row("an unreadable body", UNREADABLE, reads, None, REFUSED, "bad_request", YOU, 400, NONE, model_api=BY_MODEL),
    Row("no model", UNNAMED, reads, None, REFUSED, "model_missing", YOU, 400, NONE, model_api=BY_MODEL),
    Row("a model of nobody's", PLAIN, reads, None, REFUSED, "model_unknown", YOU, 404, NONE, model_api=BY_MODEL),
    Row("broken chunks", PLAIN, changed(b"Content-Length: 27", b"Transfer-Encoding: chunked"), None,
        REFUSED, "bad_request", YOU, 400, NONE),
    Row("no HTTP", PLAIN, sends(b"\x16\x03\x01 hello\r\n\r\n"), None, REFUSED, "bad_request", YOU, 400, UNROUTED),
    Row("two lengths", PLAIN, changed(b"Content-Length", b"Content-Length: 9\r\nContent-Length"), None,
        REFUSED, "bad_request", YOU, 400, UNROUTED),
    Row("a head too large", PLAIN, changed(b"Host", b"X: %b\r\nHost" % (b"x" * 9000)), None,
        REFUSED, "head_too_large", YOU, 431, UNROUTED),
    Row("a head that stops", PLAIN, sends(b"POST /v1/chat"), None, REFUSED, "client_timeout", YOU, 408, UNROUTED),
    Row("a body that stops", PLAIN, stops_uploading, None, REFUSED, "client_timeout", YOU, 408, NONE),
    Row("one too many", PLAIN, is_one_too_many, (GOT, Tell(ASKED)), REFUSED, "overloaded", WE, 503, NONE,
        model_api={"max_inflight_requests": 1}),
    Row("a drain before the head", PLAIN, is_drained, (GOT, Tell(ASKED)), REFUSED, "draining", WE, 503, NONE,
        attempts=1),
    Row("a drain mid-stream", STREAM, is_drained, (GOT, SSE, said(ROLE, TOKEN), Tell(ASKED)),
        "gateway_error", "draining", WE, 200, GUESSED, attempts=1),
]
GOES_WELL = [
    Row("chat", PLAIN, reads, answer(200, CHAT_USAGE), *GOOD, 200, ALL),
    Row("chat without usage", PLAIN, reads, answer(200, CHAT % b""), *GOOD, 200, NONE),
    Row("no JSON", PLAIN, reads, answer(200, b"hi"), *GOOD, 200, NONE),
    Row("a redirect", PLAIN, reads, answer(302, b""), *GOOD, 302, NONE),
    Row("a stream", STREAM, reads, (GOT, SSE, said(*WHOLE), END), *GOOD, 200, ALL),
    Row("a stream without usage", STREAM, reads, (GOT, SSE, said(ROLE, TOKEN, FINISH, DONE), END), *GOOD, 200, GUESSED),
    Row("a stream without [DONE]", STREAM, reads, (GOT, SSE, said(*WHOLE[:4]), END), *GOOD, 200, ALL),
    Row("a stream to the end of the connection", STREAM, reads, (GOT, SSE_TO_EOF, Send(b"".join(WHOLE[:4])), Fin()),
        *GOOD, 200, ALL),
    Row("Anthropic's stream", MESSAGES, reads, (GOT, SSE, said(M_START, M_DELTA, M_LAST, M_STOP), END),
        *GOOD, 200, ALL),
    Row("DashScope's stream", NATIVE_STREAM, reads, (GOT, SSE, said(native(2, b"null"), native(5, b"stop")), END),
        *GOOD, 200, ALL),
    Row("responses", RESPONSES, reads, (GOT, SSE, said(R_DELTA, R_DONE), END), *GOOD, 200, ALL),
    Row("embeddings", EMBEDDINGS, reads, answer(200, VECTORS), *GOOD, 200, (11, None, "upstream")),
    Row("images", IMAGES, reads, answer(200, PICTURES), *GOOD, 200, ALL),
]
# fmt: on
TABLE = [
    (f"{title}: {row.name}", row)
    for title, rows in {
        "the client leaves": CLIENT_LEAVES,
        "the upstream fails": UPSTREAM_FAILS,
        "the upstream refuses": UPSTREAM_REFUSES,
        "the gateway refuses": GATEWAY_REFUSES,
        "it goes well": GOES_WELL,
    }.items()
    for row in rows
]
assert len(dict(TABLE)) == len(TABLE) < 250  # addresses

# -- the bed ---------------------------------------------------------------------------------------------------------


def filled(value: Any, **names_of: str) -> Any:
    """A piece of configuration with the row's own names in it."""
    if isinstance(value, str):
        return value.format(**names_of)
    if isinstance(value, list):
        return [filled(item, **names_of) for item in value]
    return {key: filled(item, **names_of) for key, item in value.items()} if isinstance(value, Mapping) else value


class Bed:
    """A gateway with a Model API for each row, the upstreams, and a collector."""

    def __init__(self, gateway: Gateway, sink: OtlpSink, upstreams: Mapping[int, Scripted]) -> None:
        self.gateway = gateway
        self.sink = sink
        self.upstreams = upstreams
        self.asked = 0

    async def play(self, number: int, row: Row) -> Scene:
        ASKED.clear()
        SEEN.clear()
        connected = asyncio.open_connection("127.0.0.1", self.gateway.port, local_addr=(f"127.0.7.{number}", 0))
        reader, writer = await asyncio.wait_for(connected, WAIT_S)
        asks = row.asks
        head = (
            b"POST /m%d%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" % (number, asks.path),
            b"Authorization: Bearer %b\r\nContent-Type: application/json\r\n" % KEY.encode(),
            b"Content-Length: %d\r\n%b\r\n" % (len(asks.body), asks.lines),
        )
        scene = Scene(RawClient(reader, writer), b"".join(head) + asks.body, self.gateway)
        self.asked += 1 + (row.client is is_one_too_many)
        try:
            await row.client(scene)
            if row.client is takes_nothing:
                await self.line(number)
        finally:
            writer.transport.abort()
        return scene

    async def line(self, number: int) -> dict[str, Any]:
        """Of a row: the only one."""
        [line] = await self.gateway.records(1, **{"client.address": f"127.0.7.{number}"})
        return line

    async def spans(self, line: Mapping[str, Any]) -> list[Span]:
        """SERVER, then CLIENT where there is one, then its attempts."""
        trace = bytes.fromhex(line["trace_id"])
        await self.sink.until(lambda: any(span.trace_id == trace for span in self.sink.spans))
        return sorted((span for span in self.sink.spans if span.trace_id == trace), key=_rank)


def _rank(span: Span) -> tuple[bool, bool]:
    return span.kind != Span.SPAN_KIND_SERVER, names.SLUICEWAY_VERDICT in attributes_of(span)


def document_of(ports: Mapping[tuple[int, str], int]) -> dict[str, Any]:
    services, model_apis = [], []
    for number, (_, row) in enumerate(TABLE, 1):
        own = {"service": f"s{number}", "second": f"s{number}-second", "port": str(ports[number, "first"])}
        for role, name in (("first", own["service"]), ("second", own["second"])):
            service = {
                "name": name,
                "provider": row.asks.protocol,
                "base_url": f"http://127.0.0.1:{ports[number, role]}",
            }
            services.append(
                {**service, "api_keys": ["sk-up"], **(filled(row.service, **own) if role == "first" else {})}
            )
        model_api = {"name": f"m{number}", "base_path": f"/m{number}", "scenario": row.asks.scenario}
        model_api |= {"protocols": [row.asks.protocol], "routing": {"single": {"service": own["service"]}}}
        model_apis.append({**model_api, **filled(row.model_api, **own)})
    limits = {"head_timeout_ms": 1000, "body_idle_timeout_ms": 1000, "write_idle_timeout_ms": 1000}
    return {
        "limits": {**limits, "max_head_bytes": 8192},
        "drain_timeout_ms": 300,
        "services": services,
        "consumers": [{"name": "team", "keys": [KEY]}, {"name": "other", "keys": [OTHER_KEY]}],
        "model_apis": model_apis,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    folder: Path = tmp_path_factory.mktemp("endings")
    async with contextlib.AsyncExitStack() as stack:
        ports, upstreams = {}, {}
        for number, (_, row) in enumerate(TABLE, 1):
            for role, script in (("first", row.upstream), ("second", row.second)):
                ports[number, role] = NOBODY
                if script is not None:
                    upstream = await stack.enter_async_context(Scripted(*script))
                    ports[number, role] = upstream.port
                    if role == "first":
                        upstreams[number] = upstream
        sink = stack.enter_context(OtlpSink())
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20"}
        gateway = await stack.enter_async_context(Gateway.serving(document_of(ports), folder, environ=environ))
        yield Bed(gateway, sink, upstreams)


# -- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "row"), [pytest.param(number, row, id=name) for number, (name, row) in enumerate(TABLE, 1)]
)
async def test_an_ending(bed: Bed, number: int, row: Row) -> None:
    scene = await bed.play(number, row)
    line = await bed.line(number)
    tokens = line.get(names.GEN_AI_USAGE_INPUT_TOKENS), line.get(names.GEN_AI_USAGE_OUTPUT_TOKENS)
    if row.usage == DRAWN:
        assert tokens[1] > 0
        tokens = DRAWN[:2]
    assert (
        *(line.get(name) for name in (names.SLUICEWAY_OUTCOME, names.ERROR_TYPE, names.SLUICEWAY_ERROR_ORIGIN)),
        *(line[names.HTTP_RESPONSE_STATUS_CODE], *tokens, line.get(names.SLUICEWAY_USAGE_SOURCE)),
    ) == (row.outcome, row.error, row.origin, row.status, *row.usage)
    attempts = row.attempts if row.attempts is not None else int(row.outcome != REFUSED)
    assert line.get(names.SLUICEWAY_ATTEMPTS, 0) == attempts
    waits = (names.SLUICEWAY_UPLOAD_MS, names.SLUICEWAY_CONNECT_MS, names.SLUICEWAY_UPSTREAM_MS)
    times = [line[name] for name in (*waits, names.SLUICEWAY_CLIENT_BLOCKED_MS, names.SLUICEWAY_OVERHEAD_MS)]
    assert min(times) >= 0
    assert sum(times) == pytest.approx(line[names.SLUICEWAY_DURATION_MS], abs=1)
    same_on_spans(line, await bed.spans(line), attempts)
    as_the_client_saw_it(line, scene)
    if row.outcome in ("client_aborted", CUT) and END not in (row.upstream or ()):
        await asyncio.wait_for((await bed.upstreams[number].connection(0)).closed.wait(), WAIT_S)


def same_on_spans(line: Mapping[str, Any], spans: list[Span], attempts: int) -> None:
    """Each field of the line stands on the spans that are to have it, and nothing else does."""
    assert len(spans) == 1 + bool(attempts) + (attempts if attempts > 1 else 0)
    fields = {name: value for name, value in line.items() if name != names.SLUICEWAY_TRIED}
    assert attributes_of(spans[0]) == {name: value for name, value in fields.items() if names.on_server(name)}
    assert (spans[0].span_id.hex(), spans[0].parent_span_id) == (line["span_id"], b"")
    if not attempts:
        return
    client = attributes_of(spans[1])
    for name in (names.SERVER_ADDRESS, names.SERVER_PORT):
        assert client.pop(name)
    upstream_status = client.pop(names.HTTP_RESPONSE_STATUS_CODE, None)
    assert upstream_status in (None, line[names.HTTP_RESPONSE_STATUS_CODE]) or names.ERROR_TYPE in line
    failed = line[names.SLUICEWAY_OUTCOME] in (FAILED, CUT)
    expected = {name: value for name, value in fields.items() if names.on_client(name) and name != names.ERROR_TYPE}
    assert client == expected | ({names.ERROR_TYPE: line[names.ERROR_TYPE]} if failed else {})
    assert (spans[1].status.code == Status.STATUS_CODE_ERROR) == failed
    tried = line.get(names.SLUICEWAY_TRIED, ())
    assert [one["model"] for one in tried] == ["m"] * len(spans[2:])
    assert [attributes_of(span)[names.SLUICEWAY_UPSTREAM_MODEL] for span in spans[2:]] == ["m"] * len(tried)
    assert {span.parent_span_id for span in spans[1:]} == {spans[0].span_id} | (
        {spans[1].span_id} if attempts > 1 else set()
    )


def as_the_client_saw_it(line: Mapping[str, Any], scene: Scene) -> None:
    """An answer of the gateway's own says which; a whole one is whole, and one that was cut never looks so."""
    outcome, error, status = (
        line.get(name) for name in (names.SLUICEWAY_OUTCOME, names.ERROR_TYPE, names.HTTP_RESPONSE_STATUS_CODE)
    )
    if outcome in (CUT, "gateway_error"):
        assert not scene.whole
        assert MARK in scene.got
    elif outcome in (FAILED, REFUSED):
        assert scene.whole
        assert scene.got.startswith(b"HTTP/1.1 %d " % status)
        own = error in KINDS
        assert (b"\r\nx-sluiceway-error: %b\r\n" % str(error).encode() in scene.got) == own
        assert (b"\r\nx-sluiceway-error:" in scene.got) == own
    elif outcome == "client_aborted":
        assert not scene.whole


async def test_each_has_left_one_record(bed: Bed) -> None:
    """Those that ran: none is missing, and none is there twice."""
    await bed.gateway.records(bed.asked)
    board = bed.gateway.board
    assert len(bed.gateway.records_so_far()) == bed.asked
    assert [board.total(cell) for cell in (Cell.STARTED, Cell.HANDED)] == [bed.asked, bed.asked]
    assert bed.gateway.complaints() == []
