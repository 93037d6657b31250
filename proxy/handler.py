"""Phase 1 and the way out: an aiohttp request becomes an Exchange, the pipeline runs it, an error becomes an answer.

Also the probes of the data listener, `/-/healthz` and `/-/readyz`, which make no record.
"""

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.hdrs import (
    ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD,
    CONTENT_LENGTH,
    EXPECT,
    ORIGIN,
    X_FORWARDED_FOR,
)

from observability.board import Cell
from observability.log import get_logger
from observability.middleware import OBSERVATION
from observability.observation import Observation
from proxy.body import SMALL_BODY_BYTES, RequestBody
from proxy.config.snapshot import Snapshot
from proxy.cors import preflight_lines
from proxy.downstream import DownstreamResponse
from proxy.edge import REFUSAL, Edge
from proxy.errors import KINDS, GatewayError, error_body, error_event, forget_frames, protocol_of_path
from proxy.exchange import Exchange
from proxy.headers import connection_line
from proxy.pipeline import Pipeline

MAX_PATH_CHARACTERS: Final = 2048
"""Of a path in a record; browsers and servers stop at about as much."""

_log = get_logger(__name__)
_ACTIVE: Final = int(Cell.ACTIVE)
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class Handler:
    """What serves a request, inside the observation middleware. One for each worker."""

    def __init__(self, snapshot: Snapshot, pipeline: Pipeline, row: memoryview) -> None:
        self.snapshot = snapshot
        """The configuration for new exchanges; replaced by assignment."""
        self.ready = True
        """False while draining: `/-/readyz` says so."""
        self.stopping = False
        """Set when running requests are about to be cancelled because the drain took too long."""
        self._pipeline = pipeline
        self._row = row

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request. Raises only CancelledError and ConnectionError: the client left, or the drain cut it."""
        edge = request.protocol
        assert isinstance(edge, Edge)
        response = DownstreamResponse(edge)
        target = request.raw_path
        if target.startswith("/-/") and request.method != "UNKNOWN":
            return self._probe(response, edge, request, target)
        observation = request[OBSERVATION]
        snapshot = self.snapshot
        observation.generation = snapshot.generation
        observation.telemetry = snapshot.telemetry
        if snapshot.fronted:
            _look_in_front(snapshot, request, response, observation)
        exchange: Exchange | None = None
        try:
            if request.method == "UNKNOWN":  # aiohttp's stand-in for bytes that never became a request
                raise request[REFUSAL]
            exchange = self._accept(request, edge, response, observation)
            self._admit()
            await self._pipeline.run(exchange)
        except GatewayError as error:
            self._fail(error, request, response, observation, exchange)
            forget_frames(error)
        except asyncio.CancelledError:
            if not self.stopping or edge.transport is None:  # the client left
                raise
            draining = GatewayError("draining", "the gateway shuts down and the request was not answered in time")
            if response.committed:
                _break_off(draining, response, observation, exchange)
                raise
            if exchange is not None:
                exchange.keep_alive = False
            self._fail(draining, request, response, observation, exchange)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the reason
            _log.exception("request_failed", request_id=observation.request_id)
            failure = GatewayError("internal", "the gateway failed; its log has the request id")
            self._fail(failure, request, response, observation, exchange)
        if edge.deaf or edge.unread:  # not where only a drain has begun: the head may have promised one more request
            response.close_after()
        return response

    def _accept(
        self, request: web.BaseRequest, edge: Edge, response: DownstreamResponse, observation: Observation
    ) -> Exchange:
        plain: Any = request
        message = plain._message  # noqa: SLF001 - aiohttp's public properties parse again on every access
        path, mark, query = message.path.partition("?")
        observation.method = message.method
        observation.path = path if len(path) < MAX_PATH_CHARACTERS and path.isascii() else _loggable(path)
        http_1_0 = message.version.minor == 0
        observation.protocol_version = "1.0" if http_1_0 else "1.1"
        headers = message.headers
        length = headers.get(CONTENT_LENGTH)
        expect = headers.get(EXPECT)
        if http_1_0:
            expect = None  # RFC 9110 §10.1.1: HTTP/1.0 does not know the interim answer
        elif expect is not None and (expect.lower() != "100-continue" or len(headers.getall(EXPECT)) > 1):
            raise GatewayError("bad_request", "the only expectation served is 100-continue")
        body = RequestBody(
            request.content,
            observation,
            content_length=int(length) if length else None,
            chunked=message.chunked,
            say_continue=None if expect is None else response.say_continue,
        )
        return Exchange(
            snapshot=self.snapshot,
            observation=observation,
            response=response,
            body=body,
            method=message.method,
            path=path,
            query=mark + query,
            headers=headers,
            raw_headers=message.raw_headers,
            http_1_0=http_1_0,
            keep_alive=not message.should_close and not edge.last_request,
        )

    def _admit(self) -> None:
        limit = self.snapshot.limits.max_inflight_requests
        if self._row[_ACTIVE] > limit:
            raise GatewayError("overloaded", f"the gateway has {limit} requests running, its limit")

    def _options(self, error: GatewayError, request: web.BaseRequest, exchange: Exchange) -> bool:
        """Answer what may be asked of a path (RFC 9110 §9.3.7), and whether a web page may: no credentials are needed.

        No route has OPTIONS, so it comes here as what the route search has found; False where that is something else.
        """
        methods = exchange.snapshot.methods if exchange.path == "*" else error.allow
        if methods is None:
            return False
        observation, cors, headers = exchange.observation, exchange.snapshot.cors, request.headers
        response: Any = exchange.response
        allowed = (*methods, "OPTIONS")
        lines = [
            "HTTP/1.1 204 No Content",
            f"Allow: {', '.join(allowed)}",
            f"x-sluiceway-request-id: {observation.request_id}",
            f"x-sluiceway-generation: {observation.generation}",
        ]
        keep_alive = exchange.keep_alive and (_arrived(request) or exchange.body.complete)
        head = "\r\n".join((*lines, "")).encode("latin-1")
        head += connection_line(keep_alive=keep_alive, http_1_0=exchange.http_1_0)
        if cors is not None and ACCESS_CONTROL_REQUEST_METHOD in headers and cors.allows(headers.get(ORIGIN)):
            response.cors += preflight_lines(allowed, headers.get(ACCESS_CONTROL_REQUEST_HEADERS))
        response.send(response.begin(head, status=204, framing="none", keep_alive=keep_alive), b"", last=True)
        observation.committed(204)
        return True

    def _fail(
        self,
        error: GatewayError,
        request: web.BaseRequest,
        response: DownstreamResponse,
        observation: Observation,
        exchange: Exchange | None,
    ) -> None:
        """Record the error, and answer it where the head has not gone out; else the answer is broken off."""
        if response.committed:
            observation.fail(error.kind, error.outcome, error.origin, error.message)
            _break_off(error, response, observation, exchange)
            return
        if exchange is not None and exchange.method == "OPTIONS" and self._options(error, request, exchange):
            return
        kind = error.kind if error.kind in KINDS else "upstream_protocol"
        facts = KINDS[kind]
        observation.fail(kind, facts.outcome, facts.origin, error.message)
        protocol = protocol_of_path(request.raw_path.partition("?")[0])
        if exchange is not None and exchange.route is not None:
            operation = exchange.route.operation
            protocol = operation.error_protocol or operation.protocol
        arrived = _arrived(request)
        self._answer(error, kind, facts.status, protocol, response, observation, exchange, body_over=arrived)

    def _answer(
        self,
        error: GatewayError,
        kind: str,
        status: int,
        protocol: str,
        response: DownstreamResponse,
        observation: Observation,
        exchange: Exchange | None,
        *,
        body_over: bool,
    ) -> None:
        """`body_over`: nothing of the request still comes; what of its body was not read is dropped."""
        body = error.body or error_body(kind, error.message, protocol, observation.request_id)
        lines = [
            f"HTTP/1.1 {status} {_REASONS.get(status, '')}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"x-sluiceway-error: {kind}",
            f"x-sluiceway-request-id: {observation.request_id}",
            f"x-sluiceway-generation: {observation.generation}",
        ]
        if observation.attempts:
            lines.append(f"x-sluiceway-service: {observation.service}")
            lines.append(f"x-sluiceway-attempts: {len(observation.attempts)}")
        if error.retry_after_s is not None:
            lines.append(f"Retry-After: {error.retry_after_s}")
        if error.allow:
            lines.append(f"Allow: {', '.join(error.allow)}")
        keep_alive = exchange is not None and exchange.keep_alive and (body_over or exchange.body.complete)
        http_1_0 = exchange is not None and exchange.http_1_0
        head = "\r\n".join((*lines, "")).encode("latin-1") + connection_line(keep_alive=keep_alive, http_1_0=http_1_0)
        bodiless = observation.method == "HEAD"
        framing = "none" if bodiless else "length"
        head = response.begin(head, status=status, framing=framing, keep_alive=keep_alive)
        response.send(head, b"" if bodiless else body, last=True)
        observation.committed(status)
        if not bodiless:
            observation.response_bytes = len(body)

    def _probe(
        self, response: DownstreamResponse, edge: Edge, request: web.BaseRequest, target: str
    ) -> DownstreamResponse:
        path = target.partition("?")[0]
        status, text = 404, "not found"
        if request.method not in ("GET", "HEAD"):
            status, text = 405, "use GET"
        elif path == "/-/healthz":
            status, text = 200, "ok"
        elif path == "/-/readyz":
            status, text = (200, "ready") if self.ready else (503, "draining")
        body = b"" if request.method == "HEAD" else f"{text}\n".encode("ascii")
        keep_alive = bool(request.keep_alive) and not edge.last_request and not edge.unread
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain\r\nContent-Length: {len(text) + 1}\r\n"
        ).encode("ascii") + connection_line(keep_alive=keep_alive, http_1_0=request.version.minor == 0)
        response.send(response.begin(head, status=status, framing="length", keep_alive=keep_alive), body, last=True)
        return response


def _break_off(
    error: GatewayError, response: DownstreamResponse, observation: Observation, exchange: Exchange | None
) -> None:
    """Cut an answer that has begun. A stream is told why before, as one more event, which SDKs raise; then it is cut
    all the same, so that nobody takes it for whole.

    Not inside an event of the upstream's: it would have to be ended first, and SDKs fail on half a document with an
    error of their JSON parser, where the cut alone is a broken connection. Not behind the end of the stream or an error
    of the upstream's, nor where the scanner cannot tell.
    """
    if response.ended:
        return
    route = None if exchange is None else exchange.route
    scanner = observation.scanner
    if route is not None and scanner is not None and response.between_events:
        findings, operation = scanner.findings, route.operation
        if not (findings.complete or findings.failed or findings.error_code):
            protocol = operation.error_protocol or operation.protocol
            request_id, number = observation.request_id, findings.events
            event = error_event(error.kind, error.message, protocol, operation.name, request_id, number)
            with contextlib.suppress(ConnectionError):  # it has left meanwhile
                response.send(b"", event, last=False)
    response.cut()


def _look_in_front(
    snapshot: Snapshot, request: web.BaseRequest, response: DownstreamResponse, observation: Observation
) -> None:
    """What a proxy or a browser in front of the gateway says of a request."""
    if request.method == "UNKNOWN":  # it has no headers
        return
    if snapshot.trusted_proxies is not None:
        lines = request.headers.getall(X_FORWARDED_FOR, ())
        observation.client_address = snapshot.trusted_proxies.client_of(observation.client_address, lines)
    if snapshot.cors is not None:
        response.cors = snapshot.cors.lines(request.headers.get(ORIGIN))


def _arrived(request: web.BaseRequest) -> bool:
    """Nothing of the request still comes, and what of it was not read may be dropped."""
    return request.content.is_eof() and request.content.total_bytes <= SMALL_BODY_BYTES


def _loggable(path: str) -> str:
    """A path as a record may carry it: bounded, and with surrogates (bytes that are no UTF-8) made visible."""
    path = path[:MAX_PATH_CHARACTERS]
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode("utf-8")
