"""The contestants: how each is started, what it does, and which of its processes are what.

A contestant runs on the core of contestants, all of it, but for Sluiceway: only its worker does, which alone touches
traffic. Observer, control and supervisor are on the other core, together with generator and upstream; their processor
time is told apart.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine
from benchmarks.contest import asked, configurations, environments
from benchmarks.contest.environments import MissingError
from benchmarks.contestants import KEY, Bench, RecordLog, Tail
from benchmarks.ports import free_port

START_S = 90.0
"""LiteLLM takes 8 s with a core for itself, and 40 where others are at work."""
SECRET = f"sk-{KEY}"
"""LiteLLM wants its keys to begin like this."""
_PARTS = {"proxy.worker": "worker", "observability.observer": "observer", "proxy.control": "control"}


@dataclass(slots=True)
class Stage:
    """Where contestants run: the cores, a folder for files, and the addresses HOST:PORT of upstream and sink."""

    bench: Bench
    upstream: str
    sink: str


@dataclass(slots=True)
class SinkLog(Tail):
    """Adds up the bytes of spans that the sink took, whoever sent them."""

    bytes: int = 0

    def count(self) -> int:
        """Since the start; lines are a path and the length of what was posted there."""
        for line in self.new_lines():
            path, _, length = line.partition(b" ")
            if path == b"/v1/traces" and length.strip().isdigit():
                self.bytes += int(length)
        return self.bytes


@dataclass(slots=True)
class Running:
    """A contestant that runs."""

    name: str
    url: str
    headers: dict[str, str]
    parts: dict[str, list[int]]
    """Its processes by what they do; ``worker`` is what touches traffic."""
    prefixes: dict[str, str] = field(default_factory=dict)
    """By kind of request, what its path begins with, where it is not that of all."""
    metrics_url: str | None = None
    sent: str | None = None
    """The metric that counts its spans as they are exported, of a contestant without a log that is counted."""
    log: RecordLog | None = None
    """Of a contestant whose records are counted."""
    spans: SinkLog | None = None
    """Of one whose spans are seen to arrive."""

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return [pid for pids in self.parts.values() for pid in pids]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One that can be started."""

    name: str
    does: str
    """What it does with a request, as the table says it."""
    start: Callable[[Stage, str], Running]
    environment: environments.Environment | None = None
    program: str | None = None
    """What has to be installed on the machine, and is a package of Debian's by the same name."""
    slow: bool = False
    """Too slow for the workloads' full size: what it cannot finish in time is cut off, and told."""

    def prepare(self) -> None:
        """Installs what it needs; raises MissingError."""
        if self.environment is not None:
            self.environment.prepare()
        if self.program is not None and shutil.which(self.program) is None:
            raise MissingError(f"{self.program} is missing: apt-get install {self.program}")


def _authorized(key: str = KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _alone(stage: Stage, name: str, command: list[str], url: str, ready: str, environ: dict[str, str]) -> Running:
    """A program whose processes all run on the contestants' core."""
    process = stage.bench.start(name, command, environ, core=stage.bench.core)
    stage.bench.wait(name, ready, START_S)
    family = machine.family_of(process.pid)
    for pid in family:
        machine.pin(pid, stage.bench.core)
    return Running(name, url, _authorized(), {"worker": family})


def _direct(stage: Stage, name: str) -> Running:
    return Running(name, f"http://{stage.upstream}", _authorized(), {})


def _plain(stage: Stage, name: str) -> Running:
    url = f"http://127.0.0.1:{free_port()}"
    command = ["-m", "benchmarks.plain_proxy", "--upstream", f"http://{stage.upstream}"]
    command += ["--listen", url.removeprefix("http://")]
    return _alone(stage, name, [sys.executable, *command], url, url + asked.CHAT_PATH, {})


def _nginx(stage: Stage, name: str) -> Running:
    port, folder = free_port(), stage.bench.folder
    file = folder / "contestant.conf"
    file.write_text(configurations.NGINX.format(folder=folder, port=port, upstream=stage.upstream))
    url = f"http://127.0.0.1:{port}"
    return _alone(stage, name, ["nginx", "-p", str(folder), "-c", str(file)], url, url + asked.CHAT_PATH, {})


def _envoy(stage: Stage, name: str) -> Running:
    port, admin, folder = free_port(), free_port(), stage.bench.folder
    file = folder / f"{name}.yaml"
    tracing = name == "envoy-otel"
    file.write_text(
        configurations.envoy(
            name=name,
            port=port,
            admin=admin,
            folder=str(folder),
            upstream=stage.upstream,
            sink=stage.sink,
            tracing=tracing,
        )
    )
    url = f"http://127.0.0.1:{port}"
    program = [str(environments.ENVOY.program("envoy")), "-c", str(file), "--concurrency", "1", "-l", "error"]
    program += ["--use-dynamic-base-id"]
    running = _alone(stage, name, program, url, url + asked.CHAT_PATH, {})
    if tracing:
        running.metrics_url = f"http://127.0.0.1:{admin}/stats/prometheus"
        running.sent = "envoy_tracing_opentelemetry_spans_sent"
    return running


def _portkey(stage: Stage, name: str) -> Running:
    port = free_port()
    package = environments.PORTKEY.folder / "node_modules" / "@portkey-ai" / "gateway"
    url = f"http://127.0.0.1:{port}"
    command = ["node", str(package / "build" / "start-server.js"), f"--port={port}", "--headless"]
    # a custom host of this machine has to be allowed
    environ = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    running = _alone(stage, name, command, url, url + "/", environ)
    running.headers |= {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://{stage.upstream}/v1"}
    return running


def _litellm(stage: Stage, name: str) -> Running:
    port = free_port()
    file = stage.bench.folder / "litellm.yaml"
    file.write_text(configurations.LITELLM.format(model=asked.MODEL, upstream=stage.upstream, key=SECRET))
    url = f"http://127.0.0.1:{port}"
    program = [str(environments.LITELLM.program("litellm")), "--config", str(file), "--host", "127.0.0.1"]
    # its price list is read from the package, not from the network
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
    running = _alone(stage, name, [*program, "--port", str(port)], url, url + "/health/liveliness", environ)
    running.headers = _authorized(SECRET)
    return running


def _smg(stage: Stage, name: str) -> Running:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = [str(environments.SMG.program("smg")), "launch", "--host", "127.0.0.1", "--port", str(port)]
    program += ["--worker-urls", f"http://{stage.upstream}", "--policy", "round_robin", "--log-level", "error"]
    program += ["--disable-retries", "--disable-circuit-breaker", "--max-concurrent-requests", "20000"]
    program += ["--max-payload-size", str(512 * 1024 * 1024), "--prometheus-port", str(free_port())]
    return _alone(stage, name, program, url, url + "/readiness", {})


def sluiceway(stage: Stage, name: str, *, recording: bool = True, workers: int = 1) -> Running:
    """The gateway: with everything on, or with metrics, log line and spans off."""
    port, admin, bench = free_port(), free_port(), stage.bench
    file = bench.folder / f"{name}.yaml"
    (bench.folder / f"{name}-state").mkdir(exist_ok=True)
    text = configurations.SLUICEWAY.format(
        name=name, port=port, admin=admin, folder=bench.folder, upstream=stage.upstream, key=KEY, workers=workers,
        recording=str(recording).lower(),
    )  # fmt: skip
    file.write_text(text)
    environ = {}
    if recording:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{stage.sink}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
    process = bench.start(name, [str(Path(sys.executable).with_name("sluiceway")), "serve", "-c", str(file)], environ)
    bench.wait(name, f"http://127.0.0.1:{admin}/readyz", START_S)
    parts: dict[str, list[int]] = {}
    for pid in machine.family_of(process.pid):
        said = machine.arguments_of(pid)
        part = next((part for module, part in _PARTS.items() if module in said), "supervisor")
        parts.setdefault(part, []).append(pid)
    cores = [bench.core] if workers == 1 else sorted(os.sched_getaffinity(0))
    for number, pid in enumerate(parts["worker"]):
        machine.pin(pid, cores[number % len(cores)])
    running = Running(name, f"http://127.0.0.1:{port}", _authorized(), parts, {"embeddings": "/embeddings"})
    if recording:
        running.metrics_url = f"http://127.0.0.1:{admin}/metrics"
        running.log = RecordLog(bench.folder / f"{name}.out")
        running.spans = SinkLog(bench.folder / "sink.log")
    return running


def _unrecorded(stage: Stage, name: str) -> Running:
    return sluiceway(stage, name, recording=False)


CONTESTANTS = (
    Contestant("direct", "no proxy: client and upstream alone", _direct),
    Contestant(
        "sluiceway",
        "consumer key, route by model name, usage read from every answer, metrics, one span pair and one log line each",
        sluiceway,
    ),
    Contestant("sluiceway-off", "the same without spans, metrics and log lines", _unrecorded),
    Contestant("plain", "the obvious aiohttp reverse proxy: copies, and nothing else", _plain),
    Contestant("nginx", "proxy_pass, access log; no key, no model, no usage", _nginx, program="nginx"),
    Contestant("envoy", "one route, access log; no key, no model, no usage", _envoy, environments.ENVOY),
    Contestant(
        "envoy-otel",
        "the same, and a span for every request from its OpenTelemetry tracer, to the sink that Sluiceway exports to",
        _envoy,
        environments.ENVOY,
    ),
    Contestant("smg", "routes to one worker; reads the request; no key, no span", _smg, environments.SMG),
    Contestant(
        "portkey",
        "provider by header; reads and writes the request anew; no key, no span, no log line",
        _portkey,
        environments.PORTKEY,
        slow=True,
    ),
    Contestant(
        "litellm",
        "master key, model by name, usage and cost of every answer; no database, no span",
        _litellm,
        environments.LITELLM,
        slow=True,
    ),
)
