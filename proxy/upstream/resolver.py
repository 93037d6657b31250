"""Names to addresses, off the loop: one resolver for all pools of a worker.

The operating system's resolver does the work (hosts file, search domains and all), in threads of its own: with a dead
DNS server each lookup hangs for up to half a minute, which must not take the threads that write held bodies, nor keep
the process from ending. There is one lookup in flight for a name, whoever asks for it; a caller that leaves does not
end it. What was found is fresh for FRESH_S, what failed for FAILED_S; beyond that the next caller has it looked up
again and waits, but where the name had an answer before, only for PATIENCE_S: then the old answer is used, until it is
STALE_S old.

Whoever holds connections asks for a `refresh()` now and then and is told by `watch()` which addresses a name has.
Services of many machines name a few of them in each answer, in turn; so an address counts as one of the name's until no
answer has had it for GONE_S.
"""

import asyncio
import math
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any, Final, NamedTuple

FRESH_S: Final = 15.0
"""getaddrinfo does not say how long an answer is good. 10 to 60 s are usual for names that change on purpose; a name in
use is looked up each REFRESH_S anyway, so that no request waits for it."""
REFRESH_S = 10.0
"""Between two lookups of a name while connections to it are open: some 0.1 ms of a thread."""
FAILED_S: Final = 1.0
"""A dead name costs one lookup a second and not one for each request."""
PATIENCE_S: Final = 1.0
"""Of callers that could do with an older answer, from when the lookup began: of one that hangs for half a minute, only
the first second holds anybody up. Names are found in 1 to 100 ms."""
STALE_S: Final = 600.0
"""An upstream that was there so long ago is tried while the resolver fails: outages of DNS last minutes."""
GONE_S: Final = 40.0
"""Four lookups in a row. A changed answer is followed within GONE_S and REFRESH_S by connections that are open, and at
once by new ones."""
AVOIDED_S: Final = 30.0
"""How long an address that failed goes behind the others of its name."""

LOOKUPS_MAX: Final = 32
"""Threads, of which each waits for one name; further names wait in a queue. More than services have names whose zones
are dead together, so that the others are found; a thread that only waits costs 0.1 MiB."""
NAMES_MAX: Final = 256
"""Remembered. They come out of the configuration; those of former ones go first. Names that are being looked up or
watched stay, so that there can be as many as pools."""
ADDRESSES_MAX: Final = 32
"""Of one answer. What fits into an answer over UDP is less; nobody tries as many."""
AVOIDED_MAX: Final = 512

Lookup = Callable[[str], Sequence[tuple[Any, ...]]]
"""Takes a name, answers as `socket.getaddrinfo` does, raises OSError or UnicodeError."""
Watcher = Callable[[Collection[str]], None]
"""Is given all addresses that a name has, as texts, when one of them has gone."""

# the name or its addresses do not exist: an answer, not a failure of the resolver
_NOT_THERE: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})  # glibc's alone


class UnresolvedError(Exception):
    """There is no address to try. The text says why, and may be shown to callers."""


class Candidate(NamedTuple):
    """Where a connection may be made to."""

    family: int
    address: tuple[Any, ...]
    """Address as a text and port; for IPv6 also flow and scope."""


class _Name:
    """What is known of one name."""

    __slots__ = ("begun_at", "candidates", "failed_at", "failure", "found_at", "lookup", "seen_at", "watchers")

    def __init__(self) -> None:
        self.candidates: Sequence[Candidate] = ()
        """The last answer, with port 0."""
        self.found_at = -math.inf
        self.failure = ""
        self.failed_at = -math.inf
        self.lookup: asyncio.Future[None] | None = None
        """In flight."""
        self.begun_at = 0.0
        """Of the last lookup; an instant of the loop's clock."""
        self.seen_at: dict[str, float] = {}
        """Addresses of the last answers, each with when it was last in one. Those of GONE_S, so some five times
        ADDRESSES_MAX at most."""
        self.watchers: set[Watcher] = set()


class Resolver:
    """Made and used on the thread of the running event loop. `lookup` is called in other threads."""

    def __init__(self, lookup: Lookup | None = None, clock: Callable[[], float] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time if clock is None else clock
        self._lookup = _system_lookup if lookup is None else lookup
        self._names: OrderedDict[str, _Name] = OrderedDict()
        self._waiting: deque[str] = deque()  # no name stands there twice
        self._running = 0
        self._avoided: OrderedDict[tuple[Any, ...], float] = OrderedDict()

    async def candidates(self, host: str, port: int, due_at: float | None = None) -> list[Candidate]:
        """Where `host` is, in the order in which that should be tried: IPv6 and IPv4 by turns, what failed lately last.

        `due_at` is an instant of the loop's clock. Raises UnresolvedError.
        """
        literal = _literal(host)
        if literal is not None:
            return [_with_port(literal, port)]
        name = self._named(host)
        now = self._clock()
        if now - name.found_at >= FRESH_S and now - name.failed_at >= FAILED_S:
            await self._looked_up(host, name, due_at)
        if self._clock() - name.found_at < STALE_S:
            return self._ordered(name.candidates, port)
        raise UnresolvedError(name.failure)

    def refresh(self, host: str) -> None:
        """Look a name up again in the background, unless that was done just now."""
        name = self._named(host)
        now = self._clock()
        if now - name.found_at >= REFRESH_S / 2 and now - name.failed_at >= FAILED_S and name.lookup is None:
            self._begin(host, name)

    def watch(self, host: str, watcher: Watcher) -> None:
        """Tell `watcher` from now on when an address of a name has gone."""
        self._named(host).watchers.add(watcher)

    def unwatch(self, host: str, watcher: Watcher) -> None:
        """Tell it no more."""
        name = self._names.get(host)
        if name is not None:
            name.watchers.discard(watcher)

    def avoid(self, candidate: Candidate) -> None:
        """It failed: for AVOIDED_S others are tried before it."""
        self._avoided[candidate.address] = self._clock() + AVOIDED_S
        self._avoided.move_to_end(candidate.address)
        if len(self._avoided) > AVOIDED_MAX:
            self._avoided.popitem(last=False)

    def trust(self, candidate: Candidate) -> None:
        """It can be connected to."""
        self._avoided.pop(candidate.address, None)

    def _ordered(self, candidates: Sequence[Candidate], port: int) -> list[Candidate]:
        found = [_with_port(candidate, port) for candidate in candidates]
        if self._avoided:
            now = self._clock()
            found.sort(key=lambda candidate: self._avoided.get(candidate.address, now) > now)  # stable
        return found

    def _named(self, host: str) -> _Name:
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name()
            if len(self._names) > NAMES_MAX:
                for other, known in self._names.items():
                    if known.lookup is None and not known.watchers and known is not name:
                        del self._names[other]
                        break
        self._names.move_to_end(host)
        return name

    # ------------------------------------------------------------------------------------------------- lookups

    async def _looked_up(self, host: str, name: _Name, due_at: float | None) -> None:
        """Until a lookup has ended, or as long as that is waited for."""
        lookup = name.lookup or self._begin(host, name)
        if self._clock() - name.found_at < STALE_S:
            patient_until = name.begun_at + PATIENCE_S
            due_at = patient_until if due_at is None else min(due_at, patient_until)
        try:
            async with asyncio.timeout_at(due_at):
                await asyncio.shield(lookup)  # others wait for it too
        except TimeoutError:
            if self._clock() - name.found_at >= STALE_S:
                raise UnresolvedError("its name was not resolved in time") from None

    def _begin(self, host: str, name: _Name) -> asyncio.Future[None]:
        name.lookup = self._loop.create_future()
        name.begun_at = self._loop.time()
        self._waiting.append(host)
        self._start_threads()
        return name.lookup

    def _start_threads(self) -> None:
        while self._waiting and self._running < LOOKUPS_MAX:
            self._running += 1
            host = self._waiting.popleft()
            try:
                # A daemon: one that hangs does not hold up the end of the process. Starting one costs some 0.1 ms.
                threading.Thread(target=self._run, args=(host,), name="resolver", daemon=True).start()
            except RuntimeError as error:  # the system has no more threads for us
                self._loop.call_soon(self._ended, host, error)

    def _run(self, host: str) -> None:
        """In a thread: one lookup."""
        found: Sequence[tuple[Any, ...]] | Exception
        try:
            found = self._lookup(host)
        except Exception as error:  # noqa: BLE001 - whatever it is, the name must not stay in flight
            found = error
        try:
            self._loop.call_soon_threadsafe(self._ended, host, found)
        except RuntimeError:  # the loop is closed: nobody waits
            pass

    def _ended(self, host: str, found: Sequence[tuple[Any, ...]] | Exception) -> None:
        self._running -= 1
        self._start_threads()
        name = self._names[host]  # it is not let go of while it is looked up
        lookup, name.lookup = name.lookup, None
        if isinstance(found, Exception):
            self._failed(name, found)
        elif not found:
            name.failure, name.failed_at = "the name has no address", self._clock()
        else:
            self._found(name, [Candidate(family, address) for family, _, _, _, address in found[:ADDRESSES_MAX]])
        if lookup is not None and not lookup.done():
            lookup.set_result(None)

    def _failed(self, name: _Name, error: Exception) -> None:
        name.failed_at = self._clock()
        if isinstance(error, UnicodeError):  # an empty label (a..b) or one over 63 bytes: not even asked for
            name.failure = "the service's host is no valid name"
        else:
            said = error.strerror if isinstance(error, OSError) else None
            name.failure = f"its name was not resolved ({said or type(error).__name__})"
        if isinstance(error, UnicodeError) or (isinstance(error, socket.gaierror) and error.errno in _NOT_THERE):
            name.found_at = -math.inf

    def _found(self, name: _Name, found: list[Candidate]) -> None:
        now = name.found_at = self._clock()
        name.failed_at = -math.inf
        name.candidates = list(dict.fromkeys(_by_turns(found)))
        seen_at = name.seen_at
        seen_at.update((candidate.address[0], now) for candidate in found)
        gone = [address for address, at in seen_at.items() if now - at > GONE_S]
        for address in gone:
            del seen_at[address]
        if gone:
            for watcher in tuple(name.watchers):
                watcher(seen_at.keys())


def _system_lookup(host: str) -> Sequence[tuple[Any, ...]]:
    return socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)


def _literal(host: str) -> Candidate | None:
    """The address that a host is; None where it is a name. Costs 2 µs; no question leaves the machine."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    family, _, _, _, address = found[0]
    return Candidate(family, address)


def is_name(host: str) -> bool:
    """Whether a host has to be looked up."""
    return _literal(host) is None


def _with_port(candidate: Candidate, port: int) -> Candidate:
    address, _, *rest = candidate.address
    return Candidate(candidate.family, (address, port, *rest))


def _by_turns(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """One family and the other in turn, beginning with what the system prefers (RFC 8305 §4)."""
    families: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        families.setdefault(candidate.family, []).append(candidate)
    return (candidate for candidate in chain.from_iterable(zip_longest(*families.values())) if candidate is not None)
