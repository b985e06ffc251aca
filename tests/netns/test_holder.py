"""The holder: its end is the end of everything, and it can be interrupted anywhere."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsk8s.kernel import holder as holders
from nsk8s.kernel.machine import Machine
from nsk8s.linux.values import Link, Namespace, Op, Peer, VethPair
from nsk8s.paths import NETNS_DIR, ClusterPaths
from tests.netns.clusters import BareCluster, apply, bare_cluster

pytestmark = pytest.mark.netns


@pytest.fixture
def paths() -> Iterator[ClusterPaths]:
    paths = ClusterPaths(f"t{uuid.uuid4().hex[:8]}")
    yield paths
    holders.down(paths)


def names(paths: ClusterPaths) -> list[str]:
    if not NETNS_DIR.is_dir():
        return []
    return [name for name in os.listdir(NETNS_DIR) if name.startswith(f"{paths.cluster}.")]


def ours(paths: ClusterPaths) -> list[int]:
    """Processes that carry the cluster's name in their command line."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0].startswith(b"nsk8s:") and paths.cluster.encode() in words:
            found.append(int(entry))
    return found


def fill(cluster: BareCluster) -> list[int]:
    """Two wired sandboxes, one with a PID namespace; their pids on the host."""
    inner = Link("eth0", "veth", 1500, peer=Peer("a", "vethb"))
    ops = [
        Op("add", "a", Namespace("a", "a")),
        Op("add", "b", Namespace("b", "b")),
        Op("add", "b", VethPair(inner, Link("vethb", "veth", 1500))),
    ]
    cluster.inside(lambda machine: apply(machine, ops, {"b": "uid"}))
    children = f"/proc/{cluster.holder.pid}/task/{cluster.holder.pid}/children"
    return [int(pid) for pid in Path(children).read_text().split()]


def test_start_finds_what_runs_and_down_leaves_nothing(paths: ClusterPaths) -> None:
    holder = holders.start(paths)
    assert holders.find(paths) == holder
    assert holders.start(paths) == holder
    assert paths.cluster in holders.clusters()
    assert ours(paths) == [holder.pid]
    holders.down(paths)
    assert holders.find(paths) is None
    assert not paths.directory.exists()
    assert paths.cluster not in holders.clusters()
    assert ours(paths) == []
    holders.down(paths)


def test_kill_9_of_the_holder_leaves_no_process_namespace_or_mount() -> None:
    with bare_cluster() as cluster:
        pids = fill(cluster)
        assert len(pids) == 2
        assert sorted(names(cluster.paths)) == [f"{cluster.paths.cluster}.{n}" for n in ("a", "b")]
        fds = [os.pidfd_open(pid) for pid in [cluster.holder.pid, *pids]]
        os.kill(cluster.holder.pid, signal.SIGKILL)
        for fd in fds:
            assert select.select([fd], [], [], 10)[0]
            os.close(fd)
        assert not cluster.holder.alive()
        assert holders.find(cluster.paths) is None
        holders.wait_clean()
        for name in names(cluster.paths):
            assert not (NETNS_DIR / name).exists(), "the link must dangle, not name a stranger"
        assert str(cluster.paths.proc) not in Path("/proc/self/mountinfo").read_text()
        holders.down(cluster.paths)
        assert names(cluster.paths) == []


def test_down_works_when_its_files_are_missing(paths: ClusterPaths) -> None:
    holders.start(paths).kill()
    paths.holder.unlink()
    paths.pause.unlink()
    holders.down(paths)
    assert not paths.directory.exists()


def test_down_spares_names_that_are_not_the_clusters(paths: ClusterPaths) -> None:
    holders.start(paths)
    stranger = NETNS_DIR / f"{paths.cluster}.stranger"
    NETNS_DIR.mkdir(exist_ok=True)
    stranger.symlink_to("/proc/1/ns/net")
    try:
        holders.down(paths)
        assert stranger.is_symlink()
    finally:
        stranger.unlink()


def test_orphans_are_reaped_by_the_holder() -> None:
    def work(machine: Machine) -> None:
        words = ["sh", "-c", "sleep 0.05 & echo $!"]
        orphan = int(subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout.split()[0])
        try:
            fd = os.pidfd_open(orphan)
        except ProcessLookupError:
            return
        assert select.select([fd], [], [], 10)[0]
        poll = select.poll()
        for _ in range(1000):  # a zombie would stay for ever
            if not Path(f"/proc/{orphan}").exists():
                return
            poll.poll(5)
        raise AssertionError(Path(f"/proc/{orphan}/status").read_text())

    with bare_cluster() as cluster:
        cluster.inside(work)


def test_a_stale_state_file_names_nobody(paths: ClusterPaths) -> None:
    paths.directory.mkdir(parents=True)
    paths.holder.write_text('{"pid": 1, "startTime": 12345}')
    assert holders.find(paths) is None
    paths.holder.write_text("not JSON")
    assert holders.find(paths) is None


@pytest.mark.parametrize("moment", range(8))
def test_killing_the_starter_at_any_moment_leaves_nothing_that_down_does_not_find(
    paths: ClusterPaths, moment: int
) -> None:
    starter = os.fork()
    if starter == 0:
        holders.start(paths)
        os._exit(0)
    fd = os.pidfd_open(starter)
    select.select([fd], [], [], moment * 0.001)
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    os.close(fd)
    holders.down(paths)
    poll = select.poll()
    for _ in range(1000):  # one that waited for its word is just ending
        if not ours(paths):
            break
        poll.poll(5)
    assert ours(paths) == []
    assert not paths.directory.exists()
