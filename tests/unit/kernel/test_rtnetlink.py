"""Requests as bytes, read by pyroute2's decoder, which knows nothing of ours."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from nsk8s.kernel import rtnetlink
from nsk8s.linux.values import Address, FdbEntry, Link, Neighbour, Peer, Route, VethPair, Vxlan

DECODERS = {16: ifinfmsg, 17: ifinfmsg, 19: ifinfmsg, 20: ifaddrmsg, 21: ifaddrmsg, 24: rtmsg, 25: rtmsg}
CREATE, REPLACE, EXCL, APPEND = 0x400, 0x100, 0x200, 0x800

INNER = Link("eth0", "veth", 1450, "02:00:00:00:00:01", peer=Peer("w1", "vethx"))
OUTER = Link("vethx", "veth", 1500, "02:00:00:00:00:02", master="cni0")


def decode(message: bytes) -> dict[str, Any]:
    """A message as pyroute2 understands it: fixed fields, attributes by name, header under ``header``."""
    kind = int.from_bytes(message[4:6], "little")
    decoder = DECODERS.get(kind, ndmsg)
    decoded = decoder(message)
    decoded.decode()
    assert decoded["header"]["length"] == len(message)
    assert decoded["header"]["type"] == kind
    assert len(message) % 4 == 0
    return plain(decoded)


def plain(value: dict[str, Any]) -> dict[str, Any]:
    pairs = [(key, one) for key, one in value.items() if key not in ("attrs", "__align")]
    pairs += [(attr[0], attr[1]) for attr in value.get("attrs", ())]
    found = {key: plain(one) if isinstance(one, dict) else one for key, one in pairs}
    assert len(found) == len(pairs)
    return found


def test_a_veth_pair_is_one_message_seen_from_its_inner_end() -> None:
    seen = decode(rtnetlink.add_veth(7, VethPair(INNER, OUTER), 2, 5, 3, 9))
    assert seen["header"]["flags"] == 1 | CREATE | EXCL
    assert seen["header"]["sequence_number"] == 7
    assert (seen["index"], seen["flags"], seen["change"]) == (5, 1, 1)
    assert (seen["IFLA_IFNAME"], seen["IFLA_MTU"]) == ("vethx", 1500)
    assert (seen["IFLA_ADDRESS"], seen["IFLA_MASTER"], seen["IFLA_NET_NS_PID"]) == (OUTER.mac, 3, 9)
    info = seen["IFLA_LINKINFO"]
    peer = info["IFLA_INFO_DATA"]["VETH_INFO_PEER"]
    assert info["IFLA_INFO_KIND"] == "veth"
    assert (peer["index"], peer["flags"]) == (2, 0), "a peer that is created up is refused"
    assert (peer["IFLA_IFNAME"], peer["IFLA_MTU"], peer["IFLA_ADDRESS"]) == ("eth0", 1450, INNER.mac)
    for end in (seen, peer):
        assert (end["IFLA_NUM_TX_QUEUES"], end["IFLA_NUM_RX_QUEUES"]) == (1, 1)


def test_a_pair_within_one_namespace_names_no_other() -> None:
    seen = decode(rtnetlink.add_veth(0, VethPair(INNER, Link("x", "veth", 1500, up=False)), 2, 5))
    assert "IFLA_NET_NS_PID" not in seen
    assert "IFLA_MASTER" not in seen
    assert "IFLA_ADDRESS" not in seen
    assert seen["flags"] == 0


def test_an_outer_end_with_sysctls_stays_down_until_they_are_set() -> None:
    outer = Link("vethx", "veth", 1500, conf=(("proxy_arp", 1),))
    assert decode(rtnetlink.add_veth(0, VethPair(INNER, outer), 2, 5))["flags"] == 0


def test_a_bridge_neither_learns_of_multicast_nor_speaks_stp() -> None:
    seen = decode(rtnetlink.add_link(1, Link("cni0", "bridge", 1450, "02:00:00:00:00:03"), 4))
    assert (seen["index"], seen["flags"]) == (4, 0)
    data = seen["IFLA_LINKINFO"]["IFLA_INFO_DATA"]
    assert (data["IFLA_BR_STP_STATE"], data["IFLA_BR_MCAST_SNOOPING"]) == (0, 0)


def test_the_mtu_of_a_bridge_is_set_once_it_is_there() -> None:
    """One that was given at creation is not what somebody has set (br_change_mtu): it follows the ports."""
    link = Link("cni0", "bridge", 1450, "02:00:00:00:00:03")
    assert "IFLA_MTU" not in decode(rtnetlink.add_link(1, link, 4))
    (seen,) = map(decode, rtnetlink.configure(1, link, 4, ipv6=False))
    assert (seen["index"], seen["IFLA_MTU"]) == (4, 1450)


def test_a_vxlan_device_does_not_learn() -> None:
    link = Link("flannel.1", "vxlan", 1450, "02:00:00:00:00:04", vxlan=Vxlan(1, 8472, "172.18.0.2", "eth0"))
    seen = decode(rtnetlink.add_link(1, link, 6, lower=2))
    assert seen["IFLA_LINKINFO"]["IFLA_INFO_KIND"] == "vxlan"
    data = seen["IFLA_LINKINFO"]["IFLA_INFO_DATA"]
    assert (data["IFLA_VXLAN_ID"], data["IFLA_VXLAN_PORT"], data["IFLA_VXLAN_LEARNING"]) == (1, 8472, 0)
    assert (data["IFLA_VXLAN_LINK"], data["IFLA_VXLAN_LOCAL"]) == (2, "172.18.0.2")


def test_settings_come_before_the_interface_is_up() -> None:
    link = Link("eth0", "veth", 1500, conf=(("arp_notify", 1), ("rp_filter", 2)), peer=Peer("w1", "v"))
    first, second = map(decode, rtnetlink.configure(3, Link(**fields(link), hairpin=True), 5, ipv6=True))
    assert first["header"]["type"] == 19
    assert first["IFLA_IFALIAS"] == "w1/v"
    assert first["IFLA_AF_SPEC"]["AF_INET6"]["IFLA_INET6_ADDR_GEN_MODE"] == 1
    # pyroute2 reads the kernel's answer (an array) but not a request, and leaves it raw: the attribute
    # AF_INET with IFLA_INET_CONF in it, and in there arp_notify (22) = 1, rp_filter (8) = 2
    raw = bytes.fromhex("18000200" + "14000100" + "0800160001000000" + "0800080002000000")
    assert first["IFLA_AF_SPEC"]["AF_INET"] == raw
    data = second["IFLA_LINKINFO"]
    assert data["IFLA_INFO_SLAVE_KIND"] == "bridge"
    assert data["IFLA_INFO_SLAVE_DATA"]["IFLA_BRPORT_MODE"] == 1


def fields(link: Link) -> dict[str, Any]:
    names = ("name", "kind", "mtu", "mac", "up", "master", "peer", "vxlan", "conf")
    return {name: getattr(link, name) for name in names}


def test_nothing_to_set_is_no_message() -> None:
    assert list(rtnetlink.configure(3, Link("x", "veth", 1500), 5, ipv6=False)) == []


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ValueError, match="arp_nonsense"):
        list(rtnetlink.configure(3, Link("x", "veth", 1500, conf=(("arp_nonsense", 1),)), 5, ipv6=False))


def test_changing_a_link_sets_all_that_it_has() -> None:
    messages = rtnetlink.change_link(4, Link("v", "veth", 1400, OUTER.mac, up=False), 5, 3, ipv6=False)
    first, port, state = map(decode, messages)
    assert (first["IFLA_MTU"], first["IFLA_ADDRESS"], first["IFLA_MASTER"]) == (1400, OUTER.mac, 3)
    assert port["IFLA_LINKINFO"]["IFLA_INFO_SLAVE_DATA"]["IFLA_BRPORT_MODE"] == 0
    assert (state["flags"], state["change"]) == (0, 1)


def test_deleting_a_link_is_by_number() -> None:
    seen = decode(rtnetlink.delete_link(4, 9))
    assert (seen["header"]["type"], seen["index"]) == (17, 9)


def test_an_address_has_the_broadcast_address_of_its_network() -> None:
    seen = decode(rtnetlink.address(1, Address("eth0", "10.244.1.2/23"), 2))
    assert (seen["header"]["type"], seen["header"]["flags"]) == (20, 1 | CREATE | REPLACE)
    assert (seen["prefixlen"], seen["index"]) == (23, 2)
    assert (seen["IFA_LOCAL"], seen["IFA_ADDRESS"]) == ("10.244.1.2", "10.244.1.2")
    assert seen["IFA_BROADCAST"] == "10.244.1.255"


def test_a_single_address_has_none() -> None:
    seen = decode(rtnetlink.address(1, Address("flannel.1", "10.244.1.0/32"), 2))
    assert "IFA_BROADCAST" not in seen
    assert decode(rtnetlink.address(1, Address("x", "10.0.0.1/8"), 2, delete=True))["header"]["type"] == 21


def test_an_ipv6_address_is_in_use_at_once() -> None:
    seen = decode(rtnetlink.address(1, Address("eth0", "fd00:10::2/64"), 2))
    assert (seen["family"], seen["prefixlen"], seen["flags"]) == (10, 64, 2)  # IFA_F_NODAD
    assert (seen["IFA_LOCAL"], seen["IFA_ADDRESS"]) == ("fd00:10::2", "fd00:10::2")
    assert "IFA_BROADCAST" not in seen


def test_what_is_of_ipv6_is_sent_as_such() -> None:
    route = decode(rtnetlink.route(1, Route("fd00:2::/64", "x", "fd00:2::", onlink=True), 5))
    assert (route["family"], route["dst_len"], route["flags"]) == (10, 64, 4)
    assert (route["RTA_DST"], route["RTA_GATEWAY"]) == ("fd00:2::", "fd00:2::")
    default = decode(rtnetlink.route(1, Route("default", "x", "fd00::1"), 5))
    assert (default["family"], default["dst_len"]) == (10, 0)
    neighbour = decode(rtnetlink.neighbour(1, Neighbour("x", "fd00::1", INNER.mac), 5))
    assert (neighbour["family"], neighbour["NDA_DST"]) == (10, "fd00::1")
    assert decode(rtnetlink.fdb(1, FdbEntry("x", INNER.mac, "fd00::3"), 6))["NDA_DST"] == "fd00::3"
    link = Link("flannel-v6.1", "vxlan", 1430, INNER.mac, vxlan=Vxlan(1, 8472, "fd00::2", "eth0"))
    data = decode(rtnetlink.add_link(1, link, 6, lower=2))["IFLA_LINKINFO"]["IFLA_INFO_DATA"]
    assert data["IFLA_VXLAN_LOCAL6"] == "fd00::2"
    assert "IFLA_VXLAN_LOCAL" not in data


def test_a_route_through_a_gateway() -> None:
    seen = decode(rtnetlink.route(1, Route("10.1.0.0/16", "x", "10.0.0.1", onlink=True, src="10.0.0.2"), 5))
    assert (seen["dst_len"], seen["table"], seen["proto"], seen["scope"], seen["type"]) == (16, 254, 3, 0, 1)
    assert (seen["flags"], seen["RTA_OIF"]) == (4, 5)
    assert (seen["RTA_DST"], seen["RTA_GATEWAY"], seen["RTA_PREFSRC"]) == ("10.1.0.0", "10.0.0.1", "10.0.0.2")


def test_the_default_route_has_no_destination_and_a_direct_one_link_scope() -> None:
    default = decode(rtnetlink.route(1, Route("default", "x", "10.0.0.1"), 5))
    assert default["dst_len"] == 0
    assert "RTA_DST" not in default
    direct = decode(rtnetlink.route(1, Route("10.1.0.0/16", "x"), 5))
    assert direct["scope"] == 253
    assert "RTA_GATEWAY" not in direct


def test_a_route_is_deleted_whoever_made_it() -> None:
    seen = decode(rtnetlink.route(1, Route("10.1.0.0/16", "x", "10.0.0.1"), 5, delete=True))
    assert (seen["header"]["type"], seen["proto"], seen["type"]) == (25, 0, 0)


def test_a_neighbour_is_permanent() -> None:
    seen = decode(rtnetlink.neighbour(1, Neighbour("x", "10.0.0.1", INNER.mac), 5))
    assert (seen["family"], seen["ifindex"], seen["state"]) == (2, 5, 0x80)
    assert (seen["NDA_DST"], seen["NDA_LLADDR"]) == ("10.0.0.1", INNER.mac)
    gone = decode(rtnetlink.neighbour(1, Neighbour("x", "10.0.0.1", INNER.mac), 5, delete=True))
    assert gone["header"]["type"] == 29


@pytest.mark.parametrize(
    ("mac", "flag"),
    [(INNER.mac, REPLACE), ("00:00:00:00:00:00", APPEND), ("01:00:5e:00:00:01", APPEND)],
)
def test_a_forwarding_entry_replaces_unless_its_address_can_have_many(mac: str, flag: int) -> None:
    seen = decode(rtnetlink.fdb(1, FdbEntry("flannel.1", mac, "172.18.0.3"), 6))
    assert seen["header"]["flags"] == 1 | CREATE | flag
    assert (seen["family"], seen["ifindex"], seen["state"], seen["flags"]) == (7, 6, 0x80, 2)
    assert (seen["NDA_LLADDR"], seen["NDA_DST"]) == (mac, "172.18.0.3")
