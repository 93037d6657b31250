"""Listening sockets, with the kernel's own behaviour: who may share an address, and where connections go."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from proxy.sockets import KEEPALIVE, AddressError, Listeners, format_address, listen_alone, parse_address

LOOPBACK = "127.0.0.1:0"


@pytest.fixture
def listeners() -> Iterator[Callable[[str, int], Listeners]]:
    made: list[Listeners] = []

    def make(text: str, slots: int) -> Listeners:
        made.append(Listeners(text, slots))
        return made[-1]

    yield make
    for each in made:
        each.close()


def connect(address: str) -> socket.socket:
    return socket.create_connection(parse_address(address), timeout=10)


def waiting(fd: int) -> int:
    """How many connections wait in the backlog of a listening socket; takes them out."""
    with closing(socket.socket(fileno=os.dup(fd))) as listener:
        listener.setblocking(False)
        count = 0
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:8080", ("127.0.0.1", 8080)), ("[::1]:0", ("::1", 0)), ("localhost:65535", ("localhost", 65535))],
)
def test_addresses_are_read_and_written(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert format_address(*address) == text


@pytest.mark.parametrize("text", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "a:b", "a:65536", "a:-1", "a:٣"])
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"for example 127\.0\.0\.1:8080"):
        parse_address(text)


def test_ipv6_without_brackets_is_refused_with_the_right_form() -> None:
    with pytest.raises(ValueError, match=r"\[::1\]:8080"):
        parse_address("::1:8080")


def test_connections_spread_over_the_slots(listeners: Callable[[str, int], Listeners]) -> None:
    both = listeners(LOOPBACK, 2)
    connections = [connect(both.address) for _ in range(64)]
    counts = [waiting(fd) for fd in both.fds]
    assert sum(counts) == 64
    assert min(counts) > 0  # all on one side: 2 in 2^64
    for connection in connections:
        connection.close()


def test_a_second_gateway_cannot_share_the_address(listeners: Callable[[str, int], Listeners]) -> None:
    first = listeners(LOOPBACK, 2)
    with pytest.raises(AddressError, match=rf"{first.address} is taken by another process: stop it .* or choose"):
        listeners(first.address, 2)
    connect(first.address).close()  # the first one is unharmed


def test_any_listener_on_the_address_is_noticed(listeners: Callable[[str, int], Listeners]) -> None:
    with listen_alone(LOOPBACK) as other, pytest.raises(AddressError, match="is taken"):
        listeners(format_address(*other.getsockname()), 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("203.0.113.7:8080", "is no address of this machine"),
        ("no-such-host.invalid:8080", "the host is not known here"),
        ("nonsense", "is not HOST:PORT"),
    ],
)
def test_an_address_that_cannot_be_is_refused_in_one_line(text: str, sentence: str) -> None:
    with pytest.raises(AddressError, match=sentence) as refusal:
        Listeners(text, 1)
    assert "\n" not in str(refusal.value)


def test_a_parked_slot_gets_no_connection_and_keeps_its_number(listeners: Callable[[str, int], Listeners]) -> None:
    both = listeners(LOOPBACK, 2)
    numbers = both.fds
    both.park(1)
    both.park(1)
    connections = [connect(both.address) for _ in range(32)]
    assert waiting(numbers[0]) == 32
    both.unpark(1)
    both.unpark(1)
    assert both.fds == numbers
    connections += [connect(both.address) for _ in range(64)]
    assert waiting(numbers[1]) > 0
    for connection in connections:
        connection.close()


def test_an_address_lost_while_all_slots_were_parked_is_said(listeners: Callable[[str, int], Listeners]) -> None:
    both = listeners(LOOPBACK, 2)
    both.park(0)
    both.park(1)
    with pytest.raises(ConnectionRefusedError):
        connect(both.address)
    with listen_alone(both.address), pytest.raises(AddressError, match="is taken"):
        both.unpark(0)
    both.unpark(0)  # once it is free again
    connect(both.address).close()


def test_an_inherited_copy_keeps_listening_after_ours_is_closed(listeners: Callable[[str, int], Listeners]) -> None:
    one = listeners(LOOPBACK, 1)
    theirs = os.dup(one.fds[0])
    address = one.address
    one.close()
    connect(address).close()
    os.close(theirs)
    with pytest.raises(ConnectionRefusedError):
        connect(address)


def test_a_muted_slot_does_not_listen_though_somebody_else_holds_it(
    listeners: Callable[[str, int], Listeners],
) -> None:
    both = listeners(LOOPBACK, 2)
    with closing(socket.socket(fileno=os.dup(both.fds[1]))) as worker:
        assert both.mute(1)
        assert both.mute(1)
        connections = [connect(both.address) for _ in range(32)]
        assert waiting(both.fds[0]) == 32
        assert not both.mute(0)  # nobody would be left
        both.unmute(1)
        connections += [connect(both.address) for _ in range(32)]
        assert waiting(worker.fileno()) > 0
    for connection in connections:
        connection.close()


def test_a_muted_slot_listens_again_when_its_worker_is_started(listeners: Callable[[str, int], Listeners]) -> None:
    both = listeners(LOOPBACK, 2)
    for parked_too in (False, True):
        assert both.mute(1)
        if parked_too:
            both.park(1)
        both.unpark(1)
        connections = [connect(both.address) for _ in range(32)]
        assert waiting(both.fds[1]) > 0
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("slot", [0, 1])
def test_accepted_connections_inherit_what_notices_the_dead(
    listeners: Callable[[str, int], Listeners], slot: int
) -> None:
    made = listeners(LOOPBACK, 2)
    made.park(1 - slot)
    with connect(made.address), closing(socket.socket(fileno=os.dup(made.fds[slot]))) as listener:
        with closing(listener.accept()[0]) as accepted:
            assert [accepted.getsockopt(level, option) for level, option, _ in KEEPALIVE] == [1, 60, 15, 4, 1]
