"""A witness for tests: sees every frame that passes an interface of a namespace, dissected by scapy.

It knows nothing of what the cluster should do. A socket opened before the traffic starts misses nothing;
what it has seen stays in `seen`.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from msgspec import Struct

from nsk8s.errors import Timeout
from nsk8s.kernel.namespaces import inside

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 263, 1, 1
BUFFER = 8 * 1024 * 1024
VXLAN_PORT = 8472
"""Linux's own, which flannel keeps (IANA's is 4789)."""


class Frame(Struct, frozen=True):
    """An Ethernet frame. Fields of layers it does not have are empty or 0.

    `interface` is where it was seen, `outgoing` whether it left there (else it came in); `kind` is
    "tcp", "udp", "icmp", "icmp6", "arp" or another layer's name in lower case, `ttl` for IPv6 the hop limit.
    For VXLAN `vni` is the network and
    `inner` the frame within, else -1 and None.
    """

    raw: bytes
    interface: str = ""
    outgoing: bool = False
    smac: str = ""
    dmac: str = ""
    src: str = ""
    dst: str = ""
    ttl: int = 0
    kind: str = ""
    sport: int = 0
    dport: int = 0
    flags: str = ""
    payload: bytes = b""
    vni: int = -1
    inner: Frame | None = None
    summary: str = ""

    def __str__(self) -> str:
        return f"{self.interface} {'out' if self.outgoing else 'in'}: {self.summary}"


def dissect(raw: bytes, interface: str = "", outgoing: bool = False) -> Frame:
    """What `raw` says, by scapy."""
    from scapy.layers import inet, inet6  # noqa: F401 (tells Ether what is in it)
    from scapy.layers.l2 import Ether
    from scapy.layers.vxlan import VXLAN  # also binds UDP port 8472

    packet = Ether(raw)
    fields: dict[str, Any] = {"smac": packet.src, "dmac": packet.dst, "summary": packet.summary()}
    ip: Any = None
    if packet.haslayer("IP"):
        ip = packet["IP"]
        fields |= {"src": ip.src, "dst": ip.dst, "ttl": ip.ttl, "kind": ip.payload.name.lower()}
    elif packet.haslayer("IPv6"):
        ip = packet["IPv6"]
        kind = "icmp6" if ip.nh == socket.IPPROTO_ICMPV6 else ip.payload.name.lower()
        fields |= {"src": ip.src, "dst": ip.dst, "ttl": ip.hlim, "kind": kind}
    elif packet.haslayer("ARP"):
        arp = packet["ARP"]
        fields |= {"kind": "arp", "src": arp.psrc, "dst": arp.pdst}
    if ip is not None:
        top = ip.payload
        if top.name in ("TCP", "UDP"):
            fields |= {"sport": top.sport, "dport": top.dport}
            fields["payload"] = _payload(raw, ip, top)
        if top.name == "TCP":
            fields["flags"] = str(top.flags)
        if top.name == "UDP" and top.dport == VXLAN_PORT and isinstance(top.payload, VXLAN):
            fields |= {"vni": int(top.payload.vni), "inner": dissect(bytes(top.payload.payload), interface)}
    return Frame(raw, interface, outgoing, **fields)


def _payload(raw: bytes, ip: Any, top: Any) -> bytes:  # noqa: ANN401 (scapy's layers)
    """What is in a segment, without the padding of a short frame."""
    header = top.dataofs * 4 if top.name == "TCP" else 8
    before, end = (14 + ip.ihl * 4, 14 + ip.len) if ip.version == 4 else (14 + 40, 14 + 40 + ip.plen)
    return raw[before + header : end]


class Witness:
    """Watches one `interface` of a namespace, or all of them (""). A context manager.

    `namespace` is a process or a namespace file; `keep` says which frames are worth remembering.
    """

    def __init__(
        self, namespace: int | Path, interface: str = "", keep: Callable[[Frame], bool] = lambda _: True
    ) -> None:
        self.namespace = namespace
        self.interface = interface
        self.seen: list[Frame] = []
        self._keep = keep
        protocol = 0 if interface else socket.htons(ETH_P_ALL)  # 0: nothing arrives before it is bound
        with inside(namespace, "net"):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            if interface:
                self._socket.bind((interface, ETH_P_ALL))
                self._promiscuous()
        except OSError:
            self._socket.close()
            raise

    def _promiscuous(self) -> None:
        """As tcpdump does: a bridge shows what it forwards between its ports only if it is."""
        with inside(self.namespace, "net"):
            index = socket.if_nametoindex(self.interface)
        membership = struct.pack("iHH8s", index, PACKET_MR_PROMISC, 0, b"")
        self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)

    def __enter__(self) -> Witness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def look(self) -> list[Frame]:
        """Everything that has passed until now (and was worth keeping), since the beginning."""
        waiting = []
        with suppress(BlockingIOError):
            while True:
                waiting.append(self._socket.recvfrom(65536))
        for raw, address in waiting:  # only now: it takes longer than the next one takes to come
            frame = dissect(raw, str(address[0]), address[2] == socket.PACKET_OUTGOING)
            if self._keep(frame):
                self.seen.append(frame)
        return self.seen

    def wait_for(self, predicate: Callable[[Frame], object], deadline: float = 5.0) -> Frame:
        """The first frame, past or to come, that `predicate` is true of. Raises Timeout after `deadline`
        seconds, with all that was seen instead."""
        end = time.monotonic() + deadline
        judged = 0
        while True:
            seen = self.look()
            for frame in seen[judged:]:
                if predicate(frame):
                    return frame
            judged = len(seen)
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                shown = "\n".join(f"  {frame}" for frame in seen[-30:]) or "  nothing at all"
                where = self.interface or "all interfaces"
                raise Timeout(f"no such frame on {where} within {deadline:g} s; seen:\n{shown}")


def send(namespace: int | Path, interface: str, frames: Iterable[bytes]) -> None:
    """Put crafted Ethernet frames on an interface, as if the namespace itself sent them."""
    with inside(namespace, "net"):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with opened:
        opened.bind((interface, 0))
        for frame in frames:
            opened.send(frame)
