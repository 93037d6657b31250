"""Lines to a file descriptor, without ever waiting for it.

A write to a full pipe blocks, and whoever reads our stdout may be stuck; so lines are collected in memory and a thread
writes them, all that are waiting in one `os.write`. What does not fit any more is refused, and the caller counts it.

Several processes share one stdout. A write longer than PIPE_BUF (4,096 bytes) into a full pipe is not atomic, so
writers of one host take turns by a lock on a file: two system calls a batch, and the kernel frees it when one dies.
"""

import fcntl
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LIMIT_BYTES = 16 << 20
"""Lines in memory: about a second of the fastest observer (12,000 lines of 1.3 KB); longer is not a hiccup."""

BATCH_BYTES = 256 << 10
"""Most bytes of one write: four times a pipe's buffer, so that a reader never waits for us."""

Written = Callable[[bool], None]
"""Called in the writer's thread: were the lines written?"""


class _Lines(NamedTuple):
    data: bytes
    written: Written | None


class LineWriter:
    """A bounded queue of lines and the thread that writes them to `fd`.

    Write errors (a closed pipe, a full disk) lose the lines of that write, are told to `written`, and do not stop the
    thread: a disk gets space again.
    """

    def __init__(self, fd: int = 1, lock_path: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self._fd = fd
        self._lock_fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if lock_path else None
        self._limit_bytes = limit_bytes
        self._queue: deque[_Lines] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Bytes accepted and not yet written."""
        return self._waiting_bytes

    def write(self, data: bytes, written: Written | None = None) -> bool:
        """Take whole lines, each ended by a newline. False: no room (or closed), and `written` will not be called."""
        with self._changed:
            if self._closing or self._waiting_bytes + len(data) > self._limit_bytes:
                return False
            self._waiting_bytes += len(data)
            self._queue.append(_Lines(data, written))
            if not self._busy:
                self._changed.notify_all()
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything taken so far is written; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def abandon(self) -> None:
        """Forget the lines that wait, and tell their `written` so. What is just being written is left to its fate."""
        with self._changed:
            left = list(self._queue)
            self._queue.clear()
            self._waiting_bytes -= sum(len(lines.data) for lines in left)
        for lines in left:
            if lines.written is not None:
                lines.written(False)

    def close(self, timeout_s: float) -> bool:
        """Take no more, write what there is for at most `timeout_s`. False: lines are left behind.

        Left lines are told to their `written`. The thread is a daemon: one that hangs in a write keeps nothing alive.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        done = self.flush(timeout_s)
        self.abandon()
        if done:
            self._thread.join(timeout_s)
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None
        return done

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                self._busy = True
                batch = self._take()
            data = b"".join([lines.data for lines in batch])
            written = self._write(data)
            with self._changed:
                self._waiting_bytes -= len(data)
            for lines in batch:
                if lines.written is not None:
                    lines.written(written)

    def _take(self) -> list[_Lines]:
        batch = [self._queue.popleft()]
        size = len(batch[0].data)
        while self._queue and size + len(self._queue[0].data) <= BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1].data)
        return batch

    def _write(self, data: bytes) -> bool:
        try:
            if self._lock_fd is not None:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._fd, view) :]
            finally:
                if self._lock_fd is not None:
                    fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
        except OSError:
            return False
        return True


class LineFile:
    """A LineWriter as the file that structlog's BytesLogger (or a console exporter) writes to."""

    name = "<lines>"

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def write(self, data: bytes | str) -> int:
        """Hand over one line; a full writer loses it, which is better than a process that waits."""
        self._writer.write(data.encode() if isinstance(data, str) else data)
        return len(data)

    def flush(self) -> None:
        """Nothing: the writer's thread flushes by itself."""
