"""What a worker kept, read: no base64 in whatever writing, no secret, and nothing that hostile bodies can do to it."""

import base64
import json
import random
import time
from typing import Any

import pytest

from observability.observer.content.fit import fit
from observability.observer.content.load import closed, load
from observability.redaction import REDACTED, Redaction

MARK = "ab" * 16
DATA = base64.b64encode(random.Random(7).randbytes(3000)).decode()
SMALL = DATA[:300]


def tree(raw: bytes, *, cut: bool = False) -> Any:
    return load(raw, MARK, Redaction(), is_json=True, cut=cut)


def lines(text: str, end: str = "\n") -> str:
    return end.join(text[at : at + 76] for at in range(0, len(text), 76))


def php(value: object) -> str:
    return json.dumps(value).replace("/", "\\/")


TEXTS = {
    "as it is": f"look: {DATA} end",
    "in lines": f"look:\n{lines(DATA)}\nend",
    "in lines of Windows": "look: " + lines(DATA, "\r\n    "),
    "behind an empty line": "\nlook:\n\n" + lines(DATA),
    "a data URL": f"look: ![a](data:image/png;base64,{SMALL}) end",
    "a data URL in lines": f"look: data:image/png;base64,{lines(DATA)} end",
    "in other letters": f"look: DATA:image/PNG;charset=x;BASE64,{SMALL} end",
    "with a space": f"look: data:image/png; base64,{SMALL} end",
    "JSON": "look: " + json.dumps({"image": DATA}),
    "JSON of PHP": "look: " + php({"image": DATA}),
    "JSON of PHP, a data URL": "look: " + php({"image": f"data:image/png;base64,{SMALL}"}),
    "JSON of .NET": "look: " + json.dumps({"image": DATA}).replace("+", "\\u002B"),
    "JSON, in lines": "look: " + json.dumps({"image": lines(DATA)}),
    "JSON within JSON": "look: " + php(php({"image": lines(DATA, "\r\n")})),
    "a part of a URL": "look=" + DATA.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
    "a data URL in a URL": "look=data:image/png;base64," + SMALL.replace("+", "%2B").replace("/", "%2F"),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_base64_is_left_in_a_text_however_it_is_written(text):
    (said,) = tree(json.dumps([text]).encode())
    assert said.partition("look")[:2] == text.partition("look")[:2]
    assert said.endswith(("end", "characters]", '"}', '"}"'))
    plain = "".join(character for character in said if character.isalnum() or character in "+/")
    assert not [at for at in range(0, len(DATA) - 24, 8) if DATA[at : at + 24] in plain]


ROWS = {
    "a sequence": "of it: " + "ACGT" * 500,
    "digits": "of it: " + "31415926535" * 100,
    "constants": "\n".join(f"OTEL_INSTRUMENTATION_GENAI_NUMBER_{number}" for number in range(40)),
    "digests": "\n".join(f"{number:064x}" for number in range(40)),
    "words in JSON": json.dumps("a_word_that_is_quite_long\n" + "\n".join(f"word{number}" for number in range(200))),
    "paths in JSON": php([f"usr/local/lib/python3/site-packages/package{number}/a/b" for number in range(30)]),
    "a path of Windows": "C:\\" + "\\".join(f"Folder{number}" for number in range(100)),
}


@pytest.mark.parametrize("text", ROWS.values(), ids=ROWS)
def test_rows_of_words_are_no_base64(text):
    assert tree(json.dumps([text]).encode()) == [text]


@pytest.mark.parametrize(
    "unit", ["data:", "data:;a", "data:" + "a" * 95 + ";", "data:;base64,\\", DATA[:30] + "\n ", "\\" + DATA[:30]]
)
def test_to_look_for_base64_takes_time_in_proportion(unit):
    def cost(size: int) -> float:
        raw = json.dumps(["x" + unit * (size // len(unit)) + ";base64, "]).encode()
        began = time.process_time()
        tree(raw)
        return time.process_time() - began

    small = min(cost(8_000) for _ in range(3))
    assert min(cost(64_000) for _ in range(3)) < 24 * small + 0.005  # squared it would be 64 times as much


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32-le"])
def test_secrets_in_other_encodings_are_secrets(coding):
    said = tree(json.dumps([{"content": "sk-abcdef1234567890"}]).encode(coding))
    assert "sk-" not in said.replace("\0", "")
    assert REDACTED in said


def test_a_byte_order_mark_is_no_part_of_a_document():
    assert tree(b'\xef\xbb\xbf{"messages": []}') == {"messages": []}


def test_values_under_the_key_of_a_secret():
    document = {
        "password": ["hunter2", ["hunter3"]],
        "api_key": 12345678,
        "clientSecret": "hunter4",
        "properties": {"password": {"type": "string"}},
        "hasPassword": True,
        "secret": None,
    }
    assert tree(json.dumps(document).encode()) == {
        "password": REDACTED,
        "api_key": REDACTED,
        "clientSecret": REDACTED,
        "properties": {"password": {"type": "string"}},
        "hasPassword": True,
        "secret": None,
    }


def test_many_small_files_are_all_told_of():
    document = tree(b"[" + b'"data:;base64,",' * 4000 + b'"end"]')
    assert (len(document), document[-1]) == (4001, "end")


def test_a_file_in_a_part_of_an_unknown_kind_has_its_facts():
    (part,) = json.loads(fit([tree(json.dumps({"type": "strange", "data": DATA}).encode())], 1000).json)
    assert (part["data"]["type"], part["data"]["bytes"]) == ("blob", 3000)


def test_a_cut_document_is_closed_where_it_may_be_and_quickly():
    def cost(depth: int) -> float:
        began = time.process_time()
        assert json.loads(closed(b"[" * depth + b"1," * 30_000)) is not None
        return time.process_time() - began

    assert min(cost(190) for _ in range(3)) < 3 * min(cost(1) for _ in range(3)) + 0.005
    assert json.loads(closed(b"[" * 201)) is not None
    assert json.loads(closed(b'{"a":[1}')) == {"a": [1]}
