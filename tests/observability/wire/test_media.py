"""Facts of media in pieces, against the whole in memory: any chunking, any way of writing base64."""

import base64
import hashlib
import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.wire.media import UNKNOWN_TYPE, Media, MediaDigest
from tests.observability.chunks import cut


def png(width: int, height: int) -> bytes:
    head = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(40)


def jpeg(width: int, height: int, *segments: int) -> bytes:
    before = b"".join(b"\xff\xe1" + struct.pack(">H", size + 2) + b"\xff" * size for size in (14, *segments))
    frame = b"\xff\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(12)
    return b"\xff\xd8" + before + frame + bytes(100)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(30)


def webp_lossy(width: int, height: int) -> bytes:
    size = struct.pack("<HH", width | 0x4000, height)
    return b"RIFF\x60\0\0\0WEBPVP8 \x50\0\0\0\x10\x02\0\x9d\x01\x2a" + size + bytes(9)


def webp_lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return b"RIFF\x60\0\0\0WEBPVP8L\x50\0\0\0\x2f" + struct.pack("<I", bits) + bytes(20)


def webp_extended(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x60\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + size + bytes(20)


IMAGES = [
    (png(640, 480), "image/png"),
    (jpeg(640, 480), "image/jpeg"),
    (jpeg(640, 480, 5, 65000, 0, 3), "image/jpeg"),
    (gif(640, 480), "image/gif"),
    (webp_lossy(640, 480), "image/webp"),
    (webp_lossless(640, 480), "image/webp"),
    (webp_extended(640, 480), "image/webp"),
]


@pytest.mark.parametrize(("data", "media_type"), IMAGES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 29, 30, 31, 4096, 1 << 20])
def test_the_size_of_an_image_is_read_in_pieces_of_any_size(data, media_type, size):
    digest = MediaDigest()
    for at in range(0, len(data), size):
        digest.feed(data[at : at + size])
    assert digest.end() == Media(media_type, len(data), hashlib.sha256(data).hexdigest(), 640, 480)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", png(0, 3)[:20], b"\xff\xd8\xff" + bytes(200), b"RIFF"])
def test_what_is_cut_or_no_image_has_no_size(data):
    digest = MediaDigest()
    digest.feed(data)
    assert digest.end()[3:] == (0, 0)


def test_a_jpeg_of_endless_segments_is_given_up():
    digest = MediaDigest()
    digest.feed(b"\xff\xd8" + b"\xff\xe1\x00\x02" * 1000 + jpeg(3, 4)[2:])
    assert digest.end().width == 0


WRITTEN = st.sampled_from(["plain", "url_safe", "unpadded", "lines", "slashes", "dotnet"])


def written(data: bytes, how: str) -> bytes:
    """Base64 as it stands in JSON, as different clients write it."""
    text = base64.b64encode(data).decode()
    if how == "url_safe":
        text = base64.urlsafe_b64encode(data).decode()
    elif how == "unpadded":
        text = text.rstrip("=")
    elif how == "lines":
        text = base64.encodebytes(data).decode().replace("\n", "\r\n")
    raw = json.dumps(text)[1:-1]
    if how == "slashes":
        raw = raw.replace("/", "\\/")
    elif how == "dotnet":
        raw = raw.replace("+", "\\u002B").replace("=", "\\u003D").replace("/", "\\/")
    return raw.encode()


@given(data=st.binary(max_size=400), how=WRITTEN, cuts=st.lists(st.integers(0, 800)))
def test_base64_in_any_pieces_gives_the_facts_of_the_whole(data, how, cuts):
    digest = MediaDigest("image/x-test; charset=x")
    for piece in cut(written(data, how), cuts):
        digest.feed_base64(piece)
    media = digest.end()
    assert media[:3] == ("image/x-test", len(data), hashlib.sha256(data).hexdigest())


@given(
    data=st.binary(min_size=3, max_size=60),
    wrong=st.sampled_from([b"!", b"=A", b"\xc3", b"\\x", b"\\u00e4", b"\\"]),
    at=st.integers(0, 60),
    cuts=st.lists(st.integers(0, 100)),
)
def test_what_is_no_base64_has_no_digest_of_something_else(data, wrong, at, cuts):
    raw = base64.b64encode(data)
    broken = raw[:at] + wrong + raw[at:]
    try:
        expected = hashlib.sha256(base64.b64decode(json.loads(b'"%b"' % broken), validate=True)).hexdigest()
    except ValueError:
        expected = ""
    digest = MediaDigest()
    for piece in cut(broken, cuts):
        digest.feed_base64(piece)
    assert digest.end().sha256 in ("", expected)


def test_what_was_cut_has_no_digest():
    digest = MediaDigest()
    digest.feed(b"abc")
    assert digest.end(whole=False) == Media(UNKNOWN_TYPE, 3, "")


@pytest.mark.parametrize("declared", ["", "image", "image/<script>", "a" * 60 + "/" + "b" * 60, 'x/"y'])
def test_a_type_that_is_none_is_not_repeated(declared):
    digest = MediaDigest(declared)
    digest.feed(gif(1, 1))
    assert digest.end().media_type == "image/gif"
