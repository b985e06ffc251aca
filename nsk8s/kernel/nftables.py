"""Tables of nft(8) in many namespaces at once: one transaction for each, and reading them back."""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterable, Mapping

from nsk8s.errors import KernelError
from nsk8s.kernel.netlink import NETLINK_NETFILTER, Netlink, attributes
from nsk8s.kernel.programs import Enter, Result, run
from nsk8s.linux import nfttext
from nsk8s.linux.nftables import Command, Key, Tables

_NFT_MSG_GETGEN = (10 << 8) | 16  # NFNL_SUBSYS_NFTABLES
_NFTA_GEN_ID = 1
_LINE = re.compile(r":(\d+):\d+")
_ABSENT = "No such file or directory"


def commit(transactions: Mapping[str, Iterable[Command]], enter: Enter) -> list[KernelError]:
    """Carry out one transaction in each namespace (by name): all of it or nothing. One that fails does not
    keep the others. Returns the failures."""
    scripts = {name: nfttext.script(commands) for name, commands in transactions.items()}
    results = run(("nft", "-f", "-"), scripts, enter)
    return [_failure(one, scripts[one.namespace]) for one in results if one.status != 0]


def tables(wanted: Mapping[str, Collection[Key]], enter: Enter) -> dict[str, Tables]:
    """Of the tables asked for, by namespace, those that are there. Raises KernelError."""
    found: dict[str, Tables] = {}
    for key in {key for keys in wanted.values() for key in keys}:
        words = ("nft", "list", "table", *key)
        for result in run(words, {name: "" for name, keys in wanted.items() if key in keys}, enter):
            if result.status == 0:
                found[result.namespace] = {
                    **found.get(result.namespace, {}),
                    **nfttext.parse(result.output.decode()),
                }
            elif _ABSENT not in result.errors:
                raise KernelError(errno.EINVAL, " ".join(words), result.namespace, hint=result.errors)
    return found


def generation() -> int:
    """The number of the nf_tables rule set in the calling thread's namespace: every transaction by anybody,
    of nft or of the iptables that speaks nf_tables, adds to it. Raises OSError if the kernel has none."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        answer = netlink.get(_NFT_MSG_GETGEN, bytes(4))
    return int.from_bytes(attributes(answer, 4)[_NFTA_GEN_ID], "big")


def untouched() -> bool:
    """Whether the calling thread's namespace has never had a table."""
    try:
        return generation() == 1
    except OSError:  # a kernel without nf_tables
        return True


def _failure(result: Result, script: str) -> KernelError:
    """The error, with the command that nft points at."""
    lines = script.splitlines()
    found = _LINE.search(result.errors)
    number = int(found[1]) if found else 0
    culprit = f"; command {number} is: {lines[number - 1][:1000]}" if 0 < number <= len(lines) else ""
    return KernelError(errno.EINVAL, "nft -f -", result.namespace, hint=result.errors[:2000] + culprit)
