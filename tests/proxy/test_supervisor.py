"""The supervisor with real processes: one of its own (`supervised.py`), and children that only talk (`child.py`).

Tests wait for lines: those of the supervisor's log, and those in which children say what happened to them.
"""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from observability.board import Board, Cell
from proxy.children import Backoff, Ending
from tests.fakes.host import PATIENCE_S, Host, fifo

READY = ["ready"]


# Start


def test_starts_observers_then_control_then_workers_and_says_ready(host: Callable[..., Host]) -> None:
    run = host(workers=[READY, READY], observers=[[]], control=[[]])
    ready = run.wait(event="ready")
    assert (ready["workers"], ready["generation"]) == (2, 7)
    assert [line["child"] for line in run.logged("started")] == ["observer-0", "control-0", "worker-0", "worker-1"]
    assert ready["listen"] == run.wait(verb="listens")["what"]


def test_is_not_ready_before_the_last_worker_is(host: Callable[..., Host]) -> None:
    run = host(workers=[READY, []])
    run.wait(child="worker-1", verb="started")
    assert not run.logged("ready")
    Board.open(run.folder / "board").row(1)[Cell.GENERATION] = 7
    run.wait(event="ready")


@pytest.mark.parametrize("code", [2, 3])
def test_a_worker_that_refuses_at_the_first_start_ends_the_start(host: Callable[..., Host], code: int) -> None:
    run = host(workers=[READY, [f"exit={code}"]], observers=[[]], control=[[]])
    assert run.end() == code
    (refusal,) = run.logged("refused_to_start")
    assert refusal["child"] == "worker-1"
    assert refusal["how"] == f"exit code {code}"
    assert "stderr" in refusal["hint"]
    assert not run.logged("restarting")


# Death


def test_a_crashed_child_is_started_again_and_logged(host: Callable[..., Host]) -> None:
    run = host(workers=[READY], observers=[[]], control=[[]])
    run.wait(event="ready")
    for name in ("worker-0", "observer-0", "control-0"):
        run.wait_for_start(1, name)
        victim = int(run.of(name)[-1])
        os.kill(victim, signal.SIGKILL)
        line = run.wait(event="restarting", child=name)
        assert (line["child_pid"], line["how"], line["what"]) == (victim, "SIGKILL", "died")
        assert line["restart_in_s"] == pytest.approx(0.01)
        run.wait_for_start(2, name)
        assert int(run.of(name)[-1]) != victim


def test_a_child_that_keeps_dying_waits_longer_each_time_and_is_called_a_crash_loop(host: Callable[..., Host]) -> None:
    run = host(workers=[READY], observers=[["exit=1"]], backoff_first_s=0.001)
    loud = run.wait(event="crash_loop")
    assert loud["level"] == "error"
    assert loud["failures"] == 5
    waits = [line["restart_in_s"] for line in run.logged("restarting")] + [loud["restart_in_s"]]
    assert waits == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.016])
    assert "5 times in a row" in loud["hint"]


def test_a_refusal_after_the_first_ready_is_a_crash_like_any_other(host: Callable[..., Host], tmp_path: Path) -> None:
    gate = fifo(tmp_path / "gate")
    run = host(workers=[READY], observers=[["exit-once={folder}/once", "exit-code=3", f"fifo={gate}"]])
    run.wait(event="ready")
    gate.write_text("go\n")
    assert run.wait(event="restarting", child="observer-0")["how"] == "exit code 3"
    run.wait_for_start(2, "observer-0")


def test_a_dead_workers_requests_are_counted_as_lost(host: Callable[..., Host]) -> None:
    run = host(workers=[[*READY, "started=3"]])
    run.wait(event="ready")
    row = Board.open(run.folder / "board").row(0)
    assert row[Cell.STARTED] == 3
    os.kill(int(run.of("worker-0")[0]), signal.SIGKILL)
    assert run.wait(event="restarting")["lost_requests"] == 3
    assert row[Cell.DROPPED_WORKER_LOST] == 3


def test_a_live_gauge_of_a_dead_process_is_removed(host: Callable[..., Host]) -> None:
    run = host(workers=[READY], observers=[[]])
    run.wait(event="ready")
    run.wait_for_start(1, "observer-0")
    victim = int(run.of("observer-0")[0])
    metrics = run.folder / "metrics"
    metrics.mkdir()
    for name in (f"gauge_liveall_{victim}.db", f"counter_{victim}.db"):
        (metrics / name).touch()
    os.kill(victim, signal.SIGKILL)
    run.wait(event="restarting")
    assert [path.name for path in metrics.iterdir()] == [f"counter_{victim}.db"]


def test_connections_go_to_the_others_while_a_worker_cannot_be_started(host: Callable[..., Host]) -> None:
    run = host(
        workers=[[*READY, "answer={fd}"], ["exit=1"]],
        backoff_first_s=5.0,  # longer than a connection may wait, so its socket is parked
    )
    run.wait(event="restarting", child="worker-1")
    host_name, _, port = run.wait(verb="listens")["what"].rpartition(":")
    for _ in range(32):  # an open slot 1 would get each with probability 1/2
        with socket.create_connection((host_name, int(port)), timeout=PATIENCE_S) as connection:
            assert connection.recv(64) == b"worker-0"


# Silence

SERVING = [*READY, "beats", "answer={fd}"]


def ask(run: Host) -> bytes:
    """Who answers a new connection."""
    host_name, _, port = run.wait(verb="listens")["what"].rpartition(":")
    with socket.create_connection((host_name, int(port)), timeout=PATIENCE_S) as connection:
        return connection.recv(64)


def test_a_silent_worker_gets_no_connections_until_it_is_back(host: Callable[..., Host]) -> None:
    run = host(workers=[SERVING, SERVING], silent_after_s=1.0)
    run.wait(event="ready")
    victim = int(run.of("worker-1")[0])
    os.kill(victim, signal.SIGSTOP)
    line = run.wait(event="worker_silent")
    assert (line["child"], line["child_pid"], line["muted"]) == ("worker-1", victim, True)
    assert {ask(run) for _ in range(32)} == {b"worker-0"}
    os.kill(victim, signal.SIGCONT)
    run.wait(event="worker_back", child="worker-1")
    assert {ask(run) for _ in range(32)} == {b"worker-0", b"worker-1"}
    assert len(run.logged("worker_silent")) == 1
    assert len(run.of("worker-1")) == 1


def test_the_last_that_listens_is_not_muted(host: Callable[..., Host]) -> None:
    """Connections that wait for it may still be served; refused ones are not."""
    run = host(workers=[SERVING], silent_after_s=1.0)
    run.wait(event="ready")
    os.kill(int(run.of("worker-0")[0]), signal.SIGSTOP)
    assert run.wait(event="worker_silent")["muted"] is False
    host_name, _, port = run.wait(verb="listens")["what"].rpartition(":")
    with socket.create_connection((host_name, int(port)), timeout=PATIENCE_S) as connection:
        os.kill(int(run.of("worker-0")[0]), signal.SIGCONT)
        assert connection.recv(64) == b"worker-0"


def test_a_worker_that_stays_silent_is_killed_and_started_again(host: Callable[..., Host]) -> None:
    run = host(workers=[SERVING, SERVING], silent_after_s=0.5, stuck_after_s=1.0)
    run.wait(event="ready")
    os.kill(int(run.of("worker-1")[0]), signal.SIGSTOP)
    run.wait(event="worker_stuck", child="worker-1")
    assert run.wait(event="restarting", child="worker-1")["how"] == "SIGKILL"
    run.wait_for_start(2, "worker-1")
    names = {ask(run) for _ in range(32)}
    assert names == {b"worker-0", b"worker-1"}


def test_a_worker_that_leaves_by_itself_gets_no_connections(host: Callable[..., Host], tmp_path: Path) -> None:
    gate = fifo(tmp_path / "gate")
    run = host(workers=[SERVING, [*READY, "beats", "leaves={fd}", "slow", f"fifo={gate}"]])
    run.wait(event="ready")
    os.kill(int(run.of("worker-1")[0]), signal.SIGTERM)
    run.wait(event="worker_leaving", child="worker-1")
    assert {ask(run) for _ in range(32)} == {b"worker-0"}
    gate.write_text("go\n")
    assert run.wait(event="restarting", child="worker-1")["how"] == "exit code 0"


# Drain


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drains_workers_then_observers_then_control(
    host: Callable[..., Host], tmp_path: Path, number: signal.Signals
) -> None:
    gate = fifo(tmp_path / "gate")
    run = host(workers=[[*READY, "slow", f"fifo={gate}"], READY], observers=[[]], control=[[]])
    run.wait(event="ready")
    for child in ("worker-0", "observer-0", "control-0"):
        run.wait(child=child, verb="started")
    run.process.send_signal(number)
    run.wait(child="worker-0", verb="got")
    assert (run.folder / "draining").exists()
    run.wait(event="ended", child="worker-1")
    assert not run.of("observer-0", "got")  # one worker still has requests
    gate.write_text("go\n")
    assert run.end() == 0
    order = [
        run.index(child="worker-0", verb="finished"),
        run.index(child="observer-0", verb="got"),
        run.index(child="control-0", verb="got"),
        run.index(event="stopped"),
    ]
    assert order == sorted(order)
    assert not run.logged("killed")


def test_drains_though_the_runtime_directory_is_gone(host: Callable[..., Host], tmp_path: Path) -> None:
    gate = fifo(tmp_path / "gate")
    run = host(workers=[[*READY, "slow", f"fifo={gate}"]], observers=[[]])
    run.wait(event="ready")
    shutil.rmtree(run.folder)
    run.process.terminate()
    run.wait(child="worker-0", verb="got")
    gate.write_text("go\n")
    assert run.end() == 0
    assert run.of("worker-0", "finished")
    assert run.logged("runtime_damaged")[0]["folder"] == str(run.folder)


def test_the_port_is_free_once_the_workers_have_closed_it(host: Callable[..., Host], tmp_path: Path) -> None:
    """The supervisor keeps no copy of a listening socket in a drain: connections would wait in it for nobody."""
    gate = fifo(tmp_path / "gate")
    run = host(workers=[READY], observers=[["slow", f"fifo={gate}"]])
    address = run.wait(event="ready")["listen"]
    run.process.terminate()
    run.wait(child="observer-0", verb="got")  # so the worker is gone, and the supervisor is not
    host_name, _, port = address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host_name, int(port)), timeout=PATIENCE_S)
    gate.write_text("go\n")
    assert run.end() == 0


def test_a_worker_that_does_not_end_in_time_is_killed(host: Callable[..., Host]) -> None:
    run = host(workers=[[*READY, "deaf"]], observers=[[]], drain_timeout_s=0.05, worker_grace_s=0.05)
    run.wait(event="ready")
    run.process.terminate()
    assert run.end() == 1
    assert run.logged("killed")[0]["child"] == "worker-0"
    assert run.of("observer-0", "got")  # it still flushes


def test_without_a_drain_timeout_a_worker_may_take_its_time(host: Callable[..., Host], tmp_path: Path) -> None:
    gate = fifo(tmp_path / "gate")
    run = host(workers=[[*READY, "slow", f"fifo={gate}"], [*READY, "beats"]], drain_timeout_s=0, worker_grace_s=0)
    run.wait(event="ready")
    run.process.terminate()
    run.wait(event="ended", child="worker-1")  # with a limit of zero nobody would have lived to say so
    gate.write_text("go\n")
    assert run.end() == 0
    assert run.of("worker-0", "finished")


def test_a_second_signal_stops_at_once(host: Callable[..., Host]) -> None:
    run = host(workers=[[*READY, "deaf"]], observers=[["deaf"]], control=[["deaf"]])
    run.wait(event="ready")
    run.process.terminate()
    run.wait(child="worker-0", verb="got")
    run.process.terminate()
    assert run.end() == 1
    assert [line["signal"] for line in run.logged("stopping_at_once")] == ["SIGTERM"]
    assert not run.logged("restarting")


def test_nothing_is_restarted_while_draining(host: Callable[..., Host]) -> None:
    run = host(workers=[READY], observers=[["exit=1"]], backoff_first_s=30.0)
    run.wait(event="ready")
    run.wait(event="restarting")
    run.process.terminate()
    assert run.end() == 0
    assert len(run.of("observer-0")) == 1


def test_sighup_is_handed_on_to_control_alone(host: Callable[..., Host]) -> None:
    run = host(workers=[READY], observers=[[]], control=[["reloads"]])
    run.wait(event="ready")
    run.wait(child="control-0", verb="started")
    run.process.send_signal(signal.SIGHUP)
    assert run.wait(child="control-0", verb="got")["what"] == "SIGHUP"
    run.process.terminate()
    assert run.end() == 0
    assert not run.logged("restarting")


def test_a_child_that_has_just_begun_is_not_killed_by_sighup(host: Callable[..., Host]) -> None:
    """By default it would be: this one never says what it wants to do with it."""
    run = host(workers=[READY], control=[[]])
    run.wait(child="control-0", verb="started")
    run.process.send_signal(signal.SIGHUP)
    run.wait(event="ready")
    run.process.terminate()
    assert run.end() == 0
    assert run.of("control-0", "got") == ["SIGTERM"]


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_children_do_not_outlive_a_killed_supervisor(host: Callable[..., Host]) -> None:
    run = host(workers=[[*READY, "deaf"]], observers=[["deaf"]], control=[["deaf"]])
    run.wait(event="ready")
    host_name, _, port = run.wait(verb="listens")["what"].rpartition(":")
    run.process.kill()
    assert run.end() == -signal.SIGKILL  # `end` returns when the last process that holds the pipe is gone
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host_name, int(port)), timeout=PATIENCE_S)


# Small parts


def test_backoff_doubles_up_to_its_limit() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(n) for n in range(1, 10)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert backoff.delay_s(100_000) == 10.0


@pytest.mark.parametrize(("code", "how"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-40, "signal 40")])
def test_an_ending_says_how(code: int, how: str) -> None:
    assert Ending(pid=1, code=code, uptime_s=0.0).how == how
