"""Ports for processes that are about to be started.

The kernel gives a port of its own choice (`bind` to 0) to whoever asks: the same one twice in a row, or to an outgoing
connection in the time until the process listens. So they are taken from below the range that it chooses from (32768
to 60999 unless a machine is set up otherwise), in turn, each once in a process.
"""

import itertools
import os
import socket
from collections.abc import Iterator

_PORTS = range(10_000, 32_000)
_START = os.getpid() * 61 % len(_PORTS)
"""Processes run at once begin in different places."""
_in_turn: Iterator[int] = itertools.cycle((*_PORTS[_START:], *_PORTS[:_START]))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now, and that this process has not had before (until it had them all)."""
    for port in itertools.islice(_in_turn, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port of {_PORTS.start} to {_PORTS.stop - 1} is free")
