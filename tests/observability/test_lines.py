"""Lines to a descriptor that may be stuck, closed or shared."""

import os
import threading
from pathlib import Path

import pytest

from observability.lines import BATCH_BYTES, LineWriter


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            pass


def read_all(fd: int) -> bytes:
    pieces = []
    while piece := os.read(fd, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


class Told:
    """What `written` was told, and a way to wait for it."""

    def __init__(self) -> None:
        self.results: list[bool] = []
        self._changed = threading.Condition()

    def __call__(self, written: bool) -> None:
        with self._changed:
            self.results.append(written)
            self._changed.notify_all()

    def until(self, count: int) -> list[bool]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.results) >= count, 20)
        return self.results


def test_lines_arrive_in_order_and_are_told(pipe):
    reader, fd = pipe
    writer = LineWriter(fd)
    told = Told()
    for number in range(100):
        assert writer.write(b"%d\n" % number, told)
    assert writer.close(20)
    os.close(fd)
    assert read_all(reader) == b"".join(b"%d\n" % number for number in range(100))
    assert told.results == [True] * 100
    assert not writer.write(b"late\n")
    assert writer.waiting_bytes == 0


def test_a_stuck_reader_is_not_waited_for(pipe):
    reader, fd = pipe
    writer = LineWriter(fd, limit_bytes=1_000_000)
    line = b"x" * 9_999 + b"\n"
    told = Told()
    taken = 0
    while writer.write(line, told):
        taken += 1
    assert 100 <= taken < 150  # a million bytes in memory, 64 KiB in the pipe at most
    assert not writer.flush(0.05)
    writer.abandon()
    left = len(told.results)
    assert 0 < left < taken  # all but those that are just being written
    assert set(told.results) == {False}
    drained = threading.Thread(target=read_all, args=(reader,))
    drained.start()
    assert told.until(taken)[left:] == [True] * (taken - left)
    assert writer.close(20)
    os.close(fd)
    drained.join(20)


def test_a_reader_that_is_gone_costs_the_lines_but_not_the_writer(pipe):
    reader, fd = pipe
    os.close(reader)
    writer = LineWriter(fd)
    told = Told()
    for count in (1, 2):
        assert writer.write(b"into nothing\n", told)
        assert told.until(count) == [False] * count
    assert writer.close(20)


def test_writers_of_one_host_do_not_mix_their_lines(pipe, tmp_path: Path):
    reader, fd = pipe
    writers = [LineWriter(fd, tmp_path / "lock") for _ in range(3)]
    block = 200  # lines in one write, far more than a pipe takes at once
    for letter, writer in zip(b"abc", writers, strict=True):
        for _ in range(10):
            assert writer.write((bytes([letter]) * 999 + b"\n") * block)
    collected: list[bytes] = []
    thread = threading.Thread(target=lambda: collected.append(read_all(reader)))
    thread.start()
    assert all(writer.close(20) for writer in writers)
    os.close(fd)
    thread.join(20)
    lines = collected[0].splitlines()
    assert len(lines) == 3 * 10 * block
    assert block * 1000 <= BATCH_BYTES  # so a write is one block
    for at in range(0, len(lines), block):
        assert set(lines[at : at + block]) == {lines[at]}
