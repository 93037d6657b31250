"""One whole run: the contestants started, checked, warmed up and measured, workload after workload.

In stages, with all contestants started anew for each (see `workloads.STAGES`). In the last the gateway has one and two
workers, and all processes are free to run on every core.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.contest import asked, configurations
from benchmarks.contest.check import check
from benchmarks.contest.contestants import CONTESTANTS, Contestant, Running, Stage, sluiceway
from benchmarks.contest.environments import MissingError
from benchmarks.contest.measure import Context, Figures, GeneratorError, ask, wrk
from benchmarks.contest.workloads import SMALL, STAGES, WORKLOADS, Point, Workload
from benchmarks.contestants import Bench, NotReadyError
from benchmarks.ports import free_port

WARM_UP_S = 1.0
STARTS_S = 30.0
"""Of all contestants, with their checks and the warm-up."""
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

    def __init__(self, options: Options, folder: Path) -> None:
        self._options, self._folder = options, folder
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
        for contestant in list(self._wanted):
            try:
                contestant.prepare()
            except MissingError as error:
                self._skip(contestant, str(error))
        began = time.time()
        for stage in STAGES:
            chosen = [one for one in self._chosen if one.stage == stage]
            if chosen:
                self._stage(stage, chosen)
        if SCALING in self._options.workloads:
            self._scale()
        core, rest = machine.two_cores()
        return {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            "took_s": time.time() - began,
            "machine": {**machine.description(), "node": machine.says(["node", "--version"])},
            "cores": {"contestant": core, "everything else": rest},
            "contestants": {
                one.name: {"does": one.does, "version": version_of(one), "slow": one.slow} for one in self._wanted
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

    def _stage(self, name: str, chosen: list[Workload]) -> None:
        with self._set_up(name, large=name != SMALL) as stage:
            running = self._start(stage, [one.name for one in chosen])
            direct = running.get("direct") or Running("direct", f"http://{stage.upstream}", {}, {})
            slow = frozenset(one.name for one in self._wanted if one.slow)
            context = Context(stage, direct, str(stage.bench.rest), self._options.scale, self.capacity, slow=slow)
            warm = [{"what": "chat"}]
            for one in running.values():
                ask(context, one, warm, seconds=min(WARM_UP_S, self._options.seconds or WARM_UP_S), connections=16)
            if name == SMALL:
                self.generator_capacity = ask(context, direct, warm, seconds=1.0)["rate"]
                context.generator_capacity = self.generator_capacity
            for workload in chosen:
                self._workload(context, workload, running)

    def _start(self, stage: Stage, workloads: list[str]) -> dict[str, Running]:
        """Starts and checks them all."""
        started: dict[str, Running] = {}
        for contestant in list(self._wanted):
            began = time.monotonic()
            try:
                running = contestant.start(stage, contestant.name)
            except NotReadyError as error:
                self._skip(contestant, str(error).replace("\n", " ")[:300])
                continue
            found = check(running, workloads)
            self.failed.setdefault(contestant.name, {}).update(found.failed)
            self.same_bytes[contestant.name] = self.same_bytes.get(contestant.name, True) and found.same_bytes
            for workload, why in found.failed.items():
                self._progress.say(f"{contestant.name} is not measured in {workload}: {why}")
            started[contestant.name] = running
            self._progress.say(f"{contestant.name} is up", time.monotonic() - began)
        return started

    def _workload(self, context: Context, workload: Workload, running: dict[str, Running]) -> None:
        taking = [
            one
            for name, one in running.items()
            if workload.name not in self.failed.get(name, {}) and (workload.direct or name != "direct")
        ]
        seconds = self._options.seconds_of(workload)
        for point in workload.points:
            for number in range(self._options.rounds_of(workload)):
                for one in taking:
                    if number and one.name in context.slow and workload.name in ONCE_IF_SLOW:
                        continue
                    figures = self._measure(context, workload, point, one, seconds)
                    of_point = self.results.setdefault(workload.name, {}).setdefault(point.name, {})
                    of_point.setdefault(one.name, []).append(figures)
                    told = figures.get("skipped") or figures.get("broken") or f"{figures['rate']:,.1f}/s"
                    self._progress.say(
                        f"{workload.name} {point.name} round {number + 1} {one.name}: {told}",
                        seconds + workload.takes_s,
                    )
            if workload.name == "chat" and point.value == 64:
                for name, rounds in self.results["chat"][point.name].items():
                    self.capacity[name] = statistics.median(one.get("rate", 0.0) for one in rounds)

    def _measure(self, context: Context, workload: Workload, point: Point, running: Running, seconds: float) -> Figures:
        if workload.name == "open" and running.name not in self.capacity:
            self.capacity[running.name] = wrk(context, running, connections=64, seconds=1.0)["rate"]
        try:
            return workload.measure(context, running, point, seconds)
        except (GeneratorError, OSError, KeyError, ValueError) as error:
            return {"broken": f"{type(error).__name__}: {error}"[:300]}

    def _scale(self) -> None:
        """One worker and two, with every core open to everybody."""
        cores = sorted(os.sched_getaffinity(0))
        free = f"{cores[0]}-{cores[-1]}" if len(cores) > 1 else str(cores[0])
        seconds = min(4.0, self._options.seconds or 4.0)
        with self._set_up(SCALING, large=False) as stage:
            variants = {workers: sluiceway(stage, f"sluiceway-{workers}", workers=workers) for workers in (1, 2)}
            for process in stage.bench.started:
                for pid in machine.family_of(process.pid):
                    subprocess.run(["taskset", "-a", "-p", "-c", free, str(pid)], capture_output=True, check=False)
            direct = Running("direct", f"http://{stage.upstream}", {}, {})
            context = Context(stage, direct, free)
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


def version_of(contestant: Contestant) -> str:
    """As the table says it."""
    if contestant.environment is not None:
        return contestant.environment.version
    told = machine.description()
    match contestant.name:
        case "nginx":
            return told["nginx"].rpartition("/")[2]
        case "plain":
            return f"aiohttp {told['aiohttp']}, uvloop {told['uvloop']}"
        case "direct":
            return ""
        case _:
            return told["sluiceway"]


def in_temporary_folder(options: Options) -> dict[str, Any]:
    """Runs it; its files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sluiceway-contest-") as folder:
        return Run(options, Path(folder)).whole()
