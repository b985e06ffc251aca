"""Which connection tracking entries are stale: kube-proxy's rule, on entries as the kernel dumps them."""

from __future__ import annotations

import socket
import struct

from nsk8s.kernel.conntrack import Frontends, stale
from nsk8s.kernel.netlink import attr, attributes

VIP, NODE, POD, OLD, CLIENT = "10.96.0.10", "172.18.0.2", "10.244.1.2", "10.244.1.9", "10.244.2.7"


def entry(dst: str, port: int, reply: str, reply_port: int, protocol: int = socket.IPPROTO_UDP) -> bytes:
    def tuple_(source: str, sport: int, target: str, dport: int) -> bytes:
        ip = attr(1, socket.inet_aton(source)) + attr(2, socket.inet_aton(target))
        ports = attr(2, struct.pack("!H", sport)) + attr(3, struct.pack("!H", dport))
        return attr(0x8001, ip) + attr(0x8002, attr(1, bytes((protocol,))) + ports)

    original = attr(0x8001, tuple_(CLIENT, 40000, dst, port))
    return b"\2\0\0\0" + original + attr(0x8002, tuple_(reply, reply_port, CLIENT, 40000)) + attr(12, b"abcd")


FRONTENDS: Frontends = {
    (VIP, 53): {(POD, 5353)},
    ("0.0.0.0", 30053): {(POD, 5353)},
    ("10.96.0.11", 53): frozenset(),
}


def count(*entries: bytes) -> int:
    return len(list(stale(entries, FRONTENDS)))


def test_an_entry_to_a_backend_that_serves_stays() -> None:
    assert count(entry(VIP, 53, POD, 5353)) == 0


def test_an_entry_to_another_is_stale() -> None:
    assert count(entry(VIP, 53, OLD, 5353)) == 1
    assert count(entry(VIP, 53, POD, 53)) == 1


def test_a_flow_that_was_never_translated_is_stale_as_soon_as_there_is_a_backend() -> None:
    assert count(entry(VIP, 53, VIP, 53)) == 1
    assert count(entry("10.96.0.11", 53, "10.96.0.11", 53)) == 0


def test_a_node_port_is_one_on_any_address() -> None:
    assert count(entry(NODE, 30053, OLD, 5353), entry(NODE, 30053, POD, 5353)) == 1


def test_what_is_no_frontend_or_no_udp_stays() -> None:
    assert count(entry(POD, 53, OLD, 53), entry(VIP, 54, OLD, 54)) == 0
    assert count(entry(VIP, 53, OLD, 5353, socket.IPPROTO_TCP)) == 0


def test_a_stale_entry_is_named_by_its_tuple_and_id() -> None:
    dumped = entry(VIP, 53, OLD, 5353)
    (name,) = stale([dumped], FRONTENDS)
    assert attributes(name) == {
        kind: value for kind, value in attributes(dumped, 4).items() if kind in (1, 12)
    }
