"""The configuration file as pydantic models: every key of the contract, its default and its check.

The models know one value at a time; what depends on several (names that refer to others, doubled keys, a listener off
loopback) is in `proxy.config.crosscheck`. A key that the contract has and the gateway does not serve yet is marked with
`later`: it may be absent or have its default, anything else is refused. Nothing is silently ignored.

Numbers and switches are not guessed from text. Secrets are kept out of every repr.
"""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from observability.telemetry import COMPATIBLE
from proxy.config import egress, places, service_tls, values
from proxy.config.prices import Currency, Rate, from_file
from proxy.config.values import Milliseconds, Name, Positive, Switch, Whole, one_of
from proxy.protocols import PROTOCOLS, SCENARIOS
from proxy.providers import PROVIDERS

FALLBACK_ON: Final = (429, 500, 502, 503, 504, 529)


class Section(BaseModel):
    """One mapping of the file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class ListenerTls(Section):
    """`tls`: of the data listener."""

    certificate: places.File | None = None
    """PEM; the chain too. Null: no TLS."""
    key: places.File | None = None
    """Null: it is in the certificate's file."""


class Admin(Section):
    """`admin`: the control listener."""

    listen: places.Listen = "127.0.0.1:9090"
    token: values.Token = Field(default="", repr=False)
    """Empty: none is asked for."""


class Cors(Section):
    """`cors`."""

    origins: Annotated[list[places.Origin], values.front] = []


class Limits(Section):
    """`limits`: per worker, but for the disk of the whole host. Of what is held, 0 is nothing, not everything."""

    max_connections: Positive = 20_000
    max_inflight_requests: Positive = 10_000
    max_head_bytes: values.HeadBytes = 65_536
    max_request_bytes: Positive = 536_870_912
    hold_memory_bytes: Whole = 262_144
    hold_disk_bytes: Whole = 536_870_912
    hold_response_bytes: Whole = 65_536
    max_held_memory_bytes: Whole = 268_435_456
    head_timeout_ms: Milliseconds = 10_000
    body_idle_timeout_ms: Milliseconds = 30_000
    write_idle_timeout_ms: Milliseconds = 60_000
    keepalive_timeout_ms: Milliseconds = 75_000
    max_held_disk_bytes: Whole = 17_179_869_184


class Tracing(Section):
    """`tracing`: which traces are kept whatever the sampler says, and for whom they are dressed up."""

    keep_errors: Switch = True
    keep_slower_than_ms: Milliseconds = 0
    compat: list[Annotated[str, one_of(COMPATIBLE)]] = []


class ServiceTls(Section):
    """`services[].tls`: towards the upstream."""

    ca: service_tls.Authorities = None
    certificate: service_tls.CertificateFile = None
    key: service_tls.KeyFile = None
    """None: it is in the file of the certificate."""
    insecure: Switch = False


class Cooldown(Section):
    """`services[].cooldown`."""

    failures: Whole = 5
    """0: however many, none begins a cool-down of the service."""
    window_ms: values.PositiveMilliseconds = 30_000
    base_ms: Milliseconds = 1000
    max_ms: Milliseconds = 60_000


class ServiceConfig(Section):
    """`services[]`: one upstream."""

    name: Name
    provider: Annotated[str, one_of(PROVIDERS, planned=("comfyui",))]
    base_url: places.Url | None = Field(default=None, repr=False)
    base_urls: dict[Annotated[str, one_of(PROTOCOLS, planned=("comfyui",))], places.Url] = Field(default={}, repr=False)
    """Of one that speaks several protocols: where it speaks each."""
    api_keys: list[values.Key] = Field(default=[], repr=False)
    headers: Annotated[dict[values.HeaderName, values.HeaderValue], values.headers] = Field(default={}, repr=False)
    connect_timeout_ms: Milliseconds = 5000
    idle_timeout_ms: Milliseconds = 300_000
    total_timeout_ms: Milliseconds = 0
    max_connections: Whole = 0
    tls: ServiceTls = ServiceTls()
    egress_proxy: egress.EgressProxy = Field(default=None, repr=False)
    propagate_trace: Switch | None = None
    image_paths: Annotated[dict[values.ModelPattern, values.ImagePath], values.targets] = {}
    """Which call of DashScope's an OpenAI image request becomes, over `proxy.translate.models`."""
    cooldown: Cooldown = Cooldown()


class ConsumerConfig(Section):
    """`consumers[]`: an authenticated caller."""

    name: Name
    keys: list[values.ConsumerKey] = Field(default=[], repr=False)
    """Plain, or `sha256:` and 64 hexadecimal digits."""
    labels: dict[str, str] = {}


class TargetConfig(Section):
    """`routing.single`, an entry of `fallback`: a service, and the model it is asked for (None: the caller's)."""

    service: str
    model: values.ModelName | None = None


class ModelTarget(TargetConfig):
    """`routing.by_model[]`."""

    match: values.ModelPattern
    """`?` stands for one character, `*` for any number."""


class WeightTarget(TargetConfig):
    """`routing.by_weight[]`."""

    weight: values.Weight


class RoutingConfig(Section):
    """`routing`: exactly one of the three."""

    single: TargetConfig | None = None
    by_model: Annotated[list[ModelTarget], values.targets] | None = None
    by_weight: Annotated[list[WeightTarget], values.targets] | None = None


class Monitoring(Section):
    """`model_apis[].monitoring`: what is made of a record."""

    metrics: Switch = True
    logging: Switch = True
    tracing: Switch = True
    record_request: Switch = False
    record_response: Switch = False
    content_max_bytes: values.ContentBytes = 65_536
    """Of each side."""
    content_sample: values.Share = 1.0
    """Of traces."""


class ModelApiConfig(Section):
    """`model_apis[]`: what callers see."""

    name: Name
    scenario: Annotated[str, one_of(SCENARIOS)]
    protocols: list[Annotated[str, one_of(PROTOCOLS, planned=("comfyui",))]]
    resource_group: str = "default"
    labels: dict[str, str] = {}
    domains: list[places.Domain] = []
    base_path: places.BasePath = "/"
    strip_base_path: Switch = True
    auth: Annotated[str, one_of(("consumers", "passthrough", "open"))] = "consumers"
    consumers: list[str] = []
    routing: Annotated[RoutingConfig, values.routing]
    balance: Annotated[str, one_of(("weighted", "least_inflight", "lowest_latency"))] = "weighted"
    fallback: Annotated[list[TargetConfig], values.targets] = []
    fallback_on: list[values.FailureStatus] = list(FALLBACK_ON)
    max_attempts: values.Attempts = 4
    first_packet_timeout_ms: Milliseconds = 0
    first_token_timeout_ms: Milliseconds = 0
    include_usage: Switch = True
    on_disconnect: Annotated[str, one_of(("cancel",), planned=("drain",))] = "cancel"
    max_request_bytes: Positive | None = None
    max_inflight_requests: Positive | None = None
    monitoring: Monitoring = Monitoring()


class PriceConfig(Section):
    """An entry of `models` in the file of `prices`: what some models cost."""

    match: values.ModelPattern
    service: str | None = None
    """None: of every service."""
    input: Rate | None = None
    cached_input: Rate | None = None
    cache_write: Rate | None = None
    output: Rate | None = None
    reasoning: Rate | None = None
    image: Rate | None = None
    characters: Rate | None = None
    second: Rate | None = None


class PricesConfig(Section):
    """The file that `prices` names."""

    currency: Currency = "USD"
    models: Annotated[list[PriceConfig], values.targets]


class Document(Section):
    """The whole file. `Document()` is a gateway with every default and nothing to serve."""

    listen: places.Listen = "127.0.0.1:8080"
    tls: ListenerTls = ListenerTls()
    workers: values.Processes = "auto"
    observers: values.Processes = "auto"
    drain_delay_ms: Milliseconds = 0
    drain_timeout_ms: Milliseconds = 180_000
    admin: Admin = Admin()
    allow_open: Switch = False
    trusted_proxies: Annotated[list[places.Network], values.front] = []
    cors: Cors = Cors()
    state: values.State = "sqlite:./.sluiceway/state.db"
    spool_dir: places.SpoolDir = "./.sluiceway/spool"
    limits: Limits = Limits()
    tracing: Tracing = Tracing()
    prices: Annotated[PricesConfig | None, from_file] = None
    redact: Annotated[list[values.Pattern], values.redact] = []
    services: list[ServiceConfig] = []
    consumers: list[ConsumerConfig] = []
    model_apis: list[ModelApiConfig] = []
