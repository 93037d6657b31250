"""One measurement: runs a generator against one contestant, watches it meanwhile, and puts the figures together.

Two generators. The closed loop of the small chat is wrk's, which costs the least of the core it shares with the
upstream. Everything else is `client`'s: wrk knows no fixed rate, no streams' events and no large bodies; the others to
be had from registries (k6, locust, h2load) either cost more for a request than the contestants do, or know no fixed
rate.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contest import asked
from benchmarks.contest.client import FINISH_S, SECONDS
from benchmarks.contest.contestants import Running, Stage
from benchmarks.contest.watch import Watch, resident_of

Figures = dict[str, Any]
LATE_S = 30.0
"""A generator that has not ended so long after its time is ended: 5,000 connections are begun in 3 s, or never."""

_LUA = """\
wrk.method = "POST"
wrk.body = %s
%s
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n@{"requests": %%d, "seconds": %%f, "bytes": %%d, "errors": %%d, "refused": %%d,'
    .. '"p50": %%f, "p90": %%f, "p99": %%f, "p999": %%f, "max": %%f}\\n', summary.requests, summary.duration / 1e6,
    summary.bytes, e.connect + e.read + e.write + e.status + e.timeout, e.status, latency:percentile(50) / 1e3,
    latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3))
end
"""


@dataclass(slots=True)
class Context:
    """What a workload needs to know of the run."""

    stage: Stage
    direct: Running
    generator_cores: str
    """As taskset takes them."""
    scale: float = 1.0
    """Of every workload's seconds."""
    capacity: dict[str, float] = field(default_factory=dict)
    """Small chats a second, in a closed loop of 64 connections, by contestant."""
    slow: frozenset[str] = frozenset()
    """Contestants that get smaller amounts of work, named in the result."""


class GeneratorError(RuntimeError):
    """A generator failed; the text holds what it said."""


def wrk(context: Context, running: Running, *, connections: int, seconds: float) -> Figures:
    """A closed loop of small chats."""
    script = context.stage.bench.folder / f"{running.name}.lua"
    headers = {"Content-Type": "application/json", **running.headers}
    lines = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
    script.write_text(_LUA % (json.dumps(asked.SMALL_CHAT.decode()), lines))
    command = ["taskset", "-c", context.generator_cores, "wrk", "-t1", f"-c{connections}", "--timeout", "30s"]
    command += [f"-d{max(1, round(seconds))}s", "-s", str(script), running.url + asked.CHAT_PATH]

    def go() -> Figures:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + LATE_S)
        except subprocess.TimeoutExpired as error:
            raise GeneratorError(f"wrk did not end within {error.timeout:.0f} s") from None
        line = next((line for line in done.stdout.splitlines() if line.startswith("@")), None)
        if line is None:
            raise GeneratorError(f"wrk failed ({done.returncode}): {done.stdout} {done.stderr}")
        said = json.loads(line[1:])
        times = {name: round(said[name], 4) for name in ("p50", "p90", "p99", "p999", "max")}
        right = said["requests"] - said["refused"]
        return {
            "requests": right,
            "answered": said["requests"],
            "seconds": said["seconds"],
            "bytes_in": said["bytes"],
            "bytes_out": right * len(asked.SMALL_CHAT),
            "errors": said["errors"],
            "latency_ms": times,
        }

    return _watched(context, running, go)


def ask(context: Context, running: Running, kinds: list[dict[str, Any]], **plan: Any) -> Figures:
    """What `client` does of a plan (see its `Plan`); several kinds are added up, and told apart below ``kinds``."""

    def go() -> Figures:
        with _client(context, running, kinds, plan) as process:
            out, err = process.communicate()
            return _told(process, out, err)

    return _watched(context, running, go)


def hold(context: Context, running: Running, kinds: list[dict[str, Any]], **plan: Any) -> Figures:
    """The same, of streams that stay: memory is read when all are there, before they leave."""
    grown: Figures = {}

    def go() -> Figures:
        worker, everything = running.parts.get("worker", []), running.pids
        before = resident_of(worker), resident_of(everything)
        with _client(context, running, kinds, {**plan, "hold": True}) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            line = process.stdout.readline()
            said = json.loads(line) if line else {}
            grown["grown_bytes"] = resident_of(worker) - before[0]
            grown["grown_all_bytes"] = resident_of(everything) - before[1]
            process.stdin.close()
            process.stdin = None
            out, err = process.communicate()
            if "open" not in said:  # they did not all come up in time: it has told its result
                return _told(process, line, err)
            told = _told(process, out, err)
        return {**told, **dict.fromkeys(("open", "requests", "answered"), said["open"]), "seconds": said["seconds"]}

    return _watched(context, running, go) | grown


@contextmanager
def _client(
    context: Context, running: Running, kinds: list[dict[str, Any]], plan: dict[str, Any]
) -> Iterator[subprocess.Popen[str]]:
    """It has its plan. Ended when its time is over, however the contestant hangs."""
    whole = {"url": running.url, "headers": running.headers, "kinds": kinds, "prefixes": running.prefixes, **plan}
    command = ["taskset", "-c", context.generator_cores, sys.executable, "-m", "benchmarks.contest.client"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    assert isinstance(process, subprocess.Popen)
    assert process.stdin is not None
    lasts_s = plan.get("seconds", SECONDS) + plan.get("finish_s", FINISH_S)
    alarm = threading.Timer(lasts_s + LATE_S, process.kill)
    alarm.start()
    try:
        with process:
            process.stdin.write(json.dumps(whole) + "\n")
            process.stdin.flush()
            yield process
    except BaseException:
        process.kill()  # the run is ended: nobody waits for its answers
        raise
    finally:
        alarm.cancel()


def _told(process: subprocess.Popen[str], out: str, err: str) -> Figures:
    if not out.strip():
        why = "did not end in time" if process.returncode == -signal.SIGKILL else f"failed: {err.strip()[-1000:]}"
        raise GeneratorError(f"the client {why}")
    said: Figures = json.loads(out)
    kinds: dict[str, Figures] = said.pop("kinds")
    for name in ("requests", "answered", "errors", "bytes_in", "bytes_out", "events", "event_reads", "merged"):
        said[name] = sum(kind[name] for kind in kinds.values())
    said["reasons"] = {why: count for kind in kinds.values() for why, count in kind["reasons"].items()}
    if len(kinds) == 1:
        only = next(iter(kinds.values()))
        said |= {name: only[name] for name in ("latency_ms", "first_ms", "wait_ms", "delay_ms")}
    else:
        said["kinds"] = {
            name: {key: kind[key] for key in ("requests", "errors", "latency_ms", "first_ms")}
            for name, kind in kinds.items()
        }
    return said


def _watched(context: Context, running: Running, go: Callable[[], Figures]) -> Figures:
    watch = Watch(context.stage, running)
    figures = go()
    watch.pause()
    taken = watch.end(figures["answered"])
    seconds = max(figures["seconds"], 1e-6)
    moved = figures["bytes_in"] + figures["bytes_out"]
    spent = sum(taken.cpu_s.values())
    return {
        **figures,
        "rate": figures["requests"] / seconds,
        "bytes_per_s": moved / seconds,
        "bytes_moved": moved,
        "cpu_s_per_1000": spent / max(1, figures["answered"]) * 1000,
        "cpu_s_per_gb": spent / max(1, moved) * 1e9,
        **taken.told(),
    }
