"""Tables of nft in a real kernel: what is committed is what is read, in nft's own words."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

import pytest

from nsk8s.errors import KernelError
from nsk8s.kernel import namespaces, nftables
from nsk8s.linux import nfttext
from nsk8s.linux.nftables import EMPTY, PLAIN, Chain, Element, Hook, Set, Table, Tables, tables, transaction

pytestmark = pytest.mark.netns

T = TypeVar("T")
Inside = Callable[[Callable[[], T]], T]

RULES = (
    "ct state established,related accept",
    "ct state new jump other",
    "ip daddr @addresses drop",
    "ip saddr 10.244.0.0/16 ip daddr != 10.96.0.0/12 return",
    "ip daddr . meta l4proto . th dport vmap @verdicts",
    'meta l4proto . th dport @ports accept comment "some ports"',
    'iifname "cni0" oifname != "eth0" counter packets 0 bytes 0 drop',
)
"""Of rules that anybody here writes, as nft prints them."""

TABLE = Table(
    "ip",
    "nsk8s-test",
    "a table",
    {
        "filter-forward": Chain("filter-forward", RULES, Hook("filter", "forward", 0)),
        "before": Chain("before", ("jump other",), Hook("nat", "prerouting", -110)),
        "other": Chain("other", ("reject",), comment="helper for @verdicts"),
    },
    {
        "addresses": Set(
            "addresses",
            "ipv4_addr",
            flags=("interval",),
            comment="where: to",
            elements=dict.fromkeys(("10.0.0.0/8", "192.0.2.1", "198.51.100.1-198.51.100.9"), PLAIN),
        ),
        "ports": Set(
            "ports", "inet_proto . inet_service", elements={"udp . 53": Element("", "dns, of course")}
        ),
        "verdicts": Set(
            "verdicts",
            "ipv4_addr . inet_proto . inet_service",
            "verdict",
            elements={
                "10.96.0.1 . tcp . 443": Element("goto other"),
                "10.96.0.10 . udp . 53": Element("drop", "kube-system/kube-dns:dns"),
            },
        ),
        "recent": Set("recent", "ipv4_addr", flags=("dynamic", "timeout"), timeout=10800, size=65535),
    },
)


@pytest.fixture
def inside() -> Iterator[Inside[object]]:
    """Runs a function in a thread that stands in a network namespace of its own, which ends with the test."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(namespaces.unshare, namespaces.CLONE_NEWNET).result()
        yield lambda work: thread.submit(work).result()


def commit(actual: Tables, desired: Tables) -> list[KernelError]:
    return nftables.commit({"": transaction(actual, desired)}, lambda _: nullcontext())


def observed(*keys: tuple[str, str]) -> Tables:
    return nftables.tables({"": keys}, lambda _: nullcontext()).get("", EMPTY)


def changed() -> Tables:
    """The table with a rule less and another, elements less and more, and a set of another type."""
    chains, sets = dict(TABLE.chains), dict(TABLE.sets)
    chains["other"] = replace(chains["other"], rules=("drop",))
    chains["more"] = Chain("more", ("return",))
    sets["ports"] = replace(sets["ports"], comment="of others")
    verdicts = {"10.96.0.1 . tcp . 443": Element("goto more"), "10.96.0.9 . tcp . 80": Element("goto other")}
    sets["verdicts"] = replace(sets["verdicts"], elements=verdicts)
    sets["addresses"] = replace(sets["addresses"], elements={"10.0.0.0/8": PLAIN, "192.0.2.2": PLAIN})
    del sets["recent"], chains["before"]
    return tables(replace(TABLE, chains=chains, sets=sets))


def test_what_is_committed_is_what_is_read(inside: Inside[None]) -> None:
    def story() -> None:
        assert nftables.untouched()
        assert observed(TABLE.key) == EMPTY
        made, after = tables(TABLE), changed()
        assert commit(EMPTY, made) == []
        assert nftables.generation() == 2
        assert observed(TABLE.key) == made
        assert commit(made, after) == []
        assert nftables.generation() == 3
        assert observed(TABLE.key) == after
        assert commit(after, made) == []
        assert observed(TABLE.key) == made
        assert commit(made, EMPTY) == []
        assert observed(TABLE.key) == EMPTY
        assert not nftables.untouched()

    inside(story)


def test_it_is_what_nft_itself_prints(inside: Inside[str]) -> None:
    """To the letter, but for how many elements stand on a line and in which order."""
    few = {
        name: replace(one, elements=dict(list(one.elements.items())[:1])) for name, one in TABLE.sets.items()
    }
    held = tables(replace(TABLE, sets=few))

    def story() -> str:
        assert commit(EMPTY, held) == []
        return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout

    assert inside(story) == nfttext.render(held)


def test_a_transaction_that_is_refused_changes_nothing_and_names_its_cause(inside: Inside[None]) -> None:
    def story() -> None:
        assert commit(EMPTY, tables(TABLE)) == []
        chains = {**TABLE.chains, "bad": Chain("bad", ("jump nowhere",))}
        [error] = commit(tables(TABLE), tables(replace(TABLE, chains=chains)))
        assert "add rule ip nsk8s-test bad jump nowhere" in str(error)
        assert observed(TABLE.key) == tables(TABLE)

    inside(story)
