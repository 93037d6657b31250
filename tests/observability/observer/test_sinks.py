"""The rooms of an observer behind one call: what is odd or too much costs only itself."""

import asyncio
import os

import orjson
import pytest
from prometheus_client import CollectorRegistry

from observability import names
from observability.counters import DropCounters
from observability.facts import pack
from observability.lines import LineWriter
from observability.observation import Observation
from observability.observer.content.stash import Contents
from observability.observer.intake import Load
from observability.observer.metrics import RecordMetrics
from observability.observer.sinks import RecordSinks
from observability.sampling import TraceContext

DROPPED = "sluiceway_records_dropped_total"


class Observer:
    """Sinks over a pipe, and what they dropped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reader, writer = os.pipe()
        self.lines = LineWriter(writer)
        drops = DropCounters(self.registry)
        self.contents = Contents()
        self.sinks = RecordSinks(RecordMetrics(CollectorRegistry()), self.lines, drops, None)

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

    def dropped(self, reason: str) -> float | None:
        return self.registry.get_sample_value(DROPPED, {"reason": reason})


@pytest.fixture
def observer():
    made = Observer()
    yield made
    made.lines.close(5)
    os.close(made.reader)


def packed(request_id: str) -> list[object]:
    observation = Observation(request_id, TraceContext("a" * 32, None, None, None), "c" * 16, "d" * 16)
    observation.outcome, observation.status = names.OUTCOME_OK, 200
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
