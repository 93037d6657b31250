"""Small files of lines that survive kills and full disks: a line is in them whole or not at all. Several processes may
write one."""

import fcntl
import os
from pathlib import Path


def begin(path: Path) -> bytes:
    """The file's lines, each with its end; makes the file, and takes off a last line that a kill has cut.

    OSError where that cannot be.
    """
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of a file that several write, nobody's line is being written now
        file.seek(0)
        data = file.read()
        end = data.rfind(b"\n") + 1
        file.truncate(end)
    return data[:end]


def since(path: Path, offset: int) -> bytes:
    """Whole lines from `offset` on, the end of one; empty where there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except OSError:
        return b""
    return data[: data.rfind(b"\n") + 1]


def append(path: Path, line: bytes) -> bool:
    """Add a line with its end. False where the disk has no room: then nothing of it is there."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        end = os.fstat(fd).st_size
        try:
            if os.write(fd, line) == len(line):
                return True
        except OSError:
            return False
        os.ftruncate(fd, end)
        return False
    finally:
        os.close(fd)
