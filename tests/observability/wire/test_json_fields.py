"""wire.json_fields: one table, each document whole, byte by byte and with trailing data; then against json.loads."""

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.wire.json_fields import HELD_BYTES_MAX, WALKED_OF_REQUEST_MAX, JsonFields
from observability.wire.json_paths import Path, Paths
from observability.wire.json_skip import DEPTH_MAX
from tests.observability.chunks import byte_by_byte, cut, places

PATHS = Paths(
    [("model",), ("stream",), ("usage",), ("choices", "*", "finish_reason"), ("error", "code"), ("a", "b", "*", "*")],
    counted=[("data",)],
)


def scan(pieces: list[bytes], paths: Paths = PATHS, **options: int) -> JsonFields:
    fields = JsonFields(paths, **options)
    for piece in pieces:
        fields.feed(piece)
    fields.end()
    return fields


def facts(fields: JsonFields) -> tuple[Any, ...]:
    return (
        fields.fields,
        fields.counts,
        fields.duplicates,
        fields.lookalikes,
        fields.document_start,
        fields.document_end,
        fields.trailing,
        fields.complete,
        fields.failed,
        fields.held_bytes,
    )


def found(fields: JsonFields) -> list[tuple[Path, tuple[int, ...], bytes | None]]:
    return [(field.path, field.indices, field.raw) for field in fields.fields]


WHOLE: list[tuple[str, bytes, list[tuple[Path, tuple[int, ...], bytes | None]]]] = [
    ("simple", b'{"model":"qwen","stream":true}', [(("model",), (), b'"qwen"'), (("stream",), (), b"true")]),
    ("spaces", b' \r\n{ "model"\t:\n"q" , "x" : 1 } \n', [(("model",), (), b'"q"')]),
    ("byte order mark", b'\xef\xbb\xbf{"model":"q"}', [(("model",), (), b'"q"')]),
    ("escaped key", rb'{"\u006dod\u0065l":"q"}', [(("model",), (), b'"q"')]),
    ("another escaped key", rb'{"mod\"el":"q","\\model":1}', []),
    (
        "escapes in a value",
        rb'{"model":"a\"b\\","stream":null}',
        [(("model",), (), rb'"a\"b\\"'), (("stream",), (), b"null")],
    ),
    ("nested namesake", b'{"x":{"model":"no"},"y":["model",{"model":1}],"model":"q"}', [(("model",), (), b'"q"')]),
    ("key as a value", b'{"x":"model","y":"\\"model\\":","model":"q"}', [(("model",), (), b'"q"')]),
    ("object", b'{"usage":{"a":[1,{"b":"}"}]}}', [(("usage",), (), b'{"a":[1,{"b":"}"}]}')]),
    ("number at the end", b'{"model":-1.5e+3}', [(("model",), (), b"-1.5e+3")]),
    ("empty", b"{}", []),
    (
        "choices",
        b'{"choices":[{"index":0,"message":{"finish_reason":1},"finish_reason":"stop"},{},{"finish_reason":null}]}',
        [(("choices", "*", "finish_reason"), (0,), b'"stop"'), (("choices", "*", "finish_reason"), (2,), b"null")],
    ),
    (
        "two stars",
        b'{"a":{"b":[[1],[],[2,3]]}}',
        [(("a", "b", "*", "*"), (i, j), str(n).encode()) for i, j, n in ((0, 0, 1), (2, 0, 2), (2, 1, 3))],
    ),
    ("another kind than expected", b'{"choices":{"finish_reason":1},"error":"code","data":7,"a":[{"b":1}]}', []),
    ("null error", b'{"error":null,"model":"q"}', [(("model",), (), b'"q"')]),
    ("NaN", b'{"x":NaN,"y":[-Infinity],"model":"q"}', [(("model",), (), b'"q"')]),
    ("bytes that are no UTF-8", b'{"x":"\xff\xfe","model":"\xe4"}', [(("model",), (), b'"\xe4"')]),
    ("long key", b'{"' + b"k" * 1000 + b'":1,"' + b"\\u006d" * 100 + b'":2,"model":"q"}', [(("model",), (), b'"q"')]),
    ("no object", b'["model"]', []),
    ("only a number", b"12", []),
    (
        "dense nesting",
        b'{"x":' + b"[[[1],[{}]],2],"[:-1] + b',"y":[' + b"[[]],{}," * 200 + b'1],"model":"q"}',
        [(("model",), (), b'"q"')],
    ),
]


@pytest.mark.parametrize(("document", "expected"), [case[1:] for case in WHOLE], ids=[case[0] for case in WHOLE])
def test_finds_values_in_any_chunking(document: bytes, expected: Any) -> None:
    whole = scan([document])
    assert found(whole) == expected
    assert whole.complete
    assert not whole.trailing
    for field in whole.fields:
        assert document[field.start : field.end] == field.raw
    assert whole.document_start is not None
    assert json.loads(document[whole.document_start : whole.document_end].decode("latin-1"), strict=False) is not None
    assert facts(scan(byte_by_byte(document))) == facts(whole)

    followed = scan([document + b" x"])
    assert followed.trailing or document == b"12"
    assert found(followed) == expected
    assert facts(scan(byte_by_byte(document + b" x"))) == facts(followed)


@given(document=st.sampled_from([case[1] for case in WHOLE]), at=places)
def test_finds_the_same_in_random_pieces(document: bytes, at: list[int]) -> None:
    assert facts(scan(cut(document, at))) == facts(scan([document]))


MALFORMED = [
    b"x",
    b"\xef\xbb{}",
    b"{,}",
    b'{"model"}',
    b'{"model":}',
    b'{"model":"q",}',
    b'{"model":"q" "x":1}',
    b'{model:"q"}',
    b'{"model":"q"]',
    b'{"x":[}',
    b'{"x":[{]}}',
    b'{"x":[[] "a"]}',
    b'{"x":[[[1]] "a"]}',
    b'{"data":[1,]}',
    b'{"data":[1 2]}',
    b'{"data":[,1]}',
    rb'{"\u00zz":1}',
    b'{"x":' + b"[" * (DEPTH_MAX + 2),
    b'{"x":' + b'[{"a":' * 400,
    b'{"x":[' + b"[[]]," * 4000 + b"}",
    b'{"x":[' + b"[[]]," * 4000 + b"[}]]}",
    b'{"x":[' + b"[[{}]]," * 4000 + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"]}",
]


@pytest.mark.parametrize("document", MALFORMED)
def test_malformed_documents_fail_and_never_raise(document: bytes) -> None:
    for pieces in ([document], byte_by_byte(document), [*byte_by_byte(document), b'{"model":"late"}']):
        fields = scan(pieces)
        assert fields.failed
        assert not fields.complete
        assert not any(field.path == ("model",) and field.raw == b'"late"' for field in fields.fields)


HIDDEN = b'],"model":"forbidden","y":['
DEEP = b'{"b":[{"c":"' + b"d" * 300 + b'"}]},'
FILLERS = [b"", b'{"b":[[0]]},' * 3, b"[[[[[1]]]]]," * 100, b'"a","b",' * 2000, DEEP * 50]


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize(
    "hides",
    [
        b"'\"'",  # JSON5, YAML, Gson
        b'/*"*/',  # JSON5, Gson, Newtonsoft
        b'//"\n',
        b'#"\n',  # YAML, Gson
        b'1#"\n',
        b'a"',  # YAML, Gson: bare words end at a comma or a bracket, not at a quote
        b'1"',
        b'a "',
        b'a\n "',
        b'a:"',
        b'"a" "',
        b'"a""',
        b'[]"',
        b'`"`',
        b'\\"',
        b'\xc3\xa4"',
        b'\0"',
        b'=>"',
    ],
)
def test_what_lenient_parsers_read_differently_fails(hides: bytes, filler: bytes) -> None:
    for opener, closer in ((b"[", b"]"), (b'{"z":', b"}"), (b'[[[[[["b",[', b"]]]]]]]")):
        start = b'{"model":"allowed","x":' + opener + filler.replace(b",", b',"q":' if opener[:1] == b"{" else b",")
        document = start + hides + HIDDEN + hides + closer + b"}"
        whole = scan([document])
        assert not whole.complete
        assert whole.failed
        assert len(whole.fields) == 1
        step = 7 if len(document) < 1000 else 1001
        assert facts(scan([document[at : at + step] for at in range(0, len(document), step)])) == facts(whole)


@pytest.mark.parametrize("filler", FILLERS)
def test_what_json_has_outside_strings_passes(filler: bytes) -> None:
    values = b'NaN , Infinity\t,-Infinity,\r\n1.5E+3 , true,{ "a" : "b" , "c":[ ] },"\\"","\\\\", "x"'
    document = b'{"x":[' + filler + values + b',[[[ "y" ]]]],"model":"q"}'
    assert found(scan([document])) == [(("model",), (), b'"q"')]
    for step in (1, 5, 300):
        assert facts(scan([document[at : at + step] for at in range(0, len(document), step)])) == facts(
            scan([document])
        )


@pytest.mark.parametrize(
    ("key", "alike"),
    [
        (b"Model", "model"),
        (b"MODEL", "model"),
        (rb"\u004dodel", "model"),
        (rb"mode\u004C", "model"),
        (b"STREAM", "stream"),
        ("\u017ftream".encode(), "stream"),
        (rb"\u017fTREAM", "stream"),
        ("to\u212aen".encode(), "token"),
        (rb"TO\u212AEN", "token"),
        (b"x\xc3\x84", None),
        (b"x\xc3\xa4", None),
        (b"model ", None),
        (b"models", None),
        (b"mode", None),
        ("mode\u217c".encode(), None),
    ],
)
def test_tells_keys_in_other_letters(key: bytes, alike: str | None) -> None:
    paths = Paths([("model",), ("stream",), ("token",), ("x\u00e4",), ("s", "model")])
    many = b'"%b":1,' % (b"v" * 40) * 50
    for member in (b'"%b":"b"' % key, b'"%b" : [[["b"]]]' % key):
        for document in (b'{"model":"a",' + many + member + b"," + many + b'"v":1}', b"{" + member + b"}"):
            whole = scan([document], paths)
            assert whole.complete
            assert whole.lookalikes == ({alike} if alike else set())
            assert whole.duplicates == set()
            assert facts(scan(byte_by_byte(document), paths)) == facts(whole)
    assert scan([b'{"s":{"%b":1},"y":{"%b":1}}' % (key, key)], paths).lookalikes == set()


@given(
    keys=st.lists(
        st.sampled_from(["model", "Model", "mODEL", "\u017ftream", "stream", "STREAM", "x", "Models"]), max_size=8
    ),
    ascii_only=st.booleans(),
    at=places,
)
def test_tells_keys_in_other_letters_in_any_pieces(keys: list[str], ascii_only: bool, at: list[int]) -> None:
    members = [b'%b:[{"a":[1]},"b"]' % json.dumps(key, ensure_ascii=ascii_only).encode() for key in keys]
    document = b"{" + b",".join(members) + b"}"
    fields = scan(cut(document, at))
    assert fields.lookalikes == {key.casefold() for key in keys if key not in ("x", "Models") and not key.islower()} | (
        {"stream"} if "\u017ftream" in keys else set()
    )
    assert facts(fields) == facts(scan([document]))


@pytest.mark.parametrize("document", [case[1].rstrip() for case in WHOLE if case[1].rstrip().endswith(b"}")])
def test_a_cut_document_is_neither_complete_nor_malformed(document: bytes) -> None:
    fields = scan([document[:-1]])
    assert not fields.complete
    assert not fields.failed


@given(st.binary(max_size=200), places)
def test_any_bytes_are_survived_alike(data: bytes, at: list[int]) -> None:
    assert facts(scan(cut(data, at))) == facts(scan([data]))


@given(st.text(alphabet='{}[]",:\\ \n1au', max_size=120), places)
def test_any_structure_is_survived_alike(text: str, at: list[int]) -> None:
    data = b'{"x":' + text.encode()
    assert facts(scan(cut(data, at))) == facts(scan([data]))


def test_tells_duplicates_of_top_level_keys() -> None:
    fields = scan([rb'{"model":"a","x":{"stream":1,"stream":2},"\u006dodel":"b"}'])
    assert fields.duplicates == {"model"}
    assert [field.raw for field in fields.fields] == [b'"a"', b'"b"']


def test_counts_elements() -> None:
    assert scan([b'{"data":[]}']).counts == {("data",): 0}
    assert scan([b'{"data":[{"e":[1,2]},"a,b",[3,4],5]}']).counts == {("data",): 4}


def test_values_over_their_cap_are_noted_and_not_kept() -> None:
    for pieces in ([b'{"model":"12345678","stream":1}'], byte_by_byte(b'{"model":"12345678","stream":1}')):
        assert [field.raw for field in scan(pieces, value_bytes_max=9).fields] == [None, b"1"]
        assert [field.raw for field in scan(pieces, value_bytes_max=10).fields] == [b'"12345678"', b"1"]


def test_all_values_together_are_capped() -> None:
    value = b'"' + b"x" * 16000 + b'"'
    choices = b",".join(b'{"finish_reason":' + value + b"}" for _ in range(100))
    fields = scan([b'{"choices":[' + choices + b'],"model":"q"}'])
    assert fields.complete
    assert fields.held_bytes <= HELD_BYTES_MAX
    assert len(fields.fields) == 101
    assert fields.fields[50].raw is None
    assert fields.fields[-1].raw == b'"q"'


@pytest.mark.parametrize("member", [b'"model":1,', rb'"\u0061":1,'])
def test_gives_up_on_masses_of_members_that_must_be_walked(member: bytes) -> None:
    assert scan([b"{" + member * 70_000 + b'"x":1}']).failed


def test_gives_up_sooner_where_it_is_told_to() -> None:
    member = b'"a":[[[1]]],'
    for count, complete in ((1000, True), (1100, False)):
        fields = scan([b"{" + member * count + b'"model":"q"}'], walked_max=WALKED_OF_REQUEST_MAX)
        assert fields.complete is complete
        assert fields.failed is not complete


def nested(depth: int) -> bytes:
    return b"[" * depth + b"0" + b"]" * depth


def test_reads_a_schema_that_is_nested_deeply() -> None:
    schema = b'{"properties":{"a":' * 60 + b'{"type":["string","null"]}' + b"}}" * 60
    document = b'{"tools":[' + b",".join([schema] * 100) + b'],"model":"q"}'
    for step in (len(document), 4096, 61):
        fields = scan([document[at : at + step] for at in range(0, len(document), step)])
        assert found(fields) == [(("model",), (), b'"q"')]


# How many times the plain text's time each may take. All are about a third of that; the way that looked for the end of
# each value from 8 KiB on, and reduced no window with 33 levels in it, took 300 to 1800 for the first three, 60 for the
# values nested by 40 and by all depths.
HOSTILE = {
    "small deep members": (b'"x":' + nested(10) + b",", 200),
    "deep members": (b'"x":' + nested(40) + b",", 200),
    "members of deep and flat": (b'"x":[[1],[[2]],[[3]],[[4]],[[5]]],', 200),
    "members of 300 bytes": (b'"x":[' + b"[[]]" * 80 + b"],", 200),
    "one deep value": (b'"x":[' + (nested(40) + b",") * 3000 + b"0],", 25),
    "one value of two kinds": (b'"x":[' + (b"[{" * 30 + b"}]" * 30 + b",") * 2000 + b"0],", 25),
    "one value of all depths": (b'"x":[' + b"".join(nested(depth) + b"," for depth in range(400)) + b"0],", 25),
    "one value near the limit": (b'"x":' + b"[" * 480 + nested(20) * 5000 + b"]" * 480 + b",", 50),
    "scalars without commas": (b'"x":[' + b"1 " * 100_000 + b"[]],", 25),
    "no JSON": (b'"x":[' + b"[[[1]]]," * 20_000 + b"!],", 25),
}


def cpu_seconds(document: bytes) -> float:
    fields = JsonFields(PATHS)
    began = time.process_time()
    for at in range(0, len(document), 65536):
        fields.feed(document[at : at + 65536])
    return time.process_time() - began


@pytest.mark.parametrize(("member", "factor"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_nesting_costs_little_more_than_plain_text(member: bytes, factor: int) -> None:
    hostile = b"{" + member * max(400_000 // len(member), 1) + b'"model":"q"}'
    # 7 ns a byte; base64 would be 0.1, too little to measure by
    plain = b'{"x":["' + rb"abc\n" * (len(hostile) // 5) + b'"]}'
    seconds: dict[bytes, float] = {}
    for document in (hostile, plain) * 3:
        seconds[document] = min(seconds.get(document, 9.0), cpu_seconds(document))
    assert seconds[hostile] < seconds[plain] * factor


def test_passes_masses_of_members_that_nobody_wants() -> None:
    assert found(scan([b"{" + b'"z":1,' * 200_000 + b'"model":"q"}'])) == [(("model",), (), b'"q"')]


@pytest.mark.parametrize("path", [(), ("k" * 50,)])
def test_paths_that_cannot_be_kept_are_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="1 or more keys"):
        Paths([path])


def test_tells_which_wanted_value_is_open() -> None:
    document = b' {"x":{"model":1},"model" : "q","stream":1}'
    model, stream = document.index(b'"q"'), document.rindex(b"1")
    fields = JsonFields(PATHS)
    opened = {}
    for at, piece in enumerate(byte_by_byte(document)):
        fields.feed(piece)
        if fields.open_path is not None:
            opened[at] = (fields.open_path, fields.open_start)
        else:
            assert fields.open_start is None
    assert opened == {
        model: (("model",), model),
        model + 1: (("model",), model),
        stream: (("stream",), stream),  # a number may go on
    }


def test_nothing_is_open_after_a_failure() -> None:
    fields = JsonFields(PATHS)
    fields.feed(b'{"usage":[1')
    assert fields.open_path == ("usage",)
    fields.feed(b"}")
    assert fields.failed
    assert (fields.open_path, fields.open_start) == (None, None)


def test_a_captured_array_is_not_looked_into() -> None:
    with pytest.raises(ValueError, match="looked into"):
        Paths([("error",), ("error", "*", "code")])


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (b'{"error":"no","code":1}', [(("error",), b'"no"')]),
        (b'{"error":{"code":7,"x":{}}}', [(("error", "code"), b"7")]),
        (b'{"error":[{"code":7}]}', [(("error",), b'[{"code":7}]')]),
        (b'{"error":null}', [(("error",), b"null")]),
        (b'{"error":{}}', []),
    ],
)
def test_a_value_that_is_an_object_is_looked_into_instead(document: bytes, found: list) -> None:
    paths = Paths([("error",), ("error", "code")])
    for step in (len(document), 1):
        fields = JsonFields(paths)
        for at in range(0, len(document), step):
            fields.feed(document[at : at + step])
        assert [(field.path, field.raw) for field in fields.fields] == found
        assert fields.complete


KEYS = st.sampled_from(
    ["model", "stream", "usage", "data", "choices", "finish_reason", "code", "error", "a", "b", "ü", "\\", '"', ""]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20))
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=30
)


@given(
    document=st.dictionaries(KEYS, VALUES, max_size=8),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
    at=places,
)
def test_agrees_with_json_loads(document: dict[str, Any], ascii_only: bool, indent: int | None, at: list[int]) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    fields = scan(cut(text, at))
    assert fields.complete
    values = [(field.path, field.indices, json.loads(field.raw or b"")) for field in fields.fields]
    expected: list[tuple[Path, tuple[int, ...], Any]] = []
    for key, value in document.items():
        if key in ("model", "stream", "usage"):
            expected.append(((key,), (), value))
        elif key == "choices" and isinstance(value, list):
            for position, choice in enumerate(value):
                if isinstance(choice, dict) and "finish_reason" in choice:
                    expected.append((("choices", "*", "finish_reason"), (position,), choice["finish_reason"]))
        elif key == "error" and isinstance(value, dict) and "code" in value:
            expected.append((("error", "code"), (), value["code"]))
        elif key == "a" and isinstance(value, dict) and isinstance(value.get("b"), list):
            for i, row in enumerate(value["b"]):
                if isinstance(row, list):
                    expected.extend((("a", "b", "*", "*"), (i, j), element) for j, element in enumerate(row))
    assert values == expected
    data = document.get("data")
    assert fields.counts == ({("data",): len(data)} if isinstance(data, list) else {})


@pytest.mark.parametrize("piece_bytes", [65536, 1 << 20])
def test_the_model_behind_64_mb_of_base64_is_found_without_holding_them(piece_bytes: int) -> None:
    piece = b"QUJD" * (piece_bytes // 4)
    fields = JsonFields(PATHS)
    fields.feed(b'{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,')
    tracemalloc.start()
    for _ in range((64 << 20) // piece_bytes):
        fields.feed(piece)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    fields.feed(b'"}}]}],"model":"qwen"}')
    assert [field.raw for field in fields.fields] == [b'"qwen"']
    assert fields.fields[0].start > 64 << 20
    assert peak_bytes < 20_000
