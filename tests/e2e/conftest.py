"""What the tests of whole hosts share."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e.traffic import Client


@pytest.fixture(autouse=True)
def _clients_leave(request: pytest.FixtureRequest) -> None:
    """For tests with a loop of their own: who shares one with a module or a folder has no `Client`, and a second loop
    would take the signals of the first."""
    marker = request.node.get_closest_marker("asyncio")
    if marker is not None and "loop_scope" not in marker.kwargs:
        request.getfixturevalue("clients")


@pytest.fixture
async def clients() -> AsyncIterator[None]:
    """A test that fails must not fail again because of its open connections."""
    yield
    Client.leave_all()
