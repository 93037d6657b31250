"""Requests counted by the workers, across their deaths."""

import subprocess
import sys
from pathlib import Path

import pytest

from observability import names, tally
from observability.tally import RequestCounter, request_totals


def test_requests_by_what_they_were(tmp_path: Path):
    counter = RequestCounter(tmp_path, 0)
    for status in (200, 200, 502):
        counter.count("chat", "search-team", "qwen", "ok" if status == 200 else "upstream_error", status)
    counter.count("", "", "", "rejected", 404)
    assert request_totals(tmp_path) == {
        ("chat", "search-team", "qwen", "ok", "200"): 2,
        ("chat", "search-team", "qwen", "upstream_error", "502"): 1,
        ("", "", "", "rejected", "404"): 1,
    }


def test_a_successor_goes_on_and_slots_add_up(tmp_path: Path):
    for slot in (0, 0, 1):
        counter = RequestCounter(tmp_path, slot)
        counter.count("chat", "a", "b", "ok", 200)
        counter.count("chat", "a", "b", "ok", 201)
        del counter
    assert request_totals(tmp_path) == {("chat", "a", "b", "ok", "200"): 3, ("chat", "a", "b", "ok", "201"): 3}


def test_a_series_that_was_begun_and_not_counted_costs_nothing(tmp_path: Path):
    RequestCounter(tmp_path, 0).count("chat", "a", "b", "ok", 200)
    with (tmp_path / "requests-0.labels").open("ab") as labels:
        labels.write(b'["chat","a","b","ok",503]\n')
    RequestCounter(tmp_path, 0).count("chat", "a", "b", "ok", 504)
    totals = request_totals(tmp_path)
    assert totals == {("chat", "a", "b", "ok", "200"): 1, ("chat", "a", "b", "ok", "504"): 1}


def test_a_line_that_was_cut_is_forgotten(tmp_path: Path):
    RequestCounter(tmp_path, 0).count("chat", "a", "b", "ok", 200)
    with (tmp_path / "requests-0.labels").open("ab") as labels:
        labels.write(b'["chat","a')
    RequestCounter(tmp_path, 0).count("chat", "a", "b", "ok", 504)
    assert request_totals(tmp_path) == {("chat", "a", "b", "ok", "200"): 1, ("chat", "a", "b", "ok", "504"): 1}


def test_where_no_label_can_be_written_the_sum_is_right(tmp_path: Path):
    counter = RequestCounter(tmp_path, 0)
    counter._labels = Path("/dev/full")
    counter.count("chat", "a", "b", "ok", 200)
    assert request_totals(tmp_path) == {("other", "other", "other", "ok", "other"): 1}


DISK_FULL = """
import resource, signal, sys
from pathlib import Path
from observability.tally import RequestCounter
folder = Path(sys.argv[1])
counter = RequestCounter(folder, 0)
counter.count("chat", "a", "b", "ok", 200)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
unlimited = resource.RLIM_INFINITY
size = (folder / "requests-0.labels").stat().st_size
for left in (10, 0):  # bytes: a line is written in part, then not at all
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + left, unlimited))
    counter.count("chat", "a", "b", "ok", 201)
resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
counter.count("chat", "a", "b", "ok", 204)
"""


def test_a_line_that_a_full_disk_cuts_leaves_nothing(tmp_path: Path):
    subprocess.run([sys.executable, "-c", DISK_FULL, str(tmp_path)], check=True, timeout=60)
    expected = {
        ("other", "other", "other", "ok", "other"): 2,
        ("chat", "a", "b", "ok", "200"): 1,
        ("chat", "a", "b", "ok", "204"): 1,
    }
    assert request_totals(tmp_path) == expected
    RequestCounter(tmp_path, 0).count("chat", "a", "b", "ok", 201)
    assert request_totals(tmp_path) == expected | {("chat", "a", "b", "ok", "201"): 1}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b'["a","b","c","d"]',
        b'["a","b","c",["d"],200]',
        b'["a","b","c","d",{}]',
        b"\xff",
    ],
)
def test_a_line_that_does_not_read_costs_its_own_count_only(tmp_path: Path, line: bytes):
    RequestCounter(tmp_path, 0).count("chat", "a", "b", "ok", 200)
    with (tmp_path / "requests-0.labels").open("ab") as labels:
        labels.write(line + b"\n" + b'["chat","a","b","ok",201]\n')
    counter = RequestCounter(tmp_path, 0)
    for status in (200, 201, 202):
        counter.count("chat", "a", "b", "ok", status)
    assert request_totals(tmp_path) == {
        ("chat", "a", "b", "ok", "200"): 2,
        ("chat", "a", "b", "ok", "201"): 1,
        ("chat", "a", "b", "ok", "202"): 1,
    }


def test_more_lines_than_there_are_counts(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tally, "SERIES_MAX", len(names.OUTCOMES) + 1)
    (tmp_path / "requests-0.labels").write_bytes(b"".join(b'["chat","a","b","ok",%d]\n' % n for n in range(5)))
    counter = RequestCounter(tmp_path, 0)
    for status in range(5):
        counter.count("chat", "a", "b", "ok", status)
    assert request_totals(tmp_path) == {
        ("chat", "a", "b", "ok", "0"): 1,
        ("other", "other", "other", "ok", "other"): 4,
    }


def test_series_are_bounded_and_the_sum_stays_exact(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tally, "SERIES_MAX", len(names.OUTCOMES) + 3)
    counter = RequestCounter(tmp_path, 0)
    for status in range(200, 210):
        counter.count("chat", "a", "b", "ok", status)
    totals = request_totals(tmp_path)
    assert sum(totals.values()) == 10
    assert len(totals) == 4
    assert totals["other", "other", "other", "ok", "other"] == 7


def test_what_cannot_be_read_is_left_out(tmp_path: Path):
    RequestCounter(tmp_path, 0).count("chat", "a", "b", "ok", 200)
    (tmp_path / "requests-1.labels").write_bytes(b'["chat"')
    (tmp_path / "requests-1.counts").write_bytes(b"1234567")
    (tmp_path / "requests-2.labels").write_bytes(b"")
    assert request_totals(tmp_path) == {("chat", "a", "b", "ok", "200"): 1}
