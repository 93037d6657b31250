"""Ways to cut a stream of bytes into pieces: whole, byte by byte, at random."""

import itertools

from hypothesis import strategies as st


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The pieces of `data` between `places` (taken modulo its length); some may be empty."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


places = st.lists(st.integers(0, 1 << 20), max_size=12)
"""For `cut`."""
