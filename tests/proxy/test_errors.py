"""The gateway's own errors: what the contract says of each kind, and bodies as the SDKs of each protocol read them."""

import json

import pytest

from proxy.errors import CUTS, KINDS, GatewayError, Kind, UpstreamError, error_body, protocol_of_path

CONTRACT = [
    ("bad_request", 400, "rejected", "client"),
    ("head_too_large", 431, "rejected", "client"),
    ("client_timeout", 408, "rejected", "client"),
    ("no_route", 404, "rejected", "client"),
    ("method_not_allowed", 405, "rejected", "client"),
    ("unauthenticated", 401, "rejected", "client"),
    ("forbidden", 403, "rejected", "client"),
    ("model_missing", 400, "rejected", "client"),
    ("model_unknown", 404, "rejected", "client"),
    ("body_too_large", 413, "rejected", "client"),
    ("rate_limited", 429, "rejected", "client"),
    ("overloaded", 503, "rejected", "gateway"),
    ("draining", 503, "rejected", "gateway"),
    ("no_service_available", 503, "upstream_error", "upstream"),
    ("connect_failed", 502, "upstream_error", "upstream"),
    ("upstream_protocol", 502, "upstream_error", "upstream"),
    ("first_packet_timeout", 504, "upstream_error", "upstream"),
    ("first_token_timeout", 504, "upstream_error", "upstream"),
    ("upstream_timeout", 504, "upstream_error", "upstream"),
    ("internal", 500, "gateway_error", "gateway"),
]


def test_the_table_is_the_contracts() -> None:
    assert [(name, kind.status, kind.outcome, kind.origin) for name, kind in KINDS.items()] == CONTRACT


def test_an_error_carries_what_follows_from_its_kind() -> None:
    error = GatewayError("method_not_allowed", "use POST", allow=("POST",))
    assert (error.kind, error.message, error.status, error.outcome, error.origin) == (
        "method_not_allowed",
        "use POST",
        405,
        "rejected",
        "client",
    )
    assert error.allow == ("POST",)
    assert error.retry_after_s is None
    assert str(error) == "method_not_allowed: use POST"


def test_an_unknown_kind_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        GatewayError("teapot", "")


@pytest.mark.parametrize("kind", ["rate_limited", "overloaded", "draining"])
def test_where_the_contract_promises_retry_after_there_is_one(kind: str) -> None:
    assert GatewayError(kind, "").retry_after_s == 1
    assert GatewayError(kind, "", retry_after_s=7).retry_after_s == 7
    assert GatewayError(kind, "", retry_after_s=0).retry_after_s == 0


@pytest.mark.parametrize(
    ("kind", "response_started", "expected"),
    [
        ("connect_failed", False, KINDS["connect_failed"]),
        ("upstream_protocol", False, KINDS["upstream_protocol"]),
        ("upstream_protocol", True, KINDS["upstream_protocol"]),
        ("upstream_timeout", False, KINDS["upstream_timeout"]),
        ("upstream_timeout", True, CUTS["upstream_timeout"]),
        ("upstream_reset", True, CUTS["upstream_reset"]),
        ("upstream_truncated", True, CUTS["upstream_truncated"]),
    ],
)
def test_an_upstream_error_knows_whether_the_response_had_begun(
    kind: str, response_started: bool, expected: Kind
) -> None:
    error = UpstreamError(kind, "gone", response_started=response_started)
    assert error.response_started is response_started
    assert (error.status, error.outcome, error.origin) == (expected.status, expected.outcome, "upstream")


# kind → OpenAI type and code, Anthropic type, DashScope code
BODIES = [
    ("bad_request", "invalid_request_error", "bad_request", "invalid_request_error", "InvalidParameter"),
    ("unauthenticated", "invalid_request_error", "invalid_api_key", "authentication_error", "InvalidApiKey"),
    ("forbidden", "permission_error", "forbidden", "permission_error", "AccessDenied"),
    ("no_route", "invalid_request_error", "no_route", "not_found_error", "NotFound"),
    ("model_unknown", "invalid_request_error", "model_not_found", "not_found_error", "ModelNotFound"),
    ("body_too_large", "invalid_request_error", "body_too_large", "request_too_large", "InvalidParameter"),
    ("rate_limited", "rate_limit_exceeded", "rate_limit_exceeded", "rate_limit_error", "Throttling.RateQuota"),
    ("internal", "server_error", "internal", "api_error", "InternalError"),
    ("connect_failed", "server_error", "connect_failed", "api_error", "InternalError"),
    ("overloaded", "server_error", "overloaded", "overloaded_error", "ServiceUnavailable"),
    ("upstream_timeout", "server_error", "upstream_timeout", "timeout_error", "GatewayTimeout"),
]


@pytest.mark.parametrize(("kind", "openai_type", "openai_code", "anthropic_type", "dashscope_code"), BODIES)
def test_bodies(kind: str, openai_type: str, openai_code: str, anthropic_type: str, dashscope_code: str) -> None:
    assert json.loads(error_body(kind, "why", "openai", "r1")) == {
        "error": {"message": "why", "type": openai_type, "param": None, "code": openai_code}
    }
    assert json.loads(error_body(kind, "why", "anthropic", "r1")) == {
        "type": "error",
        "error": {"type": anthropic_type, "message": "why"},
        "request_id": "r1",
    }
    assert json.loads(error_body(kind, "why", "dashscope", "r1")) == {
        "code": dashscope_code,
        "message": "why",
        "request_id": "r1",
    }


@pytest.mark.parametrize("kind", [*KINDS, *CUTS])
@pytest.mark.parametrize("protocol", ["openai", "anthropic", "dashscope", "vllm"])
def test_every_kind_has_a_body_in_every_protocol(kind: str, protocol: str) -> None:
    assert b"why" in error_body(kind, "why", protocol, "r1")


@pytest.mark.parametrize(
    ("path", "protocol"),
    [
        ("/v1/messages", "anthropic"),
        ("/team/v1/messages/", "anthropic"),
        ("/api/v1/services/aigc/text-generation/generation", "dashscope"),
        ("/api/v1/tasks/1", "dashscope"),
        ("/api/v1", "dashscope"),
        ("/api/v10/x", "openai"),
        ("/v1/chat/completions", "openai"),
        ("/messages-of-the-day", "openai"),
        ("/", "openai"),
        ("*", "openai"),
    ],
)
def test_the_protocol_of_a_path_that_no_route_has(path: str, protocol: str) -> None:
    assert protocol_of_path(path) == protocol
