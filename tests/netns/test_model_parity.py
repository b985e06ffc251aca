"""The model against the kernel: the commands that `text` writes are typed into a shell, and what is there in
the end, consequences included, is what the model says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import pytest

from nsk8s.linux.state import apply, diff, ours
from nsk8s.linux.text import commands, parse
from nsk8s.linux.values import Address, FdbEntry, Link, NamespaceState, Neighbour, Op, Peer, Route, Ruleset
from tests.netns.test_machine import desired

pytestmark = pytest.mark.netns

DUMP = """
from nsk8s.kernel.netlink import Netlink
from nsk8s.kernel.observation import observe
from nsk8s.linux.text import render
import sys
with Netlink() as netlink:
    print(render(observe(netlink, sys.argv[1])))
"""
MAC = "02:00:00:00:00:77"


def kernel(machine: Mapping[str, NamespaceState], ops: tuple[Op, ...]) -> dict[str, NamespaceState]:
    """What real namespaces hold after `ops`, typed one after the other into a shell with a private /run."""
    lines = ["set -e", "mount -t tmpfs tmpfs /run", *(line for op in ops for line in commands(op))]
    lines += [f"ip netns exec {name} {sys.executable} -c '{DUMP}' {name}; echo ----" for name in machine]
    words = ["unshare", "--net", "--mount", "sh"]
    done = subprocess.run(
        words, input="\n".join(lines), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    texts = done.stdout[done.stdout.index("netns ") :].split("----\n")[:-1]
    return {state.name: state for state in (parse(text.strip() + "\n") for text in texts)}


def comparable(state: NamespaceState) -> NamespaceState:
    """Without what this dump does not show: rules, sysctls, host name, and whose end a veth is."""
    links = sorted((replace(link, peer=None) for link in state.links), key=lambda link: link.name)
    return replace(
        state, hostname="", links=tuple(links), sysctls=frozenset(), rules=Ruleset(), rules6=Ruleset()
    )


CNI0 = Link("cni0", "bridge", 1450, "02:00:00:00:02:01")
FLANNEL = next(link for link in desired()["w1"].links if link.kind == "vxlan")
FLANNEL6 = next(link for link in desired()["w1"].links if link.name == "flannel-v6.1")
W2_UPLINK = Link("w2", "veth", 1500)


@pytest.mark.parametrize(
    "more",
    [
        [],
        [Op("delete", "w1", CNI0)],
        [Op("delete", "w1", FLANNEL)],
        [Op("delete", "fabric", W2_UPLINK)],  # takes eth0 of w2 along, and that flannel.1
        [Op("delete", "default.p1", Link("eth0", "veth", 1450, peer=Peer("w1", "vethpod")))],
        [Op("delete", "w1", Link("vethpod", "veth", 1450))],  # the same, from the other end
        [Op("change", "w1", replace(FLANNEL, mac=MAC))],  # flushes neighbours, permanent ones too
        [Op("change", "w1", replace(FLANNEL, up=False))],
        [Op("change", "w1", replace(CNI0, mtu=1400))],
        [Op("change", "w1", replace(FLANNEL6, up=False))],  # IPv6 addresses go with it
        [Op("delete", "w1", Address("flannel-v6.1", "fd00:8:1::/128"))],  # alone
        [Op("delete", "w1", Address("flannel.1", "10.8.1.0/32"))],  # the last one: routes and neighbours go
        [Op("add", "w1", Address("cni0", "10.8.1.9/24")), Op("delete", "w1", Address("cni0", "10.8.1.1/24"))],
        [Op("change", "default.p1", Route("default", "eth0", "10.8.1.99"))],
        [Op("change", "w1", Neighbour("flannel.1", "10.8.2.0", MAC))],
        [Op("change", "w1", FdbEntry("flannel.1", "02:00:00:00:03:02", "10.9.0.99"))],
        [
            Op("add", "w1", FdbEntry("flannel.1", "00:00:00:00:00:00", "10.9.0.7")),
            Op("add", "w1", FdbEntry("flannel.1", "00:00:00:00:00:00", "10.9.0.8")),
        ],
    ],
    ids=lambda ops: " ".join(f"{op.verb} {type(op.value).__name__}" for op in ops) or "as made",
)
def test_the_kernel_holds_what_the_model_says(more: list[Op]) -> None:
    ops = (*diff({}, desired()), *more)
    model: dict[str, NamespaceState] = reduce(apply, ops, {})
    found = kernel(model, ops)
    for name, state in model.items():
        want = comparable(state)
        assert comparable(ours(found[name], want, found[name])) == want
