"""Composition root of a worker, the data plane: `python -m proxy.worker --slot I --fd N --runtime DIR --config FILE …`.

Serves one inherited listening socket with `EdgeServer`, hands its records to an observer, and keeps its row of the
board. It needs nothing but its configuration file and that socket: observers and control may be slow, hung or dead.

SIGTERM drains: `/-/readyz` fails, after `drain_delay_ms` the socket is closed, running requests finish up to
`drain_timeout_ms` (0: for ever), what is not answered by then gets a 503, then the records are flushed and the process
ends.
"""

import argparse
import asyncio
import gc
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from observability.board import Board, Cell
from observability.descriptors import open_standard_descriptors
from observability.emitter import Emitter, socket_path
from observability.log import get_logger, set_up
from observability.middleware import ObservationMiddleware
from observability.sampling import sampler
from observability.tally import RequestCounter
from proxy.config import file as config_file
from proxy.config.compile import compile_snapshot
from proxy.config.model import Document
from proxy.handler import Handler
from proxy.heartbeat import beat
from proxy.pipeline import Pipeline
from proxy.runtime import BOARD, METRICS
from proxy.server import EdgeServer
from proxy.spool import Holding
from proxy.upstream.address import AuthoritiesError

_log = get_logger(__name__)

FLUSH_S = 5.0
"""How long a stopping worker waits for an observer to take its last records."""
LAST_WORDS_S = 1.0
"""How long those who are cut may take to read why: a client in the middle of an upload must find its end first."""
BUSY_CHECK_S = 0.02
"""How often a drain looks whether the last request is over."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the supervisor tells a worker."""

    slot: int
    fd: int
    """The inherited listening socket."""
    runtime: Path
    config: Path
    generation: int
    observers: int


class Worker:
    """One worker process."""

    def __init__(self, arguments: Arguments, document: Document) -> None:
        self._arguments = arguments
        self._document = document
        self._board = Board.open(arguments.runtime / BOARD)
        self._row = self._board.row(arguments.slot)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to stop, then drain."""
        arguments = self._arguments
        loop = asyncio.get_running_loop()
        snapshot = compile_snapshot(self._document, arguments.generation)
        observer = arguments.slot % max(1, arguments.observers)
        emitter = Emitter(socket_path(arguments.runtime, observer), self._row, loop)
        holding = Holding(
            Path(snapshot.spool_dir),
            self._row,
            max_memory_bytes=snapshot.limits.max_held_memory_bytes,
            max_disk_bytes=snapshot.limits.max_held_disk_bytes,
            disk_bytes=lambda: self._board.total(Cell.HELD_DISK_BYTES),
        )
        pipeline = Pipeline(holding)
        pipeline.adopt(snapshot)
        handler = Handler(snapshot, pipeline, self._row)
        counter = RequestCounter(arguments.runtime / METRICS, arguments.slot)
        middleware = ObservationMiddleware(emitter, counter, self._row, sampler(os.environ))
        server = EdgeServer(middleware.wrap(handler), snapshot.limits, self._row)
        listener = await loop.create_server(server, sock=socket.socket(fileno=arguments.fd))
        for number in (signal.SIGTERM, signal.SIGINT):
            # Ctrl-C reaches the whole process group; the supervisor decides, and sends SIGTERM
            loop.add_signal_handler(number, self._stop.set if number == signal.SIGTERM else _ignore)
        gc.collect()
        gc.freeze()  # what lives as long as the process is not looked at again by every full collection
        self._row[Cell.GENERATION] = arguments.generation
        beat(self._row, loop)
        _log.info("worker_ready", slot=arguments.slot, pid=os.getpid(), generation=arguments.generation)
        await self._stop.wait()
        await self._drain(listener, server, handler, middleware)
        pipeline.close()
        holding.close()
        await emitter.close(FLUSH_S)

    async def _drain(
        self,
        listener: asyncio.AbstractServer,
        server: EdgeServer,
        handler: Handler,
        middleware: ObservationMiddleware,
    ) -> None:
        """Let running requests end; cut those that take longer than `drain_timeout_ms`."""
        document = self._document
        handler.ready = False
        self._row[Cell.GENERATION] = 0  # whoever looks at the board knows too, should we be the only one that drains
        _log.info("worker_draining", slot=self._arguments.slot, active=self._row[Cell.ACTIVE])
        await asyncio.sleep(document.drain_delay_ms / 1000)
        server.draining = True
        listener.close()
        await _quiet(server, document.drain_timeout_ms / 1000 or math.inf)
        if server.live:
            _log.warning("drain_timeout", slot=self._arguments.slot, cut=self._row[Cell.ACTIVE])
            handler.stopping = middleware.stopping = True
            server.cut_running()
            await _quiet(server, LAST_WORDS_S)
        server.stop_sweeping()
        await server.shutdown(0.1)
        for _ in range(100):  # the handlers that were cancelled hand over their records within a few turns of the loop
            if not self._row[Cell.ACTIVE]:
                break
            await asyncio.sleep(BUSY_CHECK_S)


async def _quiet(server: EdgeServer, timeout_s: float) -> None:
    """Close what is idle until nothing else is left, or for so long."""
    deadline = time.monotonic() + timeout_s
    while server.close_idle() and time.monotonic() < deadline:  # noqa: ASYNC110 - idle ones must be found anew
        await asyncio.sleep(BUSY_CHECK_S)


def _ignore() -> None:
    """For a signal that is the supervisor's to answer."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker; 2 where it cannot start, with one line that says why."""
    open_standard_descriptors()
    parser = argparse.ArgumentParser(
        prog="proxy.worker", description="A worker of the gateway; started by its supervisor."
    )
    for name, kind in (("slot", int), ("fd", int), ("runtime", Path), ("config", Path), ("generation", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--observers", type=int, default=1)
    arguments = Arguments(**vars(parser.parse_args(argv)))
    set_up("worker", runtime=arguments.runtime)
    try:
        document = config_file.load(arguments.config, os.environ)
    except config_file.ConfigError as error:
        for complaint in error.complaints:
            sys.stderr.write(f"{complaint}\n")
        return 2

    async def run() -> None:
        await Worker(arguments, document).run()

    try:
        uvloop.run(run())
    except AuthoritiesError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
