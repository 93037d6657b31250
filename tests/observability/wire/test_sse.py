"""wire.sse: one table, each stream whole, byte by byte and with more after it; then cut at random."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.wire.sse import NAME_BYTES_MAX, Item, Part, SseSplitter
from tests.observability.chunks import byte_by_byte, cut, places

Event = tuple[bytes, bytes, bool]
"""Name, data, and was it handed out in parts?"""


def joined(items: list[Item]) -> list[Event]:
    events: list[Event] = []
    parts: list[bytes] = []
    for name, data, part in items:
        if part is Part.WHOLE:
            assert not parts
            events.append((name, data, False))
        else:
            parts.append(data)
            if part is Part.LAST:
                events.append((name, b"".join(parts), True))
                parts.clear()
    return events


def split(pieces: list[bytes], *, end: bool = False, data_bytes_max: int = 100) -> list[Event]:
    splitter = SseSplitter(data_bytes_max=data_bytes_max)
    items = [item for piece in pieces for item in splitter.feed(piece)]
    if end:
        items += splitter.end()
    return joined(items)


STREAMS: list[tuple[str, bytes, list[Event]]] = [
    ("one", b"data: {}\n\n", [(b"", b"{}", False)]),
    ("no space", b"data:{}\n\n", [(b"", b"{}", False)]),
    ("only the first space goes", b"data:  {} \n\n", [(b"", b" {} ", False)]),
    (
        "several",
        b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n",
        [(b"", b"1", False), (b"", b"2", False), (b"", b"[DONE]", False)],
    ),
    ("CRLF", b"data: 1\r\n\r\nevent: x\r\ndata: 2\r\n\r\n", [(b"", b"1", False), (b"x", b"2", False)]),
    ("CR", b"data: 1\r\rdata: 2\r\r", [(b"", b"1", False), (b"", b"2", False)]),
    (
        "mixed line ends",
        b"data: 1\r\n\ndata: 2\n\r\ndata: 3\r\n\r",
        [(b"", b"1", False), (b"", b"2", False), (b"", b"3", False)],
    ),
    ("byte order mark", b"\xef\xbb\xbfdata: 1\n\n", [(b"", b"1", False)]),
    (
        "DashScope",
        b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{}\n\nid:2\nevent:result\n:HTTP_STATUS/200\ndata:[]\n\n",
        [(b"result", b"{}", False), (b"result", b"[]", False)],
    ),
    ("name after data", b"data: 1\nevent: late\n\ndata: 2\n\n", [(b"late", b"1", False), (b"", b"2", False)]),
    ("name without data", b"event: lost\n\ndata: 2\n\n", [(b"", b"2", False)]),
    ("the last name counts", b"event: a\nevent: b\ndata: 1\n\n", [(b"b", b"1", False)]),
    ("data lines", b"data: a\ndata:b\ndata\ndata: c\n\n", [(b"", b"a\nb\n\nc", False)]),
    ("empty data", b"data:\n\ndata\n\n", [(b"", b"", False), (b"", b"", False)]),
    ("comments", b": ping\n\n:\n\ndata: 1\n: between\n\n:keepalive\n\n", [(b"", b"1", False)]),
    ("other fields", b"retry: 3\nid: 7\nfoo: bar\ndatabase: x\nnothing\ndata: 1\n\n", [(b"", b"1", False)]),
    ("blank lines", b"\n\n\r\n\ndata: 1\n\n\n\n", [(b"", b"1", False)]),
    (
        "characters of several bytes",
        "data: 你好\n\nevent: ü\ndata: 🙂\n\n".encode(),
        [(b"", "你好".encode(), False), ("ü".encode(), "🙂".encode(), False)],
    ),
    (
        "at the cap",
        b"data: " + b"x" * 100 + b"\n\ndata:" + b"y" * 100 + b"\n\n",
        [(b"", b"x" * 100, False), (b"", b"y" * 100, False)],
    ),
    (
        "over the cap",
        b"data: " + b"x" * 101 + b"\n\ndata:" + b"y" * 101 + b"\n\n",
        [(b"", b"x" * 101, True), (b"", b"y" * 101, True)],
    ),
    (
        "far over the cap",
        b"event: big\ndata: " + b"x" * 5000 + b"\n\ndata: 1\n\n",
        [(b"big", b"x" * 5000, True), (b"", b"1", False)],
    ),
    (
        "lines together over the cap",
        b"data: " + b"x" * 60 + b"\ndata: " + b"y" * 60 + b"\ndata: z\nevent: e\n\n",
        [(b"e", b"x" * 60 + b"\n" + b"y" * 60 + b"\nz", True)],
    ),
    (
        "lines together at the cap",
        b"data: " + b"x" * 49 + b"\ndata: " + b"y" * 50 + b"\n\n",
        [(b"", b"x" * 49 + b"\n" + b"y" * 50, False)],
    ),
    ("a line feed over the cap", b"data: " + b"x" * 100 + b"\ndata:\n\n", [(b"", b"x" * 100 + b"\n", True)]),
    ("a space over the cap", b"data: " + b" " * 101 + b"\n\n", [(b"", b" " * 101, True)]),
    ("long comment", b": " + b"x" * 5000 + b"\ndata: 1\n\n", [(b"", b"1", False)]),
    ("long name", b"event: " + b"n" * 5000 + b"\ndata: 1\n\n", [(b"n" * NAME_BYTES_MAX, b"1", False)]),
    ("long line of no field", b"x" * 5000 + b"\ndata: 1\n\n", [(b"", b"1", False)]),
]


@pytest.mark.parametrize(("stream", "expected"), [case[1:] for case in STREAMS], ids=[case[0] for case in STREAMS])
def test_splits_in_any_chunking(stream: bytes, expected: list[Event]) -> None:
    assert split([stream]) == expected
    assert split(byte_by_byte(stream)) == expected
    more = stream + b"data: more\n\ndata: unfinished"
    assert split([more]) == [*expected, (b"", b"more", False)]
    assert split(byte_by_byte(more)) == [*expected, (b"", b"more", False)]


@given(stream=st.sampled_from([case[1] for case in STREAMS]), at=places)
def test_splits_alike_in_random_pieces(stream: bytes, at: list[int]) -> None:
    assert split(cut(stream, at)) == split([stream])


@given(st.text(alphabet="data:evnt \r\n\ufeff", max_size=80), places)
def test_any_text_is_split_alike(text: str, at: list[int]) -> None:
    stream = text.encode()
    assert split(cut(stream, at), end=True, data_bytes_max=8) == split(byte_by_byte(stream), end=True, data_bytes_max=8)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: [DONE]", [(b"", b"[DONE]", False)]),
        (b"event:x\ndata:1\r\n", [(b"x", b"1", False)]),
        (b"data: " + b"x" * 200, [(b"", b"x" * 200, True)]),
        (b"data: 1\n\n", [(b"", b"1", False)]),
        (b"event: x\n", []),
        (b"", []),
        (b"\xef\xbb", []),
    ],
)
def test_the_last_event_may_lack_its_blank_line(stream: bytes, expected: list[Event]) -> None:
    assert split([stream], end=True) == expected
    assert split(byte_by_byte(stream), end=True) == expected


@pytest.mark.parametrize("lead", [b"data: ", b": ", b"id:", b""])
def test_64_mb_in_one_line_pass_without_being_held(lead: bytes) -> None:
    splitter = SseSplitter()
    piece = b"A" * 65536
    data_bytes = 0
    splitter.feed(lead)
    tracemalloc.start()
    for _ in range(1024):
        data_bytes += sum(len(item.data) for item in splitter.feed(piece))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 500_000
    assert data_bytes == (64 << 20 if lead == b"data: " else 0)
