"""What a collector gets of a record: the same as from the SDK's own tracer and exporter, to the last byte."""

import asyncio
import io

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.span import TraceState

from observability import names
from observability.environment import SCOPE, scope_version
from observability.observer import transport
from observability.observer.export import SpanExport
from observability.observer.spans import SpanEncoder
from observability.observer.tracing import Tracing, envelope
from observability.record import Record
from tests.fakes.otlp_sink import OtlpSink
from tests.observability.observer.test_spans import ATTEMPTS
from tests.observability.records import record

PLAIN = record(labels={"team": "search"})
CONTINUED = record(parent_span_id="0102030405060708", tracestate="congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
FAILED = record(
    {names.SLUICEWAY_OUTCOME: "upstream_error", names.HTTP_RESPONSE_STATUS_CODE: 503, names.ERROR_TYPE: "overloaded"},
    attempts=ATTEMPTS,
)
REFUSED = record(
    {names.SLUICEWAY_OUTCOME: "rejected", names.HTTP_RESPONSE_STATUS_CODE: 401, names.ERROR_TYPE: "unauthenticated"},
    client=None,
    attempts=None,
)
UNUSUAL = record(
    {
        names.URL_PATH: "/v1/" + "通" * 2000,
        names.GEN_AI_RESPONSE_FINISH_REASONS: ["stop", "length", "通义"],
        names.GEN_AI_USAGE_INPUT_TOKENS: (1 << 40) + 16382,
        names.GEN_AI_USAGE_OUTPUT_TOKENS: 16384,
        names.GEN_AI_REQUEST_STREAM: True,
        names.SLUICEWAY_REQUEST_BYTES: 16383,
    }
)


class _Ids(IdGenerator):
    """Those of a record, in the order of its spans."""

    def __init__(self, made: Record) -> None:
        self._trace_id = made["trace_id"]
        self._span_ids = [made["span_id"]]
        if "client" in made:
            self._span_ids.append(made["client"]["span_id"])
        attempts = made.get("attempts", [])
        self._span_ids += [attempt["span_id"] for attempt in attempts if len(attempts) > 1]

    def generate_span_id(self) -> int:
        return int(self._span_ids.pop(0), 16)

    def generate_trace_id(self) -> int:
        return int(self._trace_id, 16)


def trace_with_the_sdk(made: Record) -> None:
    """The record's spans as somebody would write them who uses the SDK, sent by its exporter."""
    resource = Resource.create().merge(Resource({"service.name": "sluiceway"}))
    provider = TracerProvider(resource=resource, id_generator=_Ids(made), sampler=ALWAYS_ON)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracer = provider.get_tracer(SCOPE, scope_version())
    fields = made["fields"]
    context = None
    if "parent_span_id" in made:
        state = TraceState.from_header([made["tracestate"]])
        ids = int(made["trace_id"], 16), int(made["parent_span_id"], 16)
        context = set_span_in_context(NonRecordingSpan(SpanContext(*ids, True, TraceFlags(1), state)))
    name = f"{fields[names.HTTP_REQUEST_METHOD]} {fields[names.HTTP_ROUTE]}"
    attributes = {name: value for name, value in fields.items() if names.on_server(name)}
    attributes |= {f"sluiceway.label.{name}": value for name, value in made.get("labels", {}).items()}
    server = tracer.start_span(name, context, SpanKind.SERVER, attributes, start_time=made["start_ns"])
    if fields[names.SLUICEWAY_OUTCOME] == "upstream_error":
        server.set_status(Status(StatusCode.ERROR))
    if "client" in made:
        trace_client(tracer, made, set_span_in_context(server))
    server.end(made["end_ns"])
    provider.shutdown()


def trace_client(tracer: Tracer, made: Record, under: object) -> None:
    fields, client = made["fields"], made["client"]
    on_client = {name: value for name, value in fields.items() if names.on_client(name) and name != names.ERROR_TYPE}
    if names.ERROR_TYPE in fields:
        on_client[names.ERROR_TYPE] = fields[names.ERROR_TYPE]
    on_client |= {"server.address": client["address"], "server.port": client["port"]}
    on_client[names.HTTP_RESPONSE_STATUS_CODE] = client["status"]
    name = f"{fields[names.GEN_AI_OPERATION_NAME]} {fields[names.GEN_AI_REQUEST_MODEL]}"
    span = tracer.start_span(name, under, SpanKind.CLIENT, on_client, start_time=client["start_ns"])  # type: ignore[arg-type]
    if names.ERROR_TYPE in fields:
        span.set_status(Status(StatusCode.ERROR))
    attempts = made["attempts"]
    for number, attempt in enumerate(attempts if len(attempts) > 1 else []):
        error = attempt.get("error") or (str(attempt["status"]) if attempt["status"] >= 400 else None)
        tried = {
            "http.request.method": "POST",
            "sluiceway.service": attempt["service"],
            "sluiceway.verdict": attempt["verdict"],
            **({"http.request.resend_count": number} if number else {}),
            **({"error.type": error} if error else {}),
            "server.address": attempt["address"],
            "server.port": attempt["port"],
            **({"http.response.status_code": attempt["status"]} if "status" in attempt else {}),
        }
        times = attempt["start_ns"], attempt["end_ns"]
        child = tracer.start_span("POST", set_span_in_context(span), SpanKind.CLIENT, tried, start_time=times[0])
        if error:
            child.set_status(Status(StatusCode.ERROR))
        child.end(times[1])
    span.end(client["end_ns"])


def trace_with_ours(made: Record) -> None:
    tracing = Tracing(("otlp",))
    lost: list[str] = []
    export = SpanExport(
        lambda: transport.open_transport(tracing, io.StringIO()), envelope(), lambda reason, _: lost.append(reason)
    )
    spans = SpanEncoder().encode(made)
    export.offer(b"".join(spans), len(spans))
    export.close(20)
    assert not lost


@pytest.mark.parametrize("made", [PLAIN, CONTINUED, FAILED, REFUSED, UNUSUAL], ids=range(5))
async def test_a_collector_sees_no_difference(made, monkeypatch):
    seen = []
    for name in ("HEADERS", "COMPRESSION", "PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    # both make a random one, once for each process or resource
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=one,deployment.environment.name=test")
    for send in (trace_with_the_sdk, trace_with_ours):
        with OtlpSink() as sink:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
            await asyncio.to_thread(send, made)
            (message,) = sink.messages
            # A span ends when all below it have ended, and the SDK sends in the order of ends: that is no promise.
            spans = message.resource_spans[0].scope_spans[0].spans
            ordered = sorted(spans, key=lambda span: span.span_id)
            del spans[:]
            spans.extend(ordered)
            headers = {name: value for name, value in sink.headers[0].items() if name not in {"host", "content-length"}}
            seen.append((message, message.SerializeToString(deterministic=True), headers))
    assert seen[0] == seen[1]
