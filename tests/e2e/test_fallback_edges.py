"""Fallback where two things happen at once: what one attempt ended with must not spoil what another one got."""

import asyncio
import gzip
from typing import Any

import orjson
import pytest

from observability.board import Cell
from tests.e2e.two_targets import (
    CHAT,
    ERROR,
    FINISH,
    LAST,
    NOBODY,
    OK,
    PING,
    ROLE,
    SSE,
    STREAM,
    TOKEN,
    Answer,
    answer,
    ask,
    bodies,
    chunk,
    gateway,
    record_of,
    says,
    verdicts,
)
from tests.fakes.raw import connect
from tests.fakes.scripted import Fin, ReadHead, ReadRequest, ReadToEnd, Scripted, Send, Tell, Wait
from tests.fakes.worker import KEY, FakeWorker

LARGE = b'{"messages":["%s"],"model":"m"}' % (b"x" * 300_000)
REFUSED = answer(503, b'{"error":{"code":"busy_there"}}')
RENAMED: list[dict[str, Any]] = [{"service": "two", "model": "another"}]


@pytest.mark.parametrize("body", [CHAT, LARGE], ids=["small", "large"])
async def test_where_the_next_target_cannot_have_the_body_the_answer_of_the_last_one_stands(body: bytes) -> None:
    """The name of the model is to be replaced, which an encoded body does not allow."""
    encoded = gzip.compress(body, 0)
    async with Scripted(*says(REFUSED)) as one, Scripted(*OK) as two, gateway(one, two, fallback=RENAMED) as worker:
        got = await ask(worker, encoded, b"Content-Encoding: gzip")
        record = await record_of(worker)
        assert (got.status, b"busy_there" in got.body) == (503, True)
        assert verdicts(record) == [("sim", "next_target", 503), ("two", "give_up", None)]
        assert record["attempts"][1]["error"] == "bad_request"
        assert record["fields"]["sluiceway.outcome"] == "upstream_error"
        assert not bodies(two)


async def test_a_target_that_cannot_be_used_does_not_hide_why_the_one_before_it_failed() -> None:
    async with Scripted(*OK) as two, gateway(NOBODY, two, fallback=RENAMED) as worker:
        got = await ask(worker, gzip.compress(CHAT), b"Content-Encoding: gzip")
        assert (got.status, b"x-sluiceway-error: connect_failed" in got.head) == (502, True)
        assert (await worker.fields())["error.type"] == "connect_failed"


@pytest.mark.parametrize("body", [CHAT, LARGE], ids=["small", "large"])
async def test_a_target_that_cannot_be_used_is_followed_by_one_that_can(body: bytes) -> None:
    encoded = gzip.compress(body, 0)
    routing = {"single": {"service": "sim", "model": "another"}}
    async with Scripted(*OK) as one, Scripted(*OK) as two, gateway(one, two, routing=routing) as worker:
        assert (await ask(worker, encoded, b"Content-Encoding: gzip")).status == 200
        assert verdicts(await record_of(worker)) == [("sim", "next_target", None), ("two", "done", 200)]
        assert (bodies(one), bodies(two)) == ([], [encoded])


async def test_a_tape_that_cannot_be_read_again_leaves_the_answer_that_came(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.pread", fail)
    limits = {"hold_memory_bytes": 1000}
    async with (
        Scripted(*says(REFUSED)) as one,
        Scripted(ReadHead(), ReadToEnd()) as two,
        gateway(one, two, limits=limits) as worker,
    ):
        got = await ask(worker, LARGE)
        record = await record_of(worker)
        assert (got.status, b"busy_there" in got.body) == (503, True)
        assert verdicts(record) == [("sim", "next_target", 503), ("two", "give_up", None)]
        assert record["fields"]["sluiceway.tape_lost"] == "disk"
        assert (worker.row[Cell.HELD_MEMORY_BYTES], worker.row[Cell.HELD_DISK_BYTES]) == (0, 0)


async def test_a_service_whose_connections_are_all_busy_is_left_out_and_not_blamed() -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    service = {"max_connections": 1, "connect_timeout_ms": 50, "cooldown": {"failures": 1, "base_ms": 60_000}}
    async with (
        Scripted(ReadRequest(), Tell(asked), Wait(go), Send(answer(200)), ReadRequest(), Send(answer(200))) as one,
        Scripted(*OK) as two,
        gateway(one, two, service=service) as worker,
    ):
        first = asyncio.ensure_future(ask(worker))
        await asyncio.wait_for(asked.wait(), 10)
        assert (await ask(worker)).status == 200
        assert verdicts(await record_of(worker)) == [("sim", "next_target", None), ("two", "done", 200)]
        go.set()
        assert (await first).status == 200
        await record_of(worker)
        assert (await ask(worker)).status == 200
        assert verdicts(await record_of(worker)) == [("sim", "done", 200)]


async def test_a_service_whose_connections_are_all_busy_and_nobody_else_there() -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    service = {"max_connections": 1, "connect_timeout_ms": 50}
    async with (
        Scripted(ReadRequest(), Tell(asked), Wait(go), Send(answer(200))) as one,
        gateway(one, NOBODY, service=service, fallback=[]) as worker,
    ):
        first = asyncio.ensure_future(ask(worker))
        await asyncio.wait_for(asked.wait(), 10)
        got = await ask(worker)
        assert (got.status, b"Retry-After: 1" in got.head, b"max_connections" in got.body) == (503, True, True)
        fields = await worker.fields()
        assert (fields["error.type"], fields["sluiceway.error.origin"]) == ("overloaded", "gateway")
        go.set()
        assert (await first).status == 200


async def test_a_key_that_others_lost_meanwhile_is_followed_by_the_next_target() -> None:
    """Two requests, two keys: while the body of the first refusal still comes, the second one takes the other key."""
    go = asyncio.Event()
    refusal = answer(429, b'{"error":{"code":"used_up"}}')
    async with (
        Scripted.each((ReadRequest(), Send(refusal[:-5]), Wait(go), Send(refusal[-5:])), says(refusal)) as one,
        Scripted(*OK, *OK) as two,
        gateway(one, two, service={"api_keys": ["sk-a", "sk-b"], "cooldown": {"base_ms": 60_000}}) as worker,
    ):
        first = asyncio.ensure_future(ask(worker))
        connection = await one.connection(0)
        while not connection.bodies:
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while "sim/0" not in worker.pipeline._router.cooldowns.cooling():
                await asyncio.sleep(0)
        assert (await ask(worker)).status == 200
        assert verdicts(await record_of(worker)) == [("sim", "next_target", 429), ("two", "done", 200)]
        go.set()
        assert (await first).status == 200
        assert verdicts(await record_of(worker)) == [("sim", "next_key", 429), ("two", "done", 200)]


async def test_a_dead_connection_is_no_attempt_that_counts() -> None:
    async with (
        Scripted.each((ReadRequest(), Send(answer(200)), ReadRequest(), Fin()), says(REFUSED)) as one,
        Scripted(*OK) as two,
        gateway(one, two, max_attempts=2) as worker,
    ):
        dead = [("sim", "same_target", None), ("sim", "next_target", 503), ("two", "done", 200)]
        for attempts in ([("sim", "done", 200)], dead):
            assert (await ask(worker)).status == 200
            assert verdicts(await record_of(worker)) == attempts


async def test_after_one_dead_connection_all_others_of_the_exchange_are_fresh() -> None:
    async with (
        Scripted.each((ReadRequest(), Send(REFUSED), ReadRequest(), Fin()), (ReadRequest(), Fin())) as one,
        Scripted(*OK) as two,
        gateway(one, two) as worker,
    ):
        assert (await ask(worker)).status == 200
        assert verdicts(await record_of(worker)) == [("sim", "next_target", 503), ("two", "done", 200)]
        assert (await ask(worker)).status == 200
        assert verdicts(await record_of(worker)) == [
            ("sim", "same_target", None),
            ("sim", "next_target", None),
            ("two", "done", 200),
        ]
        assert [len(connection.heads) for connection in two.connections] == [1, 1]


HEAD_OF_LARGE = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 300000\r\n\r\n" % KEY.encode()
)


async def test_a_refusal_that_comes_before_the_body_is_whole_stops_the_upload_and_its_clock() -> None:
    """The waits of a record do not overlap: what the client still has to send is not waited for beside the refusal."""
    told, go = asyncio.Event(), asyncio.Event()
    refusal = answer(503, b"{}")
    async with (
        Scripted(ReadHead(), Send(refusal[:-2]), Tell(told), Wait(go), Send(refusal[-2:])) as one,
        Scripted(*OK) as two,
        gateway(one, two) as worker,
        connect(worker.port) as client,
    ):
        client.send(HEAD_OF_LARGE)
        await asyncio.wait_for(told.wait(), 10)
        await asyncio.sleep(0.3)  # time passing is what is tested
        go.set()
        client.send(CHAT + b" " * (300_000 - len(CHAT)))
        assert (await client.head()).status == 200
        fields = (await record_of(worker))["fields"]
        assert fields["sluiceway.overhead_ms"] >= 0


async def test_an_answer_that_comes_before_the_body_is_whole_and_waits_for_it_blames_nobody() -> None:
    """We stop an upload at the head of an answer; a service that then says nothing more has our silence to blame."""
    service = {"idle_timeout_ms": 100, "cooldown": {"failures": 1, "base_ms": 60_000}}
    async with (
        Scripted(ReadHead(), Send(SSE), ReadToEnd()) as one,
        Scripted(*OK) as two,
        gateway(one, two, service=service) as worker,
        connect(worker.port) as client,
    ):
        client.send(HEAD_OF_LARGE)
        async with asyncio.timeout(10):
            while not (await one.connection(0)).closed.is_set():
                await asyncio.sleep(0.001)
        client.send(STREAM + b" " * (300_000 - len(STREAM)))
        assert (await client.head()).status == 200
        assert verdicts(await record_of(worker)) == [("sim", "next_target", 200), ("two", "done", 200)]
        assert not worker.pipeline._router.cooldowns.cooling()


@pytest.mark.parametrize("limit_bytes", [0, 65536])
async def test_a_refusal_that_is_too_large_to_be_kept_is_left_behind(limit_bytes: int) -> None:
    refusal = answer(503, b'{"error":"%s"}' % (b"x" * 100_000))
    limits = {"hold_response_bytes": limit_bytes}
    async with Scripted(*says(refusal)) as one, Scripted(*OK) as two, gateway(one, two, limits=limits) as worker:
        assert (await ask(worker)).status == 200
        assert verdicts(await record_of(worker)) == [("sim", "next_target", 503), ("two", "done", 200)]
    async with Scripted(*says(refusal)) as one, gateway(one, NOBODY, limits=limits, fallback=[]) as worker:
        got = await ask(worker)
        assert (got.status, len(got.body) > 100_000) == (503, True)


@pytest.mark.parametrize(
    ("said", "deadline_ms"),
    [
        (SSE + LAST, 0),
        (SSE + chunk(PING) + LAST, 0),
        (SSE + chunk(ROLE) + LAST, 60_000),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + PING, 0),
    ],
    ids=["empty", "comments", "a role", "until the connection ends"],
)
async def test_a_stream_that_ends_before_its_end_is_left_while_it_was_not_sent(said: bytes, deadline_ms: int) -> None:
    async with (
        Scripted(ReadRequest(), Send(said), Fin()) as one,
        Scripted(*OK) as two,
        gateway(one, two, first_token_timeout_ms=deadline_ms) as worker,
    ):
        assert (await ask(worker, STREAM)).status == 200
        record = await record_of(worker)
        assert verdicts(record) == [("sim", "next_target", 200), ("two", "done", 200)]
        assert record["attempts"][0]["error"] == "upstream_truncated"


async def test_a_service_that_breaks_every_stream_off_cools_down() -> None:
    async with (
        Scripted(ReadRequest(), Send(SSE + chunk(TOKEN)), Fin()) as one,
        Scripted(*says(SSE + chunk(TOKEN) + chunk(FINISH) + LAST)) as two,
        gateway(one, two, service={"cooldown": {"failures": 2, "base_ms": 60_000}}) as worker,
    ):
        for attempts in ([("sim", "cut", 200)], [("sim", "cut", 200)], [("two", "done", 200)]):
            await ask(worker, STREAM)
            assert verdicts(await record_of(worker)) == attempts


async def test_a_deadline_that_runs_out_in_the_queue_for_a_connection_blames_nobody() -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    service = {"max_connections": 1, "cooldown": {"failures": 1, "base_ms": 60_000}}
    async with (
        Scripted(ReadRequest(), Tell(asked), Wait(go), Send(answer(200))) as one,
        Scripted(*OK) as two,
        gateway(one, two, service=service, first_packet_timeout_ms=50) as worker,
    ):
        first = asyncio.ensure_future(ask(worker))
        await asyncio.wait_for(asked.wait(), 10)
        assert (await ask(worker, STREAM)).status == 200
        record = await record_of(worker)
        assert verdicts(record) == [("sim", "next_target", None), ("two", "done", 200)]
        assert record["attempts"][0]["error"] == "first_packet_timeout"
        assert not worker.pipeline._router.cooldowns.cooling()
        go.set()
        assert (await first).status == 200


async def ask_and_wait(worker: FakeWorker, upstream: Scripted, go: asyncio.Event) -> Answer:
    """Ask for a stream; `upstream` may go on 0.2 s after it has the request."""
    asking = asyncio.ensure_future(ask(worker, STREAM))
    connection = await upstream.connection(0)
    while not connection.bodies:
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)  # time passing is what is tested
    go.set()
    return await asking


async def test_the_times_of_an_answer_are_its_own() -> None:
    """A stream that begins with an error is kept; the next one says its role and breaks off a while later."""
    go = asyncio.Event()
    async with (
        Scripted(*says(SSE + chunk(ERROR) + LAST)) as one,
        Scripted(ReadRequest(), Send(SSE + chunk(ROLE)), Wait(go), Fin()) as two,
        gateway(one, two, first_token_timeout_ms=60_000) as worker,
    ):
        got = await ask_and_wait(worker, two, go)
        record = await record_of(worker)
        assert (got.status, b"overloaded_now" in got.body) == (200, True)
        assert [name for name, _, _ in verdicts(record)] == ["sim", "two"]
        # of the kept stream's event, which was read again at the end, and not of the role 0.2 s before
        assert record["fields"]["gen_ai.response.time_to_first_chunk"] >= 0.2


async def test_the_first_event_of_an_answer_is_not_that_of_the_attempt_before_it() -> None:
    go = asyncio.Event()
    async with (
        Scripted(*says(SSE + chunk(ERROR) + LAST)) as one,
        Scripted(ReadRequest(), Wait(go), Send(SSE + chunk(TOKEN) + chunk(FINISH) + LAST)) as two,
        gateway(one, two) as worker,
    ):
        assert (await ask_and_wait(worker, two, go)).status == 200
        assert (await record_of(worker))["fields"]["gen_ai.response.time_to_first_chunk"] >= 0.2


async def test_usage_that_was_asked_for_is_withheld_from_a_kept_stream_too() -> None:
    """The attempt after it was answered before it had asked for any; and nobody is left."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    refused = SSE + chunk(ERROR) + chunk(usage) + LAST
    async with (
        Scripted.each((ReadRequest(), Send(refused), ReadHead(), Fin()), (ReadHead(), Fin())) as one,
        Scripted(ReadHead(), Send(answer(503)[:-5]), Fin()) as two,
        gateway(one, two, fallback=[{"service": "two"}, {"service": "sim", "model": "gone"}]) as worker,
    ):
        got = await ask(worker, b'{"messages":["%s"],"model":"m","stream":true}' % (b"x" * 3_000_000))
        assert orjson.loads(bodies(one)[0])["stream_options"] == {"include_usage": True}
        assert [service for service, _, _ in verdicts(await record_of(worker))] == ["sim", "two", "sim", "sim"]
        assert (got.status, b"overloaded_now" in got.body, b"usage" in got.body) == (200, True, False)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (CHAT, answer(500, b'{"error":"%s"}' % (b"x" * 100_000))),
        (STREAM, SSE + chunk(ERROR) + chunk(TOKEN * 2000) + LAST),
    ],
    ids=["a page", "a stream"],
)
async def test_a_further_key_is_no_further_target(body: bytes, said: bytes) -> None:
    """Only a refused key is followed by the next one: any other answer is the client's, however large."""
    async with (
        Scripted(*says(said)) as one,
        gateway(one, NOBODY, service={"api_keys": ["sk-a", "sk-b"]}, fallback=[]) as worker,
    ):
        got = await ask(worker, body)
        assert b"x-sluiceway-error" not in got.head
        assert len(got.body) > 100_000
        assert verdicts(await record_of(worker)) == [("sim", "done", got.status)]
