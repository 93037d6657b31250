"""Composition root of the control process: the second listener of a host, for operators and their tools.

    GET /metrics    Prometheus, of all processes of the host
    GET /healthz    200 while this process runs
    GET /readyz     200 while every worker serves the current generation, shows a heartbeat and nobody drains, else
                    503; says which

It only reads what others leave in the runtime directory: the board (shared memory), the observers' metric files, and
the file `draining`. So it needs no answer from a worker or an observer, and probes stay quick when those are busy.
Its listening socket belongs to the supervisor: a probe that comes while control is restarted waits instead of failing.

Where `admin.token` is set, /metrics asks for it (`Authorization: Bearer …`); the two probes never do, since the
orchestrators that call them cannot keep a secret, and they say nothing but numbers.
"""

import argparse
import asyncio
import hmac
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from observability.board import Board, Cell
from observability.descriptors import open_standard_descriptors
from observability.exposition import CONTENT_TYPE, exposition
from observability.log import get_logger, set_up
from proxy import runtime
from proxy.config.complaints import ConfigError
from proxy.config.file import load
from proxy.heartbeat import now_ms, silent_slots

BAD_CONFIGURATION = 2
"""Exit code."""

SCRAPE_S_MAX = 10.0
"""How long a scrape may take, the one before it included: Prometheus' own default timeout."""

SHUTDOWN_S = 1.0
"""For requests that are still running when control is told to end, by then the last process but the supervisor."""


@dataclass(frozen=True, slots=True)
class Host:
    """What control knows of its host."""

    runtime: Path
    board: Board
    generation: int
    token: str
    """Empty: none is asked for."""
    metrics: Callable[[Path, Board], bytes] = exposition


def application(host: Host) -> web.Application:
    """The routes."""
    scraping = asyncio.Lock()

    async def healthz(_request: web.Request) -> web.Response:
        return _json(200, {"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        draining = (host.runtime / runtime.DRAINING).exists()
        workers = [{"slot": slot, "generation": row[Cell.GENERATION]} for slot, row in enumerate(host.board.rows())]
        waiting_for = [worker["slot"] for worker in workers if worker["generation"] != host.generation]
        silent = silent_slots(host.board, now_ms())
        ready = not (draining or waiting_for or silent)
        facts = {
            "draining": draining,
            "generation": host.generation,
            "waiting_for": waiting_for,
            "silent": silent,
            "workers": workers,
        }
        return _json(200 if ready else 503, {"status": "ready" if ready else "not ready", **facts})

    async def metrics(request: web.Request) -> web.Response:
        if host.token and not _bears(request, host.token):
            raise web.HTTPUnauthorized(headers={hdrs.WWW_AUTHENTICATE: "Bearer"}, text="the admin token is needed")
        # One at a time, in a thread: it reads the files of all processes, and a probe must not wait for that.
        async with asyncio.timeout(SCRAPE_S_MAX), scraping:
            body = await asyncio.to_thread(host.metrics, host.runtime, host.board)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})

    app = web.Application(middlewares=[_errors_in_json])
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


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


async def run(host: Host, listener: socket.socket) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(application(host), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    await stop.wait()
    await runner.cleanup()


def main() -> int:
    """The command line that the supervisor uses."""
    open_standard_descriptors()
    parser = argparse.ArgumentParser(prog="python -m proxy.control", description="Started by `sluiceway serve`.")
    parser.add_argument("--fd", type=int, required=True, help="the inherited listening socket")
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--generation", type=int, required=True)
    options = parser.parse_args()
    set_up("control", runtime=options.runtime)
    try:
        document = load(options.config, os.environ)
    except ConfigError as error:
        sys.stderr.writelines(f"{complaint}\n" for complaint in error.complaints)
        return BAD_CONFIGURATION
    board = Board.open(options.runtime / runtime.BOARD)
    host = Host(options.runtime, board, options.generation, document.admin.token or "")
    asyncio.run(run(host, socket.socket(fileno=options.fd)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
