"""Which services and keys are to be left alone for a while, and the header that says for how long.

A subject is a name: of a service, which cools down when it fails repeatedly, or of one of its keys, which cools down
at once when it is refused. When its time is over, one attempt is let through, the probe; a subject whose probe fails
cools down again for twice as long, one whose probe succeeds is as good as new.

Looking and taking are two steps, with nothing awaited between them: `available` tells which subjects may be picked and
changes nothing, so that all candidates can be looked at; `began` says which one was. It answers a ticket, and every
attempt ends by giving it back to exactly one of `succeeded`, `failed`, `refused` and `released`; an attempt has a
ticket for its service and one for its key. `answered` may come before: the answer has begun, and may still break off.

The ticket tells when the attempt began: one that began before a cool-down and ends during it says nothing of what
comes after it, neither by failing nor by succeeding. With fifty requests in flight when the quota of a key is used up,
the 49 that are refused together with the first do not double its cool-down 49 times, and those that were accepted
before do not end it.

Nothing here knows which target is the last: an attempt may begin while its subject cools down, and if it succeeds the
cool-down is over.
"""

import re
from collections import deque
from collections.abc import Callable, Collection
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Final, Protocol

from observability.log import get_logger

_log = get_logger(__name__)
RETRY_AFTER_MAX_S: Final = 3600.0
"""A longer `retry-after` is taken for this one. Daily quotas do ask for many hours, but so do mistakes, which nobody
could take back: this way a subject costs one refused request an hour, and is back within an hour of its recovery."""


class Settings(Protocol):
    """What cool-downs need of the configuration's `cooldown`."""

    @property
    def failures(self) -> int:
        """A service cools down after so many failures within `window_ms` without a success between them; 0 = never."""

    @property
    def window_ms(self) -> int: ...

    @property
    def base_ms(self) -> int:
        """The length of a first cool-down where the upstream says nothing; each further one is twice as long."""

    @property
    def max_ms(self) -> int:
        """The limit of the doubling. It does not limit `retry-after`."""


class Cooldowns:
    """The cool-downs of one worker. `clock`: seconds, monotonic.

    Memory: an entry for each subject that failed lately, of at most `failures` numbers. Subjects are named by the
    configuration; `forget` drops those it no longer names.
    """

    __slots__ = ("_clock", "_entries", "_tickets")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._tickets = 0
        """How many were given out: tickets are ordered like the beginnings of the attempts."""

    @property
    def quiet(self) -> bool:
        """Nobody failed lately: nothing that succeeds now is news."""
        return not self._entries

    def ticket(self) -> int:
        """A ticket for an attempt that begins while it is quiet: it is nobody's probe."""
        self._tickets += 1
        return self._tickets

    def available(self, name: str) -> bool:
        """May an attempt go there? False while it cools down, and then while the probe is under way.

        A probe that is under way for as long as a cool-down is none any more: the upload of one slow client, or
        an answer of minutes, must not keep all others away.
        """
        entry = self._entries.get(name)
        return entry is None or not entry.cooled or entry.wants_probe(self._clock())

    def ends_at(self, name: str) -> float:
        """When its cool-down is over, by the clock; 0 where it has none."""
        entry = self._entries.get(name)
        return entry.until if entry is not None and entry.cooled else 0.0

    def began(self, name: str) -> int:
        """An attempt goes there now. The ticket (> 0) that it answers goes to one of the next four."""
        self._tickets += 1
        entry = self._entries.get(name)
        if entry is not None and entry.cooled:
            now = self._clock()
            if entry.wants_probe(now):
                entry.probe, entry.probed_at = self._tickets, now
        return self._tickets

    def answered(self, name: str, ticket: int) -> None:
        """Its answer begins: a cool-down is over, for a probe that streams for minutes would keep others away. Failures
        that have not led to one are still counted."""
        entry = self._entries.get(name)
        if entry is not None and entry.cooled and ticket > entry.cooled:
            del self._entries[name]

    def succeeded(self, name: str, ticket: int) -> None:
        """It worked, to its end."""
        entry = self._entries.get(name)
        if entry is not None and ticket > entry.cooled:
            del self._entries[name]

    def failed(self, name: str, ticket: int, settings: Settings, retry_after_s: float | None = None) -> None:
        """It failed in a way that may be chance. `retry_after_s`: how long the upstream asked to be left alone."""
        if not settings.failures:
            self._entries.pop(name, None)  # cooling down under the last configuration
            return
        now, entry = self._clock(), self._entry(name)
        if entry.cooled:
            self._failed_again(name, entry, ticket, settings, retry_after_s, now)
            return
        failed_at = entry.failed_at
        failed_at.append(now)
        while now - failed_at[0] > settings.window_ms / 1000:
            failed_at.popleft()
        if len(failed_at) >= settings.failures:
            self._cool(name, entry, settings, retry_after_s, now)

    def refused(self, name: str, ticket: int, settings: Settings, retry_after_s: float | None = None) -> None:
        """It was refused, which is no chance: the cool-down begins with the first time."""
        now, entry = self._clock(), self._entry(name)
        if entry.cooled:
            self._failed_again(name, entry, ticket, settings, retry_after_s, now)
        else:
            self._cool(name, entry, settings, retry_after_s, now)

    def released(self, name: str, ticket: int) -> None:
        """The attempt ended without news of the subject, say because the client left: if it was the probe, the next
        attempt is."""
        entry = self._entries.get(name)
        if entry is not None and entry.probe == ticket:
            entry.probe = 0

    def forget(self, remaining: Collection[str]) -> None:
        """Drop all subjects but these; a key whose secret was changed is a new one and should not be among them.

        Attempts under way may still report on others, so that between two calls the names are those of the
        configurations that served since.
        """
        for name in [name for name in self._entries if name not in remaining]:
            del self._entries[name]

    def cooling(self) -> dict[str, float]:
        """Who cools down, and for how many seconds more; 0 = the time is over, and no probe has succeeded yet."""
        now = self._clock()
        return {name: max(0.0, entry.until - now) for name, entry in self._entries.items() if entry.cooled}

    def _entry(self, name: str) -> "_Entry":
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry()
        return entry

    def _failed_again(
        self, name: str, entry: "_Entry", ticket: int, settings: Settings, retry_after_s: float | None, now: float
    ) -> None:
        """One more failure of a subject that cools down: it counts if it was the probe's."""
        if entry.probe == ticket:
            self._cool(name, entry, settings, retry_after_s, now)
        elif retry_after_s is not None:  # news, whoever brings it
            entry.until = max(entry.until, now + min(retry_after_s, RETRY_AFTER_MAX_S))

    def _cool(self, name: str, entry: "_Entry", settings: Settings, retry_after_s: float | None, now: float) -> None:
        entry.length_ms = min(entry.length_ms * 2 or settings.base_ms, settings.max_ms)
        length_s = entry.length_ms / 1000 if retry_after_s is None else min(retry_after_s, RETRY_AFTER_MAX_S)
        entry.until = now + length_s
        entry.cooled = self._tickets
        entry.probe = 0
        _log.warning("cooling_down", subject=name, seconds=round(length_s, 3))


class _Entry:
    """A subject that failed lately."""

    __slots__ = ("cooled", "failed_at", "length_ms", "probe", "probed_at", "until")

    def __init__(self) -> None:
        self.failed_at: deque[float] = deque()
        """Instants of at most `failures` failures: since the last success, within the window, until it cools down."""
        self.cooled = 0
        """The last ticket before the cool-down began; 0 = there is none yet (who fails has a ticket)."""
        self.until = 0.0
        """The instant when the cool-down is over."""
        self.length_ms = 0
        """Of the last cool-down, had the upstream not said how long; 0 = there is none yet."""
        self.probe = 0
        """The ticket of the probe that is under way; 0 = none."""
        self.probed_at = 0.0
        """The instant when it began."""

    def wants_probe(self, now: float) -> bool:
        """The cool-down is over, and no probe is under way."""
        return now >= self.until and (not self.probe or now - self.probed_at >= self.length_ms / 1000)


_SECONDS = re.compile(rb"[0-9]+(\.[0-9]+)?")


def retry_after_s(value: bytes | None, now_unix_s: float) -> float | None:
    """The seconds that a `retry-after` header asks for: 0 ≤ seconds ≤ RETRY_AFTER_MAX_S, None where it says nothing.

    `now_unix_s`: Unix time, for dates. Digits, which may have a fraction as in the providers' SDKs, or a date in one of
    HTTP's three formats (RFC 9110 §10.2.3, §5.6.7); a date in the past is 0.
    """
    if value is None or len(value) > 64:  # the longest date has 35
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), RETRY_AFTER_MAX_S)
    if b":" not in value:  # every date has a time of day; the parser would see dates in much else
        return None
    try:
        date = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, OverflowError, TypeError, IndexError):  # the last two: some releases of Python, on odd input
        return None
    if date.tzinfo is None:  # asctime's format names no zone: all dates of HTTP are in UTC
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, date.timestamp() - now_unix_s), RETRY_AFTER_MAX_S)
