"""What the standard OTEL_* variables ask of an observer, and the export that follows from it.

The exporters read most variables themselves; those that only OpenTelemetry's own start-up code reads (which exporter,
which protocol) are read here. What cannot be understood is complained about and the default used: an exporter that
stumbles over a variable would take the observer, and the log with it, down again and again. OpenTelemetry is imported
only where tracing is on: it costs 25 MB and half a second.
"""

import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import IO, Final, cast

from observability.environment import HTTP, SCOPE, Variables, prepare, resource, scope_version
from observability.lines import LineFile, LineWriter
from observability.observer.export import BATCH_SPANS_MAX, DELAY_MS, Dropped, SpanExport
from observability.observer.otlp import Envelope
from observability.sampling import sampler_complaints

_IGNORED: Final = {
    "OTEL_BSP_MAX_QUEUE_SIZE": "spans wait in 64 MiB",
    "OTEL_BSP_EXPORT_TIMEOUT": "OTEL_EXPORTER_OTLP_TIMEOUT does",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "no span has more than some 60, and its labels",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "no span has more than some 60, and its labels",
}
_PROPAGATORS: Final = frozenset({"tracecontext", "baggage"})

_LIBRARYS_HEADERS_LOGGER = "opentelemetry.util.re"
"""Says which header it did not understand, and with it, as often as not, a token."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """What the environment asks for."""

    exporters: tuple[str, ...]
    """Of otlp and console; empty: tracing is off."""
    protocol: str = HTTP
    """http/protobuf or grpc."""
    length_max: int | None = None
    """Characters of an attribute's value; None: no limit."""
    batch_spans: int = BATCH_SPANS_MAX
    delay_ms: int = DELAY_MS
    unusable: tuple[str, ...] = ()
    """Variables that an exporter would stumble over: `open_export` takes them out."""
    complaints: tuple[str, ...] = ()
    """What was not understood and what would be right, for the log; without secrets."""


def tracing_of(environ: Mapping[str, str]) -> Tracing:
    """Read OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER and what concerns OTLP, attributes, batches and the sampler."""
    variables = Variables(environ, "TRACES")
    if variables.disabled:
        return Tracing(())
    exporters = variables.exporters()
    protocol = variables.protocol()
    if "otlp" in exporters:
        variables.check_exporter(protocol)
    length_max = _length_max(variables)
    batch_spans = variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS_MAX, 1)
    if batch_spans > BATCH_SPANS_MAX:
        variables.complaints.append(
            f"OTEL_BSP_MAX_EXPORT_BATCH_SIZE: {batch_spans} is too many, {BATCH_SPANS_MAX} is used"
        )
        batch_spans = BATCH_SPANS_MAX
    delay_ms = variables.number("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS, 1)
    variables.ignored(_IGNORED)
    propagators = variables.get("OTEL_PROPAGATORS").lower().split(",")
    if unknown := [name for one in propagators if (name := one.strip()) and name not in _PROPAGATORS]:
        variables.complaints.append(f"OTEL_PROPAGATORS: {unknown[0]} is not built; tracecontext is what is spoken")
    complaints = (*variables.complaints, *sampler_complaints(environ))
    return Tracing(tuple(exporters), protocol, length_max, batch_spans, delay_ms, tuple(variables.unusable), complaints)


def _length_max(variables: Variables) -> int | None:
    """The limit of spans, or that of everything."""
    for name in ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"):
        value = variables.get(name)
        if value.isdecimal():
            return int(value)
        if value:
            variables.complaints.append(f"{name}: {value} is no number from 0 on; there is no limit")
    return None


def open_export(environ: MutableMapping[str, str], tracing: Tracing, lines: LineWriter, dropped: Dropped) -> SpanExport:
    """Start the export that `tracing` asks for; its spans have the resource and the batches of the environment.

    `environ`: the process's own, which the exporters read; variables that they cannot read are taken out of it. Raises
    whatever an exporter raises that finds another fault with it.
    """
    from observability.observer.transport import log_what_exporters_say, open_transport  # noqa: PLC0415  (see the top)

    prepare(environ, tracing.unusable)
    logging.getLogger(_LIBRARYS_HEADERS_LOGGER).setLevel(logging.CRITICAL)
    log_what_exporters_say()
    console = cast(IO[str], LineFile(lines))
    return SpanExport(
        lambda: open_transport(tracing, console),
        envelope(),
        dropped,
        batch_spans=tracing.batch_spans,
        delay_s=tracing.delay_ms / 1000,
    )


def envelope() -> Envelope:
    """What is around spans: the resource and our scope."""
    about = resource()
    return Envelope(about.attributes, SCOPE, scope_version(), about.schema_url)
