"""Typed views of network policies, with the field names of networking.k8s.io/v1 and of network-policy-api
v0.2.0 (policy.networking.k8s.io/v1alpha2), as `nsk8s.api.types` has those of the other kinds.
"""

from __future__ import annotations

from nsk8s.api.types import IntOrString, LabelSelector, ObjectMeta, Struct


class IPBlock(Struct, frozen=True, rename={"except_": "except"}):
    cidr: str = ""
    except_: tuple[str, ...] = ()


class NetworkPolicyPeer(Struct, frozen=True):
    podSelector: LabelSelector | None = None
    namespaceSelector: LabelSelector | None = None
    ipBlock: IPBlock | None = None


class NetworkPolicyPort(Struct, frozen=True):
    protocol: str = "TCP"
    port: IntOrString | None = None
    endPort: int | None = None


class NetworkPolicyRule(Struct, frozen=True, rename={"from_": "from"}):
    """For ingress (`from`) or egress (`to`)."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    from_: tuple[NetworkPolicyPeer, ...] = ()
    to: tuple[NetworkPolicyPeer, ...] = ()


class NetworkPolicySpec(Struct, frozen=True):
    podSelector: LabelSelector = LabelSelector()
    ingress: tuple[NetworkPolicyRule, ...] = ()
    egress: tuple[NetworkPolicyRule, ...] = ()
    policyTypes: tuple[str, ...] = ()


class NetworkPolicy(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: NetworkPolicySpec = NetworkPolicySpec()


class NamespacedPod(Struct, frozen=True):
    namespaceSelector: LabelSelector = LabelSelector()
    podSelector: LabelSelector = LabelSelector()


class ClusterNetworkPolicyPeer(Struct, frozen=True):
    """A peer, or the subject of a policy."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None
    networks: tuple[str, ...] | None = None


class PortRange(Struct, frozen=True):
    start: int = 0
    end: int = 0


class DestinationPort(Struct, frozen=True):
    number: int = 0
    range: PortRange | None = None


class ProtocolPort(Struct, frozen=True):
    destinationPort: DestinationPort | None = None


class ClusterNetworkPolicyProtocol(Struct, frozen=True):
    tcp: ProtocolPort | None = None
    udp: ProtocolPort | None = None
    sctp: ProtocolPort | None = None


class ClusterNetworkPolicyRule(Struct, frozen=True, rename={"from_": "from"}):
    """For ingress (`from`) or egress (`to`)."""

    name: str = ""
    action: str = ""
    from_: tuple[ClusterNetworkPolicyPeer, ...] = ()
    to: tuple[ClusterNetworkPolicyPeer, ...] = ()
    protocols: tuple[ClusterNetworkPolicyProtocol, ...] = ()


class ClusterNetworkPolicySpec(Struct, frozen=True):
    tier: str = ""
    priority: int = 0
    subject: ClusterNetworkPolicyPeer = ClusterNetworkPolicyPeer()
    ingress: tuple[ClusterNetworkPolicyRule, ...] = ()
    egress: tuple[ClusterNetworkPolicyRule, ...] = ()


class ClusterNetworkPolicy(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ClusterNetworkPolicySpec = ClusterNetworkPolicySpec()
