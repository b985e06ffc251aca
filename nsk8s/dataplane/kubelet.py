"""The iptables chains that a kubelet leaves on its node, in save form.

Source: pkg/kubelet kubelet_network_linux.go, since 1.28 (no KUBE-MARK-DROP any more). The canary
is how kubelet and kube-proxy notice that somebody flushed the tables; the hint tells other programs
which iptables backend is in use. All but KUBE-FIREWALL are empty.
"""

from __future__ import annotations

from nsk8s.linux.values import Chain

FIREWALL = Chain(
    "KUBE-FIREWALL",
    (
        '! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" '
        "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
    ),
)
CANARY = Chain("KUBE-KUBELET-CANARY")
HINT = Chain("KUBE-IPTABLES-HINT")

NAMES = (FIREWALL.name, CANARY.name, HINT.name)
"""All chains that a kubelet leaves."""

JUMP = "-j KUBE-FIREWALL"
"""In filter INPUT and OUTPUT; kubelet comes first on a node, so everybody else's prepended jumps stand
above it."""

CHAINS: dict[str, tuple[Chain, ...]] = {
    "mangle": (HINT, CANARY),
    "nat": (CANARY,),
    "filter": (FIREWALL, CANARY),
}
CHAINS6 = {**CHAINS, "filter": (CANARY,)}
"""IPv6 has nothing to block: no more than one address is loopback's, and none is routed there."""
