"""Whether the content of an exchange is recorded, and what of it: `monitoring` of its Model API.

Only exchanges of Model APIs that record come here. The client's `x-sluiceway-record: off` always wins; the sample is
that of the trace. Refusals before a caller is known are not recorded: nobody has asked a model anything by then.
"""

from typing import TYPE_CHECKING, Final

from multidict import MultiMapping, istr

from observability.codings.decode import codings_of
from observability.content.capture import Plan, Recording, refused
from proxy.auth import CREDENTIALS

if TYPE_CHECKING:
    from observability.scanners import RequestScanner
    from proxy.config.targets import Key, Service
    from proxy.exchange import Exchange

_RECORD: Final = istr("X-Sluiceway-Record")
_CONTENT_TYPE: Final = istr("Content-Type")
_SECRET_HEADERS: Final = (b"auth", b"key", b"token", b"secret", b"cookie")


def begin_recording(plan: Plan, exchange: "Exchange", scanner: "RequestScanner", encoding: str) -> None:
    """Record the exchange, if it is to be: before the first byte of its body is read."""
    observation = exchange.observation
    headers: MultiMapping[str] = exchange.headers  # type: ignore[assignment]
    if not plan.has(observation.trace.trace_id) or refused(headers.getall(_RECORD, ())):
        return
    recording = observation.recording = Recording(plan, observation.request_id)
    for name in CREDENTIALS:
        for value in headers.getall(name, ()):
            recording.secrets.add(value.strip().rpartition(" ")[2].encode("utf-8", "surrogateescape"))
    keeper = recording.open_request(headers.get(_CONTENT_TYPE, ""))
    if keeper is None or exchange.body.empty:
        recording.request = None
    elif scanner.decodes:
        scanner.tell(keeper.take)
    elif encoding and codings_of(encoding):
        recording.request = None  # nobody can read it
    else:
        observation.request_keeper = keeper


def end_request(recording: Recording, exchange: "Exchange") -> None:
    """The exchange is over: is the body that was kept the whole of it?"""
    observation = exchange.observation
    if recording.request is None or not exchange.body.complete:
        return
    scanner = observation.request_scanner
    if observation.request_keeper is not None or (
        scanner is not None and not scanner.failed
    ):  # else not all was decoded
        recording.request.end()


def keep_secret(recording: Recording, service: "Service", key: "Key") -> None:
    """The credentials that go upstream: whoever repeats them, they are not recorded."""
    for lines in key.auth_headers.values():
        recording.secrets.update(value.rpartition(b" ")[2] for _, value in lines)
    for name, value in service.headers:
        if any(part in name for part in _SECRET_HEADERS):
            recording.secrets.add(value.rpartition(b" ")[2])
