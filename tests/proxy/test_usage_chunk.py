"""Withholding the usage chunk from streams of any line ends, cut anywhere, in time that grows with their bytes."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rewrite import MAX_HELD_EVENT_BYTES, UsageChunkFilter

DELTA = b'data: {"choices":[{"delta":{"content":"\xe4\xbd\xa0"}}],"usage":null}\n\n'


def filtered(pieces: list[bytes]) -> tuple[bytes, int, int]:
    """What passed, the chunks withheld, and the most bytes that waited."""
    usage_filter, out, most = UsageChunkFilter(), b"", 0
    fed = 0
    for piece in pieces:
        out += usage_filter.feed(piece)
        fed += len(piece)
        if not usage_filter.withheld:
            most = max(most, fed - len(out))
    return out + usage_filter.end(), usage_filter.withheld, most


BODIES = [
    b'data: {"choices":[{"delta":{"content":"\\n\\n"}}],"usage":null}',
    b'data: {"choices": [ ], "usage": {"prompt_tokens": 1}}',
    b'id: 1\ndata: {"choices":[],\ndata: "usage":{"a":{}}}',
    b'id: 1\r\ndata: {"choices":[],\r\ndata: "usage":{"a":{}}}\r\nretry: 3',
    b'data: {"choices":[],"usage":null}',
    b'data: {"choices":[{}],"usage":{"a":1}}',
    b'data: {"choices":[],"usage":{"a":1}',
    b": ping",
    b"data: [DONE]",
    b'data: {"choices":[],"usage":{"b64":"' + b"A" * (MAX_HELD_EVENT_BYTES - 50) + b'"}}',
    b'data: {"choices":[],"usage":{"b64":"' + b"A" * MAX_HELD_EVENT_BYTES + b'"}}',
]
WITHHELD = {BODIES[1], BODIES[2], BODIES[3], BODIES[9]}
BLANKS = [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n"]


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(stream), *(c % (len(stream) + 1) for c in cuts)})
    return [stream[a:b] for a, b in itertools.pairwise(at)]


@given(
    st.lists(st.tuples(st.sampled_from(BODIES), st.sampled_from(BLANKS)), max_size=12),
    st.lists(st.integers(0, 1 << 20), max_size=12),
)
def test_any_cut_of_any_stream(events: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(body + blank for body, blank in events)
    kept = b"".join(body + blank for body, blank in events if body not in WITHHELD)
    out, withheld, most = filtered(cut(stream, cuts))
    assert (out, withheld) == (kept, sum(body in WITHHELD for body, _ in events))
    assert most <= MAX_HELD_EVENT_BYTES


ALPHABET = (b"\n", b"\r", b'data: {"choices":[],"usage":{}}', b"data: 1")


@given(st.lists(st.sampled_from(ALPHABET), max_size=25).map(b"".join), st.lists(st.integers(0, 200), max_size=8))
def test_cuts_change_nothing_whatever_the_line_ends(stream: bytes, cuts: list[int]) -> None:
    assert filtered(cut(stream, cuts))[:2] == filtered([stream])[:2] == filtered(cut(stream, list(range(999))))[:2]


@pytest.mark.parametrize("event", [b": ping\n\n", b":\r\n\r\n", b":\r\r", DELTA, b'data: "usage"\n\n'])
def test_the_work_grows_with_the_bytes_only(event: bytes) -> None:
    """Eight times the bytes in one piece: about eight times the work, where a look ahead in each event makes it 64."""

    def least_s(size: int) -> float:
        piece, times = event * (size // len(event)), []
        for _ in range(7):
            began = time.process_time()
            UsageChunkFilter().feed(piece)
            times.append(time.process_time() - began)
        return min(times)

    assert least_s(131072) < 24 * least_s(16384)
