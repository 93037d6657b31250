"""Whose address a proxy in front of the gateway tells: `X-Forwarded-For` of a request, a PROXY header of a connection.

Either is believed only where it comes from an address in `trusted_proxies`; anybody can write such a line. The header
of a connection is haproxy's PROXY protocol ("The PROXY protocol, versions 1 & 2", §2.1 and §2.2): one line of text, or
a binary block, before the first byte of TLS or HTTP. Pure: bytes in, facts out.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

ADDRESS_CHARACTERS_MAX: Final = 64
"""Of an address with its brackets and port: an IPv6 address has 45 at most."""
HOPS_MAX: Final = 32
"""Trusted proxies in a row that are looked behind, 2 µs each. Three are many."""
KNOWN_MAX: Final = 4096
"""Addresses whose answer is kept; clients choose what they write, so it is bounded (0.5 MiB)."""
HEADER_BYTES_MAX: Final = 4096
"""Of a PROXY header. Addresses have 52 bytes with version 2; a certificate's name or a connection id beside them adds
some hundreds."""

_TEXT: Final = b"PROXY "
_BINARY: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_TEXT_BYTES_MAX: Final = 107
"""§2.1: of a line, its CRLF included."""
_LINE: Final = re.compile(rb"PROXY (?:TCP([46]) ([^ ]+) ([^ ]+) ([0-9]{1,5}) ([0-9]{1,5})|UNKNOWN(?: [^\r\n]*)?)\r\n")
_TCP4: Final = 0x11
_TCP6: Final = 0x21

Peer = tuple[str, int]
"""Address and port."""
Address = IPv4Address | IPv6Address


class ProxyHeaderError(ValueError):
    """A PROXY header is malformed; the text says how, and repeats nothing of it."""


def network_of(text: str) -> IPv4Network | IPv6Network:
    """An address or a network as one writes it: 10.0.0.0/8, 192.0.2.7, fd00::/8. Raises ValueError."""
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


class Proxies:
    """The addresses of `trusted_proxies`."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: dict[tuple[int, int], set[int]] = {}  # version, host bits → network bits: a look-up for each
        for text in networks:
            network = network_of(text)
            shift = network.max_prefixlen - network.prefixlen
            self._networks.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
        self._known: dict[str, bool] = {}

    def trusts(self, address: str) -> bool:
        """Is it one of theirs? An IPv4 address in IPv6's clothes (`::ffff:192.0.2.7`) is that address."""
        known = self._known.get(address)
        if known is None:
            parsed = _address(address)
            known = parsed is not None and self._has(parsed)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[address] = known
        return known

    def _has(self, address: Address) -> bool:
        version, value = address.version, int(address)
        return any(value >> shift in nets for (of, shift), nets in self._networks.items() if of == version)

    def client_of(self, peer: str | None, lines: Sequence[str]) -> str | None:
        """Who asks: the last address of all `X-Forwarded-For` lines that is not a trusted proxy's.

        `peer` (whoever connected, or whom its PROXY header named) where that is not trusted. What is no address ends
        the walk at the address behind it: what stands before was written by nobody who is known.
        """
        if peer is None or not lines or not self.trusts(peer):
            return peer
        found = peer
        hops = ",".join(lines).rsplit(",", HOPS_MAX)
        for hop in reversed(hops[-HOPS_MAX:]):
            address = _address(hop)
            if address is None:
                break
            found = str(address)
            if not self._has(address):
                break
        return found


def _address(text: str) -> Address | None:
    """An address as proxies write it: with or without port, IPv6 in brackets where there is one."""
    text = text.strip(" \t")
    if len(text) > ADDRESS_CHARACTERS_MAX:
        return None
    if text.startswith("["):
        text, _, port = text[1:].partition("]")
        if port and not (port[0] == ":" and _is_port(port[1:])):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(port):
            return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


class ProxyHeader:
    """Reads the PROXY header at the beginning of one connection, if there is one. Holds at most HEADER_BYTES_MAX and
    the piece that goes beyond."""

    __slots__ = ("_held", "absent", "peer")

    def __init__(self) -> None:
        self._held = b""
        self.absent = False
        """The connection begins with something else."""
        self.peer: Peer | None = None
        """Whom it names; None where it names nobody (a proxy's own health check, a Unix socket)."""

    def take(self, data: bytes) -> bytes | None:
        """What stands behind the header once it is whole; all that came once it is sure that there is none.

        None where more must come. Raises ProxyHeaderError.
        """
        held = self._held + data
        if held.startswith(_BINARY):
            end = self._binary(held)
        elif held.startswith(_TEXT):
            end = self._text(held)
        elif _BINARY.startswith(held) or _TEXT.startswith(held):
            end = 0
        else:
            self.absent = True
            return held
        if not end:
            self._held = held
            return None
        self._held = b""
        return held[end:]

    def _text(self, held: bytes) -> int:
        """§2.1. Where the header ends; 0: not yet."""
        end = held.find(b"\n", 0, _TEXT_BYTES_MAX) + 1
        if not end:
            if len(held) >= _TEXT_BYTES_MAX:
                raise ProxyHeaderError("the line is too long")
            return 0
        line = _LINE.fullmatch(held, 0, end)
        if line is None:
            raise ProxyHeaderError("the line is no PROXY TCP4, TCP6 or UNKNOWN")
        version, source, destination, port, other = line.groups()
        if version is not None:
            addresses = [_strict(text, int(version)) for text in (source, destination)]
            if max(int(port), int(other)) > 65535:
                raise ProxyHeaderError("a port is none")
            self.peer = addresses[0], int(port)
        return end

    def _binary(self, held: bytes) -> int:
        """§2.2, likewise. What stands behind the addresses (TLVs) is skipped."""
        if len(held) < 16:
            return 0
        command, kind, length = held[12], held[13], int.from_bytes(held[14:16], "big")
        if command not in (0x20, 0x21):
            raise ProxyHeaderError("the version or the command is unknown")
        end = 16 + length
        if end > HEADER_BYTES_MAX:
            raise ProxyHeaderError(f"it is larger than {HEADER_BYTES_MAX} bytes")
        if len(held) < end:
            return 0
        size = {_TCP4: 4, _TCP6: 16}.get(kind, 0) if command == 0x21 else 0
        if size:
            if length < 2 * size + 4:
                raise ProxyHeaderError("it is too short for its addresses")
            port = int.from_bytes(held[16 + 2 * size : 18 + 2 * size], "big")
            self.peer = _shown(ip_address(held[16 : 16 + size])), port
        return end


def _strict(text: bytes, version: int) -> str:
    """An address of the text form, which has no other spelling than its own family's."""
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        raise ProxyHeaderError("an address is none") from None
    if address.version != version:
        raise ProxyHeaderError("an address is of the other family")
    return _shown(address)


def _shown(address: Address) -> str:
    return str((address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address)
