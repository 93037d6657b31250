"""Spans out: how encoded spans get into the exporters of opentelemetry-python.

The exporters of opentelemetry-python do what users know and configure (endpoint, headers, TLS, compression, time-outs,
retries); only their encoder is too slow for us. Both have one place where bytes can go in, and both places are private:

* HTTP: `OTLPSpanExporter._client.export(bytes)`, what remains of its `export` after encoding;
* gRPC: `OTLPSpanExporter._translate_data(spans)`, which makes the message of a request.

This module is the only one that knows them, with `log_transport`. Where a later version has moved them, spans take the
public way, decoded and encoded again: slow, but they arrive. A test fails in that case, so that it is not unseen.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, cast, overload

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult

from observability.answers import Answers
from observability.observer.export import NotDelivered, RejectedError, Transport
from observability.observer.readable import readable_spans
from observability.observer.tracing import Tracing

REST_S_MAX = 60.0
"""How long a sender stays away where a collector asks for it (`retry-after`): what comes meanwhile waits in the queue,
and that is full in a minute of an ordinary load with content."""


def log_what_exporters_say() -> None:
    """Their words (an error that passes, a refusal) become the reason in a line of ours, whose event is always one."""
    logger = logging.getLogger("opentelemetry.exporter")
    logger.handlers[:] = [_Reasons()]
    logger.propagate = False


class _Reasons(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._complaints = NotDelivered()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._complaints.say(record.getMessage(), record.levelno)
        except Exception:  # noqa: BLE001  (as in observability.log)
            self.handleError(record)


def open_transport(tracing: Tracing, console: IO[str]) -> Transport:
    """The transport for what `tracing` asks; call it once for each thread that sends."""
    transports: list[Transport] = []
    if "otlp" in tracing.exporters:
        transports.append(_GrpcTransport() if tracing.protocol == "grpc" else CheckedTransport())
    if "console" in tracing.exporters:
        transports.append(_PublicTransport(ConsoleSpanExporter(out=console, formatter=_one_line)))
    return transports[0] if len(transports) == 1 else _All(transports)


def http_transport(exporter: HttpSpanExporter) -> Transport:
    """By the exporter's seam, or by its public way where the seam is not there."""
    seam = http_seam(exporter)
    return _PublicTransport(exporter) if seam is None else HttpTransport(exporter, seam)


def http_seam(exporter: object) -> Callable[[bytes], Any] | None:
    """`_client.export` of an HTTP exporter, None where this version has none."""
    seam = getattr(getattr(exporter, "_client", None), "export", None)
    return seam if callable(seam) else None


def grpc_seam_is_there() -> bool:
    """Does this version's gRPC exporter make its messages in `_translate_data`?"""
    return callable(getattr(GrpcSpanExporter, "_translate_data", None))


class HttpTransport:
    """By the seam of an HTTP exporter, of spans or of log records."""

    def __init__(self, exporter: Any, seam: Callable[[bytes], Any]) -> None:
        self._exporter = exporter
        self._seam = seam

    def send(self, request: bytes, spans: int) -> bool:
        """As `Transport` has it."""
        return bool(self._seam(request).success)

    def shutdown(self) -> None:
        """As `Transport` has it."""
        self._exporter.shutdown()


class CheckedTransport:
    """OTLP over HTTP as the environment has it, with an eye on what the collector rejects and when it wants to rest."""

    def __init__(self) -> None:
        self._answers = Answers()
        self._transport = http_transport(HttpSpanExporter(session=self._answers.session))
        self._ending = threading.Event()

    def send(self, request: bytes, spans: int) -> bool:
        """As `Transport` has it."""
        if self._ending.wait(min(self._answers.retry_after_s, REST_S_MAX)):
            return False
        self._answers.forget()
        sent = self._transport.send(request, spans)
        if sent and self._answers.rejected:
            raise RejectedError(self._answers.rejected)
        return sent

    def shutdown(self) -> None:
        """As `Transport` has it."""
        self._ending.set()
        self._transport.shutdown()


class _Encoded(Sequence[ReadableSpan]):
    """An encoded request in the clothes of the spans in it: decoded only if somebody looks inside."""

    def __init__(self, request: bytes, spans: int) -> None:
        self.request = request
        self._spans = spans

    def __len__(self) -> int:
        return self._spans

    @overload
    def __getitem__(self, index: int) -> ReadableSpan: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ReadableSpan]: ...
    def __getitem__(self, index: int | slice) -> ReadableSpan | Sequence[ReadableSpan]:
        return readable_spans(self.request)[index]

    def __iter__(self) -> Iterator[ReadableSpan]:
        return iter(readable_spans(self.request))


class _GrpcExporter(GrpcSpanExporter):
    """Where `_translate_data` is not called any more, the public `export` iterates `_Encoded`: the slow way."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        # gRPC's stub serialises a message object; parsing ours for it costs a microsecond a span, in C.
        message: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(cast(_Encoded, data).request)
        return message


class _GrpcTransport:
    def __init__(self) -> None:
        self._exporter = _GrpcExporter()

    def send(self, request: bytes, spans: int) -> bool:
        return self._exporter.export(_Encoded(request, spans)) is SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _PublicTransport:
    """Any exporter, by what is public: for the console, and where the seam has moved."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def send(self, request: bytes, spans: int) -> bool:
        return self._exporter.export(_Encoded(request, spans)) is SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _All:
    """Several exporters: lost for one is lost."""

    def __init__(self, transports: Sequence[Transport]) -> None:
        self._transports = transports

    def send(self, request: bytes, spans: int) -> bool:
        sent, rejected = True, 0
        for transport in self._transports:  # all of them, also after a failure
            try:
                sent = transport.send(request, spans) and sent
            except RejectedError as error:
                rejected = max(rejected, error.spans)
        if sent and rejected:
            raise RejectedError(rejected)
        return sent

    def shutdown(self) -> None:
        for transport in self._transports:
            transport.shutdown()


def _one_line(span: ReadableSpan) -> str:
    """Of the console exporter: our stdout is one JSON object a line."""
    return f"{span.to_json(indent=None)}\n"
