"""Counting where the disk has no room: in a process of its own, whose files may not grow (RLIMIT_FSIZE)."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from observability.board import Board
from observability.exposition import METRICS_FOLDER, exposition

OBSERVER = """
import resource, signal, sys
from observability import log, names
from observability.observer import metric_files
metric_files.set_up()
from observability.observer.metrics import RecordMetrics
from tests.observability.records import record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
start, end = (int(argument) for argument in sys.argv[1:])
lines = log.set_up("observer")
limit(start)
metrics = RecordMetrics()
metrics.observe(record())
limit(end)
for number in range(100):  # a model is 7 KiB in the histograms' file
    metrics.observe(record({names.GEN_AI_REQUEST_MODEL: f"m-{number}"}))
metrics.observe(record())
limit(resource.RLIM_INFINITY)
lines.close(20)
"""
UNLIMITED = -1
COUNT = "gen_ai_server_request_duration_seconds_count"


def observe(runtime: Path, start_bytes: int, end_bytes: int) -> list[dict]:
    """Let an observer count 102 records; its lines."""
    folder = runtime / METRICS_FOLDER
    folder.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", OBSERVER, str(start_bytes), str(end_bytes)],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return [orjson.loads(line) for line in run.stdout.splitlines()]


def counted(runtime: Path) -> dict[str, float]:
    """Requests by model, as /metrics has them."""
    text = exposition(runtime, Board.create(runtime / "board", 1)).decode()
    lines = [line for line in text.splitlines() if line.startswith(COUNT)]
    return {line.partition('request_model="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_the_space_of_a_file_is_taken_before_it_is_used(tmp_path):
    assert observe(tmp_path, UNLIMITED, UNLIMITED) == []
    files = list((tmp_path / METRICS_FOLDER).iterdir())
    assert {file.name.split("_")[0] for file in files} == {"counter", "histogram"}
    for file in files:
        assert file.stat().st_blocks * 512 >= file.stat().st_size >= 65536
    assert counted(tmp_path) == {"qwen-plus": 2, **{f"m-{number}": 1 for number in range(100)}}


def test_where_a_file_cannot_grow_its_series_count_on(tmp_path):
    [line] = observe(tmp_path, UNLIMITED, 1 << 18)
    assert (line["event"], line["level"]) == ("metrics_not_stored", "error")
    values = counted(tmp_path)
    assert values["qwen-plus"] == 2
    assert 10 < len(values) < 90


@pytest.mark.parametrize("size", [0, 4096])
def test_where_no_file_can_be_made_nothing_is_hurt(tmp_path, size):
    [line] = observe(tmp_path, size, size)
    assert line["event"] == "metrics_not_stored"
    assert list((tmp_path / METRICS_FOLDER).iterdir()) == []
    assert counted(tmp_path) == {}
