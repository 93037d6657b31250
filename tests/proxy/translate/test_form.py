"""Forms, cut anyhow: the parts come out as they went in; what could be read in two ways does not come out at all."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.translate.form import PARTS_MAX, FormError, FormReader, Part, PartEnd
from tests.observability.chunks import byte_by_byte, cut, places

BOUNDARY = b"X-b.1"

Read = tuple[str, bool, bytes, bytes]
"""Name, is it a file, its type, its content."""


def read(pieces: Sequence[bytes], boundary: bytes = BOUNDARY) -> list[Read]:
    """All parts, whole. FormError where the body does not end."""
    reader = FormReader(boundary)
    parts: list[Read] = []
    part: Part | None = None
    content = b""
    for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, Part):
                assert part is None
                part, content = event, b""
            elif isinstance(event, PartEnd):
                assert part is not None
                parts.append((part.name, part.is_file, part.content_type, content))
                part = None
            else:
                assert part is not None
                assert event
                content += event
    if not reader.complete:
        raise FormError("it does not end")
    return parts


def written(parts: Sequence[tuple[str, bytes | None, bytes]], boundary: bytes = BOUNDARY) -> bytes:
    """A body: name, type (None: a field, else a file) and content of each part."""
    out = b""
    for name, kind, content in parts:
        file = b"" if kind is None else b'; filename="a \\"b\\";name.png"'
        head = b'Content-Disposition: form-data; name="%b"%b\r\n' % (name.encode(), file)
        head += b"Content-Type: %b\r\n" % kind if kind else b""
        out += b"--%b\r\n%b\r\n%b\r\n" % (boundary, head, content)
    return out + b"--%b--\r\n" % boundary


PARTS: list[tuple[str, bytes | None, bytes]] = [
    ("prompt", None, "Ein Hörnchen\r\n\r\n--".encode()),
    ("image[]", b"image/png", bytes(range(256)) * 3),
    ("empty", None, b""),
    ("image[]", b"", b"\r\n--X-b" + b"\r" * 9 + b"\n--X-b.\r\n"),
]
WHOLE = written(PARTS)
EXPECTED = [(name, kind is not None, kind or b"", content) for name, kind, content in PARTS]


def test_whole_and_byte_by_byte() -> None:
    assert read([WHOLE]) == EXPECTED
    assert read(byte_by_byte(WHOLE)) == EXPECTED
    assert read([WHOLE, b"\r\n"]) == EXPECTED
    assert read([b"\r\n" + WHOLE]) == read(byte_by_byte(b"\r\n" + WHOLE)) == EXPECTED


@given(
    st.lists(st.tuples(st.sampled_from(("a", "image[]")), st.none() | st.just(b"image/png"), st.binary(max_size=60))),
    places,
)
@example([("a", None, b"\r\n--X-b"), ("a", b"x/y", b"\r")], [1, 2, 3])
def test_any_content_cut_anywhere(parts: list[tuple[str, bytes | None, bytes]], at: list[int]) -> None:
    body = written(parts)
    expected = [(name, kind is not None, kind or b"", content) for name, kind, content in parts]
    assert read(cut(body, at)) == expected


@given(st.binary(max_size=300), places)
def test_anything_else_is_refused_or_read_alike(body: bytes, at: list[int]) -> None:
    def outcome(pieces: Sequence[bytes]) -> list[Read] | None:
        try:
            return read(pieces)
        except FormError:
            return None

    assert outcome([body]) == outcome(cut(body, at)) == outcome(byte_by_byte(body))


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=3), places)
def test_one_change_gives_one_reading(at: int, by: bytes, where: list[int]) -> None:
    body = WHOLE[:at] + by + WHOLE[at + 1 :]

    def outcome(pieces: Sequence[bytes]) -> list[Read] | None:
        try:
            return read(pieces)
        except FormError:
            return None

    assert outcome([body]) == outcome(cut(body, where))


HEAD = b'--X-b.1\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
REFUSED = {
    "nothing": b"",
    "cut in a head": HEAD[:-2],
    "cut in the content": HEAD + b"abc",
    "cut in the last delimiter": HEAD + b"abc\r\n--X-b.1-",
    "another boundary": WHOLE.replace(b"X-b.1", b"X-b.2"),
    "a preamble": b"hello\r\n" + WHOLE,
    "two line ends in front": b"\r\n\r\n" + WHOLE,
    "half of one": b"\n" + WHOLE,
    "an epilogue": WHOLE + b"bye",
    "a form behind the form": WHOLE + WHOLE,
    "a longer boundary": HEAD + b"abc\r\n--X-b.10\r\n" + HEAD + b"\r\n--X-b.1--\r\n",
    "no line end behind a boundary": HEAD.replace(b"b.1\r\n", b"b.1XY") + b"x\r\n--X-b.1--\r\n",
    "padding behind a boundary": HEAD.replace(b"b.1\r", b"b.1 \r") + b"x\r\n--X-b.1--\r\n",
    "a bare line feed behind it": HEAD.replace(b"b.1\r\n", b"b.1\n") + b"x\r\n--X-b.1--\r\n",
    "no head": b"--X-b.1\r\n\r\nabc\r\n--X-b.1--\r\n",
    "no name": HEAD.replace(b'; name="a"', b"") + b"x\r\n--X-b.1--\r\n",
    "two names": HEAD.replace(b'name="a"', b'name="a"; name="b"') + b"x\r\n--X-b.1--\r\n",
    "two dispositions": HEAD.replace(b"\r\n\r\n", b'\r\nContent-Disposition: form-data; name="b"\r\n\r\n')
    + b"x\r\n--X-b.1--\r\n",
    "another disposition": HEAD.replace(b"form-data", b"attachment") + b"x\r\n--X-b.1--\r\n",
    "a folded line": HEAD.replace(b'; name="a"', b';\r\n name="a"') + b"x\r\n--X-b.1--\r\n",
    "a space before the colon": HEAD.replace(b"tion:", b"tion :") + b"x\r\n--X-b.1--\r\n",
    "base64": HEAD.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + b"x\r\n--X-b.1--\r\n",
    "a head without end": b"--X-b.1\r\nA: " + b"x" * 9000 + b"\r\n\r\nx\r\n--X-b.1--\r\n",
    "too many parts": written([("a", None, b"")] * (PARTS_MAX + 1)),
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=list(REFUSED))
def test_what_is_refused(body: bytes) -> None:
    for pieces in ([body], cut(body, list(range(0, len(body), 7)))):
        with pytest.raises(FormError):
            read(pieces)


def test_as_many_parts_as_may_be() -> None:
    assert len(read([written([("a", None, b"")] * PARTS_MAX)])) == PARTS_MAX


def test_little_is_held() -> None:
    reader = FormReader(BOUNDARY)
    reader.feed(HEAD)
    for piece in (b"x" * 65536, b"\r\n--X-b." * 9000, b"\r" * 65536):
        out = b"".join(event for event in reader.feed(piece) if isinstance(event, bytes))
        assert len(piece) - len(out) <= len(BOUNDARY) + 4 + 10  # what was held before comes with it
