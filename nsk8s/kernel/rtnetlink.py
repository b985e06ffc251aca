"""rtnetlink(7) requests for values: what `ip` and `bridge` would send, as bytes.

Interfaces are numbers on the wire, so every function takes the ifindex it needs; `sequence` comes back
with a refusal. Numbers are those of linux/if_link.h, linux/rtnetlink.h and linux/neighbour.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from nsk8s.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attr,
    attr_text,
    attr_u8,
    attr_u32,
    message,
)
from nsk8s.linux.values import Address, FdbEntry, Link, Neighbour, Route, VethPair

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

AF_BRIDGE = 7
IFF_UP = 1
RT_TABLE_MAIN = 254
RTPROT_KERNEL, RTPROT_BOOT = 2, 3
RTN_UNICAST = 1
RTNH_F_ONLINK = 4
NUD_PERMANENT = 0x80
NTF_SELF = 0x02
RTEXT_FILTER_SKIP_STATS = 8
IFA_F_NODAD = 2

# struct ifinfomsg, ifaddrmsg, rtmsg, ndmsg
IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
RT = struct.Struct("=BBBBBBBBI")
ND = struct.Struct("=B3xiHBB")

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_NET_NS_PID, IFLA_IFALIAS, IFLA_AF_SPEC = 18, 19, 20, 26
IFLA_EXT_MASK, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 29, 31, 32
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_INFO_PEER = 1
IFLA_BRPORT_MODE = 4  # hairpin
IFLA_BR_STP_STATE, IFLA_BR_MCAST_SNOOPING = 5, 23
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL = 1, 3, 4
IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = 7, 15, 17
IFLA_INET_CONF, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 1, 8, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFA_PROTO = 11  # since Linux 5.18: what the kernel added by itself, link-local addresses among it
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 7, 15
NDA_DST, NDA_LLADDR = 1, 2

DEVCONF = (
    *("forwarding", "mc_forwarding", "proxy_arp", "accept_redirects", "secure_redirects", "send_redirects"),
    *("shared_media", "rp_filter", "accept_source_route", "bootp_relay", "log_martians", "tag"),
    *("arp_filter", "medium_id", "disable_xfrm", "disable_policy", "force_igmp_version", "arp_announce"),
    *("arp_ignore", "promote_secondaries", "arp_accept", "arp_notify", "accept_local", "src_valid_mark"),
    *("proxy_arp_pvlan", "route_localnet", "igmpv2_unsolicited_report_interval"),
    *("igmpv3_unsolicited_report_interval", "ignore_routes_with_linkdown"),
    *("drop_unicast_in_l2_multicast", "drop_gratuitous_arp", "bc_forwarding", "arp_evict_nocarrier"),
)
"""Names under net.ipv4.conf.<dev>, in the order of linux/ip.h (IPV4_DEVCONF_FORWARDING is 1)."""

_DEVCONF_INDEX = {name: index for index, name in enumerate(DEVCONF, 1)}
_ONE_QUEUE = attr_u32(IFLA_NUM_TX_QUEUES, 1) + attr_u32(IFLA_NUM_RX_QUEUES, 1)
# With the default number of queues, creation also waits for RCU to give them back: 0.2 ms more.

_NO_LINK_LOCAL = attr(socket.AF_INET6, attr_u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE))
_BRIDGE_DATA = attr_u32(IFLA_BR_STP_STATE, 0) + attr_u8(IFLA_BR_MCAST_SNOOPING, 0)


def add_veth(
    sequence: int, pair: VethPair, inner: int, outer: int, master: int = 0, outer_pid: int = 0
) -> bytes:
    """Create a pair. The inner end appears in the socket's namespace; the outer one in that of the
    process `outer_pid` (the same one without), enslaved to `master` and already up.

    Both ends get the numbers given; the inner one stays down, for an interface cannot be created up
    while its peer is not.
    """
    here, there = pair.inner, pair.outer
    kind = attr_text(IFLA_INFO_KIND, "veth")
    peer = attr(IFLA_INFO_DATA, attr(VETH_INFO_PEER, IFINFO.pack(0, 0, inner, 0, 0) + _basics(here)))
    up = IFF_UP if there.up and not there.conf else 0
    body = IFINFO.pack(0, 0, outer, up, up) + _basics(there)
    if outer_pid:
        body += attr_u32(IFLA_NET_NS_PID, outer_pid)
    if master:
        body += attr_u32(IFLA_MASTER, master)
    body += attr(IFLA_LINKINFO, kind + peer)
    return message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sequence, body)


def _basics(link: Link) -> bytes:
    mac = attr(IFLA_ADDRESS, _mac(link.mac)) if link.mac else b""
    mtu = attr_u32(IFLA_MTU, link.mtu) if link.kind != "bridge" else b""
    return attr_text(IFLA_IFNAME, link.name) + mtu + mac + _ONE_QUEUE


def add_link(sequence: int, link: Link, index: int, master: int = 0, lower: int = 0) -> bytes:
    """Create a bridge or a VXLAN device (on top of interface `lower`), down."""
    kind, data = attr_text(IFLA_INFO_KIND, link.kind), b""
    if link.kind == "bridge":
        data = _BRIDGE_DATA
    elif link.vxlan:
        data = attr_u32(IFLA_VXLAN_ID, link.vxlan.vni) + attr_u32(IFLA_VXLAN_LINK, lower)
        local, raw = packed(link.vxlan.local)
        data += attr(IFLA_VXLAN_LOCAL if local == socket.AF_INET else IFLA_VXLAN_LOCAL6, raw)
        data += attr(IFLA_VXLAN_PORT, struct.pack("!H", link.vxlan.port)) + attr_u8(IFLA_VXLAN_LEARNING, 0)
    body = IFINFO.pack(0, 0, index, 0, 0) + _basics(link)
    if master:
        body += attr_u32(IFLA_MASTER, master)
    body += attr(IFLA_LINKINFO, kind + attr(IFLA_INFO_DATA, data))
    return message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sequence, body)


def configure(sequence: int, link: Link, index: int, *, ipv6: bool) -> Iterator[bytes]:
    """What must be in force before the interface goes up, and cannot be given at creation: its
    sysctls, no IPv6 link-local address (only where the kernel has IPv6), on a veth's inner end an alias
    that names the other end, and of a bridge the MTU: one given at creation would follow the ports, and be
    1500 again without any (net/bridge, br_mtu_auto_adjust)."""
    body = attr_u32(IFLA_MTU, link.mtu) if link.kind == "bridge" else b""
    if link.peer:
        body += attr(IFLA_IFALIAS, f"{link.peer.namespace}/{link.peer.name}".encode())
    family = _NO_LINK_LOCAL if ipv6 else b""
    if link.conf:
        values = b"".join(attr_u32(_devconf(key), value) for key, value in link.conf)
        family += attr(socket.AF_INET, attr(IFLA_INET_CONF, values))
    if family:
        body += attr(IFLA_AF_SPEC, family)
    if body:
        yield message(RTM_SETLINK, 0, sequence, IFINFO.pack(0, 0, index, 0, 0) + body)
    if link.hairpin:
        yield hairpin(sequence, index, on=True)


def _devconf(key: str) -> int:
    try:
        return _DEVCONF_INDEX[key]
    except KeyError:
        raise ValueError(f"net.ipv4.conf.<dev>.{key} is no setting that netlink knows") from None


def hairpin(sequence: int, index: int, *, on: bool) -> bytes:
    """`bridge link set dev X hairpin on|off`."""
    data = attr(IFLA_INFO_SLAVE_DATA, attr_u8(IFLA_BRPORT_MODE, on))
    info = attr(IFLA_LINKINFO, attr_text(IFLA_INFO_SLAVE_KIND, "bridge") + data)
    return message(RTM_NEWLINK, 0, sequence, IFINFO.pack(0, 0, index, 0, 0) + info)


def up(sequence: int, index: int, *, on: bool = True) -> bytes:
    """`ip link set X up|down`."""
    return message(RTM_SETLINK, 0, sequence, IFINFO.pack(0, 0, index, IFF_UP if on else 0, IFF_UP))


def change_link(sequence: int, link: Link, index: int, master: int, *, ipv6: bool) -> Iterator[bytes]:
    """Give an existing interface the attributes of `link`; `master` 0 takes it out of its bridge."""
    body = IFINFO.pack(0, 0, index, 0, 0) + attr_u32(IFLA_MTU, link.mtu)
    if link.mac:
        body += attr(IFLA_ADDRESS, _mac(link.mac))
    yield message(RTM_SETLINK, 0, sequence, body + attr_u32(IFLA_MASTER, master))
    yield from configure(sequence, link, index, ipv6=ipv6)
    if master and not link.hairpin:
        yield hairpin(sequence, index, on=False)
    yield up(sequence, index, on=link.up)


def delete_link(sequence: int, index: int) -> bytes:
    """`ip link del X`."""
    return message(RTM_DELLINK, 0, sequence, IFINFO.pack(0, 0, index, 0, 0))


def address(sequence: int, value: Address, index: int, *, delete: bool = False) -> bytes:
    """`ip addr replace|del`; of IPv4 with the broadcast address that CNI plugins set as well, of IPv6
    without duplicate address detection, which would keep it from use for a second."""
    host, _, length = value.cidr.partition("/")
    (family, raw), bits = packed(host), int(length)
    flags = IFA_F_NODAD if family == socket.AF_INET6 else 0
    body = IFADDR.pack(family, bits, flags, 0, index) + attr(IFA_LOCAL, raw) + attr(IFA_ADDRESS, raw)
    if delete:
        return message(RTM_DELADDR, 0, sequence, body)
    if bits < 31 and family == socket.AF_INET:
        broadcast = int.from_bytes(raw, "big") | (0xFFFFFFFF >> bits)
        body += attr(IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    return message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sequence, body)


def route(sequence: int, value: Route, index: int, *, delete: bool = False) -> bytes:
    """`ip route replace|del`, main table."""
    anywhere = "::/0" if value.family == 6 else "0.0.0.0/0"
    network, _, length = (anywhere if value.dst == "default" else value.dst).partition("/")
    family, raw = packed(network)
    bits = int(length) if length else len(raw) * 8
    scope = 0 if value.via else 253  # global, link
    flags = RTNH_F_ONLINK if value.onlink else 0
    kind, protocol = (0, 0) if delete else (RTN_UNICAST, RTPROT_BOOT)  # a deletion matches any
    body = RT.pack(family, bits, 0, 0, RT_TABLE_MAIN, protocol, scope, kind, flags)
    if bits:
        body += attr(RTA_DST, raw)
    if value.via:
        body += attr(RTA_GATEWAY, packed(value.via)[1])
    if value.src:
        body += attr(RTA_PREFSRC, packed(value.src)[1])
    body += attr_u32(RTA_OIF, index)
    if delete:
        return message(RTM_DELROUTE, 0, sequence, body)
    return message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sequence, body)


def neighbour(sequence: int, value: Neighbour, index: int, *, delete: bool = False) -> bytes:
    """`ip neigh replace|del ... nud permanent`."""
    family, raw = packed(value.address)
    body = ND.pack(family, index, NUD_PERMANENT, 0, 0)
    body += attr(NDA_DST, raw) + attr(NDA_LLADDR, _mac(value.mac))
    if delete:
        return message(RTM_DELNEIGH, 0, sequence, body)
    return message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sequence, body)


def fdb(sequence: int, value: FdbEntry, index: int, *, delete: bool = False) -> bytes:
    """`bridge fdb replace|append|del ... dst ... self permanent`.

    One MAC address can have one destination, except multicast and all-zero ones, which can have many:
    the kernel takes NLM_F_APPEND for these only, and NLM_F_REPLACE for the others only.
    """
    mac = _mac(value.mac)
    body = ND.pack(AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF, 0)
    body += attr(NDA_LLADDR, mac) + attr(NDA_DST, packed(value.dst)[1])
    if delete:
        return message(RTM_DELNEIGH, 0, sequence, body)
    many = bool(mac[0] & 1) or not any(mac)
    return message(RTM_NEWNEIGH, NLM_F_CREATE | (NLM_F_APPEND if many else NLM_F_REPLACE), sequence, body)


def packed(address: str) -> tuple[int, bytes]:
    """An address as sockets know it: its family (AF_INET, AF_INET6) and its octets."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
