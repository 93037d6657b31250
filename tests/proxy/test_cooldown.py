"""What cools down, when and for how long; who is let through; and the header that says for how long."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from structlog.testing import capture_logs

from proxy.cooldown import RETRY_AFTER_MAX_S, Cooldowns, retry_after_s


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Cooldown:
    """As in the configuration, with the contract's defaults."""

    failures: int = 5
    window_ms: int = 30_000
    base_ms: int = 1000
    max_ms: int = 60_000


DEFAULT = Cooldown()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cooldowns(clock: Clock) -> Cooldowns:
    return Cooldowns(clock)


def fail(cooldowns: Cooldowns, times: int = 1, settings: Cooldown = DEFAULT) -> None:
    """Attempts at `qwen`, one after the other, that fail."""
    for _ in range(times):
        cooldowns.failed("qwen", cooldowns.began("qwen"), settings)


def seconds_left(cooldowns: Cooldowns, name: str = "qwen") -> float:
    return cooldowns.cooling()[name]


# ---------------------------------------------------------------------------------------------------------- services


def test_a_service_cools_down_with_the_last_of_so_many_failures(cooldowns: Cooldowns) -> None:
    fail(cooldowns, 4)
    assert cooldowns.available("qwen")
    assert cooldowns.cooling() == {}
    fail(cooldowns)
    assert not cooldowns.available("qwen")
    assert cooldowns.cooling() == {"qwen": 1.0}
    assert cooldowns.available("backup")


def test_a_success_between_failures_starts_the_count_again(cooldowns: Cooldowns) -> None:
    """One in a hundred that fails is no reason to leave a service alone, however many requests there are."""
    for _ in range(100):
        fail(cooldowns, 4)
        cooldowns.succeeded("qwen", cooldowns.began("qwen"))
    assert cooldowns.available("qwen")


def test_failures_longer_ago_than_the_window_do_not_count(cooldowns: Cooldowns, clock: Clock) -> None:
    fail(cooldowns, 2)
    clock.now_s += 15
    fail(cooldowns, 2)
    clock.now_s += 15.1
    fail(cooldowns)  # the third within the window
    assert cooldowns.available("qwen")
    fail(cooldowns)
    assert cooldowns.available("qwen")
    fail(cooldowns)
    assert not cooldowns.available("qwen")


def test_no_failures_at_all_switches_it_off(cooldowns: Cooldowns) -> None:
    fail(cooldowns, 5)
    assert not cooldowns.available("qwen")
    fail(cooldowns, 1, Cooldown(failures=0))
    assert cooldowns.available("qwen")
    fail(cooldowns, 100, Cooldown(failures=0))
    assert cooldowns.available("qwen")


# -------------------------------------------------------------------------------------------------------------- keys


def test_a_key_cools_down_at_once(cooldowns: Cooldowns) -> None:
    cooldowns.refused("qwen/0", cooldowns.began("qwen/0"), DEFAULT)
    assert not cooldowns.available("qwen/0")
    assert cooldowns.available("qwen/1")
    assert cooldowns.cooling() == {"qwen/0": 1.0}


def test_all_that_were_refused_together_are_one_refusal(cooldowns: Cooldowns, clock: Clock) -> None:
    tickets = [cooldowns.began("qwen/0") for _ in range(50)]
    for ticket in tickets:
        cooldowns.refused("qwen/0", ticket, DEFAULT)
    assert cooldowns.cooling() == {"qwen/0": 1.0}
    clock.now_s += 1
    cooldowns.refused("qwen/0", cooldowns.began("qwen/0"), DEFAULT)
    assert cooldowns.cooling() == {"qwen/0": 2.0}


def test_a_success_of_before_the_refusal_does_not_end_the_cool_down(cooldowns: Cooldowns) -> None:
    early = cooldowns.began("qwen/0")
    cooldowns.refused("qwen/0", cooldowns.began("qwen/0"), DEFAULT)
    cooldowns.succeeded("qwen/0", early)
    assert not cooldowns.available("qwen/0")


# ------------------------------------------------------------------------------------------------------- how long for


def test_each_failed_probe_doubles_it_up_to_the_limit(cooldowns: Cooldowns, clock: Clock) -> None:
    fail(cooldowns, 5)
    lengths_s = []
    for _ in range(9):
        lengths_s.append(seconds_left(cooldowns))
        clock.now_s += lengths_s[-1]
        fail(cooldowns)
    assert lengths_s == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_success_resets_the_length(cooldowns: Cooldowns, clock: Clock) -> None:
    fail(cooldowns, 5)
    for _ in range(3):
        clock.now_s += 60
        fail(cooldowns)
    clock.now_s += 60
    cooldowns.succeeded("qwen", cooldowns.began("qwen"))
    fail(cooldowns, 4)
    assert cooldowns.available("qwen")
    fail(cooldowns)
    assert seconds_left(cooldowns) == 1


@pytest.mark.parametrize(("asked_s", "length_s"), [(0.0, 0), (0.25, 0.25), (90.0, 90), (1e9, RETRY_AFTER_MAX_S)])
def test_retry_after_sets_the_length(cooldowns: Cooldowns, asked_s: float, length_s: float) -> None:
    cooldowns.refused("qwen/0", cooldowns.began("qwen/0"), DEFAULT, asked_s)
    assert seconds_left(cooldowns, "qwen/0") == length_s


def test_retry_after_of_the_last_failure_sets_it_for_a_service(cooldowns: Cooldowns) -> None:
    for asked_s in (300.0, 300.0, 300.0, 300.0, 20.0):
        assert cooldowns.available("qwen"), "one 503 is no outage, whatever it asks for"
        cooldowns.failed("qwen", cooldowns.began("qwen"), DEFAULT, asked_s)
    assert seconds_left(cooldowns) == 20


def test_retry_after_of_a_straggler_lengthens_it_and_never_shortens_it(cooldowns: Cooldowns) -> None:
    tickets = [cooldowns.began("qwen/0") for _ in range(4)]
    for ticket, asked_s, left_s in zip(tickets, (10.0, 30.0, 5.0, 1e9), (10, 30, 30, RETRY_AFTER_MAX_S), strict=True):
        cooldowns.refused("qwen/0", ticket, DEFAULT, asked_s)
        assert seconds_left(cooldowns, "qwen/0") == left_s


def test_a_subject_that_fails_for_ever_costs_no_more_each_time(cooldowns: Cooldowns, clock: Clock) -> None:
    fail(cooldowns, 5)
    for _ in range(10_000):
        clock.now_s += 60
        fail(cooldowns)
    assert seconds_left(cooldowns) == 60


# --------------------------------------------------------------------------------------------------------- the probe


@pytest.fixture
def cooled(cooldowns: Cooldowns, clock: Clock) -> Cooldowns:
    """`qwen` was cooling down, and its time is just over."""
    fail(cooldowns, 5)
    clock.now_s += 1
    return cooldowns


def test_when_it_is_over_one_attempt_is_let_through(cooled: Cooldowns) -> None:
    assert cooled.available("qwen")
    assert cooled.available("qwen"), "a look takes nothing"
    assert cooled.cooling() == {"qwen": 0.0}
    cooled.began("qwen")
    assert not cooled.available("qwen")


def test_a_probe_that_succeeds_opens_it_to_all(cooled: Cooldowns) -> None:
    cooled.succeeded("qwen", cooled.began("qwen"))
    assert cooled.available("qwen")
    cooled.began("qwen")
    assert cooled.available("qwen")
    assert cooled.cooling() == {}


def test_a_probe_that_never_reports_is_released(cooled: Cooldowns) -> None:
    cooled.released("qwen", cooled.began("qwen"))
    assert cooled.available("qwen")
    cooled.began("qwen")
    assert not cooled.available("qwen")


def test_others_do_not_give_the_probes_place_away(cooldowns: Cooldowns, clock: Clock) -> None:
    stragglers = [cooldowns.began("qwen") for _ in range(3)]
    fail(cooldowns, 5)
    clock.now_s += 1
    probe = cooldowns.began("qwen")
    released, succeeded, failed = stragglers
    cooldowns.released("qwen", released)
    cooldowns.succeeded("qwen", succeeded)
    cooldowns.failed("qwen", failed, DEFAULT)
    assert not cooldowns.available("qwen")
    assert seconds_left(cooldowns) == 0, "nor lengthen it"
    cooldowns.succeeded("qwen", probe)
    assert cooldowns.available("qwen")


def test_the_last_target_is_tried_while_it_cools_down(cooldowns: Cooldowns) -> None:
    """The caller's decision. Its success ends the cool-down, its failure does not double it."""
    fail(cooldowns, 5)
    fail(cooldowns, 20)
    assert seconds_left(cooldowns) == 1
    cooldowns.succeeded("qwen", cooldowns.began("qwen"))
    assert cooldowns.available("qwen")


def test_an_attempt_of_the_time_of_the_cool_down_is_not_the_probe(cooldowns: Cooldowns, clock: Clock) -> None:
    fail(cooldowns, 5)
    forced = cooldowns.began("qwen")
    clock.now_s += 1
    cooldowns.began("qwen")
    cooldowns.failed("qwen", forced, DEFAULT)
    assert not cooldowns.available("qwen")
    assert seconds_left(cooldowns) == 0


# ------------------------------------------------------------------------------------------------------------ memory


def test_what_the_configuration_no_longer_names_is_forgotten(cooldowns: Cooldowns) -> None:
    fail(cooldowns, 5)
    for name in ("qwen/0", "backup/0"):
        cooldowns.refused(name, cooldowns.began(name), DEFAULT)
    probe = cooldowns.began("qwen")
    cooldowns.forget({"backup", "backup/0"})
    assert cooldowns.cooling().keys() == {"backup/0"}
    assert cooldowns.available("qwen")
    cooldowns.released("qwen", probe)
    cooldowns.succeeded("qwen", probe)
    assert cooldowns.available("qwen")


def test_each_cool_down_is_said_once(cooldowns: Cooldowns) -> None:
    with capture_logs() as logged:
        fail(cooldowns, 4)
        assert not logged
        fail(cooldowns, 3)
        cooldowns.refused("qwen/0", cooldowns.began("qwen/0"), DEFAULT, 20.0)
    assert [(line["event"], line["subject"], line["seconds"]) for line in logged] == [
        ("cooling_down", "qwen", 1.0),
        ("cooling_down", "qwen/0", 20.0),
    ]


def test_a_probe_that_takes_as_long_as_a_cool_down_no_longer_keeps_others_away(clock: Clock) -> None:
    cooldowns = Cooldowns(clock)
    cooldowns.refused("qwen", cooldowns.began("qwen"), DEFAULT, 0.0)
    slow = cooldowns.began("qwen")
    assert not cooldowns.available("qwen")
    clock.now_s += DEFAULT.base_ms / 1000
    assert cooldowns.available("qwen")
    probe = cooldowns.began("qwen")
    assert not cooldowns.available("qwen")
    cooldowns.released("qwen", slow)
    assert not cooldowns.available("qwen")
    cooldowns.succeeded("qwen", probe)
    assert cooldowns.cooling() == {}


class Model:
    """What one subject may do, written down without regard for speed: every attempt is known by name."""

    def __init__(self) -> None:
        self.failed_at: list[float] = []
        self.until: float | None = None
        self.length_s = 0.0
        self.probe: int | None = None
        self.probed_at = 0.0
        self.before: set[int] = set()
        """Attempts under way when it began to cool down."""


class AnySchedule(RuleBasedStateMachine):
    """Attempts that begin, end and time out in any order, against `Model`."""

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cooldowns = Cooldowns(self.clock)
        self.settings = Cooldown(failures=2, window_ms=3000, base_ms=1000, max_ms=4000)
        self.model = Model()
        self.running: set[int] = set()

    def _may_probe(self) -> bool:
        model = self.model
        if model.until is None or self.clock.now_s < model.until:
            return False
        return model.probe is None or self.clock.now_s - model.probed_at >= model.length_s

    def _cool(self) -> None:
        model = self.model
        model.length_s = min(model.length_s * 2, 4.0) if model.length_s else 1.0
        model.until = self.clock.now_s + model.length_s
        model.before = set(self.running)
        model.probe = None
        model.failed_at = []

    @rule(target=attempts)
    def begin(self) -> int:
        may_probe = self._may_probe()
        attempt = self.cooldowns.began("qwen")
        if may_probe:
            self.model.probe, self.model.probed_at = attempt, self.clock.now_s
        self.running.add(attempt)
        return attempt

    @rule(pause_s=st.sampled_from((0.5, 1.0, 4.0)))
    def wait(self, pause_s: float) -> None:
        self.clock.now_s += pause_s

    @rule(attempt=consumes(attempts))
    def succeed(self, attempt: int) -> None:
        self.cooldowns.succeeded("qwen", attempt)
        self.running.discard(attempt)
        if attempt not in self.model.before:
            self.model = Model()

    @rule(attempt=attempts)
    def answer(self, attempt: int) -> None:
        """It may still fail, or succeed."""
        self.cooldowns.answered("qwen", attempt)
        if self.model.until is not None and attempt not in self.model.before:
            self.model = Model()

    @rule(attempt=consumes(attempts))
    def leave(self, attempt: int) -> None:
        self.cooldowns.released("qwen", attempt)
        self.running.discard(attempt)
        if self.model.probe == attempt:
            self.model.probe = None

    @rule(attempt=consumes(attempts), refused=st.booleans())
    def fail(self, attempt: int, refused: bool) -> None:
        (self.cooldowns.refused if refused else self.cooldowns.failed)("qwen", attempt, self.settings)
        self.running.discard(attempt)
        model, now_s = self.model, self.clock.now_s
        if model.until is not None:
            if model.probe == attempt:
                self._cool()
            return
        model.failed_at = [at for at in model.failed_at if now_s - at <= 3.0] + [now_s]
        if refused or len(model.failed_at) >= 2:
            self._cool()

    @invariant()
    def they_agree(self) -> None:
        model, now_s = self.model, self.clock.now_s
        assert self.cooldowns.available("qwen") is (model.until is None or self._may_probe())
        left_s = {} if model.until is None else {"qwen": max(0.0, model.until - now_s)}
        assert self.cooldowns.cooling() == left_s


TestAnySchedule = AnySchedule.TestCase


# ------------------------------------------------------------------------------------------------------- retry-after

NOW_S = 784111777.0 - 60
"""A minute before the example date of RFC 9110 §5.6.7."""


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0),
        (b"120", 120),
        (b" 7\t", 7),
        (b"0007", 7),
        (b"0.5", 0.5),
        (b"3600", 3600),
        (b"3601", RETRY_AFTER_MAX_S),
        (b"9" * 64, RETRY_AFTER_MAX_S),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 60),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 60),
        (b"Sun Nov  6 08:49:37 1994", 60),
        (b"Sun, 06 Nov 1994 08:40:00 GMT", 0),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX_S),
    ],
)
def test_retry_after(value: bytes, seconds: float) -> None:
    assert retry_after_s(value, NOW_S) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"-1",
        b"+1",
        b"1e3",
        b"1.",
        b".5",
        b"0x10",
        b"1, 2",
        b"1s",
        b"inf",
        b"nan",
        "٣".encode(),
        b"soon",
        b"06 Nov 1994",
        b"Sun, 06 Foo 1994 08:49:37 GMT",
        b"Sun, 99 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 25:00:00 GMT",
        b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        b"Sun, 06 Nov 1994 08:49:37 +99999999999999",
        b"Sun, 06 Nov 1994 08:49:37 GMT" + b" " * 64,
        b"1" * 65,
        b"\xff:\xff",
    ],
)
def test_what_says_nothing(value: bytes | None) -> None:
    assert retry_after_s(value, NOW_S) is None


@given(st.binary(max_size=80) | st.from_regex(r"[A-Z][a-z]{2},? ?[0-9: A-Za-z+,-]{0,40}").map(str.encode))
def test_any_bytes_say_nothing_or_a_bounded_time(value: bytes) -> None:
    seconds = retry_after_s(value, NOW_S)
    assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= RETRY_AFTER_MAX_S)


def test_a_date_is_in_utc_wherever_the_gateway_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        assert retry_after_s(b"Sun Nov  6 08:49:37 1994", NOW_S) == 60
    time.tzset()
