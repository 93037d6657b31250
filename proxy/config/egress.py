"""The way out through an HTTP proxy: a service's own, or the one that the environment names for https.

A service's `egress_proxy` is a URL or `none`. Without one, HTTPS_PROXY counts for services whose base_url is https, and
NO_PROXY names hosts that are reached without it. Both names are also read in lower case, which comes first, as curl and
Python have it.
"""

from base64 import b64encode
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Annotated, Final
from urllib.parse import unquote_to_bytes, urlsplit

from pydantic import AfterValidator

from proxy.config.complaints import wrong_value
from proxy.config.places import is_host
from proxy.config.targets import Egress

NO_EGRESS: Final = "none"
"""In place of a URL: straight out, whatever the environment says."""

_RIGHT: Final = "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"


def parse_egress(text: str) -> Egress:
    """Take a proxy's URL apart. Raises the complaint of a validator, without the URL: it may hold a password."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise wrong_value("this is no URL", _RIGHT) from None
    if url.scheme != "http":
        right = f"{_RIGHT}; a proxy that is itself spoken to over TLS or SOCKS cannot be used"
        raise wrong_value("the URL does not begin with http://", right)
    host = url.hostname or ""
    if port == 0 or not is_host(host) or url.path not in ("", "/") or "?" in text or "#" in text:
        raise wrong_value("the URL has more or less than a host and a port", _RIGHT)
    return Egress(host, port or 80, _basic(url.netloc.rpartition("@")[0]) if "@" in url.netloc else None)


def egress_of(own: str | None, scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Egress | None:
    """The proxy on the way to a service, `own` being its `egress_proxy`; None: there is none."""
    if own == NO_EGRESS:
        return None
    if own is not None:
        return parse_egress(own)
    named = _named("https_proxy", environ)
    if scheme != "https" or not named or _passed_by(host, port, _named("no_proxy", environ)):
        return None
    return parse_egress(named if "://" in named else f"http://{named}")  # curl takes HOST:PORT too


def _named(name: str, environ: Mapping[str, str]) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _passed_by(host: str, port: int, exceptions: str) -> bool:
    """Whether NO_PROXY, entries with commas or spaces between, names the host."""
    host = host.lower().rstrip(".")
    return any(_is_meant(entry.lower(), host, port) for entry in exceptions.replace(",", " ").split())


def _is_meant(entry: str, host: str, port: int) -> bool:
    """`*`; a name or `.name`: that and all below it; an address; a network with its length; each but `*` and networks
    may have a port."""
    if entry == "*":
        return True
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isascii() and digits.isdigit() and (":" not in name or name.endswith("]")):
        if int(digits) != port:
            return False
        entry = name
    entry = entry.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(host)
    except ValueError:
        name = entry.removeprefix("*").removeprefix(".").rstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ip_network(entry, strict=False)
    except ValueError:
        return False


def _basic(userinfo: str) -> bytes:
    """The value of Proxy-Authorization (RFC 7617 §2), of `USER:PASSWORD` as a URL has it."""
    user, _, password = (unquote_to_bytes(part) for part in userinfo.partition(":"))
    if not user or b":" in user or any(byte < 0x20 or byte == 0x7F for byte in user + password):
        raise wrong_value("the URL's user name or password cannot be sent", f"{_RIGHT}, with %3A for a colon in one")
    return b"Basic " + b64encode(user + b":" + password)


def _egress(value: str | None) -> str | None:
    if value is not None and value != NO_EGRESS:
        if value.lower() in ("", "direct", "off", "no", "false"):
            raise wrong_value("the value is no proxy", f"{_RIGHT}, or {NO_EGRESS} for none at all")
        parse_egress(value)
    return value


EgressProxy = Annotated[str | None, AfterValidator(_egress)]
