"""hostPort, as the CNI portmap plugin's iptables backend writes it behind flannel's CNI network.

Source: CNI plugins, plugins/meta/portmap (snat on, mark bit 13, entries appended). Nothing is there on
a node where no pod has a hostPort.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nsk8s.api.families import BITS, family
from nsk8s.api.types import ContainerPort, Pod
from nsk8s.dataplane.names import portmap_chain, sandbox_id
from nsk8s.linux.values import Chain

NETWORK = "cbr0"
"""The name of the CNI network in flannel's own configuration."""

DNAT_JUMP = "-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT"
"""Appended to nat PREROUTING and OUTPUT."""
MASQ_JUMP = '-m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ'
"""Prepended to nat POSTROUTING."""

_PORTS_A_RULE = 15
"""What one multiport match can hold."""

SHARED_CHAINS = (
    Chain("CNI-HOSTPORT-MASQ", ("-m mark --mark 0x2000/0x2000 -j MASQUERADE",)),
    Chain(
        "CNI-HOSTPORT-SETMARK",
        ('-m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000',),
    ),
)


class PodPorts(NamedTuple):
    """One pod's part of its node's rules: the `entries` of CNI-HOSTPORT-DNAT and its own `chain`."""

    entries: tuple[str, ...]
    chain: Chain


def host_ports(pod: Pod) -> tuple[ContainerPort, ...]:
    """The ports of `pod` that its node forwards (none for a hostNetwork pod, which has them anyway)."""
    if pod.spec.hostNetwork:
        return ()
    return tuple(port for container in pod.spec.containers for port in container.ports if port.hostPort)


def pod_ports(pod: Pod, ports: Sequence[ContainerPort], ip: str, subnet: str) -> PodPorts:
    """The rules for `ports` of `pod` of the family of its address `ip`, in its node's podCIDR `subnet`.

    The first rules of each port mark hairpin and (IPv4 only) localhost connections for masquerading: the
    answers to those would not come back through the node. A hostIP of the other family is not for us.
    """
    kind = family(ip)
    target = f"[{ip}]" if kind == 6 else ip
    container = sandbox_id(pod.metadata.uid)
    name = portmap_chain(NETWORK, container)
    comment = f'-m comment --comment "dnat name: \\"{NETWORK}\\" id: \\"{container}\\""'
    by_protocol: dict[str, list[str]] = {}
    rules: list[str] = []
    for port in (port for port in ports if not port.hostIP or family(port.hostIP) == kind):
        protocol = port.protocol.lower()
        by_protocol.setdefault(protocol, []).append(str(port.hostPort))
        to = f"-d {port.hostIP}/{BITS[kind]} " if port.hostIP not in ("", "0.0.0.0", "::") else ""
        match = f"-p {protocol} -m {protocol} --dport {port.hostPort}"
        rules += [
            f"-s {subnet} {to}{match} -j CNI-HOSTPORT-SETMARK",
            *([f"-s 127.0.0.1/32 {to}{match} -j CNI-HOSTPORT-SETMARK"] if kind == 4 else []),
            f"{to}{match} -j DNAT --to-destination {target}:{port.containerPort}",
        ]
    entries = tuple(
        f"-p {protocol} {comment} -m multiport"
        f" --dports {','.join(numbers[at : at + _PORTS_A_RULE])} -j {name}"
        for protocol, numbers in sorted(by_protocol.items())
        for at in range(0, len(numbers), _PORTS_A_RULE)
    )
    return PodPorts(entries, Chain(name, tuple(rules)))


def chains(pods: Sequence[PodPorts]) -> tuple[Chain, ...]:
    """The nat chains of a node whose forwarded `pods` were set up in this order; none without any."""
    if not pods:
        return ()
    dnat = Chain("CNI-HOSTPORT-DNAT", tuple(entry for pod in pods for entry in pod.entries))
    return (dnat, *SHARED_CHAINS, *(pod.chain for pod in pods))
