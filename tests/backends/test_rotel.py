"""A real collector over gRPC: it takes our traces, metrics and events, and hands on what we sent."""

import json
from pathlib import Path
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observability import names
from tests.backends.rotel import rotel
from tests.backends.traffic import CALLS, document, send_all
from tests.fakes.gateway import Gateway
from tests.fakes.otlp_sink import OtlpSink, attributes_of, value_of
from tests.fakes.simulated import Simulated

ASKED = names.GEN_AI_INPUT_MESSAGES
SPANS = 2 * len(CALLS) + 1
"""The refused request has one, that with a fallback four."""


def last_metrics(sink: OtlpSink) -> dict[str, Metric]:
    """Those that were sent when the gateway ended."""
    resources = sink.metrics[-1].resource_metrics
    return {metric.name: metric for one in resources for scope in one.scope_metrics for metric in scope.metrics}


def requests(sink: OtlpSink) -> int:
    """`sluiceway.requests`, whatever the labels."""
    found = last_metrics(sink).get(names.SLUICEWAY_REQUESTS) if sink.metrics else None
    return 0 if found is None else sum(point.as_int for point in found.sum.data_points)


async def test_traces_metrics_and_events_over_grpc(tmp_path: Path) -> None:
    with OtlpSink() as sink:
        async with rotel(sink.endpoint) as endpoint, Simulated.running() as upstream:
            environ = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                "OTEL_SERVICE_NAME": "sluiceway-behind-rotel",
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_AND_EVENT",
            }
            async with Gateway.serving(document(upstream.url), tmp_path, environ=environ) as gateway:
                await send_all(gateway.url)
                lines = await gateway.records(len(CALLS))
            await sink.at_least(SPANS, 60)
            await sink.until(lambda: requests(sink) == len(CALLS), 60)
            await sink.until(lambda: len(sink.logs) >= len(CALLS) - 1, 60)  # the refused one said nothing
        spans, resource = sink.spans, sink.resource
    assert gateway.complaints() == []
    assert len(spans) == SPANS
    assert resource["service.name"] == "sluiceway-behind-rotel"
    for line in lines:
        same_as_the_line(line, [span for span in spans if span.trace_id.hex() == line["trace_id"]])

    recorded = {line["trace_id"]: json.loads(line[ASKED]) for line in lines if ASKED in line}
    assert {event.trace_id.hex(): attributes_of(event)[ASKED] for event in sink.logs} == recorded
    assert {event.event_name for event in sink.logs} == {"gen_ai.client.inference.operation.details"}

    metrics = last_metrics(sink)
    duration = metrics[names.GEN_AI_SERVER_REQUEST_DURATION].histogram.data_points
    assert sum(point.count for point in duration) == len(CALLS)
    assert {tuple(point.explicit_bounds) for point in duration} == {names.DURATION_BUCKETS}
    traces = {exemplar.trace_id.hex() for point in duration for exemplar in point.exemplars}
    assert traces
    assert traces <= {line["trace_id"] for line in lines}
    tokens = {
        kind: sum(
            point.sum
            for point in metrics[names.GEN_AI_CLIENT_TOKEN_USAGE].histogram.data_points
            if {item.key: value_of(item.value) for item in point.attributes}[names.GEN_AI_TOKEN_TYPE] == kind
        )
        for kind in ("input", "output")
    }
    said = {kind: sum(line.get(f"gen_ai.usage.{kind}_tokens", 0) for line in lines) for kind in tokens}
    assert tokens == said


def same_as_the_line(line: dict[str, Any], spans: list[Span]) -> None:
    """Every field of the line that belongs on the SERVER or the CLIENT span is there, with its value."""
    (server,) = (span for span in spans if span.kind == Span.SPAN_KIND_SERVER)
    assert server.span_id.hex() == line["span_id"]
    assert fields_of(line, server) == {
        name: value for name, value in line.items() if names.on_server(name) and name != names.SLUICEWAY_TRIED
    }
    under = [span for span in spans if span.parent_span_id == server.span_id]
    assert len(under) == (line["sluiceway.attempts"] > 0)
    for client in under:
        fields = {name: value for name, value in line.items() if names.on_client(name)}
        failed = line[names.SLUICEWAY_OUTCOME] == names.OUTCOME_UPSTREAM_ERROR
        assert fields_of(line, client) == {names.HTTP_RESPONSE_STATUS_CODE: 400 if failed else 200, **fields}
    attempts = [span for span in spans if span not in (server, *under)]
    assert len(attempts) == (line["sluiceway.attempts"] if line["sluiceway.attempts"] > 1 else 0)


def fields_of(line: dict[str, Any], span: Span) -> dict[str, Any]:
    """The attributes of a span that are fields of the line."""
    return {name: value for name, value in attributes_of(span).items() if name in line}
