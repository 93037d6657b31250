"""The configuration in force, compiled for serving: immutable, numbered, one assignment to swap.

A worker holds one `Snapshot` and each exchange pins the one it began with. Everything that can be worked out
beforehand is: a request is matched by looking up its host, its path and its method, a credential by its digest. A
plain consumer key is kept only once it is used, as long as the snapshot lives: to hash it again is 3 µs a request.

Matching: every path of every Model API (base path + the path of an operation, with and without trailing slash) is
entered into a dict per domain; where two Model APIs have the same path, the longer base path comes first, then the
more specific domain. What a domain's own dict does not have is looked up in the dict of those that take any host.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from typing import Final

from proxy.config import values
from proxy.config.model import Document, ModelApiConfig, ServiceConfig
from proxy.errors import GatewayError
from proxy.protocols import operations
from proxy.protocols.base import Operation
from proxy.providers import PROVIDERS
from proxy.providers.base import Provider

HOST_BYTES_MAX: Final = 253
"""The longest name DNS allows: a longer Host is not worth a search for its parent domains."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """An authenticated caller."""

    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Service:
    """One upstream: address, credentials, timeouts (ms, 0 = none). Its repr shows no secret."""

    name: str
    provider: Provider
    scheme: str
    host: str
    """A name or an address, IPv6 without brackets."""
    port: int
    host_header: bytes
    """With the port where it is not the scheme's own, IPv6 in brackets."""
    path_prefix: str
    """Of base_url: empty, or from a slash and without a trailing one."""
    api_keys: tuple[str, ...] = field(repr=False)
    auth_headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    """The header lines that the provider wants for the first key; empty without keys."""
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    """Added to every request; names in lower case."""
    connect_timeout_ms: int
    idle_timeout_ms: int
    total_timeout_ms: int
    max_connections: int
    """Per worker; 0 = no limit."""
    propagate_trace: bool
    tls_ca: str | None
    """A PEM file of the authorities to trust instead of the system's."""


@dataclass(frozen=True, slots=True)
class Target:
    """A service, and the model name it gets instead of the caller's (None: the caller's)."""

    service: Service
    model: str | None


@dataclass(frozen=True, slots=True)
class ModelApi:
    """One Model API: what it serves, to whom, from where."""

    name: str
    scenario: str
    protocols: tuple[str, ...]
    resource_group: str
    labels: Mapping[str, str]
    domains: tuple[str, ...]
    """Lower case, also `*.example.com`; empty = any."""
    base_path: str
    """Empty for `/`, else from a slash and without a trailing one."""
    strip_base_path: bool
    auth: str
    """consumers | passthrough | open"""
    consumers: frozenset[str] | None
    """Names; None = all."""
    target: Target
    include_usage: bool
    max_request_bytes: int
    max_inflight_requests: int | None
    """Per worker; None = only the worker's own limit."""
    metrics: bool
    logging: bool
    tracing: bool


@dataclass(frozen=True, slots=True)
class Route:
    """Where one method and path lead."""

    model_api: ModelApi
    operation: Operation
    template: str
    """`http.route`: base path and path of the operation, without trailing slash."""
    upstream_path: str
    """What the target gets: with base_url's prefix, without query and trailing slash (the client's is kept by adding
    it again)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, milliseconds and counts per worker; the contract's `limits`."""

    max_connections: int
    max_inflight_requests: int
    max_head_bytes: int
    max_request_bytes: int
    hold_memory_bytes: int
    hold_disk_bytes: int
    hold_response_bytes: int
    max_held_memory_bytes: int
    head_timeout_ms: int
    body_idle_timeout_ms: int
    write_idle_timeout_ms: int
    keepalive_timeout_ms: int
    max_held_disk_bytes: int


@dataclass(frozen=True, slots=True)
class _Table:
    """The routes of one host."""

    exact: dict[str, dict[str, Route]]
    """Path → method → route, each path with and without trailing slash."""
    below: dict[str, dict[str, Route]]
    """Path → method → route of everything below the path."""
    below_depth: int
    """Slashes in the deepest path of `below`: no search goes deeper, however long the client's path is."""

    def above(self, path: str) -> tuple[dict[str, Route], int] | None:
        """The deepest entry of `below` that a path lies under, and where in the path its rest begins."""
        found: tuple[dict[str, Route], int] | None = None
        slash = path.find("/", 1)
        for _ in range(self.below_depth):
            if slash < 0:
                break
            methods = self.below.get(path[:slash])
            if methods is not None:
                found = methods, slash
            slash = path.find("/", slash + 1)
        return found


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The configuration of one generation."""

    generation: int
    limits: Limits
    services: Mapping[str, Service]
    consumers: Mapping[str, Consumer]
    model_apis: tuple[ModelApi, ...]
    _by_digest: dict[bytes, Consumer] = field(repr=False)
    _hosts: dict[str, _Table] = field(repr=False)
    """Exact names."""
    _parents: dict[str, _Table] = field(repr=False)
    """`*.example.com`, under `.example.com`."""
    _any: _Table = field(repr=False)
    _in_use: dict[str, Consumer] = field(default_factory=dict, repr=False)
    """By plain key."""

    def match(self, method: str, host: str, path: str) -> Route:
        """The route of a request.

        `host` is the Host header in lower case without the port, `path` the raw path without the query. Raises
        GatewayError no_route or method_not_allowed (with `allow`).
        """
        table = self._hosts.get(host)
        if table is None:
            table = self._table_of_parent(host) if self._parents else self._any
        methods = table.exact.get(path) or self._any.exact.get(path)
        if methods is None:
            return self._match_below(table, method, path)
        route = methods.get(method)
        if route is None:
            raise _method_not_allowed(method, path, methods)
        return route

    def consumer_of(self, credential: str) -> Consumer | None:
        """Whose credential it is; None if nobody's."""
        known = self._in_use.get(credential)
        if known is None:
            known = self._by_digest.get(sha256(credential.encode("utf-8", "surrogateescape")).digest())
            if known is not None:  # what is nobody's is forgotten: there are no more entries than keys
                self._in_use[credential] = known
        return known

    def _table_of_parent(self, host: str) -> _Table:
        if len(host) <= HOST_BYTES_MAX:
            dot = host.find(".")
            while dot >= 0:
                table = self._parents.get(host[dot:])
                if table is not None:
                    return table
                dot = host.find(".", dot + 1)
        return self._any

    def _match_below(self, table: _Table, method: str, path: str) -> Route:
        """The deepest entry of `below` that the path lies under, with the rest of the path in its upstream path."""
        found = table.above(path) or self._any.above(path)
        # Dot segments would let a caller leave what `below` opens, at an upstream that resolves them.
        if found is None or _has_dot_segment(path[found[1] :]):
            raise GatewayError("no_route", _no_route_message(method, path, (table, self._any)))
        methods, rest_at = found
        route = methods.get(method)
        if route is None:
            raise _method_not_allowed(method, path, methods)
        upstream_path = route.upstream_path + path[rest_at:].rstrip("/")
        return replace(route, template=route.template + "/*", upstream_path=upstream_path)


def compile_snapshot(document: Document, generation: int) -> Snapshot:
    """Compile a checked document. Cannot fail on one that `proxy.config.file` returned."""
    services = {config.name: _service(config) for config in document.services}
    model_apis = tuple(_model_api(config, services, document) for config in document.model_apis)
    consumers = {config.name: Consumer(config.name, dict(config.labels)) for config in document.consumers}
    tables = _tables(model_apis)
    return Snapshot(
        generation=generation,
        limits=Limits(**{limit.name: getattr(document.limits, limit.name) for limit in fields(Limits)}),
        services=services,
        consumers=consumers,
        model_apis=model_apis,
        _by_digest={
            values.digest_of_key(key): consumers[config.name] for config in document.consumers for key in config.keys
        },
        _hosts={domain: table for domain, table in tables.items() if domain and not domain.startswith("*")},
        _parents={domain[1:]: table for domain, table in tables.items() if domain and domain.startswith("*")},
        _any=tables[None],
    )


def _service(config: ServiceConfig) -> Service:
    provider = PROVIDERS[config.provider]
    url = values.parse_base_url(config.base_url or provider.base_url or "", provider.url_suffixes)
    keys = tuple(config.api_keys)
    return Service(
        name=config.name,
        provider=provider,
        scheme=url.scheme,
        host=url.host,
        port=url.port,
        host_header=url.host_header,
        path_prefix=url.path_prefix,
        api_keys=keys,
        auth_headers=provider.auth_headers(keys[0] if keys else None, next(iter(provider.protocols))),
        headers=tuple((name.encode("ascii"), value.encode("ascii")) for name, value in config.headers.items()),
        connect_timeout_ms=config.connect_timeout_ms,
        idle_timeout_ms=config.idle_timeout_ms,
        total_timeout_ms=config.total_timeout_ms,
        max_connections=config.max_connections,
        propagate_trace=provider.propagate_trace if config.propagate_trace is None else config.propagate_trace,
        tls_ca=config.tls.ca,
    )


def _model_api(config: ModelApiConfig, services: Mapping[str, Service], document: Document) -> ModelApi:
    assert config.routing.single is not None  # the only routing that is built; the others are refused
    single = config.routing.single
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
        target=Target(services[single.service], single.model),
        include_usage=config.include_usage,
        max_request_bytes=document.limits.max_request_bytes if limit is None else limit,
        max_inflight_requests=config.max_inflight_requests,
        metrics=config.monitoring.metrics,
        logging=config.monitoring.logging,
        tracing=config.monitoring.tracing,
    )


def _tables(model_apis: tuple[ModelApi, ...]) -> dict[str | None, _Table]:
    """Domain → the routes of the Model APIs that name it, or that a `*.` above it names. None: of those that take any
    host."""
    named: dict[str | None, list[ModelApi]] = {None: []}
    for model_api in model_apis:
        for domain in model_api.domains or (None,):
            named.setdefault(domain, []).append(model_api)
    tables: dict[str | None, _Table] = {None: _table(named[None])}
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


def _table(model_apis: list[ModelApi]) -> _Table:
    """The routes of Model APIs, given in the order of their domains' precedence."""
    table = _Table(exact={}, below={}, below_depth=0)
    depth = 0
    for model_api in sorted(model_apis, key=lambda model_api: -len(model_api.base_path)):
        exact: dict[str, dict[str, Route]] = {}
        below: dict[str, dict[str, Route]] = {}
        for route in _routes(model_api):
            methods = dict.fromkeys(route.operation.methods, route)
            exact[route.template] = methods | exact.get(route.template, {})
            if route.operation.below:
                below[route.template] = methods | below.get(route.template, {})
                depth = max(depth, route.template.count("/"))
        for path, methods in exact.items():
            table.exact.setdefault(path, methods)
            table.exact.setdefault(path + "/", methods)
        for path, methods in below.items():
            table.below.setdefault(path, methods)
    return replace(table, below_depth=depth)


def _prefer_longer_base_paths(table: _Table, general: _Table) -> None:
    """Where any host's Model APIs have a path with a longer base path, it stands before the domain's own."""
    for own, others in ((table.exact, general.exact), (table.below, general.below)):
        for path in own.keys() & others.keys():
            if _base_path_of(others[path]) > _base_path_of(own[path]):
                own[path] = others[path]


def _base_path_of(methods: Mapping[str, Route]) -> int:
    """The length of the base path that a table's entry belongs to: one Model API has it."""
    return max(len(route.model_api.base_path) for route in methods.values())


def _routes(model_api: ModelApi) -> Iterator[Route]:
    service = model_api.target.service
    kept = "" if model_api.strip_base_path else model_api.base_path
    for protocol in model_api.protocols:
        for operation in operations(model_api.scenario, protocol):
            yield Route(
                model_api=model_api,
                operation=operation,
                template=model_api.base_path + operation.path,
                upstream_path=service.path_prefix + kept + service.provider.protocols[protocol] + operation.path,
            )


def _has_dot_segment(path: str) -> bool:
    return any(segment.lower().replace("%2e", ".") in (".", "..") for segment in path.split("/"))


def _shown(method: str, path: str) -> str:
    """Method and path for a message: printable, and no longer than one would read."""
    text = f"{method} {path}"
    return ascii(text if len(text) <= 200 else text[:200] + "…")[1:-1]


def _no_route_message(method: str, path: str, tables: tuple[_Table, ...]) -> str:
    known = dict.fromkeys(template for table in tables for template in table.exact if not template.endswith("/"))
    shown = ", ".join(list(known)[:8]) + (", …" if len(known) > 8 else "")
    right = f"paths of this host: {shown}" if known else "no Model API takes requests of this host"
    return f"no Model API has {_shown(method, path)}; {right}"


def _method_not_allowed(method: str, path: str, methods: Mapping[str, Route]) -> GatewayError:
    allow = tuple(sorted(methods))
    return GatewayError(
        "method_not_allowed", f"{_shown(method, path)} is not possible; use {' or '.join(allow)}", allow=allow
    )
