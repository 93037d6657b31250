"""Processes of a host that are killed under load: who notices, and that nothing is lost uncounted."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

from observability.board import DROP_REASONS, Board, Cell
from tests.e2e.load import CLIENTS, Load
from tests.e2e.traffic import CHAT, Client, Got, ask, chat_body, document_of, head_of, refused
from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

STREAMS = int(os.environ.get("E2E_STREAMS", "40"))


def dropped(board: Board) -> dict[str, int]:
    """What was counted as lost, by reason."""
    return {reason: count for reason, cell in DROP_REASONS.items() if (count := board.total(cell))}


async def test_an_observer_and_control_are_killed_under_load(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
        Load(gateway.port).running() as load,
    ):
        board = gateway.board
        await load.reach(50)
        for child, module, up in (
            ("observer-0", "observability.observer", "observer_started"),
            ("control", "proxy.control", None),
        ):
            (pid,) = gateway.pids(module)
            os.kill(pid, signal.SIGKILL)
            await gateway.lines.wait("restarting", child=child, how="SIGKILL")
            await gateway.lines.wait("started", 2, child=child)
            if up is not None:
                await gateway.lines.wait(up, 2)
            await load.reach(50)
        assert await gateway.readiness() == 200
    assert load.failed == []
    assert gateway.process.returncode == 0
    started = board.total(Cell.STARTED)
    lost = dropped(board)
    assert started == board.total(Cell.HANDED) == load.done
    assert started == board.total(Cell.TAKEN) + sum(lost.values())
    assert lost.keys() <= {"observer_lost"}
    # A line that was written in the moment of the kill and not acknowledged any more counts as lost all the same.
    names = Counter(record["sluiceway.client_request_id"] for record in gateway.records_so_far())
    assert set(names.values()) == {1}
    assert board.total(Cell.TAKEN) <= len(names) <= started
    assert gateway.complaints() == []


async def test_a_worker_is_killed_with_streams_on_it(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        board = gateway.board
        clients = [await Client.to(gateway.port) for _ in range(STREAMS)]
        answers = [Got() for _ in clients]
        body = chat_body(stream=True)
        for number, client in enumerate(clients):
            await client.send(head_of(CHAT, f"stream-{number}", len(body), x_sim_gate_after="2") + body)
        await asyncio.gather(*(client.receive(got, 1) for client, got in zip(clients, answers, strict=True)))
        running = [int(row[Cell.ACTIVE]) for row in board.rows()]
        assert sum(running) == STREAMS

        (victim, _) = sorted(gateway.pids("proxy.worker"), key=slot_of)
        os.kill(victim, signal.SIGKILL)
        await gateway.lines.wait("restarting", child="worker-0", how="SIGKILL", lost_requests=running[0])
        await gateway.lines.wait("worker_ready", 2, slot=0)
        for number in range(20):
            assert (await ask(gateway.port, f"after-{number}")).whole
        for number in range(STREAMS):
            await upstream.open(f"stream-{number}")
        await asyncio.gather(*(client.receive(got) for client, got in zip(clients, answers, strict=True)))
        assert sum(not got.whole for got in answers) == running[0]
        assert all(got.body.endswith(b"data: [DONE]\n\n") for got in answers if got.whole)
        for number, got in enumerate(answers):
            ending = (await upstream.finished(f"stream-{number}"))["ending"]
            assert ending == ("complete" if got.whole else "client_left")
        metrics = await gateway.metrics()
        assert metrics['sluiceway_records_dropped_total{reason="worker_lost"}'] == running[0]
        assert await gateway.readiness() == 200
    assert gateway.process.returncode == 0
    lines = gateway.records_so_far()
    assert dropped(board) == ({"worker_lost": running[0]} if running[0] else {})
    assert board.total(Cell.STARTED) == STREAMS + 20 == len(lines) + running[0]
    assert gateway.complaints() == []


def slot_of(pid: int) -> int:
    """The slot of a worker process."""
    argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return int(argv[argv.index(b"--slot") + 1])


async def test_a_worker_that_hangs_loses_its_share_and_gets_it_back(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        (_, victim) = sorted(gateway.pids("proxy.worker"), key=slot_of)
        os.kill(victim, signal.SIGSTOP)
        try:
            await gateway.lines.wait("worker_silent", child="worker-1", muted=True)
            assert await gateway.readiness() == 503
            for number in range(32):
                assert (await ask(gateway.port, f"meanwhile-{number}")).whole
        finally:
            os.kill(victim, signal.SIGCONT)
        await gateway.lines.wait("worker_back", child="worker-1")
        assert await gateway.readiness() == 200
        before = gateway.board.row(1)[Cell.STARTED]
        for number in range(32):
            assert (await ask(gateway.port, f"after-{number}")).whole
        assert gateway.board.row(1)[Cell.STARTED] > before
    assert gateway.process.returncode == 0
    assert not gateway.lines.of("restarting")
    assert [line["event"] for line in gateway.complaints()] == ["worker_silent"]


async def test_a_worker_that_drains_by_itself_loses_its_share(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        clients = [await Client.to(gateway.port) for _ in range(16)]
        body = chat_body(stream=True)
        for number, client in enumerate(clients):
            await client.send(head_of(CHAT, f"stream-{number}", len(body), x_sim_gate_after="2") + body)
        answers = [await client.receive(Got(), 1) for client in clients]
        assert gateway.board.row(1)[Cell.ACTIVE] > 0
        (_, victim) = sorted(gateway.pids("proxy.worker"), key=slot_of)
        os.kill(victim, signal.SIGTERM)
        await gateway.lines.wait("worker_leaving", child="worker-1")
        assert await gateway.readiness() == 503
        for number in range(32):
            assert (await ask(gateway.port, f"meanwhile-{number}")).whole
        for number in range(16):
            await upstream.open(f"stream-{number}")
        await asyncio.gather(*(client.receive(got) for client, got in zip(clients, answers, strict=True)))
        assert all(got.whole for got in answers)
        await gateway.lines.wait("worker_ready", 2, slot=1)
        assert await gateway.readiness() == 200
    assert gateway.complaints() == []


async def test_a_worker_is_killed_under_load(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        board = gateway.board
        async with Load(gateway.port).running() as load:
            await load.reach(50)
            os.kill(gateway.pids("proxy.worker")[0], signal.SIGKILL)
            await gateway.lines.wait("worker_ready", 3)
            await load.reach(50)
    assert gateway.process.returncode == 0
    lines = gateway.records_so_far()
    lost = sum(dropped(board).values())
    # Connections in the dead worker's backlog are served by its successor; those that it had accepted are gone.
    assert len(load.failed) <= CLIENTS
    assert board.total(Cell.STARTED) == board.total(Cell.HANDED) == board.total(Cell.TAKEN) + lost
    assert board.total(Cell.TAKEN) <= len(lines) <= board.total(Cell.STARTED)
    assert board.total(Cell.ACTIVE) == 0
    assert gateway.complaints() == []


async def test_a_host_whose_every_worker_died_comes_back(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        await gateway.lines.wait("worker_ready", 2)  # a worker that is killed at once takes its line with it
        for pid in gateway.pids("proxy.worker"):
            os.kill(pid, signal.SIGKILL)
        # Nobody is there to accept; the supervisor's sockets hold the connection until somebody is.
        assert (await ask(gateway.port, "patient")).status == 200
        await gateway.lines.wait("worker_ready", 4)
        assert await gateway.readiness() == 200


async def test_the_supervisor_is_killed_and_leaves_nobody_behind(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        gateway.signal(signal.SIGKILL)
        assert await gateway.wait() == -signal.SIGKILL  # and stdout is closed by the last of its children
        await refused(gateway.port)
        await refused(gateway.admin_port)
