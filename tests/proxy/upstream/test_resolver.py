"""Names: one lookup for all who ask, answers and failures remembered for a while, changes told."""

import asyncio
import socket
import threading
from collections.abc import Collection
from typing import Any

import pytest

from proxy.upstream import resolver as rules
from proxy.upstream.resolver import Candidate, Resolver, UnresolvedError
from tests.fakes.names import Names, found


class Clock:
    """Instants of the test's own, beside the loop's."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def texts(resolver: Resolver, host: str = "a.test") -> list[str]:
    return [candidate.address[0] for candidate in await resolver.candidates(host, 80)]


async def until(condition: Any) -> None:
    """As soon as it holds; lookups end in turns of the loop that nothing else tells of."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


async def test_many_callers_are_one_lookup_and_a_caller_that_leaves_does_not_end_it() -> None:
    names = found("192.0.2.1")
    names.may_answer.clear()
    resolver = Resolver(names)
    callers = [asyncio.create_task(texts(resolver)) for _ in range(20)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await until(callers[0].done)
    names.may_answer.set()
    assert await asyncio.gather(*callers[1:]) == [["192.0.2.1"]] * 19
    assert names.asked == ["a.test"]


async def test_an_answer_is_fresh_for_a_while() -> None:
    names, clock = found("192.0.2.1"), Clock()
    resolver = Resolver(names, clock)
    assert await texts(resolver) == ["192.0.2.1"]
    names.addresses = ["192.0.2.2"]
    clock.now += rules.FRESH_S - 0.1
    assert await texts(resolver) == ["192.0.2.1"]
    clock.now += 0.2
    assert await texts(resolver) == ["192.0.2.2"]
    assert len(names.asked) == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "its name was not resolved (Name or service"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "its name was not resolved (Temporary failure)"),
        (ValueError("embedded null"), "its name was not resolved (ValueError)"),
    ],
)
async def test_a_failure_is_remembered_briefly(error: Exception, reason: str) -> None:
    names, clock = Names(), Clock()
    names.error = error
    resolver = Resolver(names, clock)
    for _ in range(100):
        with pytest.raises(UnresolvedError) as raised:
            await texts(resolver)
        assert str(raised.value).startswith(reason)
    assert len(names.asked) == 1
    clock.now += rules.FAILED_S + 0.1
    names.error, names.addresses = None, ["192.0.2.1"]
    assert await texts(resolver) == ["192.0.2.1"]


async def test_the_last_answer_serves_while_the_resolver_fails() -> None:
    names, clock = found("192.0.2.1"), Clock()
    resolver = Resolver(names, clock)
    await texts(resolver)
    names.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    clock.now += rules.STALE_S - 1
    assert await texts(resolver) == ["192.0.2.1"]
    assert len(names.asked) == 2
    clock.now += 2
    with pytest.raises(UnresolvedError, match="Temporary failure"):
        await texts(resolver)


async def test_the_last_answer_serves_while_the_resolver_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "PATIENCE_S", 0.01)  # of which the first caller waits for all, and no other
    names, clock = found("192.0.2.1"), Clock()
    resolver = Resolver(names, clock)
    await texts(resolver)
    names.may_answer.clear()
    clock.now += rules.FRESH_S + 1
    for _ in range(3):
        assert await texts(resolver) == ["192.0.2.1"]
    assert len(names.asked) == 2
    names.may_answer.set()


async def test_a_name_that_is_gone_has_no_last_answer() -> None:
    """That it does not exist is an answer."""
    names, clock = found("192.0.2.1"), Clock()
    resolver = Resolver(names, clock)
    await texts(resolver)
    names.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    clock.now += rules.FRESH_S + 1
    with pytest.raises(UnresolvedError, match="not known"):
        await texts(resolver)


async def test_a_name_that_hangs_ends_in_time_and_takes_one_thread_of_few() -> None:
    names = found("192.0.2.1")
    names.may_answer.clear()
    resolver = Resolver(names)
    for host in range(rules.LOOKUPS_MAX + 5):
        for _ in range(2):
            with pytest.raises(UnresolvedError, match="not resolved in time"):
                await resolver.candidates(f"{host}.test", 80, asyncio.get_running_loop().time())
    assert sum(thread.name == "resolver" for thread in threading.enumerate()) <= rules.LOOKUPS_MAX
    await until(lambda: len(names.asked) == rules.LOOKUPS_MAX)
    names.may_answer.set()
    assert await texts(resolver, "last.test") == ["192.0.2.1"]
    await until(lambda: len(names.asked) == rules.LOOKUPS_MAX + 6)


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
async def test_an_address_is_not_looked_up(host: str) -> None:
    names = Names()
    ((family, address),) = await Resolver(names).candidates(host, 443)
    assert (family, address[:2]) == (socket.AF_INET6 if ":" in host else socket.AF_INET, (host, 443))
    assert names.asked == []


async def test_families_take_turns_and_what_failed_goes_last() -> None:
    clock = Clock()
    resolver = Resolver(found("2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2", "192.0.2.1"), clock)
    assert await texts(resolver) == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]
    first = (await resolver.candidates("a.test", 80))[0]
    resolver.avoid(first)
    assert await texts(resolver) == ["192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::1"]
    assert (await resolver.candidates("a.test", 443))[0].address[0] == "2001:db8::1"  # another port
    clock.now += rules.AVOIDED_S - 1
    assert (await resolver.candidates("a.test", 80))[-1] == first
    clock.now += 2
    assert (await resolver.candidates("a.test", 80))[0] == first
    resolver.avoid(first)
    resolver.trust(first)
    assert (await resolver.candidates("a.test", 80))[0] == first


async def test_a_watcher_is_told_when_no_answer_has_an_address_any_more() -> None:
    """Not where answers only name some of many in turn."""
    names, clock = found("192.0.2.1"), Clock()
    resolver = Resolver(names, clock)
    told: list[set[str]] = []

    def watcher(present: Collection[str]) -> None:
        told.append(set(present))

    resolver.watch("a.test", watcher)

    async def answered(*addresses: str) -> None:
        names.addresses = list(addresses)
        asked = len(names.asked)
        clock.now += rules.REFRESH_S
        resolver.refresh("a.test")
        resolver.refresh("a.test")
        await until(lambda: resolver._names["a.test"].lookup is None)
        assert len(names.asked) == asked + 1

    await texts(resolver)
    for turn in range(10):
        await answered(f"192.0.2.{turn % 3}")
    assert told == []
    for _ in range(int(rules.GONE_S / rules.REFRESH_S) + 1):
        await answered("192.0.2.9")
    assert told[-1] == {"192.0.2.9"}
    count = len(told)
    resolver.unwatch("a.test", watcher)
    for _ in range(5):
        await answered("192.0.2.10")
    assert len(told) == count


async def test_what_is_remembered_is_bounded() -> None:
    resolver = Resolver(found(*(f"192.0.2.{number}" for number in range(250))))
    for number in range(rules.NAMES_MAX + 50):
        assert len(await texts(resolver, f"{number}.test")) == rules.ADDRESSES_MAX
    assert len(resolver._names) == rules.NAMES_MAX
    for number in range(rules.AVOIDED_MAX + 50):
        resolver.avoid(Candidate(socket.AF_INET, ("192.0.2.1", number)))
    assert len(resolver._avoided) == rules.AVOIDED_MAX
