"""A task of DashScope's, from its making to its end: asked for until it is over, cancelled where nobody waits any more.

While a task runs the client hears nothing unless it asked for a stream. Its answer has one status, which is not known
before: a 200 that is sent to keep a connection busy could not become the 400 or 429 that the SDK is to raise, nor be
taken back for a fallback; and interim answers (102) are taken for the answer itself by Python's http.client and by
proxies. The kernel's keep-alive probes hold the connection open, and whoever wants a sign of life asks for `stream`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final

from observability.log import get_logger
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
FAILURES_MAX: Final = 5
"""Looks in a row that may fail, by the network or with 429 or 5xx, before the task does: it goes on meanwhile."""
CANCEL_S: Final = 5.0
CANCELLING_MAX: Final = 64
"""Tasks that are being cancelled at once, per worker: a courtesy, which must not cost more than the requests."""
_PASSING: Final = frozenset((429, 500, 502, 503, 504))

_log = get_logger(__name__)


class Task:
    """One that was made. `head_of` writes the head of a request about it: method and what stands behind its id."""

    __slots__ = ("_head_of", "_idle_timeout_ms", "_pool", "status", "task_id")

    def __init__(
        self, task_id: str, pool: Pool, idle_timeout_ms: int, head_of: Callable[[bytes, str], bytes], status: str | None
    ) -> None:
        self.task_id = task_id
        self.status = status
        """The last that was heard."""
        self._pool = pool
        self._idle_timeout_ms = idle_timeout_ms
        self._head_of = head_of

    @property
    def cancellable(self) -> bool:
        """DashScope cancels what has not begun yet, and nothing else."""
        return self.status == "PENDING"

    async def result(self) -> tuple[int, bytes, Answer]:
        """Status, body and meaning of the answer that is its last. UpstreamError where it does not end in time."""
        wait_s, failures = FIRST_WAIT_S, 0
        scope = asyncio.timeout(TASK_S)
        try:
            async with scope:
                while True:
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * WAIT_FACTOR, WAIT_MAX_S)
                    try:
                        status, body, answer = await self._look()
                    except (UpstreamError, TargetUnusableError):
                        failures += 1
                        if failures >= FAILURES_MAX:
                            raise
                        continue
                    if status in _PASSING and failures + 1 < FAILURES_MAX:
                        failures += 1
                        continue
                    failures = 0
                    self.status = answer.task_status
                    if status != HTTPStatus.OK or answer.task_status in FAILED or answer.task_status == "SUCCEEDED":
                        return status, body, answer
        except TimeoutError:
            if not scope.expired():
                raise
            message = f"the task did not end within {TASK_S:g} s"
            raise UpstreamError("upstream_timeout", message) from None

    async def _look(self) -> tuple[int, bytes, Answer]:
        head, body = await ask(self._pool, b"GET", self._head_of(b"GET", ""), self._idle_timeout_ms)
        return head.status, body, read_answer(head.status, body)

    async def cancel(self) -> None:
        """Say that nobody wants it any more. It may be too late for that."""
        await ask(self._pool, b"POST", self._head_of(b"POST", "/cancel"), self._idle_timeout_ms)


class AbandonedTasks:
    """Cancels tasks in the background: whoever waited for them is gone. One for each worker."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def cancel(self, task: Task) -> None:
        """As far as that is possible, in CANCEL_S."""
        if not task.cancellable or len(self._running) >= CANCELLING_MAX:
            return
        running = asyncio.get_running_loop().create_task(_within(task.cancel()))
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
