"""``python -m benchmarks.upstream --listen HOST:PORT``: the simulated upstream until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import uvloop

from benchmarks.upstream.server import start


async def run(host: str, port: int) -> None:
    """Serves until a signal comes."""
    try:
        upstream = await start(host, port)
    except OSError as error:
        sys.exit(f"simulated upstream: cannot listen on {host}:{port} ({error.strerror}); choose another --listen")
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print(f"simulated upstream on {upstream.url}", flush=True)
    await stopped.wait()
    await upstream.stop()


def main() -> None:
    """Reads the arguments and runs on uvloop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upstream", description="the simulated upstream")
    parser.add_argument("--listen", default="127.0.0.1:8900", metavar="HOST:PORT", help="port 0: any free one")
    host, _, port = parser.parse_args().listen.rpartition(":")
    uvloop.run(run(host.strip("[]") or "127.0.0.1", int(port)))


if __name__ == "__main__":
    main()
