"""One try at one target: a connection, the request on it, the head that answers, and the relay of the answer.

A small body goes out with its head in one write. A large one is uploaded by a task of its own beside the wait for the
head, so that an upstream that answers early is heard at once: its answer is relayed and the upload stopped.
"""

import asyncio
from typing import Final

from observability.observation import Attempt as AttemptRecord
from observability.observation import now_ns
from proxy.config.snapshot import Route, Service
from proxy.errors import UpstreamError
from proxy.exchange import Exchange
from proxy.headers import request_head
from proxy.relay import relay
from proxy.upstream.connection import Connection
from proxy.upstream.pool import Pool
from proxy.upstream.response import ResponseHead
from proxy.verdict import Verdict, judge

BODILESS: Final = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))
"""Methods whose requests need no Content-Length where there is no body (RFC 9110 §8.6)."""


class Attempt:
    """Owns its upstream connection from `run` to its end."""

    __slots__ = ("_exchange", "_pool", "_record", "_route", "_service", "_upload", "_upload_done_ns")

    def __init__(self, exchange: Exchange, route: Route, service: Service, pool: Pool, record: AttemptRecord) -> None:
        self._exchange = exchange
        self._route = route
        self._service = service
        self._pool = pool
        self._record = record
        self._upload: asyncio.Task[None] | None = None
        self._upload_done_ns = 0

    async def run(self, payload: bytes | None, *, fresh: bool, retried: bool) -> Verdict:
        """Send and relay. `payload`: the whole body where it is small, None where it streams or there is none.

        Answers DONE or SAME_TARGET. Raises GatewayError (UpstreamError where the upstream is to blame) and
        ConnectionError (the client left).
        """
        record = self._record
        connection: Connection | None = None
        try:
            connection = (None if fresh else self._pool.take_idle()) or await self._connect(fresh=fresh)
            head = await self._send(connection, payload)
            record.status = self._exchange.observation.upstream_status = head.status
            if self._upload is not None:
                await self._stop_upload()
            if not self._exchange.body.complete:  # answered early: what the client still sends is not read as a request
                self._exchange.keep_alive = False
            await relay(self._exchange, connection, head, self._added_lines())
            record.verdict = Verdict.DONE
            return Verdict.DONE
        except UpstreamError as error:
            record.error = error.kind
            if self._exchange.response.committed:
                record.verdict = Verdict.CUT
                raise
            verdict = judge(
                error,
                connection_reused=connection is not None and connection.reused,
                tape_whole=payload is not None or self._exchange.body.held_whole,
                already_retried=retried,
            )
            record.verdict = verdict
            if verdict is Verdict.SAME_TARGET:
                return verdict
            raise
        finally:
            if self._upload is not None:
                await self._stop_upload()
            if connection is not None:
                self._pool.release(connection)
            record.end_ns = now_ns()

    async def _connect(self, *, fresh: bool) -> Connection:
        began_ns = now_ns()
        try:
            return await self._pool.acquire(fresh)
        finally:
            self._exchange.observation.connect_ns += now_ns() - began_ns

    def _request_head(self, payload: bytes | None) -> bytes:
        exchange, service = self._exchange, self._service
        model_api, body = self._route.model_api, exchange.body
        target = self._route.upstream_path
        if exchange.path.endswith("/"):
            target += "/"
        target += exchange.query
        auth = service.auth_headers
        if model_api.auth == "passthrough":
            auth = service.provider.auth_headers(exchange.credential, self._route.operation.protocol)
        length = body.content_length if payload is None else len(payload)
        if length is None and body.empty and exchange.method not in BODILESS:
            length = 0
        return request_head(
            exchange.method.encode("ascii"),
            target.encode("utf-8", "surrogateescape"),
            service.host_header,
            exchange.raw_headers,
            (*auth, *service.headers, *self._trace_lines()),
            content_length=length,
            chunked=payload is None and body.chunked,
            pass_trace=service.propagate_trace,
            pass_codings=not exchange.usage_asked,
        )

    def _trace_lines(self) -> tuple[tuple[bytes, bytes], ...]:
        """Our CLIENT span as the upstream's parent, where the service is one of ours (`propagate_trace`)."""
        if not self._service.propagate_trace:
            return ()
        observation = self._exchange.observation
        flags = "01" if observation.sampled else "00"
        parent = f"00-{observation.trace.trace_id}-{observation.client_span_id}-{flags}"
        return ((b"traceparent", parent.encode("ascii")),)

    async def _send(self, connection: Connection, payload: bytes | None) -> ResponseHead:
        """Send the request; answers the head of the response."""
        connection.begin(self._exchange.method.encode("ascii"), self._service.idle_timeout_ms)
        request = self._request_head(payload)
        if payload is not None or self._exchange.body.empty:
            connection.write(request + payload if payload else request)
            connection.request_complete = True
            self._upload_done_ns = now_ns()
        else:
            connection.write(request)
            self._upload = asyncio.get_running_loop().create_task(self._upload_body(connection))
        try:
            return await connection.read_head()
        except UpstreamError:
            upload = self._upload
            if upload is not None and upload.done():
                if upload.cancelled():  # not by us: the worker ends, and aiohttp cancels who reads a client's body
                    raise asyncio.CancelledError from None
                if error := upload.exception():
                    raise error from None  # the connection was closed because the client's body could not be read
            raise
        finally:
            if self._upload_done_ns:
                self._exchange.observation.upstream_ns += now_ns() - self._upload_done_ns

    async def _upload_body(self, connection: Connection) -> None:
        """Copy the client's body to the upstream; waits for both sides are told apart."""
        exchange = self._exchange
        body, observation = exchange.body, exchange.observation
        chunked = body.chunked
        try:
            while data := await body.read():
                if chunked:
                    connection.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
                else:
                    connection.write(data)
                began_ns = now_ns()
                await connection.drain()
                observation.upstream_ns += now_ns() - began_ns
                if connection.head_ready:
                    return
            if chunked:
                connection.write(b"0\r\n\r\n")
            if observation.request_scanner is not None:
                observation.request_scanner.end()
            connection.request_complete = True
            self._upload_done_ns = now_ns()
        except BaseException:
            connection.abort()  # wakes the wait for the head, which looks here for the reason
            raise

    async def _stop_upload(self) -> None:
        """End the upload, if it still runs, and wait for its end: two readers of one body would be an error."""
        upload = self._upload
        if upload is None:
            return
        self._upload = None
        if not upload.done():
            upload.cancel()
            await asyncio.wait((upload,))
        if not upload.cancelled():
            upload.exception()  # seen

    def _added_lines(self) -> bytes:
        """The gateway's own header lines of a relayed answer."""
        exchange = self._exchange
        return (
            f"x-sluiceway-request-id: {exchange.observation.request_id}\r\n"
            f"x-sluiceway-service: {self._service.name}\r\n"
            f"x-sluiceway-attempts: {len(exchange.observation.attempts)}\r\n"
            f"x-sluiceway-generation: {exchange.snapshot.generation}\r\n"
        ).encode("ascii")
