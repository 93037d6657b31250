"""What is possible in a configuration file and probably not meant: `check` prints it, `serve` logs it, both go on.

A mistake that makes serving wrong or unsafe is a complaint (`proxy.config.crosscheck`); here is what only leaves
something without effect, or what an upstream would say later and less clearly.
"""

import re
from collections.abc import Iterator
from typing import Final

from proxy.config.complaints import Complaint
from proxy.config.crosscheck import targets_of
from proxy.config.model import Document

_VARIABLE: Final = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")


def advice(document: Document) -> list[Complaint]:
    """Every warning about a checked document, in the order of the file. Shows no secret."""
    return [*_unexpanded(document), *_services(document), *_served(document)]


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
    """Services, and keys of services, that no request uses."""
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


def _served(document: Document) -> Iterator[Complaint]:
    if not document.model_apis:
        yield Complaint("model_apis", "the file has none, so every request is answered 404", "add at least one")
