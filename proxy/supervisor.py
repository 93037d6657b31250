"""The supervisor: owns the listening sockets; starts, watches, restarts and drains the other processes.

It does nothing else, so that nothing else can hurt it: no traffic, no configuration after the start, no library that
could block. What it runs is data (`Plan`), which `proxy.serve` composes from the configuration. SIGHUP it hands on to
control, which reads the file again; SIGUSR2 replaces the workers (proxy.rolling).

Start: observers, control, workers, without waiting in between (a worker queues records until its observer listens).
The host is ready when each worker has written a generation into its row of the board.

Death: whatever dies is started again with the same arguments after a back-off, with a line that says so; a worker's
unfinished requests are counted as lost first. While a worker's back-off is long its socket is parked, so that its
share of the connections goes to the others; the same for a worker that hangs or drains by itself, and one that hangs
on is killed (proxy.watch). A worker that says at the first start that it cannot work (exit code 2 or
3) ends the whole start: to try again would only hide its reason. One that was replaced is not started again.

Drain (SIGTERM or SIGINT):
1. the file `draining` appears in the runtime directory: control's /readyz says 503 from now on, also if restarted;
2. workers get SIGTERM, and the supervisor closes its copies of their sockets: a worker stops listening by closing its
   own, after drain_delay_ms, and no connection may be left in a backlog that only we hold and nobody accepts from;
3. when the last worker is gone, observers get SIGTERM and write what they hold; then control.
Who does not end in time is killed. A second SIGTERM or SIGINT kills everybody at once.
"""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client.multiprocess import mark_process_dead

from observability.board import UNLIMITED, Board, Cell
from proxy import runtime
from proxy.children import Child, ChildSpec, Ending
from proxy.crew import Crew
from proxy.heartbeat import SILENT_AFTER_S
from proxy.rolling import Rolling
from proxy.sockets import AddressError, Listeners
from proxy.watch import STUCK_AFTER_S, Watch

Log = structlog.typing.FilteringBoundLogger

DRAINED = 0
"""Exit code: everything ended by itself."""
KILLED = 1
"""Exit code: stopped at once, or something had to be killed. Its requests or records are lost."""
REFUSALS = frozenset({2, 3})
"""Exit codes with which a child says that it cannot work as configured: 2 the configuration, 3 the machine."""

OBSERVER_GRACE_S = 10.0
"""An observer flushes its exporters: two OTLP requests at the SDK's default timeout would be 10 s each, in parallel."""
CONTROL_GRACE_S = 3.0
"""A scrape that is running may end."""
KILL_GRACE_S = 5.0
"""SIGKILL takes effect at once, except in an uninterruptible system call: then we leave without it."""

READY_POLL_S = 0.02
"""Only until the host is ready, ~0.5 s: a look at N numbers in shared memory, which cannot wake us."""
READY_REMINDER_S = 10.0
"""A host that is still not ready says so this often."""
LOUD_FAILURES = 5
"""Deaths in a row after which it is called a crash loop, an error: 1.5 s after the first."""
PARK_DELAY_S = 1.0
"""A worker that will be back within this keeps its backlog; a client's connect survives one lost SYN (1 s) as well."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    runtime: Path
    """The runtime directory, made."""
    generation: int
    board: Board
    listeners: Listeners
    workers: Sequence[Sequence[ChildSpec]]
    """By slot, for each lane of it."""
    observers: Sequence[ChildSpec]
    control: Sequence[ChildSpec]
    """One, or none in a test."""
    drain_delay_s: float
    drain_timeout_s: float
    """0: none; workers may take as long as their requests do. Both are for workers that did not say (Cell.DRAIN_MS)."""
    worker_grace_s: float = 10.0
    """After both: a worker has cut what still ran, and waits up to 5 s for an observer to take its last records."""
    silent_after_s: float = SILENT_AFTER_S
    stuck_after_s: float = STUCK_AFTER_S


class Supervisor:
    """Runs a plan until it is told to stop."""

    def __init__(self, plan: Plan, log: Log) -> None:
        self._plan = plan
        self._log = log
        self._crew = Crew(plan.workers)
        self._observers = [Child(spec) for spec in plan.observers]
        self._control = [Child(spec) for spec in plan.control]
        self._children = [*self._observers, *self._control, *self._crew]
        self._timers: dict[Child, asyncio.TimerHandle] = {}
        """Of a child without a process: when it is started again; of one that was replaced: when it is killed."""
        self._stop = asyncio.Event()
        self._exit_code = DRAINED
        self._ready = False
        self._rolling = Rolling(self._crew, plan.board, log, self._launch, self._on_replaced)
        self._watch = Watch(
            self._crew,
            plan.board,
            plan.listeners,
            log,
            self._kill_stuck,
            silent_after_s=plan.silent_after_s,
            stuck_after_s=plan.stuck_after_s,
        )

    async def run(self) -> int:
        """Start everything, wait for a signal, drain. Returns the exit code: DRAINED, KILLED or one of REFUSALS."""
        with self._signals():
            for child in (*self._observers, *self._control, *self._crew.serving):
                self._start(child)
            starting = [asyncio.create_task(self._watch_readiness()), asyncio.create_task(self._rolling.run())]
            watch = asyncio.create_task(self._watch.run())
            try:
                await self._stop.wait()
                for task in starting:
                    task.cancel()
                for timer in self._timers.values():
                    timer.cancel()
                await self._drain()
            finally:
                for task in (*starting, watch):
                    task.cancel()
        return self._exit_code

    # Signals

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._on_stop,
            signal.SIGINT: self._on_stop,
            signal.SIGHUP: self._on_reload,
            signal.SIGUSR2: self._on_roll,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler, number)
        loop.add_signal_handler(signal.SIGCHLD, self._on_child)
        try:
            yield
        finally:
            for number in (*handlers, signal.SIGCHLD):
                loop.remove_signal_handler(number)

    def _on_stop(self, number: signal.Signals) -> None:
        if not self._stop.is_set():
            self._log.info("draining", signal=number.name, timeout_s=self._plan.drain_timeout_s)
            self._stop.set()
            return
        self._log.warning("stopping_at_once", signal=number.name, active_requests=self._plan.board.total(Cell.ACTIVE))
        self._kill(self._children)

    def _on_reload(self, _number: signal.Signals) -> None:
        """Control's to answer, in its own line. One that is being started reads the file anyway."""
        for child in self._control:
            child.signal(signal.SIGHUP)

    def _on_roll(self, number: signal.Signals) -> None:
        if self._ready and not self._stop.is_set():
            self._rolling.ask()
        else:
            hint = "send it again when the log says ready" if not self._stop.is_set() else "the gateway is draining"
            self._log.warning("not_now", signal=number.name, hint=hint)

    def _on_child(self) -> None:
        for child in self._children:
            if ending := child.reap():
                self._on_death(child, ending)

    # Life and death of children

    def _start(self, child: Child) -> None:
        self._timers.pop(child, None)
        try:
            self._launch(child)
        except (OSError, AddressError) as error:
            child.failures += 1
            self._restart_later(child, f"cannot be started: {error}")

    def _launch(self, child: Child) -> None:
        """Raises OSError and AddressError."""
        if child in self._crew:
            self._plan.listeners.unpark(self._crew.slot(child))
        child.start()
        self._log.info("started", child=child.spec.name, child_pid=child.pid)

    def _on_death(self, child: Child, ending: Ending) -> None:
        lost = self._settle(child, ending)
        if self._stop.is_set():
            say = self._log.info if ending.code in {0, -signal.SIGTERM} else self._log.warning
            say("ended", child=child.spec.name, child_pid=ending.pid, how=ending.how, **lost)
        elif not self._ready and ending.code in REFUSALS:
            name = child.spec.name
            hint = f"{name} cannot work as configured; it says why in its own line on stderr. Mend that, start again."
            self._log.error("refused_to_start", child=name, child_pid=ending.pid, how=ending.how, hint=hint)
            self._exit_code = ending.code
            self._stop.set()
        elif child in self._crew and not self._crew.serves(child):  # it was replaced; or came, and Rolling sees to that
            if timer := self._timers.pop(child, None):
                timer.cancel()
            say = self._log.info if ending.code == 0 else self._log.error
            say("ended", child=child.spec.name, child_pid=ending.pid, how=ending.how, **lost)
        else:
            self._restart_later(child, "died", child_pid=ending.pid, how=ending.how, **lost)

    def _on_replaced(self, child: Child) -> None:
        """It drains, or does not live at all: then nobody starts it again."""
        if timer := self._timers.pop(child, None):
            timer.cancel()
        limit_s = self._drain_limit_s(child)
        if child.pid is not None:
            self._plan.board.row(self._crew.row(child))[Cell.REPLACED] = 1
        child.signal(signal.SIGUSR2)
        if child.pid is not None and limit_s is not None:
            self._timers[child] = asyncio.get_running_loop().call_later(limit_s, self._kill_late, child, limit_s)

    def _kill_late(self, child: Child, after_s: float) -> None:
        self._timers.pop(child, None)
        self._log.error("killed", child=child.spec.name, child_pid=child.pid, after_s=after_s)
        child.signal(signal.SIGKILL)

    def _settle(self, child: Child, ending: Ending) -> dict[str, int]:
        """Bring the shared counts in order after a process that cannot do it any more."""
        metrics = self._plan.runtime / runtime.METRICS
        if metrics.is_dir():
            mark_process_dead(ending.pid, str(metrics))  # type: ignore[no-untyped-call]
        if child not in self._crew:
            return {}
        return {"lost_requests": self._plan.board.settle_lost(self._crew.row(child))}

    def _restart_later(self, child: Child, what: str, **facts: object) -> None:
        delay_s = child.spec.backoff.delay_s(child.failures)
        if child in self._crew and delay_s >= PARK_DELAY_S and self._crew.alone(child):
            self._plan.listeners.park(self._crew.slot(child))
        if child.failures < LOUD_FAILURES:
            say, event, hint = self._log.warning, "restarting", {}
        else:
            say, event = self._log.error, "crash_loop"
            hint = {"hint": f"{child.spec.name} died {child.failures} times in a row; its own lines say why"}
        say(event, child=child.spec.name, what=what, **facts, restart_in_s=delay_s, failures=child.failures, **hint)
        loop = asyncio.get_running_loop()
        self._timers[child] = loop.call_later(delay_s, self._start, child)

    async def _watch_readiness(self) -> None:
        plan = self._plan
        loop = asyncio.get_running_loop()
        remind_at = loop.time() + READY_REMINDER_S
        while waiting := [slot for slot in range(len(self._crew)) if not plan.board.generation(slot)]:
            if loop.time() >= remind_at:
                names = [self._crew.serving[slot].spec.name for slot in waiting]
                self._log.warning("not_ready_yet", waiting_for=names)
                remind_at += READY_REMINDER_S
            await asyncio.sleep(READY_POLL_S)
        self._ready = True
        self._log.info("ready", listen=plan.listeners.address, workers=len(self._crew), generation=plan.generation)

    # Drain

    async def _drain(self) -> None:
        plan = self._plan
        try:
            (plan.runtime / runtime.DRAINING).touch()
        except OSError as error:  # removed behind our back, or the disk is full: what runs ends well all the same
            hint = "keep whatever removed or filled it away from there; control's /readyz may say 200 a moment longer"
            self._log.error("runtime_damaged", folder=str(plan.runtime), error=error.strerror, hint=hint)
        self._watch.draining = True
        plan.listeners.close()
        if self._exit_code != DRAINED:  # a refused start: nothing to finish
            self._kill(self._children)
        limits_s = [self._drain_limit_s(child) for child in self._crew if child.pid is not None]
        longest_s = None if None in limits_s else max((limit for limit in limits_s if limit is not None), default=0.0)
        await self._end(list(self._crew), longest_s)
        await self._end(self._observers, OBSERVER_GRACE_S)
        await self._end(self._control, CONTROL_GRACE_S)
        self._log.info("stopped", exit_code=self._exit_code, dropped_records=_dropped(plan.board))

    def _drain_limit_s(self, worker: Child) -> float | None:
        """How long a worker may take from now on; None: for ever. What it is configured with goes before the plan."""
        plan = self._plan
        said_ms = int(plan.board.row(self._crew.row(worker))[Cell.DRAIN_MS])
        if not said_ms:
            said_s = plan.drain_delay_s + plan.drain_timeout_s if plan.drain_timeout_s else None
        else:
            said_s = said_ms / 1000 if said_ms != UNLIMITED else None
        return None if said_s is None else said_s + plan.worker_grace_s

    async def _end(self, children: Sequence[Child], grace_s: float | None) -> None:
        """Ask them to end, wait (None: without limit), and kill who does not."""
        for child in children:
            child.signal(signal.SIGTERM)
        if await _ended(children, grace_s):
            return
        for child in children:
            if child.pid is not None:
                self._log.error("killed", child=child.spec.name, child_pid=child.pid, after_s=grace_s)
        self._kill(children)
        await _ended(children, KILL_GRACE_S)

    def _kill(self, children: Sequence[Child]) -> None:
        for child in children:
            child.signal(signal.SIGKILL)
        self._exit_code = self._exit_code or KILLED

    def _kill_stuck(self, child: Child) -> None:
        """Worse than a restart only while draining: then its requests are lost, and nobody takes its place."""
        child.signal(signal.SIGKILL)
        if self._stop.is_set():
            self._exit_code = self._exit_code or KILLED


async def _ended(children: Sequence[Child], timeout_s: float | None) -> bool:
    """Wait until none of them has a process; False if one still has after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            for child in children:
                await child.ended.wait()
    except TimeoutError:
        return False
    return True


def _dropped(board: Board) -> int:
    return sum(board.total(cell) for cell in Cell if cell.name.startswith("DROPPED_"))
