"""Network policies → a table of nft(8) for each node that has pods which a policy selects.

    table inet nsk8s-policy
      chain egress   hook forward: established and related packets pass, then the chain of the pod that sends
      chain ingress  the same for the pod that a packet is for
      set pods-…     the addresses of the pods that one selector selects, shared by all rules that name it
      set ports-…    where pods have a port of one name

Both chains stand after the DNAT of Services and before their masquerading, and see what is bridged on a node
as well (net.bridge.bridge-nf-call-iptables). A packet of a node to or from its own pods is never forwarded,
so it never meets them. Pods that the same policies select share a chain: it asks the Admin tier, then what
isolates the pod, then the Baseline tier. Nothing here grows with the pairs of pods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from nsk8s.api.families import Family
from nsk8s.api.policytypes import ClusterNetworkPolicy, NetworkPolicy
from nsk8s.api.types import Labels, Pod
from nsk8s.dataplane.policyrules import ADDRESS, IP, Compiled, Direction, compiled, pods_set, ports_set
from nsk8s.dataplane.selections import Changes, Member, Named, PodKey, Scope, Selections, rows, short
from nsk8s.linux.nftables import EMPTY, PLAIN, Chain, Element, Hook, Set, Table, Tables, tables

TABLE = ("inet", "nsk8s-policy")
"""Family and name."""
COMMENT = 120
"""Characters that nft(8) keeps of a comment, at least."""
NAME = 200
"""Characters of a chain's name; the kernel takes 255."""

_DIRECTIONS: tuple[Direction, Direction] = ("egress", "ingress")
_PRIORITY: Mapping[Direction, int] = {"egress": -5, "ingress": -4}
"""Before kube-proxy's filter chains, whatever it writes them with."""
_OWN_ADDRESS: Mapping[Direction, str] = {"egress": "saddr", "ingress": "daddr"}
_ESTABLISHED = "ct state established,related accept"
_NEIGHBOURS = (
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, "
    "nd-redirect } accept"
)
"""What IPv6 has in the place of ARP, which is no policy's business."""

Policies = tuple[Compiled, ...]


class _Node(Struct):
    """What was last made for a node, and what that looks into."""

    made: Tables
    scopes: frozenset[Scope]
    ports: frozenset[Named]


class PolicyRules:
    """The policy tables of all `nodes` (by name) of a cluster with `families`. What has not changed between
    calls is the same object, and costs next to nothing."""

    def __init__(self, nodes: Sequence[str], families: Sequence[Family]) -> None:
        self._nodes = tuple(nodes)
        self._families = tuple(families)
        self._selections = Selections()
        self._compiled: dict[tuple[str, str], Compiled] = {}
        self._tables: dict[str, _Node] = {}
        self._groups: dict[tuple[Direction, Policies], tuple[str, dict[str, Chain]]] = {}
        self._sets: dict[str, Set] = {}

    def tables(
        self,
        policies: Sequence[NetworkPolicy],
        cluster_policies: Sequence[ClusterNetworkPolicy],
        namespaces: Mapping[str, Labels],
        pods: Sequence[Pod],
    ) -> dict[str, Tables]:
        """The tables by node; none where no policy selects a pod. `pods` are those of the pod network, with
        their nodes and addresses; the order of all these does not matter."""
        if not policies and not cluster_policies:
            if self._compiled:
                self.__init__(self._nodes, self._families)  # type: ignore[misc]  # nothing is left to remember
            return dict.fromkeys(self._nodes, EMPTY)
        renewed = self._compile([*policies, *cluster_policies])
        scopes = {scope for one in self._compiled.values() for scope in (one.subject, *one.scopes)}
        changes = self._selections.refresh(scopes, namespaces, pods)
        for scope in changes.scopes:
            for of in self._families:
                self._sets.pop(pods_set(scope, of), None)
        for name in changes.ports:
            for of in self._families:
                self._sets.pop(ports_set(name, of), None)
        by_node: dict[str, dict[PodKey, Member]] = {}
        for key, member in self._selections.members.items():
            by_node.setdefault(member.pod.spec.nodeName, {})[key] = member
        subjects: dict[Scope, list[Compiled]] = {}
        for one in self._compiled.values():
            subjects.setdefault(one.subject, []).append(one)
        for node in self._nodes:
            last = self._tables.get(node)
            moved = changes.moved.get(node, ())
            if renewed or last is None or node in changes.nodes or not subjects.keys().isdisjoint(moved):
                self._tables[node] = self._node(by_node.get(node, {}), subjects, last)
            else:
                self._tables[node] = self._with_new_sets(last, changes)
        return {node: self._tables[node].made for node in self._nodes}

    def _compile(self, policies: Sequence[NetworkPolicy | ClusterNetworkPolicy]) -> bool:
        """Whether any policy is another one now."""
        before, self._compiled = self._compiled, {}
        for policy in policies:
            key = (policy.metadata.namespace, policy.metadata.name)
            last = before.get(key)
            self._compiled[key] = last if last and last.policy is policy else compiled(policy, self._families)
        if renewed := before != self._compiled:
            left = set(self._compiled.values())
            self._groups = {key: made for key, made in self._groups.items() if left.issuperset(key[1])}
        return renewed

    # --- one node -------------------------------------------------------------------------------------

    def _node(
        self, members: Mapping[PodKey, Member], subjects: Mapping[Scope, list[Compiled]], last: _Node | None
    ) -> _Node:
        chains: dict[str, Chain] = {}
        sets: dict[str, Set] = {}
        used: dict[Compiled, None] = {}
        bases = []
        for direction in _DIRECTIONS:
            entries: dict[PodKey, str] = {}
            for key, member in sorted(members.items()):
                about = [
                    one
                    for scope in member.scopes
                    for one in subjects.get(scope, ())
                    if one.rules(direction) is not None
                ]
                if about:
                    group = tuple(sorted(about, key=_order))
                    entries[key], made = self._group(direction, group)
                    chains |= made
                    used |= dict.fromkeys(group)
            if entries:
                bases.append(self._base(direction, entries, members, sets))
        if not bases:
            return _Node(EMPTY, frozenset(), frozenset())
        scopes = frozenset(scope for one in used for scope in one.scopes)
        ports = frozenset(name for one in used for name in one.ports)
        for of in self._families:
            for scope in sorted(scopes, key=lambda scope: scope.name):
                one = self._pods(scope, of)
                sets[one.name] = one
            for name in sorted(ports):
                one = self._named(name, of)
                sets[one.name] = one
        ordered = {chain.name: chain for chain in bases} | dict(sorted(chains.items()))
        table = Table("inet", TABLE[1], chains=ordered, sets=sets)
        whole = tables(table)
        return _Node(last.made if last and last.made == whole else whole, scopes, ports)

    def _with_new_sets(self, last: _Node, changes: Changes) -> _Node:
        """The same chains, and the sets they look into as they are now."""
        new = [self._pods(scope, of) for scope in changes.scopes & last.scopes for of in self._families]
        new += [self._named(name, of) for name in changes.ports & last.ports for of in self._families]
        if not new:
            return last
        table = last.made[TABLE]
        sets = {**table.sets, **{one.name: one for one in new}}
        return replace(last, made=tables(replace(table, sets=sets)))

    def _base(
        self,
        direction: Direction,
        entries: Mapping[PodKey, str],
        members: Mapping[PodKey, Member],
        sets: dict[str, Set],
    ) -> Chain:
        """The base chain of a direction, and its maps from the addresses of pods to their chains."""
        rules = [_ESTABLISHED]
        if 6 in self._families:
            rules.append(_NEIGHBOURS)
        for of in self._families:
            name = f"{direction}-{IP[of]}"
            elements = {
                address: Element(f"goto {entries[member.key]}")
                for address, member in rows({key: members[key] for key in entries}, of)
            }
            sets[name] = Set(name, ADDRESS[of], "verdict", elements=elements)
            rules.append(f"{IP[of]} {_OWN_ADDRESS[direction]} vmap @{name}")
        return Chain(direction, tuple(rules), Hook("filter", "forward", _PRIORITY[direction]))

    def _group(self, direction: Direction, group: Policies) -> tuple[str, dict[str, Chain]]:
        """The chain of the pods that these policies select, by name, and all chains that it leads to."""
        known = self._groups.get((direction, group))
        if known is not None:
            return known
        made: dict[str, Chain] = {}
        jumps: list[str] = []

        def add(name: str, rules: tuple[str, ...]) -> None:
            made[name] = Chain(name, rules)

        def tier(name: str) -> None:
            members = [one for one in group if one.tier == name]
            if members:
                chain = f"{direction}-{name.lower()}-{_digest(members)}"
                add(chain, tuple(rule for one in members for rule in one.rules(direction) or ()))
                jumps.append(f"jump {chain}")

        tier("Admin")
        isolating = [one for one in group if not one.tier]
        for one in isolating:
            chain = f"{direction}-{short(one.name)}-{one.name}"[:NAME]
            add(chain, one.rules(direction) or ())
            jumps.append(f"jump {chain}")
        if isolating:
            jumps.append('drop comment "isolated, and no rule accepts it"')
        else:
            tier("Baseline")
        name = f"{direction}-{_digest(group)}"
        add(name, tuple(jumps))
        self._groups[direction, group] = name, made
        return name, made

    # --- sets -----------------------------------------------------------------------------------------

    def _pods(self, scope: Scope, of: Family) -> Set:
        name = pods_set(scope, of)
        if name not in self._sets:
            members = self._selections.of_scope[scope]
            elements = {address: PLAIN for address, _ in rows(members, of)}
            self._sets[name] = Set(name, ADDRESS[of], comment=str(scope)[:COMMENT], elements=elements)
        return self._sets[name]

    def _named(self, called: Named, of: Family) -> Set:
        name, (port_name, protocol) = ports_set(called, of), called
        if name not in self._sets:
            members = self._selections.of_name.get(called, {})
            elements = {
                f"{address} . {protocol.lower()} . {port}": PLAIN
                for address, member in rows(members, of)
                for port in member.ports[called]
            }
            key = f"{ADDRESS[of]} . inet_proto . inet_service"
            self._sets[name] = Set(name, key, comment=f"port {port_name}/{protocol}", elements=elements)
        return self._sets[name]


def _order(one: Compiled) -> tuple[str, int, str]:
    """Admin before Baseline; within a tier by priority, and by name where that leaves it open."""
    return one.tier, one.priority, one.name


def _digest(group: Sequence[Compiled]) -> str:
    return short(" ".join(f"{one.tier}/{one.name}" for one in group))
