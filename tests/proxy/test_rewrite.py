"""Asking for usage and withholding the chunk that answers."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rewrite import UsageChunkFilter, ask_for_usage

ASKED = {
    "no options": (
        b'{"model":"m","stream":true}',
        b'{"stream_options":{"include_usage":true},"model":"m","stream":true}',
    ),
    "white space and BOM-free start": (
        b' { "stream": true}',
        b' {"stream_options":{"include_usage":true}, "stream": true}',
    ),
}
MERGED = {
    "null": b'{"stream":true,"stream_options":null}',
    "empty": b'{"stream":true,"stream_options":{}}',
    "false": b'{"stream":true,"stream_options":{"include_usage":false}}',
    "others are kept": b'{"stream":true,"stream_options":{"x":[1]},"model":"\xc3\xa9"}',
}
LEFT = {
    "asks already": b'{"stream":true,"stream_options":{"include_usage":true}}',
    "no stream": b'{"model":"m"}',
    "stream false": b'{"model":"m","stream":false}',
    "stream nested only": b'{"a":{"stream":true}}',
    "stream of another type": b'{"stream":1}',
    "options of another type": b'{"stream":true,"stream_options":[]}',
    "no object": b'["stream"]',
    "no JSON": b'{"stream":true',
}


@pytest.mark.parametrize(("body", "asked"), ASKED.values(), ids=ASKED)
def test_the_option_is_put_in_front_and_nothing_else_changes(body: bytes, asked: bytes) -> None:
    assert ask_for_usage(body) == asked


@pytest.mark.parametrize("body", MERGED.values(), ids=MERGED)
def test_options_without_it_are_completed(body: bytes) -> None:
    asked = ask_for_usage(body)
    assert asked is not None
    document = orjson.loads(body)
    options = document["stream_options"] or {}
    assert orjson.loads(asked) == {**document, "stream_options": {**options, "include_usage": True}}


@pytest.mark.parametrize("body", LEFT.values(), ids=LEFT)
def test_other_bodies_stay(body: bytes) -> None:
    assert ask_for_usage(body) is None


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
