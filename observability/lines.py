"""Lines to a file descriptor, without ever waiting for it.

A write to a full pipe blocks, and whoever reads our stdout may be stuck; so lines are collected in memory and a thread
writes them, all that are waiting in one `os.write`. What does not fit any more is refused, and the caller counts it.

Several processes share one stdout. A write longer than PIPE_BUF (4,096 bytes) into a full pipe is not atomic, so
writers of one host take turns by a lock on a file, and the kernel frees it when one dies. The file has a length of one
byte while somebody writes and after a write that ended within a line: then the next writer begins with a line end, so
that a line cut by a kill or a full disk does not take another one with it (at worst an empty line is too much). A
length needs no space on a full disk, and all this costs 4 µs a batch.
"""

import contextlib
import fcntl
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LIMIT_BYTES = 16 << 20
"""Lines in memory: nearly a second of the fastest observer (11,000 lines of 1.8 KB); longer is not a hiccup."""

BATCH_BYTES = 256 << 10
"""Most bytes of one write: four times a pipe's buffer, so that a reader never waits for us."""

Settled = Callable[[int], None]
"""Called with how many of the lines were lost, once it is certain; usually in the writer's thread."""


class _Lines(NamedTuple):
    data: bytes
    settled: Settled | None

    def settle(self, written_bytes: int) -> None:
        """Tell that so many bytes are out: a line is lost if it is not out whole."""
        if self.settled is not None:
            whole = written_bytes >= len(self.data)
            self.settled(0 if whole else self.data.count(b"\n", max(0, written_bytes)))


class LineWriter:
    """A bounded queue of lines and the thread that writes them to `fd`.

    Write errors (a closed pipe, a full disk) lose the lines that are not out whole by then and do not stop the thread:
    a disk gets space again. A descriptor that does not block is waited for.
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
        self._torn = False  # the last write ended within a line
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Of lines taken and not written."""
        return self._waiting_bytes

    @property
    def crowded(self) -> bool:
        """Is more than half of the room taken? A reader that keeps up leaves all but a few lines of it free."""
        return self._waiting_bytes > self._limit_bytes // 2

    def write(self, data: bytes, settled: Settled | None = None) -> bool:
        """Take whole lines, each ended by a newline. False: no room (or closed), and `settled` will not be called."""
        with self._changed:
            if self._closing or self._waiting_bytes + len(data) > self._limit_bytes:
                return False
            self._waiting_bytes += len(data)
            self._queue.append(_Lines(data, settled))
            if not self._busy:
                self._changed.notify_all()
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything taken so far is written; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def abandon(self) -> None:
        """Forget the lines that wait, and tell their `settled` so. What is just being written is left to its fate."""
        with self._changed:
            left = list(self._queue)
            self._queue.clear()
            self._waiting_bytes -= sum(len(lines.data) for lines in left)
        for lines in left:
            lines.settle(0)

    def close(self, timeout_s: float) -> bool:
        """Take no more, write what there is for at most `timeout_s`. False: lines are left behind.

        Left lines are told to their `settled`. The thread is a daemon: one that hangs in a write keeps nothing alive.
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
            written_bytes = self._write(data)
            with self._changed:
                self._waiting_bytes -= len(data)
            for lines in batch:
                lines.settle(written_bytes)
                written_bytes -= len(lines.data)

    def _take(self) -> list[_Lines]:
        batch = [self._queue.popleft()]
        size = len(batch[0].data)
        while self._queue and size + len(self._queue[0].data) <= BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1].data)
        return batch

    def _write(self, data: bytes) -> int:
        """Write when it is our turn; how many bytes are out, all of them unless writing failed."""
        lock_fd = self._lock_fd
        if lock_fd is None:
            return self._write_out(data)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
        except OSError:
            return 0
        try:
            self._torn = os.fstat(lock_fd).st_size > 0
            self._mark(lock_fd, True)
            return self._write_out(data)
        finally:
            self._mark(lock_fd, self._torn)
            fcntl.flock(lock_fd, fcntl.LOCK_UN)

    def _write_out(self, data: bytes) -> int:
        start = b"\n" if self._torn else b""
        view = memoryview(start + data)
        done = 0
        try:
            while done < len(view):
                try:
                    done += os.write(self._fd, view[done:])
                except BlockingIOError:  # whoever shares our stdout has set it so
                    self._wait_for_room()
        except OSError:
            pass
        if done:
            self._torn = view[done - 1] != ord("\n")
        return max(0, done - len(start))

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()

    @staticmethod
    def _mark(lock_fd: int, torn: bool) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(lock_fd, torn)


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
