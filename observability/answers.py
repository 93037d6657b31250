"""What a collector answers over HTTP, where the exporters look no further than its status.

They follow no redirection and take one for success, though nothing was stored; they do not read that a part was
rejected (`partial_success`), which OTLP forbids to send again; and where a collector asks to be left alone for longer
than their timeout, they give the batch up and come at once with the next one.

Imports OpenTelemetry's protobuf classes: only where there is an exporter.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

_log = logging.getLogger("opentelemetry.exporter.answers")
"""Below the exporters' own: whoever makes lines of what they say makes some of this."""


class RedirectedError(requests.RequestException):
    """The collector is somewhere else."""


class Answers:
    """Those to one exporter, whose requests come one after another."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.rejected = 0
        """Of the last request: how many spans, or numbers, or log records."""
        self.retry_after_s = 0.0
        """As it asks for; 0: it does not."""
        self.session: requests.Session | None = None
        """For the exporter. None where the user's own credential provider is to make one
        (OTEL_PYTHON_EXPORTER_OTLP_HTTP_*): then nobody looks."""
        if not any(name.startswith("OTEL_PYTHON_EXPORTER_OTLP_HTTP_") and value for name, value in environ.items()):
            self.session = requests.Session()
            self.session.hooks["response"].append(self._look)

    def forget(self) -> None:
        """A request begins, and may have no answer."""
        self.rejected, self.retry_after_s = 0, 0.0

    def _look(self, response: requests.Response, **_options: Any) -> None:
        self.forget()
        if 300 <= response.status_code < 400:
            where = response.headers.get("location", "nowhere")
            response.close()
            raise RedirectedError(f"answered {response.status_code}: set the endpoint to where it points, {where}")
        if response.ok:
            self._read(response.content)
        else:
            seconds = response.headers.get("retry-after", "")
            self.retry_after_s = float(seconds) if seconds.isdecimal() else 0.0

    def _read(self, body: bytes) -> None:
        """Also of metrics and log records: their answers have the same fields under the same numbers."""
        try:
            said = ExportTraceServiceResponse.FromString(body).partial_success
        except DecodeError:  # JSON, or a page of a proxy
            return
        if said.rejected_spans > 0:
            self.rejected = said.rejected_spans
            _log.warning("The collector rejected %d of them: %s", said.rejected_spans, said.error_message)
