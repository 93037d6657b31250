"""Undoes the content codings of a passing stream, for looking only: bounded, incremental, never the client's bytes.

The bounds: what comes out for what went in (RATIO_MAX), at every stage; the memory that all decoders of the process
hold together (`account`); two codings of one body. What the codings themselves allow is in `stages`.
"""

from collections.abc import Callable, Iterator

from observability.codings.account import RESPONSES, Account
from observability.codings.stages import PIECE_BYTES_MAX, Brotli, Inflate, Stage, Zstd

__all__ = ["PIECE_BYTES_MAX", "READABLE", "STEP_BYTES", "Decoder", "UnreadableEncodingError", "codings_of"]

RATIO_MAX = 200
"""Decoded bytes for each encoded one. JSON of repeated events reaches about 30; deflate itself ends at 1032, br and
zstd hardly anywhere."""
RATIO_GRACE_BYTES = 1 << 20
"""Decoded bytes before the ratio counts: what a bomb may cost, about 3 ms."""
STEP_BYTES = 1024
"""Encoded bytes taken at once. The ratio is that at the next multiple, so that it does not matter how the stream is
cut (but for some bytes that br gives sooner or later); and zlib copies what it leaves of its input for each member and
for each piece, which made 1 MiB of empty members cost 825 ms."""
FRAME_BYTES = 2048
"""What a member or a frame counts for beside what it holds. A frame of zstd costs 11 µs and has 9 bytes if it is
empty: 1 MiB of them would take 1.3 s."""
CODINGS_MAX = 2
"""Of one body. Nobody has a use for two, but the syntax allows it; each further one is work for nothing."""

_STAGES: dict[str, Callable[[Account], Stage]] = {
    "gzip": lambda _: Inflate(is_gzip=True),
    "x-gzip": lambda _: Inflate(is_gzip=True),
    "deflate": lambda _: Inflate(is_gzip=False),
    "br": lambda account: Brotli(account.br_bytes),
    "zstd": lambda _: Zstd(),
}
READABLE = ("gzip", "deflate", "br", "zstd")
"""What is asked for by name; `x-gzip` is an old name of gzip."""


class UnreadableEncodingError(ValueError):
    """A content coding that this module cannot undo."""


def codings_of(content_encoding: str) -> list[str]:
    """The codings in the order in which they were applied, in lower case; `identity` is none."""
    named = (item.strip().lower() for item in content_encoding.split(","))
    return [coding for coding in named if coding not in ("", "identity")]


class Decoder:
    """One pass over one encoded stream. Never raises on any input; sets `failed` and gives nothing more."""

    __slots__ = (
        "_account",
        "_cost",
        "_grace_bytes",
        "_held_bytes",
        "_ratio_max",
        "_stages",
        "bytes_in",
        "bytes_out",
        "crowded",
        "failed",
    )

    def __init__(
        self,
        encoding: str,
        *,
        ratio_max: int = RATIO_MAX,
        grace_bytes: int = RATIO_GRACE_BYTES,
        account: Account = RESPONSES,
    ) -> None:
        """`encoding`: a value of Content-Encoding with at least one coding. UnreadableEncodingError for others.

        `ratio_max`: decoded bytes for each encoded one; `grace_bytes`: beside them.
        """
        self._account = account
        self._held_bytes = 0
        codings = codings_of(encoding)
        if not 0 < len(codings) <= CODINGS_MAX or not all(coding in _STAGES for coding in codings):
            raise UnreadableEncodingError(
                f"content coding {encoding!r} cannot be read; {', '.join(READABLE)} can, {CODINGS_MAX} of them at most"
            )
        self.failed = False
        """The stream is malformed, a bomb, or has something else behind its end; or it was one too many."""
        self.crowded = False
        """It failed because there was no room: the fault is not the sender's."""
        self.bytes_in = 0
        self.bytes_out = 0
        self._ratio_max = ratio_max
        self._grace_bytes = grace_bytes
        self._stages = [_STAGES[coding](account) for coding in reversed(codings)]
        self._cost = [0] * len(codings)  # decoded bytes of each stage

    def __del__(self) -> None:
        self._account.change(-self._held_bytes)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece; yields the decoded bytes in pieces of at most PIECE_BYTES_MAX. Must be exhausted."""
        pos = 0
        while pos < len(data) and not self.failed:
            step = data[pos : pos + STEP_BYTES - self.bytes_in % STEP_BYTES]
            pos += len(step)
            self.bytes_in += len(step)
            limit = -(-self.bytes_in // STEP_BYTES) * STEP_BYTES * self._ratio_max + self._grace_bytes
            yield from self._through(0, step, limit)

    def _through(self, position: int, data: bytes, limit: int) -> Iterator[bytes]:
        """What becomes of `data` from this stage on. `limit`: of decoded bytes up to the next STEP_BYTES."""
        stage = self._stages[position]
        last = position == len(self._stages) - 1
        for piece in stage.feed(data):
            self._cost[position] += len(piece)
            if not self._may_go_on(position, stage, limit):
                return
            if last:
                self.bytes_out += len(piece)
                yield piece
                continue
            for at in range(0, len(piece), STEP_BYTES):
                yield from self._through(position + 1, piece[at : at + STEP_BYTES], limit)
                if not self._stages:
                    return
        self._may_go_on(position, stage, limit)

    def _may_go_on(self, position: int, stage: Stage, limit: int) -> bool:
        """The stream is well-formed so far, and within the bounds; else it has failed."""
        if stage.failed or self._cost[position] + (stage.frames - 1) * FRAME_BYTES > limit:
            self._fail()
            return False
        held = sum(one.held_bytes for one in self._stages)
        if held != self._held_bytes:
            if not self._account.change(held - self._held_bytes):
                self.crowded = True
                self._fail()
                return False
            self._held_bytes = held
        return True

    def _fail(self) -> None:
        self.failed = True
        self._stages.clear()
        self._account.change(-self._held_bytes)
        self._held_bytes = 0

    @property
    def complete(self) -> bool:
        """The stream came to its end mark."""
        return not self.failed and all(stage.complete for stage in self._stages)
