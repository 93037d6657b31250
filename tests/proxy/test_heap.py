"""What is freed and needed again is not fetched from the kernel each time; what is large goes back."""

import subprocess
import sys

_ROUNDS = """
import resource, sys
from proxy import heap
if sys.argv[1] == "kept":
    heap.keep_free_pages()
def go():
    pieces = [bytes(262_144 - 64) + b"x" for _ in range(16)]
go()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    go()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _ROUNDS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_pieces_that_come_and_go_cost_no_new_pages():
    assert _faults("kept") < 10_000 < _faults("as it is")
