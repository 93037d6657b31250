"""SIGUSR2: the supervisor replaces its workers one by one, with children that only talk."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from observability.board import Board, Cell
from proxy.heartbeat import now_ms, silent_slots
from tests.fakes.host import PATIENCE_S, Host, fifo

SERVING = ["ready", "beats", "leaves={fd}"]


def roll(run: Host) -> None:
    run.process.send_signal(signal.SIGUSR2)


def test_each_worker_is_told_to_leave_when_another_serves(host: Callable[..., Host]) -> None:
    run = host(workers=[SERVING, SERVING], observers=[[]], control=[[]])
    run.wait(event="ready")
    before = {name: int(run.of(name)[0]) for name in ("worker-0", "worker-1")}
    roll(run)
    assert run.wait(event="rolling_restart_done")["workers"] == 2
    lines = run.logged("replaced")
    assert {line["child"]: line["child_pid"] for line in lines} == before
    assert {line["child"]: line["by_pid"] for line in lines} == {name: int(run.of(name)[1]) for name in before}
    for name, pid in before.items():
        ended = run.wait(event="ended", child=name)
        assert (ended["child_pid"], ended["how"], ended["level"]) == (pid, "exit code 0", "info")
        order = [
            run.index(child=name, verb="started", what=str(run.of(name)[1])),
            run.index(child=name, verb="got", what="SIGUSR2"),
        ]
        assert order == sorted(order)
    assert run.index(child="worker-0", verb="got") < run.index(child="worker-1", verb="got")
    run.process.terminate()
    assert run.end() == 0
    assert not run.logged("restarting")
    assert not run.logged("worker_leaving")
    assert [len(run.of(name)) for name in ("worker-0", "worker-1", "observer-0", "control-0")] == [2, 2, 1, 1]


def test_the_next_slot_does_not_wait_for_a_drain_but_the_next_roll_does(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    gate = fifo(tmp_path / "gate")
    run = host(workers=[[*SERVING, "slow", f"fifo={gate}"], SERVING], replacements=[SERVING, SERVING])
    run.wait(event="ready")
    roll(run)
    run.wait(event="rolling_restart_done")
    assert not [line for line in run.logged("ended") if line["child"] == "worker-0"]
    roll(run)
    run.wait(child="worker-0", verb="got", what="SIGUSR2")
    assert len(run.of("worker-0")) == 2
    gate.write_text("go\n")
    run.wait(event="ended", child="worker-0")
    run.wait_for_start(3, "worker-0")
    assert run.index(event="ended", child="worker-0") < run.index(
        child="worker-0", verb="started", what=run.of("worker-0")[2]
    )
    while len(run.logged("rolling_restart_done")) < 2:
        assert run.read()
    run.process.terminate()
    gate.write_text("go\n")
    assert run.end() == 0


def test_a_replacement_that_does_not_come_up_leaves_the_others_in_place(host: Callable[..., Host]) -> None:
    run = host(workers=[SERVING, SERVING], replacements=[["exit=1"], SERVING])
    run.wait(event="ready")
    roll(run)
    abandoned = run.wait(event="rolling_restart_abandoned")
    assert (abandoned["child"], abandoned["done"], abandoned["level"]) == ("worker-0", 0, "error")
    assert "ended before it served" in abandoned["why"]
    assert "go on serving" in abandoned["hint"]
    run.process.terminate()
    assert run.end() == 0
    assert [len(run.of(name)) for name in ("worker-0", "worker-1")] == [2, 1]
    assert run.of("worker-0", "got") == run.of("worker-1", "got") == ["SIGTERM"]


def test_a_replaced_worker_that_does_not_end_in_time_is_killed(host: Callable[..., Host]) -> None:
    run = host(workers=[[*SERVING, "deaf"]], replacements=[SERVING], drain_timeout_s=0.05, worker_grace_s=0.05)
    run.wait(event="ready")
    roll(run)
    killed = run.wait(event="killed")
    assert killed["child_pid"] == int(run.of("worker-0")[0])
    ended = run.wait(event="ended", child="worker-0")
    assert (ended["how"], ended["level"]) == ("SIGKILL", "error")
    run.process.terminate()
    assert run.end() == 0


def test_what_a_worker_says_of_its_drain_goes_before_the_plan(host: Callable[..., Host]) -> None:
    """It may have been told another time since the start."""
    run = host(workers=[[*SERVING, "deaf"]], drain_timeout_s=3600, worker_grace_s=0.05)
    run.wait(event="ready")
    Board.open(run.folder / "board").row(0)[Cell.DRAIN_MS] = 50
    run.process.terminate()
    assert run.end() == 1
    assert run.logged("killed")[0]["after_s"] == 0.1


def test_counts_of_both_lives_are_kept_apart_and_settled(host: Callable[..., Host]) -> None:
    run = host(workers=[[*SERVING, "deaf", "started=3"]], replacements=[[*SERVING, "started=5"]])
    run.wait(event="ready")
    roll(run)
    run.wait(event="replaced")
    board = Board.open(run.folder / "board")
    assert [row[Cell.STARTED] for row in board.lanes(0)] == [3, 5]
    os.kill(int(run.of("worker-0")[0]), signal.SIGKILL)
    assert run.wait(event="ended", child="worker-0")["lost_requests"] == 3
    assert [row[Cell.DROPPED_WORKER_LOST] for row in board.lanes(0)] == [3, 0]
    os.kill(int(run.of("worker-0")[1]), signal.SIGKILL)
    assert run.wait(event="restarting", child="worker-0")["lost_requests"] == 5
    assert board.total(Cell.DROPPED_WORKER_LOST) == 8


def test_a_worker_in_a_crash_loop_can_be_replaced(host: Callable[..., Host]) -> None:
    run = host(workers=[SERVING, [*SERVING]], backoff_first_s=3600.0)
    run.wait(event="ready")
    os.kill(int(run.of("worker-1")[0]), signal.SIGKILL)
    run.wait(event="restarting", child="worker-1", restart_in_s=10.0)  # so its socket is parked
    roll(run)
    run.wait(event="rolling_restart_done")
    run.wait_for_start(2, "worker-1")
    run.process.terminate()
    assert run.end() == 0
    assert len(run.of("worker-1")) == 2


def ask(run: Host) -> bytes:
    """Who answers a new connection."""
    host_name, _, port = run.wait(verb="listens")["what"].rpartition(":")
    with socket.create_connection((host_name, int(port)), timeout=PATIENCE_S) as connection:
        return connection.recv(64)


def test_the_socket_of_a_successor_is_not_taken_away_with_its_predecessors(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    """The old one leaves by itself while the new one, on the same socket, is about to serve."""
    end, begin = fifo(tmp_path / "end"), fifo(tmp_path / "begin")
    run = host(
        workers=[[*SERVING, "slow", f"fifo={end}"]],
        replacements=[[f"waits={begin}", *SERVING, "answer={fd}"]],
    )
    run.wait(event="ready")
    os.kill(int(run.of("worker-0")[0]), signal.SIGTERM)
    run.wait(child="worker-0", verb="got", what="SIGTERM")
    roll(run)
    run.wait(event="worker_leaving", child="worker-0")
    begin.write_text("go\n")
    run.wait(event="rolling_restart_done")
    assert ask(run) == b"worker-0"
    end.write_text("go\n")
    run.wait(event="ended", child="worker-0")
    assert ask(run) == b"worker-0"
    roll(run)  # parked, the slot could not be opened again: the successor has the address
    run.wait_for_start(3, "worker-0")
    assert not run.logged("rolling_restart_abandoned")


def test_a_worker_that_hangs_and_was_replaced_is_no_silent_slot(host: Callable[..., Host]) -> None:
    run = host(workers=[SERVING])
    run.wait(event="ready")
    old = int(run.of("worker-0")[0])
    os.kill(old, signal.SIGSTOP)
    roll(run)
    run.wait(event="rolling_restart_done")
    board = Board.open(run.folder / "board")
    row = board.row(0)
    assert row[Cell.GENERATION] == 7  # it could not even say that it leaves
    assert row[Cell.REPLACED] == 1
    later = now_ms() + 60_000
    board.row(1)[Cell.GENERATION] = 8
    assert silent_slots(board, later) == [0]  # the one that serves, so much later
    run.wait_for_start(2, "worker-0")
    os.kill(int(run.of("worker-0")[1]), signal.SIGSTOP)
    board.row(1)[Cell.HEARTBEAT] = later
    assert silent_slots(board, later) == []
    assert board.generation(0) == 8
    os.kill(old, signal.SIGKILL)
    run.wait(event="ended", child="worker-0")
    assert row[Cell.REPLACED] == 0


def test_a_roll_before_the_host_is_ready_is_refused(host: Callable[..., Host]) -> None:
    run = host(workers=[[]])
    run.wait(child="worker-0", verb="started")
    roll(run)
    assert "when the log says ready" in run.wait(event="not_now")["hint"]
    run.process.terminate()
    assert run.end() == 0
