"""What follows from how an attempt ended: the verdict table of the architecture (§5), as far as routing goes today.

One pure function; whoever retries, counts or logs reads the same verdict.
"""

from enum import StrEnum

from proxy.errors import UpstreamError


class Verdict(StrEnum):
    """What to do after an attempt."""

    DONE = "done"
    """The upstream answered (whatever it said) and the answer goes to the client."""
    SAME_TARGET = "same_target"
    """Once more, on a fresh connection; blames nobody."""
    GIVE_UP = "give_up"
    """The error goes to the client."""
    CUT = "cut"
    """After commit: the client's connection is broken off."""
    CLIENT_LEFT = "client_left"


def judge(error: UpstreamError, *, connection_reused: bool, tape_whole: bool, already_retried: bool) -> Verdict:
    """The verdict on an attempt that failed before any byte of its answer went to the client.

    A server may close an idle connection at the very moment a request is written to it: then no byte of an answer
    comes, the request was most likely never read, and one try on a fresh connection is safe while every byte sent is
    still held (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
    """
    stale = connection_reused and not error.response_started and error.kind == "upstream_protocol"
    if stale and tape_whole and not already_retried:
        return Verdict.SAME_TARGET
    return Verdict.GIVE_UP
