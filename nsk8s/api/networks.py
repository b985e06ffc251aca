"""The networks of a Cluster document: what is written, checked, and given out where nothing is.

Every network is one CIDR, or one of each family with the primary family first, as a list or as kubeadm
writes it: ``10.244.0.0/16,fd00:10:244::/56``. All networks have the same families in the same order. A node's
podCIDR and address may name one family only; the other one is given out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from nsk8s.api.families import NAMES, Family, family
from nsk8s.api.findings import Findings
from nsk8s.errors import Problem

Network = IPv4Network | IPv6Network
Networks = Mapping[Family, Network]
"""A network of each family, the primary family first."""

DEFAULTS: Mapping[str, Mapping[Family, str]] = {
    "podCIDR": {4: "10.244.0.0/16", 6: "fd00:10:244::/56"},
    "serviceCIDR": {4: "10.96.0.0/16", 6: "fd00:10:96::/112"},
    "nodeCIDR": {4: "172.18.0.0/24", 6: "fc00:f853:ccd:e793::/64"},
}
"""What is not given, in the families that the rest has; those of IPv6 as kind chooses them."""
NODE_PREFIX: Mapping[Family, int] = {4: 24, 6: 64}
"""Length of the prefix of a node's podCIDR that is not given (kube-controller-manager's defaults)."""
SMALLEST_POD_PREFIX: Mapping[Family, int] = {4: 30, 6: 126}
"""A node's podCIDR must hold the bridge's address and one pod's."""
SERVICE_PREFIXES: Mapping[Family, range] = {4: range(12, 29), 6: range(108, 125)}
"""kube-apiserver allows no more than 20 bits of service addresses; below 4 the addresses of the API (.1) and
of DNS (.10) do not both fit."""
_UNUSABLE: Mapping[Family, tuple[Network, ...]] = {
    4: tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))),
    6: tuple(map(IPv6Network, ("::/8", "fe80::/10", "ff00::/8"))),
}
"""This network, loopback, link-local, multicast and reserved (RFC 6890)."""


def as_texts(networks: Networks) -> tuple[str, ...]:
    """The networks in CIDR form."""
    return tuple(map(str, networks.values()))


def read(spec: Mapping[str, Any], findings: Findings) -> dict[str, Networks]:
    """The cluster's networks by field; one that is wrong is left out, with a finding."""
    given = {field: _by_family(f"spec.{field}", spec[field], findings) for field in DEFAULTS if field in spec}
    sound = len(findings.problems)
    named = {field: texts for field, texts in given.items() if texts}
    model = max(named, key=lambda field: len(named[field]), default="")
    order = tuple(named[model]) if model else (4,)
    for field, texts in named.items():
        if tuple(texts) != order:
            findings.add(
                f"spec.{field}",
                f"has {_listed(texts)}, and spec.{model} has {_listed(order)}",
                "name the same families in the same order, or leave it out",
            )
    result: dict[str, Networks] = {}
    for field, defaults in DEFAULTS.items():
        wanted = named.get(field) or {kind: (f"spec.{field}", defaults[kind]) for kind in order}
        networks = {kind: _network(*wanted[kind], findings) for kind in wanted}
        result[field] = {kind: network for kind, network in networks.items() if network is not None}
        _check_apart(field, wanted, result, findings)
    if len(findings.problems) == sound:
        _check_services(result["serviceCIDR"], findings)
    return result


def each(path: str, value: object, findings: Findings) -> None:
    """Check a field that holds networks, one of each family at most."""
    for where, text in _by_family(path, value, findings).values():
        _network(where, text, findings)


def _listed(kinds: Iterable[Family]) -> str:
    return " and ".join(NAMES[kind] for kind in kinds)


def _by_family(path: str, value: object, findings: Findings) -> dict[Family, tuple[str, str]]:
    """What a field says, by family: where and what."""
    found: dict[Family, tuple[str, str]] = {}
    if isinstance(value, str):
        pieces = [(path, piece.strip()) for piece in value.split(",")]
    else:
        listed = value if isinstance(value, list) else []
        pieces = [(f"{path}[{i}]", piece) for i, piece in enumerate(listed) if isinstance(piece, str)]
    for where, text in pieces:
        if (kind := family(text)) in found:
            what = f'"{text}" is of the same family as "{found[kind][1]}"'
            findings.add(where, what, "one of each family, IPv4 and IPv6")
        else:
            found[kind] = where, text
    return found


def _network(path: str, cidr: str, findings: Findings) -> Network | None:
    """A network that hosts can use, or None with a finding."""
    kind = family(cidr)
    try:
        network = ip_network(cidr, strict=False)
        exact = ip_address(cidr.partition("/")[0]) == network.network_address
    except ValueError as error:
        hint = "numbers up to 255, prefix up to 32" if kind == 4 else "such as fd00:10:244::/56"
        findings.add(path, f'"{cidr}" is not an {NAMES[kind]} network: {error}', hint)
        return None
    if not exact:
        findings.add(path, f'"{cidr}" has bits set behind its prefix', f'write "{network}"')
        return None
    for unusable in _UNUSABLE[kind]:
        if network.overlaps(unusable):
            findings.add(path, f'"{cidr}" meets {unusable}, which is reserved', "choose a private network")
            return None
    return network


def _check_apart(
    field: str, wanted: Mapping[Family, tuple[str, str]], networks: Mapping[str, Networks], findings: Findings
) -> None:
    """No two networks of the cluster share an address."""
    for kind, network in networks[field].items():
        for other, taken in networks.items():
            theirs = taken.get(kind)
            if other != field and theirs is not None and network.overlaps(theirs):
                what = f'"{network}" overlaps {other} "{theirs}"'
                findings.add(wanted[kind][0], what, "choose one outside it")


def _check_services(services: Networks, findings: Findings) -> None:
    for kind, network in services.items():
        allowed = SERVICE_PREFIXES[kind]
        if network.prefixlen not in allowed:
            size = "large" if network.prefixlen < allowed.start else "small"
            hint = f"take a prefix from /{allowed.start} to /{allowed.stop - 1}"
            findings.add("spec.serviceCIDR", f'"{network}" is too {size}', hint)


# --- addresses on the underlay ------------------------------------------------------------------------


def addresses(
    nodes: Sequence[Any], clients: Sequence[Any], underlay: Networks, findings: Findings
) -> list[tuple[str, ...]]:
    """Every node's and then every client's addresses on the underlay."""
    given = [
        (f"spec.{field}[{i}].address", _given(f"spec.{field}[{i}]", item, "address", underlay, findings))
        for field, items in (("nodes", nodes), ("clients", clients))
        for i, item in enumerate(items)
    ]
    of_each = [_addresses(given, kind, network, findings) for kind, network in underlay.items()]
    return list(zip(*of_each, strict=False))


Given = Sequence[tuple[str, Mapping[Family, tuple[str, str]]]]


def _given(
    path: str, item: object, field: str, networks: Networks, findings: Findings
) -> dict[Family, tuple[str, str]]:
    """What a node or client says of `field`, by family; only of the families that the cluster has."""
    value = item.get(field) if isinstance(item, dict) else None
    found = _by_family(f"{path}.{field}", value, findings) if value else {}
    for kind, (where, text) in found.items():
        if networks and kind not in networks:
            hint = (
                f'leave it out, or add an {NAMES[kind]} network to podCIDR ("10.244.0.0/16,fd00:10:244::/56")'
            )
            findings.add(where, f'"{text}" is {NAMES[kind]}, and the cluster has none', hint)
    return found


def _addresses(given: Given, kind: Family, underlay: Network, findings: Findings) -> list[str]:
    """The addresses of one family."""
    first, last = int(underlay.network_address) + 1, int(underlay.broadcast_address) - 1
    taken: dict[int, str] = {}
    result: list[int | None] = []
    for owner, texts in given:
        path, text = texts.get(kind, (owner, ""))
        address = _address(path, text, underlay, findings) if text else None
        if address is not None and address in taken:
            findings.duplicate(path, text, f"{taken[address]} has that address; choose another")
        elif address is not None:
            taken[address] = path
        result.append(address)
    room = last - first - 1
    if len(result) > room:
        findings.add(
            "spec.nodeCIDR",
            f'"{underlay}" is too small: {max(room, 0)} addresses for {len(result)} nodes and clients',
            "the first address is the fabric's and the last the host's; take a shorter prefix",
        )
        return []
    free = (a for a in range(first + 1, last) if a not in taken)
    make = IPv4Address if kind == 4 else IPv6Address
    return [str(make(next(free) if address is None else address)) for address in result]


def _address(path: str, text: str, underlay: Network, findings: Findings) -> int | None:
    try:
        address = ip_address(text)
    except ValueError as error:
        findings.add(path, f'"{text}" is not an {NAMES[family(text)]} address: {error}')
        return None
    number = int(address)
    first, last = int(underlay.network_address) + 1, int(underlay.broadcast_address) - 1
    if address not in underlay:
        findings.add(path, f'"{text}" is outside nodeCIDR "{underlay}"', "choose one inside, or leave it out")
    elif number in (first, last):
        whose = "the fabric's" if number == first else "the host's"
        findings.add(path, f'"{text}" is {whose} own address on the underlay', "choose another")
    elif not first < number < last:
        findings.add(path, f'"{text}" is no host\'s address in "{underlay}"', "choose another")
    else:
        return number
    return None


# --- the nodes' shares of the pods' network -------------------------------------------------------------


def pod_cidrs(nodes: Sequence[Any], pods: Networks, findings: Findings) -> list[tuple[str, ...]]:
    """Every node's podCIDRs."""
    given = [_given(f"spec.nodes[{i}]", node, "podCIDR", pods, findings) for i, node in enumerate(nodes)]
    of_each = [_pod_cidrs(given, kind, network, findings) for kind, network in pods.items()]
    return list(zip(*of_each, strict=False))


def _pod_cidrs(
    nodes: Sequence[Mapping[Family, tuple[str, str]]], kind: Family, pods: Network, findings: Findings
) -> list[str]:
    """The podCIDRs of one family."""
    given: dict[int, Network] = {}
    paths: dict[int, str] = {}
    for i, texts in enumerate(nodes):
        if kind not in texts:
            continue
        path, text = texts[kind]
        network = _network(path, text, findings)
        if network is None:
            continue
        if network.network_address not in pods or network.prefixlen < pods.prefixlen:
            findings.add(
                path,
                f'"{network}" is outside the cluster\'s podCIDR "{pods}"',
                "choose one inside it, or widen spec.podCIDR",
            )
        elif network.prefixlen > SMALLEST_POD_PREFIX[kind]:
            hint = f"take a /{SMALLEST_POD_PREFIX[kind]} or shorter"
            findings.add(path, f'"{network}" is too small for any pod', hint)
        else:
            given[i], paths[i] = network, path
    findings.problems += _overlaps(given, paths)
    missing = sum(kind not in texts for texts in nodes)
    free = _free_networks(pods, given.values(), NODE_PREFIX[kind])
    found = [str(network) for _, network in zip(range(missing), free, strict=False)]
    if len(found) < missing:
        findings.add(
            "spec.podCIDR",
            f'"{pods}" is too small: it has room for {len(found)} more /{NODE_PREFIX[kind]}, '
            f"and {missing} of {len(nodes)} nodes need one",
            "take a shorter prefix, or give nodes smaller podCIDRs of their own",
        )
        return []
    rest = iter(found)
    return [str(given[i]) if i in given else next(rest, "") for i in range(len(nodes))]


def _overlaps(given: Mapping[int, Network], paths: Mapping[int, str]) -> Iterator[Problem]:
    """In address order a network that overlaps any other overlaps the widest-reaching one before it."""
    reach: tuple[int, Network] | None = None
    ends = {i: (int(n.network_address), int(n.broadcast_address)) for i, n in given.items()}
    for i, network in sorted(given.items(), key=lambda item: (ends[item[0]][0], item[1].prefixlen)):
        if reach is not None and network.overlaps(reach[1]):
            later, earlier = max(i, reach[0]), min(i, reach[0])
            what = f'"{given[later]}" overlaps "{given[earlier]}" of spec.nodes[{earlier}]'
            yield Problem(paths[later], what, "choose another")
        if reach is None or ends[i][1] > ends[reach[0]][1]:
            reach = (i, network)


def _free_networks(pods: Network, taken: Iterable[Network], prefix: int) -> Iterator[Network]:
    """The networks of `pods` with the length `prefix` that none of `taken` overlaps, in order."""
    if pods.prefixlen > prefix:
        return
    step = 1 << (pods.max_prefixlen - prefix)
    blocked = {
        number
        for network in taken
        for number in range(int(network.network_address) // step, int(network.broadcast_address) // step + 1)
    }
    start = int(pods.network_address) // step
    for number in range(start, start + (1 << (prefix - pods.prefixlen))):
        if number not in blocked:
            yield ip_network((number * step, prefix))
