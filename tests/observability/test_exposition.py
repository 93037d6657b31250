"""`/metrics` of a host: files of several processes, dead ones among them, and the board."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from observability.board import Board, Cell
from observability.exposition import description, exposition

PROCESS = """
from pathlib import Path
from observability.counters import DropCounters
from observability.observer.metrics import RecordMetrics
from observability.tally import RequestCounter
from tests.observability.records import record
import os
RequestCounter(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), 0).count("chat", "search-team", "qwen", "ok", 200)
RecordMetrics().observe(record())
DropCounters().records("lines_blocked", 2)
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    (tmp_path / "metrics").mkdir()
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    for _ in range(2):  # two processes that counted and died
        subprocess.run([sys.executable, "-c", PROCESS], env=environ, check=True, timeout=60)
    return tmp_path


@pytest.fixture
def board(tmp_path: Path) -> Board:
    board = Board.create(tmp_path / "board", 2)
    board.row(0)[Cell.ACTIVE] = 7
    board.row(1)[Cell.GENERATION] = 3
    board.row(0)[Cell.DROPPED_OVERSIZE] = 1
    board.row(1)[Cell.DROPPED_OVERSIZE] = 2
    board.row(1)[Cell.CONNECTIONS] = 9
    board.row(1)[Cell.QUEUED_BYTES] = 4096
    return board


def values_of(text: bytes) -> dict[tuple[str, ...], float]:
    """name and label values → value; fails on a sample or family that is there twice."""
    values: dict[tuple[str, ...], float] = {}
    families = list(text_string_to_metric_families(text.decode()))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        for sample in family.samples:
            key = (sample.name, *(value for _, value in sorted(sample.labels.items())))
            assert key not in values
            values[key] = sample.value
    return values


def test_the_whole_host_is_added_up(runtime, board):
    values = values_of(exposition(runtime, board))
    assert values["sluiceway_requests_total", "search-team", "chat", "ok", "qwen", "200"] == 2
    assert values["sluiceway_overhead_duration_seconds_count", "chat"] == 2
    assert values["sluiceway_overhead_duration_seconds_bucket", "120.0", "chat"] == 2
    labels = ("", "chat", "dashscope", "qwen-plus", "qwen-plus-latest")
    assert values["gen_ai_client_token_usage_sum", *labels, "input", "chat"] == 2000
    assert values["gen_ai_client_operation_duration_seconds_count", *labels, "chat"] == 2
    assert values["sluiceway_records_dropped_total", "oversize"] == 3
    assert values["sluiceway_records_dropped_total", "queue_full"] == 0
    assert values["sluiceway_records_dropped_total", "lines_blocked"] == 4
    assert values["http_server_active_requests", "0"] == 7
    assert values["sluiceway_config_generation", "1"] == 3
    assert values["sluiceway_connections", "1"] == 9
    assert values["sluiceway_records_queued_bytes", "1"] == 4096


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff" * 100, b"\x40\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00{"])
def test_a_file_that_cannot_be_read_is_left_out(runtime, board, content):
    (runtime / "metrics" / "counter_1.db").write_bytes(content)
    values = values_of(exposition(runtime, board))
    assert values["sluiceway_requests_total", "search-team", "chat", "ok", "qwen", "200"] == 2


def test_before_anybody_counted_there_is_the_board(tmp_path, board):
    values = values_of(exposition(tmp_path, board))
    assert values["sluiceway_records_dropped_total", "worker_lost"] == 0


def test_the_model_apis_are_described_with_labels_that_prometheus_takes(tmp_path, board):
    described = [
        description("chat", "text", "default", {}),
        description("pictures", "image", "research", {"cost-centre": "42", "cost.centre": "43", "a": 'x"\n'}),
    ]
    text = exposition(tmp_path, board, described)
    values = values_of(text)
    name = "sluiceway_model_api_info"
    assert values[name, "chat", "default", "text"] == 1
    assert values[name, 'x"\n', "42", "pictures", "research", "image"] == 1
    assert b'label_a="x\\"\\n",label_cost_centre="42"' in text
