"""Rolling restart: the workers are replaced one by one, and nobody who is connected notices.

For each slot: a new worker is started beside the old one, on the same listening socket, and takes connections from its
first moment on. When its row of the board says that it serves, the old one is told that it is replaced (SIGUSR2): it
stops listening at once, serves what runs, and ends. The next slot's turn comes as soon as the old one was told, not
when it has drained: streams may run for minutes, and a host has at most twice its workers for that time.

A new worker that does not come to serve ends the whole roll, and the old ones stay: whatever is wrong with it would be
wrong with the next one too.
"""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Final

import structlog

from observability.board import Board, Cell
from proxy.children import Child
from proxy.crew import Crew
from proxy.sockets import AddressError

Log = structlog.typing.FilteringBoundLogger

START_S: Final = 60.0
"""How long a new worker may take until it serves. It takes 0.5 s, 3 s with a thousand Model APIs; on a machine that is
starved this is no reason to have none."""
POLL_S: Final = 0.02
"""A look at a number in shared memory, which cannot wake us."""
REMINDER_S: Final = 30.0
"""A roll that waits for an old worker's last requests says so this often."""


class Rolling:
    """Replaces the workers of a crew whenever it is asked to. One roll at a time.

    `start` starts a child and logs it, or raises OSError or AddressError; `replaced` is told of each child whose place
    another one has taken, and is to see to its end.
    """

    def __init__(
        self,
        crew: Crew,
        board: Board,
        log: Log,
        start: Callable[[Child], None],
        replaced: Callable[[Child], None],
    ) -> None:
        self._crew = crew
        self._board = board
        self._log = log
        self._start = start
        self._replaced = replaced
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Begin a roll; another one after it where one is under way."""
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self._roll()

    async def _roll(self) -> None:
        crew, began = self._crew, time.monotonic()
        self._log.info("rolling_restart", workers=len(crew))
        for slot in range(len(crew)):
            fresh = crew.spare(slot)
            await self._vacant(fresh)
            crew.begin(slot)
            if why := self._begin(fresh) or await self._wait_for(fresh):
                crew.abandon(slot)
                fresh.signal(signal.SIGKILL)
                hint = "the workers that were not replaced yet go on serving; mend it and send SIGUSR2 again"
                self._log.error("rolling_restart_abandoned", child=fresh.spec.name, why=why, done=slot, hint=hint)
                return
            old = crew.promote(slot)
            self._log.info("replaced", child=old.spec.name, child_pid=old.pid, by_pid=fresh.pid)
            self._replaced(old)
        took_ms = round((time.monotonic() - began) * 1000)
        self._log.info("rolling_restart_done", workers=len(crew), took_ms=took_ms)

    async def _vacant(self, lane: Child) -> None:
        """Wait until who was replaced by an earlier roll is gone."""
        while lane.pid is not None:
            try:
                await asyncio.wait_for(lane.ended.wait(), REMINDER_S)
            except TimeoutError:
                hint = "it was replaced and still has requests to finish; only then its slot has room for another"
                self._log.warning("rolling_restart_waits", child=lane.spec.name, child_pid=lane.pid, hint=hint)

    def _begin(self, fresh: Child) -> str | None:
        fresh.failures = 0
        try:
            self._start(fresh)
        except (OSError, AddressError) as error:
            return f"the new worker cannot be started: {error}"
        return None

    async def _wait_for(self, fresh: Child) -> str | None:
        """Until it serves. What is said where it never will."""
        row = self._board.row(self._crew.row(fresh))
        deadline = time.monotonic() + START_S
        while not row[Cell.GENERATION]:
            if fresh.pid is None:
                return "the new worker ended before it served; its own line says why"
            if time.monotonic() > deadline:
                return f"the new worker did not serve within {START_S:g} s"
            await asyncio.sleep(POLL_S)
        return None
