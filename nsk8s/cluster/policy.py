"""What network policies mean: whether a connection is allowed, and who decided that.

    decide(World(namespaces, pods, policies, cluster_policies), source, target, "TCP", 80) -> Verdict

From the objects alone (networking.k8s.io/v1, and policy.networking.k8s.io/v1alpha2 of network-policy-api
v0.2.0); it shares nothing with what writes rules, so that each can be held against the other.

A connection needs the leave of its source's egress and of its target's ingress; replies need none. In each
direction the Admin tier of ClusterNetworkPolicies is asked first, then NetworkPolicies, then the Baseline
tier; what nobody decides is allowed. A pod and its own node always reach each other, and a pod its own
address. Pods on their node's network are nobody's subject or peer: they are their node. All this is about the
pod that a Service leads to, after kube-proxy has chosen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Literal

from msgspec import Struct

from nsk8s.api.policytypes import (
    ClusterNetworkPolicy,
    ClusterNetworkPolicyPeer,
    ClusterNetworkPolicyProtocol,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicyRule,
)
from nsk8s.api.selectors import matches
from nsk8s.api.types import Labels, LabelSelector, Pod

POLICIES = "networkpolicies.networking.k8s.io"
CLUSTER_POLICIES = "clusternetworkpolicies.policy.networking.k8s.io"

Direction = Literal["Ingress", "Egress"]
Policy = NetworkPolicy | ClusterNetworkPolicy


class World(Struct, frozen=True):
    """The objects that policies are about; `namespaces` are their labels by name."""

    namespaces: Mapping[str, Labels]
    pods: Sequence[Pod] = ()
    policies: Sequence[NetworkPolicy] = ()
    cluster_policies: Sequence[ClusterNetworkPolicy] = ()


class Party(Struct, frozen=True):
    """One end of a connection: a pod on the pod network, a node, or somebody outside (neither). `address` is
    the one that the other end sees; `node` the node, or the pod's."""

    name: str
    address: str
    node: str = ""
    pod: Pod | None = None


def pod_party(pod: Pod, address: str = "") -> Party:
    """A pod, by its first address unless another one is given; on its node's network it is the node."""
    name = f"{pod.metadata.namespace}/{pod.metadata.name}"
    own = None if pod.spec.hostNetwork else pod
    return Party(f"pod {name}", address or pod.status.podIP, pod.spec.nodeName, own)


class Decision(Struct, frozen=True):
    """What one direction says. `policy` decided, by its rule at `path` (``spec.ingress[0]``) and the part of
    that at `peer` (``spec.ingress[0].from[1]``); without a rule it isolates, and nothing allows. Without a
    policy nobody has anything against it."""

    direction: Direction
    allowed: bool
    why: str
    policy: Policy | None = None
    path: str = ""
    peer: str = ""


class Verdict(Struct, frozen=True):
    """Whether the connection is allowed: `by` is what decided, the first denial or the last leave."""

    allowed: bool
    by: Decision
    egress: Decision
    ingress: Decision


def decide(
    world: World,
    source: Party,
    target: Party,
    protocol: str,
    port: int = 0,
    *,
    through_service: bool = False,
) -> Verdict:
    """The verdict on a new connection. `protocol` is ``TCP``, ``UDP``, ``SCTP``, or any other, which only
    rules about no protocol mean; `port` is the one that the target listens on. A pod that reaches itself
    `through_service` is judged like anybody."""
    flow = _Flow(world, source, target, protocol, port, through_service)
    egress, ingress = flow.decision("Egress"), flow.decision("Ingress")
    if not egress.allowed:
        return Verdict(False, egress, egress, ingress)
    by = ingress if not ingress.allowed or ingress.policy is not None else egress
    return Verdict(ingress.allowed, by, egress, ingress)


class _Flow(Struct, frozen=True):
    world: World
    source: Party
    target: Party
    protocol: str
    port: int
    through_service: bool

    def decision(self, direction: Direction) -> Decision:
        """What the policies of the source (Egress) or of the target (Ingress) say."""
        own, other = (self.source, self.target) if direction == "Egress" else (self.target, self.source)
        if own.pod is None:
            return Decision(
                direction, True, f"{own.name} is no pod of the pod network: no policy is about it"
            )
        if own.address == other.address and own.address and not self.through_service:
            return Decision(direction, True, "a pod always reaches its own address")
        if other.pod is None and other.node == own.node and other.node:
            return Decision(direction, True, f"a pod and its own node ({own.node}) always reach each other")
        found = (
            self._tier("Admin", own.pod, other, direction)
            or self._policies(own.pod, other, direction)
            or self._tier("Baseline", own.pod, other, direction)
        )
        return found or Decision(direction, True, f"no policy isolates {own.name} for {direction.lower()}")

    # --- networking.k8s.io/v1 -----------------------------------------------------------------------

    def _policies(self, own: Pod, other: Party, direction: Direction) -> Decision | None:
        isolating = [p for p in self.world.policies if direction in _types(p) and _selects(p, own)]
        if not isolating:
            return None
        for policy in sorted(isolating, key=lambda p: p.metadata.name):
            spec = policy.spec
            for i, rule in enumerate(spec.ingress if direction == "Ingress" else spec.egress):
                path = f"spec.{direction.lower()}[{i}]"
                peer = self._allowed_by(policy, path, rule, other, direction)
                if peer is not None:
                    return Decision(direction, True, f"by {_named(policy)}", policy, path, peer)
        names = ", ".join(_named(p) for p in isolating)
        why = f"no rule of {names} allows it, and what selects a pod isolates it"
        return Decision(direction, False, why, isolating[0])

    def _allowed_by(
        self, policy: NetworkPolicy, path: str, rule: NetworkPolicyRule, other: Party, direction: Direction
    ) -> str | None:
        """The path of what in the rule matches; None if nothing does."""
        side, peers = ("from", rule.from_) if direction == "Ingress" else ("to", rule.to)
        if not peers:
            return path if self._port(rule.ports, resolvable=True) else None
        for i, peer in enumerate(peers):
            # A name is a name of a container's port: whoever is only an address has none.
            resolvable = direction == "Ingress" or peer.ipBlock is None
            if self._is(peer, policy.metadata.namespace, other) and self._port(
                rule.ports, resolvable=resolvable
            ):
                return f"{path}.{side}[{i}]"
        return None

    def _is(self, peer: NetworkPolicyPeer, namespace: str, other: Party) -> bool:
        block = peer.ipBlock
        if block is not None:
            return _within(other.address, block.cidr) and not any(
                _within(other.address, part) for part in block.except_
            )
        if other.pod is None:
            return False
        meta = other.pod.metadata
        if peer.namespaceSelector is None:
            there = meta.namespace == namespace
        else:
            there = matches(peer.namespaceSelector, self._labels(meta.namespace))
        return there and (peer.podSelector is None or matches(peer.podSelector, meta.labels))

    def _port(self, ports: Sequence[NetworkPolicyPort], *, resolvable: bool) -> bool:
        return not ports or any(self._one_port(port, resolvable=resolvable) for port in ports)

    def _one_port(self, wanted: NetworkPolicyPort, *, resolvable: bool) -> bool:
        if wanted.protocol != self.protocol:
            return False
        match wanted.port:
            case None:
                return True
            case int(first):
                return first <= self.port <= (wanted.endPort or first)
            case name:
                return resolvable and self.port in _called(self.target.pod, name, self.protocol)

    # --- policy.networking.k8s.io/v1alpha2 ----------------------------------------------------------

    def _tier(self, tier: str, own: Pod, other: Party, direction: Direction) -> Decision | None:
        """What the first rule that matches says; None if it passes on, or there is none."""
        members = [
            p for p in self.world.cluster_policies if p.spec.tier == tier and self._among(p.spec.subject, own)
        ]
        for policy in sorted(members, key=lambda p: (p.spec.priority, p.metadata.name)):
            spec = policy.spec
            for i, rule in enumerate(spec.ingress if direction == "Ingress" else spec.egress):
                side, peers = ("from", rule.from_) if direction == "Ingress" else ("to", rule.to)
                for j, peer in enumerate(peers):
                    if not (self._among(peer, other.pod, other.address) and self._spoken(rule.protocols)):
                        continue
                    if rule.action == "Pass":
                        return None
                    allowed, path = rule.action == "Accept", f"spec.{direction.lower()}[{i}]"
                    why = f"by {_named(policy)}"
                    return Decision(direction, allowed, why, policy, path, f"{path}.{side}[{j}]")
        return None

    def _among(self, peer: ClusterNetworkPolicyPeer, pod: Pod | None, address: str = "") -> bool:
        if peer.networks is not None:
            return any(_within(address, network) for network in peer.networks)
        if pod is None or pod.spec.hostNetwork:
            return False
        labels = self._labels(pod.metadata.namespace)
        if peer.namespaces is not None:
            return matches(peer.namespaces, labels)
        return peer.pods is not None and (
            matches(peer.pods.namespaceSelector, labels)
            and matches(peer.pods.podSelector, pod.metadata.labels)
        )

    def _spoken(self, protocols: Sequence[ClusterNetworkPolicyProtocol]) -> bool:
        if not protocols:
            return True
        for wanted in protocols:
            said = {"TCP": wanted.tcp, "UDP": wanted.udp, "SCTP": wanted.sctp}.get(self.protocol)
            if said is None:
                continue
            port = said.destinationPort
            if port is None:
                return True
            between = port.range is not None and port.range.start <= self.port <= port.range.end
            if between or (port.range is None and port.number == self.port):
                return True
        return False

    def _labels(self, namespace: str) -> Labels:
        return dict(self.world.namespaces.get(namespace, {}))


def _types(policy: NetworkPolicy) -> tuple[str, ...]:
    """What a policy is about; left out, Ingress, and Egress if it has rules for that."""
    spec = policy.spec
    return spec.policyTypes or (("Ingress", "Egress") if spec.egress else ("Ingress",))


def _selects(policy: NetworkPolicy, pod: Pod) -> bool:
    selector: LabelSelector = policy.spec.podSelector
    there = policy.metadata.namespace == pod.metadata.namespace and not pod.spec.hostNetwork
    return there and matches(selector, pod.metadata.labels)


def _named(policy: Policy) -> str:
    if isinstance(policy, ClusterNetworkPolicy):
        return f"ClusterNetworkPolicy {policy.metadata.name} ({policy.spec.tier}, {policy.spec.priority})"
    return f"NetworkPolicy {policy.metadata.namespace}/{policy.metadata.name}"


def _called(pod: Pod | None, name: str, protocol: str) -> set[int]:
    """The ports of a pod that have this name; sidecars are containers as well."""
    if pod is None:
        return set()
    sidecars = (c for c in pod.spec.initContainers if c.restartPolicy == "Always")
    return {
        port.containerPort
        for container in (*pod.spec.containers, *sidecars)
        for port in container.ports
        if port.name == name and port.protocol == protocol
    }


_network = lru_cache(4096)(ip_network)
_address = lru_cache(4096)(ip_address)


def _within(address: str, cidr: str) -> bool:
    if not address:
        return False
    network, ip = _network(cidr, strict=False), _address(address)
    return ip.version == network.version and ip in network
