"""Forgetting UDP flows to backends that serve no more.

UDP has no end of connection: a client that keeps its source port keeps its connection tracking entry, and
with it the old destination of a DNAT rule. kube-proxy deletes such entries when UDP endpoints change
(pkg/proxy/conntrack/cleanup.go since 1.32, KEP-4963): those whose original destination is a frontend
and whose reply does not come from one of its serving backends. A frontend without any backend is
left alone, so that flows come free when the first one appears. TCP is never touched.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress

from nsk8s.kernel import sysctl
from nsk8s.kernel.netlink import NETLINK_NETFILTER, Netlink, attr, attributes, message

Endpoint = tuple[str, int]
Frontends = Mapping[Endpoint, Set[Endpoint]]
"""(address, port) -> its serving backends; the address is one of `ANYWHERE` for a port on any address of
that family (nodePort)."""
ANYWHERE = ("0.0.0.0", "::")

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ID, _CTA_ZONE = 1, 2, 12, 18
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_SRC, _CTA_IP_DST = (1, 3), (2, 4)  # of IPv4, of IPv6
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_NESTED = 0x8000
_NFGENMSG = struct.Struct("=BBH")


def forget_udp(frontends: Frontends) -> int:
    """Delete the stale entries of the calling thread's namespace; returns how many there were.

    Raises OSError if the kernel refuses.
    """
    if not frontends or not _tracked():
        return 0
    families = {socket.AF_INET6 if ":" in address else socket.AF_INET for address, _ in frontends}
    return sum(_forget(_NFGENMSG.pack(family, 0, 0), frontends) for family in families)


def _tracked() -> bool:
    """Whether the namespace may have any entry. One table serves all namespaces, and to dump it for an empty
    one takes the kernel 12 ms all the same."""
    with suppress(FileNotFoundError):
        return sysctl.read("net.netfilter.nf_conntrack_count") != "0"
    return True


def _forget(family: bytes, frontends: Frontends) -> int:
    netlink = Netlink(NETLINK_NETFILTER)
    try:
        doomed = list(stale(netlink.dump(_GET, family), frontends))
        refused = netlink.send(message(_DELETE, 0, n, family + body) for n, body in enumerate(doomed))
    finally:
        netlink.retire()
    for refusal in refused.values():
        if refusal.errno != errno.ENOENT:  # it timed out meanwhile
            raise OSError(refusal.errno, refusal.reason or "conntrack entry not deleted")
    return len(doomed)


def stale(entries: Iterable[bytes], frontends: Frontends) -> Iterator[bytes]:
    """Of dumped entries the stale ones, each as the attributes that name it to the kernel."""
    for entry in entries:
        fields = attributes(entry, 4)
        source = _endpoint(fields.get(_CTA_TUPLE_REPLY, b""), _CTA_IP_SRC, _CTA_PROTO_SRC_PORT)
        target = _endpoint(fields.get(_CTA_TUPLE_ORIG, b""), _CTA_IP_DST, _CTA_PROTO_DST_PORT)
        if source is None or target is None:
            continue
        anywhere = ANYWHERE[":" in target[0]]
        backends = frontends.get(target) or frontends.get((anywhere, target[1]))
        if backends and source not in backends:
            name = attr(_CTA_TUPLE_ORIG | _NESTED, fields[_CTA_TUPLE_ORIG]) + attr(_CTA_ID, fields[_CTA_ID])
            yield name + (attr(_CTA_ZONE, fields[_CTA_ZONE]) if _CTA_ZONE in fields else b"")


def _endpoint(data: bytes, address: tuple[int, int], port: int) -> Endpoint | None:
    """One end of a tuple; None if it is not UDP."""
    parts = attributes(data)
    ip, protocol = attributes(parts.get(_CTA_TUPLE_IP, b"")), attributes(parts.get(_CTA_TUPLE_PROTO, b""))
    raw = ip.get(address[0]) or ip.get(address[1])
    if protocol.get(_CTA_PROTO_NUM) != bytes((socket.IPPROTO_UDP,)) or raw is None:
        return None
    family = socket.AF_INET6 if len(raw) == 16 else socket.AF_INET
    return socket.inet_ntop(family, raw), int.from_bytes(protocol[port], "big")
