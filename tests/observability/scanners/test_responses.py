"""Response scanners: every case whole, byte by byte, encoded and followed by junk; then cut at random."""

import gzip
import json
import re
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from observability.findings import Findings
from observability.scanners import Scanner, response_scanner
from observability.scanners.base import Reader, SseScanner
from tests.observability.chunks import byte_by_byte, cut, places
from tests.observability.coded import encoded
from tests.observability.scanners.anthropic_messages import ANTHROPIC
from tests.observability.scanners.dashscope_responses import DASHSCOPE
from tests.observability.scanners.dashscope_tasks import NATIVE_MEDIA
from tests.observability.scanners.documents import DOCUMENTS
from tests.observability.scanners.errors import ERRORS, OPERATIONS
from tests.observability.scanners.openai_bodies import CHAT_BODIES, IMAGES
from tests.observability.scanners.openai_media import MEDIA
from tests.observability.scanners.openai_resources import RESOURCES
from tests.observability.scanners.openai_responses import RESPONSES
from tests.observability.scanners.openai_streams import CHAT_STREAMS, HELLO
from tests.observability.scanners.responses import JSON, SSE, Case, events

CASES = [
    *(*CHAT_STREAMS, *CHAT_BODIES, *IMAGES, *MEDIA, *RESPONSES, *RESOURCES),
    *(*ANTHROPIC, *DASHSCOPE, *NATIVE_MEDIA, *DOCUMENTS, *ERRORS),
]
BY_NAME = [pytest.param(case, id=f"{case.operation}: {case.name}") for case in CASES]
SMALL = [case for case in CASES if len(case.body) < 5000]


def scanner_of(case: Case, content_encoding: str = "") -> Scanner:
    return response_scanner(case.protocol, case.operation, case.content_type, case.status, content_encoding)


def found(findings: Findings) -> dict[str, object]:
    return {name: getattr(findings, name) for name in Findings.NAMES} | {
        "finish_reasons": list(findings.finish_reasons)
    }


def facts(**said: object) -> dict[str, object]:
    """All facts of a response that says these."""
    return found(Findings()) | said


def scan(case: Case, pieces: list[bytes], content_encoding: str = "") -> dict[str, Any]:
    scanner = scanner_of(case, content_encoding)
    for piece in pieces:
        scanner.feed(piece)
    scanner.end()
    return found(scanner.findings)


@pytest.mark.parametrize("case", BY_NAME)
def test_finds_the_facts_in_any_chunking(case: Case) -> None:
    expected = facts(**case.facts)
    assert scan(case, [case.body]) == expected
    size = 1 if case in SMALL else 997
    assert scan(case, [case.body[at : at + size] for at in range(0, len(case.body), size)]) == expected


@pytest.mark.parametrize("case", BY_NAME)
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "deflate, br"])
def test_finds_the_facts_behind_a_content_coding(case: Case, coding: str) -> None:
    assert scan(case, [encoded(case.body, coding)], coding) == facts(**case.facts)


@given(case=st.sampled_from(SMALL), at=places)
def test_finds_the_facts_in_random_pieces(case: Case, at: list[int]) -> None:
    assert scan(case, cut(case.body, at)) == facts(**case.facts)


PADDING = b'{"padding":"%b",' % (b"y" * 70_000)
PADDED = [case for case in SMALL if case.content_type in (JSON, SSE) and re.search(rb'(?:^|data: ?)\{"', case.body)]


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.operation}: {case.name}") for case in PADDED])
def test_finds_the_facts_in_documents_too_large_to_be_decoded_at_once(case: Case) -> None:
    body = re.sub(rb'^(\s*|data: ?)\{(?=")', lambda begin: begin[1] + PADDING, case.body, flags=re.MULTILINE)
    assert len(body) > 70_000
    assert scan(case, [body]) == facts(**case.facts)


@pytest.mark.parametrize("case", [case for case in CASES if case.content_type == JSON and case.facts.get("complete")])
def test_what_follows_a_document_makes_it_unreadable_but_loses_no_fact(case: Case) -> None:
    expected = facts(**{**case.facts, "failed": True, "complete": False, "usage_final": False})
    trailed = case.body + b"}"
    assert scan(case, [trailed]) == expected
    assert scan(case, [case.body, b"}"]) == expected
    if case in SMALL:
        assert scan(case, byte_by_byte(trailed)) == expected


STREAMS = [case for case in CASES if case.content_type == SSE and not case.body.lstrip().startswith(b"{")]


@pytest.mark.parametrize("case", [case for case in STREAMS if not case.facts.get("failed")])
def test_comments_after_a_stream_change_nothing(case: Case) -> None:
    for trailer in (b"\n\n: bye\n\n", b"\n\n: unfinished"):
        assert scan(case, [case.body + trailer]) == facts(**case.facts)


END_MARKS = (b"[DONE]", b"message_stop", b"speech.audio.done", b"transcript.text.done")


@pytest.mark.parametrize("case", [case for case in SMALL if case.content_type == SSE])
def test_a_stream_that_is_cut_is_never_called_whole_before_its_time(case: Case) -> None:
    """Without `end`: complete means that everything up to here was seen, whatever else was still to come."""
    scanner = scanner_of(case)
    for piece in byte_by_byte(case.body):
        scanner.feed(piece)
        if scanner.findings.complete and scanner.findings.error_code is None:
            reasons = scanner.findings.finish_reasons
            assert reasons or scanner.findings.images or any(mark in case.body for mark in END_MARKS)


ALL = [(protocol, operation) for protocol, operations in OPERATIONS.items() for operation in operations]
OPERATION = st.sampled_from(ALL)


@given(data=st.binary(max_size=200), sse=st.booleans(), at=places, operation=OPERATION)
def test_any_bytes_are_survived_alike(data: bytes, sse: bool, at: list[int], operation: tuple[str, str]) -> None:
    case = Case("bytes", *operation, data, {}, SSE if sse else JSON)
    assert scan(case, cut(data, at)) == scan(case, [data])


KEYS = st.sampled_from(
    [
        *(
            "choices",
            "delta",
            "message",
            "usage",
            "error",
            "code",
            "output",
            "content",
            "index",
            "text",
            "audio",
            "data",
        ),
        *("finish_reason", "input_tokens", "prompt_tokens_details", "type", "response", "status", "results", "url"),
        *("task_status", "task_metrics", "video_url", "cache_creation", "total_tokens", "embeddings", "object", "id"),
        *("incomplete_details", "stop_reason", "duration", "input_token_details", "audio_tokens"),
    ]
)
KINDS = st.sampled_from(
    [
        *("message_start", "message_delta", "content_block_delta", "message_stop", "error", "result"),
        *("response.created", "response.completed", "response.failed", "response.output_text.delta"),
        *("image_edit.partial_image", "image_generation.completed", "speech.audio.delta", "speech.audio.done"),
        *("transcript.text.delta", "transcript.text.done", "SUCCEEDED", "FAILED", "RUNNING", "completed", "batch"),
    ]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), KINDS)
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)),
    max_size=6,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a fresh machine the first text is drawn after a second
@given(
    documents=st.lists(DOCUMENTS, min_size=1, max_size=4), kind=KINDS, operation=OPERATION, sse=st.booleans(), at=places
)
def test_documents_of_any_shape_are_read_without_failing_and_alike_in_any_chunking(
    documents: list[dict[str, Any]], kind: str, operation: tuple[str, str], sse: bool, at: list[int]
) -> None:
    if sse:
        body = b"".join(f"event: {kind}\n".encode() + events(document) for document in documents)
    else:
        body = json.dumps(documents[0]).encode()
    case = Case("shape", *operation, body, {}, SSE if sse else JSON)
    found = scan(case, [body])
    assert not found["failed"]
    for name, value in found.items():
        if name.endswith("tokens") and value is not None:
            assert type(value) is int
            assert 0 <= value <= 2**53
    assert scan(case, cut(body, at)) == found


def test_first_output_is_told_with_the_piece_that_brings_it() -> None:
    scanner = response_scanner("openai", "chat.completions", SSE, 200)
    scanner.feed(events(HELLO)[:-1])
    assert not scanner.findings.first_output
    scanner.feed(b"\n")
    assert scanner.findings.first_output


def test_a_json_answer_is_read_with_its_last_piece_and_whole_at_its_end() -> None:
    case = next(case for case in CASES if case.name == "answer" and case.operation == "chat.completions")
    scanner = scanner_of(case)
    scanner.feed(case.body)
    assert scanner.findings.first_output
    assert scanner.findings.usage_final
    assert not scanner.findings.complete
    scanner.end()
    assert scanner.findings.complete


@pytest.mark.parametrize(
    ("n", "complete"),
    [
        (None, [True, False, True]),
        (1, [True, False, True]),
        (2, [False, False, True]),
        (3, [False, False, False]),
    ],
)
def test_a_stream_is_complete_when_as_many_choices_as_asked_for_have_finished(n, complete) -> None:
    scanner = response_scanner("openai", "chat.completions", SSE, 200, choices=n)
    told = []
    for index, reason in ((0, "stop"), (1, None), (1, "stop")):
        choice = {"index": index, "delta": {"content": "a"}, "finish_reason": reason}
        scanner.feed(events({"choices": [choice]}))
        told.append(scanner.findings.complete)
    assert told == complete
    scanner.feed(b"data: [DONE]\n\n")
    assert scanner.findings.complete


@pytest.mark.parametrize("protocol", ["openai", "dashscope"])
@pytest.mark.parametrize("size", [0, 70_000, 500_000])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": "overloaded"}, "error"),
        ({"message": "x" * 20_000}, "error"),
        ({"message": "overloaded", "type": "busy"}, "busy"),
        ("overloaded", "error"),
        ("x" * 20_000, "error"),
        (["overloaded"], "error"),
        ("", None),
        (None, None),
        ({}, None),
    ],
)
def test_an_error_is_seen_in_a_document_of_any_size(protocol, size, error, code) -> None:
    operation = "chat.completions" if protocol == "openai" else "text-generation"
    scanner = response_scanner(protocol, operation, JSON, 200)
    scanner.feed(json.dumps({"pad": "A" * size, "error": error}).encode())
    scanner.end()
    assert scanner.findings.error_code == code


@pytest.mark.parametrize("coding", ["compress", "gzip, x", "br, br, br"])
def test_a_coding_that_cannot_be_read_is_a_failure_from_the_start(coding: str) -> None:
    scanner = response_scanner("openai", "chat.completions", JSON, 200, coding)
    scanner.feed(b"\x1b")
    scanner.end()
    assert found(scanner.findings) == facts(failed=True)


def test_a_coded_body_that_is_cut_or_broken_is_a_failure() -> None:
    for body in (gzip.compress(b"{}")[:-1], b"no gzip"):
        assert scan(Case("coded", "openai", "chat.completions", body), [body], "gzip")["failed"]


def test_content_of_other_kinds_is_passed_over() -> None:
    html = response_scanner("openai", "chat.completions", "text/html", 502)
    speech = response_scanner("openai", "audio.speech", "audio/mpeg", 200, "br")
    silence = response_scanner("openai", "audio.speech", "audio/mpeg", 200)
    for scanner in (html, speech):
        scanner.feed(b"<html>")
        scanner.end()
    silence.feed(b"")
    silence.end()
    assert found(html.findings) == found(silence.findings) == facts(complete=True)
    assert found(speech.findings) == facts(complete=True, first_output=True)


def test_a_reader_that_raises_switches_the_scanner_off() -> None:
    class Broken(Reader):
        def event(self, name: bytes, document: dict[str, Any]) -> None:
            raise LookupError("a bug")

    scanner = SseScanner(Broken(Findings()))
    scanner.feed(events(HELLO))
    assert scanner.findings.failed
    scanner.feed(events(HELLO))
    scanner.end()
    assert found(scanner.findings) == facts(failed=True, events=1)


LARGE = {
    "images.generations": ("openai", JSON, b'{"created":1,"data":[{"b64_json":"', b'"}],"usage":%b}'),
    "images.generations, stream": (
        "openai",
        SSE,
        b'event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"',
        b'","usage":%b}\n\n',
    ),
    "images.edits": ("openai", JSON, b'{"data":[{"b64_json":"', b'"}],"usage":%b}'),
    "images.edits, stream": (
        "openai",
        SSE,
        b'event: image_edit.completed\ndata: {"b64_json":"',
        b'","type":"image_edit.completed","usage":%b}\n\n',
    ),
    "audio.speech, stream": (
        "openai",
        SSE,
        b'data: {"type":"speech.audio.delta","audio":"',
        b'"}\n\ndata: {"type":"speech.audio.done","usage":%b}\n\n',
    ),
    "responses, stream": (
        "openai",
        SSE,
        b'data: {"type":"response.image_generation_call.partial_image","partial_image_b64":"',
        b'"}\n\ndata: {"type":"response.completed","response":{"status":"completed","usage":%b}}\n\n',
    ),
    "messages, stream": (
        "anthropic",
        SSE,
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"',
        b'"}}\n\ndata: {"type":"message_delta","usage":%b}\n\ndata: {"type":"message_stop"}\n\n',
    ),
    "speech-synthesizer, stream": (
        "dashscope",
        SSE,
        b'data:{"output":{"audio":{"data":"',
        b'"},"finish_reason":"stop"},"usage":%b}\n\n',
    ),
    "text2image": (
        "dashscope",
        JSON,
        b'{"output":{"task_status":"SUCCEEDED","results":[{"b64":"',
        b'","url":"u"}]},"usage":%b}',
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_the_usage_behind_64_mb_of_base64_is_found_without_holding_them(name: str) -> None:
    protocol, content_type, before, after = LARGE[name]
    operation = name.partition(",")[0]
    scanner = response_scanner(protocol, operation, content_type, 200)
    piece = b"QUJD" * 16384
    scanner.feed(before)
    scanner.feed(piece)
    tracemalloc.start()
    for _ in range(1024):
        scanner.feed(piece)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    scanner.feed(after % json.dumps({"input_tokens": 13, "output_tokens": 7}).encode())
    scanner.end()
    found = scanner.findings
    assert (found.input_tokens, found.output_tokens, found.usage_final) == (13, 7, True)
    assert found.images == (1 if "image" in operation else None)
    assert found.first_output
    assert found.complete
    assert peak_bytes < 300_000


def test_64_mb_of_base64_cost_no_more_than_a_search_for_their_end() -> None:
    """A scan that looked at each byte in Python would take some thousand times as long."""
    piece = b"QUJD" * 16384
    scanners = [
        response_scanner(protocol, name.partition(",")[0], content_type, 200)
        for name, (protocol, content_type, _, _) in LARGE.items()
    ]
    for scanner, (_, _, before, _) in zip(scanners, LARGE.values(), strict=True):
        scanner.feed(before)
        scanner.feed(piece)

    def seconds(look: Callable[[bytes], object]) -> float:
        began = time.process_time()
        for _ in range(256):
            look(piece)
        return time.process_time() - began

    searched = max(seconds(lambda data: data.find(b'"')) for _ in range(3))
    for name, scanner in zip(LARGE, scanners, strict=True):
        assert min(seconds(scanner.feed) for _ in range(3)) < 100 * searched, name
