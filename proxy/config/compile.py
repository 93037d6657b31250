"""From the configuration file to what a worker serves by: `Document` → `Snapshot`.

Everything that a request would otherwise work out is worked out here, once for a generation: addresses, the header
lines of every key, the targets of every Model API, and per domain the table of every path that leads to one. A
document has been checked before it comes here, so nothing in this module complains.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from observability.content.capture import Plan
from observability.prices import Price
from observability.telemetry import Telemetry
from proxy.config import values
from proxy.config.crosscheck import own_base_url, spoken_by
from proxy.config.egress import egress_of
from proxy.config.model import (
    Document,
    ModelApiConfig,
    Monitoring,
    PricesConfig,
    RoutingConfig,
    ServiceConfig,
    TargetConfig,
)
from proxy.config.places import SUFFIXES, BaseUrl, parse_base_url
from proxy.config.prices import PriceTable
from proxy.config.service_tls import digest_of_files
from proxy.config.snapshot import Consumer, Limits, ModelApi, Route, Snapshot, Table
from proxy.config.targets import ByModel, ByWeight, Cooldown, Key, Routing, Service, Single, Target, Tls
from proxy.cors import Cors
from proxy.forwarded import Proxies
from proxy.headers import added
from proxy.protocols import default_operations
from proxy.protocols.base import Operation
from proxy.providers import PROVIDERS
from proxy.providers.base import Provider
from proxy.translate.models import CALLS, translates

_TargetOf = Callable[[TargetConfig], Target]


def compile_snapshot(document: Document, generation: int, environ: Mapping[str, str] | None = None) -> Snapshot:
    """Compile a checked document. Cannot fail on one that `proxy.config.file` returned for the same environment.

    `environ` (None: the process's) names the proxy on the way out, see `proxy.config.egress`.
    """
    environ = os.environ if environ is None else environ
    services = {config.name: _service(config, environ) for config in document.services}
    targets: dict[tuple[str, str | None], Target] = {}

    def target_of(config: TargetConfig) -> Target:
        return targets.setdefault((config.service, config.model), Target(services[config.service], config.model))

    model_apis = tuple(_model_api(config, target_of, document) for config in document.model_apis)
    consumers = {config.name: Consumer(config.name, dict(config.labels)) for config in document.consumers}
    tables = _tables(model_apis)
    return Snapshot(
        generation=generation,
        limits=Limits(**{limit.name: getattr(document.limits, limit.name) for limit in fields(Limits)}),
        services=services,
        consumers=consumers,
        model_apis=model_apis,
        tls=None if document.tls.certificate is None else (document.tls.certificate, document.tls.key),
        trusted_proxies=Proxies(document.trusted_proxies) if document.trusted_proxies else None,
        cors=Cors(document.cors.origins) if document.cors.origins else None,
        fronted=bool(document.trusted_proxies or document.cors.origins),
        methods=tuple(
            sorted({method for table in tables.values() for methods in table.exact.values() for method in methods})
        ),
        spool_dir=document.spool_dir,
        telemetry=_telemetry(document),
        _by_digest={
            values.digest_of_key(key): consumers[config.name] for config in document.consumers for key in config.keys
        },
        _hosts={domain: table for domain, table in tables.items() if domain and not domain.startswith("*")},
        _parents={domain[1:]: table for domain, table in tables.items() if domain and domain.startswith("*")},
        _any=tables[None],
    )


def _telemetry(document: Document) -> Telemetry:
    tracing = document.tracing
    return Telemetry(
        keep_errors=tracing.keep_errors,
        keep_slower_ns=tracing.keep_slower_than_ms * 1_000_000,
        compat=tuple(dict.fromkeys(tracing.compat)) or None,
        prices=None if document.prices is None else _prices(document.prices),
    )


def _prices(config: PricesConfig) -> PriceTable:
    """Every kind of price is named as in `Price`, but for the currency, which is the file's."""
    kinds = Price._fields[1:]
    return PriceTable(
        [
            (entry.service, entry.match, Price(config.currency, *(getattr(entry, kind) for kind in kinds)))
            for entry in config.models
        ]
    )


def _service(config: ServiceConfig, environ: Mapping[str, str]) -> Service:
    provider = PROVIDERS[config.provider]
    files = (config.tls.ca, config.tls.certificate, config.tls.key)
    urls = {protocol: parse_base_url(url, SUFFIXES[protocol]) for protocol, url in config.base_urls.items()}
    own = own_base_url(config)
    url = parse_base_url(own, provider.url_suffixes) if own else next(iter(urls.values()))
    headers = tuple((name.encode("ascii"), value.encode("ascii")) for name, value in config.headers.items())
    spoken = spoken_by(config)
    service = Service(
        name=config.name,
        provider=provider,
        **_address(url, config, environ),
        keys=tuple(
            _key(f"{config.name}/{index}", secret, provider, spoken, headers)
            for index, secret in enumerate(config.api_keys or (None,))
        ),
        headers=headers,
        connect_timeout_ms=config.connect_timeout_ms,
        idle_timeout_ms=config.idle_timeout_ms,
        total_timeout_ms=config.total_timeout_ms,
        max_connections=config.max_connections,
        propagate_trace=provider.propagate_trace if config.propagate_trace is None else config.propagate_trace,
        tls=Tls(*files, config.tls.insecure, digest_of_files(files)),
        cooldown=Cooldown(**{part.name: getattr(config.cooldown, part.name) for part in fields(Cooldown)}),
        spoken=frozenset(spoken),
        image_paths=tuple(config.image_paths.items()),
    )
    if provider.protocols.get("openai"):  # behind what comes before OpenAI's paths there, it is another path's version
        service = replace(service, versioned=False)
    others = {protocol: replace(service, **_address(other, config, environ)) for protocol, other in urls.items()}
    return replace(service, others=others) if others else service


def _address(url: BaseUrl, config: ServiceConfig, environ: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a Service that say where it is."""
    return {
        "scheme": url.scheme,
        "host": url.host,
        "port": url.port,
        "host_header": url.host_header,
        "path_prefix": url.path_prefix,
        "versioned": url.versioned,
        "egress": egress_of(config.egress_proxy, url.scheme, url.host, url.port, environ),
    }


def _key(
    name: str,
    secret: str | None,
    provider: Provider,
    spoken: Iterable[str],
    headers: tuple[tuple[bytes, bytes], ...],
) -> Key:
    auth_headers = {protocol: provider.auth_headers(secret, protocol) for protocol in spoken}
    return Key(name, auth_headers, {protocol: added((*lines, *headers)) for protocol, lines in auth_headers.items()})


def _model_api(config: ModelApiConfig, target_of: _TargetOf, document: Document) -> ModelApi:
    limit = config.max_request_bytes
    return ModelApi(
        name=config.name,
        scenario=config.scenario,
        protocols=tuple(config.protocols),
        resource_group=config.resource_group,
        labels=dict(config.labels),
        domains=tuple(config.domains),
        base_path=config.base_path.rstrip("/"),
        strip_base_path=config.strip_base_path,
        auth=config.auth,
        consumers=frozenset(config.consumers) or None,
        routing=_routing(config.routing, config.balance, target_of),
        fallback=tuple(target_of(entry) for entry in config.fallback),
        fallback_on=frozenset(config.fallback_on),
        max_attempts=config.max_attempts,
        first_packet_timeout_ms=config.first_packet_timeout_ms,
        first_token_timeout_ms=config.first_token_timeout_ms,
        include_usage=config.include_usage,
        max_request_bytes=document.limits.max_request_bytes if limit is None else limit,
        max_inflight_requests=config.max_inflight_requests,
        recorded=_recorded(config.monitoring),
        metrics=config.monitoring.metrics,
        logging=config.monitoring.logging,
        tracing=config.monitoring.tracing,
    )


def _recorded(config: Monitoring) -> Plan | None:
    if not (config.record_request or config.record_response) or not config.content_sample:
        return None
    return Plan(config.record_request, config.record_response, config.content_max_bytes, config.content_sample)


def _routing(config: RoutingConfig, balance: str, target_of: _TargetOf) -> Routing:
    if config.single is not None:
        return Single(target_of(config.single))
    if config.by_model is not None:
        return ByModel(tuple((entry.match, target_of(entry)) for entry in config.by_model))
    entries = config.by_weight or ()  # a checked document has exactly one of the three
    return ByWeight(
        targets=tuple(target_of(entry) for entry in entries),
        weights=tuple(entry.weight for entry in entries),
        balance=balance,
    )


def _tables(model_apis: tuple[ModelApi, ...]) -> dict[str | None, Table]:
    """Domain → the routes of the Model APIs that name it, or that a `*.` above it names. None: of those that take any
    host."""
    named: dict[str | None, list[ModelApi]] = {None: []}
    for model_api in model_apis:
        for domain in model_api.domains or (None,):
            named.setdefault(domain, []).append(model_api)
    tables: dict[str | None, Table] = {None: _table(named[None])}
    for domain in named:
        if domain is not None:
            candidates = [model_api for name in _most_specific_first(domain) for model_api in named.get(name, ())]
            tables[domain] = _table(candidates)
            _prefer_longer_base_paths(tables[domain], tables[None])
    return tables


def _most_specific_first(domain: str) -> Iterator[str]:
    """The domain itself, then the patterns above it: a.b.c, *.b.c, *.c."""
    yield domain
    name = domain.removeprefix("*.")
    dot = name.find(".")
    while dot >= 0:
        yield "*" + name[dot:]
        dot = name.find(".", dot + 1)


def _table(model_apis: list[ModelApi]) -> Table:
    """The routes of Model APIs, given in the order of their domains' precedence."""
    table = Table(exact={}, below={}, below_depth=0)
    depth = 0
    for model_api in sorted(model_apis, key=lambda model_api: -len(model_api.base_path)):
        exact: dict[str, dict[str, Route]] = {}
        below: dict[str, dict[str, Route]] = {}
        for route in _routes(model_api):
            methods = dict.fromkeys(route.operation.methods, route)
            exact[route.template] = methods | exact.get(route.template, {})
            if route.operation.below:
                lower = dict.fromkeys(methods, replace(route, template=route.template + "/*"))
                below[route.template] = lower | below.get(route.template, {})
                depth = max(depth, route.template.count("/"))
        for path, methods in exact.items():
            table.exact.setdefault(path, methods)
            table.exact.setdefault(path + "/", methods)
        for path, methods in below.items():
            table.below.setdefault(path, methods)
    return replace(table, below_depth=depth)


def _prefer_longer_base_paths(table: Table, general: Table) -> None:
    """Where any host's Model APIs have a path with a longer base path, it stands before the domain's own."""
    for own, others in ((table.exact, general.exact), (table.below, general.below)):
        for path in own.keys() & others.keys():
            if _base_path_of(others[path]) > _base_path_of(own[path]):
                own[path] = others[path]


def _base_path_of(methods: Mapping[str, Route]) -> int:
    """The length of the base path that a table's entry belongs to: one Model API has it."""
    return max(len(route.model_api.base_path) for route in methods.values())


def _routes(model_api: ModelApi) -> Iterator[Route]:
    services = dict.fromkeys(target.service for target in model_api.targets)
    for operation in default_operations(model_api.scenario, model_api.protocols):
        protocols = {service: _protocol_for(service, operation) for service in services}
        spoken = {service: protocol for service, protocol in protocols.items() if protocol is not None}
        yield Route(
            model_api=model_api,
            operation=operation,
            template=model_api.base_path + operation.path,
            places={service.name: service.at(protocol) for service, protocol in spoken.items()},
            upstream_paths={
                service.name: _upstream_path(service, model_api, operation, protocol)
                for service, protocol in spoken.items()
            },
            translated=frozenset(service.name for service in spoken if translates(operation, service)),
            called_by_model=operation.name in CALLS
            and any(target.model is None and translates(operation, target.service) for target in model_api.targets),
        )


def _protocol_for(service: Service, operation: Operation) -> str | None:
    """The protocol in which a service is asked; None: it cannot serve the operation."""
    if translates(operation, service):
        return "dashscope"
    serves = operation.protocol in service.spoken and operation.only_provider in (None, service.provider.name)
    return operation.protocol if serves else None


def _upstream_path(service: Service, model_api: ModelApi, operation: Operation, protocol: str) -> str:
    place, path = service.at(protocol), operation.upstream_path or operation.path
    if protocol != operation.protocol:  # translated: each request has its own
        path = ""
    elif protocol == "openai" and place.versioned:
        path = path.removeprefix("/v1")
    kept = "" if model_api.strip_base_path else model_api.base_path
    # a protocol's own address has all that stands before its paths
    before = "" if protocol in service.others else service.provider.protocols[protocol]
    return place.path_prefix + kept + before + path
