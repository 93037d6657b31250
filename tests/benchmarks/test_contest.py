"""The comparison with other gateways: its generator and upstream, what it makes of figures, and a run of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contest import asked, charts, environments, judge, report
from benchmarks.contest.check import NEEDED, check
from benchmarks.contest.client import Client, Plan
from benchmarks.contest.contestants import Running
from benchmarks.contest.run import Options, Run
from benchmarks.contest.upstream import Chunks
from tests.benchmarks.answering import answering, contest_upstream
from tests.fakes.programs import program

LARGE = ("paced", "poured", "idle", "upload", "crowd", "image", "embeddings", "mixed")
KEY = {"Authorization": "Bearer k"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with contest_upstream() as url:
        yield url


def ask(url: str, what: str, number: int = 0, other: int = 0, **plan: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of a plan, and of its one kind."""
    kind = {"what": what, "number": number, "other": other, "name": "one"}
    result = Client(Plan(url, KEY, [kind], **plan)).run()
    return result, result["kinds"]["one"]


def test_the_upstream_does_all_that_a_contestant_is_checked_for(upstream: str) -> None:
    found = check(Running("direct", upstream, KEY, {}), NEEDED)
    assert (found.failed, found.same_bytes) == ({}, True)


def test_a_contestant_that_says_something_else_is_not_measured() -> None:
    """One that answers every chat with a valid answer of its own."""
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b", asked.chat_answer("no", 38)) as url:
        found = check(Running("other", url, KEY, {}), [*LARGE, "chat"])
    assert set(found.failed) == {*LARGE, "chat"}
    assert "another image" in found.failed["upload"]


def test_an_open_loop_keeps_its_rate(upstream: str) -> None:
    result, one = ask(upstream, "chat", rate=500.0, seconds=0.4, connections=8)
    assert (one["requests"], one["errors"], result["unfinished"]) == (200, 0, 0)
    assert one["statuses"] == {"200": 200}


def test_a_stall_shows_in_the_latency_and_not_in_a_lower_rate() -> None:
    """One connection, answered after 50 ms each, asked for 100 in a second: the last one waits for all before it."""
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b", b"{}", delay_s=0.05) as url:
        _, one = ask(url, "chat", rate=100.0, seconds=0.2, connections=1)
    assert one["requests"] == 20
    assert one["latency_ms"]["max"] > 20 * 50 - 190 - 50
    assert one["latency_ms"]["p50"] > 250


def test_every_event_of_a_stream_is_seen_with_its_delay(upstream: str) -> None:
    _, one = ask(upstream, "paced", 10, 10, connections=20, count=20, ramp_s=0.1, seconds=0.1)
    assert (one["requests"], one["errors"], one["events"]) == (20, 0, 200)
    assert one["event_reads"] + one["merged"] == 200
    assert one["latency_ms"]["p50"] >= 85
    assert 0 < one["delay_ms"]["p50"] <= one["delay_ms"]["max"]


def test_idle_streams_stay_until_they_are_let_go(upstream: str) -> None:
    plan = {
        "url": upstream,
        "headers": KEY,
        "kinds": [{"what": "idle"}],
        "connections": 30,
        "ramp_s": 0.1,
        "hold": True,
    }
    command = [sys.executable, "-m", "benchmarks.contest.client"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(plan) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["open"] == 30
        process.stdin.close()
        assert json.loads(process.stdout.read())["unfinished"] == 0


def test_streams_at_full_speed_have_all_their_events(upstream: str) -> None:
    _, one = ask(upstream, "paced", 200, 0, connections=4, seconds=0.2)
    assert one["requests"] > 4
    assert one["errors"] == 0


def test_a_stream_that_lacks_an_event_is_an_error() -> None:
    body = asked.event(1) * 3 + asked.last_event(3)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
    with answering(head, body) as url:
        _, one = ask(url, "paced", 4, 0, connections=1, count=1, seconds=1.0)
    assert one["reasons"] == {"3 events of 4": 1}


def test_an_upload_that_did_not_arrive_whole_is_an_error(upstream: str) -> None:
    _, whole = ask(upstream, "upload", 3_000_000, connections=2, count=4, seconds=1.0)
    assert (whole["requests"], whole["errors"], whole["bytes_out"]) == (4, 0, 12_000_000)
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b", asked.chat_answer("", 99_999)) as url:
        _, cut = ask(url, "upload", 100_000, connections=1, count=1, seconds=1.0)
    assert cut["errors"] == 1


def test_what_is_refused_or_lost_is_counted() -> None:
    with answering(b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n%b", b"busy") as url:
        _, refused = ask(url, "chat", connections=1, count=2, seconds=1.0)
    assert refused["statuses"] == {"503": refused["errors"]} == {"503": 2}
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1%d\r\n\r\n%b", b"{}", close=True) as url:
        _, lost = ask(url, "chat", connections=1, count=1, seconds=0.3, finish_s=1.0)
    assert lost["requests"] == 0
    assert any("in the middle of an answer" in why for why in lost["reasons"])


def test_what_is_never_answered_is_unfinished() -> None:
    with answering(b"", b"") as url:
        result, one = ask(url, "chat", connections=3, count=3, seconds=0.1, finish_s=0.1)
    assert (result["unfinished"], one["requests"]) == (3, 0)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_chunks_are_read_however_they_come(step: int) -> None:
    framed = b"5\r\nhello\r\nc;x=y\r\n, wor\r\nld!\r\n\r\n0\r\n\r\n"
    chunks, got = Chunks(), b""
    for at in range(0, len(framed), step):
        got += b"".join(bytes(piece) for piece in chunks.take(framed[at : at + step]))
    assert (got, chunks.over) == (b"hello, wor\r\nld!\r\n", True)


def test_a_request_is_as_long_as_was_asked_for() -> None:
    for size in (1024, 100_001):
        body = asked.upload(size)
        assert len(body) == size
        assert json.loads(body)["model"] == asked.MODEL
        assert list(json.loads(body))[-1] == "model"
    assert json.loads(asked.image_answer(3_000))["usage"]["completion_tokens"] == 46
    assert 1_000_000 < len(asked.embeddings_answer()) < 1_100_000


def figures(rate: float, **more: Any) -> dict[str, Any]:
    """A round's."""
    parts = {"worker": 1.0, "observer": 0.5}
    same = {
        "requests": 1000,
        "answered": 1000,
        "errors": 0,
        "cpu_s": parts,
        "cpu_s_per_1000": 1.5,
        "bytes_per_s": rate * 1e6,
    }
    return {**same, "rate": rate, "peak_bytes": 90_000_000, "missing": 0, "dropped": 0, **more}


def result_of(**rounds: Any) -> dict[str, Any]:
    """A run's result with these workloads."""
    names = ("direct", "sluiceway", "sluiceway-off", "plain", "envoy-otel")
    return {
        "when": "2026-01-01T00:00:00Z", "took_s": 60.0, "machine": {"cpu": "one"}, "skipped": {"smg": "not to be had"},
        "cores": {"contestant": 0, "everything else": 1}, "failed": {}, "same_bytes": {}, "scale": 1.0,
        "contestants": {name: {"does": "it", "version": "1", "slow": False} for name in names},
        "workloads": {name: {"title": name} for name in rounds}, "generator_capacity": 50_000.0, "rounds": rounds,
    }  # fmt: skip


def chat(ours: float, direct: float = 60_000.0, **more: Any) -> dict[str, Any]:
    rates = {"direct": direct, "sluiceway-off": 16_000.0, "plain": 6_000.0, "envoy-otel": 14_000.0}
    return {"64": {**{name: [figures(rate)] for name, rate in rates.items()}, "sluiceway": [figures(ours, **more)]}}


def test_what_was_reached_is_said_so() -> None:
    by_wanted = {one.wanted: one for one in judge.verdicts(result_of(chat=chat(14_000.0)))}
    assert by_wanted["small chat, requests/s >= 1.8 x plain"].reached is True
    assert by_wanted["small chat, requests/s >= 0.8 x envoy-otel"].figure == "1.00 x"
    assert by_wanted["small chat, requests/s >= 10 x portkey"].reached is None
    by_wanted = {one.wanted: one for one in judge.verdicts(result_of(chat=chat(10_000.0, dropped=3)))}
    assert by_wanted["small chat, requests/s >= 1.8 x plain"].reached is False
    assert by_wanted["recording on / off >= 0.85"].reached is False
    assert any(one.figure == "3 lost" and one.reached is False for one in by_wanted.values())


def test_what_is_no_result_says_why() -> None:
    assert judge.complaints(result_of(chat=chat(14_000.0))) == []
    assert "only 1.43 times" in judge.complaints(result_of(chat=chat(14_000.0, direct=20_000.0)))[0]
    assert "2 records missing" in judge.complaints(result_of(chat=chat(14_000.0, missing=2)))[0]
    assert "7 failed" in judge.complaints(result_of(chat=chat(14_000.0, errors=7)))[0]
    assert "30%" in judge.complaints(result_of(chat=chat(14_000.0, worker_core_foreign=0.3)))[0]
    assert "KeyError" in judge.complaints(result_of(chat=chat(14_000.0, broken="KeyError: x")))[0]
    assert "1000 bytes of spans" in judge.complaints(result_of(chat=chat(14_000.0, span_bytes=1000)))[0]
    assert judge.complaints(result_of(chat=chat(14_000.0, span_bytes=1_700_000))) == []
    assert "1 of its processes ended" in judge.complaints(result_of(chat=chat(14_000.0, ended=1)))[0]
    off = chat(14_000.0)["64"] | {"sluiceway-off": [figures(31_000.0)]}
    assert "what sluiceway-off does" in judge.complaints(result_of(chat={"64": off}))[0]
    first = {name: [figures(rate)] for name, rate in (("direct", 3.0), ("sluiceway", 2.0), ("plain", 1.0))}
    assert "model first" in judge.complaints(result_of(crowd={"64 MB, model first": first}))[0]
    busy = {"1000": {"direct": [figures(1.0, other_core_busy=0.6)]}}
    assert "60%" in judge.complaints(result_of(paced=busy))[0]


def test_a_run_without_those_who_are_judged_is_no_result() -> None:
    result = result_of(chat=chat(14_000.0))
    assert "0.1 of what they are called" in judge.complaints({**result, "scale": 0.1})[0]
    assert "ended before its end" in judge.complaints({**result, "complete": False})[0]
    assert "sluiceway was skipped: it says no" in judge.complaints({**result, "skipped": {"sluiceway": "it says no"}})
    assert "plain is missing in chat: 500" in judge.complaints({**result, "failed": {"plain": {"chat": "500"}}})


def test_a_round_that_broke_takes_no_other_with_it() -> None:
    rounds = chat(14_000.0)["64"]
    rounds["plain"] = [figures(6_000.0), {"broken": "GeneratorError: the client\nfailed"}]
    rounds["sluiceway"] = [figures(14_000.0), figures(14_000.0, errors=7), figures(14_000.0)]
    page = report.page(result_of(chat={"64": rounds}))
    assert "| plain | 6,000 |" in page
    (ours,) = (line for line in page.splitlines() if line.startswith("| sluiceway | 14,000"))
    assert ours.endswith("| 7 |")
    assert "plain, what failed: GeneratorError: the client failed" in page


def test_the_page_has_every_figure_and_who_is_missing() -> None:
    result = result_of(chat=chat(14_000.0, latency_ms={"p50": 1.25, "p99": 3.5}))
    result["failed"] = {"plain": {"chat": "chat: 500"}}
    page = report.page(result)
    assert "| sluiceway | 14,000 | 1.25 | 3.50 | " in page
    assert "smg was skipped: not to be had" in page
    assert "plain is missing: chat: 500" in page
    assert set(report.drawn(result)) == {"chat", "cpu"}
    assert "NOT REACHED" not in report.closing(result_of(chat=chat(14_000.0))).split("\n")[1]


def test_a_disturbed_baseline_does_not_make_the_added_latency_less() -> None:
    rounds = [
        figures(100.0, latency_ms={"p99": mine}, direct_ms={"p99": direct}) for mine, direct in ((3, 0.25), (4, 9))
    ]
    by_wanted = {one.wanted: one for one in judge.verdicts(result_of(open={"50 %": {"sluiceway": rounds}}))}
    one = by_wanted["small chat at 50 % load, added p99 <= 3 ms"]
    assert (one.figure, one.reached) == ("3.25 ms", False)


def test_charts_show_every_name_and_what_is_not_there_is_left_out() -> None:
    svg = charts.bars("a < b", {"sluiceway": 14_000.0, "none": 0.0, "litellm": 104.0})
    assert "a &lt; b" in svg
    assert svg.count("<rect") == 3  # the paper and two bars
    assert charts.lines("x", ["1", "2"], {"one": [1.0, None], "two": [10.0, 1000.0]}).count("<polyline") == 2
    assert charts.bars("nothing", {}) == charts.lines("nothing", ["1"], {"a": [1.0]}) == ""


def test_a_program_that_is_not_to_be_had_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    one = environments.Environment("none", ("nothing==1",), npm=True)
    with pytest.raises(environments.MissingError, match="apt-get install nodejs npm"):
        one.prepare()
    assert not (tmp_path / "none" / "installed").exists()


def test_a_run_measures_and_counts_records(tmp_path: Path) -> None:
    """Streams and uploads through the gateway, very short."""
    program("nginx")  # the sink
    options = Options(["direct", "sluiceway"], ["poured", "crowd"], rounds=1, seconds=0.3, scale=0.02)
    result = Run(options, tmp_path).whole()
    assert (result["skipped"], result["failed"]["sluiceway"], result["same_bytes"]["sluiceway"]) == ({}, {}, True)
    for workload, point in (("poured", "64"), ("crowd", "64 MB")):
        one = result["rounds"][workload][point]["sluiceway"][0]
        assert (one["errors"], one["unfinished"], one["missing"], one["dropped"]) == (0, 0, 0, 0)
        assert one["requests"] >= 16
        assert one["span_bytes"] > judge.SPAN_BYTES * one["requests"]
        assert set(one["cpu_s"]) == {"worker", "observer", "control", "supervisor"}
        assert one["peak_bytes"] > 20_000_000
    assert "## 16 uploads at once" in report.page(result)
