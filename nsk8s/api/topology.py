"""The shape of a cluster, resolved: every default filled in, every network assigned.

`Topology` is what `cluster.read` makes of the user's Cluster document and what all other rooms build
on. Networks are text in CIDR form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from nsk8s.api.types import Taint

KUBERNETES = "1.33"
"""The version of Kubernetes whose API is served, and that ``/version`` tells unless the user chooses."""


@dataclass(frozen=True, slots=True)
class NodeTopology:
    """A node: `role` is ``control-plane`` or ``worker``, `address` its InternalIP on the underlay."""

    name: str
    role: str
    address: str
    pod_cidr: str
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientTopology:
    """A namespace outside the cluster, on the underlay."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class KubeProxy:
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


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole cluster, as `spec` of the Cluster document says it."""

    name: str
    nodes: tuple[NodeTopology, ...]
    clients: tuple[ClientTopology, ...] = ()
    pod_cidr: str = "10.244.0.0/16"
    service_cidr: str = "10.96.0.0/16"
    node_cidr: str = "172.18.0.0/24"
    network: str = "vxlan"
    proxy_mode: str = "iptables"
    kube_proxy: KubeProxy = KubeProxy()
    host_access: bool = False
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    kubernetes_version: str = KUBERNETES
    legacy_apis: bool = False

    def node(self, name: str) -> NodeTopology:
        """The node called `name`; KeyError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
