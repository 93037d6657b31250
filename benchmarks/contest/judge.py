"""What was to be reached, and whether it was; and what keeps a run from being a result at all.

All of one run: one worker on one core, observer and control on the other, everything on.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contest.figures import Result, added, median, names, values
from benchmarks.contest.workloads import MODEL_FIRST

OURS, OFF, PLAIN, ENVOY = "sluiceway", "sluiceway-off", "plain", "envoy-otel"
HEADROOM = 2.0
FOREIGN_SHARE = 0.05
"""Of the contestants' core; more, and the machine was not ours."""
FULL = 0.97
"""Of the other core: generator or observer held the contestant back."""
MERGED_SHARE = 0.01
"""«No event merged … at p99.»"""
SPAN_BYTES = 400
"""A request's two spans cannot be less: they are 1,700 bytes, and are sent as they are."""
FLAT = 1.10
"""A peak of memory differs so much from one round to the next."""
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the table; `reached` None: not measured, or there is nothing to reach."""

    wanted: str
    figure: str
    reached: bool | None

    def line(self) -> str:
        """As it is printed."""
        word = {True: "reached", False: "NOT REACHED", None: "-"}[self.reached]
        return f"{word:<12} {self.wanted}: {self.figure}"


def _at_least(wanted: str, value: float | None, least: float, form: str = "{:.2f}") -> Verdict:
    return Verdict(
        wanted, "not measured" if value is None else form.format(value), None if value is None else value >= least
    )


def _at_most(wanted: str, value: float | None, most: float, form: str = "{:.2f} ms") -> Verdict:
    return Verdict(
        wanted, "not measured" if value is None else form.format(value), None if value is None else value <= most
    )


def _ratio(result: Result, workload: str, point: str, key: str, name: str, other: str) -> float | None:
    mine, theirs = (median(result, workload, point, one, key) for one in (name, other))
    return mine / theirs if mine is not None and theirs else None


def verdicts(result: Result) -> list[Verdict]:
    """All of them."""
    return [*_chat(result), *_streams(result), *_bodies(result), *_whole(result)]


def _chat(result: Result) -> list[Verdict]:
    goals = ((PLAIN, 1.8), (ENVOY, 0.8), ("portkey", 10.0), ("litellm", 100.0))
    found = [
        _at_least(
            f"small chat, requests/s >= {goal:g} x {other}",
            _ratio(result, "chat", "64", "rate", OURS, other), goal, "{:.2f} x",
        )
        for other, goal in goals
    ]  # fmt: skip
    mine, plain = (median(result, "open", "50 %", name, "added_ms.p99") for name in (OURS, PLAIN))
    found.append(_at_most("small chat at 50 % load, added p99 <= 3 ms", mine, 3.0))
    found.append(
        _at_most(f"... and <= plain's ({plain or 0:.2f} ms)", mine if plain is not None else None, plain or 0.0)
    )
    found.append(_at_least("recording on / off >= 0.85", _ratio(result, "chat", "64", "rate", OURS, OFF), 0.85))
    return found


def _streams(result: Result) -> list[Verdict]:
    point = next(iter(result["rounds"].get("paced", {})), "")
    merged, merged_direct = (median(result, "paced", point, name, "merged/events") for name in (OURS, "direct"))
    idle = next(iter(result["rounds"].get("idle", {})), "")
    whole = median(result, "idle", idle, OURS, "grown_all_per_stream")
    worker = median(result, "idle", idle, OURS, "grown_per_stream")
    return [
        _at_most(f"{point} streams at 20 ms, added time to first token p50 <= 1 ms",
                 added(result, "paced", point, OURS, "first_ms.p50"), 1.0),
        _at_most("... p99 <= 5 ms", added(result, "paced", point, OURS, "first_ms.p99"), 5.0),
        _at_most("... added delay of an event p99 <= 5 ms", added(result, "paced", point, OURS, "delay_ms.p99"), 5.0),
        Verdict("... events merged <= 1 %, that is none at p99",
                "not measured" if merged is None else f"{merged:.2%} (direct: {merged_direct or 0:.2%})",
                None if merged is None else merged <= MERGED_SHARE),
        _at_most(f"{idle} idle streams, <= 40 KB each (worker; all processes: {(whole or 0) / 1000:.1f})",
                 None if worker is None else worker / 1000, 40.0, "{:.1f} KB"),
    ]  # fmt: skip


def _bodies(result: Result) -> list[Verdict]:
    peak, everything = (median(result, "crowd", "64 MB", OURS, key) for key in ("peak_bytes", "peak_all_bytes"))
    large, small = (median(result, "upload", point, OURS, "peak_bytes") for point in ("100 MB", "1 MB"))
    return [
        _at_least("upload 64 MB x 16, bytes/s >= 0.9 x plain",
                  _ratio(result, "crowd", "64 MB", "bytes_per_s", OURS, PLAIN), 0.9, "{:.2f} x"),
        _at_least("... the same, and the model is named first",
                  _ratio(result, "crowd", f"64 MB{MODEL_FIRST}", "bytes_per_s", OURS, PLAIN), 0.9, "{:.2f} x"),
        _at_most(f"... peak memory <= 150 MB (worker; all processes: {(everything or 0) / MB:.0f})",
                 None if peak is None else peak / MB, 150.0, "{:.0f} MB"),
        Verdict("a body of 100 MB costs no more memory than one of 1 MB",
                "not measured" if large is None or small is None else f"{large / MB:.0f} MB, {small / MB:.0f} MB",
                None if large is None or small is None else large <= FLAT * small),
    ]  # fmt: skip


def _whole(result: Result) -> list[Verdict]:
    lost = measured = 0
    for points in result["rounds"].values():
        for of_point in points.values():
            for figures in of_point.get(OURS, []):
                measured += figures.get("missing") is not None
                lost += (figures.get("missing") or 0) + (figures.get("dropped") or 0)
    one, two = (median(result, "scaling", f"{count} workers", OURS, "rate") for count in (1, 2))
    told = "not measured" if not one or two is None else f"{two / one:.2f} x ({one:,.0f}/s, {two:,.0f}/s)"
    return [
        Verdict(
            "nothing dropped: no record missing, no record or span dropped",
            f"{lost} lost",
            lost == 0 if measured else None,
        ),
        Verdict(
            "two workers on two cores that generator, upstream and observer share, to one worker there", told, None
        ),
    ]


def held_back(result: Result) -> list[tuple[str, str, str, float]]:
    """Workload, point, contestant and headroom wherever generator and upstream do not do twice as much."""
    found = []
    for workload in ("chat", "levels", "poured", "upload", "crowd", "image", "embeddings", "mixed"):
        for point in result["rounds"].get(workload, {}):
            direct = median(result, workload, point, "direct", "rate")
            for name in names(result, workload, point):
                rate = median(result, workload, point, name, "rate")
                if name != "direct" and direct and rate and direct / rate < HEADROOM:
                    found.append((workload, point, name, direct / rate))
    return found


def complaints(result: Result) -> list[str]:
    """What keeps the figures that are judged from being a result; empty when nothing does."""
    found = []
    judged: dict[tuple[str, str], tuple[str, ...]] = {("chat", "64"): (OURS, OFF, PLAIN, ENVOY)}
    judged |= {("crowd", f"64 MB{more}"): (OURS, PLAIN) for more in ("", MODEL_FIRST)}
    found += [f"{stage} broke off: {why}" for stage, why in result.get("trouble", {}).items()]
    if result["scale"] != 1.0:
        found.append(f"numbers of streams and largest bodies are {result['scale']:g} of what they are called")
    if not result.get("complete", True):
        found.append("the run was ended before its end")
    for name in (OURS, OFF, PLAIN, ENVOY):
        if name in result["skipped"]:
            found.append(f"{name} was skipped: {result['skipped'][name]}")
        found += [f"{name} is missing in {where}: {why}" for where, why in result["failed"].get(name, {}).items()]
    for workload, point, name, headroom in held_back(result):
        if name in judged.get((workload, point), ()):
            found.append(f"{workload} {point}: generator and upstream do only {headroom:.2f} times what {name} does")
    for name in (OURS, PLAIN):
        rate = median(result, "open", "50 %", name, "rate_asked")
        if rate and result["generator_capacity"] < HEADROOM * rate:
            found.append(f"open 50 %: the generator does only {result['generator_capacity'] / rate:.2f} times {name}'s")
    for point in result["rounds"].get("paced", {}):
        busy = median(result, "paced", point, "direct", "other_core_busy")
        if busy and busy > 1 / HEADROOM:
            found.append(f"paced {point}: without a proxy generator and upstream take {busy:.0%} of their core")
    for workload, points in result["rounds"].items():
        for point, of_point in points.items():
            found += [f"{workload} {point} {complaint}" for complaint in _of_rounds(of_point)]
    return found + _disturbed(result)


def _of_rounds(of_point: dict[str, list[dict[str, float]]]) -> list[str]:
    """Only of what is judged: what fails at a contestant that is only compared is in its table."""
    found = []
    for name in (OURS, OFF, PLAIN, ENVOY):
        for number, figures in enumerate(of_point.get(name, [])):
            where = f"{name} round {number + 1}:"
            if "broken" in figures:
                found.append(f"{where} {figures['broken']}")
            if figures.get("errors") or figures.get("unfinished"):
                found.append(f"{where} {figures.get('errors')} failed, {figures.get('unfinished', 0)} unfinished")
            if figures.get("missing") or figures.get("dropped"):
                found.append(
                    f"{where} {figures['missing']} records missing, {figures['dropped']} records or spans dropped"
                )
            if figures.get("ended"):
                found.append(f"{where} {figures['ended']} of its processes ended")
            if figures.get("span_bytes") is not None and figures["span_bytes"] < SPAN_BYTES * figures["answered"]:
                found.append(f"{where} only {figures['span_bytes']} bytes of spans for {figures['answered']} requests")
    return found


def _disturbed(result: Result) -> list[str]:
    """Where the machine was not ours, or generator and upstream had not enough of it; the worst of each workload."""
    found = []
    for workload, points in result["rounds"].items():
        for key, most, text in (
            ("worker_core_foreign", FOREIGN_SHARE, "of the contestants' core went to other programs"),
            ("other_core_busy", FULL, "busy was the core of everything else"),
        ):
            if workload == "scaling" or (key == "other_core_busy" and workload not in ("open", "paced")):
                continue
            over = [
                (figures.get(key, 0.0), f"{name} at {point}")
                for point, of_point in points.items()
                for name in (OURS, OFF, PLAIN, ENVOY)
                for figures in of_point.get(name, [])
                if figures.get(key, 0.0) > most
            ]
            if over:
                share, where = max(over)
                found.append(f"{workload}: up to {share:.0%} {text} ({where}; {len(over)} measurements)")
    return found


def rounds_of(result: Result, workload: str, point: str) -> int:
    """How many there were."""
    return max(
        (len(values(result, workload, point, name, "rate")) for name in names(result, workload, point)), default=0
    )
