"""The connections to one address: idle ones are used again, last in first out, so that the rest can age and go.

Only the event loop's thread touches a pool, and nothing awaits between a look at its state and a change of it. The
mutable state is `_members` and `_connecting` (together: the places taken), `_idle` (members that serve nobody) and
`_waiters` (callers at the limit). A place changes hands directly, so that no newcomer overtakes who waits.

While connections are open, the upstream's name is looked up again in the background; those to an address that it has no
longer serve no new request. Nothing of that, and nothing of TLS sessions, is work for a request on a warm connection.
"""

import asyncio
import math
import ssl
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

from proxy.errors import TargetUnusableError, UpstreamError
from proxy.outbox import Outbox
from proxy.upstream.address import Address
from proxy.upstream.connection import Connection
from proxy.upstream.resolver import REFRESH_S, Resolver

IDLE_S: Final = 60.0
"""An idle connection is closed after this: before the 60 s of cloud load balancers and nginx's 75 s close it under a
request. Servers that close earlier (uvicorn: 5 s) are heard, because an idle connection is read."""
AGE_S: Final = 600.0
"""A connection serves no new request after this, so that machines that joined an upstream behind one unchanged address
get their share within ten minutes. Changed addresses are followed sooner, see `resolver`."""


class Pool:
    """Connections to `address`. Made and used on the thread of the running event loop.

    `connect_timeout_ms` bounds the wait for a place and the wait for a connection, each; 0 = no limit.
    `max_connections` counts idle ones and those being made too, 0 = no limit. `clock` gives seconds, monotonic.
    `resolver` (None: one of its own) is shared by the pools of a worker. Raises TlsFilesError where the files of the
    address's TLS cannot be used: whoever adopts a configuration makes its pools then, and not under the first request.
    """

    def __init__(
        self,
        address: Address,
        *,
        resolver: Resolver | None = None,
        connect_timeout_ms: int = 5000,
        max_connections: int = 0,
        idle_s: float = IDLE_S,
        age_s: float = AGE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.address = address
        self._connect_timeout_ms = connect_timeout_ms
        self._max_connections = max_connections
        self._idle_s = idle_s
        self._age_s = age_s
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time if clock is None else clock
        self._outbox = Outbox(self._loop)
        # Value: the address that it leads to.
        self._members: dict[Connection, str] = {}
        # TLS of connections in their first exchange: what they learn in it is looked at when they come back.
        self._handshaken: dict[Connection, ssl.SSLObject] = {}
        self._connecting = 0
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        # Value: must the connection be fresh? A waiter is given a connection, or None: a place to open one in.
        # Bounded by the worker's max_inflight_requests (each waiter is a request) and, in time, by the connect timeout.
        self._waiters: OrderedDict[asyncio.Future[Connection | None], bool] = OrderedDict()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._refresh_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._tls = address.tls  # loads its files now instead of under the first request
        self._resolver = Resolver() if resolver is None else resolver
        if address.named:
            self._resolver.watch(address.dialled[0], self._on_address_gone)

    def __repr__(self) -> str:
        where = f"{self.address.host}:{self.address.port}"
        return f"<Pool {where} {self.open_connections} open, {len(self._idle)} idle, {len(self._waiters)} waiting>"

    @property
    def open_connections(self) -> int:
        """Those that exist or are being made, idle ones included."""
        return len(self._members) + self._connecting

    @property
    def full(self) -> bool:
        """All places are taken: whoever asks for a connection now waits for one."""
        return bool(self._max_connections) and self.open_connections >= self._max_connections

    @property
    def idle_connections(self) -> int:
        """Those that serve nobody now and can serve the next."""
        return len(self._idle)

    async def acquire(self, fresh: bool = False) -> Connection:
        """A connection for one exchange; each one must come back through `release()`.

        `fresh`: never one that served a request before. Raises UpstreamError(`connect_failed`), and
        TargetUnusableError(`overloaded`) where none came free within the connect timeout. A caller that is
        cancelled leaves nothing open and takes nobody's place. A closed pool still serves, for requests that began
        before its end.
        """
        while True:
            if not fresh:
                connection = self.take_idle()
                if connection is not None:
                    return connection
            if not self._take_place(fresh):
                granted = await self._wait(fresh)
                if granted is not None:
                    if granted.closed:  # lost after it was handed over; its place was handed on then
                        continue
                    return granted
            return await self._connect()

    def release(self, connection: Connection) -> None:
        """The exchange is over, well or not: the connection is kept if it can serve another one, else closed."""
        if self._handshaken:
            self._remember_session(connection)
        if not connection.finish() or self._closed or self._clock() - connection.created_at >= self._age_s:
            connection.abort()
        else:
            self._offer(connection)

    def peer_of(self, connection: Connection) -> str:
        """The address that a connection leads to, the upstream's or the egress proxy's; empty once it is closed."""
        return self._members.get(connection, "")

    def sweep(self) -> None:
        """Close what was idle for too long. A timer of the pool does so as long as there are idle connections."""
        limit = self._clock() - self._idle_s
        expired = []
        for connection in self._idle:  # the longest idle first
            if connection.idle_since > limit:
                break
            expired.append(connection)
        for connection in expired:
            connection.abort()

    def close(self) -> None:
        """Close all idle connections now, and the others when they are released."""
        self._closed = True
        for timer in (self._sweep_timer, self._refresh_timer):
            if timer is not None:
                timer.cancel()
        self._sweep_timer = self._refresh_timer = None
        self._resolver.unwatch(self.address.dialled[0], self._on_address_gone)
        for connection in list(self._idle):
            connection.abort()

    # ------------------------------------------------------------------------------------------------- idle connections

    def take_idle(self) -> Connection | None:
        """What `acquire()` gives where it need not wait; None where it must be asked."""
        now = self._clock()
        while self._idle:
            connection, _ = self._idle.popitem()
            if now - connection.idle_since < self._idle_s and now - connection.created_at < self._age_s:
                return connection
            connection.abort()
        return None

    def _offer(self, connection: Connection) -> None:
        """Give an unoccupied connection to who waits, else keep it."""
        waiter = self._first_waiter()
        if waiter is not None and not self._waiters[waiter]:
            del self._waiters[waiter]
            waiter.set_result(connection)
            return
        if waiter is not None or self._closed:
            connection.abort()  # a fresh one is wanted, which can have the place; or none will be wanted any more
            return
        connection.idle_since = self._clock()
        self._idle[connection] = None
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(self._idle_s, self._on_sweep_timer)

    def _on_sweep_timer(self) -> None:
        self._sweep_timer = None
        self.sweep()
        if self._idle:
            oldest = next(iter(self._idle))
            left = max(oldest.idle_since + self._idle_s - self._clock(), 0.0)
            self._sweep_timer = self._loop.call_later(left, self._on_sweep_timer)

    # ------------------------------------------------------------------------------------------------- places

    def _take_place(self, fresh: bool) -> bool:
        if self.full:
            if not (fresh and self._idle):
                return False
            next(iter(self._idle)).abort()  # an idle one that this caller must not use makes room
        self._connecting += 1
        return True

    def _give_place(self) -> None:
        """A place is free: to the first who waits, if any."""
        waiter = self._first_waiter()
        if waiter is not None:
            del self._waiters[waiter]
            self._connecting += 1
            waiter.set_result(None)

    def _first_waiter(self) -> asyncio.Future[Connection | None] | None:
        """Who waits longest and still does.

        Cancelling a task (a client left, the wait timed out) cancels its future at once, but the task runs, and takes
        it out of `_waiters`, a turn of the loop later: what is given in between would be lost.
        """
        while self._waiters:
            waiter = next(iter(self._waiters))
            if not waiter.done():
                return waiter
            del self._waiters[waiter]
        return None

    async def _wait(self, fresh: bool) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters[waiter] = fresh
        timeout_s = self._connect_timeout_ms / 1000 if self._connect_timeout_ms else None
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except BaseException as error:
            self._waiters.pop(waiter, None)
            if waiter.done() and not waiter.cancelled():  # cancelled in the moment between the grant and the wake-up
                self._hand_on(waiter.result())
            if isinstance(error, TimeoutError):
                busy = f"all {self._max_connections} connections to the upstream are busy (max_connections)"
                raise TargetUnusableError("overloaded", busy) from None
            raise

    def _hand_on(self, granted: Connection | None) -> None:
        if granted is None:
            self._connecting -= 1
            self._give_place()
        elif not granted.closed:
            self._offer(granted)

    async def _connect(self) -> Connection:
        """Turn a place into a member, or give it back."""
        try:
            connection, peer, handshaken = await self.address.connect(
                self._new_connection, self._connect_timeout_ms, self._resolver
            )
            if connection.closed:
                raise UpstreamError("connect_failed", "cannot connect to the upstream: closed at once")
        except BaseException:
            self._connecting -= 1
            self._give_place()
            raise
        self._connecting -= 1
        self._members[connection] = peer
        connection.created_at = self._clock()
        if handshaken is not None:
            self._handshaken[connection] = handshaken
        self._arm_refresh()
        return connection

    def _new_connection(self) -> Connection:
        return Connection(self._loop, self._on_closed, self._outbox)

    def _on_closed(self, connection: Connection) -> None:
        if connection in self._members:  # else it ended while it was being made
            del self._members[connection]
            self._idle.pop(connection, None)
            self._give_place()

    # ------------------------------------------------------------------------------------------------- what changes

    def _arm_refresh(self) -> None:
        if self.address.named and self._refresh_timer is None and not self._closed:
            self._refresh_timer = self._loop.call_later(REFRESH_S, self._on_refresh_timer)

    def _on_refresh_timer(self) -> None:
        self._refresh_timer = None
        if self._members:
            self._resolver.refresh(self.address.dialled[0])
            self._arm_refresh()

    def _on_address_gone(self, present: Collection[str]) -> None:
        """The name has only these addresses now."""
        for connection, peer in list(self._members.items()):
            if peer in present:
                continue
            if connection in self._idle:
                connection.abort()
            else:
                connection.created_at = -math.inf  # past its age: closed when it is released

    def _remember_session(self, connection: Connection) -> None:
        handshaken = self._handshaken.pop(connection, None)
        if handshaken is not None and self._tls is not None:
            self._tls.remember(handshaken)
