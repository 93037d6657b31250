"""Request scanners: every case by pieces and by `whole`."""

import gzip
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.scanners import RequestScanner, request_scanner
from tests.observability.chunks import byte_by_byte, cut, places
from tests.observability.coded import encoded

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
    (b'{"model":5,"stream":"yes","stream_options":[],"n":-1,"size":7}', {"model_seen": True}),
    (b'{"model":""}', {"model_seen": True}),
    (b'{"model":null}', {"model_seen": True}),
    (b'{"model":{"model":"a"}}', {"model_seen": True}),
    (rb'{"model":"\ud800"}', {"model_seen": True}),
    (b'{"model":"' + b"m" * 16382 + b'"}', {"model": "m" * 16382}),
    (b'{"model":"' + b"m" * 16383 + b'"}', {"model_seen": True}),
    (b'{"model":"' + rb"\u4e2d" * 2730 + b'"}', {"model": "中" * 2730}),
    (b'{"model":"' + rb"\u4e2d" * 2731 + b'"}', {"model_seen": True}),
    (b'{"model":"a","model":5}', {"model_seen": True, "duplicates": {"model"}}),
    (b'{"model":"a","model":null}', {"model_seen": True, "duplicates": {"model"}}),
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
ANTHROPIC: list[tuple[bytes, dict[str, Any]]] = [
    (
        b'{"max_tokens":9,' + MESSAGES + b',"model":"claude","n":2,"size":"1x1","stream":true,"stream_options":{}}',
        {"model": "claude", "stream": True},
    ),
    (b'{"model":"a","Model":"b","stream":false}', {"model": "a", "stream": False}),
    (b'{"model":"a","model":"b"}', {"model": "b", "duplicates": {"model"}}),
]
VLLM: list[tuple[bytes, dict[str, Any]]] = [
    (b'{"query":"q","documents":["a","b"],"model":"bge","top_n":1,"stream":true}', {"model": "bge"}),
    (b'{"text_1":"a","text_2":["b"],"model":"bge"}', {"model": "bge"}),
    (b'{"query":"q","documents":[]}', {}),
]
OF_PROTOCOL = {
    "openai": ("chat.completions", OPENAI),
    "dashscope": ("multimodal-generation", DASHSCOPE),
    "anthropic": ("messages", ANTHROPIC),
    "vllm": ("rerank", VLLM),
}
CASES = [(protocol, *case) for protocol, (_, cases) in OF_PROTOCOL.items() for case in cases]

UNKNOWN = {
    "model": None,
    "model_seen": False,
    "settled": True,
    "stream": None,
    "include_usage": None,
    "n": None,
    "size": None,
    "duplicates": set(),
    "complete": True,
    "failed": False,
}


def scanner_of(protocol: str) -> RequestScanner:
    return request_scanner(protocol, OF_PROTOCOL[protocol][0], JSON)


def facts(scanner: RequestScanner) -> dict[str, Any]:
    return {name: getattr(scanner, name) for name in UNKNOWN}


def known(expected: dict[str, Any]) -> dict[str, Any]:
    return {**UNKNOWN, "model_seen": "model" in expected, **expected}


def scan(protocol: str, pieces: list[bytes]) -> RequestScanner:
    scanner = scanner_of(protocol)
    for piece in pieces:
        scanner.feed(piece)
    scanner.end()
    return scanner


@pytest.mark.parametrize(("protocol", "body", "expected"), CASES)
def test_reads_requests_in_any_chunking(protocol: str, body: bytes, expected: dict[str, Any]) -> None:
    assert facts(scan(protocol, [body])) == known(expected)
    assert facts(scan(protocol, byte_by_byte(body))) == known(expected)
    scanner = scanner_of(protocol)
    scanner.whole(body)
    assert facts(scanner) == known(expected)
    assert scanner.model_duplicated == ("model" in expected.get("duplicates", ()))
    assert scanner.model_valid == ("model" in expected)


@given(case=st.sampled_from(CASES), at=places)
def test_reads_requests_in_random_pieces(case: tuple[str, bytes, dict[str, Any]], at: list[int]) -> None:
    assert facts(scan(case[0], cut(case[1], at))) == known(case[2])


KEYS = st.sampled_from(["model", "stream", "stream_options", "n", "size", "parameters", "include_usage", "x"])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-2, 5), st.sampled_from(["", "qwen", "1x1", "ü"]))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3))


@given(document=st.dictionaries(KEYS, VALUES, max_size=6), protocol=st.sampled_from(sorted(OF_PROTOCOL)))
def test_both_ways_agree(document: dict[str, Any], protocol: str) -> None:
    body = json.dumps(document).encode()
    scanner = scanner_of(protocol)
    scanner.whole(body)
    assert facts(scanner) == facts(scan(protocol, [body]))


def settling(scanner: RequestScanner, body: bytes) -> int | None:
    """How many bytes it takes until the scanner says that the model is settled."""
    for at, piece in enumerate(byte_by_byte(body), 1):
        assert not scanner.settled
        scanner.feed(piece)
        if scanner.settled:
            return at
    return None


SETTLED = {
    "as soon as it came": (b'{"x":{"model":1},"model":"q"', True, True, False),
    "when it is not one": (b'{"model":5,', True, False, False),
    "when it is too large": (b'{"model":"' + b"m" * 16384, True, False, False),
    "at the end of the document": (b'{"x":1}', False, False, False),
    "when it cannot be read": (b'{"x":1]', False, False, True),
}


@pytest.mark.parametrize(("body", "seen", "valid", "failed"), SETTLED.values(), ids=SETTLED)
def test_the_model_is_settled(body: bytes, seen: bool, valid: bool, failed: bool) -> None:
    scanner = scanner_of("openai")
    assert settling(scanner, body) == len(body)
    assert (scanner.model_seen, scanner.model_valid, scanner.failed) == (seen, valid, failed)
    assert not scanner.complete


@pytest.mark.parametrize("body", [b"", b'{"x":', b'{"mode'])
def test_the_end_of_the_body_settles_it(body: bytes) -> None:
    scanner = scanner_of("openai")
    assert settling(scanner, body) is None
    scanner.end()
    assert scanner.settled
    assert not scanner.model_seen
    assert scanner.failed == bool(body)


def test_a_second_model_is_seen_as_soon_as_its_key_came() -> None:
    scanner = scanner_of("openai")
    scanner.feed(b'{"model":"a","messages":[],"model"')
    assert scanner.settled
    assert scanner.model == "a"
    assert scanner.model_duplicated


def form(*fields: tuple[bytes, bytes]) -> bytes:
    parts = [b'--xY\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % field for field in fields]
    return b"".join(parts) + b"--xY--\r\n"


FORMS: list[tuple[bytes, dict[str, Any]]] = [
    (
        form(
            (b'image"; filename="a.png', b"\x89PNG" * 20000),
            (b"model", b"gpt-image-1"),
            (b"n", b"2"),
            (b"size", b"1x1"),
        ),
        {"model": "gpt-image-1", "n": 2, "size": "1x1"},
    ),
    (form((b"model", b"\xe9\x80\x9a"), (b"stream", b"True")), {"model": "通", "stream": True}),
    (form((b"stream", b"false"), (b"n", b"-1"), (b"size", b"x" * 65)), {"stream": False}),
    (form((b"stream", b"maybe"), (b"n", b"9" * 5000)), {}),
    (form((b"model", b"")), {"model_seen": True}),
    (form((b"model", b"\xff")), {"model_seen": True}),
    (form((b"model", b"m" * 16384)), {"model": "m" * 16384}),
    (form((b"model", b"m" * 16385)), {"model_seen": True}),
    (form((b'model"; filename="a', b"qwen")), {"model_seen": True}),
    (form((b"model", b"a"), (b"model", b"b")), {"model": "b", "duplicates": {"model"}}),
    (form((b"model", b"a"))[:-5], {"complete": False, "failed": True}),
    (form((b"model", b"a")).replace(b"--xY--", b"\n--xY--"), {"complete": False, "failed": True}),
    (b'{"model":"a"}', {"complete": False, "failed": True}),
    (b"", {"complete": False}),
]
AUDIO_FORMS: list[tuple[bytes, dict[str, Any]]] = [
    (
        form((b'file"; filename="a.wav', b"RIFF" * 20000), (b"model", b"whisper-1"), (b"stream", b"true")),
        {"model": "whisper-1", "stream": True},
    ),
    (form((b'file"; filename="a.wav', b"RIFF"), (b"response_format", b"srt")), {}),
]
FORM_TYPE = 'Multipart/Form-Data; charset=utf-8; boundary="xY"'


def scan_form(pieces: list[bytes]) -> RequestScanner:
    scanner = request_scanner("openai", "images.edits", FORM_TYPE)
    for piece in pieces:
        scanner.feed(piece)
    scanner.end()
    return scanner


@pytest.mark.parametrize(("body", "expected"), FORMS)
def test_reads_forms_in_any_chunking(body: bytes, expected: dict[str, Any]) -> None:
    assert facts(scan_form([body])) == known(expected)
    assert facts(scan_form(byte_by_byte(body))) == known(expected)
    scanner = request_scanner("openai", "images.edits", FORM_TYPE)
    scanner.whole(body)
    assert facts(scanner) == known(expected)


@pytest.mark.parametrize("operation", ["images.variations", "audio.transcriptions", "audio.translations"])
@pytest.mark.parametrize(("body", "expected"), [FORMS[0], *AUDIO_FORMS])
def test_reads_the_forms_of_all_operations(operation: str, body: bytes, expected: dict[str, Any]) -> None:
    scanner = request_scanner("openai", operation, FORM_TYPE)
    scanner.whole(body)
    assert facts(scanner) == known(expected)


@given(case=st.sampled_from(FORMS), at=places)
def test_reads_forms_in_random_pieces(case: tuple[bytes, dict[str, Any]], at: list[int]) -> None:
    assert facts(scan_form(cut(case[0], at))) == known(case[1])


FORM_SETTLED = {
    "as soon as it came": (form((b"model", b"q"))[:-4], True, True, False),
    "when it is too large": (form((b"model", b"m" * 16385))[:-10], True, False, False),
    "when it is a file": (form((b'model"; filename="a', b""))[:-10], True, False, False),
    "at the end of the form": (form((b"x", b"1"))[:-2], False, False, False),
    "when it cannot be read": (b"--xYz", False, False, True),
}


@pytest.mark.parametrize(("body", "seen", "valid", "failed"), FORM_SETTLED.values(), ids=FORM_SETTLED)
def test_the_model_of_a_form_is_settled(body: bytes, seen: bool, valid: bool, failed: bool) -> None:
    scanner = request_scanner("openai", "images.edits", FORM_TYPE)
    assert settling(scanner, body) == len(body)
    assert (scanner.model_seen, scanner.model_valid, scanner.failed) == (seen, valid, failed)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=a; boundary=b"])
def test_a_form_without_a_clear_boundary_is_not_read(content_type: str) -> None:
    scanner = request_scanner("openai", "images.edits", content_type)
    assert (scanner.settled, scanner.failed, scanner.model_seen) == (True, True, False)
    scanner.whole(FORMS[0][0])
    assert facts(scanner) == {**UNKNOWN, "complete": False, "failed": True}


CODED = [
    (content_type, encoding, encoded(body, encoding), expected)
    for content_type, cases in ((JSON, OPENAI), (FORM_TYPE, FORMS))
    for body, expected in cases
    for encoding in ("gzip", "Deflate", "BR", "zstd", "br, gzip")
]


@pytest.mark.parametrize(("content_type", "encoding", "body", "expected"), CODED, ids=range(len(CODED)))
def test_reads_encoded_bodies(content_type: str, encoding: str, body: bytes, expected: dict[str, Any]) -> None:
    for take in ("whole", "feed"):
        scanner = request_scanner("openai", "images.edits", content_type, encoding)
        if take == "whole":
            scanner.whole(body)
        else:
            for piece in byte_by_byte(body):
                scanner.feed(piece)
            scanner.end()
        assert facts(scanner) == known(expected)


CODED_BADLY = {
    "unknown coding": ("compress", b'{"model":"a"}'),
    "three codings": ("gzip, gzip, gzip", gzip.compress(gzip.compress(gzip.compress(b'{"model":"a"}')))),
    "not br": ("br", b'{"model":"a"}'),
    "not zstd": ("zstd", b'{"model":"a"}'),
    "not encoded": ("gzip", b'{"model":"a"}'),
    "a bomb": ("gzip", gzip.compress(b'{"x":"' + bytes(16 << 20) + b'","model":"a"}')),
}


@pytest.mark.parametrize(("encoding", "body"), CODED_BADLY.values(), ids=CODED_BADLY)
def test_encoded_bodies_that_cannot_be_read(encoding: str, body: bytes) -> None:
    scanner = request_scanner("openai", "chat.completions", JSON, encoding)
    scanner.whole(body)
    assert facts(scanner) == {**UNKNOWN, "complete": False, "failed": True}


def test_a_cut_encoded_body_gives_what_came() -> None:
    scanner = request_scanner("openai", "chat.completions", JSON, "gzip")
    scanner.whole(gzip.compress(b'{"model":"a"}')[:-4])
    assert facts(scanner) == {**known({"model": "a"}), "complete": False, "failed": True}


def test_an_identity_coding_is_none() -> None:
    scanner = request_scanner("openai", "chat.completions", JSON, "Identity")
    scanner.whole(b'{"model":"a"}')
    assert facts(scanner) == known({"model": "a"})


def test_bodies_of_other_kinds_are_not_read() -> None:
    for scanner in (
        request_scanner("openai", "chat.completions", "text/plain"),
        request_scanner("comfyui", "prompt", JSON),
        request_scanner("dashscope", "multimodal-generation", "multipart/form-data; boundary=x"),
        request_scanner("anthropic", "messages", "multipart/form-data; boundary=x"),
    ):
        assert scanner.settled
        scanner.feed(b'{"model":"a"}')
        scanner.whole(b'{"model":"a"}')
        scanner.end()
        assert facts(scanner) == {**UNKNOWN, "complete": False}


@pytest.mark.parametrize(
    ("protocol", "operation"),
    [*(("openai", operation) for operation in ("models", "files", "uploads", "batches")), ("dashscope", "tasks")],
)
@pytest.mark.parametrize("content_type", [JSON, FORM_TYPE, "multipart/form-data"])
def test_of_operations_that_name_no_model_nothing_is_read(protocol: str, operation: str, content_type: str) -> None:
    """DashScope's SDK cancels a task with `"model": ""`, and a form of a file is none of ours to refuse."""
    scanner = request_scanner(protocol, operation, content_type)
    assert not scanner.reads
    scanner.whole(b'{"model":"","parameters":{},"input":""}' if content_type == JSON else form((b"model", b"")))
    assert facts(scanner) == {**UNKNOWN, "complete": False}


def test_a_fine_tuning_job_names_the_model_it_begins_with() -> None:
    scanner = request_scanner("openai", "fine_tuning", JSON)
    scanner.whole(b'{"training_file":"file-1","model":"qwen-plus"}')
    assert facts(scanner) == known({"model": "qwen-plus"})


def test_a_failure_switches_it_off() -> None:
    scanner = scanner_of("openai")
    scanner._fields = object()  # type: ignore[assignment]
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


@pytest.mark.parametrize(
    ("said", "stream"),
    [(b"", None), (b',"stream_format":"sse"', True), (b',"stream_format":"audio"', False), (b',"stream":true', None)],
)
def test_speech_is_asked_as_a_stream_of_events_by_its_format(said: bytes, stream: bool | None) -> None:
    """Else no deadline of a stream would hold for it."""
    for strict in (False, True):
        scanner = request_scanner("openai", "audio.speech", JSON)
        body = b'{"model":"tts","input":"hi"' + said + b"}"
        if strict:
            scanner.whole(body, strict=True)
        else:
            scanner.feed(body)
            scanner.end()
        assert (scanner.model, scanner.stream) == ("tts", stream)
