"""What the simulated upstream saw and said, one entry per request, for tests to compare with.

The last `KEPT` entries are kept (an entry is about 2 KB with the headers of an SDK, so about 40 MB); the counts go on.
Somebody who waits for a request (`wait_for`) is woken by the event, so no test has to poll or to sleep.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

KEPT = 20_000


@dataclass(slots=True, eq=False)
class Usage:
    """What an answer says of its usage, under the names of the gateway's findings; None: it does not say.

    `input_tokens` is the total, for Anthropic the cached ones added; `reasoning_tokens` are a part of the output. What
    is not in a usage object but counted by whoever reads (images, videos, documents, a task's id) is here too.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    image_tokens: int | None = None
    video_tokens: int | None = None
    audio_tokens: int | None = None
    images: int | None = None
    image_width: int | None = None
    image_height: int | None = None
    characters: int | None = None
    seconds: float | None = None
    videos: int | None = None
    documents: int | None = None
    task_id: str | None = None


NOTHING_SAID = Usage()


@dataclass(slots=True)
class File:
    """A file that came: a part of a form, or a data URL in JSON, which has no names of its own."""

    name: str
    filename: str | None
    content_type: str
    bytes: int
    sha256: str


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
    files: Sequence[File] = ()  # in the order of the body
    stream: bool = False
    status: int | None = None  # None until the response head was written
    response_bytes: int = 0  # body bytes handed to the socket, content-encoding applied, chunk framing not counted
    response_sha256: str | None = None
    usage: Usage = NOTHING_SAID  # that really went out; shown field by field
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
        shown = {name: getattr(self, name) for name in _SHOWN}
        shown["headers"] = [[name.decode("latin-1").lower(), value.decode("latin-1")] for name, value in self.headers]
        shown["files"] = [asdict(one) for one in self.files]
        return shown | {name: getattr(self.usage, name) for name in USAGE_FIELDS}


USAGE_FIELDS = tuple(one.name for one in fields(Usage))
_HIDDEN = ("headers", "arrived_at", "files", "usage", "_gate")
_SHOWN = tuple(one.name for one in fields(Entry) if one.name not in _HIDDEN)


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
        counts["input_tokens"] += entry.usage.input_tokens or 0
        counts["output_tokens"] += entry.usage.output_tokens or 0
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
