"""A crowd of slow clients, a third of each kind: heads at 1 byte/s, bodies at 10 bytes/s, readers at 1 KB/s.

Plain sockets, looked after in small slices all over the second, so that the crowd costs little and comes evenly:
``python -m benchmarks.slow_clients --count 2000 URL``. It runs until its stdin ends; who was ended by the gateway comes
back where ``--again`` is given. Then it prints one JSON object: see `Crowd.ended`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop

KINDS = ("head", "body", "reader")
SLICES = 100
"""Of a second. 2,000 clients are 20 system calls in each: 0.1 ms."""
OPENED_AT_ONCE = 100
BODY_BYTES = 100_000
ANSWER_BYTES = 8 << 20
"""More than the kernel takes for a reader: 4 MiB."""
READ_BYTES = 1024


@dataclass(slots=True)
class _Client:
    kind: str
    channel: socket.socket | None = None
    since: float = 0.0
    got: bytearray = field(default_factory=bytearray)
    """The beginning of the answer."""


class Crowd:
    """So many slow clients of `url`, of each kind alike."""

    def __init__(self, url: str, key: str, count: int, *, again: bool, answer_bytes: int = ANSWER_BYTES) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._again = again
        start = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        question = '{"model":"qwen-plus","messages":[]}'
        self._begins = {
            "head": b"P",
            "body": f"{start}Content-Length: {BODY_BYTES}\r\n\r\n".encode(),
            "reader": f"{start}x-sim-answer-bytes: {answer_bytes}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(question)}\r\n\r\n{question}".encode(),
        }
        self._head = start.encode()[1:] + b"X: "
        self._clients = [_Client(KINDS[number % len(KINDS)]) for number in range(count)]
        self.ended: Counter[str] = Counter()
        """How clients were ended: `head 408`, `body 408`, `reader cut`, …"""
        self.lasted_s: dict[str, float] = {}
        """The longest that one of a kind lasted."""

    @property
    def connected(self) -> int:
        """Those that are there now."""
        return sum(client.channel is not None for client in self._clients)

    async def open(self) -> None:
        """Connect all of them, a hundred at a time."""
        for start in range(0, len(self._clients), OPENED_AT_ONCE):
            await asyncio.gather(*map(self._open, self._clients[start : start + OPENED_AT_ONCE]))
            await asyncio.sleep(0.05)

    async def _open(self, client: _Client) -> None:
        channel = socket.socket()
        if client.kind == "reader":
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        channel.setblocking(False)
        client.got.clear()
        try:
            await asyncio.get_running_loop().sock_connect(channel, self._address)
            channel.send(self._begins[client.kind])
        except OSError as error:
            channel.close()
            self.ended[f"{client.kind} not connected: {errno.errorcode.get(error.errno or 0, '')}"] += 1
            return
        client.channel, client.since = channel, time.monotonic()

    async def trickle(self, stop: asyncio.Event) -> None:
        """Until `stop`, or until nobody is left who would come back."""
        turn = 0
        while not stop.is_set() and (self._again or self.connected):
            for client in self._clients[turn % SLICES :: SLICES]:
                if client.channel is not None:
                    self._step(client, client.channel)
                elif self._again:
                    await self._open(client)
            turn += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1 / SLICES)

    def _step(self, client: _Client, channel: socket.socket) -> None:
        """What a client does in a second; and what the gateway said meanwhile."""
        try:
            if client.kind == "head":
                passed = int(time.monotonic() - client.since)
                channel.send(self._head[passed : passed + 1] or b"a")
            elif client.kind == "body":
                channel.send(b"x" * 10)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what was said before still comes
        except BlockingIOError:
            return
        try:
            data = channel.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.got += data[: 16 - len(client.got)]
        if not data or (client.kind != "reader" and len(client.got) >= 12):
            said = bytes(client.got[9:12]).decode("latin-1")
            how = "cut" if client.kind == "reader" else said or "closed"
            self.ended[f"{client.kind} {how}"] += 1
            self.lasted_s[client.kind] = max(self.lasted_s.get(client.kind, 0.0), time.monotonic() - client.since)
            channel.close()
            client.channel = None

    def close(self) -> None:
        """All leave."""
        for client in self._clients:
            if client.channel is not None:
                client.channel.close()
                client.channel = None


async def _main(url: str, key: str, count: int, *, again: bool) -> dict[str, object]:
    crowd = Crowd(url, key, count, again=again)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    await crowd.open()
    print("open", flush=True)
    await crowd.trickle(stop)
    left = crowd.connected
    crowd.close()
    return {"ended": dict(crowd.ended), "left": left, "lasted_s": crowd.lasted_s}


def main() -> None:
    """Runs it: `open` when all are connected, and at the end one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow_clients", description="a crowd of slow clients")
    parser.add_argument("url")
    parser.add_argument("--key", required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(uvloop.run(_main(arguments.url, arguments.key, arguments.count, again=arguments.again))))


if __name__ == "__main__":
    main()
