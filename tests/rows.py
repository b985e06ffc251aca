"""The README's reference table: which facts of a real cluster's network the tests verify, made by the tests.

A test that is called ``test_row_<n>_…`` (or ``test_row_<n>_and_<m>_…``) verifies row n of the table. A run
of the whole suite in which every test passed compares the README with what it saw; ``--update`` writes it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- rows: written by `scripts/test --update` -->\n", "<!-- /rows -->\n"
NAME = re.compile(r"test_row_(\d+)((?:_and_\d+)*)_")

Files = dict[int, set[str]]
"""The files whose tests verify a row."""
SHARED = "NSK8S_TEST_ROWS"
"""Environment variable: the directory in which the parts of a run leave what they have seen."""

ROWS = {
    1: "pod to pod on one node: on the bridge only, TTL 64, the pod's own address",
    2: "pod to pod on another node: VXLAN 1 on port 8472, node addresses outside, VTEP MACs inside, TTL 62",
    3: "host-gw: bare pod addresses between nodes, to the node's MAC",
    4: "route, neighbour and FDB entry of each other node; without one traffic fails until it is repaired",
    5: "MTU 1450 on eth0, cni0 and flannel.1",
    6: "no source NAT between pods of different nodes",
    7: "pod to the outside: the node's address, random source ports",
    8: "node to pod: from cni0 on its own node, from flannel.1 to another",
    9: "pod to a node's address, its own and another's",
    10: "ARP: cni0 answers for the gateway; a pod announces itself when it starts",
    11: "hairpin: a pod reaches itself through its service",
    12: "kube-proxy's static chains and rules",
    13: "the order of the jumps in the built-in chains",
    14: "chain names are the hashes that kube-proxy makes",
    15: "probabilities as iptables-save prints them",
    16: "the order of endpoints is that of their text",
    17: "a ClusterIP spreads evenly over its endpoints",
    18: "a ClusterIP from a node is masqueraded",
    19: "a ClusterIP from outside, by a static route, is masqueraded",
    20: "a pod that reaches itself sees its gateway as client",
    21: "a service without endpoints refuses at once, TCP and UDP",
    22: "a port that the service does not have",
    23: "targetPorts by name and by number",
    24: "one port number for TCP and UDP",
    25: "several ports, each with chains of its own",
    26: "a nodePort on every node and every local address",
    27: "externalTrafficPolicy Cluster: the server sees a node, the answer returns by it",
    28: "externalTrafficPolicy Local: the server sees the client; a node without endpoint drops",
    29: "a nodePort on 127.0.0.1; spoofed loopback addresses are dropped",
    30: "pod to nodePort and load balancer with policy Local: all endpoints, the pod's own address",
    31: "node to load balancer with policy Local: all endpoints, masqueraded",
    32: "a load balancer's address is captured on the nodes",
    33: "loadBalancerSourceRanges",
    34: "ipMode Proxy: no rule for the address",
    35: "externalIPs",
    36: "internalTrafficPolicy Local: this node's endpoints, or a silent drop",
    37: "session affinity ClientIP, until it times out",
    38: "session affinity on a nodePort",
    39: "masqueradeAll",
    40: "detectLocalMode: what counts as traffic of a local pod",
    41: "terminating endpoints serve when there are no others",
    42: "publishNotReadyAddresses",
    43: "a readiness probe takes an endpoint out and brings it back",
    44: "health check nodePort: 200 or 503, the count of local endpoints",
    45: "stale UDP connection tracking entries are deleted",
    46: "an established connection outlives a change of rules",
    47: "packets out of state are dropped",
    48: "trafficDistribution: endpoints of one's own zone or node first",
    49: "a change leaves other services' counters alone",
    50: "flushed rules come back",
    51: "more than 1,000 endpoints: no comments on their rules",
    52: "nodePortAddresses",
    53: "nodePorts work where the policy of FORWARD is DROP",
    54: "nftables mode: tables, base chains, sets and maps, names",
    55: "nftables mode: a change touches one service's elements only",
    56: "nftables mode: a port no service has is refused, an address no service has is dropped",
    57: "IPv6: rules and paths as for IPv4",
    58: "dual-stack services: both addresses, in the families' order",
    59: "hostPort as the portmap plugin makes it",
    60: "a hostNetwork pod is its node",
    61: "flannel's masquerade and forward rules",
    66: "DNS: A and AAAA of services, TTL 30",
    67: "DNS: headless services and StatefulSet names",
    68: "DNS: SRV, PTR, CNAME, pod records",
    69: "DNS: search list and ndots:5, as queries on the wire",
    70: "dnsPolicy and dnsConfig",
    71: "DNS goes through the service kube-dns to a pod",
    72: "DNS: upstreams, TCP after truncation, NXDOMAIN and NODATA",
    73: "NetworkPolicy: default deny, allow all",
    74: "NetworkPolicy: selectors with and, or, nil and {}",
    75: "NetworkPolicy: ipBlock with except",
    76: "NetworkPolicy: ports by number, name, range and protocol",
    77: "NetworkPolicy: the union of policies",
    78: "NetworkPolicy: changes of policies, labels, namespaces and pods",
    79: "NetworkPolicy is judged after DNAT",
    80: "NetworkPolicy: a node always reaches its own pods",
    81: "NetworkPolicy: replies pass; established connections stay",
    82: "NetworkPolicy and nodePorts: what the source is",
    83: "NetworkPolicy: a pod reaches itself",
    84: "NetworkPolicy denies in silence",
    85: "NetworkPolicy within a node and between nodes",
    86: "NetworkPolicy: a hostNetwork pod is its node",
    87: "ClusterNetworkPolicy: tiers and priorities",
    88: "NetworkPolicy: 9x9 truth tables, predicted beside measured",
    96: "a rolling update under load loses no request",
    97: "drain, cordon, a node that is not ready",
    98: "the defaults of expose, scale and run",
    99: "StatefulSet: order, stable names, DNS",
    100: "exec and port-forward by SPDY and WebSocket, proxies, logs and watches, by real kubectls",
    101: "two clusters side by side; nothing left behind",
}
"""What each row says. A number without a test is not in the README."""


class Recorder:
    """Listens to a run, and at its end compares the README with it, or writes it (`update`). A run of a
    part of the suite leaves what it has seen in the directory `SHARED`, for `main` to put together."""

    def __init__(self, *, update: bool) -> None:
        self._update = update
        self._files: Files = {}
        self._whole = True

    def pytest_deselected(self) -> None:
        """A part of the suite says nothing of the rest."""
        self._whole = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of what passed; without a row's test nothing can be said."""
        if report.failed or (report.skipped and NAME.search(report.nodeid)):
            self._whole = False
        elif report.when == "call" and (found := NAME.search(report.nodeid)):
            for number in (found[1], *found[2].split("_and_")[1:]):
                self._files.setdefault(int(number), set()).add(report.nodeid.partition("::")[0])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """If everything has passed, the README must say just that."""
        shared = os.environ.get(SHARED)
        if shared:
            seen = {"whole": self._whole, "files": {n: sorted(files) for n, files in self._files.items()}}
            with tempfile.NamedTemporaryFile("w", dir=shared, suffix=".json", delete=False) as file:
                json.dump(seen, file)
        elif self._whole and session.config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            said = judge(self._files, update=self._update)
            if said:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
                session.config.get_terminal_writer().line(said, red=True)


def judge(files: Files, *, update: bool) -> str:
    """Compare the README's table with `files`, or write it; what is wrong with it, or nothing."""
    before, begin, rest = README.read_text().partition(BEGIN)
    written, end, after = rest.partition(END)
    assert end, f"{README} has no lines {BEGIN!r} and {END!r}"
    seen = table(files)
    if update:
        README.write_text(before + begin + seen + end + after)
    elif written != seen:
        return f"\nREADME.md's table of rows is not what the tests saw: scripts/test --update\n{seen}"
    return ""


def table(files: Files) -> str:
    """The rows that passed, as Markdown."""
    lines = ["| row | a real cluster's | verified by |", "|---|---|---|"]
    for number in sorted(files):
        names = ", ".join(f"`{file.removeprefix('tests/')}`" for file in sorted(files[number]))
        lines.append(f"| {number} | {ROWS[number]} | {names} |")
    return "\n".join(lines) + "\n"


def main(directory: Path, *, update: bool) -> str:
    """Put together what the parts of the suite have left in `directory`, and judge; what is wrong."""
    files: Files = {}
    for part in sorted(directory.glob("*.json")):
        seen = json.loads(part.read_text())
        if not seen["whole"]:
            return ""  # something failed or was left out: that is said already
        for number, names in seen["files"].items():
            files.setdefault(int(number), set()).update(names)
    return judge(files, update=update)


if __name__ == "__main__":
    wrong = main(Path(sys.argv[1]), update="--update" in sys.argv[2:])
    sys.exit(wrong or 0)  # an empty text would be exit code 1
