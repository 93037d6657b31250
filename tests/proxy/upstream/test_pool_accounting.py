"""No place of a limited pool is ever lost: callers that leave, time out, give back and lose connections in any order.

Places are lost between two turns of the loop, so most steps here take none: a step that needs one says so.
"""

import asyncio
import random
import time
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import GatewayError, TargetUnusableError, UpstreamError
from proxy.upstream.address import Address
from proxy.upstream.connection import Connection
from proxy.upstream.pool import Pool
from tests.fakes.scripted import ReadHead, Scripted, Send, Step
from tests.proxy.upstream.conftest import NewPool

REQUEST: Final = b"GET / HTTP/1.1\r\nhost: upstream\r\n\r\n"
ANSWERS: Final[list[Step]] = [ReadHead(), Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")] * 300
TIMEOUT_MS: Final = 20
STEPS: Final = (
    "acquire",
    "acquire",
    "acquire fresh",
    "cancel",
    "use",
    "use",
    "release",
    "release",
    "die",
    "turn",
    "late",
)


async def use(connection: Connection) -> None:
    """One exchange, so that the connection can serve another; nothing where it is lost."""
    try:
        connection.begin(b"GET", 0)
        connection.write(REQUEST)
        connection.request_complete = True
        await connection.read_head()
        while await connection.read():
            pass
    except UpstreamError:
        pass


async def until_waiting_are(pool: Pool, count: int) -> None:
    while f"{count} waiting" not in repr(pool):
        await asyncio.sleep(0)


class Callers:
    """Any number of callers of one pool. `pick` says which of them a step is for."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._asking: list[asyncio.Task[None]] = []
        self._held: list[tuple[Connection, bool]] = []
        self._known: list[Connection] = []

    async def _acquire(self, fresh: bool) -> None:
        try:
            connection = await self._pool.acquire(fresh)
        except GatewayError:
            return  # timed out
        self._known.append(connection)
        self._held.append((connection, False))

    async def step(self, what: str, pick: int) -> None:
        if what in {"acquire", "acquire fresh"}:
            self._asking.append(asyncio.create_task(self._acquire(what != "acquire")))
        elif what == "cancel" and self._asking:
            self._asking.pop(pick % len(self._asking)).cancel()
        elif what == "use" and self._held:
            connection, used = self._held.pop(pick % len(self._held))
            if not used:
                await use(connection)
            self._held.append((connection, True))
        elif what == "release" and self._held:
            self._pool.release(self._held.pop(pick % len(self._held))[0])
        elif what == "die" and self._known:  # in use, idle, or just granted
            self._known[pick % len(self._known)].abort()
        elif what == "turn":
            await asyncio.sleep(0)
        elif what == "late":  # the loop was busy: all timers that are due fire in one turn, with whatever comes next
            time.sleep(TIMEOUT_MS / 1000)

    async def quiet(self) -> None:
        for task in self._asking:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*self._asking, return_exceptions=True), 30)
        for connection, _ in self._held:
            self._pool.release(connection)
        self._held.clear()


async def every_place_can_be_used(pool: Pool, places: int) -> None:
    """At quiet: nothing is counted that is not there, and `places` connections can be had at once."""
    assert (pool.open_connections, "0 waiting" in repr(pool)) == (pool.idle_connections, True)
    held: list[Connection] = []
    while len(held) < places:
        try:
            held.append(await pool.acquire())
        except GatewayError as error:
            assert "busy" not in error.message  # noqa: PT017  (a slow machine may miss the timeout)
    assert pool.open_connections == places
    for connection in held:
        pool.release(connection)
    pool.close()
    assert pool.open_connections == 0


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5)), max_size=30))
async def test_any_order(places: int, steps: list[tuple[str, int]]) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = Pool(Address("http", "127.0.0.1", upstream.port), connect_timeout_ms=TIMEOUT_MS, max_connections=places)
        callers = Callers(pool)
        for what, pick in steps:
            await callers.step(what, pick)
        await callers.quiet()
        await every_place_can_be_used(pool, places)


@pytest.mark.parametrize("seed", range(20))
async def test_long_runs(seed: int) -> None:
    """Longer than Hypothesis would write, where callers crowd."""
    dice = random.Random(seed)
    async with Scripted(*ANSWERS) as upstream:
        pool = Pool(Address("http", "127.0.0.1", upstream.port), connect_timeout_ms=TIMEOUT_MS, max_connections=2)
        callers = Callers(pool)
        for _ in range(300):
            await callers.step(dice.choice(STEPS[:-1]), dice.randrange(8))
        await callers.quiet()
        await every_place_can_be_used(pool, 2)


@pytest.mark.parametrize("used", [True, False], ids=["a connection", "a place"])
async def test_waiter_cancelled_just_before_the_grant(new_pool: NewPool, used: bool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, max_connections=1)
        held = await pool.acquire()
        if used:
            await use(held)
        leaving, staying = (asyncio.create_task(pool.acquire()) for _ in range(2))
        await until_waiting_are(pool, 2)
        leaving.cancel()
        pool.release(held)  # before the cancelled task has run
        granted = await staying
        assert ((granted is held), pool.open_connections) == (used, 1)
        pool.release(granted)


async def test_waiter_that_times_out_in_the_turn_of_the_grant(new_pool: NewPool) -> None:
    loop = asyncio.get_running_loop()
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, connect_timeout_ms=TIMEOUT_MS, max_connections=1)
        held = await pool.acquire()
        await use(held)
        waiting = asyncio.create_task(pool.acquire())
        await until_waiting_are(pool, 1)
        loop.call_later(2 * TIMEOUT_MS / 1000, pool.release, held)
        time.sleep(3 * TIMEOUT_MS / 1000)  # both timers are due when the loop looks again
        with pytest.raises(TargetUnusableError, match="busy"):
            await waiting
        assert (pool.open_connections, pool.idle_connections) == (1, 1)


async def test_connection_handed_on_after_the_pool_was_closed(new_pool: NewPool) -> None:
    """Its waiter left in the moment of the grant: nobody else will want it."""
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, max_connections=1)
        held = await pool.acquire()
        await use(held)
        waiting = asyncio.create_task(pool.acquire())
        await until_waiting_are(pool, 1)
        pool.release(held)
        pool.close()
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert (held.closed, pool.open_connections) == (True, 0)
