"""What services cost on a node, in each proxy mode of kube-proxy, in the same run.

    sudo scripts/bench service [--sizes 10,1000,10000] [--modes iptables,nftables] [--json FILE]

One node's network namespace gets the rules for that many services of three endpoints each, compiled, compared
and written as a control plane does it; a pod's and a server's namespace hang on the node. Nothing else runs,
so that the figures are those of the rules alone. The kernel's part grows with the square of the number of
services in both modes (iptables-restore's of chains, nf_tables' of the anonymous maps of kube-proxy's shape).

What is measured
  load        all services at once, from nothing: s; of that compile (objects to rules), diff, and kernel
  nft -f      the same commands as text, given to nft(8) in a namespace of its own: s (nftables mode)
  endpoint    one endpoint of one service goes and comes back: ms, median; again with its three parts
  service     one service more, and gone again: ms, median
  connect     a pod's TCP connection through the last service: µs, median of 500
  direct      the same without a service, for comparison: µs
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.beginning import arguments, begin
from benchmarks.machine import LIMIT, Figures, aligned, command, keep, world
from nsk8s.api.topology import NodeTopology, Topology
from nsk8s.api.types import EndpointSlice, Service
from nsk8s.api.views import view
from nsk8s.daemon.server import collect_seldom
from nsk8s.dataplane.compiler import ClusterView, Compiler
from nsk8s.errors import KernelError, Timeout
from nsk8s.kernel import iptables, namespaces, nftables
from nsk8s.linux import nfttext
from nsk8s.linux.state import diff
from nsk8s.linux.values import NamespaceState, Op, Restore, Transaction

NODE, POD, SERVER, PEER = "node", "pod", "server", "peer"
MODES = ("iptables", "nftables")
ENDPOINTS = ("10.244.9.10", "10.244.9.11", "10.244.9.12")
"""Of the last service, where somebody listens; those of the others do not exist."""
PARTS = ("compile", "diff", "kernel")
CHANGES = 10
CONNECTIONS = 500

SERVE = """
import select, socket, sys
listening = [socket.create_server((ip, 8080), backlog=4096) for ip in sys.argv[1:]]
print("ready", flush=True)
while True:
    for one in select.select(listening, [], [])[0]:
        one.accept()[0].close()
"""
CONNECT = """
import socket, sys, time
ip, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for _ in range(count):
    begun = time.perf_counter()
    made = socket.create_connection((ip, port), 5)
    print((time.perf_counter() - begun) * 1e6)
    made.close()
"""
WIRES = (
    *(f"netns add {name}" for name in (NODE, POD, SERVER, PEER)),
    *(f"-n {name} link set lo up" for name in (NODE, POD, SERVER)),
    f"-n {NODE} link add pod type veth peer name eth0 netns {POD}",
    f"-n {NODE} link add server type veth peer name eth0 netns {SERVER}",
    f"-n {NODE} addr add 10.244.8.1/24 dev pod",
    f"-n {NODE} addr add 10.244.9.1/24 dev server",
    f"-n {POD} addr add 10.244.8.2/24 dev eth0",
    *(f"-n {SERVER} addr add {ip}/24 dev eth0" for ip in ENDPOINTS),
    *(f"-n {NODE} link set {name} up" for name in ("pod", "server")),
    *(f"-n {name} link set eth0 up" for name in (POD, SERVER)),
    f"-n {POD} route add default via 10.244.8.1",
    f"-n {SERVER} route add default via 10.244.9.1",
)


def enter(name: str) -> AbstractContextManager[None]:
    """Stand in a network namespace for a while."""
    return namespaces.inside(Path("/run/netns") / name, "net")


def service(number: int) -> Service:
    """A service of one port."""
    spec = {
        "type": "ClusterIP",
        "clusterIP": f"10.96.{number >> 8}.{number & 255}",
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    }
    meta = {"namespace": "default", "name": f"service-{number:05d}"}
    made = view({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    assert isinstance(made, Service)
    return made


def endpoints(number: int, addresses: Sequence[str]) -> EndpointSlice:
    """The endpoints of a service, one after the other on this node and elsewhere."""
    meta = {
        "namespace": "default",
        "name": f"service-{number:05d}-slice",
        "labels": {"kubernetes.io/service-name": f"service-{number:05d}"},
    }
    listed = [
        {"addresses": [ip], "nodeName": "elsewhere" if n % 2 else NODE, "conditions": {"ready": True}}
        for n, ip in enumerate(addresses)
    ]
    made = view(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": meta,
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": listed,
        }
    )
    assert isinstance(made, EndpointSlice)
    return made


class Node:
    """One node's rules in a proxy mode, and what they are made of."""

    def __init__(self, mode: str, size: int) -> None:
        node = NodeTopology(NODE, "worker", ("172.18.0.2",), ("10.244.8.0/24",))
        self._compiler = Compiler(Topology("bench", (node,), proxy_mode=mode))
        self._held = NamespaceState(NODE)
        self.services = [service(number) for number in range(1, size + 1)]
        self.slices = [
            endpoints(n, [f"10.{100 + e}.{n >> 8}.{n & 255}" for e in range(3)]) for n in range(1, size + 1)
        ]
        self.slices[-1] = endpoints(size, ENDPOINTS)

    def _wanted(self) -> NamespaceState:
        compiled = self._compiler.compile(ClusterView((), self.services, self.slices))[NODE]
        return NamespaceState(NODE, rules=compiled.rules, nft=compiled.nft)

    def text(self) -> str:
        """What nft(8) would have to read to bring a namespace there from nothing."""
        ops = diff({NODE: NamespaceState(NODE)}, {NODE: self._wanted()})
        return nfttext.script(
            one for op in ops if isinstance(op.value, Transaction) for one in op.value.commands
        )

    def reach(self) -> Figures:
        """Bring the kernel to what the objects say; ms for each part."""
        begun = time.perf_counter()
        wanted = self._wanted()
        done = time.perf_counter()
        ops = diff({NODE: self._held}, {NODE: wanted})
        found = time.perf_counter()
        write(ops)
        written = time.perf_counter()
        self._held = wanted
        times = (done - begun, found - done, written - found)
        return {**dict(zip(PARTS, (t * 1e3 for t in times), strict=True)), "all": sum(times) * 1e3}

    def endpoint_changes(self) -> list[Figures]:
        """An endpoint of a service in the middle goes and comes back."""
        at = len(self.slices) // 2
        whole = self.slices[at]
        fewer = shortened(whole)
        figures = []
        for number in range(CHANGES):
            self.slices = [*self.slices]
            self.slices[at] = whole if number % 2 else fewer
            figures.append(self.reach())
        return figures

    def service_changes(self) -> list[Figures]:
        """One service more, and gone again."""
        services, slices = self.services, self.slices
        more, its = service(len(services) + 1), endpoints(len(services) + 1, ["10.200.0.1", "10.200.0.2"])
        figures = []
        for number in range(CHANGES):
            self.services = services if number % 2 else [*services, more]
            self.slices = slices if number % 2 else [*slices, its]
            figures.append(self.reach())
        return figures


def shortened(whole: EndpointSlice) -> EndpointSlice:
    """The slice without its last endpoint."""
    return msgspec.structs.replace(whole, endpoints=(whole.endpoints or ())[:-1])


def write(ops: Sequence[Op]) -> None:
    """Carry out rules; ends the bench if the kernel refuses."""
    scripts = {op.namespace: op.value.script for op in ops if isinstance(op.value, Restore)}
    parts = [op.value.commands for op in ops if isinstance(op.value, Transaction)]
    errors: list[KernelError] = iptables.restore(scripts, enter)
    errors += nftables.commit({NODE: parts} if parts else {}, enter)
    if errors:
        sys.exit(f"bench: {errors[0]}")


def nft(text: str) -> float | None:
    """Seconds that nft(8) takes for a script; None if it takes too long."""
    begun = time.perf_counter()
    try:
        subprocess.run(
            ["ip", "netns", "exec", PEER, "nft", "-f", "-"], input=text, text=True, check=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return None
    return time.perf_counter() - begun


def connect(ip: str, port: int) -> float:
    """µs that a connection from the pod takes, median."""
    argv = ("ip", "netns", "exec", POD, sys.executable, "-c", CONNECT, ip, str(port), str(CONNECTIONS))
    return statistics.median(float(line) for line in command(*argv).split())


def measure(mode: str, size: int) -> dict[str, Any]:
    """All figures of one mode with one number of services; none if it takes too long to write the rules."""
    for words in WIRES:
        command("ip", *words.split())
    with enter(NODE):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    argv = ["ip", "netns", "exec", SERVER, sys.executable, "-c", SERVE, *ENDPOINTS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            server.stdout.readline()
            node = Node(mode, size)
            try:
                load = node.reach()
            except Timeout as error:
                print(f"bench: {size} services, {mode}: {error}", file=sys.stderr)
                return {}
            figures: dict[str, Any] = {
                "load": load,
                "nft -f": nft(Node(mode, size).text()) if mode == "nftables" else None,
                "endpoint": medians(node.endpoint_changes()),
                "service": medians(node.service_changes()),
                "connect": connect(f"10.96.{size >> 8}.{size & 255}", 80),
                "direct": connect(ENDPOINTS[0], 8080),
            }
        finally:
            server.terminate()
            for name in (NODE, POD, SERVER, PEER):
                command("ip", "netns", "del", name)
    return figures


def medians(figures: Sequence[Figures]) -> Figures:
    """Of each part."""
    return {part: statistics.median(one[part] for one in figures) for part in figures[0]}


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """One line for each number of services and mode."""
    head = [
        "services",
        "mode",
        "load s",
        *PARTS,
        "nft -f s",
        "endpoint ms",
        *PARTS,
        "service ms",
        "connect µs",
        "direct µs",
    ]
    rows = [head]
    for size, by_mode in results.items():
        for mode, found in by_mode.items():
            if not found:
                rows.append([size, mode, *(["-"] * (len(head) - 2))])
                continue
            load, endpoint = found["load"], found["endpoint"]
            rows.append(
                [
                    *(size, mode, f"{load['all'] / 1e3:.2f}"),
                    *(f"{load[part] / 1e3:.2f}" for part in PARTS),
                    f"{took:.2f}" if (took := found["nft -f"]) else "-",
                    *(f"{endpoint[part]:.1f}" for part in ("all", *PARTS)),
                    f"{found['service']['all']:.1f}",
                    *(f"{found[what]:.0f}" for what in ("connect", "direct")),
                ]
            )
    return aligned(rows)


def main() -> None:
    """Read the arguments, measure, print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--sizes", default="10,1000,10000", help="numbers of services")
    parser.add_argument("--modes", default=",".join(MODES), help="proxy modes")
    options = begin(parser, "service")
    modes = options.modes.split(",")
    if unknown := set(modes) - set(MODES):
        parser.error(f"no such mode: {', '.join(sorted(unknown))}")
    collect_seldom()
    with world():
        Path("/run/netns").mkdir(exist_ok=True)
        results: dict[str, dict[str, dict[str, Any]]] = {}
        for size in options.sizes.split(","):
            for mode in modes:
                results.setdefault(size, {})[mode] = measure(mode, int(size))
                print(f"{size} services, {mode}: done", file=sys.stderr)
        print(table(results))
        keep(options.json, results)


if __name__ == "__main__":
    main()
