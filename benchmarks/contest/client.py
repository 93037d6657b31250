"""Asks one contestant, as a plan says, and tells what came of it: ``python -m benchmarks.contest.client < plan.json``.

A process of its own, on the core of generator and upstream. Plain sockets and epoll instead of an event loop, because
it shares that core with the upstream and 1,000 streams of 50 events a second are to be read there. The plan is a JSON
object with the fields of `Plan`; the result, printed as one, has an `Outcome` for each kind of request.

Closed loop (`rate` 0): each connection asks again as soon as it was answered. Open loop: requests are due at even
intervals whether or not earlier ones were answered, they wait for an idle connection if need be, and a latency counts
from the instant the request was due, so a stall shows in the tail (no coordinated omission).
"""

from __future__ import annotations

import gc
import json
import random
import re
import select
import socket
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.contest import asked
from benchmarks.contest.clock import Alarm, now_ns
from benchmarks.contest.outcome import Kind

READ_BYTES = 512 * 1024
HEAD_BYTES_MAX = 64 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_S = 1_000_000_000
SECONDS, FINISH_S = 1.0, 10.0
"""Of a plan that says nothing else."""


@dataclass(slots=True)
class Plan:
    """What to ask, and how."""

    url: str
    headers: dict[str, str]
    kinds: list[dict[str, Any]]
    prefixes: dict[str, str] = field(default_factory=dict)
    """By what is asked for, what the path begins with."""
    connections: int = 64
    seconds: float = SECONDS
    """In which requests begin."""
    rate: float = 0.0
    """Requests a second; 0: a closed loop."""
    count: int = 0
    """At most so many requests; 0: as many as there is time for."""
    ramp_s: float = 0.0
    """Over which the connections begin, one after another."""
    finish_s: float = FINISH_S
    """What is not answered so long after the last request began is given up, and counted as unfinished."""
    hold: bool = False
    """Idle streams: when each has its first event, say so in a line, and stay until standard input ends."""
    warm_s: float = 0.0
    """What begins in the first seconds is not counted."""


class _Connection:
    __slots__ = (
        "asked_at",
        "begun_at",
        "channel",
        "due_at",
        "events",
        "failed",
        "first_at",
        "kind",
        "left",
        "out",
        "received",
        "said",
        "sent_at",
        "tail",
    )  # fmt: skip

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.kind: Kind | None = None
        """Of the request on its way."""
        self.due_at = self.begun_at = self.sent_at = self.first_at = 0
        self.out: memoryview | None = None
        self.received = 0
        """Bytes of the answer, head included."""
        self.left = -1
        """Of the answer, where its head said how long it is."""
        self.events = 0
        self.tail = b""
        self.said = b""
        """The answer's beginning, where it tells what the upstream received."""
        self.failed = ""
        """Why the answer is wrong."""


class Client:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        parts = urlsplit(plan.url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._kinds = [Kind(one, parts.netloc, plan.headers, plan.prefixes.get(one["what"], "")) for one in plan.kinds]
        self._weights = [kind.weight for kind in self._kinds]
        self._dice = random.Random(11)
        self._poll = select.epoll()
        self._alarm = Alarm()
        self._open: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._waiting: deque[int] = deque()
        """When requests were due for which no connection was idle; bounded by rate x seconds."""
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._begun = self._running = self._streams_begun = 0
        self._started_at = self._ends_at = self._counts_from = 0
        self.answered_at = 0

    def run(self) -> dict[str, Any]:
        """Asks until the time is over, waits for the answers, and leaves."""
        try:
            return self._result(held=self._drive())
        finally:
            for connection in self._open.values():
                connection.channel.close()
            self._poll.close()
            self._alarm.close()

    def _drive(self) -> bool:
        """Returns whether streams were held."""
        plan = self._plan
        for _ in range(plan.connections):
            self._idle.append(self._connect())
        self._idle.reverse()
        self._poll.register(self._alarm.fd, select.EPOLLIN)
        self._started_at = now_ns()
        self._counts_from = self._started_at + int(plan.warm_s * _S)
        self._ends_at = self._started_at + int(plan.seconds * _S)
        gives_up_at = self._ends_at + int(plan.finish_s * _S)
        while (now := now_ns()) < gives_up_at:
            due_at = self._begin_what_is_due(now)
            if not due_at and not self._running and not self._waiting:
                break
            if plan.hold and self._streams_begun >= plan.connections:
                print(json.dumps({"open": self._running, "seconds": (now - self._started_at) / _S}), flush=True)
                sys.stdin.read()
                return True
            self._alarm.set(min(due_at or gives_up_at, gives_up_at))
            for fd, event in self._poll.poll():
                if fd == self._alarm.fd:
                    self._alarm.rung()
                elif (connection := self._open.get(fd)) is not None:
                    self._serve(connection, event)
        return False

    def _connect(self) -> _Connection:
        channel = socket.create_connection(self._address, timeout=10)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel.setblocking(False)
        connection = _Connection(channel)
        self._open[channel.fileno()] = connection
        self._poll.register(channel, select.EPOLLIN)
        return connection

    def _begin_what_is_due(self, now: int) -> int:
        """Begins it, and says when the next is due; 0: never."""
        plan = self._plan
        if plan.rate:
            step = _S / plan.rate
            total = plan.count or int(plan.rate * plan.seconds)
        elif plan.ramp_s:
            step = plan.ramp_s * _S / plan.connections
            total = plan.connections
        else:  # all at once, and later each when it was answered
            step, total = 0.0, self._begun or min(plan.connections, plan.count or plan.connections)
        while self._begun < total and (due_at := self._started_at + int(self._begun * step)) <= now:
            self._begun += 1
            self._waiting.append(due_at)
        while self._waiting and self._idle:
            self._ask(self._idle.pop(), self._waiting.popleft())
        return self._started_at + int(self._begun * step) if self._begun < total else 0

    def _ask(self, connection: _Connection, due_at: int) -> None:
        kinds = self._kinds
        kind = kinds[0] if len(kinds) == 1 else self._dice.choices(kinds, self._weights)[0]
        connection.kind = kind
        connection.due_at = due_at
        connection.begun_at = now_ns()
        connection.first_at = connection.sent_at = connection.received = connection.events = 0
        connection.left = -1
        connection.tail = connection.said = b""
        connection.failed = ""
        connection.out = memoryview(kind.request)
        self._running += 1
        try:
            self._send(connection)
        except OSError as error:
            self._lost(connection, repr(error))

    def _send(self, connection: _Connection, *, again: bool = False) -> None:
        """Sends what is taken of the request; `again`: the connection is polled for when more is."""
        out = connection.out
        assert out is not None
        try:
            while out:
                out = out[connection.channel.send(out) :]
        except BlockingIOError:
            connection.out = out
            if not again:
                self._poll.modify(connection.channel, select.EPOLLIN | select.EPOLLOUT)
            return
        connection.out = None
        connection.sent_at = now_ns()
        if again:
            self._poll.modify(connection.channel, select.EPOLLIN)

    def _serve(self, connection: _Connection, event: int) -> None:
        try:
            if event & select.EPOLLOUT and connection.out is not None:
                self._send(connection, again=True)
            if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                count = self._receive(connection)
                if not count:
                    self._lost(connection, "closed")
                else:
                    self._read(connection, count, now_ns())
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(connection, repr(error))

    def _receive(self, connection: _Connection) -> int:
        kind, left = connection.kind, connection.left
        if kind is None or kind.streams or left < READ_BYTES or not connection.received:
            return connection.channel.recv_into(self._buffer)
        # in the middle of a large answer only its length counts: the kernel need not copy it
        return connection.channel.recv_into(self._buffer, READ_BYTES, socket.MSG_TRUNC)

    def _read(self, connection: _Connection, count: int, now: int) -> None:
        kind = connection.kind
        if kind is None:
            self._lost(connection, "an answer that nobody asked for")
            return
        data: memoryview | bytes = self._buffer[:count]
        if not connection.received:
            data = self._head(connection, kind, bytes(data), now)
        connection.received += count
        if kind.received_min and len(connection.said) < asked.KEPT_BYTES:
            connection.said += data
        if kind.streams:
            self._see_events(connection, kind, bytes(data), now)
        elif len(data) and not connection.first_at:
            connection.first_at = now
        if connection.left >= 0:
            connection.left -= len(data)
            over = connection.left <= 0
        else:
            connection.tail = (connection.tail + bytes(data[-5:]))[-5:]
            over = connection.tail == b"0\r\n\r\n"
        if over and connection.received:
            self._answered(connection, kind, now)

    def _head(self, connection: _Connection, kind: Kind, data: bytes, now: int) -> bytes:
        """Reads the head, which has to be there whole; returns what is behind it."""
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) > HEAD_BYTES_MAX + READ_BYTES:
            raise ConnectionError("a head in pieces")
        status = data[9:12].decode("ascii", "replace")
        length = _LENGTH.search(data, 0, end + 2)
        connection.left = int(length[1]) if length else -1
        body = data[end + 4 :]
        if self._counts(connection):
            kind.outcome.status(status)
        if status != "200":
            connection.failed = f"{status}: {body[:200]!r}"
        return body

    def _see_events(self, connection: _Connection, kind: Kind, data: bytes, now: int) -> None:
        events = data.count(b"@")
        if not events:
            return
        outcome = kind.outcome
        if not connection.events:
            self._streams_begun += 1
            connection.first_at = now
        connection.events += events
        if kind.paced and connection.begun_at >= self._counts_from:
            outcome.reads += 1
            outcome.merged += events - 1
            outcome.delays.extend([now - int(stamp) for stamp in asked.STAMP.findall(data)])

    def _counts(self, connection: _Connection) -> bool:
        return connection.due_at >= self._counts_from

    def _answered(self, connection: _Connection, kind: Kind, now: int) -> None:
        connection.kind = None
        self._running -= 1
        kind.outcome.complete += 1
        if not connection.failed and kind.events and connection.events != kind.events:
            connection.failed = f"{connection.events} events of {kind.events}"
        if not connection.failed and kind.received_min:  # a head may come alone: only now is the answer here
            found = asked.RECEIVED.search(connection.said)
            if found is None or int(found[1]) < kind.received_min:
                connection.failed = "the upstream received less than was sent"
        if not connection.failed and connection.received < kind.answer_min:
            connection.failed = f"{connection.received} bytes of at least {kind.answer_min}"
        if self._counts(connection):
            self.answered_at = now
            kind.outcome.answered(connection, now)
        if connection.out is not None:
            self._lost(connection, "answered before all was sent")
        else:
            self._next(connection, now)

    def _next(self, connection: _Connection, now: int) -> None:
        """What an idle connection does now."""
        plan = self._plan
        closed = not plan.rate and not plan.hold and now < self._ends_at
        if self._waiting:
            self._ask(connection, self._waiting.popleft())
        elif closed and (self._begun < plan.count if plan.count else not plan.ramp_s):
            self._begun += 1
            self._ask(connection, now)
        else:
            self._idle.append(connection)

    def _lost(self, connection: _Connection, why: str) -> None:
        """The connection is gone; another takes its place."""
        kind = connection.kind
        if kind is not None:
            self._running -= 1
            connection.kind = None
            kind.outcome.lost(why, before=connection.first_at == 0)
        elif connection in self._idle:
            self._idle.remove(connection)
        if self._open.pop(connection.channel.fileno(), None) is None:
            return
        connection.channel.close()
        if now_ns() < self._ends_at:
            try:
                fresh = self._connect()
            except OSError:
                return  # it shows in what was lost before
            self._next(fresh, now_ns())

    def _result(self, *, held: bool) -> dict[str, Any]:
        unfinished = 0 if held else self._running + len(self._waiting)
        if not held:
            self._give_up(now_ns())
        seconds = (max(self._ends_at, self.answered_at) - self._counts_from) / _S
        if self.answered_at and (self._plan.count or self._plan.ramp_s):
            seconds = (self.answered_at - self._counts_from) / _S
        kinds = {kind.name: kind.outcome.told() for kind in self._kinds}
        return {"seconds": seconds, "unfinished": unfinished, "connections": self._plan.connections, "kinds": kinds}

    def _give_up(self, now: int) -> None:
        """What was not answered in time is in the percentiles as what it took so far, else the worst were absent."""
        for connection in self._open.values():
            if connection.kind is not None and self._counts(connection):
                connection.kind.outcome.unanswered(connection.due_at, connection.first_at, now)
        for due_at in self._waiting:
            if due_at >= self._counts_from:
                self._kinds[0].outcome.unanswered(due_at, 0, now)


def main() -> None:
    """Reads the plan, runs it, prints the result."""
    client = Client(Plan(**json.loads(sys.stdin.readline())))
    gc.collect()
    gc.freeze()
    gc.disable()
    print(json.dumps(client.run()))


if __name__ == "__main__":
    main()
