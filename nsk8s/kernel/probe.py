"""What this host has and lacks, found out by trying (`nsk8s doctor`).

Kernel features are not looked up by version or configuration: each is made once in a network namespace
that exists for nothing else, so that the answer is the kernel's own.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from nsk8s.errors import NsK8sError
from nsk8s.kernel import iptables, namespaces, nftables, pause
from nsk8s.linux.nftables import EMPTY, Chain, Element, Hook, Set, Table, tables, transaction
from nsk8s.paths import NETNS_DIR

TOOLS = {
    "iptables-restore": ("iptables", "rules of services and of masquerading"),
    "iptables-save": ("iptables", "reading rules back"),
    "ip6tables-restore": ("iptables", "the rules of clusters with IPv6"),
    "nft": ("nftables", "tables of nftables"),
    "ip": ("iproute2", "looking around by hand: ip netns exec CLUSTER.NODE ip route"),
    "bwrap": ("bubblewrap", "programs in pods, confined"),
    "tcpdump": ("tcpdump", "captures by hand"),
    "ping": ("iputils-ping", "trying reachability by hand"),
}
"""Programs: their Debian package, and what they are for."""

OPTIONAL_TOOLS = frozenset({"tcpdump", "ping", "ip", "ip6tables-restore"})

LINKS = ("veth", "bridge", "vxlan")
"""Link types that every cluster is made of."""

OPTIONAL_LINKS = ("dummy", "ipvlan", "macvlan", "vlan", "geneve", "wireguard", "ipip", "gre", "ifb", "vrf")
"""Link types that nothing here needs yet; named so that it is known what the kernel could do."""

MATCHES = {
    "comment": "-m comment --comment x",
    "conntrack": "-m conntrack --ctstate NEW",
    "statistic": "-m statistic --mode random --probability 0.5",
    "recent": "-m recent --name X --rcheck --seconds 10 --reap",
    "addrtype": "-m addrtype --dst-type LOCAL",
    "mark": "-m mark --mark 0x4000/0x4000",
    "multiport": "-p tcp -m multiport --dports 80,443",
    "physdev": "-m physdev ! --physdev-is-in",
}
"""iptables matches that kube-proxy and the CNI plugins write."""

TARGETS = {
    "DNAT": ("nat", "PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1:80"),
    "MASQUERADE": ("nat", "POSTROUTING -j MASQUERADE --random-fully"),
    "MARK": ("nat", "PREROUTING -j MARK --or-mark 0x4000"),
    "REJECT": ("filter", "FORWARD -j REJECT"),
}
"""iptables targets that they write."""

NFT_RULES = (
    "ct state new jump other",
    "ip daddr @cluster-ips ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000",
    "fib daddr type local ip daddr . meta l4proto . th dport vmap @service-ips",
    "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 80 }",
    "update @affinity { ip saddr }",
)
"""What kube-proxy's nftables mode does in nat chains; in others it refuses, and masquerades at random."""

_MODULES = "sudo modprobe {}; on Ubuntu: apt-get install linux-modules-extra-$(uname -r)"


class Finding(Struct, frozen=True):
    """One thing checked: `subject` is what, `detail` what was seen, `remedy` what to do if it is missing.
    What is not `needed` is only worth a word."""

    subject: str
    ok: bool
    detail: str = ""
    remedy: str = ""
    needed: bool = True


def examine() -> list[Finding]:
    """Every check, in the order in which their failures should be mended."""
    return [replace(f, detail=f.detail or "works", remedy="") if f.ok else f for f in _all()]


def _all() -> Iterator[Finding]:
    yield from (_python(), _root(), _machine())
    yield from _tools()
    if os.geteuid() != 0:
        return
    try:
        with ThreadPoolExecutor(1) as thread:  # its thread, and the scratch namespace with it, ends here
            yield from thread.submit(_kernel).result()
    except OSError as error:
        hint = "in a container: run it with --privileged"
        yield Finding("network namespaces", False, str(error), hint)
    yield from _limits()


def _python() -> Finding:
    return Finding(
        "Python", sys.version_info >= (3, 11), platform.python_version(), "needs Python 3.11 or newer"
    )


def _root() -> Finding:
    ok = os.geteuid() == 0
    return Finding("root", ok, "yes" if ok else "no", "" if ok else "the rest needs it: sudo nsk8s doctor")


def _machine() -> Finding:
    machine = platform.machine()
    ok = pause.image(machine) is not None or shutil.which("catatonit") is not None
    return Finding("machine", ok, f"{machine}, Linux {platform.release()}", "apt-get install catatonit")


def _tools() -> Iterator[Finding]:
    for tool, (package, use) in TOOLS.items():
        path = shutil.which(tool)
        hint = f"{use}: apt-get install {package}"
        yield Finding(tool, path is not None, path or "not found", hint, tool not in OPTIONAL_TOOLS)
    if shutil.which("iptables"):
        backend = iptables.backend()
        hint = "changes by others are seen late: update-alternatives --set iptables /usr/sbin/iptables-nft"
        yield Finding("iptables backend", backend == "nf_tables", backend, hint, needed=False)


def _kernel() -> list[Finding]:
    """In a scratch network namespace."""
    namespaces.unshare(namespaces.CLONE_NEWNET)
    return [*_links(), *_rules(), *_nftables(), *_files()]


def _links() -> Iterator[Finding]:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ip:
        for kind in (*LINKS, *OPTIONAL_LINKS):
            words: dict[str, object] = {"ifname": f"t{kind}"[:15], "kind": kind}
            match kind:
                case "veth":
                    words |= {"peer": {"ifname": "tpeer"}}
                case "vxlan":
                    words |= {"vxlan_id": 1, "vxlan_port": 8472, "vxlan_learning": False}
                case "geneve":
                    words |= {"geneve_id": 1, "geneve_remote": "192.0.2.1"}
                case "vlan":
                    words |= {"vlan_id": 10, "link": ip.link_lookup(ifname="tveth")[0]}
                case "ipvlan" | "macvlan":
                    words |= {"link": ip.link_lookup(ifname="tpeer")[0]}
                case "vrf":
                    words |= {"vrf_table": 10}
            ok, detail = True, ""
            try:
                ip.link("add", **words)
            except NetlinkError as error:
                ok, detail = error.code == errno.EEXIST, os.strerror(error.code)
            needed = kind in LINKS
            yield Finding(f"link type {kind}", ok, detail, _MODULES.format(kind), needed)


def _rules() -> Iterator[Finding]:
    if shutil.which("iptables-restore") is None:
        return
    tries = {f"iptables match {name}": ("filter", f"FORWARD {words}") for name, words in MATCHES.items()}
    tries |= {f"iptables target {name}": rule for name, rule in TARGETS.items()}
    for what, (table, rule) in tries.items():
        script = f"*{table}\n-A {rule}\nCOMMIT\n".encode()
        run = subprocess.run(
            ("iptables-restore", "--noflush"), input=script, capture_output=True, check=False
        )
        detail = run.stderr.decode(errors="replace").strip().partition("\n")[0]
        name = what.rpartition(" ")[2]
        yield Finding(what, run.returncode == 0, detail, _MODULES.format(f"xt_{name}"))


def _nftables() -> Iterator[Finding]:
    """Whether the kernel takes what kube-proxy's nftables mode writes, and nft(8) says it again."""
    triple = "ipv4_addr . inet_proto . inet_service"
    service = {"10.0.0.1 . tcp . 80": Element("drop")}
    table = Table(
        *("ip", "nsk8s-doctor", "a try"),
        {
            "other": Chain("other", comment="a comment"),
            "before": Chain("before", NFT_RULES, Hook("nat", "prerouting", -100)),
            "after": Chain("after", ("masquerade fully-random",), Hook("nat", "postrouting", 100)),
            "through": Chain("through", ("reject",), Hook("filter", "forward", 0)),
        },
        {
            "cluster-ips": Set("cluster-ips", "ipv4_addr"),
            "service-ips": Set("service-ips", triple, "verdict", elements=service),
            "affinity": Set("affinity", "ipv4_addr", flags=("dynamic", "timeout"), timeout=10800, size=65535),
        },
    )
    wanted = tables(table)
    errors = nftables.commit({"": [transaction(EMPTY, wanted)]}, lambda _: nullcontext())
    hint = _MODULES.format("nf_tables") + "; proxyMode nftables and network policies need it"
    yield Finding("nf_tables", not errors, str(errors[0]) if errors else "", hint, needed=False)
    if errors or shutil.which("nft") is None:
        return
    hint = "apt-get install nftables, 1.0.1 or newer; proxyMode nftables and network policies need it"
    try:
        found = nftables.tables({"": [table.key]}, lambda _: nullcontext()).get("", EMPTY)
    except (NsK8sError, ValueError) as error:
        yield Finding("nft reads tables", False, str(error), hint, needed=False)
    else:
        detail = "" if found == wanted else "says them in other words"
        yield Finding("nft reads tables", found == wanted, detail, hint, needed=False)


def _files() -> Iterator[Finding]:
    ok = Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
    hint = "pods of one node cannot reach each other through services: sudo modprobe br_netfilter"
    yield Finding("br_netfilter", ok, "", hint)
    ok = Path("/proc/sys/net/netfilter/nf_conntrack_max").exists()
    yield Finding("connection tracking", ok, "", "sudo modprobe nf_conntrack")
    ok = Path("/proc/sys/net/ipv6").exists()
    yield Finding(
        "IPv6", ok, "", "only for clusters that ask for it; boot without ipv6.disable=1", needed=False
    )


def _limits() -> Iterator[Finding]:
    names: list[tuple[str, int, str]] = [
        ("kernel.pid_max", 4096, "every pod takes a process or more: sysctl -w kernel.pid_max=4194304"),
        ("user.max_net_namespaces", 1100, "every pod takes one: sysctl -w user.max_net_namespaces=100000"),
        ("net.ipv4.neigh.default.gc_thresh3", 1024, "shared by all namespaces: raise it for many clients"),
    ]
    for key, least, hint in names:
        yield _limit(key, least, hint)
    yield Finding(str(NETNS_DIR), *_writable(NETNS_DIR), "ip netns finds the cluster's namespaces there")


def _limit(key: str, least: int, hint: str) -> Finding:
    try:
        value = int(Path("/proc/sys", *key.split(".")).read_text())
    except (OSError, ValueError) as error:
        return Finding(key, True, f"unknown: {error}", needed=False)
    return Finding(key, value >= least, str(value), hint, needed=False)


def _writable(directory: Path) -> tuple[bool, str]:
    there = directory if directory.exists() else directory.parent
    return os.access(there, os.W_OK), ""
