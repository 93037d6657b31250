"""A worker in the test's own event loop: everything of `proxy.worker` but its process, with records in a queue.

The seam is the emitter, the narrowest there is: requests come through a real socket, and the upstream is one too.
"""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from observability.board import CELLS, Cell
from observability.emitter import CONTENT_MESSAGE
from observability.facts import unpack
from observability.middleware import ObservationMiddleware
from observability.observer.content.attach import attach
from observability.observer.content.stash import Contents
from observability.observer.naming import record_of
from observability.record import Record
from observability.tally import RequestCounter
from proxy.config import file as config_file
from proxy.config.compile import compile_snapshot
from proxy.handler import Handler
from proxy.listening import Listening, listen
from proxy.pipeline import Pipeline
from proxy.server import EdgeServer
from proxy.spool import Holding

KEY = "sk-test-consumer-key"
UPSTREAM_KEY = "sk-upstream-secret"


class FakeWorker:
    """`host:port` to talk to, `records` to await, `row` of the board."""

    def __init__(self) -> None:
        self.records: asyncio.Queue[Record] = asyncio.Queue()
        self.contents = Contents()
        self.row = memoryview(bytearray(CELLS * 8)).cast("Q")
        self.host = "127.0.0.1"
        self.port = 0
        self.server: EdgeServer
        self.handler: Handler
        self.pipeline: Pipeline
        self.holding: Holding
        self.listener: Listening

    def hand_over(self, record: tuple[Any, ...], frames: Sequence[bytes] = ()) -> None:
        """As the emitter and an observer do, by way of JSON."""
        self.row[Cell.HANDED] += 1
        facts = unpack(orjson.loads(orjson.dumps(record)))
        made = record_of(facts)
        if facts.content is not None:
            message = b"".join(len(frame).to_bytes(4, "little") + frame for frame in frames)
            self.contents.take(memoryview(CONTENT_MESSAGE + message))
            assert attach(made, facts, self.contents) is None
        self.records.put_nowait(made)

    async def fields(self) -> dict[str, Any]:
        """The fields of the next record."""
        return (await asyncio.wait_for(self.records.get(), 10))["fields"]


def document_of(
    upstream: str,
    *,
    limits: dict[str, int] | None = None,
    service: dict[str, Any] | None = None,
    model_api: dict[str, Any] | None = None,
    provider: str = "openai",
    **top: Any,
) -> dict[str, Any]:
    """A configuration with one service at `upstream` (a URL) and one text Model API `chat`, changed as asked."""
    return {
        "limits": limits or {},
        "services": [
            {"name": "sim", "provider": provider, "base_url": upstream, "api_keys": [UPSTREAM_KEY], **(service or {})}
        ],
        "consumers": [{"name": "team", "keys": [KEY], "labels": {"team": "search"}}],
        "model_apis": [
            {
                "name": "chat",
                "scenario": "text",
                "protocols": ["openai"],
                "routing": {"single": {"service": "sim"}},
                **(model_api or {}),
            }
        ],
        **top,
    }


@contextlib.asynccontextmanager
async def running(document: dict[str, Any]) -> AsyncIterator[FakeWorker]:
    """Serve `document` on a free port of 127.0.0.1."""
    snapshot = compile_snapshot(config_file.parse(orjson.dumps(document).decode(), {}, "test"), 7, {})
    worker = FakeWorker()
    spool = tempfile.TemporaryDirectory()
    worker.holding = Holding(
        Path(spool.name),
        worker.row,
        max_memory_bytes=snapshot.limits.max_held_memory_bytes,
        max_disk_bytes=snapshot.limits.max_held_disk_bytes,
        disk_bytes=lambda: worker.row[Cell.HELD_DISK_BYTES],
    )
    worker.pipeline = Pipeline(worker.holding)
    worker.pipeline.adopt(snapshot)
    worker.handler = Handler(snapshot, worker.pipeline, worker.row)
    with tempfile.TemporaryDirectory() as folder:
        counter = RequestCounter(Path(folder), 0)  # mapped: it needs its name no longer
    middleware = ObservationMiddleware(worker, counter, worker.row, lambda _: True)
    serve = middleware.wrap(worker.handler)
    worker.server = EdgeServer(serve, snapshot.limits, worker.row, snapshot.trusted_proxies)
    listening = socket.create_server((worker.host, 0))
    worker.port = listening.getsockname()[1]
    worker.listener = await listen(worker.server, listening, snapshot)
    try:
        yield worker
    finally:
        worker.listener.close()
        worker.server.stop_sweeping()
        await worker.server.shutdown(0.1)
        worker.pipeline.close()
        worker.holding.close()
        spool.cleanup()
