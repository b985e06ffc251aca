"""Rule texts; what they do to packets is in tests/flows."""

from __future__ import annotations

import pytest

from nsk8s.api.topology import KubeProxy
from nsk8s.api.types import LoadBalancerIngress, ObjectMeta, Service, ServicePort, ServiceSpec
from nsk8s.dataplane.kubeproxy import probability, proxied
from nsk8s.linux.values import Sysctl
from tests.flows.views import compiled, rules, service

MARK = "-j KUBE-MARK-MASQ"


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (2, "0.50000000000"),
        (3, "0.33333333349"),
        (4, "0.25000000000"),
        (5, "0.20000000019"),
        (6, "0.16666666651"),
        (7, "0.14285714272"),
        (8, "0.12500000000"),
        (9, "0.11111111101"),
        (10, "0.10000000009"),
    ],
)
def test_probability_is_as_the_kernel_gives_it_back(left: int, text: str) -> None:
    assert probability(left) == text


def test_cluster_ip() -> None:
    """Worked example: three endpoints on two nodes, the same on every node."""
    states = compiled(service("web", "10.96.100.10", "10.244.1.2", "10.244.1.3", "10.244.2.2"))
    for node in ("n1", "n2"):
        nat = states[node].rules.tables["nat"]
        match = (
            '-d 10.96.100.10/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80'
        )
        assert nat["KUBE-SERVICES"].rules[0] == f"{match} -j KUBE-SVC-CDGGSHYLG3RE2FKL"
        said = '-m comment --comment "default/web:http -> 10.244.{}:8080"'
        chance = "-m statistic --mode random --probability"
        assert nat["KUBE-SVC-CDGGSHYLG3RE2FKL"].rules == (
            f"! -s 10.244.0.0/16 {match} {MARK}",
            f"{said.format('1.2')} {chance} 0.33333333349 -j KUBE-SEP-UIQK3OSOSTRHRPBX",
            f"{said.format('1.3')} {chance} 0.50000000000 -j KUBE-SEP-2AZ33KU3V5PGPQZH",
            f"{said.format('2.2')} -j KUBE-SEP-4EX2N4PG4ASNZOBF",
        )
        assert nat["KUBE-SEP-4EX2N4PG4ASNZOBF"].rules == (
            f'-s 10.244.2.2/32 -m comment --comment "default/web:http" {MARK}',
            '-p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.244.2.2:8080',
        )
        proxy = [r for name, c in nat.items() if not c.builtin and name.startswith("KUBE-") for r in c.rules]
        assert len(proxy) == 11 + 5  # with postrouting 3, mark 1, nodeports tail 1
        assert states[node].rules.tables["filter"]["KUBE-SERVICES"].rules == ()


def test_node_port() -> None:
    """Worked example: external traffic policy Cluster."""
    nat = compiled(service("np", "10.96.100.20", "10.244.1.4", "10.244.2.4", node_port=30080))[
        "n1"
    ].rules.tables["nat"]
    ext, svc = "KUBE-EXT-QUMPV5Z3SF2IMFUJ", "KUBE-SVC-QUMPV5Z3SF2IMFUJ"
    assert nat["KUBE-NODEPORTS"].rules == (
        f'-p tcp -m comment --comment "default/np:http" -m tcp --dport 30080 -j {ext}',
    )
    assert nat[ext].rules == (
        f'-m comment --comment "masquerade traffic for default/np:http external destinations" {MARK}',
        f"-j {svc}",
    )
    assert [rule.rpartition(" ")[2] for rule in nat[svc].rules] == [
        "KUBE-MARK-MASQ",
        "KUBE-SEP-AMMAMBFSBNU4LMMW",
        "KUBE-SEP-QUII37YA6EYVANVF",
    ]


def test_external_traffic_policy_local() -> None:
    """Worked example, without its load balancer: n1 has an endpoint."""
    backed = service("lb", "10.96.100.30", "10.244.1.5", "10.244.2.5", node_port=30090, external="Local")
    states = compiled(backed)
    ext, svc, svl = (f"KUBE-{kind}-JSLCNGWSGB5JPS5Q" for kind in ("EXT", "SVC", "SVL"))
    what = "default/lb:http external destinations"
    short_circuit = (
        f'-s 10.244.0.0/16 -m comment --comment "pod traffic for {what}" -j {svc}',
        f'-m comment --comment "masquerade LOCAL traffic for {what}" -m addrtype --src-type LOCAL {MARK}',
        f'-m comment --comment "route LOCAL traffic for {what}" -m addrtype --src-type LOCAL -j {svc}',
    )
    assert rules(states["n1"], "nat", ext) == (*short_circuit, f"-j {svl}")
    assert rules(states["n1"], "nat", svl) == (
        '-m comment --comment "default/lb:http -> 10.244.1.5:8080" -j KUBE-SEP-RZ2QWLR55GE4AFV2',
    )
    assert rules(states["n1"], "filter", "KUBE-EXTERNAL-SERVICES") == ()
    assert "KUBE-SEP-N66TPYP3IZN44SX2" in states["n1"].rules.tables["nat"]


def test_external_traffic_policy_local_without_local_endpoint() -> None:
    states = compiled(service("lb", "10.96.100.30", "10.244.2.5", node_port=30090, external="Local"))
    nat = states["n1"].rules.tables["nat"]
    assert "KUBE-SVL-JSLCNGWSGB5JPS5Q" not in nat
    assert len(nat["KUBE-EXT-JSLCNGWSGB5JPS5Q"].rules) == 3
    assert rules(states["n1"], "filter", "KUBE-EXTERNAL-SERVICES") == (
        '-p tcp -m comment --comment "default/lb:http has no local endpoints" -m addrtype --dst-type LOCAL '
        "-m tcp --dport 30090 -j DROP",
    )
    assert rules(states["n2"], "filter", "KUBE-EXTERNAL-SERVICES") == ()


def test_load_balancer() -> None:
    """Worked example: an address, policy Local, a health check node port; 15 nat rules and 1 filter rule."""
    backed = service(
        *("lb", "10.96.100.30", "10.244.1.5", "10.244.2.5"),
        node_port=30090,
        external="Local",
        ingress=("172.18.255.200",),
        health=31000,
    )
    states = compiled(backed)
    end = "JSLCNGWSGB5JPS5Q"
    match = '{}-p tcp -m comment --comment "default/lb:http{}" -m tcp --dport {}'
    for node in ("n1", "n2"):
        assert rules(states[node], "nat", "KUBE-SERVICES")[:-1] == (
            f"{match.format('-d 10.96.100.30/32 ', ' cluster IP', 80)} -j KUBE-SVC-{end}",
            f"{match.format('-d 172.18.255.200/32 ', ' loadbalancer IP', 80)} -j KUBE-EXT-{end}",
        )
        assert rules(states[node], "nat", "KUBE-NODEPORTS") == (
            f"{match.format('', '', 30090)} -j KUBE-EXT-{end}",
        )
        assert rules(states[node], "filter", "KUBE-NODEPORTS") == (
            f"{match.format('', ' health check node port', 31000)} -j ACCEPT",
        )
    nat = states["n1"].rules.tables["nat"]
    proxy = [r for name, c in nat.items() if not c.builtin and name.startswith("KUBE-") for r in c.rules]
    assert len(proxy) == 15 + 5
    for chain in ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"):
        assert rules(states["n1"], "filter", chain) == ()


def test_load_balancer_without_local_endpoint() -> None:
    backed = service(
        *("lb", "10.96.100.30", "10.244.2.5"),
        node_port=30090,
        external="Local",
        ingress=("172.18.255.200",),
        health=31000,
    )
    state = compiled(backed)["n1"]
    comment = '-m comment --comment "default/lb:http has no local endpoints"'
    assert rules(state, "filter", "KUBE-EXTERNAL-SERVICES") == (
        f"-d 172.18.255.200/32 -p tcp {comment} -m tcp --dport 80 -j DROP",
        f"-p tcp {comment} -m addrtype --dst-type LOCAL -m tcp --dport 30090 -j DROP",
    )
    assert len(rules(state, "filter", "KUBE-NODEPORTS")) == 1


def test_load_balancer_source_ranges() -> None:
    """A range that has the node's own address lets in the node, which is seen as the address it goes to."""
    backed = service(
        *("lb", "10.96.100.30", "10.244.1.5"),
        ingress=("172.18.255.200", "172.18.255.201", "fd00::1"),
        source_ranges=(" 203.0.113.7/25", "172.18.0.11/32", "fd00::/64", "0.0.0.0/0"),
    )
    states = compiled(backed)
    end = "JSLCNGWSGB5JPS5Q"
    allowed = f'-m comment --comment "default/lb:http loadbalancer IP" -j KUBE-EXT-{end}'
    other = '-m comment --comment "other traffic to default/lb:http will be dropped by KUBE-PROXY-FIREWALL"'
    everybody = (f"-s 203.0.113.0/25 {allowed}", f"-s 172.18.0.11/32 {allowed}", allowed)
    vips = (f"-s 172.18.255.200/32 {allowed}", f"-s 172.18.255.201/32 {allowed}")
    for node in ("n1", "n2"):  # 0.0.0.0/0 has every node's address
        assert rules(states[node], "nat", f"KUBE-FW-{end}") == (*everybody, *vips, other)
    assert rules(states["n1"], "nat", "KUBE-SERVICES")[1].endswith(f"--dport 80 -j KUBE-FW-{end}")
    assert rules(states["n1"], "filter", "KUBE-PROXY-FIREWALL")[0] == (
        "-d 172.18.255.200/32 -p tcp -m comment --comment "
        f'"default/lb:http traffic not accepted by KUBE-FW-{end}" -m tcp --dport 80 -j DROP'
    )
    narrow = service(
        *("lb", "10.96.100.30", "10.244.1.5"),
        ingress=("172.18.255.200",),
        source_ranges=("172.18.0.11/32",),
    )
    states = compiled(narrow)
    assert [len(rules(states[node], "nat", f"KUBE-FW-{end}")) for node in ("n1", "n2")] == [3, 2]


def test_row_34_a_load_balancer_of_mode_proxy_is_not_captured() -> None:
    points = (
        LoadBalancerIngress(ip="172.18.255.200", ipMode="Proxy"),
        LoadBalancerIngress(hostname="lb.example.com"),
    )
    backed = service("lb", "10.96.100.30", "10.244.1.5", ingress=points, source_ranges=("10.0.0.0/8",))
    tables = compiled(backed)["n1"].rules.tables
    assert not [rule for chain in tables["nat"].values() for rule in chain.rules if "172.18.255.200" in rule]
    assert not [name for name in tables["nat"] if name.startswith(("KUBE-EXT", "KUBE-FW"))]


@pytest.mark.parametrize(
    ("options", "not_local", "local"),
    [
        (KubeProxy(), "! -s 10.244.0.0/16 -d 10.96.0.9/32", "-s 10.244.0.0/16"),
        (KubeProxy(cluster_cidr="10.0.0.0/8"), "! -s 10.0.0.0/8 -d 10.96.0.9/32", "-s 10.0.0.0/8"),
        (
            KubeProxy(detect_local_mode="NodeCIDR"),
            "! -s 10.244.1.0/24 -d 10.96.0.9/32",
            "-s 10.244.1.0/24",
        ),
        (
            KubeProxy(detect_local_mode="BridgeInterface", bridge_interface="cni0"),
            "-d 10.96.0.9/32 ! -i cni0",
            "-i cni0",
        ),
        (
            KubeProxy(detect_local_mode="InterfaceNamePrefix", interface_name_prefix="veth"),
            "-d 10.96.0.9/32 ! -i veth+",
            "-i veth+",
        ),
        (KubeProxy(cluster_cidr=""), "", ""),
        (KubeProxy(masquerade_all=True), "-d 10.96.0.9/32", "-s 10.244.0.0/16"),
        (KubeProxy(masquerade_all=True, cluster_cidr=""), "-d 10.96.0.9/32", ""),
    ],
)
def test_row_40_detect_local_modes(options: KubeProxy, not_local: str, local: str) -> None:
    backed = service("web", "10.96.0.9", "10.244.1.2", node_port=30000, external="Local")
    nat = compiled(backed, options=options)["n1"].rules.tables["nat"]
    ext, svc = (next(c for n, c in nat.items() if n.startswith(f"KUBE-{k}-")) for k in ("EXT", "SVC"))
    marks = [rule for rule in svc.rules if rule.endswith(MARK)]
    comment = '-m comment --comment "default/web:http cluster IP" -m tcp --dport 80'
    assert marks == ([f"{not_local} -p tcp {comment} {MARK}"] if not_local else [])
    short = [rule for rule in ext.rules if "pod traffic" in rule]
    what = '-m comment --comment "pod traffic for default/web:http external destinations"'
    assert short == ([f"{local} {what} -j {svc.name}"] if local else [])
    if options.detect_local_mode == "NodeCIDR":
        other = compiled(backed, options=options)["n2"].rules.tables["nat"][svc.name].rules[0]
        assert other.startswith("! -s 10.244.2.0/24 ")


_TAIL = '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"'


@pytest.mark.parametrize(
    ("options", "tail", "localnet"),
    [
        (KubeProxy(), [f"{_TAIL} -m addrtype --dst-type LOCAL"], "1"),
        (
            KubeProxy(localhost_node_ports=False),
            [f"! -d 127.0.0.0/8 {_TAIL} -m addrtype --dst-type LOCAL"],
            "0",
        ),
        (KubeProxy(node_port_addresses=("primary",)), [f"-d 172.18.0.11/32 {_TAIL}"], "0"),
        (
            KubeProxy(node_port_addresses=("10.244.0.0/16", "127.0.0.0/8")),
            [f"-d {ip}/32 {_TAIL}" for ip in ("10.244.1.1", "10.244.1.0", "127.0.0.1")],
            "1",
        ),
        (
            KubeProxy(node_port_addresses=("127.0.0.0/8",), localhost_node_ports=False),
            [],
            "0",
        ),
        (KubeProxy(node_port_addresses=("fd00::/64",)), [f"{_TAIL} -m addrtype --dst-type LOCAL"], "1"),
        (
            KubeProxy(node_port_addresses=("172.18.0.0/24", "0.0.0.0/0")),
            [f"{_TAIL} -m addrtype --dst-type LOCAL"],
            "1",
        ),
    ],
)
def test_node_port_addresses(options: KubeProxy, tail: list[str], localnet: str) -> None:
    states = compiled(service("web", "10.96.0.9", "10.244.1.2", node_port=30000), options=options)
    found = [r for r in rules(states["n1"], "nat", "KUBE-SERVICES") if r.endswith("-j KUBE-NODEPORTS")]
    assert found == [f"{each} -j KUBE-NODEPORTS" for each in tail]
    values = {sysctl.key: sysctl.value for sysctl in states["n1"].sysctls}
    assert values["net.ipv4.conf.all.route_localnet"] == localnet


def test_a_liberal_conntrack_takes_no_offence() -> None:
    invalid = "-m conntrack --ctstate INVALID -j DROP"
    strict, liberal = (compiled(options=KubeProxy(tcp_be_liberal=each))["n1"] for each in (False, True))
    assert invalid in rules(strict, "filter", "KUBE-FORWARD")
    assert invalid not in rules(liberal, "filter", "KUBE-FORWARD")
    assert Sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", "1") in liberal.sysctls - strict.sysctls


def test_no_endpoints() -> None:
    states = compiled(
        service("none", "10.96.0.9", port_name="", node_port=30000, external_ips=("203.0.113.1",))
    )
    refuse = "-j REJECT --reject-with icmp-port-unreachable"
    comment = '-m comment --comment "default/none has no endpoints"'
    assert rules(states["n1"], "filter", "KUBE-SERVICES") == (
        f"-d 10.96.0.9/32 -p tcp {comment} -m tcp --dport 80 {refuse}",
    )
    assert rules(states["n1"], "filter", "KUBE-EXTERNAL-SERVICES") == (
        f"-d 203.0.113.1/32 -p tcp {comment} -m tcp --dport 80 {refuse}",
        f"-p tcp {comment} -m addrtype --dst-type LOCAL -m tcp --dport 30000 {refuse}",
    )
    assert not [
        name for name in states["n1"].rules.tables["nat"] if name.startswith(("KUBE-SVC", "KUBE-EXT"))
    ]


def test_session_affinity_is_looked_up_first_and_noted_last() -> None:
    nat = compiled(service("web", "10.96.0.9", "10.244.1.2", "10.244.2.2", affinity="ClientIP"))[
        "n1"
    ].rules.tables["nat"]
    (svc,) = (chain for name, chain in nat.items() if name.startswith("KUBE-SVC-"))
    seps = sorted(name for name in nat if name.startswith("KUBE-SEP-"))
    looked = [rule for rule in svc.rules if "--rcheck" in rule]
    assert svc.rules[1:3] == tuple(looked)
    for rule in looked:
        sep = rule.rpartition(" ")[2]
        assert sep in seps
        assert f"--seconds 10800 --reap --name {sep} --mask 255.255.255.255 --rsource -j {sep}" in rule
        assert f"-m recent --set --name {sep} --mask 255.255.255.255 --rsource -m tcp" in nat[sep].rules[1]


def test_static_rules_and_jumps_in_order() -> None:
    tables = compiled()["n1"].rules.tables

    def targets(table: str, chain: str) -> list[str]:
        return [rule.rpartition(" ")[2] for rule in tables[table][chain].rules]

    assert targets("filter", "INPUT") == [
        "KUBE-PROXY-FIREWALL",
        "KUBE-NODEPORTS",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-FIREWALL",
    ]
    assert targets("filter", "FORWARD") == [
        "KUBE-PROXY-FIREWALL",
        "KUBE-FORWARD",
        "KUBE-SERVICES",
        "KUBE-EXTERNAL-SERVICES",
        "FLANNEL-FWD",
    ]
    assert targets("filter", "OUTPUT") == ["KUBE-PROXY-FIREWALL", "KUBE-SERVICES", "KUBE-FIREWALL"]
    assert tables["filter"]["FORWARD"].top == 4
    assert targets("nat", "PREROUTING") == targets("nat", "OUTPUT") == ["KUBE-SERVICES"]
    assert targets("nat", "POSTROUTING") == ["KUBE-POSTROUTING", "FLANNEL-POSTRTG"]
    assert tables["nat"]["POSTROUTING"].top == 1
    assert sorted(tables["mangle"]) == ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY", "KUBE-PROXY-CANARY"]
    assert tables["nat"]["KUBE-POSTROUTING"].rules[1] == "-j MARK --set-xmark 0x4000/0x0"
    assert tables["nat"]["KUBE-SERVICES"].rules[-1].endswith("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")


@pytest.mark.parametrize(
    ("spec", "labels", "expected"),
    [
        (ServiceSpec(clusterIP="10.96.0.1"), {}, True),
        (ServiceSpec(clusterIP="None"), {}, False),
        (ServiceSpec(clusterIP=""), {}, False),
        (ServiceSpec(type="ExternalName", externalName="example.com"), {}, False),
        (ServiceSpec(clusterIP="10.96.0.1"), {"service.kubernetes.io/service-proxy-name": "other"}, False),
    ],
)
def test_proxied(spec: ServiceSpec, labels: dict[str, str], expected: bool) -> None:
    assert proxied(Service(metadata=ObjectMeta(labels=labels), spec=spec)) is expected


def test_row_51_large_clusters_do_without_endpoint_comments() -> None:
    def said(count: int) -> tuple[str, str]:
        ips = tuple(f"10.244.{1 + n % 2}.{n // 2}" for n in range(count))
        nat = compiled(service("web", "10.96.0.9", *ips))["n1"].rules.tables["nat"]
        svc = next(chain for name, chain in nat.items() if name.startswith("KUBE-SVC-"))
        return svc.rules[1], nat[svc.rules[-1].rpartition(" ")[2]].rules[1]

    assert all("--comment" in rule for rule in said(1000))
    assert not any("--comment" in rule for rule in said(1001))


def test_several_ports_have_separate_chains() -> None:
    (web, slices) = service("web", "10.96.0.9", "10.244.1.2")
    ports = (*web.spec.ports, ServicePort(port=443, name="https"))
    both = Service(metadata=web.metadata, spec=ServiceSpec(clusterIP="10.96.0.9", ports=ports))
    states = compiled((both, slices))
    assert len(rules(states["n1"], "nat", "KUBE-SERVICES")) == 2  # http, and the nodeports tail
    assert "default/web:https has no endpoints" in rules(states["n1"], "filter", "KUBE-SERVICES")[0]
