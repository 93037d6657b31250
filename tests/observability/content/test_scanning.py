"""Answers that are recorded: nothing is found that would not be found otherwise, and streams are put together."""

import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from observability.content.capture import Plan, Recording, refused, without
from observability.content.keepers import BRIEF_BYTES_MAX, RECORDED, JsonKeeper, limits_of
from observability.content.scanning import recorded_scanner
from observability.observer.content.load import load
from observability.observer.content.messages import answered
from observability.redaction import Redaction
from tests.observability.chunks import byte_by_byte, cut, places
from tests.observability.coded import encoded
from tests.observability.scanners.responses import JSON, SSE, Case, events, typed_events
from tests.observability.scanners.test_responses import BY_NAME, CASES, SMALL, found, scan

REQUEST_ID = "ab" * 16
PLAN = Plan(request=True, response=True, max_bytes=65536, sample=1.0)


def record(
    case: Case, pieces: list[bytes], coding: str = "", plan: Plan = PLAN
) -> tuple[dict[str, Any], list[Any], bytes]:
    recording = Recording(plan, REQUEST_ID)
    scanner = recorded_scanner(recording, case.protocol, case.operation, case.content_type, case.status, coding)
    for piece in pieces:
        scanner.feed(piece)
    scanner.end()
    said, frames = recording.close()
    assert all(frame.startswith(bytes.fromhex(REQUEST_ID) + b"A") for frame in frames)
    side: Any = said[2]
    return found(scanner.findings), side, b"".join(frame[17:] for frame in frames)


@pytest.mark.parametrize("case", BY_NAME)
def test_what_is_found_is_the_same(case):
    facts, side, data = record(case, [case.body])
    assert facts == scan(case, [case.body])
    assert side[2] == len(data)
    again, *rest = record(
        case, byte_by_byte(case.body) if len(case.body) < 5000 else cut(case.body, [70, 65_000, 66_000])
    )
    assert again == facts
    assert rest == [side, data]
    assert RECORDED.held_bytes == 0


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(case=st.sampled_from(SMALL), where=places, coding=st.sampled_from(["", "gzip"]))
def test_any_pieces_give_the_same_content(case, where, coding):
    body = encoded(case.body, coding) if coding else case.body
    _, side, data = record(case, cut(body, where), coding)
    _, whole_side, whole = record(case, [case.body])
    assert (side, data) == (whole_side, whole)


@pytest.mark.parametrize("case", BY_NAME)
def test_an_observer_can_read_all_of_it(case):
    _, (kind, is_cut, _), data = record(case, [case.body])
    if data:
        answered(load(data, REQUEST_ID, Redaction(), is_json=kind == "J", cut=is_cut), whole=True)


def messages(protocol: str, operation: str, body: bytes, plan: Plan = PLAN) -> list[Any]:
    _, (kind, is_cut, _), data = record(Case("", protocol, operation, body, content_type=SSE), [body], plan=plan)
    tree = load(data, REQUEST_ID, Redaction(), is_json=kind == "J", cut=is_cut)
    return json.loads(orjson.dumps(answered(tree, whole=True)))


def text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}


def test_anthropic():
    def delta(index: int, **said: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": said}

    def block(index: int, **begun: Any) -> dict[str, Any]:
        return {"type": "content_block_start", "index": index, "content_block": begun}

    body = typed_events(
        {"type": "message_start", "message": {"role": "assistant", "content": []}},
        block(0, type="thinking", thinking=""),
        delta(0, thinking="h"),
        delta(0, thinking="m"),
        delta(0, signature="xyz"),
        block(1, type="text", text=""),
        delta(1, text="ah"),
        delta(1, text="oy"),
        block(2, type="tool_use", id="t1", name="look", input={}),
        delta(2, partial_json='{"a"'),
        delta(2, partial_json=": 1}"),
        block(3, type="tool_use", id="t2", name="nothing", input={}),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    )
    assert messages("anthropic", "messages", body) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                text("ahoy"),
                {"type": "tool_call", "id": "t1", "name": "look", "arguments": '{"a": 1}'},
                {"type": "tool_call", "id": "t2", "name": "nothing", "arguments": {}},
            ],
            "finish_reason": "tool_use",
        }
    ]


RESPONSES = [
    {"type": "response.created", "response": {"output": [], "status": "in_progress"}},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "summary": []}},
    {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "hm"},
    {"type": "response.output_item.added", "output_index": 1, "item": {"type": "message", "role": "assistant"}},
    {"type": "response.output_text.delta", "output_index": 1, "delta": "ah"},
    {"type": "response.output_text.delta", "output_index": 1, "delta": "oy"},
    {
        "type": "response.output_item.added",
        "output_index": 2,
        "item": {"type": "function_call", "call_id": "c", "name": "f"},
    },
    {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{}"},
]


@pytest.mark.parametrize("whole", [True, False])
def test_openai_responses(whole):
    last = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ahoy"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    done = [{"type": "response.completed", "response": {"status": "completed", "output": last}}] if whole else []
    (message,) = messages("openai", "responses", typed_events(*RESPONSES, *done))
    assert message["parts"] == [
        {"type": "reasoning", "content": "hm"},
        text("ahoy"),
        {"type": "tool_call", "id": "c", "name": "f", "arguments": "{}"},
    ]


def packet(content: Any, reason: str = "null", **more: Any) -> dict[str, Any]:
    return {
        "output": {"choices": [{"message": {"role": "assistant", "content": content, **more}, "finish_reason": reason}]}
    }


@pytest.mark.parametrize(
    "packets",
    [
        [packet("a"), packet("ho"), packet("y"), packet("", "stop")],
        [packet("a"), packet("aho"), packet("ahoy"), packet("ahoy", "stop")],
        [packet([{"text": "ah"}]), packet([{"text": "oy"}], "stop")],
        [packet([{"text": "ah"}]), packet([{"text": "ahoy"}], "stop")],
        [{"output": {"text": "ah", "finish_reason": "null"}}, {"output": {"text": "ahoy", "finish_reason": "stop"}}],
        [packet("ahoy", "stop")],
    ],
    ids=["deltas", "whole so far", "parts", "parts so far", "text", "one"],
)
def test_dashscope(packets):
    (message,) = messages("dashscope", "multimodal-generation", events(*packets))
    assert message == {"role": "assistant", "parts": [text("ahoy")], "finish_reason": "stop"}


def test_dashscope_repeats_itself_in_deltas():
    (message,) = messages("dashscope", "text-generation", events(packet("ha"), packet("ha"), packet("!", "stop")))
    assert message["parts"] == [text("haha!")]


def test_dashscope_reasons_and_calls():
    first = packet("", reasoning_content="h", tool_calls=[{"id": "t", "function": {"name": "f", "arguments": "{"}}])
    second = packet("", "tool_calls", reasoning_content="m", tool_calls=[{"id": "", "function": {"arguments": "}"}}])
    (message,) = messages("dashscope", "text-generation", events(first, second))
    assert message["parts"] == [
        {"type": "reasoning", "content": "hm"},
        {"type": "tool_call", "id": "t", "name": "f", "arguments": "{}"},
    ]


def test_an_error_in_a_stream_does_not_cost_what_was_said():
    body = events({"choices": [{"index": 0, "delta": {"content": "aho"}}]}, {"error": {"code": "boom"}})
    _, _, data = record(Case("", "openai", "chat.completions", body, content_type=SSE), [body])
    document = json.loads(data)
    assert document["choices"][0]["message"]["content"] == "aho"
    assert document["error"] == {"code": "boom"}


def test_a_long_stream_is_bounded():
    body = events(*({"choices": [{"index": 0, "delta": {"content": "word " * 200}}]} for _ in range(300)))
    case = Case("", "openai", "chat.completions", body, content_type=SSE)
    _, _, data = record(case, [body], plan=PLAN._replace(max_bytes=1000))
    assert len(data) < 6000
    tree = load(data, REQUEST_ID, Redaction(), is_json=True, cut=False)
    content = tree["choices"][0]["message"]["content"]
    assert len(content) + content.missing == 300_000


def call(choice: int, tool: int, size: int) -> dict[str, Any]:
    function = {"name": "n" * size, "arguments": "a"}
    return {
        "choices": [
            {"index": choice, "delta": {"tool_calls": [{"index": tool, "id": "i" * size, "function": function}]}}
        ]
    }


HOSTILE = {
    "names": ("openai", "chat.completions", (call(number % 128, number // 128, 5000) for number in range(600))),
    "calls": ("openai", "chat.completions", (call(number % 128, number // 128, 1) for number in range(4000))),
    "letters": (
        "openai",
        "chat.completions",
        (
            {"choices": [{"index": number % 128, "delta": {"content": chr(0x4E00 + number)}}]}
            for number in range(20_000)
        ),
    ),
    "kinds": (
        "openai",
        "responses",
        ({"type": "x" * 5000 + f"{number}.delta", "delta": "a"} for number in range(600)),
    ),
    "DashScope's names": (
        "dashscope",
        "text-generation",
        (packet("", tool_calls=call(0, number, 5000)["choices"][0]["delta"]["tool_calls"]) for number in range(600)),
    ),
}


@pytest.mark.parametrize(("protocol", "operation", "stream"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_held_of_a_stream_is_counted(protocol, operation, stream):
    recording = Recording(PLAN._replace(max_bytes=1000), REQUEST_ID)
    scanner = recorded_scanner(recording, protocol, operation, SSE, 200)
    body = events(*stream)
    tracemalloc.start()
    for at in range(0, len(body), 65536):
        scanner.feed(body[at : at + 65536])
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < RECORDED.held_bytes < 48_000  # twice 1000 and 32 KiB, and an event
    assert held_bytes < 10 * RECORDED.held_bytes
    scanner.end()
    said, frames = recording.close()
    assert sum(map(len, frames)) < 200_000
    assert recording.request is None
    side: Any = said[2]
    assert side[1]  # it is cut


def test_an_answer_of_which_not_all_is_kept_is_cut():
    body = events(*({"choices": [{"index": number % 16, "delta": {"content": "word " * 40}}]} for number in range(900)))
    _, (_, is_cut, _), data = record(
        Case("", "openai", "chat.completions", body, content_type=SSE), [body], plan=PLAN._replace(max_bytes=1000)
    )
    assert is_cut
    assert len(data) < 60_000


def test_where_there_is_no_room_nothing_is_kept_and_it_is_said(monkeypatch):
    monkeypatch.setattr(RECORDED, "limit_bytes", 3)
    stream = Case(
        "", "openai", "chat.completions", events({"choices": [{"delta": {"content": "long"}}]}), content_type=SSE
    )
    for case in (
        stream,
        *(case for case in CASES if case.content_type == JSON and 3 < len(case.body) <= BRIEF_BYTES_MAX),
    ):
        facts, side, data = record(case, [case.body])
        assert facts == scan(case, [case.body])
        assert (side[2], data) == (-1, b"")
    assert RECORDED.held_bytes == 0


def test_words_of_the_header():
    assert not refused([])
    assert not refused(["on", " ON "])
    assert refused(["off"])
    assert refused(["on", "off"])
    assert refused(["nonsense"])


def test_secrets_of_the_exchange_are_not_kept():
    body = b'{"error":{"message":"Incorrect API key: plain-upstream-key"}}'
    recording = Recording(PLAN, REQUEST_ID)
    recording.secrets |= {b"plain-upstream-key", b"the"}
    scanner = recorded_scanner(recording, "openai", "chat.completions", "application/json", 401)
    scanner.feed(body)
    scanner.end()
    _, frames = recording.close()
    assert b"plain-upstream" not in b"".join(frames)
    assert b"[REDACTED]" in b"".join(frames)


@pytest.mark.parametrize(
    "written",
    [
        "a/key+with/signs==",
        r"a\/key+with\/signs==",
        r"a\/key\u002Bwith\/signs\u003d\u003D",
        r"a\\\/key+with\\\/signs==",
        "a%2Fkey%2bwith%2Fsigns%3D%3D",
    ],
)
def test_a_credential_is_found_however_its_signs_are_written(written):
    data = without(b"a/key+with/signs==", b"key " + written.encode() + b", a/key")
    assert data == b"key [REDACTED], a/key"


@pytest.mark.parametrize(("size", "is_cut"), [(1000, False), (100_000, False), (400_000, True)])
def test_a_body_larger_than_what_is_kept_of_it_is_cut(size, is_cut):
    keeper = JsonKeeper(limits_of(b"0" * 32, 65536))
    body = b"[" + b"1," * (size // 2) + b"1]"
    for piece in cut(body, [5000, 50_000, 70_000]):
        keeper.take(piece)
    keeper.end()
    assert (len(keeper.give()) < len(body), keeper.cut) == (is_cut, is_cut)
