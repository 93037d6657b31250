"""A task of DashScope's, from its making to its end: asked for until it is over, cancelled where nobody waits any more.

While a task runs the client hears nothing unless it asked for a stream. Its answer has one status, which is not known
before: a 200 that is sent to keep a connection busy (white space may stand before JSON) could not become the 400 or
429 that the SDK is to raise, nor be taken back for a fallback; and interim answers (102) are taken for the answer
itself by Python's http.client and by proxies. The kernel's keep-alive probes hold the connection open. Whoever wants
signs of life asks for `stream`, and gets a comment for each look at the task.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from observability.log import get_logger
from proxy.config.targets import Service
from proxy.errors import TargetUnusableError, UpstreamError
from proxy.translate.answers import FAILED, Answer, read_answer
from proxy.translate.asking import ask
from proxy.upstream.pool import Pool

FIRST_WAIT_S: Final = 1.0
WAIT_FACTOR: Final = 1.5
WAIT_MAX_S: Final = 5.0
"""Between two looks at a task: as DashScope's own SDK has it. The quickest models take 3 s, most of them 10 to 60; an
account may ask 20 times a second (protocols.md §1.2), which is a hundred tasks at 5 s each."""
TASK_S: Final = 540.0
"""Until a task counts as lost, where the service has no `total_timeout_ms`: below the ten minutes after which OpenAI's
SDK gives up, so that the client learns what happened."""
LOOK_S: Final = 20.0
"""For one look, answered in 0.1 s where all is well: one that hangs must not use up the time of the task."""
FAILURES_MAX: Final = 5
"""Looks in a row that may fail, by the network or with 429 or 5xx, before the task does: it goes on meanwhile."""
CANCEL_S: Final = 5.0
CANCELLING_MAX: Final = 64
"""Tasks that are being cancelled at once, per worker: a courtesy, which must not cost more than the requests."""
_PASSING: Final = frozenset((429, 500, 502, 503, 504))

_log = get_logger(__name__)


class Look(NamedTuple):
    """What was heard of a task."""

    status: int
    """Of HTTP."""
    body: bytes
    answer: Answer

    @property
    def ends(self) -> bool:
        """It is the last: the task is over, or cannot be asked for."""
        over = self.answer.task_status == "SUCCEEDED" or self.answer.task_status in FAILED
        return over or (self.status != HTTPStatus.OK and self.status not in _PASSING)


class Task:
    """One that was made. `head_of` writes the head of a request about it: method and what stands behind its id."""

    __slots__ = ("_head_of", "_idle_timeout_ms", "_pool", "_within_s", "status", "task_id")

    def __init__(
        self, task_id: str, pool: Pool, service: Service, head_of: Callable[[bytes, str], bytes], status: str | None
    ) -> None:
        self.task_id = task_id
        self.status = status
        """The last that was heard."""
        self._pool = pool
        self._idle_timeout_ms = service.idle_timeout_ms
        self._within_s = math.inf if service.total_timeout_ms else TASK_S  # the attempt sees to the other
        self._head_of = head_of

    @property
    def cancellable(self) -> bool:
        """DashScope cancels what has not begun yet, and nothing else."""
        return self.status == "PENDING"

    async def looks(self) -> AsyncGenerator[Look | None, None]:
        """Ask for it again and again: None while it is under way, at last the answer that is its end.

        Raises UpstreamError where it does not end in time, or cannot be asked for.
        """
        loop = asyncio.get_running_loop()
        due_at = loop.time() + self._within_s
        wait_s, failures = FIRST_WAIT_S, 0
        while True:
            await asyncio.sleep(min(wait_s, due_at - loop.time()))
            wait_s = min(wait_s * WAIT_FACTOR, WAIT_MAX_S)
            look: Look | None = None
            try:
                async with asyncio.timeout_at(min(due_at, loop.time() + LOOK_S)):
                    look = await self._look()
            except TimeoutError:
                failures += 1
                if failures >= FAILURES_MAX:
                    message = "the upstream does not say what became of the task"
                    raise UpstreamError("upstream_timeout", message, response_started=True) from None
            except (UpstreamError, TargetUnusableError):
                failures += 1
                if failures >= FAILURES_MAX:
                    raise
            if look is not None:
                failures = failures + 1 if look.status in _PASSING else 0
                if look.ends or failures >= FAILURES_MAX:
                    yield look
                    return
            if loop.time() >= due_at:
                message = f"the task did not end within {TASK_S:g} s"
                raise UpstreamError("upstream_timeout", message, response_started=True)
            yield None

    async def _look(self) -> Look:
        head, body = await ask(self._pool, b"GET", self._head_of(b"GET", ""), self._idle_timeout_ms)
        answer = read_answer(head.status, body)
        self.status = answer.task_status or self.status
        return Look(head.status, body, answer)

    async def cancel(self) -> None:
        """Say that nobody wants it any more. It may be too late for that."""
        await ask(self._pool, b"POST", self._head_of(b"POST", "/cancel"), self._idle_timeout_ms)


class AbandonedTasks:
    """Cancels tasks in the background: whoever waited for them is gone. One for each worker."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def cancel(self, task: Task) -> None:
        """As far as that is possible, in CANCEL_S."""
        if task.cancellable and self.may_run:
            self.run(task.cancel())

    @property
    def may_run(self) -> bool:
        """There is room for one more."""
        return len(self._running) < CANCELLING_MAX

    def run(self, cancelling: Coroutine[Any, Any, None]) -> None:
        """In the background, for CANCEL_S at most. To be asked only where `may_run`."""
        running = asyncio.get_running_loop().create_task(_within(cancelling))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    def close(self) -> None:
        """Give up those that are under way."""
        for running in self._running:
            running.cancel()


async def _within(cancelling: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(CANCEL_S):
            await cancelling
    except (TimeoutError, UpstreamError, TargetUnusableError) as error:
        _log.info("task_not_cancelled", reason=str(error) or "no answer")
