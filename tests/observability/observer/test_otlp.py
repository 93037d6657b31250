"""The hand-written encoder against opentelemetry's own classes: byte for byte what the SDK gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.span import TraceState

from observability.observer import otlp
from observability.observer.readable import readable_spans
from tests.fakes.otlp_sink import value_of

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SPAN_ID = 0x00F067AA0BA902B7
PARENT_ID = 0x0AA902B700F067AB
RESOURCE = {"service.name": "sluiceway", "host.cpus": 2, "share": 0.5, "spare": True, "zones": ["a", "b"]}

ATTRIBUTES = {
    "http.request.method": "POST",
    "http.response.status_code": 200,
    "gen_ai.response.finish_reasons": ["stop", "length"],
    "gen_ai.request.stream": True,
    "sluiceway.fallback": False,
    "sluiceway.duration_ms": 2500.25,
    "negative": -1,
    "largest": (1 << 63) - 1,
    "smallest": -(1 << 63),
    "zero": 0,
    "empty": "",
    "none of them": [],
    "not ASCII": "通义千问 🚰",
    "long": "x" * 70_000,
    "at the edge of a length byte": "y" * 127,
    "beyond it": "z" * 128,
}


class _Ids(IdGenerator):
    def generate_span_id(self) -> int:
        return SPAN_ID

    def generate_trace_id(self) -> int:
        return TRACE_ID


def sdk_span(
    *, kind: SpanKind, attributes: dict, parent: SpanContext | None, failed: bool, name: str = "POST /v1/x"
) -> ReadableSpan:
    provider = TracerProvider(
        resource=Resource(RESOURCE, "https://schemas.test/1"), id_generator=_Ids(), sampler=ALWAYS_ON
    )
    context = set_span_in_context(NonRecordingSpan(parent)) if parent else None
    tracer = provider.get_tracer("sluiceway", "0.1.0")
    span = tracer.start_span(name, context=context, kind=kind, attributes=attributes, start_time=1_000_000_001)
    if failed:
        span.set_status(Status(StatusCode.ERROR))
    span.end(end_time=2_000_000_002)
    assert isinstance(span, ReadableSpan)
    return span


def our_request(
    *,
    kind: int,
    attributes: dict,
    parent: bytes = b"",
    remote: bool = False,
    tracestate: str = "",
    failed: bool = False,
) -> bytes:
    span = otlp.span(
        context=otlp.span_context(TRACE_ID.to_bytes(16, "big"), SPAN_ID.to_bytes(8, "big")),
        parent_span_id=parent,
        parent_is_remote=remote,
        tracestate=otlp.span_tracestate(tracestate),
        named=otlp.span_name("POST /v1/x", kind),
        start_ns=1_000_000_001,
        end_ns=2_000_000_002,
        attributes=b"".join(otlp.Attribute(key).encode(value) for key, value in attributes.items()),
        failed=failed,
    )
    return otlp.Envelope(RESOURCE, "sluiceway", "0.1.0", "https://schemas.test/1").request([span])


def test_a_server_span_under_a_remote_parent_is_the_sdks():
    parent = SpanContext(
        TRACE_ID, PARENT_ID, True, TraceFlags(1), TraceState.from_header(["congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"])
    )
    theirs = sdk_span(kind=SpanKind.SERVER, attributes=ATTRIBUTES, parent=parent, failed=True)
    ours = our_request(
        kind=otlp.KIND_SERVER,
        attributes=ATTRIBUTES,
        parent=PARENT_ID.to_bytes(8, "big"),
        remote=True,
        tracestate="congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
        failed=True,
    )
    assert ours == encode_spans([theirs]).SerializeToString()


@pytest.mark.parametrize("failed", [False, True])
def test_a_client_span_under_a_local_parent_is_the_sdks(failed):
    parent = SpanContext(TRACE_ID, PARENT_ID, False, TraceFlags(1))
    theirs = sdk_span(kind=SpanKind.CLIENT, attributes=ATTRIBUTES, parent=parent, failed=failed)
    ours = our_request(kind=otlp.KIND_CLIENT, attributes=ATTRIBUTES, parent=PARENT_ID.to_bytes(8, "big"), failed=failed)
    assert ours == encode_spans([theirs]).SerializeToString()


def test_a_root_span_without_attributes_is_the_sdks():
    theirs = sdk_span(kind=SpanKind.SERVER, attributes={}, parent=None, failed=False)
    assert our_request(kind=otlp.KIND_SERVER, attributes={}) == encode_spans([theirs]).SerializeToString()


def test_several_spans_share_one_envelope():
    span = our_request(kind=otlp.KIND_SERVER, attributes={"a": 1})
    envelope = otlp.Envelope({}, "sluiceway", "")
    inner = ExportTraceServiceRequest.FromString(span).resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    field = b"\x12" + otlp.varint(len(inner)) + inner
    message = ExportTraceServiceRequest.FromString(envelope.request([field] * 3))
    assert len(message.resource_spans[0].scope_spans[0].spans) == 3


def test_decoded_and_encoded_again_by_the_sdk_it_is_the_same():
    request = our_request(
        kind=otlp.KIND_CLIENT, attributes=ATTRIBUTES, parent=PARENT_ID.to_bytes(8, "big"), remote=True, tracestate="a=b"
    )
    assert encode_spans(readable_spans(request)).SerializeToString() == request


JSON_VALUES = st.one_of(
    st.text(), st.integers(-(1 << 63), (1 << 63) - 1), st.booleans(), st.floats(allow_nan=False), st.lists(st.text())
)


@given(st.lists(st.tuples(st.text(min_size=1), JSON_VALUES), max_size=20))
def test_any_attribute_is_read_back_however_often_it_is_written(pairs):
    encoders: dict[str, otlp.Attribute] = {}
    for _ in range(2):  # the second time from what is remembered
        for key, value in pairs:
            data = encoders.setdefault(key, otlp.Attribute(key)).encode(value)
            assert data[:1] == b"\x4a"
            size, at = 0, 1
            while True:
                size |= (data[at] & 127) << (7 * (at - 1))
                at += 1
                if data[at - 1] < 128:
                    break
            assert at + size == len(data)
            parsed = KeyValue.FromString(data[at:])
            assert parsed.key == key
            read = value_of(parsed.value)
            assert read == value
            assert type(read) is type(value)


def test_what_is_remembered_is_bounded_and_keeps_types_apart():
    encoder = otlp.Attribute("id")
    values = [f"id-{number}" for number in range(2 * otlp.KNOWN_VALUES_MAX)]
    assert [encoder.encode(value) for value in values] == [otlp.Attribute("id").encode(value) for value in values]
    assert len(encoder.texts) == otlp.KNOWN_VALUES_MAX
    assert len({encoder.encode(value) for value in (1, True, 1.0, "1")}) == 4


def test_values_are_cut_where_the_environment_limits_them():
    data = otlp.Attribute("k", 3).encode("abcdef")
    assert data == otlp.Attribute("k").encode("abc")
    assert otlp.Attribute("k", 2).encode(["abc", 1]) == otlp.Attribute("k").encode(["ab", 1])
