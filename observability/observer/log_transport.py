"""Log records out: as `observer.transport`, by the same private places of the exporters for them.

A module of its own, so that only an observer that sends events imports them. There is no slow way: where a later
version has moved the place for HTTP, opening fails, and a test with it.
"""

from typing import Any

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs.export import LogRecordExportResult

from observability.answers import Answers
from observability.observer.export import Transport
from observability.observer.transport import HttpTransport, http_seam


def open_log_transport(protocol: str) -> Transport:
    """A transport; call it once for each thread that sends. RuntimeError where this version has no place for bytes."""
    if protocol == "grpc":
        return _GrpcTransport()
    exporter = HttpLogExporter(session=Answers().session)  # a redirection is no success
    seam = http_seam(exporter)
    if seam is None:
        raise RuntimeError("the exporter of log records is not one that is known here")
    return HttpTransport(exporter, seam)


class _Encoded:
    """An encoded request in the clothes of a sequence of log records."""

    def __init__(self, request: bytes, count: int) -> None:
        self.request = request
        self._count = count

    def __len__(self) -> int:
        return self._count


class _GrpcExporter(GrpcLogExporter):
    def _translate_data(self, data: Any) -> ExportLogsServiceRequest:
        message: ExportLogsServiceRequest = ExportLogsServiceRequest.FromString(data.request)
        return message


class _GrpcTransport:
    def __init__(self) -> None:
        self._exporter = _GrpcExporter()

    def send(self, request: bytes, spans: int) -> bool:
        encoded: Any = _Encoded(request, spans)
        return self._exporter.export(encoded) is LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        self._exporter.shutdown()
