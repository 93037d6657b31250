"""`sluiceway serve`: from a configuration file to a running host.

Everything that can be wrong is found out here, before the first process starts, and said in one line on stderr with
what to do about it: the file, the addresses, the folder of `state`, the folder for sockets. Then the host is described
as a `Plan` and handed to the supervisor.

The children read the kept copy of the file and not the original, so that a process restarted later begins with the
configuration that is in force, whatever an editor has done to the original since. Only control looks at the original,
to notice just that (proxy.reload).
"""

import asyncio
import math
import os
import sys
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal

import orjson

from observability.board import LANES, Board
from observability.environment import with_instance
from observability.log import get_logger, set_up
from proxy.children import ChildSpec, python_module
from proxy.config.advice import advice
from proxy.config.complaints import Complaint, ConfigError
from proxy.config.file import read
from proxy.config.model import Document
from proxy.config.seal import VARIABLE as SEAL_KEY
from proxy.config.seal import fresh_key, plain_of, seal_of
from proxy.runtime import BOARD, METRICS, RuntimeDirectoryError, remove_abandoned, runtime_directory
from proxy.sockets import AddressError, Listeners, listen_alone
from proxy.state import Adopted, StateError, StateFolder
from proxy.supervisor import Plan, Supervisor

BAD_CONFIGURATION = 2
"""Exit code: the file, or an option that overrides it."""
BAD_MACHINE = 3
"""Exit code: an address, the state folder, the temporary folder."""

_RESOURCE: Final = "OTEL_RESOURCE_ATTRIBUTES"


def serve(path: Path, *, workers: int | Literal["auto"] | None = None, listen: str | None = None) -> int:
    """Run the gateway until a signal ends it. `workers` and `listen` go before the file. Returns the exit code."""
    options = {key: value for key, value in (("workers", workers), ("listen", listen)) if value is not None}
    try:
        text, document = read(path, os.environ, options, starting=True)
    except ConfigError as error:
        return _refuse(BAD_CONFIGURATION, *(_about(path, complaint) for complaint in error.complaints))
    with ExitStack() as stack:
        try:
            listeners = Listeners(document.listen, _count(document.workers, cores()))
            stack.callback(listeners.close)
            admin = stack.enter_context(listen_alone(document.admin.listen))
            state = stack.enter_context(StateFolder(Path(document.state.removeprefix("sqlite:")).parent))
            seal_key = fresh_key()
            adopted = state.adopt(text, seal_of(document, seal_key))
            if document.prices is not None:
                state.keep_prices(plain_of(document)["prices"])
            runtime = stack.enter_context(runtime_directory())
        except (AddressError, StateError, RuntimeDirectoryError) as error:
            return _refuse(BAD_MACHINE, str(error))
        set_up("supervisor", runtime=runtime)
        for warning in advice(document):
            get_logger(__name__).warning("configuration", path=warning.path, wrong=warning.wrong, hint=warning.right)
        if abandoned := remove_abandoned(runtime):
            folders = [str(folder) for folder in abandoned]
            get_logger(__name__).warning("removed_abandoned", folders=folders, hint="their supervisors were killed")
        plan = plan_of(path, options, document, adopted, seal_key, runtime, listeners, admin.fileno())
        return asyncio.run(Supervisor(plan, get_logger(__name__)).run())


def plan_of(
    path: Path,
    options: Mapping[str, object],
    document: Document,
    adopted: Adopted,
    seal_key: str,
    runtime: Path,
    listeners: Listeners,
    admin_fd: int,
) -> Plan:
    """Describe the processes of a host: `path` is its configuration file, `options` go before that. One worker for each
    listener; makes the board."""
    slots = len(listeners.fds)
    observers = _count(document.observers, math.ceil(slots / 2))
    environ = {
        "PROMETHEUS_MULTIPROC_DIR": str(runtime / METRICS),
        SEAL_KEY: seal_key,
        _RESOURCE: with_instance(os.environ.get(_RESOURCE, ""), str(uuid.uuid4())),
    }
    common = ("--runtime", str(runtime))
    configured = (*common, "--config", str(adopted.path))

    def worker(slot: int, fd: int, lane: int) -> ChildSpec:
        place = ("--slot", str(slot), "--row", str(lane * slots + slot), "--fd", str(fd))
        argv = python_module("proxy.worker", *place, "--observers", str(observers), *configured)
        return ChildSpec(f"worker-{slot}", argv, fds=(fd,), environ=environ)

    def observer(index: int) -> ChildSpec:
        argv = python_module("observability.observer", "--index", str(index), *common)
        return ChildSpec(f"observer-{index}", argv, environ=environ)

    original = ("--file", str(path.absolute()), "--options", orjson.dumps(options).decode())
    control = python_module("proxy.control", "--fd", str(admin_fd), *original, *configured)
    return Plan(
        runtime=runtime,
        generation=adopted.generation,
        board=Board.create(runtime / BOARD, slots),
        listeners=listeners,
        workers=[[worker(slot, fd, lane) for lane in range(LANES)] for slot, fd in enumerate(listeners.fds)],
        observers=[observer(index) for index in range(observers)],
        control=[ChildSpec("control", control, fds=(admin_fd,), environ=environ)],
        drain_delay_s=document.drain_delay_ms / 1000,
        drain_timeout_s=document.drain_timeout_ms / 1000,
    )


def cores(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many cores this process may use: its affinity, or the quota of its container where that is smaller.

    A worker for each core of a 64-core machine would throttle one another in a container that was given two.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup.read_text(encoding="ascii").split()
        return max(1, min(usable, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return usable


def _refuse(code: int, *lines: str) -> int:
    for line in lines:
        sys.stderr.write(f"sluiceway: {line}\n")
    return code


def _about(path: Path, complaint: Complaint) -> str:
    """Which file it is about: in the log of an init system the line stands alone."""
    return str(complaint) if complaint.path == str(path) else f"{path}: {complaint}"


def _count(wish: int | Literal["auto"], automatic: int) -> int:
    return automatic if wish == "auto" else wish
