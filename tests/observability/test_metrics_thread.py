"""The thread that sends a host's metrics: what it leaves behind, what it counts, and what it says."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from observability import metrics_thread
from observability.board import Board
from observability.exposition import exposition
from observability.lines import LineWriter
from observability.metrics_settings import failures_of
from observability.metrics_thread import MetricsThread
from tests.fakes.otlp_sink import OtlpSink

FAILURES = b"sluiceway_metrics_export_failures_total"


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpSink]:
    for name in ("COMPRESSION", "TIMEOUT", "PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    logger = logging.getLogger("opentelemetry.exporter")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    with OtlpSink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        yield sink


def sent_once(runtime: Path) -> list[str]:
    """Start and end it, which sends once; what it said."""
    (runtime / "metrics").mkdir(exist_ok=True)
    board = Board.create(runtime / "board", 1)
    with structlog.testing.capture_logs() as lines:
        thread = MetricsThread(runtime, board, LineWriter(), list)
        thread.start()
        thread.close(20)
    assert not [one for one in threading.enumerate() if one.name == "metrics"]
    return [str(line.get("reason")) for line in lines]


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_all_that_it_keeps_is_beside_the_counts(tmp_path, monkeypatch, sink, temporality):
    """A runtime directory with anything else in it is taken for somebody's folder, and stays for ever."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", temporality)
    assert sent_once(tmp_path) == []
    assert len(sink.metrics) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"board", "metrics"}
    assert FAILURES + b" 0.0" in exposition(tmp_path, Board.open(tmp_path / "board"))


@pytest.mark.parametrize("status", [400, 307])
def test_what_was_not_taken_is_counted_also_over_a_restart(tmp_path, sink, status):
    sink.status = status
    for count in (1, 2):
        assert sent_once(tmp_path) != []
        assert failures_of(tmp_path / "metrics") == count
    assert FAILURES + b" 2.0" in exposition(tmp_path, Board.open(tmp_path / "board"))


def test_numbers_that_a_collector_rejects_are_said(tmp_path, sink):
    said = ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too old")
    sink.answer = ExportMetricsServiceResponse(partial_success=said).SerializeToString()
    assert sent_once(tmp_path) == ["The collector rejected 3 of them: too old"]


def test_a_line_end_behind_an_endpoint_is_none(tmp_path, monkeypatch, sink):
    """As it comes from a file that an editor has written."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f" {sink.endpoint}\n")
    assert sent_once(tmp_path) == []
    assert len(sink.metrics) == 1


def test_no_header_is_told(tmp_path, monkeypatch, sink):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20sk-a-secret%0Athing")
    said = sent_once(tmp_path)
    assert said
    assert not any("sk-a-secret" in reason for reason in said)


def test_no_header_is_told_over_grpc(tmp_path, monkeypatch, sink):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20sk-a-secret%0Athing")
    said = sent_once(tmp_path)
    assert said
    assert not any("sk-a-secret" in reason for reason in said)


def test_a_disk_without_room_does_not_end_it(tmp_path, monkeypatch, sink):
    sink.status = 400

    def full(_folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics_thread, "count_failure", full)
    assert any("400" in reason for reason in sent_once(tmp_path))
