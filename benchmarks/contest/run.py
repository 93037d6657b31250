"""One whole run: the contestants started, checked, warmed up and measured, workload after workload.

In stages, with all contestants started anew for each (see `workloads.STAGES`). In the last the gateway has one and two
workers, and all processes are free to run on every core.

A contestant that dies, hangs or talks nonsense is told and left out until the next stage, a stage that breaks off is
told too, and the run goes on. What was measured is handed on after every round (`keep`), and once more however it ends.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.contest import asked, configurations
from benchmarks.contest.check import check, gone
from benchmarks.contest.contestants import CONTESTANTS, Contestant, Running, Stage, sluiceway
from benchmarks.contest.environments import MissingError
from benchmarks.contest.measure import Context, Figures, GeneratorError, ask, wrk
from benchmarks.contest.workloads import SMALL, STAGES, WORKLOADS, Point, Workload
from benchmarks.contestants import Bench
from benchmarks.ports import free_port

WARM_UP_S = 1.0
STARTS_S = 30.0
"""Of all contestants, with their checks and the warm-up."""
TROUBLE = (RuntimeError, OSError, HTTPException, ValueError, LookupError, TypeError, subprocess.SubprocessError)
"""What may come of a contestant that dies or says what nobody foresaw; it must not take others' figures with it."""
SCALING = "scaling"
ONCE_IF_SLOW = ("crowd", "poured")
"""What slow contestants do in one round only: LiteLLM takes half a minute for 16 uploads of 64 MB."""


@dataclass(slots=True)
class Options:
    """What to run; `rounds` and `seconds` None: as each workload has it."""

    contestants: list[str] = field(default_factory=lambda: [one.name for one in CONTESTANTS])
    workloads: list[str] = field(default_factory=lambda: [*(one.name for one in WORKLOADS), SCALING])
    rounds: int | None = None
    seconds: float | None = None
    scale: float = 1.0

    def rounds_of(self, workload: Workload) -> int:
        """How often each point is gone through."""
        return self.rounds or workload.rounds

    def seconds_of(self, workload: Workload) -> float:
        """Of one measurement."""
        return workload.seconds if self.seconds is None else min(self.seconds, workload.seconds or self.seconds)


class Progress:
    """Says what is done, and when the rest will be."""

    def __init__(self, whole_s: float) -> None:
        self._whole_s, self._done_s, self._began = whole_s, 0.0, time.monotonic()

    def say(self, text: str, seconds: float = 0.0) -> None:
        """A line; `seconds` were foreseen for what it tells."""
        self._done_s += seconds
        spent = time.monotonic() - self._began
        ahead = (self._whole_s - self._done_s) * (spent / self._done_s if self._done_s > 60 else 1.0)
        print(f"[{spent / 60:4.1f} min, {max(0.0, ahead) / 60:4.1f} left] {text}", flush=True)


def foreseen_s(options: Options, workload: Workload, contestants: int) -> float:
    """What all measurements of a workload take."""
    once = options.seconds_of(workload) + workload.takes_s
    return once * len(workload.points) * options.rounds_of(workload) * contestants


class Run:
    """The state of one run; `result` is what becomes its JSON."""

    def __init__(self, options: Options, folder: Path, keep: Callable[[dict[str, Any]], object] | None = None) -> None:
        """`keep` is given the result so far after every round."""
        self._options, self._folder, self._keep = options, folder, keep
        self._began, self._complete = time.time(), False
        self._machine = {**machine.description(), "node": machine.says(["node", "--version"])}
        self._processes: dict[str, list[subprocess.Popen[bytes]]] = {}
        self.trouble: dict[str, str] = {}
        """By stage, why it broke off."""
        self._wanted = [one for one in CONTESTANTS if one.name in options.contestants]
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, dict[str, str]] = {}
        self.same_bytes: dict[str, bool] = {}
        self.results: dict[str, dict[str, dict[str, list[Figures]]]] = {}
        self.capacity: dict[str, float] = {}
        self.generator_capacity = 0.0
        chosen = [one for one in WORKLOADS if one.name in options.workloads]
        self._chosen = chosen
        starts_s = STARTS_S * len({one.stage for one in chosen})
        self._progress = Progress(starts_s + sum(foreseen_s(options, one, len(self._wanted)) for one in chosen))

    def whole(self) -> dict[str, Any]:
        """Everything that the options ask for."""
        print("\n".join(f"{name}: {value}" for name, value in self._machine.items()), flush=True)
        for contestant in list(self._wanted):
            try:
                contestant.prepare()
            except (MissingError, *TROUBLE) as error:
                self._skip(contestant, str(error))
        self._began = time.time()
        for stage in STAGES:
            chosen = [one for one in self._chosen if one.stage == stage]
            if chosen:
                with self._going_on(stage):
                    self._stage(stage, chosen)
        if SCALING in self._options.workloads and "sluiceway" in self._options.contestants:
            with self._going_on(SCALING):
                self._scale()
        self._complete = True
        return self.result()

    def result(self) -> dict[str, Any]:
        """What there is so far."""
        core, rest = machine.two_cores()
        return {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._began)),
            "took_s": time.time() - self._began,
            "complete": self._complete,
            "trouble": self.trouble,
            "machine": self._machine,
            "cores": {"contestant": core, "everything else": rest},
            "contestants": {
                one.name: {"does": one.does, "version": version_of(one, self._machine), "slow": one.slow}
                for one in self._wanted
            },
            "same_bytes": self.same_bytes,
            "skipped": self.skipped,
            "failed": self.failed,
            "workloads": {
                one.name: {"title": one.title, "points": [point.name for point in one.points]} for one in self._chosen
            },
            "scale": self._options.scale,
            "generator_capacity": self.generator_capacity,
            "rounds": self.results,
        }

    @contextmanager
    def _going_on(self, stage: str) -> Iterator[None]:
        try:
            yield
        except TROUBLE as error:
            self.trouble[stage] = told(error)
            self._progress.say(f"{stage} broke off: {told(error)}")

    def _skip(self, contestant: Contestant, why: str) -> None:
        line = why.strip().splitlines()[0] if why.strip() else "no reason"
        self.skipped[contestant.name] = line
        self._wanted.remove(contestant)
        self._progress.say(f"{contestant.name} is skipped: {line}")

    @contextmanager
    def _set_up(self, name: str, *, large: bool) -> Iterator[Stage]:
        folder = self._folder / name
        folder.mkdir()
        bench = Bench(folder, *machine.two_cores())
        try:
            yield start_upstream(bench, large=large)
        finally:
            bench.stop()
            shutil.rmtree(folder, ignore_errors=True)  # the access logs of a stage are about a gigabyte

    def _stage(self, name: str, chosen: list[Workload]) -> None:
        with self._set_up(name, large=name != SMALL) as stage:
            running = self._start(stage, [one.name for one in chosen])
            direct = running.get("direct") or Running("direct", f"http://{stage.upstream}", {}, {})
            slow = frozenset(one.name for one in self._wanted if one.slow)
            context = Context(stage, direct, str(stage.bench.rest), self._options.scale, self.capacity, slow=slow)
            warm = [{"what": "chat"}]
            warm_s = min(WARM_UP_S, self._options.seconds or WARM_UP_S)
            for one in list(running.values()):
                try:
                    ask(context, one, warm, seconds=warm_s, connections=16)
                except TROUBLE as error:
                    self._leave_out(context, running, one, chosen, f"warm-up: {told(error)}")
            if name == SMALL:
                self.generator_capacity = ask(context, direct, warm, seconds=1.0)["rate"]
            for number, workload in enumerate(chosen):
                self._workload(context, workload, running, chosen[number:])

    def _start(self, stage: Stage, workloads: list[str]) -> dict[str, Running]:
        """Starts and checks them all."""
        started: dict[str, Running] = {}
        for contestant in list(self._wanted):
            began, name, before = time.monotonic(), contestant.name, len(stage.bench.started)
            try:
                running = contestant.start(stage, name)
                found = check(running, workloads)
            except TROUBLE as error:
                stage.bench.end(stage.bench.started[before:])  # one that is still about to start would disturb the rest
                if name in self.same_bytes:  # it was measured in an earlier stage, and that stays
                    self.failed[name].update(dict.fromkeys(workloads, f"it did not start: {told(error)}"))
                    self._progress.say(f"{name} did not start: {told(error)}")
                else:
                    self._skip(contestant, told(error))
                continue
            self._processes[name] = stage.bench.started[before:]
            self.failed.setdefault(name, {}).update(found.failed)
            self.same_bytes[name] = self.same_bytes.get(name, True) and found.same_bytes
            for workload, why in found.failed.items():
                self._progress.say(f"{name} is not measured in {workload}: {why}")
            started[name] = running
            self._progress.say(f"{name} is up", time.monotonic() - began)
        return started

    def _leave_out(
        self, context: Context, running: dict[str, Running], one: Running, workloads: list[Workload], why: str
    ) -> None:
        """It takes no further part in this stage; each of these workloads says so."""
        if one.name == "direct":
            raise GeneratorError(f"the upstream does not answer: {why}")
        del running[one.name]
        context.stage.bench.end(self._processes[one.name])
        for workload in workloads:
            self.failed[one.name].setdefault(workload.name, why)
        self._progress.say(f"{one.name} is left out of the rest of this stage: {why}")

    def _workload(
        self, context: Context, workload: Workload, running: dict[str, Running], later: list[Workload]
    ) -> None:
        """`later`: this workload and those of the stage that come after it."""
        taking = [
            one
            for name, one in running.items()
            if workload.name not in self.failed.get(name, {}) and (workload.direct or name != "direct")
        ]
        seconds = self._options.seconds_of(workload)
        for point in workload.points:
            for number in range(self._options.rounds_of(workload)):
                for one in taking:
                    if one.name not in running:
                        continue
                    if number and one.name in context.slow and workload.name in ONCE_IF_SLOW:
                        continue
                    where = f"{workload.name} {point.name} round {number + 1}"
                    figures = self._measure(context, workload, point, one, seconds)
                    of_point = self.results.setdefault(workload.name, {}).setdefault(point.name, {})
                    of_point.setdefault(one.name, []).append(figures)
                    done = figures.get("skipped") or figures.get("broken") or f"{figures['rate']:,.1f}/s"
                    self._progress.say(f"{where} {one.name}: {done}", seconds + workload.takes_s)
                    if "skipped" not in figures and not figures.get("requests") and (why := gone(one)):
                        self._leave_out(context, running, one, later, f"after {where} it did no chat: {why}")
                if self._keep is not None:
                    self._keep(self.result())
            if workload.name == "chat" and point.value == 64:
                for name, rounds in self.results["chat"][point.name].items():
                    self.capacity[name] = statistics.median([one["rate"] for one in rounds if "rate" in one] or [0.0])

    def _measure(self, context: Context, workload: Workload, point: Point, running: Running, seconds: float) -> Figures:
        try:
            if workload.name == "open" and running.name not in self.capacity:
                self.capacity[running.name] = wrk(context, running, connections=64, seconds=1.0)["rate"]
            return workload.measure(context, running, point, seconds)
        except TROUBLE as error:
            return {"broken": told(error)}

    def _scale(self) -> None:
        """One worker and two, with every core open to everybody."""
        cores = sorted(os.sched_getaffinity(0))
        free = f"{cores[0]}-{cores[-1]}" if len(cores) > 1 else str(cores[0])
        seconds = min(3.0, self._options.seconds or 3.0)
        with self._set_up(SCALING, large=False) as stage:
            variants = {workers: sluiceway(stage, f"sluiceway-{workers}", workers=workers) for workers in (1, 2)}
            for process in stage.bench.started:
                for pid in machine.family_of(process.pid):
                    subprocess.run(["taskset", "-a", "-p", "-c", free, str(pid)], capture_output=True, check=False)
            direct = Running("direct", f"http://{stage.upstream}", {}, {})
            context = Context(stage, direct, free)
            for one in variants.values():
                wrk(context, one, connections=128, seconds=WARM_UP_S)
            for number in range(self._options.rounds or 3):
                for workers, one in variants.items():
                    figures = wrk(context, one, connections=128, seconds=seconds)
                    of_point = self.results.setdefault(SCALING, {}).setdefault(f"{workers} workers", {})
                    of_point.setdefault("sluiceway", []).append(figures)
                    self._progress.say(f"{SCALING} round {number + 1}, {workers} workers: {figures['rate']:,.0f}/s")


def start_upstream(bench: Bench, *, large: bool) -> Stage:
    """The upstream of a stage, and the sink of exports."""
    upstream, sink = free_port(), free_port()
    text = configurations.UPSTREAM_NGINX.format(
        folder=bench.folder,
        upstream=upstream,
        sink=sink,
        answer=asked.CHAT_ANSWER.decode(),
        models=configurations.MODELS,
    )
    file = bench.folder / "upstream.conf"
    file.write_text(text)
    bench.start("upstream", ["nginx", "-p", str(bench.folder), "-c", str(file)])
    bench.wait("upstream", f"http://127.0.0.1:{sink}/")
    if large:
        upstream = free_port()
        address = f"127.0.0.1:{upstream}"
        bench.start("streams", [sys.executable, "-m", "benchmarks.contest.upstream", "--listen", address])
        bench.wait("streams", f"http://{address}/v1/models")
    return Stage(bench, f"127.0.0.1:{upstream}", f"127.0.0.1:{sink}")


def told(error: BaseException) -> str:
    """In one line; the class tells what a KeyError's text does not."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def version_of(contestant: Contestant, told: dict[str, str]) -> str:
    """As the table says it; `told` is the machine's description."""
    if contestant.environment is not None:
        return contestant.environment.version
    match contestant.name:
        case "nginx":
            return told["nginx"].rpartition("/")[2]
        case "plain":
            return f"aiohttp {told['aiohttp']}, uvloop {told['uvloop']}"
        case "direct":
            return ""
        case _:
            return told["sluiceway"]


def in_temporary_folder(options: Options, keep: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Runs it; its files are gone afterwards. What was measured is kept however it ends."""
    with tempfile.TemporaryDirectory(prefix="sluiceway-contest-") as folder:
        run = Run(options, Path(folder), keep)
        try:
            return run.whole()
        finally:
            keep(run.result())
