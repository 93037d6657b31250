"""Truncation: valid JSON of at most so many bytes, whatever the messages; and documents that were cut, closed."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.observer.content.fit import fit
from observability.observer.content.load import CutText, closed, cut_text, load
from observability.redaction import Redaction
from observability.wire.media import Media
from observability.wire.sift import Sift
from tests.observability.wire.test_sift import DOCUMENTS

MARK = "0123456789abcdef"


def message(content: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": content}]}


MESSAGES = st.lists(
    st.builds(
        lambda role, texts: {"role": role, "parts": [{"type": "text", "content": text} for text in texts]},
        st.sampled_from(["user", "assistant"]),
        st.lists(st.text(max_size=400), max_size=4),
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(messages=MESSAGES, max_bytes=st.integers(2, 3000))
def test_it_fits_is_valid_and_tells(messages, max_bytes):
    fitted = fit(messages, max_bytes)
    made = json.loads(fitted.json)
    assert len(fitted.json.encode()) <= max_bytes
    assert fitted.bytes == len(orjson.dumps(messages))
    assert fitted.cut == (made != messages)
    for one in made:
        assert set(one) >= {"role", "parts"}


def test_the_longest_texts_are_cut_first_and_say_by_how_much():
    fitted = fit([message("x" * 5000), message("short"), message("y" * 3000)], 2000)
    first, second, third = (one["parts"][0]["content"] for one in json.loads(fitted.json))
    assert second == "short"
    for text, letter, size in ((first, "x", 5000), (third, "y", 3000)):
        kept, _, more = text.partition("… [")
        assert kept == letter * len(kept)
        assert len(kept) + int(more.split()[0]) == size
    assert len(fitted.json) > 1800


def test_many_messages_lose_those_in_the_middle():
    fitted = fit([message(f"message {number}") for number in range(200)], 1500)
    made = json.loads(fitted.json)
    said = [one["parts"][0]["content"] for one in made]
    omitted = next(one["parts"][0] for one in made if one["parts"][0]["type"] == "generic")
    assert (said[0], said[-1]) == ("message 0", "message 199")
    assert omitted["content"] == 200 - (len(made) - 1)


@pytest.mark.parametrize("letter", ["x", "\u4f60", "\U0001f511", "\x01"])
def test_what_is_kept_of_a_long_text_is_as_much_as_may_be_in_any_script(letter):
    fitted = fit([message(letter * 100_000)], 60_000)
    assert 59_000 < len(fitted.json.encode()) <= 60_000


@pytest.mark.parametrize("max_bytes", [1500, 10_000_000])
@pytest.mark.parametrize("of", ["messages", "parts"])
def test_of_very_many_messages_the_first_and_the_last_are_kept_and_all_are_counted(of, max_bytes):
    items = [message(f"message {number}") for number in range(40_000)]
    if of == "parts":
        items = [{"role": "user", "parts": [part for item in items for part in item["parts"]]}]
    fitted = fit(items, max_bytes)
    made = json.loads(fitted.json)
    parts = [part for one in made for part in one["parts"]]
    omitted = next(part for part in parts if part["type"] == "generic")
    assert (parts[0]["content"], parts[-1]["content"]) == ("message 0", "message 39999")
    assert omitted["content"] == 40_000 - (len(parts) - 1)
    assert fitted.bytes == len(orjson.dumps(items))
    assert fitted.cut


@pytest.mark.parametrize("parts", [{"a": "b"}, "text", 7, None, [], [[]], {}])
@pytest.mark.parametrize("max_bytes", [0, 5, 60])
def test_what_only_looks_like_a_message_fits_too(parts, max_bytes):
    fitted = fit([{"parts": parts, "more": "x" * 200}], max_bytes)
    json.loads(fitted.json)
    assert len(fitted.json) <= max(2, max_bytes)


def test_nothing_fits_everywhere():
    assert fit([], -5) == ("[]", 2, False)


def test_a_part_that_has_no_room_says_so():
    (made,) = json.loads(fit([{"role": "user", "parts": [{"type": "generic", "content": [1] * 9000}]}], 1000).json)
    assert made["parts"] == [{"type": "generic", "generic_type": "omitted", "content": 1}]


def test_one_message_of_many_parts_loses_parts():
    parts = [{"type": "text", "content": f"part {number}"} for number in range(200)]
    made = json.loads(fit([{"role": "user", "parts": parts, "finish_reason": "stop"}], 1000).json)
    assert made[0]["finish_reason"] == "stop"
    assert made[0]["parts"][0]["content"] == "part 0"
    assert made[0]["parts"][-1]["content"] == "part 199"


def test_what_a_worker_cut_says_so_though_it_fits():
    fitted = fit([message(cut_text("beginning", 1234))], 1000)
    assert json.loads(fitted.json)[0]["parts"][0]["content"] == "beginning… [1234 more bytes]"
    assert fitted.cut
    assert fitted.bytes > 1234


@settings(max_examples=200, deadline=None)
@given(document=DOCUMENTS, at=st.integers(0, 3000))
def test_a_document_that_was_cut_anywhere_is_closed(document, at):
    raw = json.dumps(document).encode()
    sift = Sift(MARK.encode(), string_bytes_max=1 << 20, bytes_max=1 << 20)
    sift.feed(raw[:at])
    sift.end()
    whole = closed(bytes(sift.out))
    if isinstance(document, dict | list) and at > 0:
        assert is_part(json.loads(whole), document)


def is_part(part: Any, whole: Any) -> bool:
    if isinstance(part, str) and "\0" + MARK in part:
        return isinstance(whole, str)
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and is_part(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and all(map(is_part, part, whole)) and len(part) <= len(whole)
    return bool(part == whole)


@given(data=st.binary(max_size=300), is_json=st.booleans(), cut=st.booleans())
def test_anything_can_be_loaded(data, is_json, cut):
    load(data, MARK, Redaction(), is_json=is_json, cut=cut)


LENIENT = [b"[NaN, 123456789012345678901234567890]", b'["\\ud800", Infinity]', b'{"\xff": [1e999, -1]}']


@pytest.mark.parametrize("raw", LENIENT)
def test_what_only_lenient_parsers_take_is_written_as_json(raw):
    json.loads(fit([load(raw, MARK, Redaction(), is_json=True, cut=False)], 1000).json)


@pytest.mark.parametrize("depth", [50, 150, 5000, 100_000])
def test_deep_nesting_ends(depth):
    tree = load(b"[" * depth + b"]" * depth, MARK, Redaction(), is_json=True, cut=False)
    fit([tree], 1000)


def test_secrets_in_a_document_are_taken_out_wherever_they_stand():
    document = {
        "messages": [{"content": "my key is sk-abcdef1234567890", "password": "hunter2"}],
        "metadata": {"api_key": "plain-secret", "sk-abcdef1234567890": "a@example.com"},
        "arguments": '{"token": 1, "secret": "hunter2"}',
    }
    tree = load(json.dumps(document).encode(), MARK, Redaction(), is_json=True, cut=False)
    said = json.dumps(tree)
    assert not [secret for secret in ("sk-abcdef", "hunter2", "plain-secret", "a@example") if secret in said]


def test_a_file_for_a_key():
    tree = load(b'{"data:image/png;base64,AAAA": 1}', MARK, Redaction(), is_json=True, cut=False)
    assert json.loads(fit([tree], 1000).json) == [{"[image/png]": 1}]


def test_notes_of_others_are_no_notes():
    forged = "\0" + "f" * 16 + "m;image/png;5;" + "a" * 64 + ";1;1"
    tree = load(json.dumps([forged]).encode(), MARK, Redaction(), is_json=True, cut=False)
    assert not isinstance(tree[0], Media)
    assert not isinstance(tree[0], CutText)


def test_base64_within_a_text_is_told_by_its_length():
    text = "look: ![a](data:image/png;base64," + "iVBOR" * 300 + ") and " + "QUJD0a" * 200 + " end"
    (said,) = load(json.dumps([text]).encode(), MARK, Redaction(), is_json=True, cut=False)
    assert said == "look: ![a]([image/png, 1522 characters]) and [data, 1200 characters] end"
