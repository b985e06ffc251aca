"""Machines and rule sets for hypothesis: small, consistent, and likely to overlap."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st
from msgspec.structs import replace

from nsk8s.linux import nftables
from nsk8s.linux.model import KEYS
from nsk8s.linux.nftables import Element, Hook, Set, Table, Tables
from nsk8s.linux.values import (
    Address,
    Chain,
    FdbEntry,
    Link,
    NamespaceState,
    Neighbour,
    Peer,
    Route,
    Ruleset,
    Sysctl,
    Vxlan,
)

V = TypeVar("V", Address, Route, Neighbour, FdbEntry, Sysctl)

OWN = ("KUBE-", "CNI-")
BUILTIN = {"filter": ("INPUT", "FORWARD"), "nat": ("PREROUTING", "POSTROUTING")}
PREPENDED = {"KUBE-A", "KUBE-SVC-C"}
"""Chains that are jumped to before anything else; a jump is always of the same sort, so that built-in chains
with equal rules have an equal `top`."""

flags = st.booleans()
macs = st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"])
destinations = st.sampled_from(["02:00:00:00:00:01", "00:00:00:00:00:00", "33:33:00:00:00:01"])
hosts = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1"])
cidrs = st.sampled_from(
    ["10.0.0.1/24", "10.0.0.2/24", "10.1.0.1/24", "10.2.0.1/32", "fd00::1/64", "fd00::2/64"]
)
networks = st.sampled_from(["default", "10.3.0.0/24", "10.4.0.0/16", "fd00:3::/64"])
sysctls = st.builds(
    Sysctl, st.sampled_from(["net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter"]), st.sampled_from("012")
)
names = st.lists(st.sampled_from(["KUBE-A", "KUBE-B", "KUBE-SVC-C", "CNI-D"]), unique=True, max_size=4)
verdicts = ["-j ACCEPT", '-m comment --comment "a -j KUBE-A \\" b" -j RETURN', "-p tcp -m tcp --dport 80", ""]


def jump(chain: str) -> str:
    """A rule that leads to `chain`."""
    return f'-m comment --comment "to {chain}" -j {chain}'


@st.composite
def rulesets(draw: st.DrawFn) -> Ruleset:
    """Own chains that jump to none or to one another, and jumps to them from built-in chains."""
    tables: dict[str, dict[str, Chain]] = {}
    for table, builtins in BUILTIN.items():
        own = draw(names)
        rules = st.lists(st.sampled_from([*verdicts, *map(jump, own)]), max_size=3)
        chains = {name: Chain(name, tuple(draw(rules))) for name in own}
        for builtin in builtins:
            jumps = draw(st.permutations([name for name in own if draw(flags)]))
            jumps.sort(key=lambda name: name not in PREPENDED)
            top = sum(name in PREPENDED for name in jumps)
            if jumps:
                chains[builtin] = Chain(builtin, tuple(map(jump, jumps)), True, top)
        if chains:
            tables[table] = chains
    return Ruleset(tables)


HOOKS = (
    Hook("nat", "prerouting", -110),
    Hook("nat", "output", -110),
    Hook("filter", "forward", 0, "drop"),
    Hook("filter", "postrouting", 105),
)
SETS = (
    Set("addresses", "ipv4_addr", comment="some: of, them"),
    Set("addresses", "ipv4_addr", flags=("interval",)),
    Set("verdicts", "inet_proto . inet_service", "verdict"),
    Set("verdicts", "inet_proto . inet_service", "verdict", comment="all"),
    Set("verdicts", "ipv4_addr . inet_proto . inet_service", "verdict"),
    Set("recent", "ipv4_addr", flags=("dynamic", "timeout"), timeout=10800, size=65535),
    Set("recent", "ipv4_addr", flags=("dynamic", "timeout"), timeout=90061, size=65535),
)
KEYS_OF = {
    "ipv4_addr": ("10.0.0.1", "10.0.0.2", "10.9.0.0/16"),
    "inet_proto . inet_service": ("tcp . 80", "udp . 53"),
    "ipv4_addr . inet_proto . inet_service": ("10.0.0.1 . tcp . 80", "10.0.0.2 . udp . 53"),
}
comments = st.sampled_from(["", "a, b: c", "x : y"])


@st.composite
def nft_tables(draw: st.DrawFn) -> Tables:
    """Tables whose rules and elements lead to one another's chains and sets."""
    return nftables.tables(
        *(
            draw(nft_table(name))
            for name in draw(st.lists(st.sampled_from(["one", "two"]), unique=True, max_size=2))
        )
    )


@st.composite
def nft_table(draw: st.DrawFn, name: str) -> Table:
    sets = {one.name: one for one in draw(st.lists(st.sampled_from(SETS), max_size=4))}
    chains = draw(st.lists(st.sampled_from(["a", "b", "service-X-ns/svc/tcp/p"]), unique=True))
    verdicts = ["drop", *(f"goto {chain}" for chain in chains)]
    for one in sets.values():
        if "dynamic" not in one.flags:
            keys = draw(st.lists(st.sampled_from(KEYS_OF[one.key]), unique=True))
            keys = keys if one.flags else [key for key in keys if "/" not in key]
            values = {
                key: Element(draw(st.sampled_from(verdicts)) if one.data else "", draw(comments))
                for key in keys
            }
            sets[one.name] = replace(one, elements=values)
    rules = [
        "reject",
        'ct state new drop comment "@nobody jump nowhere"',
        *(f"ip daddr 10.0.0.1 jump {chain}" for chain in chains),
        *(f"ip saddr @{one.name} accept" for one in sets.values() if one.key == "ipv4_addr"),
        *(
            f"meta l4proto . th dport vmap @{one.name}"
            for one in sets.values()
            if one.data and "addr" not in one.key
        ),
        *(f"meta l4proto vmap {{ tcp : goto {chain}, udp : drop }}" for chain in chains),
    ]
    some = st.lists(st.sampled_from(rules), max_size=3).map(tuple)
    found = {chain: nftables.Chain(chain, draw(some), comment=draw(comments)) for chain in chains}
    for number, hook in enumerate(draw(st.lists(st.sampled_from(HOOKS), unique=True))):
        found[f"base-{number}"] = nftables.Chain(f"base-{number}", draw(some), hook)
    return Table("ip", name, draw(st.sampled_from(["", "all of it"])), found, sets)


@st.composite
def machines(draw: st.DrawFn) -> dict[str, NamespaceState]:
    """A fabric with a bridge, nodes on it, pods on the nodes. Every namespace may be missing, with all that
    needs it, and every attribute is one of two or three."""
    build: dict[str, list[Link]] = {}
    ends: dict[str, list[Link]] = {}
    if draw(flags):
        build["fabric"] = [Link("br0", "bridge", 1500, draw(macs))]
        ends["fabric"] = []
    for node in draw(st.lists(st.sampled_from(["w1", "w2"]), unique=True)):
        build[node], ends[node] = [], []
        if "fabric" in build and draw(flags):
            build[node] += _pair(draw, "fabric", ends["fabric"], "br0", ("p1", "p2"))
            if draw(flags) and build[node]:
                vxlan = Vxlan(draw(st.integers(1, 2)), 8472, draw(hosts), "eth0")
                build[node].append(Link("flannel.1", "vxlan", 1450, draw(macs), vxlan=vxlan))
        if draw(flags):
            build[node].append(Link("cni0", "bridge", draw(st.sampled_from([1450, 1400])), draw(macs)))
    nodes = [name for name in build if name != "fabric"]
    for pod in draw(st.lists(st.sampled_from(["default.a", "default.b", "kube.c"]), unique=True)):
        build[pod], ends[pod] = [], []
        if nodes:
            node = draw(st.sampled_from(nodes))
            bridge = "cni0" if any(link.name == "cni0" for link in build[node]) else ""
            build[pod] += _pair(draw, node, ends[node], bridge, ("veth1", "veth2", "veth3"))
    return {name: _filled(draw, name, (*build[name], *ends[name])) for name in build}


def _pair(draw: st.DrawFn, there: str, ends: list[Link], bridge: str, ports: tuple[str, ...]) -> list[Link]:
    """The inner end of a pair whose outer one joins `ends`; none if the port is taken."""
    port = draw(st.sampled_from(ports))
    if any(link.name == port for link in ends):
        return []
    master = bridge if draw(flags) else ""
    hairpin = bool(master) and draw(flags)
    ends.append(Link(port, "veth", 1450, draw(macs), master=master, hairpin=hairpin))
    conf = (("arp_notify", draw(st.integers(0, 1))),) if draw(flags) else ()
    return [Link("eth0", "veth", 1450, draw(macs), peer=Peer(there, port), conf=conf)]


def _filled(draw: st.DrawFn, name: str, links: tuple[Link, ...]) -> NamespaceState:
    devices = st.sampled_from(["lo", *(link.name for link in links)])
    tunnels = [link.name for link in links if link.kind == "vxlan"]

    def some(values: st.SearchStrategy[V]) -> frozenset[V]:
        return frozenset(draw(st.lists(values, max_size=3, unique_by=lambda v: KEYS[type(v)](v))))

    gateways, sources = st.sampled_from(["", "10.0.0.9", "fd00::9"]), st.sampled_from(["", "10.0.0.1"])
    return NamespaceState(
        name,
        draw(st.sampled_from(["", "one", "two"])),
        links,
        addresses=some(st.builds(Address, devices, cidrs)),
        routes=some(st.builds(Route, networks, devices, gateways, flags, sources)),
        neighbours=some(st.builds(Neighbour, devices, hosts, macs)),
        fdb=some(st.builds(FdbEntry, st.sampled_from(tunnels), destinations, hosts))
        if tunnels
        else frozenset(),
        sysctls=some(sysctls),
        rules=draw(rulesets()) if draw(flags) else Ruleset(),
        rules6=draw(rulesets()) if draw(flags) else Ruleset(),
        nft=draw(nft_tables()) if draw(flags) else nftables.EMPTY,
    )
