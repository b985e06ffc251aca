"""Tables of nft in a real kernel: what is committed is what is read, in nft's own words."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from nsk8s.errors import KernelError
from nsk8s.kernel import namespaces, nfmessages, nftables
from nsk8s.kernel.nfdata import Unknown
from nsk8s.kernel.programs import Enter
from nsk8s.linux import nfttext
from nsk8s.linux.nftables import (
    EMPTY,
    PLAIN,
    Chain,
    Element,
    Elements,
    Family,
    Hook,
    Set,
    Table,
    Tables,
    pieces,
    tables,
    transaction,
)

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


MORE: dict[str, tuple[str, ...]] = {
    "ip": (
        *RULES,
        "tcp dport 80 accept",
        "udp sport 1024-65535 return",
        "ip daddr 10.96.0.0/12 drop",
        "ip daddr != 192.0.2.1-192.0.2.9 drop",
        "ip saddr != { 10.0.0.0/8, 192.0.2.7, 255.255.255.0/24 } drop",
        "meta l4proto { tcp, udp } accept",
        "fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap { tcp . 80 : goto other }",
        "meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000 masquerade fully-random",
        "meta mark set meta mark | 0x00004000",
        "ct status dnat masquerade",
        'iifname "veth*" accept',
        "meta l4proto tcp dnat to 10.244.1.2:8080",
        "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 8080 }",
        "numgen random mod 1 vmap { 0 : goto other }",
        "update @recent { ip saddr }",
    ),
    "ip6": (
        "ip6 daddr fd00:10:96::/112 drop",
        "ip6 daddr != fd00::/30 drop",
        "ip6 saddr { fd00::1, fd00::2 } accept",
        "ip6 daddr . meta l4proto . th dport @triples drop",
        "meta l4proto tcp dnat to [fd00::1]:80",
        "meta l4proto tcp dnat ip6 to numgen random mod 2 map { 0 : fd00::1 . 80, 1 : fd00::2 . 80 }",
        "ip6 saddr fd00::1 reject",
    ),
    "inet": (
        "ip saddr @addresses tcp dport 80 accept",
        "ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 udp dport 53-60 accept",
        "ip6 saddr fd00::/64 sctp dport 9 accept",
        "meta nfproto ipv4 drop",
        "meta l4proto sctp drop",
        "ip daddr vmap { 10.0.0.1 : drop }",
        "reject",
    ),
}
"""More of them, by the family of the table."""


def of_rules(family: Family, rules: tuple[str, ...]) -> Tables:
    """A table with these rules in chains in which they may stand."""
    address = "ipv4_addr" if family == "ip" else "ipv6_addr"
    sets = {**TABLE.sets, "triples": Set("triples", f"{address} . inet_proto . inet_service")}
    nat = tuple(rule for rule in rules if "dnat to" in rule or "dnat ip" in rule)
    masquerade = tuple(rule for rule in rules if "masquerade" in rule)
    chains = {
        "other": Chain("other"),
        "before": Chain("before", nat, Hook("nat", "prerouting", -100)),
        "after": Chain("after", masquerade, Hook("nat", "postrouting", 100)),
        "through": Chain(
            "through",
            tuple(rule for rule in rules if rule not in (*nat, *masquerade)),
            Hook("filter", "forward", -1),
        ),
    }
    return tables(Table(family, "nsk8s-test", "", chains, sets))


@pytest.fixture
def inside() -> Iterator[Inside[object]]:
    """Runs a function in a thread that stands in a network namespace of its own, which ends with the test."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(namespaces.unshare, namespaces.CLONE_NEWNET).result()
        yield lambda work: thread.submit(work).result()


def entering() -> Enter:
    """The way into the calling thread's namespace, from any thread."""
    here = threading.get_native_id()
    return lambda _: namespaces.inside(here, "net")


def commit(actual: Tables, desired: Tables) -> list[KernelError]:
    return nftables.commit({"": pieces(transaction(actual, desired))}, entering())


def observed(*keys: tuple[str, str]) -> Tables:
    return nftables.tables({"": keys}, entering()).get("", EMPTY)


def test_nobody_waits_for_the_end_of_a_socket_but_it_comes(inside: Inside[object]) -> None:
    def open_sockets() -> list[list[str]]:
        lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()
        return [words for line in lines if (words := line.split())[1] == "12" and words[2] != "0"]

    def there_and_back() -> list[list[str]]:
        wanted = tables(TABLE)
        assert commit(EMPTY, wanted) == []
        assert commit(wanted, EMPTY) == []
        return open_sockets()

    still = inside(there_and_back)
    end = time.monotonic() + 10
    while still:
        assert time.monotonic() < end, still
        still = inside(open_sockets)


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


@pytest.mark.parametrize("family", ["ip", "ip6", "inet"])
def test_we_say_to_the_kernel_what_nft_says(inside: Inside[tuple[str, str]], family: Family) -> None:
    """The same expressions, and the same words again."""
    wanted = of_rules(family, MORE[family])
    commands = transaction(EMPTY, wanted)
    nfmessages.transaction(commands, {})  # nothing in it is unknown

    def said() -> str:
        words = ["nft", "--debug=netlink", "list", "ruleset"]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        text = re.sub(r"( set |@)(__(map|set)\d+|[a-zA-Z]\w{6})\b", r"\1anonymous", text)
        text = re.sub(r"(?m)^(\w+ nsk8s-test \S+) [\d ]+$", r"\1", text)  # without handles
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        return "\n".join(line for line in text.splitlines() if "element" not in line)

    def story() -> tuple[str, str]:
        subprocess.run(["nft", "-f", "-"], input=nfttext.script(commands), text=True, check=True)
        by_nft = said()
        assert commit(EMPTY, wanted) == []
        key = (family, "nsk8s-test")
        assert observed(key)[key].chains["through"].rules == wanted[key].chains["through"].rules
        assert observed(key) == wanted
        return by_nft, said()

    by_nft, by_us = inside(story)
    assert by_us == by_nft


@pytest.mark.parametrize(
    "rule",
    [
        "icmp type { echo-reply, echo-request } accept",
        "ct state != established accept",
        "meta mark 0x00000001 limit rate 5/second burst 9 packets accept",
    ],
)
def test_what_only_nft_understands_it_does(inside: Inside[None], rule: str) -> None:
    wanted = of_rules("ip", (rule,))
    with pytest.raises(Unknown):
        nfmessages.transaction(transaction(EMPTY, wanted), {})

    def story() -> None:
        assert commit(EMPTY, wanted) == []
        assert observed(("ip", "nsk8s-test"))["ip", "nsk8s-test"].chains["through"].rules == (rule,)

    inside(story)


def test_many_services_come_in_pieces_and_are_felt_at_once(inside: Inside[None]) -> None:
    lot = "meta l4proto tcp dnat ip to numgen random mod 2 map {{ 0 : 10.0.{0}.1 . 80, 1 : 10.0.{0}.2 . 80 }}"
    several = {f"s{n}": Chain(f"s{n}", (lot.format(n % 250),)) for n in range(1000)}
    elements = {f"10.96.{n >> 8}.{n & 255} . tcp . 80": Element(f"goto s{n}") for n in range(1000)}
    triple = "ipv4_addr . inet_proto . inet_service"
    services = Set("services", triple, "verdict", elements=elements)
    first = Chain(
        "first", ("ip daddr . meta l4proto . th dport vmap @services",), Hook("nat", "prerouting", -100)
    )
    wanted = tables(Table("ip", "many", "", {"first": first, **several}, {"services": services}))
    parts = pieces(transaction(EMPTY, wanted))
    assert len(parts) > 1
    assert all(not isinstance(c.object, Elements) for part in parts[:-1] for c in part)

    def story() -> None:
        assert commit(EMPTY, wanted) == []
        assert observed(("ip", "many")) == wanted
        assert nftables.generation() == 1 + len(parts)

    inside(story)


def test_a_transaction_that_is_refused_changes_nothing_and_names_its_cause(inside: Inside[None]) -> None:
    def story() -> None:
        assert commit(EMPTY, tables(TABLE)) == []
        chains = {**TABLE.chains, "bad": Chain("bad", ("jump nowhere",))}
        [error] = commit(tables(TABLE), tables(replace(TABLE, chains=chains)))
        assert "add rule ip nsk8s-test bad jump nowhere" in str(error)
        assert observed(TABLE.key) == tables(TABLE)

    inside(story)


def test_each_of_several_namespaces_gets_its_own() -> None:
    """What they have in common is put together once; where they differ each has what it should."""

    def of(number: int) -> Tables:
        ports = {f"tcp . {port}": PLAIN for port in (53, 80 + number)}
        rules = (
            *RULES[:number],
            f"ip daddr 10.0.0.{number} drop",
            *RULES[number:],
            "tcp dport { 1, 2 } drop",
        )
        chains = {**TABLE.chains, "filter-forward": replace(TABLE.chains["filter-forward"], rules=rules)}
        return tables(
            replace(
                TABLE,
                chains=chains,
                sets={**TABLE.sets, "ports": replace(TABLE.sets["ports"], elements=ports)},
            )
        )

    numbers = {"w0": 0, "w1": 1, "w2": 2, "w3": 3, "w4": 3}
    with ExitStack() as stack:
        ids = {}
        for name in numbers:
            thread = stack.enter_context(ThreadPoolExecutor(1))
            thread.submit(namespaces.unshare, namespaces.CLONE_NEWNET).result()
            ids[name] = thread.submit(threading.get_native_id).result()

        def enter(name: str) -> AbstractContextManager[None]:
            return namespaces.inside(ids[name], "net")

        for before, after in ((None, numbers), (numbers, dict(zip(numbers, (4, 0, 0, 4, 1), strict=True)))):
            wanted = {name: of(number) for name, number in after.items()}
            actual = {name: of(before[name]) if before else EMPTY for name in numbers}
            work = {name: pieces(transaction(actual[name], wanted[name])) for name in numbers}
            assert nftables.commit(work, enter) == []
            keys = dict.fromkeys(numbers, (("ip", "nsk8s-test"),))
            assert nftables.tables(keys, enter) == wanted
