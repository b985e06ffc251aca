"""A witness for tests: sees every frame that passes an interface of a namespace, dissected by scapy.

It knows nothing of what the cluster should do. A socket opened before the traffic starts misses nothing.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from nsk8s.errors import Timeout
from nsk8s.kernel.namespaces import inside

ETH_P_ALL, ETH_P_IP = 3, 0x0800
SO_RCVBUFFORCE = 33
BUFFER = 8 * 1024 * 1024
VXLAN_PORT = 8472
"""Linux's own, which flannel keeps (IANA's is 4789)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An Ethernet frame. Fields of layers it does not have are empty or 0.

    `interface` is where it was seen, `outgoing` whether it left there (else it came in); `kind` is
    "tcp", "udp", "icmp", "arp" or another layer's name in lower case. `icmp` is scapy's name of the type
    ("echo-request", "dest-unreach"), `arp` of the operation ("who-has", "is-at"). `vxlan` is the
    network identifier (VNI), None without VXLAN.
    """

    raw: bytes
    interface: str = ""
    outgoing: bool = False
    src_mac: str = ""
    dst_mac: str = ""
    src: str = ""
    dst: str = ""
    ttl: int = 0
    kind: str = ""
    sport: int = 0
    dport: int = 0
    flags: str = ""
    payload: bytes = b""
    icmp: str = ""
    icmp_code: int = 0
    arp: str = ""
    arp_sender: str = ""
    arp_target: str = ""
    vxlan: int | None = None
    within: Frame | None = None
    summary: str = ""

    @property
    def tcp(self) -> bool:
        """Whether it is TCP."""
        return self.kind == "tcp"

    @property
    def udp(self) -> bool:
        """Whether it is UDP."""
        return self.kind == "udp"

    @property
    def syn(self) -> bool:
        """Whether it asks for a connection (SYN without ACK)."""
        return "S" in self.flags and "A" not in self.flags

    @property
    def rst(self) -> bool:
        """Whether it resets a connection."""
        return "R" in self.flags

    @property
    def inner(self) -> Frame:
        """The frame within a VXLAN packet. Raises ValueError for any other."""
        if self.within is None:
            raise ValueError(f"no VXLAN packet: {self}")
        return self.within

    def __str__(self) -> str:
        return f"{self.interface} {'out' if self.outgoing else 'in'}: {self.summary}"


def dissect(raw: bytes, interface: str = "", outgoing: bool = False) -> Frame:
    """What `raw` says, by scapy."""
    from scapy.layers import inet  # noqa: F401 (tells Ether what is in it)
    from scapy.layers.l2 import Ether
    from scapy.layers.vxlan import VXLAN  # also binds UDP port 8472

    packet = Ether(raw)
    fields: dict[str, Any] = {"src_mac": packet.src, "dst_mac": packet.dst, "summary": packet.summary()}
    if packet.type == ETH_P_IP and packet.haslayer("IP"):
        ip = packet["IP"]
        top = ip.payload
        fields |= {"src": ip.src, "dst": ip.dst, "ttl": ip.ttl, "kind": top.name.lower()}
        if top.name in ("TCP", "UDP"):
            fields |= {"sport": top.sport, "dport": top.dport, "payload": _payload(raw, ip, top)}
        if top.name == "TCP":
            fields["flags"] = str(top.flags)
        if top.name == "ICMP":
            fields |= {"icmp": top.sprintf("%ICMP.type%"), "icmp_code": int(top.code)}
        if top.name == "UDP" and top.dport == VXLAN_PORT and isinstance(top.payload, VXLAN):
            within = dissect(bytes(top.payload.payload), interface, outgoing)
            fields |= {"vxlan": int(top.payload.vni), "within": within}
    elif packet.haslayer("ARP"):
        arp = packet["ARP"]
        fields |= {"kind": "arp", "arp": arp.sprintf("%ARP.op%")}
        fields |= {"arp_sender": arp.psrc, "arp_target": arp.pdst}
    return Frame(raw, interface, outgoing, **fields)


def _payload(raw: bytes, ip: Any, top: Any) -> bytes:  # noqa: ANN401 (scapy's layers)
    """What is in a segment, without the padding of a short frame."""
    header = top.dataofs * 4 if top.name == "TCP" else 8
    begin = 14 + ip.ihl * 4 + header
    return raw[begin : 14 + ip.len]


class Witness:
    """Watches one `interface` of a namespace, or all of them (""). A context manager.

    `namespace` is a process or a namespace file; `keep` says which frames are worth remembering.
    """

    def __init__(
        self, namespace: int | Path, interface: str = "", keep: Callable[[Frame], bool] = lambda _: True
    ) -> None:
        self.namespace = namespace
        self.interface = interface
        self._frames: list[Frame] = []
        self._keep = keep
        with inside(namespace, "net"):  # protocol 0: nothing arrives before the socket is bound
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            self._socket.bind((interface, ETH_P_ALL))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Witness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def frames(self) -> list[Frame]:
        """Everything that has passed until now (and was worth keeping), since the beginning."""
        while True:
            try:
                raw, address = self._socket.recvfrom(65536)
            except BlockingIOError:
                return self._frames
            frame = dissect(raw, str(address[0]), address[2] == socket.PACKET_OUTGOING)
            if self._keep(frame):
                self._frames.append(frame)

    def seen(self, predicate: Callable[[Frame], object]) -> list[Frame]:
        """The frames until now that `predicate` is true of."""
        return [frame for frame in self.frames() if predicate(frame)]

    def wait(self, predicate: Callable[[Frame], object], deadline: float = 5.0) -> Frame:
        """The first frame, past or to come, that `predicate` is true of. Raises Timeout after `deadline`
        seconds, with all that was seen instead."""
        end = time.monotonic() + deadline
        judged = 0
        while True:
            frames = self.frames()
            for frame in frames[judged:]:
                if predicate(frame):
                    return frame
            judged = len(frames)
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                shown = "\n".join(f"  {frame}" for frame in frames[-30:]) or "  nothing at all"
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
