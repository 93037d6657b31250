"""The rooms of an observer behind one call: what is odd or too much costs only itself."""

import asyncio
import os
import threading

import orjson
import pytest
from prometheus_client import CollectorRegistry

from observability import names
from observability.counters import DropCounters
from observability.facts import Facts, pack
from observability.lines import LineWriter
from observability.observation import Attempt, Observation
from observability.observer import intake
from observability.observer.content.stash import Contents
from observability.observer.export import BATCH_BYTES_MAX, SpanExport
from observability.observer.intake import Load, load_of
from observability.observer.metrics import RecordMetrics
from observability.observer.otlp import Envelope
from observability.observer.sinks import RecordSinks
from observability.observer.spans import SpanEncoder
from observability.sampling import TraceContext
from tests.observability.records import record

DROPPED = "sluiceway_records_dropped_total"
CONTENT_DROPPED = "sluiceway_content_dropped_total"
SAID = '[{"role":"user","parts":[{"type":"text","content":"secret plan"}]}]'


class Collector:
    """A transport that keeps what it is given, and hangs if asked."""

    def __init__(self) -> None:
        self.answering = threading.Event()
        self.answering.set()
        self.asked = threading.Event()
        self.requests: list[bytes] = []

    def send(self, request: bytes, spans: int) -> bool:
        self.asked.set()
        self.answering.wait(20)
        self.requests.append(request)
        return True

    def shutdown(self) -> None:
        pass


class Observer:
    """Sinks over a pipe, and what they dropped."""

    def __init__(self, lines_bytes: int = 1 << 20, spans_bytes: int = 1 << 20) -> None:
        self.registry = CollectorRegistry()
        self.reader, writer = os.pipe()
        self.lines = LineWriter(writer, limit_bytes=lines_bytes)
        self.drops = DropCounters(self.registry)
        self.collector = Collector()
        envelope = Envelope({}, "sluiceway", "1")
        self.export = SpanExport(
            lambda: self.collector, envelope, self.drops.spans, senders=1, delay_s=0.0, queue_bytes=spans_bytes
        )
        spans = (SpanEncoder(), self.export)
        self.sinks = RecordSinks(RecordMetrics(CollectorRegistry()), self.lines, self.drops, spans)
        self.contents = Contents()

    async def take(self, batch: list[object], load: Load = Load.ALL) -> int:
        """Hand a batch over; the number that was settled."""
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[int] = loop.create_future()
        done = lambda count: loop.call_soon_threadsafe(settled.set_result, count)  # noqa: E731
        self.sinks.take(batch, load, done, self.contents)
        return await asyncio.wait_for(settled, 10)

    def written(self) -> list[str]:
        """The request ids of the lines."""
        data = os.read(self.reader, 1 << 16)
        return [orjson.loads(line)[names.SLUICEWAY_REQUEST_ID] for line in data.splitlines()]

    def dropped(self, reason: str, name: str = DROPPED) -> float | None:
        return self.registry.get_sample_value(name, {"reason": reason})

    def close(self) -> None:
        self.collector.answering.set()
        self.export.close(10)
        self.lines.close(5)
        os.close(self.reader)


@pytest.fixture
def observer():
    made = Observer()
    yield made
    made.close()


def packed(request_id: str, content: str | None = None) -> list[object]:
    observation = Observation(request_id, TraceContext("a" * 32, None, None, None), "c" * 16, "d" * 16)
    observation.outcome, observation.status = names.OUTCOME_OK, 200
    if content is not None:
        observation.route_fields = {names.GEN_AI_INPUT_MESSAGES: content}
        observation.attempts = [Attempt("qwen", "upstream.test", 443, "done")]
    made: list[object] = orjson.loads(orjson.dumps(pack(observation, observation.accepted_ns + 1)))
    return made


async def test_a_malformed_record_costs_only_itself(observer):
    assert await observer.take([packed("1"), ["?"], {"fields": {}}, packed("2")]) == 4
    assert observer.written() == ["1", "2"]
    assert observer.dropped("malformed") == 2


async def test_behind_records_are_settled_without_lines_and_counted(observer):
    assert await observer.take([packed("1"), packed("2")], Load.METRICS_ONLY) == 2
    assert observer.dropped("behind") == 2
    assert await observer.take([packed("3")], Load.NO_SPANS) == 1
    assert observer.written() == ["3"]


async def test_a_batch_of_nothing_that_can_be_read_is_settled(observer):
    assert await observer.take([None, 5]) == 2
    assert observer.dropped("malformed") == 2


@pytest.mark.parametrize(
    ("load", "line", "content_in_line", "spans"),
    [
        (Load.ALL, True, True, 2),
        (Load.NO_CONTENT, True, False, 2),
        (Load.NO_SPANS, True, False, 0),
        (Load.METRICS_ONLY, False, False, 0),
    ],
)
async def test_content_is_shed_first_then_spans_at_last_the_line(observer, load, line, content_in_line, spans):
    assert await observer.take([packed("1", SAID)], load) == 1
    observer.export.close(10)
    if line:
        data = os.read(observer.reader, 1 << 16)
        assert (b"secret plan" in data) == content_in_line
    sent = b"".join(observer.collector.requests)
    assert sent.count(names.SLUICEWAY_REQUEST_ID.encode()) == (1 if spans else 0)
    assert (b"secret plan" in sent) == (load is Load.ALL)
    assert observer.dropped("behind", CONTENT_DROPPED) == (None if load is Load.ALL else 1)
    assert observer.dropped("behind", "sluiceway_spans_dropped_total") == (0 if spans else 2)
    assert observer.dropped("behind") == (0 if line else 1)


def test_what_waits_in_a_worker_decides():
    steps = [0, intake.CONTENT_SHED_BYTES, intake.SPANS_SHED_BYTES, intake.LINES_SHED_BYTES]
    assert [load_of(step) for step in steps] == list(Load)
    assert [load_of(step - 1) for step in steps[1:]] == list(Load)[:-1]


async def test_a_slow_collector_costs_content_before_spans():
    observer = Observer(spans_bytes=20_000)
    observer.collector.answering.clear()
    try:
        await observer.take([packed("0", SAID)])
        assert await asyncio.to_thread(observer.collector.asked.wait, 20)  # what comes now waits
        number = 0
        while not observer.dropped("queue_full", "sluiceway_spans_dropped_total"):
            number += 1
            await observer.take([packed(str(number), "secret plan" * 50)])
        assert observer.dropped("spans_crowded", CONTENT_DROPPED)
        assert observer.export.crowded
        assert len(os.read(observer.reader, 1 << 20).split(b"secret plan")) > 50 * number, "the lines have it all"
        observer.collector.answering.set()
        observer.export.close(20)
        with_content = [b"secret plan" in request for request in observer.collector.requests]
        assert with_content[0] or with_content[1]
    finally:
        observer.close()


async def test_a_stuck_reader_costs_content_before_lines():
    observer = Observer(lines_bytes=300_000)
    try:
        written = 0
        while not observer.dropped("lines_blocked"):
            written += 1
            observer.sinks.take(
                [packed(str(written), "secret plan" * 500)], Load.ALL, lambda _: None, observer.contents
            )
        crowded = observer.dropped("lines_crowded", CONTENT_DROPPED)
        assert crowded
        assert crowded > observer.dropped("lines_blocked")
        reading = asyncio.to_thread(_read_lines, observer.reader, written - 1)
        lines = await reading
        with_content = [b"secret plan" in line for line in lines]
        assert with_content == sorted(with_content, reverse=True), "from where it was crowded on, none has content"
        assert 0 < with_content.count(True) < with_content.count(False)
    finally:
        observer.close()


def _read_lines(fd: int, count: int) -> list[bytes]:
    data = b""
    while data.count(b"\n") < count:
        data += os.read(fd, 1 << 16)
    return data.splitlines()


async def test_no_export_message_is_over_4_mib(observer):
    observer.collector.answering.clear()
    await observer.take([packed("0")])
    assert await asyncio.to_thread(observer.collector.asked.wait, 20)
    # what waits meanwhile would fill several messages
    encoder = SpanEncoder()
    entry = encoder.encode(record({names.GEN_AI_INPUT_MESSAGES: "x" * 250_000}))
    export = SpanExport(lambda: observer.collector, Envelope({}, "s", "1"), observer.drops.spans, senders=1, delay_s=9)
    for _ in range(40):
        export.offer(b"".join(entry), len(entry))
    observer.collector.answering.set()
    export.close(20)
    sizes = [len(request) for request in observer.collector.requests]
    assert sum(sizes) > 40 * 250_000
    assert BATCH_BYTES_MAX - 600_000 < max(sizes) < 4 << 20


async def test_content_that_no_collector_would_take_in_one_message_stays_out_of_the_spans(observer):
    """`compat: [openinference]` has it twice, and either side may have a MiB."""
    said = [{"role": "user", "parts": [{"type": "text", "content": "secret plan" * 200_000}]}]
    made = packed("1", orjson.dumps(said).decode())
    made[Facts._fields.index("compat")] = ["openinference"]
    made[Facts._fields.index("sampled")] = made[Facts._fields.index("tracing")] = True
    assert await observer.take([made]) == 1
    observer.export.close(10)
    (request,) = observer.collector.requests
    assert request.count(names.SLUICEWAY_REQUEST_ID.encode()) == 1
    assert b"secret plan" not in request
    assert observer.dropped("spans_oversize", CONTENT_DROPPED) == 1


async def test_spans_that_cannot_be_made_are_counted_each(observer):
    made = packed("1", SAID)
    made[Facts._fields.index("trace_id")] = "no hex"
    assert await observer.take([made]) == 1
    assert observer.dropped("malformed", "sluiceway_spans_dropped_total") == 2
    assert observer.written() == ["1"]
