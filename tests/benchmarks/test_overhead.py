"""The generator and the upstream of the overhead's benchmark, on real sockets; and how a result is judged."""

import socket
import subprocess
import sys

import pytest

from benchmarks.overhead import CONNECTIONS, DELAY_S, complaints, generate


@pytest.mark.parametrize("rate", [0, 400])
def test_every_request_is_answered_after_the_upstreams_own_time(rate: float) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener:
        command = [sys.executable, "-m", "benchmarks.overhead", "--serve", str(listener.fileno())]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as upstream:
            try:
                outcome = generate(f"http://127.0.0.1:{listener.getsockname()[1]}", rate, 0.5)
            finally:
                upstream.kill()
    assert outcome.failed == 0
    assert len(outcome.latencies_ms) >= CONNECTIONS
    assert min(outcome.latencies_ms) >= DELAY_S * 1000
    assert rate == 0 or len(outcome.latencies_ms) <= rate * 0.5 + 1


GOOD = {"outside_ms": 0.4, "inside_ms": 0.3, "requests": 1000, "failed": 0, "late": 0, "missing": 0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"inside_ms": 0.59}, None),
        ({"inside_ms": 0.61}, "differ by 0.210 ms"),
        ({"inside_ms": 0.19}, "differ by 0.210 ms"),
        ({"outside_ms": 5.0, "inside_ms": 4.6}, None),
        ({"outside_ms": 5.0, "inside_ms": 4.4}, "differ by 0.600 ms"),
        ({"failed": 1}, "1 requests failed"),
        ({"missing": 2}, "2 requests left no record"),
        ({"late": 51}, "51 of 1000 requests"),
    ],
)
def test_what_is_no_good_result(change: dict[str, float], words: str | None) -> None:
    found = complaints(GOOD | change)
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
