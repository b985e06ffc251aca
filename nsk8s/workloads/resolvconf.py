"""A container's /etc/resolv.conf, as the kubelet composes it (pkg/kubelet/network/dns, GetPodDNS) and
containerd writes it. Pure text."""

from __future__ import annotations

from collections.abc import Iterable

from nsk8s.api.types import Pod

ZONE = "cluster.local"
"""The cluster's DNS zone."""

NAMESERVERS = 3
"""Most nameservers; glibc takes no more (MaxDNSNameservers)."""
SEARCHES = 32
"""Most domains in the search list (MaxDNSSearchPaths)."""
SEARCH_CHARACTERS = 2048
"""Longest search list, with its spaces (MaxDNSSearchListChars)."""
DOMAIN_CHARACTERS = 253

NO_RESOLVER = "# dnsPolicy Default: the nodes have no resolver of their own\n"
"""What a pod inherits from its node."""


def resolv_conf(pod: Pod, dns: str) -> str:
    """/etc/resolv.conf. `dns` is the cluster's DNS address; while there is none, no nameserver is named,
    so that a look-up fails at once instead of waiting for nobody."""
    spec = pod.spec
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str] = {}
    inherits = spec.dnsPolicy == "Default" or (spec.dnsPolicy == "ClusterFirst" and spec.hostNetwork)
    if spec.dnsPolicy != "None" and not inherits:
        servers = [dns] if dns else []
        searches = [f"{pod.metadata.namespace}.svc.{ZONE}", f"svc.{ZONE}", ZONE]
        options = {"ndots": "5"}
    if spec.dnsConfig is not None:
        servers += spec.dnsConfig.nameservers
        searches += spec.dnsConfig.searches
        options |= {option.name: option.value or "" for option in spec.dnsConfig.options}
    lines = []
    if fitting := _fitting(searches):
        lines.append(f"search {' '.join(fitting)}\n")
    lines += [f"nameserver {server}\n" for server in list(dict.fromkeys(servers))[:NAMESERVERS]]
    if options:
        words = (f"{name}:{value}" if value else name for name, value in options.items())
        lines.append(f"options {' '.join(words)}\n")
    return (NO_RESOLVER if inherits else "") + "".join(lines)


def _fitting(searches: Iterable[str]) -> list[str]:
    """The search list without duplicates, cut to what fits (formDNSSearchFitsLimits)."""
    first = list(dict.fromkeys(searches))[:SEARCHES]
    kept = [domain for domain in first if len(domain) <= DOMAIN_CHARACTERS]
    while len(" ".join(kept)) > SEARCH_CHARACTERS:
        kept.pop()
    return kept
