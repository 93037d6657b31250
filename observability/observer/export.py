"""The way of encoded spans out of the observer's loop: a bounded queue and threads that send batches.

`offer` never waits. A collector that is slow, hangs or refuses fills the queue, and then the newest spans are dropped
and counted. Several threads, because one waits for each answer: at 50 ms to a collector and 512 spans a request, four
carry 40,000 spans a second.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from observability.environment import without_secrets
from observability.log import get_logger
from observability.observer.otlp import Envelope

SENDERS = 4
BATCH_SPANS_MAX = 512
"""OTEL_BSP_MAX_EXPORT_BATCH_SIZE's default."""
BATCH_BYTES_MAX = 7 << 19
"""3.5 MiB: gRPC servers refuse messages over 4 MiB by default."""
QUEUE_BYTES_MAX = 64 << 20
"""Some 60,000 spans of 1.1 KB: three seconds of an observer's full rate, minutes of an ordinary one."""
DELAY_MS = 1000
"""How long a span waits for company. The SDK's default of 5 s is long for somebody who looks at the dashboard."""

Dropped = Callable[[str, int], None]
"""(reason, spans): queue_full, export_failed, rejected or shutdown. Called in any thread."""

_log = get_logger(__name__)


class NotDelivered:
    """Lines about spans that did not go out, or not at once: some, and how many more there would have been.

    A collector that answers 500 at 9,000 requests a second would make 35 lines a second, all of them the same.
    """

    LINES_MAX = 5
    WINDOW_S = 10.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = -self.WINDOW_S
        self._said = self._unsaid = 0

    def say(self, reason: str, level: int = logging.ERROR) -> None:
        """The reason may quote the endpoint, never its secrets. Callable from any thread."""
        now = time.monotonic()
        with self._lock:
            if now - self._since >= self.WINDOW_S:
                self._since, self._said = now, 0
            if self._said == self.LINES_MAX:
                self._unsaid += 1
                return
            self._said += 1
            unsaid, self._unsaid = self._unsaid, 0
        more = {"lines_left_out": unsaid} if unsaid else {}
        _log.log(level, "spans_not_delivered", reason=without_secrets(reason), **more)


class RejectedError(Exception):
    """The collector took the request, and not all of its spans."""

    def __init__(self, spans: int) -> None:
        super().__init__(spans)
        self.spans = spans


class Transport(Protocol):
    """Takes one encoded request to where it belongs."""

    def send(self, request: bytes, spans: int) -> bool:
        """Send an ExportTraceServiceRequest of so many spans; blocks, with a time limit. False: it is lost.

        Raises RejectedError.
        """

    def shutdown(self) -> None:
        """Give up waiting and retrying."""


class _Spans(NamedTuple):
    """One record's."""

    data: bytes
    spans: int


class SpanExport:
    """Queue and threads. `open_transport` is called once in each thread; `delay_s` in seconds."""

    def __init__(
        self,
        open_transport: Callable[[], Transport],
        envelope: Envelope,
        dropped: Dropped,
        *,
        senders: int = SENDERS,
        batch_spans: int = BATCH_SPANS_MAX,
        delay_s: float = DELAY_MS / 1000,
        queue_bytes: int = QUEUE_BYTES_MAX,
    ) -> None:
        self._envelope = envelope
        self._dropped = dropped
        self._batch_spans = min(batch_spans, BATCH_SPANS_MAX)
        self._delay_s = delay_s
        self._queue_bytes_max = queue_bytes
        self._queue: deque[_Spans] = deque()
        self._waiting_spans = 0
        self._waiting_bytes = 0
        self._sending_spans = 0
        self._oldest_at = 0.0
        self._closing = False
        self._given_up = False
        self._changed = threading.Condition()
        self._complaints = NotDelivered()
        self._transports = [open_transport() for _ in range(senders)]
        self._threads = [
            threading.Thread(target=self._run, args=(transport,), name=f"spans-{number}", daemon=True)
            for number, transport in enumerate(self._transports)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Of spans taken and not on their way."""
        return self._waiting_bytes

    @property
    def crowded(self) -> bool:
        """Is more than half of the queue taken? A collector that keeps up leaves all but a second of it free."""
        return self._waiting_bytes > self._queue_bytes_max // 2

    def offer(self, data: bytes, count: int) -> None:
        """Take `count` encoded spans (fields of ScopeSpans), or drop and count them."""
        with self._changed:
            if self._closing or self._waiting_bytes + len(data) > self._queue_bytes_max:
                reason = "shutdown" if self._closing else "queue_full"
            else:
                reason = ""
                if not self._queue:
                    self._oldest_at = time.monotonic()
                self._queue.append(_Spans(data, count))
                self._waiting_bytes += len(data)
                before = self._waiting_spans
                self._waiting_spans += count
                # One sleeper is woken to keep the time of a new batch, and one for each batch that is full.
                if not before or before // self._batch_spans != self._waiting_spans // self._batch_spans:
                    self._changed.notify()
        if reason:
            self._dropped(reason, count)

    def close(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s`; what is left is counted as `shutdown`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._queue and not self._sending_spans, timeout_s)
            left = self._waiting_spans + self._sending_spans
            self._given_up = True
            self._queue.clear()
            self._waiting_spans = self._waiting_bytes = 0
        if left:
            self._dropped("shutdown", left)
        for transport in self._transports:
            transport.shutdown()

    def _run(self, transport: Transport) -> None:
        while (batch := self._next_batch()) is not None:
            data, count = batch
            lost, reason = count, "export_failed"
            try:
                if transport.send(self._envelope.request(data), count):
                    lost = 0
            except RejectedError as error:
                lost, reason = min(error.spans, count), "rejected"
            except Exception as error:  # noqa: BLE001  (a sender that died would look like a slow collector for ever)
                self._complaints.say(f"{type(error).__name__}: {error}")
            with self._changed:
                given_up = self._given_up  # then `close` has counted them
                self._sending_spans -= count
                self._changed.notify_all()
            if lost and not given_up:
                self._dropped(reason, lost)

    def _next_batch(self) -> tuple[list[bytes], int] | None:
        with self._changed:
            while True:
                if self._queue:
                    wait_s = self._oldest_at + self._delay_s - time.monotonic()
                    if self._closing or self._is_full() or wait_s <= 0:
                        return self._cut()
                    self._changed.wait(wait_s)
                elif self._closing:
                    return None
                else:
                    self._changed.wait()

    def _is_full(self) -> bool:
        return self._waiting_spans >= self._batch_spans or self._waiting_bytes >= BATCH_BYTES_MAX

    def _cut(self) -> tuple[list[bytes], int]:
        """Take a batch; it holds at least the first entry, which is one record's spans."""
        taken: list[bytes] = []
        spans = size = 0
        while self._queue:
            entry = self._queue[0]
            if taken and (spans + entry.spans > self._batch_spans or size + len(entry.data) > BATCH_BYTES_MAX):
                break
            self._queue.popleft()
            taken.append(entry.data)
            spans += entry.spans
            size += len(entry.data)
        self._waiting_spans -= spans
        self._waiting_bytes -= size
        self._sending_spans += spans
        if self._queue:
            self._oldest_at = time.monotonic()
            self._changed.notify()
        return taken, spans
