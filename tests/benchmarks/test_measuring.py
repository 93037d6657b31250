"""The measuring parts: plain proxy, fixed-rate generator, memory benchmark, and how figures are read and judged."""

import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest
from aiohttp import ClientSession

from benchmarks import bench, load, machine, memory, plain_proxy, report
from benchmarks.contestants import ANSWER, REQUEST, RecordLog, sum_of
from benchmarks.upstream.server import Upstream

CHAT = "/v1/chat/completions"


@pytest.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[str]:
    runner, url = await plain_proxy.start(upstream.url)
    yield url
    await runner.cleanup()


async def test_the_plain_proxy_changes_nothing(proxy: str, upstream: Upstream, session: ClientSession) -> None:
    said = []
    for url in (upstream.url, proxy):
        headers = {"x-sim-id": "through", "authorization": "Bearer k"}
        async with session.post(f"{url}{CHAT}?sim-events=3", data=REQUEST, headers=headers) as answer:
            said.append((answer.status, answer.headers["content-type"], await answer.read()))
    assert said[0] == said[1]
    direct, proxied = upstream.ledger.entries("through")
    assert proxied.body_sha256 == direct.body_sha256
    assert (b"Authorization", b"Bearer k") in proxied.headers
    assert proxied.path == direct.path


async def test_the_generator_keeps_its_rate_and_counts_every_answer(upstream: Upstream) -> None:
    outcome = await load.generate(
        upstream.url + CHAT, rate=200, seconds=0.5, body=REQUEST, headers={"x-a": "b"}, connections=4
    )
    assert (outcome.requests, outcome.errors, outcome.statuses) == (
        pytest.approx(100, abs=2),
        0,
        {"200": outcome.requests},
    )
    assert upstream.ledger.stats()["requests"] == outcome.requests
    assert outcome.rate_done == pytest.approx(200, rel=0.1)
    assert 0 < outcome.p50_ms <= outcome.p99_ms <= outcome.max_ms


async def test_a_rate_that_was_not_kept_shows(upstream: Upstream) -> None:
    """An upstream that carries 100 a second (10 connections, 100 ms each) is asked for 250."""
    outcome = await load.generate(
        upstream.url + "/sim:head-delay-ms=100" + CHAT, rate=250, seconds=0.8, body=REQUEST, headers={}, connections=10
    )
    assert (outcome.requests, outcome.errors) == (pytest.approx(200, abs=2), 0)
    assert 40 < outcome.rate_done < 105


async def test_the_generator_reads_chunked_answers_in_a_closed_loop(upstream: Upstream) -> None:
    body = b'{"model":"m","stream":true,"messages":[]}'
    outcome = await load.generate(upstream.url + CHAT, rate=0, seconds=0.2, body=body, headers={}, connections=2)
    assert outcome.requests > 2
    assert outcome.errors == 0


async def test_the_generator_counts_what_failed(upstream: Upstream) -> None:
    options = {"rate": 50, "seconds": 0.2, "body": REQUEST, "headers": {}, "connections": 2}
    refused = await load.generate(upstream.url + "/sim:status=503" + CHAT, **options)
    assert refused.errors == refused.requests > 0
    cut = await load.generate(upstream.url + "/sim:truncate-after=0" + CHAT, rate=0, **_without(options, "rate"))
    assert (cut.requests, cut.errors) == (0, 2)


def _without(options: dict, name: str) -> dict:
    return {key: value for key, value in options.items() if key != name}


async def test_memory_compares_every_byte(proxy: str, upstream: Upstream) -> None:
    phases = await memory.measure(proxy, upstream.url, count=4, body_bytes=300_000, worker=os.getpid())
    assert [(phase.name, phase.mismatches) for phase in phases] == [("uploads", []), ("downloads", [])]
    assert all(phase.peak_bytes >= phase.before_bytes > 0 for phase in phases)
    assert {entry.body_bytes for entry in upstream.ledger.entries() if "upload" in entry.id} == {300_000}
    assert "all hashes equal" in phases[0].describe()


async def test_memory_sees_a_cut_download(proxy: str, upstream: Upstream) -> None:
    cutting, url = await plain_proxy.start(upstream.url + "/sim:truncate-after=1,chunk-bytes=1000")
    phases = await memory.measure(url, upstream.url, count=2, body_bytes=20_000)
    await cutting.cleanup()
    assert len(phases[1].mismatches) == 2
    assert "WRONG" in phases[1].describe()


def test_a_body_is_as_long_as_asked() -> None:
    assert sum(map(len, memory.body_of(7, 200_001))) == 200_001
    with pytest.raises(ValueError, match="at least"):
        list(memory.body_of(7, 10))


def test_the_exchange_measured_is_small() -> None:
    assert 250 <= len(REQUEST) <= 350
    assert 550 <= len(ANSWER) <= 650


def test_metrics_are_summed_over_labels() -> None:
    text = '# TYPE a_total counter\na_total{reason="queue_full"} 2.0\na_total{reason="x"} 3.0\na_total_created 9\nb 1\n'
    assert sum_of(text, "a_total") == 5
    assert sum_of(text, "c_total") == 0


def test_request_lines_are_counted_once_and_only_when_whole(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "out")
    log.path.write_bytes(b'{"event":"request"}\n{"event": "started"}\n{"event": "request"}\n{"event":"req')
    assert (log.count(), log.count()) == (2, 2)
    with log.path.open("ab") as file:
        file.write(b'uest"}\n')
    log.empty()
    with log.path.open("ab") as file:
        file.write(b'{"event":"request"}\n')
    assert log.count() == 4


def test_machine_reads_its_own_process() -> None:
    assert os.getpid() in machine.family_of(os.getppid())
    assert machine.cpu_seconds(os.getpid()) > 0
    assert machine.worker_of(os.getpid(), "no.such.module") is None
    times = machine.core_times(min(os.sched_getaffinity(0)))
    assert 0 < times.work <= times.busy < times.all
    assert {"cpu", "kernel", "aiohttp"} <= machine.description().keys()


def test_medians_sum_counts_and_keep_what_is_unknown() -> None:
    rounds = [bench.Round(10, 5.0, 1.0, 3.0, 0), bench.Round(30, 15.0, 2.0, 9.0, 1), bench.Round(20, 10.0, 3.0, 6.0, 0)]
    merged = bench.median_of(rounds)
    assert (merged.requests, merged.requests_per_s, merged.p99_ms, merged.errors) == (60, 10.0, 6.0, 1)
    assert merged.records is None


def test_complaints() -> None:
    well = {"records": 10, "records_missing": 0, "records_dropped": 0, "spans_dropped": 0}
    good = bench.Round(10, 5.0, 1.0, 3.0, 0, **well)
    bad = bench.Round(10, 4.8, 1.0, 3.0, 2, records=9, records_missing=1, records_dropped=0, spans_dropped=2)
    assert bench.complaints({"gateway": good}, {"gateway": good}, 2.0, 2.0, 5.0) == []
    found = bench.complaints({"gateway": good}, {"gateway": bad}, 1.5, 1.9, 5.0)
    assert len(found) == 6
    assert "gateway at the fixed rate: 2 spans dropped" in found
    assert "gateway: 4.8/s of the 5.0/s asked for" in found
    slow = bench.Round(10, 4.0, 1.0, 3.0, 0, **well)
    found = bench.complaints({"gateway": good}, {"gateway": slow}, 2.0, 2.0, 5.0)
    assert found == ["gateway: 4.0/s of the 5.0/s asked for"]


def test_the_report_shows_every_figure_and_complaint(tmp_path: Path) -> None:
    one = asdict(bench.Round(10, 5.0, 1.0, 3.0, 0, records=10, records_missing=0, records_dropped=0))
    result = {
        "machine": {"cpu": "Abacus"},
        "when": "2026-01-01T00:00:00Z",
        "plan": {**asdict(bench.Plan()), "connections": 64, "worker_core": 0, "other_core": 1},
        "bytes": {"request": 300, "response": 600},
        "medians": {"gateway": one, "plain": {**one, "records": None}},
        "fixed": {"rate": 3.5, "gateway": one},
        "direct": one,
        "load_capacity_per_s": 50.0,
        "headroom": 1.0,
        "ratio": 1.0,
        "routed_ratio": 0.95,
        "exports": {"/v1/traces": {"posts": 2, "bytes": 3000}},
        "complaints": ["too slow"],
    }
    text = report.describe(result)
    parts = ("cpu: Abacus", "gateway at 4/s", "/v1/traces: 2 exports, 3,000 bytes", "a request: 0 / 0 µs")
    for part in (*parts, "NOT A RESULT: too slow"):
        assert part in text
    assert json.loads(Path(report.save(result, tmp_path)).read_text()) == result


@pytest.mark.parametrize(("share", "expected"), [(0.5, 3.0), (0.99, 4.0), (0.0, 1.0)])
def test_percentile(share: float, expected: float) -> None:
    assert load.percentile([1.0, 2.0, 3.0, 4.0], share) == expected
