"""Both ends of the link between control and a worker, over the real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.link import LINE_BYTES_MAX, Link, Links, Offer, offer_line, socket_path


class Told:
    """A worker's answers: what it was asked to adopt, and a gate that it waits at."""

    def __init__(self, generation: int, seal: str = "s") -> None:
        self.in_force = generation, seal
        self.asked: asyncio.Queue[tuple[int, dict[str, Any]]] = asyncio.Queue()
        self.answers: asyncio.Queue[str | None] = asyncio.Queue()

    async def adopt(self, offer: Offer) -> str | None:
        self.asked.put_nowait((offer.generation, offer.document))
        why = await self.answers.get()
        if why is None:
            self.in_force = offer.generation, offer.seal
        return why


class Heard:
    """Control's end, and a count of what it heard."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self.links = Links(self._on_answer)
        self.answers = 0

    def announce(self, generation: int, document: dict[str, Any], seal: str = "s") -> None:
        self.links.announce(generation, seal, offer_line(generation, seal, document))

    def _on_answer(self) -> None:
        self.answers += 1
        self._task = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(condition)


@asynccontextmanager
async def linked(folder: Path, row: int, told: Told) -> AsyncIterator[None]:
    task = asyncio.create_task(Link(folder, row, lambda: told.in_force, told.adopt).run())
    try:
        yield
    finally:
        task.cancel()


async def asked(told: Told) -> tuple[int, dict[str, Any]]:
    return await asyncio.wait_for(told.asked.get(), 10)


async def test_a_worker_gets_what_is_announced_and_answers(tmp_path: Path) -> None:
    heard, told = Heard(), Told(7)
    heard.announce(7, {"a": 0})
    await heard.links.listen(tmp_path)
    async with linked(tmp_path, 0, told):
        await heard.until(lambda: heard.answers == 1)
        heard.announce(8, {"a": 1})
        assert await asked(told) == (8, {"a": 1})
        told.answers.put_nowait(None)
        await heard.until(lambda: heard.answers == 2)
        assert told.asked.empty()  # what it began with it was not sent
        assert heard.links.failures == {}
    heard.links.close()


async def test_one_that_comes_late_is_brought_up_to_date(tmp_path: Path) -> None:
    heard, told = Heard(), Told(5)
    async with linked(tmp_path, 0, told):  # before control listens: it tries again
        heard.announce(8, {"a": 1})
        await heard.links.listen(tmp_path)
        assert await asked(told) == (8, {"a": 1})
    heard.links.close()


async def test_the_same_number_with_another_seal_is_brought_up_to_date(tmp_path: Path) -> None:
    """The text of a worker that was started again referred to a secret that is another one now."""
    heard, told = Heard(), Told(8, "other")
    heard.announce(8, {"a": 1})
    await heard.links.listen(tmp_path)
    async with linked(tmp_path, 0, told):
        assert await asked(told) == (8, {"a": 1})
        told.answers.put_nowait(None)
        await heard.until(lambda: heard.answers == 2)
        assert told.in_force == (8, "s")
    heard.links.close()


async def test_one_that_is_ahead_is_not_taken_back(tmp_path: Path) -> None:
    """It began with what is kept, a moment before that was announced."""
    heard, told = Heard(), Told(8)
    heard.announce(7, {})
    await heard.links.listen(tmp_path)
    async with linked(tmp_path, 0, told):
        await heard.until(lambda: heard.answers == 1)
        heard.announce(8, {})
        heard.announce(9, {"a": 9})
        assert await asked(told) == (9, {"a": 9})
    heard.links.close()


def test_what_no_link_takes_is_told_before_it_is_announced() -> None:
    with pytest.raises(ValueError, match="and a worker takes"):
        offer_line(1, "s", {"a": "x" * LINE_BYTES_MAX})


async def test_a_slow_one_is_sent_the_latest_alone(tmp_path: Path) -> None:
    heard, told = Heard(), Told(7)
    heard.announce(7, {})
    await heard.links.listen(tmp_path)
    async with linked(tmp_path, 0, told):
        await heard.until(lambda: heard.answers == 1)
        heard.announce(8, {"a": 8})
        assert (await asked(told))[0] == 8
        for generation in range(9, 20):
            heard.announce(generation, {"a": generation})
        told.answers.put_nowait(None)
        assert await asked(told) == (19, {"a": 19})
        told.answers.put_nowait(None)
        await heard.until(lambda: heard.answers == 3)
        assert told.asked.empty()
    heard.links.close()


async def test_a_refusal_is_kept_until_the_next_change_and_not_repeated(tmp_path: Path) -> None:
    heard, told = Heard(), Told(7)
    heard.announce(7, {})
    await heard.links.listen(tmp_path)
    async with linked(tmp_path, 3, told):
        await heard.until(lambda: heard.answers == 1)
        heard.announce(8, {})
        await asked(told)
        told.answers.put_nowait("no such file")
        await heard.until(lambda: heard.links.failures == {3: "no such file"})
        heard.announce(9, {})
        assert heard.links.failures == {}
        assert (await asked(told))[0] == 9  # and not 8 again
        told.answers.put_nowait(None)
        await heard.until(lambda: heard.answers == 3)
    heard.links.close()


async def test_a_worker_finds_the_next_control_process(tmp_path: Path) -> None:
    first, second, told = Heard(), Heard(), Told(7)
    first.announce(7, {})
    await first.links.listen(tmp_path)
    async with linked(tmp_path, 0, told):
        await first.until(lambda: first.answers == 1)
        first.links.close()
        second.announce(8, {"b": 2})
        await second.links.listen(tmp_path)  # the socket of the one before is in its way
        assert await asked(told) == (8, {"b": 2})
    second.links.close()


async def test_a_stranger_who_says_nonsense_is_let_go(tmp_path: Path) -> None:
    heard = Heard()
    heard.announce(7, {})
    await heard.links.listen(tmp_path)
    for nonsense in (b"nonsense\n", b'{"row": 0}\n', b"[1]\n", b"7\n"):
        reader, writer = await asyncio.open_unix_connection(socket_path(tmp_path))
        writer.write(nonsense)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    assert heard.answers == 0
    heard.links.close()
