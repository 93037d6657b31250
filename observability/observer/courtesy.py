"""An observer lets others go first: whoever wakes up on its core, a worker or a client's program, runs at once.

It works in bursts, a batch of records in a millisecond or two, and Linux lets a process finish its slice of about three
before one that woke up gets the core. With the longest slice there is it is the one that can wait (EEVDF: the earlier
deadline goes first, since Linux 6.12); it gets no smaller share of the core in the end, so it does not fall behind, as
it would with a worse `nice`. A batch job besides, its own waking interrupts nobody. Source: sched(7), sched_setattr(2).
"""

import ctypes
import os
import platform
import struct
from typing import Final

LONGEST_SLICE_NS: Final = 100_000_000
"""What the kernel takes at most."""
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "s390x": 345, "ppc64le": 355}
"""The system call's number; Python has no function for it."""


def let_others_go_first() -> None:
    """Of this thread and those it will start. Where the system knows no such thing nothing changes."""
    if not hasattr(os, "SCHED_BATCH"):
        return
    number = _SCHED_SETATTR.get(platform.machine())
    if number is not None:
        size = struct.calcsize("=IIQiIQQQ")
        attributes = struct.pack("=IIQiIQQQ", size, os.SCHED_BATCH, 0, os.nice(0), 0, LONGEST_SLICE_NS, 0, 0)
        if ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0) == 0:
            return
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:  # a container may forbid it
        pass
