"""A simulated upstream on a real socket, in the test's own loop."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from benchmarks.upstream.server import Upstream, start


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    running = await start()
    yield running
    await running.stop()


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession(auto_decompress=False) as opened:
        yield opened
