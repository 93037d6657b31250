"""The link between control and the workers: a new configuration goes to each worker, and its answer comes back.

A Unix socket in the runtime directory; control listens, workers connect and connect again. One JSON document a line:

    worker → control   {"row": 0, "generation": 7, "seal": "…"}      at first, and after each change
                       {…, "refused": 8, "why": "…"}                 could not be prepared
    control → worker   {"generation": 8, "seal": "…", "document": {…}}    as a file says it, references resolved

A worker that began with the same text and found something else behind its references has another seal, and is sent
what is in force; one that is ahead began with what control is about to announce, and is let be.

Control has read the file and checked it (2.5 s of CPU where it has a thousand Model APIs); a worker is spared that and
needs a twentieth of the time. What a link carries has the secrets of the file in it: the directory is the user's alone,
and nothing of it is written to disk.

A worker that hears nothing serves on with what it has. One that answers late is not sent a second change before it has
answered the first, and then only the latest: so what waits here is one line for each worker.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from observability.log import get_logger

LINE_BYTES_MAX: Final = 64 << 20
"""Of one message. A file has at most 250,000 values, which are 25 MB if each has a hundred bytes."""
RECONNECT_S: Final = 0.25
"""A worker asks this often for a control process that is away."""

_log = get_logger(__name__)


class Offer(NamedTuple):
    """What control sends."""

    generation: int
    seal: str
    document: dict[str, Any]


Adopt = Callable[[Offer], Awaitable[str | None]]
"""Answers None, or in one line why it cannot be served."""
InForce = Callable[[], tuple[int, str]]
"""Generation and seal."""


def offer_line(generation: int, seal: str, document: dict[str, Any]) -> bytes:
    """What `Links.announce` sends. ValueError where it is longer than a link takes."""
    line = orjson.dumps(Offer(generation, seal, document)._asdict()) + b"\n"
    if len(line) > LINE_BYTES_MAX:
        raise ValueError(f"it has {len(line)} bytes, and a worker takes {LINE_BYTES_MAX}")
    return line


def socket_path(runtime: Path) -> Path:
    """Where control listens."""
    return runtime / "control.sock"


class Link:
    """A worker's end. `adopt` prepares and serves what comes; `in_force` tells what is served."""

    def __init__(self, runtime: Path, row: int, in_force: InForce, adopt: Adopt) -> None:
        self._path = socket_path(runtime)
        self._row = row
        self._in_force = in_force
        self._adopt = adopt

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(OSError, ValueError):  # ValueError: a line beyond the limit, or no JSON
                reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE_BYTES_MAX)
                try:
                    await self._follow(reader, writer)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(RECONNECT_S)

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._say(writer)
        while line := await reader.readline():
            offer = Offer(**orjson.loads(line))
            why = await self._adopt(offer)
            if why is None:
                self._say(writer)
            else:
                self._say(writer, refused=offer.generation, why=why)

    def _say(self, writer: asyncio.StreamWriter, **more: object) -> None:
        generation, seal = self._in_force()
        writer.write(orjson.dumps({"row": self._row, "generation": generation, "seal": seal, **more}) + b"\n")


class _Peer:
    """One worker, as control sees it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.in_force = (0, "")
        self.refused = 0
        self.waits = True
        """For its first word, or for its answer."""


class Links:
    """Control's end. `on_answer` is called after each word of a worker."""

    def __init__(self, on_answer: Callable[[], None]) -> None:
        self.failures: dict[int, str] = {}
        """Row of the board → why its worker cannot serve the latest generation."""
        self._on_answer = on_answer
        self._peers: set[_Peer] = set()
        self._in_force = (0, "")
        self._line = b""
        self._server: asyncio.Server | None = None

    async def listen(self, runtime: Path) -> None:
        """Let workers in."""
        path = socket_path(runtime)
        path.unlink(missing_ok=True)  # of the control process before this one
        self._server = await asyncio.start_unix_server(self._attend, path, limit=LINE_BYTES_MAX)

    def announce(self, generation: int, seal: str, line: bytes) -> None:
        """This is in force from now on: whoever is connected, or comes later with another, is sent it."""
        self._in_force = (generation, seal)
        self._line = line
        self.failures.clear()
        for peer in self._peers:
            self._update(peer)

    def close(self) -> None:
        """Let go of everybody."""
        if self._server is not None:
            self._server.close()
        for peer in self._peers:
            peer.writer.transport.abort()

    def _update(self, peer: _Peer) -> None:
        generation, _ = self._in_force
        behind = peer.in_force != self._in_force and peer.in_force[0] <= generation
        if behind and peer.refused != generation and not peer.waits:
            peer.waits = True
            peer.writer.write(self._line)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _Peer(writer)
        self._peers.add(peer)
        row: int | None = None
        try:
            while line := await reader.readline():
                said = orjson.loads(line)
                row, peer.refused = said["row"], said.get("refused", 0)
                peer.in_force = said["generation"], said["seal"]
                peer.waits = False
                if peer.refused == self._in_force[0]:
                    self.failures[row] = said["why"]
                else:
                    self.failures.pop(row, None)
                self._update(peer)
                self._on_answer()
        except (OSError, ValueError, LookupError, TypeError) as error:
            _log.warning("link_lost", row=row, error=repr(error))
        finally:
            self._peers.discard(peer)
            if row is not None:
                self.failures.pop(row, None)
            writer.transport.abort()
