"""One try at one target: a connection, the request on it, the head that answers, and the relay of the answer.

A small body goes out with its head in one write. A large one is uploaded by a task of its own beside the wait for the
head, so that an upstream that answers early is heard at once: its answer is relayed and the upload stopped. Where the
exchange may go elsewhere, an answer that is not wanted is kept instead of relayed, and the beginning of a stream is
held back until it shows what it is (`proxy.opening`). The verdict is `proxy.verdict`'s.
"""

import asyncio
import time
from typing import Final, NamedTuple

from mypy_extensions import mypyc_attr

from observability.observation import Attempt as AttemptRecord
from observability.observation import now_ns
from proxy.changes import Changes
from proxy.config.snapshot import Route
from proxy.cooldown import retry_after_s
from proxy.deadline import FirstOutput
from proxy.errors import GatewayError, TargetUnusableError, UpstreamError
from proxy.exchange import Exchange, added_lines
from proxy.headers import Added, added, request_head
from proxy.opening import Kept, first_output, rest
from proxy.relay import is_stream, open_scanner, relay
from proxy.rewrite import Rewriter
from proxy.routing import Choice, Plan
from proxy.upload import Upload
from proxy.upstream.connection import Connection
from proxy.upstream.pool import Pool
from proxy.upstream.response import ResponseHead
from proxy.verdict import Blame, Facts, Judgement, Verdict, judge

BODILESS: Final = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))
"""Methods whose requests need no Content-Length where there is no body (RFC 9110 §8.6)."""


class Ended(NamedTuple):
    """How an attempt ended: DONE (the answer went to the client), or what follows and what is left of it."""

    verdict: Verdict
    error: GatewayError | None = None
    kept: Kept | None = None


_DONE: Final = Ended(Verdict.DONE)
_VERDICT_DONE: Final = Verdict.DONE  # a look at a member of an enumeration is 0.1 µs
_NOBODY: Final = Blame.NONE


@mypyc_attr(allow_interpreted_subclasses=True)  # proxy.translate's
class Attempt:
    """Owns its upstream connection from `run` to its end."""

    __slots__ = (
        "_choice",
        "_clock",
        "_creates_job",
        "_exchange",
        "_excused",
        "_fresh",
        "_plan",
        "_pool",
        "_record",
        "_retried",
        "_reused",
        "_route",
        "_sent",
        "_upload",
    )

    def __init__(
        self, exchange: Exchange, route: Route, plan: Plan, pool: Pool, record: AttemptRecord, *, retried: bool
    ) -> None:
        """`retried`: an earlier attempt of the exchange met a connection that was dead."""
        self._exchange = exchange
        self._route = route
        self._plan = plan
        self._choice: Choice = plan.choice
        self._pool = pool
        self._record = record
        self._retried = retried
        self._creates_job = exchange.creates_job
        self._fresh = retried or exchange.creates_job
        self._upload: Upload | None = None
        self._clock: FirstOutput | None = None
        self._reused = self._sent = False
        self._excused = False
        """What fails now is no fault of the target's: it was not reached yet, or did not get the whole request."""

    async def run(self) -> Ended:
        """Send and relay, or say what follows.

        Raises GatewayError where the exchange ends with it whatever other targets there are (the client's fault, or
        after the commit), and ConnectionError (the client left).
        """
        record, exchange, model_api = self._record, self._exchange, self._route.model_api
        try:
            if model_api.first_packet_timeout_ms or model_api.first_token_timeout_ms:
                return await self._within_deadlines()
            if self._choice.target.service.total_timeout_ms:
                return await self._within_total()
            return await self._answer()
        except (UpstreamError, TargetUnusableError) as error:
            judgement = self._judge(error)
            record.error, record.verdict = error.kind, judgement.verdict
            if judgement.blames is not _NOBODY:  # else it says nothing of its target, neither good nor bad
                self._plan.report(judgement.blames)
            if exchange.response.committed:
                raise
            return Ended(judgement.verdict, error)
        except GatewayError as error:
            record.error, record.verdict = error.kind, Verdict.GIVE_UP
            raise
        except (asyncio.CancelledError, ConnectionError):
            record.verdict = Verdict.CLIENT_LEFT
            raise
        finally:
            self._plan.release()
            record.end_ns = now_ns()

    async def _within_deadlines(self) -> Ended:
        """With the Model API's deadlines over it."""
        model_api, body = self._route.model_api, self._exchange.body
        packet_ms, token_ms = model_api.first_packet_timeout_ms, model_api.first_token_timeout_ms
        clock = FirstOutput(packet_ms, token_ms, self._exchange.asks_stream)
        self._clock = body.clock = clock
        try:
            async with clock:
                if self._choice.target.service.total_timeout_ms:
                    return await self._within_total()
                return await self._answer()
        finally:
            body.clock = None

    async def _within_total(self) -> Ended:
        """With the service's total timeout over it."""
        exchange = self._exchange
        total_s = self._choice.target.service.total_timeout_ms / 1000
        upload_ns, blocked_ns = exchange.observation.upload_ns, exchange.observation.client_blocked_ns
        scope = asyncio.timeout(total_s)
        try:
            async with scope:
                return await self._answer()
        except TimeoutError:
            if not scope.expired():
                raise
            committed = exchange.response.committed
            waited_s = (
                exchange.observation.upload_ns - upload_ns + exchange.observation.client_blocked_ns - blocked_ns
            ) / 1e9
            message = f"the request took longer than {total_s:g} s"
            if waited_s > total_s / 2:  # the time went by waiting for the client
                if committed:
                    raise ConnectionResetError(message) from None  # to it we are the ones who leave; nobody is blamed
                raise GatewayError("client_timeout", f"{message}, {waited_s:.1f} s of it for its own body") from None
            raise UpstreamError("upstream_timeout", message, response_started=committed) from None

    async def _answer(self) -> Ended:
        """Connect, send, wait for the head; then relay, or find that another target comes next."""
        exchange = self._exchange
        if self._choice.target.service.name not in self._route.places:
            raise TargetUnusableError("bad_request", "the service is not of a kind that can serve this operation")
        payload, rewriter = exchange.payload, None
        if exchange.changes is not None:
            payload, rewriter = self._change(exchange.changes)  # it may fail: before a connection is taken
        connection = (None if self._fresh else self._pool.take_idle()) or await self._connect()
        failure: BaseException | None = None
        try:
            ended = await self._over(connection, payload, rewriter)
        except BaseException as error:  # noqa: BLE001 - raised again below: see setup.py for what may not be awaited here
            ended, failure = _DONE, error
        try:
            if self._upload is not None:
                await self._upload.stop()
        finally:  # a client that leaves right now cancels that wait too
            self._pool.release(connection)
        if failure is None:
            return ended
        try:
            raise failure
        finally:
            del failure  # its traceback leads back here

    async def _over(self, connection: Connection, payload: bytes | None, rewriter: Rewriter | None) -> Ended:
        """Ask and answer over a connection, which the caller takes back."""
        exchange, plan = self._exchange, self._plan
        try:
            self._reused = connection.reused
            if payload is None and not exchange.body.empty:
                head = await self._send_large(connection, rewriter)
            else:
                self._send_small(connection, payload)
                began_ns = now_ns()
                try:
                    head = await connection.read_head()
                finally:
                    exchange.observation.upstream_ns += now_ns() - began_ns
            self._record.status = head.status
            exchange.observation.answered(head.status, head.request_id)
            held: list[bytes] = []
            ended: Ended | None = None
            if head.status >= 400:
                ended = await self._refused(connection, head, held)
            else:
                if is_stream(head) and (self._clock is not None or plan.target_left):
                    ended = await self._opened(connection, head, held)
                if ended is None:
                    plan.report(_NOBODY)
            if ended is not None:
                return ended
            self._settle()
            await relay(exchange, connection, head, added_lines(exchange, self._choice.target.service.name), held)
            plan.succeeded()
            self._record.verdict = _VERDICT_DONE
            return _DONE
        except UpstreamError:
            if self._upload is not None:
                self._upload.raise_failure()
            raise

    def _settle(self) -> None:
        """The answer goes to the client: from here on nothing is tried again."""
        if self._clock is not None:
            self._clock.stop()
        exchange = self._exchange
        if exchange.payload is None:
            exchange.body.let_go()
            if not exchange.body.complete:  # answered early: what the client still sends is no request
                exchange.keep_alive = False

    # -- request -----------------------------------------------------------------------------------------------------

    def _change(self, changes: Changes) -> tuple[bytes | None, Rewriter | None]:
        """The small body for this target, or what is to rewrite the large one. TargetUnusableError."""
        exchange, model = self._exchange, self._choice.target.model
        payload = exchange.payload
        if payload:
            payload, exchange.usage_asked = changes.whole(payload, model)
            return payload, None
        return payload, None if exchange.body.empty else changes.rewriter(model)

    async def _connect(self) -> Connection:
        began_ns = now_ns()
        self._excused = self._pool.full
        try:
            connection = await self._pool.acquire(self._fresh)
            self._excused = False
            return connection
        finally:
            self._exchange.observation.connect_ns += now_ns() - began_ns

    def _send_small(self, connection: Connection, payload: bytes | None) -> None:
        """Send a request whose body is whole here, or that has none, in one write."""
        exchange = self._exchange
        connection.begin(exchange.method.encode("ascii"), self._choice.target.service.idle_timeout_ms)
        self._sent = True
        request = self._request_head(payload, rewritten=False)
        connection.write(request + payload if payload else request)
        connection.request_complete = True

    async def _send_large(self, connection: Connection, rewriter: Rewriter | None) -> ResponseHead:
        """Send a request whose body streams; answers the head of the response, which may come before its end."""
        exchange = self._exchange
        connection.begin(exchange.method.encode("ascii"), self._choice.target.service.idle_timeout_ms)
        self._sent = True
        upload = self._upload = Upload(exchange, connection, rewriter)
        connection.write(self._request_head(None, rewritten=rewriter is not None))
        upload.start()
        head = await upload.read_head()
        await upload.stop()  # two waits at once would count twice; and nobody wants the rest of what is refused
        exchange.usage_asked = upload.usage_asked
        self._excused = not connection.request_complete
        return head

    def _request_head(self, payload: bytes | None, *, rewritten: bool) -> bytes:
        exchange, service = self._exchange, self._choice.target.service
        body = exchange.body
        target = self._route.upstream_path(service)
        place = self._route.places[service.name]
        if exchange.path.endswith("/"):
            target += "/"
        target += exchange.query
        length = body.content_length if payload is None else len(payload)
        if length is None and body.empty and exchange.method not in BODILESS:
            length = 0
        return request_head(
            exchange.method.encode("ascii"),
            target.encode("utf-8", "surrogateescape"),
            place.host_header,
            exchange.raw_headers,
            self._own_lines(),
            content_length=None if rewritten else length,
            chunked=payload is None and (body.chunked or rewritten),
            pass_codings=not (exchange.usage_asked or rewritten),
        )

    def _own_lines(self) -> Added:
        """The lines of the gateway's: credentials, the service's headers, our trace context where it wants one."""
        service, protocol = self._choice.target.service, self._route.operation.protocol
        if self._route.model_api.auth != "passthrough" and not service.propagate_trace:
            return self._choice.key.added[protocol]
        return added(self._lines_in(protocol))

    def _lines_in(self, protocol: str) -> tuple[tuple[bytes, bytes], ...]:
        """The same, as a service wants them in one of its protocols."""
        service = self._choice.target.service
        auth = self._choice.key.auth_headers[protocol]
        if self._route.model_api.auth == "passthrough":
            auth = service.provider.auth_headers(self._exchange.credential, protocol)
        return (*auth, *service.headers, *self._trace_lines())

    def _trace_lines(self) -> tuple[tuple[bytes, bytes], ...]:
        """Our CLIENT span as the upstream's parent, where the service is one of ours (`propagate_trace`)."""
        if not self._choice.target.service.propagate_trace:
            return ()
        observation = self._exchange.observation
        flags = "01" if observation.sampled else "00"
        parent = f"00-{observation.trace.trace_id}-{observation.client_span_id}-{flags}"
        lines = ((b"traceparent", parent.encode("ascii")),)
        state = observation.trace.tracestate
        return lines if state is None else (*lines, (b"tracestate", state.encode("ascii")))

    # -- what came of it ---------------------------------------------------------------------------------------------

    async def _refused(self, connection: Connection, head: ResponseHead, held: list[bytes]) -> Ended | None:
        """An error status: None where it goes to the client. `held` is filled with what was read of its body."""
        wait_s = None
        if head.status in (429, 503):
            wait_s = retry_after_s(head.first(b"retry-after"), time.time())
        judgement = self._judge(status=head.status)
        self._plan.report(judgement.blames, wait_s)
        return await self._keep(connection, head, held, judgement.verdict)

    async def _opened(self, connection: Connection, head: ResponseHead, held: list[bytes]) -> Ended | None:
        """A stream began: None where it goes to the client. `held` is filled with its beginning."""
        exchange, model_api = self._exchange, self._route.model_api
        open_scanner(exchange, head)
        opening = await first_output(
            connection,
            exchange.observation,
            self._clock,
            until_output=model_api.first_token_timeout_ms > 0,
            limit_bytes=exchange.snapshot.limits.hold_response_bytes,
        )
        held += opening.held
        if not opening.refused:
            return None
        scanner = exchange.observation.scanner
        self._record.error = scanner.findings.error_code if scanner is not None else None
        judgement = self._judge(error_event=True)
        self._plan.report(judgement.blames)
        return await self._keep(connection, head, held, judgement.verdict)

    async def _keep(
        self, connection: Connection, head: ResponseHead, held: list[bytes], verdict: Verdict
    ) -> Ended | None:
        """Keep an answer that may be the last one, where another attempt can follow; None: it goes to the client."""
        plan, exchange = self._plan, self._exchange
        follows = verdict is not Verdict.DONE and (verdict is Verdict.NEXT_KEY or plan.target_left)
        if not follows:
            return None
        if self._clock is not None:
            self._clock.stop()
        if not held:
            open_scanner(exchange, head)
        limit_bytes = exchange.snapshot.limits.hold_response_bytes
        self._record.verdict = verdict
        if await rest(connection, exchange.observation, held, limit_bytes):
            return Ended(verdict, kept=Kept(self._choice, head, held, usage_asked=exchange.usage_asked))
        what = f"more than {limit_bytes} bytes" if sum(map(len, held)) > limit_bytes else "broke off"
        return Ended(verdict, UpstreamError("upstream_protocol", f"the upstream answered {head.status} and {what}"))

    def _judge(
        self, error: GatewayError | None = None, *, status: int | None = None, error_event: bool = False
    ) -> Judgement:
        exchange, model_api, operation = self._exchange, self._route.model_api, self._route.operation
        return judge(
            Facts(
                failure=None if error is None else error.kind,
                status=status,
                error_event=error_event,
                excused=isinstance(error, TargetUnusableError)
                or (self._excused and error is not None and error.kind != "connect_failed"),
                sent=self._sent,
                response_started=not isinstance(error, UpstreamError) or error.response_started,
                connection_reused=self._reused,
                committed=exchange.response.committed,
                tape_whole=exchange.can_replay,
                already_retried=self._retried,
                own_key=model_api.auth != "passthrough",
                key_left=self._plan.key_left,
                replayable=operation.replayable,
                creates_job=self._creates_job,
                fallback_on=model_api.fallback_on,
            )
        )
