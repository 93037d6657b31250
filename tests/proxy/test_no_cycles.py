"""What a connection held is freed when it ends, by reference counts alone: cycles wait for a full collection.

With 2,000 clients ended by limits such a collection took 200 ms, in which nobody was served.
"""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from observability.observation import Observation
from proxy.arrived import ArrivedBody
from proxy.attempt import Attempt
from proxy.edge import Edge
from proxy.errors import GatewayError
from proxy.exchange import Exchange
from proxy.upload import Upload
from proxy.upstream.connection import Connection
from tests.fakes.raw import RawClient, connect
from tests.fakes.scripted import Fin, ReadHead, ReadRequest, ReadToEnd, Reset, Scripted, Send, Stall, Step
from tests.fakes.worker import FakeWorker, document_of, running
from tests.proxy.test_edge import OK, post

HELD = (Edge, Observation, Exchange, Attempt, Upload, Connection)
LIMITS = {"head_timeout_ms": 200, "body_idle_timeout_ms": 200, "write_idle_timeout_ms": 200}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 5000\r\n\r\ndata: {}\n\n"
BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + bytes(20_000_000)
EXPECT = b"Expect: 100-continue"
LARGE = post(b'{"model":"m","x":"' + b"x" * 300_000 + b'"}')


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Only counts of references free anything."""
    gc.disable()
    yield
    gc.enable()


async def answered(client: RawClient) -> None:
    """Reads one answer, and leaves."""
    await client.answer()


async def to_the_end(client: RawClient) -> None:
    """Reads until the gateway closes."""
    await client.rest()


async def gone(client: RawClient) -> None:
    """Leaves with the first bytes of the answer."""
    await client.reader.readexactly(1)
    client.leave()


async def asleep(client: RawClient) -> None:
    """Reads nothing until it is cut off: what it reads then ends with a reset."""
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(0)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("sent", "upstream", "then"),
    [
        pytest.param(post(b"{}"), (ReadRequest(), Send(OK), Fin()), answered, id="answered"),
        pytest.param(post(b"{}", b"Connection: close"), (ReadRequest(), Send(OK), Fin()), to_the_end, id="close"),
        pytest.param(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", (), answered, id="no route"),
        pytest.param(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n", (), answered, id="probe"),
        pytest.param(post(b"{}").replace(b"Bearer", b"Burglar"), (), answered, id="unauthenticated"),
        pytest.param(b"GARBAGE\r\n\r\n", (), to_the_end, id="garbage"),
        pytest.param(b"P", (), to_the_end, id="slow head"),
        pytest.param(post(b"", length=100_000) + b"x", (ReadHead(), ReadToEnd()), to_the_end, id="slow body"),
        pytest.param(post(b"{}"), (ReadRequest(), Send(BIG), Stall()), asleep, id="slow reader"),
        pytest.param(LARGE, (ReadRequest(), Send(OK), Fin()), answered, id="large"),
        pytest.param(LARGE, (ReadHead(), Reset()), answered, id="large, reset"),
        pytest.param(post(b"{}"), (ReadRequest(), Reset()), answered, id="reset"),
        pytest.param(post(b"{}"), (ReadRequest(), Send(STREAM), Reset()), to_the_end, id="cut stream"),
        pytest.param(post(b"{}"), (ReadRequest(), Send(STREAM), ReadToEnd()), gone, id="left stream"),
        pytest.param(post(b"", EXPECT, length=100_000), (ReadHead(), ReadToEnd()), gone, id="left upload"),
        pytest.param(post(b"{}"), (ReadRequest(), Send(b"no HTTP\r\n\r\n"), Fin()), answered, id="no HTTP"),
    ],
)
async def test_nothing_of_a_connection_outlives_it(
    sent: bytes, upstream: tuple[Step, ...], then: Callable[[RawClient], Any]
) -> None:
    async with (
        Scripted(*upstream) as scripted,
        running(document_of(f"http://127.0.0.1:{scripted.port}", limits=LIMITS)) as worker,
    ):
        gc.collect()
        async with connect(worker.port) as client:
            client.send(sent)
            await then(client)
            if then is asleep:
                await worker.fields()
        async with asyncio.timeout(10):
            while worker.server.live:
                await asyncio.sleep(0.01)
        assert await _freed(worker) == []


NO = b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}"
ERROR = b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 28\r\n\r\ndata: {"error":{"code":"x"}}'
STREAMING = post(b'{"model":"m","stream":true}')
FAILS = (ReadRequest(), Reset())
ANSWERS = (ReadRequest(), Send(OK), Fin())
REFUSES = (ReadRequest(), Send(NO), Fin())


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("sent", "upstream", "spare", "model_api"),
    [
        pytest.param(post(b"{}"), FAILS, ANSWERS, {}, id="reset, answer"),
        pytest.param(post(b"{}"), FAILS, FAILS, {}, id="reset twice"),
        pytest.param(post(b"{}"), REFUSES, FAILS, {}, id="refusal that was kept"),
        pytest.param(LARGE, FAILS, ANSWERS, {}, id="large, reset, answer"),
        pytest.param(LARGE, (ReadHead(), Send(NO), Fin()), FAILS, {}, id="large, early refusal, reset"),
        pytest.param(STREAMING, (ReadRequest(), Send(ERROR), Fin()), REFUSES, {}, id="error event, refusal"),
        pytest.param(STREAMING, (ReadRequest(), Stall()), ANSWERS, {"first_packet_timeout_ms": 100}, id="deadline"),
    ],
)
async def test_nor_does_anything_of_attempts_that_failed(
    sent: bytes, upstream: tuple[Step, ...], spare: tuple[Step, ...], model_api: dict[str, Any]
) -> None:
    async with Scripted(*upstream) as first, Scripted(*spare) as second:
        document = document_of(
            f"http://127.0.0.1:{first.port}", model_api={**model_api, "fallback": [{"service": "spare"}]}
        )
        document["services"].append(
            {**document["services"][0], "name": "spare", "base_url": f"http://127.0.0.1:{second.port}"}
        )
        async with running(document) as worker:
            gc.collect()
            async with connect(worker.port) as client:
                client.send(sent)
                await client.answer()
            async with asyncio.timeout(10):
                while worker.server.live:
                    await asyncio.sleep(0.01)
            assert await _freed(worker) == []


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(post(b"{}"), 200, id="answered"),
        pytest.param(post(b"x" * 60_000).replace(b"Bearer", b"Burglar"), 401, id="a body that nobody read"),
    ],
)
async def test_an_idle_connection_holds_nothing_of_its_last_request(sent: bytes, status: int) -> None:
    """20,000 of them would have 64 KiB each, and need no credentials for it."""
    async with (
        Scripted(ReadRequest(), Send(OK), Fin()) as scripted,
        running(document_of(f"http://127.0.0.1:{scripted.port}")) as worker,
        connect(worker.port) as client,
    ):
        gc.collect()
        client.send(sent)
        assert (await client.answer()).status == status
        held = (Observation, Exchange, ArrivedBody, web.BaseRequest, web.StreamResponse)
        assert await _freed(worker, held=held) == []


@pytest.mark.usefixtures("no_collection")
async def test_failures_do_not_add_up_while_a_connection_stays() -> None:
    """Compiled, a finally that waits would leave its exception in the coroutine of the connection."""
    async with (
        Scripted(*FAILS) as scripted,
        running(document_of(f"http://127.0.0.1:{scripted.port}")) as worker,
        connect(worker.port) as client,
    ):
        gc.collect()
        for _ in range(5):
            client.send(post(b"{}"))
            assert (await client.answer()).status == 502
        assert await _freed(worker, held=(GatewayError,)) == []


async def _freed(worker: FakeWorker, turns: int = 200, held: tuple[type, ...] = HELD) -> list[object]:
    """What of the worker's objects is still there, after some time. The upstream closed its connections, or they idle
    in the pool."""
    for _ in range(turns):
        while not worker.records.empty():
            worker.records.get_nowait()
        left = [one for one in gc.get_objects() if isinstance(one, held)]
        if not left:
            break
        await asyncio.sleep(0.01)
    return left
