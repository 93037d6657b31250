"""Blocking SDKs in a thread, so that the servers in the test's loop can answer them."""

import asyncio
from collections.abc import Callable
from typing import Any


async def aside(function: Callable[..., Any], *arguments: object, **options: object) -> Any:
    """Calls it in a thread and waits for its result."""
    return await asyncio.to_thread(function, *arguments, **options)
