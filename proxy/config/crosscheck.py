"""What one value of the configuration file cannot know: names that refer to others, doubles, and what is safe to serve.

The checks see what is sound of a file. Where an entry is broken in itself it is None here, and its name, if it has one,
still counts as known: one mistake makes one complaint, and all mistakes are told at once.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import PydanticCustomError

from proxy.config.complaints import Complaint, near_miss, shown
from proxy.config.egress import egress_of
from proxy.config.model import ConsumerConfig, Document, ListenerTls, ModelApiConfig, ServiceConfig, TargetConfig
from proxy.config.places import is_loopback, parse_base_url, spool_fault
from proxy.config.service_tls import client_certificate_fault
from proxy.config.values import digest_of_key
from proxy.listener_tls import CertificateError, context_of
from proxy.protocols import operations, protocols_of
from proxy.providers import PROVIDERS
from proxy.translate.models import translates_for

CREDENTIAL_HEADERS: Final = frozenset({"authorization", "x-api-key", "api-key"})
"""A service may carry its key in its `headers` too (a proxy of one's own with Basic authentication)."""


@dataclass(frozen=True, slots=True)
class SpoolFolder:
    """The folder for held bodies."""

    folder: str
    named: bool
    """In the file: then it has to be usable whoever uses it."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A file as far as it is sound. None stands for a broken entry."""

    listen: str | None
    admin_listen: str | None
    admin_token: str
    allow_open: bool
    tls: ListenerTls | None
    spool: SpoolFolder | None
    """None: it is broken, or nothing will be held on disk."""
    max_request_bytes: int | None
    """Of `limits`."""
    services: Sequence[ServiceConfig | None]
    consumers: Sequence[ConsumerConfig | None]
    model_apis: Sequence[ModelApiConfig | None]
    service_names: frozenset[str] | None
    """Of broken entries too. None: some name cannot be told, so that no reference can be called wrong."""
    consumer_names: frozenset[str] | None


def parts_of(document: Document) -> Parts:
    """A document that is sound in each of its values."""
    return Parts(
        listen=document.listen,
        admin_listen=document.admin.listen,
        admin_token=document.admin.token,
        allow_open=document.allow_open,
        tls=document.tls,
        spool=spool_of(document),
        max_request_bytes=document.limits.max_request_bytes,
        services=document.services,
        consumers=document.consumers,
        model_apis=document.model_apis,
        service_names=frozenset(service.name for service in document.services),
        consumer_names=frozenset(consumer.name for consumer in document.consumers),
    )


def spool_of(document: Document) -> SpoolFolder | None:
    """The folder for held bodies; None where it is the default one and the limits leave nothing to be held on disk."""
    named = "spool_dir" in document.model_fields_set
    limits = document.limits
    holds = limits.hold_disk_bytes and limits.max_held_disk_bytes
    return SpoolFolder(document.spool_dir, named) if named or holds else None


def cross_check(parts: Parts, environ: Mapping[str, str], *, starting: bool) -> list[Complaint]:
    """Every complaint about how the parts fit together and to the environment; and, where a gateway starts, to the
    machine."""
    return [
        *_listeners(parts),
        *_certificate(parts),
        *_doubled_names("services", parts.services),
        *_doubled_names("consumers", parts.consumers),
        *_doubled_names("model_apis", parts.model_apis),
        *_services(parts, environ),
        *_consumers(parts),
        *_places(parts),
        *(_spool(parts) if starting else ()),
        *_model_apis(parts),
    ]


def _listeners(parts: Parts) -> Iterator[Complaint]:
    if parts.admin_listen is not None and not is_loopback(parts.admin_listen) and not parts.admin_token:
        wrong = f"{parts.admin_listen} can be reached from other machines, and admin.token is not set"
        yield Complaint("admin.listen", wrong, "set admin.token, or listen on 127.0.0.1")
    same = parts.listen is not None and parts.listen == parts.admin_listen
    if same and not str(parts.listen).endswith(":0"):
        yield Complaint("admin.listen", f"{parts.admin_listen} is the address of listen too", "use another port")


def _certificate(parts: Parts) -> Iterator[Complaint]:
    """The files have to be there and belong together."""
    tls = parts.tls
    if tls is None or tls.certificate is None:
        if tls is not None and tls.key is not None:
            yield Complaint(
                "tls.certificate", "it is missing, and tls.key is there", "name the certificate of that key"
            )
        return
    try:
        context_of(tls.certificate, tls.key)
    except CertificateError as fault:
        yield Complaint(f"tls.{fault.key}", fault.wrong, fault.right)


def _doubled_names(
    section: str,
    entries: Sequence[ServiceConfig | None] | Sequence[ConsumerConfig | None] | Sequence[ModelApiConfig | None],
) -> Iterator[Complaint]:
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if entry is None:
            continue
        first = seen.setdefault(entry.name, index)
        if first != index:
            wrong = f"{entry.name} is the name of {section}[{first}] too"
            yield Complaint(f"{section}[{index}].name", wrong, "give each a name of its own")


def _services(parts: Parts, environ: Mapping[str, str]) -> Iterator[Complaint]:
    for index, service in enumerate(parts.services):
        if service is None:
            continue
        path = f"services[{index}]"
        provider = PROVIDERS[service.provider]
        if service.base_url is None and provider.base_url is None and not service.base_urls:
            yield Complaint(f"{path}.base_url", "it is missing", f"{provider.name} has no address of its own: give one")
        for position, key in enumerate(service.api_keys):
            first = service.api_keys.index(key)
            if first != position:
                wrong = f"the key is that of {path}.api_keys[{first}] too"
                yield Complaint(f"{path}.api_keys[{position}]", wrong, "give each key once")
        if service.image_paths and not translates_for(service.provider, spoken_by(service)):
            wrong = f"service {service.name} makes images as OpenAI does, and its requests are not translated"
            yield Complaint(f"{path}.image_paths", wrong, "leave it out")
        yield from _credentials(parts, service, path)
        yield from _way(service, path, environ)


def _way(service: ServiceConfig, path: str, environ: Mapping[str, str]) -> Iterator[Complaint]:
    """TLS towards a service, and the proxy that the environment names for it."""
    own = own_base_url(service)
    urls = [parse_base_url(url, ()) for url in ((own,) if own else ()) + tuple(service.base_urls.values())]
    secure = [url for url in urls if url.scheme == "https"]
    tls = service.tls
    if urls and not secure:
        key = "base_urls" if service.base_urls else "base_url"
        for name in type(tls).model_fields:
            if getattr(tls, name):
                wrong = f"{key} is http, where there is no TLS"
                yield Complaint(f"{path}.tls.{name}", wrong, f"leave it out, or write https in {key}")
    if not secure:
        return
    if tls.insecure and tls.ca is not None:
        wrong = "with insecure: true nothing is verified, and these authorities have no effect"
        yield Complaint(f"{path}.tls.ca", wrong, "keep one of the two: this one, if the upstream is to be verified")
    fault = client_certificate_fault(tls.certificate, tls.key)
    if fault is not None:
        place, wrong, right = fault
        yield Complaint(f"{path}.tls.{place}", wrong, right)
    if service.egress_proxy is None:
        try:
            for url in secure:
                egress_of(None, url.scheme, url.host, url.port, environ)
        except PydanticCustomError as error:
            wrong = f"HTTPS_PROXY of the environment is no usable proxy: {(error.context or {})['wrong']}"
            yield Complaint(f"{path}.egress_proxy", wrong, "correct it, or set egress_proxy: none for this service")


def _credentials(parts: Parts, service: ServiceConfig, path: str) -> Iterator[Complaint]:
    users = [
        model_api
        for model_api in parts.model_apis
        if model_api is not None and any(target.service == service.name for _, target in targets_of(model_api))
    ]
    for name in sorted(_written(service, users).intersection(service.headers) if service.api_keys else ()):
        yield Complaint(f"{path}.headers.{name}", f"{name} is written from api_keys already", "use one of the two")
    passing = [model_api.name for model_api in users if model_api.auth == "passthrough"]
    for name in sorted(CREDENTIAL_HEADERS.intersection(service.headers) if passing else ()):
        wrong = f"Model API {passing[0]} passes the caller's own key on, and this one would go with it"
        yield Complaint(f"{path}.headers.{name}", wrong, "leave it out, or set auth to consumers")
    callers = [model_api.name for model_api in users if model_api.auth != "passthrough"]
    if callers and not service.api_keys and PROVIDERS[service.provider].needs_key:
        wrong = f"it is empty, and Model API {callers[0]} does not pass the caller's own key on"
        yield Complaint(f"{path}.api_keys", wrong, f'give the key: ["${{{service.provider.upper()}_API_KEY}}"]')


def _written(service: ServiceConfig, users: Sequence[ModelApiConfig]) -> frozenset[str]:
    """The headers in which keys of a service go upstream, in the protocols in which it is asked."""
    protocols = {one for model_api in users if model_api.auth != "passthrough" for one in model_api.protocols}
    spoken = protocols.intersection(spoken_by(service))
    lines = (PROVIDERS[service.provider].auth_headers("key", protocol) for protocol in spoken)
    return frozenset({"authorization"} | {name.decode("ascii") for ((name, _),) in lines})


def _consumers(parts: Parts) -> Iterator[Complaint]:
    owners: dict[bytes, str] = {}
    for index, consumer in enumerate(parts.consumers):
        if consumer is None:
            continue
        if not consumer.keys:
            wrong = f"consumer {consumer.name} has no key and can never be recognised"
            yield Complaint(f"consumers[{index}].keys", wrong, "give at least one key")
        for position, key in enumerate(consumer.keys):
            path = f"consumers[{index}].keys[{position}]"
            owner = owners.setdefault(digest_of_key(key), path)
            if owner != path:
                yield Complaint(path, f"the key is that of {owner} too", "give each consumer a key of its own")


def _places(parts: Parts) -> Iterator[Complaint]:
    """Domain and base path name one Model API."""
    taken: dict[tuple[str | None, str], int] = {}
    for index, model_api in enumerate(parts.model_apis):
        if model_api is None:
            continue
        for position, domain in enumerate(model_api.domains or [None]):
            first = taken.setdefault((domain, model_api.base_path), index)
            if domain is None and first != index:
                wrong = f"{model_api.base_path} on any domain is that of model_apis[{first}] too"
                yield Complaint(f"model_apis[{index}].base_path", wrong, "use another base path, or name domains")
            elif first != index:
                wrong = f"{domain} with base path {model_api.base_path} is that of model_apis[{first}] too"
                right = "use another base path or domain"
                yield Complaint(f"model_apis[{index}].domains[{position}]", wrong, right)


def _model_apis(parts: Parts) -> Iterator[Complaint]:
    services = {service.name: service for service in parts.services if service is not None}
    for index, model_api in enumerate(parts.model_apis):
        if model_api is None:
            continue
        path = f"model_apis[{index}]"
        yield from _access(parts, model_api, path)
        yield from _routing(model_api, f"{path}.routing")
        yield from _balance(model_api, path)
        largest = parts.max_request_bytes
        if largest is not None and model_api.max_request_bytes is not None and model_api.max_request_bytes > largest:
            wrong = f"{model_api.max_request_bytes} is above limits.max_request_bytes, {largest}"
            yield Complaint(f"{path}.max_request_bytes", wrong, "make this one smaller, or that one larger")
        reachable: dict[str, ServiceConfig] = {}
        for place, target in targets_of(model_api):
            if target.service in services:
                reachable[target.service] = services[target.service]
            elif parts.service_names is not None and target.service not in parts.service_names:
                wrong = f"there is no service {target.service!r}"
                yield Complaint(
                    f"{path}.{place}.service", wrong, near_miss(target.service, sorted(parts.service_names))
                )
        yield from _protocols(model_api, reachable.values(), path)


def targets_of(model_api: ModelApiConfig) -> Iterator[tuple[str, TargetConfig]]:
    """Every target that a request may reach, and where in the Model API it stands."""
    routing = model_api.routing
    if routing.single is not None:
        yield "routing.single", routing.single
    for place, targets in (
        ("routing.by_model", routing.by_model),
        ("routing.by_weight", routing.by_weight),
        ("fallback", model_api.fallback),
    ):
        for position, target in enumerate(targets or ()):
            yield f"{place}[{position}]", target


def _routing(model_api: ModelApiConfig, path: str) -> Iterator[Complaint]:
    routing = model_api.routing
    ways = [name for name in type(routing).model_fields if getattr(routing, name) is not None]
    if not ways:
        yield Complaint(path, "it names no service", "give it one, {single: {service: NAME}}, or by_model or by_weight")
    elif len(ways) > 1:
        yield Complaint(path, f"it has {' and '.join(ways)}", "keep one of them")
    if routing.by_model is not None and not routing.by_model:
        yield Complaint(f"{path}.by_model", "it is empty", 'give it entries: [{match: "qwen-*", service: NAME}]')
    if routing.by_weight is not None and not routing.by_weight:
        yield Complaint(f"{path}.by_weight", "it is empty", "give it entries: [{service: NAME, weight: 80}]")
    if routing.by_weight and not any(target.weight for target in routing.by_weight):
        yield Complaint(f"{path}.by_weight", "every weight is 0", "give at least one entry a weight above 0")


def _balance(model_api: ModelApiConfig, path: str) -> Iterator[Complaint]:
    if model_api.balance != "weighted" and model_api.routing.by_weight is None:
        wrong = f"{model_api.balance} chooses among the entries of routing.by_weight, and there is none"
        yield Complaint(f"{path}.balance", wrong, "leave it out, or route by_weight")


def _spool(parts: Parts) -> Iterator[Complaint]:
    """A folder that the file names has to be usable, the default one only where bodies will be held."""
    spool = parts.spool
    if spool is None:
        return
    rotating = {service.name for service in parts.services if service is not None and len(service.api_keys) > 1}
    holding = (
        one.name
        for one in parts.model_apis
        if one is not None
        and (one.routing.by_model or one.fallback or any(target.service in rotating for _, target in targets_of(one)))
    )
    name = next(holding, None)
    if not spool.named and name is None:
        return
    fault = spool_fault(spool.folder)
    if fault is not None:
        why = "" if spool.named else f"; Model API {name} holds request bodies"
        wrong = f"{shown(spool.folder)} cannot be used: {fault}{why}"
        yield Complaint("spool_dir", wrong, "name a folder that is writable or can be made")


def _access(parts: Parts, model_api: ModelApiConfig, path: str) -> Iterator[Complaint]:
    known = parts.consumer_names
    for position, name in enumerate(model_api.consumers):
        if known is not None and name not in known:
            wrong = f"there is no consumer {name!r}"
            yield Complaint(f"{path}.consumers[{position}]", wrong, near_miss(name, sorted(known)))
    if model_api.auth == "consumers" and known is not None and not known:
        wrong = "it asks for the key of a consumer, and the file has no consumers"
        yield Complaint(f"{path}.auth", wrong, "add consumers, or set auth to passthrough or open")
    if model_api.auth != "consumers" and model_api.consumers:
        wrong = f"with auth: {model_api.auth} no consumer is known"
        yield Complaint(f"{path}.consumers", wrong, "leave the list empty, or set auth to consumers")
    if model_api.auth == "open" and not parts.allow_open and parts.listen is not None and not is_loopback(parts.listen):
        keyed = next((service for service in parts.services if service is not None and _has_key(service)), None)
        if keyed is not None:
            wrong = f"anybody who reaches {parts.listen} could spend the key of service {keyed.name}"
            right = "set auth to consumers, listen on 127.0.0.1, or set allow_open: true if that is meant"
            yield Complaint(f"{path}.auth", wrong, right)


def _has_key(service: ServiceConfig) -> bool:
    return bool(service.api_keys) or not CREDENTIAL_HEADERS.isdisjoint(service.headers)


def _protocols(model_api: ModelApiConfig, services: Collection[ServiceConfig], path: str) -> Iterator[Complaint]:
    if not model_api.protocols:
        right = f"name one or more of {', '.join(protocols_of(model_api.scenario))}"
        yield Complaint(f"{path}.protocols", "it is empty", right)
    for position, protocol in enumerate(model_api.protocols):
        where = f"{path}.protocols[{position}]"
        if protocol in model_api.protocols[:position]:
            yield Complaint(where, f"{protocol} stands there twice", "name each protocol once")
        if not operations(model_api.scenario, protocol):
            wrong = f"the {protocol} protocol has nothing for scenario {model_api.scenario}"
            yield Complaint(where, wrong, f"use {' or '.join(protocols_of(model_api.scenario))}")
        else:
            for service in services:
                yield from _speaks(service, model_api.scenario, protocol, where)
                yield from _serves(service, model_api.scenario, protocol, where)


def _serves(service: ServiceConfig, scenario: str, protocol: str, path: str) -> Iterator[Complaint]:
    """At a provider's own address the scenarios of a protocol are known; who else answers in its way may have more."""
    provider, own = PROVIDERS[service.provider], own_base_url(service)
    served = provider.scenarios.get(protocol)
    if served is None or scenario in served or protocol in service.base_urls or not own or not provider.base_url:
        return
    if parse_base_url(own, ()).host == parse_base_url(provider.base_url, ()).host:
        wrong = f"service {service.name} ({provider.name}) has the {protocol} protocol for {', '.join(served)} alone"
        yield Complaint(path, wrong, f"use a service that has it for {scenario}")


def spoken_by(service: ServiceConfig) -> tuple[str, ...]:
    """The protocols of a service: those of base_urls, and its provider's at base_url."""
    own = PROVIDERS[service.provider].protocols if service.base_url or not service.base_urls else ()
    return tuple(dict.fromkeys((*own, *service.base_urls)))


def own_base_url(service: ServiceConfig) -> str | None:
    """Where it speaks the protocols that base_urls does not name. None: nowhere, or it is missing."""
    return service.base_url if service.base_url or service.base_urls else PROVIDERS[service.provider].base_url


def _speaks(service: ServiceConfig, scenario: str, protocol: str, path: str) -> Iterator[Complaint]:
    spoken = spoken_by(service)
    translated = (scenario, protocol) == ("image", "openai") and translates_for(service.provider, spoken)
    if protocol not in spoken and not translated:
        wrong = f"service {service.name} ({service.provider}) does not speak the {protocol} protocol"
        right = f"use {' or '.join(spoken)}, or a service that speaks it, or say where it does in its base_urls"
        yield Complaint(path, wrong, right)
