"""The way of a large request body to an upstream: a task beside the wait for the answer's head.

Pieces go from the tape through the rewriter, where there is one, to the connection, each awaited in both directions, so
that neither side is read faster than the other takes. What was held in a file and is not changed goes past all that
(`proxy.upstream.by_file`).
"""

import asyncio

from observability.observation import now_ns
from observability.scanners import RequestScanner
from proxy.changes import NAMED_TWICE, UNREADABLE
from proxy.errors import GatewayError, TargetUnusableError, UpstreamError, forget_frames
from proxy.exchange import Exchange
from proxy.rewrite import Rewriter
from proxy.upstream.by_file import send_file, takes_files
from proxy.upstream.connection import Connection
from proxy.upstream.response import ResponseHead


class Upload:
    """One reading of the tape, by one attempt."""

    __slots__ = ("_chunked", "_connection", "_done_ns", "_exchange", "_failure", "_rewriter", "_stopping", "_task")

    def __init__(self, exchange: Exchange, connection: Connection, rewriter: Rewriter | None) -> None:
        self._exchange = exchange
        self._connection = connection
        self._rewriter = rewriter
        self._chunked = exchange.body.chunked or rewriter is not None
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._stopping = False
        self._done_ns = 0

    def start(self) -> None:
        """Begin; the head of the request has been written."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def usage_asked(self) -> bool:
        """The rewriter asked for usage in the client's place."""
        return self._rewriter is not None and self._rewriter.asked

    async def read_head(self) -> ResponseHead:
        """The head of the answer. Raises UpstreamError, of which `raise_failure` may know better."""
        try:
            return await self._connection.read_head()
        finally:
            if self._done_ns:
                self._exchange.observation.upstream_ns += now_ns() - self._done_ns

    def raise_failure(self) -> None:
        """Raise what the client's body raised: it closed the connection, and whoever reads there hears only of that."""
        task = self._task
        if task is not None and task.done():
            if not task.cancelled():
                self._failure = task.exception()
            elif not self._stopping:  # the worker ends, and aiohttp cancels who reads a client's body
                raise asyncio.CancelledError from None
        if self._failure is not None and not isinstance(self._failure, UpstreamError):
            raise self._failure from None

    async def stop(self) -> None:
        """End it, if it still runs, and wait for its end: two readers of one body would be an error."""
        task = self._task
        if task is None:
            return
        self._stopping = True
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
        if not task.cancelled():
            self._failure = task.exception()
            forget_frames(self._failure)
        self._task = None  # it holds the frames of its failure too, and they hold this

    async def _run(self) -> None:
        """Copy the client's body to the upstream; waits for both sides are told apart."""
        exchange, connection = self._exchange, self._connection
        body, rewriter, scanner = exchange.body, self._rewriter, exchange.observation.request_scanner
        by_file = rewriter is None and not self._chunked and takes_files(connection)
        try:
            while True:
                part = await body.in_file() if by_file else None
                data = b"" if part else await body.read()
                if not (part or data):
                    break
                if body.complete and scanner is not None:
                    scanner.end()
                self._look(scanner)
                if part:
                    by_file = await self._pass_on(part)
                elif rewriter is None:
                    self._write((data,))
                else:
                    self._write(rewriter.feed(data))
                    self._check(rewriter)
                await self._drain()
                if connection.head_ready:
                    return
            if scanner is not None:
                scanner.end()
                self._look(scanner)
            if rewriter is not None:
                self._write(rewriter.end())
                self._check(rewriter)
            if self._chunked:
                connection.write(b"0\r\n\r\n")
            connection.request_complete = True
            self._done_ns = now_ns()
            if body.clock is not None:
                body.clock.look()
        except BaseException:
            if not self._stopping:  # an answer that came early is still to be relayed
                connection.abort()  # wakes the wait for the head, which looks here for the reason
            raise

    async def _pass_on(self, part: tuple[int, int, int]) -> bool:
        """Have the kernel send what is held in a file. False where it did not take all of it."""
        began_ns = now_ns()
        try:
            sent = await send_file(self._connection, *part)
        finally:
            self._exchange.observation.upstream_ns += now_ns() - began_ns
        self._exchange.body.passed(sent)
        await asyncio.sleep(0)  # an upstream that takes all at once leaves no turn to others
        return sent == part[2]

    def _look(self, scanner: RequestScanner | None) -> None:
        """Before anything more is sent: may there be another model than the one that decided?"""
        route = self._exchange.route
        if scanner is None or route is None or not route.model_matters:
            return
        if scanner.model_duplicated:
            raise GatewayError("bad_request", NAMED_TWICE)
        if scanner.failed and route.needs_model:  # else the rewriter, where there is one, says so
            raise GatewayError("bad_request", UNREADABLE)

    def _check(self, rewriter: Rewriter) -> None:
        """A body that cannot be read to its end may name the model once more where nobody looks."""
        route = self._exchange.route
        if rewriter.failed and route is not None and route.model_matters:
            raise TargetUnusableError("bad_request", UNREADABLE)

    def _write(self, pieces: "tuple[bytes, ...] | list[bytes]") -> None:
        connection = self._connection
        for piece in pieces:
            if not piece:
                continue
            if self._chunked:
                connection.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
            else:
                connection.write(piece)

    async def _drain(self) -> None:
        began_ns = now_ns()
        try:
            await self._connection.drain()
        finally:
            self._exchange.observation.upstream_ns += now_ns() - began_ns
