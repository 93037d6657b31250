"""OpenAI's image requests as DashScope's: a reference that has everything in memory says what has to come out."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import GatewayError, TargetUnusableError
from proxy.translate.models import call_of
from proxy.translate.request import TEXT_BYTES_MAX, Translator, translator_of
from proxy.translate.writing import IMAGES_MAX
from tests.observability.chunks import byte_by_byte, cut, places
from tests.proxy.translate.test_form import BOUNDARY, written

FORM = f"multipart/form-data; boundary={BOUNDARY.decode()}"
JSON = "application/json"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff\xe0": "image/jpeg",
    b"RIFF\x10\x00\x00\x00WEBP": "image/webp",
    b"GIF89a": "image/gif",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"BM": "image/bmp",
}


def translate(
    pieces: Sequence[bytes], kind: str = JSON, model: str = "qwen-image-edit", operation: str = "images.edits"
) -> dict[str, Any]:
    return read(pieces, of(kind, model, operation))


def of(kind: str, model: str, operation: str) -> Translator:
    return translator_of(kind, "", call_of(operation, model), model, operation)


def read(pieces: Sequence[bytes], translator: Translator) -> dict[str, Any]:
    out = [piece for one in pieces for piece in translator.feed(one)] + translator.end()
    assert all(out)
    document: dict[str, Any] = orjson.loads(b"".join(out))
    return document


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def message_of(document: dict[str, Any]) -> list[dict[str, str]]:
    assert set(document) == {"input", "model", "parameters"}
    [message] = document["input"]["messages"]
    assert message["role"] == "user"
    content: list[dict[str, str]] = message["content"]
    return content


# -- forms -----------------------------------------------------------------------------------------------------------

_files = st.tuples(
    st.sampled_from(("image", "image[]", "image[0]", "images[]")),
    st.sampled_from((*SIGNATURES, b"")),
    st.binary(min_size=1, max_size=70),
)


@given(st.lists(_files, min_size=1, max_size=5), st.text(min_size=1, max_size=40), st.integers(0, 5), places)
def test_a_form_becomes_what_a_reference_makes_of_it(
    files: list[tuple[str, bytes, bytes]], prompt: str, prompt_at: int, at: list[int]
) -> None:
    parts: list[tuple[str, bytes | None, bytes]] = [(name, b"image/avif", head + rest) for name, head, rest in files]
    parts.insert(prompt_at, ("prompt", None, prompt.encode()))
    parts += [("size", None, b"1024x768"), ("model", None, b"m"), ("quality", None, b"high"), ("n", None, b"2")]
    body = written(parts)
    document = translate(cut(body, at), FORM)
    content = message_of(document)
    assert content[-1] == {"text": prompt}
    assert len(content) == len(files) + 1
    for (_, head, rest), part in zip(files, content, strict=False):
        known = SIGNATURES.get(head)
        if known is None:  # what it begins with may be a signature by chance
            known = next((kind for one, kind in SIGNATURES.items() if rest.startswith(one)), None)
        if known is not None or not rest.startswith((b"RIFF", b"\xff\xd8\xff", b"GIF")):
            assert part == {"image": data_url(head + rest, known or "image/avif")}
    assert document["parameters"] == {"size": "1024*768", "n": 2}
    assert document["model"] == "qwen-image-edit"


@pytest.mark.parametrize(("signature", "kind"), SIGNATURES.items())
@pytest.mark.parametrize("length", [0, 40])
def test_a_file_is_what_its_first_bytes_say(signature: bytes, kind: str, length: int) -> None:
    content = signature + b"\0" * length
    body = written([("image", b"text/plain", content), ("prompt", None, b"p")])
    for pieces in ([body], byte_by_byte(body)):
        assert message_of(translate(pieces, FORM))[0] == {"image": data_url(content, kind)}


@pytest.mark.parametrize(
    ("said", "kind"), [(b"image/heic", "image/heic"), (b"IMAGE/X; a=b", "image/x"), (b'image/x"', "image/png")]
)
def test_else_what_its_part_says(said: bytes, kind: str) -> None:
    body = written([("image", said, b"what is this"), ("prompt", None, b"p")])
    assert message_of(translate([body], FORM))[0] == {"image": data_url(b"what is this", kind)}


def test_what_a_form_says_as_text() -> None:
    body = written(
        [
            *(("image", None, b"https://example.com/a.png"), ("prompt", None, b"p"), ("seed", None, b"7")),
            *(("watermark", None, b"False"), ("prompt_extend", None, b"true"), ("negative_prompt", None, b"blur")),
            *(("size", None, b"auto"), ("response_format", None, b"b64_json"), ("parameters", None, b'{"a":[1]}')),
        ]
    )
    translator = of(FORM, "wan2.6-image", "images.edits")
    assert read([body], translator) == {
        "input": {
            "messages": [{"role": "user", "content": [{"image": "https://example.com/a.png"}, {"text": "p"}]}],
        },
        "model": "wan2.6-image",
        "parameters": {
            "seed": 7,
            "watermark": False,
            "prompt_extend": True,
            "n": 1,
            "negative_prompt": "blur",
            "a": [1],
        },
    }
    assert translator.inline


IMAGE_PART = ("image", b"", PNG)
TEXT_PART = ("prompt", None, b"p")


@pytest.mark.parametrize(
    ("model", "parts", "expected"),
    [
        (
            "wan2.5-i2i-preview",
            [IMAGE_PART, TEXT_PART, IMAGE_PART, ("negative_prompt", None, b"q")],
            {
                "images": [data_url(PNG, "image/png")] * 2,
                "prompt": "p",
                "negative_prompt": "q",
            },
        ),
        (
            "wanx2.1-imageedit",
            [IMAGE_PART, TEXT_PART],
            {"base_image_url": data_url(PNG, "image/png"), "prompt": "p", "function": "description_edit"},
        ),
        (
            "wanx2.1-imageedit",
            [("mask", b"", PNG[:30]), TEXT_PART, IMAGE_PART],
            {
                "mask_image_url": data_url(PNG[:30], "image/png"),
                "base_image_url": data_url(PNG, "image/png"),
                "prompt": "p",
                "function": "description_edit_with_mask",
            },
        ),
        (
            "wanx2.1-imageedit",
            [("function", None, b"stylization_all"), IMAGE_PART, TEXT_PART],
            {"base_image_url": data_url(PNG, "image/png"), "prompt": "p", "function": "stylization_all"},
        ),
    ],
)
def test_calls_that_make_tasks(
    model: str, parts: list[tuple[str, bytes | None, bytes]], expected: dict[str, Any]
) -> None:
    body = written(parts)
    for pieces in ([body], byte_by_byte(body)):
        document = translate(pieces, FORM, model)
        assert document == {"input": expected, "model": model, "parameters": {"n": 1}}


REFUSED_FORMS: dict[str, tuple[str, list[tuple[str, bytes | None, bytes]], type[GatewayError], str]] = {
    "no prompt": ("qwen-image", [IMAGE_PART], GatewayError, "no prompt"),
    "an empty prompt": ("qwen-image", [IMAGE_PART, ("prompt", None, b"")], GatewayError, "no prompt"),
    "no image": ("qwen-image", [TEXT_PART], GatewayError, "no image"),
    "an empty image": ("qwen-image", [("image", b"", b""), TEXT_PART], GatewayError, "empty"),
    "two prompts": ("qwen-image", [IMAGE_PART, TEXT_PART, TEXT_PART], GatewayError, "prompt twice"),
    "a mask": ("qwen-image", [IMAGE_PART, ("mask", b"", PNG), TEXT_PART], TargetUnusableError, "takes no mask"),
    "a mask for a list": ("wan2.5-i2i", [IMAGE_PART, ("mask", b"", PNG)], TargetUnusableError, "takes no mask"),
    "two masks": ("wanx2.1-imageedit", [("mask", b"", PNG)] * 2, GatewayError, "more than one mask"),
    "two for one": ("wanx2.1-imageedit", [IMAGE_PART] * 2, TargetUnusableError, "edits one image"),
    "too many": ("qwen-image", [IMAGE_PART] * (IMAGES_MAX + 1), GatewayError, f"more than {IMAGES_MAX}"),
    "a long prompt": ("qwen-image", [("prompt", None, b"x" * (TEXT_BYTES_MAX + 1))], GatewayError, "more than"),
    "no UTF-8": ("qwen-image", [("prompt", None, b"\xff")], GatewayError, "UTF-8"),
    "a format": ("qwen-image", [("response_format", None, b"png")], GatewayError, "url or b64_json"),
    "parameters": ("qwen-image", [("parameters", None, b"[]")], GatewayError, "an object"),
}


@pytest.mark.parametrize(("model", "parts", "kind", "why"), REFUSED_FORMS.values(), ids=list(REFUSED_FORMS))
def test_forms_that_are_refused(
    model: str, parts: list[tuple[str, bytes | None, bytes]], kind: type[GatewayError], why: str
) -> None:
    with pytest.raises(GatewayError, match=why) as refused:
        translate([written(parts)], FORM, model)
    assert type(refused.value) is kind
    assert refused.value.kind == "bad_request"


def test_the_longest_prompt_passes() -> None:
    body = written([IMAGE_PART, ("prompt", None, b"x" * TEXT_BYTES_MAX)])
    assert message_of(translate([body], FORM))[-1] == {"text": "x" * TEXT_BYTES_MAX}


def test_a_form_that_is_cut() -> None:
    with pytest.raises(GatewayError, match="ends before its end"):
        translate([written([IMAGE_PART, TEXT_PART])[:-9]], FORM)


# -- JSON ------------------------------------------------------------------------------------------------------------

_values = st.text(max_size=30) | st.integers() | st.booleans() | st.none() | st.lists(st.integers(), max_size=3)


@given(
    st.text(min_size=1),
    st.lists(st.text(min_size=1, max_size=50), max_size=4),
    st.sampled_from(("image", "image[]", "images", "images.image_url", "images.url")),
    st.dictionaries(st.sampled_from(("quality", "style", "user", "background", "x")), _values),
    st.permutations(("prompt", "pictures", "rest", "size")),
    places,
)
def test_json_becomes_what_a_reference_makes_of_it(
    prompt: str, urls: list[str], spelling: str, rest: dict[str, Any], order: list[str], at: list[int]
) -> None:
    pictures: dict[str, Any] = {"images": urls}
    if spelling == "image":
        urls = urls[:1]
        pictures = {"image": urls[0]} if urls else {"image": None}
    elif spelling == "image[]":
        pictures = {"image": urls}
    elif "." in spelling:
        pictures = {"images": [{spelling.partition(".")[2]: url, "detail": None} for url in urls]}
    members = {"prompt": {"prompt": prompt}, "pictures": pictures, "rest": rest, "size": {"size": "512x512"}}
    whole: dict[str, Any] = {}
    for name in order:
        whole |= members[name]
    document = translate(cut(json.dumps(whole).encode(), at), JSON, operation="images.generations")
    assert message_of(document) == [*({"image": url} for url in urls), {"text": prompt}]
    assert document["parameters"] == {"size": "512*512", "n": 1}


GENERATIONS = [
    ({"prompt": "p"}, {"n": 1}),
    ({"prompt": "p", "n": 3, "size": "1328x1328"}, {"n": 3, "size": "1328*1328"}),
    ({"prompt": "p", "size": "8X9"}, {"n": 1, "size": "8*9"}),
    ({"prompt": "p", "size": "max"}, {"n": 1, "size": "max"}),
    ({"prompt": "p", "size": "auto", "n": None}, {"n": 1}),
    ({"prompt": "p", "size": "2K", "seed": 5, "watermark": False},
     {"n": 1, "size": "2K", "seed": 5, "watermark": False}),
    ({"prompt": "p", "quality": "hd", "style": "vivid", "user": "u", "background": "opaque", "output_format": "png",
      "moderation": "low", "output_compression": 50, "response_format": "url"}, {"n": 1}),
    ({"prompt": "p", "parameters": {"n": 2, "max_images": 4}, "n": 1}, {"n": 2, "max_images": 4}),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "parameters"), GENERATIONS)
def test_generations(asked: dict[str, Any], parameters: dict[str, Any]) -> None:
    at_once = translate([orjson.dumps(asked)], JSON, "qwen-image", "images.generations")
    assert message_of(at_once) == [{"text": "p"}]
    assert (at_once["model"], at_once["parameters"]) == ("qwen-image", parameters)
    task = translate([orjson.dumps(asked)], JSON, "wan2.2-t2i-flash", "images.generations")
    assert task == {"input": {"prompt": "p"}, "model": "wan2.2-t2i-flash", "parameters": parameters}


def test_a_negative_prompt_has_two_places() -> None:
    asked = orjson.dumps({"prompt": "p", "negative_prompt": "q"})
    assert translate([asked], JSON, "qwen-image", "images.generations")["parameters"]["negative_prompt"] == "q"
    task = translate([asked], JSON, "wanx-v1", "images.generations")
    assert task["input"] == {"prompt": "p", "negative_prompt": "q"}


def test_a_mask_in_json() -> None:
    for mask in ("data:m", {"image_url": "data:m"}):
        asked = orjson.dumps({"images": [{"image_url": "data:i"}], "mask": mask, "prompt": "p"})
        for pieces in ([asked], byte_by_byte(asked)):
            document = translate(pieces, JSON, "wanx2.1-imageedit")
            assert document["input"]["mask_image_url"] == "data:m"
            assert document["input"]["function"] == "description_edit_with_mask"


def test_images_do_not_use_up_the_room_of_texts() -> None:
    urls = ["data:image/png;base64," + "A" * 120_000] * 4
    asked = orjson.dumps({"images": urls, "prompt": "x" * 100_000})
    for pieces in ([asked], cut(asked, list(range(0, len(asked), 50_000)))):
        assert message_of(translate(pieces, JSON)) == [*({"image": url} for url in urls), {"text": "x" * 100_000}]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "no prompt"),
        (b'{"prompt":"p"} x', "no JSON"),
        (b'{"prompt":"p","prompt":"q"}', "prompt twice"),
        (b'{"images":[],"images":[],"prompt":"q"}', "images twice"),
        (b'{"prompt":["p"]}', "no prompt"),
        (b'{"prompt":"\\ud800"}', "cannot be read"),
        (b'{"prompt":"p","images":[{"file_id":"file-1"}]}', "file_id"),
        (b'{"prompt":"p","images":[7]}', "URLs"),
        (b'{"prompt":"p","image":[7]}', "URLs"),
        (b'{"prompt":"p","image":{"url":"x"}}', "URLs"),
        (b'{"prompt":"p","parameters":"x"}', "an object"),
        (b'{"prompt":"' + b"x" * TEXT_BYTES_MAX + b'"}', "more than"),
        (b'{"prompt":"p","n":' + b"[" * 300 + b"]" * 300 + b"}", "nested too deeply"),
        (b'{"prompt":"p","parameters":{"n":' + b"[" * 300 + b"]" * 300 + b"}}", "nested too deeply"),
        (b'{"prompt":"p","negative_prompt":' + b"[" * 300 + b"]" * 300 + b"}", "nested too deeply"),
    ],
)
def test_json_that_is_refused(body: bytes, why: str) -> None:
    for pieces in ([body], [*byte_by_byte(body[:2000]), body[2000:]]):
        with pytest.raises(GatewayError, match=why):
            translate(pieces, JSON, "qwen-image", "images.generations")


def test_images_for_a_call_of_text_alone() -> None:
    with pytest.raises(TargetUnusableError, match="text alone"):
        translate([b'{"prompt":"p","image":"https://example.com/"}'], JSON, "wan2.2-t2i", "images.generations")


def test_a_model_in_a_message_is_printable_and_short() -> None:
    with pytest.raises(TargetUnusableError) as refused:
        translate([b'{"prompt":"p","image":"x"}'], JSON, "wanx\n" + "x" * 5000, "images.generations")
    assert refused.value.message.startswith("'wanx\\nxx")
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [("text/plain", ""), ("application/x-www-form-urlencoded", ""), ("multipart/form-data", ""), (JSON, "gzip")],
)
def test_bodies_that_are_neither(kind: str, encoding: str) -> None:
    with pytest.raises(TargetUnusableError):
        translator_of(kind, encoding, call_of("images.edits", "qwen-image"), "qwen-image", "images.edits")


@pytest.mark.parametrize("kind", [JSON, FORM])
def test_little_is_held_of_large_images(kind: str) -> None:
    translator = of(kind, "qwen-image", "images.edits")
    begun = b'{"image":"' if kind == JSON else written([("image", b"", b"")]).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    translator.feed(begun)
    grown = 1 if kind == JSON else 4 / 3
    for number in range(64):
        out = b"".join(translator.feed(b"A" * 65536))
        assert len(out) >= 65536 * grown - (200 if number == 0 else 4)
