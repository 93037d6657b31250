"""The workloads: what is asked of every contestant, at which points, for how long.

Each measures one contestant at one point. Points and rounds are gone through in `run`, so that contestants are
interleaved: A B C A B C. Times are chosen so that the whole takes less than 40 minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.contest.asked import EVENTS
from benchmarks.contest.contestants import Running
from benchmarks.contest.measure import Context, Figures, GeneratorError, ask, hold, wrk

KB, MB = 1000, 1_000_000
SMALL = "small"
STAGES = (SMALL, "idle", "streams", "bodies")
"""Contestants are started anew for each: what a process keeps of one kind of work would hide what the next takes. The
first has the upstream of the small chat, the others that of streams and large bodies."""
LEVELS = {"20 %": 0.2, "50 %": 0.5, "80 %": 0.8}
COMMON = "common"
MODEL_FIRST = ", model first"
"""Behind the name of a point: who routes by model need not hold these bodies to learn it."""
RATE_MAX = 15_000.0
"""A second: what the client keeps with some core to spare for the upstream. Only nginx could be asked for more."""
PACE_MS = 20
STREAMS = 1_000
IDLE_STREAMS = 5_000
IDLE_STREAMS_IF_SLOW = 500
"""LiteLLM begins some 50 a second; what each takes is seen of fewer too."""
RAMP_S = 2.0
"""1,000 streams begin within it: all at once would measure how a queue of 1,000 empties."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a workload."""

    name: str
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured."""

    name: str
    title: str
    points: tuple[Point, ...]
    rounds: int
    seconds: float
    """In which requests begin."""
    takes_s: float
    """Of one measurement, beside its seconds: for what is to be foreseen."""
    measure: Callable[[Context, Running, Point, float], Figures]
    stage: str
    """One of `STAGES`."""
    direct: bool = True
    """Whether direct is a contestant here."""


def _closed(context: Context, running: Running, point: Point, seconds: float) -> Figures:
    return wrk(context, running, connections=int(point.value), seconds=seconds)


def _open(context: Context, running: Running, point: Point, seconds: float) -> Figures:
    """At a fixed rate; and without a proxy at the same, right before, for what is added."""
    capacity = context.capacity.get(running.name, 0.0)
    if not capacity:  # a rate of 0 is a closed loop
        raise GeneratorError("its capacity is not known: it did no small chat in the closed loop")
    if point.name == COMMON:
        rate = common_rate(context)
        if rate > 0.9 * capacity:
            return {"skipped": f"{rate:,.0f}/s is more than it can do"}
    else:
        rate = point.value * capacity
    rate = min(rate, RATE_MAX)
    plan = {"rate": rate, "connections": 256, "warm_s": 0.2 * seconds}
    without = ask(context, context.direct, [{"what": "chat"}], seconds=seconds / 2, **{**plan, "warm_s": 0.2})
    figures = ask(context, running, [{"what": "chat"}], seconds=seconds, **plan)
    figures |= {"rate_asked": rate, "share_asked": rate / capacity}
    figures["direct_ms"] = without["latency_ms"]
    return figures


def common_rate(context: Context) -> float:
    """Half of what the least of the contestants does that are not slow."""
    known = [rate for name, rate in context.capacity.items() if rate and name not in {*context.slow, "direct"}]
    return 0.5 * min(known or [0.0])


def _paced(context: Context, running: Running, point: Point, seconds: float) -> Figures:
    streams = int(point.value * min(1.0, context.scale))
    plan = {"connections": streams, "count": streams, "ramp_s": min(RAMP_S, seconds), "seconds": seconds}
    lasts_s = EVENTS * PACE_MS / 1000
    kind = {"what": "paced", "number": EVENTS, "other": PACE_MS}
    return ask(context, running, [kind], finish_s=lasts_s + 6.0, **plan)


def _poured(context: Context, running: Running, point: Point, seconds: float) -> Figures:
    kind = {"what": "paced", "number": EVENTS, "other": 0}
    figures = ask(context, running, [kind], connections=int(point.value), seconds=seconds)
    figures["events_per_s"] = figures["rate"] * EVENTS
    return figures


def _upload(context: Context, running: Running, point: Point, seconds: float) -> Figures:
    kind = {"what": "upload", "number": max(1024, int(point.value))}
    few = running.name in context.slow and point.value > MB
    return ask(context, running, [kind], connections=4, seconds=seconds, count=4 if few else 0, finish_s=40.0)


def _crowd_of_uploads(context: Context, running: Running, point: Point, seconds: float) -> Figures:
    """Sixteen at once, each once: `seconds` is only what it may take."""
    del seconds
    size = int(point.value * min(1.0, context.scale))
    kind = {"what": "upload", "number": size, "other": int(point.name.endswith(MODEL_FIRST))}
    return ask(context, running, [kind], connections=16, count=16, seconds=5.0, finish_s=60.0)


def _images(context: Context, running: Running, point: Point, seconds: float) -> Figures:
    kind = {"what": "image", "number": int(point.value * 0.75)}
    ask(context, context.direct, [kind], connections=1, count=1)  # the upstream makes it once, and keeps it
    few = running.name in context.slow and point.value > MB
    return ask(context, running, [kind], connections=4, seconds=seconds, count=4 if few else 0, finish_s=40.0)


def _embeddings(context: Context, running: Running, point: Point, seconds: float) -> Figures:
    return ask(context, running, [{"what": "embeddings"}], connections=int(point.value), seconds=seconds)


def _idle(context: Context, running: Running, point: Point, seconds: float) -> Figures:
    most = IDLE_STREAMS_IF_SLOW if running.name in context.slow else point.value
    streams = int(min(most, point.value * min(1.0, context.scale)))
    figures = hold(
        context, running, [{"what": "idle"}], connections=streams, ramp_s=seconds, seconds=seconds, finish_s=20.0
    )
    if "open" in figures:  # else not all came up in time
        figures["grown_per_stream"] = figures["grown_bytes"] / figures["open"]
        figures["grown_all_per_stream"] = figures["grown_all_bytes"] / figures["open"]
    return figures


MIXED: tuple[dict[str, Any], ...] = (
    {"what": "chat", "weight": 70},
    {"what": "paced", "number": EVENTS, "other": 0, "weight": 15, "name": "stream"},
    {"what": "upload", "number": MB, "weight": 10},
    {"what": "image", "number": 750 * KB, "weight": 5},
)


def _mixed(context: Context, running: Running, point: Point, seconds: float) -> Figures:
    return ask(context, running, list(MIXED), connections=int(point.value), seconds=seconds)


def _sizes(*sizes: int) -> tuple[Point, ...]:
    return tuple(Point(f"{size // MB} MB" if size >= MB else f"{size // KB} KB", size) for size in sizes)


def _connections(*counts: int) -> tuple[Point, ...]:
    return tuple(Point(str(count), count) for count in counts)


WORKLOADS = (
    Workload("chat", "small chat, closed loop, 64 connections", _connections(64), 5, 4.0, 0.8, _closed, SMALL),
    Workload("levels", "small chat, closed loop, by connections", _connections(1, 16, 256), 2, 3.0, 0.8, _closed,
             SMALL),
    Workload("open", "small chat at a fixed rate, share of the contestant's own capacity",
             (*(Point(name, share) for name, share in LEVELS.items()), Point(COMMON)), 2, 4.0, 3.5, _open,
             SMALL, direct=False),
    Workload("idle", "idle streams", _connections(IDLE_STREAMS), 1, 5.0, 4.0, _idle, "idle", direct=False),
    Workload("paced", f"streams of {EVENTS} events, {PACE_MS} ms apart", _connections(STREAMS), 3, RAMP_S, 6.0, _paced,
             "streams"),
    Workload("poured", f"streams of {EVENTS} events at full speed", _connections(64), 2, 3.0, 1.0, _poured, "streams"),
    Workload("upload", "chat with an image, by the size of the body, 4 at once",
             _sizes(KB, 10 * KB, 100 * KB, MB, 10 * MB, 100 * MB), 1, 1.5, 2.5, _upload, "bodies"),
    Workload("crowd", "16 uploads at once", (*_sizes(64 * MB), Point(f"64 MB{MODEL_FIRST}", 64 * MB)), 2, 0.0, 6.0,
             _crowd_of_uploads, "bodies"),
    Workload("image", "chat answered with an image, by the size of the answer, 4 at once",
             _sizes(MB, 4 * MB, 16 * MB, 64 * MB), 1, 1.5, 1.5, _images, "bodies"),
    Workload("embeddings", "embeddings answers of 1 MB", _connections(16), 2, 2.0, 1.0, _embeddings, "bodies"),
    Workload("mixed", "70 % small chat, 15 % streams, 10 % uploads and 5 % images of 1 MB", _connections(32), 2, 3.0,
             1.5, _mixed, "bodies"),
)  # fmt: skip
