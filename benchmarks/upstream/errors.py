"""Errors in the shape of each protocol: as an answer, or as the event that breaks a stream off.

`error-form` says how an error answer comes; DashScope has all four, and others have been seen with them too:

=========== ========================================================================================
json        the status, and a JSON document (default)
sse         the status, and ``text/event-stream`` with one error event
inside      status 200, and the JSON document of the error
sse-inside  status 200, and a stream of one error event
=========== ========================================================================================
"""

from __future__ import annotations

from typing import Any

import orjson

from benchmarks.upstream.answers import JSON, SSE, Event, Reply, identity, request_id
from benchmarks.upstream.script import Script

_VLLM = frozenset(("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score"))

# status → (type, code)
_OPENAI = {
    400: ("invalid_request_error", "invalid_parameter_error"),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "access_denied"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("rate_limit_exceeded", "limit_requests"),
    500: ("server_error", "internal_error"),
}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_DASHSCOPE = {
    400: "InvalidParameter",
    401: "InvalidApiKey",
    403: "AccessDenied",
    404: "ModelNotFound",
    429: "Throttling.RateQuota",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}
_VLLM_TYPES = {400: "BadRequestError", 401: "Unauthorized", 404: "NotFoundError", 429: "RateLimitError"}


def protocol_of(path: str) -> str:
    """Whose errors are sent at a path (as `Asked` has it)."""
    if path.startswith(("/api/v1/", "/compatible-api/")):
        return "dashscope"
    if path.startswith("/v1/messages"):
        return "anthropic"
    return "vllm" if path in _VLLM else "openai"


def document_of(protocol: str, status: int, code: str, message: str, digest: bytes) -> dict[str, Any]:
    """The JSON of an error; `code` empty: the usual one for the status."""
    match protocol:
        case "dashscope":
            code = code or _DASHSCOPE.get(status, "InternalError")
            return {"code": code, "message": message, "request_id": request_id(digest)}
        case "anthropic":
            kind = code or _ANTHROPIC.get(status, "api_error")
            return {"type": "error", "error": {"type": kind, "message": message}, "request_id": _anthropic_id(digest)}
        case "vllm":
            kind = code or _VLLM_TYPES.get(status, "InternalServerError")
            return {"error": {"message": message, "type": kind, "param": None, "code": status}}
        case _:
            kind, usual = _OPENAI.get(status, ("server_error", f"http_{status}"))
            fields = {"message": message, "type": kind, "param": None, "code": code or usual}
            return {"error": fields, "request_id": identity(digest)}


def event_of(protocol: str, status: int, document: dict[str, Any]) -> Event:
    """The document as an event of a stream."""
    match protocol:
        case "dashscope":
            before = f"id:999\nevent:error\n:HTTP_STATUS/{status}\ndata:"
        case "anthropic":
            before = "event: error\ndata: "
        case _:
            before = "data: "
    return Event([before.encode() + orjson.dumps(document) + b"\n\n"])


def error(protocol: str, status: int, code: str, message: str, digest: bytes, form: str = "json") -> Reply:
    """An error answer."""
    document = document_of(protocol, status, code, message, digest)
    names = {"dashscope": request_id(digest), "anthropic": _anthropic_id(digest)}
    name = names.get(protocol, identity(digest))
    header = "request-id" if protocol == "anthropic" else "x-request-id"
    shown = 200 if form.endswith("inside") else status
    if form.startswith("sse"):
        kind = f"{SSE};charset=UTF-8" if protocol == "dashscope" else SSE
        return Reply(kind, name, events=[event_of(protocol, status, document)], status=shown, id_header=header)
    return Reply(JSON, name, [orjson.dumps(document)], status=shown, id_header=header)


def broken(protocol: str, script: Script, digest: bytes) -> Event:
    """The event that breaks a stream off."""
    document = document_of(protocol, 500, script.error_code, "The model failed", digest)
    if protocol != "dashscope":
        document.pop("request_id", None)
    return event_of(protocol, 500, document)


def _anthropic_id(digest: bytes) -> str:
    return "req_" + identity(digest)[:24]
