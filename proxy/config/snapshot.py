"""The configuration in force, compiled for serving: immutable, numbered, one assignment to swap.

A worker holds one `Snapshot` and each exchange pins the one it began with. Everything that can be worked out
beforehand is: a request is matched by looking up its host, its path and its method, a credential by its digest. A
plain consumer key is kept only once it is used, as long as the snapshot lives: to hash it again is 3 µs a request.

Matching: every path of every Model API (base path + the path of an operation, with and without trailing slash) is
entered into a dict per domain; where two Model APIs have the same path, the longer base path comes first, then the
more specific domain. What a domain's own dict does not have is looked up in the dict of those that take any host.

`proxy.config.compile` makes snapshots; what requests are sent to (services, keys, targets) is in
`proxy.config.targets` and can be had from here too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final
from urllib.parse import unquote_to_bytes

from observability.content.capture import Plan
from observability.telemetry import Telemetry
from proxy.config.targets import ByModel, ByWeight, Cooldown, Key, Routing, Service, Single, Target, targets_of
from proxy.cors import Cors
from proxy.errors import GatewayError
from proxy.forwarded import Proxies
from proxy.protocols.base import Operation

__all__ = [
    "ByModel",
    "ByWeight",
    "Consumer",
    "Cooldown",
    "Key",
    "Limits",
    "ModelApi",
    "Route",
    "Routing",
    "Service",
    "Single",
    "Snapshot",
    "Table",
    "Target",
]

_DECODINGS: Final = 3
"""Of a path, before a dot segment is looked for: us, a proxy, and a framework behind it."""
_BLANKS: Final = bytes(range(0x21)) + b"\x7f"
HOST_BYTES_MAX: Final = 253
"""The longest name DNS allows: a longer Host is not worth a search for its parent domains."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """An authenticated caller."""

    name: str
    labels: Mapping[str, str]


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
    routing: Routing
    fallback: tuple[Target, ...]
    """In order, after the pick of `routing`."""
    fallback_on: frozenset[int]
    """Statuses after which the next target is tried."""
    max_attempts: int
    """Of one request, the first included."""
    first_packet_timeout_ms: int
    """Streams: from the start of an attempt to the first byte of the response body; 0 = none."""
    first_token_timeout_ms: int
    """Streams: from the start of an attempt to the first event that carries output; 0 = none."""
    include_usage: bool
    max_request_bytes: int
    max_inflight_requests: int | None
    """Per worker; None = only the worker's own limit."""
    recorded: Plan | None
    """What is recorded of content; None = nothing, and then nobody asks again."""
    metrics: bool
    logging: bool
    tracing: bool
    needs_model: bool = field(init=False)
    """Whether a target can only be chosen once the model's name is known."""
    targets: tuple[Target, ...] = field(init=False, repr=False)
    """Every target that a request may reach, each once: those of `routing`, then those of `fallback`."""

    rewrites: bool = field(init=False)
    """Whether a target gets another model name than the caller's."""
    model_matters: bool = field(init=False)
    """The model decides where a request goes, or is replaced: it must not be named twice."""
    has_alternatives: bool = field(init=False)
    """Whether a request that failed can be tried elsewhere: at a fallback, or with another key."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs_model", isinstance(self.routing, ByModel))
        object.__setattr__(self, "targets", tuple(dict.fromkeys((*targets_of(self.routing), *self.fallback))))
        object.__setattr__(self, "rewrites", any(target.model is not None for target in self.targets))
        object.__setattr__(self, "model_matters", self.needs_model or self.rewrites)
        own_keys = self.auth != "passthrough"
        several_keys = own_keys and any(len(target.service.keys) > 1 for target in self.targets)
        object.__setattr__(self, "has_alternatives", bool(self.fallback) or several_keys)


@dataclass(frozen=True, slots=True)
class Route:
    """Where one method and path lead."""

    model_api: ModelApi
    operation: Operation
    template: str
    """`http.route`: base path and path of the operation, without trailing slash; `/*` behind it for what is below."""
    places: Mapping[str, Service]
    """The name of each service that can serve the operation → the service where it speaks the operation's protocol."""
    upstream_paths: Mapping[str, str]
    """The same names → the path each gets: with base_url's prefix, without query and trailing slash (the client's is
    kept by adding it again)."""
    rest: str = ""
    """What the request's path has below the operation's: empty, or from a slash and without a trailing one."""
    translated: frozenset[str] = frozenset()
    """The names of services that get another call in place of the operation (`proxy.translate`); their path here is
    what stands before that call's."""
    called_by_model: bool = False
    """The model's name decides what one of these is asked for, so it has to be known before anything goes there."""
    needs_model: bool = field(init=False)
    """Whether a target, or what is asked of it, can only be chosen once the model's name is known."""
    model_matters: bool = field(init=False)
    """The model decides where a request goes, or is replaced: it must not be named twice."""

    def __post_init__(self) -> None:
        names_model = self.operation.names_model
        needs_model = self.model_api.needs_model or self.called_by_model
        object.__setattr__(self, "needs_model", names_model and needs_model)
        object.__setattr__(self, "model_matters", names_model and (needs_model or self.model_api.model_matters))

    def upstream_path(self, service: Service) -> str:
        """The path that a service of the Model API gets. KeyError for one that cannot serve the operation."""
        return self.upstream_paths[service.name] + self.rest


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
class Table:
    """The routes of one host. `Snapshot.match` looks into it, and nobody else."""

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
    tls: tuple[str, str | None] | None
    """Of the data listener: the files of certificate and key (None: it is in the certificate's). None: no TLS."""
    trusted_proxies: Proxies | None
    """Who is believed about a client's address; None: nobody."""
    cors: Cors | None
    """Which web pages may read answers; None: that is not this gateway's to say."""
    fronted: bool
    """One of the two is there: only then a request is looked at for them."""
    methods: tuple[str, ...]
    """Of all routes together: what `OPTIONS *` is answered."""
    spool_dir: str
    """A folder, relative to the working directory where the file says so; it need not exist yet."""
    telemetry: Telemetry
    _by_digest: dict[bytes, Consumer] = field(repr=False)
    _hosts: dict[str, Table] = field(repr=False)
    """Exact names."""
    _parents: dict[str, Table] = field(repr=False)
    """`*.example.com`, under `.example.com`."""
    _any: Table = field(repr=False)
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

    def _table_of_parent(self, host: str) -> Table:
        if len(host) <= HOST_BYTES_MAX:
            dot = host.find(".")
            while dot >= 0:
                table = self._parents.get(host[dot:])
                if table is not None:
                    return table
                dot = host.find(".", dot + 1)
        return self._any

    def _match_below(self, table: Table, method: str, path: str) -> Route:
        """The deepest entry of `below` that the path lies under, with the rest of the path."""
        found = table.above(path) or self._any.above(path)
        # Dot segments would let a caller leave what `below` opens, at an upstream that resolves them.
        if found is None or _has_dot_segment(path[found[1] :]):
            raise GatewayError("no_route", _no_route_message(method, path, (table, self._any)))
        methods, rest_at = found
        route = methods.get(method)
        if route is None:
            raise _method_not_allowed(method, path, methods)
        rest = path[rest_at:].rstrip("/")
        return replace(route, rest=rest) if rest else route  # with a rest it is this request's alone


def _has_dot_segment(path: str) -> bool:
    """However it is written: encoded (at each step of a chain once more), in overlong UTF-8, with a parameter, with
    spaces. What the edge refuses of every request is less, since other paths are looked up as they are."""
    if "." not in path and "%" not in path:
        return False
    text = path.encode("utf-8", "surrogateescape")
    for _ in range(_DECODINGS):
        text = unquote_to_bytes(text)
    if b"\xc0" in text or b"\xc1" in text:  # never in UTF-8: lenient decoders make ASCII of it
        return True
    segments = text.replace(b"\\", b"/").split(b"/")
    return any(segment.partition(b";")[0].strip(_BLANKS) in (b".", b"..") for segment in segments)


def _shown(method: str, path: str) -> str:
    """Method and path for a message: printable, and no longer than one would read."""
    text = f"{method} {path}"
    return ascii(text if len(text) <= 200 else text[:200] + "…")[1:-1]


def _no_route_message(method: str, path: str, tables: tuple[Table, ...]) -> str:
    known = dict.fromkeys(template for table in tables for template in table.exact if not template.endswith("/"))
    words = set(path.split("/"))
    nearest = sorted(known, key=lambda template: len(words.symmetric_difference(template.split("/"))))  # 0.5 µs each
    shown = ", ".join(nearest[:8]) + (", …" if len(known) > 8 else "")
    right = f"paths of this host: {shown}" if known else "no Model API takes requests of this host"
    return f"no Model API has {_shown(method, path)}; {right}"


def _method_not_allowed(method: str, path: str, methods: Mapping[str, Route]) -> GatewayError:
    allow = tuple(sorted(methods))
    return GatewayError(
        "method_not_allowed", f"{_shown(method, path)} is not possible; use {' or '.join(allow)}", allow=allow
    )
