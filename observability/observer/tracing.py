"""What the standard OTEL_* variables ask of an observer, and the export that follows from it.

The exporters read most variables themselves; those that only OpenTelemetry's own start-up code reads (which exporter,
which protocol) are read here. What cannot be understood is complained about and the default used: an exporter that
stumbles over a variable would take the observer, and the log with it, down again and again. OpenTelemetry is imported
only where tracing is on: it costs 25 MB and half a second.
"""

import importlib.metadata
import logging
import math
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import IO, cast
from urllib.parse import urlsplit

from observability.lines import LineFile, LineWriter
from observability.observer.export import BATCH_SPANS_MAX, DELAY_MS, Dropped, SpanExport
from observability.observer.otlp import Envelope
from observability.sampling import sampler_complaints

SCOPE = "sluiceway"
SERVICE_NAME_DEFAULT = "sluiceway"
HTTP = "http/protobuf"

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


class _Variables:
    """Reads variables; an empty one counts as unset, as the specification wants it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.unusable: list[str] = []
        self.complaints: list[str] = []

    def get(self, *variables: str) -> str:
        """The first that is set, in its own case and without blanks around it."""
        return next((value for name in variables if (value := self._environ.get(name, "").strip())), "")

    def number(self, name: str, default: int, least: int) -> int:
        """A decimal number of at least `least`."""
        value = self.get(name)
        if value.isdecimal() and int(value) >= least:
            return int(value)
        if value:
            self.complaints.append(f"{name}: {value} is no number from {least} on; {default} is used")
        return default

    def length_max(self) -> int | None:
        """The limit of spans, or that of everything."""
        for name in ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"):
            value = self.get(name)
            if value.isdecimal():
                return int(value)
            if value:
                self.complaints.append(f"{name}: {value} is no number from 0 on; there is no limit")
        return None

    def exporters(self) -> list[str]:
        """OTLP where an endpoint is set: nobody wants a gateway that knocks at localhost:4318 by default."""
        found: list[str] = []
        for name in (self.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
            match name.strip().lower():
                case "otlp":
                    if self.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
                        found.append("otlp")
                case "console":
                    found.append("console")
                case "none" | "":
                    pass
                case other:
                    known = "otlp, console or none would be right"
                    self.complaints.append(f"OTEL_TRACES_EXPORTER: {other} is not known; {known}")
        return list(dict.fromkeys(found))

    def protocol(self) -> str:
        """How OTLP is spoken."""
        value = self.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL").lower() or HTTP
        if value in {HTTP, "grpc"}:
            return value
        self.complaints.append(f"OTEL_EXPORTER_OTLP_PROTOCOL: {value} is not built; {HTTP} or grpc would be right")
        return HTTP

    def check_exporter(self, protocol: str) -> None:
        """Complain about what the OTLP exporter is going to read."""
        codings = {"gzip", "deflate", "none"} if protocol == HTTP else {"gzip", "none"}
        for prefix in ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"):
            if (timeout := self.get(f"{prefix}TIMEOUT")) and not _is_duration(timeout):
                self.unusable.append(f"{prefix}TIMEOUT")
                self.complaints.append(f"{prefix}TIMEOUT: {timeout} is no number of seconds; 10 would be right")
            if coding := self.get(f"{prefix}COMPRESSION").lower():
                if coding not in codings:
                    right = " or ".join(sorted(codings))
                    self.complaints.append(f"{prefix}COMPRESSION: {coding} is not built; {right} would be right")
                if coding not in codings or coding == "none":  # gRPC's exporter does not know the word
                    self.unusable.append(f"{prefix}COMPRESSION")
            if any("=" not in item for item in self.get(f"{prefix}HEADERS").split(",") if item.strip()):
                self.complaints.append(f"{prefix}HEADERS: one of them is none; name=value,name=value would be right")
            if protocol == HTTP and (endpoint := self.get(f"{prefix}ENDPOINT")) and not _is_url(endpoint):
                where = endpoint.rpartition("@")[2]
                where = "collector:4318" if "//" in where or not _is_url(f"http://{where}") else where
                self.complaints.append(f"{prefix}ENDPOINT: not an HTTP URL; one like http://{where} would be right")


def tracing_of(environ: Mapping[str, str]) -> Tracing:
    """Read OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER and what concerns OTLP, attributes, batches and the sampler."""
    variables = _Variables(environ)
    if variables.get("OTEL_SDK_DISABLED").lower() == "true":
        return Tracing(())
    exporters = variables.exporters()
    protocol = variables.protocol()
    if "otlp" in exporters:
        variables.check_exporter(protocol)
    length_max = variables.length_max()
    batch_spans = variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS_MAX, 1)
    delay_ms = variables.number("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS, 1)
    complaints = (*variables.complaints, *sampler_complaints(environ))
    return Tracing(tuple(exporters), protocol, length_max, batch_spans, delay_ms, tuple(variables.unusable), complaints)


def open_export(environ: MutableMapping[str, str], tracing: Tracing, lines: LineWriter, dropped: Dropped) -> SpanExport:
    """Start the export that `tracing` asks for; its spans have the resource and the batches of the environment.

    `environ`: the process's own, which the exporters read; variables that they cannot read are taken out of it. Raises
    whatever an exporter raises that finds another fault with it.
    """
    from observability.observer.transport import log_what_exporters_say, open_transport  # noqa: PLC0415  (see the top)

    for name in tracing.unusable:
        environ.pop(name, None)
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
    """The resource, as the SDK reads it from OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and its detectors."""
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource  # noqa: PLC0415

    resource = Resource.create()
    if SERVICE_NAME not in OTELResourceDetector().detect().attributes:
        resource = resource.merge(Resource({SERVICE_NAME: SERVICE_NAME_DEFAULT}))
    return Envelope(resource.attributes, SCOPE, _version(), resource.schema_url)


def _version() -> str:
    try:
        return importlib.metadata.version("sluiceway")
    except importlib.metadata.PackageNotFoundError:  # run from a folder that was never installed
        return ""


def _is_duration(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname)
    except ValueError:
        return False
