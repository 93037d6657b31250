"""Which target of a `by_weight` the next exchange goes to: weighted, least_inflight or lowest_latency.

All three end in the same smooth draw. Every target has a balance in picks' worth of weight: a draw credits each
candidate with its own weight and charges the one with the largest balance the sum of what was credited. So the
shares are exact over a short window and not only on average (80/20 is `AABAA` for ever), and since a target that is not
among the candidates is neither credited nor charged, one that was away has nothing to catch up on when it returns.
`least_inflight` and `lowest_latency` narrow the candidates first and draw among those that are equally good.

One balancer belongs to one worker: its counts and times are those of that worker alone. An exchange is told in three
calls: `began`, `heard` once its output begins (if it does), `ended`. Everything is O(targets), nothing waits.
"""

from collections.abc import Callable, Sequence
from math import exp, inf
from time import monotonic
from typing import Final

BALANCES: Final = ("weighted", "least_inflight", "lowest_latency")

DECAY_S: Final = 10.0
"""A time to first output counts for 1/e of itself after this long: at one request a second the estimate rests on ten
of them, and a target that turned slow or quick is known as such half a minute later."""
SAMPLES_MAX: Final = 30.0
"""No estimate rests on more than this many: times to first output spread about as widely as their mean (prompts do), so
the mean of 30 is good to 18 %, and more of them would only delay the news: with 30, four answers that are ten times
slower double the estimate."""
TIE: Final = 1.2
"""Estimates up to this many times the lowest are as good as it (see SAMPLES_MAX): drawn by weight among them, so that
noise does not send everybody to the same target."""
PROBE_AFTER_S: Final = 10.0
"""A slow target is tried again when its last try is this long ago: its old times count for little then (DECAY_S), and
one client in ten seconds is all that an upstream that hangs can catch …"""
PROBE_EVERY_PICKS: Final = 25
"""… and at most one pick in 25 is such a try: 4 % of the clients may meet a slow target, which leaves the 95th
percentile alone where requests are rarer than PROBE_AFTER_S."""


class Balancer:
    """The picks of one worker among the targets of one `by_weight`, which go by their index in `weights`.

    `weights`: one for each target, ≥ 0; a target of weight 0 is picked only where nothing else is available. `balance`:
    one out of BALANCES, anything else is a ValueError. `clock`: seconds, monotonic. Its memory is a few numbers for
    each target of the configuration.
    """

    __slots__ = ("_balance", "_balances", "_clock", "_loads", "_picks_since_probe", "_preferred", "_weights")

    def __init__(self, weights: Sequence[int], balance: str, clock: Callable[[], float] = monotonic) -> None:
        if balance not in BALANCES:
            raise ValueError(f"balance {balance!r} is none of {', '.join(BALANCES)}")
        self._balance = balance
        self._clock = clock
        self._preferred = tuple(weight > 0 for weight in weights)
        self._weights = tuple(weight or 1 for weight in weights)
        """Among themselves, where nothing else is available, targets of weight 0 are equals."""
        self._balances = [0] * len(weights)
        self._loads = tuple(_Load() for _ in weights)
        self._picks_since_probe = 0

    def pick(self, available: Sequence[int]) -> int:
        """One index out of `available`, which must not be empty and names each target once."""
        preferred = self._preferred
        candidates = [index for index in available if preferred[index]] or available
        if self._balance == "lowest_latency":
            now = self._clock()
            chosen = self._draw(self._quickest(candidates, now))
            self._loads[chosen].tried_at = now
            return chosen
        if self._balance == "least_inflight":
            candidates = self._least_loaded(candidates)
        return self._draw(candidates)

    def began(self, index: int) -> None:
        """An exchange goes to target `index` now. `ended` must follow, whatever becomes of it."""
        load = self._loads[index]
        load.running += 1
        if not load.waiting:
            load.silent_since = self._clock()
        load.waiting += 1

    def heard(self, index: int, first_output_s: float) -> None:
        """The first output of an exchange that began came after `first_output_s`; at most once for each.

        To be told as soon as it comes and not when the exchange ends: a stream may go on for minutes.
        """
        load = self._loads[index]
        assert load.waiting > 0, "heard without began"
        load.waiting -= 1
        load.silent_since = now = self._clock()
        load.learn(first_output_s, now)

    def ended(self, index: int, *, heard: bool, lasted_s: float = inf) -> None:
        """An exchange that began is over. `heard`: its first output was told. `lasted_s`: how long it was there."""
        load = self._loads[index]
        assert load.running > 0, "ended without began"
        load.running -= 1
        if heard:
            return
        load.waiting -= 1
        now = self._clock()
        silence_s = min(now - load.silent_since, lasted_s)  # what others wait for is not its own
        if load.estimate_s is not None and silence_s > load.estimate_s:
            load.learn(silence_s, now)  # it would have taken at least that; a quick refusal says nothing of speed

    def _draw(self, candidates: Sequence[int]) -> int:
        """The smooth draw (see the module)."""
        if len(candidates) == 1:
            return candidates[0]  # it would be credited and charged the same
        weights, balances = self._weights, self._balances
        chosen = candidates[0]
        total = 0
        for index in candidates:
            weight = weights[index]
            total += weight
            balances[index] += weight
            if balances[index] > balances[chosen]:
                chosen = index
        balances[chosen] -= total
        return chosen

    def _least_loaded(self, candidates: Sequence[int]) -> Sequence[int]:
        """Those with the fewest exchanges running for their weight."""
        loads, weights = self._loads, self._weights
        shares = [loads[index].running / weights[index] for index in candidates]  # one rounding: equal shares are equal
        least = min(shares)
        return [index for index, share in zip(candidates, shares, strict=True) if share == least]

    def _quickest(self, candidates: Sequence[int], now: float) -> Sequence[int]:
        """Those that were never tried, else those with the lowest estimate; now and then one that is slow."""
        loads = self._loads
        untried = [index for index in candidates if loads[index].tried_at == -inf]
        if untried:
            return untried
        expected = [loads[index].expected_s(now) for index in candidates]
        limit = min(expected) * TIE
        quick: list[int] = []
        slow: list[int] = []
        for index, seconds in zip(candidates, expected, strict=True):
            (quick if seconds <= limit else slow).append(index)
        self._picks_since_probe += 1
        if slow and self._picks_since_probe >= PROBE_EVERY_PICKS:
            stalest = min(slow, key=lambda index: loads[index].tried_at)
            if not loads[stalest].waiting and now - loads[stalest].tried_at >= PROBE_AFTER_S:
                self._picks_since_probe = 0
                return (stalest,)
        return quick


class _Load:
    """What is known of one target."""

    __slots__ = ("estimate_s", "heard_at", "running", "samples", "silent_since", "tried_at", "waiting")

    def __init__(self) -> None:
        self.running = 0
        """Exchanges that began and have not ended."""
        self.waiting = 0
        """Those of them whose first output has not come."""
        self.silent_since = 0.0
        """While some wait: since when none of them has heard anything."""
        self.tried_at = -inf
        """The last pick; -inf before the first."""
        self.estimate_s: float | None = None
        """The mean time to first output; None before the first."""
        self.samples = 0.0
        """How many times the estimate rests on, each decayed by its age at `heard_at`."""
        self.heard_at = 0.0

    def learn(self, first_output_s: float, now: float) -> None:
        """One more time to first output: the mean is moved by its share."""
        if self.estimate_s is None:
            self.samples, self.estimate_s = 1.0, first_output_s
        else:
            faded = self.samples * exp((self.heard_at - now) / DECAY_S)
            self.samples = min(faded + 1.0, SAMPLES_MAX)
            self.estimate_s += (first_output_s - self.estimate_s) / self.samples
        self.heard_at = now

    def expected_s(self, now: float) -> float:
        """The time to first output to expect: the estimate, but no less than the silence that lasts already.

        A target that hangs gives no times to learn from, and would be the quickest until a deadline ends the first
        of its exchanges. One that was tried and never answered is behind all that did.
        """
        estimate_s = inf if self.estimate_s is None else self.estimate_s
        return max(estimate_s, now - self.silent_since) if self.waiting else estimate_s
