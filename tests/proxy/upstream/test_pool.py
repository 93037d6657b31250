"""Which connection a request gets, who waits for one, and that none is lost, over real sockets."""

import asyncio

import pytest

from proxy.errors import TargetUnusableError, UpstreamError
from proxy.upstream.connection import Connection
from proxy.upstream.pool import AGE_S, IDLE_S, Pool
from tests.fakes.scripted import Fin, ReadHead, Reset, Scripted, Send, Stall, Step, Tell, Unaccepting, Wait
from tests.proxy.upstream.conftest import NewPool

REQUEST = b"GET / HTTP/1.1\r\nhost: upstream\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
ANSWERS: list[Step] = [ReadHead(), Send(ANSWER)] * 8


class Clock:
    """A monotonic clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def exchange(connection: Connection) -> None:
    connection.begin(b"GET", 0)
    connection.write(REQUEST)
    connection.request_complete = True
    assert (await connection.read_head()).status == 200
    while await connection.read():
        pass


async def use(pool: Pool, *, fresh: bool = False) -> Connection:
    connection = await pool.acquire(fresh)
    await exchange(connection)
    pool.release(connection)
    return connection


async def until_idle_are(pool: Pool, count: int) -> None:
    while pool.idle_connections != count:
        await asyncio.sleep(0)


async def until_waiting_are(pool: Pool, count: int) -> None:
    while f"{count} waiting" not in repr(pool):
        await asyncio.sleep(0)


async def test_kept_and_used_again(new_pool: NewPool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port)
        first = await use(pool)
        assert first.reused  # for whoever comes next
        assert await use(pool) is first
        assert repr(pool) == f"<Pool 127.0.0.1:{upstream.port} 1 open, 1 idle, 0 waiting>"
        assert len(upstream.connections) == 1


async def test_last_in_first_out(new_pool: NewPool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port)
        one, two = await pool.acquire(), await pool.acquire()
        for connection in (one, two):
            await exchange(connection)
            pool.release(connection)
        assert await pool.acquire() is two
        assert await pool.acquire() is one
        pool.release(one)
        pool.release(two)


async def test_fresh_is_fresh(new_pool: NewPool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port)
        kept = await use(pool)
        other = await pool.acquire(fresh=True)
        assert other is not kept
        assert not other.reused
        pool.release(other)


async def test_unfinished_exchanges_are_not_kept(new_pool: NewPool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port)
        never_begun = await pool.acquire()
        pool.release(never_begun)
        not_read = await pool.acquire()
        not_read.begin(b"GET", 0)
        not_read.write(REQUEST)
        not_read.request_complete = True
        pool.release(not_read)
        half_sent = await pool.acquire()
        half_sent.begin(b"POST", 0)
        half_sent.write(REQUEST)
        await half_sent.read_head()
        pool.release(half_sent)
        assert pool.open_connections == 0
        assert all(c.closed for c in (never_begun, not_read, half_sent))


@pytest.mark.parametrize("leave", [Fin(), Reset(), Send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")])
async def test_idle_connection_that_ends_is_dropped_at_once(new_pool: NewPool, leave: Step) -> None:
    may_leave = asyncio.Event()
    async with Scripted.each([ReadHead(), Send(ANSWER), Wait(may_leave), leave], ANSWERS) as upstream:
        pool = new_pool(upstream.port)
        await use(pool)
        assert pool.idle_connections == 1
        may_leave.set()
        await until_idle_are(pool, 0)
        assert pool.open_connections == 0
        connection = await pool.acquire()
        assert not connection.reused
        pool.release(connection)


async def test_reused_connection_that_dies_says_so(new_pool: NewPool) -> None:
    """The fact that a pipeline needs to send the request again on a fresh connection."""
    async with Scripted(ReadHead(), Send(ANSWER), ReadHead(), Reset()) as upstream:
        pool = new_pool(upstream.port)
        await use(pool)
        connection = await pool.acquire()
        connection.begin(b"GET", 0)
        connection.write(REQUEST)
        connection.request_complete = True
        with pytest.raises(UpstreamError) as raised:
            await connection.read_head()
        assert (raised.value.kind, connection.reused, connection.response_started) == ("upstream_protocol", True, False)
        pool.release(connection)


async def test_idle_limit(new_pool: NewPool) -> None:
    clock = Clock()
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, clock=clock)
        first = await use(pool)
        clock.now += IDLE_S - 1
        assert await use(pool) is first
        clock.now += IDLE_S
        assert await use(pool) is not first
        assert (first.closed, pool.open_connections) == (True, 1)


async def test_age_limit(new_pool: NewPool) -> None:
    clock = Clock()
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, clock=clock, idle_s=10 * AGE_S)
        first = await use(pool)
        clock.now += AGE_S
        second = await pool.acquire()
        assert second is not first
        await exchange(second)
        clock.now += AGE_S
        pool.release(second)
        assert pool.open_connections == 0


async def test_sweep_closes_only_what_was_idle_too_long(new_pool: NewPool) -> None:
    clock = Clock()
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, clock=clock)
        old, young = await pool.acquire(), await pool.acquire()
        for connection in (old, young):
            await exchange(connection)
            pool.release(connection)
            clock.now += IDLE_S / 2
        pool.sweep()
        assert (old.closed, young.closed, pool.idle_connections) == (True, False, 1)
        await (await upstream.connection(0)).closed.wait()


async def test_sweeps_by_itself(new_pool: NewPool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, idle_s=0.02)
        await use(pool)
        await until_idle_are(pool, 0)
        await (await upstream.connection(0)).closed.wait()


async def test_limit_hands_connections_on_in_order(new_pool: NewPool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, max_connections=1)
        held = await pool.acquire()
        order: list[int] = []

        async def wait(number: int) -> None:
            connection = await pool.acquire()
            order.append(number)
            await exchange(connection)
            pool.release(connection)

        tasks = [asyncio.create_task(wait(number)) for number in range(3)]
        await until_waiting_are(pool, 3)
        await exchange(held)
        pool.release(held)
        await asyncio.gather(*tasks)
        assert (order, len(upstream.connections), pool.open_connections) == ([0, 1, 2], 1, 1)


async def test_limit_hands_places_on(new_pool: NewPool) -> None:
    """A connection that ends makes room for one to be opened; so does an idle one, for who wants a fresh one."""
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, max_connections=1)
        held = await pool.acquire()
        waiting = asyncio.create_task(use(pool))
        await until_waiting_are(pool, 1)
        pool.release(held)  # never used: closed
        second = await waiting
        assert (held.closed, second is held, pool.open_connections) == (True, False, 1)
        third = await use(pool, fresh=True)
        assert (second.closed, third is second, pool.open_connections) == (True, False, 1)


async def test_waiter_for_a_fresh_connection_gets_no_used_one(new_pool: NewPool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, max_connections=1)
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire(fresh=True))
        await until_waiting_are(pool, 1)
        await exchange(held)
        pool.release(held)
        fresh = await waiting
        assert (fresh is held, fresh.reused, held.closed, pool.open_connections) == (False, False, True, 1)
        pool.release(fresh)


async def test_all_busy(new_pool: NewPool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, max_connections=2, connect_timeout_ms=30)
        held = [await pool.acquire() for _ in range(2)]
        with pytest.raises(TargetUnusableError, match="all 2 connections to the upstream are busy") as raised:
            await pool.acquire()
        assert raised.value.kind == "overloaded"
        assert "0 waiting" in repr(pool)
        for connection in held:
            pool.release(connection)


async def test_cancelled_waiter_takes_no_place(new_pool: NewPool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, max_connections=1)
        held = await pool.acquire()
        waiting = [asyncio.create_task(pool.acquire()) for _ in range(2)]
        await until_waiting_are(pool, 2)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert "1 waiting" in repr(pool)
        await exchange(held)
        pool.release(held)
        assert await waiting[1] is held
        pool.release(held)


@pytest.mark.parametrize("used", [True, False], ids=["a connection", "a place"])
async def test_waiter_cancelled_in_the_moment_of_the_grant(new_pool: NewPool, used: bool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, max_connections=1)
        held = await pool.acquire()
        if used:
            await exchange(held)
        waiting = [asyncio.create_task(use(pool)) for _ in range(2)]
        await until_waiting_are(pool, 2)
        pool.release(held)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert (await waiting[1] is held) is used
        assert pool.open_connections == 1


async def test_granted_connection_that_ends_before_its_waiter_runs(new_pool: NewPool) -> None:
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port, max_connections=1)
        held = await pool.acquire()
        await exchange(held)
        waiting = asyncio.create_task(use(pool))
        await until_waiting_are(pool, 1)
        pool.release(held)
        held.abort()
        assert await waiting is not held
        assert pool.open_connections == 1


async def test_cancelled_while_connecting(new_pool: NewPool) -> None:
    with Unaccepting() as listener:
        pool = new_pool(listener.port, max_connections=1)
        connecting = asyncio.create_task(pool.acquire())
        waiting = asyncio.create_task(pool.acquire())
        await until_waiting_are(pool, 1)
        for task in (connecting, waiting):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert pool.open_connections == 0


async def test_closed_pool(new_pool: NewPool) -> None:
    """Idle connections go at once, the one in use when it is released, and a late request is still served."""
    async with Scripted(*ANSWERS) as upstream:
        pool = new_pool(upstream.port)
        busy, idle = await pool.acquire(), await pool.acquire()
        await exchange(idle)
        pool.release(idle)
        pool.close()
        assert (idle.closed, busy.closed) == (True, False)
        await exchange(busy)
        pool.release(busy)
        assert busy.closed
        await use(pool)
        assert pool.open_connections == 0


async def test_release_while_the_upstream_stalls(new_pool: NewPool) -> None:
    begun = asyncio.Event()
    async with Scripted(ReadHead(), Tell(begun), Stall()) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        connection.begin(b"GET", 0)
        connection.write(REQUEST)
        await begun.wait()
        pool.release(connection)
        assert pool.open_connections == 0
