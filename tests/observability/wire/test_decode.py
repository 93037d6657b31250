"""wire.decode: gzip and deflate in any chunking, and bombs."""

import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.scanners import request_scanner
from observability.wire.decode import PIECE_BYTES_MAX, STEP_BYTES, Decoder, UnreadableEncodingError
from tests.observability.chunks import byte_by_byte, cut, places

TEXT = b'{"usage":{"prompt_tokens":1}}\n' * 40


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


CODED = [
    ("gzip", gzip.compress(TEXT)),
    ("X-GZIP", gzip.compress(TEXT)),
    ("gzip", gzip.compress(TEXT[:100]) + gzip.compress(b"") + gzip.compress(TEXT[100:])),
    ("gzip", gzip.compress(TEXT) + bytes(20)),
    ("gzip", gzip.compress(TEXT[:100]) + bytes(8) + gzip.compress(TEXT[100:]) + b"\0"),
    ("gzip", gzip.compress(TEXT[:100]) + bytes(2 * STEP_BYTES) + gzip.compress(TEXT[100:])),
    (" deflate", zlib.compress(TEXT)),
    ("deflate", raw_deflate(TEXT)),
]
CODED_AND_MORE = [
    ("gzip", gzip.compress(TEXT) + b"x"),
    ("gzip", gzip.compress(TEXT) + b"\r\n"),
    ("gzip", gzip.compress(TEXT) + bytes(8) + b"x"),
    ("gzip", gzip.compress(TEXT) + bytes(2 * STEP_BYTES) + TEXT),
    ("gzip", gzip.compress(TEXT) + b"\x1fx"),
    ("gzip", gzip.compress(TEXT) + zlib.compress(TEXT)),
    ("gzip", gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]) + b"x"),
    ("deflate", zlib.compress(TEXT) + b"x"),
    ("deflate", zlib.compress(TEXT) + b"\0"),
    ("deflate", zlib.compress(TEXT) + zlib.compress(TEXT)),
    ("deflate", raw_deflate(TEXT) + b"\0"),
    ("deflate", raw_deflate(TEXT) + gzip.compress(TEXT)),
]


def decode(encoding: str, pieces: list[bytes]) -> tuple[bytes, bool, bool]:
    decoder = Decoder(encoding)
    decoded = b"".join(out for piece in pieces for out in decoder.feed(piece))
    return decoded, decoder.complete, decoder.failed


@pytest.mark.parametrize(("encoding", "coded"), CODED, ids=range(len(CODED)))
def test_decodes_in_any_chunking(encoding: str, coded: bytes) -> None:
    assert decode(encoding, [coded]) == (TEXT, True, False)
    assert decode(encoding, byte_by_byte(coded)) == (TEXT, True, False)


@given(case=st.sampled_from(CODED), at=places)
def test_decodes_alike_in_random_pieces(case: tuple[str, bytes], at: list[int]) -> None:
    assert decode(case[0], cut(case[1], at)) == (TEXT, True, False)


@pytest.mark.parametrize(("encoding", "coded"), CODED_AND_MORE, ids=range(len(CODED_AND_MORE)))
def test_what_stands_behind_the_end_fails_in_any_chunking(encoding: str, coded: bytes) -> None:
    assert decode(encoding, [coded]) == (TEXT, False, True)
    for at in range(len(coded)):
        assert decode(encoding, [coded[:at], coded[at:]]) == (TEXT, False, True)
    assert decode(encoding, byte_by_byte(coded)) == (TEXT, False, True)


def test_another_member_that_is_cut_is_not_complete() -> None:
    for more in (b"\x1f", bytes(9) + gzip.compress(TEXT)[:15]):
        for pieces in ([gzip.compress(TEXT) + more], byte_by_byte(gzip.compress(TEXT) + more)):
            assert decode("gzip", pieces)[1:] == (False, False)


def test_a_cut_stream_gives_what_came_and_is_not_complete() -> None:
    decoded, complete, failed = decode("gzip", [gzip.compress(TEXT)[:-9]])
    assert TEXT.startswith(decoded)
    assert not complete
    assert not failed


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(data=st.binary(max_size=100), at=places)
def test_any_bytes_are_survived(encoding: str, data: bytes, at: list[int]) -> None:
    decode(encoding, cut(data, at))


def test_a_bomb_is_given_up_and_never_unfolds_at_once() -> None:
    bomb = gzip.compress(bytes(64 << 20), compresslevel=9)
    decoder = Decoder("gzip")
    sizes = [len(piece) for piece in decoder.feed(bomb)]
    assert decoder.failed
    assert max(sizes) <= PIECE_BYTES_MAX
    assert sum(sizes) < 200 * len(bomb) + (2 << 20)
    assert list(decoder.feed(b"more")) == []


@given(zeros=st.integers(0, 200_000), before=st.integers(0, 3000), at=places)
def test_the_ratio_is_the_same_for_any_chunking(zeros: int, before: int, at: list[int]) -> None:
    noise = random.Random(zeros).randbytes(before + 3000)
    coded = gzip.compress(noise[:before] + bytes(zeros) + noise[before:])
    failed = []
    for pieces in ([coded], cut(coded, at), byte_by_byte(coded)):
        decoder = Decoder("gzip", ratio_max=10, grace_bytes=50_000)
        for piece in pieces:
            list(decoder.feed(piece))
        failed.append(decoder.failed)
        if zeros <= 50_000:
            assert not decoder.failed
        elif zeros > 10 * (len(coded) + STEP_BYTES) + 50_000:
            assert decoder.failed
    assert failed in ([True] * 3, [False] * 3)


@pytest.mark.parametrize(
    ("item", "count", "failed"), [(b'{"id":%d,"ok":true},', 3000, False), (b"[[]],", 40_000, True)]
)
def test_requests_may_unfold_less_than_responses(item: bytes, count: int, failed: bool) -> None:
    rows = b"".join(item % number if b"%" in item else item for number in range(count))
    body = gzip.compress(b'{"model":"m","rows":[' + rows + b"0]}")
    decoder = Decoder("gzip")
    assert sum(map(len, decoder.feed(body))) > 60_000
    assert decoder.complete
    for pieces in ([body], byte_by_byte(body)):
        scanner = request_scanner("openai", "chat.completions", "application/json", "gzip")
        for piece in pieces:
            scanner.feed(piece)
        scanner.end()
        assert (scanner.complete, scanner.failed) == (not failed, failed)


def test_a_second_model_in_another_member_is_found() -> None:
    first, second = gzip.compress(b'{"model":"allowed"'), gzip.compress(b',"model":"late"}')
    for pieces in ([first + bytes(8) + second], [first, bytes(8) + second], byte_by_byte(first + bytes(8) + second)):
        scanner = request_scanner("openai", "chat.completions", "application/json", "gzip")
        for piece in pieces:
            scanner.feed(piece)
        scanner.end()
        assert (scanner.complete, scanner.model_duplicated) == (True, True)


def test_a_dense_but_honest_stream_passes() -> None:
    text = b"".join(b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in range(50_000))
    decoded, complete, failed = decode("gzip", cut(gzip.compress(text), list(range(0, 1 << 20, 997))))
    assert (len(decoded), complete, failed) == (len(text), True, False)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "identity", ""])
def test_other_codings_cannot_be_read(encoding: str) -> None:
    with pytest.raises(UnreadableEncodingError, match="gzip and deflate"):
        Decoder(encoding)
