"""How a result with collectors that fail is judged. That they do what they say: `tests/e2e/test_telemetry.py`."""

from dataclasses import replace

import pytest

from benchmarks.collectors import MIB, NONE, Round, complaints

WITHOUT = Round(9000.0, 10.0, 0, 0, 0, 0, 0, 0, 0)
GOOD = replace(WITHOUT, spans=100, delivered=60, dropped=40)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"requests_per_s": 8000.0}, "0.89 of the throughput"),
        ({"p99_ms": 13.5}, "1.35 times the p99"),
        ({"errors": 1}, "1 requests failed"),
        ({"lines_missing": 2}, "2 lines are missing"),
        ({"dropped": 39}, "100 spans, 60 delivered and 39 counted"),
        ({"dropped": 41}, "100 spans, 60 delivered and 41 counted"),
        ({"control_grew_bytes": 17 * MIB}, "control grew by 17 MiB"),
        ({"observer_grew_bytes": 200 * MIB}, "the observer by 200 MiB"),
    ],
)
def test_what_is_no_good_result(change: dict[str, float], words: str | None) -> None:
    found = complaints({NONE: [WITHOUT], "hanging": [replace(GOOD, **change)]})  # type: ignore[arg-type]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
