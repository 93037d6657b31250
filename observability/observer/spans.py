"""A record's spans: SERVER, CLIENT under it, and one CLIENT for each attempt where there was more than one.

    SERVER  {method} {http.route}                 accept → the answer is out; continues the caller's trace
      CLIENT  {gen_ai.operation.name} {model}     first attempt → the response is whole
        CLIENT  {method}                          each attempt, if there were several

Which field goes on which span is `observability.names`' to say. Status: SERVER is an error only where a 5xx went out
or the answer was spoilt by the gateway or the upstream; a 4xx is the caller's, and a caller that leaves is no error.
CLIENT is an error whenever the upstream failed.
"""

from typing import Any, NamedTuple

from observability import names
from observability.observer.compat import compatible, compatible_attempt
from observability.observer.openinference import NUMBERED
from observability.observer.otlp import (
    KIND_CLIENT,
    KIND_SERVER,
    Attribute,
    key_value,
    span,
    span_context,
    span_name,
    span_tracestate,
)
from observability.record import Attempt, ClientSpan, Record

_UPSTREAM_FAILED = frozenset({names.OUTCOME_UPSTREAM_ERROR, names.OUTCOME_UPSTREAM_ABORTED})

FIELDS_KNOWN_MAX = 4096
"""Names of fields and labels remembered. The contract has about 60, labels come from the configuration."""

PLANS_MAX = 1024
"""Orders of fields remembered. They come from a few places of `observer.naming`: what a request had and its answer said
makes some hundreds."""

SPAN_NAMES_MAX = 2048
"""Methods x routes, operations x models; a model may be anything that a client writes."""


class _Field:
    """A name that occurs in records: its encoder and the spans it goes on."""

    __slots__ = ("attribute", "on_client", "on_server")

    def __init__(self, name: str, length_max: int | None, *, latest: bool) -> None:
        self.attribute = Attribute(names.LATEST.get(name, name) if latest else name, length_max)
        # The status code of the CLIENT span is the upstream's, and error.type is there only if the upstream failed.
        self.on_client = names.on_client(name) and name != names.ERROR_TYPE
        self.on_server = names.on_server(name)


_Plan = list[tuple[Attribute, bool, bool]]
"""For each field of a record in its order: its encoder; is it on SERVER, is it on CLIENT."""


class _Trace(NamedTuple):
    """What the spans of a record have in common."""

    trace_id: bytes
    tracestate: bytes
    fields: dict[str, Any]
    on_attempts: bytes
    """Attributes that each attempt has for a single backend."""


class SpanEncoder:
    """Makes the encoded spans of records.

    `length_max`: OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, None for no limit. `latest`: with the latest conventions' names.
    """

    def __init__(self, length_max: int | None = None, *, latest: bool = False) -> None:
        self.length_max = length_max
        """Of an attribute's text; whoever makes a text that must not be cut blindly keeps to it."""
        self._latest = latest
        self._fields: dict[str, _Field] = {}
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._named: dict[tuple[str, int], bytes] = {}

    def encode(self, record: Record) -> list[bytes]:
        """The spans of one record, each a field of ScopeSpans; empty where the record is not to be traced."""
        if not (record["sampled"] and record["tracing"]):
            return []
        fields = record["fields"]
        server, client_attributes = self._attributes(fields)
        for label, value in record.get("labels", {}).items():
            server.append(self._field(names.SLUICEWAY_LABEL_PREFIX + label).encode(value))
        compat = record.get("compat")
        on_attempts = b""
        if compat:
            on_attempts = b"".join(self._more(name, value) for name, value in compatible_attempt(compat).items())
            for attributes, more in zip((server, client_attributes), compatible(record, compat), strict=True):
                attributes.extend(self._more(name, value) for name, value in more.items())
        tracestate = span_tracestate(record.get("tracestate", ""))
        trace = _Trace(bytes.fromhex(record["trace_id"]), tracestate, fields, on_attempts)
        server_id = bytes.fromhex(record["span_id"])
        parent = bytes.fromhex(record.get("parent_span_id", ""))
        spans = [
            span(
                context=span_context(trace.trace_id, server_id),
                parent_span_id=parent,
                parent_is_remote=bool(parent),
                tracestate=tracestate,
                named=self._name(_server_name(fields), KIND_SERVER),
                start_ns=record["start_ns"],
                end_ns=record["end_ns"],
                attributes=b"".join(server),
                failed=_server_failed(fields),
            )
        ]
        client = record.get("client")
        if client is not None:
            spans.append(self._client(trace, client, client_attributes, server_id))
        attempts = record.get("attempts", ())
        if client is not None and len(attempts) > 1:
            over = bytes.fromhex(client["span_id"])
            for number, attempt in enumerate(attempts):
                spans.append(self._attempt(trace, attempt, number, over))
        return spans

    def _more(self, name: str, value: Any) -> bytes:
        """An attribute for a single backend."""
        if name.startswith(NUMBERED):
            return key_value(b"\x4a", name, value[: self.length_max])
        return self._field(name).encode(value)

    def _field(self, name: str) -> Attribute:
        return self._known(name).attribute

    def _known(self, name: str) -> _Field:
        field = self._fields.get(name)
        if field is None:
            field = _Field(name, self.length_max, latest=self._latest)
            if len(self._fields) < FIELDS_KNOWN_MAX:
                self._fields[name] = field
        return field

    def _name(self, name: str, kind: int) -> bytes:
        named = self._named.get((name, kind))
        if named is None:
            named = span_name(name, kind)
            if len(self._named) < SPAN_NAMES_MAX:
                self._named[name, kind] = named
        return named

    def _plan(self, order: tuple[str, ...]) -> _Plan:
        known = map(self._known, order)
        plan = [(field.attribute, field.on_server, field.on_client) for field in known]
        if len(self._plans) < PLANS_MAX:
            self._plans[order] = plan
        return plan

    def _attributes(self, fields: dict[str, Any]) -> tuple[list[bytes], list[bytes]]:
        """The encoded fields of the SERVER and of the CLIENT span."""
        server: list[bytes] = []
        client: list[bytes] = []
        order = tuple(fields)
        plan = self._plans.get(order) or self._plan(order)
        for (attribute, on_server, on_client), value in zip(plan, fields.values(), strict=True):
            # Two texts in three are known: a look here saves the call.
            data = attribute.texts.get(value) if value.__class__ is str else None
            if on_server:
                if data is None:
                    data = attribute.encode(value)
                server.append(data)
                if on_client:
                    client.append(data)
            elif on_client:
                client.append(data or attribute.encode(value))
        return server, client

    def _client(self, trace: _Trace, client: ClientSpan, attributes: list[bytes], parent: bytes) -> bytes:
        fields = trace.fields
        status = client.get("status")
        failed = fields.get(names.SLUICEWAY_OUTCOME) in _UPSTREAM_FAILED or (status is not None and status >= 400)
        if failed:
            error = fields.get(names.ERROR_TYPE) or (str(status) if status is not None else "_OTHER")
            attributes.append(self._field(names.ERROR_TYPE).encode(error))
        self._add_peer(attributes, client["address"], client["port"], status)
        operation = fields.get(names.GEN_AI_OPERATION_NAME) or _method(fields)
        model = fields.get(names.GEN_AI_REQUEST_MODEL)
        return span(
            context=span_context(trace.trace_id, bytes.fromhex(client["span_id"])),
            parent_span_id=parent,
            parent_is_remote=False,
            tracestate=trace.tracestate,
            named=self._name(f"{operation} {model}" if model else operation, KIND_CLIENT),
            start_ns=client["start_ns"],
            end_ns=client["end_ns"],
            attributes=b"".join(attributes),
            failed=failed,
        )

    def _attempt(self, trace: _Trace, attempt: Attempt, number: int, parent: bytes) -> bytes:
        status = attempt.get("status")
        error = attempt.get("error") or (str(status) if status is not None and status >= 400 else None)
        attributes = [
            self._field(names.HTTP_REQUEST_METHOD).encode(trace.fields.get(names.HTTP_REQUEST_METHOD, "_OTHER")),
            self._field(names.SLUICEWAY_SERVICE).encode(attempt["service"]),
            self._field(names.SLUICEWAY_VERDICT).encode(attempt["verdict"]),
        ]
        if number:
            attributes.append(self._field(names.HTTP_REQUEST_RESEND_COUNT).encode(number))
        if error is not None:
            attributes.append(self._field(names.ERROR_TYPE).encode(error))
        model = attempt.get("model")
        if model is not None:
            attributes.append(self._field(names.SLUICEWAY_UPSTREAM_MODEL).encode(model))
        self._add_peer(attributes, attempt["address"], attempt["port"], status)
        return span(
            context=span_context(trace.trace_id, bytes.fromhex(attempt["span_id"])),
            parent_span_id=parent,
            parent_is_remote=False,
            tracestate=trace.tracestate,
            named=self._name(_method(trace.fields), KIND_CLIENT),
            start_ns=attempt["start_ns"],
            end_ns=attempt["end_ns"],
            attributes=b"".join((*attributes, trace.on_attempts)),
            failed=error is not None,
        )

    def _add_peer(self, attributes: list[bytes], address: str, port: int, status: int | None) -> None:
        attributes.append(self._field(names.SERVER_ADDRESS).encode(address))
        attributes.append(self._field(names.SERVER_PORT).encode(port))
        if status is not None:
            attributes.append(self._field(names.HTTP_RESPONSE_STATUS_CODE).encode(status))


def _method(fields: dict[str, Any]) -> str:
    """As spans are named: the conventions want HTTP for a method that they do not know, or where there was none."""
    method: str = fields.get(names.HTTP_REQUEST_METHOD, "")
    return method if method in names.HTTP_METHODS else "HTTP"


def _server_name(fields: dict[str, Any]) -> str:
    method = _method(fields)
    route = fields.get(names.HTTP_ROUTE)
    return f"{method} {route}" if route else method


def _server_failed(fields: dict[str, Any]) -> bool:
    status = fields.get(names.HTTP_RESPONSE_STATUS_CODE, 0)
    match fields.get(names.SLUICEWAY_OUTCOME):
        case names.OUTCOME_GATEWAY_ERROR | names.OUTCOME_UPSTREAM_ABORTED:
            return True
        case names.OUTCOME_UPSTREAM_ERROR:
            return bool(status >= 500 or status < 400)  # a 2xx that carries an error is one
        case names.OUTCOME_CLIENT_ABORTED:
            return False
        case _:
            return bool(status >= 500)
