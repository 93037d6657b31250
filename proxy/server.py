"""The server of a worker: makes an `Edge` for each connection, keeps those that live, and sweeps over them.

aiohttp's low-level `web.Server`: its application layer would cost 15 % of the requests and decide what is ours.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from observability.board import Cell
from proxy import tcp
from proxy.config.snapshot import Limits
from proxy.edge import LINGERING_S, READ_BUFFER_BYTES, Edge
from proxy.forwarded import Proxies
from proxy.intake import MAX_HEADERS
from proxy.outbox import Outbox

_CONNECTIONS: Final = int(Cell.CONNECTIONS)  # to index with a member of an enumeration costs more than to count


class EdgeServer(web.Server):
    """Makes an `Edge` for each connection. `handler` is what serves a request, the middleware included.

    `row`: the worker's of the board, for the number of connections.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limits: Limits,
        row: memoryview,
        **options: Any,
    ) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._row = row
        self.limits = limits
        self._more = options
        self.live: set[Edge] = set()
        self.surplus = 0
        """How many of them came above `max_connections`."""
        self.arriving = 0
        """Connections beside them that are still in their TLS handshake."""
        self.trusted_proxies: Proxies | None = None
        """Whose PROXY headers are believed; None: nobody's."""
        self.draining = False
        """Answers say that their connections close."""
        self._drain_at = 0.0
        self.outbox = Outbox(self._loop)
        self.adopt(limits)
        self._to_sweep: list[Edge] = []
        self._slice = 0
        self._timer = self._loop.call_later(self._tick_s / self._slices, self._sweep)
        self._assert_settings()

    def adopt(self, limits: Limits, trusted_proxies: Proxies | None = None) -> None:
        """Other limits and trusted proxies from now on.

        A connection keeps the sizes of a head, and its keep-alive, that it began with.
        """
        self.limits = limits
        self.trusted_proxies = trusted_proxies
        self._options = dict(
            loop=self._loop,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.keepalive_timeout_ms / 1000,
            lingering_time=LINGERING_S,
            max_field_size=limits.max_head_bytes,
            max_headers=MAX_HEADERS,
            max_line_size=limits.max_head_bytes,
            read_bufsize=READ_BUFFER_BYTES,
            tcp_keepalive=False,  # inherited from the listening socket (`proxy.sockets`)
            **self._more,
        )
        # A tenth of the shortest limit, so that none is overrun by more than two of them (a wait is seen by one sweep
        # and judged by another); a sweep of 20,000 connections takes ~10 ms.
        waits = (limits.head_timeout_ms, limits.body_idle_timeout_ms, limits.write_idle_timeout_ms)
        self._tick_s = min(1.0, max(0.02, min((w for w in waits if w), default=10000) / 10000))
        # In slices: 667 heads that were begun in one second would be refused in one turn, which took 80 ms. None is
        # shorter than 50 ms: so short a tick is a test's.
        self._slices = max(1, int(self._tick_s / 0.05))

    def __call__(self) -> Edge:
        """A new connection's protocol; unlike aiohttp's, an option that it does not know is an error."""
        return Edge(self, **self._options)

    def enter(self, edge: Edge) -> None:
        """A connection was made."""
        self.live.add(edge)
        self._row[_CONNECTIONS] = len(self.live)

    def leave(self, edge: Edge) -> None:
        """It was lost."""
        self.live.discard(edge)
        self._row[_CONNECTIONS] = len(self.live)

    def _assert_settings(self) -> None:
        edge = self()
        if edge._read_bufsize != READ_BUFFER_BYTES or not self.handler_cancellation:  # noqa: SLF001
            raise RuntimeError("this version of aiohttp does not take the server's settings")

    @property
    def full(self) -> bool:
        """There are as many connections as may stay: what comes now is answered 503 and closed."""
        return len(self.live) - self.surplus >= self.limits.max_connections

    def crowded(self, more: int) -> bool:
        """Are there so many connections, those in their handshake included, and `more`?"""
        return len(self.live) - self.surplus + self.arriving >= self.limits.max_connections + more

    def _sweep(self) -> None:
        """The next slice: all connections get their turn once in a tick."""
        self._timer = self._loop.call_later(self._tick_s / self._slices, self._sweep)
        if not self._to_sweep:
            self._to_sweep = list(self.live)
            self._slice = -(-len(self._to_sweep) // self._slices)
        now = time.monotonic()
        for edge in self._to_sweep[: self._slice]:
            edge.sweep(now, self.limits)
        del self._to_sweep[: self._slice]

    def drain(self) -> None:
        """What is served from now on is the last of its connection."""
        self.draining = True
        self._drain_at = self._loop.time()

    def close_idle(self, idle_s: float) -> int:
        """Close the connections that carry no request, for so long since the drain began. Answers how many are left.

        Those that are still in their handshake may carry one soon.
        """
        busy = self.arriving
        since = self._loop.time() - idle_s
        for edge in tuple(self.live):
            if (
                edge.idle
                and max(edge.idle_at, self._drain_at) <= since
                and not (edge.channel is not None and tcp.has_unread(edge.channel))
            ):
                edge.force_close()
                busy += edge.flushing
            else:
                busy += 1
        return busy

    def cut_running(self) -> None:
        """Cancel the requests that are running (the drain took too long); the handler says so where it still can."""
        for edge in tuple(self.live):
            task = edge._task_handler  # noqa: SLF001 - aiohttp's own shutdown closes the connection in the same breath
            if task is not None and edge._request_in_progress:  # noqa: SLF001
                task.cancel()

    def stop_sweeping(self) -> None:
        """End the sweep, at the very end."""
        self._timer.cancel()
