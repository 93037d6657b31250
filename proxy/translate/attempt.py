"""One try at a DashScope service with an OpenAI image request: sent as DashScope's, answered as OpenAI's.

An attempt like any other, with the same verdicts, deadlines and cool-downs. What differs is what is sent, that the
answer is read whole before anything of it goes on (it is small, and says whether it is one), and that a task is
followed to its end. The commit comes last, so a task that failed may still be tried elsewhere. The record has what
DashScope said: its answers are scanned as those of its own protocol.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Final

from multidict import istr

from observability import names
from observability.content.scanning import recorded_scanner
from observability.ending import CLIENTS_FAULT
from observability.observation import Attempt as AttemptRecord
from observability.observation import now_ns
from observability.scanners import Scanner, response_scanner
from proxy.attempt import Attempt, Ended
from proxy.config.snapshot import Route
from proxy.cooldown import retry_after_s
from proxy.errors import GatewayError, TargetUnusableError, UpstreamError
from proxy.exchange import Exchange, added_lines
from proxy.headers import Added, added, request_head
from proxy.opening import Kept
from proxy.relay import relay
from proxy.routing import Plan
from proxy.translate.answers import (
    Answer,
    Failure,
    event_of_error,
    events_of,
    failure_body,
    pieces_of,
    read_answer,
    to_fetch,
)
from proxy.translate.asking import read_whole
from proxy.translate.downloads import Downloads, Pieces, encoded
from proxy.translate.models import REFUSED, Call, call_of
from proxy.translate.replies import head_of_reply, in_a_comment, lines_of
from proxy.translate.request import Translator, translator_of
from proxy.translate.tasks import AbandonedTasks, Task
from proxy.upstream.connection import Connection
from proxy.upstream.pools import Pools
from proxy.upstream.response import ResponseHead
from proxy.verdict import Blame, Judgement, Verdict

_CONTENT_TYPE, _CONTENT_ENCODING = istr("Content-Type"), istr("Content-Encoding")
_DIGESTS: Final = (b"content-md5", b"digest", b"content-digest", b"repr-digest")
_NOT_PASSED: Final = frozenset((b"content-encoding", b"x-dashscope-async", b"x-dashscope-sse", *_DIGESTS))
"""Lines of the client's that would say something of a request that is not sent so."""
_TASKS: Final = "/api/v1/tasks/"


class TranslatedAttempt(Attempt):
    """See the module."""

    __slots__ = ("_abandoned", "_call", "_peer", "_pools", "_translator", "_under_way")

    def __init__(
        self,
        exchange: Exchange,
        route: Route,
        plan: Plan,
        pools: Pools,
        abandoned: AbandonedTasks,
        record: AttemptRecord,
        *,
        retried: bool,
    ) -> None:
        """As of `Attempt`. `abandoned` cancels the task of a client that leaves."""
        place = route.places[plan.choice.target.service.name]
        super().__init__(exchange, route, plan, pools.of(place), record, retried=retried)
        self._pools = pools
        self._abandoned = abandoned
        self._peer = ""
        self._under_way = False  # a task was made, and may still become images: no other is made for this request
        self._call: Call
        self._translator: Translator

    async def _answer(self) -> Ended:
        """Translate, send, wait for what comes of it; then answer, or find that another target comes next."""
        self._prepare()
        head, body = await self._ask()
        answer = read_answer(head.status, body)
        self._scan(head.status, body)
        if answer.failure is None:
            self._plan.report(Blame.NONE)
            if self._call.is_task:
                return await self._follow(answer, head)
        return await self._end(answer, head)

    async def _end(self, answer: Answer, head: ResponseHead) -> Ended:
        """Say how it ended."""
        if answer.failure is not None:
            return await self._refuse(answer.failure, answer, head)
        if not answer.images:
            raise _protocol_error("the upstream's answer has no image")
        await self._deliver(answer, head)
        return self._done()

    def _done(self) -> Ended:
        self._plan.succeeded()
        self._record.verdict = Verdict.DONE
        return Ended(Verdict.DONE)

    # -- request -----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Find the call, and make what translates the body. TargetUnusableError, GatewayError (model_missing)."""
        exchange, operation, target = self._exchange, self._route.operation.name, self._choice.target
        if operation in REFUSED:
            message = "DashScope has no variations of images: use edits, with a prompt"
            raise TargetUnusableError("bad_request", message)
        scanner = exchange.observation.request_scanner
        model = target.model or (None if scanner is None else scanner.model)
        if model is None:
            raise GatewayError("model_missing", "the request names no model, and DashScope has none of its own accord")
        self._call = call = call_of(operation, model, target.service.image_paths)
        headers = exchange.headers
        self._translator = translator_of(
            headers.get(_CONTENT_TYPE, ""), headers.get(_CONTENT_ENCODING, ""), call, model, operation
        )
        if call.is_task:
            self._creates_job = self._fresh = True

    async def _ask(self) -> tuple[ResponseHead, bytes]:
        """Send the request; the whole of what comes."""
        exchange = self._exchange
        payload = b"" if exchange.body.empty else exchange.payload
        if payload is not None:  # it may fail: before a connection is taken
            payload = self._translator.whole(payload)
        connection: Connection | None = None
        try:
            connection = (None if self._fresh else self._pool.take_idle()) or await self._connect()
            self._reused = connection.reused
            self._peer = self._pool.peer_of(connection)
            if payload is None:
                await self._send_large(connection, self._translator)
            else:
                self._send_small(connection, payload)
            began_ns = now_ns()
            try:
                head = await connection.read_head()
                self._record.status = head.status
                exchange.observation.answered(head.status, head.request_id)
                if not connection.request_complete and head.status < 400:
                    raise _protocol_error("the upstream answered before it had the whole request")
                return head, await read_whole(connection, head)
            finally:
                exchange.observation.upstream_ns += now_ns() - began_ns
        except UpstreamError:
            if self._upload is not None:
                self._upload.raise_failure()
            raise
        except asyncio.CancelledError:
            if connection is not None and self._makes_a_task(connection) and self._abandoned.may_run:
                self._abandoned.run(self._hear_out(connection))
                connection = None  # it goes back from there
            raise
        finally:
            try:
                if self._upload is not None:
                    await self._upload.stop()
            finally:  # as in `Attempt`
                if connection is not None:
                    self._pool.release(connection)

    def _makes_a_task(self, connection: Connection) -> bool:
        """It was asked for one, and nobody knows yet which."""
        return self._call.is_task and connection.request_complete and not connection.closed

    async def _hear_out(self, connection: Connection) -> None:
        """Whoever asked for a task is gone before it had a name: learn that, and cancel it."""
        try:
            head = await connection.read_head()
            made = read_answer(head.status, await read_whole(connection, head))
        finally:
            self._pool.release(connection)
        if made.failure is None and made.task_status == "PENDING":
            await self._task_of(made).cancel()

    def _request_head(self, payload: bytes | None, *, rewritten: bool) -> bytes:
        asynchronous = ((b"x-dashscope-async", b"enable"),) if self._call.is_task else ()
        lines = ((b"content-type", b"application/json"), (b"accept", b"application/json"), *asynchronous)
        return self._head_of(
            b"POST",
            self._call.path + self._exchange.query,
            [line for line in self._exchange.raw_headers if line[0].lower() not in _NOT_PASSED],
            added((*self._lines_in("dashscope"), *lines)),
            None if payload is None else len(payload),
        )

    def _head_of(
        self, method: bytes, path: str, lines: list[tuple[bytes, bytes]], own: Added, content_length: int | None
    ) -> bytes:
        service = self._choice.target.service
        return request_head(
            method,
            (self._route.upstream_path(service) + path).encode("utf-8", "surrogateescape"),
            self._route.places[service.name].host_header,
            lines,
            own,
            content_length=content_length,
            chunked=content_length is None and method == b"POST",
            pass_codings=False,
        )

    # -- what came of it ---------------------------------------------------------------------------------------------

    def _scan(self, status: int, body: bytes) -> None:
        """Look at an answer as at one of DashScope's own protocol; what goes to the client is not looked at again."""
        observation = self._exchange.observation
        observation.upstream_status = status
        made = None if observation.scanner is None else observation.scanner.findings.task_id
        recording = observation.recording
        scan = response_scanner if recording is None or not recording.answers else partial(recorded_scanner, recording)
        scanner = scan("dashscope", self._call.operation, "application/json", status)
        observation.scanner = scanner
        observation.scan(body)
        scanner.end()
        scanner.findings.task_id = scanner.findings.task_id or made  # an error does not name it again
        scanner.findings.complete = False  # until the client has what follows from it
        observation.scanner = _Seen(scanner.findings)

    def _task_of(self, made: Answer) -> Task:
        """The task that was made. UpstreamError where there is none."""
        if made.task_id is None:
            raise _protocol_error("the upstream made no task, though it was asked for one")
        own = added(self._lines_in("dashscope"))
        spoken = [line for line in self._exchange.raw_headers if line[0].lower() == b"x-dashscope-workspace"]
        path = _TASKS + made.task_id

        def head_of(method: bytes, behind: str) -> bytes:
            return self._head_of(method, path + behind, spoken, own, 0 if method == b"POST" else None)

        return Task(made.task_id, self._pool, self._choice.target.service, head_of, made.task_status)

    async def _follow(self, made: Answer, head: ResponseHead) -> Ended:
        """From a task that was made to its end."""
        task = self._task_of(made)
        observation = self._exchange.observation
        began_ns = now_ns()
        try:
            if self._translator.streams:
                async with self._downloads() as downloads:
                    await self._stream(self._events(task, downloads), b": the task was made\n\n", made, head)
                return self._done()
            try:
                look = [look async for look in task.looks()][-1]
            finally:
                observation.upstream_ns += now_ns() - began_ns
        finally:  # the client left, the time is over, or nobody can tell what became of it; else it is over
            self._abandoned.cancel(task)
        assert look is not None
        self._scan(look.status, look.body)
        self._creates_job = self._under_way = look.status >= 400  # else it is over: where it failed, nothing was made
        return await self._end(look.answer, head)

    async def _events(self, task: Task, downloads: Downloads) -> AsyncGenerator[bytes, None]:
        """What a stream says of a task: comments, then the images or an error.

        UpstreamError cuts it; the handler says why, where no image has begun.
        """
        answer = Answer()
        async with aclosing(task.looks()) as looks:
            async for look in looks:
                if look is None:
                    yield b": the task is %b\n\n" % in_a_comment(task.status)
                else:
                    self._scan(look.status, look.body)
                    answer = look.answer
        if answer.failure is not None:
            self._report(answer.failure)
            self._fail(answer.failure)
            yield event_of_error(failure_body(answer.failure, answer.request_id))
            return
        if not answer.images:
            raise _protocol_error("the upstream's answer has no image")
        connections = await downloads.open(to_fetch(answer.images))
        first, *others = self._completed(answer)
        yield first
        async with aclosing(encoded(connections, others)) as pieces:
            async for piece in pieces:
                yield piece

    async def _refuse(self, failure: Failure, answer: Answer, head: ResponseHead) -> Ended:
        """The upstream's no: to the client, or kept while another target is tried."""
        lines = lines_of(answer, head)
        wait_s = None
        if failure.status in (429, 503):
            value = head.first(b"retry-after")
            wait_s = retry_after_s(value, time.time())
            lines += [] if value is None else [(b"Retry-After", value)]
        judgement = self._report(failure, wait_s)
        body = failure_body(failure, answer.request_id)
        own = head_of_reply(failure.status, lines, len(body))
        follows = judgement.verdict is Verdict.NEXT_KEY or self._plan.target_left
        if judgement.verdict is not Verdict.DONE and follows and not self._under_way:
            self._record.verdict = judgement.verdict
            return Ended(judgement.verdict, kept=Kept(self._choice, own, [body], usage_asked=False))
        self._settle()
        self._fail(failure)
        await self._send(own, body)
        return self._done()

    def _report(self, failure: Failure, wait_s: float | None = None) -> Judgement:
        """Say whom the upstream's no counts against."""
        judgement = self._judge(status=failure.status)
        # with 200 providers tell of a client's own mistakes too, so only what is said of the key counts then
        said = self._exchange.observation.upstream_status >= 400 or judgement.blames is Blame.KEY
        self._plan.report(judgement.blames if said else Blame.NONE, wait_s)
        self._record.error = failure.recorded
        return judgement

    def _fail(self, failure: Failure) -> None:
        """The upstream's no is how the exchange ends."""
        origin = names.ORIGIN_CLIENT if failure.status in CLIENTS_FAULT else names.ORIGIN_UPSTREAM
        self._exchange.observation.fail(failure.recorded, names.OUTCOME_UPSTREAM_ERROR, origin)

    async def _deliver(self, answer: Answer, head: ResponseHead) -> None:
        """The images, as the client wants them."""
        translator = self._translator
        inline = translator.streams or translator.inline
        urls = to_fetch(answer.images) if inline else []
        first, *others = self._completed(answer) if translator.streams else pieces_of(answer, _now_s(), inline=inline)
        if not inline:
            self._settle()
            await self._send(head_of_reply(200, lines_of(answer, head), len(first)), first)
            return
        observation = self._exchange.observation
        async with self._downloads() as downloads:
            began_ns = now_ns()
            try:
                connections = await downloads.open(urls)
            finally:
                observation.upstream_ns += now_ns() - began_ns
            await self._stream(encoded(connections, others), first, answer, head)

    def _downloads(self) -> Downloads:
        return Downloads(self._pools, self._choice.target.service, self._peer)

    def _completed(self, answer: Answer) -> list[bytes]:
        kind = "image_edit" if self._route.operation.name == "images.edits" else "image_generation"
        observation = self._exchange.observation
        if observation.scanner is not None:
            observation.scanner.findings.events += len(answer.images)
        return events_of(answer, _now_s(), f"{kind}.completed")

    async def _stream(
        self, pieces: AsyncGenerator[bytes, None], first: bytes, answer: Answer, head: ResponseHead
    ) -> None:
        """Commit, and pass on what comes."""
        streams = self._translator.streams
        self._exchange.observation.stream = streams
        self._settle()
        source = Pieces(pieces)
        content_type = b"text/event-stream" if streams else b"application/json"
        own = head_of_reply(200, lines_of(answer, head), None, content_type)
        try:
            await relay(self._exchange, source, own, self._added(), [first])
        finally:
            await source.close()

    async def _send(self, head: ResponseHead, body: bytes) -> None:
        """An answer that is whole."""
        await relay(self._exchange, Kept(self._choice, head, [], usage_asked=False), head, self._added(), [body])

    def _added(self) -> bytes:
        return added_lines(self._exchange, self._choice.target.service.name)


class _Seen(Scanner):
    """What is known of an answer that was looked at, while the gateway's own words of it go to the client."""

    __slots__ = ()

    def _take(self, data: bytes) -> None:
        pass


def _now_s() -> int:
    return int(time.time())


def _protocol_error(message: str) -> UpstreamError:
    return UpstreamError("upstream_protocol", message, response_started=True)
