"""codings: each coding in any chunking, what stands behind an end, and bombs of every kind."""

import gzip
import random
import struct
import zlib

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.codings.account import Account
from observability.codings.decode import PIECE_BYTES_MAX, STEP_BYTES, Decoder, UnreadableEncodingError
from observability.scanners import request_scanner
from tests.observability.chunks import byte_by_byte, cut, places
from tests.observability.coded import encoded, zstd

TEXT = b'{"usage":{"prompt_tokens":1}}\n' * 40


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def zstd_of_unknown_size(data: bytes, window_log: int = 17, *, level: int = 3) -> bytes:
    """As a server writes a stream: no content size in the frame's head, but a window."""
    options = {zstd.CompressionParameter.window_log: window_log, zstd.CompressionParameter.compression_level: level}
    compressor = zstd.ZstdCompressor(options=options)
    half = len(data) // 2
    return (
        compressor.compress(data[:half], compressor.FLUSH_BLOCK)
        + compressor.compress(data[half:], compressor.FLUSH_BLOCK)
        + compressor.flush()
    )


def skippable(data: bytes, kind: int = 0) -> bytes:
    return struct.pack("<II", 0x184D2A50 + kind, len(data)) + data


def flushed_br(data: bytes) -> bytes:
    compressor = brotli.Compressor(lgwin=16)
    return b"".join(
        compressor.process(data[at : at + 99]) + compressor.flush() for at in range(0, len(data), 99)
    ) + compressor.finish()  # fmt: skip


SUMMED = {zstd.CompressionParameter.checksum_flag: 1}

CODED = [
    ("gzip", gzip.compress(TEXT)),
    ("X-GZIP", gzip.compress(TEXT)),
    ("gzip", gzip.compress(TEXT[:100]) + gzip.compress(b"") + gzip.compress(TEXT[100:])),
    ("gzip", gzip.compress(TEXT) + bytes(20)),
    ("gzip", gzip.compress(TEXT[:100]) + bytes(8) + gzip.compress(TEXT[100:]) + b"\0"),
    ("gzip", gzip.compress(TEXT[:100]) + bytes(2 * STEP_BYTES) + gzip.compress(TEXT[100:])),
    (" deflate", zlib.compress(TEXT)),
    ("deflate", raw_deflate(TEXT)),
    *(("br", brotli.compress(TEXT, lgwin=bits)) for bits in (10, 16, 17, 18, 22, 23)),
    ("BR", flushed_br(TEXT)),
    ("zstd", zstd.compress(TEXT)),
    ("ZSTD ", zstd.compress(TEXT, options=SUMMED)),
    ("zstd", zstd.compress(TEXT, options={zstd.CompressionParameter.content_size_flag: 0})),
    ("zstd", zstd_of_unknown_size(TEXT)),
    ("zstd", zstd_of_unknown_size(TEXT, 23)),
    ("zstd", zstd.compress(TEXT[:100]) + zstd.compress(b"") + zstd_of_unknown_size(TEXT[100:])),
    ("zstd", skippable(b"") + skippable(b"x" * 3000, 15) + zstd.compress(TEXT) + skippable(b"\x28\xb5\x2f\xfd")),
    ("identity, gzip,", gzip.compress(TEXT)),
    ("gzip, br", brotli.compress(gzip.compress(TEXT))),
    ("br,zstd", zstd.compress(brotli.compress(TEXT))),
    ("zstd, identity, gzip", gzip.compress(zstd.compress(TEXT))),
    ("deflate, deflate", raw_deflate(zlib.compress(TEXT))),
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
    ("zstd", zstd.compress(TEXT) + b"x"),
    ("zstd", zstd.compress(TEXT) + b"\0"),
    ("zstd", zstd.compress(TEXT) + b"\x28x"),
    ("zstd", zstd.compress(TEXT) + b"\x51\x2a\x4e"),
    ("zstd", zstd.compress(TEXT) + skippable(b"xyz") + gzip.compress(TEXT)),
    ("gzip, zstd", zstd.compress(gzip.compress(TEXT)) + b"x"),
    ("gzip, zstd", zstd.compress(gzip.compress(TEXT) + b"x")),
]
BR_AND_MORE = [brotli.compress(TEXT) + more for more in (b"x", b"\0", b"\x06", brotli.compress(TEXT))]


def decode(encoding: str, pieces: list[bytes]) -> tuple[bytes, bool, bool]:
    decoder = Decoder(encoding)
    decoded = b"".join(out for piece in pieces for out in decoder.feed(piece))
    assert decoder.bytes_out == len(decoded)
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


@pytest.mark.parametrize("coded", BR_AND_MORE, ids=range(len(BR_AND_MORE)))
def test_what_stands_behind_the_end_of_br_fails_and_may_cost_the_last_piece(coded: bytes) -> None:
    for pieces in ([coded], *([coded[:at], coded[at:]] for at in range(len(coded))), byte_by_byte(coded)):
        decoded, complete, failed = decode("br", pieces)
        assert TEXT.startswith(decoded)
        assert (complete, failed) == (False, True)
    assert decoded == TEXT


CUT = [(encoding, coded) for encoding, coded in CODED if "deflate, " not in encoding and not coded.endswith(b"\0")]


@pytest.mark.parametrize(("encoding", "coded"), CUT, ids=range(len(CUT)))
def test_a_cut_stream_gives_what_came_and_is_not_complete(encoding: str, coded: bytes) -> None:
    ends = set()  # where a member or frame ends, what came is complete in itself: nobody can tell
    for at in range(1, len(coded)):
        decoded, complete, failed = decode(encoding, [coded[:at]])
        assert TEXT.startswith(decoded)
        assert not failed
        if complete:
            ends.add(decoded)
    assert ends <= {b"", TEXT[:100], TEXT}


def test_a_stream_without_a_byte_is_not_complete() -> None:
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, br"):
        assert decode(encoding, []) == decode(encoding, [b""]) == (b"", False, False)


@pytest.mark.parametrize(
    ("encoding", "coded"),
    [
        ("gzip", gzip.compress(b"")),
        ("br", brotli.compress(b"")),
        ("zstd", zstd.compress(b"")),
        ("zstd", skippable(b"a")),
    ],
)
def test_a_stream_of_nothing_is_complete(encoding: str, coded: bytes) -> None:
    assert decode(encoding, [coded]) == decode(encoding, byte_by_byte(coded)) == (b"", True, False)


def test_another_member_that_is_cut_is_not_complete() -> None:
    for encoding, first, more in (
        ("gzip", gzip.compress(TEXT), (b"\x1f", bytes(9) + gzip.compress(TEXT)[:15])),
        ("zstd", zstd.compress(TEXT), (b"\x28", b"\x50", zstd.compress(TEXT)[:15], skippable(b"abc")[:-1])),
    ):
        for end in more:
            for pieces in ([first + end], byte_by_byte(first + end)):
                assert decode(encoding, pieces)[1:] == (False, False)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "br, zstd", "gzip, deflate"])
@given(data=st.binary(max_size=100), at=places)
def test_any_bytes_are_survived(encoding: str, data: bytes, at: list[int]) -> None:
    whole, pieces = decode(encoding, [data]), decode(encoding, cut(data, at))
    assert whole[1:] == pieces[1:]


@given(case=st.sampled_from([case for case in CODED if case[0] in ("br", "zstd")]), at=places, data=st.data())
def test_a_damaged_stream_is_judged_alike_in_any_pieces(case, at, data) -> None:
    coded = bytearray(case[1])
    coded[data.draw(st.integers(0, len(coded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    whole, pieces = decode(case[0], [bytes(coded)]), decode(case[0], cut(bytes(coded), at))
    assert whole[1:] == pieces[1:]


BOMBS = {
    "gzip": ("gzip", gzip.compress(bytes(64 << 20), compresslevel=9)),
    "deflate": ("deflate", zlib.compress(bytes(64 << 20), 9)),
    "br": ("br", brotli.compress(bytes(64 << 20), quality=5)),
    "zstd": ("zstd", zstd.compress(bytes(64 << 20))),
    "zstd of unknown size": ("zstd", zstd_of_unknown_size(bytes(64 << 20), 23)),
    "one in the other": ("br, gzip", gzip.compress(brotli.compress(bytes(64 << 20), quality=5))),
    "a bomb that gives nothing": ("br, gzip", gzip.compress(bytes(64 << 20))),
}


@pytest.mark.parametrize(("encoding", "bomb"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_given_up_and_never_unfolds_at_once(encoding: str, bomb: bytes) -> None:
    account = Account()
    decoder = Decoder(encoding, account=account)
    sizes = [0, *(len(piece) for piece in decoder.feed(bomb))]
    assert decoder.failed
    assert max(sizes) <= PIECE_BYTES_MAX
    assert sum(sizes) < 200 * len(bomb) + (2 << 20)
    assert list(decoder.feed(b"more")) == []
    assert account.held_bytes == 0


@pytest.mark.parametrize(
    ("encoding", "item"), [("zstd", zstd.compress(b"")), ("zstd", skippable(b"")), ("gzip", gzip.compress(b""))]
)
def test_frames_without_end_are_given_up(encoding: str, item: bytes) -> None:
    for pieces in ([item * 40_000], [item * 100] * 400):
        decoder = Decoder(encoding, ratio_max=32, grace_bytes=65536)
        for piece in pieces:
            list(decoder.feed(piece))
        assert decoder.failed
        assert decoder.bytes_in < 100 * STEP_BYTES


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "gzip, br"])
@settings(deadline=None)  # 200 KB in pieces: a busy machine is no fault
@given(zeros=st.integers(0, 200_000), before=st.integers(0, 3000), at=places)
def test_the_ratio_is_the_same_for_any_chunking(encoding: str, zeros: int, before: int, at: list[int]) -> None:
    noise = random.Random(zeros).randbytes(before + 3000)
    coded = encoded(noise[:before] + bytes(zeros) + noise[before:], encoding)

    def gives_up(pieces: list[bytes], grace_bytes: int = 50_000) -> bool:
        decoder = Decoder(encoding, ratio_max=10, grace_bytes=grace_bytes)
        for piece in pieces:
            list(decoder.feed(piece))
        return decoder.failed

    failed = {gives_up(pieces) for pieces in ([coded], cut(coded, at), byte_by_byte(coded))}
    if zeros <= 50_000:
        assert failed == {False}
    elif zeros > 10 * (len(coded) + STEP_BYTES) + 50_000:
        assert failed == {True}
    if "br" not in encoding or gives_up([coded], 50_100) == gives_up([coded], 49_900):  # br gives some bytes sooner
        assert len(failed) == 1


def test_windows_over_8_mib_are_refused_in_any_chunking() -> None:
    single = bytearray(zstd.compress(TEXT))  # a frame whose content is its window: made to say 9 MiB
    assert single[4] == 0x60
    single[4:7] = b"\xa0" + (9 << 20).to_bytes(4, "little")
    for encoding, coded in (
        ("zstd", zstd_of_unknown_size(TEXT, 24)),
        ("zstd", bytes(single)),
        ("br", brotli.compress(TEXT, lgwin=24)),
    ):
        for pieces in ([coded], byte_by_byte(coded)):
            assert decode(encoding, pieces) == (b"", False, True)


@pytest.mark.parametrize(
    ("encoding", "coded"),
    [
        ("zstd", zstd_of_unknown_size(random.Random(1).randbytes(3 << 20), 21)),
        ("br", brotli.compress(random.Random(1).randbytes(3 << 20), lgwin=21, quality=1)),
    ],
)
def test_what_windows_hold_is_counted_and_given_back(encoding: str, coded: bytes) -> None:
    account = Account(limit_bytes=5 << 20)
    one, two, three = (Decoder(encoding, account=account) for _ in range(3))
    half = coded[: len(coded) - 1000]
    for decoder in (one, two):
        list(decoder.feed(half))
        assert not decoder.failed
    assert 4 << 20 < account.held_bytes < 5 << 20
    list(three.feed(half))
    assert (three.failed, three.crowded) == (True, True)
    list(one.feed(coded[len(half) :]))
    assert (one.complete, one.failed) == (True, False)
    assert account.held_bytes < 3 << 20
    del two, decoder  # a client that left
    assert account.held_bytes == 0


def test_a_request_that_finds_no_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observability.scanners.request.REQUESTS", Account(limit_bytes=1000))
    scanner = request_scanner("openai", "chat.completions", "application/json", "br")
    scanner.whole(brotli.compress(b'{"model":"m"}'))
    assert (scanner.failed, scanner.crowded, scanner.settled) == (True, True, True)


@pytest.mark.parametrize(
    ("item", "count", "failed"), [(b'{"id":%d,"ok":true},', 3000, False), (b"[[]],", 25_000, True)]
)
@pytest.mark.parametrize(("encoding", "encode"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_requests_may_unfold_less_than_responses(encoding, encode, item: bytes, count: int, failed: bool) -> None:
    rows = b"".join(item % number if b"%" in item else item for number in range(count))
    body = encode(b'{"model":"m","rows":[' + rows + b"0]}")
    decoder = Decoder(encoding)
    assert sum(map(len, decoder.feed(body))) > 60_000
    assert decoder.complete
    for pieces in ([body], byte_by_byte(body)):
        scanner = request_scanner("openai", "chat.completions", "application/json", encoding)
        for piece in pieces:
            scanner.feed(piece)
        scanner.end()
        assert (scanner.complete, scanner.failed) == (not failed, failed)


@pytest.mark.parametrize(
    ("encoding", "encode", "between"), [("gzip", gzip.compress, bytes(8)), ("zstd", zstd.compress, skippable(b"x"))]
)
def test_a_second_model_in_another_member_is_found(encoding, encode, between) -> None:
    first, second = encode(b'{"model":"allowed"'), encode(b',"model":"late"}')
    whole = first + between + second
    for pieces in ([whole], [first, between + second], byte_by_byte(whole)):
        scanner = request_scanner("openai", "chat.completions", "application/json", encoding)
        for piece in pieces:
            scanner.feed(piece)
        scanner.end()
        assert (scanner.complete, scanner.model_duplicated) == (True, True)


def test_a_dense_but_honest_stream_passes() -> None:
    text = b"".join(b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in range(50_000))
    for encoding, coded in (
        ("gzip", gzip.compress(text)),
        ("br", brotli.compress(text, quality=5)),
        ("zstd", zstd_of_unknown_size(text)),
    ):
        decoded, complete, failed = decode(encoding, cut(coded, list(range(0, 1 << 20, 997))))
        assert (len(decoded), complete, failed) == (len(text), True, False)


@pytest.mark.parametrize("encoding", ["compress", "gzip, gzip, gzip", "gzip, x", "identity", "", " , ", "g zip"])
def test_other_codings_cannot_be_read(encoding: str) -> None:
    with pytest.raises(UnreadableEncodingError, match="gzip, deflate, br, zstd can, 2"):
        Decoder(encoding)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut"])
def test_the_room_of_a_request_is_given_back_when_its_body_is_over(
    monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Its exchange may go on for minutes."""
    account = Account(limit_bytes=1 << 30)
    monkeypatch.setattr("observability.scanners.request.REQUESTS", account)
    scanner = request_scanner("openai", "chat.completions", "application/json", "br")
    text = random.Random(1).randbytes(100_000).hex().encode()
    body = brotli.compress(b'{"model":"m","text":"%s"}' % text)
    scanner.feed(body[:-10])
    assert account.held_bytes > 0
    if whole:
        scanner.feed(body[-10:])
    scanner.end()
    assert (scanner.failed, account.held_bytes) == (not whole, 0)
