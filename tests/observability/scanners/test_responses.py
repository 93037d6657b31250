"""Response scanners: every case whole, byte by byte, encoded and followed by junk; then cut at random."""

import gzip
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.findings import Findings
from observability.scanners import Scanner, response_scanner
from tests.observability.chunks import byte_by_byte, cut, places
from tests.observability.coded import encoded
from tests.observability.scanners.dashscope_responses import DASHSCOPE
from tests.observability.scanners.openai_bodies import CHAT_BODIES, IMAGES
from tests.observability.scanners.openai_streams import CHAT_STREAMS, HELLO
from tests.observability.scanners.responses import JSON, SSE, USAGE, Case, events

CASES = [*CHAT_STREAMS, *CHAT_BODIES, *IMAGES, *DASHSCOPE]
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


@pytest.mark.parametrize("case", [case for case in CASES if case.content_type == JSON and case.facts.get("complete")])
def test_what_follows_a_document_makes_it_unreadable_but_loses_no_fact(case: Case) -> None:
    expected = facts(**{**case.facts, "failed": True, "complete": False, "usage_final": False})
    trailed = case.body + b"}"
    assert scan(case, [trailed]) == expected
    assert scan(case, [case.body, b"}"]) == expected
    if case in SMALL:
        assert scan(case, byte_by_byte(trailed)) == expected


@pytest.mark.parametrize("case", [case for case in CASES if case.content_type == SSE and not case.facts.get("failed")])
def test_comments_after_a_stream_change_nothing(case: Case) -> None:
    for trailer in (b"\n\n: bye\n\n", b"\n\n: unfinished"):
        assert scan(case, [case.body + trailer]) == facts(**case.facts)


@pytest.mark.parametrize("case", [case for case in SMALL if case.content_type == SSE])
def test_a_stream_that_is_cut_is_never_called_whole_before_its_time(case: Case) -> None:
    """Without `end`: complete means that everything up to here was seen, whatever else was still to come."""
    scanner = scanner_of(case)
    for piece in byte_by_byte(case.body):
        scanner.feed(piece)
        if scanner.findings.complete and scanner.findings.error_code is None:
            reasons = scanner.findings.finish_reasons
            assert reasons or scanner.findings.images or b"[DONE]" in case.body


@given(data=st.binary(max_size=200), sse=st.booleans(), at=places, protocol=st.sampled_from(["openai", "dashscope"]))
def test_any_bytes_are_survived_alike(data: bytes, sse: bool, at: list[int], protocol: str) -> None:
    operation = "chat.completions" if protocol == "openai" else "text-generation"
    case = Case("bytes", protocol, operation, data, {}, SSE if sse else JSON)
    assert scan(case, cut(data, at)) == scan(case, [data])


KEYS = st.sampled_from(
    [
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
        "finish_reason",
        "input_tokens",
        "prompt_tokens_details",
        "type",
    ]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)),
    max_size=6,
)


@given(
    document=DOCUMENTS,
    operation=st.sampled_from(sorted({(case.protocol, case.operation) for case in CASES})),
    sse=st.booleans(),
)
def test_documents_of_any_shape_are_read_without_failing(
    document: dict[str, Any], operation: tuple[str, str], sse: bool
) -> None:
    body = events(document) if sse else json.dumps(document).encode()
    found = scan(Case("shape", *operation, body, {}, SSE if sse else JSON), [body])
    assert not found["failed"]
    for name, value in found.items():
        if name.endswith("tokens") and value is not None:
            assert type(value) is int
            assert 0 <= value <= 2**53


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
    for scanner in (html, speech):
        scanner.feed(b"<html>")
        scanner.end()
    assert found(html.findings) == facts(complete=True)
    assert found(speech.findings) == facts(complete=True, first_output=True)


def test_a_reader_that_raises_switches_the_scanner_off() -> None:
    scanner = response_scanner("openai", "chat.completions", SSE, 200)
    scanner.feed("no bytes")  # type: ignore[arg-type]
    assert scanner.findings.failed
    scanner.feed(events(HELLO))
    scanner.end()
    assert found(scanner.findings) == facts(failed=True)


@pytest.mark.parametrize("content_type", [JSON, SSE])
def test_the_usage_behind_64_mb_of_base64_is_found_without_holding_them(content_type: str) -> None:
    sse = content_type == SSE
    scanner = response_scanner("openai", "images.generations", content_type, 200)
    piece = b"QUJD" * 16384
    if sse:
        scanner.feed(b'event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"')
    else:
        scanner.feed(b'{"created":1,"data":[{"b64_json":"')
    scanner.feed(piece)
    tracemalloc.start()
    for _ in range(1024):
        scanner.feed(piece)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    usage = json.dumps(USAGE).encode()
    scanner.feed(b'","usage":%b}\n\n' % usage if sse else b'"}],"usage":%b}' % usage)
    scanner.end()
    found = scanner.findings
    assert (found.images, found.input_tokens, found.output_tokens, found.usage_final) == (1, 13, 7, True)
    assert found.complete
    assert peak_bytes < 300_000
