"""Tables of nft(8) in many namespaces: transactions, and reading them back.

What is written goes to the kernel by netlink, for nft(8) itself takes 100 ms to add a rule to a table of ten
thousand services, most of it for reading what is there. What is read nft says in its own words.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import chain

from nsk8s.errors import KernelError
from nsk8s.kernel import nfmessages
from nsk8s.kernel.netlink import NETLINK_NETFILTER, Netlink, attributes
from nsk8s.kernel.nfdata import Unknown
from nsk8s.kernel.nfmessages import Known
from nsk8s.kernel.programs import Enter, Result, run
from nsk8s.linux import nfttext
from nsk8s.linux.nftables import Command, Key, Tables

_NFT_MSG_GETGEN = (10 << 8) | 16  # NFNL_SUBSYS_NFTABLES
_NFTA_GEN_ID = 1
_LACKS = "this kernel may lack a part of nf_tables: nsk8s doctor"
_HINTS = dict.fromkeys((errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT, errno.EINVAL), _LACKS)
_LINE = re.compile(r":(\d+):\d+")
_ABSENT = "No such file or directory"


def commit(transactions: Mapping[str, Sequence[Sequence[Command]]], enter: Enter) -> list[KernelError]:
    """Carry out transactions in each namespace (by name), one after the other: each of them whole or not at
    all. After one that fails the namespace's others are left out. Returns the failures.

    Those of several namespaces go on together, and what most of them get is put together once.
    """
    longest = max(map(len, transactions.values()), default=0) if len(transactions) > 1 else 0
    known: list[Known] = [{} for _ in range(longest)]
    done: list[Future[list[KernelError]]] = []
    try:
        for name, several in transactions.items():
            done.append(_threads().submit(_all, name, several, _socket(name, enter), enter, known))
        return list(chain.from_iterable(one.result() for one in done))
    finally:
        wait(done)


def send(batches: Mapping[str, Sequence[Sequence[bytes]]], enter: Enter) -> set[str]:
    """Send each namespace (by name) transactions that are messages already, one after the other. Returns the
    namespaces in which one was refused, or too long for a socket; what follows it was not sent there."""
    done: dict[str, Future[bool]] = {}
    try:
        for name, several in batches.items():
            done[name] = _threads().submit(_accepted, several, _socket(name, enter))
        return {name for name, one in done.items() if not one.result()}
    finally:
        wait(done.values())


def _accepted(several: Sequence[Sequence[bytes]], netlink: Netlink) -> bool:
    try:
        return not any(map(netlink.whole, several))
    except OSError:
        return False
    finally:
        netlink.retire()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    # To start a thread takes longer than most transactions where another one keeps the interpreter busy.
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="nft")


def _socket(name: str, enter: Enter) -> Netlink:
    with enter(name):
        return Netlink(NETLINK_NETFILTER)


def _all(
    name: str, several: Sequence[Sequence[Command]], netlink: Netlink, enter: Enter, known: Sequence[Known]
) -> list[KernelError]:
    try:
        for commands, messages in _prepared(several, known):
            if messages is None:
                failed = _by_nft(name, commands, enter)
            else:
                failed = _by_netlink(name, commands, messages, netlink)
            if failed:
                return failed
        return []
    finally:
        netlink.retire()


def _prepared(
    several: Sequence[Sequence[Command]], known: Sequence[Known]
) -> Iterator[tuple[Sequence[Command], Sequence[bytes] | None]]:
    """Transactions with their messages: those of the next are put together while the kernel works on one."""

    def messages(number: int) -> Sequence[bytes] | None:
        return _messages(several[number], known[number] if known else {})

    if len(several) == 1:
        yield several[0], messages(0)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="nft-messages") as thread:
        coming = thread.submit(messages, 0)
        for number, commands in enumerate(several):
            made = coming.result()
            if number + 1 < len(several):
                coming = thread.submit(messages, number + 1)
            yield commands, made


def _messages(commands: Sequence[Command], known: Known) -> Sequence[bytes] | None:
    """None if only nft itself understands them."""
    try:
        return nfmessages.transaction(commands, known)
    except Unknown:
        return None


def _by_netlink(
    name: str, commands: Sequence[Command], messages: Sequence[bytes], netlink: Netlink
) -> list[KernelError]:
    refused = netlink.whole(messages)
    if not refused:
        return []
    number, refusal = min(refused.items())
    said = nfttext.command(commands[number])[:1000] if number < len(commands) else "the transaction"
    hint = "; ".join(filter(None, (refusal.reason, _HINTS.get(refusal.errno, ""))))
    return [KernelError(refusal.errno, f"nft {said}", name, hint=hint)]


def _by_nft(name: str, commands: Sequence[Command], enter: Enter) -> list[KernelError]:
    """What is beyond our own words nft itself understands."""
    script = nfttext.script(commands)
    return [_failure(one, script) for one in run(("nft", "-f", "-"), {name: script}, enter) if one.status]


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
    netlink = Netlink(NETLINK_NETFILTER)
    try:
        return _generation(netlink)
    finally:
        netlink.retire()


def _generation(netlink: Netlink) -> int:
    answer = netlink.get(_NFT_MSG_GETGEN, bytes(4))
    return int.from_bytes(attributes(answer, 4)[_NFTA_GEN_ID], "big")


def untouched() -> bool:
    """Whether the calling thread's namespace has never had a table."""
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            return _generation(netlink) == 1
    except OSError:  # a kernel without nf_tables
        return True


def _failure(result: Result, script: str) -> KernelError:
    """The error, with the command that nft points at."""
    lines = script.splitlines()
    found = _LINE.search(result.errors)
    number = int(found[1]) if found else 0
    culprit = f"; command {number} is: {lines[number - 1][:1000]}" if 0 < number <= len(lines) else ""
    return KernelError(errno.EINVAL, "nft -f -", result.namespace, hint=result.errors[:2000] + culprit)
