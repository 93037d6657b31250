"""What the standard OTEL_* variables ask of an observer, and the export that follows from it.

The exporters read most variables themselves; those that only OpenTelemetry's own start-up code reads (which exporter,
which protocol) are read here. OpenTelemetry is imported only where tracing is on: it costs 25 MB and half a second.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, cast

from observability.lines import LineFile, LineWriter
from observability.observer.export import BATCH_SPANS_MAX, DELAY_MS, Dropped, SpanExport
from observability.observer.otlp import Envelope
from observability.observer.spans import SpanEncoder

SCOPE = "sluiceway"
SERVICE_NAME_DEFAULT = "sluiceway"


@dataclass(frozen=True, slots=True)
class Tracing:
    """What the environment asks for."""

    exporters: tuple[str, ...]
    """Of otlp and console; empty: tracing is off."""
    protocol: str
    """http/protobuf or grpc."""
    complaints: tuple[str, ...] = ()
    """Values that were not understood, for the log."""


def tracing_of(environ: Mapping[str, str]) -> Tracing:
    """Read OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP(_TRACES)_{ENDPOINT,PROTOCOL}.

    OTLP is on where an endpoint is set: nobody wants a gateway that knocks at localhost:4318 by default.
    """
    complaints: list[str] = []
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Tracing((), "http/protobuf")
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    exporters: list[str] = []
    for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        match name.strip().lower():
            case "otlp":
                if endpoint:
                    exporters.append("otlp")
            case "console":
                exporters.append("console")
            case "none" | "":
                pass
            case other:
                complaints.append(f"OTEL_TRACES_EXPORTER: {other} is not known; otlp, console or none would be right")
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = (protocol or "http/protobuf").strip().lower()
    if protocol not in {"http/protobuf", "grpc"}:
        complaints.append(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol} is not built; http/protobuf or grpc would be right")
        protocol = "http/protobuf"
    return Tracing(tuple(dict.fromkeys(exporters)), protocol, tuple(complaints))


def open_export(environ: Mapping[str, str], tracing: Tracing, lines: LineWriter, dropped: Dropped) -> SpanExport:
    """Start the export that `tracing` asks for; its spans have the resource and the batches of the environment."""
    from observability.observer.transport import open_transport  # noqa: PLC0415  (see the top)

    console = cast(IO[str], LineFile(lines))
    return SpanExport(
        lambda: open_transport(tracing, console),
        envelope(),
        dropped,
        batch_spans=_number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS_MAX),
        delay_s=_number(environ, "OTEL_BSP_SCHEDULE_DELAY", DELAY_MS) / 1000,
    )


def envelope() -> Envelope:
    """The resource, as the SDK reads it from OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and its detectors."""
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource  # noqa: PLC0415

    resource = Resource.create()
    if SERVICE_NAME not in OTELResourceDetector().detect().attributes:
        resource = resource.merge(Resource({SERVICE_NAME: SERVICE_NAME_DEFAULT}))
    return Envelope(resource.attributes, SCOPE, _version(), resource.schema_url)


def span_encoder() -> SpanEncoder:
    """An encoder that keeps to OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT or OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT."""
    from opentelemetry.sdk.trace import SpanLimits  # noqa: PLC0415

    return SpanEncoder(SpanLimits().max_span_attribute_length)


def _version() -> str:
    try:
        return importlib.metadata.version("sluiceway")
    except importlib.metadata.PackageNotFoundError:  # run from a folder that was never installed
        return ""


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, "")
    return int(value) if value.isdecimal() and int(value) > 0 else default
