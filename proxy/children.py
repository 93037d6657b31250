"""One child process of the supervisor: started, watched, stopped.

A child is described as data (`ChildSpec`) and started with plain `subprocess`; its end is noticed through SIGCHLD and
`reap`. asyncio's own subprocesses would start a thread for each child on Python 3.11, to wait for it.

Children never outlive their parent. The kernel kills them when it dies, however it dies (PR_SET_PDEATHSIG): a gateway
whose supervisor was killed must leave no worker behind that holds the port, because the supervisor that an init system
starts a moment later would find it taken. SIGKILL and not SIGTERM, because a worker that drains for three minutes
holds the port just the same, and a hung one for ever.

Each child has a process group of its own, so that Ctrl-C in a terminal reaches the supervisor alone, which then drains.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a child that died waits before it is started again."""

    first_s: float = 0.1
    """One crash is over before a client's retry; it is not worth a longer gap."""
    longest_s: float = 10.0
    """Reached at the eighth crash in a row: rare enough to spare the host, soon enough after the cause is mended."""
    healthy_after_s: float = 30.0
    """A child that lived this long begins at `first_s` again."""

    def delay_s(self, failures: int) -> float:
        """The wait after the given number of deaths in a row (1, 2, …): doubled each time, up to `longest_s`."""
        return min(self.first_s * 2.0 ** min(failures - 1, 32), self.longest_s)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to start."""

    name: str
    """For the log: `worker-0`, `observer-1`, `control`."""
    argv: tuple[str, ...]
    fds: tuple[int, ...] = ()
    """Descriptors that the child inherits under the same numbers."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Added to the inherited environment."""
    backoff: Backoff = Backoff()


@dataclass(frozen=True, slots=True)
class Ending:
    """How one life of a child ended."""

    pid: int
    code: int
    """As `subprocess` has it: the exit code, or minus the signal number."""
    uptime_s: float

    @property
    def how(self) -> str:
        """For the log: `exit code 3` or `SIGKILL`."""
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            return signal.Signals(-self.code).name
        except ValueError:  # a real-time signal has no name
            return f"signal {-self.code}"


class Child:
    """A child and its successive processes."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.failures = 0
        """Deaths in a row, none of them after `healthy_after_s`."""
        self.ended = asyncio.Event()
        """Set while there is no process."""
        self.ended.set()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    @property
    def pid(self) -> int | None:
        """The process id, None while there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process. Raises OSError where the system cannot (no memory, no more processes)."""
        self._process = subprocess.Popen(  # noqa: S603 - our own modules, or what a test describes
            self.spec.argv,
            stdin=subprocess.DEVNULL,
            pass_fds=self.spec.fds,
            env={**os.environ, **self.spec.environ},
            process_group=0,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - see there
        )
        self._started_at = time.monotonic()
        self.ended.clear()

    def reap(self) -> Ending | None:
        """Tell how the process ended, once; None while it runs."""
        process = self._process
        if process is None or process.poll() is None:
            return None
        self._process = None
        ending = Ending(process.pid, process.returncode, time.monotonic() - self._started_at)
        healthy = ending.uptime_s >= self.spec.backoff.healthy_after_s
        self.failures = 1 if healthy else self.failures + 1
        self.ended.set()
        return ending

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process. Between its death and `reap` it is a zombie, so the id stays ours."""
        if self._process is not None:
            self._process.send_signal(number)


def _die_with(parent: int) -> Callable[[], None] | None:
    """Between fork and exec: have the kernel kill this process when `parent` dies. Linux; None elsewhere.

    And SIGHUP is ignored until the child says otherwise: the supervisor hands it on, maybe to one that has just begun.

    Code runs here in a copy of a process that has a second thread (it writes the log), whose locks stay as they were.
    So it is system calls, prepared before the fork: no import, no log line, no lock.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return arrange


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs one of our own modules, found where this code itself was found.

    `python -m` looks in the current folder first. Unless our packages really are there, that is switched off (-P): a
    folder called `proxy` beside the configuration file must not be run in place of the gateway.
    """
    here = Path(__file__).resolve().parent.parent == Path.cwd()
    return (sys.executable, *(() if here else ("-P",)), "-m", module, *arguments)
