"""A load generator with a fixed rate, which wrk has not: ``python -m benchmarks.load --rate 3000 --seconds 10 URL``.

Open loop: requests are due at regular instants whether or not earlier ones were answered, and a latency counts from
the instant the request was due. So a stall shows in the tail instead of in a lower rate (no coordinated omission). Due
requests wait for one of `connections` kept-alive connections; the wait counts too. ``--rate 0`` is a closed loop: each
connection asks again as soon as it was answered, which measures the generator's own capacity.

A plain asyncio protocol on uvloop that knows just enough HTTP: answers with a content-length or in chunks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import urlsplit

import uvloop

TICK_S = 0.001  # due requests are looked for this often: the resolution of the rate
FINISH_S = 10.0  # answers still missing this long after the last due instant are errors
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Outcome:
    """What a run saw; latencies in milliseconds."""

    rate_asked: float
    rate_done: float = 0.0
    """Answers over the time until the last of them: less than asked where it fell behind, however long it waited."""
    requests: int = 0
    errors: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` of the ordered values lie (nearest rank); 0 of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request on its way."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._due_at: float | None = None
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._run.idle.append(self)

    def ask(self, due_at: float) -> None:
        """Sends the request that was due then."""
        self._due_at = due_at
        assert self._transport is not None
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if not _complete(received):
            return
        status = received[9:12].decode("ascii", "replace")
        received.clear()
        due_at, self._due_at = self._due_at, None
        if due_at is None:
            self._run.outcome.errors += 1  # an answer that nobody asked for
            return
        self._run.answered(self, due_at, status)

    def connection_lost(self, error: Exception | None) -> None:
        self._run.lost(self, asked=self._due_at is not None)

    def close(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.close()


def _complete(received: bytearray) -> bool:
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    length = _LENGTH.search(received, 0, head_end + 2)
    if length is not None:
        return len(received) >= head_end + 4 + int(length[1])
    return received.endswith(b"\r\n0\r\n\r\n")


class _Run:
    """The state of one run."""

    def __init__(self, request: bytes, rate: float) -> None:
        self.request = request
        self.idle: deque[_Connection] = deque()
        self.outcome = Outcome(rate)
        self._waiting: deque[float] = deque()  # due instants; bounded by rate x seconds, both arguments
        self._latencies: list[float] = []
        self._outstanding = 0
        self._answered_at = 0.0  # the last time
        self._closed_loop = rate == 0
        self._over = False

    async def drive(self, rate: float, seconds: float) -> None:
        """Asks for `seconds`, then waits for the last answers."""
        started = time.monotonic()
        end = started + seconds
        if self._closed_loop:
            while self.idle:
                self._ask(self.idle.popleft(), time.monotonic())
            await asyncio.sleep(seconds)
        asked = 0
        while not self._closed_loop and (now := time.monotonic()) < end:
            due = int((now - started) * rate)
            while asked < due:
                asked += 1
                self._waiting.append(started + asked / rate)
            while self._waiting and self.idle:
                self._ask(self.idle.popleft(), self._waiting.popleft())
            await asyncio.sleep(TICK_S)
        self._over = True
        while (self._outstanding or self._waiting) and time.monotonic() < end + FINISH_S:
            await asyncio.sleep(TICK_S)
        self._finish(max(seconds, self._answered_at - started))

    def _ask(self, connection: _Connection, due_at: float) -> None:
        self._outstanding += 1
        connection.ask(due_at)

    def answered(self, connection: _Connection, due_at: float, status: str) -> None:
        """Notes an answer and gives the connection its next request."""
        now = self._answered_at = time.monotonic()
        self._outstanding -= 1
        self._latencies.append((now - due_at) * 1000)
        statuses = self.outcome.statuses
        statuses[status] = statuses.get(status, 0) + 1
        if self._waiting:
            self._ask(connection, self._waiting.popleft())
        elif self._closed_loop and not self._over:
            self._ask(connection, now)
        else:
            self.idle.append(connection)

    def lost(self, connection: _Connection, *, asked: bool) -> None:
        """A connection ended; with a request on its way that is an error."""
        if asked:
            self._outstanding -= 1
            self.outcome.errors += 1
        elif connection in self.idle:
            self.idle.remove(connection)

    def _finish(self, took_s: float) -> None:
        ordered = sorted(self._latencies)
        outcome = self.outcome
        outcome.requests = len(ordered)
        outcome.rate_done = len(ordered) / took_s
        outcome.errors += self._outstanding + len(self._waiting)
        outcome.errors += sum(count for status, count in outcome.statuses.items() if not status.startswith("2"))
        outcome.p50_ms, outcome.p99_ms = percentile(ordered, 0.5), percentile(ordered, 0.99)
        outcome.max_ms = ordered[-1] if ordered else 0.0


async def generate(
    url: str, *, rate: float, seconds: float, body: bytes, headers: Mapping[str, str], connections: int = 64
) -> Outcome:
    """POSTs `body` to an http URL at `rate` per second; raises OSError when it cannot connect."""
    parts = urlsplit(url)
    head = [f"POST {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    run = _Run("\r\n".join([*head, "", ""]).encode() + body, rate)
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: _Connection(run), parts.hostname or "127.0.0.1", parts.port or 80))[1]
        for _ in range(connections)
    ]
    try:
        await run.drive(rate, seconds)
    finally:
        for connection in opened:
            connection.close()
    return run.outcome


def main() -> None:
    """Runs it and prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="open-loop load generator")
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, required=True, help="requests per second; 0: as fast as it goes")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--body", default="{}", help="JSON text, or @FILE")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    arguments = parser.parse_args()
    headers = {"Content-Type": "application/json"}
    for line in arguments.header:
        name, _, value = line.partition(":")
        headers[name] = value.strip()
    text: str = arguments.body
    if text.startswith("@"):
        with open(text[1:], "rb") as file:
            body = file.read()
    else:
        body = text.encode()
    outcome = uvloop.run(
        generate(
            arguments.url,
            rate=arguments.rate,
            seconds=arguments.seconds,
            body=body,
            headers=headers,
            connections=arguments.connections,
        )
    )
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
