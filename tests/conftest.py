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
    """What is compiled (setup.py) is what is tested: it must not be older than its source."""
    for room in ("proxy", "observability"):
        for compiled in (Path(__file__).parent.parent / room).rglob("*.so"):
            source = compiled.with_name(f"{compiled.name.partition('.')[0]}.py")
            if source.exists() and source.stat().st_mtime > compiled.stat().st_mtime:
                raise pytest.UsageError(
                    f"{source} was compiled before it was changed: `make compiled`, or `make python`"
                )
