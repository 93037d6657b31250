"""One request with its response: what the phases of `proxy.pipeline` know of it, and what its answer says of it."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from observability.observation import Observation
    from proxy.body import RequestBody
    from proxy.changes import Changes
    from proxy.config.snapshot import Route, Snapshot
    from proxy.relay import Downstream

RawHeaders = tuple[tuple[bytes, bytes], ...]


class Exchange:
    """Slotted; every field has one writer. `accept` (the handler) fills the first group, each phase its own."""

    __slots__ = (
        "body",
        "changes",
        "creates_job",
        "credential",
        "headers",
        "http_1_0",
        "keep_alive",
        "method",
        "observation",
        "path",
        "payload",
        "query",
        "raw_headers",
        "response",
        "route",
        "snapshot",
        "usage_asked",
    )

    def __init__(
        self,
        *,
        snapshot: "Snapshot",
        observation: "Observation",
        response: "Downstream",
        body: "RequestBody",
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        raw_headers: RawHeaders,
        http_1_0: bool,
        keep_alive: bool,
    ) -> None:
        self.snapshot = snapshot
        """Pinned for life: a reload in between does not touch a running exchange."""
        self.observation = observation
        self.response = response
        self.body = body
        self.method = method
        self.path = path
        self.query = query
        """With its question mark, empty where there is none. Both raw, as they came."""
        self.headers = headers
        self.raw_headers = raw_headers
        self.http_1_0 = http_1_0
        self.keep_alive = keep_alive
        """The client wants to keep its connection."""
        self.route: Route | None = None
        self.credential: str | None = None
        self.payload: bytes | None = None
        """The whole body as the client sent it, where it is small; None where it streams or there is none."""
        self.changes: Changes | None = None
        """What is changed of the body; None: nothing."""
        self.creates_job = False
        """It creates a task upstream, and is repeated only where it cannot have."""
        self.usage_asked = False
        """The gateway asked for usage in the client's place; the chunk that answers is withheld."""

    @property
    def can_replay(self) -> bool:
        """The body can be sent again from its first byte."""
        return self.payload is not None or self.body.empty or self.body.held_whole

    def asks_stream(self) -> bool:
        """Is it known by now that the client asked for a stream? By the body, or by DashScope's header."""
        scanner = self.observation.request_scanner
        if scanner is not None and scanner.stream:
            return True
        return self.headers.get("X-DashScope-SSE", "").lower() == "enable"


def added_lines(exchange: Exchange, service: str) -> bytes:
    """The gateway's own header lines of a relayed answer."""
    observation = exchange.observation
    rest = _rest_of_added(service, len(observation.attempts), exchange.snapshot.generation)
    return b"x-sluiceway-request-id: %b%b" % (observation.request_id.encode("ascii"), rest)


@lru_cache(maxsize=1024)  # services times attempts of a generation or two: a hundred lines of some 80 bytes
def _rest_of_added(service: str, attempts: int, generation: int) -> bytes:
    return (
        f"\r\nx-sluiceway-service: {service}\r\n"
        f"x-sluiceway-attempts: {attempts}\r\n"
        f"x-sluiceway-generation: {generation}\r\n"
    ).encode("ascii")
