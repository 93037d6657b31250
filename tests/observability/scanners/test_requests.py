"""Request scanners: every case by pieces and by `whole`."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.scanners import RequestScanner, request_scanner
from tests.observability.chunks import byte_by_byte, cut, places

JSON = "application/json; charset=utf-8"
MESSAGES = b'"messages":[{"role":"user","content":"the \\"model\\" and {\\"stream\\":1}"}]'

OPENAI: list[tuple[bytes, dict[str, Any]]] = [
    (
        b"{" + MESSAGES + b',"model":"qwen","stream":true,"stream_options":{"include_usage":true}}',
        {"model": "qwen", "stream": True, "include_usage": True},
    ),
    (b'{"model":"qwen","stream":false,"stream_options":null}', {"model": "qwen", "stream": False}),
    (b'{"stream_options":{"include_usage":false},"model":"\xe9\x80\x9a"}', {"model": "通", "include_usage": False}),
    (b'{"model":"a","model":"b"}', {"model": "b", "duplicates": {"model"}}),
    (
        rb'{"model":"a","\u006dodel":"b","stream":true,"stream":false}',
        {"model": "b", "stream": False, "duplicates": {"model", "stream"}},
    ),
    (rb'{"\u006dodel":"qw\u0065n"}', {"model": "qwen"}),
    (b'{"x":{"model":"no"},"y":["model"]}', {}),
    (b'{"model":5,"stream":"yes","stream_options":[],"n":-1,"size":7}', {}),
    (b'{"model":""}', {}),
    (b'{"model":"a","model":5}', {"duplicates": {"model"}}),
    (b'{"model":"a","model":null}', {"duplicates": {"model"}}),
    (
        b'{"model":"gpt-image-1","prompt":"p","n":2,"size":"1024x1024"}',
        {"model": "gpt-image-1", "n": 2, "size": "1024x1024"},
    ),
    (b'\xef\xbb\xbf{"model":"a"}\n', {"model": "a"}),
    (b'{"x":NaN,"model":"a"}', {"model": "a"}),
    (b'{"x":"' + b"y" * 70_000 + b'","model":"a"}', {"model": "a"}),
    (b"[]", {}),
    (b'{"model":"a"}}', {"model": "a", "complete": False, "failed": True}),
    (b'{"model":"a"', {"model": "a", "complete": False, "failed": True}),
    (b"model=a", {"complete": False, "failed": True}),
    (b"", {"complete": False}),
]
DASHSCOPE: list[tuple[bytes, dict[str, Any]]] = [
    (
        b'{"model":"qwen","input":{"model":"no","n":9},"parameters":{"n":1,"size":"1328*1328"}}',
        {"model": "qwen", "n": 1, "size": "1328*1328"},
    ),
    (b'{"input":{},"parameters":7,"model":"qwen"}', {"model": "qwen"}),
]
CASES = [("openai", *case) for case in OPENAI] + [("dashscope", *case) for case in DASHSCOPE]

UNKNOWN = {
    "model": None,
    "stream": None,
    "include_usage": None,
    "n": None,
    "size": None,
    "duplicates": set(),
    "complete": True,
    "failed": False,
}


def scanner_of(protocol: str) -> RequestScanner:
    return request_scanner(protocol, "chat.completions" if protocol == "openai" else "multimodal-generation", JSON)


def facts(scanner: RequestScanner) -> dict[str, Any]:
    return {name: getattr(scanner, name) for name in UNKNOWN}


def scan(protocol: str, pieces: list[bytes]) -> RequestScanner:
    scanner = scanner_of(protocol)
    for piece in pieces:
        scanner.feed(piece)
    scanner.end()
    return scanner


@pytest.mark.parametrize(("protocol", "body", "expected"), CASES)
def test_reads_requests_in_any_chunking(protocol: str, body: bytes, expected: dict[str, Any]) -> None:
    assert facts(scan(protocol, [body])) == {**UNKNOWN, **expected}
    assert facts(scan(protocol, byte_by_byte(body))) == {**UNKNOWN, **expected}
    scanner = scanner_of(protocol)
    scanner.whole(body)
    assert facts(scanner) == {**UNKNOWN, **expected}
    assert scanner.model_duplicated == ("model" in expected.get("duplicates", ()))


@given(case=st.sampled_from(CASES), at=places)
def test_reads_requests_in_random_pieces(case: tuple[str, bytes, dict[str, Any]], at: list[int]) -> None:
    assert facts(scan(case[0], cut(case[1], at))) == {**UNKNOWN, **case[2]}


KEYS = st.sampled_from(["model", "stream", "stream_options", "n", "size", "parameters", "include_usage", "x"])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-2, 5), st.sampled_from(["", "qwen", "1x1", "ü"]))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3))


@given(document=st.dictionaries(KEYS, VALUES, max_size=6), protocol=st.sampled_from(["openai", "dashscope"]))
def test_both_ways_agree(document: dict[str, Any], protocol: str) -> None:
    body = json.dumps(document).encode()
    scanner = scanner_of(protocol)
    scanner.whole(body)
    assert facts(scanner) == facts(scan(protocol, [body]))


def test_the_model_is_known_as_soon_as_it_came() -> None:
    scanner = scanner_of("openai")
    scanner.feed(b'{"model":"qwen"')
    assert scanner.model == "qwen"
    assert not scanner.complete


def test_offsets_serve_for_rewriting() -> None:
    body = b"\n {" + MESSAGES + b' , "model" : "qwen" }'
    fields = scan("openai", byte_by_byte(body)).fields
    assert fields is not None
    assert fields.document_start == 2
    (model,) = fields.fields
    assert body[model.start : model.end] == b'"qwen"'


def test_bodies_of_other_kinds_are_not_read() -> None:
    for scanner in (
        request_scanner("openai", "images.generations", "multipart/form-data; boundary=x"),
        request_scanner("comfyui", "prompt", JSON),
    ):
        scanner.feed(b'{"model":"a"}')
        scanner.whole(b'{"model":"a"}')
        scanner.end()
        assert facts(scanner) == {**UNKNOWN, "complete": False}


def test_a_failure_switches_it_off() -> None:
    scanner = scanner_of("openai")
    scanner.feed("no bytes")  # type: ignore[arg-type]
    scanner.feed(b'{"model":"a"}')
    scanner.end()
    assert scanner.failed
    assert scanner.model is None


def test_the_model_behind_64_mb_is_found_without_holding_them() -> None:
    scanner = scanner_of("openai")
    scanner.feed(
        b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,'
    )
    piece = b"QUJD" * 16384
    tracemalloc.start()
    for _ in range(1024):
        scanner.feed(piece)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    scanner.feed(b'"}}]}],"model":"qwen-vl-max","stream":true}')
    scanner.end()
    assert (scanner.model, scanner.stream, scanner.complete) == ("qwen-vl-max", True, True)
    assert peak_bytes < 20_000
