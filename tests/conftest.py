"""What all tests share: the event loop of production."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on uvloop, as the workers do; some modules add asyncio's own loop themselves."""
    return {"uvloop": uvloop.new_event_loop}
