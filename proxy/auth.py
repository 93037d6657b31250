"""Who is calling, and may they use this Model API.

A credential is read from `Authorization: Bearer`, `x-api-key` or `api-key`, whichever comes first in this order: the
three ways in which official SDKs send a key. What goes upstream is written by the provider's table, so a caller's
credential never travels in the form it came in.
"""

from collections.abc import Mapping
from typing import Final

from multidict import istr

from proxy.config.snapshot import Consumer, ModelApi, Snapshot
from proxy.errors import GatewayError

_AUTHORIZATION: Final = istr("authorization")  # multidict finds these at half the cost of plain strings
_OTHERS: Final = (istr("x-api-key"), istr("api-key"))
CREDENTIALS: Final = (_AUTHORIZATION, *_OTHERS)
"""The header lines that may have one. A client may send several; it is the first of them that counts."""


def credential_of(headers: Mapping[str, str]) -> str | None:
    """The caller's credential, None without one.

    `headers` finds names in any case (multidict), or has them in lower case. What cannot stand in a header line
    (anything but visible ASCII) is nobody's credential.
    """
    authorization = headers.get(_AUTHORIZATION)
    if authorization is not None:
        scheme, _, credential = authorization.partition(" ")
        if scheme.lower() == "bearer":
            credential = credential.strip()
            if _is_credential(credential):
                return credential
    for name in _OTHERS:
        value = headers.get(name)
        if value is not None:
            value = value.strip()
            if _is_credential(value):
                return value
    return None


def authenticate(model_api: ModelApi, snapshot: Snapshot, credential: str | None) -> Consumer | None:
    """The consumer of the credential, None where the Model API asks for none (open) or knows none (passthrough).

    Raises GatewayError unauthenticated.
    """
    if model_api.auth == "open":
        return None
    if credential is None:
        raise GatewayError(
            "unauthenticated",
            "no credential; send one as 'Authorization: Bearer <key>', 'x-api-key: <key>' or 'api-key: <key>'",
        )
    if model_api.auth == "passthrough":
        return None
    consumer = snapshot.consumer_of(credential)
    if consumer is None:
        raise GatewayError("unauthenticated", "the credential is not known here; use the key of a consumer")
    return consumer


def admit(consumer: Consumer, model_api: ModelApi) -> None:
    """May the consumer use the Model API? Raises GatewayError forbidden."""
    if model_api.consumers is not None and consumer.name not in model_api.consumers:
        raise GatewayError(
            "forbidden",
            f"consumer {consumer.name} may not use Model API {model_api.name}; "
            "its name has to be added to the consumers of the Model API",
        )


def _is_credential(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text
