"""Many large bodies at once: byte for byte, read in passing, and in memory that does not depend on their size.

Uploads are chat requests with an inline image and `model` behind it, by Content-Length and chunked. Downloads are
images as base64 with the usage behind them, as JSON and as one line of server-sent events, in both protocols. Bodies
are made while they are sent and hashed while they are read, on both sides.

The worker's peak is VmHWM of /proc, which `clear_refs` starts anew (see `benchmarks.machine`).
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from benchmarks import machine
from benchmarks.memory import MIB, MODEL, body_of
from tests.fakes.certificates import Authority
from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-consumer"
READ_BYTES = 65536
GROWTH_BYTES = 8 * MIB
"""How much more the peak may be when bodies are eight times as large: buffers that happened to be full, not bodies."""


@dataclass(frozen=True)
class Kind:
    """A way to transfer. `stream` is what the record says of it; `operation` too."""

    path: str
    operation: str
    stream: bool = False
    request: bytes = b""
    """A download's whole body."""
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False


NATIVE_IMAGE = (
    b'{"model":"qwen-image","input":{"messages":[{"role":"user","content":[{"text":"a lock"}]}]},"parameters":{}}'
)
NATIVE_PATH = "/native/api/v1/services/aigc/multimodal-generation/generation"
UPLOADS = (
    Kind("/v1/chat/completions", "chat.completions"),
    Kind("/v1/chat/completions", "chat.completions", chunked=True),
)
DOWNLOADS = (
    Kind("/images/v1/images/generations", "images.generations", request=b'{"prompt":"a lock","model":"gpt-image-1"}'),
    Kind(
        "/images/v1/images/generations",
        "images.generations",
        stream=True,
        request=b'{"prompt":"a lock","stream":true,"model":"gpt-image-1"}',
    ),
    Kind(NATIVE_PATH, "multimodal-generation", request=NATIVE_IMAGE),
    Kind(
        NATIVE_PATH,
        "multimodal-generation",
        stream=True,
        request=NATIVE_IMAGE,
        headers=(("X-DashScope-SSE", "enable"), ("Accept", "text/event-stream")),
    ),
)


@dataclass
class Bed:
    """A gateway with one worker before a simulated upstream, and a client."""

    gateway: Gateway
    upstream: Simulated
    client: aiohttp.ClientSession
    url: str
    sent: int = 0

    @property
    def worker(self) -> int:
        """The pid of the worker."""
        [pid] = self.gateway.pids("proxy.worker")
        return pid

    async def transfer(self, kind: Kind, body_bytes: int) -> None:
        """One upload or download of that size: bytes on both sides, and the record."""
        self.sent += 1
        name = f"large-{self.sent}"
        sent = hashlib.sha256()

        async def pieces() -> AsyncIterator[bytes]:
            upload = body_of(self.sent, body_bytes) if not kind.request else iter((kind.request,))
            for piece in upload:
                sent.update(piece)
                yield piece

        headers = {
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "x-sim-id": name,
            "x-request-id": name,
            **dict(kind.headers),
        }
        if kind.request:
            headers["x-sim-answer-bytes"] = str(body_bytes)
        if not kind.chunked:
            headers["Content-Length"] = str(len(kind.request) or body_bytes)
        received, received_bytes, tail = hashlib.sha256(), 0, b""
        async with self.client.post(self.url + kind.path, data=pieces(), headers=headers) as answer:
            async for piece in answer.content.iter_chunked(READ_BYTES):
                received.update(piece)
                received_bytes += len(piece)
                tail = (tail + piece)[-2048:]
            assert answer.status == 200, tail
        entry = await self.upstream.finished(name)
        assert entry["body_sha256"] == sent.hexdigest()
        assert entry["response_sha256"] == received.hexdigest()
        assert max(entry["body_bytes"], received_bytes) >= body_bytes
        [record] = await self.gateway.records(1, **{"sluiceway.client_request_id": name})
        check(record, kind, entry)

    async def transfers(self, kinds: tuple[Kind, ...], count: int, body_bytes: int) -> int:
        """`count` of them at once, the kinds in turn; the worker's peak in bytes."""
        machine.reset_peak_memory(self.worker)
        await asyncio.gather(*(self.transfer(kinds[number % len(kinds)], body_bytes) for number in range(count)))
        return machine.peak_memory_bytes(self.worker)


def check(record: dict[str, Any], kind: Kind, entry: dict[str, Any]) -> None:
    """The record has what stands at the ends of the bodies."""
    expected = {
        "sluiceway.operation": kind.operation,
        "gen_ai.request.model": entry["model"],
        "gen_ai.request.stream": True if kind.stream else None,
        "sluiceway.outcome": "ok",
        "sluiceway.request.bytes": entry["body_bytes"],
        "sluiceway.response.bytes": entry["response_bytes"],
        "sluiceway.usage.source": "upstream",
        "gen_ai.usage.input_tokens": entry["input_tokens"],
        "gen_ai.usage.output_tokens": entry["output_tokens"],
        "sluiceway.usage.images": 1 if kind.request else None,
        "sluiceway.image.width": 1024 if kind.operation == "multimodal-generation" else None,
    }
    assert {key: record.get(key) for key in expected} == expected
    if not kind.request:
        assert entry["model"] == MODEL
    if kind.operation != "multimodal-generation":  # DashScope counts images, not tokens
        assert entry["input_tokens"] > 0


def document_of(upstream: str) -> dict[str, Any]:
    def api(name: str, scenario: str, protocol: str, base_path: str, service: str) -> dict[str, Any]:
        routing = {"single": {"service": service}}
        return {"name": name, "scenario": scenario, "protocols": [protocol], "base_path": base_path, "routing": routing}

    return {
        "services": [
            {"name": "qwen", "provider": "dashscope", "base_url": upstream, "api_keys": ["sk-provider"]},
            {"name": "openai", "provider": "openai", "base_url": upstream, "api_keys": ["sk-provider"]},
        ],
        "consumers": [{"name": "team", "keys": [KEY]}],
        "model_apis": [
            api("chat", "text", "openai", "/", "qwen"),
            api("images", "image", "openai", "/images", "openai"),
            api("native", "image", "dashscope", "/native", "qwen"),
        ],
    }


@contextlib.asynccontextmanager
async def serving(folder: Path, authority: Authority | None = None) -> AsyncIterator[Bed]:
    """`authority`: of the listener's certificate, where it speaks TLS."""
    tls = {"tls": {"certificate": str(authority.issue("127.0.0.1"))}} if authority else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url) | tls, folder) as gateway,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=authority.trusting() if authority else True),
            timeout=timeout,
            auto_decompress=False,
        ) as client,
    ):
        yield Bed(gateway, upstream, client, gateway.url.replace("http:", "https:") if authority else gateway.url)
        assert not gateway.errors


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    async with serving(tmp_path_factory.mktemp("large")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tls_bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    folder = tmp_path_factory.mktemp("large-tls")
    async with serving(folder, Authority(folder)) as running:
        yield running


@pytest.mark.parametrize("kinds", [UPLOADS, DOWNLOADS], ids=["uploads", "downloads"])
async def test_large_bodies_pass_unchanged_and_are_read(bed: Bed, kinds: tuple[Kind, ...]) -> None:
    await bed.transfers(kinds, 8, 16 * MIB)


@pytest.mark.parametrize("kinds", [UPLOADS, DOWNLOADS], ids=["uploads", "downloads"])
async def test_memory_does_not_depend_on_the_size_of_bodies(bed: Bed, kinds: tuple[Kind, ...]) -> None:
    small = await bed.transfers(kinds, 8, 4 * MIB)
    large = await bed.transfers(kinds, 8, 32 * MIB)
    assert large - small < GROWTH_BYTES


@pytest.mark.parametrize("kinds", [UPLOADS, DOWNLOADS], ids=["uploads", "downloads"])
async def test_memory_does_not_depend_on_the_size_of_bodies_over_tls(tls_bed: Bed, kinds: tuple[Kind, ...]) -> None:
    small = await tls_bed.transfers(kinds, 8, 4 * MIB)
    large = await tls_bed.transfers(kinds, 8, 32 * MIB)
    assert large - small < GROWTH_BYTES
