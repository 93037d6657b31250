"""Bodies in br, zstd and the older codings: passed as they are, both ways, and read by the gateway all the same."""

import random
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.e2e.two_targets import NOBODY, OK, SSE, answer, ask, bodies, chunk, gateway, record_of, says
from tests.fakes.raw import connect
from tests.fakes.scripted import ReadRequest, Scripted, Send
from tests.fakes.worker import KEY, document_of, running
from tests.observability.coded import encoded
from tests.proxy.test_edge import post

CODINGS = ["gzip", "deflate", "br", "zstd", "gzip, br", "identity, zstd"]
USAGE = b'"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}'
WHOLE = (
    b'{"id":"a","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"ahoy"}}],' + USAGE + b"}"
)
EVENTS = (
    b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    b'"delta":{"content":"ahoy"},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":[],' + USAGE + b"}\n\n"
    b"data: [DONE]\n\n"
)
BY_MODEL: dict[str, Any] = {"by_model": [{"match": "allowed", "service": "sim"}]}


@pytest.mark.parametrize("coding", ["br", "zstd"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_official_sdk_that_asks_for_it_gets_it_and_the_usage_is_known(coding: str, stream: bool) -> None:
    coded = encoded(EVENTS if stream else WHOLE, coding)
    line = b"Content-Encoding: " + coding.encode()
    middle = len(coded) // 2
    if stream:
        pieces = chunk(coded[:middle]), chunk(coded[middle:]) + b"0\r\n\r\n"
        script = ReadRequest(), Send(SSE[:-2] + line + b"\r\n\r\n"), Send(pieces[0]), Send(pieces[1])
    else:
        script = says(answer(200, coded, line))[:2]
    async with (
        Scripted(*script) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
        AsyncOpenAI(base_url=f"http://127.0.0.1:{worker.port}/v1", api_key=KEY, max_retries=0) as client,
    ):
        messages: Any = [{"role": "user", "content": "hello"}]
        if stream:
            events = await client.chat.completions.create(
                model="m", messages=messages, stream=True, stream_options={"include_usage": True}
            )
            said = [event async for event in events]
            assert said[0].choices[0].delta.content == "ahoy"
        else:
            said = [await client.chat.completions.create(model="m", messages=messages)]
            assert said[0].choices[0].message.content == "ahoy"
        assert said[-1].usage.completion_tokens == 7
        (head,) = upstream.heads
        (asked,) = [text for text in head.lower().split(b"\r\n") if text.startswith(b"accept-encoding:")]
        assert asked == b"accept-encoding: gzip, deflate, br, zstd"
        fields = await worker.fields()
        assert (fields["gen_ai.usage.input_tokens"], fields["gen_ai.usage.output_tokens"]) == (11, 7)
        assert (fields["sluiceway.usage.source"], fields["sluiceway.outcome"]) == ("upstream", "ok")
        assert fields["sluiceway.response.bytes"] == len(coded)


@pytest.mark.parametrize("coding", CODINGS)
async def test_the_client_gets_the_upstreams_bytes(coding: str) -> None:
    coded = encoded(WHOLE, coding)
    lines = [b"Content-Encoding: " + one.strip() for one in coding.encode().split(b",")]  # a line for each
    async with (
        Scripted(*says(answer(200, coded, *lines))) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
    ):
        got = await ask(worker, b'{"model":"m"}', b"Accept-Encoding: " + coding.encode())
        assert got.body == coded
        assert [line for line in got.head.split(b"\r\n") if line.startswith(b"Content-Encoding")] == lines
        assert (await worker.fields())["gen_ai.usage.output_tokens"] == 7


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"x"], ids=["cut", "trailed"])
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_an_answer_that_cannot_be_decoded_passes_and_its_usage_is_unknown(coding: str, damage: Any) -> None:
    coded = damage(encoded(b'{"choices":[]}', coding))
    async with (
        Scripted(*says(answer(200, coded, b"Content-Encoding: " + coding.encode()))) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}")) as worker,
    ):
        assert (await ask(worker)).body == coded
        fields = await worker.fields()
        assert (fields["sluiceway.outcome"], fields["sluiceway.usage.source"]) == ("ok", "none")


@pytest.mark.parametrize("padding", [0, 300_000], ids=["small", "large"])
@pytest.mark.parametrize("coding", CODINGS)
async def test_the_model_of_an_encoded_request_is_found_and_the_request_passes_as_it_came(
    coding: str, padding: int
) -> None:
    text = random.Random(1).randbytes(padding // 2).hex().encode()
    body = encoded(b'{"messages":["%s"],"model":"allowed"}' % text, coding)
    lines = [b"Content-Encoding: " + one.strip() for one in coding.encode().split(b",")]
    async with Scripted(*OK) as one, gateway(one, NOBODY, routing=BY_MODEL, fallback=[]) as worker:
        assert (await ask(worker, body, *lines)).status == 200
        assert bodies(one) == [body]
        assert (await record_of(worker))["fields"]["gen_ai.request.model"] == "allowed"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", encoded(b'{"model":"other"}', "br")),
        ("zstd", encoded(b'{"model":"allowed"', "zstd") + encoded(b',"model":"other"}', "zstd")),
        ("zstd", encoded(b'{"model":"allowed"}', "zstd") + b"x"),
        ("zstd", encoded(b'{"model":"allowed"}', "zstd")[:-1]),
        ("br", encoded(b'{"model":"allowed"}', "br") + b"x"),
        ("br", b'{"model":"allowed"}'),
        ("compress", b'{"model":"allowed"}'),
        ("br, br, br", encoded(b'{"model":"allowed"}', "br,br,br")),
        ("zstd", encoded(b'{"model":"allowed","a":"%s"}' % bytes(1 << 22), "zstd")),
    ],
    ids=["another", "second frame", "trailed", "cut", "trailed br", "not encoded", "unknown", "three", "bomb"],
)
async def test_encoded_requests_that_are_refused(coding: str, body: bytes) -> None:
    async with Scripted(*OK) as one, gateway(one, NOBODY, routing=BY_MODEL, fallback=[]) as worker:
        got = await ask(worker, body, b"Content-Encoding: " + coding.encode())
        assert got.status in (400, 404)
        assert not one.connections


async def test_of_several_content_encoding_lines_none_hides_another() -> None:
    body = encoded(b'{"model":"allowed"}', "gzip")
    async with Scripted(*OK) as one, gateway(one, NOBODY, routing=BY_MODEL, fallback=[]) as worker:
        for lines in ((b"Content-Encoding:", b"Content-Encoding: gzip"), (b"Content-Encoding: identity, gzip",)):
            assert (await ask(worker, body, *lines)).status == 200
        for lines in (
            (b"Content-Encoding: gzip", b"Content-Encoding: br"),
            (b"Content-Encoding: identity", b"Content-Encoding: br"),
        ):
            assert (await ask(worker, body, *lines)).status == 400


async def test_an_encoded_body_for_which_there_is_no_room_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    from observability.codings.account import Account

    monkeypatch.setattr("observability.scanners.request.REQUESTS", Account(limit_bytes=1000))
    async with Scripted(*OK) as one, gateway(one, NOBODY, routing=BY_MODEL, fallback=[]) as worker:
        got = await ask(worker, encoded(b'{"model":"allowed"}', "br"), b"Content-Encoding: br")
        assert (got.status, b"x-sluiceway-error: overloaded" in got.head) == (503, True)
        async with connect(worker.port) as client:  # one that needs no room
            client.send(post(b'{"model":"allowed"}', b"Content-Type: application/json"))
            assert (await client.answer()).status == 200
