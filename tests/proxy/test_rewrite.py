"""Rewriting requests in flight, and withholding the chunk that answers a request for usage.

Every case of the tables is taken whole, byte by byte, with trailing data, and cut at random; the expected bodies are
written out, so what is outside the changed values is compared byte for byte.
"""

import json
import tracemalloc
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.wire.multipart_fields import boundary_of
from proxy.rewrite import BodyRewriter, MultipartRewriter, Rewriter, UsageChunkFilter, rewriter_of
from tests.observability.chunks import byte_by_byte, cut, places

NAME = 'gpt "5"\\通'
NEW = json.dumps(NAME, ensure_ascii=False).encode()
ASK = b',"stream_options":{"include_usage":true}'
MESSAGES = (
    b'"messages":[{"role":"user","content":"the \\"model\\": \\"x\\" {\\"stream\\":1}"},{"model":"no","stream":false}]'
)


class Case(NamedTuple):
    body: bytes
    expected: bytes
    whole: bytes | None = None
    """What `whole` answers, where it can do more since nothing was sent yet."""
    duplicated: bool = False
    failed: bool = False


def same(body: bytes, **flags: bool) -> Case:
    return Case(body, body, **flags)


def named(template: bytes, value: bytes, **flags: bool) -> Case:
    return Case(template.replace(b"@", value), template.replace(b"@", NEW), **flags)


MODELS: dict[str, Case] = {
    "first": named(b'{"model":@,"x":1}', b'"qwen"'),
    "last, after its namesakes": named(b'{"x":{"model":"a"},' + MESSAGES + b', "model" : @ }\n', b'"qwen"'),
    "escapes in key and value": named(rb'{"\u006dod\u0065l":@,"x":"\u0000"}', rb'"q\"\u0077\\"'),
    "byte order mark": named(b'\xef\xbb\xbf {"model":@}', b'"a"'),
    "value of the same length": named(b'{"model":@}', b'"' + b"q" * (len(NEW) - 2) + b'"'),
    "already that": named(b'{"model":@,"x":NaN}', NEW),
    "empty string": named(b'{"model":@}', b'""'),
    "no UTF-8": named(b'{"model":@,"x":"\xff"}', b'"\xff"'),
    "as large as can be": named(b'{"model":@,"x":1}', b'"' + b"m" * 16382 + b'"'),
    "too large": same(b'{"model":"' + b"m" * 16383 + b'","x":1}', failed=True),
    "twice": named(b'{"model":@,"x":{"model":"a"},"model":@}', b'"qwen"', duplicated=True),
    "twice, once escaped": named(rb'{"model":@,"mod\u0065l":@}', b'"qwen"', duplicated=True),
    "twice, then none": named(b'{"model":@,"model":5}', b'"qwen"', duplicated=True),
    "none, then one": named(b'{"model":{"model":"x"},"model":@}', b'"qwen"', duplicated=True),
    "a number": same(b'{"model":5}'),
    "null": same(b'{"model":null,"x":"model"}'),
    "an object": same(b'{"model":{"model":"a"}}'),
    "a list": same(b'{"model":["a"]}'),
    "missing": same(b'{"x":"\\"model\\":\\"a\\"","y":{"model":"a"}}'),
    "no object": same(b'["model","a"]'),
    "a string": same(b'"model"'),
    "nothing": same(b""),
    "malformed before": same(b'{"x":1]"model":"a"}', failed=True),
    "malformed behind": named(b'{"model":@,"x":]}', b'"a"', failed=True),
    "malformed in an open value": same(b'{"model":[1}', failed=True),
    "cut in the value": same(b'{"model":"a', failed=True),
    "cut behind it": named(b'{"model":@', b'"a"', failed=True),
    "UTF-16": same('{"model":"a"}'.encode("utf-16"), failed=True),
    "a second document": named(b'{"model":@}{"model":"b"}', b'"a"', failed=True),
}

USAGE: dict[str, Case] = {
    "no options": Case(b'{"model":"m","stream":true}', b'{"model":"m","stream":true' + ASK + b"}"),
    "white space": Case(b' { "stream" : true\n} \n', b' { "stream" : true\n' + ASK + b"} \n"),
    "stream before the rest": Case(b'{"stream":true,' + MESSAGES + b"}", b'{"stream":true,' + MESSAGES + ASK + b"}"),
    "escaped key": Case(rb'{"stre\u0061m":true}', rb'{"stre\u0061m":true' + ASK + b"}"),
    "byte order mark": Case(b'\xef\xbb\xbf{"stream":true}', b'\xef\xbb\xbf{"stream":true' + ASK + b"}"),
    "null options": Case(
        b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":{"include_usage":true}}'
    ),
    "empty options": Case(
        b'{"stream":true,"stream_options":{ }}', b'{"stream":true,"stream_options":{ "include_usage":true}}'
    ),
    "other options": Case(
        b'{"stream":true,"stream_options":{"x":[1e400, {"include_usage":false}]},"y":1}',
        b'{"stream":true,"stream_options":{"x":[1e400, {"include_usage":false}],"include_usage":true},"y":1}',
    ),
    "declined": Case(
        b'{"stream":true,"stream_options":{"a":1,"include_usage": false ,"b":2}}',
        b'{"stream":true,"stream_options":{"a":1,"include_usage": true ,"b":2}}',
    ),
    "null inside": Case(
        rb'{"stream":true,"stream_options":{"includ\u0065_usage":null}}',
        rb'{"stream":true,"stream_options":{"includ\u0065_usage":true}}',
    ),
    "options before stream": Case(
        b'{"stream_options":{},"x":1,"stream":true}',
        b'{"stream_options":{},"x":1,"stream":true}',
        whole=b'{"stream_options":{"include_usage":true},"x":1,"stream":true}',
    ),
    "asks already": same(b'{"stream":true,"stream_options":{"include_usage":true}}'),
    "inside of another type": same(b'{"stream":true,"stream_options":{"include_usage":1}}'),
    "inside twice": same(b'{"stream":true,"stream_options":{"include_usage":false,"include_usage":null}}'),
    "options of another type": same(b'{"stream":true,"stream_options":[]}'),
    "large options": same(b'{"stream":true,"stream_options":{"x":"' + b"x" * 16384 + b'"}}'),
    "no stream": same(b'{"model":"m"}'),
    "stream false": same(b'{"model":"m","stream":false}'),
    "stream nested only": same(b'{"a":{"stream":true}}'),
    "stream of another type": same(b'{"stream":1}'),
    "stream twice": same(b'{"stream":false,"stream":true}'),
    "stream twice before options": same(b'{"stream":true,"stream":true,"stream_options":{}}'),
    "no object": same(b'["stream"]'),
    "cut": same(b'{"stream":true', failed=True),
    "cut in the options": same(b'{"stream":true,"stream_options":{', failed=True),
    "malformed": same(b'{"stream":true]', failed=True),
}
BOTH: dict[str, Case] = {
    "as SDKs write it": Case(
        b"{" + MESSAGES + b',"model":"qwen","stream":true}',
        b"{" + MESSAGES + b',"model":' + NEW + b',"stream":true' + ASK + b"}",
    ),
    "stream first": Case(b'{"stream":true,"model":"q"}', b'{"stream":true,"model":' + NEW + ASK + b"}"),
    "options between": Case(
        b'{"stream":true,"stream_options":{},"model":"q"}',
        b'{"stream":true,"stream_options":{"include_usage":true},"model":' + NEW + b"}",
    ),
    "options first": Case(
        b'{"stream_options":null,"model":"q","stream":true}',
        b'{"stream_options":null,"model":' + NEW + b',"stream":true}',
        whole=b'{"stream_options":{"include_usage":true},"model":' + NEW + b',"stream":true}',
    ),
    "only the model": Case(b'{"stream":false,"model":"q"}', b'{"stream":false,"model":' + NEW + b"}"),
    "only the usage": Case(b'{"stream":true,"model":7}', b'{"stream":true,"model":7' + ASK + b"}"),
    "two models": Case(
        b'{"model":"a","stream":true,"model":"b"}',
        b'{"model":' + NEW + b',"stream":true,"model":' + NEW + ASK + b"}",
        duplicated=True,
    ),
}
CASES = [
    *[pytest.param(NAME, False, case, id=f"model: {name}") for name, case in MODELS.items()],
    *[pytest.param(None, True, case, id=f"usage: {name}") for name, case in USAGE.items()],
    *[pytest.param(NAME, True, case, id=f"both: {name}") for name, case in BOTH.items()],
]


def feed(rewriter: Rewriter, pieces: list[bytes]) -> bytes:
    out = []
    for piece in pieces:
        sent = rewriter.feed(piece)
        assert all(sent)  # an empty piece would end a chunked body
        out += sent
    return b"".join(out + rewriter.end())


def flags(rewriter: Rewriter) -> tuple[bool, ...]:
    return rewriter.renamed, rewriter.asked, rewriter.duplicated, rewriter.failed


def asks(body: bytes) -> bool:
    try:
        document = json.loads(body)
    except ValueError:
        return False
    options = document.get("stream_options") if isinstance(document, dict) else None
    return isinstance(options, dict) and options.get("include_usage") is True


def check(rewriter: Rewriter, written: bytes, case: Case, expected: bytes) -> None:
    assert written == expected
    asked = asks(expected) and not asks(case.body)
    assert flags(rewriter) == (NEW in expected, asked, case.duplicated, case.failed)


@pytest.mark.parametrize(("model", "ask_usage", "case"), CASES)
def test_rewrites_in_any_chunking(model: str | None, ask_usage: bool, case: Case) -> None:
    for pieces in ([case.body], byte_by_byte(case.body)):
        rewriter = BodyRewriter(model, ask_usage)
        check(rewriter, feed(rewriter, pieces), case, case.expected)
    rewriter = BodyRewriter(model, ask_usage)
    whole = rewriter.whole(case.body)
    check(rewriter, whole, case, case.expected if case.whole is None else case.whole)
    assert whole is case.body or whole != case.body or case.failed
    for pieces in ([case.body + b" x"], byte_by_byte(case.body + b" x")):
        rewriter = BodyRewriter(model, ask_usage)
        assert feed(rewriter, pieces) == case.expected + b" x"
        assert rewriter.failed


@given(case=st.sampled_from([case.values for case in CASES]), at=places)
def test_rewrites_alike_in_random_pieces(case: Any, at: list[int]) -> None:
    rewriter = BodyRewriter(case[0], case[1])
    check(rewriter, feed(rewriter, cut(case[2].body, at)), case[2], case[2].expected)


KEYS = st.sampled_from(["model", "stream", "stream_options", "include_usage", "x", "ü", "\\", '"'])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9), st.just("model"))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))
DOCUMENTS = st.fixed_dictionaries(
    {}, optional={"stream": st.booleans() | VALUES, "stream_options": VALUES, "model": st.text(max_size=9) | VALUES}
).flatmap(lambda some: st.dictionaries(KEYS, VALUES, max_size=4).map(lambda more: {**more, **some}))


def changed(document: dict[str, Any], model: str | None, ask_usage: bool, whole: bool) -> dict[str, Any]:
    """What is to become of a document, by its values."""
    after = dict(document)
    if model is not None and isinstance(document.get("model"), str):
        after["model"] = model
    keys = list(document)
    options = {} if document.get("stream_options") is None else document["stream_options"]
    if ask_usage and document.get("stream") is True and isinstance(options, dict):
        in_time = whole or "stream_options" not in keys or keys.index("stream_options") > keys.index("stream")
        unasked = options.get("include_usage") is None or options["include_usage"] is False
        if in_time and unasked:
            after["stream_options"] = {**options, "include_usage": True}
    return after


@given(
    document=DOCUMENTS,
    model=st.sampled_from([None, NAME]),
    ask_usage=st.booleans(),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
    at=places,
)
def test_any_document_is_changed_only_there(
    document: dict[str, Any], model: str | None, ask_usage: bool, ascii_only: bool, indent: int | None, at: list[int]
) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    rewriter = BodyRewriter(model, ask_usage)
    fed = feed(rewriter, cut(body, at))
    assert json.loads(fed) == changed(document, model, ask_usage, whole=False)
    assert not rewriter.failed
    whole_rewriter = BodyRewriter(model, ask_usage)
    whole = whole_rewriter.whole(body)
    after = changed(document, model, ask_usage, whole=True)
    assert json.loads(whole) == after
    assert flags(whole_rewriter)[2:] == (False, False)
    assert whole_rewriter.asked == (after.get("stream_options") != document.get("stream_options"))
    assert fed == whole or list(document).index("stream_options") < list(document).index("stream")


@given(st.text(alphabet='{}[]",:\\ \n1', max_size=60), places)
def test_any_structure_passes(text: str, at: list[int]) -> None:
    body = b'{"model":' + text.encode()
    rewriter, another = BodyRewriter("", True), BodyRewriter("", True)
    assert feed(rewriter, cut(body, at)) == feed(another, [body])
    assert flags(rewriter) == flags(another)
    assert feed(BodyRewriter(None, False), cut(body, at)) == body


def test_bytes_wait_only_while_the_value_is_open() -> None:
    rewriter = BodyRewriter("new", False)
    assert rewriter.feed(b'{"x":"') == [b'{"x":"']
    assert rewriter.feed(b'1","model" :') == [b'1","model" :']
    assert rewriter.feed(b' "q') == [b" "]
    assert rewriter.feed(b"wen") == []
    assert rewriter.feed(b'","y"') == [b'"new"', b',"y"']
    assert rewriter.feed(b":1}") == [b":1}"]
    assert rewriter.end() == []


@pytest.mark.parametrize(("opening", "failed"), [(b'{"model":"', True), (b'{"stream":true,"stream_options":{"', False)])
def test_no_more_waits_than_a_value_may_have(opening: bytes, failed: bool) -> None:
    rewriter = BodyRewriter("new", True)
    sent = len(b"".join(rewriter.feed(opening)))
    fed, waiting = len(opening), []
    for _ in range(100):
        sent += len(b"".join(rewriter.feed(b"m" * 1000)))
        fed += 1000
        waiting.append(fed - sent)
    assert max(waiting) <= 16384
    assert waiting[-1] == 0
    assert rewriter.failed == failed


def test_64_mb_before_the_model_pass_as_they_are() -> None:
    rewriter = BodyRewriter("new", True)
    piece = b"QUJD" * 16384
    rewriter.feed(b'{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,')
    tracemalloc.start()
    for _ in range(1024):
        (sent,) = rewriter.feed(piece)
        assert sent is piece
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        b"".join(rewriter.feed(b'"}}]}],"model":"q","stream":true}'))
        == b'"}}]}],"model":"new","stream":true' + ASK + b"}"
    )
    assert peak_bytes < 20_000


FORM_TYPE = "multipart/form-data; boundary=xY"
FILE = b'--xY\r\nContent-Disposition: form-data; name="image"; filename="model"\r\nContent-Length: 4\r\n\r\n\r\n--\r\n'
HEAD = b'--xY\r\nContent-Disposition: form-data; name="model"\r\n'
END = b"\r\n--xY--\r\n"
FORM_NEW = NAME.encode()
FORMS: dict[str, Case] = {
    "after a file": Case(FILE + HEAD + b"\r\nqwen" + END, FILE + HEAD + b"\r\n" + FORM_NEW + END),
    "before a file": Case(
        HEAD + b"\r\nqwen\r\n" + FILE + END[2:], HEAD + b"\r\n" + FORM_NEW + b"\r\n" + FILE + END[2:]
    ),
    "empty": Case(HEAD + b"\r\n" + END, HEAD + b"\r\n" + FORM_NEW + END),
    "already that": same(HEAD + b"\r\n" + FORM_NEW + END),
    "with a length": Case(
        HEAD + b"content-length:  4\r\nX: 4\r\n\r\nqwen" + END,
        HEAD + b"content-length:  %d\r\nX: 4\r\n\r\n" % len(FORM_NEW) + FORM_NEW + END,
    ),
    "twice": Case(
        HEAD + b"\r\nqwen\r\n" + HEAD + b"\r\nother" + END,
        HEAD + b"\r\n" + FORM_NEW + b"\r\n" + HEAD + b"\r\n" + FORM_NEW + END,
        duplicated=True,
    ),
    "missing": same(FILE + END[2:]),
    "a file": same(HEAD.replace(b'"model"', b'"model"; filename="a"') + b"\r\nqwen" + END, failed=True),
    "as large as can be": Case(HEAD + b"\r\n" + b"m" * 16384 + END, HEAD + b"\r\n" + FORM_NEW + END),
    "too large": same(HEAD + b"\r\n" + b"m" * 16385 + END, failed=True),
    "cut in the value": same(HEAD + b"\r\nqwen\r\n--x", failed=True),
    "malformed before": same(b"--xYz\r\n" + HEAD + b"\r\nqwen" + END, failed=True),
    "malformed behind": Case(HEAD + b"\r\nqwen\r\n--xY\nX", HEAD + b"\r\n" + FORM_NEW + b"\r\n--xY\nX", failed=True),
    "nothing": same(b""),
}


def check_form(pieces: list[bytes], case: Case) -> None:
    rewriter = MultipartRewriter(NAME, boundary_of(FORM_TYPE))
    assert feed(rewriter, pieces) == case.expected
    assert flags(rewriter) == (FORM_NEW in case.expected, False, case.duplicated, case.failed)


@pytest.mark.parametrize("case", FORMS.values(), ids=FORMS)
def test_rewrites_forms_in_any_chunking(case: Case) -> None:
    check_form([case.body], case)
    check_form(byte_by_byte(case.body), case)
    assert MultipartRewriter(NAME, b"xY").whole(case.body) == case.expected


@given(case=st.sampled_from(list(FORMS.values())), at=places)
def test_rewrites_forms_alike_in_random_pieces(case: Case, at: list[int]) -> None:
    check_form(cut(case.body, at), case)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"--xY", b"-", b"x", HEAD, FILE, END]), max_size=20), places)
def test_any_form_passes(tokens: list[bytes], at: list[int]) -> None:
    body = b"".join(tokens)
    rewriter, another = MultipartRewriter("new", b"xY"), MultipartRewriter("new", b"xY")
    assert feed(rewriter, cut(body, at)) == feed(another, [body])
    assert flags(rewriter) == flags(another)


def test_the_file_before_the_model_passes_as_it_is() -> None:
    rewriter = MultipartRewriter("new", b"xY")
    assert b"".join(rewriter.feed(FILE[:-6])) == FILE[:-6]
    piece = bytes(range(256)) * 256
    for _ in range(100):
        (sent,) = rewriter.feed(piece)
        assert sent is piece


def test_what_waits_of_a_form_is_bounded() -> None:
    rewriter = MultipartRewriter("new", b"xY")
    waiting = 0
    for piece in (HEAD + b"\r\n", *[b"m" * 1000] * 30):
        waiting += len(piece) - len(b"".join(rewriter.feed(piece)))
        assert waiting <= 16384 + len(HEAD)
    assert waiting == 0
    assert rewriter.failed
    rewriter = MultipartRewriter("new", b"xY")
    waiting = 0
    for piece in (b"--xY\r\n", *[b"X-Long: value\r\n"] * 1000):
        waiting += len(piece) - len(b"".join(rewriter.feed(piece)))
        assert waiting <= 8192
    assert waiting == 0
    assert rewriter.failed


REWRITERS = {
    "JSON": ("application/json", "", NAME, True, BodyRewriter, False),
    "no type": ("", "identity", None, True, BodyRewriter, False),
    "a form": (FORM_TYPE, "", NAME, True, MultipartRewriter, False),
    "a form without boundary": ("Multipart/form-data", "", NAME, True, MultipartRewriter, True),
    "a form as it is": (FORM_TYPE, "", None, True, Rewriter, False),
    "encoded": ("application/json", "gzip", NAME, False, Rewriter, True),
    "encoded as it is": ("application/json", "gzip", None, True, Rewriter, False),
}


@pytest.mark.parametrize(
    ("content_type", "encoding", "model", "ask_usage", "kind", "failed"), REWRITERS.values(), ids=REWRITERS
)
def test_chooses_a_rewriter(
    content_type: str, encoding: str, model: str | None, ask_usage: bool, kind: type[Rewriter], failed: bool
) -> None:
    rewriter = rewriter_of(content_type, encoding, model=model, ask_usage=ask_usage)
    assert type(rewriter) is kind
    assert rewriter.failed == failed


def test_what_cannot_be_rewritten_passes() -> None:
    for rewriter in (rewriter_of("multipart/form-data", "", model="m", ask_usage=False), Rewriter()):
        assert feed(rewriter, byte_by_byte(FORMS["twice"].body)) == FORMS["twice"].body


DELTA = b'data: {"choices":[{"delta":{"content":"\xe4\xbd\xa0"}}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAMS = {
    "before DONE": ([DELTA, USAGE, DONE], 1),
    "CRLF": ([e.replace(b"\n", b"\r\n") for e in (DELTA, USAGE, DONE)], 1),
    "no space, several lines": ([b'data:{"choices":[],\ndata:"usage":{"a":1}}\n\n', DONE], 0),
    "usage beside choices stays": ([b'data: {"choices":[{"delta":{}}],"usage":{"a":1}}\n\n', DONE], None),
    "empty choices without usage stays": ([b'data: {"choices":[],"usage":null}\n\n', DONE], None),
    "an error event stays": ([DELTA, b'data: {"error":{"message":"usage"}}\n\n'], None),
    "a large event": ([b'data: {"b64":"' + b"A" * 50000 + b'"}\n\n', USAGE, DONE], 1),
    "cut in an event": ([DELTA, b'data: {"choi'], None),
}


@pytest.mark.parametrize(("events", "withheld"), STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("step", [1, 2, 3, 50, 1 << 20])
def test_only_the_usage_chunk_is_withheld(events: list[bytes], withheld: int | None, step: int) -> None:
    kept = b"".join(e for i, e in enumerate(events) if i != withheld)
    stream, usage_filter = b"".join(events), UsageChunkFilter()
    out = b"".join(usage_filter.feed(stream[at : at + step]) for at in range(0, len(stream), step)) + usage_filter.end()
    assert out == kept
    assert usage_filter.withheld == (withheld is not None)


@given(st.lists(st.binary(max_size=30)), st.integers(1, 9))
def test_a_stream_without_usage_passes_as_it_is(pieces: list[bytes], step: int) -> None:
    stream = b"\n\n".join(pieces)
    usage_filter = UsageChunkFilter()
    out = b"".join(usage_filter.feed(stream[at : at + step]) for at in range(0, len(stream), step)) + usage_filter.end()
    assert out == stream


def test_whole_events_are_not_held_back() -> None:
    usage_filter = UsageChunkFilter()
    assert usage_filter.feed(DELTA) == DELTA
    assert usage_filter.feed(DELTA + b"da") == DELTA
    assert usage_filter.feed(b"ta: [DONE]\n\n") == DONE
