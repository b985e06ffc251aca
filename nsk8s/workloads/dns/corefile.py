"""The part of CoreDNS's configuration that is acted on: whom to ask about names outside the zone."""

from __future__ import annotations

from ipaddress import ip_address

MOST = 15
"""Upstreams that are taken (plugin forward)."""


def upstreams(corefile: str) -> tuple[str, ...]:
    """The addresses of ``forward . ADDRESS...``; those with a port or a protocol of their own, and files, are
    left out: the nodes have no resolver."""
    found: list[str] = []
    for line in corefile.splitlines():
        words = line.partition("#")[0].split()
        if words[:2] != ["forward", "."]:
            continue
        for word in words[2:]:
            try:
                found.append(str(ip_address(word)))
            except ValueError:
                continue
    return tuple(dict.fromkeys(found))[:MOST]
