"""How many records a second one observer carries on one core: line, metrics, and every span.

    python -m benchmarks.observer [--records N] [--no-spans]

The observer process is pinned to the first core this process may use; the records' source, the reader of its lines and
the collector (HTTP, which counts the spans and throws them away) share the others. Records are those of a streamed chat
request, packed as a worker packs them: some 40 fields, two spans of about 20 attributes each. The source sends as fast
as they are acknowledged, so nothing is shed; the observer is never told that it is behind.

Two figures: records a second by the clock, which is what one core carries where it belongs to the observer alone, and
records for a second of its CPU time, which is the same where other programs want that core too (their share is said).

Exit: 0; 1 where a line or a span is missing, for then the figures are those of something else; 2 with only one core.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks import machine
from observability import names as n
from observability.facts import pack
from observability.findings import Findings
from observability.observation import Attempt, Observation
from observability.sampling import TraceContext
from observability.scanners import Scanner, request_scanner

RECORDS_PER_BATCH = 30
"""About the emitter's 32 KiB."""
WARM_UP_RECORDS = 200 * RECORDS_PER_BATCH
DIFFERENT_RECORDS = 200 * RECORDS_PER_BATCH
"""Sent over and over: more ids than the observer remembers of any field."""
SPANS_PER_RECORD = 2

ROUTE_FIELDS = orjson.dumps(
    {
        n.HTTP_ROUTE: "/v1/chat/completions",
        n.GEN_AI_OPERATION_NAME: "chat",
        n.GEN_AI_PROVIDER_NAME: "dashscope",
        n.GEN_AI_OUTPUT_TYPE: "text",
        n.SLUICEWAY_MODEL_API: "chat",
        n.SLUICEWAY_RESOURCE_GROUP: "default",
        n.SLUICEWAY_SCENARIO: "text",
        n.SLUICEWAY_PROTOCOL: "openai",
        n.SLUICEWAY_OPERATION: "chat.completions",
    }
)


def sample_findings(number: int, model: str) -> Findings:
    """What the answer below said."""
    findings = Findings()
    findings.response_id = f"chatcmpl-{uuid.uuid4()}"
    findings.response_model = model
    findings.upstream_request_id = str(uuid.uuid4())
    findings.finish_reasons = ["stop"]
    findings.input_tokens = 900 + number * 7919 % 3000
    findings.output_tokens = 100 + number * 104729 % 900
    findings.cache_read_tokens = 512
    findings.usage_seen = findings.usage_final = findings.first_output = findings.complete = True
    findings.events, findings.output_events = 120, 118
    return findings


def sample_record(number: int) -> bytes:
    """A streamed chat request as a worker hands it over."""
    model = ("qwen-plus", "qwen-max", "qwen-turbo")[number % 3]
    trace = TraceContext(uuid.uuid4().hex, uuid.uuid4().hex[:16], None, True)
    seen = Observation(uuid.uuid4().hex, trace, uuid.uuid4().hex[:16], uuid.uuid4().hex[:16])
    accepted_ns = seen.accepted_ns
    seen.method, seen.path, seen.protocol_version = "POST", "/v1/chat/completions", "1.1"
    seen.client_address, seen.user_agent = f"10.0.0.{number % 200}", "OpenAI/Python 2.8.1"
    seen.route_fields, seen.labels = orjson.Fragment(ROUTE_FIELDS), {"team": "search"}
    seen.consumer, seen.service, seen.generation = "search-team", "qwen", 3
    seen.stream, seen.status, seen.upstream_status = True, 200, 200
    seen.request_bytes, seen.response_bytes = 2048 + number, 30_000 + number
    seen.request_scanner = request_scanner("openai", "chat.completions", "application/json")
    seen.request_scanner.whole(orjson.dumps({"model": model, "stream": True}))
    seen.scanner = Scanner(sample_findings(number, model))
    seen.first_byte_ns = accepted_ns + 211_030_000
    seen.first_event_ns = accepted_ns + 210_400_000 + number * 1000
    seen.first_token_ns = accepted_ns + 214_871_000 + number * 1000
    seen.upstream_ns = 1_811_700_000
    attempt = Attempt("qwen", "dashscope-intl.aliyuncs.com", 443, "done")
    attempt.start_ns, attempt.end_ns, attempt.status = accepted_ns + 400_000, accepted_ns + 1_812_100_000, 200
    seen.attempts = [attempt]
    seen.outcome = n.OUTCOME_OK
    return orjson.dumps(pack(seen, accepted_ns + 1_812_412_000 + number * 1000))


class _Collector:
    """Counts the spans of requests and throws them away."""

    def __init__(self) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                message = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                spans = sum(len(scope.spans) for resource in message.resource_spans for scope in resource.scope_spans)
                with collector.lock:
                    collector.requests += 1
                    collector.spans += spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.lock = threading.Lock()
        self.requests = 0
        self.spans = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"


def _feed(path: Path, batches: list[tuple[bytes, int]], records: int) -> float:
    """Send batches over and over until `records` are acknowledged; the seconds it took."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        deadline = time.monotonic() + 10
        while True:
            try:
                worker.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        started_at = time.perf_counter()
        sent = acknowledged = number = 0
        while acknowledged < records:
            while sent < records and sent - acknowledged < 4096:
                body, count = batches[number % len(batches)]
                worker.send(b"[0,\n" + body + b"]")
                sent += count
                number += 1
                worker.setblocking(False)
                try:
                    acknowledged = int.from_bytes(worker.recv(8), "little")
                except BlockingIOError:
                    pass
                worker.setblocking(True)
            acknowledged = int.from_bytes(worker.recv(8), "little")
        return time.perf_counter() - started_at


def _count_lines(stream: Any, lines: list[int]) -> None:
    for line in stream:
        lines[0] += b'"event":"request"' in line


def missing(records: int, lines: int, spans: int, *, with_spans: bool) -> list[str]:
    """What of the records did not arrive, or more than once; empty when everything is there."""
    found = []
    if lines != records:
        found.append(f"{lines} lines of {records} records")
    if spans != (expected := records * SPANS_PER_RECORD if with_spans else 0):
        found.append(f"{spans} spans, not {expected}")
    return found


@dataclass(slots=True)
class Result:
    """What a run came to."""

    records: int
    seconds: float
    cpu_seconds: float
    """Of the observer, its kernel time included."""
    core_foreign: float
    """Share of its core that others took."""
    peak_mib: int
    lines: int
    spans: int
    requests: int
    exit_code: int

    def describe(self) -> str:
        """For a person."""
        return "\n".join(
            (
                f"{self.records} records in {self.seconds:.2f} s: {self.records / self.seconds:,.0f} records/s",
                f"{self.records / self.cpu_seconds:,.0f} records for a second of CPU, "
                f"{self.cpu_seconds / self.records * 1e6:.1f} µs each; others took {self.core_foreign:.0%} of its core",
                f"lines {self.lines}, spans {self.spans} in {self.requests} requests; peak memory {self.peak_mib} MiB",
            )
        )


def run(records: int, *, with_spans: bool) -> Result:
    """One observer from its start to its end; raises ValueError with one core."""
    dumped = [sample_record(number) for number in range(DIFFERENT_RECORDS)]
    batches = [
        (b",\n".join(dumped[at : at + RECORDS_PER_BATCH]), RECORDS_PER_BATCH)
        for at in range(0, len(dumped), RECORDS_PER_BATCH)
    ]
    core, rest = machine.two_cores()
    collector = _Collector()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PROMETHEUS_"))}
    if with_spans:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
    with tempfile.TemporaryDirectory() as folder:
        runtime = Path(folder)
        command = [sys.executable, "-m", "observability.observer", "--index", "0", "--runtime", str(runtime)]
        observer = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)
        machine.pin(observer.pid, core)
        os.sched_setaffinity(0, {rest})
        lines = [0]
        reader = threading.Thread(target=_count_lines, args=(observer.stdout, lines))
        reader.start()
        _feed(runtime / "observer-0.sock", batches, WARM_UP_RECORDS)
        own, before = machine.cpu_seconds(observer.pid), machine.core_times(core)
        seconds = _feed(runtime / "observer-0.sock", batches, records)
        own, after = machine.cpu_seconds(observer.pid) - own, machine.core_times(core)
        observer.terminate()
        _, status, usage = os.wait4(observer.pid, 0)
        reader.join()
    foreign = max(0.0, after.work - before.work - own) / (after.all - before.all or 1.0)
    code, peak_mib = os.waitstatus_to_exitcode(status), usage.ru_maxrss // 1024
    observer.returncode = code
    return Result(records, seconds, own, foreign, peak_mib, lines[0], collector.spans, collector.requests, code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once and print the figures; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observer")
    parser.add_argument("--records", type=int, default=120_000)
    parser.add_argument("--no-spans", action="store_true")
    options = parser.parse_args(arguments)
    records = max(1, options.records // RECORDS_PER_BATCH) * RECORDS_PER_BATCH
    try:
        result = run(records, with_spans=not options.no_spans)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(result.describe())
    complaints = missing(WARM_UP_RECORDS + records, result.lines, result.spans, with_spans=not options.no_spans)
    for complaint in complaints:
        print(f"NOT A RESULT: {complaint}")
    return 1 if complaints or result.exit_code else 0


if __name__ == "__main__":
    sys.exit(main())
