"""One request of each kind, through a whole gateway to the simulated upstream, as applications send them."""

import base64
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import openai
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.observability.wire.test_media import png

KEY: Final = "key-of-the-shop"
IMAGE: Final = png(640, 480) + random.Random(6).randbytes(40_000)
"""A PNG by its head. Its base64 is looked for in what backends have."""
SYSTEM: Final = "You answer customers of a shop for sailing boats, in two sentences at most."
NATIVE_IMAGE: Final = "/api/v1/services/aigc/multimodal-generation/generation"


def document(upstream: str, **top: Any) -> dict[str, Any]:
    """A gateway that records content, and has a service that is out of order before one that is not."""
    apis = [
        ("chat", "text", "/", ["openai", "anthropic", "dashscope"]),
        ("careful", "text", "/careful", ["openai"]),
        ("embedding", "embedding", "/embedding", ["openai"]),
        ("image", "image", "/image", ["openai", "dashscope"]),
    ]
    broken = {"routing": {"single": {"service": "first"}}, "fallback": [{"service": "qwen"}]}
    service = {"provider": "dashscope", "api_keys": ["sk-service"]}
    return {
        "services": [
            {"name": "qwen", "base_url": upstream, **service},
            {"name": "first", "base_url": f"{upstream}/sim:status=503", **service},
        ],
        "consumers": [{"name": "shop", "keys": [KEY]}],
        "model_apis": [
            {
                "name": name,
                "scenario": scenario,
                "base_path": path,
                "protocols": protocols,
                "monitoring": {"record_request": True, "record_response": True},
                **(broken if name == "careful" else {"routing": {"single": {"service": "qwen"}}}),
            }
            for name, scenario, path, protocols in apis
        ],
        **top,
    }


@dataclass(frozen=True)
class Caller:
    """An application: where the gateway is, and what it calls its request."""

    url: str
    name: str

    @property
    def headers(self) -> dict[str, str]:
        """Of each request."""
        delay_ms = 20 + 30 * (len(self.name) % 5)  # spans have lengths that can be seen
        return {"x-request-id": self.name, "x-sim-head-delay-ms": str(delay_ms), "x-sim-pace-ms": "5"}

    def openai(self, base_path: str = "", key: str = KEY) -> AsyncOpenAI:
        """OpenAI's SDK."""
        url = f"{self.url}{base_path}/v1"
        return AsyncOpenAI(base_url=url, api_key=key, max_retries=0, default_headers=self.headers)


async def chat(caller: Caller) -> None:
    """With instructions, and tokens of several kinds in the answer."""
    headers = {"x-sim-cached-tokens": "3", "x-sim-reasoning-tokens": "7"}
    said = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "Which anchor suits a boat of nine metres?"},
    ]
    async with caller.openai() as client:
        await client.chat.completions.create(model="qwen-plus", messages=said, extra_headers=headers)  # type: ignore[arg-type]


async def streamed_chat(caller: Caller) -> None:
    """The usage comes with the last event."""
    async with caller.openai() as client:
        stream = await client.chat.completions.create(
            model="qwen-max",
            messages=[{"role": "user", "content": "How do I wash a sail without harming it?"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        assert [event async for event in stream]


async def anthropic_chat(caller: Caller) -> None:
    """The same service in another protocol: instructions stand beside the messages."""
    async with AsyncAnthropic(
        base_url=caller.url, api_key=KEY, max_retries=0, default_headers=caller.headers
    ) as client:
        said = "When is the shop open on Saturdays?"
        await client.messages.create(
            model="qwen-plus", max_tokens=64, system=SYSTEM, messages=[{"role": "user", "content": said}]
        )


async def tools(caller: Caller) -> None:
    """A conversation in which a tool was called."""
    call = {"id": "call_1", "type": "function", "function": {"name": "stock", "arguments": '{"article": "cleat"}'}}
    said = [
        {"role": "user", "content": "Do you have cleats?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"pieces": 12}'},
    ]
    async with caller.openai() as client:
        await client.chat.completions.create(model="qwen-plus", messages=said)  # type: ignore[arg-type]


async def vision(caller: Caller) -> None:
    """An image in the request, as base64."""
    url = "data:image/png;base64," + base64.b64encode(IMAGE).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What is broken on this winch?"},
    ]
    async with caller.openai() as client:
        await client.chat.completions.create(
            model="qwen-vl-plus",
            messages=[{"role": "user", "content": parts}],  # type: ignore[list-item, misc]
        )


async def embeddings(caller: Caller) -> None:
    """Of two texts."""
    async with caller.openai("/embedding") as client:
        await client.embeddings.create(model="text-embedding-v4", input=["mooring lines", "fenders"])


async def translated_image(caller: Caller) -> None:
    """Asked for as of OpenAI, made by DashScope."""
    async with caller.openai("/image") as client:
        await client.images.generate(model="qwen-image", prompt="a lock in the fog")


async def native_image(caller: Caller) -> None:
    """DashScope's own protocol."""
    said = {"messages": [{"role": "user", "content": [{"text": "a schooner under full sail"}]}]}
    async with (
        aiohttp.ClientSession(caller.url, headers={**caller.headers, "authorization": f"Bearer {KEY}"}) as session,
        session.post(f"/image{NATIVE_IMAGE}", json={"model": "qwen-image", "input": said}) as response,
    ):
        assert response.status == 200, await response.text()


async def error(caller: Caller) -> None:
    """The upstream refuses."""
    async with caller.openai() as client:
        with suppress(openai.BadRequestError):
            await client.chat.completions.create(
                model="qwen-plus",
                messages=[{"role": "user", "content": "Tell me about the competitors."}],
                extra_headers={"x-sim-status": "400", "x-sim-error-code": "data_inspection_failed"},
            )
            raise AssertionError("it was answered")


async def refused(caller: Caller) -> None:
    """By the gateway: a key that nobody has."""
    async with caller.openai(key="key-of-nobody") as client:
        with suppress(openai.AuthenticationError):
            await client.chat.completions.create(model="qwen-plus", messages=[{"role": "user", "content": "Hello?"}])
            raise AssertionError("it was answered")


async def fallback(caller: Caller) -> None:
    """The first service is out of order, the second answers."""
    async with caller.openai("/careful") as client:
        await client.chat.completions.create(
            model="qwen-plus", messages=[{"role": "user", "content": "Is the crane free on Monday?"}]
        )


CALLS: Final[dict[str, Callable[[Caller], Awaitable[None]]]] = {
    call.__name__: call
    for call in (
        chat,
        streamed_chat,
        anthropic_chat,
        tools,
        vision,
        embeddings,
        translated_image,
        native_image,
        error,
        refused,
        fallback,
    )
}


async def send_all(url: str) -> None:
    """Each of them once, one after another."""
    for name, call in CALLS.items():
        await call(Caller(url, name))
