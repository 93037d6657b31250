"""A stand-in for any child of the supervisor: it says on stdout what happens to it, one line each.

Usage: child.py NAME BEHAVIOUR…   with board=FILE, row=N, generation=N where it plays a worker, and any of
    ready            write the generation into the board, as a serving worker does
    exit=CODE        end at once
    exit-once=FILE   the first time (FILE remembers) end with exit-code=CODE on the line in the FIFO; live the next time
    beats            with `ready`: show a heartbeat, as a worker's event loop does
    deaf             ignore SIGTERM
    waits=FIFO       do nothing of this before there is a line in the FIFO
    reloads          say that SIGHUP came
    slow             end on the line `go` in the FIFO given by fifo=FILE, not on SIGTERM
    started=N        pretend to have begun N requests that have no record yet
    answer=FD        accept from a listening socket and answer the name
    leaves=FD        on SIGTERM or SIGUSR2 close the listening socket and leave the board's generation, as a worker does
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from observability.board import Board, Cell
from proxy.heartbeat import now_ms


def main() -> None:
    name, *words = sys.argv[1:]
    options = dict(word.partition("=")[::2] for word in words)

    def on_term(number: int, _frame: FrameType | None) -> None:
        if "leaves" in options:
            with contextlib.suppress(OSError):  # it was told before
                os.close(int(options["leaves"]))
            Board.open(Path(options["board"])).row(int(options["row"]))[Cell.GENERATION] = 0
        say(name, "got", signal.Signals(number).name)
        if "deaf" not in options and "slow" not in options:
            sys.exit(0)

    signalled, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)  # not signal.pause(): what came a moment before it would be slept over
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, on_term)
    if "reloads" in options:
        signal.signal(signal.SIGHUP, lambda *_: say(name, "got", "SIGHUP"))
    say(name, "started", os.getpid())
    if "waits" in options:
        wait_for_line(options["waits"])
    if "exit-once" in options:
        memory = Path(options["exit-once"])
        if not memory.exists():
            memory.touch()
            wait_for_line(options["fifo"])
            sys.exit(int(options["exit-code"]))
    if "board" in options:
        row = Board.open(Path(options["board"])).row(int(options["row"]))
        row[Cell.STARTED] += int(options.get("started", 0))
        if "ready" in options:
            row[Cell.GENERATION] = int(options["generation"])
        if "beats" in options:
            threading.Thread(target=beat, args=(row,), daemon=True).start()
    if "exit" in options:
        sys.exit(int(options["exit"]))
    if "answer" in options:
        threading.Thread(target=answer, args=(name, int(options["answer"])), daemon=True).start()
    if "slow" in options:
        wait_for_line(options["fifo"])
        say(name, "finished", "")
        return
    while True:
        os.read(signalled, 64)


def wait_for_line(fifo: str) -> None:
    with Path(fifo).open() as pipe:
        pipe.readline()


def beat(row: memoryview) -> None:
    while True:
        row[Cell.HEARTBEAT] = now_ms()
        time.sleep(0.05)


def answer(name: str, fd: int) -> None:
    listener = socket.socket(fileno=fd)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # muted: an event loop would wait for the socket to be readable again
            time.sleep(0.01)
            continue
        connection.sendall(name.encode())
        connection.close()


def say(name: str, verb: str, what: object) -> None:
    os.write(1, f"# {name} {verb} {what}\n".encode())  # one write, so that lines of several processes do not mix


if __name__ == "__main__":
    main()
