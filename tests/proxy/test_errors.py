"""The gateway's own errors: what the contract says of each kind, and bodies as the SDKs of each protocol read them."""

import json
from typing import Any

import pytest

from proxy.errors import (
    CUTS,
    KINDS,
    GatewayError,
    Kind,
    UpstreamError,
    error_body,
    error_event,
    protocol_of_path,
)

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


INVALID = "invalid_request_error"
# kind → OpenAI type and code, Anthropic type, DashScope code
BODIES = {
    "bad_request": (INVALID, "bad_request", INVALID, "InvalidParameter"),
    "head_too_large": (INVALID, "head_too_large", INVALID, "InvalidParameter"),
    "client_timeout": (INVALID, "client_timeout", INVALID, "InvalidParameter"),
    "no_route": (INVALID, "no_route", "not_found_error", "NotFound"),
    "method_not_allowed": (INVALID, "method_not_allowed", INVALID, "InvalidParameter"),
    "unauthenticated": (INVALID, "invalid_api_key", "authentication_error", "InvalidApiKey"),
    "forbidden": ("permission_error", "forbidden", "permission_error", "AccessDenied"),
    "model_missing": (INVALID, "model_missing", INVALID, "InvalidParameter"),
    "model_unknown": (INVALID, "model_not_found", "not_found_error", "ModelNotFound"),
    "body_too_large": (INVALID, "body_too_large", "request_too_large", "InvalidParameter"),
    "rate_limited": ("rate_limit_exceeded", "rate_limit_exceeded", "rate_limit_error", "Throttling.RateQuota"),
    "overloaded": ("server_error", "overloaded", "overloaded_error", "ServiceUnavailable"),
    "draining": ("server_error", "draining", "overloaded_error", "ServiceUnavailable"),
    "no_service_available": ("server_error", "no_service_available", "overloaded_error", "ServiceUnavailable"),
    "connect_failed": ("server_error", "connect_failed", "api_error", "InternalError"),
    "upstream_protocol": ("server_error", "upstream_protocol", "api_error", "InternalError"),
    "first_packet_timeout": ("server_error", "first_packet_timeout", "timeout_error", "GatewayTimeout"),
    "first_token_timeout": ("server_error", "first_token_timeout", "timeout_error", "GatewayTimeout"),
    "upstream_timeout": ("server_error", "upstream_timeout", "timeout_error", "GatewayTimeout"),
    "internal": ("server_error", "internal", "api_error", "InternalError"),
    "upstream_reset": ("server_error", "upstream_reset", "api_error", "InternalError"),
    "upstream_truncated": ("server_error", "upstream_truncated", "api_error", "InternalError"),
}


def test_the_table_of_bodies_has_every_kind() -> None:
    assert set(BODIES) == {*KINDS, *CUTS}


@pytest.mark.parametrize("kind", BODIES)
def test_bodies(kind: str) -> None:
    openai_type, openai_code, anthropic_type, dashscope_code = BODIES[kind]
    openai = {"error": {"message": "why", "type": openai_type, "param": None, "code": openai_code}}
    assert json.loads(error_body(kind, "why", "openai", "r1")) == openai
    assert json.loads(error_body(kind, "why", "vllm", "r1")) == openai
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


def event_of(kind: str, protocol: str, operation: str = "chat.completions") -> tuple[list[bytes], Any]:
    """The lines of an error event before its data, and these."""
    lines, _, rest = error_event(kind, "why\nof it", protocol, operation, "r1", 3).partition(b"data:")
    data, blank, after = rest.partition(b"\n\n")
    assert (blank, after) == (b"\n\n", b"")
    assert data.startswith(b"{") == (protocol == "dashscope")  # else there is a space, as the protocol writes it
    return lines.splitlines(), json.loads(data)


@pytest.mark.parametrize("kind", BODIES)
def test_events(kind: str) -> None:
    for protocol in ("openai", "vllm", "anthropic", "dashscope"):
        body = json.loads(error_body(kind, "why\nof it", protocol, "r1"))
        status = (KINDS[kind] if kind in KINDS else CUTS[kind]).status
        lines = {
            "anthropic": [b"event: error"],
            "dashscope": [b"id:4", b"event:error", b":HTTP_STATUS/%d" % status, b"status:%d" % status],
        }
        assert event_of(kind, protocol) == (lines.get(protocol, []), body)
    typed = {"type": "error", "code": BODIES[kind][1], "message": "why\nof it", "param": None, "sequence_number": 3}
    assert event_of(kind, "openai", "responses") == ([b"event: error"], typed)


@pytest.mark.parametrize(
    ("path", "protocol"),
    [
        ("/v1/messages", "anthropic"),
        ("/team/v1/messages/", "anthropic"),
        ("/api/v1/services/aigc/text-generation/generation", "dashscope"),
        ("/api/v1/tasks/1", "dashscope"),
        ("/api/v1", "dashscope"),
        ("/team/api/v1/tasks/1", "dashscope"),
        ("/team/v1/messages/count_tokens", "anthropic"),
        ("/api/v10/x", "openai"),
        ("/v1/chat/completions", "openai"),
        ("/messages-of-the-day", "openai"),
        ("/", "openai"),
        ("*", "openai"),
    ],
)
def test_the_protocol_of_a_path_that_no_route_has(path: str, protocol: str) -> None:
    assert protocol_of_path(path) == protocol
