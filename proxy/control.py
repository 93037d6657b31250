"""Composition root of the control process: the second listener of a host, for operators and their tools.

    GET /metrics    Prometheus, of all processes of the host
    GET /healthz    200 while this process runs
    GET /readyz     200 while every worker serves the current generation, shows a heartbeat and nobody drains, else
                    503; says which, and what is wrong with a configuration file that was refused

For these it only reads what others leave in the runtime directory: the board (shared memory), the observers' metric
files, and the file `draining`. So it needs no answer from a worker or an observer, and probes stay quick when those are
busy. Its listening socket belongs to the supervisor: a probe that comes while control is restarted waits instead of
failing.

And it brings changes of the configuration to the workers: `proxy.reload` follows the file, `proxy.link` tells them,
`Progress` says when all of them serve it. Nobody's traffic depends on that: a control process that is killed begins
again with what was in force.

Where `admin.token` is set, /metrics asks for it (`Authorization: Bearer …`); the two probes never do, since the
orchestrators that call them cannot keep a secret, and without it they say nothing but numbers.
"""

import argparse
import asyncio
import hmac
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from observability.board import Board
from observability.descriptors import open_standard_descriptors
from observability.exposition import (
    CONTENT_TYPE,
    OPENMETRICS_CONTENT_TYPE,
    description,
    exposition,
    openmetrics,
    wants_openmetrics,
)
from observability.log import get_logger, set_up
from observability.metrics_thread import MetricsThread
from proxy import runtime
from proxy.config.complaints import Complaint, ConfigError
from proxy.config.file import parse
from proxy.config.model import Document
from proxy.config.seal import VARIABLE as SEAL_KEY
from proxy.config.seal import plain_of
from proxy.heartbeat import now_ms, silent_slots
from proxy.link import Links, offer_line, packed
from proxy.reload import Generation, Reload
from proxy.state import Kept, StateError, StateFolder, kept_prices, read_kept

BAD_CONFIGURATION = 2
"""Exit code."""

SCRAPE_S_MAX = 10.0
"""How long a scrape may take, the one before it included: Prometheus' own default timeout."""

LAST_METRICS_S = 1.5
"""For the last numbers over OTLP: a collector that is well takes them in a tenth of it, and control has 3 s to end."""

SHUTDOWN_S = 1.0
"""For requests that are still running when control is told to end, by then the last process but the supervisor."""


LATE_S = 5.0
"""After which a change that is not in force everywhere is said to be late. It takes 0.1 s, and 1 s where a file has a
thousand Model APIs."""


@dataclass(slots=True)
class Host:
    """What control knows of its host."""

    runtime: Path
    board: Board
    generation: int
    """The latest; a worker may be about to get there."""
    token: str
    """Empty: none is asked for."""
    described: Sequence[Mapping[str, str]] = ()
    """The Model APIs, as the metrics describe them."""
    metrics: Callable[[Path, Board, Sequence[Mapping[str, str]]], bytes] = exposition
    refused: Callable[[], Sequence[Complaint]] = tuple
    """What is wrong with the configuration file as it stands."""
    failures: Mapping[int, str] = field(default_factory=dict)
    """Row of the board → why its worker cannot serve the latest generation."""

    @property
    def waiting_for(self) -> list[int]:
        """Slots that do not serve the latest generation."""
        return [slot for slot in range(self.board.slots) if self.board.generation(slot) != self.generation]


def application(host: Host) -> web.Application:
    """The routes."""
    scraping = asyncio.Lock()

    async def healthz(_request: web.Request) -> web.Response:
        return _json(200, {"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        draining = (host.runtime / runtime.DRAINING).exists()
        slots = range(host.board.slots)
        waiting_for, silent = host.waiting_for, silent_slots(host.board, now_ms())
        ready = not (draining or waiting_for or silent)
        facts: dict[str, Any] = {
            "draining": draining,
            "generation": host.generation,
            "waiting_for": waiting_for,
            "silent": silent,
            "workers": [{"slot": slot, "generation": host.board.generation(slot)} for slot in slots],
        }
        facts |= _reasons(host, told=not host.token or _bears(request, host.token))
        return _json(200 if ready else 503, {"status": "ready" if ready else "not ready", **facts})

    async def metrics(request: web.Request) -> web.Response:
        if host.token and not _bears(request, host.token):
            raise web.HTTPUnauthorized(headers={hdrs.WWW_AUTHENTICATE: "Bearer"}, text="the admin token is needed")
        # One at a time, in a thread: it reads the files of all processes, and a probe must not wait for that.
        async with asyncio.timeout(SCRAPE_S_MAX), scraping:
            if wants_openmetrics(request.headers.get(hdrs.ACCEPT, "")):
                body = await asyncio.to_thread(openmetrics, host.runtime, host.board, host.described)
                return web.Response(body=body, headers={hdrs.CONTENT_TYPE: OPENMETRICS_CONTENT_TYPE})
            body = await asyncio.to_thread(host.metrics, host.runtime, host.board, host.described)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})

    app = web.Application(middlewares=[_errors_in_json])
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


def _reasons(host: Host, *, told: bool) -> dict[str, Any]:
    """Why something did not come into force. Words of the file are for those who are `told`."""
    refused = [str(complaint) for complaint in host.refused()]
    failing = [{"slot": row % host.board.slots, "why": why} for row, why in sorted(host.failures.items())]
    if not told:
        refused = ["the log says why; so does this page to who brings the admin token"] if refused else []
        failing = [{"slot": one["slot"]} for one in failing]
    return {"refused": refused} | ({"failing": failing} if failing else {})


@web.middleware
async def _errors_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong is said in the shape that the rest of this listener speaks."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        allow = {name: value for name, value in error.headers.items() if name in {hdrs.ALLOW, hdrs.WWW_AUTHENTICATE}}
        message = error.text if error.status == web.HTTPUnauthorized.status_code else f"{request.path}: {error.reason}"
        return _json(error.status, {"error": {"status": error.status, "message": message}}, allow)
    except TimeoutError:
        return _json(503, {"error": {"status": 503, "message": f"not done within {SCRAPE_S_MAX:g} s"}})
    except Exception:  # noqa: BLE001 - logged, and the next request is none the worse
        get_logger(__name__).exception("control_failed", path=request.path)
        return _json(500, {"error": {"status": 500, "message": "failed; the log says why"}})


def _bears(request: web.Request, token: str) -> bool:
    scheme, _, credential = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        credential.strip().encode("utf-8", "surrogateescape"), token.encode()
    )


def _json(status: int, body: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json", headers=headers)


class Progress:
    """Says when the latest generation is in force in every worker, or that it is late."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._began_at = 0.0
        self._late: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A generation was announced."""
        loop = asyncio.get_running_loop()
        if self._late is not None:
            self._late.cancel()
        self._began_at, self._late = loop.time(), loop.call_later(LATE_S, self._on_late)

    def look(self) -> None:
        """A worker has answered."""
        if self._late is None or self._host.waiting_for:
            return
        self._late.cancel()
        self._late = None
        took_ms = round((asyncio.get_running_loop().time() - self._began_at) * 1000)
        get_logger(__name__).info("configuration_in_force", generation=self._host.generation, took_ms=took_ms)

    def _on_late(self) -> None:
        host, loop = self._host, asyncio.get_running_loop()
        waiting_for = host.waiting_for
        self._late = loop.call_later(LATE_S, self._on_late) if waiting_for else None
        if waiting_for:
            facts = _reasons(host, told=True) | {"waiting_for": waiting_for, "generation": host.generation}
            get_logger(__name__).warning("configuration_late", **facts)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the configuration comes from, and what it says."""

    file: Path
    """The user's."""
    folder: Path
    """Of the copy of what is in force."""
    kept: Kept
    document: Document
    options: Mapping[str, Any]
    """Of the command line, in place of the file's own keys."""
    seal_key: str


async def run(host: Host, source: Source, listener: socket.socket, sending: MetricsThread) -> None:
    """Serve until SIGTERM."""
    progress = Progress(host)
    links = Links(progress.look)
    host.failures = links.failures
    kept, document = source.kept, source.document

    def announce(generation: Generation) -> None:
        host.generation, host.token = generation.number, generation.document.admin.token
        host.described = _described(generation.document)
        links.announce(generation.number, generation.seal, generation.line)
        progress.begin()

    state = StateFolder(source.folder, lock=False)
    reload = Reload(source.file, state, kept, document, source.options, source.seal_key, announce)
    host.refused = lambda: reload.refused
    links.announce(kept.generation, kept.seal, offer_line(kept.generation, kept.seal, packed(plain_of(document))))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.ask)
    await links.listen(host.runtime)
    following = asyncio.create_task(reload.run())
    following.add_done_callback(lambda _: stop.set())  # without it this process is worth nothing: begin again
    runner = web.AppRunner(application(host), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    sending.start()
    await stop.wait()
    following.cancel()
    links.close()
    await asyncio.to_thread(sending.close, LAST_METRICS_S)
    await runner.cleanup()


def _described(document: Document) -> list[Mapping[str, str]]:
    return [description(one.name, one.scenario, one.resource_group, one.labels) for one in document.model_apis]


def _in_force(text: str, options: argparse.Namespace) -> Document:
    """What the kept copy says; with the prices of then, where their file is not to be read now. Raises ConfigError."""
    try:
        return parse(text, os.environ, options.file, options.options)
    except ConfigError as error:
        prices = kept_prices(options.config.parent)
        if prices is None or not all(one.path.startswith("prices") for one in error.complaints):
            raise
        return parse(text, os.environ, options.file, {**options.options, "prices": prices})


def main() -> int:
    """The command line that the supervisor uses."""
    open_standard_descriptors()
    parser = argparse.ArgumentParser(prog="python -m proxy.control", description="Started by `sluiceway serve`.")
    parser.add_argument("--fd", type=int, required=True, help="the inherited listening socket")
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--file", type=Path, required=True, help="the configuration as the user writes it")
    parser.add_argument("--options", type=orjson.loads, required=True, help="what goes before the file, as JSON")
    parser.add_argument("--config", type=Path, required=True, help="the copy of what is in force")
    options = parser.parse_args()
    lines = set_up("control", runtime=options.runtime)
    try:
        kept = read_kept(options.config)
        document = _in_force(kept.text, options)
    except (ConfigError, StateError) as error:
        sys.stderr.write(f"{error}\n")
        return BAD_CONFIGURATION
    board = Board.open(options.runtime / runtime.BOARD)
    host = Host(options.runtime, board, kept.generation, document.admin.token, _described(document))
    seal_key = os.environ[SEAL_KEY]
    source = Source(options.file, options.config.parent, kept, document, options.options, seal_key)
    sending = MetricsThread(options.runtime, board, lines, lambda: host.described)
    asyncio.run(run(host, source, socket.socket(fileno=options.fd), sending))
    return 0


if __name__ == "__main__":
    sys.exit(main())
