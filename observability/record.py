"""What is known of one finished exchange, under the names of the contract: what an observer works with.

A worker packs what it saw of a request (`observability.facts`), an observer names it (`observer.naming`): that is a
record, and it becomes one JSON line, one or two spans and a few metric observations.

`fields` holds exactly the names of the contract (`observability.names`); what is unknown is absent, never null. The
rest of the record is what spans need beside them.
"""

from typing import Any, NotRequired, TypedDict


class ClientSpan(TypedDict):
    """The CLIENT span: the time from the first attempt's start until the response was whole."""

    span_id: str
    """16 hex digits."""
    start_ns: int
    """Unix time."""
    end_ns: int
    address: str
    """server.address of the service."""
    port: int
    status: NotRequired[int]
    """What the upstream answered, if it answered."""


class Attempt(TypedDict):
    """One try at one target. Spans of their own only where there was more than one."""

    span_id: str
    """Empty where there was only one."""
    start_ns: int
    end_ns: int
    service: str
    address: str
    port: int
    status: NotRequired[int]
    verdict: str
    error: NotRequired[str]
    model: NotRequired[str]
    """What the target was asked for."""


class Record(TypedDict):
    """One finished exchange."""

    fields: dict[str, Any]
    """Contract name → value: str, int, float, bool or list of str."""
    start_ns: int
    """Unix time of accept."""
    end_ns: int
    trace_id: str
    """32 hex digits."""
    span_id: str
    """The SERVER span, 16 hex digits."""
    parent_span_id: NotRequired[str]
    """The caller's span, where the request carried a valid traceparent."""
    tracestate: NotRequired[str]
    sampled: bool
    """The sampler's decision, made once in the worker."""
    tracing: bool
    """`monitoring.tracing` of the Model API; true where none matched."""
    logging: bool
    metrics: bool
    compat: NotRequired[list[str]]
    """Whose attributes spans have beside the conventions' (`observer.compat`)."""
    labels: NotRequired[dict[str, str]]
    """Labels of the Model API and the consumer: span attributes `sluiceway.label.<name>`, and in the log line."""
    client: NotRequired[ClientSpan]
    attempts: NotRequired[list[Attempt]]
