"""Ties the simulated upstream together: path → answer, ledger, and the ``/sim/…`` pages that tests read."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from benchmarks.upstream.answers import Asked, Reply
from benchmarks.upstream.delivery import deliver, until_the_client_leaves
from benchmarks.upstream.errors import error, protocol_of
from benchmarks.upstream.ledger import KEPT, Entry, Ledger
from benchmarks.upstream.routes import answer_to
from benchmarks.upstream.script import Script, ScriptError, read_script
from benchmarks.upstream.store import Store
from benchmarks.upstream.upload import Upload, read_upload

WAIT_MS = 10_000  # of /sim/requests?until=…, so that a test that waits in vain fails with a message
EMPTY_DIGEST = hashlib.sha256(b"").digest()
# where other protocols live than the one that is native at a place
PREFIXES = ("/compatible-mode", "/apps/anthropic")


@dataclass(slots=True)
class Upstream:
    """A running simulated upstream."""

    host: str
    port: int
    ledger: Ledger
    runner: web.ServerRunner
    scheme: str = "http"
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"{self.scheme}://{self.host}:{self.port}"

    async def stop(self) -> None:
        """Closes the listener and breaks off what still runs."""
        await self.runner.cleanup()


async def start(host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> Upstream:
    """Listens (port 0: any free one) in the running loop; raises OSError when the address is taken."""
    ledger, store = Ledger(), Store("https" if tls else "http")

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await _handle(request, ledger, store)

    # auto_decompress off: the hash is of the bytes on the wire. handler_cancellation: a client that leaves is noticed.
    server = web.Server(handle, handler_cancellation=True, access_log=None, auto_decompress=False, keepalive_timeout=75)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=tls, backlog=1024)
    await site.start()
    return Upstream(host, runner.addresses[0][1], ledger, runner, store.scheme)


async def _handle(request: web.BaseRequest, ledger: Ledger, store: Store) -> web.StreamResponse:
    if request.path.startswith("/sim/"):
        return await _page(request, ledger)
    raw_path, raw_headers = request.raw_path, request.raw_headers
    entry = ledger.arrive(request.method, raw_path, raw_headers, _peer(request))
    try:
        try:
            path, script = read_script(raw_path, raw_headers)
        except ScriptError as problem:
            reply, script = error("openai", 400, "bad_script", str(problem), EMPTY_DIGEST), Script()
        else:
            reply = await _reply(request, _plain(path), script, entry, store)
        try:
            return await deliver(request, reply, script, entry, ledger)
        except ConnectionError:  # a write after the client left: the cancellation is on its way
            await until_the_client_leaves()
            raise
    except asyncio.CancelledError:
        if entry.ending == "running":
            ledger.finish(entry, "client_left")
        raise


def _peer(request: web.BaseRequest) -> str:
    """Names the connection, so that tests can see it being reused."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return f"{peer[0]}:{peer[1]}" if peer else ""


def _plain(path: str) -> str:
    """Without a trailing slash, and without the place of a compatible mode."""
    path = path.rstrip("/")
    for prefix in PREFIXES:
        if path.startswith(prefix + "/"):
            return path.removeprefix(prefix)
    return path


async def _reply(request: web.BaseRequest, path: str, script: Script, entry: Entry, store: Store) -> Reply:
    try:
        upload = Upload(digest=EMPTY_DIGEST)
        if not script.early:
            upload = await read_upload(request, script.read_pace_ms, entry)
        if script.status >= 400:
            message = f"The script says {script.status}"
            form = script.error_form
            failed = error(protocol_of(path), script.status, script.error_code, message, upload.digest, form)
            entry.stream = failed.parts is None
            return failed
        entry.model = str(upload.document.get("model", "")) or None
        asked = Asked(request.method, path, request.raw_path, request.headers, upload, script, store)
        reply = answer_to(asked)
    except (ValueError, TypeError) as problem:  # a bad body, and values that the simulator cannot use (n: "many")
        return error(protocol_of(path), 400, "", str(problem), EMPTY_DIGEST)
    if reply is None:
        return error(protocol_of(path), 404, "", f"Nothing here answers {request.method} {path}", upload.digest)
    entry.stream = reply.parts is None
    return reply


async def _page(request: web.BaseRequest, ledger: Ledger) -> web.Response:
    """What tests read and do; see the package's description."""
    query = request.rel_url.query
    match request.method, request.path:
        case "GET", "/sim/stats":
            return _json(ledger.stats())
        case "DELETE", "/sim/requests":
            ledger.clear()
            return _json({})
        case "GET", "/sim/requests":
            wanted, until = query.get("id"), query.get("until")
            if wanted is not None and until in ("seen", "finished"):
                try:
                    async with asyncio.timeout(int(query.get("timeout-ms", WAIT_MS)) / 1000):
                        await ledger.wait_for(wanted, until)
                except TimeoutError:
                    return _json({"error": f"request {wanted} was not {until} in time"}, 504)
            entries = ledger.entries(wanted, int(query.get("limit", KEPT)))
            return _json({"requests": [entry.view() for entry in entries]})
        case "POST", "/sim/open":
            entries = ledger.entries(query.get("id"), 1)
            for entry in entries:
                entry.gate().set()
            return _json({"opened": len(entries)})
        case method, path:
            return _json({"error": f"no page {method} {path}"}, 404)


def _json(document: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")
