"""SIGTERM: what runs ends well, what comes is refused, and the time limits hold.

The figures of a release: `E2E_STREAMS=200 E2E_UPLOADS=64 pytest tests/e2e/test_draining.py`.
"""

import asyncio
import os
import signal
from pathlib import Path

import orjson

from observability.board import Cell
from tests.e2e.exchanges import Exchange, accounted_for, whole
from tests.e2e.traffic import CHAT, Client, Got, ask, chat_body, document_of, head_of, refused
from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

STREAMS = int(os.environ.get("E2E_STREAMS", "40"))
UPLOADS = int(os.environ.get("E2E_UPLOADS", "16"))


async def test_running_uploads_and_streams_end_whole(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        board = gateway.board
        uploads = await asyncio.gather(
            *(Exchange.uploading(gateway.port, upstream, f"upload-{number}") for number in range(UPLOADS))
        )
        streams = await asyncio.gather(
            *(Exchange.streaming(gateway.port, f"stream-{number}") for number in range(STREAMS))
        )
        idle = await Client.to(gateway.port)
        await idle.send(head_of(CHAT, "idle", len(chat_body())) + chat_body())
        assert (await idle.receive(Got())).reusable
        await gateway.records(1)
        assert board.total(Cell.ACTIVE) == UPLOADS + STREAMS

        gateway.signal(signal.SIGTERM)
        await gateway.lines.wait("worker_draining", 2)
        assert await gateway.readiness() == 503
        await refused(gateway.port)
        assert await idle.reader.read() == b""  # closed, without a word
        assert gateway.process.returncode is None

        answers = await asyncio.gather(
            *(exchange.finish_upload() for exchange in uploads),
            *(exchange.finish_stream(upstream) for exchange in streams),
        )
        assert [got for got in answers if not whole(got)] == []
        assert await gateway.wait() == 0
    records = gateway.records_so_far()
    assert len(records) == UPLOADS + STREAMS + 1
    assert {record["sluiceway.outcome"] for record in records} == {"ok"}
    accounted_for(board, len(records))
    assert gateway.complaints() == []


async def test_what_takes_too_long_is_cut_and_says_so(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url, drain_timeout_ms=300), tmp_path, workers=2) as gateway,
    ):
        board = gateway.board
        uploads = await asyncio.gather(
            *(Exchange.uploading(gateway.port, upstream, f"upload-{number}") for number in range(UPLOADS))
        )
        streams = await asyncio.gather(
            *(Exchange.streaming(gateway.port, f"stream-{number}") for number in range(STREAMS))
        )
        waiting = Exchange("waiting", await Client.to(gateway.port), chat_body())
        await waiting.client.send(
            head_of(CHAT, "waiting", len(waiting.body), x_sim_head_delay_ms="60000") + waiting.body
        )
        await upstream.arrived("waiting")
        gateway.signal(signal.SIGTERM)
        running = (*uploads, *streams, waiting)
        for exchange in running:
            await exchange.client.receive(exchange.got)
            assert (await upstream.finished(exchange.name))["ending"] == "client_left"
        assert await gateway.wait() == 0
    for exchange in streams:
        assert (exchange.got.status, exchange.got.whole) == (200, False)
    for exchange in (*uploads, waiting):  # nothing was answered yet, so there is an answer to give
        assert (exchange.got.status, exchange.got.whole, exchange.got.reusable) == (503, True, False)
        assert orjson.loads(exchange.got.body)["error"]["code"] == "draining"
    records = {record["sluiceway.client_request_id"]: record for record in gateway.records_so_far()}
    endings = {
        name: (record["sluiceway.outcome"], record["error.type"], record["sluiceway.error.origin"])
        for name, record in records.items()
    }
    assert endings == {
        **{exchange.name: ("gateway_error", "draining", "gateway") for exchange in streams},
        **{exchange.name: ("rejected", "draining", "gateway") for exchange in (*uploads, waiting)},
    }
    statuses = {name: record["http.response.status_code"] for name, record in records.items()}
    assert statuses == {exchange.name: exchange.got.status for exchange in running}
    assert records["stream-0"]["sluiceway.usage.source"] == "estimated"
    accounted_for(board, len(running))
    assert gateway.complaints() == []


async def test_a_timeout_of_zero_is_none(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url, drain_timeout_ms=0), tmp_path, workers=2) as gateway,
    ):
        stream = await Exchange.streaming(gateway.port, "stream")
        endless = await Exchange.streaming(gateway.port, "endless")
        gateway.signal(signal.SIGTERM)
        await refused(gateway.port)
        assert whole(await stream.finish_stream(upstream))
        await gateway.records(1)
        gateway.signal(signal.SIGTERM)  # the second: at once, all the same
        assert not (await endless.client.receive(endless.got)).whole
        assert await gateway.wait() == 1
    assert not gateway.lines.of("drain_timeout")


async def test_requests_are_served_during_the_delay(tmp_path: Path) -> None:
    document = {"drain_delay_ms": 60_000}
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url, **document), tmp_path, workers=2) as gateway,
    ):
        board = gateway.board
        kept = await Client.to(gateway.port)
        gateway.signal(signal.SIGTERM)
        await gateway.lines.wait("worker_draining", 2)
        assert await gateway.readiness() == 503
        for number in range(8):  # both workers, with certainty enough
            await kept.send(b"GET /-/readyz HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
            assert (await kept.receive(Got())).status == 503
            kept.leave()
            kept = await Client.to(gateway.port)
            got = await ask(gateway.port, f"late-{number}")
            assert (got.status, got.whole) == (200, True)
        await gateway.records(8)
        stream = await Exchange.streaming(gateway.port, "stream")
        gateway.signal(signal.SIGTERM)  # the second: at once
        assert not (await stream.client.receive(stream.got)).whole
        assert await gateway.wait() == 1
    lost = board.total(Cell.DROPPED_WORKER_LOST)
    assert board.total(Cell.STARTED) == 9 == board.total(Cell.TAKEN) + lost
    assert lost >= 1  # the stream, and lines that were written a moment ago and not acknowledged
    assert len(gateway.records_so_far()) == 8
    assert [line["active_requests"] for line in gateway.lines.of("stopping_at_once")] == [1]
    assert gateway.lines.other == []


async def test_the_listener_closes_after_the_delay(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url, drain_delay_ms=200), tmp_path, workers=2) as gateway,
    ):
        stream = await Exchange.streaming(gateway.port, "stream")
        gateway.signal(signal.SIGTERM)
        await refused(gateway.port)
        assert whole(await stream.finish_stream(upstream))
        assert await gateway.wait() == 0
    assert gateway.complaints() == []
