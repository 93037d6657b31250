"""Recorded content as events: log records `gen_ai.client.inference.operation.details` over OTLP, where it is asked for.

`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says where OTLP carries content: on spans (SPAN_ONLY, the default
here, as it is recorded only where a Model API says so), in events (EVENT_ONLY), in both (SPAN_AND_EVENT) or nowhere
(NO_CONTENT). The line has it all the same. In an event messages are structured values, on spans they are JSON.

An event is encoded as spans are (`observer.otlp`) and goes through a queue of the same kind: an
ExportLogsServiceRequest has the envelope of traces, with the same numbers (opentelemetry-proto 1.x, `logs.proto`).
"""

import struct
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, NamedTuple

import orjson

from observability import names
from observability.environment import Variables
from observability.observer.export import Dropped, SpanExport
from observability.observer.otlp import key_value, varint
from observability.observer.tracing import envelope
from observability.record import Record

VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
EVENT_NAME: Final = "gen_ai.client.inference.operation.details"
QUEUE_BYTES_MAX: Final = 32 << 20
"""Some hundreds of events of the largest kind, ten thousand ordinary chats."""
SENDERS: Final = 2

_MODES: Final = {
    "": (True, False),
    "true": (True, False),
    "span_only": (True, False),
    "event_only": (False, True),
    "span_and_event": (True, True),
    "no_content": (False, False),
    "false": (False, False),
}
_DEBUG: Final = b"\x10\x05"
"""The severity that the conventions give it."""
_SAMPLED: Final = b"\x45" + struct.pack("<I", 1)
_NOT_SAMPLED: Final = b"\x45" + struct.pack("<I", 0)
_TIME: Final = struct.Struct("<BQ").pack
_NAMED: Final = b"\x62" + varint(len(EVENT_NAME)) + EVENT_NAME.encode()


class Destination(NamedTuple):
    """Where OTLP carries content."""

    on_spans: bool = True
    events: bool = False
    protocol: str = ""
    unusable: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()


def destination_of(environ: Mapping[str, str]) -> Destination:
    """What the variables ask for."""
    variables = Variables(environ, "LOGS")
    said = variables.get(VARIABLE)
    mode = _MODES.get(said.lower())
    if mode is None:
        right = (
            "SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT or NO_CONTENT would be right; until then spans go without content"
        )
        return Destination(
            on_spans=False, complaints=(f"{VARIABLE}: {said} is not known; {right}",)
        )  # rather too little
    on_spans, events = mode
    if not events or variables.disabled:
        return Destination(on_spans)
    exporters, protocol = variables.exporters(), variables.protocol()
    if "otlp" in exporters:
        variables.check_exporter(protocol)
    return Destination(on_spans, "otlp" in exporters, protocol, tuple(variables.unusable), tuple(variables.complaints))


def open_events(environ: MutableMapping[str, str], destination: Destination, dropped: Dropped) -> SpanExport:
    """Start the export of events; raises what the exporter raises."""
    from observability.observer.log_transport import open_log_transport  # noqa: PLC0415  (25 MB)
    from observability.observer.transport import log_what_exporters_say  # noqa: PLC0415

    for name in destination.unusable:
        environ.pop(name, None)
    log_what_exporters_say()
    return SpanExport(
        lambda: open_log_transport(destination.protocol),
        envelope(),
        dropped,
        senders=SENDERS,
        queue_bytes=QUEUE_BYTES_MAX,
    )


def event_of(record: Record) -> bytes | None:
    """The event of a record, as a field of ScopeLogs; None where it has no content or is not to be traced."""
    fields = record["fields"]
    if not record["tracing"] or names.CONTENT.isdisjoint(fields):
        return None
    attributes = b"".join(
        key_value(b"\x32", name, orjson.loads(value) if name in names.CONTENT else value)
        for name, value in fields.items()
        if names.on_client(name)
    )
    client = record.get("client")
    data = b"".join(
        (
            _TIME(0x09, record["end_ns"]),
            _DEBUG,
            attributes,
            _SAMPLED if record["sampled"] else _NOT_SAMPLED,
            b"\x4a\x10",
            bytes.fromhex(record["trace_id"]),
            b"\x52\x08",
            bytes.fromhex(record["span_id"] if client is None else client["span_id"]),
            _TIME(0x59, record["end_ns"]),
            _NAMED,
        )
    )
    return b"\x12" + varint(len(data)) + data


def without_content(record: Record) -> Record:
    """The record for who does not carry content."""
    fields: dict[str, Any] = record["fields"]
    if names.CONTENT.isdisjoint(fields):
        return record
    spared = record.copy()
    spared["fields"] = {name: value for name, value in fields.items() if name not in names.CONTENT}
    return spared
