"""A collector for tests: takes OTLP over HTTP, keeps spans and metrics, and misbehaves if asked."""

import asyncio
import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def value_of(value: AnyValue) -> Any:
    """The Python value of an AnyValue."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: value_of(item.value) for item in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def attributes_of(span: Span | LogRecord) -> dict[str, Any]:
    """The attributes of a span as a dict; fails on a key that is there twice."""
    attributes = {item.key: value_of(item.value) for item in span.attributes}
    assert len(attributes) == len(span.attributes), "an attribute is there twice"
    return attributes


class SpanStore:
    """Spans that arrived, and a way to wait for more; for HTTP below and for a gRPC servicer."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.logs: list[LogRecord] = []
        self.messages: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.resource: dict[str, Any] = {}
        self.requests = 0
        self._changed = threading.Condition()

    def add(self, message: ExportTraceServiceRequest) -> None:
        """Keep what a request holds."""
        with self._changed:
            self.requests += 1
            self.messages.append(message)
            for resource_spans in message.resource_spans:
                self.resource = {item.key: value_of(item.value) for item in resource_spans.resource.attributes}
                for scope_spans in resource_spans.scope_spans:
                    self.spans += scope_spans.spans
            self._changed.notify_all()

    def add_metrics(self, message: ExportMetricsServiceRequest) -> None:
        """Keep what a request holds."""
        with self._changed:
            self.metrics.append(message)
            self._changed.notify_all()

    def add_logs(self, message: ExportLogsServiceRequest) -> None:
        """Keep the log records of a request."""
        with self._changed:
            for resource_logs in message.resource_logs:
                for scope_logs in resource_logs.scope_logs:
                    self.logs += scope_logs.log_records
            self._changed.notify_all()

    def count_refusal(self) -> None:
        """A request that was answered with an error."""
        with self._changed:
            self.requests += 1
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until `condition` is true of what arrived."""

        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(condition, timeout_s)

        assert await asyncio.to_thread(wait), f"{len(self.spans)} spans in {self.requests} requests, then nothing"

    async def at_least(self, count: int, timeout_s: float = 20.0) -> list[Span]:
        """Wait for `count` spans and give all there are."""
        await self.until(lambda: len(self.spans) >= count, timeout_s)
        return list(self.spans)


class OtlpSink(SpanStore):
    """`with OtlpSink() as sink:` — set OTEL_EXPORTER_OTLP_ENDPOINT to `sink.endpoint`.

    `status` other than 200 refuses, `answer` is the body of the answer; clearing `answering` lets requests hang until
    it is set again. `takes_metrics` False: it answers them as one that knows traces alone.
    """

    def __init__(self, *, takes_metrics: bool = True) -> None:
        super().__init__()
        self.status = 200
        self.answer = b""
        self.retry_after: int | None = None
        self.takes_metrics = takes_metrics
        self.headers: list[dict[str, str]] = []
        self.answering = threading.Event()
        self.answering.set()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/traces":
                    sink.headers.append({name.lower(): value for name, value in self.headers.items()})
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                status = sink.status
                if self.path == "/v1/metrics":
                    if not sink.takes_metrics:
                        status = 405
                        sink.count_refusal()
                    elif status == 200:
                        sink.add_metrics(ExportMetricsServiceRequest.FromString(body))
                elif self.path == "/v1/logs":
                    if sink.status == 200:
                        sink.add_logs(ExportLogsServiceRequest.FromString(body))
                elif sink.status == 200:
                    assert self.path == "/v1/traces", self.path
                    sink.add(ExportTraceServiceRequest.FromString(body))
                else:
                    sink.count_refusal()
                sink.answering.wait(30)
                try:
                    self.send_response(status)
                    self.send_header("content-type", "application/x-protobuf")
                    self.send_header("content-length", str(len(sink.answer)))
                    if sink.retry_after is not None:
                        self.send_header("retry-after", str(sink.retry_after))
                    self.end_headers()
                    self.wfile.write(sink.answer)
                except OSError:
                    self.close_connection = True  # the client would not wait any longer

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
