"""The request body as a tape: held bytes first, then the live rest; counted and scanned as it comes from the client.

A body of up to 64 KiB takes the short way: read whole, one write. A larger one streams. Its first 64 KiB are held, so
that a reused upstream connection that turns out to be dead can be replaced as long as every byte sent is still here.
Where more depends on it (`hold`: a model that is still unknown, a fallback that is still possible), all of it is held,
in memory up to a limit and then in an anonymous file (`proxy.spool`). Peek and replay are two readings of one tape.
Past a limit the tape is lost, not the request: it goes on, only it cannot be sent again.
"""

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

from observability.log import get_logger
from proxy.errors import GatewayError, TargetUnusableError
from proxy.spool import append_piece

if TYPE_CHECKING:
    from observability.observation import Observation
    from proxy.spool import Holding, Spool

SMALL_BODY_BYTES: Final = 65536
"""Up to here a body is read whole: one write, one parse. Constant memory is about the large ones."""

SLICE_BYTES: Final = 4096
"""Of an encoded body, looked at in one turn of the loop: at most 128 KiB decoded, which take 2 ms, and 12 ms where they
were made to hurt."""

_log = get_logger(__name__)


class Content(Protocol):
    """Where the bytes come from: aiohttp's StreamReader, or a fake."""

    total_bytes: int

    async def readany(self) -> bytes:
        """The next bytes, b"" at the end."""

    def read_nowait(self) -> bytes:
        """All bytes that wait to be read."""

    def is_eof(self) -> bool:
        """All bytes have arrived (they may still wait to be read)."""

    def exception(self) -> type[BaseException] | BaseException | None:
        """Why no more can be read; None where more may come."""


class Clock(Protocol):
    """Stands still while the client's body is awaited (`proxy.deadline`)."""

    def pause(self) -> None:
        """The wait begins."""

    def resume(self) -> None:
        """The wait is over."""

    def look(self) -> None:
        """A piece was scanned: it may say that a stream is asked for."""


class RequestBody:
    """One request's body. Raises GatewayError (bad_request, client_timeout, body_too_large) from its reads."""

    __slots__ = (
        "_content",
        "_continue",
        "_disk_limit_bytes",
        "_held",
        "_held_bytes",
        "_holding",
        "_limit_bytes",
        "_memory_limit_bytes",
        "_observation",
        "_peeked_only",
        "_peeking",
        "_replay",
        "_spool",
        "_spool_replay",
        "_spooled_bytes",
        "chunked",
        "clock",
        "complete",
        "content_length",
        "held_whole",
        "lost",
    )

    def __init__(
        self,
        content: Content,
        observation: "Observation",
        *,
        content_length: int | None,
        chunked: bool,
        say_continue: Callable[[], None] | None,
    ) -> None:
        self._content = content
        self._observation = observation
        self._continue = say_continue
        self.content_length = content_length
        """As declared; None where there is no body or it is chunked."""
        self.chunked = chunked
        self.complete = not chunked and not content_length
        """The last byte was read from the client."""
        self.clock: Clock | None = None
        """Paused while the client is waited for."""
        self._limit_bytes = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._replay = 0
        self._holding: Holding | None = None
        self._memory_limit_bytes = SMALL_BODY_BYTES
        self._disk_limit_bytes = 0
        self._spool: Spool | None = None
        self._spooled_bytes = 0
        self._spool_replay = 0
        self._peeking = self._peeked_only = False
        self.held_whole = True
        """Every byte that was read is held: the body can be sent again from its beginning."""
        self.lost: str | None = None
        """Why the tape is not whole any more though `hold` asked for it: limit or disk."""

    @property
    def empty(self) -> bool:
        """There is no body at all."""
        return not self.chunked and not self.content_length

    @property
    def small(self) -> bool:
        """Known to be at most SMALL_BODY_BYTES: by its length, or because it has arrived."""
        if self.chunked:
            return self._content.is_eof() and self._content.total_bytes <= SMALL_BODY_BYTES
        return (self.content_length or 0) <= SMALL_BODY_BYTES

    def admit(self, limit_bytes: int) -> None:
        """The body will be read, up to `limit_bytes`. A declared length above it is refused before reading."""
        self._limit_bytes = limit_bytes
        if self.content_length is not None and self.content_length > limit_bytes:
            raise _too_large(limit_bytes)

    def check_arrived(self) -> None:
        """Raise what is wrong with what has arrived: nothing of it is to go upstream."""
        error = self._content.exception()
        if isinstance(error, GatewayError):
            raise error

    # -- the tape ----------------------------------------------------------------------------------------------------

    def hold(self, holding: "Holding", *, memory_bytes: int, disk_bytes: int) -> None:
        """Hold all that is read from now on, until `let_go`. Before the first read."""
        self._holding = holding
        self._memory_limit_bytes = memory_bytes
        self._disk_limit_bytes = disk_bytes

    async def peek(self, known: Callable[[], bool]) -> None:
        """Read on, holding everything, until `known()` or the end; the next `read` begins with the first byte.

        Raises GatewayError besides those of reading: body_too_large or overloaded where no more can be held.
        """
        self._peeking = True
        while not known() and await self._read_live():
            pass
        self._peeking = False
        self.rewind()

    def rewind(self) -> None:
        """Begin again from the first byte. Only while `held_whole`."""
        assert self.held_whole
        self._replay = 0
        self._spool_replay = 0

    def hold_no_more(self) -> None:
        """What was peeked at is for one reading, which lets go of it where the live rest begins."""
        self._peeked_only = True

    def let_go(self) -> None:
        """Hold nothing any more. What was held and not yet read again is gone."""
        self.held_whole = False
        if self._holding is not None:
            self._holding.give_memory(self._held_bytes)
            self._holding.give_disk(self._spooled_bytes)
            self._holding = None
        self._held.clear()
        self._held_bytes = self._replay = 0
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        self._spooled_bytes = self._spool_replay = 0

    # -- reading -----------------------------------------------------------------------------------------------------

    def take_arrived(self) -> bytes:
        """All of a small body where it has arrived already, b"" where it must be awaited (`read_whole`).

        Nearly every small body comes in the segment of its head: without the coroutines it costs 1 µs instead of 4.
        """
        content = self._content
        if self._held or not content.is_eof() or content.total_bytes > SMALL_BODY_BYTES:
            return b""
        try:
            data = content.read_nowait()
        except (GatewayError, ConnectionError):
            raise
        except Exception as error:
            raise GatewayError("bad_request", "malformed request body") from error
        self._count(data)
        self.complete = True
        return data

    async def read_whole(self) -> bytes:
        """All of a small body."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        if len(pieces) == 1:
            return pieces[0]
        self.let_go()  # the pieces: what is answered here is held by the caller
        return b"".join(pieces)

    async def read(self) -> bytes:
        """The next piece: held ones first after a `rewind`, then from the client; b"" at the end."""
        if self._replay < len(self._held):
            self._replay += 1
            return self._held[self._replay - 1]
        if self._spool_replay < self._spooled_bytes:
            assert self._spool is not None
            try:
                data = await self._spool.read(self._spool_replay)
                if not data:
                    raise OSError(errno.EIO, "the file is shorter than what was written")
            except OSError as error:
                _log.error("spool_failed", reason=error.strerror)
                self.lost = "disk"
                self.let_go()
                raise TargetUnusableError("overloaded", "the disk for held request bodies failed") from None
            self._spool_replay += len(data)
            return data
        return await self._read_live()

    async def in_file(self) -> "tuple[int, int, int] | None":
        """Descriptor, offset and size of what comes next on the tape, where the kernel has that of a file in memory.

        `passed` says what was sent of it; where this answers None, `read` goes on.
        """
        if self._replay < len(self._held) or self._spool_replay >= self._spooled_bytes:
            return None
        assert self._spool is not None
        size = await self._spool.cached(self._spool_replay, self._spooled_bytes)
        return (self._spool.descriptor, self._spool_replay, size) if size else None

    def passed(self, size: int) -> None:
        """So much of what `in_file` named was sent."""
        self._spool_replay += size

    async def _read_live(self) -> bytes:
        if self.complete:
            return b""
        if self._continue is not None:
            self._continue()
            self._continue = None
        observation = self._observation
        began_ns = time.monotonic_ns()
        if self.clock is not None:
            self.clock.pause()
        try:
            data = await self._read_client(self._content.readany)
        finally:
            observation.upload_ns += time.monotonic_ns() - began_ns
            if self.clock is not None:
                self.clock.resume()
        if not data:
            self.complete = True
            return b""
        scanner = observation.request_scanner
        if scanner is not None and scanner.decodes:
            for start in range(0, len(data), SLICE_BYTES):
                self._count(data[start : start + SLICE_BYTES])
                await asyncio.sleep(0)
        else:
            self._count(data)
        if self.clock is not None:
            self.clock.look()
        if observation.request_bytes == self.content_length:
            self.complete = True
        if self.held_whole:
            await self._hold(data)
        return data

    def _count(self, data: bytes) -> None:
        self._observation.tap_request(data)
        if self._observation.request_bytes > self._limit_bytes:
            raise _too_large(self._limit_bytes)

    async def _read_client(self, readany: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            return await readany()
        except (GatewayError, ConnectionError):
            raise
        except Exception as error:  # what aiohttp's parser says of a malformed body, in several classes
            raise GatewayError("bad_request", "malformed request body") from error

    # -- holding -----------------------------------------------------------------------------------------------------

    async def _hold(self, data: bytes) -> None:
        """Put a piece that was just read on the tape, or give the tape up."""
        size = len(data)
        holding = self._holding
        if self._peeked_only:
            self.let_go()
            return
        in_memory = self._held_bytes + size <= self._memory_limit_bytes and not self._spooled_bytes
        if in_memory and (holding is None or holding.take_memory(size)):
            append_piece(self._held, data)
            self._held_bytes += size
            self._replay = len(self._held)
            return
        if holding is None:
            self.let_go()
            return
        if self._spooled_bytes + size > self._disk_limit_bytes:
            self._lose("limit")
        elif not holding.take_disk(size):
            self._lose("disk")
        else:
            self._spooled_bytes += size
            self._spool_replay = self._spooled_bytes
            try:
                if self._spool is None:
                    self._spool = holding.open_spool()
                await self._spool.append(data)
            except OSError as error:
                _log.error("spool_failed", reason=error.strerror)
                self._lose("disk")

    def _lose(self, why: str) -> None:
        """The tape ends here. The request goes on where it does not need it."""
        self.lost = why
        if not self._peeking:
            self.let_go()
        elif why == "limit":
            limit = self._memory_limit_bytes + self._disk_limit_bytes
            raise GatewayError(
                "body_too_large", f"the model is not named in the first {limit} bytes of the request body"
            )
        else:
            raise GatewayError("overloaded", "no room to hold the request body until it names its model")


def _too_large(limit_bytes: int) -> GatewayError:
    return GatewayError("body_too_large", f"the request body is larger than {limit_bytes} bytes")
