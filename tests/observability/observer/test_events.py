"""Recorded content as events: where the variable asks for it, and what a collector sees."""

import asyncio
import json
from concurrent import futures

import grpc
import orjson
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from observability import names
from observability.facts import pack, unpack
from observability.observation import Observation
from observability.observer.content.attach import attach
from observability.observer.content.stash import Contents
from observability.observer.events import EVENT_NAME, VARIABLE, Destination, destination_of, event_of, without_content
from observability.observer.log_transport import open_log_transport
from observability.observer.otlp import Envelope
from observability.sampling import TraceContext
from tests.fakes.otlp_sink import OtlpSink, attributes_of
from tests.observability.records import CLIENT_SPAN_ID, TRACE_ID, record

MESSAGES = [
    {"role": "user", "parts": [{"type": "text", "content": "h\u00ef"}, {"type": "blob", "bytes": 7, "x": None}]}
]
SAID = {names.GEN_AI_INPUT_MESSAGES: json.dumps(MESSAGES)}
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("mode", "on_spans", "events"),
    [
        ("", True, False),
        ("true", True, False),
        ("SPAN_ONLY", True, False),
        ("event_only", False, True),
        ("SPAN_AND_EVENT", True, True),
        ("NO_CONTENT", False, False),
    ],
)
def test_where_content_goes(mode, on_spans, events):
    found = destination_of({VARIABLE: mode, **ENDPOINT})
    assert (found.on_spans, found.events, found.complaints) == (on_spans, events, ())


def test_without_a_collector_there_are_no_events():
    assert not destination_of({VARIABLE: "EVENT_ONLY"}).events
    assert not destination_of({VARIABLE: "EVENT_ONLY", **ENDPOINT, "OTEL_LOGS_EXPORTER": "none"}).events
    assert not destination_of({VARIABLE: "EVENT_ONLY", **ENDPOINT, "OTEL_SDK_DISABLED": "true"}).events


@pytest.mark.parametrize("mode", ["SPANS", "none", "off", "0"])
def test_what_is_not_understood_is_complained_about_and_no_content_goes_anywhere(mode):
    found = destination_of({VARIABLE: mode, **ENDPOINT})
    assert found == Destination(on_spans=False, complaints=found.complaints)
    assert "SPAN_ONLY" in found.complaints[0]


def test_an_event_has_what_the_client_span_has_and_messages_as_structures():
    event = event_of(record(SAID))
    assert event is not None
    request = ExportLogsServiceRequest.FromString(Envelope({"service.name": "x"}, "sluiceway", "1").request([event]))
    (log,) = request.resource_logs[0].scope_logs[0].log_records
    assert (log.event_name, log.severity_number, log.flags) == (EVENT_NAME, 5, 1)
    assert (log.trace_id.hex(), log.span_id.hex()) == (TRACE_ID, CLIENT_SPAN_ID)
    assert log.time_unix_nano == record()["end_ns"]
    found = attributes_of(log)
    assert found[names.GEN_AI_INPUT_MESSAGES] == MESSAGES
    assert found[names.GEN_AI_REQUEST_MODEL] == "qwen-plus"
    assert names.HTTP_ROUTE not in found


def test_records_without_content_or_tracing_have_no_event():
    assert event_of(record()) is None
    assert event_of(record(SAID, tracing=False)) is None
    unsampled = event_of(record(SAID, sampled=False))
    assert unsampled is not None


def test_a_record_spared_of_content_is_another_one():
    whole = record(SAID)
    assert names.GEN_AI_INPUT_MESSAGES not in without_content(whole)["fields"]
    assert names.GEN_AI_INPUT_MESSAGES in whole["fields"]
    plain = record()
    assert without_content(plain) is plain


class _Servicer(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self) -> None:
        self.logs: list[LogRecord] = []

    def Export(self, request, context):
        for resource_logs in request.resource_logs:
            self.logs += resource_logs.scope_logs[0].log_records
        return logs_service_pb2.ExportLogsServiceResponse()


async def test_events_go_out_over_grpc(monkeypatch):
    event = event_of(record(SAID))
    assert event is not None
    servicer = _Servicer()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        transport = open_log_transport("grpc")
        assert await asyncio.to_thread(transport.send, Envelope({}, "s", "1").request([event]), 1)
        transport.shutdown()
    finally:
        server.stop(None)
    assert [log.event_name for log in servicer.logs] == [EVENT_NAME]


async def test_events_go_out_over_http(monkeypatch):
    event = event_of(record(SAID))
    assert event is not None
    with OtlpSink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        transport = open_log_transport("http/protobuf")
        assert await asyncio.to_thread(transport.send, Envelope({}, "s", "1").request([event]), 1)
        transport.shutdown()
        assert [log.event_name for log in sink.logs] == [EVENT_NAME]


def test_a_limit_of_attributes_leaves_messages_valid():
    contents = Contents()
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 1000}]}).encode()
    frame = bytes.fromhex("0" * 32) + b"Q" + body
    contents.take(memoryview(b"C" + len(frame).to_bytes(4, "little") + frame))
    observation = Observation("0" * 32, TraceContext(TRACE_ID, None, None, None), "c" * 16, "d" * 16)
    observation.outcome = names.OUTCOME_OK
    facts = unpack(json.loads(orjson.dumps(pack(observation, 1, [65536, ["J", False, len(body)], None]))))
    made = record()
    assert attach(made, facts, contents, 300) is None
    assert len(made["fields"][names.GEN_AI_INPUT_MESSAGES]) <= 300
    assert json.loads(made["fields"][names.GEN_AI_INPUT_MESSAGES])[0]["role"] == "user"
    assert made["fields"][names.SLUICEWAY_CONTENT_TRUNCATED] is True
