"""The images of an answer, fetched from where the upstream put them, as base64 while they come.

Every head is awaited before anything goes to the client, so that an image that is not there is an error with a status;
after that a broken download cuts the answer, which the client sees as what it is. Only URLs out of this one answer are
fetched, without a credential and without following redirects: who answers for the service may name any place that is
no nearer than the service itself (`reach`), whoever else may not. What a name means is judged by the connection, before
anything is asked there. The way there is the service's: its egress proxy, which authorities it trusts, its timeouts;
the certificate that it shows of itself is for the service alone.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from proxy.config.places import is_host
from proxy.config.targets import Service
from proxy.errors import GatewayError, UpstreamError
from proxy.translate.pictures import Base64
from proxy.translate.reach import Reach, reach_of, reach_of_host
from proxy.upstream.connection import Connection
from proxy.upstream.pool import Pool
from proxy.upstream.pools import Pools

IMAGE_BYTES_MAX: Final = 64 << 20
"""Of one image: one of 4096 x 4096 pixels, the largest that is made, has 64 MiB if nothing of it is compressed."""
IMAGES_MAX: Final = 16
"""Of one answer: OpenAI's clients ask for 10 at most, DashScope's models make 12. Each is a connection."""
_TARGET: Final = re.compile(r"[!-~]+")


class Downloads:
    """Owns its connections from `open` to the end of its block."""

    __slots__ = ("_connections", "_pools", "_reach", "_service")

    def __init__(self, pools: Pools, service: Service, peer: str) -> None:
        """`peer`: the address that the service itself was reached at."""
        self._pools = pools
        self._service = service
        self._reach = reach_of(peer) if service.egress is None else reach_of_host(service.host)
        self._connections: list[tuple[Pool, Connection]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pool, connection in self._connections:
            pool.release(connection)

    async def open(self, urls: Sequence[str]) -> list[Connection]:
        """Ask for all of them at once, and wait for their heads. UpstreamError where one cannot be had."""
        if len(urls) > IMAGES_MAX:
            raise UpstreamError("upstream_protocol", f"the answer has more than {IMAGES_MAX} images")
        opened = await asyncio.gather(*map(self._open, urls), return_exceptions=True)
        connections = [one for one in opened if not isinstance(one, BaseException)]
        failures = [one for one in opened if isinstance(one, BaseException)]
        if failures:
            opened = []  # an error must not be held by a frame on its own way
            raise failures.pop(0)
        return connections

    async def _open(self, url: str) -> Connection:
        place, target = place_of(url, self._service)
        self._check(reach_of_host(place.host))
        pool = self._pools.of(place)
        try:
            connection = await pool.acquire(fresh=True)  # an idle one may be dead, and nothing is asked for twice
        except GatewayError as error:
            raise UpstreamError(error.kind, f"an image cannot be fetched: {error.message}") from None
        self._connections.append((pool, connection))
        if place.egress is None:
            self._check(reach_of(pool.peer_of(connection)))
        connection.begin(b"GET", self._service.idle_timeout_ms)
        connection.write(b"GET %b HTTP/1.1\r\nHost: %b\r\nAccept: */*\r\n\r\n" % (target, place.host_header))
        connection.request_complete = True
        head = await connection.read_head()
        if head.status != 200 or head.content_encoding:
            raise _lost(f"the place where it is answered {head.status}")
        if head.content_length is not None and head.content_length > IMAGE_BYTES_MAX:
            raise _lost(f"it is larger than {IMAGE_BYTES_MAX} bytes")
        return connection

    def _check(self, reach: Reach) -> None:
        if reach > self._reach:
            raise _lost("its URL leads into a network where the service itself is not")


async def encoded(connections: Sequence[Connection], pieces: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    """What stands between the images (`answers.pieces_of`, without the first), and between them the images."""
    for connection, behind in zip(connections, pieces, strict=True):
        base64 = Base64()
        size = 0
        while data := await connection.read():
            size += len(data)
            if size > IMAGE_BYTES_MAX:
                raise UpstreamError("upstream_truncated", "an image is too large", response_started=True)
            if out := base64.feed(data):
                yield out
        yield base64.end() + behind


class Pieces:
    """An iterator as a source for the relay."""

    body_complete = False
    held_bytes = 0

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces

    def read_nowait(self) -> bytes | None:
        """None: it has to be awaited."""
        return None

    async def read(self) -> bytes:
        """The next piece, b"" at the end."""
        async for piece in self._pieces:
            if piece:
                return piece
        return b""

    async def close(self) -> None:
        """No more will be read."""
        await self._pieces.aclose()


def place_of(url: str, service: Service) -> tuple[Service, bytes]:
    """Where a URL leads: the service as if it stood there, and the target of the request. UpstreamError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _lost("its URL is none") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or port == 0 or not is_host(host):
        raise _lost("its URL leads nowhere")
    if not _TARGET.fullmatch(target):
        raise _lost("its URL has characters that belong into no URL")
    usual = 443 if parts.scheme == "https" else 80
    shown = f"[{host}]" if ":" in host else host
    itself = (parts.scheme, host, port or usual) == (service.scheme, service.host, service.port)
    place = replace(
        service,
        scheme=parts.scheme,
        host=host,
        port=port or usual,
        host_header=(shown if port in (None, usual) else f"{shown}:{port}").encode("ascii"),
        max_connections=0,  # of the service itself
        tls=service.tls if itself else replace(service.tls, certificate=None, key=None),
        others={},
    )
    return place, target.encode("ascii")


def _lost(why: str) -> UpstreamError:
    return UpstreamError("upstream_protocol", f"an image cannot be fetched: {why}", response_started=True)
