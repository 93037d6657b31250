"""Counters kept by a process itself."""

from prometheus_client import CollectorRegistry

from observability import counters
from observability.counters import DropCounters, RequestCounter


def test_requests_by_what_they_were():
    registry = CollectorRegistry()
    counter = RequestCounter(registry)
    for status in (200, 200, 502):
        counter.count("chat", "search-team", "qwen", "ok" if status == 200 else "upstream_error", status)
    counter.count("", "", "", "rejected", 404)
    value = registry.get_sample_value
    labels = {"model_api": "chat", "consumer": "search-team", "service": "qwen", "outcome": "ok", "status": "200"}
    assert value("sluiceway_requests_total", labels) == 2
    assert value("sluiceway_requests_total", labels | {"outcome": "upstream_error", "status": "502"}) == 1
    nothing = dict.fromkeys(("model_api", "consumer", "service"), "")
    assert value("sluiceway_requests_total", nothing | {"outcome": "rejected", "status": "404"}) == 1


def test_series_are_bounded_and_the_sum_stays_exact(monkeypatch):
    monkeypatch.setattr(counters, "SERIES_MAX", 3)
    registry = CollectorRegistry()
    counter = RequestCounter(registry)
    for status in range(200, 210):
        counter.count("chat", "a", "b", "ok", status)
    samples = [one for family in registry.collect() for one in family.samples if one.name.endswith("_total")]
    assert sum(one.value for one in samples) == 10
    assert len(samples) == 4
    (other,) = [one for one in samples if one.labels["status"] == "other"]
    assert (other.value, other.labels["outcome"]) == (7, "ok")


def test_drops_by_reason():
    registry = CollectorRegistry()
    drops = DropCounters(registry)
    drops.records("lines_blocked", 3)
    drops.spans("queue_full", 2)
    assert registry.get_sample_value("sluiceway_records_dropped_total", {"reason": "lines_blocked"}) == 3
    assert registry.get_sample_value("sluiceway_spans_dropped_total", {"reason": "queue_full"}) == 2
