"""The whole gateway as a user starts it: `sluiceway serve` as a process, its lines read from stdout as they come.

    async with Gateway.serving(document, folder) as gateway:
        …requests to gateway.url…
        records = await gateway.records(3)

Ports are picked by the test (free ones of 127.0.0.1); the state folder is the test's own.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import aiohttp
import orjson

from benchmarks.ports import free_port
from observability.board import Board

WAIT_S = 60.0
"""Bound of every wait: a start on a machine whose cores are all busy. Nothing depends on how long one takes."""


class Lines:
    """The JSON lines of a process, kept by their `event`."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self.other: list[bytes] = []
        """Lines that are not JSON: there should be none."""
        self._came = asyncio.Condition()

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Until the end of the stream."""
        while line := await stream.readline():
            if line == b"\n":  # after a kill: the next writer ended a line that might have been cut
                continue
            async with self._came:
                try:
                    self.all.append(orjson.loads(line))
                except orjson.JSONDecodeError:
                    self.other.append(line)
                self._came.notify_all()

    def of(self, event: str) -> list[dict[str, Any]]:
        """The lines of an event so far."""
        return [line for line in self.all if line.get("event") == event]

    async def wait(self, event: str, count: int = 1, **having: Any) -> list[dict[str, Any]]:
        """The first `count` lines of an event with these fields, as soon as there are as many."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.of(event) if all(line.get(key) == value for key, value in having.items())]

        async with asyncio.timeout(WAIT_S), self._came:
            await self._came.wait_for(lambda: len(found()) >= count)
        return found()


class Gateway:
    """A running gateway."""

    def __init__(self, process: asyncio.subprocess.Process, file: Path, port: int, admin_port: int) -> None:
        self.process = process
        self.file = file
        """Its configuration."""
        self.port = port
        self.admin_port = admin_port
        self.lines = Lines()
        self.errors = bytearray()
        """What came on stderr."""
        self._readers: list[asyncio.Task[None]] = []
        self._board: Board | None = None

    @property
    def board(self) -> Board:
        """The shared counts. Once looked at, they stay readable after the gateway has ended."""
        if self._board is None:
            self._board = Board.open(self.runtime / "board")
        return self._board

    @property
    def runtime(self) -> Path:
        """Its runtime directory."""
        argv = Path(f"/proc/{self.pids('proxy.control')[0]}/cmdline").read_bytes().split(b"\0")
        return Path(argv[argv.index(b"--runtime") + 1].decode())

    @property
    def url(self) -> str:
        """Of the data listener."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        """Of control."""
        return f"http://127.0.0.1:{self.admin_port}"

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(
        cls,
        document: dict[str, Any],
        folder: Path,
        *,
        workers: int = 1,
        environ: Mapping[str, str] | None = None,
        token: str = "",
    ) -> AsyncIterator["Gateway"]:
        """Start with `document` (listen, admin and state are set here), wait until it is ready, end it afterwards."""
        port, admin_port = free_port(), free_port()
        document = {
            "listen": f"127.0.0.1:{port}",
            "workers": workers,
            "admin": {"listen": f"127.0.0.1:{admin_port}", "token": token},
            "state": f"sqlite:{folder}/state/state.db",
            **document,
        }
        path = folder / "sluiceway.yaml"
        path.write_bytes(orjson.dumps(document))  # JSON is YAML
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "proxy.cli", "serve", "-c", str(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(environ or {})},
            limit=1 << 20,
        )
        gateway = cls(process, path, port, admin_port)
        assert process.stdout is not None
        gateway._readers = [
            asyncio.create_task(gateway.lines.read(process.stdout)),
            asyncio.create_task(gateway._read_errors()),
        ]
        try:
            await gateway._ready()
            yield gateway
        finally:
            await gateway.end()

    async def _ready(self) -> None:
        ready = asyncio.create_task(self.lines.wait("ready"))
        ended = asyncio.create_task(self.process.wait())
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not ready.done():
            ready.cancel()
            raise AssertionError(f"the gateway ended: {bytes(self.errors).decode()}")
        await ready

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65536):
            self.errors += data

    async def records(self, count: int, **having: Any) -> list[dict[str, Any]]:
        """The first `count` request lines (with these fields, dots as in the log)."""
        return await self.lines.wait("request", count, **having)

    def records_so_far(self) -> list[dict[str, Any]]:
        """All request lines that were read; all there are, once the gateway has ended."""
        return self.lines.of("request")

    def pids(self, module: str) -> list[int]:
        """Processes of this gateway that run a module: `proxy.worker`, `proxy.control`, `observability.observer`."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if module.encode() in argv and int(parent) == self.process.pid:
                    found.append(int(entry.name))
        return sorted(found)

    async def metrics(self) -> dict[str, float]:
        """All samples of control's /metrics: `name{labels}` → value."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin_url}/metrics") as response:
            text = await response.text()
        samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    async def readiness(self) -> int:
        """Status of control's /readyz."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin_url}/readyz") as response:
            return response.status

    @property
    def stdout(self) -> asyncio.ReadTransport:
        """Our end of its stdout: after `pause_reading` it takes what fits into the kernel's buffer and no more."""
        transport: asyncio.ReadTransport = cast(Any, self.process)._transport.get_pipe_transport(1)
        return transport

    def complaints(self) -> list[Any]:
        """What a gateway in good health never says: lines of level error, lines that are no JSON, stderr."""
        loud = [line for line in self.lines.all if line.get("level") in {"error", "critical"} and "exception" in line]
        loud += [line for line in self.lines.all if line.get("level") == "error" and line["event"] != "request"]
        return [*loud, *self.lines.other, *([bytes(self.errors)] if self.errors else [])]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    async def exited(self) -> None:
        """Until the supervisor's process is gone, though its stdout may hold lines that nobody has read."""
        gone = asyncio.Event()
        pidfd = os.pidfd_open(self.process.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(pidfd, gone.set)
        try:
            await asyncio.wait_for(gone.wait(), WAIT_S)
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    async def wait(self) -> int:
        """Until the gateway has ended and all its lines are read; its exit code."""
        code = await asyncio.wait_for(self.process.wait(), WAIT_S)
        await asyncio.wait_for(asyncio.gather(*self._readers), WAIT_S)
        return code

    async def end(self) -> None:
        """End it, by force if it must be."""
        self.stdout.resume_reading()  # a test may have failed while it was paused
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 15)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await asyncio.gather(*self._readers)
