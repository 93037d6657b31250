"""The runtime directory: where the processes of one running gateway meet. Gone when it ends.

board            the workers' counts and generations (observability.board)
observer-<i>.sock, metrics/, lines.lock          (observability)
draining         exists from the first moment of a drain
"""

import os
import shutil
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

SOCKET_PATH_BYTES_MAX = 107
"""Of a Unix socket on Linux: sun_path has 108 with the final zero."""


class RuntimeDirectoryError(Exception):
    """The directory cannot be made. The text is one line that says why and what to do."""


@contextmanager
def runtime_directory() -> Iterator[Path]:
    """Make the directory, for this user alone (0700), and remove it at the end. Raises RuntimeDirectoryError."""
    try:
        runtime = Path(tempfile.mkdtemp(prefix="sluiceway-"))
    except OSError as error:
        raise RuntimeDirectoryError(f"no temporary folder can be made ({error.strerror}): set TMPDIR") from None
    try:
        if len(os.fsencode(runtime / "observer-1000.sock")) > SOCKET_PATH_BYTES_MAX:
            raise RuntimeDirectoryError(f"{runtime} is too long for the path of a Unix socket: set TMPDIR to a shorter")
        (runtime / METRICS).mkdir(mode=0o700)
        yield runtime
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
