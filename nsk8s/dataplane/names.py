"""The names that Kubernetes' node components derive by hashing, and the MAC addresses nsk8s derives
from IPv4 addresses so that a person can read one from the other in a capture. Who has addresses of both
families has the MAC address of the IPv4 one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from ipaddress import IPv6Address

from nsk8s.api.families import of_family

IFNAMSIZ = 15
"""Longest name of a network device (linux/if.h says 16 with the final NUL)."""

RESERVED_DEVICES = frozenset({"lo", "br0", "host", "all", "default"})
"""Names a fabric port cannot have: taken there, or taken by net.ipv4.conf's own entries."""


def service_port_name(namespace: str, service: str, port: str) -> str:
    """kube-proxy's ServicePortName as text: ``ns/name:port``, or ``ns/name`` for an unnamed port."""
    return f"{namespace}/{service}:{port}" if port else f"{namespace}/{service}"


def chain_hash(port_name: str, protocol: str, endpoint: str = "") -> str:
    """The 16 characters that end kube-proxy's chain names (SVC, SVL and EXT share one; SEP adds the
    `endpoint`, ``ip:port``). `protocol` as in the API (``TCP``). Source: pkg/proxy/iptables."""
    digest = hashlib.sha256((port_name + protocol.lower() + endpoint).encode()).digest()
    return base64.b32encode(digest[:10]).decode()


def portmap_chain(network: str, container: str) -> str:
    """The portmap plugin's chain of one container: ``CNI-DN-`` and 21 hex digits of SHA-512.
    Source: CNI plugins, pkg/utils FormatChainName (28 characters in all)."""
    return "CNI-DN-" + hashlib.sha512((network + container).encode()).hexdigest()[:21]


def sandbox_id(uid: str) -> str:
    """A container runtime's sandbox ID, 64 hex digits. A runtime draws it by lot; here it is SHA-256 of
    the pod's UID, so that compiling twice gives the same rules."""
    return hashlib.sha256(uid.encode()).hexdigest()


def pod_veth(uid: str) -> str:
    """The node's end of a pod's veth pair, ``veth`` and 8 hex digits, as the CNI bridge plugin names it."""
    return "veth" + sandbox_id(uid)[:8]


def fabric_port(name: str) -> str:
    """The fabric's end of the veth pair of the node or client `name`: its own name where a device can
    have that name, otherwise six characters of it and a hash."""
    if len(name) <= IFNAMSIZ and name not in RESERVED_DEVICES:
        return name
    return f"{name[:6]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def host_link(cluster: str) -> str:
    """The one link of hostAccess in the host's own namespace: ``nsk8s-CLUSTER``, hashed if too long."""
    name = f"nsk8s-{cluster}"
    return name if len(name) <= IFNAMSIZ else f"nsk8s-{hashlib.sha256(cluster.encode()).hexdigest()[:8]}"


def mac(prefix: str, address: str) -> str:
    """A MAC address: two octets of `prefix` (``0a:58``) and the four of the IPv4 `address`; of an IPv6
    address, four of its SHA-256."""
    if ":" in address:
        return ":".join((prefix, hashlib.sha256(address.encode()).digest()[:4].hex(":")))
    a, b, c, d = address.split(".")
    return f"{prefix}:{int(a):02x}:{int(b):02x}:{int(c):02x}:{int(d):02x}"


def naming(addresses: Sequence[str]) -> str:
    """The one of a device's addresses from which its MAC address comes: that of IPv4, if there is one."""
    return of_family(addresses, 4) or addresses[0]


def link_local(hardware: str) -> str:
    """The IPv6 link-local address that belongs to a MAC address (RFC 4291, appendix A: modified EUI-64)."""
    octets = [int(octet, 16) for octet in hardware.split(":")]
    octets[0] ^= 2
    identifier = bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]])
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + identifier))


POD_MAC = "0a:58"
"""Pods and cni0, as the CNI ip-derived scheme has it (pkg/utils/hwaddr)."""
UNDERLAY_MAC = "02:42"
"""Nodes, clients and the fabric, as Docker (and so kind) derives a container's MAC."""
VTEP_MAC = "0e:f1"
"""flannel.1; flannel draws it by lot, nsk8s takes the VTEP's overlay address."""
OUTER_MAC = "fe:58"
"""The node's end of a pod's pair: the pod's own MAC but for the first octet."""
PORT_MAC = "fe:42"
"""The fabric's end of a node's or client's pair."""
