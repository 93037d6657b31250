"""What all tests share: the event loop of production."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop
from hypothesis import settings

settings.register_profile("busy", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("busy")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on uvloop, as the workers do; some modules add asyncio's own loop themselves."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_sessionstart() -> None:
    """What is compiled (setup.py) is what is tested: it has constants of all modules, so it is the latest."""
    rooms = [Path(__file__).parent.parent / room for room in ("proxy", "observability")]
    compiled_at = [path.stat().st_mtime for room in rooms for path in room.rglob("*.so")]
    latest = max((path for room in rooms for path in room.rglob("*.py")), key=lambda path: path.stat().st_mtime)
    if compiled_at and latest.stat().st_mtime > min(compiled_at):
        raise pytest.UsageError(f"{latest} has changed since all was compiled: `make compiled`, or `make python`")
