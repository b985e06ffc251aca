"""One namespace is given a script, and the others what it has done: the rules of all are the same ones."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from nsk8s.kernel import iptables, namespaces, nftables
from nsk8s.kernel.netlink import NETLINK_NETFILTER, Netlink
from nsk8s.kernel.programs import Enter
from nsk8s.linux.values import Family

pytestmark = pytest.mark.netns

NODES = ("w1", "w2", "w3", "w4")

# What kube-proxy, kubelet, flannel and portmap write, and what else wants to know its protocol.
FIRST = """\
*filter
:KUBE-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
-A KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m comment --comment "default/no:http" -m tcp --dport 80 -j REJECT
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-FORWARD -p icmp -m icmp --icmp-type 8/0 -m limit --limit 5/sec -j ACCEPT
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-NODEPORTS - [0:0]
:CNI-DN-A - [0:0]
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -m comment --comment "traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SEP-A -s 10.244.1.2/32 -m comment --comment "not -p udp" -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p tcp -m comment --comment "web:http" -m tcp -j DNAT --to-destination 10.244.1.2:8080
-A KUBE-SVC-A ! -s 10.244.0.0/16 -d 10.96.100.10/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-A -m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-A --rsource -j KUBE-SEP-A
-A KUBE-SVC-A -m statistic --mode random --probability 0.33333333349 -j KUBE-SEP-A
-A KUBE-NODEPORTS ! -p tcp -m addrtype --dst-type LOCAL -j RETURN
-A CNI-DN-A -p tcp -m comment --comment "id: \\"0\\"" -m multiport --dports 80,81 -j KUBE-MARK-MASQ
COMMIT
"""
# One service has moved, another one is gone, a third is new.
SECOND = """\
*nat
:KUBE-SEP-A - [0:0]
:CNI-DN-A - [0:0]
:KUBE-SVC-B - [0:0]
-A KUBE-SEP-A -p udp -m udp -j DNAT --to-destination 10.244.1.3:8080
-A KUBE-SVC-B -m comment --comment "default/b" -j KUBE-SEP-A
-X CNI-DN-A
COMMIT
"""
SIX = """\
*filter
:KUBE-FORWARD - [0:0]
-A KUBE-FORWARD -d fd00:10:96::a/128 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp6-port-unreachable
-A KUBE-FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT
COMMIT
"""
STARTS = {4: "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n*nat\n-A PREROUTING -j ACCEPT\nCOMMIT\n"}
STARTS[6] = STARTS[4]


class Nodes:
    """Network namespaces, by name, and how often iptables-restore has run."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._processes = {name: self._start() for name in (*NODES, "alone")}

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        words = ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # the namespace is there
        return process

    def close(self) -> None:
        for process in self._processes.values():
            assert process.stdout is not None
            process.stdout.close()
            process.kill()
            process.wait()

    def enter(self, name: str) -> AbstractContextManager[None]:
        return namespaces.inside(self._processes[name].pid, "net")

    def run(self, name: str, *argv: str) -> str:
        words = ["nsenter", "--net", f"--target={self._processes[name].pid}", *argv]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout

    def begin(self, family: Family = 4) -> None:
        """Tables and built-in chains, on each of them."""
        for name in self._processes:
            assert iptables.restore({name: STARTS[family]}, self.enter, family) == []
        self._log.write_text("")

    def restore(self, script: str, family: Family = 4) -> tuple[list[str], int]:
        """What failed on the nodes, and how many times the program has run for it."""
        before = len(self.log())
        failures = iptables.restore(dict.fromkeys(NODES, script), self.enter, family)
        return [one.namespace for one in failures], len(self.log()) - before

    def log(self) -> list[str]:
        return self._log.read_text().splitlines()

    def rules(self, name: str, family: Family = 4) -> list[str]:
        """As iptables-save has them, and the expressions as the kernel has them, to the byte."""
        program = "iptables" if family == 4 else "ip6tables"
        saved = self.run(name, f"{program}-save").splitlines()
        kernel = self.run(name, "nft", "--debug=netlink", "list", "ruleset").splitlines()
        return [line for line in saved if not line.startswith("#")] + kernel


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    if iptables.backend() != "nf_tables":
        pytest.skip("iptables here is the legacy one: each namespace is given its script")
    log = tmp_path / "log"
    log.write_text("")
    for program in ("iptables-restore", "ip6tables-restore"):
        wrapper = tmp_path / program
        wrapper.write_text(f'#!/bin/sh\necho {program} >> {log}\nexec {shutil.which(program)} "$@"\n')
        wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    nodes = Nodes(log)
    yield nodes
    nodes.close()


@pytest.mark.parametrize(("scripts", "family"), [([FIRST, SECOND, FIRST, SECOND], 4), ([SIX, SIX], 6)])
def test_all_have_the_rules_of_one_that_was_given_the_script(
    nodes: Nodes, scripts: list[str], family: Family
) -> None:
    nodes.begin(family)
    for script in scripts:
        assert nodes.restore(script, family) == ([], 1)
        assert iptables.restore({"alone": script}, nodes.enter, family) == []
        expected = nodes.rules("alone", family)
        assert any("KUBE-FORWARD" in line and "ACCEPT" in line for line in expected)
        for name in NODES:
            assert nodes.rules(name, family) == expected, name


def test_where_it_cannot_be_repeated_the_script_is_given(nodes: Nodes) -> None:
    """Nowhere is a table yet: only the program makes those."""
    assert nodes.restore(SIX, 6) == ([], len(NODES))
    assert len({tuple(nodes.rules(name, 6)) for name in NODES}) == 1
    assert any("icmp6" in line for line in nodes.rules("w4", 6))


def test_one_that_has_other_chains_fails_alone(nodes: Nodes) -> None:
    nodes.begin()
    assert nodes.restore(FIRST) == ([], 1)
    for name in ("KUBE-SVC-B", "KUBE-SEP-A"):
        nodes.run("w3", "iptables", "-t", "nat", "-N" if name == "KUBE-SVC-B" else "-F", name)
    nodes.run("w3", "iptables", "-t", "nat", "-F", "KUBE-SVC-A")
    nodes.run("w3", "iptables", "-t", "nat", "-X", "KUBE-SEP-A")
    script = "*nat\n:KUBE-SVC-B - [0:0]\n-A KUBE-SVC-B -j KUBE-SEP-A\nCOMMIT\n"
    assert nodes.restore(script) == (["w3"], 2)
    assert "-A KUBE-SVC-B -j KUBE-SEP-A" in nodes.rules("w4")
    assert "-A KUBE-SVC-B -j KUBE-SEP-A" not in nodes.rules("w3")


def test_a_script_that_is_wrong_fails_everywhere_and_changes_nothing(nodes: Nodes) -> None:
    nodes.begin()
    assert nodes.restore(FIRST) == ([], 1)
    before = nodes.rules("w1")
    wrong = "*nat\n:KUBE-SVC-A - [0:0]\n-A KUBE-SVC-A -j KUBE-NO-SUCH\nCOMMIT\n"
    failed, runs = nodes.restore(wrong)
    assert (sorted(failed), runs) == (list(NODES), len(NODES))
    assert all(nodes.rules(name) == before for name in NODES)


def test_what_somebody_else_changes_meanwhile_is_repeated_nowhere(nodes: Nodes, tmp_path: Path) -> None:
    nodes.begin()
    wrapper = tmp_path / "iptables-restore"
    once = f"[ -e {tmp_path}/done ] || {{ touch {tmp_path}/done; iptables -A FORWARD -j ACCEPT; }}"
    text = wrapper.read_text()
    wrapper.write_text(text.replace("exec ", f"{once}\nexec "))
    assert nodes.restore(FIRST) == ([], len(NODES))
    assert "-A FORWARD -j ACCEPT" in nodes.rules("w1")
    others = [nodes.rules(name) for name in NODES[1:]]
    assert all("-A FORWARD -j ACCEPT" not in rules for rules in others)
    assert others[0] == others[1] == others[2]
    assert any("KUBE-SVC-A" in line for line in others[0])


def test_where_the_kernel_takes_no_long_messages_the_script_is_given(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a user namespace, where nobody may make a socket's buffer larger than is usual."""
    nodes.begin()

    def too_long(_self: Netlink, _messages: list[bytes]) -> None:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))

    monkeypatch.setattr(Netlink, "whole", too_long)
    assert nodes.restore(FIRST) == ([], len(NODES))
    assert nodes.rules("w4") == nodes.rules("w1")
    assert any("KUBE-SVC-A" in line for line in nodes.rules("w4"))


@pytest.mark.parametrize(
    "line", ["-A INPUT -j KUBE-FORWARD", "-I INPUT 1 -j KUBE-FORWARD", "-D INPUT -j ACCEPT"]
)
def test_what_depends_on_a_built_in_chain_is_given_to_each(nodes: Nodes, line: str) -> None:
    """Added a second time, after a failure, it would be there twice."""
    nodes.begin()
    assert nodes.restore(f"*filter\n:KUBE-FORWARD - [0:0]\n{line}\nCOMMIT\n") == ([], len(NODES))


def test_few_are_given_the_script_each(nodes: Nodes) -> None:
    nodes.begin()
    before = len(nodes.log())
    assert iptables.restore(dict.fromkeys(NODES[:2], FIRST), nodes.enter) == []
    assert len(nodes.log()) - before == 2


def test_nobody_listens_while_the_others_get_their_rules(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would put notifications together for all of them."""
    nodes.begin()
    listening: list[list[int]] = []
    really = nftables.send

    def send(again: dict[str, list[list[bytes]]], enter: Enter) -> set[str]:
        listening.append(_listeners(nodes, NODES[0]))
        return really(again, enter)

    monkeypatch.setattr(nftables, "send", send)
    with nodes.enter(NODES[0]):
        netlink = Netlink(NETLINK_NETFILTER)
    netlink.listen(7, 4096)
    assert len(_listeners(nodes, NODES[0])) == 1  # this is how one is seen
    netlink.close()
    assert nodes.restore(FIRST) == ([], 1)
    assert listening == [[]]


def _listeners(nodes: Nodes, name: str) -> list[int]:
    """The port numbers of sockets in a namespace that are told of changes to nf_tables."""
    with nodes.enter(name), open("/proc/thread-self/net/netlink", encoding="ascii") as file:
        rows = [line.split() for line in file][1:]
    tables = 1 << 7 - 1
    return [int(row[2]) for row in rows if int(row[1]) == NETLINK_NETFILTER and int(row[3], 16) & tables]
