"""Composition root of a worker, the data plane: `python -m proxy.worker --slot I --fd N --runtime DIR --config FILE …`.

Serves one inherited listening socket with `EdgeServer`, hands its records to an observer, and keeps its row of the
board. It needs nothing but its configuration file and that socket: observers and control may be slow, hung or dead.

A new configuration comes over the link from control (proxy.link): it is prepared, which may fail and then changes
nothing, and swapped by one assignment. Running requests keep the snapshot that they began with.

SIGTERM drains: `/-/readyz` fails, after `drain_delay_ms` the socket is closed, running requests finish up to
`drain_timeout_ms` (0: for ever), what is not answered by then gets a 503, then the records are flushed and the process
ends. SIGUSR2 says that another worker has this one's place: the same, at once, and the host is ready all the while.
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
from typing import Any

import uvloop

from observability.board import UNLIMITED, Board, Cell
from observability.descriptors import open_standard_descriptors
from observability.emitter import Emitter, socket_path
from observability.log import get_logger, set_up
from observability.middleware import ObservationMiddleware
from observability.sampling import sampler
from observability.tally import RequestCounter
from proxy.config import file as config_file
from proxy.config.compile import compile_snapshot
from proxy.config.model import Document
from proxy.config.seal import VARIABLE as SEAL_KEY
from proxy.config.seal import seal_of
from proxy.config.snapshot import Snapshot
from proxy.handler import Handler
from proxy.heap import keep_free_pages
from proxy.heartbeat import beat
from proxy.link import Link, Offer, ask
from proxy.listener_tls import CertificateError
from proxy.listening import Listening, listen
from proxy.pipeline import Pipeline
from proxy.runtime import BOARD, METRICS
from proxy.server import EdgeServer
from proxy.spool import Holding
from proxy.state import StateError, read_kept
from proxy.upstream.tls import TlsFilesError

_log = get_logger(__name__)

GC_THRESHOLDS = (5000, 10, 20)
"""Of `gc.set_threshold`. What ends here is freed by its counts (tests/proxy/test_no_cycles.py), so a collection finds
nothing and costs time: with 2,000 slow clients up to 120 ms for a full one, of which Python's own thresholds make one
for each quarter more of them. Should cycles come all the same, a million objects, about 100 MB, wait at most."""
FLUSH_S = 5.0
"""How long a stopping worker waits for an observer to take its last records."""
LAST_WORDS_S = 1.0
"""How long those who are cut may take to read why: a client in the middle of an upload must find its end first."""
BUSY_CHECK_S = 0.02
"""How often a drain looks whether the last request is over."""
LAST_REQUEST_S = 2.0
"""How long a worker that was replaced leaves a connection idle. Who sends a request in that time is answered, with
`connection: close`; closed at once, a connection might have a request on its way, which would be lost."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the supervisor tells a worker."""

    slot: int
    row: int
    """Its number on the board: not the slot's where this worker has taken another one's place."""
    fd: int
    """The inherited listening socket."""
    runtime: Path
    config: Path
    observers: int


class Worker:
    """One worker process. Made and used on the thread of the running event loop."""

    def __init__(self, arguments: Arguments, document: Document, generation: int, seal: str) -> None:
        self._arguments = arguments
        self._document = document
        self._generation = generation
        self._seal = seal
        self._board = Board.open(arguments.runtime / BOARD)
        self._row = self._board.row(arguments.row)
        self._stop = asyncio.Event()
        self._replaced = False
        loop = asyncio.get_running_loop()
        snapshot = compile_snapshot(document, generation)
        observer = arguments.slot % max(1, arguments.observers)
        self._emitter = Emitter(socket_path(arguments.runtime, observer), self._row, loop)
        self._emitter.redact(document.redact)
        self._holding = Holding(
            Path(snapshot.spool_dir),
            self._row,
            max_memory_bytes=snapshot.limits.max_held_memory_bytes,
            max_disk_bytes=snapshot.limits.max_held_disk_bytes,
            disk_bytes=lambda: self._board.total(Cell.HELD_DISK_BYTES),
        )
        self._pipeline = Pipeline(self._holding)
        self._pipeline.adopt(snapshot)
        self._handler = Handler(snapshot, self._pipeline, self._row)
        counter = RequestCounter(arguments.runtime / METRICS, arguments.row)
        self._middleware = ObservationMiddleware(self._emitter, counter, self._row, sampler(os.environ))
        serve = self._middleware.wrap(self._handler)
        self._server = EdgeServer(serve, snapshot.limits, self._row, snapshot.trusted_proxies)
        self._listening: Listening

    async def run(self) -> None:
        """Serve until told to stop, then drain."""
        arguments = self._arguments
        loop = asyncio.get_running_loop()
        self._listening = await listen(self._server, socket.socket(fileno=arguments.fd), self._handler.snapshot)
        for number, answer in (
            (signal.SIGTERM, self._stop.set),
            (signal.SIGUSR2, self._on_replaced),
            (signal.SIGINT, _ignore),  # Ctrl-C reaches the whole process group; the supervisor decides
        ):
            loop.add_signal_handler(number, answer)
        gc.collect()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.freeze()  # what lives as long as the process is not looked at again by every full collection
        self._say_generation()
        beat(self._row, loop)
        _log.info("worker_ready", slot=arguments.slot, pid=os.getpid(), generation=self._generation)
        link = Link(arguments.runtime, arguments.row, lambda: (self._generation, self._seal), self._adopt)
        following = asyncio.create_task(link.run())
        await self._stop.wait()
        await self._drain()
        following.cancel()
        self._pipeline.close()
        self._holding.close()
        await self._emitter.close(FLUSH_S)

    def _on_replaced(self) -> None:
        self._replaced = True
        self._stop.set()

    # -- from one generation to the next -----------------------------------------------------------------------------

    async def _adopt(self, offer: Offer) -> str | None:
        """Serve a document that control has checked. Where that cannot be, say why; then nothing has changed.

        Also while draining: a key that was revoked must not open the connections that are left.
        """
        generation = offer.generation
        try:
            document, snapshot = await asyncio.to_thread(_prepared, offer.document, generation)
            show = await asyncio.to_thread(self._listening.prepared, snapshot)
            self._pipeline.adopt(snapshot)
        except (CertificateError, TlsFilesError, config_file.ConfigError) as error:
            why = str(error)
        except Exception:  # noqa: BLE001 - whatever it is, this worker serves on, and the log has the reason
            _log.exception("configuration_failed", slot=self._arguments.slot, generation=generation)
            return "it failed; the log says how"
        else:
            self._handler.snapshot = snapshot  # the swap: each request has the one or the other
            self._document, self._generation, self._seal = document, generation, offer.seal
            self._emitter.redact(document.redact)
            self._server.adopt(snapshot.limits, snapshot.trusted_proxies)
            show()
            limits = snapshot.limits
            self._holding.limit(
                max_memory_bytes=limits.max_held_memory_bytes, max_disk_bytes=limits.max_held_disk_bytes
            )
            self._say_generation()
            return None
        _log.error("configuration_failed", slot=self._arguments.slot, generation=generation, why=why)
        return why

    def _say_generation(self) -> None:
        document = self._document
        limited_ms = document.drain_delay_ms + document.drain_timeout_ms
        if not self._stop.is_set():
            self._row[Cell.DRAIN_MS] = limited_ms if document.drain_timeout_ms else UNLIMITED
            self._row[Cell.GENERATION] = self._generation

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Let running requests end; cut those that take longer than `drain_timeout_ms`."""
        document, server = self._document, self._server
        self._handler.ready = self._replaced
        self._row[Cell.GENERATION] = 0  # whoever looks at the board knows too, should we be the only one that drains
        _log.info("worker_draining", slot=self._arguments.slot, active=self._row[Cell.ACTIVE], replaced=self._replaced)
        if not self._replaced:
            await asyncio.sleep(document.drain_delay_ms / 1000)
        server.drain()
        self._listening.close()
        await asyncio.sleep(BUSY_CHECK_S)  # what was accepted a moment ago is connected now
        idle_s = LAST_REQUEST_S if self._replaced else 0.0
        if not await _quiet(server, document.drain_timeout_ms / 1000 or math.inf, idle_s):
            if self._row[Cell.ACTIVE]:
                _log.warning("drain_timeout", slot=self._arguments.slot, cut=self._row[Cell.ACTIVE])
            self._handler.stopping = self._middleware.stopping = True
            server.cut_running()
            await _quiet(server, LAST_WORDS_S, 0.0)
        server.stop_sweeping()
        await server.shutdown(0.1)
        for _ in range(100):  # the handlers that were cancelled hand over their records within a few turns of the loop
            if not self._row[Cell.ACTIVE]:
                break
            await asyncio.sleep(BUSY_CHECK_S)


def _prepared(plain: dict[str, Any], generation: int) -> tuple[Document, Snapshot]:
    """On a thread: it takes 0.1 s where a file has a thousand Model APIs."""
    document = config_file.validated(plain)
    return document, compile_snapshot(document, generation)


async def _quiet(server: EdgeServer, timeout_s: float, idle_s: float) -> bool:
    """Close what is idle for `idle_s` until nothing else is left, or for so long; False where something is."""
    deadline = time.monotonic() + timeout_s
    while left := server.close_idle(idle_s):
        if time.monotonic() >= deadline:
            break
        await asyncio.sleep(BUSY_CHECK_S)
    return not left


def _ignore() -> None:
    """For a signal that is the supervisor's to answer."""


def _begin(arguments: Arguments) -> tuple[Document, int, str]:
    """What to begin with: document, generation, seal. Raises ConfigError and StateError."""
    try:
        kept = read_kept(arguments.config)
        document = config_file.parse(kept.text, os.environ, arguments.config)
        return document, kept.generation, seal_of(document, os.environ[SEAL_KEY])
    except (config_file.ConfigError, StateError) as error:
        offer = asyncio.run(ask(arguments.runtime, arguments.row))  # what it refers to may be gone; control has read it
        if offer is None:
            raise
        _log.warning("configuration_handed_over", slot=arguments.slot, generation=offer.generation, why=str(error))
        return config_file.validated(offer.document), offer.generation, offer.seal


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker; 2 where it cannot start, with one line that says why."""
    open_standard_descriptors()
    parser = argparse.ArgumentParser(
        prog="proxy.worker", description="A worker of the gateway; started by its supervisor."
    )
    for name, kind in (("slot", int), ("row", int), ("fd", int), ("runtime", Path), ("config", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--observers", type=int, default=1)
    arguments = Arguments(**vars(parser.parse_args(argv)))
    set_up("worker", runtime=arguments.runtime)
    keep_free_pages()

    async def run(document: Document, generation: int, seal: str) -> None:
        await Worker(arguments, document, generation, seal).run()

    try:
        uvloop.run(run(*_begin(arguments)))
    except (CertificateError, TlsFilesError, config_file.ConfigError, StateError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
