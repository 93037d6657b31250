"""Fault schedules: a configuration with routing and fallback, requests, and what each service does with each of them.

Drawn by Hypothesis; the services are those of `tests.e2e.schedule_services`, the requests go through a worker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.e2e.schedule_services import FILLING, Play
from tests.fakes.worker import KEY, document_of

DEADLINE_MS = 80
"""Of the first packet and the first token, where a schedule has one."""
IDLE_MS = 160
"""`idle_timeout_ms` of every service: what ends a stall that no deadline ends."""

CHAT_PATH = b"/v1/chat/completions"
JOB_PATH = b"/api/v1/services/aigc/multimodal-generation/generation"
MODEL = b"m-plus"


# -- requests --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One request, and what each service (by its number) does with it."""

    name: str
    plays: tuple[tuple[Play, ...], ...]
    kind: str = "chat"
    """chat, stream (asks for usage), plain_stream (does not), job."""
    padding: int = 0
    chunked: bool = False
    pauses: bool = False
    """In the middle of the upload."""
    leaves: tuple[str, float] | None = None
    """When the client goes: (`time`, seconds), (`upload`, share of the body) or (`answer`, bytes)."""
    model: bytes = MODEL

    @property
    def path(self) -> bytes:
        return JOB_PATH if self.kind == "job" else CHAT_PATH

    def body(self, model: bytes | None = None) -> bytes:
        """What the client sends; with another model, what its target gets."""
        middle = {
            "chat": b'"n":1',
            "job": b'"parameters":{"n":1}',
            "stream": b'"stream":true,"stream_options":{"include_usage":true}',
            "plain_stream": b'"stream": true',
        }[self.kind]
        content = self.name.encode() + FILLING[: self.padding]
        return b'{"messages":[{"content":"%s"}],%s, "model" :"%s"}' % (content, middle, model or self.model)

    def head(self) -> bytes:
        lines = [
            b"POST %s HTTP/1.1" % self.path,
            b"Host: gateway.test",
            b"Authorization: Bearer " + KEY.encode(),
            b"X-Request-Id: " + self.name.encode(),
            b"Content-Type: application/json",
            b"Transfer-Encoding: chunked" if self.chunked else b"Content-Length: %d" % len(self.body()),
            b"Connection: close",
        ]
        if self.kind == "job":
            lines.append(b"X-DashScope-Async: enable")
        return b"\r\n".join((*lines, b"", b""))


# -- configurations --------------------------------------------------------------------------------------------------

Entry = tuple[int, str | None]
"""A target: which service, and the model that it gets (None: the client's)."""


@dataclass(frozen=True)
class Setup:
    """What a configuration file says; `services` are (keys, somebody listens, failures until it cools down)."""

    services: tuple[tuple[int, bool, int], ...]
    routing: str
    picks: tuple[Entry, ...]
    fallback: tuple[Entry, ...]
    model_api: Mapping[str, Any]
    limits: Mapping[str, int]
    total_timeout_ms: int = 0

    def listens(self, service: str) -> bool:
        """Is there anybody at its port?"""
        return self.services[int(service[1:])][1]

    @property
    def tape_is_short(self) -> bool:
        """A large body may not be held whole."""
        return bool({"hold_disk_bytes", "max_held_disk_bytes"} & self.limits.keys())

    @property
    def plans(self) -> list[list[tuple[str, str | None]]]:
        """What may be tried, in order: one list for each pick."""
        after = [(f"s{number}", model) for number, model in self.fallback]
        return [[(f"s{number}", model), *after] for number, model in self.picks]

    def document(self, ports: Sequence[int]) -> dict[str, Any]:
        """The file, as `tests.fakes.worker.running` takes it."""
        picks = [{"service": f"s{number}", "model": model} for number, model in self.picks]
        routing: Any = picks[0]
        if self.routing == "by_model":
            routing = [{"match": match, **pick} for match, pick in zip(("m-p*", "?-plus", "m-*"), picks, strict=False)]
        elif self.routing == "by_weight":
            routing = [{"weight": 1 + number, **pick} for number, pick in enumerate(picks)]
        document = document_of(
            "",
            provider="dashscope",
            limits=dict(self.limits),
            model_api={
                "protocols": ["openai", "dashscope"],
                "routing": {self.routing: routing},
                "fallback": [{"service": f"s{number}", "model": model} for number, model in self.fallback],
                **self.model_api,
            },
        )
        document["services"] = [
            {
                "name": f"s{number}",
                "provider": "dashscope",
                "base_url": f"http://127.0.0.1:{ports[number]}",
                "api_keys": [f"sk-{number}-{key}" for key in range(keys)],
                "idle_timeout_ms": IDLE_MS,
                "total_timeout_ms": self.total_timeout_ms,
                "cooldown": {"failures": failures, "base_ms": 50},
            }
            for number, (keys, _, failures) in enumerate(self.services)
        ]
        return document


@dataclass(frozen=True)
class Schedule:
    """A configuration, and what happens under it."""

    setup: Setup
    asked: tuple[Asked, ...]
    together: bool
    """All requests at once, else one after the other."""


# -- strategies ------------------------------------------------------------------------------------------------------

_answers = st.builds(
    Play,
    end=st.sampled_from(("whole", "whole", "whole", "whole", "fin", "reset", "stall")),
    status=st.sampled_from((200, 200, 400, 401, 403, 413, 429, 429, 500, 500, 502, 503, 503, 504)),
    retry_after=st.sampled_from((None, None, b"0", b"0", b"30")),
    padding=st.sampled_from((0, 0, 1000, 100_000)),
    framing=st.sampled_from(("length", "chunked")),
    early=st.booleans(),
    apart=st.booleans(),
    close=st.booleans(),
)
_refusals = st.builds(
    Play,
    status=st.sampled_from((401, 403, 429, 429, 500, 502, 503, 503)),
    retry_after=st.sampled_from((None, b"0")),
    early=st.booleans(),
)
"""What makes a request go on, without any further fault: the longest ways through a plan."""
_first_errors = st.builds(
    Play,
    kind=st.just("error_event"),
    end=st.sampled_from(("whole", "short")),
    events=st.just(0),
    framing=st.just("chunked"),
)
_streams = st.builds(
    Play,
    kind=st.sampled_from(("stream", "stream", "error_event")),
    end=st.sampled_from(("whole", "whole", "fin", "reset", "stall", "short")),
    events=st.sampled_from((0, 0, 1, 3, 200)),
    framing=st.just("chunked"),
    apart=st.booleans(),
    early=st.booleans(),
)
_until_eof = st.builds(
    Play,
    kind=st.just("stream"),
    end=st.sampled_from(("whole", "fin", "reset", "stall")),
    events=st.integers(0, 2),
    framing=st.just("eof"),
    apart=st.booleans(),
)
_silences = st.builds(
    Play, kind=st.just("silence"), end=st.sampled_from(("fin", "reset", "stall")), early=st.booleans()
) | st.builds(Play, kind=st.just("garbled"), early=st.booleans())
_plays = {
    "job": st.lists(_refusals | _refusals | _answers | _silences, min_size=1, max_size=3).map(tuple),
    "chat": st.lists(_refusals | _refusals | _answers | _silences | _streams, min_size=1, max_size=3).map(tuple),
    "stream": st.lists(
        _refusals | _refusals | _streams | _answers | _silences | _streams | _until_eof, min_size=1, max_size=3
    ).map(tuple),
}
_leaves = (
    st.none()
    | st.none()
    | st.one_of(
        st.tuples(st.just("time"), st.sampled_from((0.0, 0.005, 0.03, 0.09))),
        st.tuples(st.just("upload"), st.sampled_from((0.0, 0.3, 0.9, 1.0))),
        st.tuples(st.just("answer"), st.sampled_from((1.0, 300.0, 2000.0))),
    )
)


@st.composite
def _asked(draw: st.DrawFn, name: str, services: int) -> Asked:
    kind = draw(st.sampled_from(("chat", "stream", "stream", "plain_stream", "job")))
    plays = st.tuples(*[_plays["stream" if kind == "plain_stream" else kind]] * services)
    return Asked(
        name=name,
        plays=draw(plays),
        kind=kind,
        padding=draw(st.sampled_from((0, 0, 200_000, 399_999))),
        chunked=draw(st.booleans()),
        pauses=draw(st.booleans()),
        leaves=draw(_leaves),
        model=draw(st.sampled_from((MODEL,) * 9 + (b"other",))),
    )


@st.composite
def _setups(draw: st.DrawFn) -> Setup:
    services = draw(
        st.lists(
            st.tuples(
                st.integers(1, 3), st.sampled_from((True, True, True, True, False)), st.sampled_from((0, 0, 1, 3))
            ),
            min_size=1,
            max_size=3,
        ).map(tuple)
    )
    entries = st.tuples(
        st.integers(0, len(services) - 1), st.sampled_from((None, "m-max", "a-much-longer-name-of-a-model"))
    )
    routing = draw(st.sampled_from(("single", "single", "by_model", "by_weight")))
    return Setup(
        services=services,
        routing=routing,
        picks=draw(st.lists(entries, min_size=1, max_size=1 if routing == "single" else 2, unique=True).map(tuple)),
        fallback=draw(st.lists(entries, min_size=draw(st.sampled_from((0, 1, 2, 3))), max_size=3).map(tuple)),
        model_api={
            "fallback_on": draw(st.sampled_from(([429, 500, 502, 503, 504, 529], [500], [400, 401, 413, 503]))),
            "max_attempts": draw(st.sampled_from((1, 2, 3, 4, 5, 5))),
            "first_token_timeout_ms": draw(st.sampled_from((0, DEADLINE_MS))),
            "first_packet_timeout_ms": draw(st.sampled_from((0, 0, DEADLINE_MS))),
        },
        limits=draw(
            st.sampled_from(
                (
                    {},
                    {"hold_memory_bytes": 1000},
                    {"hold_memory_bytes": 1000, "hold_disk_bytes": 1000},
                    {"max_held_memory_bytes": 100_000, "max_held_disk_bytes": 250_000},
                    {"hold_response_bytes": 300},
                )
            )
        ),
        total_timeout_ms=draw(st.sampled_from((0, 0, 0, 120))),
    )


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """All of it."""
    setup = draw(_setups())
    number = draw(st.integers(1, 3))
    asked = tuple(draw(_asked(f"r{index}", len(setup.services))) for index in range(number))
    return Schedule(setup, asked, draw(st.booleans()))
