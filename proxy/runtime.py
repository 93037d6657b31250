"""The runtime directory: where the processes of one running gateway meet. Gone when it ends.

board            the workers' counts and generations (observability.board)
observer-<i>.sock, metrics/, lines.lock          (observability)
control.sock     where workers hear of a new configuration (proxy.link)
draining         exists from the first moment of a drain

It lives among the temporary files, and the supervisor holds a lock (flock) on it. Cleaners such as systemd-tmpfiles
leave a locked folder alone (tmpfiles.d(5), "age"), and a folder that nobody holds was left by a supervisor that was
killed: the next start removes it. Not in XDG_RUNTIME_DIR, which is removed when its user logs out, a gateway in the
background or not; and not in /run, where only root may write.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BOARD = "board"
METRICS = "metrics"
"""PROMETHEUS_MULTIPROC_DIR of every process."""
DRAINING = "draining"
"""A file and not a signal: it cannot hit a control process that has not installed its handler yet, and one that is
restarted in the middle of a drain sees it too."""

PREFIX = "sluiceway-run-"
SOCKET_PATH_BYTES_MAX = 107
"""Of a Unix socket on Linux: sun_path has 108 with the final zero."""

_OURS = re.compile(r"board|metrics|draining|lines\.lock|observer-\d+\.sock|control\.sock")
"""All that a runtime directory may contain: where there is anything else, it is somebody's folder and stays."""


class RuntimeDirectoryError(Exception):
    """The directory cannot be made. The text is one line that says why and what to do."""


@contextmanager
def runtime_directory() -> Iterator[Path]:
    """Make the directory, for this user alone (0700), and remove it at the end. Raises RuntimeDirectoryError."""
    try:
        runtime, lock = _make_locked()
    except OSError as error:
        raise RuntimeDirectoryError(f"no temporary folder can be made ({error.strerror}): set TMPDIR") from None
    try:
        if len(os.fsencode(runtime / "observer-1000.sock")) > SOCKET_PATH_BYTES_MAX:
            raise RuntimeDirectoryError(f"{runtime} is too long for the path of a Unix socket: set TMPDIR to a shorter")
        (runtime / METRICS).mkdir(mode=0o700)
        yield runtime
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
        os.close(lock)


def remove_abandoned(beside: Path) -> list[Path]:
    """Remove the runtime directories in the folder of `beside` that nobody holds; answers which those were."""
    removed = []
    for path in beside.parent.glob(f"{PREFIX}*"):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # somebody else's, a file, a link, or gone by now
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_ours(lock):
                shutil.rmtree(path)
                removed.append(path)
        except OSError:  # held by a gateway that runs; or not to be removed, which is no reason not to start
            pass
        finally:
            os.close(lock)
    return removed


def _make_locked() -> tuple[Path, int]:
    """A fresh directory and the descriptor that holds its lock. Raises OSError."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Between the two calls another start may take it for abandoned: then it is gone, or about to be.
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                return path, lock
        except BlockingIOError:
            pass
        os.close(lock)


def _is_ours(folder: int) -> bool:
    facts = os.fstat(folder)
    private = facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) == 0o700
    return private and all(_OURS.fullmatch(name) for name in os.listdir(folder))
