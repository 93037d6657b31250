"""Which spans a record makes, what is on them, and when they are errors."""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from observability import names
from observability.observer.otlp import Envelope
from observability.observer.spans import SpanEncoder
from tests.fakes.otlp_sink import attributes_of
from tests.observability.records import CLIENT_SPAN_ID, SPAN_ID, START_NS, TRACE_ID, record


def spans_of(made) -> list[Span]:
    data = SpanEncoder().encode(made)
    message = ExportTraceServiceRequest.FromString(Envelope({}, "sluiceway", "1").request(data))
    return list(message.resource_spans[0].scope_spans[0].spans)


def failed(span: Span) -> bool:
    return span.status.code == Status.STATUS_CODE_ERROR


def test_a_request_is_a_server_span_with_a_client_span_under_it():
    server, client = spans_of(record(parent_span_id="0102030405060708", tracestate="a=1", labels={"team": "search"}))
    assert (server.name, server.kind) == ("POST /v1/chat/completions", Span.SPAN_KIND_SERVER)
    assert (client.name, client.kind) == ("chat qwen-plus", Span.SPAN_KIND_CLIENT)
    assert server.trace_id.hex() == client.trace_id.hex() == TRACE_ID
    assert (server.span_id.hex(), server.parent_span_id.hex()) == (SPAN_ID, "0102030405060708")
    assert (client.span_id.hex(), client.parent_span_id.hex()) == (CLIENT_SPAN_ID, SPAN_ID)
    assert server.trace_state == client.trace_state == "a=1"
    assert (server.start_time_unix_nano, server.end_time_unix_nano) == (START_NS, START_NS + 2_500_250_000)
    assert client.start_time_unix_nano == START_NS + 500_000
    assert attributes_of(server) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "user_agent.original": "OpenAI/Python",
        "network.protocol.version": "1.1",
        "sluiceway.request_id": "0" * 32,
        "sluiceway.outcome": "ok",
        "sluiceway.model_api": "chat",
        "sluiceway.consumer": "search-team",
        "sluiceway.service": "qwen",
        "sluiceway.attempts": 1,
        "sluiceway.fallback": False,
        "sluiceway.duration_ms": 2500.25,
        "sluiceway.overhead_ms": 0.7,
        "sluiceway.label.team": "search",
    }
    assert attributes_of(client) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "dashscope",
        "gen_ai.request.model": "qwen-plus",
        "gen_ai.response.model": "qwen-plus-latest",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 101,
        "sluiceway.usage.source": "upstream",
        "sluiceway.model_api": "chat",
        "sluiceway.consumer": "search-team",
        "sluiceway.service": "qwen",
        "server.address": "upstream.test",
        "server.port": 443,
        "http.response.status_code": 200,
    }
    assert not failed(server)
    assert not failed(client)


def test_a_refused_request_is_one_span_named_by_its_method():
    changes = {
        names.HTTP_ROUTE: None,
        names.SLUICEWAY_OUTCOME: "rejected",
        names.HTTP_RESPONSE_STATUS_CODE: 404,
        names.ERROR_TYPE: "no_route",
    }
    (server,) = spans_of(record(changes, client=None))
    assert server.name == "POST"
    assert attributes_of(server)["error.type"] == "no_route"
    assert not failed(server)


@pytest.mark.parametrize(("method", "name"), [("_OTHER", "HTTP"), ("FROB17", "HTTP"), ("PATCH", "PATCH")])
def test_a_method_that_the_conventions_do_not_know_names_no_span(method, name):
    (server,) = spans_of(record({names.HTTP_REQUEST_METHOD: method, names.HTTP_ROUTE: None}, client=None))
    assert server.name == name
    assert attributes_of(server)["http.request.method"] == method


@pytest.mark.parametrize("switch", ["sampled", "tracing"])
def test_a_record_that_is_not_to_be_traced_makes_none(switch):
    assert SpanEncoder().encode(record(**{switch: False})) == []


ATTEMPTS = [
    {
        "span_id": f"000000000000000{number}",
        "start_ns": START_NS + number,
        "end_ns": START_NS + number + 1,
        "service": service,
        "address": "upstream.test",
        "port": 443,
        **rest,
    }
    for number, (service, rest) in enumerate(
        [
            ("qwen", {"verdict": "next_target", "error": "connect_failed"}),
            ("qwen", {"verdict": "next_target", "status": 503}),
            ("backup", {"verdict": "done", "status": 200}),
        ],
        start=1,
    )
]


def test_several_attempts_have_spans_under_the_client_span():
    _, client, *attempts = spans_of(record(attempts=ATTEMPTS))
    assert [span.name for span in attempts] == ["POST"] * 3
    assert {span.parent_span_id for span in attempts} == {client.span_id}
    first, second, third = map(attributes_of, attempts)
    assert first == {
        "http.request.method": "POST",
        "sluiceway.service": "qwen",
        "sluiceway.verdict": "next_target",
        "error.type": "connect_failed",
        "server.address": "upstream.test",
        "server.port": 443,
    }
    assert (second["http.request.resend_count"], second["error.type"]) == (1, "503")
    assert (third["http.request.resend_count"], third["http.response.status_code"]) == (2, 200)
    assert [failed(span) for span in attempts] == [True, True, False]


def test_a_single_attempt_has_no_span_of_its_own():
    assert len(spans_of(record(attempts=ATTEMPTS[:1]))) == 2


@pytest.mark.parametrize(
    ("outcome", "status", "upstream_status", "server_failed", "client_failed"),
    [
        ("ok", 200, 200, False, False),
        ("upstream_error", 400, 400, False, True),  # the caller's fault: 4xx leave a SERVER span alone
        ("upstream_error", 429, 429, False, True),
        ("upstream_error", 500, 500, True, True),
        ("upstream_error", 200, 200, True, True),  # a 2xx that carries an error
        ("upstream_error", 502, None, True, True),
        ("upstream_aborted", 200, 200, True, True),
        ("client_aborted", 499, None, False, False),
        ("client_aborted", 200, 200, False, False),
        ("gateway_error", 500, 200, True, False),
        ("rejected", 503, None, True, False),
    ],
)
def test_status_by_outcome(outcome, status, upstream_status, server_failed, client_failed):
    made = record({names.SLUICEWAY_OUTCOME: outcome, names.HTTP_RESPONSE_STATUS_CODE: status})
    if upstream_status is None:
        del made["client"]["status"]
    else:
        made["client"]["status"] = upstream_status
    server, client = spans_of(made)
    assert (failed(server), failed(client)) == (server_failed, client_failed)


def test_the_error_type_is_on_the_client_span_only_where_the_upstream_failed():
    gateway = record({names.SLUICEWAY_OUTCOME: "gateway_error", names.ERROR_TYPE: "internal"})
    assert [attributes_of(span).get("error.type") for span in spans_of(gateway)] == ["internal", None]
    upstream = record({names.SLUICEWAY_OUTCOME: "upstream_error", names.ERROR_TYPE: "DataInspectionFailed"})
    assert [attributes_of(span).get("error.type") for span in spans_of(upstream)] == ["DataInspectionFailed"] * 2
