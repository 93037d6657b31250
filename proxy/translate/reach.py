"""How near an address is: what an upstream's URLs may lead to is nowhere nearer than the upstream itself.

Whoever answers for a service on the internet, or puts words into its mouth, must not have the gateway look around in
its own network: at the metadata of the machine, which hold credentials, or at what listens on loopback alone. Pure.
"""

from enum import IntEnum
from ipaddress import IPv6Address, ip_address
from typing import Final

from proxy.config.places import is_ip

_METADATA: Final = frozenset(("100.100.100.200", "fd00:ec2::254"))
"""Of Alibaba Cloud's and, over IPv6, of Amazon's machines; all others' are link-local, 169.254.169.254 mostly."""


class Reach(IntEnum):
    """From afar to near."""

    WORLD = 0
    NETWORK = 1
    """Private and shared addresses, loopback: whatever is routed nowhere else."""
    MACHINE = 2
    """Link-local addresses and those of metadata."""


def reach_of(address: str) -> Reach:
    """Of an IP address as a text. What is none tells nothing, and counts as far."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return Reach.WORLD
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_link_local or str(parsed) in _METADATA:
        return Reach.MACHINE
    return Reach.WORLD if parsed.is_global else Reach.NETWORK


def reach_of_host(host: str) -> Reach:
    """Of a host that somebody else looks up, the egress proxy. Numbers that resolvers take for an address (0x7f.1,
    2130706433) count as the nearest: nobody writes them in good faith."""
    last = host.lower().rstrip(".").rpartition(".")[2]
    if last == "localhost":
        return Reach.NETWORK
    reach = reach_of(host)
    if reach is Reach.WORLD and ":" not in host and (last.isdigit() or last.startswith("0x")):
        return Reach.WORLD if is_ip(host) else Reach.MACHINE
    return reach
