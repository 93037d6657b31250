"""One request with its response: what the phases of `proxy.pipeline` know of it, and nothing else. Data only."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from observability.observation import Observation
    from proxy.body import RequestBody
    from proxy.config.snapshot import Route, Service, Snapshot
    from proxy.relay import Downstream

RawHeaders = tuple[tuple[bytes, bytes], ...]


class Exchange:
    """Slotted; every field has one writer. `accept` (the handler) fills the first group, each phase its own."""

    __slots__ = (
        "body",
        "consumer_name",
        "credential",
        "headers",
        "http_1_0",
        "keep_alive",
        "method",
        "observation",
        "path",
        "query",
        "raw_headers",
        "response",
        "route",
        "service",
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
        self.consumer_name: str | None = None
        self.service: Service | None = None
        self.usage_asked = False
        """The gateway asked for usage in the client's place; the chunk that answers is withheld."""
