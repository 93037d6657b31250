"""A listener on real sockets with a task for each connection; all ends with it, and its faults are raised then."""

import asyncio
import socket
import ssl
from types import TracebackType
from typing import Self

READ_BUFFER_BYTES = 16384
"""What a connection reads ahead (asyncio pauses at the double): small, so that back-pressure shows."""


class Listening:
    """Listens on 127.0.0.1, or where `host` says, from `__aenter__` to `__aexit__`; on any free port, or on `port`."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self._tls = tls
        self._host = host
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.faults: list[BaseException] = []
        """What went wrong in the listener itself (not: the other side left)."""
        self.port = port

    async def __aenter__(self) -> Self:
        # Small kernel buffers (inherited by what is accepted), for the same reason as READ_BUFFER_BYTES.
        listener = socket.create_server((self._host, self.port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_BUFFER_BYTES)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=listener, ssl=self._tls, limit=READ_BUFFER_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        if self.faults and error is None:
            raise self.faults[0]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self.serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        raise NotImplementedError
