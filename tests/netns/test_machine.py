"""The machine against a real kernel: what is applied is what is observed, and packets agree."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from nsk8s.errors import KernelError
from nsk8s.kernel import looking, making, wiring
from nsk8s.kernel.forked import ForkServer
from nsk8s.kernel.looking import Looker, Seen, Subject
from nsk8s.kernel.machine import KernelErrors, Machine
from nsk8s.kernel.namespaces import Home
from nsk8s.linux.state import EVERYTHING, diff, ours, reading
from nsk8s.linux.values import (
    Address,
    Chain,
    FdbEntry,
    Link,
    Namespace,
    NamespaceState,
    Neighbour,
    Op,
    Peer,
    Restore,
    Route,
    Ruleset,
    Sysctl,
    VethPair,
    Vxlan,
)
from nsk8s.paths import NETNS_DIR
from tests.netns.clusters import BareCluster, apply, bare_cluster
from tests.netns.processes_of import kill

pytestmark = pytest.mark.netns

OWN = ("TEST-",)
NODES = 2


def mac(kind: int, number: int) -> str:
    return f"02:00:00:00:{kind:02x}:{number:02x}"


def node(number: int) -> NamespaceState:
    name = f"w{number}"
    others = [other for other in range(1, NODES + 1) if other != number]
    accept = Chain("TEST-IN", ("-p tcp -m tcp --dport 81 -j ACCEPT",))
    jump = Chain("INPUT", ("-j TEST-IN",), builtin=True, top=1)
    return NamespaceState(
        name,
        name,
        links=(
            Link("eth0", "veth", 1500, mac(1, number), peer=Peer("fabric", name), conf=(("arp_notify", 1),)),
            Link("cni0", "bridge", 1450, mac(2, number)),
            Link(
                "flannel.1", "vxlan", 1450, mac(3, number), vxlan=Vxlan(1, 8472, f"10.9.0.{number}", "eth0")
            ),
            Link(
                *("flannel-v6.1", "vxlan", 1430, mac(8, number)),
                vxlan=Vxlan(1, 8472, f"fd00:9::{number}", "eth0"),
            ),
            Link("vethpod", "veth", 1450, mac(5, number), master="cni0", hairpin=True),
        ),
        addresses=frozenset(
            {
                Address("eth0", f"10.9.0.{number}/24"),
                Address("cni0", f"10.8.{number}.1/24"),
                Address("flannel.1", f"10.8.{number}.0/32"),
                Address("eth0", f"fd00:9::{number}/64"),
                Address("cni0", f"fd00:8:{number}::1/64"),
                Address("cni0", "fe80::1/64"),
                Address("flannel-v6.1", f"fd00:8:{number}::/128"),
            }
        ),
        routes=frozenset(
            route
            for o in others
            for route in (
                Route(f"10.8.{o}.0/24", "flannel.1", f"10.8.{o}.0", onlink=True, src=""),
                Route(f"fd00:8:{o}::/64", "flannel-v6.1", f"fd00:8:{o}::", onlink=True),
            )
        ),
        neighbours=frozenset(
            neighbour
            for o in others
            for neighbour in (
                Neighbour("flannel.1", f"10.8.{o}.0", mac(3, o)),
                Neighbour("flannel-v6.1", f"fd00:8:{o}::", mac(8, o)),
            )
        ),
        fdb=frozenset(
            entry
            for o in others
            for entry in (
                FdbEntry("flannel.1", mac(3, o), f"10.9.0.{o}"),
                FdbEntry("flannel-v6.1", mac(8, o), f"fd00:9::{o}"),
            )
        ),
        sysctls=frozenset(
            Sysctl(*each)
            for each in (
                ("net.ipv4.ip_forward", "1"),
                ("net.ipv4.conf.all.rp_filter", "2"),
                ("net.ipv6.conf.all.disable_ipv6", "0"),
                ("net.ipv6.conf.all.forwarding", "1"),
                ("net.ipv6.conf.default.addr_gen_mode", "1"),
            )
        ),
        rules=Ruleset({"filter": {"INPUT": jump, "TEST-IN": accept}}),
        rules6=Ruleset({"filter": {"INPUT": jump, "TEST-IN": accept}}),
    )


def pod(number: int) -> NamespaceState:
    return NamespaceState(
        f"default.p{number}",
        f"p{number}",
        links=(Link("eth0", "veth", 1450, mac(4, number), peer=Peer(f"w{number}", "vethpod"), index=2),),
        addresses=frozenset(
            {Address("eth0", f"10.8.{number}.2/24"), Address("eth0", f"fd00:8:{number}::2/64")}
        ),
        routes=frozenset(
            {
                Route("default", "eth0", f"10.8.{number}.1"),
                Route("default", "eth0", f"fd00:8:{number}::1"),
            }
        ),
        neighbours=frozenset({Neighbour("eth0", f"10.8.{number}.1", mac(2, number))}),
    )


def desired() -> dict[str, NamespaceState]:
    ports = tuple(Link(f"w{n}", "veth", 1500, mac(7, n), master="br0") for n in range(1, NODES + 1))
    fabric = NamespaceState("fabric", "fabric", (Link("br0", "bridge", 1500, mac(6, 0)), *ports))
    states = [fabric, *map(node, range(1, NODES + 1)), *map(pod, range(1, NODES + 1))]
    return {state.name: state for state in states}


TAGS = {f"default.p{n}": f"uid-{n}" for n in range(1, NODES + 1)}


def look(machine: Machine) -> dict[str, NamespaceState]:
    want = desired()
    keys = {name: [one.key for one in state.sysctls] for name, state in want.items()}
    found = machine.observe(
        [n for n in want if n in machine.sandboxes()],
        OWN,
        with_rules6={"w1", "w2"},
        sysctls=keys,
        readings={name: reading(state, state) for name, state in want.items()},
    )
    return {name: ours(state, want[name], want[name]) for name, state in found.items()}


def settle(machine: Machine) -> int:
    """Bring the kernel to the desired state; how many operations it took."""
    ops = diff(look(machine), desired())
    apply(machine, ops, TAGS)
    return len(ops)


@pytest.fixture(scope="module")
def built() -> Iterator[BareCluster]:
    with bare_cluster() as cluster:
        assert cluster.inside(settle) > 0
        yield cluster


def ping(cluster: BareCluster) -> None:
    for there in ("10.8.2.2", "fd00:8:2::2"):
        done = cluster.run("default.p1", "ping", "-c1", "-W5", there)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_applied_is_what_is_observed(built: BareCluster) -> None:
    def work(machine: Machine) -> None:
        found = look(machine)
        for name, state in desired().items():
            assert replace(found[name], rules=state.rules, rules6=state.rules6) == state
            assert diff({name: found[name]}, {name: state}) == ()

    built.inside(work)


def test_applying_twice_changes_nothing(built: BareCluster) -> None:
    assert built.inside(settle) == 0


def test_packets_cross_between_the_nodes(built: BareCluster) -> None:
    ping(built)
    server = "import socket; s=socket.create_server(('10.8.2.2',80)); print('up',flush=True); s.accept()"
    client = "import socket; socket.create_connection(('10.8.2.2',80),5).close()"
    name = f"{built.paths.cluster}.default.p2"
    import subprocess

    words = ["ip", "netns", "exec", name, "python3", "-c", server]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == "up\n"
        done = built.run("default.p1", "python3", "-c", client)
        if done.returncode != 0:
            listening.kill()
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("namespace", "damage"),
    [
        ("w1", "ip route del 10.8.2.0/24"),
        ("w1", "bridge fdb del 02:00:00:00:03:02 dev flannel.1 self"),
        ("w1", "ip neigh del 10.8.2.0 dev flannel.1"),
        ("w1", "ip addr del 10.8.1.1/24 dev cni0"),
        ("w1", "ip link set flannel.1 mtu 1400"),
        ("w1", "bridge link set dev vethpod hairpin off"),
        ("w1", "ip link set cni0 down"),
        ("w1", "ip link del vethpod"),
        ("w1", "ip link del cni0"),
        ("w1", "ip link del flannel.1"),
        ("w1", "iptables -t filter -F"),
        ("w1", "ip6tables -t filter -F"),
        ("w1", "ip -6 route del fd00:8:2::/64"),
        ("w1", "ip -6 neigh del fd00:8:2:: dev flannel-v6.1"),
        ("w1", "bridge fdb del 02:00:00:00:08:02 dev flannel-v6.1 self"),
        ("w1", "ip addr del fd00:8:1::1/64 dev cni0"),
        ("w1", "ip link set eth0 down"),
        ("w1", "ip link set flannel-v6.1 down"),
        ("default.p1", "ip -6 route del default"),
        ("default.p1", "ip link set eth0 down"),
        ("w1", "sysctl -qw net.ipv4.ip_forward=0"),
        ("fabric", "ip link del w2"),
        ("default.p1", "ip link del eth0"),
        ("default.p1", "ip route del default"),
    ],
)
def test_damage_is_repaired(built: BareCluster, namespace: str, damage: str) -> None:
    done = built.run(namespace, "sh", "-c", damage)
    assert done.returncode == 0, done.stderr
    assert built.inside(settle) > 0
    assert built.inside(settle) == 0
    ping(built)


@pytest.mark.parametrize("thorough", [True, False])
def test_a_killed_sandbox_is_made_again(built: BareCluster, thorough: bool) -> None:
    def kill(machine: Machine) -> None:
        pid = machine.sandboxes()["default.p1"].pid
        fd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        import select

        assert select.select([fd], [], [], 10)[0]
        left = machine.sandboxes(thorough=thorough)
        assert left == machine.sandboxes()
        assert desired().keys() - left == {"default.p1"}
        settle(machine)

    built.inside(kill)
    assert built.inside(settle) == 0
    ping(built)


def test_the_next_control_plane_finds_every_sandbox(built: BareCluster) -> None:
    found = built.inside(lambda machine: {n: s.tag for n, s in machine.sandboxes().items()})
    assert found == {name: TAGS.get(name, "") for name in desired()}


def test_names_for_ip_netns_are_put_right(built: BareCluster) -> None:
    name = NETNS_DIR / f"{built.paths.cluster}.w1"
    name.unlink()
    stale = NETNS_DIR / f"{built.paths.cluster}.gone"
    stale.symlink_to(f"/proc/1/root{built.paths.proc}/1/ns/net")
    built.inside(lambda machine: len(machine.sandboxes()))
    assert built.run("w1", "true").returncode == 0
    assert not stale.is_symlink()


def test_the_generation_tells_of_any_change_of_rules(built: BareCluster) -> None:
    def generation(machine: Machine) -> int | None:
        return machine.generation("w1")

    before = built.inside(generation)
    assert built.inside(generation) == before
    assert built.run("w1", "iptables", "-A", "INPUT", "-j", "ACCEPT").returncode == 0
    after = built.inside(generation)
    assert built.run("w1", "iptables", "-D", "INPUT", "-j", "ACCEPT").returncode == 0
    assert before is not None
    assert after is not None
    assert after > before


def test_a_pod_is_pid_1_of_its_own_and_shared_ones_use_the_nodes_network(built: BareCluster) -> None:
    def work(machine: Machine) -> None:
        machine.add_shared("default.host", "w1", "uid-h")
        found = machine.sandboxes()
        kinds = {
            name: {kind: os.readlink(f"/proc/{found[name].pid}/ns/{kind}") for kind in ("net", "uts", "pid")}
            for name in ("default.host", "default.p1", "w1")
        }
        assert kinds["default.host"]["net"] == kinds["w1"]["net"]
        assert kinds["default.host"]["uts"] == kinds["w1"]["uts"]
        assert len({kind["pid"] for kind in kinds.values()}) == 3
        status = Path(f"/proc/{found['default.p1'].pid}/status").read_text()
        numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
        assert numbers[-1] == "1"
        assert os.readlink("/proc/self/ns/net") == os.readlink("/proc/1/ns/net")
        machine.remove(["default.host"])
        assert "default.host" not in machine.sandboxes()
        assert "w1" in machine.sandboxes()

    built.inside(work)


def test_what_is_refused_is_named_and_the_rest_is_done(built: BareCluster) -> None:
    def work(machine: Machine) -> None:
        ops = [
            Op("add", "w1", Route("10.99.0.0/24", "eth0", "192.0.2.1")),
            Op("add", "w1", Address("nowhere", "10.99.0.1/24")),
            Op("add", "w1", Neighbour("cni0", "10.8.1.99", mac(9, 9))),
            Op("delete", "w1", Route("10.98.0.0/24", "eth0", "10.9.0.2")),
        ]
        with pytest.raises(KernelErrors) as refused:
            apply(machine, ops)
        assert [error.namespace for error in refused.value.errors] == ["w1", "w1"]
        assert "ENETUNREACH" in str(refused.value)
        assert "invalid gateway" in str(refused.value)
        assert "ENODEV" in str(refused.value)
        found = machine.observe(["w1"], OWN)["w1"]
        assert Neighbour("cni0", "10.8.1.99", mac(9, 9)) in found.neighbours
        apply(machine, [Op("delete", "w1", Neighbour("cni0", "10.8.1.99", mac(9, 9)))])
        with pytest.raises(KernelError, match="no namespace nowhere"):
            apply(machine, [Op("add", "nowhere", Address("eth0", "10.99.0.1/24"))])

    built.inside(work)


def test_an_end_left_over_from_before_does_not_stand_in_the_way(built: BareCluster) -> None:
    inner = Link("eth0", "veth", 1450, mac(8, 1), peer=Peer("w1", "vethx"))
    outer = Link("vethx", "veth", 1450, mac(8, 2), master="cni0")
    ops = [
        Op("add", "default.x", Namespace("default.x", "x")),
        Op("add", "default.x", VethPair(inner, outer)),
    ]

    def work(machine: Machine) -> None:
        for _ in range(3):  # the old pair goes some time after its namespace
            apply(machine, ops, {"default.x": "uid-x"})
            found = machine.observe(["default.x"], OWN)["default.x"]
            assert [link.peer for link in found.links] == [Peer("w1", "vethx")]
            machine.remove(["default.x"])

    built.inside(work)


def test_new_pods_can_be_used_once_they_are_wired_and_the_rules_of_their_nodes_are_in_force() -> None:
    def work(machine: Machine) -> tuple[list[list[str]], list[list[str]]]:
        wanted = desired()
        told, held = [], []
        for names in machine.applying(diff({}, wanted), TAGS):
            told.append(names)
            found = machine.observe(names, OWN)
            held.append([f"{n} {len(one.links)} {len(one.routes)}" for n, one in found.items()])
            for node in ("w1", "w2"):
                assert "TEST-IN" in machine.observe([node], OWN)[node].rules.tables["filter"], node
        return told, held

    with bare_cluster() as cluster:
        told, held = cluster.inside(work)
    assert told == [sorted(TAGS)]
    assert held == [[f"{name} 1 2" for name in sorted(TAGS)]]


def helpers(comm: str) -> list[int]:
    """The control plane's processes of that name, all of them by the time they have called themselves so."""
    number = 2 if comm == making.COMM else 1
    end = time.monotonic() + 5
    found: list[int] = []
    while len(found) != number and time.monotonic() < end:
        found = []
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(FileNotFoundError, ProcessLookupError):  # gone
                if Path(f"/proc/{pid}/comm").read_text().strip() == comm:
                    found.append(int(pid))
        os.sched_yield()
    assert len(found) == number, comm
    return sorted(found)


def networks(pids: Iterable[int]) -> int:
    """How many network namespaces processes hold files of."""
    found = 0
    for file in [file for pid in pids for file in Path(f"/proc/{pid}/fd").iterdir()]:
        with suppress(FileNotFoundError):
            found += os.readlink(file).startswith("net:")
    return found


def becomes(number: int, look: Callable[[], int]) -> int:
    """What `look` says as soon as it says `number`, or else after five seconds."""
    end = time.monotonic() + 5
    while (seen := look()) != number and time.monotonic() < end:
        os.sched_yield()
    return seen


@pytest.mark.parametrize(
    "meddle", ["del 10.8.1.1 dev eth0", "replace 10.8.1.1 dev eth0 lladdr 02:00:00:00:00:99 nud permanent"]
)
def test_a_neighbour_that_is_not_as_it_should_be_is_found(built: BareCluster, meddle: str) -> None:
    """Asked for one by one: a list of them takes as long as one of the whole machine's."""
    assert built.run("default.p1", "ip", "neigh", *meddle.split()).returncode == 0
    assert built.inside(settle) > 0
    assert built.inside(settle) == 0
    seen = built.run("default.p1", "ip", "neigh", "show", "10.8.1.1").stdout
    assert seen.split() == ["10.8.1.1", "dev", "eth0", "lladdr", mac(2, 1), "PERMANENT"]


@pytest.mark.parametrize("comm", [making.COMM, wiring.COMM])
def test_a_helper_that_somebody_kills_is_replaced(comm: str) -> None:
    """While it idles, and while it works: then what it was asked for has failed, and is done by whoever looks
    again."""

    def work(machine: Machine) -> list[int]:
        for pid in helpers(comm):
            kill(pid)
        apply(machine, diff(look(machine), desired()), TAGS)
        machine.remove(TAGS)
        killed = helpers(comm)[-1]
        steps = machine.applying(diff(look(machine), desired()), TAGS)
        os.kill(killed, signal.SIGSTOP)
        if os.fork() == 0:
            time.sleep(0.3)
            os.kill(killed, signal.SIGKILL)
            os._exit(0)
        with suppress(KernelError):
            list(steps)
        apply(machine, diff(look(machine), desired()), TAGS)
        machine.sandboxes()
        return [killed not in helpers(comm), settle(machine)]

    with bare_cluster() as cluster:
        assert cluster.inside(work) == [True, 0]
        ping(cluster)


@pytest.mark.parametrize("listed", [True, False])
def test_rules_for_a_namespace_that_has_ended_are_refused(built: BareCluster, listed: bool) -> None:
    """And nothing worse. If it is known already those of others are done, or else by whoever looks again."""

    def work(machine: Machine) -> str:
        script = "*filter\n:MINE - [0:0]\nCOMMIT\n"
        kill(machine.pid("w2"))
        if not listed:
            machine.sandboxes()
        ops = [Op("add", name, Restore(script)) for name in ("w1", "w2")]
        with pytest.raises(KernelError) as refused:
            apply(machine, ops, {})
        apply(machine, diff(look(machine), desired()), TAGS)
        return str(refused.value)

    assert "w2" in built.inside(work)
    if not listed:
        assert ":MINE " in built.run("w1", "iptables-save", "-t", "filter").stdout
    assert built.inside(settle) == 0
    ping(built)


def test_of_many_namespaces_another_process_looks_at_some_and_sees_the_same(built: BareCluster) -> None:
    """Whether it lives, or is killed while it is asked; one that is gone is not seen, and everybody comes
    home."""

    def work(machine: Machine) -> list[bool]:
        home = os.readlink("/proc/thread-self/ns/net")
        pid, gone = machine.pid("w1"), os.fork()
        if gone == 0:
            os._exit(0)
        os.waitpid(gone, 0)
        subject = Subject("w1", pid, EVERYTHING, ("net.ipv4.ip_forward",), rules=True, tables=True)
        looker = Looker(forks := ForkServer(), Home("net", "uts"))
        [alone] = looker.look([subject])
        assert isinstance(alone, Seen)
        assert alone.state == replace(
            machine.observe(["w1"], OWN)["w1"], rules=Ruleset(), sysctls=alone.sysctls
        )
        assert (alone.hostname, alone.rules, alone.tables) == ("w1", True, True)
        many = [subject if number % 50 else structs.replace(subject, pid=gone) for number in range(400)]
        expected = [alone if number % 50 else None for number in range(400)]
        found = [looker.look(many) == expected]
        helper = helpers(looking.COMM)[-1]
        os.kill(helper, signal.SIGSTOP)
        if os.fork() == 0:
            time.sleep(0.2)
            os.kill(helper, signal.SIGKILL)
            os._exit(0)
        found.append(looker.look(many) == expected)
        assert helpers(looking.COMM) != [helper]
        found.append(os.readlink("/proc/thread-self/ns/net") == home)
        looker.close()
        forks.close()
        return found

    assert built.inside(work) == [True, True, True]


def test_rules_are_in_force_before_a_new_pod_is_wired(tmp_path: Path) -> None:
    """What is to protect it does so from its first packet on, those included that only its kernel answers."""
    seen = tmp_path / "links"
    program = tmp_path / "iptables-restore"
    program.write_text(f'#!/bin/sh\nip -o link >>{seen}\nexec {shutil.which("iptables-restore")} "$@"\n')
    program.chmod(0o755)

    def work(machine: Machine) -> None:
        os.environ["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        apply(machine, diff(look(machine), desired()), TAGS)

    with bare_cluster() as cluster:
        cluster.inside(work)
        ends = {link.peer.name for name in TAGS for link in desired()[name].links if link.peer}
        assert ends, "pods have outer ends on their nodes"
        assert "cni0" in seen.read_text()
        assert not [end for end in ends if end in seen.read_text()]


def test_a_namespace_that_has_gone_cannot_be_wired() -> None:
    def work(machine: Machine) -> int:
        apply(machine, diff({}, {"w1": NamespaceState("w1")}))
        gone = machine.pid("w1")
        machine.remove(["w1"])
        forks = ForkServer()
        wirer = wiring.Wirer(forks)
        for _ in range(2):  # the first takes nothing from the second
            wirer.begin(wiring.Wiring(gone, [], []))
        refused = 0
        for _ in range(2):
            with suppress(FileNotFoundError):
                wirer.refused()
                continue
            refused += 1
        wirer.close()
        forks.close()
        return refused

    with bare_cluster() as cluster:
        assert cluster.inside(work) == 2


@pytest.mark.parametrize("number", [1, 3, 50])
def test_whatever_was_made_ahead_nothing_of_it_is_left(number: int) -> None:
    def work(machine: Machine) -> list[int]:
        makers = helpers(making.COMM)
        home = len(makers)  # what each needs to come home
        machine.stock(number)
        stocked = becomes(home + number, lambda: networks(makers)) - home
        apply(machine, diff(look(machine), desired()), TAGS)
        assert {n: s.tag for n, s in machine.sandboxes().items()} == {n: TAGS.get(n, "") for n in desired()}
        own = {os.readlink(f"/proc/{one.pid}/ns/net") for one in machine.sandboxes().values()}
        machine.stock(0)
        left = becomes(home, lambda: networks(makers)) - home
        return [stocked, len(own), left, settle(machine)]

    with bare_cluster() as cluster:
        assert cluster.inside(work) == [number, len(desired()), 0, 0]
        for name in desired():
            assert "UP" in cluster.run(name, "ip", "-brief", "link", "show", "lo").stdout, name
        ping(cluster)
