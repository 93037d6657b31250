"""The supervisor looks after its workers: who hangs or leaves gets no more connections, who hangs on is killed.

A process that is stopped, or whose loop never returns from a call, keeps its listening socket, and the kernel goes on
giving it its share of the connections. So does one that drains by itself (somebody sent it SIGTERM), through the
supervisor's copy of the socket. `Watch` takes the share away: a silent worker's socket is muted, one that leaves has
its slot parked, and both are logged once. What stays silent is killed, and the supervisor starts it again. One that was
replaced and drains is watched for silence alone: its socket is its successor's.

The supervisor counts its own looks in place of comparing clocks: when the whole host was frozen (a container that is
paused, a machine that sleeps), the first look afterwards sees old heartbeats everywhere, and nobody is to blame.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from observability.board import Board, Cell
from proxy.children import Child
from proxy.crew import Crew
from proxy.heartbeat import SILENT_AFTER_S
from proxy.sockets import AddressError, Listeners

Log = structlog.typing.FilteringBoundLogger

LOOK_S: Final = 0.5
"""How often the supervisor looks."""
STUCK_AFTER_S: Final = 30.0
"""A kill ends the running requests, so it must be certain; gunicorn's default for its workers, and the span in which an
orchestrator's readiness probe (3 failures, 10 s apart) gives up. Meanwhile the others have the share."""


@dataclass(slots=True)
class _Seen:
    """What was seen of one process so far."""

    pid: int | None = None
    heartbeat: int = 0
    looks: int = 0
    """In a row that found the same heartbeat."""
    silent: bool = False
    stuck: bool = False
    leaving: bool = False


class Watch:
    """Looks after the workers of a supervisor. `kill` ends one."""

    def __init__(
        self,
        crew: Crew,
        board: Board,
        listeners: Listeners,
        log: Log,
        kill: Callable[[Child], None],
        *,
        silent_after_s: float = SILENT_AFTER_S,
        stuck_after_s: float = STUCK_AFTER_S,
    ) -> None:
        self._crew = crew
        self._board = board
        self._listeners = listeners
        self._log = log
        self._kill = kill
        self._silent_after_s = silent_after_s
        self._stuck_after_s = stuck_after_s
        self._seen: dict[Child, _Seen] = {}
        self.draining = False
        """The whole host drains: that workers leave is as it should be."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for child in self._crew:
                self._look(child)

    def _look(self, child: Child) -> None:
        seen = self._seen.get(child)
        if seen is None or child.pid != seen.pid:
            seen = self._seen[child] = _Seen(child.pid)
        if child.pid is None:
            return
        row = self._board.row(self._crew.row(child))
        heartbeat = row[Cell.HEARTBEAT]
        if heartbeat != seen.heartbeat:
            seen.heartbeat, seen.looks = heartbeat, 0
            if seen.silent:
                self._welcome_back(child, seen)
        elif heartbeat or row[Cell.GENERATION]:
            seen.looks += 1
            self._judge_silence(child, seen)
        drains = bool(heartbeat) and not row[Cell.GENERATION]  # it wrote its generation before its first heartbeat
        if drains and not seen.leaving and not self.draining and self._crew.serves(child):
            seen.leaving = True
            if self._crew.alone(child):
                self._listeners.park(self._crew.slot(child))
            self._log.warning("worker_leaving", **_who(child), hint="it drains though the gateway does not")

    def _judge_silence(self, child: Child, seen: _Seen) -> None:
        silent_s = seen.looks * LOOK_S
        if silent_s >= self._silent_after_s and not seen.silent:
            seen.silent = True
            muted = self._crew.alone(child) and self._listeners.mute(self._crew.slot(child))
            self._log.error("worker_silent", **_who(child), silent_s=silent_s, muted=muted)
        if silent_s >= self._stuck_after_s and not seen.stuck:
            seen.stuck = True
            hint = "it is killed and started again" if self._crew.serves(child) else "it was replaced; it is killed"
            self._log.error("worker_stuck", **_who(child), silent_s=silent_s, hint=hint)
            self._kill(child)

    def _welcome_back(self, child: Child, seen: _Seen) -> None:
        try:
            if not seen.leaving and self._crew.serves(child):
                self._listeners.unmute(self._crew.slot(child))
        except AddressError as error:
            self._log.error("worker_muted", **_who(child), error=str(error))
            return  # at the next look again
        seen.silent = False
        self._log.warning("worker_back", **_who(child))


def _who(child: Child) -> dict[str, object]:
    return {"child": child.spec.name, "child_pid": child.pid}
