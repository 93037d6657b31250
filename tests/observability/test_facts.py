"""The way of a record from a worker to an observer: packed, through JSON, unpacked, named."""

import inspect

import orjson
import pytest

from observability import names
from observability.facts import Facts, pack, unpack
from observability.findings import Findings
from observability.observation import Attempt, Observation
from observability.observer.naming import record_of
from observability.sampling import TraceContext
from observability.scanners import request_scanner, response_scanner

UNSENT = {
    *("model_api", "on_first_output", "recording", "request_keeper", "request_scanner", "scanner", "telemetry", "trace")
}
"""Of an Observation: counted by the worker, or sent as what was found."""


@pytest.fixture
def observation() -> Observation:
    made = Observation("0" * 32, TraceContext("a" * 32, "b" * 16, "k=v", True), "c" * 16, "d" * 16)
    made.accepted_ns, made.accepted_unix_ns = 5_000_000, 1_700_000_000_000_000_000
    made.method, made.status, made.outcome = "POST", 200, names.OUTCOME_OK
    made.route_fields = orjson.Fragment(b'{"http.route":"/v1/chat/completions"}')
    made.request_scanner = request_scanner("openai", "chat.completions", "application/json")
    made.request_scanner.whole(b'{"model":"qwen-plus"}')
    made.scanner = response_scanner("openai", "chat.completions", "application/json", 200)
    made.scanner.feed(b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}')
    made.scanner.end()
    return made


def attempt(start_ns: int, verdict: str) -> Attempt:
    made = Attempt("qwen", "upstream.test", 443, verdict)
    made.start_ns, made.end_ns = start_ns, start_ns + 1_000_000
    return made


def sent(observation: Observation, end_ns: int) -> Facts:
    return unpack(orjson.loads(orjson.dumps(pack(observation, end_ns))))


def test_everything_that_is_observed_is_sent():
    attributes = {name for name in dir(Observation) if inspect.isdatadescriptor(getattr(Observation, name))} - UNSENT
    assert "request_id" in attributes
    assert attributes - {"__class__", "__dict__", "__weakref__"} <= set(Facts._fields)


def test_facts_arrive_under_their_names(observation):
    facts = sent(observation, 9_000_000)
    assert (facts.trace_id, facts.parent_span_id, facts.tracestate) == ("a" * 32, "b" * 16, "k=v")
    assert (facts.end_ns, facts.request_model, facts.request_stream) == (9_000_000, "qwen-plus", False)
    assert isinstance(facts.findings, Findings)
    assert (facts.findings.input_tokens, facts.findings.output_tokens, facts.findings.complete) == (3, 4, True)
    for name in Facts._fields[6:]:
        if name not in {"trace_id", "parent_span_id", "tracestate", "route_fields", "compat"}:
            assert getattr(facts, name) == getattr(observation, name)


def test_a_record_of_one_attempt(observation):
    observation.attempts = [attempt(6_000_000, "done")]
    observation.upstream_status = 200
    record = record_of(sent(observation, 9_000_000))
    start_ns = observation.accepted_unix_ns
    assert (record["start_ns"], record["end_ns"]) == (start_ns, start_ns + 4_000_000)
    assert record["client"] == {
        "span_id": "d" * 16,
        "start_ns": start_ns + 1_000_000,
        "end_ns": start_ns + 4_000_000,
        "address": "upstream.test",
        "port": 443,
        "status": 200,
    }
    assert record["attempts"] == [
        {
            "span_id": "",
            "start_ns": start_ns + 1_000_000,
            "end_ns": start_ns + 2_000_000,
            "service": "qwen",
            "address": "upstream.test",
            "port": 443,
            "verdict": "done",
            "model": "qwen-plus",
        }
    ]
    fields = record["fields"]
    assert fields[names.HTTP_ROUTE] == "/v1/chat/completions"
    assert fields[names.GEN_AI_USAGE_INPUT_TOKENS] == 3
    assert fields[names.SLUICEWAY_USAGE_SOURCE] == "upstream"
    assert fields[names.SLUICEWAY_DURATION_MS] == 4.0


@pytest.mark.parametrize(
    ("said", "method", "original"),
    [
        ("PATCH", "PATCH", None),
        ("FROB" * 20, "_OTHER", ("FROB" * 20)[:32]),
        ("get", "_OTHER", "get"),
        (None, "_OTHER", None),
    ],
)
def test_a_method_that_a_client_makes_up_is_another_one(observation, said, method, original):
    observation.method = said
    fields = record_of(sent(observation, 9_000_000))["fields"]
    assert fields[names.HTTP_REQUEST_METHOD] == method
    assert fields.get(names.HTTP_REQUEST_METHOD_ORIGINAL) == original


def test_a_model_has_no_nul_and_an_end(observation):
    observation.request_scanner = request_scanner("openai", "chat.completions", "application/json")
    observation.request_scanner.whole(b'{"model":"a\\u0000' + b"b" * 300 + b'"}')
    fields = record_of(sent(observation, 9_000_000))["fields"]
    assert fields[names.GEN_AI_REQUEST_MODEL] == fields[names.SLUICEWAY_UPSTREAM_MODEL] == "a\ufffd" + "b" * 254


def test_attempts_have_spans_of_their_own_where_there_are_several(observation):
    observation.attempts = [attempt(6_000_000, "same_target"), attempt(7_000_000, "done")]
    observation.attempts[0].error = "upstream_protocol"
    first, second = record_of(sent(observation, 9_000_000))["attempts"]
    assert (first["verdict"], first["error"]) == ("same_target", "upstream_protocol")
    assert len({first["span_id"], second["span_id"]}) == 2
    assert len(first["span_id"]) == len(second["span_id"]) == 16


def test_a_request_that_was_refused(observation):
    observation.scanner = observation.request_scanner = observation.route_fields = None
    observation.outcome, observation.error_type = names.OUTCOME_REJECTED, "no_route"
    record = record_of(sent(observation, 9_000_000))
    assert "client" not in record
    assert "attempts" not in record
    assert names.SLUICEWAY_USAGE_SOURCE not in record["fields"]
    assert record["fields"][names.ERROR_TYPE] == "no_route"


@pytest.mark.parametrize("packed", [[], [1, 2, 3], {"end_ns": 1}, 5, None])
def test_what_is_no_packed_record_is_refused(packed):
    with pytest.raises((TypeError, ValueError)):
        unpack(packed)
