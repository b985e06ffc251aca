"""up and down at their worst: interrupted, refused, without the control plane, without its memory."""

from __future__ import annotations

import os
import resource
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import yaml

from nsk8s import paths
from nsk8s.daemon.__main__ import FILES
from nsk8s.daemon.launch import listening
from nsk8s.paths import ClusterPaths
from tests.conftest import MakeLab, unique_name
from tests.lab import Lab
from tests.netns.processes_of import Processes, kill
from tests.netns.scenario import Obj, pod, port, service
from tests.netns.standing import CLUSTER, OBJECTS, deployment, stream, until

pytestmark = pytest.mark.netns

PACKAGE = Path(paths.__file__).parent
SMALL: list[Obj] = [deployment("web", 2), pod("real", "n2", ports=(), command=["sleep", "86400"])]


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A cluster that is not up yet."""
    lab = Lab(unique_name(request.node.name), tmp_path)
    lab.write(stream(CLUSTER, *SMALL))
    yield lab
    lab.down()


def names(lab: Lab) -> list[str]:
    """The cluster's names for ip-netns(8)."""
    return sorted(found.name for found in paths.NETNS_DIR.glob(f"{lab.name}.*"))


def gone(lab: Lab) -> bool:
    """Whether nothing of the cluster is left."""
    return not (Processes(lab.name).all() or names(lab) or ClusterPaths(lab.name).directory.exists())


# --- interrupted ------------------------------------------------------------------------------------

MOMENTS: dict[str, Callable[[Lab], bool]] = {
    "at once": lambda _: True,
    "its directory is there": lambda lab: ClusterPaths(lab.name).directory.exists(),
    "the holder is written down": lambda lab: ClusterPaths(lab.name).holder.exists(),
    "the control plane is being started": lambda lab: Processes(lab.name).count("nsk8s.daemon") > 0,
    "the control plane listens": lambda lab: ClusterPaths(lab.name).socket.exists(),
    "the first namespace is there": lambda lab: bool(Processes(lab.name).sandboxes()),
    "the first pod is there": lambda lab: any("." in one for one in Processes(lab.name).sandboxes()),
    "the program runs": lambda lab: bool(Processes(lab.name).programs("sleep", "86400")),
}


def interrupted(lab: Lab, moment: Callable[[Lab], bool]) -> None:
    """`up`, with Ctrl-C for its process group as soon as it is the moment: it ends as it should."""
    begun = subprocess.Popen(
        lab.argv("up", str(lab.topology)),
        env=lab.environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    end = time.monotonic() + 20
    while not moment(lab) and begun.poll() is None:
        assert time.monotonic() < end
    with suppress(ProcessLookupError):  # it was faster
        os.killpg(begun.pid, signal.SIGINT)
    _, said = begun.communicate(timeout=20)
    if "KeyboardInterrupt" in said and str(PACKAGE) not in said:
        return  # the interpreter was still starting: not a line of ours had run
    code = begun.returncode if begun.returncode >= 0 else 128 - begun.returncode  # as a shell shows it
    assert "Traceback" not in said
    assert code in (130, 0), said


@pytest.mark.parametrize("moment", MOMENTS)
def test_up_is_interrupted_and_the_next_up_completes_it(lab: Lab, moment: str) -> None:
    interrupted(lab, MOMENTS[moment])
    lab.nsk8s("ls")
    lab.up()
    assert len(lab.pods()) == 3
    assert Processes(lab.name).count("nsk8s.daemon") == 1
    lab.down()
    assert gone(lab)


@pytest.mark.parametrize("moment", MOMENTS)
def test_up_is_interrupted_and_down_removes_what_there_is(lab: Lab, moment: str) -> None:
    interrupted(lab, MOMENTS[moment])
    lab.down()
    until(lab, lambda: gone(lab), "nothing is left")


def test_a_shells_limit_of_open_files_does_not_bind_the_control_plane(lab: Lab) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    words = ["sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh", *lab.argv("up", str(lab.topology))]
    subprocess.run(words, env=lab.environ(), check=True, capture_output=True)
    wanted = (min(FILES, most), most)
    assert resource.prlimit(Processes(lab.name).daemon(), resource.RLIMIT_NOFILE) == wanted


def test_a_file_that_is_refused_leaves_no_process(lab: Lab) -> None:
    """The control plane's code is being loaded by then."""

    def control_planes() -> set[str]:
        found = (file for file in Path("/proc").glob("[0-9]*/cmdline"))
        return {file.parent.name for file in found if b"nsk8s.daemon" in file.read_bytes()}

    before = control_planes()
    lab.topology.write_text(lab.topology.read_text().replace("kind: Cluster", "kind: Cloister"))
    assert lab.up(check=False).returncode == 1
    until(lab, lambda: control_planes() == before, "no process is left")
    assert gone(lab)


def test_nobody_waits_for_what_the_shell_has_left_open(lab: Lab) -> None:
    """The control plane outlives `up`, and must not keep a pipe open that somebody reads to its end."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    argv = lab.argv("up", str(lab.topology))
    subprocess.run(argv, env=lab.environ(), pass_fds=(write,), capture_output=True, check=True, timeout=60)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert select.select([pipe], [], [], 10)[0], "somebody still holds its other end"
        assert pipe.read() == b""


IMPATIENT = """
import sys
from nsk8s.daemon import launch
from nsk8s.paths import ClusterPaths
def gone(*_):
    raise SystemExit
launch._await = gone
launch.ensure(ClusterPaths(sys.argv[1]), create=True)
"""


def test_a_control_plane_serves_though_whoever_started_it_is_gone(lab: Lab) -> None:
    subprocess.run([sys.executable, "-c", IMPATIENT, lab.name], env=lab.environ(), check=True)
    until(lab, lambda: listening(ClusterPaths(lab.name)), "the control plane listens")
    lab.nsk8s("ls")
    born = Processes(lab.name).daemon()
    lab.up()
    assert Processes(lab.name).daemon() == born


def test_up_of_a_change_is_interrupted(cluster: MakeLab) -> None:
    lab = cluster(stream(CLUSTER, *SMALL))
    changed = yaml.safe_load(stream(CLUSTER))
    changed["spec"]["nodes"].append({"name": "n3"})
    lab.write(stream(changed, deployment("web", 6)))
    interrupted(lab, lambda lab: "n3" in Processes(lab.name).sandboxes())
    lab.up()
    assert "unchanged" in lab.up().stdout
    assert len(lab.get("nodes")) == 3
    until(lab, lambda: len(lab.pods()) == 6, "what the file has no more is gone")


# --- refused ----------------------------------------------------------------------------------------


def test_up_that_the_server_refuses_leaves_nothing(lab: Lab) -> None:
    # The file's own checks do not know that this service is there already, with an address that stays.
    own = service("kubernetes", None, port(443, 6443), clusterIP="10.96.0.9")
    lab.write(stream(CLUSTER, *SMALL, own))
    done = lab.up(check=False)
    assert done.returncode == 1
    assert "may not change once set" in done.stderr
    assert ".yaml:" not in done.stderr, "it is the server that says so"
    assert gone(lab)


def test_up_of_a_change_that_the_server_refuses_changes_nothing(cluster: MakeLab) -> None:
    lab = cluster(stream(CLUSTER, *SMALL))
    before = (lab.pods(), lab.get("nodes"), Processes(lab.name).all())
    good = lab.topology.read_text()
    changed = yaml.safe_load(stream(CLUSTER))
    changed["spec"]["nodes"].append({"name": "n3"})
    other = deployment("web", 6)
    for labels in (other["spec"]["selector"]["matchLabels"], other["spec"]["template"]["metadata"]["labels"]):
        labels["app"] = "other"
    lab.write(stream(changed, deployment("new", 1), other))
    done = lab.up(check=False)
    assert done.returncode == 1
    assert "immutable" in done.stderr
    assert (lab.pods(), lab.get("nodes"), Processes(lab.name).all()) == before
    assert lab.nsk8s("get", "deployment", "new", check=False).returncode == 1
    lab.topology.write_text(good)
    assert "unchanged" in lab.up().stdout
    assert (lab.pods(), lab.get("nodes"), Processes(lab.name).all()) == before


# --- without -----------------------------------------------------------------------------------------


def test_down_needs_neither_the_control_plane_nor_the_file(cluster: MakeLab) -> None:
    lab = cluster(stream(CLUSTER, *SMALL))
    kill(Processes(lab.name).daemon())
    lab.topology.unlink()
    lab.nsk8s("down", lab.name)
    assert gone(lab)
    again = lab.nsk8s("down", lab.name, check=False)
    assert again.returncode == 1
    assert f"no cluster '{lab.name}' runs" in again.stderr
    assert gone(lab)


def test_holder_is_killed_and_everything_goes_with_it(cluster: MakeLab) -> None:
    lab = cluster(stream(CLUSTER, *OBJECTS))
    made = set(lab.pods())
    everybody = Processes(lab.name).all()
    kill(Processes(lab.name).holder())
    until(lab, lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in everybody), "all have ended")
    for name in names(lab):
        assert not (paths.NETNS_DIR / name).exists(), "it dangles"
    assert "stopped" in lab.nsk8s("ls").stdout
    assert lab.nsk8s("get", "pods", check=False).returncode == 1
    lab.up()
    assert made >= {"client", "real", "agent"} <= set(lab.pods())
    lab.nsk8s("down", lab.name)
    assert gone(lab)


def test_down_of_a_cluster_whose_holder_was_killed(cluster: MakeLab) -> None:
    lab = cluster(stream(CLUSTER, *SMALL))
    kill(Processes(lab.name).holder())
    lab.nsk8s("down", lab.name)
    until(lab, lambda: gone(lab), "nothing is left")


@pytest.mark.parametrize("damage", ["garbage", "half", "an object"])
def test_journal_is_broken_and_what_to_do_is_said(cluster: MakeLab, damage: str) -> None:
    lab = cluster(stream(CLUSTER, *SMALL))
    files = ClusterPaths(lab.name)
    kill(Processes(lab.name).daemon())
    with closing(sqlite3.connect(files.journal)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if damage == "an object":
            db.execute("UPDATE objects SET object = '{' WHERE resource = 'pods'")
            db.commit()
    match damage:
        case "garbage":
            files.journal.write_bytes(os.urandom(50_000))
        case "half":
            whole = files.journal.read_bytes()
            files.journal.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    held = Processes(lab.name).sandboxes()
    for words in (["get", "pods"], ["up", str(lab.topology)]):
        done = lab.nsk8s(*words, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert str(files.journal) in done.stderr
        assert f"nsk8s down {lab.name}" in done.stderr
    assert Processes(lab.name).sandboxes() == held, "packets still flow"
    lab.nsk8s("down", lab.name)
    lab.up()
    assert len(lab.pods()) == 3


# --- changed ------------------------------------------------------------------------------------------


def test_up_with_a_changed_file_changes_just_that(cluster: MakeLab) -> None:
    web = service("web", {"app": "web"}, port(80, "http"))
    lab = cluster(stream(CLUSTER, *SMALL, web))
    lab.nsk8s("label", "node", "n1", "mine=yes")
    real = lab.pods()["real"]
    program = Processes(lab.name).programs("sleep", "86400")
    kept = set(lab.pods())
    changed = yaml.safe_load(stream(CLUSTER))
    changed["spec"]["nodes"].append({"name": "n3", "labels": {"zone": "c"}})
    changed["spec"]["nodes"][0]["labels"] = {"zone": "a"}
    new = pod("late", "n3")
    lab.write(stream(changed, deployment("web", 3), SMALL[1], new))

    before = (lab.pods(), lab.get("nodes"), lab.get("services"), Processes(lab.name).all())
    rehearsed = lab.up("--dry-run").stdout
    assert (lab.pods(), lab.get("nodes"), lab.get("services"), Processes(lab.name).all()) == before
    assert f"ip netns add {lab.name}.n3" in rehearsed
    assert f"ip netns add {lab.name}.default.late" in rehearsed
    assert "default.real" not in rehearsed
    assert "default/web cluster IP" not in rehearsed

    said = lab.up().stdout
    assert "pod/late created" in said
    assert "service/web deleted" in said
    assert "deployment.apps/web configured" in said
    pods = lab.pods()
    assert kept < set(pods)
    assert len(pods) == 5
    assert pods["real"]["metadata"]["uid"] == real["metadata"]["uid"]
    assert pods["real"]["status"] == real["status"]
    assert Processes(lab.name).programs("sleep", "86400") == program
    nodes = {one["metadata"]["name"]: one["metadata"]["labels"] for one in lab.get("nodes")}
    assert nodes["n1"]["mine"] == "yes"
    assert (nodes["n1"]["zone"], nodes["n3"]["zone"]) == ("a", "c")
    assert [one["metadata"]["name"] for one in lab.get("services")] == ["kubernetes"]

    lab.write(stream(CLUSTER, deployment("web", 3), SMALL[1]))
    lab.up()
    assert {one["metadata"]["name"] for one in lab.get("nodes")} == {"n1", "n2"}
    until(lab, lambda: len(lab.pods()) == 4 and "late" not in lab.pods(), "n3's pods are elsewhere or gone")
    until(lab, lambda: f"{lab.name}.n3" not in names(lab), "n3 is gone")
    assert "unchanged" in lab.up().stdout


def test_dry_run_needs_no_root_and_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = subprocess.run(
        [*nobody, *lab.argv("up", "-", "--dry-run")],
        input=lab.topology.read_text(),
        capture_output=True,
        text=True,
        env={**lab.environ(), "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert f"ip netns add {lab.name}.n1" in done.stdout
    assert "nothing was changed" in done.stderr
    assert gone(lab)
