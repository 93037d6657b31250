"""Real servers of other makers, as a test needs them: nginx behind the gateway, tinyproxy between.

They are the judges of what we send, so nothing of ours stands in for them. Where one is not installed its tests are
skipped; in CI, which installs them and sets REAL_PROGRAMS=required, a missing one is a failure.
"""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from benchmarks.ports import free_port

WAIT_S = 30.0
"""Bound of the wait for a program that starts; nothing depends on how long it takes."""


def program(name: str) -> str:
    """The path of a program; skips the test that asks where it is missing, or fails it in CI."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    if os.environ.get("REAL_PROGRAMS") == "required":
        pytest.fail(f"{name} is not installed, and CI is to run this test")
    pytest.skip(f"{name} is not installed (apt-get install {name})")


@contextlib.asynccontextmanager
async def started(
    *command: str, port: int, environ: Mapping[str, str] | None = None, wait_s: float = WAIT_S
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program in the foreground, from when it listens on `port` of 127.0.0.1; ended, and killed if need be.

    `environ`: beside ours.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environ or {})},
    )
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    try:
        async with asyncio.timeout(wait_s):
            while not await _listens(port):
                assert process.returncode is None, f"{command[0]} ended: {(await errors).decode()}"
                await asyncio.sleep(0.02)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()
        await errors


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


class Nginx:
    """A running nginx: `port` of 127.0.0.1, `access_log` lines of what it took for requests."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._log = folder / "access.log"

    @property
    def access_log(self) -> list[str]:
        """One line for each request that nginx has answered; it writes one when its answer is out."""
        return self._log.read_text(encoding="utf-8", errors="backslashreplace").splitlines()

    async def logged(self, count: int) -> list[str]:
        """Its lines, once there are as many: whoever has the answer may be here before the line is."""
        async with asyncio.timeout(WAIT_S):
            while len(self.access_log) < count:
                await asyncio.sleep(0.01)
        return self.access_log


@contextlib.asynccontextmanager
async def nginx(
    folder: Path, server: str, *, listen: str = "", log_format: str = "$request", http: str = ""
) -> AsyncIterator[Nginx]:
    """A real nginx with one `server { listen 127.0.0.1:PORT <listen>; <server> }`; files in `folder`."""
    path = program("nginx")
    port = free_port()
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # the test's folder is for its owner alone
    configuration.write_text(
        f"""
daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log info; {user}
events {{ worker_connections 4096; }}
http {{
  {temporary}
  log_format judged escape=json '{log_format}';
  access_log {folder}/access.log judged;
  {http}
  server {{ listen 127.0.0.1:{port} {listen}; {server} }}
}}
""",
        encoding="utf-8",
    )
    (folder / "access.log").touch()
    async with started(path, "-e", f"{folder}/error.log", "-c", str(configuration), port=port):
        yield Nginx(folder, port)


class Tinyproxy:
    """A running tinyproxy on `port` of 127.0.0.1."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self._log = log

    @property
    def connects(self) -> list[str]:
        """The targets of the CONNECTs that it was asked for, refused ones included."""
        return re.findall(r"\): CONNECT (\S+)", self._log.read_text(encoding="utf-8", errors="backslashreplace"))


@contextlib.asynccontextmanager
async def tinyproxy(folder: Path, *lines: str) -> AsyncIterator[Tinyproxy]:
    """A real egress proxy, with further lines of configuration (`BasicAuth team s3cret`); files in `folder`."""
    path = program("tinyproxy")
    port, log = free_port(), folder / "tinyproxy.log"
    configuration = folder / "tinyproxy.conf"
    said = (f"Port {port}", "Listen 127.0.0.1", "Allow 127.0.0.1", "MaxClients 50", f'LogFile "{log}"', "LogLevel Info")
    configuration.write_text("\n".join((*said, *lines)) + "\n", encoding="utf-8")
    log.touch(mode=0o666)
    async with started(path, "-d", "-c", str(configuration), port=port):
        yield Tinyproxy(port, log)
