"""Lines to a descriptor that may be stuck, closed or shared."""

import os
import select
import signal
import subprocess
import sys
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
    """How many lines were lost of each write, and a way to wait for it."""

    def __init__(self) -> None:
        self.results: list[int] = []
        self._changed = threading.Condition()

    def __call__(self, lost: int) -> None:
        with self._changed:
            self.results.append(lost)
            self._changed.notify_all()

    def until(self, count: int) -> list[int]:
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
    assert told.results == [0] * 100
    assert not writer.write(b"late\n")


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
    assert set(told.results) == {1}
    drained = threading.Thread(target=read_all, args=(reader,))
    drained.start()
    assert told.until(taken)[left:] == [0] * (taken - left)
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
        assert told.until(count) == [1] * count
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


FULL_DISK = """
import os, resource, signal, sys
from pathlib import Path
from observability.lines import LineWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
lock = Path(sys.argv[2]) if len(sys.argv) > 2 else None
lost = []
writer = LineWriter(fd, lock)
for size, lines in ((250, 4), (250, 1), (resource.RLIM_INFINITY, 2)):
    limit(size)
    writer.write((b"x" * 99 + b"\\n") * lines, lost.append)
    assert writer.flush(20)
if lock:
    LineWriter(fd, lock).write(b"other\\n")
assert writer.close(20)
print(lost)
"""


@pytest.mark.parametrize("shared", [False, True])
def test_a_full_disk_costs_the_lines_that_did_not_fit(tmp_path: Path, shared):
    arguments = [str(tmp_path / "out"), *([str(tmp_path / "lock")] if shared else [])]
    run = subprocess.run([sys.executable, "-c", FULL_DISK, *arguments], capture_output=True, timeout=60, check=True)
    assert run.stdout == b"[2, 1, 0]\n"
    whole = b"x" * 99
    expected = [whole, whole, b"x" * 50, whole, whole]
    lines = (tmp_path / "out").read_bytes().split(b"\n")
    assert lines[:5] == expected
    assert lines[5:] in ([b""], [b"other", b""])


WRITER = """
import os
import sys
from pathlib import Path
from observability.lines import LineWriter
letter, count, lock = sys.argv[1].encode(), int(sys.argv[2]), Path(sys.argv[3])
writer = LineWriter(1, lock)
writer.write((letter * 999 + b"\\n") * count)
os.write(2, b"taken")
os.close(2)
writer.flush(60)
"""


def test_a_writer_that_is_killed_within_a_line_costs_no_other_line(pipe, tmp_path: Path):
    reader, fd = pipe

    def start(letter: str, count: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WRITER, letter, str(count), str(tmp_path / "lock")]
        return subprocess.Popen(command, stdout=fd, stderr=subprocess.PIPE)

    with start("a", 200) as first:  # three times what the pipe holds
        assert first.stderr is not None
        assert first.stderr.read() == b"taken"
        room = select.poll()
        room.register(fd, select.POLLOUT)
        while room.poll(0):  # until the pipe is full and the writer hangs in its write
            os.sched_yield()
        first.send_signal(signal.SIGKILL)
    with start("b", 3) as second:
        os.close(fd)
        lines = read_all(reader).split(b"\n")
        assert second.wait(20) == 0
    torn = lines.index(b"b" * 999) - 1
    assert set(lines[:torn]) == {b"a" * 999}
    assert 0 < len(lines[torn]) < 999
    assert lines[torn + 1 :] == [b"b" * 999] * 3 + [b""]


def test_a_descriptor_that_does_not_block_is_waited_for(pipe):
    reader, fd = pipe
    os.set_blocking(fd, False)
    writer = LineWriter(fd)
    told = Told()
    assert writer.write(b"x\n" * 200_000, told)
    drained = threading.Thread(target=read_all, args=(reader,))
    assert not writer.flush(0.05)
    drained.start()
    assert told.until(1) == [0]
    assert writer.close(20)
    os.close(fd)
    drained.join(20)
