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


def disposition_of(name: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"'


def field(name: bytes, value: bytes) -> bytes:
    return part(disposition_of(name), value)


def disposition(parameters: bytes) -> bytes:
    return part(b"Content-Disposition: form-data; " + parameters, b"q") + END


END = b"--B0--\r\n"
MODEL = [("model", b"qwen")]

WHOLE: dict[str, tuple[bytes, list[tuple[str, bytes | None]]]] = {
    "fields and a file": (
        part(FILE, b"\r\n--B\r\n\r--B \n\r\n--b0\r\n\r\n-B0-B0") + field(b"model", b"qwen") + field(b"n", b"2") + END,
        [*MODEL, ("n", b"2")],
    ),
    "no end of line at the end": (field(b"model", b"qwen") + b"--B0--", MODEL),
    "end of line, padding, epilogue": (
        b"\r\n" + field(b"model", b"qwen").replace(b"--B0", b"--B0 \t") + b"--B0-- \t\r\nx--B--b0\r\n-B0",
        MODEL,
    ),
    "nothing": (END, []),
    "empty value": (field(b"model", b"") + END, [("model", b"")]),
    "lines in a value": (field(b"model", b"\r\n\r\r\n-\r\n--\r\n") + END, [("model", b"\r\n\r\r\n-\r\n--\r\n")]),
    "no UTF-8": (field(b"model", b"\xff\0") + END, [("model", b"\xff\0")]),
    "other names": (
        field(b"models", b"1") + field(b"mo del", b"2") + field(b"image[]", b"3") + field("型".encode(), b"4") + END,
        [],
    ),
    "name in the content of another": (field(b"x", b'Content-Disposition: form-data; name="model"') + END, []),
    "not quoted": (disposition(b"name=n"), [("n", b"q")]),
    "other order, case and spaces": (
        part(b'Content-Type: text/plain; charset=utf-8\r\ncontent-disposition:FORM-DATA ;NAME = "n" ; x="";', b"1")
        + END,
        [("n", b"1")],
    ),
    "no name": (part(b"Content-Disposition: form-data", b"1") + END, []),
    "another kind of disposition": (part(b'Content-Disposition: attachment; name="x"', b"1") + END, []),
    "charsets": (
        part(b'Content-Type: text/plain; charset="ISO-8859-1"\r\n' + disposition_of(b"model"), b"qwen")
        + part(disposition_of(b"n") + b"\r\nContent-Type: text/plain; Charset=UTF-8", b"\xc3\xa9")
        + part(b"Content-Type: text/plain; charset=us-ascii\r\n" + disposition_of(b"x"), b"\xe9")
        + END,
        [*MODEL, ("n", b"\xc3\xa9")],
    ),
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


def behind(*parts: bytes) -> bytes:
    """A form with a good model and these parts behind it."""
    return b"".join((GOOD[: -len(END)], *parts, END))


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
    "a part behind the end": GOOD + GOOD,
    "a part behind the end, in a line": GOOD + b"x" * 80 + GOOD,
    "another end": GOOD + b"\r\n" + END,
    "boundary in a line": behind(field(b"x", b"xx--B0\r\n" + disposition_of(b"model") + b"\r\n\r\nlate")),
    "boundary in the line of a file": behind(part(FILE, b"x" * 80 + b"--B0")),
    "boundary with the wrong line end": behind(part(FILE, b"x\n\r--B0")),
    "boundary behind a carriage return": behind(field(b"x", b"xx\r--B0\r" + disposition_of(b"model") + b"\r\rlate")),
    "boundary in the value itself": field(b"model", b"q--B0\r\n") + END,
    "boundary in a line in front of it all": b"junk " + GOOD,
    "something in front of it all": b"x\r\n" + GOOD,
    "a part in front of it all": b"x" * 99 + disposition_of(b"model") + b"\r\n\r\nearly\r\n" + GOOD,
    "a head that is not UTF-8": behind(field(b"\xe5", b"")),
    "a longer boundary": behind(field(b"x", b"1\r\n--B0B0\r\n")),
    "no disposition": behind(part(b"Content-Type: text/plain; name=model", b"late")),
    "a disposition behind an empty head": behind(b"--B0\r\n\r\n" + disposition_of(b"model") + b"\r\n\r\nlate\r\n"),
    "another disposition": part(b'Content-Disposition: attachment; name="model"', b"q") + END,
    "a space before a name": behind(field(b" model", b"late")),
    "a tab behind a name": behind(field(b"model\t", b"late")),
    "a space of another alphabet": behind(field("\u3000model".encode(), b"late")),
    "a space of Latin-1": behind(field(b"model\xa0", b"late")),
    "a name in upper case": behind(field(b"Model", b"late")),
    "a name in apostrophes": behind(field(b"'model'", b"late")),
    "a name with an index": behind(field(b"model[0]", b"late")),
    "a line end of another alphabet in a head": behind(part(disposition_of(b"x") + b"\r\nX: 1\x1cY: 2", b"")),
    "two transfer encodings": part(
        disposition_of(b"model") + b"\r\nContent-Transfer-Encoding: base64\r\ncontent-transfer-encoding: 7bit", b"bQ=="
    )
    + END,
    "two types": behind(part(b"Content-Type: text/plain\r\nContent-Type: text/plain\r\n" + disposition_of(b"x"), b"")),
    "two lengths": part(b"Content-Length: 1\r\nContent-Length: 2\r\n" + disposition_of(b"model"), b"q") + END,
    "parts in a part": behind(part(disposition_of(b"x") + b"\r\nContent-Type: Multipart/Mixed; boundary=i", b"")),
    "a message in a part": behind(part(disposition_of(b"x") + b"\r\nContent-Type: message/rfc822", b"")),
    "utf-7": part(disposition_of(b"model") + b"\r\nContent-Type: text/plain; charset=utf-7", b"+AGY-") + END,
    "utf-16 elsewhere": behind(part(disposition_of(b"x") + b'\r\nContent-Type: text/plain;CharSet="utf-16"', b"")),
    "two charsets": behind(
        part(disposition_of(b"x") + b'\r\nContent-Type: text/plain; x="; charset=utf-7"; charset=utf-8', b"")
    ),
    "a charset in pieces": behind(part(disposition_of(b"x") + b"\r\nContent-Type: text/plain; charset*0=utf-7", b"")),
    "a charset of an unclear type": behind(
        part(disposition_of(b"x") + b"\r\nContent-Type: a/b; x y; charset=utf-8", b"")
    ),
    "a value that is another in its charset": part(
        disposition_of(b"model") + b"\r\nContent-Type: text/plain; charset=iso-8859-1", b"\xc3\xa9"
    )
    + END,
    "a charset of the form": behind(field(b"_charset_", b"utf-7")),
    "a charset of the form, in other letters": behind(field(b" _Charset_", b"utf-7")),
    "a head without end": b"--B0\r\nX: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n",
    "too many parts": field(b"x", b"") * (PARTS_MAX + 1),
}


@pytest.mark.parametrize("body", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_bodies_that_servers_read_differently_fail(body: bytes) -> None:
    whole = scan([body])
    assert whole.failed
    assert not whole.complete
    assert whole.part_start is None
    assert [found for found in whole.fields if found.name == "model"] in ([], scan([GOOD]).fields)
    assert facts(scan(byte_by_byte(body))) == facts(whole)
    for at in range(max(0, len(body) - 300), len(body)):
        assert facts(scan([body[:at], body[at:]])) == facts(whole)
    assert facts(scan([body, GOOD])) == (*facts(whole)[:5], len(body + GOOD), *facts(whole)[6:])


def test_the_limits_are_what_they_say() -> None:
    head = b'Content-Disposition: form-data; name="n"; x='
    longest = head + b"x" * (HEAD_BYTES_MAX - len(head) - 5)
    assert scan([part(longest, b"1") + END]).complete
    assert scan([field(b"x", b"") * (PARTS_MAX - 1) + END]).complete


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
    for pieces in ([b"\r\n" + body], byte_by_byte(b"\r\n" + body)):
        (found,) = scan(pieces).fields
        assert found.length is not None
        assert (b"\r\n" + body)[slice(*found.length)] == b"4"


BOUNDARIES = {
    "multipart/form-data; boundary=abc": b"abc",
    "multipart/form-data; boundary=abc; charset=ISO-8859-1": b"abc",
    "multipart/form-data; boundary=abc; charset=utf-7": None,
    "multipart/form-data; charset*=utf-8''utf-7; boundary=abc": None,
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
