"""wire.multipart_fields: one table, each body whole, byte by byte and in random pieces; and bodies of two readings."""

import email
import email.policy
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from observability.wire.multipart_fields import HEAD_BYTES_MAX, PARTS_MAX, MultipartFields, boundary_of
from tests.observability.chunks import byte_by_byte, cut, places

NAMES = ("model", "n")
FILE = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png'


def part(head: bytes, value: bytes) -> bytes:
    return b"--B0\r\n" + head + b"\r\n\r\n" + value + b"\r\n"


def field(name: bytes, value: bytes) -> bytes:
    return part(b'Content-Disposition: form-data; name="' + name + b'"', value)


def disposition(parameters: bytes) -> bytes:
    return part(b"Content-Disposition: form-data; " + parameters, b"q") + END


END = b"--B0--\r\n"
MODEL = [("model", b"qwen")]

WHOLE: dict[str, tuple[bytes, list[tuple[str, bytes | None]]]] = {
    "fields and a file": (
        part(FILE, b"\r\n--B\r\n\r--B0 \n\r\n--b0\r\n") + field(b"model", b"qwen") + field(b"n", b"2") + END,
        [*MODEL, ("n", b"2")],
    ),
    "no end of line at the end": (field(b"model", b"qwen") + b"--B0--", MODEL),
    "preamble, padding, epilogue": (
        b"x\r\n" + field(b"model", b"qwen").replace(b"--B0", b"--B0 \t") + b"--B0-- \t\r\n" + field(b"model", b"late"),
        MODEL,
    ),
    "nothing": (END, []),
    "empty value": (field(b"model", b"") + END, [("model", b"")]),
    "lines in a value": (field(b"model", b"\r\n\r\r\n-\r\n--\r\n") + END, [("model", b"\r\n\r\r\n-\r\n--\r\n")]),
    "no UTF-8": (field(b"model", b"\xff\0") + END, [("model", b"\xff\0")]),
    "other names": (field(b"models", b"1") + field(b"Model", b"2") + field(b"model[]", b"3") + END, []),
    "name in the content of another": (field(b"x", b'Content-Disposition: form-data; name="model"') + END, []),
    "not quoted": (disposition(b"name=n"), [("n", b"q")]),
    "other order, case and spaces": (
        part(b'Content-Type: text/plain; charset=utf-8\r\ncontent-disposition:FORM-DATA ;NAME = "n" ; x="";', b"1")
        + END,
        [("n", b"1")],
    ),
    "no name": (part(b"Content-Disposition: form-data", b"1") + part(b"X: 1", b"2") + END, []),
    "no head": (b"--B0\r\n\r\n1\r\n" + END, []),
    "quotes in a file name": (
        part(b'Content-Disposition: form-data; name="file"; filename="a\\"b\\\\c.png"', b"1") + END,
        [],
    ),
    "a file": (disposition(b'name="model"; filename="x"'), [("model", None)]),
    "a file with another spelling": (disposition(b"name=\"model\"; filename*=utf-8''x"), [("model", None)]),
    "plain": (
        part(b'Content-Disposition: form-data; name="n"\r\nContent-Transfer-Encoding: 8BIT', b"1") + END,
        [("n", b"1")],
    ),
    "encoded": (
        part(b'Content-Disposition: form-data; name="n"\r\nContent-Transfer-Encoding: base64', b"MQ==") + END,
        [("n", None)],
    ),
    "twice": (
        field(b"model", b"a") + field(b"x", b"") + field(b"model", b"b") + END,
        [("model", b"a"), ("model", b"b")],
    ),
}


def scan(pieces: list[bytes], boundary: bytes = b"B0", **options: int) -> MultipartFields:
    fields = MultipartFields(boundary, NAMES, **options)
    for piece in pieces:
        fields.feed(piece)
    return fields


def facts(fields: MultipartFields) -> tuple[Any, ...]:
    found = fields.fields, fields.duplicates, fields.document_end, fields.complete, fields.failed, fields.offset
    return *found, fields.open_name, fields.open_lost, fields.part_start


@pytest.mark.parametrize(("body", "expected"), WHOLE.values(), ids=WHOLE)
def test_finds_fields_in_any_chunking(body: bytes, expected: list[tuple[str, bytes | None]]) -> None:
    whole = scan([body])
    assert [(found.name, found.raw) for found in whole.fields] == expected
    assert whole.complete
    assert not whole.failed
    assert whole.document_end is not None
    assert body[: whole.document_end].endswith(b"--B0--")
    for found in whole.fields:
        assert found.raw is None or body[found.start : found.end] == found.raw
        assert body[found.end :].startswith(b"\r\n--B0")
    assert facts(scan(byte_by_byte(body))) == facts(whole)


@given(case=st.sampled_from(list(WHOLE.values())), at=places)
def test_finds_the_same_in_random_pieces(case: tuple[bytes, Any], at: list[int]) -> None:
    assert facts(scan(cut(case[0], at))) == facts(scan([case[0]]))


def test_tells_duplicates() -> None:
    assert scan([WHOLE["twice"][0]]).duplicates == {"model"}
    assert scan([WHOLE["fields and a file"][0]]).duplicates == set()


GOOD = field(b"model", b"q") + END
AMBIGUOUS = {
    "bare line feed before the boundary": field(b"x", b"1\n--B0") + END,
    "bare line feed in front of it all": b"\n" + GOOD,
    "bare line feeds": GOOD.replace(b"\r\n", b"\n"),
    "bare line feed in a head": GOOD.replace(b"; name", b";\n name"),
    "bare carriage return in a head": GOOD.replace(b"; name", b";\r name"),
    "NUL in a head": GOOD.replace(b"; name", b";\0 name"),
    "boundary right behind a head": b'--B0\r\nContent-Disposition: form-data; name="x"\r\n\r\n--B0\r\n' + GOOD,
    "boundary in a head": b"--B0\r\nX: 1\r\n" + GOOD,
    "text behind the boundary": GOOD.replace(b"--B0\r\n", b"--B0x\r\n"),
    "a dash behind the boundary": GOOD.replace(b"--B0\r\n", b"--B0-\r\n"),
    "text behind the end": GOOD[:-2] + b"x\r\n",
    "folded": GOOD.replace(b"; name", b";\r\n name"),
    "no colon": GOOD.replace(b"Content-Disposition:", b"Content-Disposition"),
    "space before the colon": GOOD.replace(b"Content-Disposition:", b"Content-Disposition :"),
    "two dispositions": GOOD.replace(b"Content-D", b'Content-Disposition: form-data; name="x"\r\nContent-D'),
    "two names": disposition(b'name="model"; name="x"'),
    "a name in pieces": disposition(b'name*0="mod"; name*1="el"'),
    "an encoded name": disposition(b"name*=utf-8''model"),
    "two kinds of name": disposition(b"name=\"x\"; name*=utf-8''model"),
    "an escaped name": disposition(rb'name="mod\el"'),
    "a name in a file name": disposition(rb'name="x"; filename="a\"; name=\"model"'),
    "a name in an open quote": disposition(rb'name="x"; filename="\"; name="model"'),
    "a name without a semicolon": disposition(b'name="x" name="model"'),
    "text behind a quote": disposition(b'name="model"x'),
    "an open quote": disposition(b'name="model'),
    "a parameter without a value": disposition(b'name="model"; x'),
    "a head without end": b"--B0\r\nX: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n",
    "too many parts": b"--B0\r\n\r\n\r\n" * (PARTS_MAX + 1),
}


@pytest.mark.parametrize("body", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_bodies_that_servers_read_differently_fail(body: bytes) -> None:
    whole = scan([body])
    assert whole.failed
    assert not whole.complete
    assert whole.part_start is None
    assert [found for found in whole.fields if found.name == "model"] in ([], scan([GOOD]).fields)
    assert facts(scan(byte_by_byte(body))) == facts(whole)
    assert facts(scan([body, GOOD])) == (*facts(whole)[:5], len(body + GOOD), *facts(whole)[6:])


def test_the_limits_are_what_they_say() -> None:
    head = b'Content-Disposition: form-data; name="n"; x='
    longest = head + b"x" * (HEAD_BYTES_MAX - len(head) - 5)
    assert scan([part(longest, b"1") + END]).complete
    assert scan([b"--B0\r\n\r\n\r\n" * (PARTS_MAX - 1) + END]).complete


@pytest.mark.parametrize("body", [GOOD[:-4], GOOD[:-8], GOOD[:30], b"", b"x", b"--B"])
def test_a_cut_body_is_neither_complete_nor_malformed(body: bytes) -> None:
    assert not scan([body]).complete
    assert not scan([body]).failed


@given(st.lists(st.sampled_from([b"\r", b"\n", b"--B0", b"-", b"B", b"x", GOOD[6:-10]]), max_size=30), places)
@example([b"\r", b"\n", b"\r", b"\n", b"--B0"], [1, 2])
def test_any_structure_is_survived_alike(tokens: list[bytes], at: list[int]) -> None:
    body = b"--B0\r\n" + b"".join(tokens)
    assert facts(scan(cut(body, at))) == facts(scan([body])) == facts(scan(byte_by_byte(body)))


TOKENS = [
    b"\r\n",
    b"--B0",
    b"--",
    b"\r\n--B0\r\n",
    b"\r\n\r\n",
    b"x",
    b"; ",
    b'name="model"',
    b'filename="a"',
    b'"',
    END,
]
TOKENS += [
    field(b"model", b"qwen"),
    field(b"x", b"1"),
    b"Content-Disposition: form-data; name=model",
    b"Content-Length: 4",
]


@given(st.lists(st.sampled_from(TOKENS), max_size=12))
def test_another_reader_finds_the_same_models(tokens: list[bytes]) -> None:
    body = b"--B0\r\n" + b"".join(tokens)
    fields = scan([body + b"\r\n" + END])
    if not fields.complete:
        return
    head = b"Content-Type: multipart/form-data; boundary=B0\r\n\r\n"
    message = email.message_from_bytes(head + body + b"\r\n" + END, policy=email.policy.HTTP)
    found = []
    for one in message.iter_parts():
        name = one.get_param("name", header="content-disposition")
        if name == "model":
            found.append(one.get_payload(decode=True))
    assert found == [one.raw if one.raw is not None else body[one.start : one.end] for one in fields.fields]


def test_values_over_their_cap_are_noted_and_not_kept() -> None:
    body = field(b"model", b"12345678") + field(b"n", b"1") + END
    for pieces in ([body], byte_by_byte(body)):
        assert [found.raw for found in scan(pieces, value_bytes_max=7).fields] == [None, b"1"]
        assert [found.raw for found in scan(pieces, value_bytes_max=8).fields] == [b"12345678", b"1"]


def test_tells_what_is_open() -> None:
    body = field(b"x", b"1") + field(b"model", b"qwen") + END
    heads = [body.index(b"\r\nContent"), body.rindex(b"\r\nContent")]
    value = body.index(b"qwen")
    fields = MultipartFields(b"B0", NAMES)
    for at, piece in enumerate(byte_by_byte(body), 1):
        fields.feed(piece)
        in_value = value <= at < body.index(b"--B0--") + 4
        assert fields.open_name == ("model" if in_value else None)
        assert not fields.open_lost
        if heads[0] <= at < body.index(b"1\r\n"):
            assert fields.part_start == heads[0]
        elif heads[1] <= at and (at < value or in_value):
            assert fields.part_start == heads[1]
        elif at < heads[0] or body.index(b"1\r\n") <= at < heads[1]:
            assert fields.part_start is None


def test_a_file_in_the_place_of_a_value_is_known_at_once() -> None:
    fields = scan([WHOLE["a file"][0].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"])
    assert (fields.open_name, fields.open_lost) == ("model", True)


def test_finds_the_length_that_a_part_says_it_has() -> None:
    body = part(b'content-length: 4 \r\nContent-Disposition: form-data; name="model"', b"qwen") + END
    for pieces in ([b"x\r\n" + body], byte_by_byte(b"x\r\n" + body)):
        (found,) = scan(pieces).fields
        assert found.length is not None
        assert (b"x\r\n" + body)[slice(*found.length)] == b"4"


BOUNDARIES = {
    "multipart/form-data; boundary=abc": b"abc",
    'Multipart/Form-Data ;charset=utf-8; BOUNDARY="a b?" ': b"a b?",
    "multipart/form-data; boundary=----WebKitForm7MA4YWxkTrZu0gW; x=y;": b"----WebKitForm7MA4YWxkTrZu0gW",
    "multipart/form-data; boundary===a/b:(c),'+.=": b"==a/b:(c),'+.=",
    "multipart/form-data; boundary=" + "b" * 70: b"b" * 70,
    "multipart/form-data; boundary=" + "b" * 71: None,
    "multipart/form-data; boundary=": None,
    'multipart/form-data; boundary=""': None,
    'multipart/form-data; boundary="a "': None,
    'multipart/form-data; boundary="a\\b"': None,
    'multipart/form-data; boundary="a': None,
    "multipart/form-data; boundary=a b": None,
    "multipart/form-data; boundary=a; boundary=b": None,
    "multipart/form-data; boundary=a, multipart/form-data; boundary=b": None,
    "multipart/form-data; boundary*0=a; boundary*1=b": None,
    "multipart/form-data; boundary=a; boundary*=utf-8''b": None,
    "multipart/form-data; boundary=\xe9": None,
    "multipart/form-data": None,
    "multipart/mixed; boundary=abc": None,
    "application/json": None,
    "": None,
}


@pytest.mark.parametrize(("content_type", "boundary"), BOUNDARIES.items())
def test_reads_the_boundary(content_type: str, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary


@given(st.text(max_size=80))
def test_any_content_type_is_survived(text: str) -> None:
    assert boundary_of("multipart/form-data" + text) is None or "boundary" in text.lower()


@given(boundary=st.from_regex(rb"[-0-9A-Za-z'()+_,./:=?]{1,70}", fullmatch=True), at=places)
def test_any_boundary_delimits(boundary: bytes, at: list[int]) -> None:
    body = field(b"file", b"\r\n-" * 30) + field(b"model", b"qwen") + END
    body = body.replace(b"--B0", b"--" + boundary)
    fields = scan(cut(body, at), boundary)
    assert fields.complete
    assert [found.raw for found in fields.fields] == [b"qwen"]


@pytest.mark.parametrize("piece_bytes", [65536, 1 << 20])
def test_the_model_behind_a_file_of_64_mb_is_found_without_holding_it(piece_bytes: int) -> None:
    piece = bytes(range(256)) * (piece_bytes // 256)
    fields = MultipartFields(b"B0", NAMES)
    fields.feed(b"--B0\r\n" + FILE + b"\r\n\r\n")
    tracemalloc.start()
    for _ in range((64 << 20) // piece_bytes):
        fields.feed(piece)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    fields.feed(b"\r\n" + field(b"model", b"qwen") + END)
    assert [found.raw for found in fields.fields] == [b"qwen"]
    assert peak_bytes < 20_000
