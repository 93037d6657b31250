"""A seal tells whether two processes mean the same by a configuration: the text, and all that it refers to.

The same text says another thing when a variable, a secret's file or a certificate has changed. Whoever holds a kept
text sees by its seal whether it still says what is in force. The seal is keyed with a number that each start of a
gateway draws and only its processes know: without it, nobody can try secrets on a seal.
"""

import hmac
import os
from collections.abc import Sequence
from typing import Any

import orjson

from proxy.config.model import Document
from proxy.config.service_tls import digest_of_files

VARIABLE = "SLUICEWAY_SEAL_KEY"
"""How the key reaches the processes of a gateway."""


def fresh_key() -> str:
    """For one start of a gateway."""
    return os.urandom(32).hex()


def seal_of(document: Document, key: str) -> str:
    """The seal of a checked document, files named in it included. 64 hexadecimal digits."""
    plain = orjson.dumps(plain_of(document), option=orjson.OPT_SORT_KEYS)
    files = digest_of_files(named_files(document)).encode()
    return hmac.digest(key.encode(), plain + b"\0" + files, "sha256").hex()


def plain_of(document: Document) -> dict[str, Any]:
    """As it goes to another process, secrets included. `proxy.config.file.validated` is the way back."""
    return document.model_dump(exclude_unset=True)


def named_files(document: Document) -> Sequence[str]:
    """Files whose content belongs to the configuration."""
    tls = [service.tls for service in document.services]
    return [path for one in tls for path in (one.ca, one.certificate, one.key) if path is not None]
