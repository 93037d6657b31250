"""A whole gateway before the simulated upstream, with a Model API for each scenario: where official SDKs are clients.

async with Bed.serving(folder) as bed:
    result, records = await bed.records(call, 2)
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

KEY = "sk-consumer"
UPSTREAM_KEY = "sk-provider"
OTHER_KEY = "sk-of-another-team"
"""Of a consumer that `forbidden` does not serve."""
WAYS = ("sync", "async")

APIS: tuple[tuple[str, str, list[str], str], ...] = (
    # name and base path, scenario, protocols, service
    ("text", "text", ["openai", "anthropic", "dashscope"], "qwen"),
    ("claude", "text", ["anthropic"], "claude"),
    ("gpt", "text", ["openai"], "openai"),
    ("pictures", "image", ["dashscope"], "qwen"),
    ("gpt-pictures", "image", ["openai"], "openai"),
    ("films", "video", ["dashscope"], "qwen"),
    ("voices", "speech", ["dashscope"], "qwen"),
    ("gpt-voices", "speech", ["openai"], "openai"),
    ("vectors", "embedding", ["dashscope", "openai"], "qwen"),
    ("ranks", "rerank", ["dashscope"], "qwen"),
    ("others", "others", ["openai"], "openai"),
)


def document_of(upstream: str) -> dict[str, Any]:
    """The configuration of all these; `text` is the one that has no base path."""
    keys = {"api_keys": [UPSTREAM_KEY]}
    return {
        "services": [
            {"name": "qwen", "provider": "dashscope", "base_url": upstream, **keys},
            {"name": "openai", "provider": "openai", "base_url": f"{upstream}/v1", **keys},
            {"name": "claude", "provider": "anthropic", "base_url": upstream, **keys},
            {"name": "gone", "provider": "dashscope", "base_url": "http://127.0.0.1:9", **keys},
            {"name": "hasty", "provider": "dashscope", "base_url": upstream, "idle_timeout_ms": 300, **keys},
        ],
        "consumers": [{"name": "team", "keys": [KEY]}, {"name": "other", "keys": [OTHER_KEY]}],
        "model_apis": [
            *(
                _api(name, scenario, protocols, {"single": {"service": service}})
                for name, scenario, protocols, service in APIS
            ),
            *_troubled(),
        ],
    }


def _api(name: str, scenario: str, protocols: list[str], routing: dict[str, Any], **more: Any) -> dict[str, Any]:
    base_path = "/" if name == "text" else f"/{name}"
    group = {"resource_group": f"group-{scenario}", "labels": {"made-for": name}}
    more = {"scenario": scenario, "protocols": protocols, "base_path": base_path, "routing": routing, **group, **more}
    return {"name": name, **more}


def _troubled() -> list[dict[str, Any]]:
    """Text Model APIs of all protocols, each of which brings about the kind of error that it is named after."""
    protocols = ["openai", "anthropic", "dashscope"]

    def api(name: str, service: str = "qwen", routing: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return _api(name, "text", protocols, routing or {"single": {"service": service}}, **more)

    return [
        api("forbidden", consumers=["team"]),
        api("model_unknown", routing={"by_model": [{"match": "gpt-*", "service": "qwen"}]}),
        api("model_missing", routing={"by_model": [{"match": "*", "service": "qwen"}]}),
        api("body_too_large", max_request_bytes=10),
        api("connect_failed", "gone"),
        api("upstream_timeout", "hasty"),
        api("overloaded", max_inflight_requests=1),
        api("first_token_timeout", first_token_timeout_ms=300),
    ]


@dataclass
class Bed:
    """The two of them."""

    gateway: Gateway
    upstream: Simulated

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(cls, folder: Path) -> AsyncIterator["Bed"]:
        """Started, and ended without a word on stderr or a line that is no JSON."""
        async with (
            Simulated.running() as upstream,
            Gateway.serving(document_of(upstream.url), folder) as gateway,
        ):
            yield cls(gateway, upstream)
            assert not gateway.lines.other
            assert not gateway.errors

    def url(self, base: str) -> str:
        """The base URL of a Model API, without the version that SDKs have in theirs."""
        return self.gateway.url + ("" if base == "text" else f"/{base}")

    async def records(self, call: Awaitable[Any], count: int = 1) -> tuple[Any, list[dict[str, Any]]]:
        """What a call gives, and the records that it leaves, as many as that. One more would fail the next call."""
        before = len(self.gateway.lines.of("request"))
        result = await call
        records = await self.gateway.records(before + count)
        assert len(records) == before + count
        return result, records[before:]


def fields_of(record: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Those of a record that are named in `expected`; None where it has none."""
    return {name: record.get(name) for name in expected}


def nameless(result: Any) -> Any:
    """A result without the ids that the upstream makes of a request's bytes: a form has a new boundary each time."""
    if isinstance(result, dict):
        return {key: nameless(value) for key, value in result.items()}
    if isinstance(result, list):
        return [nameless(value) for value in result]
    return re.sub(r"[0-9a-f]{6,}(-[0-9a-f]+)*", "#", result) if isinstance(result, str) else result


async def in_thread(call: Callable[[], Any]) -> Any:
    """A synchronous call, while this loop reads the gateway's lines."""
    return await asyncio.to_thread(call)
