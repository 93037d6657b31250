"""The simulated upstream as a process of its own, as the benchmarks run it, and a way to its ledger.

async with Simulated.running() as upstream:
    …requests to upstream.url…
    entry = await upstream.finished("an x-sim-id")
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

WAIT_S = 60.0
"""Bound of its start and of its end, on a machine whose cores are all busy."""


class Simulated:
    """A running simulated upstream."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator["Simulated"]:
        """On a free port of 127.0.0.1, until the end of the block."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, *("-m", "benchmarks.upstream", "--listen", "127.0.0.1:0"), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), WAIT_S)
            assert b" on http://" in line, f"the simulated upstream said {line!r}"
            yield cls(process, line.split()[-1].decode())
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await asyncio.wait_for(process.communicate(), WAIT_S)  # to the end of its output, or the pipe stays open

    async def finished(self, name: str) -> dict[str, Any]:
        """The ledger's newest entry of that id, as soon as its exchange is over."""
        entries = await self._entries(id=name, until="finished")
        return entries[-1]

    async def seen(self, name: str) -> list[dict[str, Any]]:
        """All entries of that id so far."""
        return await self._entries(id=name)

    async def arrived(self, name: str) -> dict[str, Any]:
        """The ledger's newest entry of that id, as soon as its head was read."""
        entries = await self._entries(id=name, until="seen")
        return entries[-1]

    async def ledger(self) -> list[dict[str, Any]]:
        """All entries, oldest first."""
        return await self._entries()

    async def stats(self) -> dict[str, int]:
        """Counts by name; `in_flight` among them."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/sim/stats") as response:
            counts: dict[str, int] = await response.json()
            return counts

    async def open(self, name: str) -> None:
        """Let the newest request of that id go on that waits at `gate-after`."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/sim/open", params={"id": name}) as response,
        ):
            assert (await response.json())["opened"] == 1

    async def _entries(self, **query: str) -> list[dict[str, Any]]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/sim/requests", params=query) as response,
        ):
            assert response.status == 200, await response.text()
            entries: list[dict[str, Any]] = (await response.json())["requests"]
            return entries
