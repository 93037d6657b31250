"""One gateway and one simulated upstream for all tests of this folder, in one loop: a start takes 2 s."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from dashscope.api_entities.aio_session import close_shared_aio_session
from dashscope.api_entities.http_request import close_shared_sync_session

from tests.e2e.sdks.bed import Bed


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    async with Bed.serving(tmp_path_factory.mktemp("sdks")) as bed:
        yield bed
        close_shared_sync_session()
        await close_shared_aio_session()
