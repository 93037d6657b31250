"""Small writes wait for the end of their turn, in order; large ones, and whoever closes, do not."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.outbox import HELD_BYTES_MAX, SMALL_BYTES, Outbox


class Channel:
    """What an outbox needs of a transport."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written.append(data)

    def writelines(self, pieces: Any) -> None:
        self.written.append(b"".join(pieces))


@pytest.fixture
def channel() -> Any:
    return Channel()


async def test_small_writes_wait_for_the_end_of_the_turn(channel: Any) -> None:
    outbox = Outbox(asyncio.get_running_loop())
    outbox.write(channel, b"a")
    outbox.write(channel, b"b")
    assert channel.written == []
    await asyncio.sleep(0)
    assert channel.written == [b"a", b"b"]
    outbox.write(channel, b"c")
    await asyncio.sleep(0)
    assert channel.written == [b"a", b"b", b"c"]


async def test_large_writes_and_lines_are_made_now_and_behind_what_waits(channel: Any) -> None:
    outbox = Outbox(asyncio.get_running_loop())
    outbox.write(channel, b"a")
    outbox.write(channel, b"b" * SMALL_BYTES)
    assert channel.written == [b"a", b"b" * SMALL_BYTES]
    outbox.write(channel, b"c")
    outbox.writelines(channel, (b"d", b"e"))
    assert channel.written[2:] == [b"c", b"de"]


async def test_what_waits_is_bounded(channel: Any) -> None:
    outbox = Outbox(asyncio.get_running_loop())
    piece = b"x" * (SMALL_BYTES - 1)
    for _ in range(HELD_BYTES_MAX // len(piece) + 1):
        outbox.write(channel, piece)
    assert len(channel.written) == HELD_BYTES_MAX // len(piece) + 1


async def test_a_channel_that_was_lost_meanwhile_is_left_out_and_others_are_not(channel: Any) -> None:
    outbox, other = Outbox(asyncio.get_running_loop()), Channel()
    outbox.write(channel, b"a")
    outbox.write(other, b"b")  # type: ignore[arg-type]
    channel.closing = True
    outbox.flush()
    assert (channel.written, other.written) == ([], [b"b"])


async def test_nothing_is_written_twice(channel: Any) -> None:
    outbox = Outbox(asyncio.get_running_loop())
    outbox.write(channel, b"a")
    outbox.flush()
    await asyncio.sleep(0)
    assert channel.written == [b"a"]


async def test_a_channel_that_cannot_be_written_to_takes_no_other_with_it(channel: Any) -> None:
    class Ended(Channel):
        def write(self, data: bytes) -> None:
            raise RuntimeError("Cannot call write() after write_eof()")

        def abort(self) -> None:
            self.closing = True

    outbox, ended = Outbox(asyncio.get_running_loop()), Ended()
    outbox.write(ended, b"a")  # type: ignore[arg-type]
    outbox.write(channel, b"b")
    with capture_logs() as logged:
        outbox.flush()
    assert (channel.written, ended.closing, [line["event"] for line in logged]) == ([b"b"], True, ["write_failed"])
