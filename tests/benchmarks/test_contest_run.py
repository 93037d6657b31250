"""A run of the comparison goes on when a contestant, a stage or the run itself ends before its time, and keeps all."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contest import asked, report, run, workloads
from benchmarks.contest.contestants import CONTESTANTS, Contestant, Running, Stage
from benchmarks.contest.measure import Context, GeneratorError
from benchmarks.contestants import Bench, NotReadyError
from benchmarks.ports import free_port
from tests.fakes.programs import program

DIRECT = next(one for one in CONTESTANTS if one.name == "direct")
Starts = Callable[[Stage, str], Running]


def relay(stage: Stage, name: str) -> Running:
    """Does what direct does, until it dies of embeddings."""
    url = f"http://127.0.0.1:{free_port()}"
    process = stage.bench.start(
        name, [sys.executable, "-m", "tests.benchmarks.dying", url.rpartition(":")[2], stage.upstream]
    )
    stage.bench.wait(name, url + asked.CHAT_PATH)
    return Running(name, url, {}, {"worker": [process.pid]})


def begin(
    monkeypatch: pytest.MonkeyPatch, folder: Path, start: Starts, chosen: list[str], **more: Any
) -> tuple[run.Run, list[dict[str, Any]]]:
    """A run of direct and that contestant, and what it hands on."""
    program("nginx")  # the sink
    monkeypatch.setattr(run, "CONTESTANTS", (DIRECT, Contestant("other", "relays", start)))
    kept: list[dict[str, Any]] = []
    options = run.Options(["direct", "other"], chosen, rounds=2, seconds=0.2, **more)
    return run.Run(options, folder, kept.append), kept


def test_who_dies_is_left_out_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, kept = begin(monkeypatch, tmp_path, relay, ["poured", "embeddings", "mixed"])
    result = running.whole()
    assert (result["complete"], result["trouble"], result["skipped"]) == (True, {}, {})
    rounds = result["rounds"]
    assert [one["errors"] for one in rounds["poured"]["64"]["other"]] == [0, 0]
    (died,) = rounds["embeddings"]["16"]["other"]
    assert (died["requests"], died["ended"]) == (0, 1)
    assert min(died["cpu_s"].values()) >= 0
    assert set(result["failed"]["other"]) == {"embeddings", "mixed"}
    assert [len(rounds[name][point]["direct"]) for name, point in (("embeddings", "16"), ("mixed", "32"))] == [2, 2]
    assert len(kept) == 6  # after every round
    assert "other is missing: after embeddings 16 round 1 it did no chat" in report.page(result)


def test_who_does_not_start_again_keeps_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Bench] = []

    def once(stage: Stage, name: str) -> Running:
        started.append(stage.bench)
        running = relay(stage, name)
        if len(started) > 1:
            raise NotReadyError("not today")
        return running

    running, _ = begin(monkeypatch, tmp_path, once, ["poured", "embeddings"])
    measure, ended = running._measure, []
    monkeypatch.setattr(
        running, "_measure", lambda *given: ended.append(started[-1].started[-1].poll() is not None) or measure(*given)
    )
    result = running.whole()
    assert ended == [False] * 4 + [True] * 2  # its process does not disturb those that are measured without it
    page = report.page(result)
    assert page.count("\n| other") == 2  # what it is, and its streams
    assert "other is missing: it did not start: NotReadyError: not today" in page


def test_a_stage_that_breaks_off_is_told_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second stage the upstream dies."""

    def start(stage: Stage, name: str) -> Running:
        running = relay(stage, name)
        if stage.bench.folder.name == "bodies":
            upstream = stage.bench.started[1]
            upstream.kill()
            upstream.wait()
        return running

    running, _ = begin(monkeypatch, tmp_path, start, ["poured", "embeddings"])
    result = running.whole()
    assert "the upstream does not answer" in result["trouble"]["bodies"]
    assert list(result["rounds"]) == ["poured"]
    assert "NOT A RESULT: bodies broke off" in report.page(result)


def test_what_was_measured_is_kept_when_the_run_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(stage: Stage, name: str) -> Running:
        if stage.bench.folder.name == "bodies":
            raise KeyboardInterrupt
        return relay(stage, name)

    begin(monkeypatch, tmp_path, start, [])  # for its contestants
    file = tmp_path / "so-far.json"
    options = run.Options(["direct", "other"], ["poured", "embeddings"], rounds=1, seconds=0.2)
    with pytest.raises(KeyboardInterrupt):
        run.in_temporary_folder(options, lambda result: report.keep(result, file))
    kept = file.read_text()
    assert '"complete": false' in kept
    assert kept.count('"event_reads"') == 2
    assert list(tmp_path.iterdir()) == [file]


def test_an_open_loop_without_a_capacity_is_not_a_closed_one(tmp_path: Path) -> None:
    """Who did no chat has none; and half of that is not what the others are asked for."""
    stage = Stage(Bench(tmp_path, 0, 1), "127.0.0.1:1", "127.0.0.1:1")
    direct = Running("direct", "http://127.0.0.1:1", {}, {})
    context = Context(stage, direct, "1", capacity={"direct": 9.0, "dead": 0.0, "one": 4.0, "two": 6.0})
    assert workloads.common_rate(context) == 2.0
    opened = next(one for one in workloads.WORKLOADS if one.name == "open")
    for point in opened.points:
        with pytest.raises(GeneratorError, match="capacity"):
            opened.measure(context, Running("dead", "http://127.0.0.1:1", {}, {}), point, 0.1)
