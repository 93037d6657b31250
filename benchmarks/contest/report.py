"""A run's result for people: ``benchmarks/RESULTS.md`` with its charts, the JSON beside it, and the closing lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.contest import charts
from benchmarks.contest.figures import Result, added, median, names, spread, total
from benchmarks.contest.judge import complaints, held_back, rounds_of, verdicts

PAGE = Path(__file__).parent.parent / "RESULTS.md"
COUNTS = ("errors", "unfinished", "missing", "dropped")
"""What went wrong, in all rounds together: in one of five, its median would be nothing."""
REASONS_MAX = 3
"""Of what failed, in a table's footnote; the JSON has twenty of each measurement."""
RESULTS = Path(__file__).parent.parent / "results"
SO_FAR = RESULTS / "contest-so-far.json"


class Column(NamedTuple):
    """A figure: its key (see `figures`), what it is multiplied by, how it is written, whether direct's is taken off."""

    title: str
    key: str
    times: float = 1.0
    form: str = ",.0f"
    over_direct: bool = False


_RATE = Column("requests/s", "rate")
_CPU = (
    Column("CPU s/1000: traffic", "cpu_s.worker/answered*1000", form=",.3f"),
    Column("observer", "cpu_s.observer/answered*1000", form=",.3f"),
    Column("control", "cpu_s.control/answered*1000", form=",.3f"),
    Column("sum", "cpu_s_per_1000", form=",.3f"),
)
_CPU_GB = (
    Column("CPU s/GB: traffic", "cpu_s.worker/bytes_moved*1e9", form=",.2f"),
    Column("observer", "cpu_s.observer/bytes_moved*1e9", form=",.2f"),
    Column("control", "cpu_s.control/bytes_moved*1e9", form=",.2f"),
    Column("sum", "cpu_s_per_gb", form=",.2f"),
)
_BYTES = Column("MB/s", "bytes_per_s", 1e-6)
_PEAK = Column("peak MB", "peak_bytes", 1e-6)
_PEAK_ALL = Column("peak MB, all its processes", "peak_all_bytes", 1e-6)
_ERRORS = (Column("failed", "errors"), Column("unfinished", "unfinished"))
_LOST = (Column("records missing", "missing"), Column("dropped", "dropped"))
_OTHER = Column("other core busy", "other_core_busy", form=".0%")

DETAILS: dict[str, tuple[Column, ...]] = {
    "chat": (_RATE, Column("p50 ms", "latency_ms.p50", form=".2f"), Column("p99 ms", "latency_ms.p99", form=".2f"),
             Column("p99.9 ms", "latency_ms.p999", form=".2f"), *_CPU, _PEAK, _OTHER, *_ERRORS[:1], *_LOST),
    "levels": (_RATE, Column("p50 ms", "latency_ms.p50", form=".2f"), Column("p99 ms", "latency_ms.p99", form=".2f"),
               _CPU[-1], _OTHER, *_ERRORS[:1], *_LOST),
    "open": (Column("asked/s", "rate_asked"), Column("of its capacity", "share_asked", form=".0%"), _RATE,
             Column("added p50 ms", "added_ms.p50", form=".2f"), Column("added p99 ms", "added_ms.p99", form=".2f"),
             Column("added p99.9 ms", "added_ms.p999", form=".2f"),
             Column("direct p99 ms", "direct_ms.p99", form=".2f"), *_ERRORS, *_LOST),
    "paced": (Column("streams done", "requests"), Column("added TTFT p50 ms", "first_ms.p50", 1, ".2f", True),
              Column("added TTFT p99 ms", "first_ms.p99", 1, ".2f", True),
              Column("delay p50 ms", "delay_ms.p50", form=".2f"), Column("delay p99 ms", "delay_ms.p99", form=".2f"),
              Column("added delay p99 ms", "delay_ms.p99", 1, ".2f", True),
              Column("merged", "merged/events", form=".2%"), *_CPU, _PEAK, _OTHER, *_ERRORS, *_LOST),
    "poured": (Column("events/s", "events_per_s"), _BYTES, Column("TTFT p50 ms", "first_ms.p50", form=".2f"), *_CPU,
               _PEAK, *_ERRORS, *_LOST),
    "upload": (_BYTES, Column("first byte after the last was sent, p50 ms", "wait_ms.p50", form=".2f"), _PEAK,
               *_CPU_GB, *_ERRORS, *_LOST),
    "crowd": (_BYTES, Column("TTFB p50 ms", "first_ms.p50"), _PEAK, _PEAK_ALL, *_CPU_GB, *_ERRORS, *_LOST),
    "image": (_BYTES, Column("TTFB p50 ms", "first_ms.p50", form=".1f"), _PEAK, *_CPU_GB, *_ERRORS, *_LOST),
    "embeddings": (_RATE, _BYTES, Column("p99 ms", "latency_ms.p99", form=".1f"), _PEAK, *_CPU_GB, *_ERRORS, *_LOST),
    "mixed": (_RATE, _BYTES, Column("chat p50 ms", "kinds.chat.latency_ms.p50", form=".1f"),
              Column("chat p99 ms", "kinds.chat.latency_ms.p99", form=".1f"),
              Column("TTFT p50 ms", "kinds.stream.first_ms.p50", form=".1f"), _PEAK, *_CPU, *_ERRORS, *_LOST),
    "idle": (Column("streams open", "open"), Column("KB each", "grown_per_stream", 1e-3, ".1f"),
             Column("KB each, all its processes", "grown_all_per_stream", 1e-3, ".1f"), _PEAK, *_ERRORS, *_LOST),
    "scaling": (_RATE, Column("p99 ms", "latency_ms.p99", form=".2f"), *_CPU, *_LOST),
}  # fmt: skip

CHARTS = (
    ("chat", "bars", "64", Column("Small chat, requests/s on one core (64 connections)", "rate")),
    ("open", "bars", "50 %", Column("Small chat at half of its own capacity, added p99 in ms", "added_ms.p99")),
    ("cpu", "bars", "64", Column("Small chat, CPU seconds for 1,000 requests, all processes", "cpu_s_per_1000")),
    ("poured", "bars", "64", Column("Streams at full speed, events/s", "events_per_s")),
    ("upload", "lines", "", Column("Uploads of one size, 4 at once: MB/s", "bytes_per_s", 1e-6)),
    ("memory", "lines", "", Column("Uploads of one size, 4 at once: peak memory in MB", "peak_bytes", 1e-6)),
)
_WORKLOAD_OF = {"cpu": "chat", "memory": "upload"}


def _cell(result: Result, workload: str, point: str, name: str, column: Column) -> str:
    taken = added if column.over_direct else total if column.key in COUNTS else median
    value = taken(result, workload, point, name, column.key)
    if value is None:
        return ""
    told = format(value * column.times, column.form)
    if column.key in ("rate", "bytes_per_s"):
        wide = spread(result, workload, point, name, column.key)
        told += f" ±{wide:.0%}" if wide is not None else ""
    return told


def _plain(why: str) -> str:
    """As it can stand in a cell."""
    return " ".join(why.replace("|", "/").split())


def _table(result: Result, workload: str, point: str) -> Iterator[str]:
    rows = names(result, workload, point)
    columns = [
        column
        for column in DETAILS[workload]
        if any(_cell(result, workload, point, name, column) not in ("", "0") for name in rows)
    ]
    yield "| | " + " | ".join(column.title for column in columns) + " |"
    yield "| --- |" + " ---: |" * len(columns)
    limited = {one[2] for one in held_back(result) if one[:2] == (workload, point)}
    for name in rows:
        rounds = result["rounds"][workload][point][name]
        why = next((one[key] for one in rounds for key in ("broken", "skipped") if key in one), None)
        if why and not any("rate" in one for one in rounds):
            yield f"| {name} | {_plain(why)} |" + " |" * (len(columns) - 1)
            continue
        cells = [_cell(result, workload, point, name, column) for column in columns]
        yield f"| {name}{' (1)' if name in limited else ''} | " + " | ".join(cells) + " |"


def _workload(result: Result, workload: str) -> Iterator[str]:
    titles = result["workloads"]
    title = titles[workload]["title"] if workload in titles else "one worker and two, every core open to all"
    yield f"## {title[0].upper()}{title[1:]}"
    for point in result["rounds"][workload]:
        yield ""
        yield f"**{point}**, median of {rounds_of(result, workload, point)} rounds"
        yield ""
        yield from _table(result, workload, point)
        for name in names(result, workload, point):
            rounds = result["rounds"][workload][point][name]
            reasons = {why for one in rounds for why in one.get("reasons", {})}
            reasons |= {one["broken"] for one in rounds if "broken" in one}
            if reasons:
                told = "; ".join(_plain(why) for why in sorted(reasons)[:REASONS_MAX])
                yield f"\n{name}, what failed: {told}"
    for name, why in _failed(result, workload):
        yield ""
        yield f"{name} is missing: {_plain(why)}"
    yield ""


def _failed(result: Result, workload: str) -> Iterator[tuple[str, str]]:
    for name, failed in result["failed"].items():
        if workload in failed:
            yield name, failed[workload]


def _head(result: Result) -> Iterator[str]:
    cores = result["cores"]
    yield "# Sluiceway beside others of its kind"
    yield ""
    yield (
        f"Written by `make bench-all`, {result['when']}, {result['took_s'] / 60:.0f} minutes. Contestants on core "
        f"{cores['contestant']} (of Sluiceway the worker; its observer, control and supervisor are on the other), "
        f"generator and upstream on core {cores['everything else']}; warmed up; rounds interleaved (A B C A B C); "
        "medians, ± half the distance from the least to the most; what failed or is missing, of all rounds together."
    )
    if result["scale"] != 1.0:
        yield ""
        yield f"**Numbers of streams and largest bodies scaled by {result['scale']}: no result.**"
    yield ""
    yield "| machine | |\n| --- | --- |"
    yield from (f"| {name} | {value} |" for name, value in result["machine"].items())
    yield ""
    yield "| contestant | version | what it does | answers |\n| --- | --- | --- | --- |"
    for name, one in result["contestants"].items():
        same = "the same bytes" if result["same_bytes"].get(name) else "written anew, the same content and usage"
        yield f"| {name} | {one['version']} | {one['does']} | {same} |"
    for name, why in result["skipped"].items():
        yield f"\n{name} was skipped: {why}"
    yield ""
    slow = ", ".join(name for name, one in result["contestants"].items() if one["slow"])
    yield "(1): generator and upstream alone do less than twice as much here, so the figure is partly theirs."
    if slow:
        yield (
            f"{slow}: uploads and image answers above 1 MB are four, once, instead of as many as go into the time, and "
            "16 uploads at once and streams at full speed have one round; idle streams are 500."
        )
    yield ""


def page(result: Result) -> str:
    """RESULTS.md."""
    lines = [*_head(result), "## What was to be reached", ""]
    lines += ["| | | figure |", "| --- | --- | ---: |"]
    words = {True: "reached", False: "**not reached**", None: ""}
    lines += [f"| {words[one.reached]} | {one.wanted.replace('|', '')} | {one.figure} |" for one in verdicts(result)]
    lines += [""] + [f"NOT A RESULT: {complaint}\n" for complaint in complaints(result)]
    lines += [f"![{name}](results/{name}.svg)\n" for name in drawn(result)]
    for workload in result["rounds"]:
        lines += _workload(result, workload)
    return "\n".join(lines).rstrip() + "\n"


def drawn(result: Result) -> dict[str, str]:
    """The charts that there are figures for, by name."""
    found: dict[str, str] = {}
    for name, shape, point, column in CHARTS:
        workload = _WORKLOAD_OF.get(name, name)
        there = [one for one in names(result, workload) if one != "direct" or name in ("chat", "upload")]
        points = list(result["rounds"].get(workload, {}))

        def value(one: str, at: str, of: str = workload, what: Column = column) -> float | None:
            middle = median(result, of, at, one, what.key)
            return None if middle is None else middle * what.times

        if shape == "bars":
            svg = charts.bars(column.title, {one: value(one, point) or 0.0 for one in there})
        else:
            svg = charts.lines(column.title, points, {one: [value(one, at) for at in points] for one in there})
        if svg:
            found[name] = svg
    return found


def write(result: Result) -> None:
    """RESULTS.md and its charts."""
    RESULTS.mkdir(exist_ok=True)
    for name, svg in drawn(result).items():
        (RESULTS / f"{name}.svg").write_text(svg)
    PAGE.write_text(page(result))


def save(result: Result, file: Path | None, *, whole: bool) -> Path:
    """The figures as JSON. Those of a whole run replace the ones before, which git has."""
    if file is None:
        RESULTS.mkdir(exist_ok=True)
        when = "" if whole else f"-{str(result['when']).replace(':', '')}"
        file = RESULTS / f"contest{when}.json"
    _replace(file, result)
    SO_FAR.unlink(missing_ok=True)
    return file


def keep(result: Result, file: Path | None) -> Path:
    """The figures so far: should the run be ended, or the machine, they are there, and can be rendered."""
    file = file or SO_FAR
    file.parent.mkdir(exist_ok=True)
    _replace(file, result)
    return file


def _replace(file: Path, result: Result) -> None:
    """At once: whoever is ended meanwhile leaves the file before."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(result, indent=1) + "\n")
    fresh.replace(file)


def closing(result: Result) -> str:
    """What is printed at the end."""
    lines = [f"{name} was skipped: {why}" for name, why in result["skipped"].items()]
    lines += [one.line() for one in verdicts(result)]
    lines += [f"NOT A RESULT: {complaint}" for complaint in complaints(result)]
    return "\n".join(lines)
