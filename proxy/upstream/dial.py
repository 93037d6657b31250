"""TCP connections to whichever of several addresses answers first: happy eyeballs (RFC 8305 §5).

An own race, and not a library's, because of what it has to tell: why each address failed, in words that name none, and
which ones are to be tried last from now on.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from proxy.upstream.resolver import Candidate

HEAD_START_S: Final = 0.25
"""Of one address before the next is tried too; RFC 8305 §8 recommends it. Less where there is little time for many."""
HEAD_START_MIN_S: Final = 0.01
"""The least that RFC 8305 §8 allows."""

KEEPALIVE_IDLE_S: Final = 30
"""Silence after which the kernel probes the other side, so that firewalls and NATs, which forget a connection after 60
(some) to 350 s (AWS), do not do so while a model thinks."""
KEEPALIVE_INTERVAL_S: Final = 10
KEEPALIVE_PROBES: Final = 3
"""Unanswered ones after which the connection is lost: a machine that is gone is noticed within a minute, where
idle_timeout_ms may be many. TCP_USER_TIMEOUT is left alone: it would also cut an upload that an upstream, alive, does
not take for a while, which is idle_timeout_ms' to decide."""


class Dialled(NamedTuple):
    """What came of a race."""

    candidate: Candidate | None
    """The first that answered; None: none did."""
    socket: socket.socket | None
    failed: list[Candidate]
    """Those that failed before that."""
    slow: list[Candidate]
    """Those that had a head start and did not answer."""
    error: OSError | None
    """The last failure."""


async def dial(candidates: Sequence[Candidate], budget_s: float | None) -> Dialled:
    """Connect to one of the candidates, tried in their order, each with a head start before the next.

    `budget_s` is the time for all of them; it is not watched here, and only makes the head starts shorter. A caller
    that is cancelled leaves nothing open.
    """
    loop = asyncio.get_running_loop()
    if len(candidates) == 1:  # no race, and no task for it (150 → 130 µs a connection)
        try:
            return Dialled(candidates[0], await _connected(loop, candidates[0]), [], [], None)
        except OSError as refused:
            return Dialled(None, None, [candidates[0]], [], refused)
    head_start_s = HEAD_START_S
    if budget_s is not None:
        head_start_s = max(HEAD_START_MIN_S, min(HEAD_START_S, budget_s / (len(candidates) + 1)))
    waiting = deque(candidates)
    running: dict[asyncio.Task[socket.socket], Candidate] = {}
    failed: list[Candidate] = []
    last: OSError | None = None
    try:
        while waiting or running:
            if waiting:
                candidate = waiting.popleft()
                running[loop.create_task(_connected(loop, candidate))] = candidate
            done, _ = await asyncio.wait(
                running, timeout=head_start_s if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    candidate = running.pop(task)
                    before = candidates[: candidates.index(candidate)]
                    slow = [other for other in running.values() if other in before]
                    return Dialled(candidate, task.result(), failed, slow, last)
                if not isinstance(error, OSError):
                    raise error
                failed.append(running.pop(task))
                last = error
        return Dialled(None, None, failed, [], last)
    finally:
        for task in running:
            task.cancel()  # it closes its socket
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().close()


async def _connected(loop: asyncio.AbstractEventLoop, candidate: Candidate) -> socket.socket:
    connection = socket.socket(candidate.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        await loop.sock_connect(connection, candidate.address)
    except BaseException:
        connection.close()
        raise
    return connection


def reason_of(error: OSError) -> str:
    """Why there was no TCP connection, without addresses, which asyncio puts into `strerror`: callers will read it."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    if isinstance(error, TimeoutError):
        return "the connection timed out"
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__
