"""Bodies in each content coding, as servers and clients write them."""

import gzip
import sys
import zlib
from collections.abc import Callable

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["ENCODE", "encoded", "zstd"]

ENCODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "deflate": lambda data: zlib.compress(data, 1),
    "br": lambda data: bytes(brotli.compress(data, quality=4)),
    "zstd": lambda data: bytes(zstd.compress(data)),
}


def encoded(data: bytes, content_encoding: str) -> bytes:
    """`data` as a body with this Content-Encoding."""
    for coding in content_encoding.lower().split(","):
        data = ENCODE.get(coding.strip(), bytes)(data)
    return data
