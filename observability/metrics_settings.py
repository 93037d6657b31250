"""How the metrics leave a host over OTLP: settings from the environment, and the exporter that they ask for.

Beside the counts lie two numbers that outlive the process that sends: since when they count, and how often sending
failed.
"""

import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from observability.environment import HTTP, Variables, prepare
from observability.lines import LineFile, LineWriter

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

INTERVAL_MS: Final = 60_000
"""OTEL_METRIC_EXPORT_INTERVAL's default."""
_FAILURES: Final = "failures"
_IGNORED: Final = {
    "OTEL_METRIC_EXPORT_TIMEOUT": "OTEL_EXPORTER_OTLP_TIMEOUT does",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "buckets are those of /metrics",
}
_TEMPORALITY: Final = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """What the environment asks for."""

    exporters: tuple[str, ...]
    """Of otlp and console; empty: there is /metrics alone."""
    protocol: str = HTTP
    interval_s: float = INTERVAL_MS / 1000
    delta: bool = False
    """lowmemory is delta too: it differs for instruments that are none of ours."""
    unusable: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()


def metrics_of(environ: Mapping[str, str]) -> MetricsSettings:
    """Read OTEL_METRICS_EXPORTER and what concerns OTLP, the interval and the temporality."""
    variables = Variables(environ, "METRICS")
    if variables.disabled:
        return MetricsSettings(())
    exporters = variables.exporters()
    protocol = variables.protocol()
    if "otlp" in exporters:
        variables.check_exporter(protocol)
    interval_ms = variables.number("OTEL_METRIC_EXPORT_INTERVAL", INTERVAL_MS, 1)
    preference = variables.get(_TEMPORALITY).lower() or "cumulative"
    if preference not in {"cumulative", "delta", "lowmemory"}:
        known = "cumulative, delta or lowmemory would be right"
        variables.complaints.append(f"{_TEMPORALITY}: {preference} is not known; {known}")
        variables.unusable.append(_TEMPORALITY)
        preference = "cumulative"
    variables.ignored(_IGNORED)
    return MetricsSettings(
        tuple(exporters),
        protocol,
        interval_ms / 1000,
        preference != "cumulative",
        tuple(variables.unusable),
        tuple(variables.complaints),
    )


def open_exporter(environ: MutableMapping[str, str], settings: MetricsSettings, lines: LineWriter) -> "MetricExporter":
    """The exporter, which reads the rest of the environment itself; what it cannot read is taken out of it before."""
    prepare(environ, settings.unusable)
    logging.getLogger("opentelemetry.util.re").setLevel(logging.CRITICAL)  # it quotes headers, and so tokens
    if "otlp" not in settings.exporters:
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter  # noqa: PLC0415  (25 MB)

        console = cast(IO[str], LineFile(lines))
        return ConsoleMetricExporter(out=console, formatter=lambda data: f"{data.to_json(indent=None)}\n")
    if settings.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415
            OTLPMetricExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter as HttpExporter,
    )

    from observability.answers import Answers  # noqa: PLC0415

    return HttpExporter(session=Answers().session)


def start_of(folder: Path, now_ns: int) -> int:
    """When this host began to count, Unix ns: the first time that anybody asked in this folder, which is that of the
    counts. OSError where the disk has no room."""
    path = folder / "since"
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        path.write_text(str(now_ns), encoding="ascii")
        return now_ns


def failures_of(folder: Path) -> int:
    """How often the numbers were not taken, or not all of them."""
    try:
        return int((folder / _FAILURES).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def count_failure(folder: Path) -> None:
    """Once more. Raises OSError where the disk has no room."""
    new = folder / f"{_FAILURES}.new"
    new.write_text(str(failures_of(folder) + 1), encoding="ascii")
    new.replace(folder / _FAILURES)
