"""`/metrics` of a host: files of several processes, dead ones among them, and the board."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar, Timestamp

from observability import queues
from observability.board import Board, Cell
from observability.exemplars import EXEMPLARS_MAX, ExemplarFile, Seen, Trace, file_of, wanted
from observability.exposition import description, exposition, openmetrics, wants_openmetrics

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


def test_the_depth_of_the_observers_queues(runtime, board):
    queues.write(runtime / "metrics", 0, queues.Queued(7, 3))
    queues.write(runtime / "metrics", 0, queues.Queued(70, 30))
    queues.write(runtime / "metrics", 1, queues.Queued(5, 0))
    (runtime / "metrics" / "queues-2.json").write_bytes(b"[1")
    values = values_of(exposition(runtime, board))
    depths = {
        key: value for key, value in values.items() if key[0].endswith("s_queued_bytes") and "record" not in key[0]
    }
    assert depths == {
        ("sluiceway_spans_queued_bytes", "0"): 70,
        ("sluiceway_spans_queued_bytes", "1"): 5,
        ("sluiceway_lines_queued_bytes", "0"): 30,
        ("sluiceway_lines_queued_bytes", "1"): 0,
    }


TRACE = Trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1_700_000_000.25)
OVERHEAD = "sluiceway_overhead_duration_seconds"


def exemplars_in(text: bytes) -> dict[tuple[str, str], Exemplar]:
    """Sample and le → exemplar; the parser is as strict as the specification."""
    families = list(openmetrics_families(text.decode()))
    assert OVERHEAD in {family.name for family in families}
    samples = [sample for family in families for sample in family.samples]
    return {(one.name, one.labels["le"]): one.exemplar for one in samples if one.exemplar}


def test_openmetrics_has_the_exemplars_of_all_observers(runtime, board):
    folder = runtime / "metrics"
    here = {"model_api": "chat"}
    older, newer = TRACE._replace(at=1.0, trace_id="0" * 31 + "1"), TRACE._replace(span_id="1" * 16)
    first = [
        Seen(OVERHEAD, {**here, "le": "0.001"}, 0.0007, older),
        Seen(OVERHEAD, {**here, "le": "0.01"}, 0.007, older),
    ]
    ExemplarFile(file_of(folder, 0)).write(first)
    ExemplarFile(file_of(folder, 1)).write([Seen(OVERHEAD, {**here, "le": "0.001"}, 0.0008, newer)])
    found = exemplars_in(openmetrics(runtime, board))
    assert found == {
        (f"{OVERHEAD}_bucket", "0.001"): Exemplar(
            {"trace_id": newer.trace_id, "span_id": "1" * 16}, 0.0008, Timestamp(1_700_000_000, 250_000_000)
        ),
        (f"{OVERHEAD}_bucket", "0.01"): Exemplar(
            {"trace_id": older.trace_id, "span_id": older.span_id}, 0.007, Timestamp(1, 0)
        ),
    }
    assert values_of(exposition(runtime, board)), "the old text has no place for them, and is as ever"


def test_exemplars_in_a_file_are_bounded(tmp_path):
    many = (Seen("h", {"le": str(number)}, 1.0, TRACE) for number in range(EXEMPLARS_MAX + 5))
    ExemplarFile(file_of(tmp_path, 0)).write(many)
    assert len(orjson.loads(file_of(tmp_path, 0).read_bytes())) == EXEMPLARS_MAX


@pytest.mark.parametrize("content", [b"", b"{", b"[[1]]", b"5", b'[["h",{},"x","y","z",{}]]'])
def test_exemplars_that_do_not_read_are_left_out(runtime, board, content):
    file_of(runtime / "metrics", 0).write_bytes(content)
    assert exemplars_in(openmetrics(runtime, board)) == {}


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1", True),
        ("text/plain;version=0.0.4, application/openmetrics-text", True),
        ("text/plain", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_openmetrics_is_for_who_asks(accept, wanted):
    assert wants_openmetrics(accept) is wanted


@pytest.mark.parametrize(
    ("value", "on"), [("", True), ("trace_based", True), ("always_on", True), ("ALWAYS_OFF", False)]
)
def test_exemplars_can_be_switched_off(value, on):
    assert wanted({"OTEL_METRICS_EXEMPLAR_FILTER": value}) is on


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
