"""Recorded content of exchanges that do not go well: refusals, errors, fallbacks, clients and upstreams that leave."""

import asyncio
import json

import pytest

from observability import names
from tests.e2e.test_content import AHOY, QUESTION, RECORDED, WHOLE, recording, said, streamed
from tests.e2e.two_targets import CHAT, NOBODY, SSE, answer, ask, chunk, gateway, says
from tests.fakes.raw import connect
from tests.fakes.scripted import Fin, ReadBody, ReadHead, ReadRequest, Scripted, Send, Stall, Tell
from tests.fakes.worker import KEY, UPSTREAM_KEY


async def test_an_error_of_the_upstream_is_content():
    error = {"error": {"message": f"Incorrect API key provided: {UPSTREAM_KEY}", "code": "invalid_api_key"}}
    for monitoring, recorded in ((RECORDED, True), ({**RECORDED, "record_response": False}, False)):
        async with recording(says(answer(400, json.dumps(error).encode())), monitoring) as (worker, _):
            await ask(worker)
            fields = await worker.fields()
            assert (names.SLUICEWAY_ERROR_BODY in fields) == recorded
            assert UPSTREAM_KEY not in json.dumps(fields)
            if recorded:
                assert said(fields, names.SLUICEWAY_ERROR_BODY)["error"]["code"] == "invalid_api_key"


ECHO = "you asked: what is the airspeed?"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"error": {"code": ECHO, "type": "invalid_request_error", "message": ECHO}}, "invalid_request_error"),
        ({"error": {"code": ECHO, "type": ECHO, "message": ECHO}}, "error"),
        ({"error": ECHO}, "error"),
        ({"code": ECHO, "message": ECHO}, "error"),
        ({"object": "error", "code": 400, "message": ECHO}, "error"),
    ],
)
@pytest.mark.parametrize("kind", ["json", "stream"])
async def test_where_nothing_is_recorded_an_error_says_nothing_of_what_was_asked(error, code, kind):
    script = says(answer(400, json.dumps(error).encode())) if kind == "json" else streamed(error)
    async with recording(script, {}) as (worker, _):
        await ask(worker, b'{"messages":[],"model":"m","stream":true}')
        fields = await worker.fields()
    assert fields[names.ERROR_TYPE] == code
    assert ECHO not in json.dumps(fields)


async def test_what_the_gateway_refuses_is_not_recorded():
    async with recording(says(answer(200, WHOLE))) as (worker, _):
        await ask(worker, CHAT, b"x-api-key: nobody", path=b"/v1/nothing")
        assert names.GEN_AI_INPUT_MESSAGES not in await worker.fields()


async def test_a_stream_that_breaks_off_is_recorded_as_far_as_it_came():
    event = b'data: {"choices":[{"index":0,"delta":{"content":"aho"}}]}\n\n'
    async with recording((ReadRequest(), Send(SSE + chunk(event)), Fin())) as (worker, _):
        await ask(worker, b'{"messages":[],"model":"m","stream":true}')
        fields = await worker.fields()
    (message,) = said(fields, names.GEN_AI_OUTPUT_MESSAGES)
    assert message["finish_reason"] == "error"
    assert message["parts"][0]["content"] == "aho"


def head_of(size: int) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (KEY.encode(), size)
    )


async def test_of_a_client_that_leaves_while_it_asks_what_came_is_recorded():
    came = CHAT[:-1] + b',"more":"cut-in-the-mid'
    passed = asyncio.Event()
    async with recording((ReadHead(), ReadBody(len(came)), Tell(passed), Stall())) as (worker, _):
        async with connect(worker.port) as client:
            client.send(head_of(1_000_000) + came)
            await asyncio.wait_for(passed.wait(), 10)
        fields = await worker.fields()
    assert fields[names.SLUICEWAY_OUTCOME] == names.OUTCOME_CLIENT_ABORTED
    assert said(fields, names.GEN_AI_INPUT_MESSAGES) == QUESTION
    assert fields[names.SLUICEWAY_CONTENT_TRUNCATED] is True


async def test_of_a_client_that_leaves_while_it_is_answered_what_came_is_recorded():
    event = b'data: {"choices":[{"index":0,"delta":{"content":"aho"}}]}\n\n'
    body = b'{"messages":[{"role":"user","content":"hi"}],"model":"m","stream":true}'
    async with recording((ReadRequest(), Send(SSE + chunk(event)), Stall())) as (worker, _):
        async with connect(worker.port) as client:
            client.send(head_of(len(body)) + body)
            await asyncio.wait_for(client.reader.readuntil(b"aho"), 10)
        fields = await worker.fields()
    assert fields[names.SLUICEWAY_OUTCOME] == names.OUTCOME_CLIENT_ABORTED
    (message,) = said(fields, names.GEN_AI_OUTPUT_MESSAGES)
    assert (message["finish_reason"], message["parts"][0]["content"]) == ("error", "aho")


async def test_after_a_fallback_the_answer_is_that_of_who_gave_it():
    refusal = says(answer(500, b'{"error":{"message":"first","code":"boom"}}'))
    async with (
        Scripted(*refusal) as one,
        Scripted(*says(answer(200, WHOLE))) as two,
        gateway(one, two, monitoring=RECORDED) as worker,
    ):
        await ask(worker)
        fields = await worker.fields()
        assert said(fields, names.GEN_AI_OUTPUT_MESSAGES) == AHOY
        assert said(fields, names.GEN_AI_INPUT_MESSAGES) == QUESTION
        assert names.SLUICEWAY_ERROR_BODY not in fields


async def test_of_two_failures_the_one_that_the_client_got_is_recorded():
    first, second = (says(answer(500, b'{"error":{"code":"%s"}}' % name)) for name in (b"first", b"second"))
    async with Scripted(*first) as one, Scripted(*second) as two, gateway(one, two, monitoring=RECORDED) as worker:
        got = await ask(worker)
        fields = await worker.fields()
        assert said(fields, names.SLUICEWAY_ERROR_BODY) == json.loads(got.body)
    async with Scripted(*first) as one, gateway(one, NOBODY, monitoring=RECORDED) as worker:
        got = await ask(worker)
        assert b"first" in got.body
        assert said(await worker.fields(), names.SLUICEWAY_ERROR_BODY) == json.loads(got.body)


async def test_a_body_held_for_a_fallback_is_recorded_once():
    text = "word " * 30_000
    body = json.dumps({"messages": [{"role": "user", "content": text}], "model": "m"}).encode()
    async with (
        Scripted(*says(answer(500))) as one,
        Scripted(*says(answer(200, WHOLE))) as two,
        gateway(one, two, monitoring={**RECORDED, "content_max_bytes": 1_000_000}) as worker,
    ):
        await ask(worker, body)
        (message,) = said(await worker.fields(), names.GEN_AI_INPUT_MESSAGES)
    assert message["parts"] == [{"type": "text", "content": text}]


async def test_where_the_gateway_answers_itself_no_earlier_answer_is_recorded():
    refusal = says(answer(500, b'{"choices":[{"message":{"content":"%s"}}]}' % (b"x" * 50)))
    async with (
        Scripted(*refusal) as one,
        gateway(one, NOBODY, limits={"hold_response_bytes": 10}, monitoring=RECORDED) as worker,
    ):
        got = await ask(worker)
        assert b"x-sluiceway-error" in got.head
        fields = await worker.fields()
    assert names.SLUICEWAY_ERROR_BODY not in fields
    assert names.GEN_AI_OUTPUT_MESSAGES not in fields
