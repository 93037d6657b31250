"""How many records a second one observer carries on one core: line, metrics, and every span.

    python -m benchmarks.micro.observer [--records N] [--no-spans]

The observer process is pinned to the first core this process may use; the records' source, the reader of its lines and
the collector (HTTP, which reads and throws away) share the others. Records are those of a streamed chat request: some
40 fields, 1.4 KB, two spans of about 20 attributes each. A run counts only if nothing was dropped: the number of lines
and of spans that arrived is checked.
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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson

from observability import names as n

RECORDS_PER_BATCH = 24
"""About the emitter's 32 KiB."""


def sample_fields(number: int) -> dict[str, Any]:
    """The named fields of the record below."""
    return {
        n.HTTP_REQUEST_METHOD: "POST",
        n.HTTP_ROUTE: "/v1/chat/completions",
        n.URL_PATH: "/v1/chat/completions",
        n.HTTP_RESPONSE_STATUS_CODE: 200,
        n.CLIENT_ADDRESS: f"10.0.0.{number % 200}",
        n.USER_AGENT_ORIGINAL: "OpenAI/Python 2.8.1",
        n.NETWORK_PROTOCOL_VERSION: "1.1",
        n.GEN_AI_OPERATION_NAME: "chat",
        n.GEN_AI_PROVIDER_NAME: "dashscope",
        n.GEN_AI_REQUEST_MODEL: ("qwen-plus", "qwen-max", "qwen-turbo")[number % 3],
        n.GEN_AI_RESPONSE_MODEL: ("qwen-plus", "qwen-max", "qwen-turbo")[number % 3],
        n.GEN_AI_RESPONSE_ID: f"chatcmpl-{uuid.uuid4()}",
        n.GEN_AI_REQUEST_STREAM: True,
        n.GEN_AI_RESPONSE_FINISH_REASONS: ["stop"],
        n.GEN_AI_OUTPUT_TYPE: "text",
        n.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.2104 + number / 1e6,
        n.GEN_AI_USAGE_INPUT_TOKENS: 900 + number * 7919 % 3000,
        n.GEN_AI_USAGE_OUTPUT_TOKENS: 100 + number * 104729 % 900,
        n.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 512,
        n.SLUICEWAY_USAGE_SOURCE: "upstream",
        n.SLUICEWAY_REQUEST_ID: uuid.uuid4().hex,
        n.SLUICEWAY_UPSTREAM_REQUEST_ID: str(uuid.uuid4()),
        n.SLUICEWAY_OUTCOME: "ok",
        n.SLUICEWAY_MODEL_API: "chat",
        n.SLUICEWAY_RESOURCE_GROUP: "default",
        n.SLUICEWAY_SCENARIO: "text",
        n.SLUICEWAY_PROTOCOL: "openai",
        n.SLUICEWAY_OPERATION: "chat.completions",
        n.SLUICEWAY_CONSUMER: "search-team",
        n.SLUICEWAY_SERVICE: "qwen",
        n.SLUICEWAY_UPSTREAM_MODEL: ("qwen-plus", "qwen-max", "qwen-turbo")[number % 3],
        n.SLUICEWAY_ATTEMPTS: 1,
        n.SLUICEWAY_FALLBACK: False,
        n.SLUICEWAY_GENERATION: 3,
        n.SLUICEWAY_REQUEST_BYTES: 2048 + number,
        n.SLUICEWAY_RESPONSE_BYTES: 30_000 + number,
        n.SLUICEWAY_RESPONSE_EVENTS: 120,
        n.SLUICEWAY_DURATION_MS: 1812.412 + number / 1e3,
        n.SLUICEWAY_TIME_TO_FIRST_BYTE_MS: 211.03,
        n.SLUICEWAY_TIME_TO_FIRST_TOKEN_MS: 214.871 + number / 1e3,
        n.SLUICEWAY_UPLOAD_MS: 0.0,
        n.SLUICEWAY_CONNECT_MS: 0.0,
        n.SLUICEWAY_UPSTREAM_MS: 1811.7,
        n.SLUICEWAY_CLIENT_BLOCKED_MS: 0.0,
        n.SLUICEWAY_OVERHEAD_MS: 0.71,
    }


def sample_record(number: int) -> dict[str, Any]:
    """A streamed chat request as a worker records it."""
    start_ns = time.time_ns() - 2_000_000_000
    return {
        "fields": sample_fields(number),
        "start_ns": start_ns,
        "end_ns": start_ns + 1_812_412_000,
        "trace_id": uuid.uuid4().hex,
        "span_id": uuid.uuid4().hex[:16],
        "parent_span_id": uuid.uuid4().hex[:16],
        "sampled": True,
        "tracing": True,
        "logging": True,
        "metrics": True,
        "labels": {"team": "search"},
        "client": {
            "span_id": uuid.uuid4().hex[:16],
            "start_ns": start_ns + 400_000,
            "end_ns": start_ns + 1_812_100_000,
            "address": "dashscope-intl.aliyuncs.com",
            "port": 443,
            "status": 200,
        },
    }


class _Collector:
    """Reads requests and throws them away, but for their size."""

    def __init__(self) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                left = size = int(self.headers["content-length"])
                while left:
                    left -= len(self.rfile.read(min(left, 65536)))
                collector.bytes += size
                collector.requests += 1
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.bytes = 0
        self.requests = 0
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
    while data := os.read(stream.fileno(), 1 << 20):
        lines[0] += data.count(b'"event":"request"')


def main() -> None:
    """Run once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=120_000)
    parser.add_argument("--no-spans", action="store_true")
    options = parser.parse_args()
    records = options.records // RECORDS_PER_BATCH * RECORDS_PER_BATCH
    dumped = [orjson.dumps(sample_record(number)) for number in range(50 * RECORDS_PER_BATCH)]
    batches = [
        (b",\n".join(dumped[at : at + RECORDS_PER_BATCH]), RECORDS_PER_BATCH)
        for at in range(0, len(dumped), RECORDS_PER_BATCH)
    ]
    cores = sorted(os.sched_getaffinity(0))
    collector = _Collector()
    environ = dict(os.environ)
    environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if not options.no_spans:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
    with tempfile.TemporaryDirectory() as folder:
        runtime = Path(folder)
        command = [sys.executable, "-m", "observability.observer", "--index", "0", "--runtime", str(runtime)]
        observer = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)
        os.sched_setaffinity(observer.pid, cores[:1])
        os.sched_setaffinity(0, cores[1:] or cores)
        lines = [0]
        reader = threading.Thread(target=_count_lines, args=(observer.stdout, lines))
        reader.start()
        warm = 200 * RECORDS_PER_BATCH
        _feed(runtime / "observer-0.sock", batches, warm)
        seconds = _feed(runtime / "observer-0.sock", batches, records)
        observer.terminate()
        _, status, usage = os.wait4(observer.pid, 0)
        observer.returncode = os.waitstatus_to_exitcode(status)
        reader.join()
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{records} records of {len(dumped[0])} bytes in {seconds:.2f} s: {records / seconds:,.0f} records/s")
    print(f"CPU of the whole observer, start and end included: {cpu:.2f} s; peak memory {usage.ru_maxrss // 1024} MiB")
    print(f"lines {lines[0]} (lost {records + warm - lines[0]}), exit code {observer.returncode}")
    print(f"collector: {collector.requests} requests, {collector.bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
