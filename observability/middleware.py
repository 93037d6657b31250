"""The aiohttp middleware around every request: opens its Observation, and in one `finally` hands over its Record.

Whatever happens between, a request that began leaves exactly one record, or one count of why it did not: the board
counts it as started before its handler begins and as handed over after.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.hdrs import USER_AGENT
from multidict import istr

from observability import names
from observability.board import Cell
from observability.ending import settle
from observability.facts import pack
from observability.log import get_logger
from observability.observation import Observation, now_ns
from observability.sampling import Sampler, trace_context
from observability.telemetry import Prices

OBSERVATION: Final = web.RequestKey("sluiceway.observation", Observation)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

UNRECORDED_PREFIX: Final = "/-/"
"""Paths below it are the gateway's own probes and make no record."""
MAX_TEXT_CHARACTERS: Final = 1024
"""Longest text taken from a header or path into a record: long enough for every user agent seen, short in a log."""

_REQUEST_ID: Final = istr("X-Request-Id")  # a plain string costs twice as much to look up
_STARTED: Final = int(Cell.STARTED)  # to index with a member of an enumeration costs more than to count
_ACTIVE: Final = int(Cell.ACTIVE)

_log = get_logger(__name__)


class Emitter(Protocol):
    """Where records go (`observability.emitter`)."""

    def hand_over(self, record: tuple[Any, ...], frames: Sequence[bytes] = ()) -> None:
        """Take what `facts.pack` made, and frames of recorded content; never blocks, never raises."""


class RequestCounter(Protocol):
    """Counts finished requests, exactly, by what they were."""

    def count(self, model_api: str, consumer: str, service: str, outcome: str, status: int) -> None:
        """One more."""


class ObservationMiddleware:
    """Wraps a handler. One for each worker."""

    def __init__(self, emitter: Emitter, counter: RequestCounter, row: memoryview, sample: Sampler) -> None:
        self._emitter = emitter
        self._counter = counter
        self._row = row
        self._sample = sample
        self.stopping = False
        """Set when running requests are about to be cut because the drain took too long."""

    def wrap(self, handler: Handler) -> Handler:
        """The handler with this middleware around it, as `web.Server` takes it."""

        return partial(self._observe, handler)

    async def _observe(self, handler: Handler, request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path.startswith(UNRECORDED_PREFIX):
            return await handler(request)
        row = self._row
        observation = self._open(request)  # before anything is counted: what raised here would count as lost for ever
        request[OBSERVATION] = observation
        row[_STARTED] += 1
        row[_ACTIVE] += 1
        client_left = False
        try:
            return await handler(request)
        except asyncio.CancelledError:
            client_left = True
            if self.stopping:
                observation.fail("draining", names.OUTCOME_GATEWAY_ERROR, names.ORIGIN_GATEWAY)
            raise
        except ConnectionError:
            client_left = True
            raise
        except BaseException:
            observation.fail("internal", names.OUTCOME_GATEWAY_ERROR, names.ORIGIN_GATEWAY)
            raise
        finally:
            row[_ACTIVE] -= 1
            self._record(observation, client_left=client_left)

    def _open(self, request: web.BaseRequest) -> Observation:
        headers = request.headers
        # 128 bits for the request, 128 for a trace of its own, 64 each for two spans: drawn and written out at once
        digits = random.randbytes(48).hex()  # noqa: S311 - ids, not secrets
        trace = trace_context(headers, digits[32:64])
        observation = Observation(digits[:32], trace, digits[64:80], digits[80:])
        observation.accepted(request.protocol.arrived_ns)  # type: ignore[attr-defined]  # proxy.edge's
        observation.sampled = self._sample(trace)
        observation.client_address = request.remote
        agent = headers.get(USER_AGENT)
        if agent is not None:
            observation.user_agent = _text(agent)
        client_request_id = headers.get(_REQUEST_ID)
        if client_request_id is not None:
            observation.client_request_id = _text(client_request_id)
        return observation

    def _record(self, observation: Observation, *, client_left: bool) -> None:
        """Phase 8. Nothing that goes wrong here may reach the request; the board still accounts for it."""
        try:
            settle(observation, client_left=client_left)
            outcome, status = observation.outcome, observation.status
            assert outcome is not None
            self._counter.count(observation.model_api, observation.consumer or "", observation.service, outcome, status)
            end_ns = now_ns()
            telemetry = observation.telemetry
            if not observation.sampled and telemetry.keeps(observation, end_ns):
                observation.sampled = True
            if telemetry.prices is not None:
                observation.price = _price(telemetry.prices, observation)
            if observation.recording is None:
                self._emitter.hand_over(pack(observation, end_ns))
            else:
                content, frames = observation.recording.close()
                self._emitter.hand_over(pack(observation, end_ns, content), frames)
        except Exception:  # noqa: BLE001 - the request is over and its bytes are right: say it and count it
            _log.exception("record_failed")
            self._row[Cell.HANDED] += 1
            self._row[Cell.DROPPED_OVERSIZE] += 1


def _price(prices: Prices, observation: Observation) -> Any:
    """Of the model that the last attempt's service was asked for."""
    model = observation.upstream_model
    if model is None and observation.request_scanner is not None:
        model = observation.request_scanner.model
    return prices.of(observation.service, model or "")


def _text(value: str) -> str:
    """A header's text as a record may carry it: bounded, and without the surrogates that no JSON encoder takes."""
    if len(value) > MAX_TEXT_CHARACTERS:
        value = value[:MAX_TEXT_CHARACTERS]
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8", "replace")
