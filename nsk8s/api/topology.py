"""The shape of a cluster, resolved: every default filled in, every network assigned.

`Topology` is what `cluster.read` makes of the user's Cluster document and what all other rooms build
on. Networks are text in CIDR form. Addresses and networks come in tuples with one of each family of the
cluster, in the same order everywhere, the primary family first.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct, field

from nsk8s.api.families import Family, families
from nsk8s.api.types import Taint

KUBERNETES = "1.33"
"""The version of Kubernetes whose API is served, and that ``/version`` tells unless the user chooses."""


class NodeTopology(Struct, frozen=True):
    """A node: `role` is ``control-plane`` or ``worker``, `addresses` its InternalIPs on the underlay."""

    name: str
    role: str
    addresses: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    taints: tuple[Taint, ...] = ()

    @property
    def address(self) -> str:
        """Its address of the primary family."""
        return self.addresses[0]

    @property
    def pod_cidr(self) -> str:
        """Its podCIDR of the primary family."""
        return self.pod_cidrs[0]


class ClientTopology(Struct, frozen=True):
    """A namespace outside the cluster, on the underlay."""

    name: str
    addresses: tuple[str, ...]

    @property
    def address(self) -> str:
        """Its address of the primary family."""
        return self.addresses[0]


class KubeProxy(Struct, frozen=True):
    """kube-proxy's options on all nodes, as its KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1)
    names them; `masquerade_all` is that of the proxy mode in use.

    `cluster_cidr` is None for the cluster's podCIDR, and empty for none: then pods are not told from others.
    """

    masquerade_all: bool = False
    localhost_node_ports: bool = True
    detect_local_mode: str = "ClusterCIDR"
    cluster_cidr: str | None = None
    bridge_interface: str = ""
    interface_name_prefix: str = ""
    node_port_addresses: tuple[str, ...] = ()
    tcp_be_liberal: bool = False


class DnsTopology(Struct, frozen=True):
    """Cluster DNS: how many pods answer (0: there is none), and the addresses of the servers they ask
    about names outside the cluster's zone."""

    replicas: int = 2
    upstreams: tuple[str, ...] = ()


class Topology(Struct, frozen=True):
    """A whole cluster, as `spec` of the Cluster document says it."""

    name: str
    nodes: tuple[NodeTopology, ...]
    clients: tuple[ClientTopology, ...] = ()
    pod_cidrs: tuple[str, ...] = ("10.244.0.0/16",)
    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)
    node_cidrs: tuple[str, ...] = ("172.18.0.0/24",)
    network: str = "vxlan"
    proxy_mode: str = "iptables"
    kube_proxy: KubeProxy = KubeProxy()
    host_access: bool = False
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    kubernetes_version: str = KUBERNETES
    legacy_apis: bool = False
    dns: DnsTopology = DnsTopology()

    @property
    def families(self) -> tuple[Family, ...]:
        """The families of its addresses, the primary one first."""
        return families(self.pod_cidrs)

    @property
    def pod_cidr(self) -> str:
        """The pods' network of the primary family."""
        return self.pod_cidrs[0]

    @property
    def service_cidr(self) -> str:
        """The services' network of the primary family."""
        return self.service_cidrs[0]

    @property
    def node_cidr(self) -> str:
        """The underlay's network of the primary family."""
        return self.node_cidrs[0]

    def node(self, name: str) -> NodeTopology:
        """The node called `name`; KeyError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
