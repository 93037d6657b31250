"""Random fault schedules of routing and fallback: what has to be true whatever the upstreams do and clients ask.

A job is never made twice, no client gets bytes of two attempts, an answer that was cut never looks whole, every
request leaves one record whose attempts are what the upstreams saw, bodies arrive with only their model replaced, and
nothing is left behind. What is drawn is in `tests.e2e.schedules`, who plays it in `tests.e2e.schedule_services`, what
is looked at in `tests.e2e.schedule_checks`. More of them: SCHEDULES=2000.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from structlog.testing import capture_logs

from observability.board import Cell
from observability.record import Record
from tests.e2e.schedule_checks import Got, check
from tests.e2e.schedule_services import PAUSE_S, Play, Seen, Service
from tests.e2e.schedules import Asked, Schedule, Setup, schedules
from tests.fakes.raw import RawClient, connect
from tests.fakes.worker import FakeWorker, running

SCHEDULES = int(os.environ.get("SCHEDULES", "150"))
"""150 take five to ten seconds."""
NOBODY = 1
"""A port that nobody listens on."""


# -- the client ------------------------------------------------------------------------------------------------------


async def ask(port: int, asked: Asked) -> Got:
    """Send the request and read to the end, or leave when the schedule says so."""
    data = bytearray()
    leave = asyncio.Event()
    kind, when = asked.leaves or ("", 0.0)

    async def read(client: RawClient) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await client.reader.read(65536):
                data.extend(piece)
                if kind == "answer" and len(data) >= when:
                    leave.set()

    async with connect(port) as client, asyncio.timeout(30):
        reading = asyncio.ensure_future(read(client))
        uploading = asyncio.ensure_future(upload(client, asked, leave))
        leaving = asyncio.ensure_future(leave.wait())
        if kind == "time":
            asyncio.get_running_loop().call_later(when, leave.set)
        try:
            await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
            stayed = reading.done()
            return Got(bytes(data), stayed)
        finally:
            client.leave()
            for task in (leaving, uploading, reading):
                task.cancel()
            await asyncio.gather(leaving, uploading, reading, return_exceptions=True)


async def upload(client: RawClient, asked: Asked, leave: asyncio.Event) -> None:
    body = asked.body()
    kind, share = asked.leaves or ("", 0.0)
    middle = int(len(body) * share) if kind == "upload" else len(body) // 2
    with contextlib.suppress(ConnectionError):
        client.writer.write(asked.head())
        for half in (body[:middle], body[middle:]):
            for start in range(0, len(half), 50_000):
                piece = half[start : start + 50_000]
                client.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if asked.chunked else piece)
                await client.writer.drain()
            if half is not body[middle:] or kind == "upload":
                await asyncio.sleep(PAUSE_S if asked.pauses else 0)
            if kind == "upload":
                leave.set()
                return
        if asked.chunked:
            client.writer.write(b"0\r\n\r\n")
            await client.writer.drain()


# -- a schedule is played --------------------------------------------------------------------------------------------


class Played(NamedTuple):
    """What came of one schedule; all by the name of the request."""

    got: dict[str, Got]
    records: dict[str, list[Record]]
    seen: dict[str, list[Seen]]


async def play(schedule: Schedule) -> Played:
    """Run it, and check that nothing is left."""
    before = asyncio.all_tasks()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    seen: list[Seen] = []
    async with contextlib.AsyncExitStack() as stack:
        logged = stack.enter_context(capture_logs())
        ports = []
        for number, (_, listens, _) in enumerate(schedule.setup.services):
            plays = {asked.name: asked.plays[number] for asked in schedule.asked}
            service = Service(f"s{number}", plays, seen)
            ports.append((await stack.enter_async_context(service)).port if listens else NOBODY)
        worker = await stack.enter_async_context(running(schedule.setup.document(ports)))
        if schedule.together:
            got = await asyncio.gather(*(ask(worker.port, asked) for asked in schedule.asked))
        else:
            got = [await ask(worker.port, asked) for asked in schedule.asked]
        records = [record async for record in records_of(worker)]
        check_nothing_is_held(worker)
    for _ in range(5):
        await asyncio.sleep(0)  # tasks that were cancelled end
    left = asyncio.all_tasks() - before
    assert not left, f"tasks are left: {left}"
    assert not complaints, f"the loop complains: {complaints}"
    complained = [line for line in logged if line["event"] != "cooling_down"]
    assert not complained, f"the gateway complains: {complained}"
    names = [asked.name for asked in schedule.asked]
    by_name: dict[str, list[Record]] = {name: [] for name in names}
    for record in records:
        by_name[record["fields"]["sluiceway.client_request_id"]].append(record)
    return Played(
        dict(zip(names, got, strict=True)),
        by_name,
        {name: [one for one in seen if one.request == name] for name in names},
    )


async def records_of(worker: FakeWorker) -> AsyncIterator[Record]:
    """All of them, when no request runs any more."""
    async with connect(worker.port) as client:  # whoever left was accepted, and heard, before this
        client.send(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await client.rest()
    taken = 0
    while taken < worker.row[Cell.STARTED]:
        yield await asyncio.wait_for(worker.records.get(), 10)
        taken += 1
    assert worker.records.empty(), "more records than requests"


def check_nothing_is_held(worker: FakeWorker) -> None:
    for cell in (Cell.ACTIVE, Cell.HELD_MEMORY_BYTES, Cell.HELD_DISK_BYTES):
        assert worker.row[cell] == 0, f"{cell.name} is {worker.row[cell]} after the last request"
    for pool in worker.pipeline._pools:
        assert pool.open_connections == pool.idle_connections, f"a connection is still busy: {pool}"
        assert not pool._waiters, f"somebody still waits: {pool}"
    assert not any(worker.pipeline._running.values()), "a Model API counts requests that are over"


LEFT_WHILE_AN_UPLOAD_WAS_STOPPED = Schedule(
    Setup(((1, True, 0),), "single", ((0, None),), ((0, None),), {"fallback_on": [503], "max_attempts": 3}, {}),
    (
        Asked(
            "r0",
            ((Play("error_event", end="short", events=0, framing="chunked", early=True),),),
            padding=399_999,
            chunked=True,
            leaves=("upload", 0.0),
        ),
    ),
    together=False,
)
"""The client leaves in the very turn in which an attempt gives way to the next and waits for its upload's end."""

NOBODY_HAS_A_BETTER_ANSWER = Schedule(
    Setup(
        ((1, True, 0), (1, False, 0)),
        "single",
        ((0, None),),
        ((0, None), (1, None)),
        {"fallback_on": [502, 503], "max_attempts": 3},
        {},
    ),
    (Asked("r0", ((Play(status=503), Play(status=502)), ())),),
    together=False,
)
"""Two refusals, then nobody: the client gets the second."""

AN_ERROR_COMES_FIRST = Schedule(
    Setup(((1, True, 0), (1, True, 0)), "single", ((0, None),), ((1, None),), {"fallback_on": [503]}, {}),
    (Asked("r0", ((Play("error_event", events=0, framing="chunked"),), ()), kind="stream"),),
    together=False,
)
"""Streams that begin with an error, and somebody else to ask, are rarely drawn together."""


@pytest.mark.timeout(360 + 2 * SCHEDULES)
@settings(max_examples=SCHEDULES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schedule=schedules())
@example(schedule=NOBODY_HAS_A_BETTER_ANSWER)
@example(schedule=AN_ERROR_COMES_FIRST)
@example(schedule=LEFT_WHILE_AN_UPLOAD_WAS_STOPPED)
async def test_what_has_to_be_true_of_every_schedule(schedule: Schedule) -> None:
    played = await play(schedule)
    for asked in schedule.asked:
        got, records, seen = played.got[asked.name], played.records[asked.name], played.seen[asked.name]
        if not records and not got.stayed and not got.data and not seen:
            continue  # it left before it was heard
        assert len(records) == 1, f"{len(records)} records of {asked.name}"
        check(schedule, asked, got, records[0], seen)
