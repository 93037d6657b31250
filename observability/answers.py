"""What a collector answers over HTTP, where the exporters look no further than its status.

They follow no redirection and take one for success, though nothing was stored; and they do not read that a part was
rejected (`partial_success`), which OTLP forbids to send again.

Imports OpenTelemetry's protobuf classes: only where there is an exporter.
"""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

_log = logging.getLogger("opentelemetry.exporter.answers")
"""Below the exporters' own: whoever makes lines of what they say makes some of this."""


class RedirectedError(requests.RequestException):
    """The collector is somewhere else."""


def session(
    rejected: Callable[[int], None] | None = None, environ: Mapping[str, str] = os.environ
) -> requests.Session | None:
    """A session for an exporter, which looks at every answer. `rejected` is told how many, in the thread that sends.

    None where the user's own credential provider is to make one (OTEL_PYTHON_EXPORTER_OTLP_HTTP_*).
    """
    if any(name.startswith("OTEL_PYTHON_EXPORTER_OTLP_HTTP_") and value for name, value in environ.items()):
        return None

    def look(response: requests.Response, **_options: Any) -> None:
        if 300 <= response.status_code < 400:
            where = response.headers.get("location", "nowhere")
            response.close()
            raise RedirectedError(f"answered {response.status_code}: set the endpoint to where it points, {where}")
        if response.ok and response.content:
            found = _rejected(response.content)
            if found is not None:
                count, why = found
                _log.warning("The collector rejected %d of them: %s", count, why)
                if rejected is not None:
                    rejected(count)

    made = requests.Session()
    made.hooks["response"].append(look)
    return made


def _rejected(body: bytes) -> tuple[int, str] | None:
    """How many and why; None where all were taken.

    Also of metrics and log records, whose answers have the same fields under the same numbers.
    """
    try:
        said = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:  # JSON, or a page of a proxy
        return None
    return (said.rejected_spans, said.error_message) if said.rejected_spans > 0 else None
