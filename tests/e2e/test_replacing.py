"""SIGUSR2 under load: every worker is replaced, and no client notices.

The figures of a release: `E2E_STREAMS=500 pytest tests/e2e/test_replacing.py`.
"""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

from observability.board import Cell
from tests.e2e.exchanges import Exchange, accounted_for, whole
from tests.e2e.load import Load
from tests.e2e.traffic import CHAT, Client, Got, ask, chat_body, document_of, head_of
from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

STREAMS = int(os.environ.get("E2E_STREAMS", "40"))
UPLOADS = int(os.environ.get("E2E_UPLOADS", "8"))
WORKERS = 4


async def test_streams_and_uploads_survive_the_replacement_of_every_worker(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=WORKERS) as gateway,
    ):
        board = gateway.board
        streams = await asyncio.gather(
            *(Exchange.streaming(gateway.port, f"stream-{number}") for number in range(STREAMS))
        )
        uploads = await asyncio.gather(
            *(Exchange.uploading(gateway.port, upstream, f"upload-{number}") for number in range(UPLOADS))
        )
        before = set(gateway.pids("proxy.worker"))
        async with Load(gateway.port).running() as load:
            await load.reach(50)
            gateway.signal(signal.SIGUSR2)
            (done,) = await gateway.lines.wait("rolling_restart_done")
            assert await gateway.readiness() == 200
            assert board.total(Cell.ACTIVE) >= STREAMS + UPLOADS  # the old ones have them, and live on for them
            assert before < set(gateway.pids("proxy.worker"))
            await load.reach(50)
        print(
            f"\n{WORKERS} workers with {STREAMS} streams and {UPLOADS} uploads replaced in {done['took_ms']} ms; "
            f"{load.done} requests beside"
        )
        answers = await asyncio.gather(
            *(exchange.finish_upload() for exchange in uploads),
            *(exchange.finish_stream(upstream) for exchange in streams),
        )
        assert [got for got in answers if not whole(got)] == []
        await gateway.lines.wait("ended", WORKERS, level="info")
        assert len(gateway.pids("proxy.worker")) == WORKERS
        assert before.isdisjoint(gateway.pids("proxy.worker"))
        metrics = await gateway.metrics()
        assert sum(metrics[f'http_server_active_requests{{worker="{slot}"}}'] for slot in range(WORKERS)) == 0
    assert load.failed == []
    assert gateway.process.returncode == 0
    records = gateway.records_so_far()
    assert Counter(record["sluiceway.outcome"] for record in records) == {"ok": STREAMS + UPLOADS + load.done}
    accounted_for(board, len(records))
    assert gateway.complaints() == []


async def test_a_replaced_worker_takes_its_leave_of_kept_connections(tmp_path: Path) -> None:
    """Who sends another request is answered, and told that it was the last; who does not is let go a little later."""
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path) as gateway,
    ):
        kept, idle = await Client.to(gateway.port), await Client.to(gateway.port)
        body = chat_body()
        for client in (kept, idle):
            await client.send(head_of(CHAT, "first", len(body)) + body)
            assert (await client.receive(Got())).reusable
        gateway.signal(signal.SIGUSR2)
        await gateway.lines.wait("worker_draining", replaced=True)
        await kept.send(b"GET /-/readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        got = await kept.receive(Got())
        assert (got.status, got.whole, got.reusable) == (200, True, False)
        assert await idle.reader.read() == b""
        await gateway.lines.wait("ended", child="worker-0")


async def test_a_promise_to_keep_the_connection_is_kept_once_more(tmp_path: Path) -> None:
    """The head of a stream went out before its worker was replaced: its client may send another request behind it."""
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path) as gateway,
    ):
        stream = await Exchange.streaming(gateway.port, "stream")
        gateway.signal(signal.SIGUSR2)
        await gateway.lines.wait("worker_draining", replaced=True)
        assert (await stream.finish_stream(upstream)).reusable
        await stream.client.send(head_of(CHAT, "next", len(chat_body())) + chat_body())
        got = await stream.client.receive(Got())
        assert (got.status, got.whole, got.reusable) == (200, True, False)


async def test_what_runs_in_a_replaced_worker_beyond_its_time_is_cut_and_said(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url, drain_timeout_ms=300), tmp_path) as gateway,
    ):
        stream = await Exchange.streaming(gateway.port, "stream")
        gateway.signal(signal.SIGUSR2)
        assert not (await stream.client.receive(stream.got)).whole
        (record,) = await gateway.records(1)
        assert (record["sluiceway.outcome"], record["error.type"]) == ("gateway_error", "draining")
        await gateway.lines.wait("ended", child="worker-0", how="exit code 0")
        assert (await ask(gateway.port, "after")).status == 200


async def test_the_host_stops_while_a_replaced_worker_drains(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        stream = await Exchange.streaming(gateway.port, "stream")
        gateway.signal(signal.SIGUSR2)
        await gateway.lines.wait("rolling_restart_done")
        gateway.signal(signal.SIGTERM)
        await gateway.lines.wait("draining", process="supervisor")
        assert whole(await stream.finish_stream(upstream))
        assert await gateway.wait() == 0
    assert [record["sluiceway.outcome"] for record in gateway.records_so_far()] == ["ok"]


async def test_a_second_roll_waits_for_the_first_ones_requests(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path) as gateway,
    ):
        stream = await Exchange.streaming(gateway.port, "stream")
        for count in (1, 2):
            gateway.signal(signal.SIGUSR2)
            if count == 1:
                await gateway.lines.wait("rolling_restart_done")
        await gateway.lines.wait("rolling_restart", 2)
        assert (await ask(gateway.port, "meanwhile")).status == 200
        assert len(gateway.lines.of("rolling_restart_done")) == 1
        assert whole(await stream.finish_stream(upstream))
        await gateway.lines.wait("rolling_restart_done", 2)
        assert (await ask(gateway.port, "after")).status == 200
    assert gateway.complaints() == []
