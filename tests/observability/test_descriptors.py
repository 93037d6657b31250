"""Processes that are started with a standard descriptor closed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
from observability.descriptors import open_standard_descriptors
open_standard_descriptors()
another = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
print("said")
sys.stderr.write("complained")
sys.stdin.read()
where = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
inherited = [os.get_inheritable(fd) for fd in (0, 1, 2)]
os.write(another, json.dumps([another, inherited, where]).encode())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_descriptor_is_the_null_device(tmp_path: Path, closed: str) -> None:
    told = tmp_path / "told"
    subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", SCRIPT, str(told)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=60,
    )
    another, inherited, where = json.loads(told.read_text())
    assert another > 2
    assert inherited == [True] * 3
    for fd, sign in enumerate(("<&-", ">&-", "2>&-")):
        assert (where[fd] == "/dev/null") is (fd == 0 or sign in closed.split())
