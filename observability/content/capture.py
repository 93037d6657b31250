"""What is recorded of one exchange: which sides, how much, and the way of it to an observer.

The pipeline opens a `Recording` where the Model API asks for one, the sample has it and the client did not refuse. The
request's keeper hears the body as it comes from the client, the answer's is part of the answer's scanner. At the end
`close` gives what the record says of it, and the frames in which it travels beside it (`observability.emitter`).

A frame: the request id (16 bytes), the side (one byte: Q or A), then content. Long content takes several, in order.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from observability.content.compose import Composer
from observability.content.form import FormKeeper
from observability.content.keepers import BriefKeeper, JsonKeeper, Keeper, MediaKeeper, TextKeeper, limits_of
from observability.content.streams import COMPOSERS, LastComposer
from observability.redaction import REDACTED
from observability.wire.multipart_fields import boundary_of

FRAME_BYTES_MAX: Final = 32 << 10
"""Of content in a frame: a batch of records is as large."""
REQUEST: Final = b"Q"
ANSWER: Final = b"A"
NO_ROOM, FAILED = -1, -2
SECRET_CHARACTERS_MIN: Final = 8
"""Of a credential that is looked for literally: a shorter one would be found in every second word."""
_PLAIN: Final = re.compile(rb"[A-Za-z0-9._-]*")
_SIGN: Final = re.compile(rb"[^A-Za-z0-9_-]", re.DOTALL)
_SPACE: Final = 1 << 64


class Plan(NamedTuple):
    """`monitoring` of a Model API, as far as content is concerned."""

    request: bool
    response: bool
    max_bytes: int
    """Of each side, as an observer keeps it."""
    sample: float

    def has(self, trace_id: str) -> bool:
        """Is this trace in the sample? One answer for all requests of a trace, the same on every host."""
        return self.sample >= 1 or int(trace_id[16:], 16) < round(self.sample * _SPACE)


def refused(values: Iterable[str]) -> bool:
    """Do the values of `x-sluiceway-record` say that nothing may be recorded? Anything but `on` does."""
    return any(value.strip().lower() != "on" for value in values)


def without(secret: bytes, data: bytes) -> bytes:
    """JSON or text without a credential, as it is or with its signs escaped: `\\/` of PHP, `\\u002B` of .NET, `%2B`."""
    data = data.replace(secret, REDACTED.encode())
    if _PLAIN.fullmatch(secret):
        return data
    written = (
        rb"(?:\\{0,7}%b|\\{1,7}u00%02X|%%%02X)" % (re.escape(sign), sign[0], sign[0]) if _SIGN.fullmatch(sign) else sign
        for sign in (secret[at : at + 1] for at in range(len(secret)))
    )
    return re.sub(b"(?i)" + b"".join(written), REDACTED.encode(), data)


class Recording:
    """Of one exchange."""

    __slots__ = ("_plan", "_request_id", "answer", "limits", "request", "secrets")

    def __init__(self, plan: Plan, request_id: str) -> None:
        self._plan = plan
        self._request_id = request_id
        self.limits = limits_of(request_id.encode("ascii"), plan.max_bytes)
        self.request: Keeper | None = None
        self.answer: Keeper | None = None
        """Of the latest attempt."""
        self.secrets: set[bytes] = set()
        """Credentials of this exchange: whoever repeats one (upstreams do, in errors) has it taken out."""

    def open_request(self, content_type: str) -> Keeper | None:
        """A keeper for the request's body; None where it is not recorded."""
        if self._plan.request:
            self.request = self._keeper(content_type)
        return self.request

    def open_answer(self, content_type: str, *, brief: bool) -> Keeper | None:
        """A keeper for an answer that does not stream; None where answers are not recorded.

        `brief`: it says something only where it is.
        """
        self.answer = None
        if self._plan.response:
            self.answer = BriefKeeper(self.limits) if brief else self._keeper(content_type)
        return self.answer

    def open_stream(self, protocol: str, operation: str) -> Composer | None:
        """A keeper for an answer that streams."""
        self.answer = composer = None
        if self._plan.response:
            self.answer = composer = COMPOSERS.get((protocol, operation), LastComposer)(self.limits)
        return composer

    @property
    def answers(self) -> bool:
        """Answers are recorded."""
        return self._plan.response

    def close(self) -> tuple[list[object], list[bytes]]:
        """What the record says, and the frames.

        The first: the limit, then for each side None or [kind, is it cut, bytes]; bytes is NO_ROOM or FAILED where
        nothing was kept.
        """
        said: list[object] = [self._plan.max_bytes]
        frames: list[bytes] = []
        for side, keeper in ((REQUEST, self.request), (ANSWER, self.answer)):
            if keeper is None:
                said.append(None)
                continue
            data = keeper.give()
            for secret in self.secrets:
                if len(secret) >= SECRET_CHARACTERS_MIN:
                    data = without(secret, data)
            size = FAILED if keeper.failed else NO_ROOM if keeper.lost else len(data)
            said.append([keeper.kind, keeper.cut, size])
            head = bytes.fromhex(self._request_id) + side
            frames += (head + data[at : at + FRAME_BYTES_MAX] for at in range(0, len(data), FRAME_BYTES_MAX))
        self.request = self.answer = None
        return said, frames

    def _keeper(self, content_type: str) -> Keeper:
        kind = content_type.partition(";")[0].strip().lower()
        limits = self.limits
        if kind in ("", "application/json") or kind.endswith("+json"):
            return JsonKeeper(limits)
        boundary = boundary_of(content_type) if kind == "multipart/form-data" else None
        if boundary is not None:
            return FormKeeper(limits, boundary)
        if kind.startswith("text/") or kind in _TEXTS:
            return TextKeeper(limits)
        return MediaKeeper(limits, kind)


_TEXTS: Final = frozenset(
    f"application/{kind}" for kind in ("x-ndjson", "jsonl", "xml", "x-subrip", "x-www-form-urlencoded")
)
