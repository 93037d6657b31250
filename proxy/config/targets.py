"""Where the requests of a Model API may go: services with their keys, targets, and the three ways to choose one.

Compiled and immutable, and without any state: who is busy, slow or cooling down is the balancer's to know. It finds
what it knows by these objects, so of each there is one in a snapshot: one Service for a name, one Target for a service
and a model, however often the file names them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.headers import Added
from proxy.providers.base import Provider


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One credential of a service. Known by its identity; its repr shows no secret."""

    name: str
    """`<service>/<index>`, for cool-downs and logs."""
    auth_headers: Mapping[str, tuple[tuple[bytes, bytes], ...]] = field(repr=False)
    """Each protocol of the provider → the header lines it wants for this key; empty for a service without keys."""
    added: Mapping[str, Added] = field(repr=False)
    """Each protocol → those lines and the service's own `headers`, as they go upstream."""


@dataclass(frozen=True, slots=True)
class Cooldown:
    """When a service or one of its keys is left alone, and for how long; the contract's `cooldown`."""

    failures: int
    """So many within `window_ms` begin a cool-down of the service; 0: however many, none does."""
    window_ms: int
    base_ms: int
    """The first cool-down; each further one is twice as long, up to `max_ms`."""
    max_ms: int


@dataclass(frozen=True, slots=True)
class Tls:
    """What TLS towards a service rests on: PEM files by their paths."""

    ca: str | None = None
    """The only authorities that are trusted; None = the system's."""
    certificate: str | None = None
    """Shown to an upstream that asks for one; the file may hold those of its issuers too, and holds its key if `key` is
    None."""
    key: str | None = None
    insecure: bool = False
    """Nothing of the upstream's certificate is verified."""
    digest: str = ""
    """Of what the files held when the configuration was compiled: with other contents it is another service's TLS."""


PLAIN_TLS: Final = Tls()
"""Where the file says nothing about it."""


@dataclass(frozen=True, slots=True)
class Egress:
    """An HTTP proxy on the way to a service, which opens connections by CONNECT. Its repr shows no secret."""

    host: str
    """A name or an address, IPv6 without brackets."""
    port: int
    authorization: bytes | None = field(default=None, repr=False)
    """The value of Proxy-Authorization."""


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """One upstream: address, credentials, timeouts (ms, 0 = none). Known by its identity; its repr shows no secret."""

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
    versioned: bool
    """Its last part is a version other than v1, which stands for the `/v1` of OpenAI's paths."""
    keys: tuple[Key, ...]
    """At least one: a service without api_keys has one whose header lines are empty."""
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    """Added to every request; names in lower case."""
    connect_timeout_ms: int
    idle_timeout_ms: int
    total_timeout_ms: int
    max_connections: int
    """Per worker; 0 = no limit."""
    propagate_trace: bool
    tls: Tls
    egress: Egress | None
    cooldown: Cooldown
    others: "Mapping[str, Service]" = field(default_factory=dict, repr=False)
    """Protocol → the same service where it speaks that one, for those of `base_urls`: same keys, name and times,
    another address."""
    spoken: frozenset[str] = frozenset()
    """Protocols."""
    image_paths: tuple[tuple[str, str], ...] = ()
    """Pattern of models → sync, async or a path: which call an OpenAI image request becomes (`proxy.translate`)."""

    def at(self, protocol: str) -> "Service":
        """Where it speaks a protocol."""
        return self.others.get(protocol, self)


@dataclass(frozen=True, slots=True)
class Target:
    """A service, and the model name it gets instead of the caller's (None: the caller's). May be a dict's key."""

    service: Service
    model: str | None


@dataclass(frozen=True, slots=True)
class Single:
    """One target for every model."""

    target: Target


@dataclass(frozen=True, slots=True)
class ByModel:
    """The first pattern that fits the model's name decides.

    Names are looked up, and patterns are compiled so that a try is never gone back on: what a star has found stays
    found, so that a name costs at most its length times the pattern's, whatever the stars (`*a*a*a*b`).
    """

    choices: tuple[tuple[str, Target], ...]
    """Pattern → target, in the order of the file; `?` is one character, `*` any number."""
    _names: Mapping[str, tuple[int, Target]] = field(init=False, repr=False, compare=False)
    """The patterns that are plain names → where they stand, and their target."""
    _patterns: tuple[tuple[int, Callable[[str], object], Target], ...] = field(init=False, repr=False, compare=False)
    """The others."""

    def __post_init__(self) -> None:
        names: dict[str, tuple[int, Target]] = {}
        patterns: list[tuple[int, Callable[[str], object], Target]] = []
        for position, (pattern, target) in enumerate(self.choices):
            if "*" in pattern or "?" in pattern:
                patterns.append((position, matcher(pattern), target))
            else:
                names.setdefault(pattern, (position, target))
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_patterns", tuple(patterns))

    def choose(self, model: str) -> Target | None:
        """The target of the first pattern that fits the whole name, upper and lower case told apart; None: none does.

        Nothing is remembered between calls, so no stream of invented names can fill anything.
        """
        named_at, named = self._names.get(model, (len(self.choices), None))
        for position, fits, target in self._patterns:
            if position > named_at:
                break
            if fits(model):
                return target
        return named


@dataclass(frozen=True, slots=True)
class ByWeight:
    """A share of the requests for each target."""

    targets: tuple[Target, ...]
    weights: tuple[int, ...]
    """One for each target; those of 0 stand by for the others. Not all are 0."""
    balance: str
    """weighted | least_inflight | lowest_latency"""


Routing = Single | ByModel | ByWeight


def targets_of(routing: Routing) -> tuple[Target, ...]:
    """Every target that a routing may choose, in the order of the file; one that is named twice comes twice."""
    match routing:
        case Single(target):
            return (target,)
        case ByModel(choices=choices):
            return tuple(target for _, target in choices)
        case ByWeight(targets=targets):
            return targets


def matcher(pattern: str) -> Callable[[str], object]:
    """Answers something true for the names that fit a pattern, whole, as `ByModel` has it."""
    return re.compile(_expression(pattern), re.DOTALL).fullmatch


def _expression(pattern: str) -> str:
    """A pattern with a star or question mark in it as a regular expression for the whole of a name.

    Between two stars, the first place that fits is as good as any later one: it leaves the most to what follows. So
    each such part is an atomic group, and only the last star ever gives back what it took.
    """
    first, *rest = [
        "".join("." if letter == "?" else re.escape(letter) for letter in part) for part in pattern.split("*")
    ]
    if not rest:
        return first
    return first + "".join(f"(?>.*?{part})" for part in rest[:-1] if part) + ".*" + rest[-1]
