"""OTEL_SEMCONV_STABILITY_OPT_IN: the names of the latest GenAI conventions in spans, lines and metrics."""

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry

from observability import names
from observability.observer.logs import LineEncoder
from observability.observer.metrics import RecordMetrics
from observability.observer.otlp import Envelope
from observability.observer.spans import SpanEncoder
from tests.fakes.otlp_sink import attributes_of
from tests.observability.observer.test_metrics import LABELS
from tests.observability.records import record

OLD, NEW = "gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_write.input_tokens"
FIRST_CHUNK = {names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.25}
CACHED = record(
    {
        OLD: 7,
        names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 5,
        names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: 3,
        **FIRST_CHUNK,
    }
)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("gen_ai_latest_experimental", True),
        ("http/dup, GEN_AI_LATEST_EXPERIMENTAL", True),
        ("http", False),
        ("gen_ai_latest", False),
        ("", False),
    ],
)
def test_who_asks(value, wanted):
    assert names.wants_latest({"OTEL_SEMCONV_STABILITY_OPT_IN": value}) is wanted
    assert not names.wants_latest({})


@pytest.mark.parametrize(("latest", "there", "not_there"), [(False, OLD, NEW), (True, NEW, OLD)])
def test_spans_and_line_have_one_of_the_two_names(latest, there, not_there):
    line = orjson.loads(LineEncoder(latest=latest).encode(CACHED))
    data = Envelope({}, "s", "1").request(SpanEncoder(latest=latest).encode(CACHED))
    _, client = ExportTraceServiceRequest.FromString(data).resource_spans[0].scope_spans[0].spans
    for said in (line, attributes_of(client)):
        assert said[there] == 7
        assert not_there not in said


def test_metrics_have_the_latest_instruments_and_none_of_the_others():
    registry = CollectorRegistry()
    observed = RecordMetrics(registry, latest=True)
    observed.observe(CACHED)
    value = registry.get_sample_value
    assert value("gen_ai_client_inference_duration_seconds_count", LABELS) == 1
    assert value("gen_ai_client_operation_duration_seconds_count", LABELS) is None
    assert value("gen_ai_client_inference_time_to_first_chunk_seconds_sum", LABELS) == 0.25
    assert value("gen_ai_client_operation_time_to_first_chunk_seconds_count", LABELS) is None
    assert value("gen_ai_client_inference_operation_input_tokens_sum", LABELS) == 1000
    assert value("gen_ai_client_inference_operation_output_tokens_sum", LABELS) == 101
    unsplit = LABELS | {"gen_ai_token_modality": "unknown"}
    counts = {"input": 1000, "output": 101, "cache_read_input": 5, "cache_write_input": 7, "reasoning_output": 3}
    for kind, count in counts.items():
        assert value(f"gen_ai_client_inference_usage_{kind}_tokens_total", unsplit) == count
    assert not [family for family in registry.collect() if family.name.startswith("gen_ai_client_token_usage")]
    assert value("gen_ai_server_request_duration_seconds_count", LABELS) == 1


@pytest.mark.parametrize("metric", ["duration", "time_to_first_chunk"])
def test_what_is_no_inference_keeps_its_names(metric):
    registry = CollectorRegistry()
    RecordMetrics(registry, latest=True).observe(record({names.GEN_AI_OPERATION_NAME: "embeddings", **FIRST_CHUNK}))
    labels = LABELS | {"gen_ai_operation_name": "embeddings"}
    assert registry.get_sample_value(f"gen_ai_client_operation_{metric}_seconds_count", labels) == 1
    assert registry.get_sample_value(f"gen_ai_client_inference_{metric}_seconds_count", labels) is None
