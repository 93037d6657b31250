"""A name with several addresses, or with others than before: which of them connections lead to."""

import asyncio
import socket
from typing import Any

import pytest

from proxy.upstream import dial as dialling
from proxy.upstream import resolver as rules
from proxy.upstream.connection import Connection
from proxy.upstream.pool import Pool
from tests.fakes.certificates import Authority
from tests.fakes.names import found
from tests.fakes.scripted import ReadHead, Scripted, Send, Unaccepting
from tests.proxy.upstream.conftest import NewPool

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
SERVED = (ReadHead(), Send(ANSWER)) * 4


async def asked(pool: Pool, connection: Connection | None = None) -> Connection:
    """One exchange; its connection, given back."""
    connection = connection or await pool.acquire()
    connection.begin(b"GET", 60_000)
    connection.write(b"GET / HTTP/1.1\r\nhost: upstream\r\n\r\n")
    connection.request_complete = True
    await connection.read_head()
    while await connection.read():
        pass
    pool.release(connection)
    return connection


async def test_every_address_is_tried(new_pool: NewPool) -> None:
    """The first refuses, the second swallows packets, the third answers; it is the first to be tried from then on."""
    async with Scripted(*SERVED) as upstream:
        with Unaccepting("127.0.0.3", upstream.port):
            lookup = found("127.0.0.2", "127.0.0.3", "127.0.0.1")
            pool = new_pool(upstream.port, host="three.test", lookup=lookup, connect_timeout_ms=400)
            await asked(pool)
            order = await pool._resolver.candidates("three.test", upstream.port)
            assert [candidate.address[0] for candidate in order] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


async def test_all_addresses_fail(new_pool: NewPool) -> None:
    async with Scripted() as upstream:
        port = upstream.port
    pool = new_pool(port, host="two.test", lookup=found("127.0.0.2", "127.0.0.3"))
    with pytest.raises(Exception, match=r"^connect_failed: cannot connect to the upstream: connection refused$"):
        await pool.acquire()


async def test_a_fault_of_tls_leads_to_the_next_address(new_pool: NewPool, authority: Authority) -> None:
    """And the address with the fault goes last."""
    bad, good = authority.server_context("two.test", expired=True), authority.server_context("two.test")
    async with Scripted(*SERVED, tls=good) as upstream:
        async with Scripted(tls=bad, host="127.0.0.2", port=upstream.port) as expired:
            async with Scripted(host="127.0.0.3", port=upstream.port) as silent:
                pool = new_pool(
                    upstream.port,
                    scheme="https",
                    host="two.test",
                    tls_ca=authority.ca_file,
                    lookup=found("127.0.0.2", "127.0.0.3", "127.0.0.1"),
                    connect_timeout_ms=500,
                )
                held = await pool.acquire()
                assert pool._members[held] == "127.0.0.1"
                await asked(pool, held)
                order = await pool._resolver.candidates("two.test", upstream.port)
                assert order[0].address[0] == "127.0.0.1"
                assert (len(silent.connections), len(expired.connections)) == (1, 0)  # that one saw no whole handshake


async def test_the_race_leaves_no_socket(new_pool: NewPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that answer at once: one is kept."""
    monkeypatch.setattr(dialling, "HEAD_START_S", 0.0)
    monkeypatch.setattr(dialling, "HEAD_START_MIN_S", 0.0)
    async with Scripted(*SERVED) as one, Scripted(*SERVED, host="127.0.0.2", port=one.port) as two:
        for _ in range(10):
            pool = new_pool(one.port, host="two.test", lookup=found("127.0.0.1", "127.0.0.2"))
            connection = await asked(pool)
            others = [*one.connections, *two.connections]
            connection.abort()
            pool.close()
            for other in others:
                await asyncio.wait_for(other.closed.wait(), 10)


async def test_what_the_kernel_is_told_of_connections(new_pool: NewPool) -> None:
    async with Scripted(*SERVED) as upstream:
        pool = new_pool(upstream.port)
        connection = await pool.acquire()
        assert connection._transport is not None
        kernel = connection._transport.get_extra_info("socket")
        options = (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, dialling.KEEPALIVE_IDLE_S),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, dialling.KEEPALIVE_INTERVAL_S),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, dialling.KEEPALIVE_PROBES),
        )
        for level, option, value in options:
            assert kernel.getsockopt(level, option) == value
        pool.release(connection)


class TestAnAddressThatIsGone:
    """The name has another one now."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The name is looked up all the time, and an address is gone with the first answer that lacks it."""
        monkeypatch.setattr("proxy.upstream.pool.REFRESH_S", 0.001)
        monkeypatch.setattr(rules, "REFRESH_S", 0.0)
        monkeypatch.setattr(rules, "FRESH_S", 0.0)
        monkeypatch.setattr(rules, "GONE_S", 0.0)

    @staticmethod
    async def until(condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)

    async def test_an_idle_connection_is_closed(self, new_pool: NewPool) -> None:
        names = found("127.0.0.1")
        async with Scripted(*SERVED) as old, Scripted(*SERVED, host="127.0.0.2", port=old.port) as new:
            pool = new_pool(old.port, host="moving.test", lookup=names)
            await asked(pool)
            names.addresses = ["127.0.0.2"]
            await asyncio.wait_for(old.connections[0].closed.wait(), 20)
            await asked(pool)
            assert (len(old.connections), len(new.connections)) == (1, 1)
            asked_of_dns = len(names.asked)
            await self.until(lambda: len(names.asked) > asked_of_dns + 3)
            assert pool.idle_connections == 1  # the new one is the name's

    async def test_a_busy_one_ends_its_exchange_and_serves_no_other(self, new_pool: NewPool) -> None:
        names = found("127.0.0.1")
        async with Scripted(*SERVED) as old, Scripted(*SERVED, host="127.0.0.2", port=old.port) as new:
            pool = new_pool(old.port, host="moving.test", lookup=names)
            busy = await pool.acquire()
            names.addresses = ["127.0.0.2"]
            await self.until(lambda: busy.created_at < 0)
            await asked(pool, busy)
            assert (old.connections[0].heads != [], busy.closed, pool.open_connections) == (True, True, 0)
            await asked(pool)
            assert len(new.connections) == 1

    async def test_nothing_is_looked_up_without_connections(self, new_pool: NewPool) -> None:
        names = found("127.0.0.1")
        async with Scripted(*SERVED) as upstream:
            pool = new_pool(upstream.port, host="moving.test", lookup=names)
            (await asked(pool)).abort()
            await self.until(lambda: pool._refresh_timer is None)
            count = len(names.asked)
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert len(names.asked) == count
