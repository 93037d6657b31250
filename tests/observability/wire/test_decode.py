"""wire.decode: gzip and deflate in any chunking, and bombs."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.wire.decode import PIECE_BYTES_MAX, Decoder, UnreadableEncodingError
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
    (" deflate", zlib.compress(TEXT)),
    ("deflate", raw_deflate(TEXT)),
]


def decode(encoding: str, pieces: list[bytes]) -> tuple[bytes, bool, bool]:
    decoder = Decoder(encoding)
    decoded = b"".join(out for piece in pieces for out in decoder.feed(piece))
    return decoded, decoder.complete, decoder.failed


@pytest.mark.parametrize(("encoding", "coded"), CODED)
def test_decodes_in_any_chunking(encoding: str, coded: bytes) -> None:
    assert decode(encoding, [coded]) == (TEXT, True, False)
    assert decode(encoding, byte_by_byte(coded)) == (TEXT, True, False)


@given(case=st.sampled_from(CODED), at=places)
def test_decodes_alike_in_random_pieces(case: tuple[str, bytes], at: list[int]) -> None:
    assert decode(case[0], cut(case[1], at)) == (TEXT, True, False)


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


def test_a_dense_but_honest_stream_passes() -> None:
    text = b"".join(b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in range(50_000))
    decoded, complete, failed = decode("gzip", cut(gzip.compress(text), list(range(0, 1 << 20, 997))))
    assert (len(decoded), complete, failed) == (len(text), True, False)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "identity", ""])
def test_other_codings_cannot_be_read(encoding: str) -> None:
    with pytest.raises(UnreadableEncodingError, match="gzip and deflate"):
        Decoder(encoding)
