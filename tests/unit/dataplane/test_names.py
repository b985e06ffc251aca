from __future__ import annotations

import pytest

from nsk8s.dataplane.names import (
    IFNAMSIZ,
    chain_hash,
    fabric_port,
    host_link,
    mac,
    pod_veth,
    portmap_chain,
    sandbox_id,
    service_port_name,
)


@pytest.mark.parametrize(
    ("namespace", "service", "port", "protocol", "expected"),
    [
        ("ns1", "svc1", "p80", "TCP", "XPGD46QRK7WJZT7O"),
        ("default", "kubernetes", "https", "TCP", "NPX46M4PTMTKRN6Y"),
        ("kube-system", "kube-dns", "dns", "UDP", "TCOU7JCQXEZGVUNU"),
        ("kube-system", "kube-dns", "dns-tcp", "TCP", "ERIFXISQEP7F7OF4"),
        ("kube-system", "kube-dns", "metrics", "TCP", "JD5MR3NA4I4DYORP"),
    ],
)
def test_service_hashes_are_those_of_real_clusters(
    namespace: str, service: str, port: str, protocol: str, expected: str
) -> None:
    assert chain_hash(service_port_name(namespace, service, port), protocol) == expected


def test_endpoint_hash_is_that_of_real_clusters() -> None:
    assert chain_hash("ns1/svc1:p80", "TCP", "10.180.0.1:80") == "SXIVWICOYRO3J4NJ"


def test_unnamed_port_adds_nothing_to_the_name() -> None:
    assert service_port_name("default", "web", "") == "default/web"


def test_portmap_chain_fits_iptables() -> None:
    name = portmap_chain("cbr0", sandbox_id("u"))
    assert name.startswith("CNI-DN-")
    assert len(name) == 28


def test_pod_veth_depends_on_the_uid() -> None:
    assert pod_veth("a") != pod_veth("b")
    assert len(pod_veth("a")) == len("veth") + 8


@pytest.mark.parametrize(
    "name", ["w1", "control-plane-1", "br0", "host", "lo", "worker-node-of-the-cluster-17"]
)
def test_fabric_ports_are_unique_device_names(name: str) -> None:
    port = fabric_port(name)
    assert len(port) <= IFNAMSIZ
    assert port not in ("br0", "host", "lo")
    assert port != fabric_port(name + "8")


def test_fabric_port_keeps_a_readable_name() -> None:
    assert fabric_port("control-plane-1") == "control-plane-1"


def test_host_link_is_hashed_only_if_it_must_be() -> None:
    assert host_link("article") == "nsk8s-article"
    assert len(host_link("a-very-long-cluster-name")) <= IFNAMSIZ


def test_mac_shows_the_address() -> None:
    assert mac("0a:58", "10.244.1.255") == "0a:58:0a:f4:01:ff"
