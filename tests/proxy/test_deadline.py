"""The clocks of an attempt: run from its start, stand still for the client, stop with the first output."""

import asyncio

import pytest

from proxy.deadline import FirstOutput
from proxy.errors import UpstreamError


async def ended(packet_ms: int, token_ms: int, *, streams: bool = True) -> str:
    try:
        async with FirstOutput(packet_ms, token_ms, lambda: streams):
            await asyncio.wait_for(asyncio.Event().wait(), 0.5)
    except UpstreamError as error:
        return error.kind
    except TimeoutError:
        return "nothing"
    raise AssertionError


@pytest.mark.parametrize(
    ("packet_ms", "token_ms", "kind"),
    [
        (20, 0, "first_packet_timeout"),
        (0, 20, "first_token_timeout"),
        (20, 400, "first_packet_timeout"),
        (400, 20, "first_token_timeout"),
        (0, 0, "nothing"),
    ],
)
async def test_the_deadline_that_comes_first(packet_ms, token_ms, kind):
    assert await ended(packet_ms, token_ms) == kind


async def test_where_no_stream_was_asked_for_there_is_no_deadline():
    assert await ended(20, 20, streams=False) == "nothing"


async def test_a_stream_that_becomes_known_late_is_judged_from_the_start():
    known = False
    with pytest.raises(UpstreamError, match="no first token within 50 ms"):
        async with asyncio.timeout(10), FirstOutput(0, 50, lambda: known) as clock:
            await asyncio.sleep(0.1)
            known = True
            clock.look()
            await asyncio.Event().wait()


async def test_the_clock_stands_still_for_the_client():
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    with pytest.raises(UpstreamError):
        async with asyncio.timeout(10), FirstOutput(0, 50, lambda: True) as clock:
            for _ in range(4):
                clock.pause()
                await asyncio.sleep(0.05)
                clock.resume()
            waited_s = loop.time() - began_at
            await asyncio.Event().wait()
    assert loop.time() - began_at >= waited_s + 0.04


async def test_after_the_first_packet_the_token_is_due_and_after_that_nothing():
    with pytest.raises(UpstreamError) as error:
        async with asyncio.timeout(10), FirstOutput(20, 60, lambda: True) as clock:
            clock.packet()
            await asyncio.Event().wait()
    assert error.value.kind == "first_token_timeout"
    async with FirstOutput(20, 20, lambda: True) as clock:
        clock.packet()
        clock.stop()
        await asyncio.sleep(0.05)


async def test_other_ends_pass_through():
    with pytest.raises(TimeoutError):
        async with FirstOutput(0, 10_000, lambda: True):
            raise TimeoutError
    with pytest.raises(asyncio.CancelledError):
        async with FirstOutput(0, 10_000, lambda: True):
            raise asyncio.CancelledError


async def test_what_is_cancelled_by_the_deadline_may_still_use_the_clock():
    with pytest.raises(UpstreamError):
        async with FirstOutput(0, 20, lambda: True) as clock:
            try:
                await asyncio.Event().wait()
            finally:
                clock.pause()
                clock.resume()
                clock.stop()
