"""The span queue with real exporters and collectors that are well, slow, refusing, hanging or away."""

import asyncio
import io
import logging
import threading
from collections import Counter
from concurrent import futures

import grpc
import pytest
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from observability.observer import transport
from observability.observer.export import NotDelivered, SpanExport
from observability.observer.log_transport import open_log_transport
from observability.observer.spans import SpanEncoder
from observability.observer.tracing import Tracing, envelope, tracing_of
from tests.fakes.otlp_sink import OtlpSink, SpanStore
from tests.observability.records import record


class Drops(Counter[str]):
    """Counts of dropped spans, and a way to wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()

    def __call__(self, reason: str, spans: int) -> None:
        with self.changed:
            self[reason] += spans
            self.changed.notify_all()

    async def until(self, reason: str, spans: int) -> None:
        def wait() -> bool:
            with self.changed:
                return self.changed.wait_for(lambda: self[reason] >= spans, 20)

        assert await asyncio.to_thread(wait), dict(self)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "HEADERS", "COMPRESSION", "TIMEOUT", "PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)


def started(tracing: Tracing, drops: Drops, **options) -> SpanExport:
    options = {"senders": 1, "delay_s": 0.01, **options}
    return SpanExport(lambda: transport.open_transport(tracing, io.StringIO()), envelope(), drops, **options)


def offer(export: SpanExport, records: int = 1) -> None:
    encoder = SpanEncoder()
    for _ in range(records):
        spans = encoder.encode(record())
        export.offer(b"".join(spans), len(spans))


HTTP = Tracing(("otlp",), "http/protobuf")
GRPC = Tracing(("otlp",), "grpc")


async def test_spans_go_out_over_http_with_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with OtlpSink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        drops = Drops()
        export = started(HTTP, drops)
        offer(export)
        spans = await sink.at_least(2)
        await asyncio.to_thread(export.close, 10)
    assert [span.name for span in spans] == ["POST /v1/chat/completions", "chat qwen-plus"]
    assert sink.headers[0]["x-tenant"] == "blue"
    assert sink.headers[0]["content-encoding"] == "gzip"
    assert sink.headers[0]["content-type"] == "application/x-protobuf"
    assert sink.resource["service.name"] == "sluiceway"
    assert sink.resource["deployment.environment.name"] == "test"
    assert not drops


def test_the_service_has_the_name_that_the_environment_gives(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway-blue")
    message = trace_service_pb2.ExportTraceServiceRequest.FromString(envelope().request([]))
    attributes = {item.key: item.value.string_value for item in message.resource_spans[0].resource.attributes}
    assert attributes["service.name"] == "gateway-blue"


async def test_batches_hold_at_most_512_spans_and_closing_sends_the_rest(monkeypatch):
    with OtlpSink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        drops = Drops()
        export = started(HTTP, drops, delay_s=3600.0, senders=4)
        offer(export, 700)
        await asyncio.to_thread(export.close, 20)
        assert len(sink.spans) == 1400
        assert sink.requests >= 3
        assert not drops


async def test_a_refusing_collector_costs_its_batches_and_nothing_else(monkeypatch):
    with OtlpSink() as sink:
        sink.status = 400
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        drops = Drops()
        export = started(HTTP, drops)
        offer(export)
        await drops.until("export_failed", 2)
        sink.status = 200
        offer(export)
        assert len(await sink.at_least(2)) == 2
        await asyncio.to_thread(export.close, 10)
    assert drops == {"export_failed": 2}


@pytest.mark.parametrize("status", [301, 307])
async def test_a_collector_that_is_somewhere_else_has_taken_nothing(monkeypatch, status):
    with OtlpSink() as sink:
        sink.status = status
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        drops = Drops()
        export = started(HTTP, drops)
        offer(export)
        await drops.until("export_failed", 2)
        await asyncio.to_thread(export.close, 10)
    assert drops == {"export_failed": 2}


def test_log_records_have_not_arrived_either(monkeypatch):
    with OtlpSink() as sink:
        sink.status = 302
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        sender = open_log_transport("http/protobuf")
        assert not sender.send(b"", 1)
        sender.shutdown()


async def test_a_collector_that_wants_to_rest_is_left_alone(monkeypatch):
    with OtlpSink() as sink:
        sink.status, sink.retry_after = 503, 3600
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        drops = Drops()
        export = started(HTTP, drops)
        offer(export)
        await drops.until("export_failed", 2)
        sink.status = 200
        offer(export)  # and what comes now waits, where it went out and was lost with the next refusal
        await asyncio.to_thread(export.close, 0.2)
        assert sink.spans == []
    assert drops == {"export_failed": 2, "shutdown": 2}


async def test_a_short_rest_ends(monkeypatch):
    monkeypatch.setattr(transport, "REST_S_MAX", 0.01)
    with OtlpSink() as sink:
        sink.status, sink.retry_after = 429, 3600
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        drops = Drops()
        export = started(HTTP, drops)
        offer(export)
        await drops.until("export_failed", 2)
        sink.status = 200
        for _ in range(2):
            offer(export)
        assert len(await sink.at_least(4)) == 4
        await asyncio.to_thread(export.close, 10)
    assert drops == {"export_failed": 2}


def rejecting(spans: int) -> bytes:
    said = trace_service_pb2.ExportTracePartialSuccess(rejected_spans=spans, error_message="too old")
    return trace_service_pb2.ExportTraceServiceResponse(partial_success=said).SerializeToString()


@pytest.mark.parametrize(
    ("answer", "drops_expected"),
    [
        (rejecting(1), {"rejected": 1}),
        (rejecting(900), {"rejected": 2}),
        (rejecting(0), {}),
        (b'{"partialSuccess":{}}', {}),
        (b"<html>", {}),
    ],
)
async def test_what_a_collector_rejects_of_a_request_is_counted(monkeypatch, answer, drops_expected):
    with OtlpSink() as sink:
        sink.answer = answer
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        drops = Drops()
        export = started(HTTP, drops)
        offer(export)
        await sink.at_least(2)
        await asyncio.to_thread(export.close, 10)
    await drops.until("rejected", drops_expected.get("rejected", 0))
    assert +drops == drops_expected


async def test_a_credential_provider_of_the_users_makes_the_session(monkeypatch):
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "mine")
    with pytest.raises(RuntimeError, match="mine"):  # there is none of this name
        transport.open_transport(HTTP, io.StringIO())


async def test_a_collector_that_is_not_there_costs_its_batches(monkeypatch, unused_tcp_port):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{unused_tcp_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    drops = Drops()
    export = started(HTTP, drops)
    offer(export)
    await drops.until("export_failed", 2)
    await asyncio.to_thread(export.close, 10)


async def test_a_hanging_collector_fills_the_queue_and_the_newest_are_dropped(monkeypatch):
    with OtlpSink() as sink:
        sink.answering.clear()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        drops = Drops()
        size = len(b"".join(SpanEncoder().encode(record())))
        export = started(HTTP, drops, queue_bytes=3 * size)
        offer(export)
        await sink.at_least(2)  # the only sender waits for its answer now
        offer(export, 5)
        assert drops == {"queue_full": 4}
        await asyncio.to_thread(export.close, 0.05)
        # three records wait, one is on its way: nobody knows whether it arrived, so it counts
        assert drops == {"queue_full": 4, "shutdown": 8}
        offer(export)
        assert drops["shutdown"] == 10


class _Servicer(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.store = SpanStore()

    def Export(self, request, context):
        self.store.add(request)
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_spans_go_out_over_grpc(monkeypatch):
    servicer = _Servicer()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    drops = Drops()
    export = started(GRPC, drops)
    offer(export, 3)
    assert len(await servicer.store.at_least(6)) == 6
    await asyncio.to_thread(export.close, 10)
    await asyncio.to_thread(server.stop(None).wait)
    assert not drops


async def test_the_console_has_one_span_a_line():
    console = io.StringIO()
    drops = Drops()
    export = SpanExport(
        lambda: transport.open_transport(Tracing(("console",), "http/protobuf"), console), envelope(), drops, senders=1
    )
    offer(export)
    await asyncio.to_thread(export.close, 10)
    lines = console.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("{") and line.endswith("}") for line in lines)


async def test_of_several_exporters_each_is_sent_to_whatever_another_rejects(monkeypatch):
    with OtlpSink() as sink:
        sink.answer = rejecting(1)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        console, drops = io.StringIO(), Drops()
        export = SpanExport(
            lambda: transport.open_transport(Tracing(("otlp", "console")), console), envelope(), drops, senders=1
        )
        offer(export)
        await asyncio.to_thread(export.close, 10)
    assert len(console.getvalue().splitlines()) == 2
    assert drops == {"rejected": 1}


def test_the_seams_of_the_exporters_are_where_this_version_has_them():
    """If this fails after an update: spans still arrive, by the slow way. `observer.transport` has to be looked at."""
    assert transport.http_seam(OTLPSpanExporter("http://127.0.0.1:1/v1/traces")) is not None
    assert transport.grpc_seam_is_there()


async def test_without_the_seam_spans_arrive_by_the_public_way(monkeypatch):
    class Moved(OTLPSpanExporter):
        """An exporter of a later version, whose `_client` is somewhere else."""

        def __init__(self) -> None:
            super().__init__()
            self._elsewhere = self.__dict__.pop("_client")

        def export(self, spans):
            self._client = self._elsewhere
            try:
                return super().export(spans)
            finally:
                del self._client

        def shutdown(self) -> None:
            self._elsewhere.shutdown()

    with OtlpSink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        drops = Drops()
        export = SpanExport(lambda: transport.http_transport(Moved()), envelope(), drops, senders=1, delay_s=0.01)
        offer(export)
        spans = await sink.at_least(2)
        await asyncio.to_thread(export.close, 10)
    assert [span.name for span in spans] == ["POST /v1/chat/completions", "chat qwen-plus"]
    assert not drops


@pytest.mark.parametrize(
    ("environ", "exporters", "protocol"),
    [
        ({}, (), "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ("otlp",), "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/x"}, ("otlp",), "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("otlp",), "grpc"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ("otlp",),
            "http/protobuf",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, (), "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"}, (), "http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, (), "http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "console"}, ("console",), "http/protobuf"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp, console", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"},
            ("otlp", "console"),
            "http/protobuf",
        ),
    ],
)
def test_what_the_environment_asks_for(environ, exporters, protocol):
    assert tracing_of(environ) == Tracing(exporters, protocol)


def test_values_that_are_not_understood_are_named():
    environ = {
        "OTEL_TRACES_EXPORTER": "zipkin",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "many",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0",
        "OTEL_BSP_SCHEDULE_DELAY": "1s",
        "OTEL_TRACES_SAMPLER": "jaeger_remote",
        "OTEL_BSP_MAX_QUEUE_SIZE": "9",
    }
    tracing = tracing_of(environ)
    assert tracing.exporters == ()
    assert (tracing.length_max, tracing.batch_spans, tracing.delay_ms) == (None, 512, 1000)
    assert {complaint.split(":")[0] for complaint in tracing.complaints} == set(environ) - {
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    }


def test_larger_batches_than_there_are_are_said():
    assert tracing_of({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512"}).complaints == ()
    tracing = tracing_of({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "513"})
    assert tracing.batch_spans == 512
    assert len(tracing.complaints) == 1


@pytest.mark.parametrize(
    ("environ", "length_max"),
    [
        ({}, None),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "9"}, 9),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "9", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "0"}, 0),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "9", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": ""}, 9),
    ],
)
def test_the_length_of_values(environ, length_max):
    tracing = tracing_of(environ)
    assert (tracing.length_max, tracing.complaints) == (length_max, ())


@pytest.mark.parametrize(
    ("endpoint", "right"),
    [
        ("collector:4318", "http://collector:4318"),
        ("otel.test", "http://otel.test"),
        ("//otel.test:4318", "http://collector:4318"),
        ("http://", "http://collector:4318"),
        ("[::1", "http://collector:4318"),
        ("https://collector", None),
    ],
)
def test_an_endpoint_that_is_no_url(endpoint, right):
    complaints = tracing_of({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}).complaints
    expected = [f"one like {right} would be right"] if right else []
    assert [complaint.partition("; ")[2] for complaint in complaints] == expected


async def test_what_an_exporter_says_is_the_reason_in_a_line_of_ours(monkeypatch, tmp_path, unused_tcp_port):
    """Here the line is structlog's own, printed; in a process it is JSON (`observability.log`)."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:secret@127.0.0.1:{unused_tcp_port}/a-secret/otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    logger = logging.getLogger("opentelemetry.exporter")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    transport.log_what_exporters_say()
    drops = Drops()
    with structlog.testing.capture_logs() as lines:
        export = started(HTTP, drops)
        offer(export)
        await drops.until("export_failed", 2)
        await asyncio.to_thread(export.close, 10)
    assert lines
    assert {line["event"] for line in lines} == {"spans_not_delivered"}
    assert all(line["reason"] and "secret" not in line["reason"] for line in lines)


def test_what_is_said_again_and_again_is_said_a_few_times():
    complaints = NotDelivered()
    with structlog.testing.capture_logs() as lines:
        for _ in range(100):
            complaints.say("full")
        assert len(lines) == NotDelivered.LINES_MAX
        complaints._since -= NotDelivered.WINDOW_S
        complaints.say("full")
    assert [line.get("lines_left_out") for line in lines] == [None] * 5 + [95]
