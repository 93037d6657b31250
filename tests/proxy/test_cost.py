"""What a request costs, from the file of prices to its record: the same tokens in each protocol's own words."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.fakes.raw import connect
from tests.fakes.scripted import ReadRequest, Scripted, Send
from tests.fakes.worker import KEY, document_of, running

PRICES = """\
currency: CNY
models:
  - {match: "big-*", service: sim, input: 10, cached_input: 1, cache_write: 20, output: 100}
"""
COST = pytest.approx((300 * 10 + 600 * 1 + 100 * 20 + 50 * 100) / 1e6)

OPENAI = {
    "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 1000,
        "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 100},
        "completion_tokens": 50,
    },
}
DASHSCOPE = {
    "output": {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]},
    "usage": {
        "input_tokens": 1000,
        "prompt_tokens_details": {"cached_tokens": 600, "cache_creation_input_tokens": 100},
        "output_tokens": 50,
    },
}
ANTHROPIC = {
    "type": "message",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 300,
        "cache_read_input_tokens": 600,
        "cache_creation_input_tokens": 100,
        "output_tokens": 50,
    },
}
PATHS = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "dashscope": "/api/v1/services/aigc/text-generation/generation",
}


async def fields_of(
    protocol: str, answer: dict[str, Any], prices: Path | None, model: str = "big-one"
) -> dict[str, Any]:
    """The record of one request that was answered so."""
    body, asked = orjson.dumps(answer), orjson.dumps({"model": model})
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    request = (
        f"POST {PATHS[protocol]} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(asked)}\r\n\r\n"
    ).encode()
    more = {} if prices is None else {"prices": str(prices)}
    async with Scripted(ReadRequest(), Send(head + body)) as upstream:
        document = document_of(
            f"http://127.0.0.1:{upstream.port}", provider="dashscope", model_api={"protocols": [protocol]}, **more
        )
        async with running(document) as worker, connect(worker.port) as client:
            client.send(request + asked)
            assert (await client.answer()).status == 200
            return await worker.fields()


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("protocol", "answer"), [("openai", OPENAI), ("dashscope", DASHSCOPE), ("anthropic", ANTHROPIC)]
)
async def test_the_same_tokens_cost_the_same_in_every_protocol(
    prices: Path, protocol: str, answer: dict[str, Any]
) -> None:
    fields = await fields_of(protocol, answer, prices)
    assert (fields["gen_ai.usage.cost"], fields["sluiceway.usage.currency"]) == (COST, "CNY")
    assert fields["gen_ai.usage.input_tokens"] == 1000
    assert fields.get("sluiceway.usage.raw_input_tokens") == (300 if protocol == "anthropic" else None)


async def test_a_model_without_a_price_has_no_cost(prices: Path) -> None:
    fields = await fields_of("openai", OPENAI, prices, "small")
    assert "gen_ai.usage.cost" not in fields
    assert "sluiceway.usage.currency" not in fields


async def test_without_the_file_there_is_no_cost() -> None:
    assert "gen_ai.usage.cost" not in await fields_of("openai", OPENAI, None)
