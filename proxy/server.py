"""The server of a worker: makes an `Edge` for each connection, keeps those that live, and sweeps over them.

aiohttp's low-level `web.Server`: its application layer would cost 15 % of the requests and decide what is ours.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from observability.board import Cell
from observability.log import get_logger
from proxy import tcp
from proxy.config.snapshot import Limits
from proxy.edge import LINGERING_S, READ_BUFFER_BYTES, Edge
from proxy.forwarded import Proxies
from proxy.intake import MAX_HEADERS
from proxy.outbox import Outbox

FIRST_REQUEST_S: Final = 1.0
"""A drain waits for handshakes that have begun, so it waits for the requests behind them too."""
SLICE_S: Final = 0.005
"""Between two slices of a sweep, so that it is no burst: 667 heads that began in one second are refused in one second.
In one turn that took 80 ms, in twenty it was the p99 of everybody else."""
_log = get_logger(__name__)
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
        trusted_proxies: Proxies | None = None,
        **options: Any,
    ) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._row = row
        self._more = options
        self.live: set[Edge] = set()
        self.surplus = 0
        """How many of them came above `max_connections`."""
        self.arriving = 0
        """Connections beside them that are still in their TLS handshake."""
        self.draining = False
        """Answers say that their connections close."""
        self._drain_at = 0.0
        self.outbox = Outbox(self._loop)
        self.adopt(limits, trusted_proxies)
        self._to_sweep: list[Edge] = []
        self._slice = 0
        self._slice_s = self._tick_s
        self._timer = self._loop.call_later(self._slice_s, self._sweep)
        self._assert_settings()

    def adopt(self, limits: Limits, trusted_proxies: Proxies | None) -> None:
        """Other limits and trusted proxies from now on.

        A connection keeps the sizes of a head, and its keep-alive, that it began with.
        """
        self.limits = limits
        self.trusted_proxies = trusted_proxies
        """Whose PROXY headers are believed; None: nobody's."""
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
        if not self._to_sweep:
            self._to_sweep = list(self.live)
            slices = max(1, min(int(self._tick_s / SLICE_S), len(self._to_sweep)))
            self._slice = -(-len(self._to_sweep) // slices)
            self._slice_s = self._tick_s / slices
        self._timer = self._loop.call_later(self._slice_s, self._sweep)
        now = time.monotonic()
        due = self._to_sweep[: self._slice]
        del self._to_sweep[: self._slice]
        for edge in due:
            try:
                edge.sweep(now, self.limits)
            except Exception:  # noqa: BLE001 - one that cannot be judged is ended, and the others have their limits
                _log.exception("sweep_failed")
                edge.abort()

    def drain(self) -> None:
        """What is served from now on is the last of its connection."""
        self.draining = True
        self._drain_at = self._loop.time()

    def close_idle(self, idle_s: float) -> int:
        """Close the connections that carry no request, for so long since the drain began. Answers how many are left.

        Those that are still in their handshake may carry one soon.
        """
        busy = self.arriving
        now = self._loop.time()
        for edge in tuple(self.live):
            if not edge.parting:
                grace_s = max(idle_s, FIRST_REQUEST_S) if edge.secure and edge.fresh else idle_s
                waits = max(edge.idle_at, self._drain_at) + grace_s > now
                if waits or not edge.idle or (edge.channel is not None and tcp.has_unread(edge.channel)):
                    busy += 1
                    continue
                edge.force_close()
            busy += edge.flushing
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
