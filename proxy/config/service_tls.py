"""Files that TLS towards a service needs, as pydantic types like `values`: authorities, a client certificate, its key.

They are tried when the configuration is read, so that a wrong one is a complaint and not the first request's failure;
what is tried is what OpenSSL will do with them. A digest of their contents tells one generation from the next where the
paths stay the same.
"""

import os
import ssl
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, Final

from pydantic import AfterValidator

from proxy.config.complaints import wrong_value

FILE_BYTES_MAX: Final = 4_194_304
"""Of one file. The system's own bundle of all public authorities has 0.2 MiB; /dev/zero would not end."""

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"
_ENCRYPTED: Final = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
_DECRYPT: Final = "write it without one: openssl pkey -in OLD -out NEW"


class _EncryptedKeyError(ValueError):
    """OpenSSL asks for a passphrase."""


def client_certificate_fault(certificate: str | None, key: str | None) -> tuple[str, str, str] | None:
    """What is wrong with the pair: the key of `tls` where it shows, what is wrong, what would be right.

    Of files that were readable a moment ago, one by one; None: a handshake can be made with them.
    """
    if certificate is None:
        return None if key is None else ("key", "no certificate goes with it", "name its file in tls.certificate")
    place = "certificate" if key is None else "key"
    try:
        text = _content(key or certificate)
        if _KEY not in text:
            return place, "the file holds no private key", _right_for_no_key(key)
        if any(mark in text for mark in _ENCRYPTED):
            return place, "the private key has a passphrase", _DECRYPT
        load_client_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key)
    except _EncryptedKeyError:
        return place, "the private key has a passphrase", _DECRYPT
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return place, "the key is not the certificate's", "name the key that the certificate was issued for"
        wrong = f"certificate and key cannot be used: {error.reason or 'they are damaged'}"
        return place, wrong, "name unencrypted PEM files, the certificate before those of its issuers"
    except OSError as error:
        return place, f"it cannot be read ({error.strerror})", "name a readable file"
    return None


def load_client_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Give a context what it shows to servers that ask. Raises OSError or ValueError; never asks a terminal for a
    passphrase."""
    context.load_cert_chain(certificate, key, password=_no_passphrase)


def digest_of_files(paths: Iterable[str | None]) -> str:
    """Tells contents apart; empty where there is no file. One that cannot be read counts as empty: making the
    connections will fail on it, and say so."""
    named = [path for path in paths if path is not None]
    if not named:
        return ""
    digest = sha256()
    for path in named:
        try:
            content = _content(path)
        except OSError:
            content = b""
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def _no_passphrase() -> str:
    raise _EncryptedKeyError


def _right_for_no_key(key: str | None) -> str:
    if key is None:
        return "name the key's file in tls.key, or put the key into the file of the certificate"
    return "name a PEM file with the key of the certificate"


def _content(path: str) -> bytes:
    """What a file holds. Raises OSError, also for one that is too large to be what it should be."""
    with open(path, "rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise OSError(0, f"it has more than {FILE_BYTES_MAX} bytes")
    return content


def _authorities(value: str | None) -> str | None:
    if value is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=value)
        except (OSError, ValueError) as error:
            # SSLError is an OSError whose strerror is OpenSSL's, and tells nobody anything
            reason = "it holds no PEM certificates" if isinstance(error, ssl.SSLError) else str(error.args[-1])
            raise wrong_value(
                f"{{value}} cannot be used: {reason}", "name a readable file of PEM certificates"
            ) from None
    return value


def _readable(value: str | None, mark: bytes, what: str) -> str | None:
    if value is None:
        return None
    right = f"name a readable PEM file with the {what}"
    try:
        content = _content(value)
    except (OSError, ValueError) as error:
        raise wrong_value(f"{{value}} cannot be used: {error.args[-1]}", right) from None
    if mark not in content:
        raise wrong_value(f"{{value}} cannot be used: it holds no PEM {what}", right)
    return os.fspath(value)


Authorities = Annotated[str | None, AfterValidator(_authorities)]
CertificateFile = Annotated[str | None, AfterValidator(lambda value: _readable(value, _CERTIFICATE, "certificate"))]
KeyFile = Annotated[str | None, AfterValidator(lambda value: _readable(value, _KEY, "private key"))]
