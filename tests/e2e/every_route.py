"""A gateway with a Model API for each scenario and each kind of service, before a simulated upstream."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tests.e2e.calls import CALLS, Call
from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

KEY = "sk-consumer"
PROVIDERS = {"qwen": "dashscope", "gpt": "openai", "claude": "anthropic", "own": "vllm"}
"""Service → its provider. Its key is `sk-` and its name."""

MODEL_APIS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "text-qwen": ("text", "qwen", ("openai", "anthropic", "dashscope")),
    "text-gpt": ("text", "gpt", ("openai",)),
    "text-claude": ("text", "claude", ("anthropic", "openai")),
    "text-own": ("text", "own", ("openai", "anthropic")),
    "image-qwen": ("image", "qwen", ("dashscope",)),
    "image-gpt": ("image", "gpt", ("openai",)),
    "video-qwen": ("video", "qwen", ("dashscope",)),
    "speech-qwen": ("speech", "qwen", ("dashscope",)),
    "speech-gpt": ("speech", "gpt", ("openai",)),
    "speech-own": ("speech", "own", ("openai",)),
    "embedding-qwen": ("embedding", "qwen", ("openai", "dashscope")),
    "embedding-own": ("embedding", "own", ("openai",)),
    "rerank-qwen": ("rerank", "qwen", ("dashscope",)),
    "rerank-own": ("rerank", "own", ("vllm",)),
    "others-qwen": ("others", "qwen", ("openai",)),
    "others-gpt": ("others", "gpt", ("openai",)),
}
"""Name, which is its base path too → scenario, service, protocols."""

USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_creation_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "image_tokens": "sluiceway.usage.image_tokens",
    "video_tokens": "sluiceway.usage.video_tokens",
    "audio_tokens": "sluiceway.usage.audio_tokens",
    "images": "sluiceway.usage.images",
    "image_width": "sluiceway.image.width",
    "image_height": "sluiceway.image.height",
    "characters": "sluiceway.usage.characters",
    "seconds": "sluiceway.usage.seconds",
    "videos": "sluiceway.usage.videos",
    "documents": "sluiceway.usage.documents",
    "task_id": "sluiceway.task_id",
}
"""What the ledger calls it → what records do."""

_numbers = itertools.count()


@dataclass
class Exchange:
    """One request, as the client, the upstream and the record have it."""

    path: str
    """Below the Model API's, `{id}` filled in."""
    status: int
    headers: Mapping[str, str]
    body: bytes
    """As far as it came."""
    record: dict[str, Any]
    entry: dict[str, Any] | None
    """Of the upstream's ledger; None: it saw nothing."""

    @property
    def received(self) -> dict[str, str]:
        """Headers that reached the upstream."""
        assert self.entry is not None
        return dict(self.entry["headers"])

    @property
    def said(self) -> dict[str, Any]:
        """The usage that the upstream's ledger has, under the names of records."""
        assert self.entry is not None
        return {name: self.entry[key] for key, name in USAGE.items() if self.entry[key] is not None}

    @property
    def recorded(self) -> dict[str, Any]:
        """The usage that the record has."""
        return {name: self.record[name] for name in USAGE.values() if name in self.record}


@dataclass
class Bed:
    """What the tests of the table talk to."""

    gateway: Gateway
    upstream: Simulated
    session: aiohttp.ClientSession

    async def ask(
        self,
        call: Call,
        model_api: str,
        *,
        suffix: str = "",
        headers: Mapping[str, str] | None = None,
        leave_after: int | None = None,
    ) -> Exchange:
        """Through the gateway, with its own name in the ledger and in the record.

        `suffix`: behind the path. `leave_after`: the client reads so many events and is gone.
        """
        name = f"ask-{next(_numbers)}"
        path = await self.path_of(call)
        url = URL(f"{self.gateway.url}/{model_api}{path}{suffix}", encoded=True)
        auth = {"Authorization": f"Bearer {KEY}", "x-sim-id": name, "x-request-id": name}
        status, received, body = 0, {}, b""
        async with aiohttp.ClientSession() as session:  # of its own: one that was cut must not be used again
            request = session.request(call.method, url, headers={**auth, **call.headers, **(headers or {})},
                                      **call.request())  # fmt: skip
            with contextlib.suppress(aiohttp.ClientError):
                async with request as response:
                    status, received = response.status, dict(response.headers)
                    body = await _read(response, leave_after)
        [record] = await self.gateway.records(1, **{"sluiceway.client_request_id": name})
        entries = await self.upstream.seen(name)
        if entries and entries[-1]["ending"] == "running":
            entries = [await self.upstream.finished(name)]
        return Exchange(path, status, received, body, record, entries[-1] if entries else None)

    async def path_of(self, call: Call) -> str:
        """The call's path, once what it asks for was made, at the upstream itself."""
        if call.after is None:
            return call.path
        made = call.after
        async with self.session.request(
            made.method, self.upstream.url + made.path, headers=made.headers, **made.request()
        ) as response:
            said = await response.json()
        return call.path.replace("{id}", said["output"]["task_id"] if "output" in said else said["id"])


async def _read(response: aiohttp.ClientResponse, leave_after: int | None) -> bytes:
    body = b""
    try:
        while piece := await response.content.readany():
            body += piece
            if leave_after is not None and body.count(b"\n\n") >= leave_after:
                response.close()
                break
    except aiohttp.ClientError:
        pass  # cut: what came is what counts
    return body


def calls_of(model_api: str) -> list[Call]:
    """What a Model API serves."""
    scenario, _, protocols = MODEL_APIS[model_api]
    return [call for call in CALLS if call.scenario == scenario and call.protocol in protocols]


def document_of(upstream: str) -> dict[str, Any]:
    """The configuration."""
    return {
        "services": [
            {"name": name, "provider": provider, "base_url": upstream, "api_keys": [f"sk-{name}"]}
            for name, provider in PROVIDERS.items()
        ]
        + [{"name": "mixed", "provider": "openai", "api_keys": ["sk-mixed"], "base_urls": {"dashscope": upstream}}],
        "consumers": [{"name": "team", "keys": [KEY]}],
        "model_apis": [
            {
                "name": name,
                "scenario": scenario,
                "protocols": list(protocols),
                "base_path": f"/{name}",
                "resource_group": "table",
                "routing": {"single": {"service": service}},
            }
            for name, (scenario, service, protocols) in MODEL_APIS.items()
        ]
        + [
            {
                "name": "kept",
                "scenario": "text",
                "protocols": ["openai"],
                "base_path": "/compatible-mode",
                "strip_base_path": False,
                "routing": {"single": {"service": "gpt"}},
            },
            {
                "name": "translated",
                "scenario": "image",
                "protocols": ["openai"],
                "base_path": "/translated",
                "resource_group": "table",
                "routing": {"single": {"service": "qwen"}},
            },
            {
                "name": "pictures",
                "scenario": "image",
                "protocols": ["dashscope"],
                "base_path": "/pictures",
                "routing": {"by_model": [{"match": "qwen-*", "service": "qwen"}, {"match": "*", "service": "mixed"}]},
            },
        ],
    }


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Bed]:
    """All of it, until the end of the block."""
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), folder) as gateway,
        aiohttp.ClientSession() as session,
    ):
        yield Bed(gateway, upstream, session)
        assert not gateway.complaints()
