"""The Grafana dashboard asks for what /metrics has, and for all of it."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from observability import names
from tests.e2e.traffic import ask, chat_body, document_of
from tests.fakes.gateway import WAIT_S, Gateway
from tests.fakes.otlp_sink import OtlpSink
from tests.fakes.simulated import Simulated
from tests.test_docs import METRICS

DASHBOARD = json.loads((Path(__file__).parent.parent / "docs/grafana/sluiceway.json").read_bytes())
LEFT_OUT: Final = {
    name: "sluiceway_tokens_total has the same under either names"
    for name in METRICS
    if name.startswith("gen_ai.client.inference.usage.")
}
"""Metrics of the documents that no panel shows, and why."""
OF_PROMETHEUS: Final = {"instance"}
"""Labels that come with scraping."""
VARIABLES: Final = {"model_api", "service", "consumer", "datasource"}
FUNCTIONS: Final = {"sum", "max", "topk", "rate", "increase", "histogram_quantile", "vector", "or", "label_values"}
SUFFIXES: Final = ("_total", "_bucket", "_sum", "_count", "")

_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"([a-z_]+)\{([^}]*)\}")
_GROUPED = re.compile(r"\b(by|on|group_left)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_WORD = re.compile(r"[a-z_][a-z0-9_]*")


class Query(NamedTuple):
    """An expression taken apart."""

    metrics: set[str]
    matched: set[tuple[str, str]]
    """Metric and label in its braces."""
    grouped: set[str]
    """Labels behind by, on and group_left."""
    by: set[str]


def parsed(expression: str) -> Query:
    """What a PromQL expression of the dashboard asks for."""
    text = _RANGE.sub("", _TEXT.sub("", expression))
    matched = {(metric, label) for metric, labels in _SELECTOR.findall(text) for label in _WORD.findall(labels)}
    text = re.sub(r"\{[^}]*\}", "", text)
    if label_values := re.fullmatch(r"label_values\((\w+), (\w+)\)", text):
        return Query({label_values[1]}, matched | {(label_values[1], label_values[2])}, set(), set())
    lists = [(word, set(_WORD.findall(labels))) for word, labels in _GROUPED.findall(text)]
    text = _GROUPED.sub("", text)
    return Query(
        set(_WORD.findall(text)) - FUNCTIONS,
        matched,
        {label for _, labels in lists for label in labels},
        {label for word, labels in lists if word == "by" for label in labels},
    )


PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS: Final = [target for panel in PANELS for target in panel["targets"]]
QUERIES: Final = [
    parsed(text)
    for text in (
        *(target["expr"] for target in TARGETS),
        *(variable["definition"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"),
    )
]


def labels_of(samples: dict[str, float]) -> dict[str, set[str]]:
    """Of each sample's name the labels that it has somewhere."""
    found: dict[str, set[str]] = {}
    for sample in samples:
        name, _, labels = sample.partition("{")
        found.setdefault(name, set()).update(re.findall(r'(?:^|,)([a-z_]+)="', labels))
    return found


async def metrics_of(folder: Path, upstream: str, collector: str, **environ: str) -> dict[str, float]:
    """What a gateway shows after all kinds of traffic, whose collector takes nothing."""
    folder.mkdir()
    prices = folder / "prices.yaml"
    prices.write_text("models: [{match: '*', input: 1, output: 1}]")
    document: dict[str, Any] = document_of(upstream, prices=str(prices))
    recorded = {"record_request": True, "record_response": True}
    document["model_apis"][0]["monitoring"] = recorded
    images = {"name": "images", "scenario": "image", "protocols": ["openai"], "base_path": "/image"}
    document["model_apis"].append({**images, "routing": {"single": {"service": "sim"}}})
    environ |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "EVENT_ONLY",
    }
    async with Gateway.serving(document, folder, environ=environ) as gateway:
        usage = {"x-sim-cached-tokens": "1", "x-sim-reasoning-tokens": "1"}
        assert (await ask(gateway.port, "stream", chat_body(stream=True), **usage)).status == 200
        assert (await ask(gateway.port, "error", **{"x-sim-status": "500"})).status == 500
        picture = b'{"model": "qwen-image", "prompt": "a lock in the fog"}'
        assert (await ask(gateway.port, "image", picture, "/image/v1/images/generations")).status == 200
        await gateway.records(3)
        async with asyncio.timeout(WAIT_S):
            while True:  # until what the collector refused is counted
                samples = await gateway.metrics()
                there = labels_of(samples)
                if {"sluiceway_spans_dropped_total", "sluiceway_content_dropped_total"} <= there.keys():
                    return samples


async def test_every_metric_and_label_is_there(tmp_path: Path) -> None:
    with OtlpSink() as sink:
        sink.status = 400
        async with Simulated.running() as upstream:
            latest = {"OTEL_SEMCONV_STABILITY_OPT_IN": names.LATEST_OPT_IN}
            both = await asyncio.gather(
                metrics_of(tmp_path / "usual", upstream.url, sink.endpoint),
                metrics_of(tmp_path / "latest", upstream.url, sink.endpoint, **latest),
            )
    there = labels_of({**both[0], **both[1]})
    for query in QUERIES:
        assert query.metrics
        assert query.metrics <= there.keys()
        assert not {(metric, label) for metric, label in query.matched if label not in there[metric]}
        assert query.grouped <= set.union(OF_PROMETHEUS, *(there[metric] for metric in query.metrics))


def test_every_metric_of_the_documents_is_shown_or_left_out_for_a_reason() -> None:
    asked = {metric for query in QUERIES for metric in query.metrics}
    missing = []
    for name in METRICS:
        spelled = names.prometheus_name(name)
        of_name = {f"{spelled}{unit}{suffix}" for unit in ("", "_seconds", "_bytes") for suffix in SUFFIXES}
        if of_name.isdisjoint(asked) != (name in LEFT_OUT):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["expr"][:60])
def test_legends_and_variables_are_known(target: dict[str, Any]) -> None:
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= parsed(target["expr"]).by
    assert set(re.findall(r"\$(\w+)", target["expr"])) <= VARIABLES | {"__rate_interval", "__range"}


def test_panels_stand_beside_one_another_and_ask_the_chosen_source() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert taken.isdisjoint(cells)
        taken |= cells
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == VARIABLES


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (
            'sum by (a) (rate(m_total{b=~"$c", d!="or"}[5m])) or vector(0)',
            Query({"m_total"}, {("m_total", "b"), ("m_total", "d")}, {"a"}, {"a"}),
        ),
        ("rate(m[$__range]) * on (a, i) group_left (c) n", Query({"m", "n"}, set(), {"a", "i", "c"}, set())),
        ("histogram_quantile(0.95, sum by (le) (m_bucket))", Query({"m_bucket"}, set(), {"le"}, {"le"})),
        ('label_values(m{a=~"$b"}, c)', Query({"m"}, {("m", "a"), ("m", "c")}, set(), set())),
    ],
)
def test_expressions_are_taken_apart(expression: str, expected: Query) -> None:
    assert parsed(expression) == expected
