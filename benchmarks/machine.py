"""What the benchmarks need to know of the machine: cores, CPU time and memory (from ``/proc``), and versions."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def fields_of(pid: int) -> list[str]:
    """``/proc/<pid>/stat`` after the command's name: [0] is the state, [1] the parent, [11] utime, [12] stime."""
    text = (PROC / str(pid) / "stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def arguments_of(pid: int) -> list[str]:
    """The command line; empty when the process is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def family_of(pid: int) -> list[int]:
    """The process and all its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            try:
                children.setdefault(int(fields_of(int(entry.name))[1]), []).append(int(entry.name))
            except OSError:
                continue  # it ended meanwhile
    family = [pid]
    for member in family:
        family.extend(children.get(member, []))
    return family


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its living descendants, and of the children they have waited for."""
    ticks = 0
    for member in family_of(pid):
        try:
            ticks += sum(int(value) for value in fields_of(member)[11:15])
        except OSError:
            continue
    return ticks / TICKS_PER_S


def worker_of(pid: int, module: str = "proxy.worker") -> int | None:
    """The descendant that runs this module, as ``sluiceway serve`` starts it; the process itself may be it."""
    return next((member for member in family_of(pid) if module in arguments_of(member)), None)


def pin(pid: int, core: int) -> None:
    """Every thread of the process runs on this core alone from now on."""
    for thread in (PROC / str(pid) / "task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """Seconds since boot: `work` of programs and the kernel for them (and what the hypervisor took), `all`."""

    busy: float
    work: float  # busy without interrupts, which no process is charged for
    all: float


def core_times(core: int) -> CoreTimes:
    """What a core has done since boot."""
    for line in (PROC / "stat").read_text().splitlines():
        name, *values = line.split()
        if name == f"cpu{core}":
            user, nice, system, idle, waiting, interrupts, soft, stolen = (int(value) for value in values[:8])
            work = user + nice + system + stolen
            total = work + idle + waiting + interrupts + soft
            return CoreTimes((total - idle - waiting) / TICKS_PER_S, work / TICKS_PER_S, total / TICKS_PER_S)
    raise ValueError(f"no core {core}")


def reset_peak_memory(pid: int) -> None:
    """Makes VmHWM start again from the present size (``clear_refs`` 5)."""
    (PROC / str(pid) / "clear_refs").write_text("5")


def peak_memory_bytes(pid: int) -> int:
    """Largest resident size since the start or the last reset."""
    found = re.search(r"VmHWM:\s+(\d+) kB", (PROC / str(pid) / "status").read_text())
    if found is None:
        raise ValueError(f"no VmHWM of {pid}")
    return int(found[1]) * 1024


def memory_bytes(pid: int) -> int:
    """Resident size now."""
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * resource.getpagesize()


def two_cores() -> tuple[int, int]:
    """One core for the contestants and another for everything else; raises ValueError where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ValueError("two cores are needed: one for the contestants, one for everything else")
    return cores[0], cores[1]


def description() -> dict[str, str]:
    """The machine and the versions that a figure belongs to."""
    cpu = re.search(r"model name\s*: (.*)", (PROC / "cpuinfo").read_text())
    siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    described = {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "siblings_of_cpu0": siblings.read_text().strip() if siblings.exists() else "unknown",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": says(["nginx", "-v"]),
        "wrk": says(["wrk", "-v"]),
    }
    for package in ("sluiceway", "aiohttp", "uvloop", "httptools", "orjson"):
        try:
            described[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            described[package] = "not installed"
    return described


def says(command: list[str]) -> str:
    """The first line that a program prints, its version as a rule; "unknown" where it is not there."""
    if shutil.which(command[0]) is None:
        return "unknown"
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # wrk -v exits 1
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"
