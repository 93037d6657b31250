"""Files in the bodies that the simulated upstream reads: hashed as they pass, in whatever pieces they come."""

import base64
import hashlib
import io
import json

import pytest
from aiohttp import ClientSession, FormData
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.upstream.parts import BadFormError, DataUrls, Form
from benchmarks.upstream.server import Upstream
from tests.benchmarks.test_upstream_faults import entry_of

PNG = b"\x89PNG\r\n--b\r\n" + bytes(range(256)) * 300
FORM = (
    b'--b0undary\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--b0undary\r\nContent-Disposition: form-data; name="image[]"; filename="a \\"b.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
    + PNG
    + b'\r\n--b0undary\r\nContent-Disposition: form-data; name="mask"; filename="m"\r\n\r\n\r\n'
    b"--b0undary--\r\n"
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % len(data) for place in places})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=8))
def test_a_form_in_any_pieces(places: list[int]) -> None:
    form = Form('multipart/form-data; boundary="b0undary"')
    for piece in cut(FORM, places):
        form.feed(piece)
    form.end()
    assert form.fields == {"model": "m"}
    image, mask = form.files
    assert (image.name, image.filename, image.content_type) == ("image[]", 'a \\"b.png', "image/png")
    assert (image.bytes, image.sha256) == (len(PNG), hashlib.sha256(PNG).hexdigest())
    assert (mask.name, mask.bytes) == ("mask", 0)
    assert form.heads == [PNG[:65536], b""]


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=8))
def test_data_urls_in_any_pieces(places: list[int]) -> None:
    urls = [f"data:{kind};base64,{base64.b64encode(PNG[:size]).decode()}"
            for kind, size in (("image/png", 70_001), ("", 2), ("image/jpeg", 0))]  # fmt: skip
    body = json.dumps({"images": urls, "text": "see data:x;base64,AAAA"}).encode()
    reader = DataUrls()
    for piece in cut(body, places):
        reader.feed(piece)
    assert [(file.content_type, file.bytes) for file in reader.files] == [
        ("image/png", 70_001),
        ("", 2),
        ("image/jpeg", 0),
    ]
    assert reader.files[0].sha256 == hashlib.sha256(PNG[:70_001]).hexdigest()


@pytest.mark.parametrize("body", [FORM[:-12], b"", FORM.replace(b"m\r\n", b"m" * 70_000 + b"\r\n")])
def test_a_form_that_is_none(body: bytes) -> None:
    form = Form("multipart/form-data; boundary=b0undary")
    with pytest.raises(BadFormError):
        form.feed(body)
        form.end()


async def test_the_ledger_says_what_a_form_carried(upstream: Upstream, session: ClientSession) -> None:
    form = FormData()
    form.add_field("model", "gpt-image-1")
    form.add_field("size", "64x32")
    for name in ("a.png", "b.png"):
        form.add_field("image[]", PNG, filename=name, content_type="image/png")
    path = "/v1/images/edits"
    async with session.post(upstream.url + path, data=form, headers={"x-sim-id": "form"}) as answer:
        assert (await answer.json())["usage"]["input_tokens_details"]["image_tokens"] == 200
    entry = await entry_of(session, upstream, "form")
    assert entry["model"] == "gpt-image-1"
    assert [(file["name"], file["filename"], file["bytes"]) for file in entry["files"]] == [
        ("image[]", "a.png", len(PNG)),
        ("image[]", "b.png", len(PNG)),
    ]
    assert (entry["image_tokens"], entry["image_width"], entry["image_height"]) == (200, 64, 32)


@pytest.mark.parametrize("size", [1000, 3_000_000])
async def test_the_ledger_says_what_data_urls_carried(upstream: Upstream, session: ClientSession, size: int) -> None:
    picture = bytes(size)
    content = [{"image": "data:image/png;base64," + base64.b64encode(picture).decode()}] * 2 + [{"text": "x"}]
    body = {
        "model": "qwen-image-edit",
        "input": {"messages": [{"role": "user", "content": content}]},
        "parameters": {"n": 2, "size": "64*32"},
    }
    path = "/api/v1/services/aigc/multimodal-generation/generation"
    sent = io.BytesIO(json.dumps(body).encode())
    async with session.post(upstream.url + path, data=sent, headers={"x-sim-id": "urls"}) as answer:
        assert (await answer.json())["usage"] == {"image_count": 2, "width": 64, "height": 32}
    entry = await entry_of(session, upstream, "urls")
    assert [(file["bytes"], file["sha256"]) for file in entry["files"]] == [
        (size, hashlib.sha256(picture).hexdigest())
    ] * 2
