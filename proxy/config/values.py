"""The values of the configuration file that are more than a number or a text: each with its check, as pydantic types.

A check raises `wrong_value(wrong, right)` and never repeats a secret. What the environment supplies is text; where a
number or a switch is due, and only then, it is read as one (`Supplied`). In the file itself `"4"` is not a number.
"""

import os
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from proxy.config.complaints import Supplied, near_miss, wrong_value
from proxy.sockets import parse_address

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DOMAIN: Final = re.compile(
    r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")
_DIGEST_KEY: Final = re.compile(r"sha256:[0-9a-fA-F]{64}")

OWN_HEADERS: Final = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
"""Header lines that the gateway writes, or that belong to one connection: not for `headers` of a service."""

_T = TypeVar("_T")

COUNT_MAX: Final = 2**63 - 1
"""Of every number in the file: what is larger is a slip, and would not fit where numbers are kept."""

PROCESSES_MAX: Final = 1024
"""Workers or observers of one host: above the cores of any machine this was tried on."""

MS_MAX: Final = 86_400_000
"""Of every time in the file: a day. What waits longer than that waits for nobody."""

MODEL_CHARACTERS_MAX: Final = 256
"""Of a model's name or a pattern for names. The longest seen, a fine-tuned model's with its organisation, has 90; a
pattern is tried on names that anybody may send, at the cost of its length times the name's."""

TARGETS_MAX: Final = 1000
"""In one list of targets: patterns are tried one after the other, and a thousand of them take 0.1 ms of a request."""

WEIGHT_MAX: Final = 1_000_000
"""Shares as fine as one in a million; what is larger is a slip."""

ATTEMPTS_MAX: Final = 64
"""Of one request: each is held in its record and is a span. More keys or services than that are tried by no one
request."""


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """An upstream's address, taken apart."""

    scheme: str
    host: str
    """IPv6 without brackets."""
    port: int
    host_header: bytes
    path_prefix: str
    """Without the part that the protocols' paths bring along, without trailing slash."""


def later(default: Any, feature: str) -> AfterValidator:
    """Refuse any value but the default: the key is in the contract, its feature is not built yet."""

    def refuse(value: Any) -> Any:
        if value != default:
            raise wrong_value(
                f"{feature} is not built yet", f"leave the key out, or give it its default {_yaml(default)}"
            )
        return value

    return AfterValidator(refuse)


def one_of(built: Iterable[str], planned: Iterable[str] = ()) -> AfterValidator:
    """A name out of a list; `planned` ones are known to the contract and refused as not built yet."""
    possible, known = tuple(built), (*built, *planned)

    def check(value: str) -> str:
        if value in possible:
            return value
        if value in known:
            raise wrong_value(f"{value} is not built yet", "use " + " or ".join(possible))
        raise wrong_value("{value} is unknown", near_miss(value, known))

    return AfterValidator(check)


def parse_base_url(text: str, suffixes: Iterable[str]) -> BaseUrl:
    """Take a base_url apart; of `suffixes` the longest that ends its path is removed.

    Raises the complaint of a validator for what is no http(s) URL with nothing but a path.
    """
    right = "write scheme, host and an optional path: https://api.example.com/prefix"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise wrong_value("this is no URL", right) from None
    host = url.hostname or ""
    if url.scheme not in ("http", "https"):
        raise wrong_value("the URL does not begin with http:// or https://", right)
    if "@" in url.netloc:
        raise wrong_value("the URL carries a user name or password", "put the key into api_keys")
    if "?" in text or "#" in text:
        raise wrong_value("the URL has a query or a fragment", right)
    if port == 0 or not host or not (_is_ip(host) if ":" in host else _HOST.fullmatch(host)):
        raise wrong_value("the URL has no usable host and port", right + "; a non-ASCII name as xn--…")
    path = url.path.rstrip("/")
    if not _PATH.fullmatch(path) or _has_dots(path):
        raise wrong_value(
            "the path of the URL is not usable", "write it percent-encoded, without empty or dot segments"
        )
    for suffix in sorted(suffixes, key=len, reverse=True):
        if path.endswith(suffix):
            path = path.removesuffix(suffix)
            break
    usual = 443 if url.scheme == "https" else 80
    shown_host = f"[{host}]" if ":" in host else host
    return BaseUrl(
        scheme=url.scheme,
        host=host,
        port=port or usual,
        host_header=(shown_host if port in (None, usual) else f"{shown_host}:{port}").encode("ascii"),
        path_prefix=path,
    )


def digest_of_key(key: str) -> bytes:
    """What a consumer's key is found by: the SHA-256 of a plain key, or the one that `sha256:<hex>` gives."""
    if _DIGEST_KEY.fullmatch(key):
        return bytes.fromhex(key.removeprefix("sha256:"))
    return sha256(key.encode()).digest()


def is_name(text: str) -> bool:
    """Whether a service, a consumer or a Model API may be called so."""
    return _NAME.fullmatch(text) is not None


def spool_fault(folder: str) -> str | None:
    """Why held bodies could not be written into a folder that exists or is to be made; None: they could.

    Looks at the nearest of the folder and its parents that exists.
    """
    place = os.path.abspath(folder)
    while True:
        try:
            os.stat(place)
        except FileNotFoundError:
            place = os.path.dirname(place)
        except OSError as error:
            return error.strerror
        except ValueError as error:  # a NUL in it
            return str(error)
        else:
            break
    if not os.path.isdir(place):
        return f"{place} is no folder"
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        return f"{place} is not writable"
    return None


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach an address (HOST:PORT)."""
    host, _ = parse_address(listen)
    return host == "localhost" or (_is_ip(host) and ip_address(host).is_loopback)


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _has_dots(path: str) -> bool:
    return any(segment.lower().replace("%2e", ".") in (".", "..") for segment in path.split("/"))


def _number(value: Any) -> Any:
    if isinstance(value, Supplied) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return int(value)
    return value


def _switch(value: Any) -> Any:
    if isinstance(value, Supplied) and value in ("true", "false"):
        return value == "true"
    return value


def _processes(value: Any) -> Any:
    number = _number(value)
    if value == "auto" or (type(number) is int and 1 <= number <= PROCESSES_MAX):
        return number
    raise wrong_value("{value} is not possible", f"use auto, or a number from 1 to {PROCESSES_MAX}")


def _name(value: str) -> str:
    if not is_name(value):
        raise wrong_value("{value} is no name", "use 1 to 64 letters, digits, _ and -")
    return value


def _listen(value: str) -> str:
    try:
        parse_address(value)
    except ValueError:
        right = "write HOST:PORT, such as 127.0.0.1:8080, and IPv6 in brackets, [::1]:8080"
        raise wrong_value("{value} is no address to listen on", right) from None
    return value


def _domain(value: str) -> str:
    domain = value.lower()
    if len(domain) > 253 or not _DOMAIN.fullmatch(domain):
        right = (
            "use a host name without port, such as ai.example.com or *.example.com; for any host leave the list empty"
        )
        raise wrong_value("{value} is no domain", right)
    return domain


def _base_path(value: str) -> str:
    path = value.rstrip("/")
    if not value.startswith("/") or not _PATH.fullmatch(path) or _has_dots(path):
        right = "begin it with a slash, without query, empty or dot segments: /team-a"
        raise wrong_value("{value} is no base path", right)
    if path == "/-" or path.startswith("/-/"):
        raise wrong_value("paths under /-/ are the gateway's own (probes)", "use another base path")
    return path or "/"


def _key(value: str) -> str:
    if not value:
        raise wrong_value("the key is empty", "give it, or leave it out of the list; is its variable set?")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise wrong_value("the key has characters that cannot stand in a header", "use visible ASCII characters")
    return value


def _consumer_key(value: str) -> str:
    if value.startswith("sha256:") and not _DIGEST_KEY.fullmatch(value):
        raise wrong_value("the digest is not 64 hexadecimal digits", "write sha256: and what `sha256sum` prints")
    return _key(value)


def _token(value: str) -> str:
    return _key(value) if value else ""  # ${NAME:-}, and NAME is not set


def _header_name(value: str) -> str:
    lowered = value.lower()
    if not _HEADER_NAME.fullmatch(value):
        raise wrong_value("{value} is no header name", "use letters, digits and -")
    if lowered in OWN_HEADERS or lowered.startswith("x-sluiceway-"):
        raise wrong_value(f"the gateway itself writes {lowered}", "leave it out")
    return lowered


def _header_value(value: str) -> str:
    if any(not (character == "\t" or " " <= character <= "~") for character in value):
        raise wrong_value("the value has characters that cannot stand in a header", "use one line of ASCII")
    return value.strip()


def _base_url(value: str) -> str:
    parse_base_url(value, ())
    return value


def _state(value: str) -> str:
    if value.startswith(("redis://", "rediss://")):
        raise wrong_value("state in Redis is not built yet", "use sqlite:PATH")
    if not value.startswith("sqlite:") or value.removeprefix("sqlite:").rstrip("/") in ("", "."):
        raise wrong_value("{value} is no state", "use sqlite:PATH, such as sqlite:./.sluiceway/state.db")
    return value


def _model_name(value: str) -> str:
    if not value:
        raise wrong_value("the name is empty", "give the name of a model; null leaves the caller's")
    if len(value) > MODEL_CHARACTERS_MAX or not value.isprintable():
        raise wrong_value(
            "{value} is no name of a model", f"use at most {MODEL_CHARACTERS_MAX} characters, without line breaks"
        )
    return value


def _model_pattern(value: str) -> str:
    if not value:
        raise wrong_value("the pattern is empty", "give the name of a model, with ? and * for other characters")
    return _model_name(value)


def _targets(value: list[_T]) -> list[_T]:
    if len(value) > TARGETS_MAX:
        raise wrong_value(f"the list has {len(value)} entries", f"use at most {TARGETS_MAX}; * stands for many models")
    return value


def _spool_dir(value: str) -> str:
    fault = "it is empty" if not value else spool_fault(value)
    if fault is not None:
        raise wrong_value(f"{{value}} cannot be used: {fault}", "name a folder that is writable or can be made")
    return value


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


Whole = Annotated[int, Field(ge=0, le=COUNT_MAX), BeforeValidator(_number)]
"""0, 1, 2, …"""
Positive = Annotated[int, Field(ge=1, le=COUNT_MAX), BeforeValidator(_number)]
HeadBytes = Annotated[int, Field(ge=1024, le=1_048_576), BeforeValidator(_number)]
"""Less leaves no room for a real client's headers; more only helps an attacker: others stop at 8 to 64 KiB."""
Milliseconds = Annotated[int, Field(ge=0, le=MS_MAX), BeforeValidator(_number)]
PositiveMilliseconds = Annotated[int, Field(ge=1, le=MS_MAX), BeforeValidator(_number)]
Weight = Annotated[int, Field(ge=0, le=WEIGHT_MAX), BeforeValidator(_number)]
Attempts = Annotated[int, Field(ge=1, le=ATTEMPTS_MAX), BeforeValidator(_number)]
FailureStatus = Annotated[int, Field(ge=400, le=599), BeforeValidator(_number)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Processes = Annotated[int | Literal["auto"], BeforeValidator(_processes)]
Name = Annotated[str, AfterValidator(_name)]
Listen = Annotated[str, AfterValidator(_listen)]
Domain = Annotated[str, AfterValidator(_domain)]
BasePath = Annotated[str, AfterValidator(_base_path)]
Url = Annotated[str, AfterValidator(_base_url)]
Key = Annotated[str, AfterValidator(_key)]
ConsumerKey = Annotated[str, AfterValidator(_consumer_key)]
Token = Annotated[str, BeforeValidator(lambda value: "" if value is None else value), AfterValidator(_token)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
State = Annotated[str, AfterValidator(_state)]
ModelName = Annotated[str, AfterValidator(_model_name)]
ModelPattern = Annotated[str, AfterValidator(_model_pattern)]
targets: Final = AfterValidator(_targets)
"""Of a list of targets."""
SpoolDir = Annotated[str, AfterValidator(_spool_dir)]
Authorities = Annotated[str | None, AfterValidator(_authorities)]
