"""Records in: the Unix socket that workers connect to, and what becomes of each batch.

One event loop reads all workers. A batch is taken apart at once: metrics are counted, spans encoded and queued for
the exporter's threads, lines handed to the writer's thread. Nothing here waits for a collector or for stdout. A batch
is acknowledged when its lines are written, or shed and counted.

An observer that cannot keep up reads on and does less, by how much waits in the worker that it reads from (`load_of`):
first no recorded content, then no spans, at last no lines; metrics are always counted. Only what exceeds a worker's
queue even then is lost to them, and the worker counts it.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

import orjson

from observability.emitter import QUEUE_BYTES_MAX, RECORD_BYTES_MAX
from observability.observer.content.stash import Contents

MESSAGE_BYTES_MAX = RECORD_BYTES_MAX + 4096
"""A batch holds one big record or 32 KiB of small ones, and a head of some digits."""

MESSAGES_PER_WAKE = 8
"""Of one worker, before the next one has its turn: 8 x 32 KiB are about 20 ms of work."""

CONTENT_SHED_BYTES = QUEUE_BYTES_MAX // 16
"""Half of where a worker stops sending content at all: to make messages of it costs as much as twenty records."""
SPANS_SHED_BYTES = QUEUE_BYTES_MAX // 4
LINES_SHED_BYTES = QUEUE_BYTES_MAX * 3 // 4
"""What waits in a worker. An observer's restart at an ordinary load stays below the second: its backlog is worked
through with spans and lines. Without content records are some fifty times smaller, without spans an observer is nearly
twice as fast."""

DRAIN_MESSAGES_MAX = 1024
"""Of one worker, at the end: more than a socket's buffer holds, and an end to it where a worker goes on sending."""

BACKLOG = 128


class Load(IntEnum):
    """How much is done for a batch."""

    ALL = 0
    NO_CONTENT = 1
    NO_SPANS = 2
    METRICS_ONLY = 3


def load_of(waiting_bytes: int) -> Load:
    """What an observer does with a batch behind which so many bytes of records wait in the worker."""
    if waiting_bytes < CONTENT_SHED_BYTES:
        return Load.ALL
    if waiting_bytes < SPANS_SHED_BYTES:
        return Load.NO_CONTENT
    return Load.NO_SPANS if waiting_bytes < LINES_SHED_BYTES else Load.METRICS_ONLY


class Sinks(Protocol):
    """Where the parts of a record go; `observer.sinks` has the real one."""

    def take(self, batch: list[Any], load: Load, settled: Callable[[int], None], contents: Contents) -> None:
        """Work through a batch of records as the workers packed them. Never raises.

        `contents`: what came on this connection of their content.
        `settled` is called once with the number of records, in any thread.
        """


class Intake:
    """The listening socket and its connections."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop, sinks: Sinks) -> None:
        self._loop = loop
        self._sinks = sinks
        self.malformed = 0
        """Messages that were none of our emitter's."""
        self._connections: set[_Connection] = set()
        self._buffer = bytearray(MESSAGE_BYTES_MAX + 1)
        path.unlink(missing_ok=True)  # left by our predecessor
        self._listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._listener.bind(str(path))
        self._listener.listen(BACKLOG)
        loop.add_reader(self._listener.fileno(), self._accept)

    def drain(self) -> None:
        """Accept no more, and read all that is in the sockets now."""
        self._accept()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for connection in list(self._connections):
            for _ in range(DRAIN_MESSAGES_MAX):
                if not connection.read(self._buffer):
                    break

    def close(self) -> None:
        """Let the workers go."""
        for connection in list(self._connections):
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:  # none waiting; or out of descriptors, then the next wake-up tries again
                return
            accepted.setblocking(False)
            connection = _Connection(accepted, self)
            self._connections.add(connection)
            self._loop.add_reader(accepted.fileno(), self._on_readable, connection)

    def _on_readable(self, connection: "_Connection") -> None:
        for _ in range(MESSAGES_PER_WAKE):
            if not connection.read(self._buffer):
                return

    def take(self, message: memoryview, settled: Callable[[int], None], contents: Contents) -> bool:
        """One message of one connection; False where it is none of our emitter's."""
        try:
            if contents.take(message):
                return True
            batch: list[Any] = orjson.loads(message)
            load = load_of(batch.pop(0))
        except (ValueError, TypeError, LookupError, AttributeError):
            self.malformed += 1
            return False
        self._sinks.take(batch, load, settled, contents)
        return True

    def forget(self, connection: "_Connection") -> None:
        """A connection has ended."""
        self._connections.discard(connection)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that all this runs in."""
        return self._loop


class _Connection:
    """One worker."""

    def __init__(self, accepted: socket.socket, intake: Intake) -> None:
        self._socket: socket.socket | None = accepted
        self._intake = intake
        self._contents = Contents()
        self._settled = 0
        self._writer_waits = False

    def read(self, buffer: bytearray) -> bool:
        """Read and work through one message; False when there is none now, or never again."""
        if self._socket is None:
            return False
        try:
            size = self._socket.recv_into(buffer)
        except BlockingIOError:
            return False
        except OSError:
            size = 0
        if size == 0:
            self.close()
            return False
        with memoryview(buffer)[:size] as message:
            understood = self._intake.take(message, self._on_settled, self._contents)
        if not understood:
            # Nobody can say how many records it was. Its sender can, and counts them as lost when we hang up.
            self.close()
        return understood

    def close(self) -> None:
        """End it. What is settled later is told to nobody: the worker counted it as lost."""
        if self._socket is None:
            return
        loop = self._intake.loop
        loop.remove_reader(self._socket.fileno())
        loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self._intake.forget(self)

    def _on_settled(self, records: int) -> None:
        """May come from the writer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are at the very end
            self._intake.loop.call_soon_threadsafe(self._settle, records)

    def _settle(self, records: int) -> None:
        self._settled += records
        if self._socket is not None and not self._writer_waits:
            self._acknowledge()

    def _acknowledge(self) -> None:
        """Tell the worker; a cumulative count, so one that had to wait says it all."""
        assert self._socket is not None
        try:
            self._socket.send(self._settled.to_bytes(8, "little"))
        except BlockingIOError:
            self._writer_waits = True
            self._intake.loop.add_writer(self._socket.fileno(), self._on_writable)
        except OSError:
            # Gone; what it sent before is still to be read, and reading tells when that is over.
            return

    def _on_writable(self) -> None:
        if self._socket is not None:
            self._intake.loop.remove_writer(self._socket.fileno())
            self._writer_waits = False
            self._acknowledge()
