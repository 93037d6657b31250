"""The usage in the record is what the upstream said, for every operation: whole answers, streams, cut ones and errors.

What the upstream said stands in the ledger of the simulated one: only what really went out before a cut.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e import every_route
from tests.e2e.calls import CALLS, Call
from tests.e2e.every_route import MODEL_APIS, USAGE, Bed, Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")

COSTED = [call for call in CALLS if call.scenario != "others" or call.operation == "batches"]
"""Operations whose answers can have a usage."""
STREAMING = [call for call in COSTED if call.streams is not None]
GENERATING = [call for call in COSTED if call.after is None and call.scenario != "others" and call.method == "POST"]
"""Operations that a model works for, or a task is made by."""
IN_USAGE = ("input_tokens", "output_tokens", "characters")
"""What a usage object alone says: images may be counted, and say their size, without one; a recording its length."""
OUTPUT_TOKENS = USAGE["output_tokens"]
FEW_EVENTS = {"x-sim-events": "3", "x-sim-answer-bytes": "3000"}
DETAILS = {"x-sim-cached-tokens": "7", "x-sim-cache-write-tokens": "2", "x-sim-reasoning-tokens": "3"}


def table(calls: list[Call]) -> Any:
    """As parameters, each with its name."""
    return pytest.mark.parametrize("call", [pytest.param(call, id=call.name) for call in calls])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    async with every_route.running(tmp_path_factory.mktemp("usage")) as bed:
        yield bed


async def ask(bed: Bed, call: Call, headers: Mapping[str, str], leave_after: int | None = None) -> Exchange:
    """Of the first Model API that serves it."""
    serving = (name for name, (scenario, _, protocols) in MODEL_APIS.items()
               if call.scenario == scenario and call.protocol in protocols)  # fmt: skip
    return await bed.ask(call, next(serving), headers=headers, leave_after=leave_after)


def agree(exchange: Exchange, source: str | None = None) -> None:
    """The record has what the upstream said, and says how far that can be trusted (`source`: so far)."""
    found = exchange.record["sluiceway.usage.source"]
    recorded = dict(exchange.recorded)
    if found == "estimated":  # by the events that carried output
        assert recorded.pop(OUTPUT_TOKENS) > 0
    assert recorded == exchange.said
    if source is not None:
        assert found == source
    elif any(USAGE[name] in exchange.said for name in IN_USAGE):
        assert found in ("upstream", "partial")


SCRIPTS = {
    "details": DETAILS,
    "gzip": {**DETAILS, "x-sim-gzip": "force"},
    "crumbs": {"x-sim-chunk-bytes": "7"},
    "large": {"x-sim-answer-bytes": "200000"},
}


@pytest.mark.parametrize("script", SCRIPTS)
@table(COSTED)
async def test_of_a_whole_answer(bed: Bed, call: Call, script: str) -> None:
    exchange = await ask(bed, call, SCRIPTS[script])
    assert exchange.record["sluiceway.outcome"] == ("ok" if call.status == 200 else "upstream_error")
    agree(exchange, "upstream" if {*call.usage} & {*IN_USAGE} else None)


@pytest.mark.parametrize("script", [*SCRIPTS, "comments", "lines"])
@table(STREAMING)
async def test_of_a_whole_stream(bed: Bed, call: Call, script: str) -> None:
    more = {"comments": {"x-sim-keepalives": "3", **FEW_EVENTS}, "lines": {"x-sim-newline": "crlf"}}
    exchange = await ask(bed, call.streaming, {**SCRIPTS, **more}[script])
    assert exchange.entry is not None
    assert exchange.entry["stream"]
    assert (exchange.record["sluiceway.outcome"], exchange.entry["ending"]) == ("ok", "complete")
    agree(exchange, "upstream")
    assert exchange.record["sluiceway.time_to_first_token_ms"] > 0


@table([call for call in COSTED if call.after is None and call.scenario != "others"])
async def test_of_an_answer_without_usage(bed: Bed, call: Call) -> None:
    exchange = await ask(bed, call, {"x-sim-usage": "absent"})
    agree(exchange, "none")
    if call.streams is not None:
        exchange = await ask(bed, call.streaming, {"x-sim-usage": "absent"})
        agree(exchange, "estimated")


@pytest.mark.parametrize(
    ("cut", "chunks"), [*(("truncate", chunks) for chunks in range(6)), ("reset", 1), ("reset", 3)]
)
@table(STREAMING)
async def test_of_a_stream_that_the_upstream_breaks_off(bed: Bed, call: Call, cut: str, chunks: int) -> None:
    assert call.streams is not None
    if call.operation in ("chat.completions", "completions"):  # else the gateway asks, and keeps it from the client
        call = replace(call, streams={**call.streams, "stream_options": {"include_usage": True}})
    whole = await ask(bed, call.streaming, {**FEW_EVENTS, **DETAILS})
    exchange = await ask(bed, call.streaming, {**FEW_EVENTS, **DETAILS, f"x-sim-{cut}-after": str(chunks)})
    agree(exchange)
    assert exchange.entry is not None
    sent = exchange.body[: exchange.entry["response_bytes"]]  # behind it the gateway may say why there is no more
    assert hashlib.sha256(sent).hexdigest() == exchange.entry["response_sha256"]
    if exchange.record["sluiceway.usage.source"] == "upstream":  # it had said all, though not ended well
        assert exchange.said == whole.said
    elif exchange.record["sluiceway.outcome"] != "upstream_error":
        assert exchange.record["sluiceway.outcome"] == "upstream_aborted"


@pytest.mark.parametrize("chunks", [1, 2, 3, 4])
@table(STREAMING)
async def test_of_a_stream_that_the_client_leaves(bed: Bed, call: Call, chunks: int) -> None:
    script = {**FEW_EVENTS, **DETAILS, "x-sim-gate-after": str(chunks)}
    exchange = await ask(bed, call.streaming, script, leave_after=chunks)
    assert exchange.entry is not None
    agree(exchange)
    if exchange.entry["ending"] == "client_left":
        assert exchange.record["sluiceway.outcome"] in ("client_aborted", "ok")


@table(GENERATING)
async def test_of_an_answer_that_the_upstream_breaks_off(bed: Bed, call: Call) -> None:
    exchange = await ask(bed, call, {"x-sim-chunk-bytes": "9", "x-sim-truncate-after": "1"})
    assert exchange.entry is not None
    assert exchange.entry["ending"] == "cut"
    assert exchange.record["sluiceway.outcome"] == "upstream_aborted"
    agree(exchange, "none")


@pytest.mark.parametrize("form", ["json", "sse", "inside", "sse-inside"])
@pytest.mark.parametrize("status", [400, 429])
@table(GENERATING)
async def test_of_an_error(bed: Bed, call: Call, status: int, form: str) -> None:
    exchange = await ask(bed, call, {"x-sim-status": str(status), "x-sim-error-form": form})
    assert exchange.said == {}
    assert exchange.record["sluiceway.outcome"] == "upstream_error"
    blamed = "client" if exchange.status == 400 else "upstream"
    assert exchange.record["sluiceway.error.origin"] == blamed
    expected = {
        "openai": {400: "invalid_parameter_error", 429: "limit_requests"},
        "anthropic": {400: "invalid_request_error", 429: "rate_limit_error"},
        "dashscope": {400: "InvalidParameter", 429: "Throttling.RateQuota"},
        "vllm": {400: "BadRequestError", 429: "RateLimitError"},
    }
    assert exchange.record["error.type"] == expected[call.protocol][status]
    agree(exchange, "none")


@pytest.mark.parametrize("events", [1, 2])
@table(STREAMING)
async def test_of_an_error_inside_a_stream(bed: Bed, call: Call, events: int) -> None:
    script = {**FEW_EVENTS, **DETAILS, "x-sim-error-after": str(events), "x-sim-error-code": "ours"}
    exchange = await ask(bed, call.streaming, script)
    agree(exchange)
    if exchange.entry is not None and b"ours" in exchange.body:
        assert exchange.record["sluiceway.outcome"] == "upstream_error"
        assert exchange.record["error.type"] == "ours"


@pytest.mark.parametrize("usage", ["late", "absent"])
@pytest.mark.parametrize("end", ["SUCCEEDED", "PARTLY", "FAILED", "CANCELED", "UNKNOWN"])
@table([call for call in COSTED if call.operation == "tasks" and "task_id" in call.usage])
async def test_of_a_task(bed: Bed, call: Call, end: str, usage: str) -> None:
    """Without a usage object, results are counted."""
    assert call.after is not None
    made = replace(call.after, headers={**call.after.headers, "x-sim-task-end": end, "x-sim-usage": usage})
    exchange = await bed.ask(replace(call, after=made), f"{call.scenario}-qwen")
    succeeded = end in ("SUCCEEDED", "PARTLY")
    agree(exchange, "upstream" if succeeded and usage == "late" else "none")
    assert exchange.record["gen_ai.response.finish_reasons"] in (["SUCCEEDED" if succeeded else end], ["stop", "stop"])
    if end == "FAILED":
        assert (exchange.record["sluiceway.outcome"], exchange.record["error.type"]) == (
            "upstream_error",
            "InvalidParameter",
        )
