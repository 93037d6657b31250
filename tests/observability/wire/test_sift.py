"""The sieve in pieces, against a document that is read whole."""

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.wire.media import UNKNOWN_TYPE, Media, MediaDigest
from observability.wire.sift import BARE_BYTES, NOTE_BYTES_MAX, Sift, read_note
from tests.observability.chunks import byte_by_byte, cut, places

MARK = "0123456789abcdef"
NOTE = "\0" + MARK
BLOB = hashlib.sha512(b"an image").digest() * 40


def sifted(pieces: list[bytes], *, string_bytes_max: int = 1 << 20, bytes_max: int = 1 << 20) -> Sift:
    sift = Sift(MARK.encode(), string_bytes_max=string_bytes_max, bytes_max=bytes_max)
    for piece in pieces:
        sift.feed(piece)
    sift.end()
    return sift


def noted(text: str) -> tuple[str, Media | int | None]:
    before, _, note = text.partition(NOTE)
    return before, read_note(note) if note else None


def reference(value: Any) -> Any:
    """The document whole in memory, each data URL and each long base64 string as its facts."""
    if isinstance(value, dict):
        return {key: reference(item) for key, item in value.items()}
    if isinstance(value, list):
        return [reference(item) for item in value]
    if isinstance(value, str):
        head, comma, data = value.partition(",")
        if head.startswith("data:") and head.endswith(";base64") and comma:
            return facts(base64.b64decode(data), head[5:-7])
        if len(value) >= BARE_BYTES and "A" in value and " " not in value:
            return facts(base64.b64decode(value), "")
    return value


def facts(data: bytes, media_type: str) -> Media:
    digest = MediaDigest(media_type)
    digest.feed(data)
    media = digest.end()
    assert media[1:3] == (len(data), hashlib.sha256(data).hexdigest())
    return media


def resolved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if isinstance(value, str) and NOTE in value:
        text, note = noted(value)
        assert text == ""
        return note
    return value


MEDIA = st.builds(
    lambda data, kind: f"data:{kind};base64,{base64.b64encode(data).decode()}",
    st.binary(max_size=900),
    st.sampled_from(["image/x-a", "", "application/vnd.b+json"]),
)
BARE = st.binary(min_size=BARE_BYTES, max_size=9000).map(
    lambda data: base64.b64encode(b"\x00\x10\x83" + BLOB + data).decode()
)
TEXT = st.text(max_size=30).filter(lambda text: not text.lower().startswith("data:"))
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | MEDIA | BARE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(document=DOCUMENTS, where=places, ascii_only=st.booleans(), slashes=st.booleans())
def test_any_document_in_any_pieces_is_that_document_with_facts_for_media(document, where, ascii_only, slashes):
    raw = json.dumps(document, ensure_ascii=ascii_only)
    if slashes:
        raw = raw.replace("/", "\\/")
    sift = sifted(cut(raw.encode("utf-8", "surrogatepass"), where))
    assert not sift.full
    assert resolved(json.loads(bytes(sift.out).decode("utf-8", "surrogatepass"))) == reference(document)


def test_byte_by_byte():
    document = {"a": 'x\\"y\u00e4', "image": "data:image/png;base64," + base64.b64encode(BLOB).decode(), "b": [1, "\\"]}
    sift = sifted(byte_by_byte(json.dumps(document).encode()))
    assert resolved(json.loads(sift.out)) == reference(document)


@given(
    text=st.text(min_size=1, max_size=200),
    limit=st.integers(1, 300),
    where=places,
    ascii_only=st.booleans(),
)
def test_a_long_string_keeps_its_beginning_and_says_how_much_is_missing(text, limit, where, ascii_only):
    raw = json.dumps([text, 7], ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    sift = sifted(cut(raw, where), string_bytes_max=limit)
    first, second = json.loads(bytes(sift.out).decode("utf-8", "surrogatepass"))
    kept, lost = noted(first)
    assert second == 7
    assert lost is not None or kept == text
    half = kept.rstrip("".join(map(chr, range(0xD800, 0xDC00))))  # the first half of a pair, written as an escape
    assert text.startswith(half)
    assert len(json.dumps(kept, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")) - 2 <= limit


@given(document=DOCUMENTS, limit=st.integers(0, 4000), where=places)
def test_no_more_is_kept_than_may_be(document, limit, where):
    sift = sifted(cut(json.dumps(document).encode(), where), string_bytes_max=100, bytes_max=limit)
    assert len(sift.out) <= limit + NOTE_BYTES_MAX


def test_behind_a_note_that_went_beyond_the_limit_nothing_is_kept():
    raw = json.dumps(["data:image/png;base64,AAAA", "x" * 3000, [7] * 1000]).encode()
    for limit in range(40):
        assert len(sifted([raw], bytes_max=limit).out) <= limit + NOTE_BYTES_MAX


@given(raw=st.binary(max_size=300), where=places)
def test_what_is_no_json_does_no_harm(raw, where):
    sifted(cut(raw, where), string_bytes_max=50, bytes_max=200)


@pytest.mark.parametrize(
    "text",
    [
        "deadbeef01" * 200,
        "31415926535" * 100,
        "ACGT" * 500,
        "\n".join(["apple", "Banana", "cherry7"] * 200),
        "word " * 400,
        "data:text/plain," + "x" * 600,
        "data:image/png;base64",
    ],
)
def test_text_stays_text(text):
    assert json.loads(sifted([json.dumps([text]).encode()]).out) == [text]


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"DATA:image/PNG;BASE64,", "image/png"),
        (b"data:image\\/png;name=a.png; base64,", "image/png"),
        (b"data:image/svg\\u002Bxml;base64,", "image/svg+xml"),
        (b"data:;base64,", UNKNOWN_TYPE),
        (b"  data:image/png;base64,", "image/png"),
    ],
)
def test_the_head_of_a_data_url_in_odd_writings(head, media_type):
    sift = sifted(byte_by_byte(b'["' + head + b'QUJD"]'))
    assert resolved(json.loads(sift.out)) == [facts(b"ABC", media_type)]


def test_a_document_that_ends_within_base64_has_no_digest_of_it():
    raw = json.dumps(["data:image/png;base64," + base64.b64encode(BLOB).decode()]).encode()
    sift = sifted([raw[:1000]])
    _, note = noted(json.loads(bytes(sift.out) + b"]")[0])
    assert isinstance(note, Media)
    assert note.sha256 == ""
