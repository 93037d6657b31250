"""The comparison's upstream, and a contestant that gives every request one answer: right, wrong, late, cut or none."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.ports import free_port


@contextmanager
def contest_upstream() -> Iterator[str]:
    """A process of its own."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.contest.upstream", "--listen", address])
    host, _, port = address.partition(":")
    while process.poll() is None:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
    yield f"http://{address}"
    process.kill()
    process.wait()


@contextmanager
def answering(
    form: bytes, body: bytes, *, delay_s: float = 0.0, close: bool = False, apart: bool = False
) -> Iterator[str]:
    """A server that gives every request on a connection the same answer, whatever it is; `form` empty: none.

    `apart`: the head is sent first, and the rest when it can be taken to have been read.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(channel: socket.socket) -> None:
        with channel, channel.makefile("rb") as file:
            while head := file.readline():
                length = 0
                while (line := file.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                file.read(length)
                if not head or not form:
                    continue
                time.sleep(delay_s)  # what is tested is a slow contestant
                answer = form % (len(body), body)
                at = answer.index(b"\r\n\r\n") + 4 if apart else 0
                channel.sendall(answer[:at])
                time.sleep(0.05 if apart else 0.0)
                channel.sendall(answer[at:])
                if close:
                    return

    def accept() -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_quietly, args=(serve, channel), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _quietly(serve: Any, channel: socket.socket) -> None:
    try:
        serve(channel)
    except OSError:
        pass  # the client has left
