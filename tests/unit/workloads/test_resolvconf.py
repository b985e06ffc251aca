"""/etc/resolv.conf for every dnsPolicy and dnsConfig, to the letter."""

from __future__ import annotations

from nsk8s.api.types import ObjectMeta, Pod, PodDNSConfig, PodDNSConfigOption, PodSpec
from nsk8s.workloads.resolvconf import NO_RESOLVER, resolv_conf

SEARCH = "search shop.svc.cluster.local svc.cluster.local cluster.local\n"
CLUSTER_FIRST = f"{SEARCH}nameserver 10.96.0.10\noptions ndots:5\n"
OWN = PodDNSConfig(
    nameservers=("192.0.2.1", "10.96.0.10"),
    searches=("my.dns.search.suffix", "svc.cluster.local"),
    options=(PodDNSConfigOption("ndots", "2"), PodDNSConfigOption("edns0")),
)


def text(dns: str = "10.96.0.10", **spec: object) -> str:
    made = PodSpec(**spec)  # type: ignore[arg-type]  # a test's own fields
    return resolv_conf(Pod(metadata=ObjectMeta(name="web-0", namespace="shop"), spec=made), dns)


def test_cluster_first() -> None:
    assert text() == CLUSTER_FIRST


def test_a_nameserver_is_named_only_where_there_is_one() -> None:
    assert text("") == f"{SEARCH}options ndots:5\n"


def test_on_the_nodes_network_only_who_says_so_asks_the_cluster_first() -> None:
    assert text(hostNetwork=True) == NO_RESOLVER
    assert text(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet") == CLUSTER_FIRST


def test_default_is_what_the_node_has() -> None:
    assert text(dnsPolicy="Default") == NO_RESOLVER
    assert text(dnsPolicy="Default", dnsConfig=OWN) == (
        f"{NO_RESOLVER}search my.dns.search.suffix svc.cluster.local\n"
        "nameserver 192.0.2.1\nnameserver 10.96.0.10\noptions ndots:2 edns0\n"
    )


def test_none_is_the_pods_own_words_alone() -> None:
    assert text(dnsPolicy="None", dnsConfig=OWN) == (
        "search my.dns.search.suffix svc.cluster.local\n"
        "nameserver 192.0.2.1\nnameserver 10.96.0.10\noptions ndots:2 edns0\n"
    )
    assert text(dnsPolicy="None", dnsConfig=PodDNSConfig(nameservers=("192.0.2.1",))) == (
        "nameserver 192.0.2.1\n"
    )


def test_dns_config_is_merged_without_duplicates_and_its_options_win() -> None:
    assert text(dnsConfig=OWN) == (
        "search shop.svc.cluster.local svc.cluster.local cluster.local my.dns.search.suffix\n"
        "nameserver 10.96.0.10\nnameserver 192.0.2.1\noptions ndots:2 edns0\n"
    )


def test_what_the_resolver_would_not_take_is_cut() -> None:
    many = PodDNSConfig(
        nameservers=("192.0.2.1", "192.0.2.2", "192.0.2.3"),
        searches=tuple(
            f"{letter * 60}.example.{n}" for n, letter in enumerate("abcdefghijklmnopqrstuvwxyzabcdef")
        ),
    )
    search, *rest = text(dnsConfig=many).splitlines()
    assert rest == [
        "nameserver 10.96.0.10",
        "nameserver 192.0.2.1",
        "nameserver 192.0.2.2",
        "options ndots:5",
    ]
    domains = search.split()[1:]
    assert len(" ".join(domains)) <= 2048
    assert domains[-1].endswith(".example.26")
    assert domains[:3] == ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]


def test_at_most_32_domains_and_none_that_makes_glibc_abort() -> None:
    many = PodDNSConfig(searches=("x" * 254, *(f"d{n}" for n in range(40))))
    domains = text(dnsConfig=many).splitlines()[0].split()[1:]
    assert len(domains) == 31
    assert domains[-1] == "d27"
