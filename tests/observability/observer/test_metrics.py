"""What a record does to the metrics."""

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from observability import names
from observability.observer import metrics, shares
from observability.observer.metrics import RecordMetrics
from observability.observer.quick_histogram import QuickHistogram
from tests.observability.records import record

LABELS = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "dashscope",
    "gen_ai_request_model": "qwen-plus",
    "gen_ai_response_model": "qwen-plus-latest",
    "error_type": "",
    "sluiceway_model_api": "chat",
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def observed(registry) -> RecordMetrics:
    return RecordMetrics(registry)


def test_a_plain_request(registry, observed):
    observed.observe(record())
    value = registry.get_sample_value
    assert value("gen_ai_client_operation_duration_seconds_sum", LABELS) == pytest.approx(2.4995)
    assert value("gen_ai_server_request_duration_seconds_sum", LABELS) == pytest.approx(2.50025)
    assert value("gen_ai_client_token_usage_sum", LABELS | {"gen_ai_token_type": "input"}) == 1000
    assert value("gen_ai_client_token_usage_sum", LABELS | {"gen_ai_token_type": "output"}) == 101
    assert value("sluiceway_overhead_duration_seconds_sum", {"model_api": "chat"}) == pytest.approx(0.0007)
    assert value("sluiceway_attempts_total", {"model_api": "chat", "service": "qwen", "verdict": "done"}) == 1
    assert value("gen_ai_server_time_to_first_token_seconds_count", LABELS) is None


def test_a_stream_has_its_first_token_and_its_pace(registry, observed):
    observed.observe(record({names.SLUICEWAY_TIME_TO_FIRST_TOKEN_MS: 500.0}))
    value = registry.get_sample_value
    assert value("gen_ai_server_time_to_first_token_seconds_sum", LABELS) == 0.5
    # the upstream was done 2.5 s after accept: 2 s for the 100 tokens after the first
    assert value("gen_ai_server_time_per_output_token_seconds_sum", LABELS) == pytest.approx(0.02)


@pytest.mark.parametrize("outcome", ["ok", "upstream_aborted"])
def test_a_stream_has_its_first_chunk_however_it_ended(registry, observed, outcome):
    observed.observe(record({names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.25, names.SLUICEWAY_OUTCOME: outcome}))
    assert registry.get_sample_value("gen_ai_client_operation_time_to_first_chunk_seconds_sum", LABELS) == 0.25


def test_tokens_by_who_used_them(registry, observed):
    cached = {names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 600, names.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: 100}
    observed.observe(record(cached | {names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: 40}))
    observed.observe(record())
    observed.observe(record({names.SLUICEWAY_USAGE_SOURCE: "estimated"}))
    who = {"model_api": "chat", "consumer": "search-team", "service": "qwen"}
    value = registry.get_sample_value
    counts = {"input": 2000, "output": 202, "cache_read": 600, "cache_creation": 100, "reasoning": 40}
    assert {kind: value("sluiceway_tokens_total", {**who, "type": kind}) for kind in counts} == counts


def test_errors_by_whose_fault_they_were(registry, observed):
    for origin, error, count in (("client", "no_route", 1), ("upstream", "upstream_reset", 2)):
        for _ in range(count):
            observed.observe(record({names.ERROR_TYPE: error, names.SLUICEWAY_ERROR_ORIGIN: origin}))
    observed.observe(record())
    where = {"model_api": "chat", "service": "qwen"}
    value = registry.get_sample_value
    assert value("sluiceway_errors_total", {**where, "origin": "client", "error_type": "no_route"}) == 1
    assert value("sluiceway_errors_total", {**where, "origin": "upstream", "error_type": "upstream_reset"}) == 2
    assert (
        sum(
            sample.value
            for metric in registry.collect()
            if metric.name == "sluiceway_errors"
            for sample in metric.samples
            if sample.name.endswith("_total")
        )
        == 3
    )


def test_shares_are_bounded_and_their_sums_stay_exact(monkeypatch):
    monkeypatch.setattr(shares, "SERIES_MAX", 4)
    monkeypatch.setattr(metrics, "ERROR_TYPES_MAX", 1)
    registry = CollectorRegistry()
    observed = RecordMetrics(registry)
    for number in range(6):
        name = {names.SLUICEWAY_CONSUMER: f"team-{number}", names.SLUICEWAY_SERVICE: f"service-{number}"}
        observed.observe(record({**name, names.ERROR_TYPE: f"x-{number}", names.SLUICEWAY_ERROR_ORIGIN: "upstream"}))
    value = registry.get_sample_value
    other = {"model_api": "chat", "consumer": "other", "service": "other"}
    assert value("sluiceway_tokens_total", {**other, "type": "input"}) == 4 * 1000
    where = {"model_api": "chat", "service": "other", "origin": "upstream", "error_type": "other"}
    assert value("sluiceway_errors_total", where) == 2
    where = {"model_api": "chat", "service": "service-3", "origin": "upstream", "error_type": "_OTHER"}
    assert value("sluiceway_errors_total", where) == 1


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({names.SLUICEWAY_USAGE_SOURCE: "partial"}, True),
        ({names.SLUICEWAY_USAGE_SOURCE: "estimated"}, False),
        ({names.SLUICEWAY_USAGE_SOURCE: "none"}, False),
    ],
)
def test_tokens_count_only_where_the_upstream_named_them(registry, observed, fields, counts):
    observed.observe(record(fields))
    sample = registry.get_sample_value("gen_ai_client_token_usage_sum", LABELS | {"gen_ai_token_type": "input"})
    assert (sample is not None) == counts


def test_a_failed_stream_has_no_time_to_first_token(registry, observed):
    observed.observe(record({names.SLUICEWAY_TIME_TO_FIRST_TOKEN_MS: 5.0, names.SLUICEWAY_OUTCOME: "upstream_aborted"}))
    assert registry.get_sample_value("gen_ai_server_time_to_first_token_seconds_count", LABELS) is None


def test_a_request_that_matched_nothing_counts_only_what_it_has(registry, observed):
    fields = {name: None for name in record()["fields"] if name.startswith(("gen_ai.", "sluiceway."))}
    observed.observe(record(fields, client=None, attempts=None))
    assert all(not metric.samples for metric in registry.collect())


def test_a_model_api_without_metrics_counts_nothing(registry, observed):
    observed.observe(record(metrics=False))
    assert all(not metric.samples for metric in registry.collect())


def test_every_attempt_and_image_counts(registry, observed):
    attempt = {"service": "qwen", "verdict": "next_target"}
    observed.observe(record({names.SLUICEWAY_USAGE_IMAGES: 4}, attempts=[attempt, attempt]))
    value = registry.get_sample_value
    assert value("sluiceway_attempts_total", {"model_api": "chat", "service": "qwen", "verdict": "next_target"}) == 2
    assert value("sluiceway_images_total", {"model_api": "chat"}) == 4


def test_cost_is_counted_by_who_caused_it(registry, observed):
    for _ in range(2):
        cost = {names.GEN_AI_USAGE_COST: 0.25, names.SLUICEWAY_USAGE_CURRENCY: "CNY"}
        observed.observe(record(cost | {names.SLUICEWAY_UPSTREAM_MODEL: "qwen-max"}))
    labels = {"model_api": "chat", "consumer": "search-team", "service": "qwen", "model": "qwen-max", "currency": "CNY"}
    assert registry.get_sample_value("sluiceway_cost_total", labels) == 0.5


def test_models_beyond_the_first_200_are_other(registry, observed):
    for number in range(metrics.MODELS_MAX + 50):
        observed.observe(record({names.GEN_AI_REQUEST_MODEL: f"model-{number}", names.GEN_AI_RESPONSE_MODEL: None}))
    value = registry.get_sample_value
    name = "gen_ai_server_request_duration_seconds_count"
    labels = LABELS | {"gen_ai_response_model": ""}
    assert value(name, labels | {"gen_ai_request_model": "model-199"}) == 1
    assert value(name, labels | {"gen_ai_request_model": "model-200"}) is None
    assert value(name, labels | {"gen_ai_request_model": "other"}) == 50


def test_a_successor_knows_the_models_of_its_predecessor(tmp_path):
    for life in range(3):
        registry = CollectorRegistry()
        observed = RecordMetrics(registry, tmp_path / "known")
        for number in range(120):
            observed.observe(record({names.GEN_AI_REQUEST_MODEL: f"{life}-{number}", names.ERROR_TYPE: f"e-{life}"}))
        counts = _counts(registry)
        told_apart = [n for n in range(120) if (f"{life}-{n}", f"e-{life}") in counts]
        assert told_apart == list(range((120, 79, 0)[life]))  # the response's model is one of the 200
        assert counts.get(("other", f"e-{life}"), 0) == 120 - len(told_apart)


def test_a_name_cannot_spoil_the_page(tmp_path):
    for _ in range(2):  # learnt, and read back
        observed = RecordMetrics(registry := CollectorRegistry(), tmp_path / "known")
        observed.observe(record({names.GEN_AI_REQUEST_MODEL: "a\0b\r\u2028", names.ERROR_TYPE: "\x1b[2J通义"}))
        assert set(_counts(registry)) == {("a\ufffdb\ufffd\ufffd", "\ufffd[2J通义")}


def test_the_observers_of_a_host_know_the_same_models(tmp_path):
    registries = [CollectorRegistry() for _ in range(3)]
    observers = [RecordMetrics(registry, tmp_path / "known") for registry in registries]
    for number in range(300):
        for observed in observers[number % 3 :]:
            observed.observe(record({names.GEN_AI_REQUEST_MODEL: f"m-{number}"}))
    observers[0].observe(record({names.GEN_AI_REQUEST_MODEL: "m-1"}))
    known = {model for registry in registries for model, _ in _counts(registry)}
    assert known == {"other", *(f"m-{number}" for number in range(199))}  # and the response's model
    assert _counts(registries[1])["m-1", ""] == 1
    assert _counts(registries[0])["m-1", ""] == 1
    assert len((tmp_path / "known.models").read_bytes().splitlines()) == 200


@pytest.mark.parametrize("content", [b"", b"{\n[]\n5\n\xff\n\n", b'"cut'])
def test_known_names_that_do_not_read_are_passed_over(tmp_path, content):
    (tmp_path / "known.models").write_bytes(content)
    RecordMetrics(CollectorRegistry(), tmp_path / "known").observe(record())
    lines = (tmp_path / "known.models").read_bytes().splitlines()
    assert lines[-2:] == [b'"qwen-plus"', b'"qwen-plus-latest"']


def test_where_names_cannot_be_kept_they_are_known_as_long_as_the_process(tmp_path):
    registry = CollectorRegistry()
    RecordMetrics(registry, tmp_path / "no-folder" / "known").observe(record())
    assert _counts(registry) == {("qwen-plus", ""): 1}


def _counts(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Requests by their model and error; at once, as a look for one sample collects them all."""
    return {
        (sample.labels["gen_ai_request_model"], sample.labels["error_type"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "gen_ai_server_request_duration_seconds_count"
    }


def test_error_types_and_label_sets_are_bounded(registry, observed):
    for number in range(metrics.ERROR_TYPES_MAX + 5):
        observed.observe(record({names.ERROR_TYPE: f"error-{number}"}))
    value = registry.get_sample_value
    name = "gen_ai_server_request_duration_seconds_count"
    assert value(name, LABELS | {"error_type": "_OTHER"}) == 5
    for number in range(200):
        for error in range(20):
            fields = {names.GEN_AI_REQUEST_MODEL: f"m{number}", names.ERROR_TYPE: f"error-{error}"}
            observed.observe(record(fields))
    assert len(observed._series) <= metrics.SERIES_MAX + metrics.ERROR_TYPES_MAX + 2


def test_each_bucket_remembers_the_last_trace_that_was_sampled():
    observed = RecordMetrics(CollectorRegistry())
    observed.keep_exemplars()
    for number, took_ms in enumerate((15.0, 15.5, 90.0, 14.0)):
        sampled = number != 3
        observed.observe(
            record({names.SLUICEWAY_DURATION_MS: took_ms}, sampled=sampled, trace_id=f"{number:032x}", span_id="b" * 16)
        )
    observed.observe(record({names.SLUICEWAY_DURATION_MS: 14.0}, tracing=False))
    seen = [one for one in observed.exemplars() if one.family == "gen_ai_server_request_duration_seconds"]
    found = {one.labels["le"]: (one.value, one.trace.trace_id) for one in seen}
    assert found == {"0.02": (0.0155, f"{1:032x}"), "0.16": (0.09, f"{2:032x}")}
    assert {**LABELS, "le": "0.02"} in [one.labels for one in seen]
    assert seen[0].trace.span_id == "b" * 16
    families = {one.family for one in observed.exemplars()}
    assert {"gen_ai_client_token_usage", "sluiceway_overhead_duration_seconds"} <= families


def test_without_spans_there_are_no_exemplars(observed):
    observed.observe(record())
    assert list(observed.exemplars()) == []


def test_buckets_reach_two_minutes(registry, observed):
    observed.observe(
        record({names.SLUICEWAY_TIME_TO_FIRST_TOKEN_MS: 1.0, names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.001})
    )
    seconds = [metric for metric in registry.collect() if metric.name.endswith("_seconds")]
    assert len(seconds) == 6
    for metric in seconds:
        assert "120.0" in {sample.labels.get("le") for sample in metric.samples}


def test_a_value_is_in_the_bucket_that_the_library_puts_it_in():
    texts = []
    for kind in (Histogram, QuickHistogram):
        histogram = kind("h", "text", registry=(registry := CollectorRegistry()), buckets=names.DURATION_BUCKETS)
        for value in (-1.0, 0.0, 0.005, 0.01, 0.0100001, 81.92, 120.0, 120.1, 1e9, float("inf")):
            (histogram.count if kind is QuickHistogram else histogram.observe)(value)
        lines = generate_latest(registry).decode().splitlines()
        texts.append([line for line in lines if "_created" not in line])
    assert texts[0] == texts[1]
