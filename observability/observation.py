"""What one exchange is seen to do: clocks, byte counts and the scanners, from accept to the last byte.

The middleware opens one for each request and makes its record at the end; the pipeline fills in what it decides; the
relay calls `tap` after each write, so that observing never delays a byte. Times are `time.monotonic_ns()`.

The four waits (client's body, connecting, upstream, slow reader) never overlap: whoever awaits adds to one of them.
What is left of the duration is the gateway's own.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from observability.telemetry import DEFAULT

if TYPE_CHECKING:
    from observability.content.capture import Recording
    from observability.content.keepers import Keeper
    from observability.sampling import TraceContext
    from observability.scanners import RequestScanner, Scanner

now_ns = time.monotonic_ns

MAX_MESSAGE_CHARACTERS = 512
"""Of an error message in a record: the longest that the gateway writes has half of it, but may quote a path."""
MAX_ID_BYTES = 256
"""Of an upstream's request id: the scanners' limit for one in a body. Real ones have up to 40."""


class Attempt:
    """One try at one target: where, from when to when, and how it ended."""

    __slots__ = ("address", "end_ns", "error", "model", "port", "service", "start_ns", "status", "verdict")

    def __init__(self, service: str, address: str, port: int, verdict: str, model: str | None = None) -> None:
        self.start_ns = self.end_ns = now_ns()
        self.service = service
        self.address = address
        self.port = port
        self.status = 0
        self.verdict = verdict
        self.error: str | None = None
        self.model = model
        """What the target got in place of the client's; None: the client's."""


class Observation:
    """The facts of one exchange. Every field has one writer: the middleware, the pipeline or the relay."""

    __slots__ = (
        "accepted_ns",
        "accepted_unix_ns",
        "attempts",
        "client_address",
        "client_blocked_ns",
        "client_request_id",
        "client_span_id",
        "connect_ns",
        "consumer",
        "error_message",
        "error_origin",
        "error_type",
        "fallback",
        "first_byte_ns",
        "first_event_ns",
        "first_token_ns",
        "generation",
        "labels",
        "logging",
        "method",
        "metrics",
        "model_api",
        "on_first_output",
        "outcome",
        "path",
        "price",
        "protocol_version",
        "recording",
        "request_bytes",
        "request_id",
        "request_keeper",
        "request_scanner",
        "response_bytes",
        "route_fields",
        "sampled",
        "scanner",
        "service",
        "span_id",
        "status",
        "stream",
        "tape_lost",
        "telemetry",
        "trace",
        "tracing",
        "upload_ns",
        "upstream_model",
        "upstream_ns",
        "upstream_request_id",
        "upstream_status",
        "user_agent",
    )

    def __init__(self, request_id: str, trace: "TraceContext", span_id: str, client_span_id: str) -> None:
        self.accepted_ns = now_ns()
        self.accepted_unix_ns = time.time_ns()
        self.request_id = request_id
        self.trace = trace
        self.span_id = span_id
        self.client_span_id = client_span_id
        self.sampled = True
        # what came
        self.method: str | None = None
        self.path: str | None = None
        self.protocol_version: str | None = None
        self.client_address: str | None = None
        self.user_agent: str | None = None
        self.client_request_id: str | None = None
        # what was decided
        self.route_fields: Any = None
        """Contract names that follow from the route, None without one: a dict that JSON takes, or its JSON."""
        self.labels: dict[str, str] | None = None
        self.model_api = ""
        self.consumer: str | None = None
        self.service = ""
        self.upstream_model: str | None = None
        """As in the last attempt."""
        self.fallback = False
        self.tape_lost: str | None = None
        """Why the body could not be held for a fallback: limit or disk."""
        self.generation = 0
        self.telemetry = DEFAULT
        self.price: Any = None
        """Of the model in the last attempt, as JSON takes it; the middleware looks it up."""
        self.logging = self.tracing = self.metrics = True
        self.attempts: list[Attempt] = []
        # what passed
        self.stream = False
        self.request_bytes = 0
        self.response_bytes = 0
        self.request_scanner: RequestScanner | None = None
        self.scanner: Scanner | None = None
        self.recording: Recording | None = None
        self.request_keeper: Keeper | None = None  # of the recording: hears the body as it comes, unless it is encoded
        self.status = 0
        """HTTP status that the client got; 0: it got none."""
        self.upstream_status = 0
        self.upstream_request_id: str | None = None  # as the head has it; what the body says goes before it
        self.on_first_output: Callable[[], None] | None = None
        """Told as soon as the scanner sees output."""
        # clocks
        self.first_byte_ns = self.first_event_ns = self.first_token_ns = 0
        self.upload_ns = 0
        self.connect_ns = 0
        self.upstream_ns = 0
        self.client_blocked_ns = 0
        # how it ended, where the gateway or the upstream ended it; see observability.ending for the rest
        self.outcome: str | None = None
        self.error_type: str | None = None
        self.error_origin: str | None = None
        self.error_message: str | None = None
        """The gateway's own words for it; never the upstream's, which are content."""

    def accepted(self, at_ns: int) -> None:
        """The request was read at that time, before this was made: parsing is up to half of a small one's overhead."""
        self.accepted_unix_ns -= self.accepted_ns - at_ns
        self.accepted_ns = at_ns

    def answered(self, status: int, request_id: bytes | None) -> None:
        """An upstream's head came; `request_id`: as it names the exchange."""
        self.upstream_status = status
        self.upstream_request_id = None if request_id is None else request_id[:MAX_ID_BYTES].decode("latin-1")

    def committed(self, status: int) -> None:
        """The head of the answer went out."""
        self.status = status
        self.first_byte_ns = now_ns()

    def tap(self, data: bytes, *, scanned: bool = False) -> None:
        """A piece of the response body went to the client. `scanned`: it was looked at before."""
        self.response_bytes += len(data)
        if data and not scanned:
            self.scan(data)

    def scan(self, data: bytes) -> None:
        """Look at a piece of the response body (before it goes to the client, where the answer is held back)."""
        scanner = self.scanner
        if scanner is None:
            return
        scanner.feed(data)
        if not self.first_token_ns:
            findings = scanner.findings
            if findings.first_output:
                self.first_token_ns = now_ns()
                if self.on_first_output is not None:
                    self.on_first_output()
            if not self.first_event_ns and findings.events:  # a comment that keeps the connection alive is none
                self.first_event_ns = now_ns()

    def tap_request(self, data: bytes) -> None:
        """A piece of the request body went upstream."""
        self.request_bytes += len(data)
        if self.request_keeper is not None:
            self.request_keeper.take(data)
        if self.request_scanner is not None:
            self.request_scanner.feed(data)

    def fail(self, error_type: str, outcome: str, origin: str, message: str | None = None) -> None:
        """The exchange ended with an error of the gateway's or of the upstream. The first word stands."""
        if self.outcome is None:
            self.outcome, self.error_type, self.error_origin = outcome, error_type, origin
            if message is not None:
                self.error_message = message[:MAX_MESSAGE_CHARACTERS]
