"""How much memory one worker needs while many large bodies pass: ``python -m benchmarks.memory``.

Two phases, each with `count` transfers at once of `body_bytes` each: uploads (a chat request with an inline image,
``model`` last, half of them with a content-length and half in chunks), then downloads (a chat answer of that size, half
JSON and half one SSE line). Bodies are made while they are sent and hashed while they are read, each with its number in
it, and the hashes are compared with the ledger of the simulated upstream: a byte lost, changed or mixed up is a
mismatch. ``--fallback`` sends the uploads to a Model API that routes by model and renames it, whose first target
refuses (503) when it has read the whole upload: the second gets it again from the tape.

The worker's peak is VmHWM of ``/proc/<pid>/status``, reset before each phase through ``clear_refs``. By itself it
starts the simulated upstream and the gateway (or ``--contestant plain``); with ``--url``, ``--upstream`` and ``--pid``
it uses what runs already. Exit: 0; 1 when a transfer failed or a hash differs; 2 when something does not start.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from benchmarks import machine
from benchmarks.contestants import CHAT_PATH, FAILING_PATH, KEY, RENAMED, Bench, NotReadyError
from benchmarks.upstream.fills import Fill

MIB = 1024 * 1024
READ_BYTES = 64 * 1024
MODEL = "qwen3-vl-plus"


@dataclass(slots=True)
class Phase:
    """What one phase did; `peak_bytes` and `before_bytes` are the worker's resident size, None without a worker."""

    name: str
    count: int
    body_bytes: int
    seconds: float = 0.0
    before_bytes: int | None = None
    peak_bytes: int | None = None
    mismatches: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """One line for a person."""
        rate = self.count * self.body_bytes / MIB / self.seconds if self.seconds else 0.0
        memory = ""
        if self.peak_bytes is not None and self.before_bytes is not None:
            memory = f", worker {self.before_bytes / MIB:.0f} MiB before, {self.peak_bytes / MIB:.0f} MiB at its peak"
        hashes = "all hashes equal" if not self.mismatches else f"{len(self.mismatches)} WRONG: {self.mismatches[0]}"
        return f"{self.count} {self.name} of {self.body_bytes / MIB:g} MiB: {rate:,.0f} MiB/s{memory}; {hashes}"


def body_of(number: int, body_bytes: int, model: str = MODEL) -> Iterator[bytes]:
    """A chat request of exactly `body_bytes` bytes as official SDKs order it: messages with the image, then model."""
    before = b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,'
    after = b'"}},{"type":"text","text":"What is in picture %d?"}]}],"model":"%s"}' % (number, model.encode())
    fill = body_bytes - len(before) - len(after)
    if fill < 0:
        raise ValueError(f"a body is at least {len(before) + len(after)} bytes, not {body_bytes}")
    yield before
    yield from Fill("image", 0, fill).pieces()
    yield after


@dataclass(frozen=True, slots=True)
class _Way:
    """What all transfers share."""

    session: ClientSession
    url: str
    upstream_url: str
    body_bytes: int
    key: str
    fallback: bool = False

    def headers(self, name: str) -> dict[str, str]:
        """Of a request with this name in the ledger."""
        return {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "x-sim-id": name,
        }

    async def ledger(self, name: str) -> dict[str, Any]:
        """The upstream's finished entry of that name; empty when it never finished."""
        query = {"id": name, "until": "finished"}
        async with self.session.get(f"{self.upstream_url}/sim/requests", params=query) as answer:
            entries: list[dict[str, Any]] = (await answer.json()).get("requests", [])
        return entries[-1] if entries else {}


async def measure(
    url: str,
    upstream_url: str,
    *,
    count: int,
    body_bytes: int,
    worker: int | None = None,
    key: str = KEY,
    fallback: bool = False,
) -> list[Phase]:
    """Runs both phases through `url`; reads the ledger at `upstream_url`, and the memory of the process `worker`."""
    timeout = ClientTimeout(total=None, sock_read=120)
    phases = []
    async with ClientSession(connector=TCPConnector(limit=0), timeout=timeout, auto_decompress=False) as session:
        way = _Way(session, url, upstream_url, body_bytes, key, fallback)
        for name, transfer in (("uploads", _upload), ("downloads", _download)):
            phase = Phase(name, count, body_bytes)
            if worker is not None:
                machine.reset_peak_memory(worker)
                phase.before_bytes = machine.peak_memory_bytes(worker)
            started = time.monotonic()
            transfers = (transfer(way, number) for number in range(count))
            for wrong in await asyncio.gather(*transfers):
                if wrong:
                    phase.mismatches.append(wrong)
            phase.seconds = time.monotonic() - started
            if worker is not None:
                phase.peak_bytes = machine.peak_memory_bytes(worker)
            phases.append(phase)
    return phases


async def _upload(way: _Way, number: int) -> str | None:
    """One upload; returns what is wrong with it, or None."""
    sha256 = hashlib.sha256()

    async def pieces() -> AsyncIterator[bytes]:
        for piece in body_of(number, way.body_bytes):
            if not way.fallback:
                sha256.update(piece)
            yield piece

    if way.fallback:  # what the second target gets: all the same, but for the model
        longer = len(RENAMED) - len(MODEL)
        for piece in body_of(number, way.body_bytes + longer, RENAMED):
            sha256.update(piece)
    name = f"memory-upload-{number}"
    headers = way.headers(name)
    if number % 2 == 0:
        headers["Content-Length"] = str(way.body_bytes)
    try:
        async with way.session.post(
            way.url + (FAILING_PATH if way.fallback else "") + CHAT_PATH, data=pieces(), headers=headers
        ) as answer:
            said = await answer.read()
            if answer.status != 200:
                return f"{name}: {answer.status} {said[:300]!r}"
    except (ClientError, TimeoutError) as error:
        return f"{name}: {error!r}"
    seen = await way.ledger(name)
    if seen.get("body_sha256") != sha256.hexdigest():
        return f"{name}: sent {way.body_bytes} bytes, the upstream got {seen.get('body_bytes')} with another hash"
    return None


async def _download(way: _Way, number: int) -> str | None:
    """One download; returns what is wrong with it, or None."""
    name = f"memory-download-{number}"
    headers = {**way.headers(name), "x-sim-answer-bytes": str(way.body_bytes), "x-sim-events": "1"}
    request: dict[str, Any] = {"messages": [{"role": "user", "content": f"picture {number}"}], "model": MODEL}
    if number % 2:  # with include_usage the gateway has nothing to add or to withhold, so that hashes must be equal
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    sha256, received = hashlib.sha256(), 0
    try:
        async with way.session.post(way.url + CHAT_PATH, json=request, headers=headers) as answer:
            async for piece in answer.content.iter_chunked(READ_BYTES):
                sha256.update(piece)
                received += len(piece)
            if answer.status != 200:
                return f"{name}: status {answer.status}"
    except (ClientError, TimeoutError) as error:
        return f"{name}: {error!r} after {received} bytes"
    seen = await way.ledger(name)
    if seen.get("response_sha256") != sha256.hexdigest() or received < way.body_bytes:
        return f"{name}: got {received} bytes, the upstream sent {seen.get('response_bytes')} with another hash"
    return None


def main() -> int:
    """Runs it and prints a line for each phase; see the module's description for the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--count", type=int, default=64, help="transfers at once")
    parser.add_argument("--mebibytes", type=float, default=64.0, help="size of each body")
    parser.add_argument("--contestant", choices=("gateway", "plain"), default="gateway")
    parser.add_argument("--url", help="a gateway that runs already; then also --upstream and --pid")
    parser.add_argument("--upstream", help="URL of its simulated upstream")
    parser.add_argument("--pid", type=int, help="its process, or the one that started it")
    parser.add_argument("--key", default=KEY, help="the consumer's key")
    parser.add_argument("--fallback", action="store_true", help="uploads are refused once and sent again")
    arguments = parser.parse_args()
    if arguments.url and not arguments.upstream:
        parser.error("--url needs --upstream")
    size = int(arguments.mebibytes * MIB)

    def measured(url: str, upstream_url: str, worker: int | None) -> list[Phase]:
        return uvloop.run(
            measure(
                url,
                upstream_url,
                count=arguments.count,
                body_bytes=size,
                worker=worker,
                key=arguments.key,
                fallback=arguments.fallback,
            )
        )

    if arguments.url:
        worker = (machine.worker_of(arguments.pid) or arguments.pid) if arguments.pid else None
        phases = measured(arguments.url.rstrip("/"), arguments.upstream.rstrip("/"), worker)
    else:
        with tempfile.TemporaryDirectory(prefix="sluiceway-memory-") as folder:
            try:
                bench = Bench(Path(folder), *machine.two_cores())
                try:
                    bench.start_simulated_upstream()
                    started = bench.start_plain() if arguments.contestant == "plain" else bench.start_gateway()
                    phases = measured(started.url, bench.upstream_url, started.worker)
                finally:
                    bench.stop()
            except (NotReadyError, ValueError) as error:
                print(error, file=sys.stderr)
                return 2
    for phase in phases:
        print(phase.describe())
    return 1 if any(phase.mismatches for phase in phases) else 0


if __name__ == "__main__":
    sys.exit(main())
