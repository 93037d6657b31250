"""One kind of request of a client's plan, and what came of those requests."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from typing import Any, Protocol

from benchmarks.contest import asked

REASONS_MAX = 20
"""Different ones that are told; where more went wrong, the first ones say what."""
TAIL_MIN = 1_000
"""So many values have a 99.9th percentile that is not just the largest."""
_MS = 1_000_000


class Answered(Protocol):
    """What is known of a request when its answer is complete; instants in nanoseconds."""

    due_at: int
    first_at: int
    sent_at: int
    received: int
    failed: str


class Kind:
    """A kind of request: its bytes, and what is to be seen in its answers."""

    def __init__(self, told: dict[str, Any], host: str, headers: dict[str, str], prefix: str = "") -> None:
        """`told`: `what` with its `number` and `other` (see `asked`), a `weight` among the kinds, and a `name`."""
        what, number, other = told["what"], told.get("number", 0), told.get("other", 0)
        self.name: str = told.get("name", what)
        self.weight: float = told.get("weight", 1.0)
        self.streams = what in ("paced", "idle")
        self.events = number if what == "paced" else 0
        self.paced = what == "paced" and other > 0
        # a smaller body is answered with fixed tokens
        self.received_min = number if what == "upload" and number >= asked.KEPT_BYTES else 0
        self.answer_min = {"image": number, "embeddings": 1_000_000}.get(what, 0)
        """Bytes of an answer that is whole, in whatever words: of an image alone, before its base64."""
        body = body_of(what, number, other)
        path = prefix + (asked.EMBEDDINGS_PATH if what == "embeddings" else asked.CHAT_PATH)
        lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
        lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
        self.request = "\r\n".join([*lines, "", ""]).encode() + body
        self.outcome = Outcome(len(body))


def body_of(what: str, number: int, other: int) -> bytes:
    """The body of a request of that kind."""
    match what:
        case "chat":
            return asked.SMALL_CHAT
        case "paced" | "idle":
            return asked.streamed(what, number, other)
        case "image":
            return asked.for_image(number)
        case "upload":
            return asked.upload(number, model_first=other == 1)
        case "digest":
            return asked.upload(number, "digest")
        case "embeddings":
            return asked.for_embeddings()
        case _:
            raise ValueError(f"no kind of request: {what}")


class Outcome:
    """What came of all requests of one kind."""

    def __init__(self, body_bytes: int) -> None:
        self._body_bytes = body_bytes
        self._statuses: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._right = 0
        self.complete = 0
        """Answers of any kind, those of the warm-up and wrong ones too: of each the contestant keeps a record."""
        self._latencies = array("q")
        self._firsts = array("q")
        self._waits = array("q")
        self._received = 0
        self._errors = 0
        self.delays = array("q")
        """From when an event was sent to when it was read."""
        self.reads = 0
        """Of streams with a pace, those with an event in them."""
        self.merged = 0
        """Events that came in one read with the one before."""

    def status(self, status: str) -> None:
        """An answer begins."""
        self._statuses[status] += 1

    def answered(self, one: Answered, now: int) -> None:
        """An answer is complete. A wrong one is an error and nothing else: refusals are quick, and would be a rate."""
        if one.failed:
            self.wrong(one.failed)
            return
        self._right += 1
        self._latencies.append(now - one.due_at)
        if one.first_at:
            self._firsts.append(one.first_at - one.due_at)
            self._waits.append(one.first_at - (one.sent_at or one.due_at))
        self._received += one.received

    def unanswered(self, due_at: int, first_at: int, now: int) -> None:
        """Given up: it took at least so long, and the tail has to show it. It is no request that was done."""
        self._latencies.append(now - due_at)
        self._firsts.append((first_at or now) - due_at)

    def wrong(self, why: str) -> None:
        """An answer is not what it should be."""
        self._errors += 1
        if why in self._reasons or len(self._reasons) < REASONS_MAX:
            self._reasons[why] += 1

    def lost(self, why: str, *, before: bool) -> None:
        """The connection ended instead."""
        self.wrong(f"{'before' if before else 'in the middle of'} an answer: {why}")

    def told(self) -> dict[str, Any]:
        """All of it: counts, bytes, and times in milliseconds."""
        count = self._right
        return {
            "requests": count,
            "answered": self.complete,
            "errors": self._errors,
            "reasons": dict(self._reasons),
            "statuses": dict(self._statuses),
            "bytes_in": self._received,
            "bytes_out": count * self._body_bytes,
            "latency_ms": percentiles(self._latencies),
            "first_ms": percentiles(self._firsts),
            "wait_ms": percentiles(self._waits),
            "delay_ms": percentiles(self.delays),
            "events": len(self.delays),
            "event_reads": self.reads,
            "merged": self.merged,
        }


def percentiles(values: array[int]) -> dict[str, float]:
    """Nearest rank, of nanoseconds in milliseconds; empty without values, and of too few no 99.9th: it is the most."""
    if not values:
        return {}
    ordered = sorted(values)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {
        name: round(ordered[math.ceil(round(share * len(ordered), 6)) - 1] / _MS, 4)
        for name, share in shares.items()
        if name != "p999" or len(ordered) >= TAIL_MIN
    }
