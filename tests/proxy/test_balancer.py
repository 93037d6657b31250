"""Shares over long and short runs, with targets that come and go; who is least loaded; who is quickest, and for how
long it is believed."""

from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.balancer import BALANCES, DECAY_S, PROBE_AFTER_S, PROBE_EVERY_PICKS, Balancer


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def picks(balancer: Balancer, available: Sequence[int], count: int) -> list[int]:
    return [balancer.pick(available) for _ in range(count)]


# ---------------------------------------------------------------------------------------------------------- weighted


def test_shares_of_100_000_picks_are_exact_and_runs_of_20_hardly_differ() -> None:
    drawn = picks(Balancer((80, 20), "weighted"), (0, 1), 100_000)
    assert abs(drawn.count(0) / 100_000 - 0.8) <= 0.001
    window = deque(drawn[:20], maxlen=20)
    for index in drawn[20:]:
        assert abs(window.count(0) - 16) <= 2
        window.append(index)


def test_picks_of_a_target_are_spread() -> None:
    assert picks(Balancer((5, 1, 1), "weighted"), (0, 1, 2), 14) == [0, 0, 1, 0, 2, 0, 0] * 2


@given(weights=st.lists(st.integers(1, 100), min_size=1, max_size=8), count=st.integers(1, 300))
def test_after_any_number_of_picks_each_share_is_right_to_a_few_picks(weights: list[int], count: int) -> None:
    counts = Counter(picks(Balancer(weights, "weighted"), range(len(weights)), count))
    for index, weight in enumerate(weights):
        assert abs(counts[index] - count * weight / sum(weights)) < len(weights)


@given(weights=st.lists(st.integers(1, 20), min_size=2, max_size=6), start=st.integers(0, 100))
def test_every_window_of_the_sum_of_weights_is_exact(weights: list[int], start: int) -> None:
    balancer = Balancer(weights, "weighted")
    everyone = range(len(weights))
    picks(balancer, everyone, start)
    counts = Counter(picks(balancer, everyone, sum(weights)))
    assert [counts[index] for index in everyone] == weights


def test_a_target_that_returns_has_nothing_to_catch_up_on() -> None:
    balancer = Balancer((80, 20), "weighted")
    picks(balancer, (0, 1), 3)
    assert set(picks(balancer, (1,), 1000)) == {1}
    for _ in range(50):
        assert abs(picks(balancer, (0, 1), 20).count(0) - 16) <= 2


def test_while_one_is_away_the_others_share_by_weight_and_so_they_do_afterwards() -> None:
    balancer = Balancer((50, 30, 20), "weighted")
    picks(balancer, (0, 1, 2), 7)
    away = Counter(picks(balancer, (0, 2), 7000))
    assert abs(away[0] - 5000) <= 2
    back = Counter(picks(balancer, (0, 1, 2), 1000))
    assert all(abs(back[index] - expected) <= 2 for index, expected in enumerate((500, 300, 200)))


@given(st.data())
def test_coming_and_going_never_upsets_the_shares_for_long(data: st.DataObject) -> None:
    """However targets come and go, the shares of the picks that follow are right to a few picks."""
    weights = data.draw(st.lists(st.integers(1, 50), min_size=2, max_size=5), "weights")
    everyone = range(len(weights))
    balancer = Balancer(weights, "weighted")
    some = st.sets(st.sampled_from(everyone), min_size=1)
    for available in data.draw(st.lists(some, max_size=60), "available"):
        index = balancer.pick(sorted(available))
        assert index in available
    count = 10 * sum(weights)
    counts = Counter(picks(balancer, everyone, count))
    for index, weight in enumerate(weights):
        assert abs(counts[index] - 10 * weight) <= len(weights)


@pytest.mark.parametrize("balance", BALANCES)
def test_weight_0_is_picked_only_where_nothing_else_is_available(balance: str) -> None:
    balancer = Balancer((0, 3, 0), balance)
    assert set(picks(balancer, (0, 1, 2), 100)) == {1}
    assert picks(balancer, (2,), 1) == [2]
    assert abs(picks(balancer, (0, 2), 100).count(0) - 50) <= 1


def test_an_unknown_balance_is_refused() -> None:
    with pytest.raises(ValueError, match="round_robin"):
        Balancer((1,), "round_robin")


# ---------------------------------------------------------------------------------------------------- least in flight


def test_who_has_the_least_running_for_its_weight_is_picked() -> None:
    balancer = Balancer((2, 1), "least_inflight")
    for _ in range(3):  # rounds of 2 : 1
        drawn = []
        for _ in range(3):
            drawn.append(balancer.pick((0, 1)))
            balancer.began(drawn[-1])
        assert sorted(drawn) == [0, 0, 1]
    balancer.ended(1, heard=False)
    assert picks(balancer, (0, 1), 5) == [1] * 5
    assert balancer.pick((0,)) == 0


def test_idle_targets_are_drawn_by_weight() -> None:
    balancer = Balancer((80, 20), "least_inflight")
    counts: Counter[int] = Counter()
    for _ in range(1000):
        index = balancer.pick((0, 1))
        balancer.began(index)
        balancer.heard(index, 0.1)
        balancer.ended(index, heard=True)
        counts[index] += 1
    assert counts == {0: 800, 1: 200}


@given(
    weights=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    ends=st.lists(st.none() | st.integers(0, 30), max_size=80),
)
def test_nobody_picked_has_more_running_for_its_weight_than_another(weights: list[int], ends: list[int | None]) -> None:
    """`ends`: begin one more exchange (None), or end one of those that run."""
    balancer = Balancer(weights, "least_inflight")
    everyone = range(len(weights))
    running: list[int] = []
    for end in ends:
        if end is None or not running:
            index = balancer.pick(everyone)
            shares = [running.count(other) / weights[other] for other in everyone]
            assert shares[index] == min(shares)
            balancer.began(index)
            running.append(index)
        else:
            balancer.ended(running.pop(end % len(running)), heard=False)


# ---------------------------------------------------------------------------------------------------- lowest latency


class Traffic:
    """Requests one after the other to targets with these times to first output; None: fails at once."""

    def __init__(self, *latencies_s: float | None, weights: Sequence[int] | None = None) -> None:
        self.clock = Clock()
        self.latencies_s = list(latencies_s)
        self.everyone = range(len(latencies_s))
        self.balancer = Balancer(weights or [1] * len(latencies_s), "lowest_latency", self.clock)

    def request(self, pause_s: float = 0.0) -> int:
        index = self.balancer.pick(self.everyone)
        self.balancer.began(index)
        latency_s = self.latencies_s[index]
        if latency_s is not None:
            self.clock.now_s += latency_s
            self.balancer.heard(index, latency_s)
        self.balancer.ended(index, heard=latency_s is not None)
        self.clock.now_s += pause_s
        return index

    def requests(self, count: int, pause_s: float = 0.0) -> list[int]:
        return [self.request(pause_s) for _ in range(count)]


def test_each_target_is_tried_and_then_the_quickest_is_used() -> None:
    traffic = Traffic(0.5, 0.1, 0.9)
    assert sorted(traffic.requests(3)) == [0, 1, 2]
    assert set(traffic.requests(20)) == {1}


def test_unknown_targets_get_one_request_each_and_not_all_of_them() -> None:
    """A hundred requests at once: the unknown two are tried, nobody knows more until one of them answers."""
    traffic = Traffic(0.5)
    balancer = Balancer((1, 1, 1), "lowest_latency", traffic.clock)
    assert balancer.pick((0,)) == 0
    balancer.began(0)
    traffic.clock.now_s += 0.1
    balancer.heard(0, 0.1)
    burst = []
    for _ in range(100):
        burst.append(balancer.pick((0, 1, 2)))
        balancer.began(burst[-1])
    assert sorted(burst[:2]) == [1, 2]
    assert set(burst[2:]) == {0}


def test_nobody_known_and_all_tried_are_drawn_by_weight() -> None:
    balancer = Balancer((80, 20), "lowest_latency", Clock())
    counts: Counter[int] = Counter()
    for _ in range(100):
        index = balancer.pick((0, 1))
        balancer.began(index)
        counts[index] += 1
    assert abs(counts[0] - 80) <= 2


def test_nearly_equal_targets_are_drawn_by_weight() -> None:
    traffic = Traffic(0.50, 0.55, 2.0, weights=(3, 1, 1))
    traffic.requests(3)
    counts = Counter(traffic.requests(20))
    assert counts == {0: 15, 1: 5}


def test_a_target_that_never_answered_is_behind_all_that_did() -> None:
    """It refuses at once, which is quick, and must not draw everybody."""
    traffic = Traffic(None, 0.3)
    assert sorted(traffic.requests(2)) == [0, 1]
    assert set(traffic.requests(20)) == {1}


def test_a_target_that_turns_slow_is_left_within_a_few_answers() -> None:
    traffic = Traffic(0.2, 0.3)
    traffic.requests(200)
    traffic.latencies_s[0] = 2.0
    assert traffic.requests(10).count(0) <= 4


def test_however_many_answers_an_estimate_has_seen_it_follows_the_next_few() -> None:
    traffic = Traffic(0.0010, 0.0015)
    traffic.requests(9000)  # in less than DECAY_S
    traffic.latencies_s[0] = 0.01
    assert traffic.requests(20).count(0) <= 4


def test_one_odd_answer_among_many_is_no_news() -> None:
    traffic = Traffic(0.2, 0.5)
    traffic.requests(100)
    traffic.latencies_s[0] = 2.0
    assert traffic.request() == 0
    traffic.latencies_s[0] = 0.2
    assert set(traffic.requests(10)) == {0}


def test_a_slow_target_is_tried_again_but_rarely() -> None:
    """Where requests are frequent, once in PROBE_AFTER_S; where they are rare, once in PROBE_EVERY_PICKS."""
    traffic = Traffic(0.001, 0.5)
    traffic.requests(2)
    began_s = traffic.clock.now_s
    frequent = traffic.requests(30_000)
    assert (traffic.clock.now_s - began_s) / PROBE_AFTER_S == pytest.approx(frequent.count(1), abs=1)

    rare = traffic.requests(1000, pause_s=60.0)
    assert rare.count(1) == 1000 // PROBE_EVERY_PICKS


def test_slow_targets_are_tried_again_in_turn() -> None:
    traffic = Traffic(0.1, 2.0, 3.0, 4.0)
    traffic.requests(4)
    probed = [index for index in traffic.requests(12 * 110) if index != 0]
    assert len(probed) >= 6
    assert all(set(three) == {1, 2, 3} for three in zip(probed, probed[1:], probed[2:], strict=False))


def test_a_target_that_is_quick_again_is_found() -> None:
    traffic = Traffic(0.05, 0.02)
    traffic.requests(1000)
    traffic.latencies_s[1] = 5.0
    traffic.requests(1000)
    assert traffic.requests(100).count(1) <= 1
    traffic.latencies_s[1] = 0.01
    recovered_s = traffic.clock.now_s
    while set(traffic.requests(10)) != {1}:
        assert traffic.clock.now_s - recovered_s < 12 * DECAY_S


def test_a_target_that_hangs_is_left_while_its_requests_still_wait() -> None:
    """No answer ever tells how slow it is: the silence does."""
    traffic = Traffic(0.2, 0.3)
    traffic.requests(20)
    balancer, clock = traffic.balancer, traffic.clock
    assert balancer.pick((0, 1)) == 0
    balancer.began(0)
    clock.now_s += 0.19
    assert balancer.pick((0, 1)) == 0
    clock.now_s += 0.30
    assert balancer.pick((0, 1)) == 1
    clock.now_s += 1000
    assert set(traffic.requests(100)) == {1}, "nor is it probed while a request waits there"
    balancer.ended(0, heard=False)
    assert traffic.requests(PROBE_EVERY_PICKS).count(0) == 1, "one probe, and what it kept waiting is remembered"


def test_a_quick_refusal_is_not_charged_with_what_others_wait_for() -> None:
    traffic = Traffic(0.2, 0.2)
    traffic.requests(20)
    balancer, clock = traffic.balancer, traffic.clock
    balancer.began(0)
    clock.now_s += 0.19
    for _ in range(20):
        balancer.began(0)
        clock.now_s += 0.01
        balancer.ended(0, heard=False, lasted_s=0.01)
    balancer.heard(0, 0.2)
    assert 30 <= traffic.requests(100).count(0) <= 70


def test_a_target_that_hangs_is_silent_however_many_more_go_there() -> None:
    traffic = Traffic(0.2, 0.3)
    traffic.requests(20)
    balancer, clock = traffic.balancer, traffic.clock
    for _ in range(5):
        balancer.began(0)
        clock.now_s += 0.1
    assert balancer.pick((0, 1)) == 1


def test_answers_that_keep_coming_are_no_silence() -> None:
    """Two hundred at a time, one answer every 5 ms: each waits a second, the target is never silent."""
    clock = Clock()
    balancer = Balancer((1, 1), "lowest_latency", clock)
    for index in (0, 1):
        assert balancer.pick((index,)) == index
        balancer.began(index)
        clock.now_s += (1.0, 2.0)[index]
        balancer.heard(index, (1.0, 2.0)[index])
        balancer.ended(index, heard=True)
    for _ in range(200):
        balancer.began(0)
    for _ in range(1000):
        clock.now_s += 0.005
        balancer.heard(0, 1.0)
        balancer.ended(0, heard=True)
        assert balancer.pick((0,)) == 0
        balancer.began(0)
    assert balancer.pick((0, 1)) == 0


def test_a_stream_that_goes_on_is_not_silence() -> None:
    traffic = Traffic(0.2, 0.3)
    traffic.requests(10)
    traffic.balancer.began(0)
    traffic.clock.now_s += 0.2
    traffic.balancer.heard(0, 0.2)
    traffic.clock.now_s += 60
    assert set(traffic.requests(10)) == {0}


@given(st.data())
def test_any_schedule_picks_what_is_available(data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=5), "weights")
    assume(any(weights))
    everyone = range(len(weights))
    for balance in BALANCES:
        clock = Clock()
        balancer = Balancer(weights, balance, clock)
        waiting: list[int] = []
        for _ in range(data.draw(st.integers(0, 40), "steps")):
            clock.now_s += data.draw(st.sampled_from((0.0, 0.1, 20.0)), "pause")
            match data.draw(st.sampled_from(("begin", "hear", "fail")), "step"):
                case "hear" if waiting:
                    index = waiting.pop()
                    balancer.heard(index, data.draw(st.sampled_from((0.0, 0.1, 5.0)), "first output"))
                    balancer.ended(index, heard=True)
                case "fail" if waiting:
                    balancer.ended(waiting.pop(), heard=False)
                case _:
                    available = sorted(data.draw(st.sets(st.sampled_from(everyone), min_size=1), "available"))
                    index = balancer.pick(available)
                    assert index in available
                    assert weights[index] or not any(weights[other] for other in available)
                    balancer.began(index)
                    waiting.append(index)


def test_equal_estimates_alternate() -> None:
    """The same times everywhere: smooth as if by weight, no herd."""
    traffic = Traffic(0.1, 0.1, 0.1, 0.1)
    drawn = traffic.requests(41)
    assert all(one != other for one, other in pairwise(drawn[4:]))
