"""Every row of the DNS specification's table, and what CoreDNS says of names that hold nothing."""

from __future__ import annotations

import pytest

from tests.unit.workloads.dns.zones import endpoint, piece, said, service, zone

SOA = (
    "authority: cluster.local. 30 SOA ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 30\n"
)
REVERSE_SOA = (
    "authority: in-addr.arpa. 30 SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 7 7200 1800 86400 30\n"
)
NODATA = f"NOERROR\n{SOA}"
NXDOMAIN = f"NXDOMAIN\n{SOA}"
WEB = "answer: @ 30 A 10.96.0.50\n"


def ask(name: str, kind: str) -> str:
    made = zone()
    return said(made.find(tuple(name.split(".")), kind), made)


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("dns-version.cluster.local", "TXT", 'NOERROR\nanswer: @ 28800 TXT "1.1.0"\n'),
        ("web.shop.svc.cluster.local", "A", f"NOERROR\n{WEB}"),
        ("web.shop.svc.cluster.local", "AAAA", "NOERROR\nanswer: @ 30 AAAA fd00:10:96::50\n"),
        (
            "_http._tcp.web.shop.svc.cluster.local",
            "SRV",
            "NOERROR\n"
            "answer: @ 30 SRV 0 50 80 web.shop.svc.cluster.local.\n"
            "additional: web.shop.svc.cluster.local. 30 A 10.96.0.50\n"
            "additional: web.shop.svc.cluster.local. 30 AAAA fd00:10:96::50\n",
        ),
        (
            "db.shop.svc.cluster.local",
            "A",
            "NOERROR\nanswer: @ 30 A 10.244.1.2\nanswer: @ 30 A 10.244.2.2\nanswer: @ 30 A 10.244.2.3\n",
        ),
        ("db.shop.svc.cluster.local", "AAAA", "NOERROR\nanswer: @ 30 AAAA fd00::1:2\n"),
        ("db-1.db.shop.svc.cluster.local", "A", "NOERROR\nanswer: @ 30 A 10.244.2.2\n"),
        ("10-244-2-3.db.shop.svc.cluster.local", "A", "NOERROR\nanswer: @ 30 A 10.244.2.3\n"),
        ("10-244-1-9.web.shop.svc.cluster.local", "A", "NOERROR\nanswer: @ 30 A 10.244.1.9\n"),
        (
            "_http._tcp.db.shop.svc.cluster.local",
            "SRV",
            "NOERROR\n"
            "answer: @ 30 SRV 0 25 8080 db-0.db.shop.svc.cluster.local.\n"
            "answer: @ 30 SRV 0 25 8080 db-1.db.shop.svc.cluster.local.\n"
            "answer: @ 30 SRV 0 25 8080 10-244-2-3.db.shop.svc.cluster.local.\n"
            "additional: db-0.db.shop.svc.cluster.local. 30 A 10.244.1.2\n"
            "additional: db-1.db.shop.svc.cluster.local. 30 A 10.244.2.2\n"
            "additional: 10-244-2-3.db.shop.svc.cluster.local. 30 A 10.244.2.3\n"
            "additional: db-0.db.shop.svc.cluster.local. 30 AAAA fd00::1:2\n",
        ),
        ("50.0.96.10.in-addr.arpa", "PTR", "NOERROR\nanswer: @ 30 PTR web.shop.svc.cluster.local.\n"),
        ("2.1.244.10.in-addr.arpa", "PTR", "NOERROR\nanswer: @ 30 PTR db-0.db.shop.svc.cluster.local.\n"),
        (
            ".".join(reversed("fd000000000000000000000000010002")) + ".ip6.arpa",
            "PTR",
            "NOERROR\nanswer: @ 30 PTR db-0.db.shop.svc.cluster.local.\n",
        ),
        ("outside.shop.svc.cluster.local", "CNAME", "NOERROR\nanswer: @ 30 CNAME example.com.\n"),
        (
            "outside.shop.svc.cluster.local",
            "A",
            "NOERROR, then example.com.\nanswer: @ 30 CNAME example.com.\n",
        ),
        (
            "inside.shop.svc.cluster.local",
            "A",
            "NOERROR\nanswer: @ 30 CNAME web.shop.svc.cluster.local.\n"
            "answer: web.shop.svc.cluster.local. 30 A 10.96.0.50\n",
        ),
        ("10-244-1-2.shop.pod.cluster.local", "A", "NOERROR\nanswer: @ 30 A 10.244.1.2\n"),
        ("fd00--1-2.shop.pod.cluster.local", "AAAA", "NOERROR\nanswer: @ 30 AAAA fd00::1:2\n"),
        (
            "cluster.local",
            "SOA",
            f"NOERROR\n{SOA.replace('authority: cluster.local.', 'answer: @')}",
        ),
    ],
)
def test_records(name: str, kind: str, text: str) -> None:
    assert ask(name, kind) == text


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("cluster.local", "A", NODATA),
        ("svc.cluster.local", "A", NODATA),
        ("shop.svc.cluster.local", "A", NODATA),
        ("empty.pod.cluster.local", "A", NODATA),
        ("web.shop.svc.cluster.local", "MX", NODATA),
        ("web.shop.svc.cluster.local", "TXT", NODATA),
        ("web.shop.svc.cluster.local", "CNAME", NODATA),
        ("10-244-1-2.shop.pod.cluster.local", "AAAA", NODATA),
        ("outside.shop.svc.cluster.local", "SRV", NODATA),
        ("nowhere.shop.svc.cluster.local", "A", NODATA),
        ("one.shop.svc.cluster.local", "A", NODATA),
        ("elsewhere.cluster.local", "A", NXDOMAIN),
        ("nobody.svc.cluster.local", "A", NXDOMAIN),
        ("none.shop.svc.cluster.local", "A", NXDOMAIN),
        ("none.shop.svc.cluster.local", "TXT", NXDOMAIN),
        ("idle.shop.svc.cluster.local", "A", NXDOMAIN),
        ("number.shop.svc.cluster.local", "A", NXDOMAIN),
        ("db-3.db.shop.svc.cluster.local", "A", NXDOMAIN),
        ("_ftp._tcp.web.shop.svc.cluster.local", "SRV", NXDOMAIN),
        ("_http._udp.web.shop.svc.cluster.local", "SRV", NXDOMAIN),
        ("a.b.c.web.shop.svc.cluster.local", "A", NXDOMAIN),
        ("web.shop.pod.cluster.local", "A", NXDOMAIN),
        ("10-244-1-2.nobody.pod.cluster.local", "A", NXDOMAIN),
        ("10-244-1-999.shop.pod.cluster.local", "A", NXDOMAIN),
        ("9.1.244.10.in-addr.arpa", "PTR", f"NXDOMAIN\n{REVERSE_SOA}"),
        ("244.10.in-addr.arpa", "PTR", f"NXDOMAIN\n{REVERSE_SOA}"),
        ("x.1.244.10.in-addr.arpa", "PTR", f"NXDOMAIN\n{REVERSE_SOA}"),
        ("50.0.96.10.in-addr.arpa", "A", f"NOERROR\n{REVERSE_SOA}"),
        ("example.com", "A", "outside\n"),
        ("local", "A", "outside\n"),
    ],
)
def test_no_records(name: str, kind: str, text: str) -> None:
    assert ask(name, kind) == text


def test_the_name_servers_are_the_service_before_the_dns_pods() -> None:
    made = zone()
    made.addresses = ["10.244.1.9"]
    assert said(made.find(("cluster", "local"), "NS"), made) == (
        "NOERROR\nanswer: @ 30 NS web.shop.svc.cluster.local.\n"
        "additional: web.shop.svc.cluster.local. 30 A 10.96.0.50\n"
        "additional: web.shop.svc.cluster.local. 30 AAAA fd00:10:96::50\n"
    )
    assert said(made.find(("ns", "dns", "cluster", "local"), "A"), made) == f"NOERROR\n{WEB}"


def test_without_ports_a_headless_service_has_addresses_and_no_srv() -> None:
    made = zone()
    made.put_slice(piece("db", endpoint("10.244.1.2", "db-0"), ports=[]))
    made.drop_slice(("shop", "db-v6"))
    db = ("db", "shop", "svc", "cluster", "local")
    assert said(made.find(db, "A"), made) == "NOERROR\nanswer: @ 30 A 10.244.1.2\n"
    assert said(made.find(db, "SRV"), made) == NODATA


def test_what_changes_leaves_nothing_behind() -> None:
    """A zone in which everything has come, changed and gone is an empty zone."""
    made = zone()
    made.put_service(service("web", "10.96.0.51"))
    assert said(made.find(("50", "0", "96", "10", "in-addr", "arpa"), "PTR"), made).startswith("NXDOMAIN")
    made.put_slice(piece("db", endpoint("10.244.1.20", "db-0")))
    assert said(made.find(("2", "1", "244", "10", "in-addr", "arpa"), "PTR"), made).startswith("NXDOMAIN")
    for key in made.names("services"):
        made.drop_service(key)
    for key in made.names("endpointslices"):
        made.drop_slice(key)
    for _, name in made.names("namespaces"):
        made.drop_namespace(name)
    held = (made._namespaces, made._services, made._by_ip, made._slices, made._slice_of, made._hosts)
    assert not any(held)
