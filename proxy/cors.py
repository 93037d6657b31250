"""Which web pages may read the gateway's answers (CORS, WHATWG Fetch §3.2), and the header lines that tell browsers so.

A page's request carries its `Origin`. Where that is one of `cors.origins`, the answer gets the lines that let the page
read it, in place of any that the upstream wrote: it is the gateway that a page talks to. Credentials mode (cookies) is
never allowed, because keys come in headers, which pages write themselves; so `*` can be had.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

MAX_AGE_S: Final = 7200
"""How long a browser may remember the answer to its preflight: Chromium's own limit."""
ASKED_BYTES_MAX: Final = 4096
"""Of `Access-Control-Request-Headers`. The official SDKs send a dozen names, together 300 bytes."""
EXPOSED: Final = (
    *("x-sluiceway-request-id", "x-sluiceway-service", "x-sluiceway-attempts", "x-sluiceway-generation"),
    *("x-sluiceway-error", "retry-after", "x-request-id"),
)
"""What a page may read of an answer's head beside what all may (Content-Type and its like)."""

_NAMES: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_EXPOSE: Final = f"Access-Control-Expose-Headers: {', '.join(EXPOSED)}\r\n".encode("ascii")
_VARY: Final = b"Vary: Origin\r\n"


class Cors:
    """`cors`, compiled."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._lines = {
            origin: b"Access-Control-Allow-Origin: %s\r\n" % origin.encode("ascii") + _VARY + _EXPOSE
            for origin in origins
        }
        self._any = "*" in self._lines
        self._of_any = b"Access-Control-Allow-Origin: *\r\n" + _EXPOSE

    def lines(self, origin: str | None) -> bytes | None:
        """The lines for an answer to a page of this origin; None: no page asked.

        Another origin gets none that allow, and none of the upstream's that would.
        """
        if origin is None:
            return None
        return self._of_any if self._any else self._lines.get(origin, _VARY)

    def allows(self, origin: str | None) -> bool:
        """May pages of this origin read?"""
        return origin is not None and (self._any or origin in self._lines)


def preflight_lines(methods: Sequence[str], asked: str | None) -> bytes:
    """What the answer to a preflight says beside `Cors.lines`: the methods of the path, and the headers asked for.

    Any header may be sent, as by any other client; but what is no list of names is not repeated.
    """
    lines = f"Access-Control-Allow-Methods: {', '.join(methods)}\r\nAccess-Control-Max-Age: {MAX_AGE_S}\r\n"
    if asked and len(asked) <= ASKED_BYTES_MAX and _NAMES.fullmatch(asked):
        lines += f"Access-Control-Allow-Headers: {asked}\r\n"
    return lines.encode("ascii")


def with_lines(head: bytes, lines: bytes) -> bytes:
    """A whole response head with these lines in place of its `Access-Control-*`."""
    status, *others = head.split(b"\r\n")
    kept = [line for line in others if line[:15].lower() != b"access-control-"]
    return status + b"\r\n" + lines + b"\r\n".join(kept)
