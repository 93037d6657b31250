"""The crowd of slow clients, small: limits end each while others are served; and how a result is judged."""

import asyncio

import pytest

from benchmarks.slow import complaints
from benchmarks.slow_clients import Crowd
from tests.fakes.raw import connect
from tests.fakes.simulated import Simulated
from tests.fakes.worker import KEY, document_of, running
from tests.proxy.test_edge import post


async def test_a_small_crowd_is_ended_by_the_limits_and_hinders_nobody() -> None:
    limits = {"head_timeout_ms": 1500, "body_idle_timeout_ms": 2000, "write_idle_timeout_ms": 2500}
    async with (
        Simulated.running() as upstream,
        running(document_of(upstream.url, limits=limits)) as worker,
        connect(worker.port) as client,
    ):
        crowd = Crowd(f"http://127.0.0.1:{worker.port}/v1/chat/completions", KEY, 30, again=False)
        await crowd.open()
        assert crowd.connected == 30
        trickling = asyncio.ensure_future(crowd.trickle(asyncio.Event()))
        served = 0
        while not trickling.done():
            client.send(post())
            assert (await client.answer()).status == 200
            served += 1
            await asyncio.sleep(0.02)
        assert dict(crowd.ended) == {"head 408": 10, "body 408": 10, "reader cut": 10}
        assert served > 10
        ended = [(await worker.fields()) for _ in range(30 + served)]
        errors = [fields["error.type"] for fields in ended if fields.get("error.type")]
        assert errors == ["client_timeout"] * 20
        assert len([fields for fields in ended if fields["sluiceway.outcome"] == "client_aborted"]) == 10


GOOD = {
    "p99_ms": (2.0, 2.9),
    "errors": 0,
    "left": 0,
    "ended": {"head 408": 3, "body 408": 3, "reader cut": 3},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"p99_ms": (2.0, 3.1)}, "1.55 times"),
        ({"errors": 1}, "1 requests"),
        ({"left": 2}, "2 slow clients were not ended"),
        ({"ended": {"head closed": 1}}, "otherwise than by a limit: head closed"),
    ],
)
def test_what_is_no_good_result(change: dict, words: str | None) -> None:
    found = complaints(GOOD | change)
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
