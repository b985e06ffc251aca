"""What one network namespace holds, read from the kernel: dumps turned into values.

Read are links of the kinds we make, addresses, configured routes of the main tables, permanent neighbours and
the forwarding entries of VXLAN devices. Whose they are is for `linux.state.ours` to say.
"""

from __future__ import annotations

import functools
import operator
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import cast

from nsk8s.kernel import rtnetlink as rt
from nsk8s.kernel.netlink import Netlink, attr, attr_u32, attributes
from nsk8s.linux.state import EVERYTHING, Reading
from nsk8s.linux.values import Address, FdbEntry, Kind, Link, NamespaceState, Neighbour, Peer, Route, Vxlan

_U32 = struct.Struct("=I")
_ATTR = struct.Struct("=HH")
_KINDS = {b"veth\0": "veth", b"bridge\0": "bridge", b"vxlan\0": "vxlan"}

_ARPHRD_LOOPBACK = 772

_LINKS = rt.IFINFO.pack(0, 0, 0, 0, 0) + attr_u32(rt.IFLA_EXT_MASK, rt.RTEXT_FILTER_SKIP_STATS)
_ADDRESSES = rt.IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)  # of both families
_ROUTES = {
    family: rt.RT.pack(family, 0, 0, 0, rt.RT_TABLE_MAIN, 0, 0, 0, 0)
    for family in (socket.AF_INET, socket.AF_INET6)
}
_NEIGHBOURS = rt.ND.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
_OURSELVES = {socket.inet_pton(socket.AF_INET, "127.0.0.1"), socket.inet_pton(socket.AF_INET6, "::1")}

_SORTED = sorted(range(len(rt.DEVCONF)), key=rt.DEVCONF.__getitem__)
_SORTED_NAMES = tuple(rt.DEVCONF[i] for i in _SORTED)
_sorted_values = operator.itemgetter(*_SORTED)


def devices(netlink: Netlink) -> dict[str, int]:
    """Every interface of the namespace: name -> ifindex."""
    found = {}
    for body in netlink.dump(rt.RTM_GETLINK, _LINKS):
        start = 16
        while True:  # the name comes early, and some forty attributes after it
            length, kind = _ATTR.unpack_from(body, start)
            if kind == rt.IFLA_IFNAME:
                break
            start += (length + 3) & ~3
        found[body[start + 4 : start + length - 1].decode()] = rt.IFINFO.unpack_from(body)[2]
    return found


def mac(index: int) -> str:
    """The MAC address of an interface of the calling thread's namespace. Raises OSError."""
    with Netlink() as netlink:
        body = netlink.get(rt.RTM_GETLINK, rt.IFINFO.pack(0, 0, index, 0, 0))
    return _mac(attributes(body, 16).get(rt.IFLA_ADDRESS, b""))


def observe(netlink: Netlink, name: str, hostname: str = "", reading: Reading = EVERYTHING) -> NamespaceState:
    """The namespace that the socket belongs to; rules and sysctls are read elsewhere.

    Links come in the order of their ifindex. Raises OSError if the kernel refuses a dump.
    """
    names: dict[int, str] = {}
    found = []
    for body in netlink.dump(rt.RTM_GETLINK, _LINKS):
        _, hardware, index, flags, _ = rt.IFINFO.unpack_from(body)
        if hardware == _ARPHRD_LOOPBACK:
            names[index] = "lo"
            continue
        fields = attributes(body, 16)
        names[index] = fields[rt.IFLA_IFNAME][:-1].decode()
        found.append((index, flags, fields))
    links = tuple(link for one in sorted(found, key=lambda f: f[0]) if (link := _link(*one, names)))
    vxlans = {link.name for link in links if link.kind == "vxlan"}
    tables = [_ROUTES[socket.AF_INET]]
    if reading.routes6:
        tables.append(_ROUTES[socket.AF_INET6])
    if reading.neighbours is None:
        neighbours = netlink.dump(rt.RTM_GETNEIGH, _NEIGHBOURS)
    else:
        neighbours = _asked(netlink, reading.neighbours, {device: index for index, device in names.items()})
    return NamespaceState(
        name,
        hostname,
        links,
        frozenset(_addresses(netlink.dump(rt.RTM_GETADDR, _ADDRESSES), names)),
        frozenset(
            route for asked in tables for route in _routes(netlink.dump(rt.RTM_GETROUTE, asked), names)
        ),
        frozenset(_neighbours(neighbours, names)),
        frozenset(_fdb(netlink, {i: n for i, n in names.items() if n in vxlans})),
    )


def _link(index: int, flags: int, fields: dict[int, bytes], names: dict[int, str]) -> Link | None:
    info = attributes(fields.get(rt.IFLA_LINKINFO, b""))
    kind = _KINDS.get(info.get(rt.IFLA_INFO_KIND, b""))
    if kind is None:
        return None
    master = _number(fields, rt.IFLA_MASTER)
    port = attributes(info.get(rt.IFLA_INFO_SLAVE_DATA, b"")) if master else {}
    return Link(
        names[index],
        cast("Kind", kind),
        _number(fields, rt.IFLA_MTU),
        mac=_mac(fields.get(rt.IFLA_ADDRESS, b"")),
        up=bool(flags & rt.IFF_UP),
        master=names.get(master, ""),
        hairpin=port.get(rt.IFLA_BRPORT_MODE, b"\0") != b"\0",
        peer=_peer(fields.get(rt.IFLA_IFALIAS, b"")) if kind == "veth" else None,
        vxlan=_vxlan(attributes(info.get(rt.IFLA_INFO_DATA, b"")), names) if kind == "vxlan" else None,
        conf=_conf(attributes(fields.get(rt.IFLA_AF_SPEC, b"")).get(socket.AF_INET, b"")),
        index=index,
    )


def _vxlan(data: dict[int, bytes], names: dict[int, str]) -> Vxlan:
    return Vxlan(
        _number(data, rt.IFLA_VXLAN_ID),
        int.from_bytes(data.get(rt.IFLA_VXLAN_PORT, b"")[:2], "big"),
        _ip(data.get(rt.IFLA_VXLAN_LOCAL) or data.get(rt.IFLA_VXLAN_LOCAL6) or b""),
        names.get(_number(data, rt.IFLA_VXLAN_LINK), ""),
    )


def _peer(alias: bytes) -> Peer | None:
    """From the alias that `rtnetlink.configure` gave; netlink itself does not say whose namespace a
    number stands for."""
    namespace, slash, device = alias.rstrip(b"\0").decode(errors="replace").rpartition("/")
    return Peer(namespace, device) if slash else None


@functools.lru_cache(256)
def _conf(ipv4: bytes) -> tuple[tuple[str, int], ...]:
    vector = attributes(ipv4).get(rt.IFLA_INET_CONF, b"")
    if not vector:
        return ()
    values = [value for (value,) in struct.iter_unpack("=i", vector)]
    values += [0] * (len(rt.DEVCONF) - len(values))  # an older kernel knows fewer
    return tuple(zip(_SORTED_NAMES, _sorted_values(values), strict=True))


def _addresses(dump: Iterable[bytes], names: dict[int, str]) -> Iterable[Address]:
    for body in dump:
        _, bits, _, _, index = rt.IFADDR.unpack_from(body)
        fields = attributes(body, 8)
        raw = fields.get(rt.IFA_LOCAL) or fields[rt.IFA_ADDRESS]
        device = names.get(index)
        by_itself = (device == "lo" and raw in _OURSELVES) or fields.get(rt.IFA_PROTO, b"\0") != b"\0"
        if device and not by_itself:
            yield Address(device, f"{_ip(raw)}/{bits}")


def _routes(dump: Iterable[bytes], names: dict[int, str]) -> Iterable[Route]:
    for body in dump:
        _, bits, _, _, table, protocol, _, kind, flags = rt.RT.unpack_from(body)
        if table != rt.RT_TABLE_MAIN or protocol == rt.RTPROT_KERNEL or kind != rt.RTN_UNICAST:
            continue
        fields = attributes(body, 12)
        device = names.get(_number(fields, rt.RTA_OIF))
        if device:
            dst = f"{_ip(fields[rt.RTA_DST])}/{bits}" if bits else "default"
            via = _ip(fields[rt.RTA_GATEWAY]) if rt.RTA_GATEWAY in fields else ""
            src = _ip(fields[rt.RTA_PREFSRC]) if rt.RTA_PREFSRC in fields else ""
            yield Route(dst, device, via, bool(flags & rt.RTNH_F_ONLINK), src)


def _asked(netlink: Netlink, wanted: Iterable[Neighbour], indexes: dict[str, int]) -> Iterator[bytes]:
    """Those of the wanted neighbours that there are."""
    for one in wanted:
        if one.dev in indexes:
            family, raw = rt.packed(one.address)
            asked = rt.ND.pack(family, indexes[one.dev], 0, 0, 0) + attr(rt.NDA_DST, raw)
            with suppress(OSError):  # ENOENT: there is none
                yield netlink.get(rt.RTM_GETNEIGH, asked)


def _neighbours(dump: Iterable[bytes], names: dict[int, str]) -> Iterable[Neighbour]:
    for body in dump:
        _, index, state, _, _ = rt.ND.unpack_from(body)
        if state & rt.NUD_PERMANENT and index in names:
            fields = attributes(body, 12)
            if rt.NDA_LLADDR in fields:
                yield Neighbour(names[index], _ip(fields[rt.NDA_DST]), _mac(fields[rt.NDA_LLADDR]))


def _fdb(netlink: Netlink, vxlans: dict[int, str]) -> Iterable[FdbEntry]:
    for index, device in vxlans.items():
        asked = rt.ND.pack(rt.AF_BRIDGE, index, 0, 0, 0)
        for body in netlink.dump(rt.RTM_GETNEIGH, asked):
            _, where, state, _, _ = rt.ND.unpack_from(body)
            fields = attributes(body, 12)
            if where == index and state & rt.NUD_PERMANENT and rt.NDA_DST in fields:
                yield FdbEntry(device, _mac(fields[rt.NDA_LLADDR]), _ip(fields[rt.NDA_DST]))


def _number(fields: dict[int, bytes], kind: int) -> int:
    raw = fields.get(kind)
    return _U32.unpack(raw)[0] if raw else 0


def _ip(raw: bytes) -> str:
    """An address of four octets or of sixteen; empty if there is none."""
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw) if raw else ""


def _mac(raw: bytes) -> str:
    return raw.hex(":")
