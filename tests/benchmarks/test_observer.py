"""The observer's benchmark: it feeds what a worker sends, and sees what is missing."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from benchmarks import observer
from observability import names
from observability.facts import unpack
from observability.observer.naming import record_of

ROOT = Path(__file__).parent.parent.parent


def test_it_carries_every_record() -> None:
    command = [sys.executable, "-m", "benchmarks.observer", "--records", "240"]
    run = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=100, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    records = observer.WARM_UP_RECORDS + 240
    assert f"lines {records}, spans {2 * records} in " in run.stdout


def test_a_sample_is_a_whole_record() -> None:
    record = record_of(unpack(orjson.loads(observer.sample_record(7))))
    assert record["fields"][names.SLUICEWAY_USAGE_SOURCE] == "upstream"
    assert record["fields"][names.GEN_AI_REQUEST_MODEL] == "qwen-max"
    assert record["client"]["status"] == 200
    assert len(record["fields"]) > 40


@pytest.mark.parametrize(
    ("lines", "spans", "with_spans", "complaints"),
    [(10, 20, True, 0), (10, 0, False, 0), (9, 20, True, 1), (10, 19, True, 1), (10, 0, True, 1), (0, 0, True, 2)],
)
def test_what_is_missing_is_seen(lines, spans, with_spans, complaints) -> None:
    assert len(observer.missing(10, lines, spans, with_spans=with_spans)) == complaints
