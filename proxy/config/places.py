"""Where things are: the addresses, hosts, paths and folders of the configuration file, as pydantic types like `values`.

A base_url is taken apart here once for all; what its path may end with is the provider's to say.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from proxy.config.complaints import wrong_value
from proxy.forwarded import network_of
from proxy.protocols import PROTOCOLS, SCENARIOS, operations
from proxy.sockets import parse_address

_DOMAIN: Final = re.compile(
    r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_HOST: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
"""Of 253 characters at most. The dot at the end is that of a name that is not searched for in a cluster's domains."""
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([1-9][0-9]{0,4}))?")
"""As browsers write it (RFC 6454 §6.1): in lower case."""
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_VERSION: Final = re.compile(r"/v[0-9]{1,3}[a-z]{0,8}(?:/openai)?$")
"""Google's ends with /v1beta/openai, DeepInfra's with /v1/openai."""
SUFFIXES: Final = {"openai": ("/v1",), "vllm": ("/v1",), "anthropic": ("/v1",), "dashscope": ("/api/v1",)}
"""Protocol → what SDKs write at the end of a base URL for it, and its paths bring along."""
_PATHS_OF_CALLS: Final = sorted(
    {
        operation.path.removeprefix("/api").removeprefix("/v1")
        for scenario in SCENARIOS
        for protocol in PROTOCOLS
        for operation in operations(scenario, protocol)
        if not operation.below  # there are services of which all is below /models
    },
    key=len,
    reverse=True,
)
"""Longest first, and without the version, which some providers write otherwise."""


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
    versioned: bool
    """It has a version of its own at its end (`/api/paas/v4`, `/v1beta/openai`)."""


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
    if port == 0 or not is_host(host):
        right += "; a name in ASCII (xn--…), each part between its dots with 1 to 63 characters"
        raise wrong_value("the URL has no usable host and port", right)
    path = url.path.rstrip("/")
    if not _PATH.fullmatch(path) or _has_dots(path):
        raise wrong_value(
            "the path of the URL is not usable", "write it percent-encoded, without empty or dot segments"
        )
    for call in _PATHS_OF_CALLS:
        if path.endswith(call):
            raise wrong_value(f"the URL ends with the path of one call, {call}", "leave that out: each request adds it")
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
        versioned=_VERSION.search(path) is not None,
    )


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
    return host == "localhost" or (is_ip(host) and ip_address(host).is_loopback)


def is_ip(host: str) -> bool:
    """An IP address, IPv6 without brackets."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_host(host: str) -> bool:
    """An IP address (IPv6 without brackets), or a name that can be looked up."""
    return is_ip(host) if ":" in host else len(host) <= 254 and _HOST.fullmatch(host) is not None


def _has_dots(path: str) -> bool:
    return any(segment.lower().replace("%2e", ".") in (".", "..") for segment in path.split("/"))


def _port_alone(value: Any) -> Any:
    if type(value) is int and 0 <= value <= 65535:
        raise wrong_value("{value} is only a port", f"write the address too: 127.0.0.1:{value}")
    return value


def _listen(value: str) -> str:
    try:
        usable = is_host(parse_address(value)[0])
    except ValueError:
        usable = False
    if not usable:
        right = "write HOST:PORT, such as 127.0.0.1:8080, and IPv6 in brackets, [::1]:8080"
        raise wrong_value("{value} is no address to listen on", right)
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


def _base_url(value: str) -> str:
    parse_base_url(value, ())
    return value


def _spool_dir(value: str) -> str:
    """Whether anything can be written there is the machine's state, not the file's: see `spool_fault`."""
    if not value or "\0" in value:
        raise wrong_value("{value} is no folder", "name a folder that is writable or can be made")
    return value


def _file(value: str) -> str:
    if not value or "\0" in value:
        raise wrong_value("{value} is no file", "name a readable file")
    return value


def _network(value: str) -> str:
    try:
        network_of(value)
    except ValueError as error:
        right = "write an address or a network: 192.0.2.7, 10.0.0.0/8, fd00::/8"
        if "host bits" in str(error):
            right = f"write the network: {ip_network(value, strict=False)}"
        raise wrong_value("{value} is no network", right) from None
    return value


def _origin(value: str) -> str:
    found = _ORIGIN.fullmatch(value)
    if value != "*" and (found is None or int(found[3] or 1) > 65535 or not is_host(found[2].strip("[]"))):
        right = "write scheme, host and port as browsers do, in lower case and without a path: https://app.example.com"
        raise wrong_value("{value} is no origin", right)
    if found is not None and (found[1], found[3]) in (("http", "80"), ("https", "443")):
        raise wrong_value("{value} is never sent", f"browsers leave the usual port out: {value.rpartition(':')[0]}")
    return value


File = Annotated[str, AfterValidator(_file)]
Network = Annotated[str, AfterValidator(_network)]
Origin = Annotated[str, AfterValidator(_origin)]
Listen = Annotated[str, BeforeValidator(_port_alone), AfterValidator(_listen)]
Domain = Annotated[str, AfterValidator(_domain)]
BasePath = Annotated[str, AfterValidator(_base_path)]
Url = Annotated[str, AfterValidator(_base_url)]
SpoolDir = Annotated[str, AfterValidator(_spool_dir)]
