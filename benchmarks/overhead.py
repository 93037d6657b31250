"""Whether a gateway's own measure of its overhead is right: ``python -m benchmarks.overhead``.

Records say ``sluiceway.overhead_ms``: the duration less the waits for client and upstream. From outside it is the
median latency through the gateway less the median latency without it. Both at half load, a small chat request on each
of 64 kept-alive connections, rounds interleaved (direct, gateway, direct, …); medians of the rounds. They agree where
they differ by less than 10 % of the outside figure or 0.2 ms, whichever is more.

What the two cannot have in common is the way of the bytes through two more sockets, and the time for which an event
loop lets a readable socket wait: the gateway's clock starts when it has read a request.

Generator and upstream are plain loops around ``select``, whose timeout counts microseconds. An event loop's timers
count milliseconds: requests would come in bursts, each behind the one before it, and answers at full milliseconds,
which swallows half of what is to be measured. The upstream answers after a known time of its own (2 ms). The generator
is an open loop, a request every so many microseconds; a latency counts from its write, and requests that were written
late are counted, for in a median only they could hide anything.

The gateway's worker has a core for itself; generator, upstream, observer and the rest share the other. Spans are not
exported. Half load is half of what the gateway reaches in a closed loop, unless ``--rate`` says it. Where it may (as
root), worker, generator and upstream run before everybody else's programs (SCHED_FIFO): each wait for a core that
others have is latency outside and a wait for the upstream inside, 1 to 3 ms of it on a busy machine.

Exit: 0; 1 where they do not agree, or a request failed or left no record, or too many were late; 2 where something does
not start.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import machine
from benchmarks.bench import settle
from benchmarks.contestants import ANSWER, CHAT_PATH, KEY, REQUEST, Bench, Contestant, NotReadyError

CONNECTIONS = 64
DELAY_S = 0.002
"""Of the upstream: ten times a gateway's overhead, and short enough for 64 connections to carry 10,000 requests/s."""
AGREE_SHARE, AGREE_MS = 0.10, 0.2
LATE_S = 0.001
LATE_SHARE = 0.05
"""More requests than this written more than LATE_S late, and the load was another one than asked for."""
FINISH_S = 5.0
"""For the last answers of a round."""
READ_BYTES = 65536
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
_REQUEST = (
    f"POST {CHAT_PATH} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"
    f"Content-Length: {len(REQUEST)}\r\n\r\n"
).encode() + REQUEST


@dataclass(frozen=True)
class Plan:
    """How long everything takes."""

    rounds: int = 5
    round_s: float = 6.0
    warm_up_s: float = 3.0
    rate: float = 0.0
    """Requests a second; 0: half of what a closed loop reaches."""


@dataclass(slots=True)
class Outcome:
    """What the generator saw in one round."""

    latencies_ms: list[float] = field(default_factory=list)
    late: int = 0
    failed: int = 0
    """Answers that were none with status 200, or did not come."""
    seconds: float = 0.0

    @property
    def median_ms(self) -> float:
        """0 of none."""
        return statistics.median(self.latencies_ms) if self.latencies_ms else 0.0


def go_first(pid: int) -> bool:
    """Let a process, as it is now, run before all ordinary ones; False where that is not allowed."""
    try:
        for thread in (machine.PROC / str(pid) / "task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    return True


def serve(listener: socket.socket) -> None:
    """The upstream: each request is answered DELAY_S after its last byte came. For ever."""
    connections = {listener.fileno(): listener}
    due: deque[tuple[float, socket.socket]] = deque()  # in the order of their time: the delay is one for all
    arrived: dict[int, int] = {}
    while True:
        wait_s = max(0.0, due[0][0] - time.monotonic()) if due else None
        for number in select.select(list(connections), [], [], wait_s)[0]:
            if number == listener.fileno():
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[accepted.fileno()] = accepted
                continue
            data = connections[number].recv(READ_BYTES)
            if not data:
                arrived.pop(number, None)
                connections.pop(number).close()
            elif data.endswith(REQUEST[-32:]):  # heads differ, the body does not
                due.append((time.monotonic() + DELAY_S, connections[number]))
        while due and due[0][0] <= time.monotonic():
            try:
                due.popleft()[1].sendall(_ANSWER)
            except OSError:
                continue  # it left


class _Client:
    """One kept-alive connection with at most one request on its way."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.received = b""

    def ask(self, now: float) -> None:
        self.sent_at, self.received = now, b""
        self.socket.sendall(_REQUEST)

    def whole(self) -> bool:
        """Read; True where the answer is whole or can never be."""
        data = self.socket.recv(READ_BYTES)
        self.received += data
        return not data or self.received.endswith(ANSWER)

    @property
    def good(self) -> bool:
        return self.received.startswith(b"HTTP/1.1 200 ")


def generate(url: str, rate: float, seconds: float) -> Outcome:
    """One round at `rate` requests a second; 0: each connection asks again as soon as it was answered."""
    parts = urlsplit(url)
    clients = [_Client((parts.hostname or "127.0.0.1", parts.port or 80)) for _ in range(CONNECTIONS)]
    try:
        return _generate(clients, rate, seconds)
    finally:
        for client in clients:
            client.socket.close()


def _generate(clients: list[_Client], rate: float, seconds: float) -> Outcome:
    outcome = Outcome()
    idle = deque(clients)
    busy: dict[int, _Client] = {}
    began = time.monotonic()
    asked = 0
    while (now := time.monotonic()) < began + seconds + (FINISH_S if busy else 0.0):
        asking = now < began + seconds
        while asking and idle and (not rate or began + asked / rate <= now):
            if rate and now - (began + asked / rate) > LATE_S:
                outcome.late += 1
            client = idle.popleft()
            busy[client.socket.fileno()] = client
            client.ask(time.monotonic())
            asked += 1
        wait_s = max(0.0, began + asked / rate - time.monotonic()) if rate and asking and idle else 0.05
        for number in select.select(list(busy), [], [], wait_s)[0]:
            client = busy[number]
            if client.whole():
                outcome.latencies_ms.append((time.monotonic() - client.sent_at) * 1000)
                outcome.failed += not client.good
                del busy[number]
                idle.append(client)
    outcome.failed += len(busy)
    outcome.seconds = min(seconds, time.monotonic() - began)
    return outcome


def overheads_ms(log: Path, offset: int) -> list[float]:
    """`sluiceway.overhead_ms` of the records behind `offset`."""
    with log.open("rb") as file:
        file.seek(offset)
        lines = (json.loads(line) for line in file if b'"event":"request"' in line)
        return [line["sluiceway.overhead_ms"] for line in lines]


def measure(gateway: Contestant, rate: float, seconds: float) -> tuple[Outcome, list[float]]:
    """One round through the gateway, with what its records say."""
    assert gateway.log is not None
    lines, offset = gateway.log.count(), gateway.log.path.stat().st_size
    outcome = generate(gateway.url, rate, seconds)
    settle(gateway, lines + len(outcome.latencies_ms))
    return outcome, overheads_ms(gateway.log.path, offset)


def run(bench: Bench, plan: Plan) -> dict[str, Any]:
    """The whole benchmark; raises NotReadyError."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    bench.upstream_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.overhead", "--serve", str(listener.fileno())]
    upstream = subprocess.Popen(["taskset", "-c", str(bench.rest), *command], pass_fds=[listener.fileno()])
    bench.started.append(upstream)
    gateway = bench.start_gateway()
    os.sched_setaffinity(0, {bench.rest})
    first = all(go_first(pid) for pid in (gateway.worker, upstream.pid, os.getpid()))
    closed = measure(gateway, 0, plan.warm_up_s)[0]
    capacity = len(closed.latencies_ms) / (closed.seconds or 1.0)
    rate = plan.rate or capacity / 2
    measure(gateway, rate, plan.warm_up_s)
    direct: list[Outcome] = []
    through: list[tuple[Outcome, list[float]]] = []
    for number in range(plan.rounds):
        direct.append(generate(bench.upstream_url, rate, plan.round_s))
        through.append(measure(gateway, rate, plan.round_s))
        outside_ms = through[-1][0].median_ms - direct[-1].median_ms
        inside_ms = statistics.median(through[-1][1] or [0.0])
        print(f"round {number + 1}: {outside_ms:.3f} ms from outside, {inside_ms:.3f} ms by its records")
    direct_ms = statistics.median(one.median_ms for one in direct)
    through_ms = statistics.median(one.median_ms for one, _ in through)
    every = [*direct, *(one for one, _ in through)]
    return {
        "first": first,
        "capacity": capacity,
        "rate": rate,
        "direct_ms": direct_ms,
        "through_ms": through_ms,
        "outside_ms": through_ms - direct_ms,
        "inside_ms": statistics.median(statistics.median(found or [0.0]) for _, found in through),
        "requests": sum(len(one.latencies_ms) for one in every),
        "failed": sum(one.failed for one in every),
        "late": sum(one.late for one in every),
        "missing": sum(len(one.latencies_ms) - len(found) for one, found in through),
    }


def complaints(result: dict[str, Any]) -> list[str]:
    """What is not good; empty when all is."""
    outside_ms, apart_ms = result["outside_ms"], abs(result["outside_ms"] - result["inside_ms"])
    found = []
    if apart_ms > max(AGREE_MS, AGREE_SHARE * outside_ms):
        found.append(f"the two differ by {apart_ms:.3f} ms, more than {AGREE_SHARE:.0%} and {AGREE_MS} ms")
    if result["failed"]:
        found.append(f"{result['failed']} requests failed")
    if result["missing"]:
        found.append(f"{result['missing']} requests left no record")
    if result["late"] > LATE_SHARE * result["requests"]:
        found.append(f"{result['late']} of {result['requests']} requests were more than {LATE_S * 1000:g} ms late")
    return found


def describe(result: dict[str, Any], plan: Plan) -> str:
    """Machine, method and figures, as a person reads them."""
    direct_ms, through_ms = result["direct_ms"], result["through_ms"]
    lines = [f"{name}: {value}" for name, value in machine.description().items()]
    lines += [
        f"{plan.rounds} interleaved rounds of {plan.round_s:g} s at {result['rate']:,.0f} requests/s, where a closed"
        f" loop reaches {result['capacity']:,.0f}; {result['requests']:,} requests, {result['late']} late;"
        f" {'before' if result['first'] else 'beside'} everybody else's programs",
        f"median latency {direct_ms:.3f} ms without the gateway, {through_ms:.3f} ms through it",
        f"overhead {result['outside_ms']:.3f} ms from outside, {result['inside_ms']:.3f} ms by its records",
    ]
    return "\n".join([*lines, *([f"NOT GOOD: {complaint}" for complaint in complaints(result)] or ["they agree"])])


def main() -> int:
    """Runs it and prints the report; see the module's description for the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead")
    parser.add_argument("--rate", type=float, default=Plan.rate)
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--round-seconds", type=float, default=Plan.round_s)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)  # the upstream, on an inherited socket
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(socket.socket(fileno=arguments.serve))
    plan = Plan(arguments.rounds, arguments.round_seconds, rate=arguments.rate)
    with tempfile.TemporaryDirectory(prefix="sluiceway-overhead-") as folder:
        try:
            bench = Bench(Path(folder), *machine.two_cores())
            try:
                result = run(bench, plan)
            finally:
                bench.stop()
        except (NotReadyError, ValueError, OSError) as error:
            print(error, file=sys.stderr)
            return 2
    print(describe(result, plan))
    return 1 if complaints(result) else 0


if __name__ == "__main__":
    sys.exit(main())
