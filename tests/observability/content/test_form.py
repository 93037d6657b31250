"""The form keeper in pieces, against a form that was made of known parts."""

import base64
import hashlib
import json
import random

from hypothesis import given
from hypothesis import strategies as st

from observability.content.form import PART_BYTES, FormKeeper
from observability.content.keepers import RECORDED, limits_of
from observability.wire.media import Media
from observability.wire.sift import read_note
from tests.observability.chunks import byte_by_byte, cut, places

MARK = b"ab" * 16
PARTS = st.lists(
    st.tuples(st.booleans(), st.binary(max_size=300).filter(lambda data: b"--BOUND" not in data)), max_size=5
)


def form(parts: list[tuple[bool, bytes]]) -> bytes:
    lines = []
    for number, (is_file, data) in enumerate(parts):
        head = f'--BOUND\r\nContent-Disposition: form-data; name="f{number}"'
        head += '; filename="a.png"\r\nContent-Type: image/x-test' if is_file else ""
        lines.append(head.encode() + b"\r\n\r\n" + data + b"\r\n")
    return b"".join(lines) + b"--BOUND--\r\n"


def kept(pieces: list[bytes], content_max_bytes: int = 65536) -> tuple[FormKeeper, list[list[str]]]:
    keeper = FormKeeper(limits_of(MARK, content_max_bytes), b"BOUND")
    for piece in pieces:
        keeper.feed(piece)
    return keeper, json.loads(keeper.contents())


def note_of(text: str) -> Media | int:
    return read_note(text.partition("\0" + MARK.decode())[2])


@given(parts=PARTS, where=places)
def test_files_are_facts_and_fields_are_text(parts, where):
    keeper, fields = kept(cut(form(parts), where))
    assert not keeper.cut
    assert [name for name, _ in fields] == [f"f{number}" for number in range(len(parts))]
    for (is_file, data), (_, said) in zip(parts, fields, strict=True):
        if is_file:
            assert note_of(said) == Media("image/x-test", len(data), hashlib.sha256(data).hexdigest())
        else:
            assert said == data.decode("utf-8", "replace").replace("\0", " ")


def test_byte_by_byte():
    _, fields = kept(byte_by_byte(form([(False, b"a\r\n--BOUN"), (True, b""), (False, b"")])))
    assert fields[0][1] == "a\r\n--BOUN"
    assert note_of(fields[1][1]).bytes == 0
    assert fields[2][1] == ""


def test_a_form_that_was_cut_says_so():
    keeper, fields = kept([form([(False, b"x" * 50), (True, b"y" * 5000)])[:-3000]])
    assert keeper.cut
    assert note_of(fields[1][1]).sha256 == ""


def test_long_fields_keep_their_beginning():
    keeper, fields = kept([form([(False, b"x" * 20_000)])], content_max_bytes=100)
    text, _, _ = fields[0][1].partition("\0")
    assert len(text) == 4196
    assert note_of(fields[0][1]) == 20_000 - 4196
    assert not keeper.cut


@given(where=places, size=st.sampled_from([0, 10, 1000, 5000, 200_000]), declared=st.booleans())
def test_a_field_that_is_base64_is_the_facts_of_a_file(where, size, declared):
    data = random.Random(size).randbytes(size)
    said = (b"data:image/x-test;base64," if declared else b"") + base64.b64encode(data)
    keeper, fields = kept(cut(form([(False, said), (False, b"a cat")]), where))
    if declared or size >= 1000:
        assert note_of(fields[0][1])[1:3] == (size, hashlib.sha256(data).hexdigest())
    assert fields[1] == ["f1", "a cat"]
    assert not keeper.cut


def test_parts_are_counted():
    keeper, _ = kept([form([(False, b"")] * 200)])
    assert keeper._held_bytes >= 200 * PART_BYTES
    del keeper
    assert RECORDED.held_bytes == 0


@given(raw=st.binary(max_size=300), where=places)
def test_what_is_no_form_does_no_harm(raw, where):
    kept(cut(b"--BOUND" + raw, where))
