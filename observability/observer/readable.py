"""Encoded spans back into the SDK's: for exporters that take nothing else."""

from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

_KINDS = {
    Span.SPAN_KIND_INTERNAL: SpanKind.INTERNAL,
    Span.SPAN_KIND_SERVER: SpanKind.SERVER,
    Span.SPAN_KIND_CLIENT: SpanKind.CLIENT,
    Span.SPAN_KIND_PRODUCER: SpanKind.PRODUCER,
    Span.SPAN_KIND_CONSUMER: SpanKind.CONSUMER,
}


def readable_spans(request: bytes) -> list[ReadableSpan]:
    """The spans of an encoded ExportTraceServiceRequest."""
    message = ExportTraceServiceRequest.FromString(request)
    spans: list[ReadableSpan] = []
    for resource_spans in message.resource_spans:
        attributes = {item.key: _value(item.value) for item in resource_spans.resource.attributes}
        resource = Resource(attributes, resource_spans.schema_url)
        for scope_spans in resource_spans.scope_spans:
            scope = InstrumentationScope(scope_spans.scope.name, scope_spans.scope.version)
            spans += [_span(span, resource, scope) for span in scope_spans.spans]
    return spans


def _span(span: Span, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    trace_id = int.from_bytes(span.trace_id, "big")
    tracestate = TraceState.from_header([span.trace_state]) if span.trace_state else None
    remote = bool(span.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
    sampled = TraceFlags(TraceFlags.SAMPLED)
    parent = None
    if span.parent_span_id:
        parent = SpanContext(trace_id, int.from_bytes(span.parent_span_id, "big"), remote, sampled, tracestate)
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, int.from_bytes(span.span_id, "big"), False, sampled, tracestate),
        parent=parent,
        resource=resource,
        attributes={item.key: _value(item.value) for item in span.attributes},
        kind=_KINDS[span.kind],
        instrumentation_scope=scope,
        status=Status(StatusCode(span.status.code)),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
    )


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "array_value":
            return tuple(_value(item) for item in value.array_value.values)
        case None:
            return None
        case kind:
            return getattr(value, kind)
