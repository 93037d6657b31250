"""Where held request bodies go: a bounded share of the worker's memory, then anonymous files of the host's disk.

`Holding` is the worker's account: every byte that a tape holds is taken from it first and given back when the tape lets
go. `Spool` is one body's file. It has no name (O_TMPFILE), so it is gone with the last descriptor, also after a kill.
A write goes into the page cache, which takes as long as a turn of a thread, so it is made on the event loop. Where the
kernel holds too much that is not on the disk yet, it lets writers wait, up to 32 ms for 256 KiB: from the first such
write on, a few threads of the worker write for a while. They read, too. Writes carry their offsets, so they may pass
each other; at most QUEUE_BYTES of a body wait for the disk, and whoever adds more waits with them. Linux.
"""

import asyncio
import errno
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from observability.board import Cell

WRITE_BYTES: Final = 262144
"""Pieces are gathered up to this: a turn of the thread costs 60 µs, as much as writing 256 KiB into the page cache."""
QUEUE_BYTES: Final = 524288
"""Of one body, on their way to the disk: 64 bodies at once are 32 MiB of memory."""
READ_BYTES: Final = 262144
SLOW_S: Final = 0.008
"""Of a write on the event loop: it had to wait. 256 KiB take 0.05 ms, and on a busy core a time slice or two."""
SLOW_FOR_S: Final = 10.0
"""How long threads write then: a disk that stays busy stops the loop once in this time."""
SENT_BYTES: Final = 1048576
"""Sent from the file in one call, on the event loop, where it is in the page cache: 0.1 ms."""
IOV_MAX: Final = 1024
"""Of Linux: pieces in one call. More of them are tiny, and joined."""
THREADS: Final = 4
"""Per worker: enough to keep one disk busy; all the bodies that are held share them."""

_HELD_DISK: Final = int(Cell.HELD_DISK_BYTES)
_HELD_MEMORY: Final = int(Cell.HELD_MEMORY_BYTES)
JOIN_BYTES: Final = 4096
"""Of tiny pieces that are put together; copying them takes 0.1 µs each."""


class Disk:
    """How one worker writes: on the event loop, or by threads while writes have to wait for the disk."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="spool")
        self._slow_until = 0.0

    @property
    def slow(self) -> bool:
        """Write by threads."""
        return time.monotonic() < self._slow_until

    def took(self, seconds: float) -> None:
        """A write on the loop did."""
        if seconds > SLOW_S:
            self._slow_until = time.monotonic() + SLOW_FOR_S


class Holding:
    """What the tapes of one worker may hold together. `disk_bytes` tells what the whole host holds on disk now."""

    def __init__(
        self,
        spool_dir: Path,
        row: memoryview,
        *,
        max_memory_bytes: int,
        max_disk_bytes: int,
        disk_bytes: Callable[[], int],
    ) -> None:
        self._spool_dir = spool_dir
        self._row = row
        self._max_memory_bytes = max_memory_bytes
        self._max_disk_bytes = max_disk_bytes
        self._disk_bytes = disk_bytes
        self._disk: Disk | None = None

    def limit(self, *, max_memory_bytes: int, max_disk_bytes: int) -> None:
        """Other limits from now on. What is held beyond them is given back in its own time."""
        self._max_memory_bytes = max_memory_bytes
        self._max_disk_bytes = max_disk_bytes

    def take_memory(self, size: int) -> bool:
        """Room for `size` more bytes in memory; False: there is none."""
        if self._row[_HELD_MEMORY] + size > self._max_memory_bytes:
            return False
        self._row[_HELD_MEMORY] += size
        return True

    def give_memory(self, size: int) -> None:
        """Give back what was taken."""
        self._row[_HELD_MEMORY] -= size

    def take_disk(self, size: int) -> bool:
        """Room for `size` more bytes on disk. Two workers that ask at once may together overrun it by two pieces."""
        if self._disk_bytes() + size > self._max_disk_bytes:
            return False
        self._row[_HELD_DISK] += size
        return True

    def give_disk(self, size: int) -> None:
        """Give back what was taken."""
        self._row[_HELD_DISK] -= size

    def open_spool(self) -> "Spool":
        """A file for one body. OSError where the folder cannot be made or takes no file."""
        if self._disk is None:
            self._disk = Disk()
        self._spool_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Spool(_anonymous_file(self._spool_dir), self._disk)

    def close(self) -> None:
        """End the threads."""
        if self._disk is not None:
            self._disk.threads.shutdown(wait=False, cancel_futures=True)


def append_piece(pieces: list[bytes], data: bytes) -> None:
    """Add to what is held. Tiny pieces are put together: one of 2 bytes takes 44, and some clients send no others."""
    if pieces and len(pieces[-1]) < JOIN_BYTES and len(data) < JOIN_BYTES:
        pieces[-1] += data
    else:
        pieces.append(data)


class Spool:
    """One body's file: append, read from anywhere, close. One caller at a time."""

    def __init__(self, descriptor: int, disk: Disk) -> None:
        self._descriptor = descriptor
        self._disk = disk
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._sent_bytes = 0  # handed to the threads
        self._writes: set[asyncio.Future[None]] = set()
        self._reads: set[asyncio.Future[bytes]] = set()
        self._queued_bytes = 0
        self._error: OSError | None = None
        self._closed = False

    async def append(self, data: bytes) -> None:
        """Add to the end. Waits while QUEUE_BYTES are on their way. OSError (disk full) of this or an earlier piece."""
        if self._error is not None:
            raise self._error
        append_piece(self._gathered, data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= WRITE_BYTES:
            self._write()
            while self._queued_bytes > QUEUE_BYTES and self._writes:
                await asyncio.wait(self._writes, return_when=asyncio.FIRST_COMPLETED)
            if self._error is not None:
                raise self._error

    async def read(self, offset: int) -> bytes:
        """At most READ_BYTES from `offset`; b"" at the end of what was appended. OSError as for `append`."""
        await self._finish_writing()
        if self._error is not None:
            raise self._error
        loop = asyncio.get_running_loop()
        read = loop.run_in_executor(self._disk.threads, os.pread, self._descriptor, READ_BYTES, offset)
        self._reads.add(read)
        read.add_done_callback(self._on_read)
        return await asyncio.shield(read)  # who waits may be cancelled, the thread goes on: it keeps the file open

    @property
    def descriptor(self) -> int:
        """Of the file, which is open until `close`."""
        return self._descriptor

    async def cached(self, offset: int, end: int) -> int:
        """How much from `offset` on, before `end`, can be sent from the file without a wait for the disk.

        SENT_BYTES at most; 0 where nothing can, or where `read` has an error to tell. The first and the last byte are
        looked at: the kernel takes pages away in about the order in which they came.
        """
        await self._finish_writing()
        size = min(end - offset, SENT_BYTES)
        try:
            for at in (offset, offset + size - 1):
                if self._error is not None or not os.preadv(self._descriptor, (bytearray(1),), at, os.RWF_NOWAIT):
                    return 0
        except OSError:  # it would wait, or the file system does not say
            return 0
        return size

    def close(self) -> None:
        """Let go of the file as soon as no thread uses it: a write must not meet somebody else's descriptor."""
        self._closed = True
        self._gathered.clear()
        self._close_when_unused()

    async def _finish_writing(self) -> None:
        if self._gathered:
            self._write()
        if self._writes:
            await asyncio.wait(self._writes)

    def _write(self) -> None:
        pieces, size, offset = self._gathered, self._gathered_bytes, self._sent_bytes
        self._gathered, self._gathered_bytes = [], 0
        self._sent_bytes += size
        if not self._disk.slow:
            self._write_now(pieces, offset)
            return
        self._queued_bytes += size
        loop = asyncio.get_running_loop()
        write = loop.run_in_executor(self._disk.threads, _write_all, self._descriptor, pieces, offset)
        self._writes.add(write)
        write.add_done_callback(lambda done: self._on_written(done, size))

    def _write_now(self, pieces: list[bytes], offset: int) -> None:
        began = time.monotonic()
        try:
            _write_all(self._descriptor, pieces, offset)
        except Exception as error:  # noqa: BLE001 - as of a thread
            self._fail(error)
        self._disk.took(time.monotonic() - began)

    def _on_written(self, write: "asyncio.Future[None]", size: int) -> None:
        self._writes.discard(write)
        self._queued_bytes -= size
        error = asyncio.CancelledError() if write.cancelled() else write.exception()
        if error is not None:
            self._fail(error)
        self._close_when_unused()

    def _fail(self, error: BaseException) -> None:
        """Whatever it is, there is a hole in the file now."""
        self._error = error if isinstance(error, OSError) else OSError(errno.EIO, repr(error))

    def _on_read(self, read: "asyncio.Future[bytes]") -> None:
        self._reads.discard(read)
        if not read.cancelled():
            read.exception()  # whoever waited has it, unless it left
        self._close_when_unused()

    def _close_when_unused(self) -> None:
        if self._closed and not self._writes and not self._reads and self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _anonymous_file(folder: Path) -> int:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system without O_TMPFILE (NFS, some overlays)
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.dup(file.fileno())


def _write_all(descriptor: int, pieces: list[bytes], offset: int) -> None:
    if len(pieces) > IOV_MAX:
        pieces = [b"".join(pieces)]
    left = [memoryview(piece) for piece in pieces]
    while left:
        written = os.pwritev(descriptor, left, offset)
        offset += written
        while left and written >= len(left[0]):
            written -= len(left[0])
            del left[0]
        if written:
            left[0] = left[0][written:]
