"""What is read of OTEL_* variables, and what is said about them: never a secret."""

import pytest

from observability.environment import Variables, with_instance, without_secrets
from observability.metrics_settings import metrics_of
from observability.observer.tracing import tracing_of

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}


@pytest.mark.parametrize(
    ("attributes", "made"),
    [
        ("", "service.instance.id=one"),
        ("a=b, c=d", "a=b, c=d,service.instance.id=one"),
        (" service.instance.id =mine", " service.instance.id =mine"),
        ("service.instance.idea=x", "service.instance.idea=x,service.instance.id=one"),
    ],
)
def test_a_host_has_one_instance_id(attributes, made):
    assert with_instance(attributes, "one") == made


@pytest.mark.parametrize(
    "said",
    [
        "Max retries exceeded with url: /adapt_secret-one@x/api/otlp/v1/traces (Caused by refused)",
        "for http://user:secret-one@c:4318/v1/traces it was 400",
        "endpoint 'https://c/secret-one/v1/traces'",
        "https://c?key=secret-one",
        "metadata was invalid: [('authorization', 'Bearer secret-two\\n')]",
        "Invalid return character(s) in header value: 'Bearer secret-two\\n'",
        "x-key=secret%2Dthree or secret-three",
    ],
)
def test_what_exporters_say_is_told_without_secrets(monkeypatch, said):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret-two%0A,x-key=secret%2Dthree")
    told = without_secrets(said)
    assert "secret" not in told
    assert "…" in told or "user" in said


def test_the_rest_of_what_they_say_stays(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b,=,,c")
    said = "Failed to export spans batch code: 400, reason: Bad Request at http://c:4318"
    assert without_secrets(said) == said


@pytest.mark.parametrize("endpoint", ["c.test/adapt_secret@1/api", "u:secret@c.test", "u:p/secret@c.test", "secret"])
def test_an_endpoint_that_is_no_url_shows_its_host_at_most(endpoint):
    (complaint,) = tracing_of({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}).complaints
    assert "secret" not in complaint.replace("http://secret would", "")


@pytest.mark.parametrize(("timeout", "usable"), [("10", True), ("0.5", True), ("600", True), ("10000", False)])
def test_a_timeout_in_milliseconds_is_none(timeout, usable):
    tracing = tracing_of(ENDPOINT | {"OTEL_EXPORTER_OTLP_TIMEOUT": timeout})
    assert tracing.unusable == (() if usable else ("OTEL_EXPORTER_OTLP_TIMEOUT",))
    assert len(tracing.complaints) == (not usable)


def test_empty_variables_are_taken_out_of_the_exporters_way():
    environ = ENDPOINT | {"OTEL_EXPORTER_OTLP_TIMEOUT": "", "OTEL_EXPORTER_OTLP_COMPRESSION": " ", "HOME": ""}
    unusable = {"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_COMPRESSION"}
    assert set(tracing_of(environ).unusable) == set(metrics_of(environ).unusable) == unusable
    assert Variables(environ, "TRACES").complaints == []


@pytest.mark.parametrize(
    ("environ", "complaints"),
    [
        ({"OTEL_PROPAGATORS": "tracecontext, baggage"}, 0),
        ({"OTEL_PROPAGATORS": "b3"}, 1),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "2048", "OTEL_BSP_EXPORT_TIMEOUT": "1"}, 2),
        ({"OTEL_METRIC_EXPORT_TIMEOUT": "1"}, 1),
    ],
)
def test_what_changes_nothing_is_said(environ, complaints):
    said = (*tracing_of(ENDPOINT | environ).complaints, *metrics_of(ENDPOINT | environ).complaints)
    assert len(said) == complaints
