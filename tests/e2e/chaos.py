"""Random trouble on both sides of a host: what each request does, and what may be said of it afterwards.

A `Trouble` is a fault of the simulated upstream, a client that leaves, or both, with the endings that the contract
allows for it. Where a client leaves at a moment of its own choice there may be more than one: the answer may have been
complete a moment before. `plan` draws requests from the table with a seeded generator, `run` makes them.
"""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from tests.e2e.traffic import CHAT, NATIVE, Client, Got, chat_body, head_of

Ending = tuple[str, str | None]
"""`sluiceway.outcome` and `error.type`."""

OK: Ending = ("ok", None)
LEFT: Ending = ("client_aborted", None)
BEFORE_THE_HEAD: Ending = ("upstream_error", "upstream_protocol")
"""A head whose body is cut in the same moment never reaches the client: not a byte had gone out."""
RESET: Ending = ("upstream_aborted", "upstream_reset")
TRUNCATED: Ending = ("upstream_aborted", "upstream_truncated")
CODE = "sim_code"

HURRIED = "/hurried"
"""Base path of the Model API whose service gives up after IDLE_TIMEOUT_MS; only stalls go there."""
IDLE_TIMEOUT_MS = 1500
NOWHERE = "/nowhere"
"""Base path of the Model API whose service refuses connections."""

LONG_MS = 120_000
"""A head that never comes, as far as a test is concerned."""


class Leaves(Enum):
    """When the client goes."""

    NEVER = "never"
    AT_ONCE = "at once"
    """Directly after its request."""
    BEFORE_THE_HEAD = "before the head"
    """When the upstream has the request and will not answer."""
    DURING_UPLOAD = "during upload"
    MID_STREAM = "mid-stream"
    """When the upstream stalls after some output."""
    ANY_TIME = "any time"
    """After some bytes of a stream that goes on."""
    AFTER_THE_END = "after the end"


@dataclass(frozen=True)
class Trouble:
    """One row of the table."""

    name: str
    controls: dict[str, str] = field(default_factory=dict)
    """Of the simulated upstream; `*` stands for a random number of chunks."""
    endings: tuple[Ending, ...] = (OK,)
    leaves: Leaves = Leaves.NEVER
    stream: bool | None = None
    """Only streams, only whole answers, or (None) either."""
    protocol: str | None = None
    base_path: str = ""
    key: str | None = None
    large: bool | None = None
    """Only large uploads, only small ones, or either."""
    weight: int = 2


def status(number: int) -> Trouble:
    controls = {"status": str(number), "error-code": CODE}
    return Trouble(f"status {number}", controls, (("upstream_error", CODE),), weight=1)


TROUBLES = (
    Trouble("none", weight=10),
    Trouble("slow", {"head-delay-ms": "20", "first-token-delay-ms": "10", "pace-ms": "3"}, weight=4),
    *map(status, (400, 404, 429, 500, 503)),
    Trouble("early refusal", {"early": "1", "status": "413", "error-code": CODE}, (("upstream_error", CODE),)),
    Trouble("stall", {"stall-after": "*"}, (("upstream_aborted", "upstream_timeout"),), base_path=HURRIED, large=False),
    Trouble("no head", {"head-delay-ms": str(LONG_MS)}, (("upstream_error", "upstream_timeout"),), base_path=HURRIED,
            large=False, weight=1),
    Trouble("reset", {"reset-after": "*"}, (RESET, BEFORE_THE_HEAD), weight=4),
    Trouble("truncated", {"truncate-after": "*"}, (TRUNCATED, BEFORE_THE_HEAD), weight=4),
    Trouble("malformed", {"malformed-after": "*"}, (TRUNCATED, BEFORE_THE_HEAD), weight=4),
    Trouble("error in a 200", {"error-after": "3", "error-code": CODE}, (("upstream_error", CODE),), stream=True),
    Trouble("no DONE", {"done": "0"}, stream=True, protocol="openai"),
    Trouble("usage in every chunk", {"usage": "every"}, stream=True, protocol="openai"),
    Trouble("usage in the last chunk", {"usage": "finish"}, stream=True, protocol="openai"),
    Trouble("no usage", {"usage": "absent"}, protocol="openai"),
    Trouble("ends with the connection", {"framing": "eof"}),
    Trouble("gzip", {"gzip": "1"}),
    Trouble("odd pieces", {"chunk-bytes": "17", "newline": "crlf", "keepalives": "3"}, stream=True),
    Trouble("refused connection", {}, (("upstream_error", "connect_failed"),), base_path=NOWHERE),
    Trouble("no such route", {}, (("rejected", "no_route"),), base_path="/nothing", weight=1),
    Trouble("unknown key", {}, (("rejected", "unauthenticated"),), key="sk-nobody", weight=1),
    Trouble("left at once", {}, (OK, LEFT), Leaves.AT_ONCE, weight=4),
    Trouble("left before the head", {"head-delay-ms": str(LONG_MS)}, (LEFT,), Leaves.BEFORE_THE_HEAD, weight=4),
    Trouble("left in the upload", {}, (LEFT,), Leaves.DURING_UPLOAD, weight=4),
    Trouble("left in the stream", {"stall-after": "*"}, (LEFT,), Leaves.MID_STREAM, stream=True, weight=4),
    Trouble("left at any time", {"pace-ms": "2"}, (OK, LEFT), Leaves.ANY_TIME, stream=True, weight=4),
    Trouble("left after the end", {}, (OK,), Leaves.AFTER_THE_END, weight=4),
)  # fmt: skip


@dataclass
class Ask:
    """One request and what came of it."""

    name: str
    """Its x-request-id."""
    trouble: Trouble
    protocol: str
    stream: bool
    fresh: bool
    """On a connection of its own."""
    head: bytes
    body: bytes
    asks_usage: bool
    sent_bytes: int
    """Of the body, before the client leaves."""
    read_bytes: int
    """Of the answer's body, before a client leaves that may do so at any time."""
    got: Got = field(default_factory=Got)

    @property
    def stays(self) -> bool:
        """The client reads its answer to the end."""
        return self.trouble.leaves in (Leaves.NEVER, Leaves.AFTER_THE_END)

    @property
    def body_sha256(self) -> str:
        """Of the body as the client meant it."""
        return hashlib.sha256(self.body).hexdigest()


def plan(count: int, seed: int) -> list[Ask]:
    """`count` requests, every row of the table among them."""
    dice = random.Random(seed)
    rows = [trouble for trouble in TROUBLES for _ in range(trouble.weight)]
    troubles = [*TROUBLES, *dice.choices(rows, k=count - len(TROUBLES))]
    dice.shuffle(troubles)
    return [_ask(f"chaos-{seed}-{number}", trouble, dice) for number, trouble in enumerate(troubles)]


def _ask(name: str, trouble: Trouble, dice: random.Random) -> Ask:
    stream = dice.random() < 0.6 if trouble.stream is None else trouble.stream
    protocol = trouble.protocol or dice.choice(("openai", "openai", "dashscope"))
    large = dice.random() < 0.06 if trouble.large is None else trouble.large
    size = dice.randrange(1 << 20, 4 << 20) if large else dice.choice((0, 0, 2000, 50_000, 150_000))
    controls = dict(trouble.controls)
    if stream:
        controls["events"] = "12"
        after = dice.randrange(1, 9)
    else:
        controls.setdefault("chunk-bytes", "50")
        after = dice.randrange(4)
    if trouble.leaves is Leaves.MID_STREAM or dice.random() > 0.2:
        after = max(1, after)
    controls = {f"x-sim-{control}": str(after) if value == "*" else value for control, value in controls.items()}
    asks_usage = protocol == "openai" and stream and dice.random() < 0.5
    if protocol == "openai":
        path, body = CHAT, chat_body(f"Question {name}", stream=stream, usage=asks_usage, size=size)
    else:
        path, body = NATIVE, _native_body(f"Question {name}", size)
        if stream:
            controls["x-dashscope-sse"] = "enable"
    if dice.random() < 0.3 or trouble.name == "gzip":
        controls["accept-encoding"] = "gzip, br"
    if trouble.key is not None:
        controls["key"] = trouble.key
    head = head_of(trouble.base_path + path, name, len(body), **controls)
    sent_bytes = dice.randrange(len(body)) if trouble.leaves is Leaves.DURING_UPLOAD else len(body)
    read_bytes = dice.randrange(1, 2500)
    return Ask(name, trouble, protocol, stream, dice.random() < 0.4, head, body, asks_usage, sent_bytes, read_bytes)


def _native_body(question: str, size: int) -> bytes:
    messages = [{"role": "user", "content": question + " x" * (size // 2)}]
    parameters = {"result_format": "message", "incremental_output": True}
    return orjson.dumps({"input": {"messages": messages}, "model": "qwen-plus", "parameters": parameters})


Arrived = Callable[[str], Any]
"""Awaits the moment in which the upstream has the head of a request."""


async def run(asks: Iterable[Ask], port: int, arrived: Arrived, clients: int) -> None:
    """Make the requests, `clients` at a time; a client keeps its connection where it can and the plan lets it."""
    waiting = iter(asks)

    async def client() -> None:
        kept: Client | None = None
        for ask in waiting:
            if kept is None or ask.fresh:
                if kept is not None:
                    kept.leave()
                kept = await Client.to(port)
            await _make(ask, kept, arrived)
            if not (ask.trouble.leaves is Leaves.NEVER and ask.got.reusable):
                kept.leave()
                kept = None
        if kept is not None:
            kept.leave()

    await asyncio.gather(*(client() for _ in range(clients)))


async def _make(ask: Ask, client: Client, arrived: Arrived) -> None:
    sending = asyncio.create_task(client.send(ask.head + ask.body[: ask.sent_bytes]))
    try:
        match ask.trouble.leaves:
            case Leaves.AT_ONCE | Leaves.DURING_UPLOAD:
                await sending
            case Leaves.BEFORE_THE_HEAD:
                await arrived(ask.name)
            case Leaves.MID_STREAM:
                await client.receive(ask.got, until_bytes=1)
            case Leaves.ANY_TIME:
                await client.receive(ask.got, until_bytes=ask.read_bytes)
            case Leaves.NEVER | Leaves.AFTER_THE_END:
                await client.receive(ask.got)
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
