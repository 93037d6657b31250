"""Jumps over JSON that nobody wants, for `observability.wire.json_fields`. Pure functions.

Strings: `string_end` looks for the quote with memchr. Containers: `SKIPPED` takes the small ones, `reduce_window` the
large ones, a window at a time. A window is reduced to its brackets in C: escapes are removed, what is inside quotes is
cut out, everything but brackets is deleted; then innermost pairs are removed until none is left. What remains are the
closers of containers that began before the window and the openers of those that go on after it. That costs about 10 ns
a byte however dense the brackets are, where a step in Python for each bracket costs 200 ns.
"""

import re

from observability.wire import json_paths

SKIPPED = re.compile(rb'(?:[^"\[\]{}]++|' + json_paths.STRING + rb"|" + json_paths.LEAF + rb")*+", re.DOTALL)
"""Everything up to the next bracket that matters, or the next string too long for an expression."""
_ESCAPES = re.compile(rb'(?:\\.[^"\\]{0,256}+)++', re.DOTALL)

OPEN, OPEN_ESCAPED = -1, -2
"""What `string_end` says of a string without end; OPEN_ESCAPED: the first byte of the next piece is escaped."""

WINDOW_BYTES = 8192
"""Large enough that calls cost nothing, small enough that the temporary pieces (one for each quote) do not either."""
WINDOW_BYTES_MIN = 256
"""From here down the end of a value is looked for bracket by bracket."""

_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_CLOSER_OF = bytes.maketrans(b"{[", b"}]")


_ROUNDS_MAX = 32
"""Of removing innermost pairs, one for each level of nesting inside the window."""


def reduce_window(window: bytes) -> tuple[bytes, bytes, bool] | None:
    """Reduce JSON that begins outside a string and does not end between a backslash and what it escapes.

    Returns the closers without opener in it, the closers that its unclosed openers wait for (outermost first), and
    whether a string is open at its end. None where brackets do not pair or are nested too deeply to tell.
    """
    if b"\\" in window:
        window = window.replace(b"\\\\", b"").replace(b'\\"', b"")
    parts = window.split(b'"')
    brackets = b"".join(parts[::2]).translate(None, _NOT_BRACKETS)
    for _ in range(_ROUNDS_MAX):
        size = len(brackets)
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if len(brackets) == size:
            break
    openers = brackets.lstrip(b"}]")
    if b"}" in openers or b"]" in openers:
        return None
    return brackets[: len(brackets) - len(openers)], openers.translate(_CLOSER_OF), len(parts) % 2 == 0


def string_end(data: bytes, pos: int) -> int:
    """The position after the quote that ends the string in which `pos` is; OPEN or OPEN_ESCAPED if there is none."""
    quote = data.find(b'"', pos)
    while True:
        slash = data.find(b"\\", pos, quote if quote >= 0 else len(data))
        if slash < 0:
            return quote + 1 if quote >= 0 else OPEN
        match = _ESCAPES.match(data, slash)
        if match is None:  # the backslash is the last byte
            return OPEN_ESCAPED
        pos = match.end()
        if 0 <= quote < pos:  # that one was escaped
            quote = data.find(b'"', pos)
