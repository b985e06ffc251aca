"""What iptables-restore did in one namespace, to be done again in others.

All nodes have nearly the same rules, and reading 4,000 lines takes iptables-restore longer than the kernel
needs for them. So one namespace is given its script; nf_tables tells there what it has done (the
notifications that ``nft monitor`` shows), and those of the rules are what makes the same rules elsewhere.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType

from nsk8s.kernel import nfmessages
from nsk8s.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    Netlink,
    attr,
    attr_text,
    attributes,
    message,
)
from nsk8s.kernel.nfdata import PROTOCOLS, be32, nested
from nsk8s.kernel.programs import DEADLINE, Enter, Result, Running
from nsk8s.linux.values import Family

_NFNLGRP_NFTABLES = 7
_ROOM = 256 << 20
"""Octets that notifications may wait in; the kernel takes them as they come, 1 MiB for 3,000 rules."""

_PORTABLE = re.compile(r"\*|COMMIT$|:\S+ - |-X |-A (?!(?:PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING)\b)")
"""Lines that mean the same wherever the same chains are, also the second time: none that looks for a rule or
adds one to what a built-in chain holds."""
_PROTOCOL = re.compile(r" (! )?-p (\S+)")
_TABLE, _CHAIN, _EXPRESSIONS, _COMPAT, _USERDATA = 1, 2, 4, 5, 7  # NFTA_RULE_*
_INVERTED = 2  # NFT_RULE_COMPAT_F_INV
_FAMILIES: dict[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
_Rule = dict[int, bytes]


class Recording:
    """iptables-restore at work in a namespace, and what nf_tables does there meanwhile.

    It is a context manager: listening costs whoever changes rules there, and a process that nobody has
    waited for is ended.
    """

    def __init__(self, argv: tuple[str, ...], namespace: str, script: str, enter: Enter) -> None:
        self._script = script
        with enter(namespace):
            self._netlink = Netlink(NETLINK_NETFILTER)
        try:
            self._netlink.listen(_NFNLGRP_NFTABLES, _ROOM)
            self._process = Running(argv, namespace, script, enter)
        except BaseException:
            self._netlink.close()
            raise

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        self._netlink.retire()
        self._process.kill()

    def finish(self) -> Result:
        """Wait until the process ends. Raises Timeout."""
        return self._process.finish()

    def transactions(self, family: Family) -> list[list[bytes]] | None:
        """The messages that do in another namespace what the process does here, for each table, as soon as
        it has done it; may be asked once. None if that cannot be known: it failed, notifications were lost,
        or others than its own were among them."""
        try:
            rules = self._rules(self._script.count("COMMIT\n"))
            return None if rules is None else list(_transactions(self._script, rules, family))
        except (OSError, _OtherRules, KeyError):
            return None

    def _rules(self, transactions: int) -> list[_Rule] | None:
        """The rules of so many transactions. None if the process ends after another number of them."""
        rules: list[_Rule] = []
        done = 0
        ended = os.pidfd_open(self._process.pid)
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.register(self._netlink, select.POLLIN)
            over = False
            while done < transactions and not over:
                ready = dict(poll.poll(DEADLINE * 1000))
                over = not ready or ended in ready
                for kind, body in self._netlink.heard():
                    if kind == nfmessages.NEWRULE:
                        rules.append(attributes(body, 4))
                    done += kind == nfmessages.NEWGEN
            return rules if done == transactions else None
        finally:
            os.close(ended)
            self._netlink.ignore(_NFNLGRP_NFTABLES)  # it would slow down those who do it again


class _OtherRules(Exception):
    """The rules are not those of the script."""


def portable(script: str) -> bool:
    """Whether a script does the same wherever the same chains are."""
    return all(map(_PORTABLE.match, script.splitlines()))


def _transactions(script: str, rules: Sequence[_Rule], family: Family) -> Iterator[list[bytes]]:
    coming = iter(rules)
    header = struct.pack(">BBH", _FAMILIES[family], 0, 0)
    table = head = b""
    messages: list[bytes] = []
    for line in script.splitlines():
        first, _, rest = line.partition(" ")
        name = rest.partition(" ")[0]
        if first[0] == "*":
            table = first[1:].encode() + b"\0"
            head = header + attr(_TABLE, table)
            messages = []
        elif first[0] == ":":
            # Made where it is not there, and emptied where it is.
            messages.append(message(nfmessages.NEWCHAIN, NLM_F_CREATE, 0, head + attr_text(3, first[1:])))
            messages.append(message(nfmessages.DELRULE, 0, 0, head + attr_text(_CHAIN, first[1:])))
        elif first == "-A":
            rule = next(coming, {})
            if (rule.get(_TABLE), rule.get(_CHAIN)) != (table, name.encode() + b"\0"):
                raise _OtherRules
            messages.append(_rule(head, line, rule))
        elif first == "-X":
            messages.append(message(nfmessages.DELCHAIN, 0, 0, head + attr_text(3, name)))
        else:
            yield [b"".join(nfmessages.enclosed(messages))]  # once for all
    if next(coming, None):
        raise _OtherRules


def _rule(head: bytes, line: str, rule: _Rule) -> bytes:
    parts = [head, attr(_CHAIN, rule[_CHAIN]), nested(_EXPRESSIONS, rule[_EXPRESSIONS])]
    # A match of a protocol wants to know it (nft_compat), and the kernel does not tell it again.
    if found := _PROTOCOL.search(line.partition(" -m ")[0]):
        parts.append(nested(_COMPAT, be32(1, PROTOCOLS[found[2]]), be32(2, _INVERTED if found[1] else 0)))
    if note := rule.get(_USERDATA):
        parts.append(attr(_USERDATA, note))
    return message(nfmessages.NEWRULE, NLM_F_CREATE | NLM_F_APPEND, 0, b"".join(parts))
