"""Starts what the benchmarks measure and what they measure with: upstreams, OTLP sink, plain proxy, gateway.

Everything runs as processes of its own, on free ports of 127.0.0.1, with its files in one temporary folder.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine
from benchmarks.ports import free_port

CHAT_PATH = "/v1/chat/completions"
KEY = "bench-key-of-the-consumer"
READY_S = 20.0

# about 300 bytes in, 600 out: a short question and a short answer
REQUEST = json.dumps(
    {
        "model": "qwen-plus",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. Answer in one short paragraph."},
            {
                "role": "user",
                "content": "How does a sluice gate control the water level of a lock, and why twice?",
            },
        ],
        "temperature": 0.2,
        "max_tokens": 256,
    }
).encode()
ANSWER = json.dumps(
    {
        "id": "chatcmpl-2f1d6ab0c1e94f5f8a53",
        "object": "chat.completion",
        "created": 1716430652,
        "model": "qwen-plus",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "A sluice gate slides up to let water through and down to hold it back. In a lock one "
                    "gate fills the chamber from above and another empties it below, so that a boat is lifted or "
                    "lowered. The gates are small, so that the water moves slowly.",
                },
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 38, "completion_tokens": 46, "total_tokens": 84},
        "system_fingerprint": None,
    }
).encode()

_NGINX = """\
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 64m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  log_format sizes '$uri $content_length';
  server {{
    listen 127.0.0.1:{upstream} backlog=4096; access_log off; default_type application/json;
    location / {{ return 200 '{answer}'; }}
  }}
  server {{
    listen 127.0.0.1:{sink}; access_log {folder}/sink.log sizes; default_type application/x-protobuf;
    location / {{ return 200 ''; }}
  }}
}}
"""

_GATEWAY = """\
listen: 127.0.0.1:{port}
workers: 1
observers: 1
admin: {{listen: "127.0.0.1:{admin}"}}
state: sqlite:{folder}/state/state.db
services:
  - {{name: qwen, provider: dashscope, base_url: "{upstream}", api_keys: [sk-of-the-service]}}
  - {{name: spare, provider: dashscope, base_url: "{upstream}", api_keys: [sk-of-the-spare]}}
  - name: failing
    provider: dashscope
    base_url: "{upstream}/sim:status=503"
    api_keys: [sk-of-the-failing]
    cooldown: {{failures: 0}}
consumers:
  - {{name: bench, keys: [{key}]}}
model_apis:
  - name: chat
    scenario: text
    protocols: [openai]
    auth: consumers
    routing: {{single: {{service: qwen}}}}
    monitoring: {{metrics: true, logging: true, tracing: true}}
  - name: routed
    scenario: text
    protocols: [openai]
    base_path: /routed
    routing: {{by_model: [{{match: "qwen*", service: qwen}}, {{match: "*", service: spare}}]}}
    fallback: [{{service: spare}}]
  - name: failing
    scenario: text
    protocols: [openai]
    base_path: /failing
    routing: {{by_model: [{{match: "*", service: failing, model: first}}]}}
    fallback: [{{service: qwen, model: {renamed}}}, {{service: spare, model: third}}]
"""

ROUTED_PATH = "/routed"
"""The base path of a Model API that routes by model and has a fallback armed."""
FAILING_PATH = "/failing"
"""The base path of one whose first target refuses, behind the simulated upstream; the second gets RENAMED."""
RENAMED = "qwen-renamed"


class NotReadyError(RuntimeError):
    """A process did not start; the text holds the end of what it printed."""


@dataclass(slots=True)
class Contestant:
    """A running proxy: the process that was started, and the one of its family that serves requests."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    worker: int
    metrics_url: str | None = None
    log: RecordLog | None = None


@dataclass(slots=True)
class Tail:
    """What is new of a file to which others append, from where the last look ended."""

    path: Path
    offset: int = 0

    def new_lines(self) -> Iterator[bytes]:
        """Those that are whole."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                yield line


@dataclass(slots=True)
class RecordLog(Tail):
    """Counts the request lines that the gateway writes to a file."""

    lines: int = 0

    def count(self) -> int:
        """Request lines since the start; reads only what is new and whole."""
        for line in self.new_lines():
            self.lines += _REQUEST_LINE.search(line) is not None
        return self.lines

    def empty(self) -> None:
        """Gives the disk its space back (a round writes about 100 MB); the gateway appends."""
        self.count()
        os.truncate(self.path, 0)
        self.offset = 0


_REQUEST_LINE = re.compile(rb'"event":\s*"request"')


@dataclass(slots=True)
class Bench:
    """The folder and the processes of one run; `stop` ends them all."""

    folder: Path
    core: int  # of the contestants' workers
    rest: int  # of everything else
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    upstream_url: str = ""
    sink_url: str = ""

    def start_nginx(self) -> None:
        """The upstream with one fixed answer, and the sink that takes every export."""
        upstream, sink = free_port(), free_port()
        text = _NGINX.format(folder=self.folder, upstream=upstream, sink=sink, answer=ANSWER.decode())
        conf = self.folder / "nginx.conf"
        conf.write_text(text)
        self.start("nginx", ["nginx", "-p", str(self.folder), "-c", str(conf)])
        self.upstream_url, self.sink_url = f"http://127.0.0.1:{upstream}", f"http://127.0.0.1:{sink}"
        self.wait("nginx", self.upstream_url + CHAT_PATH)

    def start_simulated_upstream(self) -> None:
        """The simulated upstream instead of nginx: slower, but it knows what it received and sent."""
        self.upstream_url = f"http://127.0.0.1:{free_port()}"
        listen = self.upstream_url.removeprefix("http://")
        self.start("upstream", [sys.executable, "-m", "benchmarks.upstream", "--listen", listen])
        self.wait("upstream", self.upstream_url + "/sim/stats")

    def start_plain(self) -> Contestant:
        """The plain aiohttp reverse proxy."""
        url = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "benchmarks.plain_proxy", "--upstream", self.upstream_url]
        process = self.start("plain", [*command, "--listen", url.removeprefix("http://")])
        self.wait("plain", url + CHAT_PATH)
        machine.pin(process.pid, self.core)
        return Contestant("plain", url, process, process.pid)

    def start_gateway(self) -> Contestant:
        """The gateway with everything on: consumer key, all spans exported, metrics, a line for each request."""
        port, admin = free_port(), free_port()
        file = self.folder / "sluiceway.yaml"
        text = _GATEWAY.format(
            port=port, admin=admin, folder=self.folder, upstream=self.upstream_url, key=KEY, renamed=RENAMED
        )
        file.write_text(text)
        environ = {}
        if self.sink_url:
            environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.sink_url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        sluiceway = str(Path(sys.executable).with_name("sluiceway"))
        process = self.start("gateway", [sluiceway, "serve", "-c", str(file)], environ)
        self.wait("gateway", f"http://127.0.0.1:{admin}/readyz")
        worker = machine.worker_of(process.pid)
        if worker is None:
            raise NotReadyError(
                f"no worker among {[machine.arguments_of(pid) for pid in machine.family_of(process.pid)]}"
            )
        machine.pin(worker, self.core)
        log = RecordLog(self.folder / "gateway.out")
        metrics_url = f"http://127.0.0.1:{admin}/metrics"
        return Contestant("gateway", f"http://127.0.0.1:{port}", process, worker, metrics_url, log)

    def exported(self) -> dict[str, tuple[int, int]]:
        """Exports that the sink answered and the bytes of their bodies, by path (``/v1/traces``, ``/v1/metrics``)."""
        totals: dict[str, tuple[int, int]] = {}
        for line in (self.folder / "sink.log").read_text().splitlines():
            path, length = line.split()
            posts, size = totals.get(path, (0, 0))
            totals[path] = posts + 1, size + (int(length) if length.isdecimal() else 0)  # "-" for a chunked body
        return totals

    def stop(self) -> None:
        """Ends every process that was started, the last first."""
        self.end(self.started)

    def end(self, processes: list[subprocess.Popen[bytes]]) -> None:
        """Ends these, with all that they started."""
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(processes):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                for member in machine.family_of(process.pid):  # a supervisor that is killed cannot end its children
                    try:
                        os.kill(member, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                process.wait()

    def start(
        self, name: str, command: list[str], environ: dict[str, str] | None = None, core: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a process on this core, or that of everything else; its output goes to files in the folder."""
        with (self.folder / f"{name}.out").open("ab") as out, (self.folder / f"{name}.err").open("ab") as err:
            process = subprocess.Popen(
                ["taskset", "-c", str(self.rest if core is None else core), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(environ or {})},
            )
        self.started.append(process)
        return process

    def wait(self, name: str, url: str, within_s: float = READY_S) -> None:
        """Until something answers there, whatever it says but 503."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and self.started[-1].poll() is None:
            try:
                urllib.request.urlopen(url, timeout=1).close()
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 503:
                    return
            except OSError:
                pass
            else:
                return
            time.sleep(0.05)
        said = (self.folder / f"{name}.err").read_text()[-2000:] + (self.folder / f"{name}.out").read_text()[-2000:]
        raise NotReadyError(f"{name} does not answer at {url}:\n{said}")


def metric(url: str, name: str) -> float:
    """Sum of a metric over all its labels, 0 where it is absent."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return sum_of(answer.read().decode(), name)


def sum_of(exposition: str, name: str) -> float:
    """The same from Prometheus' text format."""
    values = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)", exposition, re.MULTILINE)
    return sum(float(value) for value in values)
