"""The metrics of a host over OTLP: read back from a collector, by the real exporter."""

import itertools
import os
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from prometheus_client import CollectorRegistry

from observability import host_metrics, names
from observability.board import Board
from observability.counters import DropCounters
from observability.exemplars import ExemplarFile, file_of, with_exemplars
from observability.exposition import HostCollector
from observability.host_metrics import HostMetrics
from observability.lines import LineWriter
from observability.metrics_settings import metrics_of, open_exporter, start_of
from observability.observer.metrics import RecordMetrics
from tests.fakes.otlp_sink import OtlpSink, value_of
from tests.observability.records import SPAN_ID, TRACE_ID, record

STARTED = 1_000
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


class Host:
    """What observers have counted, in memory."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = RecordMetrics(self.registry)
        self.drops = DropCounters(self.registry)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def sink(monkeypatch):
    for name in ("HEADERS", "COMPRESSION", "TIMEOUT", "PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    with OtlpSink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        yield sink


def metrics_in(message: ExportMetricsServiceRequest) -> dict[str, Metric]:
    (resource,) = message.resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "sluiceway"
    found = {metric.name: metric for metric in scope.metrics}
    assert len(found) == len(scope.metrics)
    return found


def attributes(point: Any) -> dict[str, Any]:
    return {item.key: value_of(item.value) for item in point.attributes}


def test_names_units_and_shapes_are_opentelemetrys(host, sink):
    for number in range(3):
        host.records.observe(record({names.SLUICEWAY_DURATION_MS: 15.0 * 10**number, names.SLUICEWAY_USAGE_IMAGES: 2}))
    host.drops.spans("queue_full", 7)
    assert HostMetrics(OTLPMetricExporter(), STARTED, None).export(host.registry.collect(), 5_000)
    (message,) = sink.metrics
    resource = {item.key: value_of(item.value) for item in message.resource_metrics[0].resource.attributes}
    assert resource["service.name"] == "sluiceway"
    found = metrics_in(message)

    duration = found["gen_ai.server.request.duration"]
    assert duration.unit == "s"
    assert duration.histogram.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    (point,) = duration.histogram.data_points
    assert attributes(point) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "dashscope",
        "gen_ai.request.model": "qwen-plus",
        "gen_ai.response.model": "qwen-plus-latest",
        "sluiceway.model_api": "chat",
    }
    assert tuple(point.explicit_bounds) == names.DURATION_BUCKETS
    assert len(point.bucket_counts) == len(names.DURATION_BUCKETS) + 1
    assert (point.count, sum(point.bucket_counts), point.sum) == (3, 3, pytest.approx(1.665))
    assert [names.DURATION_BUCKETS[i] for i, count in enumerate(point.bucket_counts) if count] == [0.02, 0.16, 2.56]
    assert (point.start_time_unix_nano, point.time_unix_nano) == (STARTED, 5_000)
    assert not point.HasField("min")

    tokens = {attributes(point)["gen_ai.token.type"]: point for point in _points(found["gen_ai.client.token.usage"])}
    assert (tokens["input"].sum, tokens["output"].sum) == (3000, 303)
    images = found["sluiceway.images"]
    assert (images.sum.is_monotonic, images.unit) == (True, "{image}")
    assert [(attributes(point), point.as_int) for point in _points(images)] == [({"model_api": "chat"}, 6)]
    dropped = _points(found["sluiceway.spans.dropped"])
    assert [(attributes(point), point.as_int) for point in dropped if point.as_int] == [({"reason": "queue_full"}, 7)]


def _points(metric: Metric) -> list[Any]:
    return list(getattr(metric, metric.WhichOneof("data")).data_points)


def test_every_family_has_its_name(host, tmp_path):
    """What is added to /metrics is not to be forgotten here."""
    board = Board.create(tmp_path / "board", 1)
    families = [*host.registry.collect(), *HostCollector(tmp_path, board, ()).collect()]
    latest = CollectorRegistry()
    RecordMetrics(latest, latest=True)
    assert {family.name for family in (*families, *latest.collect())} <= host_metrics._KNOWN.keys()


def test_delta_numbers_are_what_came_since(host, sink, tmp_path):
    counts = []
    moments = itertools.count(2_000, 1_000)

    def export() -> None:
        # as after a restart: nothing is known but the file
        metrics = HostMetrics(OTLPMetricExporter(), STARTED, tmp_path / "sent")
        metrics.export(host.registry.collect(), next(moments))

    for requests in (2, 0, 3):
        for _ in range(requests):
            host.records.observe(record())
        export()
    sink.status = 400
    host.records.observe(record())
    export()
    sink.status = 200
    export()
    for message in sink.metrics:
        found = metrics_in(message)
        (point,) = _points(found["gen_ai.server.request.duration"])
        (attempts,) = _points(found["sluiceway.attempts"])
        delta = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
        assert found["sluiceway.attempts"].sum.aggregation_temporality == delta
        assert point.count == attempts.as_int
        assert point.sum == pytest.approx(point.count * 2.50025)
        counts.append((point.count, point.start_time_unix_nano, point.time_unix_nano))
    # what was refused at 5,000 is in the next one, from where the last good one ended
    assert counts == [(2, STARTED, 2_000), (0, 2_000, 3_000), (3, 3_000, 4_000), (1, 4_000, 6_000)]


def test_exemplars_go_along_and_in_delta_only_new_ones(sink, tmp_path):
    registry = CollectorRegistry()
    records = RecordMetrics(registry)
    records.keep_exemplars()
    records.observe(record({names.SLUICEWAY_DURATION_MS: 15.0}))
    ExemplarFile(file_of(tmp_path, 0)).write(records.exemplars())
    metrics = HostMetrics(OTLPMetricExporter(), STARTED, tmp_path / "sent")
    for _ in range(2):
        metrics.export(with_exemplars(registry.collect(), tmp_path), 1 << 62)
    found = [metrics_in(message)["gen_ai.server.request.duration"] for message in sink.metrics]
    ((exemplar,), ()) = [list(_points(metric)[0].exemplars) for metric in found]
    assert (exemplar.trace_id.hex(), exemplar.span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert exemplar.as_double == 0.015
    assert exemplar.time_unix_nano == pytest.approx(record()["end_ns"], abs=1000)


@pytest.mark.parametrize("content", [b"", b"[[", b"[[1]]", b"{}", b"5"])
def test_a_memory_that_does_not_read_is_none(host, sink, tmp_path, content):
    (tmp_path / "sent").write_bytes(content)
    host.records.observe(record())
    HostMetrics(OTLPMetricExporter(), STARTED, tmp_path / "sent").export(host.registry.collect(), 2_000)
    (point,) = _points(metrics_in(sink.metrics[0])["gen_ai.server.request.duration"])
    assert (point.count, point.start_time_unix_nano) == (1, STARTED)


class Keeping(MetricExporter):
    """Keeps what it is given; refuses every second message if asked."""

    def __init__(self, *, refusing: bool = False) -> None:
        super().__init__()
        self.taken: list[MetricsData] = []
        self._refusing = itertools.cycle([False, True]) if refusing else itertools.repeat(False)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **_options: Any) -> MetricExportResult:
        if next(self._refusing):
            return MetricExportResult.FAILURE
        self.taken.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_options: Any) -> None: ...


def points_of(data: MetricsData) -> int:
    return sum(len(metric.data.data_points) for metric in data.resource_metrics[0].scope_metrics[0].metrics)


def test_messages_are_bounded(host, monkeypatch):
    monkeypatch.setattr(host_metrics, "MESSAGE_BYTES_MAX", 30 << 10)
    for number in range(120):  # hostile: as long as names of models may be, four bytes a character
        host.records.observe(record({names.GEN_AI_REQUEST_MODEL: f"{number:03}" + "𝔸" * 253}))
    exporter = Keeping()
    assert HostMetrics(exporter, STARTED, None).export(host.registry.collect(), 2_000)
    sizes = [len(encode_metrics(data).SerializeToString()) for data in exporter.taken]
    assert (20 << 10) < max(sizes) <= (32 << 10), "the resource, and what metrics say of themselves, beside 30 KiB"
    points = sum(points_of(data) for data in exporter.taken)
    assert points == sum(1 for family in host.registry.collect() for _ in host_metrics._series(family))


def test_sums_that_shrink_for_once_send_nothing_twice(host, tmp_path):
    """A file that cannot be read is left out of the sums, and is there again the next time."""
    less, more = CollectorRegistry(), host.registry
    RecordMetrics(less).observe(record())
    for _ in range(3):
        host.records.observe(record())
    exporter = Keeping()
    for registry in (more, less, more):
        assert HostMetrics(exporter, STARTED, tmp_path / "sent").export(registry.collect(), 2_000)
    sent = [
        point.count
        for data in exporter.taken
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "gen_ai.server.request.duration"
        for point in metric.data.data_points
    ]
    assert sent == [3, 0, 0]


def test_of_several_messages_each_counts_for_itself(host, tmp_path, monkeypatch):
    monkeypatch.setattr(host_metrics, "MESSAGE_BYTES_MAX", 3000)
    for number in range(20):
        host.records.observe(record({names.GEN_AI_REQUEST_MODEL: f"m-{number}"}))
    total = 0
    for _ in range(12):
        exporter = Keeping(refusing=True)
        HostMetrics(exporter, STARTED, tmp_path / "sent").export(host.registry.collect(), 2_000)
        for data in exporter.taken:
            for metric in data.resource_metrics[0].scope_metrics[0].metrics:
                if metric.name == "gen_ai.server.request.duration":
                    total += sum(point.count for point in metric.data.data_points)
        host.records.observe(record({names.GEN_AI_REQUEST_MODEL: "m-0"}))
    assert 0 < total <= 20 + 11, "nothing twice"


class _Servicer(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self) -> None:
        self.messages: list[ExportMetricsServiceRequest] = []

    def Export(self, request, context):
        self.messages.append(request)
        return ExportMetricsServiceResponse()


def opened(environ: dict[str, str]) -> tuple[MetricExporter, int, LineWriter]:
    """The exporter that an environment asks for, and what it would write on stdout."""
    reader, writer = os.pipe()
    lines = LineWriter(writer)
    return open_exporter(environ, metrics_of(environ), lines), reader, lines


def test_over_grpc(host, monkeypatch):
    servicer = _Servicer()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(servicer, server)
    endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    for name, value in (("ENDPOINT", endpoint), ("PROTOCOL", "grpc"), ("COMPRESSION", "gzip")):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    exporter, reader, lines = opened(dict(os.environ))
    host.records.observe(record())
    try:
        metrics = HostMetrics(exporter, STARTED, None)
        assert metrics.export(host.registry.collect(), 2_000)
        metrics.shutdown()
    finally:
        server.stop(None).wait()
        lines.close(5)
        os.close(reader)
    (message,) = servicer.messages
    (point,) = _points(metrics_in(message)["gen_ai.server.request.duration"])
    assert point.count == 1


def test_the_console_has_one_line(host):
    exporter, reader, lines = opened({"OTEL_METRICS_EXPORTER": "console"})
    host.records.observe(record())
    assert HostMetrics(exporter, STARTED, None).export(host.registry.collect(), 2_000)
    assert lines.flush(5)
    (line,) = os.read(reader, 1 << 20).splitlines()
    os.close(reader)
    assert orjson.loads(line)["resource_metrics"]


@pytest.mark.parametrize(
    ("environ", "exporters", "interval_s", "delta", "complaints"),
    [
        ({}, (), 60.0, False, 0),
        (ENDPOINT, ("otlp",), 60.0, False, 0),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:1/v1/metrics"}, ("otlp",), 60.0, False, 0),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1"}, (), 60.0, False, 0),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "none"}, (), 60.0, False, 0),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "prometheus,otlp"}, ("otlp",), 60.0, False, 0),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, (), 60.0, False, 0),
        (ENDPOINT | {"OTEL_METRIC_EXPORT_INTERVAL": "5000"}, ("otlp",), 5.0, False, 0),
        (ENDPOINT | {"OTEL_METRIC_EXPORT_INTERVAL": "soon"}, ("otlp",), 60.0, False, 1),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "Delta"}, ("otlp",), 60.0, True, 0),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "lowmemory"}, ("otlp",), 60.0, True, 0),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "both"}, ("otlp",), 60.0, False, 1),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "statsd"}, (), 60.0, False, 1),
    ],
)
def test_settings(environ, exporters, interval_s, delta, complaints):
    settings = metrics_of(environ)
    assert (settings.exporters, settings.interval_s, settings.delta) == (exporters, interval_s, delta)
    assert len(settings.complaints) == complaints


def test_a_host_has_one_start(tmp_path: Path):
    assert [start_of(tmp_path, now) for now in (5, 6, 7)] == [5, 5, 5]
