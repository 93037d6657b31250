"""Who may ask for which model must not depend on who reads the body: what two could read differently is refused.

Each body here names the model `allowed` to the gateway's scanner, and may name another one to somebody's parser.
"""

import asyncio
import gzip
from typing import Any

import pytest

from tests.e2e.two_targets import NOBODY, OK, answer, ask, bodies, gateway, record_of, says
from tests.fakes.scripted import ReadRequest, ReadToEnd, Scripted
from tests.fakes.worker import FakeWorker

BY_MODEL: dict[str, Any] = {"by_model": [{"match": "allowed", "service": "sim"}]}
RENAMED: dict[str, Any] = {"single": {"service": "sim", "model": "another"}}
JSON = b'{"model":"allowed","messages":[]}'


async def refused(worker: FakeWorker, body: bytes, *lines: bytes, kind: bytes = b"application/json") -> None:
    got = await ask(worker, body, *lines, kind=kind)
    assert (got.status, b"x-sluiceway-error: bad_request" in got.head) == (400, True)
    fields = (await record_of(worker))["fields"]
    assert (fields["error.type"], fields["sluiceway.error.origin"]) == ("bad_request", "client")


@pytest.mark.parametrize("routing", [BY_MODEL, RENAMED], ids=["by_model", "renamed"])
@pytest.mark.parametrize("charset", [b"utf-7", b"UTF-16", b"iso-2022-jp", b'"unicode_escape"', b"utf-8; charset=utf-7"])
async def test_charsets_in_which_text_is_something_else(routing: dict[str, Any], charset: bytes) -> None:
    async with Scripted(*OK) as one, gateway(one, NOBODY, routing=routing, fallback=[]) as worker:
        body = b'{"model":"allowed","+AG0-odel":"forbidden"}'
        await refused(worker, body, kind=b"application/json; charset=" + charset)
        assert not one.connections


@pytest.mark.parametrize("charset", [b"utf-8", b'"UTF-8"', b"us-ascii", b"ISO-8859-1"])
async def test_charsets_in_which_it_is_the_same(charset: bytes) -> None:
    async with Scripted(*OK) as one, gateway(one, NOBODY, routing=BY_MODEL, fallback=[]) as worker:
        assert (await ask(worker, JSON, kind=b"application/json; charset=" + charset)).status == 200
        assert bodies(one) == [JSON]


@pytest.mark.parametrize("tail", [b'{"model":"forbidden"}', b"", b'],"model":'], ids=["second", "cut", "garbage"])
@pytest.mark.parametrize("encoded", [False, True])
async def test_a_large_body_whose_end_cannot_be_read_never_arrives_whole(tail: bytes, encoded: bool) -> None:
    body = b'{"model":"allowed","messages":["%s"]' % (b"x" * 200_000) + (b"}" + tail if tail else b"")
    lines: tuple[bytes, ...] = ()
    if encoded:
        body, lines = gzip.compress(body, 0), (b"Content-Encoding: gzip",)
    async with (
        Scripted(ReadRequest(), ReadToEnd()) as one,
        gateway(one, NOBODY, routing=BY_MODEL, fallback=[], include_usage=False) as worker,
    ):
        await refused(worker, body, *lines)
        connection = await one.connection(0)
        await asyncio.wait_for(connection.closed.wait(), 10)
        assert (len(connection.heads), connection.bodies) == (1, [])


async def test_a_kind_of_body_in_which_the_model_cannot_be_replaced() -> None:
    async with Scripted(*OK) as one, gateway(one, NOBODY, routing=RENAMED, fallback=[]) as worker:
        await refused(worker, b'{"a":"&model=forbidden&"}', kind=b"application/x-www-form-urlencoded")
        assert not one.connections


async def test_a_kind_of_body_in_which_the_model_cannot_be_found() -> None:
    """What curl says of its own accord: the error tells where the model was looked for."""
    async with Scripted(*OK) as one, gateway(one, NOBODY, routing=BY_MODEL, fallback=[]) as worker:
        got = await ask(worker, JSON, kind=b"application/x-www-form-urlencoded")
        assert (got.status, b"x-sluiceway-error: model_missing" in got.head) == (400, True)
        assert b"Content-Type is 'application/x-www-form-urlencoded'" in got.body
        assert not one.connections


async def test_a_body_that_cannot_be_rewritten_takes_no_connection() -> None:
    async with gateway(NOBODY, NOBODY, routing=RENAMED, fallback=[]) as worker:
        await refused(worker, b'{"model":')
        await refused(worker, gzip.compress(JSON), b"Content-Encoding: gzip")


async def test_names_longer_than_patterns_may_be_are_unknown() -> None:
    routing = {"by_model": [{"match": "*-v1-*", "service": "sim"}]}
    async with Scripted(*says(answer(200))) as one, gateway(one, NOBODY, routing=routing, fallback=[]) as worker:
        for length, status in ((256, 200), (257, 404)):
            name = b"a-v1-" + b"x" * (length - 5)
            assert (await ask(worker, b'{"model":"%s"}' % name)).status == status


@pytest.mark.parametrize("key", [b"Model", b"MODEL", b"mOde\\u006c", b"M\\u006fdel"])
@pytest.mark.parametrize("padding", [0, 200_000])
@pytest.mark.parametrize("routing", [BY_MODEL, RENAMED], ids=["by_model", "renamed"])
async def test_keys_in_other_letters(routing: dict[str, Any], padding: int, key: bytes) -> None:
    body = b'{"model":"allowed","messages":["%s"],"%s":"forbidden"}' % (b"x" * padding, key)
    async with (
        Scripted(ReadRequest(), ReadToEnd()) as one,
        gateway(one, NOBODY, routing=routing, fallback=[], include_usage=False) as worker,
    ):
        await refused(worker, body)
        assert not bodies(one)


async def test_keys_in_other_letters_where_the_model_decides_nothing() -> None:
    async with Scripted(*OK) as one, gateway(one, NOBODY, fallback=[]) as worker:
        assert (await ask(worker, b'{"model":"allowed","Model":"forbidden"}')).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"""{"model":"allowed","x":['"'],"model":"forbidden","y":['"']}""",
        b"""{"model":"allowed","x":[/*"*/1],"model":"forbidden","y":[/*"*/1]}""",
        b"""{"model":"allowed","x":[1 //"
],"model":"forbidden","y":[1 //"
]}""",
        b"""{"model":"allowed","x":[a"],"model":"forbidden","y":[a"]}""",
    ],
)
async def test_text_that_is_no_json_but_to_lenient_parsers(body: bytes) -> None:
    async with Scripted(*OK) as one, gateway(one, NOBODY, routing=BY_MODEL, fallback=[]) as worker:
        await refused(worker, body)
        assert not one.connections
