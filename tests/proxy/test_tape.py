"""The tape: held in memory, then on disk, read again from its beginning; and what becomes of it at its limits."""

import asyncio
import contextlib
import gzip
import os
import threading
import tracemalloc
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.board import CELLS, Cell
from observability.observation import Observation
from observability.sampling import TraceContext
from observability.scanners import request_scanner
from proxy.body import SLICE_BYTES, RequestBody
from proxy.errors import GatewayError, TargetUnusableError
from proxy.spool import Holding


class Arriving:
    """A client's body: pieces that come when they are asked for, or when `more` says so."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = deque(pieces)
        self.total_bytes = sum(map(len, pieces))
        self.reads = 0

    async def readany(self) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        return self.pieces.popleft() if self.pieces else b""

    def read_nowait(self) -> bytes:
        return b"".join(self.pieces)

    def is_eof(self) -> bool:
        return False

    def exception(self) -> None:
        return None


class Worker:
    """What a tape needs of a worker."""

    def __init__(self, folder: Path, max_memory_bytes: int = 1 << 20, max_disk_bytes: int = 1 << 28) -> None:
        self.row = memoryview(bytearray(CELLS * 8)).cast("Q")
        self.holding = Holding(
            folder / "spool",
            self.row,
            max_memory_bytes=max_memory_bytes,
            max_disk_bytes=max_disk_bytes,
            disk_bytes=lambda: self.row[Cell.HELD_DISK_BYTES],
        )

    @property
    def held(self) -> tuple[int, int]:
        return self.row[Cell.HELD_MEMORY_BYTES], self.row[Cell.HELD_DISK_BYTES]

    def body(self, pieces: list[bytes], *, memory_bytes: int = 1000, disk_bytes: int = 1 << 24) -> RequestBody:
        observation = Observation("0" * 32, TraceContext("a" * 32, None, None, None), "b" * 16, "c" * 16)
        content = Arriving(pieces)
        made = RequestBody(content, observation, content_length=None, chunked=True, say_continue=None)
        made.admit(1 << 30)
        made.hold(self.holding, memory_bytes=memory_bytes, disk_bytes=disk_bytes)
        return made


@pytest.fixture
def worker(tmp_path: Path):
    made = Worker(tmp_path)
    yield made
    made.holding.close()


async def rest_of(body: RequestBody) -> bytes:
    pieces = []
    while piece := await body.read():
        pieces.append(piece)
    return b"".join(pieces)


def open_files(folder: Path) -> int:
    """Of this process, without a name, in the folder."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{folder}/")
    return count


PIECES = [bytes([65 + number % 26]) * (number * 37 % 900 + 1) for number in range(50)]
WHOLE = b"".join(PIECES)


async def test_a_body_is_read_again_from_memory_and_disk_as_often_as_needed(worker: Worker):
    body = worker.body(PIECES)
    assert await rest_of(body) == WHOLE
    memory, disk = worker.held
    assert 0 < memory <= 1000
    assert memory + disk == len(WHOLE)
    for _ in range(3):
        body.rewind()
        assert await rest_of(body) == WHOLE
    body.let_go()
    assert worker.held == (0, 0)
    assert not body.held_whole


async def test_a_peek_reads_no_further_than_needed_and_loses_nothing(worker: Worker):
    body = worker.body(PIECES)
    content = body._content
    await body.peek(lambda: content.reads == 20)
    assert content.reads == 20
    assert await rest_of(body) == WHOLE
    body.rewind()
    assert await rest_of(body) == WHOLE
    body.let_go()


async def test_an_attempt_that_ends_in_the_middle_is_followed_by_one_from_the_beginning(worker: Worker):
    body = worker.body(PIECES)
    await body.peek(lambda: body._content.reads == 30)
    for _ in range(10):
        await body.read()
    body.rewind()
    assert await rest_of(body) == WHOLE
    body.let_go()


async def test_what_only_the_peek_needed_is_let_go_where_the_live_rest_begins(worker: Worker):
    body = worker.body(PIECES)
    await body.peek(lambda: body._content.reads == 30)
    body.hold_no_more()
    held = sum(worker.held)
    first = await body.read()
    assert sum(worker.held) == held > 1000
    assert first + await rest_of(body) == WHOLE
    assert (worker.held, body.held_whole, body.lost) == ((0, 0), False, None)


async def test_a_disk_that_fails_when_it_is_read_takes_the_tape_with_it(worker: Worker, monkeypatch):
    body = worker.body(PIECES)
    assert await rest_of(body) == WHOLE

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.pread", fail)
    body.rewind()
    with pytest.raises(TargetUnusableError, match="the disk for held request bodies failed"):
        await rest_of(body)
    assert (worker.held, body.held_whole, body.lost) == ((0, 0), False, "disk")


@pytest.mark.parametrize("disk_bytes", [0, 1 << 24])
async def test_tiny_pieces_take_no_more_than_they_count(worker: Worker, disk_bytes: int):
    pieces = [b"%02d" % (number % 100) for number in range(50_000)]
    body = worker.body(pieces, memory_bytes=0 if disk_bytes else 1 << 20, disk_bytes=disk_bytes)
    tracemalloc.start()
    await rest_of(body)
    taken_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken_bytes < 4 * 100_000  # 4.4 MB as pieces of their own
    body.rewind()
    assert await rest_of(body) == b"".join(pieces)
    body.let_go()


async def test_a_file_that_is_shorter_than_what_was_written_is_a_failure(worker: Worker):
    body = worker.body([b"x" * 300_000] * 5)
    await rest_of(body)
    body.rewind()
    await body.read()
    os.ftruncate(body._spool._descriptor, 1000)
    with pytest.raises(TargetUnusableError):
        await rest_of(body)


async def test_a_write_that_fails_in_any_way_loses_the_tape(worker: Worker, monkeypatch):
    def fail(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr("os.pwritev", fail)
    pieces = [b"x" * 200_000] * 12
    body = worker.body(pieces)
    assert await rest_of(body) == b"".join(pieces)
    assert (body.lost, worker.held) == ("disk", (0, 0))


async def test_a_write_that_is_cancelled_is_a_hole_and_the_tape_is_lost(worker: Worker, monkeypatch):
    monkeypatch.setattr("proxy.spool.SLOW_S", -1.0)
    held, go = threading.Event(), threading.Event()
    body = worker.body([b"x" * 300_000] * 4)
    for _ in range(3):
        await body.read()
    for _ in range(16):  # the threads are busy: what is written next waits for them
        body._spool._disk.threads.submit(lambda: (held.set(), go.wait(10)))
    assert await asyncio.to_thread(held.wait, 10)
    await rest_of(body)
    body._spool._disk.threads.shutdown(wait=False, cancel_futures=True)
    go.set()
    body.rewind()
    with pytest.raises(TargetUnusableError):
        await rest_of(body)


async def test_a_write_that_had_to_wait_leaves_the_next_ones_to_threads(worker: Worker, monkeypatch):
    body = worker.body([os.urandom(300_000)] * 12)
    whole = await rest_of(body)
    disk = body._spool._disk
    assert (disk.slow, len(disk.threads._threads)) == (False, 0)
    body.let_go()
    monkeypatch.setattr("proxy.spool.SLOW_S", -1.0)
    body = worker.body([whole[start : start + 300_000] for start in range(0, len(whole), 300_000)])
    assert await rest_of(body) == whole
    assert disk.slow
    assert len(disk.threads._threads) > 0
    body.rewind()
    assert await rest_of(body) == whole
    body.let_go()


async def test_what_lies_in_the_file_is_named_part_by_part(worker: Worker):
    body = worker.body([os.urandom(1 << 20), os.urandom(300_000), b"x"], memory_bytes=1 << 20)
    whole = await rest_of(body)
    for _ in range(2):
        body.rewind()
        assert await body.in_file() is None  # it begins in memory
        read = await body.read()
        while part := await body.in_file():
            descriptor, offset, size = part
            read += os.pread(descriptor, min(size, 100_000), offset)
            body.passed(min(size, 100_000))
        assert read == whole
        assert await body.read() == b""
    body.let_go()


async def test_what_the_kernel_has_not_kept_is_read_by_threads(worker: Worker):
    body = worker.body([os.urandom(300_000)] * 2)
    whole = await rest_of(body)
    body.rewind()
    assert await body.in_file()
    os.fsync(body._spool.descriptor)
    os.posix_fadvise(body._spool.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    assert await body.in_file() is None
    assert await rest_of(body) == whole
    body.let_go()


async def test_a_write_that_failed_is_for_read_to_tell(worker: Worker, monkeypatch):
    body = worker.body([b"x" * 100_000])
    await rest_of(body)
    monkeypatch.setattr("os.pwritev", lambda *_: os.pwrite(-1, b"", 0))
    body.rewind()
    assert await body.in_file() is None
    with pytest.raises(TargetUnusableError):
        await rest_of(body)


async def test_a_small_body_in_several_pieces_is_held_once(worker: Worker):
    body = worker.body([b"x" * 30_000] * 2)
    assert len(await body.read_whole()) == 60_000
    assert worker.held == (0, 0)
    assert not body._held


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 400_000), min_size=1, max_size=12),
    memory_bytes=st.sampled_from([0, 1, 1000, 300_000]),
    stops=st.lists(st.integers(0, 14), max_size=4),
)
def test_whatever_the_pieces_and_the_readings_the_bytes_are_the_same(tmp_path_factory, sizes, memory_bytes, stops):
    async def run() -> None:
        worker = Worker(tmp_path_factory.mktemp("tape"))
        pieces = [os.urandom(16) * (size // 16 + 1) for size in sizes]
        body = worker.body(pieces, memory_bytes=memory_bytes)
        for stop in stops:
            for _ in range(stop):
                await body.read()
            body.rewind()
        assert await rest_of(body) == b"".join(pieces)
        body.let_go()
        assert worker.held == (0, 0)
        worker.holding.close()

    asyncio.run(run())


async def test_beyond_what_one_body_may_hold_the_tape_is_lost_and_the_body_goes_on(worker: Worker):
    body = worker.body(PIECES, memory_bytes=1000, disk_bytes=2000)
    assert await rest_of(body) == WHOLE
    assert (body.held_whole, body.lost, worker.held) == (False, "limit", (0, 0))


async def test_beyond_what_the_host_may_hold_too(tmp_path: Path):
    worker = Worker(tmp_path, max_disk_bytes=3000)
    first, second = worker.body(PIECES[:8]), worker.body(PIECES)
    await rest_of(first)
    assert first.held_whole
    assert await rest_of(second) == WHOLE
    assert (second.held_whole, second.lost) == (False, "disk")
    first.rewind()
    assert await rest_of(first) == b"".join(PIECES[:8])
    first.let_go()
    assert worker.held == (0, 0)


async def test_where_the_workers_memory_is_full_the_disk_serves(tmp_path: Path):
    worker = Worker(tmp_path, max_memory_bytes=10)
    body = worker.body(PIECES)
    await rest_of(body)
    assert worker.held[0] <= 10
    body.rewind()
    assert await rest_of(body) == WHOLE
    body.let_go()


@pytest.mark.parametrize(
    ("disk_bytes", "max_disk_bytes", "kind"), [(500, 1 << 24, "body_too_large"), (1 << 24, 500, "overloaded")]
)
async def test_a_peek_beyond_the_limits_is_an_error_of_the_right_kind(tmp_path, disk_bytes, max_disk_bytes, kind):
    worker = Worker(tmp_path, max_disk_bytes=max_disk_bytes)
    body = worker.body(PIECES, disk_bytes=disk_bytes)
    with pytest.raises(GatewayError) as error:
        await body.peek(lambda: False)
    assert error.value.kind == kind
    body.let_go()
    assert worker.held == (0, 0)


async def test_a_disk_that_fails_loses_the_tape_and_not_the_body(worker: Worker, tmp_path: Path):
    (tmp_path / "spool").write_text("a file where the folder should be")
    body = worker.body(PIECES)
    assert await rest_of(body) == WHOLE
    assert (body.lost, worker.held) == ("disk", (0, 0))


async def test_a_full_disk_loses_the_tape_and_not_the_body(worker: Worker, monkeypatch):
    monkeypatch.setattr("proxy.spool._anonymous_file", lambda _: os.open("/dev/full", os.O_RDWR))
    pieces = [b"x" * 200_000] * 12
    body = worker.body(pieces)
    assert await rest_of(body) == b"".join(pieces)
    assert (body.lost, worker.held) == ("disk", (0, 0))


async def test_files_have_no_name_and_are_closed(worker: Worker, tmp_path: Path):
    bodies = [worker.body([b"x" * 300_000] * 5) for _ in range(20)]
    await asyncio.gather(*map(rest_of, bodies))
    assert open_files(tmp_path / "spool") == 20
    assert list((tmp_path / "spool").iterdir()) == []
    for body in bodies:
        body.let_go()
    async with asyncio.timeout(10):
        while open_files(tmp_path / "spool"):  # as soon as the threads have done with them
            await asyncio.sleep(0.001)


async def test_a_reader_that_is_cancelled_leaves_the_file_to_the_thread(worker: Worker, tmp_path: Path):
    body = worker.body([b"x" * 300_000] * 5)
    await rest_of(body)
    for _ in range(50):
        body.rewind()
        reading = asyncio.ensure_future(rest_of(body))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait((reading,))
    body.rewind()
    assert await rest_of(body) == b"x" * 1_500_000
    assert open_files(tmp_path / "spool") == 1
    reading = asyncio.ensure_future(rest_of(body))
    await asyncio.sleep(0)
    reading.cancel()
    body.let_go()
    async with asyncio.timeout(10):
        while open_files(tmp_path / "spool"):
            await asyncio.sleep(0.001)


async def test_a_long_look_at_an_encoded_body_leaves_turns_to_others(worker: Worker):
    text = b'{"pad":"%s","model":"qwen"}' % os.urandom(60_000).hex().encode()
    piece = gzip.compress(text)
    body = worker.body([piece[:30_000], piece[30_000:]])
    scanner = body._observation.request_scanner = request_scanner("openai", "chat", "application/json", "gzip")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(others())
    assert await rest_of(body) == piece
    ticking.cancel()
    assert (scanner.model, body._observation.request_bytes) == ("qwen", len(piece))
    assert turns >= len(piece) // SLICE_BYTES
