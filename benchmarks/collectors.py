"""What a collector that fails does to the traffic: ``python -m benchmarks.collectors``.

The gateway with everything on under full load (wrk, closed loop), in rounds: without a collector, and with each of
those of `benchmarks.faulty_collector` that refuse, hang, answer a byte a second, or answer 500. Every round has a
gateway and a collector of its own, so that no round pays for the retries of the one before. After the load the
collector heals, and the books are made: every span is either in a request that the collector answered with 200, or
counted as dropped.

A result is good where, against the rounds without a collector, each kind has RATE_MIN of the throughput and at most
P99_MAX times the p99 (medians of the rounds), no request failed, no line is missing, the books are right to the span,
control stays within CONTROL_MAX of its size before the load, and the observer within OBSERVER_MAX. Exit: 0; 1 when it
is not good; 2 when something does not start.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks import machine
from benchmarks.bench import SPANS_DROPPED, chat_script, generate, missing_tools, settle
from benchmarks.contestants import Bench, Contestant, NotReadyError, metric

RATE_MIN = 0.9
P99_MAX = 1.3
MIB = 1024 * 1024
CONTROL_MAX = 16 * MIB
OBSERVER_MAX = 160 * MIB
"""Its queue is 64 MiB of spans; as much again for what is on its way, compressed and not, and the allocator's share."""
SETTLE_S = 60.0
"""A request that hangs ends with the exporter's timeout, 10 s; the queue goes out in some seconds more."""
NONE = "none"
KINDS = ("refusing", "hanging", "crawling", "failing")


@dataclass(frozen=True)
class Plan:
    """How long everything takes."""

    rounds: int = 5
    warm_up_s: int = 2
    round_s: int = 8


@dataclass(slots=True)
class Round:
    """One round of one kind."""

    requests_per_s: float
    p99_ms: float
    errors: int
    lines_missing: int
    spans: int
    """Made, as the lines say."""
    delivered: int
    dropped: int
    control_grew_bytes: int
    observer_grew_bytes: int


class Collector:
    """`benchmarks.faulty_collector` as a process, on one core if one is named."""

    def __init__(self, how: str, core: int | None = None) -> None:
        command = [sys.executable, "-m", "benchmarks.faulty_collector", "--how", how]
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        self._process = subprocess.Popen([*pinned, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def heal(self) -> None:
        """From now on it is a good one."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.wait("healed")

    def wait(self, word: str) -> None:
        """Until it says that."""
        assert self._process.stdout is not None
        while self._process.stdout.readline().strip() not in (word, ""):
            pass

    def end(self) -> int:
        """The spans that it took."""
        said, _ = self._process.communicate(timeout=30)
        return int(json.loads(said.splitlines()[-1])["spans"])


def run_round(folder: Path, upstream_url: str, how: str, plan: Plan) -> Round:
    """Start both, load, heal, make the books, end both."""
    folder.mkdir()
    bench = Bench(folder, *machine.two_cores(), upstream_url=upstream_url)
    chat_script(folder)
    collector = None if how == NONE else Collector(how, bench.rest)
    bench.sink_url = "" if collector is None else collector.url
    try:
        gateway = bench.start_gateway()
        control, observer = (
            machine.worker_of(gateway.process.pid, module) for module in ("proxy.control", "observability.observer")
        )
        assert control is not None
        assert observer is not None
        warm = generate(bench, gateway.url, plan.warm_up_s)
        before = machine.memory_bytes(control), machine.memory_bytes(observer)
        for pid in (control, observer):
            machine.reset_peak_memory(pid)
        load = generate(bench, gateway.url, plan.round_s)
        settle(gateway, warm.requests + load.requests)
        grew = machine.peak_memory_bytes(control) - before[0], machine.peak_memory_bytes(observer) - before[1]
        lines, spans = made(folder / "gateway.out")
        dropped = 0 if collector is None else _books(gateway, collector)
    finally:
        bench.stop()
    delivered = 0 if collector is None else collector.end()
    missing = max(0, warm.requests + load.requests - lines)
    return Round(
        load.requests_per_s, load.p99_ms, load.errors, missing, 0 if how == NONE else spans, delivered, dropped, *grew
    )


def _books(gateway: Contestant, collector: Collector) -> int:
    """Heal it, wait until nothing is queued and no number moves; the spans counted as dropped."""
    collector.heal()
    assert gateway.metrics_url is not None
    deadline = time.monotonic() + SETTLE_S
    last, since = -1.0, time.monotonic()
    while time.monotonic() < deadline:
        dropped = metric(gateway.metrics_url, SPANS_DROPPED)
        queued = metric(gateway.metrics_url, "sluiceway_spans_queued_bytes")
        if queued or dropped != last:
            last, since = dropped, time.monotonic()
        elif time.monotonic() - since > 12:  # longer than a request that hangs
            break
        time.sleep(0.5)
    return int(last)


def made(log: Path) -> tuple[int, int]:
    """Lines of requests, and the spans that belong to them: the server's, and the client's where one was tried."""
    lines = spans = 0
    with log.open("rb") as file:
        for line in file:
            record = orjson.loads(line)
            if record["event"] == "request":
                lines += 1
                spans += 2 if record["sluiceway.attempts"] else 1
    return lines, spans


def complaints(rounds: dict[str, list[Round]]) -> list[str]:
    """What is not good; empty when all is."""
    found = []
    rate, p99 = (_median(rounds[NONE], name) for name in ("requests_per_s", "p99_ms"))
    for how, done in rounds.items():
        if _median(done, "requests_per_s") < RATE_MIN * rate:
            found.append(f"{how}: {_median(done, 'requests_per_s') / rate:.2f} of the throughput, not {RATE_MIN}")
        if _median(done, "p99_ms") > P99_MAX * p99:
            found.append(f"{how}: {_median(done, 'p99_ms') / p99:.2f} times the p99, not {P99_MAX}")
        for one in done:
            if one.errors or one.lines_missing:
                found.append(f"{how}: {one.errors} requests failed, {one.lines_missing} lines are missing")
            if one.spans != one.delivered + one.dropped:
                found.append(
                    f"{how}: {one.spans} spans, {one.delivered} delivered and {one.dropped} counted as dropped"
                )
            if one.control_grew_bytes > CONTROL_MAX or one.observer_grew_bytes > OBSERVER_MAX:
                grew = one.control_grew_bytes / MIB, one.observer_grew_bytes / MIB
                found.append(f"{how}: control grew by {grew[0]:.0f} MiB, the observer by {grew[1]:.0f} MiB")
    return found


def describe(rounds: dict[str, list[Round]], plan: Plan) -> str:
    """Machine, method and figures, as a person reads them."""
    rate, p99 = (_median(rounds[NONE], name) for name in ("requests_per_s", "p99_ms"))
    out = [f"{name}: {value}" for name, value in machine.description().items()]
    out += [
        f"{plan.rounds} rounds of {plan.round_s} s each, interleaved, a gateway of its own for each; medians",
        "collector    requests/s  (ratio)  p99 ms  (ratio)   spans made   delivered     dropped  control  observer",
    ]
    for how, done in rounds.items():
        total = [sum(getattr(one, name) for one in done) for name in ("spans", "delivered", "dropped")]
        grew = [max(getattr(one, f"{who}_grew_bytes") for one in done) / MIB for who in ("control", "observer")]
        one_rate, one_p99 = (_median(done, name) for name in ("requests_per_s", "p99_ms"))
        out.append(
            f"{how:<12} {one_rate:>10,.0f}  ({one_rate / rate:>5.2f})  {one_p99:>6.1f}  ({one_p99 / p99:>5.2f})"
            f"  {total[0]:>11,} {total[1]:>11,} {total[2]:>11,}  +{grew[0]:>3.0f} MiB  +{grew[1]:>3.0f} MiB"
        )
    return "\n".join(out)


def _median(rounds: list[Round], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in rounds))


def run(plan: Plan, kinds: tuple[str, ...], folder: Path) -> dict[str, list[Round]]:
    """All rounds; raises NotReadyError, RuntimeError, ValueError (one core)."""
    upstream = Bench(folder, *machine.two_cores())
    rounds: dict[str, list[Round]] = {how: [] for how in (NONE, *kinds)}
    try:
        upstream.start_nginx()
        for number in range(plan.rounds):
            for how, done in rounds.items():
                one = run_round(folder / f"{how}-{number}", upstream.upstream_url, how, plan)
                done.append(one)
                said = f"{one.requests_per_s:,.0f}/s, p99 {one.p99_ms:.1f} ms, {one.dropped:,} of {one.spans:,} dropped"
                print(f"round {number + 1} of {plan.rounds}, {how}: {said}", flush=True)
    finally:
        upstream.stop()
    return rounds


def main() -> int:
    """Runs it and prints the report; see the module's description for the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collectors", description=__doc__)
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--seconds", type=int, default=Plan.round_s, help="of a round's load")
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of them, with commas between")
    arguments = parser.parse_args()
    kinds = tuple(arguments.kinds.split(","))
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no kind: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if missing := missing_tools():
        print("\n".join(missing), file=sys.stderr)
        return 2
    plan = Plan(rounds=arguments.rounds, round_s=arguments.seconds)
    with tempfile.TemporaryDirectory(prefix="sluiceway-collectors-") as folder:
        try:
            rounds = run(plan, kinds, Path(folder))
        except (NotReadyError, ValueError, RuntimeError) as error:
            print(error, file=sys.stderr)
            return 2
    print(describe(rounds, plan))
    found = complaints(rounds)
    print("\n".join(found) if found else "good")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
