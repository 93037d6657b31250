"""The gateway's own errors: one kind each, with the status, outcome and blame that the contract gives it.

Whoever finds that a request cannot go on raises a `GatewayError` with a kind out of `KINDS`; one place (the handler)
turns it into an answer. The body has the shape of the caller's protocol, so that the official SDKs raise what they
raise for their own provider; the kind itself goes into the header `x-sluiceway-error`. A message says what is wrong
and, where the gateway knows it, what would be right; it never repeats a credential or a body.

Shapes, types and codes: OpenAI, Anthropic and DashScope error envelopes as their SDKs read them.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson


@dataclass(frozen=True, slots=True)
class Kind:
    """What follows from a kind of error, whatever its message."""

    status: int
    """HTTP status of the answer."""
    outcome: str
    """`sluiceway.outcome` of the record: rejected, upstream_error, upstream_aborted or gateway_error."""
    origin: str
    """`sluiceway.error.origin`: client, gateway or upstream."""
    retry_after_s: int | None = None
    """`retry-after` where the raiser gives none. One second: overload passes in less, and SDKs back off from there."""


SHOWN_CHARACTERS: Final = 100
"""Of a text of the caller's in a message."""

KINDS: Final[dict[str, Kind]] = {
    "bad_request": Kind(400, "rejected", "client"),
    "head_too_large": Kind(431, "rejected", "client"),
    "client_timeout": Kind(408, "rejected", "client"),
    "no_route": Kind(404, "rejected", "client"),
    "method_not_allowed": Kind(405, "rejected", "client"),
    "unauthenticated": Kind(401, "rejected", "client"),
    "forbidden": Kind(403, "rejected", "client"),
    "model_missing": Kind(400, "rejected", "client"),
    "model_unknown": Kind(404, "rejected", "client"),
    "body_too_large": Kind(413, "rejected", "client"),
    "rate_limited": Kind(429, "rejected", "client", retry_after_s=1),
    "overloaded": Kind(503, "rejected", "gateway", retry_after_s=1),
    "draining": Kind(503, "rejected", "gateway", retry_after_s=1),
    "no_service_available": Kind(503, "upstream_error", "upstream"),
    "connect_failed": Kind(502, "upstream_error", "upstream"),
    "upstream_protocol": Kind(502, "upstream_error", "upstream"),
    "first_packet_timeout": Kind(504, "upstream_error", "upstream"),
    "first_token_timeout": Kind(504, "upstream_error", "upstream"),
    "upstream_timeout": Kind(504, "upstream_error", "upstream"),
    "internal": Kind(500, "gateway_error", "gateway"),
}

CUTS: Final[dict[str, Kind]] = {
    "upstream_reset": Kind(502, "upstream_aborted", "upstream"),
    "upstream_truncated": Kind(502, "upstream_aborted", "upstream"),
    "upstream_timeout": Kind(504, "upstream_aborted", "upstream"),
}
"""Ends of a response that had begun. Their status is only sent while the head is still held back: after the commit
point the client sees a cut connection, and in a stream of events one last event that says why (`error_event`)."""


class GatewayError(Exception):
    """The exchange ends here with an answer of the gateway's own.

    `kind` is a name out of `KINDS`, anything else is a KeyError. `message` is shown to the caller. `allow` names the
    methods that the path does have (method_not_allowed), for the `allow` header. `body` is the answer's JSON where that
    is not the protocol's usual one.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        retry_after_s: int | None = None,
        allow: tuple[str, ...] | None = None,
        body: bytes | None = None,
    ) -> None:
        super().__init__(kind, message)
        facts = self._facts_of(kind)
        self.kind = kind
        self.message = message
        self.status = facts.status
        self.outcome = facts.outcome
        self.origin = facts.origin
        self.retry_after_s = facts.retry_after_s if retry_after_s is None else retry_after_s
        self.allow = allow
        self.body = body

    def _facts_of(self, kind: str) -> Kind:
        return KINDS[kind]

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class TargetUnusableError(GatewayError):
    """The gateway cannot use this one target for this request. Nothing is wrong with the target, and another may do."""


class UpstreamError(GatewayError):
    """The upstream, or the way to it, failed.

    Before the response: connect_failed, upstream_protocol, upstream_timeout. Once it has begun: upstream_reset,
    upstream_truncated, upstream_timeout. `response_started` is whether any byte of the response was seen: if not, a
    request on a reused connection may be sent again.
    """

    def __init__(self, kind: str, message: str, *, response_started: bool = False) -> None:
        self.response_started = response_started
        super().__init__(kind, message)

    def _facts_of(self, kind: str) -> Kind:
        if kind in CUTS and (self.response_started or kind not in KINDS):
            return CUTS[kind]
        return KINDS[kind]


# status → (type, code). A code of None is the gateway's kind: OpenAI has no code of its own there, and SDK users see
# `error.code` first.
_OPENAI: Final[dict[int, tuple[str, str | None]]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("invalid_request_error", None),
    405: ("invalid_request_error", None),
    408: ("invalid_request_error", None),
    413: ("invalid_request_error", None),
    429: ("rate_limit_exceeded", "rate_limit_exceeded"),
    431: ("invalid_request_error", None),
    500: ("server_error", None),
    502: ("server_error", None),
    503: ("server_error", None),
    504: ("server_error", None),
}

_ANTHROPIC: Final[dict[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}

_DASHSCOPE: Final[dict[int, str]] = {
    400: "InvalidParameter",
    401: "InvalidApiKey",
    403: "AccessDenied",
    404: "NotFound",  # of a path; a model that is not there is ModelNotFound
    405: "InvalidParameter",
    408: "InvalidParameter",
    413: "InvalidParameter",
    429: "Throttling.RateQuota",
    431: "InvalidParameter",
    500: "InternalError",
    502: "InternalError",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


def openai_type(status: int) -> str:
    """The `type` of an OpenAI error with a status."""
    known = _OPENAI.get(status)
    if known is not None:
        return known[0]
    return "invalid_request_error" if status < 500 else "server_error"


def shown(text: str) -> str:
    """What a caller wrote, as a message may repeat it: in quotes, printable, and not all of it."""
    return ascii(text[:SHOWN_CHARACTERS])


def _status(kind: str) -> int:
    return (KINDS[kind] if kind in KINDS else CUTS[kind]).status


def error_body(kind: str, message: str, protocol: str, request_id: str) -> bytes:
    """The body of the gateway's own answer: JSON (`application/json`), in the shape of `protocol`.

    Protocols without a shape of their own (vllm) speak OpenAI's. Raises KeyError for an unknown kind.
    """
    status = _status(kind)
    body: dict[str, Any]
    if protocol == "anthropic":
        body = {"type": "error", "error": {"type": _ANTHROPIC[status], "message": message}, "request_id": request_id}
    elif protocol == "dashscope":
        code = "ModelNotFound" if kind == "model_unknown" else _DASHSCOPE[status]
        body = {"code": code, "message": message, "request_id": request_id}
    else:
        error_type, error_code = _OPENAI[status]
        if kind == "model_unknown":
            error_code = "model_not_found"
        body = {"error": {"message": message, "type": error_type, "param": None, "code": error_code or kind}}
    return orjson.dumps(body)


def error_event(kind: str, message: str, protocol: str, operation: str, request_id: str, number: int) -> bytes:
    """The same inside a stream that has begun: one server-sent event, which the SDKs of `protocol` raise.

    `number`: of the events before it. OpenAI's Responses have typed events, which count from 0, and an error there is
    one of them: their SDK hands it over and raises what follows from the cut. DashScope's stand without spaces, which
    its SDK takes for no error, and begin with 1; that SDK reads the status from a line of its own and says 400, the
    caller's fault, where there is none.
    """
    if protocol == "openai" and operation == "responses":
        error = orjson.loads(error_body(kind, message, protocol, request_id))["error"]
        event = {"type": "error", "code": error["code"], "message": message, "param": None, "sequence_number": number}
        return b"event: error\ndata: %b\n\n" % orjson.dumps(event)
    body = error_body(kind, message, protocol, request_id)
    if protocol == "anthropic":
        return b"event: error\ndata: %b\n\n" % body
    if protocol == "dashscope":
        status = _status(kind)
        return b"id:%d\nevent:error\n:HTTP_STATUS/%d\nstatus:%d\ndata:%b\n\n" % (number + 1, status, status, body)
    return b"data: %b\n\n" % body


def protocol_of_path(path: str) -> str:
    """The protocol of whoever asked for a path that no route matched: that of the error's shape, a guess by habit."""
    path = path.rstrip("/")
    if path.endswith(("/messages", "/messages/count_tokens")):
        return "anthropic"
    if "/api/v1/" in f"{path}/":  # behind a base path too, mistyped as it may be
        return "dashscope"
    return "openai"


def not_aliyun() -> GatewayError:
    """DashScope's image call at the platforms' address, and the service that was picked is none of DashScope's: what
    those platforms answer to the letter."""
    message = "only aliyun channel is supported on /aliyun/v1/images/generations"
    error = {"message": message, "type": "invalid_request_error", "code": "invalid_request"}
    return GatewayError("bad_request", message, body=orjson.dumps({"error": error}))


def forget_frames(error: BaseException | None) -> None:
    """Once it is dealt with: a frame on its way may hold who holds the error, and then only a full collection frees the
    request. 2,000 such ends made one of 200 ms."""
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        error = error.__context__
