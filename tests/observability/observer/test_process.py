"""The observer as a process of its own: what it says of its environment, and that it starts all the same."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from benchmarks.observer import sample_record
from observability import queues

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
GRPC = ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}


def lines_of(runtime: Path, environ: dict[str, str], started: Callable[[], None] = lambda: None) -> list[dict]:
    """The lines of an observer that starts and is ended at once, or after what is done when it has."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-m", "observability.observer", "--index", "0", "--runtime", str(runtime)]
    lines = []
    with subprocess.Popen(command, env=clean | environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as observer:
        try:
            assert observer.stdout is not None
            for line in observer.stdout:
                lines.append(orjson.loads(line))
                if lines[-1]["event"] == "observer_started":
                    started()
                    observer.terminate()
            assert observer.stderr is not None
            assert observer.stderr.read() == b""
            assert observer.wait(20) == 0
        finally:
            observer.kill()
    return lines


@pytest.mark.parametrize(
    ("environ", "seen"),
    [(ENDPOINT, True), ({}, False), (ENDPOINT | {"OTEL_METRICS_EXEMPLAR_FILTER": "always_off"}, False)],
)
def test_exemplars_are_written_where_there_are_spans(tmp_path, environ, seen):
    def hand_over() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
            worker.connect(str(tmp_path / "observer-0.sock"))
            worker.send(b"[0,\n" + sample_record(1) + b"]")
            assert int.from_bytes(worker.recv(8), "little") == 1

    lines_of(tmp_path, environ | {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}, hand_over)
    assert list(queues.read(tmp_path / "metrics")) == [("0", queues.Queued(0, 0))]
    path = tmp_path / "metrics" / "exemplars-0.json"
    assert path.exists() is seen
    if seen:
        assert len(orjson.loads(path.read_bytes())) == 8  # durations, first chunk and token, pace, tokens, overhead


def test_others_go_first(tmp_path):
    """All its threads: those that write and send began after it had said so."""
    policies = []

    def look() -> None:
        [child] = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        policies.extend(os.sched_getscheduler(int(thread.name)) for thread in Path(f"/proc/{child}/task").iterdir())

    lines_of(tmp_path, ENDPOINT, look)
    assert len(policies) > 1
    assert set(policies) == {os.SCHED_BATCH}


@pytest.mark.parametrize(
    ("environ", "complaints"),
    [
        (ENDPOINT, []),
        (ENDPOINT | {"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "-1"}, ["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT: -1 "]),
        (GRPC | {"OTEL_EXPORTER_OTLP_TIMEOUT": "5s"}, ["OTEL_EXPORTER_OTLP_TIMEOUT: 5s "]),
        (GRPC | {"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, ["OTEL_EXPORTER_OTLP_COMPRESSION: zstd "]),
        (GRPC | {"OTEL_EXPORTER_OTLP_COMPRESSION": "none"}, []),
        (GRPC | {"OTEL_EXPORTER_OTLP_TIMEOUT": "", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": " "}, []),
        (GRPC | {"OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES": "NONE_OF_THEM"}, ["KeyError("]),
        (
            ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": "authorization: Bearer sk-secret"},
            ["OTEL_EXPORTER_OTLP_HEADERS: one of them "],
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "u:sk-secret@c:4318"},
            ["OTEL_EXPORTER_OTLP_ENDPOINT: not an HTTP URL; "],
        ),
    ],
)
def test_no_variable_keeps_it_from_starting(tmp_path, environ, complaints):
    lines = lines_of(tmp_path, environ)
    assert lines[-1]["event"] == "observer_stopped"
    said = [line["complaint"] for line in lines if line["event"] == "environment_not_understood"]
    assert [text[: len(start)] for text, start in zip(said, complaints, strict=True)] == complaints
    assert not any("sk-secret" in str(line) for line in lines)
