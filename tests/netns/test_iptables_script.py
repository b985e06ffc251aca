"""Scripts for iptables-restore, accepted by the real one: the kernel ends where the model says."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from nsk8s.linux.iptables import EMPTY, apply, parse, render, script, settled
from nsk8s.linux.values import Chain, Ruleset

pytestmark = pytest.mark.netns

OWN = ("KUBE-", "CNI-", "FLANNEL-")
ALL = ("",)
SVC, SEP = "KUBE-SVC-CDGGSHYLG3RE2FKL", "KUBE-SEP-UIQK3OSOSTRHRPBX"
PORTALS = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
MASQ = '-m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ'
POSTROUTING = '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'
FLANNEL = '-m comment --comment "flanneld masq" -j FLANNEL-POSTRTG'
TO_SVC = (
    f'-d 10.96.100.10/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80 -j {SVC}'
)
REJECT = (
    '-d 10.96.0.9/32 -p tcp -m comment --comment "default/no:http has no endpoints" -m tcp --dport 80 '
    "-j REJECT --reject-with icmp-port-unreachable"
)


def ruleset(nat: list[Chain], *filters: Chain) -> Ruleset:
    tables = {"nat": nat, "filter": filters, "mangle": [Chain("KUBE-PROXY-CANARY")]}
    return Ruleset({table: {chain.name: chain for chain in chains} for table, chains in tables.items()})


BASE = [
    Chain("PREROUTING", (PORTALS,), True, 1),
    Chain("POSTROUTING", (POSTROUTING, FLANNEL), True, 1),
    Chain("KUBE-MARK-MASQ", ("-j MARK --set-xmark 0x4000/0x4000",)),
    Chain(
        "KUBE-POSTROUTING",
        (
            "-m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-j MARK --set-xmark 0x4000/0x0",
            '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
        ),
    ),
    Chain("FLANNEL-POSTRTG", ("-s 10.244.0.0/16 -d 10.244.0.0/16 -j RETURN",)),
]
SERVICE = [
    Chain(
        SVC,
        (
            '-m comment --comment "default/web:http -> 10.244.1.2:8080" -m statistic --mode random '
            f"--probability 0.33333333349 -j {SEP}",
            f'-m comment --comment "default/web:http -> 10.244.1.2:8080" -m recent --rcheck --seconds 10800 '
            f"--reap --name {SEP} --mask 255.255.255.255 --rsource -j {SEP}",
        ),
    ),
    Chain(
        SEP,
        (
            '-s 10.244.1.2/32 -m comment --comment "default/web:http" -j KUBE-MARK-MASQ',
            '-p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.244.1.2:8080',
        ),
    ),
]
EXTERNAL = Chain("KUBE-EXTERNAL-SERVICES", (REJECT,))
FORWARD = Chain("FORWARD", ("-m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES",), True, 1)
HOSTPORT = [
    Chain("POSTROUTING", (MASQ, POSTROUTING, FLANNEL), True, 2),
    Chain("CNI-HOSTPORT-MASQ", ("-m mark --mark 0x2000/0x2000 -j MASQUERADE",)),
    Chain(
        "CNI-DN-0123456789abcdef01234",
        (
            '-p tcp -m comment --comment "dnat name: \\"cbr0\\" id: \\"0123\\"" -m multiport --dports 80,81 '
            "-j DNAT --to-destination 10.244.1.2:80",
        ),
    ),
]

WITHOUT = ruleset([*BASE, Chain("KUBE-SERVICES")], EXTERNAL, FORWARD)
WITH = ruleset([*BASE, *SERVICE, Chain("KUBE-SERVICES", (TO_SVC,))], Chain("KUBE-EXTERNAL-SERVICES"))
PORTS = ruleset([*BASE, *HOSTPORT, Chain("KUBE-SERVICES")], EXTERNAL, FORWARD)

FOREIGN = """\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
*filter
-A FORWARD -i docker0 -j ACCEPT
COMMIT
"""


class Kernel:
    """A scratch network namespace with the given iptables (`nft` or `legacy`)."""

    def __init__(self, variant: str) -> None:
        words = ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # the namespace is there
        self._variant = variant

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()

    def restore(self, text: str) -> None:
        self._run(f"iptables-{self._variant}-restore", "--noflush", "--counters", text=text)

    def save(self) -> str:
        return self._run(f"iptables-{self._variant}-save")

    def save_with_counters(self) -> str:
        return self._run(f"iptables-{self._variant}-save", "-c")

    def _run(self, *argv: str, text: str = "") -> str:
        words = ["nsenter", "--net", f"--target={self._process.pid}", *argv]
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{text}"
        return done.stdout


@pytest.fixture(params=["nft", "legacy"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    variant: str = request.param
    if shutil.which(f"iptables-{variant}-restore") is None:
        pytest.skip(f"iptables-{variant}-restore is not installed")
    kernel = Kernel(variant)
    yield kernel
    kernel.close()


def step(kernel: Kernel, desired: Ruleset) -> str:
    """Lead the kernel to `desired` and compare it with the model, all of it; returns the script."""
    before = kernel.save()
    text = script(parse(before, OWN), desired)
    kernel.restore(text)
    after = kernel.save()
    assert parse(after, ALL) == parse(render(apply(parse(before, ALL), text)), ALL)
    assert settled(parse(after, OWN), desired) is desired
    assert script(parse(after, OWN), desired) == ""
    return text


@pytest.mark.parametrize("crowd", ["", FOREIGN], ids=["alone", "with foreign rules"])
def test_the_kernel_ends_where_the_model_says(kernel: Kernel, crowd: str) -> None:
    kernel.restore(crowd)
    others = parse(kernel.save(), ALL)
    for desired in (WITHOUT, WITH, PORTS, WITH, WITHOUT, PORTS):
        step(kernel, desired)
    assert step(kernel, EMPTY)
    assert parse(kernel.save(), ALL) == others


def test_what_stands_below_a_foreign_rule_comes_back_to_the_top(kernel: Kernel) -> None:
    step(kernel, WITHOUT)
    kernel.restore("*nat\n-I POSTROUTING 1 -j ACCEPT\nCOMMIT\n")
    text = step(kernel, WITHOUT)
    assert "*filter" not in text
    saved = [line for line in kernel.save().splitlines() if line.startswith("-A POSTROUTING")]
    assert saved == [f"-A POSTROUTING {rule}" for rule in (POSTROUTING, "-j ACCEPT", FLANNEL)]


def test_flushed_tables_are_filled_again_and_counters_are_no_difference(kernel: Kernel) -> None:
    step(kernel, WITH)
    kernel.restore("*nat\n:PREROUTING ACCEPT [7:420]\n-F KUBE-SERVICES\nCOMMIT\n")
    counted = kernel.save_with_counters()
    assert parse(counted, OWN) == parse(kernel.save(), OWN)
    assert "[7:420]" in counted or "nf_tables" in counted  # the nf_tables one has no policy counters
    assert step(kernel, WITH) == f"*nat\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES {TO_SVC}\nCOMMIT\n"
