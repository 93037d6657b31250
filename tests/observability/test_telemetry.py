"""Which requests are traced although the sampler has passed over them."""

import pytest

from observability import names
from observability.observation import Observation
from observability.sampling import TraceContext
from observability.telemetry import Telemetry

MS = 1_000_000


@pytest.mark.parametrize(
    ("outcome", "origin", "kept"),
    [
        ("ok", None, False),
        ("upstream_error", "upstream", True),
        ("upstream_error", "client", True),
        ("upstream_aborted", "upstream", True),
        ("gateway_error", "gateway", True),
        ("rejected", "gateway", True),  # overloaded
        ("rejected", "client", False),
        ("client_aborted", None, False),
    ],
)
def test_errors_are_kept_where_it_is_not_the_callers_own(outcome, origin, kept):
    made = Observation("0" * 32, TraceContext("a" * 32, None, None, None), "c" * 16, "d" * 16)
    made.outcome, made.error_origin = outcome, origin
    assert outcome in names.OUTCOMES
    assert Telemetry().keeps(made, made.accepted_ns) is kept
    assert Telemetry(keep_errors=False).keeps(made, made.accepted_ns) is False


@pytest.mark.parametrize(("limit_ms", "took_ms", "kept"), [(0, 10_000, False), (500, 499, False), (500, 500, True)])
def test_slow_requests_are_kept(limit_ms, took_ms, kept):
    made = Observation("0" * 32, TraceContext("a" * 32, None, None, None), "c" * 16, "d" * 16)
    made.outcome = "ok"
    assert Telemetry(keep_slower_ns=limit_ms * MS).keeps(made, made.accepted_ns + took_ms * MS) is kept
