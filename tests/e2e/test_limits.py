"""Every key of `limits`, every time of a service and of a drain works: which test shows it, or the test itself.

What each does is in docs/configuration.md; tests/test_docs.py checks that it has its line there, with its default.
"""

import ast
import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.config.model import Document, Limits, ServiceConfig
from tests.e2e.two_targets import NOBODY, OK, answer, ask, gateway, record_of, says, verdicts
from tests.fakes.raw import connect
from tests.fakes.scripted import ReadHead, ReadRequest, ReadToEnd, Scripted, Send, Stall, Tell, Wait
from tests.fakes.worker import document_of, running
from tests.proxy.test_edge import OK as ANSWER
from tests.proxy.test_edge import post, refused

HERE = Path(__file__)
TESTS = HERE.parent.parent

SHOWN: dict[str, tuple[str, ...]] = {
    "limits.max_connections": (
        "proxy/test_edge_endings.py",
        "test_a_connection_above_the_limit_is_refused_and_those_below_are_not",
    ),
    "limits.max_inflight_requests": ("e2e/test_limits.py", "test_requests_above_the_limit_are_503"),
    "limits.max_head_bytes": ("proxy/test_edge.py", "test_a_head_above_the_limit_is_431_before_and_after_it_is_whole"),
    "limits.max_request_bytes": ("e2e/test_limits.py", "test_a_body_above_the_limit_is_413"),
    "limits.hold_memory_bytes": (
        "e2e/test_fallback.py",
        "test_a_body_that_cannot_be_held_loses_its_fallback_and_nothing_else",
    ),
    "limits.hold_disk_bytes": (
        "e2e/test_fallback.py",
        "test_a_body_that_cannot_be_held_loses_its_fallback_and_nothing_else",
    ),
    "limits.hold_response_bytes": (
        "e2e/test_fallback_edges.py",
        "test_a_refusal_that_is_too_large_to_be_kept_is_left_behind",
    ),
    "limits.max_held_memory_bytes": ("e2e/test_limits.py", "test_what_all_requests_hold_together_is_bounded"),
    "limits.max_held_disk_bytes": ("e2e/test_limits.py", "test_what_all_requests_hold_together_is_bounded"),
    "limits.head_timeout_ms": ("proxy/test_edge_slow.py", "test_a_head_that_comes_in_drops_has_one_time_for_all_of_it"),
    "limits.body_idle_timeout_ms": ("proxy/test_edge_slow.py", "test_a_body_that_comes_in_drops_has_stopped_arriving"),
    "limits.write_idle_timeout_ms": ("proxy/test_edge_slow.py", "test_an_answer_that_is_taken_in_drops_is_not_taken"),
    "limits.keepalive_timeout_ms": ("proxy/test_edge_endings.py", "test_a_head_that_arrives_is_not_an_idle_connection"),
    "services[].connect_timeout_ms": ("e2e/test_limits.py", "test_a_connection_that_is_not_made_in_time_is_502"),
    "services[].idle_timeout_ms": ("e2e/test_ending_table.py", "test_an_ending"),
    "services[].total_timeout_ms": ("e2e/test_ending_table.py", "test_an_ending"),
    "services[].max_connections": (
        "e2e/test_fallback_edges.py",
        "test_a_service_whose_connections_are_all_busy_is_left_out_and_not_blamed",
    ),
    "drain_delay_ms": ("e2e/test_draining.py", "test_requests_are_served_during_the_delay"),
    "drain_timeout_ms": ("e2e/test_draining.py", "test_what_takes_too_long_is_cut_and_says_so"),
}


def test_every_limit_has_a_test() -> None:
    keys = {f"limits.{key}" for key in Limits.model_fields}
    keys |= {
        f"services[].{key}"
        for key in ServiceConfig.model_fields
        if key.endswith("timeout_ms") or key.startswith("max_")
    }
    keys |= {key for key in Document.model_fields if key.startswith("drain_")}
    assert keys == set(SHOWN)


@pytest.mark.parametrize(("file", "name"), set(SHOWN.values()))
def test_the_tests_are_there(file: str, name: str) -> None:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)}


@pytest.mark.parametrize("where", ["limits", "model_api"])
async def test_requests_above_the_limit_are_503(where: str) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()
    document: dict[str, Any] = {where: {"max_inflight_requests": 1}}
    async with (
        Scripted(ReadRequest(), Tell(arrived), Wait(go), Send(ANSWER), ReadRequest(), Send(ANSWER)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", **document)) as worker,
        connect(worker.port) as first,
        connect(worker.port) as second,
    ):
        first.send(post())
        await asyncio.wait_for(arrived.wait(), 10)
        second.send(post())
        got = await second.answer()
        assert (got.status, got.headers["x-sluiceway-error"], got.headers["retry-after"]) == (503, "overloaded", "1")
        assert (await worker.fields())["sluiceway.error.origin"] == "gateway"
        go.set()
        assert (await first.answer()).status == 200
        second.send(post())  # it was only turned away, and now there is room
        assert (await second.answer()).status == 200


@pytest.mark.parametrize("where", ["limits", "model_api"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [1001, 100_001], ids=["small", "large"])
async def test_a_body_above_the_limit_is_413(where: str, chunked: bool, size: int) -> None:
    """A declared one before a byte of it is read; a chunked one as soon as it is there: the upstream gets no end."""
    document: dict[str, Any] = {where: {"max_request_bytes": size - 1}}
    async with (
        Scripted.each((ReadHead(), ReadToEnd()), (ReadRequest(), Send(ANSWER))) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", **document)) as worker,
    ):
        async with connect(worker.port) as client:
            if chunked:
                client.send(post(b"%x\r\n%s\r\n" % (size, b"x" * size), b"Transfer-Encoding: chunked"))
            else:
                client.send(post(b"", length=size))
            await refused(client, worker, 413, "body_too_large")
        assert b"0\r\n\r\n" not in b"".join(body for one in upstream.connections for body in one.bodies)


async def test_a_body_of_just_the_limit_passes() -> None:
    async with (
        Scripted(ReadRequest(), Send(ANSWER)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", limits={"max_request_bytes": 1000})) as worker,
        connect(worker.port) as client,
    ):
        client.send(post(b"x" * 1000))
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    "limits",
    [
        {"max_held_disk_bytes": 100_000},
        {"hold_memory_bytes": 1 << 20, "max_held_memory_bytes": 1000, "max_held_disk_bytes": 0},
    ],
)
async def test_what_all_requests_hold_together_is_bounded(limits: dict[str, int]) -> None:
    """The request goes on; only its further target is lost."""
    large = b'{"messages":["%s"],"model":"m"}' % (b"x" * 700_000)
    async with (
        Scripted(*says(answer(503))) as one,
        Scripted(*OK) as two,
        gateway(one, two, limits=limits) as worker,
    ):
        assert (await ask(worker, large)).status == 503
        record = await record_of(worker)
        assert verdicts(record) == [("sim", "done", 503)]
        assert record["fields"]["sluiceway.tape_lost"] == "disk"
        assert (await ask(worker, b'{"model":"m"}')).status == 200  # one that needs no room


async def test_a_connection_that_is_not_made_in_time_is_502() -> None:
    """A server that accepts and says nothing where TLS is due."""
    async with Scripted(Stall()) as silent:
        document = document_of(f"https://127.0.0.1:{silent.port}", service={"connect_timeout_ms": 100})
        async with running(document) as worker:
            got = await ask(worker)
            assert (got.status, b"x-sluiceway-error: connect_failed" in got.head) == (502, True)
            assert (await worker.fields())["sluiceway.connect_ms"] > 90


async def test_without_times_a_service_may_take_its_time() -> None:
    """0 is none, also where the answer takes longer than any default in tests."""
    go = asyncio.Event()
    service = {"connect_timeout_ms": 0, "idle_timeout_ms": 0, "total_timeout_ms": 0}
    async with (
        Scripted(ReadRequest(), Wait(go), Send(ANSWER)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", service=service)) as worker,
    ):
        asking = asyncio.ensure_future(ask(worker))
        await asyncio.sleep(0.5)
        assert worker.records.empty()
        go.set()
        assert (await asking).status == 200


async def test_a_connection_without_a_request_is_closed() -> None:
    async with running(document_of(f"http://127.0.0.1:{NOBODY}", limits={"keepalive_timeout_ms": 200})) as worker:
        async with connect(worker.port) as client:
            client.send(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.answer()).status == 200
            assert await client.rest() == (b"", "fin")
        async with connect(worker.port) as silent:  # nor one that never had any
            assert await silent.rest() == (b"", "fin")
        assert worker.records.empty()
