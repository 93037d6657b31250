"""The OTEL_* variables that hand-built exporters do not read, or would stumble over, with words for what is wrong.

A signal's own variable comes before the common one. What cannot be understood is complained about, and its default is
used.
"""

import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

HTTP: Final = "http/protobuf"
SCOPE: Final = "sluiceway"
SERVICE_NAME_DEFAULT: Final = "sluiceway"
INSTANCE: Final = "service.instance.id"

TIMEOUT_S_MAX: Final = 600
"""The specification has this variable in ms, Python's exporters in s: 10000 would be three hours for a collector that
hangs, and is nobody's wish."""

SECRET_CHARACTERS_MIN: Final = 8
"""Of a header's value, each word that is so long is taken for one: Bearer has six."""

_USER: Final = re.compile(r"//[^/@\s]*@")
_PLACE: Final = re.compile(r"(https?://[^/\s?#'\"]*)[/?#][^\s'\")]*|(with url: )\S+")
"""What follows the host: backends have tokens in paths and queries."""


class Variables:
    """Reads the variables of one signal (TRACES, METRICS); an empty one counts as unset, as the specification says."""

    def __init__(self, environ: Mapping[str, str], signal: str) -> None:
        self._environ = environ
        self._signal = signal
        self.unusable = [name for name, value in environ.items() if name.startswith("OTEL_") and not value.strip()]
        """Variables that an exporter would stumble over; gRPC's does over empty ones."""
        self.complaints: list[str] = []
        """What was not understood and what would be right, for the log; without secrets."""

    @property
    def disabled(self) -> bool:
        """Nothing of OpenTelemetry is wanted."""
        return self.get("OTEL_SDK_DISABLED").lower() == "true"

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

    def ignored(self, known: Mapping[str, str]) -> None:
        """Complain about variables of the standard that change nothing here. `known`: each with what does."""
        for name, instead in known.items():
            if self.get(name):
                self.complaints.append(f"{name}: changes nothing here; {instead}")

    def exporters(self) -> list[str]:
        """OTLP where an endpoint is set: nobody wants a gateway that knocks at localhost:4318 by default."""
        found: list[str] = []
        variable = f"OTEL_{self._signal}_EXPORTER"
        for name in (self.get(variable) or "otlp").split(","):
            match name.strip().lower():
                case "otlp":
                    if self.get(f"OTEL_EXPORTER_OTLP_{self._signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
                        found.append("otlp")
                case "console":
                    found.append("console")
                case "none" | "":
                    pass
                case "prometheus" if self._signal == "METRICS":
                    pass  # /metrics is there anyway
                case other:
                    known = "otlp, console or none would be right"
                    self.complaints.append(f"{variable}: {other} is not known; {known}")
        return list(dict.fromkeys(found))

    def protocol(self) -> str:
        """How OTLP is spoken."""
        value = self.get(f"OTEL_EXPORTER_OTLP_{self._signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL").lower() or HTTP
        if value in {HTTP, "grpc"}:
            return value
        self.complaints.append(f"OTEL_EXPORTER_OTLP_PROTOCOL: {value} is not built; {HTTP} or grpc would be right")
        return HTTP

    def check_exporter(self, protocol: str) -> None:
        """Complain about what the OTLP exporter is going to read."""
        codings = {"gzip", "deflate", "none"} if protocol == HTTP else {"gzip", "none"}
        for prefix in (f"OTEL_EXPORTER_OTLP_{self._signal}_", "OTEL_EXPORTER_OTLP_"):
            if (timeout := self.get(f"{prefix}TIMEOUT")) and not _is_duration(timeout):
                self.unusable.append(f"{prefix}TIMEOUT")
                right = f"of at most {TIMEOUT_S_MAX}; 10 would be right"
                self.complaints.append(f"{prefix}TIMEOUT: {timeout} is no number of seconds {right}")
            if coding := self.get(f"{prefix}COMPRESSION").lower():
                if coding not in codings:
                    right = " or ".join(sorted(codings))
                    self.complaints.append(f"{prefix}COMPRESSION: {coding} is not built; {right} would be right")
                if coding not in codings or coding == "none":  # gRPC's exporter does not know the word
                    self.unusable.append(f"{prefix}COMPRESSION")
            if any("=" not in item for item in self.get(f"{prefix}HEADERS").split(",") if item.strip()):
                self.complaints.append(f"{prefix}HEADERS: one of them is none; name=value,name=value would be right")
            if protocol == HTTP and (endpoint := self.get(f"{prefix}ENDPOINT")) and not _is_url(endpoint):
                right = f"one like http://{_host_of(endpoint) or 'collector:4318'} would be right"
                self.complaints.append(f"{prefix}ENDPOINT: not an HTTP URL; {right}")


def prepare(environ: MutableMapping[str, str], unusable: Iterable[str]) -> None:
    """Leave to the exporters what `Variables` has read: without blanks around it (a line end behind an endpoint makes
    it a host that cannot be), and without what they would stumble over."""
    for name, value in list(environ.items()):
        if name.startswith("OTEL_") and value != value.strip():
            environ[name] = value.strip()
    for name in unusable:
        environ.pop(name, None)


def resource() -> "Resource":
    """As the SDK reads it from OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and its detectors."""
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource  # noqa: PLC0415  (25 MB)

    made = Resource.create()
    if SERVICE_NAME not in OTELResourceDetector().detect().attributes:
        made = made.merge(Resource({SERVICE_NAME: SERVICE_NAME_DEFAULT}))
    return made


def scope_version() -> str:
    """Ours."""
    try:
        return importlib.metadata.version("sluiceway")
    except importlib.metadata.PackageNotFoundError:  # run from a folder that was never installed
        return ""


def with_instance(attributes: str, instance_id: str) -> str:
    """OTEL_RESOURCE_ATTRIBUTES with a `service.instance.id` for all processes of a host, where it has none.

    The SDK would draw one for each process: then the sums of a host would begin again as a second series, beside the
    first, whenever the process that sends them is started again.
    """
    if any(item.partition("=")[0].strip() == INSTANCE for item in attributes.split(",")):
        return attributes
    return ",".join(part for part in (attributes.strip(), f"{INSTANCE}={instance_id}") if part)


def without_secrets(text: str) -> str:
    """What an exporter says may quote the endpoint, with password and path, and the headers: none of it is told."""
    for word in _secret_words(os.environ):
        text = text.replace(word, "…")
    return _PLACE.sub(r"\1\2…", _USER.sub("//", text))


def _secret_words(environ: Mapping[str, str]) -> Iterator[str]:
    """Of the headers' values, as they are written and as they are meant."""
    for name, value in environ.items():
        if name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("HEADERS"):
            for item in value.split(","):
                said = item.partition("=")[2] or item
                words = re.split(r"[^!-~]+", f"{said} {unquote(said)}")
                yield from (word for word in words if len(word) >= SECRET_CHARACTERS_MIN)


def _is_duration(text: str) -> bool:
    try:
        return 0 < float(text) <= TIMEOUT_S_MAX
    except ValueError:
        return False


def _host_of(text: str) -> str:
    """Host and port of what has no scheme; empty where that is none. Not the rest, which may hold secrets."""
    try:
        url = urlsplit(f"http://{text}")
        _ = url.port  # ValueError: what stands there is no number, and so the rest no host
    except ValueError:
        return ""
    return "" if "//" in text else url.netloc.rpartition("@")[2]


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname)
    except ValueError:
        return False
