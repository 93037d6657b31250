"""Routing and fallback end to end: which upstream got what, what the client got, and what the record says of it.

`one` is the first target, `two` the fallback (`two_targets`).
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
import pytest
from structlog.testing import capture_logs

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
from tests.fakes.scripted import Fin, ReadHead, ReadRequest, ReadToEnd, Reset, Scripted, Send, Stall, Step, Tell, Wait
from tests.fakes.worker import KEY


class Case(NamedTuple):
    name: str
    one: Sequence[Step] | None
    two: Sequence[Step] | None
    status: int
    service: str
    verdicts: list[tuple[str, str, int | None]]
    outcome: str = "ok"
    body: bytes = CHAT
    model_api: Mapping[str, Any] = MappingProxyType({})


STREAMED = says(SSE, Send(chunk(ROLE)), Send(chunk(TOKEN)), Send(chunk(FINISH)), Send(LAST))

CASES = [
    Case("refused connection", None, OK, 200, "two", [("sim", "next_target", None), ("two", "done", 200)]),
    Case("503", says(answer(503)), OK, 200, "two", [("sim", "next_target", 503), ("two", "done", 200)]),
    Case("429", says(answer(429)), OK, 200, "two", [("sim", "next_target", 429), ("two", "done", 200)]),
    Case("400 is final", says(answer(400)), OK, 400, "sim", [("sim", "done", 400)], "upstream_error"),
    Case("401 is final", says(answer(401)), OK, 401, "sim", [("sim", "done", 401)], "upstream_error"),
    Case("closed before the head", (ReadRequest(), Fin()), OK, 200, "two",
         [("sim", "next_target", None), ("two", "done", 200)]),
    Case("reset before the head", (ReadRequest(), Reset()), OK, 200, "two",
         [("sim", "next_target", None), ("two", "done", 200)]),
    Case("malformed head", (ReadRequest(), Send(b"HTP/1.1 200\r\n\r\n")), OK, 200, "two",
         [("sim", "next_target", None), ("two", "done", 200)]),
    Case("both refuse: the last answer", says(answer(503, b'{"error":{"code":"a"}}')),
         says(answer(502, b'{"error":{"code":"b"}}')), 502, "two",
         [("sim", "next_target", 503), ("two", "done", 502)], "upstream_error"),
    Case("the last answer that came", says(answer(503, b'{"error":{"code":"a"}}')), None, 503, "sim",
         [("sim", "next_target", 503), ("two", "give_up", None)], "upstream_error"),
    Case("nobody answers", None, None, 502, "two",
         [("sim", "next_target", None), ("two", "give_up", None)], "upstream_error"),
    Case("an error as the first event", says(SSE, Send(chunk(ERROR)), Send(LAST)), STREAMED, 200, "two",
         [("sim", "next_target", 200), ("two", "done", 200)], body=STREAM),
    Case("an error event behind output is the client's", says(SSE, Send(chunk(TOKEN)), Send(chunk(ERROR)), Send(LAST)),
         STREAMED, 200, "sim", [("sim", "done", 200)], "upstream_error", body=STREAM),
    Case("nothing after commit", says(SSE, Send(chunk(TOKEN)), Reset()), STREAMED, 200, "sim",
         [("sim", "cut", 200)], "upstream_aborted", body=STREAM),
    Case("no first packet", says(SSE, Stall()), STREAMED, 200, "two",
         [("sim", "next_target", 200), ("two", "done", 200)], body=STREAM,
         model_api={"first_packet_timeout_ms": 100}),
    Case("no first token, only pings and a role", says(SSE, Send(chunk(PING)), Send(chunk(ROLE)), Stall()), STREAMED,
         200, "two", [("sim", "next_target", 200), ("two", "done", 200)], body=STREAM,
         model_api={"first_token_timeout_ms": 100}),
    Case("no head within the deadline", (ReadRequest(), Stall()), STREAMED, 200, "two",
         [("sim", "next_target", None), ("two", "done", 200)], body=STREAM,
         model_api={"first_token_timeout_ms": 100}),
    Case("a status that is not on the list", says(answer(503)), OK, 503, "sim", [("sim", "done", 503)],
         "upstream_error", model_api={"fallback_on": [500]}),
    Case("no more than max_attempts", says(answer(503)), OK, 503, "sim", [("sim", "done", 503)],
         "upstream_error", model_api={"max_attempts": 1}),
]  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
async def test_where_a_request_goes(case: Case) -> None:
    async with contextlib.AsyncExitStack() as stack:
        one = NOBODY if case.one is None else await stack.enter_async_context(Scripted(*case.one))
        two = NOBODY if case.two is None else await stack.enter_async_context(Scripted(*case.two))
        worker = await stack.enter_async_context(gateway(one, two, **case.model_api))
        got = await ask(worker, case.body)
        record = await record_of(worker)
        assert got.status == case.status
        assert verdicts(record) == case.verdicts
        fields = record["fields"]
        assert (fields["sluiceway.outcome"], fields["sluiceway.service"]) == (case.outcome, case.service)
        assert fields["sluiceway.attempts"] == len(case.verdicts)
        assert fields["sluiceway.fallback"] == (case.service == "two")
        if got.status < 500 or b"x-sluiceway-error" not in got.head:
            assert f"x-sluiceway-service: {case.service}".encode() in got.head
        for upstream in (one, two):
            if not isinstance(upstream, int):
                assert set(bodies(upstream)) <= {case.body}
        if case.outcome == "ok" and case.body is STREAM:
            assert got.body.endswith(LAST)
            assert got.body.count(b"[DONE]") == 1


async def test_the_next_key_of_a_service() -> None:
    async with (
        Scripted.each(
            (ReadRequest(), Send(answer(401)), ReadRequest(), Send(answer(200)), ReadRequest(), Send(answer(200)))
        ) as one,
        gateway(one, NOBODY, service={"api_keys": ["sk-a", "sk-b"], "cooldown": {"base_ms": 60000}}) as worker,
    ):
        for attempts in ([("sim", "next_key", 401), ("sim", "done", 200)], [("sim", "done", 200)]):
            assert (await ask(worker)).status == 200
            assert verdicts(await record_of(worker)) == attempts
        used = [head.split(b"Bearer ")[1].split(b"\r\n")[0] for c in one.connections for head in c.heads]
        assert used == [b"sk-a", b"sk-b", b"sk-b"]  # the refused one cools down


async def test_a_service_that_failed_is_passed_over_until_its_cool_down_is_over() -> None:
    async with (
        Scripted(*says(answer(500))) as one,
        Scripted(*OK, *OK) as two,
        gateway(one, two, service={"cooldown": {"failures": 1, "base_ms": 60000}}) as worker,
    ):
        for services in (["sim", "two"], ["two"], ["two"]):
            assert (await ask(worker)).status == 200
            assert [service for service, _, _ in verdicts(await record_of(worker))] == services


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b'{"messages":[],"model":"qwen-plus"}', 200, None),
        (b'{"messages":[{"model":"gpt-5"}],"model":"qw\\u0065n-plus"}', 200, None),
        (b'{"messages":[]}', 400, "model_missing"),
        (b'{"messages":[],"model":7}', 400, "model_missing"),
        (b'{"messages":[],"model":""}', 400, "model_missing"),
        (b'{"messages":[],"model":"llama"}', 404, "model_unknown"),
        (b'{"model":"qwen-plus","messages":[],"model":"gpt-5"}', 400, "bad_request"),
        (b'{"model":"qwen-plus","messages":[],"mod\\u0065l":"gpt-5"}', 400, "bad_request"),
    ],
)
@pytest.mark.parametrize("padding", [0, 200_000])
async def test_the_model_decides(body: bytes, status: int, kind: str | None, padding: int) -> None:
    body = body.replace(b'"messages":[', b'"pad":"%s","messages":[' % (b"x" * padding)) if padding else body
    by_model = [{"match": "qwen-*", "service": "sim"}, {"match": "gpt-?", "service": "two"}]
    async with (
        Scripted(*OK) as one,
        Scripted(*OK) as two,
        gateway(one, two, routing={"by_model": by_model}, fallback=[]) as worker,
    ):
        got = await ask(worker, body)
        fields = await worker.fields()
        assert got.status == status
        assert fields.get("error.type") == kind
        if kind is None:
            assert bodies(one) == [body]
            assert fields["gen_ai.request.model"] == "qwen-plus"
        else:
            assert f"x-sluiceway-error: {kind}".encode() in got.head
            assert not one.connections or not bodies(one)
        assert not two.connections


async def test_a_second_model_behind_megabytes_is_refused_before_the_upstream_has_the_whole_body() -> None:
    body = b'{"model":"qwen-plus","pad":"%s","model":"gpt-5"}' % (b"x" * 3_000_000)
    async with (
        Scripted(ReadHead(), ReadToEnd()) as one,
        gateway(one, NOBODY, routing={"single": {"service": "sim", "model": "other"}}, fallback=[]) as worker,
    ):
        got = await ask(worker, body)
        assert (got.status, b"x-sluiceway-error: bad_request" in got.head) == (400, True)
        connection = await one.connection(0)
        await asyncio.wait_for(connection.closed.wait(), 10)
        assert not any(body.endswith(LAST) for body in connection.bodies)


@pytest.mark.parametrize("padding", [0, 1_000_000])
async def test_each_target_gets_its_own_name_of_the_model(padding: int) -> None:
    body = b'{"messages":["%s"],"model" : "qwen-plus","n":1e0}' % (b"x" * padding)
    async with (
        Scripted(*says(answer(503))) as one,
        Scripted(*OK) as two,
        gateway(
            one,
            two,
            routing={"by_model": [{"match": "*", "service": "sim", "model": "first"}]},
            fallback=[{"service": "two", "model": "second"}],
        ) as worker,
    ):
        assert (await ask(worker, body)).status == 200
        record = await record_of(worker)
        assert bodies(one) == [body.replace(b"qwen-plus", b"first")]
        assert bodies(two) == [body.replace(b"qwen-plus", b"second")]
        assert record["fields"]["gen_ai.request.model"] == "qwen-plus"
        assert record["fields"]["sluiceway.upstream_model"] == "second"
        assert [one["model"] for one in record["attempts"]] == ["first", "second"]
        assert worker.row[12] == worker.row[13] == 0


async def test_a_body_that_was_held_for_its_model_goes_to_each_target_as_it_came_from_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = b'{"messages":["%s"],"model":"qwen-plus"}' % (b"xyz" * 1_000_000)
    by_model = [{"match": "qwen-*", "service": "sim"}]
    sent: list[int] = []
    send = os.sendfile
    monkeypatch.setattr("os.sendfile", lambda *how: sent.append(count := send(*how)) or count)
    async with (
        Scripted(*says(answer(503))) as one,
        Scripted(*OK) as two,
        gateway(one, two, routing={"by_model": by_model}) as worker,
    ):
        assert (await ask(worker, body)).status == 200
        assert (bodies(one), bodies(two)) == ([body], [body])
        assert all(b"content-length: %d" % len(body) in head.lower() for head in (*one.heads, *two.heads))
        assert sum(sent) > len(body)
        assert worker.row[12] == worker.row[13] == 0


async def test_usage_is_asked_for_in_large_streams_too() -> None:
    body = b'{"messages":["%s"],"model":"m","stream":true}' % (b"x" * 300_000)
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    script = says(
        SSE, Send(chunk(TOKEN)), Send(chunk(FINISH[:-14])), Send(chunk(usage + b"data: [DONE]\n\n")), Send(LAST)
    )
    async with Scripted(*script) as one, gateway(one, NOBODY, fallback=[]) as worker:
        got = await ask(worker, body)
        asked = orjson.loads(bodies(one)[0])
        assert asked["stream_options"] == {"include_usage": True}
        assert (asked["messages"], asked["model"]) == (orjson.loads(body)["messages"], "m")
        assert b'"usage"' not in got.body
        assert (await worker.fields())["gen_ai.usage.output_tokens"] == 2


async def test_a_body_that_cannot_be_held_loses_its_fallback_and_nothing_else() -> None:
    body = b'{"messages":["%s"],"model":"m"}' % (b"x" * 300_000)
    async with (
        Scripted(*says(answer(503))) as one,
        Scripted(*OK) as two,
        gateway(one, two, limits={"hold_memory_bytes": 1000, "hold_disk_bytes": 1000}) as worker,
    ):
        assert (await ask(worker, body)).status == 503
        record = await record_of(worker)
        assert verdicts(record) == [("sim", "done", 503)]
        assert record["fields"]["sluiceway.tape_lost"] == "limit"
        assert not two.connections


@pytest.mark.parametrize(("status", "repeated"), [(500, False), (502, False), (429, True), (503, True)])
async def test_a_job_is_repeated_only_where_it_was_refused(status: int, repeated: bool) -> None:
    path = b"/api/v1/services/aigc/multimodal-generation/generation"
    async with (
        Scripted(*says(answer(status))) as one,
        Scripted(*OK) as two,
        gateway(one, two, protocols=["dashscope"], provider="dashscope") as worker,
    ):
        got = await ask(worker, CHAT, b"X-DashScope-Async: enable", path=path)
        assert got.status == (200 if repeated else status)
        assert len(bodies(two)) == repeated


async def test_a_client_that_leaves_closes_whatever_attempt_runs() -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    async with (
        Scripted(*says(answer(503))) as one,
        Scripted(ReadHead(), Tell(asked), Wait(go)) as two,
        gateway(one, two) as worker,
    ):
        asking = asyncio.ensure_future(ask(worker))
        await asyncio.wait_for(asked.wait(), 10)
        asking.cancel()
        await asyncio.wait((asking,))
        go.set()
        connection = await two.connection(0)
        await asyncio.wait_for(connection.closed.wait(), 10)
        record = await record_of(worker)
        assert record["fields"]["sluiceway.outcome"] == "client_aborted"
        assert verdicts(record) == [("sim", "next_target", 503), ("two", "client_left", None)]


async def test_a_client_that_leaves_in_the_middle_of_a_stream_is_what_the_attempt_ended_with() -> None:
    async with (
        Scripted(*says(SSE, Send(chunk(TOKEN)), Stall())) as one,
        gateway(one, NOBODY) as worker,
        connect(worker.port) as client,
    ):
        client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (KEY.encode(), len(STREAM), STREAM)
        )
        await asyncio.wait_for(client.reader.readuntil(TOKEN), 10)
        client.leave()
        record = await record_of(worker)
        assert record["fields"]["sluiceway.outcome"] == "client_aborted"
        assert verdicts(record) == [("sim", "client_left", 200)]


async def test_an_answer_that_breaks_off_under_the_upload_is_no_fault_of_the_gateway() -> None:
    """The client's connection is cut while its body still arrives: nothing is read of it any more."""
    with capture_logs() as logged:
        async with (
            Scripted(ReadHead(), Send(SSE + chunk(TOKEN)), Fin()) as one,
            gateway(one, NOBODY) as worker,
            connect(worker.port) as client,
        ):
            client.send(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                b"Content-Length: 300000\r\n\r\n%s" % (KEY.encode(), STREAM)
            )
            data, _ = await client.rest()
            _, _, said = data.partition(chunk(TOKEN))
            assert b'"code":"upstream_truncated"' in said
            assert not said.endswith(b"0\r\n\r\n")
            assert verdicts(await record_of(worker)) == [("sim", "cut", 200)]
    assert not logged


async def test_weights_share_the_requests() -> None:
    weights = [{"service": "sim", "weight": 3}, {"service": "two", "weight": 1}]
    async with (
        Scripted(*OK, *OK) as one,
        Scripted(*OK, *OK) as two,
        gateway(one, two, routing={"by_weight": weights}, fallback=[]) as worker,
    ):
        services = []
        for _ in range(4):
            assert (await ask(worker)).status == 200
            services.append((await worker.fields())["sluiceway.service"])
        assert sorted(services) == ["sim", "sim", "sim", "two"]


async def test_a_slow_upload_does_not_use_up_the_first_token_deadline() -> None:
    body = STREAM
    async with (
        Scripted(*STREAMED) as one,
        gateway(one, NOBODY, first_token_timeout_ms=200) as worker,
        connect(worker.port) as client,
    ):
        client.writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (KEY.encode(), len(body) + 70_000)
        )
        for _ in range(7):
            await asyncio.sleep(0.1)  # the upload is what takes time here
            client.writer.write(b" " * 10_000)
        client.writer.write(body)
        got = await asyncio.wait_for(client.reader.read(-1), 20)
        assert got.startswith(b"HTTP/1.1 200")
        assert (await worker.fields())["sluiceway.attempts"] == 1


@pytest.mark.parametrize("padding", [0, 300_000])
async def test_the_deadline_holds_where_the_stream_is_asked_for_at_the_very_end(padding: int) -> None:
    body = b'{"messages":["%s"],"model":"m","stream":true}' % (b"x" * padding)
    async with (
        Scripted(ReadRequest(), Stall()) as one,
        Scripted(*STREAMED) as two,
        gateway(one, two, first_token_timeout_ms=200, include_usage=False) as worker,
    ):
        assert (await ask(worker, body)).status == 200
        assert verdicts(await record_of(worker)) == [("sim", "next_target", None), ("two", "done", 200)]


async def test_two_documents_in_one_body_are_refused_where_the_model_decides() -> None:
    by_model = [{"match": "qwen-*", "service": "sim"}]
    async with Scripted(*OK) as one, gateway(one, NOBODY, routing={"by_model": by_model}, fallback=[]) as worker:
        got = await ask(worker, b'{"model":"qwen-plus"}{"model":"gpt-5"}')
        assert (got.status, (await worker.fields())["error.type"]) == (400, "bad_request")
        assert not one.connections
