"""What the simulated upstream saw and said, one entry per request, for tests to compare with.

The last `KEPT` entries are kept (an entry is about 2 KB with the headers of an SDK, so about 40 MB); the counts go on.
Somebody who waits for a request (`wait_for`) is woken by the event, so no test has to poll or to sleep.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass

KEPT = 20_000


@dataclass(slots=True)
class Entry:
    """One request. `ending` is running, complete, cut (by the script) or client_left; `*_at_s` count from arrival."""

    number: int
    id: str
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    connection: str
    arrived_at: float
    body_bytes: int = 0
    body_sha256: str | None = None  # None until the whole body was read
    model: str | None = None
    stream: bool = False
    status: int | None = None  # None until the response head was written
    response_bytes: int = 0  # body bytes handed to the socket, content-encoding applied, chunk framing not counted
    response_sha256: str | None = None
    input_tokens: int | None = None  # said in a usage object that really went out
    output_tokens: int | None = None
    chunks: int = 0
    ending: str = "running"
    finished_at_s: float | None = None
    client_left_at_s: float | None = None
    _gate: asyncio.Event | None = None  # made when somebody needs it: one for each request costs 4 % of the rate

    def gate(self) -> asyncio.Event:
        """Set when the request may pass ``gate-after``."""
        if self._gate is None:
            self._gate = asyncio.Event()
        return self._gate

    def view(self) -> dict[str, object]:
        """As JSON shows it; header names in lower case, as a list of pairs, since names may repeat."""
        fields = {name: getattr(self, name) for name in _SHOWN}
        fields["headers"] = [[name.decode("latin-1").lower(), value.decode("latin-1")] for name, value in self.headers]
        return fields


_SHOWN = tuple(name for name in Entry.__dataclass_fields__ if name not in ("headers", "arrived_at", "_gate"))


class Ledger:
    """Entries by number, the newest last, and counts over all requests since the last `clear`."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._last_number = 0
        self._in_flight = 0
        self._waiting: list[tuple[str, str, asyncio.Future[Entry]]] = []

    def arrive(self, method: str, path: str, headers: tuple[tuple[bytes, bytes], ...], connection: str) -> Entry:
        """Opens the entry of a request whose head was just read."""
        self._last_number += 1
        number = self._last_number
        entry = Entry(number, _id_of(headers, number), method, path, headers, connection, time.monotonic())
        self._entries[number] = entry
        if len(self._entries) > KEPT:
            self._entries.popitem(last=False)
        self._counts["requests"] += 1
        self._in_flight += 1
        if self._waiting:
            self._wake(entry, "seen")
        return entry

    def finish(self, entry: Entry, ending: str) -> None:
        """Closes an entry and counts it."""
        entry.ending = ending
        entry.finished_at_s = time.monotonic() - entry.arrived_at
        if ending == "client_left":
            entry.client_left_at_s = entry.finished_at_s
        self._in_flight -= 1
        counts = self._counts
        counts[ending] += 1
        counts[f"status_{entry.status}"] += 1
        counts["request_bytes"] += entry.body_bytes
        counts["response_bytes"] += entry.response_bytes
        counts["input_tokens"] += entry.input_tokens or 0
        counts["output_tokens"] += entry.output_tokens or 0
        if self._waiting:
            self._wake(entry, "finished")

    def entries(self, wanted_id: str | None = None, limit: int = KEPT) -> list[Entry]:
        """The newest `limit` entries (of one id), oldest first."""
        chosen = [entry for entry in self._entries.values() if wanted_id in (None, entry.id)]
        return chosen[-limit:] if limit else []

    def stats(self) -> dict[str, int]:
        """Counts by name; endings and statuses that never happened are absent."""
        return {"requests": 0, "in_flight": self._in_flight, "kept": len(self._entries), **self._counts}

    def clear(self) -> None:
        """Forgets entries and counts; requests still running go on and are counted when they finish."""
        self._entries.clear()
        self._counts.clear()

    async def wait_for(self, wanted_id: str, until: str) -> Entry:
        """The newest entry of this id as soon as it was `seen` or is `finished`; the caller sets the time limit."""
        for entry in reversed(self._entries.values()):
            if entry.id == wanted_id and (until == "seen" or entry.ending != "running"):
                return entry
        waiter: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        place = (wanted_id, until, waiter)
        self._waiting.append(place)
        try:
            return await waiter
        finally:
            self._waiting.remove(place)

    def _wake(self, entry: Entry, event: str) -> None:
        for wanted_id, until, waiter in self._waiting:
            if wanted_id == entry.id and until == event and not waiter.done():
                waiter.set_result(entry)


def _id_of(headers: tuple[tuple[bytes, bytes], ...], number: int) -> str:
    found = b""
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"x-sim-id":
            return value.decode("latin-1")
        if lowered == b"x-request-id":
            found = value
    return found.decode("latin-1") or f"sim-{number}"
