"""What observers shed."""

from prometheus_client import CollectorRegistry

from observability.counters import DropCounters


def test_drops_by_reason():
    registry = CollectorRegistry()
    drops = DropCounters(registry)
    drops.records("lines_blocked", 3)
    before = registry.get_sample_value("sluiceway_spans_dropped_total", {"reason": "rejected"})
    assert before == 0  # a rate needs a beginning
    drops.spans("queue_full", 2)
    assert registry.get_sample_value("sluiceway_records_dropped_total", {"reason": "lines_blocked"}) == 3
    assert registry.get_sample_value("sluiceway_spans_dropped_total", {"reason": "queue_full"}) == 2
