"""What a worker says of one finished exchange: plain values in a fixed order, one JSON array on the wire.

Names cost the worker time (a dict of 45 contract names took 9 of 150 µs a request) and the socket twice the bytes, so
a worker only packs what it saw, and the observer, which has a core of its own, gives it the contract's names
(`observability.observer.naming`). Worker and observer are always of one installation: the order is no contract.
"""

from operator import attrgetter
from typing import Any, NamedTuple

from observability.findings import Findings
from observability.observation import Observation


class AttemptFacts(NamedTuple):
    """One try at one target, as `observation.Attempt` has it; times are monotonic nanoseconds."""

    start_ns: int
    end_ns: int
    service: str
    address: str
    port: int
    status: int
    """0: no answer."""
    verdict: str
    error: str | None
    model: str | None


class Facts(NamedTuple):
    """One exchange. All but the first six are attributes of `observation.Observation`, under their names there.

    Times without `unix` are monotonic nanoseconds; a status, a clock and a count of 0 say that it did not happen.
    """

    end_ns: int
    request_model: str | None
    request_stream: bool
    findings: Findings | None
    """None: no answer was scanned."""
    attempts: list[AttemptFacts]
    content: list[Any] | None
    """What `content.capture.Recording.close` says; None: nothing is recorded."""

    accepted_ns: int
    accepted_unix_ns: int
    request_id: str
    trace_id: str
    parent_span_id: str | None
    tracestate: str | None
    span_id: str
    client_span_id: str
    sampled: bool
    tracing: bool
    logging: bool
    metrics: bool
    compat: list[str] | None
    price: list[float | str] | None
    """As `observability.prices.Price` has it."""
    method: str | None
    path: str | None
    protocol_version: str | None
    client_address: str | None
    user_agent: str | None
    client_request_id: str | None
    route_fields: dict[str, Any] | None
    labels: dict[str, str] | None
    consumer: str | None
    service: str
    upstream_model: str | None
    fallback: bool
    tape_lost: str | None
    generation: int
    stream: bool
    request_bytes: int
    response_bytes: int
    status: int
    upstream_status: int
    upstream_request_id: str | None
    first_byte_ns: int
    first_event_ns: int
    first_token_ns: int
    upload_ns: int
    connect_ns: int
    upstream_ns: int
    client_blocked_ns: int
    outcome: str | None
    error_type: str | None
    error_origin: str | None
    error_message: str | None


_MADE_HERE = 6
_FINDINGS, _ATTEMPTS = Facts._fields.index("findings"), Facts._fields.index("attempts")
_DEEPER = {
    "trace_id": "trace.trace_id",
    "parent_span_id": "trace.parent_span_id",
    "tracestate": "trace.tracestate",
    "compat": "telemetry.compat",
}
# One call into C for forty attributes: 1 µs.
_of_observation = attrgetter(*(_DEEPER.get(name, name) for name in Facts._fields[_MADE_HERE:]))
_of_findings = attrgetter(*Findings.NAMES)
_of_attempt = attrgetter(*AttemptFacts._fields)


def pack(observation: Observation, end_ns: int, content: list[object] | None = None) -> tuple[Any, ...]:
    """The facts of a settled observation, in the order of `Facts`, as JSON takes them."""
    request, response = observation.request_scanner, observation.scanner
    return (
        end_ns,
        None if request is None else request.model,
        request is not None and request.stream is True,
        None if response is None else _of_findings(response.findings),
        [_of_attempt(attempt) for attempt in observation.attempts],
        content,
        *_of_observation(observation),
    )


def unpack(packed: list[Any]) -> Facts:
    """What `pack` made, after its way through JSON; uses up the list. TypeError or ValueError where it is no such."""
    if packed.__class__ is not list or len(packed) != len(Facts._fields):
        raise TypeError("not the facts of an exchange")
    said = packed[_FINDINGS]
    if said is not None:
        findings = packed[_FINDINGS] = Findings()
        known = vars(findings)
        for name, value in zip(Findings.NAMES, said, strict=True):
            if value is not None:  # a quarter of them; the class says None of the others
                known[name] = value
    packed[_ATTEMPTS] = [AttemptFacts._make(attempt) for attempt in packed[_ATTEMPTS]]
    return Facts._make(packed)
