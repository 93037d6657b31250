"""The worker's side of the way to an observer: bounded, and it never blocks.

`hand_over` serialises a record (`observability.facts`, about 1 µs) and puts it into an open batch. A batch is sealed
and sent when it holds 32 KiB, or 5 ms after its first record: one send per record costs 14 % of the throughput. A
batch is one message of a SOCK_SEQPACKET Unix socket and one JSON array, an element a line: first how many bytes of
records wait here (by which the observer knows whether it is falling behind), then the records.

The observer answers with a cumulative count, 8 bytes little-endian, of the records of this connection that it has
settled: their lines are written, or counted by it as shed. So each record ends in exactly one cell of the board:

    HANDED = TAKEN + DROPPED_QUEUE_FULL + DROPPED_OVERSIZE + DROPPED_OBSERVER_LOST + DROPPED_SHUTDOWN
             + what waits here + what was sent and is not acknowledged (both become DROPPED_WORKER_LOST if we die)

When the connection is lost, what was sent and not acknowledged counts as DROPPED_OBSERVER_LOST: it is not sent again,
because a line written twice would be worse than one counted as lost that was written after all.

Recorded content goes in messages of its own, before the records that it belongs to, and is shed first: its bytes count
for the queue, but it is no record, and a record whose content is missing says so.
"""

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from observability.board import Cell
from observability.sayable import dumps_anyhow

RECORD_BYTES_MAX = 256 << 10
"""One record. A few KiB without content; recorded content is capped far below (content_max_bytes, 64 KiB twice)."""

QUEUE_BYTES_MAX = 64 << 20
"""What may wait for an observer: six seconds of 10,000 records of 1.1 KB, enough for its restart, and a bound on
what a dead observer costs a worker's memory."""

BATCH_BYTES = 32 << 10
BATCH_DELAY_S = 0.005

WINDOW_RECORDS = 32_768
"""Sent and not acknowledged: what an observer's sudden death may cost. More than it holds itself while its stdout is
slow (16 MiB of lines), so in good health nobody waits for it."""

CONTENT_QUEUE_BYTES_MAX = QUEUE_BYTES_MAX // 8
"""Once so much waits no content is added to it: it is the first thing to be shed, and the largest."""

CONTENT_MESSAGE = b"C"
"""Begins a message of content: then frames (`content.capture`), each behind its length, four bytes little-endian."""
REDACT_MESSAGE = b"R"
"""Begins a message of expressions, as JSON: what is to be taken out of all content that follows on this connection."""
_SHOW_NOTHING = REDACT_MESSAGE + b"null"
"""Where the kernel's buffers have no room for the expressions: rather no content than what they would take out."""

SEND_BUFFER_BYTES = 1 << 20
"""Asked from the kernel, which grants net.core.wmem_max; a message must fit into it whole."""

BACK_OFF_FIRST_S = 0.02
BACK_OFF_MAX_S = 1.0
"""An observer's restart takes half a second; knocking once a second costs nothing."""

_ACKNOWLEDGEMENT_BYTES = 8

# Plain integers: to index with a member of an IntEnum costs 0.1 µs more, three times a record.
_HANDED = int(Cell.HANDED)
_QUEUED_BYTES = int(Cell.QUEUED_BYTES)


def socket_path(runtime: Path, index: int) -> Path:
    """Where observer `index` of a host listens."""
    return runtime / f"observer-{index}.sock"


class _Batch(NamedTuple):
    body: bytes
    """All of the message but its first element, which is made when it is sent; of content the whole message."""
    records: int
    """0: it is content, or the expressions for it."""
    bytes: int
    """As they were counted when they came in."""


class Emitter:
    """Hands records to the observer that listens on `path`, from one event loop.

    `row` is this worker's row of the board. Connecting begins at once and is repeated for ever, with back-off.
    """

    def __init__(self, path: Path, row: memoryview, loop: asyncio.AbstractEventLoop) -> None:
        self._path = str(path)
        self._row = row
        self._loop = loop
        self._dumps = orjson.dumps
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._frames: list[bytes] = []  # of content, each behind its length
        self._frames_bytes = 0
        self._redact: bytes | None = None
        self._sealed: deque[_Batch] = deque()
        self._queued_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        self._writer_waits = False
        self._reconnect: asyncio.TimerHandle | None = None
        self._back_off_s = BACK_OFF_FIRST_S
        self._sent = 0
        self._acknowledged = 0
        self._closing = False
        self._closed = False
        self._settled: asyncio.Future[None] | None = None
        self._connect()

    @property
    def unacknowledged(self) -> int:
        """Records sent on this connection and not acknowledged."""
        return self._sent - self._acknowledged

    def redact(self, patterns: Sequence[str]) -> None:
        """Say what is to be taken out of content, from now on and on every new connection."""
        message = REDACT_MESSAGE + orjson.dumps(list(patterns))
        if message == self._redact or (self._redact is None and not patterns):
            return
        self._redact = message
        self._flush()
        self._sealed.append(_Batch(message, 0, 0))
        self._send()

    def hand_over(self, record: Any, frames: Sequence[bytes] = ()) -> None:
        """Take a finished exchange's record. Never blocks, never raises; what cannot be kept is counted.

        `frames`: of its content. They go before it, or are shed where much waits.
        """
        if frames:
            self._take_frames(frames)
        row = self._row
        row[_HANDED] += 1
        try:
            data = self._dumps(record)
        except TypeError:
            data = dumps_anyhow(record)
        size = len(data)
        if not 0 < size <= RECORD_BYTES_MAX:
            row[Cell.DROPPED_OVERSIZE] += 1
            return
        queued_bytes = self._queued_bytes + size
        if queued_bytes > QUEUE_BYTES_MAX:
            row[Cell.DROPPED_QUEUE_FULL] += 1
            return
        if self._closing:
            row[Cell.DROPPED_SHUTDOWN] += 1
            return
        self._queued_bytes = row[_QUEUED_BYTES] = queued_bytes
        if self._open_bytes + size > BATCH_BYTES and self._open:
            self._seal()
            self._send()
        self._open.append(data)
        self._open_bytes += size
        if self._timer is None:
            self._timer = self._loop.call_later(BATCH_DELAY_S, self._flush)

    async def close(self, timeout_s: float) -> None:
        """Send what waits and await its acknowledgement, at most `timeout_s`; the rest counts as DROPPED_SHUTDOWN.

        Records handed over from now on count as DROPPED_SHUTDOWN too. Closing twice does nothing.
        """
        if self._closing:
            return
        self._closing = True
        self._flush()
        if not self._is_settled():
            self._settled = self._loop.create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._settled
            except TimeoutError:
                pass
        self._closed = True
        left = sum(batch.records for batch in self._sealed) + self.unacknowledged
        self._row[Cell.DROPPED_SHUTDOWN] += left
        self._acknowledged = self._sent
        self._sealed.clear()
        self._queued_bytes = self._row[Cell.QUEUED_BYTES] = 0
        for timer in (self._timer, self._reconnect):
            if timer is not None:
                timer.cancel()
        self._disconnect()

    def _take_frames(self, frames: Sequence[bytes]) -> None:
        size = sum(map(len, frames))
        if self._queued_bytes + size > CONTENT_QUEUE_BYTES_MAX or self._closing:
            return  # the record says that there was some, and the observer counts that it did not come
        self._queued_bytes += size
        for frame in frames:
            if self._frames_bytes + len(frame) > BATCH_BYTES:
                self._seal_frames()
            self._frames += (len(frame).to_bytes(4, "little"), frame)
            self._frames_bytes += len(frame)

    # --- sending ---------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._open:
            self._seal()
        self._send()

    def _seal_frames(self) -> None:
        if self._frames:
            self._sealed.append(_Batch(CONTENT_MESSAGE + b"".join(self._frames), 0, self._frames_bytes))
            self._frames.clear()
            self._frames_bytes = 0

    def _seal(self) -> None:
        self._seal_frames()  # content comes before its records
        body = b",\n" + b",\n".join(self._open) + b"]"
        self._sealed.append(_Batch(body, len(self._open), self._open_bytes))
        self._open.clear()
        self._open_bytes = 0

    def _send(self) -> None:
        if self._socket is None or self._writer_waits:
            return
        sealed = self._sealed
        while sealed and self._sent - self._acknowledged < WINDOW_RECORDS:
            batch = sealed[0]
            try:
                if batch.records:
                    self._socket.sendmsg((b"[%d" % self._queued_bytes, batch.body))
                else:
                    self._socket.send(batch.body)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._on_writable)
                self._writer_waits = True
                return
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    self._lose()
                    return
                if batch.body.startswith(REDACT_MESSAGE) and batch.body != _SHOW_NOTHING:
                    sealed[0] = _Batch(_SHOW_NOTHING, 0, 0)
                    continue
                # The kernel's buffers are smaller than a big record: that is what oversize means here.
                self._row[Cell.DROPPED_OVERSIZE] += batch.records
            else:
                self._sent += batch.records
            sealed.popleft()
            self._queued_bytes -= batch.bytes
        self._row[Cell.QUEUED_BYTES] = self._queued_bytes
        self._wake_closer()

    def _on_writable(self) -> None:
        if self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
            self._writer_waits = False
            self._send()

    # --- acknowledgements ------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        if not self._read_acknowledgements():
            self._lose()
        elif self._sealed:
            self._send()
        self._wake_closer()

    def _read_acknowledgements(self) -> bool:
        """Read what is there; False when the observer is gone."""
        assert self._socket is not None
        refused = False
        while True:
            try:
                data = self._socket.recv(_ACKNOWLEDGEMENT_BYTES)
            except BlockingIOError:
                return not refused
            except ConnectionResetError:
                # It left with messages of ours unread. The kernel says so once, before the acknowledgements it sent.
                if refused:
                    return False
                refused = True
                continue
            except OSError:
                return False
            if len(data) != _ACKNOWLEDGEMENT_BYTES:
                return False
            count = int.from_bytes(data, "little")
            self._row[Cell.TAKEN] += count - self._acknowledged
            self._acknowledged = count

    def _is_settled(self) -> bool:
        return not self._open and not self._sealed and self._sent == self._acknowledged

    def _wake_closer(self) -> None:
        if self._settled is not None and not self._settled.done() and self._is_settled():
            self._settled.set_result(None)

    # --- the connection --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._reconnect = None
        candidate = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            candidate.connect(self._path)
        except OSError:  # nobody there, nobody listening, or its backlog is full
            candidate.close()
            self._reconnect = self._loop.call_later(self._back_off_s, self._connect)
            self._back_off_s = min(2 * self._back_off_s, BACK_OFF_MAX_S)
            return
        self._socket = candidate
        self._sent = self._acknowledged = 0
        self._back_off_s = BACK_OFF_FIRST_S
        self._loop.add_reader(candidate.fileno(), self._on_readable)
        if self._redact is not None:
            self._sealed.appendleft(_Batch(self._redact, 0, 0))
        self._send()

    def _lose(self) -> None:
        """The observer is gone: count what went with it and look for the next one."""
        if self._socket is None:
            return
        self._read_acknowledgements()
        self._row[Cell.DROPPED_OBSERVER_LOST] += self.unacknowledged
        self._acknowledged = self._sent
        self._row[Cell.QUEUED_BYTES] = self._queued_bytes
        self._disconnect()
        self._wake_closer()
        if not self._closed:
            self._reconnect = self._loop.call_later(self._back_off_s, self._connect)

    def _disconnect(self) -> None:
        if self._socket is None:
            return
        self._loop.remove_reader(self._socket.fileno())
        if self._writer_waits:
            self._loop.remove_writer(self._socket.fileno())
            self._writer_waits = False
        self._socket.close()
        self._socket = None
