"""The phases of one exchange, in order (architecture.md §3): match, authenticate, peek, pick, send, relay.

`run` is the one path through them. Phases fill in the exchange and its observation and end it by raising a
`GatewayError`; the handler answers those, the middleware records every ending. An attempt owns its upstream connection
in the coroutine that owns the request: whatever ends it, the `finally` gives the connection back or closes it. Which
target comes first and which comes next is the plan's (`proxy.routing`).
"""

from typing import Any, Final

import orjson
from multidict import istr

from observability import names
from observability.codings.decode import codings_of
from observability.observation import Attempt as AttemptRecord
from observability.observation import Observation
from observability.scanners import RequestScanner, is_form, media_type, reads_alike, request_scanner
from proxy.attempt import Attempt
from proxy.auth import admit, authenticate, credential_of
from proxy.changes import ENCODED_FORM, NAMED_TWICE, UNREADABLE, Changes
from proxy.config.snapshot import ModelApi, Route, Service, Snapshot
from proxy.errors import GatewayError, TargetUnusableError, not_aliyun, shown
from proxy.exchange import Exchange, added_lines
from proxy.opening import Kept
from proxy.recording import begin_recording, end_request, keep_secret
from proxy.relay import relay
from proxy.routing import NO_MODEL, Plan, Router
from proxy.spool import Holding
from proxy.translate.attempt import TranslatedAttempt
from proxy.translate.tasks import AbandonedTasks
from proxy.upstream.pools import Pools
from proxy.verdict import Verdict

MAX_CACHED_ROUTES: Final = 4096
"""Routes whose record fields are kept; a configuration has some hundreds."""


_HOST, _ASYNC = istr("Host"), istr("X-DashScope-Async")  # multidict finds these at half the cost of plain strings
_CONTENT_TYPE, _CONTENT_ENCODING = istr("Content-Type"), istr("Content-Encoding")
_DONE: Final = Verdict.DONE  # a look at a member of an enumeration is 0.1 µs
_GIVE_UP: Final = Verdict.GIVE_UP


class Pipeline:
    """Runs exchanges. One for each worker; it owns the upstream pools."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._router = Router()
        self._pools = Pools()
        self._abandoned = AbandonedTasks()
        self._fields: dict[tuple[int, str], tuple[Route, orjson.Fragment]] = {}
        self._scheme = "http"
        self._running: dict[str, int] = {}

    async def run(self, exchange: Exchange) -> None:
        """Serve the exchange. Raises GatewayError where it ends with an answer of the gateway's own."""
        route = self._match(exchange)
        self._authenticate(exchange, route)
        model_api = route.model_api
        exchange.body.admit(model_api.max_request_bytes)
        self._enter(model_api)
        try:
            scanner = self._peek(exchange, route)
            if exchange.payload is None and not exchange.body.empty:
                await self._await_body(exchange, route, scanner)
            model = self._model(exchange, route, scanner) if route.operation.names_model else NO_MODEL
            plan = self._router.plan(model_api, model)
            try:
                await self._send(exchange, route, plan)
            finally:
                plan.close()
        finally:
            self._running[model_api.name] -= 1
            recording = exchange.observation.recording
            if recording is not None:
                end_request(recording, exchange)
            if exchange.payload is None:
                exchange.observation.tape_lost = exchange.body.lost
                exchange.body.let_go()

    def adopt(self, snapshot: Snapshot) -> None:
        """Serve this generation from now on: to be said before any request has it.

        TlsFilesError where a file of a service's `tls` cannot be used; it says which service, and nothing has changed.
        """
        services = snapshot.services.values()
        self._pools.adopt(place for service in services for place in (service, *service.others.values()))
        self._router.adopt(snapshot)
        self._scheme = "http" if snapshot.tls is None else "https"
        self._fields.clear()  # it holds routes, which hold the whole snapshot that they are of
        names = {model_api.name for model_api in snapshot.model_apis}
        self._running = {name: running for name, running in self._running.items() if running or name in names}

    def close(self) -> None:
        """Close the upstream connections that are idle, and the others when they come back."""
        self._abandoned.close()
        self._pools.close()

    # -- match, authenticate, pick -----------------------------------------------------------------------------------

    def _match(self, exchange: Exchange) -> Route:
        headers = exchange.headers
        host = headers.get(_HOST, "").lower()
        if ":" in host:
            host = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        route = exchange.snapshot.match(exchange.method, host, exchange.path)
        exchange.route = route
        operation = route.operation
        exchange.creates_job = operation.creates_job or (
            operation.protocol == "dashscope" and headers.get(_ASYNC, "").lower() == "enable"
        )
        observation = exchange.observation
        model_api = route.model_api
        observation.route_fields = self._route_fields(route, model_api.targets[0].service)
        observation.model_api = model_api.name
        observation.metrics, observation.logging, observation.tracing = (
            model_api.metrics,
            model_api.logging,
            model_api.tracing,
        )
        if model_api.labels:
            observation.labels = dict(model_api.labels)
        return route

    def _route_fields(self, route: Route, service: Service) -> orjson.Fragment:
        """What every record of a route and a service says, as JSON already."""
        key = id(route), service.name
        cached = self._fields.get(key)
        if cached is not None and cached[0] is route:
            return cached[1]
        operation, model_api = route.operation, route.model_api
        fields: dict[str, Any] = {
            names.HTTP_ROUTE: route.template,
            names.URL_SCHEME: self._scheme,
            names.GEN_AI_OPERATION_NAME: operation.gen_ai_operation,
            names.GEN_AI_PROVIDER_NAME: service.provider.name,
            names.SLUICEWAY_MODEL_API: model_api.name,
            names.SLUICEWAY_RESOURCE_GROUP: model_api.resource_group,
            names.SLUICEWAY_SCENARIO: model_api.scenario,
            names.SLUICEWAY_PROTOCOL: operation.protocol,
            names.SLUICEWAY_OPERATION: operation.name,
        }
        if operation.output_type is not None:
            fields[names.GEN_AI_OUTPUT_TYPE] = operation.output_type
        fragment = orjson.Fragment(orjson.dumps(fields))
        if not route.rest:  # else it is this request's alone, and 4096 long paths would be kept: 250 MB
            if len(self._fields) >= MAX_CACHED_ROUTES:
                self._fields.clear()
            self._fields[key] = (route, fragment)
        return fragment

    def _authenticate(self, exchange: Exchange, route: Route) -> None:
        exchange.credential = credential_of(exchange.headers)
        consumer = authenticate(route.model_api, exchange.snapshot, exchange.credential)
        if consumer is not None:
            exchange.observation.consumer = consumer.name
            if consumer.labels:
                exchange.observation.labels = {**(exchange.observation.labels or {}), **consumer.labels}
            admit(consumer, route.model_api)

    def _enter(self, model_api: ModelApi) -> None:
        running = self._running.get(model_api.name, 0)
        limit = model_api.max_inflight_requests
        if limit is not None and running >= limit:
            raise GatewayError("overloaded", f"Model API {model_api.name} has {limit} requests running, its limit")
        self._running[model_api.name] = running + 1

    # -- peek --------------------------------------------------------------------------------------------------------

    def _peek(self, exchange: Exchange, route: Route) -> RequestScanner:
        """The scanner of the body. A small body that has arrived, as nearly all have, is taken at once."""
        body, operation, headers = exchange.body, route.operation, exchange.headers
        scanner = request_scanner(
            operation.protocol, operation.name, headers.get(_CONTENT_TYPE, ""), _encoding_of(headers)
        )
        recorded = route.model_api.recorded
        if recorded is not None:
            begin_recording(recorded, exchange, scanner, _encoding_of(headers))
        if body.small and not scanner.decodes and (data := body.take_arrived()):
            exchange.payload = data
            scanner.whole(data, strict=route.model_matters)  # 2 µs at once, where piece by piece costs 10
        exchange.observation.request_scanner = scanner
        return scanner

    async def _await_body(self, exchange: Exchange, route: Route, scanner: RequestScanner) -> None:
        """Read a small body whole; of a large one as much as the choice of a target needs."""
        body, model_api = exchange.body, route.model_api
        if body.small:
            if scanner.decodes:  # in slices, as it comes
                exchange.payload = await body.read_whole()
                scanner.end()
                return
            exchange.observation.request_scanner = None  # it takes the whole at once
            exchange.payload = await body.read_whole()
            scanner.whole(exchange.payload, strict=route.model_matters)
            exchange.observation.request_scanner = scanner
            return
        body.check_arrived()
        again = model_api.max_attempts > 1 and model_api.has_alternatives
        if route.needs_model or again:
            limits = exchange.snapshot.limits
            body.hold(self._holding, memory_bytes=limits.hold_memory_bytes, disk_bytes=limits.hold_disk_bytes)
        if route.needs_model:
            await body.peek(lambda: scanner.settled)
            if not again:
                body.hold_no_more()

    @staticmethod
    def _model(exchange: Exchange, route: Route, scanner: RequestScanner) -> str | None:
        """The model that is asked for, where the body may go on with it; what has to be changed is noted."""
        model_api, headers = route.model_api, exchange.headers
        if route.operation.asks_usage and model_api.include_usage and not scanner.include_usage:
            streams = scanner.stream
            ask_usage = streams is True or (streams is None and exchange.payload is None and not scanner.over)
        else:
            ask_usage = False
        if ask_usage or model_api.rewrites:
            exchange.changes = Changes(headers.get(_CONTENT_TYPE, ""), _encoding_of(headers), ask_usage=ask_usage)
        if route.model_matters:
            if scanner.model_duplicated:
                raise GatewayError("bad_request", NAMED_TWICE)
            if not reads_alike(headers.get(_CONTENT_TYPE, "")):
                raise GatewayError("bad_request", "the charset of the content type has to be utf-8")
            if is_form(media_type(headers.get(_CONTENT_TYPE, ""))) and codings_of(_encoding_of(headers)):
                raise GatewayError("bad_request", ENCODED_FORM)
        if route.needs_model:
            if not scanner.reads:
                kind = shown(headers.get(_CONTENT_TYPE, ""))
                message = f"the model is looked for in JSON and in forms with parts, and the Content-Type is {kind}"
                raise GatewayError("model_missing", message)
            if scanner.crowded:
                raise GatewayError("overloaded", "the gateway is looking into as many encoded bodies as it may")
            if scanner.failed:  # what follows may name another model to whoever reads it
                raise GatewayError("bad_request", UNREADABLE)
            if scanner.model_seen and not scanner.model_valid:
                raise GatewayError("model_missing", "the model's name has to be a string that is not empty")
        return scanner.model

    # -- send --------------------------------------------------------------------------------------------------------

    async def _send(self, exchange: Exchange, route: Route, plan: Plan) -> None:
        """Attempts until one is done, or nothing is left to try: then the last answer that came, or the last error."""
        observation = exchange.observation
        kept: Kept | None = None
        error: GatewayError | None = None
        retried = False
        if plan.choice.target.service.name not in route.places:
            raise not_aliyun()
        while True:
            target = plan.choice.target
            service = target.service
            model = target.model if route.operation.names_model else None
            observation.service, observation.upstream_model = service.name, model
            observation.fallback = plan.choice.position > 0
            if observation.attempts:  # what they were seen to do is not this one's
                _forget_answer(observation)
            if observation.attempts or service is not route.model_api.targets[0].service:  # `_match` has said those
                observation.route_fields = self._route_fields(route, service)
            place = route.places.get(service.name, service)
            record = AttemptRecord(service.name, place.host, place.port, _GIVE_UP, model)
            observation.attempts.append(record)
            observation.on_first_output = plan.begin()
            if observation.recording is not None:
                keep_secret(observation.recording, service, plan.choice.key)
            if service.name in route.translated:
                attempt: Attempt = TranslatedAttempt(
                    exchange, route, plan, self._pools, self._abandoned, record, retried=retried
                )
            else:
                attempt = Attempt(exchange, route, plan, self._pools.of(place), record, retried=retried)
            ended = await attempt.run()
            if ended.verdict is _DONE:
                return
            kept = ended.kept or kept
            if error is None or not isinstance(ended.error, TargetUnusableError):  # which tells less than a failure
                error = ended.error
            if ended.verdict is Verdict.SAME_TARGET:
                retried = True
                plan.repeat()
            elif ended.verdict is Verdict.GIVE_UP or not self._advance(plan, ended.verdict, record.status, route):
                record.verdict = _GIVE_UP if ended.kept is None else _DONE
                break
            if exchange.payload is None and not exchange.body.empty:
                if not exchange.body.held_whole:
                    break
                exchange.body.rewind()
        if kept is None:
            assert error is not None
            raise error
        await self._relay_kept(exchange, route, kept)

    @staticmethod
    def _advance(plan: Plan, verdict: Verdict, status: int, route: Route) -> bool:
        if plan.advance(verdict):
            return True
        # Another exchange's refusal took the last key since the verdict: then it is the next target's turn, if at all.
        return (
            verdict is Verdict.NEXT_KEY and status in route.model_api.fallback_on and plan.advance(Verdict.NEXT_TARGET)
        )

    async def _relay_kept(self, exchange: Exchange, route: Route, kept: Kept) -> None:
        """Nobody had a better answer."""
        observation, service = exchange.observation, kept.choice.target.service
        model = kept.choice.target.model if route.operation.names_model else None
        observation.service, observation.upstream_model = service.name, model
        observation.fallback = kept.choice.position > 0
        observation.route_fields = self._route_fields(route, service)
        observation.answered(kept.head.status, kept.head.request_id)
        observation.first_event_ns = observation.first_token_ns = 0  # they were another answer's
        exchange.usage_asked = kept.usage_asked
        exchange.body.let_go()
        if not exchange.body.complete:
            exchange.keep_alive = False
        await relay(exchange, kept, kept.head, added_lines(exchange, service.name))


def _forget_answer(observation: Observation) -> None:
    """A further attempt begins."""
    observation.scanner = None
    if observation.recording is not None:
        observation.recording.answer = None
    observation.answered(0, None)
    observation.first_event_ns = observation.first_token_ns = 0


def _encoding_of(headers: Any) -> str:
    """All Content-Encoding lines as the one list that they are (RFC 9110 §5.3); empty where there is none."""
    return "" if headers.get(_CONTENT_ENCODING) is None else ",".join(headers.getall(_CONTENT_ENCODING))
