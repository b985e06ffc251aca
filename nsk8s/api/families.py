"""The two families of IP addresses, 4 and 6.

Whatever has addresses has them in a tuple with at most one of each family, the primary one first:
status.podIPs, spec.clusterIPs, and what a `Topology` says of nodes and networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

Family = Literal[4, 6]

NAMES: Mapping[Family, str] = {4: "IPv4", 6: "IPv6"}
"""As spec.ipFamilies of a Service and addressType of an EndpointSlice call them."""
BY_NAME: Mapping[str, Family] = {name: family for family, name in NAMES.items()}
BITS: Mapping[Family, int] = {4: 32, 6: 128}
"""Length of an address."""


def family(address: str) -> Family:
    """The family of an address or network."""
    return 6 if ":" in address else 4


def families(addresses: Iterable[str]) -> tuple[Family, ...]:
    """The family of each."""
    return tuple(family(address) for address in addresses)


def of_family(addresses: Iterable[str], wanted: Family) -> str:
    """The one of the `wanted` family among `addresses` or networks; empty if there is none."""
    return next((address for address in addresses if family(address) == wanted), "")
