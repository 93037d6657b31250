"""What the decoders of one process hold together: the windows of br and zstd, which the sender chooses, up to 8 MiB.

A window is only as large in memory as what was decoded into it, so that is what counts: 500 streams of small events
hold little, and 500 uploads made for it cannot hold 4 GiB. Requests and responses have an account each, so that a
flood of the first costs no usage of the second.
"""

HELD_BYTES_MAX = 256 << 20
"""As `limits.max_held_memory_bytes` is by default. 32 whole windows of 8 MiB; common ones have 1 to 4 MiB."""


class Account:
    """So much may be held."""

    __slots__ = ("br_bytes", "held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int = HELD_BYTES_MAX, *, br_bytes: int = 64 << 10) -> None:
        """`br_bytes`: what the tables of a br stream count for, which cannot be seen from outside."""
        self.limit_bytes = limit_bytes
        self.br_bytes = br_bytes
        self.held_bytes = 0

    def change(self, bytes_more: int) -> bool:
        """Hold more, or less (a negative number, always True). False: there is no room, and nothing has changed."""
        if bytes_more > 0 and self.held_bytes + bytes_more > self.limit_bytes:
            return False
        self.held_bytes += bytes_more
        return True


RESPONSES = Account()
"""Of this process. Upstreams write br with an encoder: its tables have 20 to 200 KiB."""
REQUESTS = Account(br_bytes=3 << 20)
"""Clients may write what they like: three times 256 tables of the largest kind that RFC 7932 has. So 85
of them at a time."""
