"""What becomes of the first packet of a connection, as tables: data only, written once for every proxy mode
and address family, and played over the rules (`test_flow_tables`) and by real packets.

The questions are those of kube-proxy's own tests (pkg/proxy/iptables and nftables, the packet flow tables),
put in our words. The node that is asked is n1. All addresses are written in IPv4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nsk8s.api.topology import KubeProxy
from tests.flows.views import Backed, joined, service

POD = "10.244.1.4"
"""A pod on n1 that serves nothing."""
NODE, SECOND, LOCALHOST = "172.18.0.11", "10.244.1.1", "127.0.0.1"
"""n1, by its InternalIP, by another address of its own, and to itself."""
CLIENT, BLOCKED = "172.18.0.200", "172.18.0.100"
"""Machines outside the cluster; the second is in none of a load balancer's source ranges."""
RANGE = "172.18.0.128/25"
NEAR, NEAR_TOO, FAR, FAR_TOO = "10.244.1.2", "10.244.1.3", "10.244.2.2", "10.244.2.3"
"""Endpoints on n1 and on n2."""
EXTERNAL, LB, LB_TOO = "198.51.100.9", "198.51.100.20", "198.51.100.21"


DEFAULT = KubeProxy()


@dataclass(frozen=True, slots=True)
class Flow:
    """One packet, and what becomes of it: the endpoints it may go to (``IP:port``, separated by spaces), or
    REJECT, DROP, ACCEPT (by a rule of its own), or nothing (no rule is about it). `masq`: it then has the
    node's address. `nftables` is what becomes of it there, if that is something else."""

    what: str
    source: str
    to: str
    port: int
    becomes: str
    masq: bool = False
    protocol: str = "tcp"
    nftables: str | None = None

    def becomes_in(self, mode: str) -> str:
        """What becomes of it in a proxy mode."""
        return self.nftables if mode == "nftables" and self.nftables is not None else self.becomes


@dataclass(frozen=True, slots=True)
class Table:
    """Flows on a node of a cluster with these services. `modes` where it is only about some proxy modes."""

    name: str
    services: tuple[Backed, ...]
    flows: tuple[Flow, ...]
    options: KubeProxy = DEFAULT
    modes: tuple[str, ...] = ("iptables", "nftables")
    families: tuple[int, ...] = (4, 6)


def at(port: int, *ips: str) -> str:
    """Endpoints as a flow names them."""
    return " ".join(f"{ip}:{port}" for ip in ips)


# --- ClusterIP --------------------------------------------------------------------------------------

ONE, SEVERAL = "10.96.0.41", "10.96.0.42"

CLUSTER_IP = Table(
    "cluster-ip",
    (
        service("one", ONE, NEAR),
        joined(
            service("several", SEVERAL, NEAR, FAR),
            service("several", SEVERAL, NEAR, FAR, port_name="tls", port=443, target=8443),
            service("several", SEVERAL, NEAR, FAR, port_name="udp", port=53, target=5300, protocol="UDP"),
            service("several", SEVERAL, NEAR, FAR, port_name="tcp", port=53, target=5353),
        ),
    ),
    (
        Flow("from a pod", POD, ONE, 80, at(8080, NEAR)),
        Flow("a pod to itself", NEAR, ONE, 80, at(8080, NEAR), masq=True),
        Flow("several endpoints", POD, SEVERAL, 80, at(8080, NEAR, FAR)),
        Flow("another port to another port", POD, SEVERAL, 443, at(8443, NEAR, FAR)),
        Flow("UDP on a port that is TCP's too", POD, SEVERAL, 53, at(5300, NEAR, FAR), protocol="udp"),
        Flow("TCP on a port that is UDP's too", POD, SEVERAL, 53, at(5353, NEAR, FAR)),
        Flow("a port that is nobody's", POD, ONE, 81, "", nftables="REJECT"),
        Flow("a protocol that is nobody's", POD, ONE, 80, "", protocol="udp", nftables="REJECT"),
        Flow("an address that is nobody's", POD, "10.96.0.49", 80, "", nftables="DROP"),
    ),
)

# --- without endpoints ------------------------------------------------------------------------------

NO_ENDPOINTS = Table(
    "no-endpoints",
    (
        service(
            *("nobody", "10.96.0.50"),
            node_port=30050,
            external_ips=(EXTERNAL,),
            ingress=(LB,),
        ),
    ),
    (
        Flow("pod to ClusterIP", POD, "10.96.0.50", 80, "REJECT"),
        Flow("node to ClusterIP", NODE, "10.96.0.50", 80, "REJECT"),
        Flow("outside to ClusterIP", CLIENT, "10.96.0.50", 80, "REJECT"),
        Flow("pod to external IP", POD, EXTERNAL, 80, "REJECT"),
        Flow("outside to external IP", CLIENT, EXTERNAL, 80, "REJECT"),
        Flow("pod to load balancer", POD, LB, 80, "REJECT"),
        Flow("outside to load balancer", CLIENT, LB, 80, "REJECT"),
        Flow("pod to nodePort", POD, NODE, 30050, "REJECT"),
        Flow("outside to nodePort", CLIENT, NODE, 30050, "REJECT"),
    ),
)

# --- NodePort ---------------------------------------------------------------------------------------

_NODE_PORT = (service("np", "10.96.0.43", NEAR, FAR, node_port=30043),)
_BOTH = at(8080, NEAR, FAR)


def _node_ports(name: str, options: KubeProxy, *, primary: bool, second: bool, localhost: bool) -> Table:
    """Which of the node's addresses take nodePorts with these options."""
    return Table(
        f"node-ports-{name}",
        _NODE_PORT,
        (
            Flow("pod to ClusterIP", POD, "10.96.0.43", 80, _BOTH),
            Flow("outside to nodePort", CLIENT, NODE, 30043, _BOTH if primary else "", masq=primary),
            Flow("node to nodePort", NODE, NODE, 30043, _BOTH if primary else "", masq=primary),
            Flow("pod to nodePort", POD, NODE, 30043, _BOTH if primary else "", masq=primary),
            Flow("outside to another address", CLIENT, SECOND, 30043, _BOTH if second else "", masq=second),
            Flow("another port", CLIENT, NODE, 30044, ""),
        ),
        options,
    )


def _localhost(name: str, options: KubeProxy, *, works: bool) -> Table:
    """Whether nodePorts are there on 127.0.0.1: in the iptables mode and in IPv4 only."""
    flow = Flow("localhost to nodePort", LOCALHOST, LOCALHOST, 30043, _BOTH if works else "", masq=works)
    return Table(f"localhost-{name}", _NODE_PORT, (flow,), options, ("iptables",), (4,))


_ALL = {"primary": True, "second": True, "localhost": True}
_SOME = KubeProxy(node_port_addresses=("172.18.0.0/24",))
NODE_PORTS = (
    replace(_node_ports("everywhere", KubeProxy(), **_ALL), modes=("iptables",)),
    _node_ports("zero", KubeProxy(node_port_addresses=("0.0.0.0/0", "::/0")), **_ALL),
    _node_ports(
        "primary", KubeProxy(node_port_addresses=("primary",)), primary=True, second=False, localhost=False
    ),
    replace(_node_ports("a-network", _SOME, primary=True, second=False, localhost=False), families=(4,)),
    replace(
        _node_ports(
            "another-network",
            KubeProxy(node_port_addresses=("10.244.0.0/16",)),
            primary=False,
            second=True,
            localhost=False,
        ),
        families=(4,),
    ),
    _localhost("default", KubeProxy(), works=True),
    _localhost("off", KubeProxy(localhost_node_ports=False), works=False),
    _localhost("other-addresses", _SOME, works=False),
    _localhost("asked-for", KubeProxy(node_port_addresses=("127.0.0.0/8",)), works=True),
    _localhost(
        "asked-for-and-off",
        KubeProxy(node_port_addresses=("127.0.0.0/8",), localhost_node_ports=False),
        works=False,
    ),
)

# --- LoadBalancer -----------------------------------------------------------------------------------

LOAD_BALANCER = Table(
    "load-balancer",
    (
        service(
            *("lb", "10.96.0.44", NEAR, FAR),
            node_port=30051,
            ingress=(LB, LB_TOO),
            source_ranges=(RANGE, "172.18.0.11/32"),
        ),
    ),
    (
        Flow("pod to ClusterIP", POD, "10.96.0.44", 80, _BOTH),
        Flow("outside to nodePort", CLIENT, NODE, 30051, _BOTH, masq=True),
        Flow("nodePorts are for everybody", BLOCKED, NODE, 30051, _BOTH, masq=True),
        Flow("outside to the first address", CLIENT, LB, 80, _BOTH, masq=True),
        Flow("outside to the second address", CLIENT, LB_TOO, 80, _BOTH, masq=True),
        Flow("kept out", BLOCKED, LB, 80, "DROP"),
        Flow("kept out of the second", BLOCKED, LB_TOO, 80, "DROP"),
        Flow("pods are in no range", POD, LB, 80, "DROP"),
        Flow("node in a range", NODE, LB, 80, _BOTH, masq=True),
        Flow("node that speaks as the address", LB, LB, 80, _BOTH, masq=True),
        Flow("another port", CLIENT, LB, 81, ""),
    ),
)

# --- health check node port -------------------------------------------------------------------------

HEALTH_CHECK = Table(
    "health-check-node-port",
    (service("lb", "10.96.0.45", FAR, node_port=30052, external="Local", ingress=(LB,), health=30053),),
    (
        Flow("outside", CLIENT, NODE, 30053, "ACCEPT", nftables=""),
        Flow("another port", CLIENT, NODE, 30054, ""),
    ),
)

# --- traffic policies -------------------------------------------------------------------------------


def _policy(external: str, *endpoints: str) -> tuple[Backed, ...]:
    return (
        service(
            *("svc", "10.96.0.46", *endpoints),
            node_port=30055,
            external_ips=(EXTERNAL,),
            ingress=(LB,),
            external=external,
            health=30056 if external == "Local" else 0,
        ),
    )


def _outside(everybody: str, local: str, *, pods_masq: bool, masq: bool) -> tuple[Flow, ...]:
    dropped = local == "DROP"
    return (
        Flow("pod to ClusterIP", POD, "10.96.0.46", 80, everybody),
        Flow("pod to external IP", POD, EXTERNAL, 80, everybody, masq=pods_masq),
        Flow("outside to external IP", CLIENT, EXTERNAL, 80, local, masq=masq and not dropped),
        Flow("pod to load balancer", POD, LB, 80, everybody, masq=pods_masq),
        Flow("outside to load balancer", CLIENT, LB, 80, local, masq=masq and not dropped),
        Flow("pod to nodePort", POD, NODE, 30055, everybody, masq=pods_masq),
        Flow("outside to nodePort", CLIENT, NODE, 30055, local, masq=masq and not dropped),
    )


EXTERNAL_POLICY = (
    Table(
        "external-cluster", _policy("Cluster", NEAR, FAR), _outside(_BOTH, _BOTH, pods_masq=True, masq=True)
    ),
    Table(
        "external-local",
        _policy("Local", NEAR, FAR),
        _outside(_BOTH, at(8080, NEAR), pods_masq=False, masq=False),
    ),
    Table(
        "external-local-far",
        _policy("Local", FAR),
        _outside(at(8080, FAR), "DROP", pods_masq=False, masq=False),
    ),
)


def _internal(name: str, policy: str, endpoints: tuple[str, ...], becomes: str) -> Table:
    services = (service("svc", "10.96.0.47", *endpoints, internal=policy),)
    return Table(f"internal-{name}", services, (Flow("pod", POD, "10.96.0.47", 80, becomes),))


INTERNAL_POLICY = (
    _internal("cluster", "Cluster", (NEAR, FAR, FAR_TOO), at(8080, NEAR, FAR, FAR_TOO)),
    _internal("local-none-here", "Local", (FAR, FAR_TOO), "DROP"),
    _internal("local-one-here", "Local", (NEAR, FAR, FAR_TOO), at(8080, NEAR)),
    _internal("local-all-here", "Local", (NEAR, NEAR_TOO), at(8080, NEAR, NEAR_TOO)),
    _internal("local-nobody", "Local", (), "REJECT"),
)

# --- endpoints that end -----------------------------------------------------------------------------


def _ending(name: str, policy: str, endpoints: tuple[str, ...], inside: str, outside: str) -> Table:
    return Table(
        f"ending-{policy.lower()}-{name}",
        _policy(policy, *endpoints),
        (
            Flow("pod to ClusterIP", POD, "10.96.0.46", 80, inside),
            Flow("outside to load balancer", CLIENT, LB, 80, outside, masq=_masqueraded(policy, outside)),
            Flow("outside to nodePort", CLIENT, NODE, 30055, outside, masq=_masqueraded(policy, outside)),
        ),
    )


def _masqueraded(policy: str, becomes: str) -> bool:
    return policy == "Cluster" and becomes not in ("DROP", "REJECT")


ENDING = (
    _ending(
        "some-ready",
        "Local",
        (NEAR, f"{NEAR_TOO} terminating", f"{FAR} unready"),
        at(8080, NEAR),
        at(8080, NEAR),
    ),
    _ending(
        "here-all-end",
        "Local",
        (f"{NEAR} terminating", f"{NEAR_TOO} terminating", FAR),
        at(8080, FAR),
        at(8080, NEAR, NEAR_TOO),
    ),
    _ending(
        "all-end-here-and-there",
        "Local",
        (f"{NEAR} terminating", f"{FAR} terminating"),
        _BOTH,
        at(8080, NEAR),
    ),
    _ending("there-all-end", "Local", (f"{NEAR} gone", f"{FAR} terminating"), at(8080, FAR), "DROP"),
    _ending("all-gone", "Local", (f"{NEAR} gone", f"{FAR} gone"), "REJECT", "REJECT"),
    _ending(
        "some-ready",
        "Cluster",
        (f"{NEAR} terminating", FAR),
        at(8080, FAR),
        at(8080, FAR),
    ),
    _ending("all-end", "Cluster", (f"{NEAR} terminating", f"{FAR} terminating"), _BOTH, _BOTH),
    _ending(
        "some-end-some-gone", "Cluster", (f"{NEAR} gone", f"{FAR} terminating"), at(8080, FAR), at(8080, FAR)
    ),
    _ending("all-gone", "Cluster", (f"{NEAR} gone", f"{FAR} unready"), "REJECT", "REJECT"),
)

# --- who is masqueraded -----------------------------------------------------------------------------

_SERVICES = (
    service("web", "10.96.0.61", NEAR, FAR, node_port=30061, ingress=("198.51.100.61",)),
    *(
        service(
            *(name, f"10.96.0.{n}", *endpoints),
            node_port=30000 + n,
            ingress=(f"198.51.100.{n}",),
            external="Local",
            health=30100 + n,
        )
        for name, n, endpoints in (("local", 62, (NEAR, FAR)), ("local-far", 63, (FAR,)))
    ),
)
_SOURCES = {"pod": POD, "node": NODE, "localhost": LOCALHOST, "outside": CLIENT}
_NUMBERS = {"web": 61, "local": 62, "local-far": 63}

Outcome = tuple[str, bool]
_FAR = at(8080, FAR)
_TO_ALL: dict[tuple[str, str, str], Outcome] = {
    ("pod", "ClusterIP", "web"): (_BOTH, False),
    ("pod", "nodePort", "web"): (_BOTH, True),
    ("pod", "load balancer", "web"): (_BOTH, True),
    ("node", "ClusterIP", "web"): (_BOTH, True),
    ("node", "nodePort", "web"): (_BOTH, True),
    ("localhost", "nodePort", "web"): (_BOTH, True),
    ("node", "load balancer", "web"): (_BOTH, True),
    ("outside", "ClusterIP", "web"): (_BOTH, True),
    ("outside", "nodePort", "web"): (_BOTH, True),
    ("outside", "load balancer", "web"): (_BOTH, True),
    ("pod", "ClusterIP", "local"): (_BOTH, False),
    ("pod", "nodePort", "local"): (_BOTH, False),
    ("pod", "load balancer", "local"): (_BOTH, False),
    ("node", "ClusterIP", "local"): (_BOTH, True),
    ("node", "nodePort", "local"): (_BOTH, True),
    ("localhost", "nodePort", "local"): (_BOTH, True),
    ("node", "load balancer", "local"): (_BOTH, True),
    ("outside", "ClusterIP", "local"): (_BOTH, True),
    ("outside", "nodePort", "local"): (at(8080, NEAR), False),
    ("outside", "load balancer", "local"): (at(8080, NEAR), False),
    ("pod", "ClusterIP", "local-far"): (_FAR, False),
    ("pod", "nodePort", "local-far"): (_FAR, False),
    ("pod", "load balancer", "local-far"): (_FAR, False),
    ("node", "ClusterIP", "local-far"): (_FAR, True),
    ("node", "nodePort", "local-far"): (_FAR, True),
    ("localhost", "nodePort", "local-far"): (_FAR, True),
    ("node", "load balancer", "local-far"): (_FAR, True),
    ("outside", "ClusterIP", "local-far"): (_FAR, True),
    ("outside", "nodePort", "local-far"): ("DROP", False),
    ("outside", "load balancer", "local-far"): ("DROP", False),
}
"""Thirty ways to a service: who, by which of its addresses, which service."""

_UNTOLD: dict[tuple[str, str, str], Outcome] = {
    # Who cannot tell pods from others spares everybody at a ClusterIP, and short-circuits nobody.
    **{(who, "ClusterIP", "web"): (_BOTH, False) for who in ("node", "outside")},
    **{(who, "ClusterIP", "local"): (_BOTH, False) for who in ("node", "outside")},
    **{(who, "ClusterIP", "local-far"): (_FAR, False) for who in ("node", "outside")},
    ("pod", "nodePort", "local"): (at(8080, NEAR), False),
    ("pod", "load balancer", "local"): (at(8080, NEAR), False),
    ("pod", "nodePort", "local-far"): ("DROP", False),
    ("pod", "load balancer", "local-far"): ("DROP", False),
}
_EVERYBODY: dict[tuple[str, str, str], Outcome] = {
    ("pod", "ClusterIP", "web"): (_BOTH, True),
    ("pod", "ClusterIP", "local"): (_BOTH, True),
    ("pod", "ClusterIP", "local-far"): (_FAR, True),
}
_ALL_MASQUERADED = {key: (becomes, True) for key, (becomes, _) in _TO_ALL.items() if key[1] == "ClusterIP"}
CONFIGURATIONS: dict[str, tuple[KubeProxy, dict[tuple[str, str, str], Outcome]]] = {
    "default": (KubeProxy(), {}),
    "untold": (KubeProxy(cluster_cidr=""), _UNTOLD),
    "masquerade-all": (KubeProxy(masquerade_all=True), _EVERYBODY),
    "masquerade-all-untold": (KubeProxy(masquerade_all=True, cluster_cidr=""), _UNTOLD | _ALL_MASQUERADED),
    "node-cidr": (KubeProxy(detect_local_mode="NodeCIDR"), {}),
    "bridge": (KubeProxy(detect_local_mode="BridgeInterface", bridge_interface="cni0"), {}),
    "prefix": (KubeProxy(detect_local_mode="InterfaceNamePrefix", interface_name_prefix="cni"), {}),
}
"""kube-proxy's options, and which of the thirty ways they change to what."""


def _way(who: str, by: str, name: str, outcome: Outcome) -> Flow:
    number = _NUMBERS[name]
    to, port = {
        "ClusterIP": (f"10.96.0.{number}", 80),
        "nodePort": (LOCALHOST if who == "localhost" else NODE, 30000 + number),
        "load balancer": (f"198.51.100.{number}", 80),
    }[by]
    return Flow(f"{who} to {by} of {name}", _SOURCES[who], to, port, outcome[0], masq=outcome[1])


def _masquerade(name: str, who: set[str]) -> Table:
    options, changed = CONFIGURATIONS[name]
    ways = {**_TO_ALL, **changed}
    flows = tuple(_way(*key, outcome) for key, outcome in ways.items() if key[0] in who)
    return Table(f"masquerade-{name}", _SERVICES, flows, options)


MASQUERADE = (
    *(_masquerade(name, {"pod", "node", "outside"}) for name in CONFIGURATIONS),
    *(
        replace(
            _masquerade(name, {"localhost"}),
            name=f"masquerade-localhost-{name}",
            modes=("iptables",),
            families=(4,),
        )
        for name in CONFIGURATIONS
    ),
)

TABLES = (
    CLUSTER_IP,
    NO_ENDPOINTS,
    *NODE_PORTS,
    LOAD_BALANCER,
    HEALTH_CHECK,
    *EXTERNAL_POLICY,
    *INTERNAL_POLICY,
    *ENDING,
    *MASQUERADE,
)
