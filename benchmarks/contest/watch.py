"""What a contestant takes while it is measured: processor time, memory, and whether its records are complete.

Processor time is that of its processes, from ``/proc``, told by what they do: of Sluiceway the worker, the observer,
control and the supervisor; of others all of them as ``worker``. It includes the time in which a record-keeping
contestant finishes its records after the last answer, so that nothing is left out by being done later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks import machine
from benchmarks.contest.contestants import Running, Stage
from benchmarks.contestants import metric


class EndedError(RuntimeError):
    """A process of the contestant has ended."""


SETTLE_S = 5.0
"""No new line for so long: no more will come."""
SPANS_S = 1.3
"""The last spans of a round wait a second for company; then they are sent, or counted as lost."""
DROPPED = (
    "sluiceway_records_dropped_total",
    "sluiceway_spans_dropped_total",
    "envoy_tracing_opentelemetry_spans_dropped",
)


def has_ended(pid: int) -> bool:
    """Whether it is gone, or only waits to be waited for."""
    try:
        return machine.fields_of(pid)[0] in "ZX"
    except OSError:
        return True


def cpu_of(pids: list[int]) -> float:
    """Seconds of user and system time of these processes."""
    ticks = 0
    for pid in pids:
        try:
            ticks += sum(int(value) for value in machine.fields_of(pid)[11:13])
        except OSError:
            continue  # it ended
    return ticks / machine.TICKS_PER_S


def peak_of(pids: list[int]) -> int:
    """Largest resident size of each since the last reset, added up."""
    total = 0
    for pid in pids:
        try:
            total += machine.peak_memory_bytes(pid)
        except (OSError, ValueError):
            continue
    return total


def resident_of(pids: list[int]) -> int:
    """Resident size of these processes now."""
    total = 0
    for pid in pids:
        try:
            total += machine.memory_bytes(pid)
        except OSError:
            continue
    return total


@dataclass(slots=True)
class Taken:
    """What was taken between two instants."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    """By part."""
    worker_core_busy: float = 0.0
    worker_core_foreign: float = 0.0
    """Share of that core's time that went to somebody else's programs."""
    other_core_busy: float = 0.0
    peak_bytes: int = 0
    """Of what touches traffic."""
    peak_all_bytes: int = 0
    before_bytes: int = 0
    """Of what touches traffic, at the start."""
    missing: int | None = None
    """Answered requests without a record (Sluiceway's log line, Envoy's span); None of a contestant that keeps none."""
    dropped: int | None = None
    """Records and spans that the contestant itself counts as dropped."""
    span_bytes: int | None = None
    """That came to the sink of a contestant whose spans are counted there."""
    ended: int = 0
    """Its processes that were there at the start and have ended, with their processor time."""

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Watch:
    """Watches from when it is made to `end`."""

    def __init__(self, stage: Stage, running: Running) -> None:
        self._stage, self._running = stage, running
        self._worker = running.parts.get("worker", [])
        for pid in running.pids:
            if has_ended(pid):
                raise EndedError(f"process {pid} of {running.name} has ended")
            machine.reset_peak_memory(pid)
        self._taken = Taken(before_bytes=resident_of(self._worker))
        self._kept = self._kept_so_far()
        self._dropped = self._dropped_so_far()
        self._span_bytes = running.spans.count() if running.spans is not None else 0
        self._cpu = {part: cpu_of(pids) for part, pids in running.parts.items()}
        self._cores = self._core_times()

    def pause(self) -> None:
        """The load is over: what counts for the cores ends here."""
        mine, others = self._cores
        mine_now, others_now = self._core_times()
        taken, elapsed = self._taken, max(0.01, mine_now.all - mine.all)
        own = cpu_of(self._worker) - self._cpu.get("worker", 0.0)
        taken.worker_core_busy = (mine_now.busy - mine.busy) / elapsed
        taken.worker_core_foreign = max(0.0, mine_now.work - mine.work - own) / elapsed
        taken.other_core_busy = (others_now.busy - others.busy) / max(0.01, others_now.all - others.all)

    def end(self, answered: int) -> Taken:
        """All that was taken, once the records of the `answered` requests are complete."""
        running, taken = self._running, self._taken
        if self._kept is not None:
            kept = self._settle(self._kept + answered)
            taken.missing = max(0, answered - (kept - self._kept))
            if running.log is not None:
                time.sleep(SPANS_S)
                running.log.empty()
            taken.dropped = int(self._dropped_so_far() - self._dropped)
        if running.spans is not None:
            taken.span_bytes = running.spans.count() - self._span_bytes
        taken.ended = sum(has_ended(pid) for pid in running.pids)
        taken.cpu_s = {part: round(max(0.0, cpu_of(pids) - self._cpu[part]), 2) for part, pids in running.parts.items()}
        taken.peak_bytes = peak_of(self._worker)
        taken.peak_all_bytes = peak_of(running.pids)
        return taken

    def _core_times(self) -> tuple[machine.CoreTimes, machine.CoreTimes]:
        bench = self._stage.bench
        return machine.core_times(bench.core), machine.core_times(bench.rest)

    def _dropped_so_far(self) -> float:
        url = self._running.metrics_url
        return sum(metric(url, name) for name in DROPPED) if url else 0.0

    def _kept_so_far(self) -> int | None:
        """Records that are written or sent; None of a contestant that keeps none."""
        running = self._running
        if running.log is not None:
            return running.log.count()
        if running.metrics_url and running.sent:
            return int(metric(running.metrics_url, running.sent))
        return None

    def _settle(self, expected: int) -> int:
        """Waits until so many are kept, or no more come; returns how many are."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < SETTLE_S:
            kept = self._kept_so_far() or 0
            if kept >= expected:
                return kept
            if kept != last:
                last, since = kept, time.monotonic()
            time.sleep(0.05)
        return last
