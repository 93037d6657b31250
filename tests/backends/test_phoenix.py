"""Phoenix for real: spans have the right kinds, parents, tokens, models and messages, by every road that it takes.

One request of each kind by each road: as the conventions have it, with `compat: [openinference]`, and over gRPC.
"""

import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.backends.phoenix import Phoenix, Span
from tests.backends.traffic import CALLS, IMAGE, SYSTEM, document, send_all
from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

ROADS = {
    "conventions": ("http/protobuf", []),
    "openinference": ("http/protobuf", ["openinference"]),
    "grpc": ("grpc", []),
}
"""Name, and project in Phoenix → protocol, `tracing.compat`."""
SPANS = 2 * len(CALLS) + 1
"""The refused request has one, that with a fallback four."""
ASKED = {
    "chat": [("system", SYSTEM), ("user", "Which anchor suits a boat of nine metres?")],
    "streamed_chat": [("user", "How do I wash a sail without harming it?")],
    "anthropic_chat": [("system", SYSTEM), ("user", "When is the shop open on Saturdays?")],
    "tools": [("user", "Do you have cleats?"), ("assistant", '{"article": "cleat"}'), ("tool", '{"pieces": 12}')],
    "translated_image": [("user", "a lock in the fog")],
    "native_image": [("user", "a schooner under full sail")],
    "error": [("user", "Tell me about the competitors.")],
    "fallback": [("user", "Is the crane free on Monday?")],
}
WINCH = "What is broken on this winch?"
CHATS = ("chat", "streamed_chat", "anthropic_chat", "tools", "fallback")
IMAGES = ("translated_image", "native_image")
ANY_BASE64 = re.compile(r"[\w+/]{100}")
"""A sha256 has 64."""


@dataclass(frozen=True)
class Road:
    """What came of the traffic by one road."""

    name: str
    spans: dict[str, list[Span]]
    """Of each request, as they began."""
    ledger: dict[str, dict[str, Any]]
    """What the upstream counted."""
    events: list[dict[str, Any]]
    """The gateway's own lines."""
    complaints: list[Any]

    def model_span(self, request: str) -> Span:
        """That of the GenAI operation."""
        root, *others = self.spans[request]
        (found,) = (span for span in others if span.parent_id == root.span_id)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phoenix(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Phoenix]:
    async with Phoenix.running(tmp_path_factory.mktemp("phoenix")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ROADS)
async def road(request: pytest.FixtureRequest, phoenix: Phoenix, tmp_path_factory: pytest.TempPathFactory) -> Road:
    name: str = request.param
    protocol, compat = ROADS[name]
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": phoenix.grpc_url if protocol == "grpc" else phoenix.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_RESOURCE_ATTRIBUTES": f"openinference.project.name={name}",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",  # which Phoenix does not take
    }
    async with Simulated.running() as upstream:
        settings = document(upstream.url, tracing={"compat": compat})
        async with Gateway.serving(settings, tmp_path_factory.mktemp(name), environ=environ) as gateway:
            await send_all(gateway.url)
            lines = {
                line["trace_id"]: line["sluiceway.client_request_id"] for line in await gateway.records(len(CALLS))
            }
            ledger = {entry["id"]: entry for entry in await upstream.ledger()}  # the last attempt's
            spans = await phoenix.spans(name, at_least=SPANS)
            await gateway.lines.wait("metrics_not_taken")
    found: dict[str, list[Span]] = {request: [] for request in CALLS}
    for span in spans:
        found[lines[span.trace_id]].append(span)
    return Road(name, found, ledger, gateway.lines.all, gateway.complaints())


async def test_each_request_is_one_tree(road: Road) -> None:
    counts = {request: len(spans) for request, spans in road.spans.items()}
    assert counts == {request: {"refused": 1, "fallback": 4}.get(request, 2) for request in CALLS}
    for spans in road.spans.values():
        assert [span.parent_id for span in spans].count(None) == 1
        assert spans[0].parent_id is None
        assert {span.parent_id for span in spans[1:]} <= {span.span_id for span in spans}


async def test_kinds(road: Road) -> None:
    kinds = {request: road.model_span(request).kind for request in CALLS if request != "refused"}
    assert kinds == {request: "EMBEDDING" if request == "embeddings" else "LLM" for request in kinds}
    others = {
        span.kind for request, spans in road.spans.items() for span in spans if span.span_id != span_id(road, request)
    }
    assert others == {"CHAIN" if road.name == "openinference" else "UNKNOWN"}


def span_id(road: Road, request: str) -> str:
    return "" if request == "refused" else road.model_span(request).span_id


async def test_tokens_are_those_that_the_upstream_counted(road: Road) -> None:
    for request in (*CHATS, "vision"):
        counted = road.ledger[request]
        assert road.model_span(request).tokens == (counted["input_tokens"], counted["output_tokens"]), request
        assert counted["input_tokens"] > 0
    embedding = road.model_span("embeddings").attributes  # Phoenix adds up those of LLM spans alone
    assert embedding["llm.token_count.prompt"] == road.ledger["embeddings"]["input_tokens"] > 0
    details = road.model_span("chat").attributes
    assert details["llm.token_count.prompt_details.cache_read"] == 3
    assert details.get("llm.token_count.completion_details.reasoning") == (7 if road.name == "openinference" else None)


async def test_models(road: Road) -> None:
    models = {request: road.model_span(request).attributes.get("llm.model_name") for request in ASKED}
    assert models == dict.fromkeys(ASKED, "qwen-plus") | {
        "streamed_chat": "qwen-max",
        **dict.fromkeys(IMAGES, "qwen-image"),
    }
    assert road.model_span("vision").attributes["llm.model_name"] == "qwen-vl-plus"
    assert road.model_span("embeddings").attributes["embedding.model_name"] == "text-embedding-v4"
    assert road.model_span("chat").attributes["llm.system"] == "dashscope"


async def test_messages(road: Road) -> None:
    assert {request: road.model_span(request).messages("input") for request in ASKED} == ASKED
    for request in CHATS:
        asked = next(text for role, text in reversed(ASKED[request]) if role == "user")
        assert road.model_span(request).messages("output") == [("assistant", f"You said: {asked}")]
    for request in IMAGES:
        ((role, url),) = road.model_span(request).messages("output")
        assert (role, url.startswith("http://127.0.0.1:"), url.endswith(".png")) == ("assistant", True, True)


async def test_an_image_is_shown_by_its_facts(road: Road) -> None:
    vision = road.model_span("vision")
    (recorded,) = json.loads(vision.attributes["gen_ai.input.messages"])
    assert [part["type"] for part in recorded["parts"]] == ["blob", "text"]
    assert (recorded["parts"][0]["bytes"], recorded["parts"][0]["width"]) == (len(IMAGE), 640)
    ((role, shown),) = vision.messages("input")
    assert role == "user"
    if road.name == "openinference":
        facts = f"[image/png, 640x480, {len(IMAGE):,} bytes, sha256 {recorded['parts'][0]['sha256'][:12]}]"
        assert shown == f"{facts}\n{WINCH}"
    else:  # an image that cannot be opened
        assert shown == f"data:image/png;base64,\n{WINCH}"


async def test_no_base64_is_in_any_attribute(road: Road) -> None:
    stored = json.dumps([span.attributes for spans in road.spans.values() for span in spans])
    assert base64.b64encode(IMAGE)[:40].decode() not in stored
    assert not ANY_BASE64.search(stored)


async def test_lists_show_what_was_asked_and_answered(road: Road) -> None:
    root = {request: spans[0].shown for request, spans in road.spans.items()}
    if road.name != "openinference":
        assert {(shown["input"], shown["output"]) for shown in root.values()} == {(None, None)}
        return
    chat = ASKED["chat"][1][1]
    shown = (root["chat"], road.model_span("chat").shown)
    assert [(one["input"]["value"], one["output"]["value"]) for one in shown] == [(chat, f"You said: {chat}")] * 2
    assert root["vision"]["input"]["value"].startswith(WINCH)
    assert root["embeddings"]["input"]["value"] == "mooring lines\nfenders"
    embedded = road.model_span("embeddings").attributes
    assert [embedded[f"embedding.embeddings.{number}.embedding.text"] for number in range(2)] == [
        "mooring lines",
        "fenders",
    ]


async def test_an_error(road: Road) -> None:
    root, failed = road.spans["error"]
    assert (root.status, failed.status) == ("UNSET", "ERROR")  # a 400 is no fault of ours
    assert failed.attributes["error.type"] == "data_inspection_failed"
    assert failed.attributes["http.response.status_code"] == 400
    assert json.loads(failed.attributes["sluiceway.error.body"])["error"]["code"] == "data_inspection_failed"
    if road.name == "openinference":
        assert "data_inspection_failed" in failed.shown["output"]["value"]
    (refused,) = road.spans["refused"]
    assert (refused.status, refused.attributes["error.type"]) == ("UNSET", "unauthenticated")


async def test_a_fallback(road: Road) -> None:
    operation = road.model_span("fallback")
    assert (operation.status, operation.attributes["sluiceway.service"]) == ("UNSET", "qwen")
    attempts = [span for span in road.spans["fallback"] if span.parent_id == operation.span_id]
    told = [
        (span.attributes["sluiceway.service"], span.status, span.attributes["sluiceway.verdict"]) for span in attempts
    ]
    assert told == [("first", "ERROR", "next_target"), ("qwen", "UNSET", "done")]
    assert attempts[0].attributes["error.type"] == "503"
    assert attempts[1].attributes["http.request.resend_count"] == 1


async def test_that_it_takes_no_metrics_is_said_once(road: Road) -> None:
    assert [event["level"] for event in road.events if event["event"].startswith("metrics_")] == ["warning"]
    assert road.complaints == []
