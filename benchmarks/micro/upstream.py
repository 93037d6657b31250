"""Request and response cycles per second of `proxy.upstream` against those of `aiohttp.ClientSession`.

    python -m benchmarks.micro.upstream [--rounds 10] [--seconds 1] [--concurrency 32]

Method: a local nginx with one worker process answers `return 200` with a small JSON body, and a 64 MiB file; both
clients run in this process on uvloop, in turns within the same run, so that what else the machine does hits both alike.
A small cycle is a POST of a small chat request and the reading of its whole answer. Medians of the rounds, and the
median of the rounds' ratios. Without nginx the benchmark says so and ends.
"""

import argparse
import asyncio
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

import aiohttp
import uvloop

from proxy.upstream.address import Address
from proxy.upstream.pool import Pool

PORT = 18391
BODY = b'{"model":"qwen-plus","messages":[{"role":"user","content":"hello"}],"stream":false}'
HEAD = (
    b"POST /chat HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\nuser-agent: OpenAI/Python 1.0\r\n"
    b"content-length: %d\r\n\r\n" % len(BODY)
)
REQUEST = HEAD + BODY
LARGE_REQUEST = b"GET /large HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
LARGE_BYTES = 64 * 1024 * 1024

NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 100000000; default_type application/json;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port};
        location /chat {{ return 200 '{{"id":"chatcmpl-1","choices":[{{"message":{{"content":"hello"}}}}]}}'; }}
        location /large {{ alias {folder}/large; sendfile on; }}
    }}
}}
"""

Cycle = Callable[[], Awaitable[None]]


async def small(pool: Pool) -> None:
    connection = await pool.acquire()
    connection.begin(b"POST", 300_000)
    connection.write(REQUEST)
    connection.request_complete = True
    head = await connection.read_head()
    while await connection.read():
        pass
    pool.release(connection)
    assert head.status == 200


async def large(pool: Pool) -> None:
    connection = await pool.acquire()
    connection.begin(b"GET", 300_000)
    connection.write(LARGE_REQUEST)
    connection.request_complete = True
    await connection.read_head()
    received = 0
    while data := await connection.read():
        received += len(data)
    pool.release(connection)
    assert received == LARGE_BYTES


async def small_by_aiohttp(session: aiohttp.ClientSession) -> None:
    headers = {"content-type": "application/json", "authorization": "Bearer sk-0123456789abcdef0123456789abcdef"}
    async with session.post(f"http://127.0.0.1:{PORT}/chat", data=BODY, headers=headers) as response:
        await response.read()
        assert response.status == 200


async def large_by_aiohttp(session: aiohttp.ClientSession) -> None:
    received = 0
    async with session.get(f"http://127.0.0.1:{PORT}/large") as response:
        async for data in response.content.iter_any():
            received += len(data)
    assert received == LARGE_BYTES


async def rate(cycle: Cycle, seconds: float, concurrency: int) -> float:
    """Cycles per second of `concurrency` loops."""
    until = time.perf_counter() + seconds
    done = 0

    async def run() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await cycle()
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(concurrency)))
    return done / (time.perf_counter() - begun)


async def until_listening() -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", PORT)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise SystemExit("nginx does not listen")


async def measure(rounds: int, seconds: float, concurrency: int) -> None:
    await until_listening()
    pool = Pool(Address("http", "127.0.0.1", PORT))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        ours: dict[str, list[float]] = {"small": [], "large": []}
        theirs: dict[str, list[float]] = {"small": [], "large": []}
        for turn in range(rounds + 1):
            figures = (
                await rate(lambda: small(pool), seconds, concurrency),
                await rate(lambda: small_by_aiohttp(session), seconds, concurrency),
                await rate(lambda: large(pool), seconds, 1),
                await rate(lambda: large_by_aiohttp(session), seconds, 1),
            )
            if turn:  # the first is for warming up
                for series, figure in zip(
                    (ours["small"], theirs["small"], ours["large"], theirs["large"]), figures, strict=True
                ):
                    series.append(figure)
    pool.close()
    for name, unit, factor in (("small", "cycles/s", 1.0), ("large", "MiB/s", LARGE_BYTES / 1048576)):
        mine, other = statistics.median(ours[name]) * factor, statistics.median(theirs[name]) * factor
        ratios = [a / b for a, b in zip(ours[name], theirs[name], strict=True)]
        print(
            f"{name}: proxy.upstream {mine:,.0f} {unit}, aiohttp.ClientSession {other:,.0f} {unit}; "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--concurrency", type=int, default=32)
    arguments = parser.parse_args()
    nginx = shutil.which("nginx")
    if nginx is None:
        print("skipped: there is no nginx here")
        return
    print(
        f"Python {platform.python_version()}, uvloop {version('uvloop')}, httptools {version('httptools')}, "
        f"aiohttp {version('aiohttp')}; {arguments.rounds} rounds of {arguments.seconds:g} s in turns, "
        f"{arguments.concurrency} connections (large: 1)"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # nginx's worker is another user
        Path(folder, "nginx.conf").write_text(NGINX.format(folder=folder, port=PORT))
        with Path(folder, "large").open("wb") as file:
            file.truncate(LARGE_BYTES)
        server = subprocess.Popen([nginx, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"])
        try:
            uvloop.run(measure(arguments.rounds, arguments.seconds, arguments.concurrency))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
