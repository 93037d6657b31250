"""What is possible in a configuration file and probably not meant: `check` prints it, `serve` logs it, both go on.

A mistake that makes serving wrong or unsafe is a complaint (`proxy.config.crosscheck`); here is what only leaves
something without effect, or what an upstream would say later and less clearly.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from proxy.config.complaints import Complaint
from proxy.config.crosscheck import targets_of
from proxy.config.model import Document
from proxy.config.targets import matcher
from proxy.forwarded import network_of

_NO_PATTERN: Final = re.compile(r"^\s|\s$|[|^$\\]|\.\*|\[.*\]|\(.*\)")
_WILDCARD: Final = re.compile(r"[*?]")
_VARIABLE: Final = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")


def advice(document: Document) -> list[Complaint]:
    """Every warning about a checked document, in the order of the file. Shows no secret."""
    return [
        *_front(document),
        *_unexpanded(document),
        *_services(document),
        *_routed(document),
        *_served(document),
    ]


def _front(document: Document) -> Iterator[Complaint]:
    """Whom everybody would be believed to be, and pages that nobody thought of."""
    for index, text in enumerate(document.trusted_proxies):
        if network_of(text).prefixlen == 0:
            wrong = f"{text} is everybody, and anybody can write X-Forwarded-For"
            yield Complaint(f"trusted_proxies[{index}]", wrong, "name the addresses of your own proxies")
    origins = document.cors.origins
    if "*" in origins:
        if len(origins) > 1:
            wrong = "the other origins are in it already"
            yield Complaint(f"cors.origins[{origins.index('*')}]", wrong, "take it out, or take the others out")
        for index, model_api in enumerate(document.model_apis):
            if model_api.auth == "open":
                wrong = "with cors.origins of * any web page that a user opens may call it, without a key"
                yield Complaint(f"model_apis[{index}].auth", wrong, "name the origins, or set auth to consumers")


def _unexpanded(document: Document) -> Iterator[Complaint]:
    """`$NAME` where a secret stands: only `${NAME}` is read from the environment."""
    places = [("admin.token", document.admin.token)]
    for index, service in enumerate(document.services):
        places += [(f"services[{index}].api_keys[{position}]", key) for position, key in enumerate(service.api_keys)]
        places += [(f"services[{index}].headers.{name}", value) for name, value in service.headers.items()]
    for index, consumer in enumerate(document.consumers):
        places += [(f"consumers[{index}].keys[{position}]", key) for position, key in enumerate(consumer.keys)]
    for path, value in places:
        # a header may have its scheme before it: Bearer $TOKEN
        if _VARIABLE.fullmatch(value.rpartition(" ")[2]):
            yield Complaint(path, "it looks like a variable, and is taken as it is", "write ${NAME} with braces")


def _services(document: Document) -> Iterator[Complaint]:
    """Services, and keys of services, that no request uses; and upstreams that could be anybody."""
    for index, service in enumerate(document.services):
        users = [
            model_api
            for model_api in document.model_apis
            if any(target.service == service.name for _, target in targets_of(model_api))
        ]
        if not users:
            wrong = f"no Model API uses service {service.name}"
            yield Complaint(f"services[{index}].name", wrong, "name it in a routing or fallback, or take it out")
        elif service.api_keys and all(model_api.auth == "passthrough" for model_api in users):
            wrong = f"Model API {users[0].name} passes the caller's own key on, and nobody uses these"
            yield Complaint(f"services[{index}].api_keys", wrong, "take them out, or set auth to consumers")
        if service.tls.insecure:
            wrong = "the upstream is not verified: whoever is on the way can read everything and answer in its place"
            right = "leave it out, and name the authority of its certificate in tls.ca"
            yield Complaint(f"services[{index}].tls.insecure", wrong, right)


def _routed(document: Document) -> Iterator[Complaint]:
    """Targets that no request reaches, and names that look like something else."""
    for index, model_api in enumerate(document.model_apis):
        path = f"model_apis[{index}]"
        earlier: list[tuple[str, Callable[[str], object]]] = []
        for position, entry in enumerate(model_api.routing.by_model or []):
            where = f"{path}.routing.by_model[{position}].match"
            names = _samples(entry.match)
            wider = next((pattern for pattern, fits in earlier if all(map(fits, names))), None)
            earlier.append((entry.match, matcher(entry.match)))
            if wider is not None:
                wrong = f"every name that fits {entry.match!r} fits {wider!r} before it"
                yield Complaint(where, wrong, "the first pattern that fits decides: put the narrower one first")
            if _NO_PATTERN.search(entry.match):
                right = "use ? for any one character and * for any number of them; a pattern is no regular expression"
                yield Complaint(where, f"{entry.match!r} fits only names with these very characters", right)
        for place, target in targets_of(model_api):
            if target.model is not None and _WILDCARD.search(target.model):
                wrong = f"the service will be asked for a model of the very name {target.model!r}"
                yield Complaint(f"{path}.{place}.model", wrong, "write the name of a model")
        if len(model_api.fallback) >= model_api.max_attempts:
            wrong = f"{model_api.max_attempts} attempts do not reach the last of {len(model_api.fallback)} fallbacks"
            right = f"set it to {len(model_api.fallback) + 1} or more"
            yield Complaint(f"{path}.max_attempts", wrong, right)


def _samples(pattern: str) -> tuple[str, ...]:
    """Names that fit a pattern, with nothing and with much in the place of each `*`: what fits both fits all."""
    return tuple(pattern.replace("?", "\0").replace("*", filling) for filling in ("", "\0" * 300))


def _served(document: Document) -> Iterator[Complaint]:
    if not document.model_apis:
        yield Complaint("model_apis", "the file has none, so every request is answered 404", "add at least one")
