"""Undoes gzip and deflate of a passing stream, for looking only: bounded, incremental, never the client's bytes.

Everything else (br, zstd) cannot be read with the standard library; the gateway narrows `Accept-Encoding` so that it
does not come from servers that listen. Who reads requests relies on what was read here being all there is, so whatever
stands behind the end fails, but for what all readers of gzip know: more members, and zeros behind and between them.
Sources: RFC 9110 8.4.1, RFC 1950, RFC 1952.
"""

import zlib
from collections.abc import Iterator

PIECE_BYTES_MAX = 65536
"""Of decoded data handed out at once, so that a bomb never unfolds in memory."""
RATIO_MAX = 200
"""Decoded bytes for each encoded one. JSON of repeated events reaches about 30; deflate itself ends at 1032."""
RATIO_GRACE_BYTES = 1 << 20
"""Decoded bytes before the ratio counts: what a bomb may cost, about 3 ms."""
STEP_BYTES = 1024
"""Encoded bytes taken at once. The ratio is that at the next multiple, so that it does not matter how the stream is
cut; and zlib copies what it leaves of its input for each member and for each piece, which made 1 MiB of empty members
cost 825 ms."""


class UnreadableEncodingError(ValueError):
    """A content coding that this module cannot undo."""


class Decoder:
    """One pass over one encoded stream. Never raises on any input; sets `failed` and gives nothing more."""

    __slots__ = ("_first", "_grace_bytes", "_inflater", "_is_gzip", "_ratio_max", "bytes_in", "bytes_out", "failed")

    def __init__(self, encoding: str, *, ratio_max: int = RATIO_MAX, grace_bytes: int = RATIO_GRACE_BYTES) -> None:
        """`encoding`: gzip, x-gzip or deflate (zlib or raw), any case. UnreadableEncodingError for others.

        `ratio_max`: decoded bytes for each encoded one; `grace_bytes`: beside them.
        """
        coding = encoding.strip().lower()
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise UnreadableEncodingError(f"content coding {encoding!r} cannot be read; gzip and deflate can")
        self.failed = False
        """The stream is malformed, a bomb, or has something else behind its end."""
        self.bytes_in = 0
        self.bytes_out = 0
        self._ratio_max = ratio_max
        self._grace_bytes = grace_bytes
        self._is_gzip = coding != "deflate"
        self._first = b""  # of a deflate stream, until two bytes tell whether it has a zlib header
        self._inflater = zlib.decompressobj(wbits=31) if self._is_gzip else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece; yields the decoded bytes in pieces of at most PIECE_BYTES_MAX. Must be exhausted."""
        pos = 0
        while pos < len(data) and not self.failed:
            step = data[pos : pos + STEP_BYTES - self.bytes_in % STEP_BYTES]
            pos += len(step)
            self.bytes_in += len(step)
            yield from self._inflate(step)

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        """`feed` for what lies between two multiples of STEP_BYTES, or a part of it."""
        limit = -(-self.bytes_in // STEP_BYTES) * STEP_BYTES * self._ratio_max + self._grace_bytes
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
            try:
                piece = self._inflater.decompress(data, PIECE_BYTES_MAX)
            except zlib.error:
                self.failed = True
                return
            self.bytes_out += len(piece)
            if self.bytes_out > limit:
                self.failed = True
                return
            if piece:
                yield piece
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            if not data and len(piece) < PIECE_BYTES_MAX:
                return

    @property
    def complete(self) -> bool:
        """The stream came to its end mark."""
        return self._inflater is not None and self._inflater.eof and not self.failed
