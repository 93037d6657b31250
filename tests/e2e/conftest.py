"""What the tests of whole hosts share."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e.traffic import Client


@pytest.fixture(autouse=True)
async def _clients_leave() -> AsyncIterator[None]:
    """A test that fails must not fail again because of its open connections."""
    yield
    Client.leave_all()
