"""The world of the network policy truth tables, and the policies that are tried in it: three namespaces x, y
and z with three pods a, b and c each, which serve TCP and UDP on 80 and 81 under names.

The cases are our own, along the lines along which such policies vary: whom they select, which peers, which
ports, in which direction, how several of them agree or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

Obj = dict[str, Any]
Addresses = Mapping[str, str]
"""Address by pod, ``x/a``."""
Case = Callable[[Addresses], list[Obj]]

NAMESPACES, NAMES = ("x", "y", "z"), ("a", "b", "c")
PODS = [f"{namespace}/{name}" for namespace in NAMESPACES for name in NAMES]
PROTOCOLS, PORTS = ("TCP", "UDP"), (80, 81)
CELLS = [(s, t, p, n) for s in PODS for t in PODS for p in PROTOCOLS for n in PORTS]
"""Source, target, protocol, port: the whole table."""


def namespaces() -> list[Obj]:
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n, "labels": {"ns": n}}}
        for n in NAMESPACES
    ]


def pod(name: str, node: str, **more: Any) -> Obj:  # noqa: ANN401  # fields of a manifest
    """A pod of the world, on a node."""
    namespace, _, short = name.partition("/")
    ports = [
        {"name": f"serve-{n}-{p.lower()}", "containerPort": n, "protocol": p}
        for p in PROTOCOLS
        for n in PORTS
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": short, "namespace": namespace, "labels": {"pod": short}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "serve", "image": "example/serve:1", "ports": ports}],
            **more,
        },
    }


def world(nodes: Sequence[str]) -> list[Obj]:
    """All of it, the pods spread over `nodes`: every pair of namespaces meets on one node and across two."""
    return [*namespaces(), *(pod(name, nodes[i % len(nodes)]) for i, name in enumerate(PODS))]


def policy(
    name: str,
    subject: Obj | None = None,
    *,
    namespace: str = "x",
    types: Sequence[str] = (),
    ingress: list[Obj] | None = None,
    egress: list[Obj] | None = None,
) -> Obj:
    """A NetworkPolicy, about x/a unless it is said whom; `types` are its policyTypes."""
    body: Obj = {"podSelector": labels(pod="a") if subject is None else subject}
    given: Obj = {"policyTypes": list(types) or None, "ingress": ingress, "egress": egress}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": body | {field: value for field, value in given.items() if value is not None},
    }


def one_way(direction: str, rules: list[Obj], subject: Obj | None = None) -> Case:
    """A NetworkPolicy for ``ingress`` or ``egress`` alone."""
    if direction == "ingress":
        return _fixed(policy("p", subject, types=["Ingress"], ingress=rules))
    return _fixed(policy("p", subject, types=["Egress"], egress=rules))


def labels(**wanted: str) -> Obj:
    return {"matchLabels": wanted}


def where(key: str, operator: str, *values: str) -> Obj:
    return {
        "matchExpressions": [
            {"key": key, "operator": operator, **({"values": list(values)} if values else {})}
        ]
    }


def network(address: str, length: int) -> str:
    """The network of that length around an address; of an IPv6 one the length is what it would be in IPv4,
    /16 for all pods and /24 for a node's."""
    if ":" in address:
        length = {16: 56, 24: 64}[length]
    return str(ip_network(f"{address}/{length}", strict=False))


def alone(address: str) -> str:
    """The network of one address."""
    return str(ip_network(address))


def anywhere(address: str) -> str:
    """Every address of its family."""
    return "::/0" if ":" in address else "0.0.0.0/0"


# --- what varies ------------------------------------------------------------------------------------

POD, NS = "podSelector", "namespaceSelector"
PEERS: dict[str, Obj] = {
    "all pods here": {POD: {}},
    "pod b here": {POD: labels(pod="b")},
    "pods b, c here": {POD: where("pod", "In", "b", "c")},
    "pods not b here": {POD: where("pod", "NotIn", "b")},
    "pods without tier here": {POD: where("tier", "DoesNotExist")},
    "pods with pod here": {POD: where("pod", "Exists")},
    "nobody here": {POD: labels(pod="q")},
    "all namespaces": {NS: {}},
    "namespace y": {NS: labels(ns="y")},
    "namespaces y, z": {NS: where("ns", "In", "y", "z")},
    "namespaces not y": {NS: where("ns", "NotIn", "y")},
    "namespace y by its name": {NS: labels(**{"kubernetes.io/metadata.name": "y"})},
    "no namespace": {NS: where("ns", "DoesNotExist")},
    "pod b anywhere": {NS: {}, POD: labels(pod="b")},
    "all pods of y": {NS: labels(ns="y"), POD: {}},
    "pod c of y": {NS: labels(ns="y"), POD: labels(pod="c")},
    "pods not a of not x": {NS: where("ns", "NotIn", "x"), POD: where("pod", "NotIn", "a")},
    "pods of y, by two requirements": {
        NS: {"matchLabels": {"ns": "y"}, "matchExpressions": [{"key": "ns", "operator": "Exists"}]},
        POD: {"matchLabels": {"pod": "c"}, **where("pod", "NotIn", "a")},
    },
}  # fmt: skip
PAIRED = ("pod b here", "namespace y", "pod c of y", "pod b anywhere", "namespaces not y")

BLOCKS: dict[str, Callable[[Addresses], Obj]] = {
    "everything": lambda ips: {"cidr": anywhere(ips["x/a"])},
    "everything but the pods": lambda ips: {
        "cidr": anywhere(ips["x/a"]), "except": [network(ips["x/a"], 16)]
    },
    "one node's pods": lambda ips: {"cidr": network(ips["y/b"], 24)},
    "all pods but one node's": lambda ips: {
        "cidr": network(ips["y/b"], 16), "except": [network(ips["y/b"], 24)]
    },
    "one pod": lambda ips: {"cidr": alone(ips["y/b"])},
    "a node's pods but one": lambda ips: {
        "cidr": network(ips["y/b"], 24), "except": [alone(ips["y/b"])]
    },
    "all pods but two": lambda ips: {
        "cidr": network(ips["x/a"], 16), "except": [alone(ips["y/b"]), alone(ips["z/c"])]
    },
    "elsewhere": lambda _: {"cidr": "192.0.2.0/24"},
}  # fmt: skip

PORT_LISTS: dict[str, list[Obj]] = {
    "80": [{"port": 80}],
    "81": [{"port": 81, "protocol": "TCP"}],
    "80/UDP": [{"port": 80, "protocol": "UDP"}],
    "82": [{"port": 82}],
    "80 by name": [{"port": "serve-80-tcp"}],
    "81/UDP by name": [{"port": "serve-81-udp", "protocol": "UDP"}],
    "80/UDP's name for TCP": [{"port": "serve-80-udp", "protocol": "TCP"}],
    "unknown name": [{"port": "nothing"}],
    "TCP": [{"protocol": "TCP"}],
    "UDP": [{"protocol": "UDP"}],
    "SCTP": [{"protocol": "SCTP"}],
    "80-81": [{"port": 80, "endPort": 81}],
    "79-80/UDP": [{"port": 79, "endPort": 80, "protocol": "UDP"}],
    "81-81": [{"port": 81, "endPort": 81}],
    "80 and 81/UDP": [{"port": 80}, {"port": 81, "protocol": "UDP"}],
    "name and number": [{"port": "serve-80-tcp"}, {"port": 80, "protocol": "UDP"}],
    "TCP and 80/UDP by name": [{"protocol": "TCP"}, {"port": "serve-80-udp", "protocol": "UDP"}],
}

DIRECTIONS = (("ingress", "from"), ("egress", "to"))


def _fixed(*policies: Obj) -> Case:
    return lambda _: list(policies)


def _of_block(direction: str, side: str, block: Callable[[Addresses], Obj]) -> Case:
    return lambda ips: one_way(direction, [{side: [{"ipBlock": block(ips)}]}])(ips)


def _single() -> Iterator[tuple[str, Case]]:
    for where_, side in DIRECTIONS:
        for name, peer in PEERS.items():
            yield f"{where_} {side} {name}", one_way(where_, [{side: [peer]}])


def _blocks() -> Iterator[tuple[str, Case]]:
    for where_, side in DIRECTIONS:
        for name, block in BLOCKS.items():
            yield f"{where_} {side} addresses: {name}", _of_block(where_, side, block)


def _double() -> Iterator[tuple[str, Case]]:
    for where_, side in DIRECTIONS:
        for one, other in itertools.combinations(PAIRED, 2):
            peers = [PEERS[one], PEERS[other]]
            yield (
                f"{where_} {side} {one} or {other}",
                one_way(where_, [{side: peers}]),
            )


def _ports() -> Iterator[tuple[str, Case]]:
    for where_, side in DIRECTIONS:
        for name, ports in PORT_LISTS.items():
            yield (
                f"{where_} of anybody on {name}",
                one_way(where_, [{"ports": ports}]),
            )
            yield (
                f"{where_} {side} pod c of y or b here on {name}",
                one_way(where_, [{"ports": ports, side: [PEERS["pod c of y"], PEERS["pod b here"]]}]),
            )


def _targets() -> Iterator[tuple[str, Case]]:
    for name, subject in (
        ("all of x", {}),
        ("b and c of x", where("pod", "In", "b", "c")),
        ("all but a of x", where("pod", "NotIn", "a")),
        ("nobody", labels(pod="q")),
    ):
        for where_, side in DIRECTIONS:
            yield f"{where_} of {name}", one_way(where_, [{side: [PEERS["namespaces y, z"]]}], subject)
    for namespace in ("y", "z"):
        yield f"both directions of all of {namespace}", _fixed(
            policy(
                "p", {}, namespace=namespace, types=["Ingress", "Egress"],
                ingress=[{"from": [{POD: {}}]}], egress=[{"to": [{NS: labels(ns="x")}]}],
            )
        )  # fmt: skip


def _rules() -> Iterator[tuple[str, Case]]:
    both = ["Ingress", "Egress"]
    yield "default deny ingress", _fixed(policy("p", {}, types=["Ingress"]))
    yield "default deny egress", _fixed(policy("p", {}, types=["Egress"]))
    yield "default deny both", _fixed(policy("p", {}, types=both))
    yield "no types, no rules", _fixed(policy("p", {}))
    yield "no types, egress rules", _fixed(policy("p", {}, egress=[{"ports": [{"port": 80}]}]))
    yield "no types, ingress rules", _fixed(policy("p", {}, ingress=[{}]))
    yield "empty lists", _fixed(policy("p", {}, types=both, ingress=[], egress=[]))
    yield "allow all ingress", _fixed(policy("p", {}, types=["Ingress"], ingress=[{}]))
    yield "allow all egress", _fixed(policy("p", {}, types=["Egress"], egress=[{}]))
    yield "allow all both", _fixed(policy("p", {}, types=both, ingress=[{}], egress=[{}]))
    yield "empty from and ports", _fixed(policy("p", types=["Ingress"], ingress=[{"from": [], "ports": []}]))
    yield (
        "rules of a type that it is not about",
        _fixed(policy("p", types=["Egress"], ingress=[{}], egress=[{"ports": [{"port": 81}]}])),
    )
    yield (
        "two rules, each its port",
        _fixed(
            policy(
                "p",
                types=["Ingress"],
                ingress=[
                    {"from": [PEERS["pod b here"]], "ports": [{"port": 80}]},
                    {
                        "from": [PEERS["namespace y"]],
                        "ports": [{"port": 81}, {"port": 81, "protocol": "UDP"}],
                    },
                ],
            )
        ),
    )
    yield (
        "three rules out",
        _fixed(
            policy(
                "p",
                types=["Egress"],
                egress=[
                    {"to": [PEERS["pod b here"]], "ports": [{"port": "serve-80-tcp"}]},
                    {"to": [PEERS["namespace y"]], "ports": [{"protocol": "UDP"}]},
                    {"to": [PEERS["pod c of y"]]},
                ],
            )
        ),
    )


def _conflicts() -> Iterator[tuple[str, Case]]:
    deny_in, deny_out = policy("deny-in", {}, types=["Ingress"]), policy("deny-out", {}, types=["Egress"])
    allow_in = policy("allow-in", types=["Ingress"], ingress=[{}])
    allow_out = policy("allow-out", types=["Egress"], egress=[{}])
    from_b = policy("from-b", types=["Ingress"], ingress=[{"from": [PEERS["pod b here"]]}])
    from_y = policy(
        "from-y", types=["Ingress"], ingress=[{"from": [PEERS["namespace y"]], "ports": [{"port": 80}]}]
    )
    to_y = policy("to-y", types=["Egress"], egress=[{"to": [PEERS["namespace y"]]}])
    on_81 = policy("on-81", {}, types=["Ingress"], ingress=[{"ports": [{"port": 81}]}])
    y_denies = policy("y-denies", {}, namespace="y", types=["Ingress"])
    y_allows = policy(
        "y-allows",
        {},
        namespace="y",
        types=["Ingress"],
        ingress=[{"from": [{NS: labels(ns="x"), POD: labels(pod="a")}]}],
    )
    z_mute = policy("z-mute", {}, namespace="z", types=["Egress"])
    groups = {
        "deny in, allow one in": (deny_in, allow_in),
        "deny out, allow one out": (deny_out, allow_out),
        "deny in and out": (deny_in, deny_out),
        "deny both, allow one both": (deny_in, deny_out, allow_in, allow_out),
        "two peers by two policies": (from_b, from_y),
        "a peer and a port by two policies": (from_b, on_81),
        "three that add up": (from_b, from_y, on_81),
        "allow in, deny out": (allow_in, deny_out),
        "allow out, the other denies": (to_y, y_denies),
        "allow out, the other denies and allows": (to_y, y_denies, y_allows),
        "deny out, the other allows": (deny_out, y_allows),
        "nobody of z speaks": (z_mute, from_b),
        "everything at once": (deny_in, deny_out, from_b, to_y, y_allows, z_mute, on_81),
        "the same twice": (from_b, {**from_b, "metadata": {**from_b["metadata"], "name": "again"}}),
    }
    for name, policies in groups.items():
        yield f"together: {name}", _fixed(*policies)


def by_row() -> dict[int, dict[str, Case]]:
    """All cases by their names, under the rows of the reference table that they are about."""
    return {
        73: dict(_rules()),
        74: {**dict(_targets()), **dict(_single()), **dict(_double())},
        75: dict(_blocks()),
        76: dict(_ports()),
        77: dict(_conflicts()),
    }


def cases() -> dict[str, Case]:
    """All cases by their names."""
    found: dict[str, Case] = {}
    for row in by_row().values():
        assert not found.keys() & row.keys()
        found |= row
    return found


# --- ClusterNetworkPolicies -------------------------------------------------------------------------


def tiered(name: str, tier: str, priority: int, subject: Obj, **rules: list[Obj]) -> Obj:
    """A ClusterNetworkPolicy."""
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": tier, "priority": priority, "subject": subject, **rules},
    }


def _tcp(number: int, last: int = 0) -> list[Obj]:
    port = {"range": {"start": number, "end": last}} if last else {"number": number}
    return [{"tcp": {"destinationPort": port}}]


def rule(action: str, side: str, *peers: Obj, protocols: list[Obj] | None = None) -> Obj:
    """One of its rules."""
    return {"action": action, side: list(peers), **({"protocols": protocols} if protocols else {})}


def _networks(tier: str, subject: Obj) -> Case:
    def made(ips: Addresses) -> list[Obj]:
        rules = [
            rule("Pass", "to", {"networks": [alone(ips["y/b"])]}),
            rule("Accept", "to", {"networks": [network(ips["z/c"], 24)]}, protocols=_tcp(80)),
            rule("Deny", "to", {"networks": ["0.0.0.0/0", "::/0"]}),
        ]
        return [tiered("p", tier, 1, subject, egress=rules)]

    return made


def cluster_cases() -> dict[str, Case]:
    """Policies of all tiers, by what they show."""
    of_x: Obj = {"namespaces": labels(ns="x")}
    everybody: Obj = {"namespaces": {}}
    a_of_x: Obj = {"pods": {"namespaceSelector": labels(ns="x"), "podSelector": labels(pod="a")}}
    y: Obj = {"namespaces": labels(ns="y")}
    b_anywhere: Obj = {"pods": {"namespaceSelector": {}, "podSelector": labels(pod="b")}}
    udp_81 = [{"udp": {"destinationPort": {"number": 81}}}]
    deny_in = policy("deny", {}, types=["Ingress"])
    allow_in = policy("allow", {}, types=["Ingress"], ingress=[{}])

    found: dict[str, Case] = {}
    for tier in ("Admin", "Baseline"):
        for action in ("Accept", "Deny", "Pass"):
            one = tiered("one", tier, 10, of_x, ingress=[rule(action, "from", y)])
            rest = tiered("rest", tier, 20, of_x, ingress=[rule("Deny", "from", everybody)])
            found[f"{tier} {action} in, then Deny"] = _fixed(one, rest)
            found[f"{tier} {action} in over a policy that denies"] = _fixed(one, deny_in)
            found[f"{tier} {action} in over a policy that allows"] = _fixed(one, allow_in)
            out = tiered("out", tier, 10, a_of_x, egress=[rule(action, "to", b_anywhere)])
            shut = tiered("shut", tier, 11, a_of_x, egress=[rule("Deny", "to", everybody)])
            found[f"{tier} {action} out, then Deny"] = _fixed(out, shut)
        found[f"{tier} ports in"] = _fixed(
            tiered(
                "p",
                tier,
                1,
                of_x,
                ingress=[rule("Deny", "from", y, b_anywhere, protocols=[*_tcp(80), *udp_81])],
            )
        )
        found[f"{tier} ports out"] = _fixed(
            tiered(
                "p",
                tier,
                1,
                of_x,
                egress=[rule("Accept", "to", y, protocols=_tcp(80, 82)), rule("Deny", "to", y, b_anywhere)],
            )
        )
        found[f"{tier} networks"] = _networks(tier, a_of_x)
        found[f"{tier} priorities"] = _fixed(
            tiered("late", tier, 100, of_x, ingress=[rule("Accept", "from", everybody)]),
            tiered(
                "early", tier, 5, of_x, ingress=[rule("Deny", "from", y), rule("Pass", "from", b_anywhere)]
            ),
        )
        found[f"{tier} rules in order"] = _fixed(
            tiered(
                "p",
                tier,
                0,
                of_x,
                ingress=[
                    rule("Deny", "from", y, protocols=_tcp(80)),
                    rule("Accept", "from", y),
                    rule("Deny", "from", everybody),
                ],
            )
        )
    found["Admin passes, the policy denies, Baseline accepts"] = _fixed(
        tiered("a", "Admin", 1, of_x, ingress=[rule("Pass", "from", everybody)]),
        deny_in,
        tiered("b", "Baseline", 1, of_x, ingress=[rule("Accept", "from", everybody)]),
    )
    found["Admin passes, no policy, Baseline denies"] = _fixed(
        tiered("a", "Admin", 1, of_x, ingress=[rule("Pass", "from", everybody)]),
        tiered("b", "Baseline", 1, of_x, ingress=[rule("Deny", "from", b_anywhere)]),
    )
    return found
