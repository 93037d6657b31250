"""The reference: the obvious reverse proxy with aiohttp, a web.Application with one route and one ClientSession.

It streams both ways and does nothing else: no keys, no configuration, no telemetry. ``python -m benchmarks.plain_proxy
--listen HOST:PORT --upstream URL``. It is given every setting that makes it faster without making it something else:
uvloop, no access log, no decompression, no limit on connections, a cookie jar that stores nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

HOP_BY_HOP = frozenset(
    {
        "connection",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
NO_DEFAULTS = (
    "Accept",
    "Accept-Encoding",
    "User-Agent",
    "Content-Type",
)  # of the client session: the caller's own pass


def _passed(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)


def application(upstream: str) -> web.Application:
    """The proxy for one upstream base URL."""

    async def session(app: web.Application) -> AsyncIterator[None]:
        timeout = ClientTimeout(total=None, sock_connect=5, sock_read=300)
        async with ClientSession(
            connector=TCPConnector(limit=0), timeout=timeout, auto_decompress=False, cookie_jar=DummyCookieJar()
        ) as opened:
            app[SESSION] = opened
            yield

    async def relay(request: web.Request) -> web.StreamResponse:
        async with request.app[SESSION].request(
            request.method,
            URL(upstream + request.raw_path, encoded=True),
            headers=_passed(CIMultiDict(request.headers)),
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
            skip_auto_headers=NO_DEFAULTS,
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=_passed(CIMultiDict(answer.headers)))
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    app = web.Application(client_max_size=0)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", relay)
    return app


SESSION = web.AppKey("session", ClientSession)


async def start(upstream: str, host: str = "127.0.0.1", port: int = 0) -> tuple[web.AppRunner, str]:
    """Listens in the running loop; returns the runner (``cleanup()`` stops it) and the proxy's URL."""
    runner = web.AppRunner(application(upstream), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=1024).start()
    return runner, f"http://{host}:{runner.addresses[0][1]}"


async def run(host: str, port: int, upstream: str) -> None:
    """Serves until a signal comes."""
    runner, url = await start(upstream, host, port)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print(f"plain proxy on {url}", flush=True)
    await stopped.wait()
    await runner.cleanup()


def main() -> None:
    """Reads the arguments and runs on uvloop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_proxy")
    parser.add_argument("--listen", default="127.0.0.1:8901", metavar="HOST:PORT")
    parser.add_argument("--upstream", required=True, metavar="URL")
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    uvloop.run(run(host, int(port), arguments.upstream.rstrip("/")))


if __name__ == "__main__":
    main()
