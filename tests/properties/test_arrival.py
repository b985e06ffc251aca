"""The order of arrival never matters: whatever comes, changes and goes on the way, the network that is
desired in the end is that of a fresh cluster with the objects that are left.

Once for the compiler, which remembers what it has compiled, in every proxy mode and family; and once for all
that decides, from requests on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nsk8s.api.types import ContainerPort, Obj
from nsk8s.api.views import view as typed
from nsk8s.daemon import rehearsal
from nsk8s.daemon.loop import Loop
from nsk8s.dataplane.compiler import ClusterView, Compiler
from nsk8s.dataplane.names import pod_veth
from nsk8s.linux.text import render
from tests.flows.spelled import DUAL, spelled
from tests.flows.tables import Table
from tests.flows.views import Backed, pod, service
from tests.unit.cluster.worlds import new_store, three_nodes

# --- the compiler -----------------------------------------------------------------------------------------

ENDPOINTS = (
    "10.244.1.2",
    "10.244.1.3 terminating",
    "10.244.2.2",
    "10.244.2.3 unready",
    "10.244.2.4 terminating",
)
POLICY = st.sampled_from(["Cluster", "Local"])


@st.composite
def services(draw: st.DrawFn, number: int) -> Backed:
    """A service under the addresses that are its own, as one user or another would have it; every second one
    in IPv6."""
    external = draw(POLICY)
    balanced = draw(st.booleans())
    made = service(
        *(f"s{number}", f"10.96.0.{number}"),
        *draw(st.lists(st.sampled_from(ENDPOINTS), unique=True)),
        node_port=draw(st.sampled_from([0, 30000 + number])),
        protocol=draw(st.sampled_from(["TCP", "UDP"])),
        external_ips=draw(st.sampled_from([(), (f"198.51.101.{number}",)])),
        ingress=(f"198.51.100.{number}",) if balanced else (),
        source_ranges=draw(st.sampled_from([(), ("172.18.0.11/32",), ("172.18.0.12/32", "172.18.0.128/25")])),
        internal=draw(POLICY),
        external=external,
        health=30100 + number if balanced and external == "Local" else 0,
        affinity=draw(st.sampled_from(["None", "ClientIP"])),
    )
    return spelled(Table("", (made,), ()), 6).services[0] if number % 2 else made


@st.composite
def pods(draw: st.DrawFn, number: int) -> Any:  # noqa: ANN401
    """A pod of that address, with or without a port on its node, and labels."""
    node = 1 + number % 2
    ports = draw(st.sampled_from([(), (ContainerPort(containerPort=80, hostPort=8000 + number),)]))
    return pod(
        f"p{number}", f"10.244.{node}.{20 + number}", *ports, labels={"app": draw(st.sampled_from("ab"))}
    )


@st.composite
def policies(draw: st.DrawFn, number: int) -> Any:  # noqa: ANN401
    """A policy about one kind of pods and another."""
    chosen = {"matchLabels": {"app": draw(st.sampled_from("ab"))}}
    peer = draw(
        st.sampled_from(
            [
                {"podSelector": {"matchLabels": {"app": "a"}}},
                {"namespaceSelector": {"matchLabels": {"team": "x"}}},
                {"ipBlock": {"cidr": "172.18.0.0/24", "except": ["172.18.0.11/32"]}},
            ]
        )
    )
    rule = {"from": [peer], "ports": draw(st.sampled_from([[], [{"port": 80, "protocol": "TCP"}]]))}
    return typed(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"n{number}", "namespace": "default"},
            "spec": {
                "podSelector": chosen,
                "policyTypes": ["Ingress"],
                "ingress": draw(st.sampled_from([[], [rule]])),
            },
        }
    )


KINDS = {"service": services, "pod": pods, "policy": policies}
Step = tuple[str, int, Any]
"""What comes or changes (or goes, if it is None): a kind, which one, and the object."""


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    found: list[Step] = []
    for _ in range(draw(st.integers(1, 14))):
        kind, number = draw(st.sampled_from(sorted(KINDS))), draw(st.integers(1, 4))
        found.append((kind, number, draw(st.none() | KINDS[kind](number))))
    for team in draw(st.lists(st.sampled_from("xy"), max_size=2)):
        found.insert(draw(st.integers(0, len(found))), ("namespace", 0, {"team": team}))
    return found


def view_of(held: dict[tuple[str, int], Any]) -> ClusterView:
    """The objects in the order in which the store has them, whoever came first."""
    here = {
        kind: [held[key] for key in sorted(held) if key[0] == kind] for kind in ("service", "pod", "policy")
    }
    return ClusterView(
        here["pod"],
        [each for each, _ in here["service"]],
        [each for _, each in here["service"]],
        policies=here["policy"],
        namespaces={"default": held.get(("namespace", 0), {})},
    )


@pytest.mark.parametrize("mode", ["iptables", "nftables", "none"])
@settings(max_examples=40, deadline=None)
@given(steps=steps(), looks=st.sets(st.integers(0, 16)))
def test_a_compiler_ends_where_a_fresh_one_begins(mode: str, steps: Sequence[Step], looks: set[int]) -> None:
    topology = replace(DUAL, proxy_mode=mode)
    compiler = Compiler(topology)
    held: dict[tuple[str, int], Any] = {}
    for number, (kind, which, value) in enumerate(steps):
        if value is None:
            held.pop((kind, which), None)
        else:
            held[kind, which] = value
        if number in looks:
            compiler.compile(view_of(held))
    fresh = Compiler(topology)
    assert compiler.compile(view_of(held)) == fresh.compile(view_of(held))
    assert compiler.proxy_listeners() == fresh.proxy_listeners()
    assert compiler.udp_frontends() == fresh.udp_frontends()
    again = compiler.compile(view_of(held))
    assert all(again[name] is state for name, state in compiler.compile(view_of(held)).items())


# --- all that decides ---------------------------------------------------------------------------------------


def meta(name: str, namespace: str = "default", **more: object) -> Obj:
    return {"name": name, "namespace": namespace, **more}


def made(kind: str, version: str, metadata: Obj, **fields: object) -> Obj:
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def placed(name: str, node: str, namespace: str, app: str) -> Obj:
    container = {"name": "c", "image": "i", "ports": [{"containerPort": 8080}]}
    return made(
        "Pod",
        "v1",
        meta(name, namespace, labels={"app": app}),
        spec={"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0},
    )


def exposed(name: str, ip: str, number: int, **spec: object) -> Obj:
    port = {"port": 80, "targetPort": 8080, "nodePort": number}
    return made(
        "Service", "v1", meta(name), spec={"type": "NodePort", "clusterIP": ip, "ports": [port], **spec}
    )


def by_hand(name: str, *ips: str) -> Obj:
    return made(
        "EndpointSlice",
        "discovery.k8s.io/v1",
        meta(f"{name}-1", labels={"kubernetes.io/service-name": name}),
        addressType="IPv4",
        endpoints=[{"addresses": [ip], "nodeName": "w1"} for ip in ips],
        ports=[{"port": 9000}],
    )


def guarded(name: str, namespace: str, app: str, **rule: object) -> Obj:
    spec = {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"], "ingress": [rule]}
    return made("NetworkPolicy", "networking.k8s.io/v1", meta(name, namespace), spec=spec)


def namespace(name: str, team: str) -> Obj:
    return made("Namespace", "v1", {"name": name, "labels": {"team": team}})


TEAM = {"from": [{"namespaceSelector": {"matchLabels": {"team": "x"}}}]}
LIVES: list[list[Obj | None]] = [
    [namespace("other", "y"), namespace("other", "x")],
    [placed("one", "w1", "default", "b"), placed("one", "w1", "default", "a")],
    [placed("two", "w2", "other", "a")],
    [
        exposed("all", "10.96.1.7", 30101, selector={"app": "b"}),
        exposed("all", "10.96.1.7", 30101, selector={"app": "a"}),
    ],
    [
        exposed("local", "10.96.1.8", 30102, selector={"app": "a"}),
        exposed("local", "10.96.1.8", 30102, selector={"app": "a"}, externalTrafficPolicy="Local"),
    ],
    [exposed("gone", "10.96.1.9", 30103, selector={"app": "a"}), None],
    [exposed("hand", "10.96.1.10", 30104), exposed("hand", "10.96.1.10", 30104, sessionAffinity="ClientIP")],
    [by_hand("hand", "192.0.2.7"), by_hand("hand", "192.0.2.8", "192.0.2.9")],
    [
        guarded("team", "default", "a", **TEAM),
        guarded("team", "default", "b", **TEAM),
        guarded("team", "default", "a", **TEAM),
    ],
    [guarded("there", "other", "a"), None],
]
"""The objects of a cluster, each as it comes, changes, and perhaps goes (None). Addresses and ports are
pinned; no node has more than one pod, which gets the first address."""


def lived(order: Sequence[int], plays: Sequence[bool]) -> dict[str, str]:
    """The desired network after the lives have gone on by turns in that order; `plays` says when everybody
    had the time to act in between."""
    loop = Loop(new_store(), three_nodes())
    left = [iter(enumerate(life)) for life in LIVES]
    for turn, which in enumerate(order):
        step = next(left[which], None)
        if step is not None:
            number, obj = step
            act(loop, LIVES[which], number, obj)
        if plays[turn % len(plays)]:
            rehearsal.play(loop)
    for which, rest in enumerate(left):
        for number, obj in rest:
            act(loop, LIVES[which], number, obj)
    rehearsal.play(loop)
    return network(loop)


def act(loop: Loop, life: Sequence[Obj | None], number: int, obj: Obj | None) -> None:
    if obj is not None:
        if obj["metadata"].get("namespace") == "other" and not loop.store.get("namespaces", "", "other"):
            loop.registry.apply(namespace("other", "y"))
        loop.registry.apply(obj)
        return
    gone = life[number - 1]
    assert gone is not None
    resource = {"Service": "services", "NetworkPolicy": "networkpolicies.networking.k8s.io"}[gone["kind"]]
    loop.registry.delete(resource, gone["metadata"]["namespace"], gone["metadata"]["name"])


def network(loop: Loop) -> dict[str, str]:
    """Every namespace's text; what is named by a pod's UID, which is drawn by lot, by the pod."""
    names = {pod_veth(pod.metadata.uid): f"veth-of-{pod.metadata.name}" for pod in loop.pods()}
    pattern = re.compile("|".join(names) or "(?!)")
    return {
        name: pattern.sub(lambda found: names[found[0]], render(state))
        for name, state in loop.desired().items()
    }


@settings(max_examples=15, deadline=None)
@given(
    st.permutations([which for which, life in enumerate(LIVES) for _ in life]),
    st.lists(st.booleans(), min_size=4, max_size=8),
)
def test_requests_in_any_order_end_in_the_same_network(order: list[int], plays: list[bool]) -> None:
    assert lived(order, plays) == ending()


_ENDING: list[dict[str, str]] = []


def ending() -> dict[str, str]:
    """The network of a fresh cluster that gets the last version of everything at once."""
    if not _ENDING:
        loop = Loop(new_store(), three_nodes())
        for life in LIVES:
            if life[-1] is not None:
                loop.registry.apply(life[-1])
        rehearsal.play(loop)
        _ENDING.append(network(loop))
    return _ENDING[0]
