"""The emitter over real sockets: to an intake in the same loop, and to observers that misbehave.

After every story the books must balance: what was handed over is in exactly one cell.
"""

import asyncio
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from observability import emitter as emitter_module
from observability import names
from observability.board import CELLS, DROP_REASONS, Cell
from observability.emitter import Emitter
from observability.facts import pack, unpack
from observability.observation import Attempt, Observation
from observability.observer.content import stash as stash_module
from observability.observer.content.stash import Contents
from observability.observer.intake import Intake, Load
from observability.observer.logs import LineEncoder
from observability.observer.naming import record_of
from observability.observer.spans import SpanEncoder
from observability.record import Record
from observability.sampling import TraceContext
from tests.observability.records import record

Settled = Callable[[int], None]


class Sinks:
    """Keeps the records and settles them, at once or when told."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.loads: list[Load] = []
        self.batches = 0
        self.content_bytes = 0
        self.withheld: list[tuple[Settled, int]] | None = None
        self._changed = asyncio.Event()

    def take(self, records: list[Record], load: Load, settled: Settled, contents: Contents) -> None:
        self.content_bytes += sum(len(side) for side in contents.claim("0" * 32).values())
        self.records += records
        self.loads.append(load)
        self.batches += 1
        self._changed.set()
        if self.withheld is None:
            settled(len(records))
        else:
            self.withheld.append((settled, len(records)))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.records) < count:
                self._changed.clear()
                await self._changed.wait()

    def release(self) -> None:
        assert self.withheld is not None
        for settled, count in self.withheld:
            settled(count)
        self.withheld = None


class Observer:
    """An observer whose steps the test makes: accepts one worker, reads, acknowledges."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        self._listener.listen()
        self._worker: socket.socket | None = None

    async def accept(self) -> socket.socket:
        async with asyncio.timeout(20):
            self._worker, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        return self._worker

    async def read(self) -> list[Record]:
        """The records of the next message."""
        assert self._worker is not None
        async with asyncio.timeout(20):
            message = await asyncio.get_running_loop().sock_recv(self._worker, 1 << 20)
        return orjson.loads(message)[1:]

    async def acknowledge(self, count: int) -> None:
        assert self._worker is not None
        await asyncio.get_running_loop().sock_sendall(self._worker, count.to_bytes(8, "little"))

    def die(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        self._listener.close()


@pytest.fixture
def row() -> memoryview:
    return memoryview(bytearray(CELLS * 8)).cast("Q")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "observer-0.sock"


def dropped(row: memoryview) -> dict[str, int]:
    return {reason: row[cell] for reason, cell in DROP_REASONS.items() if row[cell]}


def assert_balanced(row: memoryview) -> None:
    assert row[Cell.HANDED] == row[Cell.TAKEN] + sum(dropped(row).values())
    assert row[Cell.QUEUED_BYTES] == 0


async def until(row: memoryview, cell: Cell, value: int) -> None:
    async with asyncio.timeout(20):
        while row[cell] < value:  # the board has no events: it is memory that other processes read
            await asyncio.sleep(0.002)


async def test_records_arrive_whole_in_order_and_are_acknowledged(path, row):
    loop = asyncio.get_running_loop()
    sinks = Sinks()
    intake = Intake(path, loop, sinks)
    emitter = Emitter(path, row, loop)
    made = [record({names.SLUICEWAY_REQUEST_ID: f"{number:032x}"}) for number in range(500)]
    for one in made:
        emitter.hand_over(one)
    await emitter.close(20)
    assert sinks.records == made
    assert row[Cell.HANDED] == row[Cell.TAKEN] == 500
    assert not dropped(row)
    assert sinks.batches < 50  # some 30 records a message
    assert set(sinks.loads) == {Load.ALL}
    intake.drain()
    intake.close()


async def test_a_single_record_leaves_by_itself(path, row):
    loop = asyncio.get_running_loop()
    sinks = Sinks()
    intake = Intake(path, loop, sinks)
    emitter = Emitter(path, row, loop)
    emitter.hand_over(record())
    assert row[Cell.QUEUED_BYTES] > 0
    await sinks.until(1)
    await until(row, Cell.TAKEN, 1)
    assert_balanced(row)
    await emitter.close(1)
    intake.drain()
    intake.close()


async def test_it_works_on_asyncios_own_loop_too(tmp_path):
    """Tests run on uvloop; the selector loop has other rules for sockets."""

    async def story() -> int:
        loop = asyncio.get_running_loop()
        assert not isinstance(loop, uvloop.Loop)
        own = memoryview(bytearray(CELLS * 8)).cast("Q")
        sinks = Sinks()
        intake = Intake(tmp_path / "s", loop, sinks)
        emitter = Emitter(tmp_path / "s", own, loop)
        for _ in range(100):
            emitter.hand_over(record())
        await emitter.close(20)
        intake.drain()
        intake.close()
        return own[Cell.TAKEN]

    def run() -> int:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(story())

    assert await asyncio.to_thread(run) == 100


async def test_records_wait_for_an_observer_that_comes_later(path, row):
    loop = asyncio.get_running_loop()
    emitter = Emitter(path, row, loop)
    emitter.hand_over(record())
    sinks = Sinks()
    intake = Intake(path, loop, sinks)
    await sinks.until(1)
    await emitter.close(20)
    assert_balanced(row)
    intake.drain()
    intake.close()


async def test_what_an_observer_took_with_it_is_counted_and_the_next_one_gets_the_rest(path, row):
    loop = asyncio.get_running_loop()
    first = Observer(path)
    emitter = Emitter(path, row, loop)
    await first.accept()
    for _ in range(3):
        emitter.hand_over(record())
        assert len(await first.read()) == 1
    await first.acknowledge(2)
    await until(row, Cell.TAKEN, 2)
    first.die()
    await until(row, Cell.DROPPED_OBSERVER_LOST, 1)
    emitter.hand_over(record())
    second = Observer(path)
    await second.accept()
    assert len(await second.read()) == 1
    await second.acknowledge(1)  # counts begin anew with each connection
    await until(row, Cell.TAKEN, 3)
    await emitter.close(1)
    second.die()
    assert dropped(row) == {"observer_lost": 1}
    assert_balanced(row)


async def test_an_acknowledgement_that_comes_with_the_end_is_still_counted(path, row):
    """The observer leaves with messages of ours unread: the kernel reports a reset before what it had sent."""
    loop = asyncio.get_running_loop()
    observer = Observer(path)
    emitter = Emitter(path, row, loop)
    worker = await observer.accept()
    emitter.hand_over(record())
    assert len(await observer.read()) == 1
    worker.send((1).to_bytes(8, "little"))
    for _ in range(30):  # one message of 32 KiB at once, nobody reads it
        emitter.hand_over(record())
    observer.die()  # in the same turn of the loop: the emitter hears of both together
    await emitter.close(0)
    assert row[Cell.TAKEN] == 1
    assert sum(dropped(row).values()) == 30
    assert_balanced(row)


async def test_a_stuck_observer_blocks_nobody_and_the_newest_are_dropped(path, row, monkeypatch):
    monkeypatch.setattr(emitter_module, "QUEUE_BYTES_MAX", 200_000)
    loop = asyncio.get_running_loop()
    observer = Observer(path)
    emitter = Emitter(path, row, loop)
    await observer.accept()
    for number in range(3000):
        emitter.hand_over(record({names.SLUICEWAY_REQUEST_ID: str(number)}))
    lost = row[Cell.DROPPED_QUEUE_FULL]
    assert lost > 0
    assert row[Cell.QUEUED_BYTES] <= 200_000
    seen: list[Record] = []
    while len(seen) < 3000 - lost:  # it wakes up
        seen += await observer.read()
        await observer.acknowledge(len(seen))
    await emitter.close(20)
    observer.die()
    assert [int(one["fields"][names.SLUICEWAY_REQUEST_ID]) for one in seen] == list(range(3000 - lost))
    assert dropped(row) == {"queue_full": lost}
    assert_balanced(row)


async def test_no_more_than_a_window_is_sent_unacknowledged(path, row, monkeypatch):
    monkeypatch.setattr(emitter_module, "WINDOW_RECORDS", 2)
    loop = asyncio.get_running_loop()
    sinks = Sinks()
    sinks.withheld = []
    intake = Intake(path, loop, sinks)
    emitter = Emitter(path, row, loop)
    for number in range(4):
        emitter.hand_over(record())
        if number < 2:
            await sinks.until(number + 1)
    await asyncio.sleep(3 * emitter_module.BATCH_DELAY_S)  # time enough to send what must not be sent
    assert len(sinks.records) == 2
    assert emitter.unacknowledged == 2
    sinks.release()
    await sinks.until(4)
    await emitter.close(20)
    assert_balanced(row)
    intake.drain()
    intake.close()


async def test_a_record_that_is_too_big_is_counted_and_a_big_one_passes(path, row):
    loop = asyncio.get_running_loop()
    sinks = Sinks()
    intake = Intake(path, loop, sinks)
    emitter = Emitter(path, row, loop)
    emitter.hand_over(record({names.GEN_AI_INPUT_MESSAGES: "x" * emitter_module.RECORD_BYTES_MAX}))
    emitter.hand_over(record())
    big = record({names.GEN_AI_INPUT_MESSAGES: "x" * (emitter_module.RECORD_BYTES_MAX - 4096)})
    emitter.hand_over(big)
    emitter.hand_over(record())
    await emitter.close(20)
    assert sinks.records == [record(), big, record()]
    assert dropped(row) == {"oversize": 1}
    assert_balanced(row)
    intake.drain()
    intake.close()


async def test_what_json_cannot_say_is_said_as_well_as_it_can(path, row):
    loop = asyncio.get_running_loop()
    sinks = Sinks()
    intake = Intake(path, loop, sinks)
    emitter = Emitter(path, row, loop)
    odd = {"agent": "caf\udce9", "count": 1 << 70, "raw": b"\xff", "fine": [1.5, True, None, "ö"]}
    endless: dict = {}
    endless["again"] = endless
    emitter.hand_over(record(odd))
    emitter.hand_over(record(endless))
    await emitter.close(20)
    (got,) = sinks.records
    assert got["fields"]["agent"] == "caf?"
    assert got["fields"]["count"] == str(1 << 70)
    assert got["fields"]["raw"] == "b'\\xff'"
    assert got["fields"]["fine"] == [1.5, True, None, "ö"]
    assert dropped(row) == {"oversize": 1}
    assert_balanced(row)
    intake.drain()
    intake.close()


TEXTS = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape"))
"""As a header's bytes are read: most have lone surrogates, for bytes that are no UTF-8."""
SAID = ("method", "path", "protocol_version", "client_address", "user_agent", "client_request_id", "consumer")
SAID += ("service", "error_type", "error_origin", "error_message")
"""The fields of an Observation that somebody outside may have a hand in."""


@settings(deadline=None, max_examples=25)
@given(said=st.fixed_dictionaries(dict.fromkeys(SAID, TEXTS)), state=TEXTS, label=TEXTS, where=TEXTS)
def test_no_text_makes_a_record_vanish(said, state, label, where):
    async def story(folder: Path) -> list:
        row = memoryview(bytearray(CELLS * 8)).cast("Q")
        sinks = Sinks()
        intake = Intake(folder / "socket", asyncio.get_running_loop(), sinks)
        emitter = Emitter(folder / "socket", row, asyncio.get_running_loop())
        emitter.hand_over(pack(observation, observation.accepted_ns))
        await emitter.close(20)
        intake.drain()
        intake.close()
        assert dropped(row) == {}
        return sinks.records

    observation = Observation("0" * 32, TraceContext("a" * 32, "b" * 16, state, True), "c" * 16, "d" * 16)
    for name, text in said.items():
        setattr(observation, name, text)
    observation.route_fields = orjson.Fragment(b'{"http.route":"/v1/chat/completions"}')
    observation.labels = {label: label}
    observation.status, observation.outcome = 200, names.OUTCOME_OK
    observation.attempts = [Attempt(where, where, 1, "done")]
    observation.attempts[0].error = where
    with tempfile.TemporaryDirectory() as folder:
        [packed] = asyncio.run(story(Path(folder)))
    named = record_of(unpack(packed))
    assert named["fields"][names.HTTP_ROUTE] == "/v1/chat/completions"
    assert orjson.loads(LineEncoder().encode(named))[names.SLUICEWAY_REQUEST_ID] == "0" * 32
    assert len(SpanEncoder().encode(named)) == 2


async def test_closing_without_an_observer_counts_what_is_left(path, row):
    emitter = Emitter(path, row, asyncio.get_running_loop())
    for _ in range(5):
        emitter.hand_over(record())
    await emitter.close(0.05)
    emitter.hand_over(record())
    assert dropped(row) == {"shutdown": 6}
    assert_balanced(row)
    await emitter.close(1)


async def test_closing_waits_for_the_acknowledgement_but_not_for_ever(path, row):
    observer = Observer(path)
    emitter = Emitter(path, row, asyncio.get_running_loop())
    await observer.accept()
    emitter.hand_over(record())
    assert len(await observer.read()) == 1
    await emitter.close(0.05)
    observer.die()
    assert dropped(row) == {"shutdown": 1}
    assert_balanced(row)


async def test_the_observer_hears_how_much_waits(path, row, monkeypatch):
    loop = asyncio.get_running_loop()
    emitter = Emitter(path, row, loop)
    big = record({names.GEN_AI_INPUT_MESSAGES: "x" * 200_000})
    for _ in range(300):  # 60 MB, while nobody is there
        emitter.hand_over(big)
    sinks = Sinks()
    intake = Intake(path, loop, sinks)
    await emitter.close(30)
    assert sinks.loads == sorted(sinks.loads, reverse=True)  # the backlog shrinks, and the observer does more again
    assert set(sinks.loads) == set(Load)
    assert row[Cell.TAKEN] == 300
    intake.drain()
    intake.close()


@pytest.mark.parametrize("message", [b"nonsense", b"{}", b"[]", b'["a"]', b"[[]]", b"1", b"\xff"])
async def test_a_message_that_is_none_of_ours_ends_its_connection_only(path, row, message):
    loop = asyncio.get_running_loop()
    sinks = Sinks()
    intake = Intake(path, loop, sinks)
    emitter = Emitter(path, row, loop)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as stranger:
        stranger.connect(str(path))
        stranger.send(message)
        async with asyncio.timeout(20):
            try:
                assert await loop.sock_recv(stranger, 100) == b""
            except ConnectionResetError:
                pass
    assert intake.malformed == 1
    emitter.hand_over(record())
    await emitter.close(20)
    assert row[Cell.TAKEN] == 1
    intake.drain()
    intake.close()


FRAMES = [bytes(16) + b"Q" + b"asked", bytes(16) + b"A" + b"x" * 40_000]


async def test_content_comes_before_its_record_and_is_no_record(path, row):
    loop = asyncio.get_running_loop()
    observer = Observer(path)
    emitter = Emitter(path, row, loop)
    worker = await observer.accept()
    contents = Contents()
    emitter.hand_over(record(), FRAMES)
    messages = [await asyncio.wait_for(loop.sock_recv(worker, 1 << 20), 20) for _ in range(3)]
    taken = [contents.take(memoryview(message)) for message in messages]
    assert taken == [True, True, False]
    assert contents.claim("0" * 32) == {ord("Q"): b"asked", ord("A"): b"x" * 40_000}
    assert contents.claim("0" * 32) == {}
    assert len(orjson.loads(messages[2])) == 2
    await observer.acknowledge(1)
    await emitter.close(20)
    assert row[Cell.TAKEN] == 1
    assert_balanced(row)
    observer.die()


async def test_content_is_shed_first_and_no_record_is_lost_by_it(path, row, monkeypatch):
    monkeypatch.setattr(emitter_module, "CONTENT_QUEUE_BYTES_MAX", 100_000)
    loop = asyncio.get_running_loop()
    emitter = Emitter(path, row, loop)
    for number in range(50):  # while nobody is there
        emitter.hand_over(record({names.SLUICEWAY_REQUEST_ID: str(number)}), FRAMES)
    assert row[Cell.QUEUED_BYTES] < 300_000
    sinks = Sinks()
    intake = Intake(path, loop, sinks)
    await sinks.until(50)
    await emitter.close(20)
    assert [one["fields"][names.SLUICEWAY_REQUEST_ID] for one in sinks.records] == [str(number) for number in range(50)]
    assert sinks.content_bytes == 2 * 40_005
    assert_balanced(row)
    intake.drain()
    intake.close()


async def test_what_is_to_be_redacted_is_said_first_on_every_connection(path, row):
    loop = asyncio.get_running_loop()
    emitter = Emitter(path, row, loop)
    emitter.redact([])  # nobody needs to be told
    emitter.redact(["one"])
    emitter.redact(["one"])
    emitter.hand_over(record(), FRAMES[:1])
    for _ in range(2):
        observer = Observer(path)
        worker = await observer.accept()
        first = await asyncio.wait_for(loop.sock_recv(worker, 1 << 20), 20)
        assert first == b'R["one"]'
        observer.die()
    await emitter.close(0)


async def test_where_expressions_have_no_room_no_content_is_shown(path, row, monkeypatch):
    monkeypatch.setattr(emitter_module, "SEND_BUFFER_BYTES", 4096)
    emitter = Emitter(path, row, asyncio.get_running_loop())
    emitter.redact(["x" * 1000] * 60)
    emitter.hand_over(record(), FRAMES[:1])
    observer = Observer(path)
    worker = await observer.accept()
    contents = Contents()
    first = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(worker, 1 << 20), 20)
    assert contents.take(memoryview(first))
    assert contents.redaction is None
    observer.die()
    await emitter.close(0)


@pytest.mark.parametrize("message", [b"C\xff\xff\xff\xffabc", b"C\x05\x00\x00\x00abcde", b"Rnonsense", b"?"])
async def test_what_is_no_message_of_ours_ends_the_connection(path, message):
    loop = asyncio.get_running_loop()
    intake = Intake(path, loop, Sinks())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
        worker.setblocking(False)
        await loop.sock_connect(worker, str(path))
        await loop.sock_sendall(worker, message)
        assert await asyncio.wait_for(loop.sock_recv(worker, 100), 20) == b""
    assert intake.malformed == 1
    intake.drain()
    intake.close()


def test_content_whose_record_never_comes_makes_room_for_the_next(monkeypatch):
    monkeypatch.setattr(stash_module, "STASH_BYTES_MAX", 1000)
    contents = Contents()
    for number in range(10):
        frame = number.to_bytes(16, "big") + b"Q" + b"x" * 300
        contents.take(memoryview(b"C" + len(frame).to_bytes(4, "little") + frame))
    held = [bool(contents.claim(f"{number:032x}")) for number in range(10)]
    assert held == [False] * 7 + [True] * 3


def test_expressions_that_cannot_be_used_show_nothing():
    contents = Contents()
    assert contents.take(memoryview(b'R["(?=a)"]'))
    assert contents.redaction is None
    assert contents.take(memoryview(b'R["a"]'))
    assert contents.redaction is not None
