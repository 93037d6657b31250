"""Small requests one after the other, beside which something happens to the gateway."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

from tests.e2e.traffic import CHAT, Client, Got, chat_body, head_of

CLIENTS = 8


class Load:
    """Clients that ask for one short answer after the other: half of them on one connection for as long as that may be,
    the others with two requests on each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = itertools.count()
        self._stopped = False
        self._progress = asyncio.Condition()
        self.done = 0
        self.failed: list[str] = []
        self.generations: dict[str, int] = {}
        """Name of the request → the generation that its answer named."""

    async def reach(self, more: int) -> None:
        """Wait for so many further answers."""
        async with self._progress:
            goal = self.done + more
            await asyncio.wait_for(self._progress.wait_for(lambda: self.done >= goal), 60)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Until the end of the block; then each client ends its request."""
        clients = [asyncio.create_task(self._client(keeps=number % 2 == 0)) for number in range(CLIENTS)]
        try:
            yield self
        finally:
            self._stopped = True
            await asyncio.gather(*clients)

    async def _client(self, *, keeps: bool) -> None:
        """`keeps`: its connection, for as long as it may."""
        while not self._stopped:
            client = await Client.to(self._port)
            for _ in range(1_000_000 if keeps else 2):
                name = f"load-{next(self._numbers)}"
                body = chat_body(stream=self.done % 3 == 0)
                await client.send(head_of(CHAT, name, len(body)) + body)
                got = await client.receive(Got())
                if (got.status, got.whole) != (200, True):
                    self.failed.append(f"{name}: {got}")
                self.generations[name] = int(got.headers.get("x-sluiceway-generation", 0))
                async with self._progress:
                    self.done += 1
                    self._progress.notify_all()
                if self._stopped or not got.reusable:
                    break
            client.leave()
