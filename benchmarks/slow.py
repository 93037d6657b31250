"""What 2,000 slow clients do to everybody else: ``python -m benchmarks.slow``.

The same load at a fixed rate, in interleaved rounds without and with the crowd of `benchmarks.slow_clients`, whose
members come back when they are ended. Then the crowd once more, without coming back: each has to be ended by a limit of
the gateway, with the defaults heads after 10 s, bodies after 30 s, readers after 60 s.

A result is good where the p99 of the load is at most RATIO_MAX times that without the crowd (medians of the rounds), no
request failed, and nobody of the crowd is left. Told beside it: what the worker's resident size and the kernel's TCP
memory grew by. Exit: 0; 1 when it is not good; 2 when something does not start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import load, machine
from benchmarks.contestants import CHAT_PATH, KEY, REQUEST, Bench, Contestant, NotReadyError

RATIO_MAX = 1.5
ALL_ENDED_S = 90.0
"""The longest of the limits is 60 s, and the sweep that sees it comes a second later."""
MIB = 1024 * 1024


@dataclass(frozen=True)
class Plan:
    """How much of what."""

    count: int = 2000
    rate: float = 400.0
    rounds: int = 5
    round_s: float = 15.0
    settle_s: float = 3.0


class _CrowdProcess:
    """`benchmarks.slow_clients` on the core of everything else, from when all are connected."""

    def __init__(self, bench: Bench, url: str, count: int, *, again: bool) -> None:
        command = [sys.executable, "-m", "benchmarks.slow_clients", "--key", KEY, "--count", str(count), url]
        self._process = subprocess.Popen(
            ["taskset", "-c", str(bench.rest), *command, *(["--again"] if again else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"open\n":
            raise NotReadyError("the slow clients did not come up")

    def ended(self) -> bool:
        """All were ended, and did not come back."""
        return self._process.poll() is not None

    def stop(self) -> dict[str, Any]:
        """All leave; what became of them."""
        said, _ = self._process.communicate(b"", timeout=30)
        result: dict[str, Any] = json.loads(said)
        return result


def tcp_memory_bytes() -> int:
    """What the kernel holds for all TCP connections of the host."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * resource.getpagesize()
    return 0


async def _load(gateway: Contestant, plan: Plan, seconds: float) -> load.Outcome:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    return await load.generate(
        gateway.url + CHAT_PATH, rate=plan.rate, seconds=seconds, body=REQUEST, headers=headers, connections=32
    )


async def run(bench: Bench, gateway: Contestant, plan: Plan) -> dict[str, Any]:
    """All rounds, and the end of the crowd."""
    url = gateway.url + CHAT_PATH
    without: list[load.Outcome] = []
    beside: list[load.Outcome] = []
    grown: list[tuple[int, int]] = []
    comings: list[dict[str, Any]] = []
    await _load(gateway, plan, plan.settle_s)
    for number in range(plan.rounds):
        without.append(await _load(gateway, plan, plan.round_s))
        before = machine.memory_bytes(gateway.worker), tcp_memory_bytes()
        crowd = await asyncio.to_thread(_CrowdProcess, bench, url, plan.count, again=True)
        await _load(gateway, plan, plan.settle_s)
        beside.append(await _load(gateway, plan, plan.round_s))
        grown.append((machine.memory_bytes(gateway.worker) - before[0], tcp_memory_bytes() - before[1]))
        comings.append(await asyncio.to_thread(crowd.stop))
        await asyncio.sleep(plan.settle_s)
        print(f"round {number + 1}: p99 {without[-1].p99_ms:.2f} ms without, {beside[-1].p99_ms:.2f} ms beside them")
    crowd = await asyncio.to_thread(_CrowdProcess, bench, url, plan.count, again=False)
    began = time.monotonic()
    while not crowd.ended() and time.monotonic() - began < ALL_ENDED_S:
        await asyncio.sleep(0.2)
    last = await asyncio.to_thread(crowd.stop)
    return {
        "p99_ms": (_median(without), _median(beside)),
        "errors": sum(one.errors for one in (*without, *beside)),
        "requests": sum(one.requests for one in (*without, *beside)),
        "rss_per_client": max(one for one, _ in grown) / plan.count,
        "tcp_per_client": max(one for _, one in grown) / plan.count,
        "ended_during": [one["ended"] for one in comings],
        "ended": last["ended"],
        "left": last["left"],
        "lasted_s": last["lasted_s"],
    }


def _median(outcomes: list[load.Outcome]) -> float:
    return statistics.median(one.p99_ms for one in outcomes)


def complaints(result: dict[str, Any]) -> list[str]:
    """What is not good; empty when all is."""
    without, beside = result["p99_ms"]
    found = []
    if beside > RATIO_MAX * without:
        found.append(f"p99 beside them is {beside / without:.2f} times that without, not {RATIO_MAX}")
    if result["errors"]:
        found.append(f"{result['errors']} requests of the load failed")
    if result["left"]:
        found.append(f"{result['left']} slow clients were not ended")
    odd = sorted(set(result["ended"]) - {"head 408", "body 408", "reader cut"})
    if odd:
        found.append(f"ended otherwise than by a limit: {', '.join(odd)}")
    return found


def describe(result: dict[str, Any], plan: Plan) -> str:
    """Machine, method and figures, as a person reads them."""
    without, beside = result["p99_ms"]
    ended = ", ".join(f"{count} {how}" for how, count in sorted(result["ended"].items()))
    lasted = ", ".join(f"{kind} {seconds:.0f} s" for kind, seconds in sorted(result["lasted_s"].items()))
    return "\n".join(
        [
            *(f"{name}: {value}" for name, value in machine.description().items()),
            f"{plan.rounds} interleaved rounds of {plan.round_s:g} s at {plan.rate:g} requests/s, one worker;"
            f" {plan.count} slow clients; {result['requests']:,} requests, {result['errors']} failed",
            f"p99 {without:.2f} ms without them, {beside:.2f} ms beside them: ratio {beside / without:.2f}",
            f"for each slow client at most {result['rss_per_client'] / 1024:.1f} KiB of the worker's memory, and"
            f" {result['tcp_per_client'] / 1024:.1f} KiB of the kernel's (both ends, upstream included)",
            f"ended by limits: {ended}; {result['left']} left; the longest lasted: {lasted}",
            *(f"NOT GOOD: {complaint}" for complaint in complaints(result)),
        ]
    )


def main() -> int:
    """Runs it and prints the report; see the module's description for the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow")
    parser.add_argument("--count", type=int, default=Plan.count)
    parser.add_argument("--rate", type=float, default=Plan.rate)
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--round-seconds", type=float, default=Plan.round_s)
    arguments = parser.parse_args()
    plan = Plan(arguments.count, arguments.rate, arguments.rounds, arguments.round_seconds)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * plan.count + 1000)), hard))
    with tempfile.TemporaryDirectory(prefix="sluiceway-slow-") as folder:
        try:
            bench = Bench(Path(folder), *machine.two_cores())
            try:
                bench.start_simulated_upstream()
                result = uvloop.run(run(bench, bench.start_gateway(), plan))
            finally:
                bench.stop()
        except (NotReadyError, ValueError) as error:
            print(error, file=sys.stderr)
            return 2
    print(describe(result, plan))
    return 1 if complaints(result) else 0


if __name__ == "__main__":
    sys.exit(main())
