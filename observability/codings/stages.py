"""One content coding each, undone incrementally: bytes in, pieces of at most PIECE_BYTES_MAX out, memory bounded.

A stage never raises on any input: it sets `failed` and gives nothing more. Who reads requests relies on what was read
here being all there is, so whatever stands behind the end fails, but for what all readers of a coding know: of gzip
more members, and zeros behind and between them; of zstd more frames, and frames that are to be skipped. A stage does
not judge how much comes out: `decode` does.

Sources: RFC 9110 §8.4.1, RFC 1950, RFC 1952, RFC 7932 (br), RFC 8878 (zstd), RFC 9659 (windows up to 8 MiB).
"""

import sys
import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
else:
    from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

PIECE_BYTES_MAX = 65536
"""Of decoded data handed out at once, so that a bomb never unfolds in memory."""
WINDOW_BYTES_MAX = 8 << 20
"""Of br and zstd. RFC 9659 allows zstd no more; br knows 16 MiB, which servers do not use (their default is 4)."""

_ZSTD_OPTIONS: dict[int, int] = {DecompressionParameter.window_log_max: WINDOW_BYTES_MAX.bit_length() - 1}
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPED_MAGIC = b"\x2a\x4d\x18"
_ZSTD_FRAME_BYTES = 256 << 10
# What a decoder of zstd holds beside its window: 96 KiB of its own and a block of up to 128 KiB.
_BROTLI_LIMIT_BYTES = 16384
# brotli's buffer begins with 32 KiB and doubles as long as it is below the limit: so a piece has at most 32 KiB.


class Stage(Protocol):
    """One pass over one stream of one coding."""

    failed: bool
    """The stream is malformed, needs more memory than it may, or has something else behind its end."""
    frames: int
    """Members or frames that were begun: each costs time, whatever is in it."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece (not empty), yield what is decoded. To be exhausted before the next."""

    @property
    def complete(self) -> bool:
        """The stream came to its end mark."""

    @property
    def held_bytes(self) -> int:
        """Memory in use by what the sender chooses: the window, as far as it is filled."""


class Inflate:
    """gzip, and deflate with and without zlib's header."""

    __slots__ = ("_first", "_inflater", "_is_gzip", "failed", "frames")

    held_bytes = 0  # 32 KiB of window and 8 of tables: less than the buffers of the connection

    def __init__(self, *, is_gzip: bool) -> None:
        self.failed = False
        self.frames = 1
        self._is_gzip = is_gzip
        self._first = b""  # of a deflate stream, until two bytes tell whether it has a zlib header
        self._inflater = zlib.decompressobj(wbits=31) if is_gzip else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See Stage."""
        if self._inflater is None:
            data = self._first + data
            if len(data) < 2:
                self._first = data
                return
            has_header = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._inflater = zlib.decompressobj(wbits=15 if has_header else -15)
        while True:
            if self._inflater.eof:
                data = data.lstrip(b"\0") if self._is_gzip else data
                if not data:
                    return
                if not (self._is_gzip and data.startswith(b"\x1f")):
                    self.failed = True
                    return
                self._inflater = zlib.decompressobj(wbits=31)
                self.frames += 1
            try:
                piece = self._inflater.decompress(data, PIECE_BYTES_MAX)
            except zlib.error:
                self.failed = True
                return
            if piece:
                yield piece
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            if not data and len(piece) < PIECE_BYTES_MAX:
                return

    @property
    def complete(self) -> bool:
        """See Stage."""
        return self._inflater is not None and self._inflater.eof and not self.failed


class Brotli:
    """br. One stream has one end. What the last `feed` would have given is lost where something stands behind it.

    `tables_bytes`: what it counts for beside its window.
    """

    __slots__ = ("_decoder", "_given_bytes", "_tables_bytes", "_window_bytes", "complete", "failed", "frames")

    def __init__(self, tables_bytes: int) -> None:
        self._tables_bytes = tables_bytes
        self.failed = False
        self.complete = False
        self.frames = 1
        self._window_bytes = 0
        self._given_bytes = 0
        self._decoder = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See Stage."""
        if not self._window_bytes:
            self._window_bytes = _brotli_window_bytes(data[0])
        if self.complete or self._window_bytes > WINDOW_BYTES_MAX:
            self._fail()
            return
        decoder = self._decoder
        while True:
            try:
                piece = decoder.process(data, output_buffer_limit=_BROTLI_LIMIT_BYTES)
            except brotli.error:
                self._fail()
                return
            if piece:
                self._given_bytes += len(piece)
                yield piece
            if decoder.is_finished():
                self.complete = True
                self._decoder = None
                return
            if len(piece) < _BROTLI_LIMIT_BYTES and decoder.can_accept_more_data():
                return
            data = b""

    @property
    def held_bytes(self) -> int:
        """See Stage."""
        if self._decoder is None:
            return 0
        return self._tables_bytes + min(self._window_bytes, self._given_bytes)

    def _fail(self) -> None:
        self.failed = True
        self.complete = False
        self._decoder = None


def _brotli_window_bytes(first: int) -> int:
    """What the first byte of a stream asks for (RFC 7932 §9.1). The reserved one is left to the decoder to refuse."""
    if not first & 1:
        bits = 16
    elif first >> 1 & 7:
        bits = 17 + (first >> 1 & 7)
    else:
        bits = 8 + (first >> 4 & 7) if first >> 4 & 7 else 17
    return 1 << bits


class Zstd:
    """zstd: frames one after the other, and between them frames that are to be skipped.

    The head of a frame is read here, because the library looks at its window only where a frame comes in pieces.
    """

    __slots__ = ("_frame", "_given_bytes", "_head", "_seen", "_skip", "_window_bytes", "failed", "frames")

    def __init__(self) -> None:
        self.failed = False
        self.frames = 0
        self._head = b""  # of a frame, until it is whole: 18 bytes at most
        self._skip = 0  # bytes of a frame that is skipped
        self._seen = False  # a frame came to its end
        self._frame: ZstdDecompressor | None = None
        self._window_bytes = 0
        self._given_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See Stage."""
        while True:
            if self._frame is None:
                data = self._between(data)
                if self._frame is None:
                    return
            try:
                piece = self._frame.decompress(data, PIECE_BYTES_MAX)
            except ZstdError:
                self._frame, self.failed = None, True
                return
            if piece:
                self._given_bytes += len(piece)
                yield piece
            if self._frame.eof:
                data = self._frame.unused_data
                self._frame, self._seen = None, True
            elif self._frame.needs_input:
                return
            else:
                data = b""

    def _between(self, data: bytes) -> bytes:
        """Outside a frame: skip what is to be skipped, and begin the next frame with what is answered."""
        while data and not self.failed:
            if self._skip:
                step = min(self._skip, len(data))
                self._skip -= step
                data = data[step:]
                continue
            data, self._head = self._head + data, b""
            if not _may_begin_frame(data):
                self.failed = True
            elif len(data) < 5 or len(data) < (size := 8 if data[0] != _ZSTD_MAGIC[0] else _zstd_head_bytes(data[4])):
                self._head = data
                return b""
            elif data[0] != _ZSTD_MAGIC[0]:
                self.frames += 1
                self._skip = int.from_bytes(data[4:8], "little")
                self._seen = True
                data = data[8:]
            else:
                self.frames += 1
                self._begin(data[4:size])
                return data
        return b""

    def _begin(self, head: bytes) -> None:
        self._given_bytes = 0
        self._window_bytes = _zstd_window_bytes(head)
        if self._window_bytes > WINDOW_BYTES_MAX:
            self.failed = True
        else:
            self._frame = ZstdDecompressor(options=_ZSTD_OPTIONS)

    @property
    def complete(self) -> bool:
        """See Stage."""
        return self._seen and self._frame is None and not (self.failed or self._head or self._skip)

    @property
    def held_bytes(self) -> int:
        """See Stage."""
        if self._frame is None:
            return 0
        return _ZSTD_FRAME_BYTES + min(self._window_bytes, self._given_bytes)


def _may_begin_frame(data: bytes) -> bool:
    """Up to four bytes of `data` are the magic number of a frame, or of one that is to be skipped."""
    if data[0] & 0xF0 == 0x50:
        return _ZSTD_SKIPPED_MAGIC.startswith(data[1:4])
    return _ZSTD_MAGIC.startswith(data[:4])


def _zstd_head_bytes(descriptor: int) -> int:
    """Length of a frame's head, magic number and descriptor included (RFC 8878 §3.1.1.1)."""
    single = descriptor >> 5 & 1
    return 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]


def _zstd_window_bytes(head: bytes) -> int:
    """What a frame asks for; `head` is without its magic number."""
    descriptor = head[0]
    if not descriptor >> 5 & 1:
        base = 1 << 10 + (head[1] >> 3)
        return base + base // 8 * (head[1] & 7)
    size = (1, 2, 4, 8)[descriptor >> 6]
    return int.from_bytes(head[-size:], "little") + (256 if size == 2 else 0)
