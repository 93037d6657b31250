"""A record's line."""

import orjson
import pytest

from observability import names
from observability.observer.logs import LineEncoder
from tests.observability.records import SPAN_ID, START_NS, TRACE_ID, record


def test_a_line_is_who_and_when_then_the_fields():
    made = record(labels={"team": "search"}, end_ns=START_NS + 7_999_999)
    data = LineEncoder().encode(made)
    assert data.endswith(b"}\n")
    assert data.count(b"\n") == 1
    line = orjson.loads(data)
    assert list(line)[:5] == ["timestamp", "level", "event", "trace_id", "span_id"]
    assert line["timestamp"] == "2023-11-14T22:13:20.007Z"
    assert (line["event"], line["trace_id"], line["span_id"]) == ("request", TRACE_ID, SPAN_ID)
    assert line["sluiceway.label.team"] == "search"
    assert made["fields"].items() <= line.items()


def test_the_line_says_what_was_tried_where_that_was_more_than_one_target():
    (plain,) = record()["attempts"]
    plain.pop("status", None)
    first = {**plain, "verdict": "next_target", "error": "connect_failed", "end_ns": plain["start_ns"] + 12_345_678}
    last = {**plain, "service": "spare", "status": 200, "verdict": "done", "model": "gpt-5"}
    last["end_ns"] = last["start_ns"] + 2_000_000
    line = orjson.loads(LineEncoder().encode(record(attempts=[first, last])))
    assert line["sluiceway.tried"] == [
        {"service": "qwen", "verdict": "next_target", "error": "connect_failed", "duration_ms": 12.346},
        {"service": "spare", "model": "gpt-5", "status": 200, "verdict": "done", "duration_ms": 2.0},
    ]
    assert "sluiceway.tried" not in orjson.loads(LineEncoder().encode(record(attempts=[last])))


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        ("ok", "info"),
        ("rejected", "warning"),
        ("upstream_error", "warning"),
        ("upstream_aborted", "warning"),
        ("client_aborted", "warning"),
        ("gateway_error", "error"),
    ],
)
def test_level_by_outcome(outcome, level):
    assert orjson.loads(LineEncoder().encode(record({names.SLUICEWAY_OUTCOME: outcome})))["level"] == level


def test_the_second_is_remembered_and_left():
    encoder = LineEncoder()
    ends = [START_NS, START_NS + 999_000_000, START_NS + 1_000_000_000, START_NS]
    stamps = [orjson.loads(encoder.encode(record(end_ns=end)))["timestamp"][-7:] for end in ends]
    assert stamps == ["20.000Z", "20.999Z", "21.000Z", "20.000Z"]
