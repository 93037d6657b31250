"""A timer that epoll can wait for, exact to some 50 µs: epoll's own time limit is rounded up to whole milliseconds.

Python has timerfd from 3.13 on; before, libc's functions are called. One generator needs it, and one upstream: both
would otherwise do in bursts, a millisecond's work at once, what is to come evenly.
"""

from __future__ import annotations

import ctypes
import os
import time

_libc = ctypes.CDLL(None, use_errno=True)
_CLOCK_MONOTONIC, _NONBLOCK, _ABSOLUTE = 1, 0o4000, 1
_NS = 1_000_000_000


class _Instant(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Instant), ("value", _Instant))


class Alarm:
    """Becomes readable at the instant that was set. To be registered with epoll by its `fd`."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._setting = _Setting()
        self._set_to = 0

    def set(self, at_ns: int) -> None:
        """Rings at this instant of `time.monotonic_ns`, or at once where it has passed."""
        if at_ns == self._set_to:
            return
        self._set_to = at_ns
        value = self._setting.value
        value.seconds, value.nanoseconds = divmod(max(1, at_ns), _NS)
        _libc.timerfd_settime(self.fd, _ABSOLUTE, ctypes.byref(self._setting), None)

    def close(self) -> None:
        """It rings no more."""
        os.close(self.fd)

    def rung(self) -> None:
        """It was readable: not any more."""
        self._set_to = 0
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            pass


def now_ns() -> int:
    """CLOCK_MONOTONIC, the same in all processes."""
    return time.monotonic_ns()
