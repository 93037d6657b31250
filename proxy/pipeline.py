"""The phases of one exchange, in order (architecture.md §3): match, authenticate, pick, send, relay.

`run` is the one path through them. Phases fill in the exchange and its observation and end it by raising a
`GatewayError`; the handler answers those, the middleware records every ending. The attempt owns its upstream
connection in the coroutine that owns the request: whatever ends it, the `finally` gives the connection back or
closes it.
"""

import asyncio
from typing import Any, Final

import orjson

from observability import names
from observability.observation import Attempt as AttemptRecord
from observability.scanners import request_scanner
from proxy.attempt import Attempt
from proxy.auth import admit, authenticate, credential_of
from proxy.config.snapshot import ModelApi, Route, Service
from proxy.errors import GatewayError, UpstreamError
from proxy.exchange import Exchange
from proxy.rewrite import ask_for_usage
from proxy.upstream.address import Address
from proxy.upstream.pool import Pool
from proxy.verdict import Verdict

MAX_CACHED_ROUTES: Final = 4096
"""Routes whose record fields are kept; a configuration has some hundreds."""


class Pipeline:
    """Runs exchanges. One for each worker; it owns the upstream pools."""

    def __init__(self) -> None:
        self._pools: dict[str, tuple[Service, Pool]] = {}
        self._fields: dict[int, tuple[Route, orjson.Fragment]] = {}
        self._running: dict[str, int] = {}

    async def run(self, exchange: Exchange) -> None:
        """Serve the exchange. Raises GatewayError where it ends with an answer of the gateway's own."""
        route = self._match(exchange)
        self._authenticate(exchange, route)
        model_api = route.model_api
        exchange.body.admit(model_api.max_request_bytes)
        self._enter(model_api)
        try:
            service = self._pick(exchange, route)
            if service.total_timeout_ms:
                await self._send_within(exchange, route, service)
            else:
                await self._send(exchange, route, service)
        finally:
            self._running[model_api.name] -= 1

    def close(self) -> None:
        """Close the upstream connections that are idle, and the others when they come back."""
        for _, pool in self._pools.values():
            pool.close()

    # -- match, authenticate, pick -----------------------------------------------------------------------------------

    def _match(self, exchange: Exchange) -> Route:
        host = exchange.headers.get("Host", "").lower()
        if ":" in host:
            host = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        route = exchange.snapshot.match(exchange.method, host, exchange.path)
        exchange.route = route
        observation = exchange.observation
        model_api = route.model_api
        observation.route_fields = self._route_fields(route)
        observation.model_api = model_api.name
        observation.metrics, observation.logging, observation.tracing = (
            model_api.metrics,
            model_api.logging,
            model_api.tracing,
        )
        if model_api.labels:
            observation.labels = dict(model_api.labels)
        return route

    def _route_fields(self, route: Route) -> orjson.Fragment:
        """What every record of a route says, as JSON already."""
        cached = self._fields.get(id(route))
        if cached is not None and cached[0] is route:
            return cached[1]
        operation, model_api = route.operation, route.model_api
        fields: dict[str, Any] = {
            names.HTTP_ROUTE: route.template,
            names.GEN_AI_OPERATION_NAME: operation.gen_ai_operation,
            names.GEN_AI_PROVIDER_NAME: model_api.target.service.provider.name,
            names.SLUICEWAY_MODEL_API: model_api.name,
            names.SLUICEWAY_RESOURCE_GROUP: model_api.resource_group,
            names.SLUICEWAY_SCENARIO: model_api.scenario,
            names.SLUICEWAY_PROTOCOL: operation.protocol,
            names.SLUICEWAY_OPERATION: operation.name,
        }
        if operation.output_type is not None:
            fields[names.GEN_AI_OUTPUT_TYPE] = operation.output_type
        if len(self._fields) >= MAX_CACHED_ROUTES:
            self._fields.clear()
        fragment = orjson.Fragment(orjson.dumps(fields))
        self._fields[id(route)] = (route, fragment)
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

    def _pick(self, exchange: Exchange, route: Route) -> Service:
        service = route.model_api.target.service
        exchange.service = service
        exchange.observation.service = service.name
        return service

    def _pool(self, service: Service) -> Pool:
        known = self._pools.get(service.name)
        if known is not None and known[0] is service:
            return known[1]
        if known is not None:
            known[1].close()
        pool = Pool(
            Address(service.scheme, service.host, service.port, service.tls_ca),
            connect_timeout_ms=service.connect_timeout_ms,
            max_connections=service.max_connections,
        )
        self._pools[service.name] = (service, pool)
        return pool

    # -- send --------------------------------------------------------------------------------------------------------

    async def _send_within(self, exchange: Exchange, route: Route, service: Service) -> None:
        """`_send` with the service's total timeout over it."""
        try:
            async with asyncio.timeout(service.total_timeout_ms / 1000):
                await self._send(exchange, route, service)
        except TimeoutError:
            committed = exchange.response.committed
            if committed:
                exchange.response.cut()
            message = f"the request took longer than {service.total_timeout_ms} ms"
            raise UpstreamError("upstream_timeout", message, response_started=committed) from None

    async def _send(self, exchange: Exchange, route: Route, service: Service) -> None:
        """Attempts until one is done, or its error is final."""
        observation = exchange.observation
        body = exchange.body
        operation = route.operation
        scanner = request_scanner(operation.protocol, operation.name, exchange.headers.get("Content-Type", ""))
        payload: bytes | None = None
        if body.empty or not body.small:
            observation.request_scanner = scanner
        else:
            payload = body.take_arrived() or await body.read_whole()
            scanner.whole(payload)  # 2 µs at once, where piece by piece costs 10
            observation.request_scanner = scanner
            if scanner.stream and operation.asks_usage and route.model_api.include_usage:
                asked = ask_for_usage(payload)
                if asked is not None:
                    payload, exchange.usage_asked = asked, True
        pool = self._pool(service)
        fresh = operation.creates_job
        retried = False
        while True:
            record = AttemptRecord(service.name, service.host, service.port, Verdict.CLIENT_LEFT)
            observation.attempts.append(record)
            attempt = Attempt(exchange, route, service, pool, record)
            if await attempt.run(payload, fresh=fresh, retried=retried) is Verdict.DONE:
                return
            exchange.body.rewind()
            fresh = retried = True
