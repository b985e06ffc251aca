"""The command line as a person meets it: terminals, pipes, keys, environment, exit codes."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nsk8s.paths import ClusterPaths
from tests.conftest import MakeLab
from tests.lab import Lab
from tests.terminal import Terminal

pytestmark = pytest.mark.netns

TOPOLOGY = """
apiVersion: nsk8s.dev/v1
kind: Cluster
metadata: {name: lab}
spec: {nodes: [{name: w1}, {name: w2}], clients: [{name: external}]}
---
apiVersion: v1
kind: Pod
metadata: {name: tools, labels: {app: tools}}
spec:
  nodeName: w1
  terminationGracePeriodSeconds: 1
  containers:
  - {name: shell, image: busybox, command: [sh, -c, "echo begun; sleep 1000"]}
  - {name: other, image: busybox, command: [sh, -c, "echo other; sleep 1000"]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
DEADLINE = 20.0


@pytest.fixture(scope="module")
def lab(shared_cluster: MakeLab) -> Lab:
    return shared_cluster(TOPOLOGY)


@contextmanager
def started(
    lab: Lab, *words: str, stdout: int | None = None, stderr: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until the context ends, or (a test that hangs shall fail) for a minute."""
    process = subprocess.Popen(lab.argv(*words), env=lab.environ(), text=True, stdout=stdout, stderr=stderr)
    timer = threading.Timer(3 * DEADLINE, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=DEADLINE)


def until(what: str, holds: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


# --- exec -------------------------------------------------------------------------------------------


def test_exec_passes_the_exit_code_and_standard_input(lab: Lab) -> None:
    assert lab.nsk8s("exec", "tools", "--", "sh", "-c", "exit 7", check=False).returncode == 7
    assert lab.nsk8s("exec", "-i", "tools", "--", "cat", stdin="typed").stdout == "typed"
    assert lab.nsk8s("exec", "tools", "--", "cat", stdin="typed").stdout == ""
    assert lab.nsk8s("exec", "tools", "--", "no-such-program", check=False).returncode == 127
    done = lab.nsk8s("exec", "tools", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_exec_on_a_terminal(lab: Lab) -> None:
    with Terminal(lab.argv("exec", "-it", "tools", "--", "sh"), lab.environ(), rows=33, columns=99) as screen:
        screen.until("# ")
        screen.press("stty size\r")
        screen.until("33 99")
        screen.until("# ")
        screen.resize(40, 120)  # told in a channel of its own, which what is typed may overtake
        screen.press("while stty size | grep -q '^33 99'; do :; done; stty size\r")
        screen.until("40 120")
        screen.until("# ")
        screen.press("sh -c 'echo wai''ting; read line'\r")
        screen.until("waiting")
        screen.press("\x03")
        screen.until("# ")  # the child was interrupted, and neither the shell nor we
        screen.press("hostname; exit 5\r")
        screen.until("tools\r\n")
        assert screen.wait() == 5


@pytest.mark.parametrize("target", ["tools", "node/w1", "external"])
def test_an_interrupt_reaches_the_command_and_its_end_reaches_us(lab: Lab, target: str) -> None:
    words = lab.argv("exec", "-it", target, "--", "sh", "-c", "echo wai''ting; read line")
    with Terminal(words, lab.environ()) as screen:
        screen.until("waiting")
        screen.press("\x03")
        assert screen.wait() == 130


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("exec", "nobody", "--", "true"), 1, "nobody"),
        (("exec", "node/nobody", "--", "true"), 1, "w1, w2"),
        (("exec", "client/nobody", "--", "true"), 1, "external"),
        (("exec", "deploy/nobody", "--", "true"), 1, 'deployments.apps "nobody" not found'),
        (("exec", "tools", "-c", "nobody", "--", "true"), 1, "shell, other"),
        (("exec", "pudding/x", "--", "true"), 2, "pudding"),
        (("exec", "tools"), 2, "nsk8s exec tools -- COMMAND"),
        (("logs", "nobody"), 1, 'pods "nobody" not found'),
        (("logs", "node/w1"), 1, "no logs"),
        (("logs", "tools", "-c", "nobody"), 1, "shell, other"),
        (("logs", "tools", "-p"), 1, 'previous terminated container "shell" in pod "tools" not found'),
        (("capture", "nobody"), 1, "nobody"),
        (("capture", "node/w1", "-i", "nosuch"), 1, "nosuch"),
        (("capture", "node/w1", "not", "a(filter"), 1, "syntax error"),
        (("capture", "node/w1", "-w", "/nowhere/x.pcap"), 1, "/nowhere/x.pcap"),
        (("get", "pudding"), 2, 'resource type "pudding"'),
        (("get", "pods", "nobody"), 1, 'Error from server (NotFound): pods "nobody" not found'),
        (("apply", "-f", "/nowhere.yaml"), 1, "/nowhere.yaml"),
        (("apply",), 2, "-f FILE"),
        (("get", "pods", "-C", "nobody"), 1, "running:"),
        (("nonsense",), 2, "No such command"),
        (("get", "--nonsense"), 2, "No such option"),
        (("down", "nobody"), 1, "nobody"),
        (("down", ""), 2, "the cluster's name is empty"),
        (("up", "--wait-timeout", "nan", "x.yaml"), 2, "'nan' is no duration"),
        (("up", "--wait-timeout", "9" * 400, "x.yaml"), 2, "longer than a week"),
        (("policy", "matrix", "--probe", "--timeout", "inf"), 2, "'inf' is no duration"),
    ],
)
def test_an_error_says_what_and_what_to_do(lab: Lab, words: tuple[str, ...], code: int, said: str) -> None:
    done = lab.nsk8s(*words, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# --- logs and capture -------------------------------------------------------------------------------


def test_logs_follow_until_interrupted(lab: Lab) -> None:
    assert lab.nsk8s("logs", "tools").stdout == "begun\n"
    assert lab.nsk8s("logs", "tools", "-c", "other").stdout == "other\n"
    pod = next(name for name in lab.pods() if name.startswith("web-"))
    ip = lab.pods()[pod]["status"]["podIP"]
    with started(lab, "logs", "-f", pod, "--tail", "0", stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        told = follower.stdout

        def follows() -> bool:
            lab.run("node/w1", "curl", "-s", "-o", "/dev/null", f"http://{ip}/followed")
            return bool(select.select([told], [], [], 0.2)[0])

        until("it follows", follows)
        assert "/followed" in told.readline()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(DEADLINE) == 130
    assert "/followed" in lab.nsk8s("logs", pod, "--tail", "1").stdout


def test_capture_shows_lines_until_interrupted(lab: Lab) -> None:
    pipe = subprocess.PIPE
    with started(lab, "capture", "node/w1", "-i", "eth0", "icmp", stdout=pipe, stderr=pipe) as capture:
        assert capture.stdout is not None
        assert capture.stderr is not None
        while "listening on" not in capture.stderr.readline():
            pass
        lab.run("node/w2", "ping", "-c", "1", lab.get("node", "w1")[0]["status"]["addresses"][0]["address"])
        assert "ICMP echo request" in capture.stdout.readline()
        capture.send_signal(signal.SIGINT)
        _, said = capture.communicate(timeout=DEADLINE)
        assert capture.returncode == 0
        assert "captured" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("to", ["file", "pipe"])
def test_capture_writes_pcap(lab: Lab, tmp_path: Path, to: str) -> None:
    file = tmp_path / "x.pcap"
    words = (
        "capture",
        "node/w1",
        "-i",
        "flannel.1",
        "--count" if to == "file" else "-c",  # as tcpdump has it
        "2",
        "-w",
        str(file) if to == "file" else "-",
    )
    there = next(p["status"]["podIP"] for p in lab.pods().values() if p["spec"]["nodeName"] == "w2")
    with (
        file.open("wb") as pipe,
        started(
            lab, *words, stdout=pipe.fileno() if to == "pipe" else subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as capture,
    ):
        assert capture.stderr is not None
        while "listening on" not in capture.stderr.readline():
            pass
        lab.run("tools", "ping", "-c", "1", "-W", "5", there)
        assert capture.wait(DEADLINE) == 0
    read = subprocess.run(["tcpdump", "-n", "-r", str(file)], capture_output=True, text=True, check=True)
    assert len(re.findall("ICMP echo re", read.stdout)) == 2


def test_a_terminal_gets_no_pcap(lab: Lab) -> None:
    with Terminal(lab.argv("capture", "node/w1", "-w", "-"), lab.environ()) as screen:
        screen.until("a terminal cannot show pcap")
        assert screen.wait() == 2


# --- get, apply, delete -----------------------------------------------------------------------------


def test_a_watch_shows_a_pods_life_and_ends_by_interrupt(lab: Lab) -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: mayfly, labels: {watch: me}}\n" + (
        "spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: nginx}]}\n"
    )
    with started(lab, "get", "pods", "-l", "watch=me", "-w", stdout=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        assert lab.nsk8s("apply", "-f", "-", stdin=pod).stdout == "pod/mayfly created\n"
        lines = [watch.stdout.readline().split()]
        while lines[-1][:3] != ["mayfly", "1/1", "Running"]:
            lines.append(watch.stdout.readline().split())
        lab.nsk8s("delete", "pod", "mayfly")
        while lines[-1][2] != "Terminating":
            lines.append(watch.stdout.readline().split())
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=DEADLINE)
        assert watch.returncode == 130
    assert lines[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert [line for line in lines if line[0] == "NAME"] == lines[:1]
    assert lab.nsk8s("get", "pod", "mayfly", check=False).returncode == 1  # delete has waited


def test_applying_says_what_it_did(lab: Lab, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "a.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: '1'}}"
    )
    (manifests / "b.json").write_text(
        '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "side"}}'
    )
    (manifests / "notes.txt").write_text("nothing")
    first = lab.nsk8s("apply", "-f", str(manifests))
    assert first.stdout == "configmap/a created\nnamespace/side created\n"
    assert first.stderr == ""
    again = lab.nsk8s("apply", "-f", str(manifests))
    assert (again.stdout, again.stderr) == ("configmap/a unchanged\nnamespace/side unchanged\n", "")
    (manifests / "a.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: '2'}}"
    )
    assert "configmap/a configured\n" in lab.nsk8s("apply", "-f", str(manifests)).stdout
    gone = lab.nsk8s("delete", "-f", str(manifests))
    assert gone.stdout == 'configmap "a" deleted\nnamespace "side" deleted\n'
    assert lab.nsk8s("get", "ns", "side", check=False).returncode == 1


def test_a_taken_node_port_is_refused_with_the_ones_name(lab: Lab) -> None:
    lab.nsk8s("expose", "deployment", "web", "--name", "door", "--type", "NodePort")
    port = lab.get("svc", "door")[0]["spec"]["ports"][0]["nodePort"]
    second = (
        "{apiVersion: v1, kind: Service, metadata: {name: second}, "
        f"spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, nodePort: {port}}}]}}}}"
    )
    done = lab.nsk8s("apply", "-f", "-", stdin=second, check=False)
    assert done.returncode == 1
    assert 'The Service "second" is invalid: spec.ports[0].nodePort' in done.stderr
    assert str(port) in done.stderr
    assert "already allocated" in done.stderr
    lab.nsk8s("delete", "svc", "door")


# --- the frame --------------------------------------------------------------------------------------


def test_results_and_progress_have_their_own_streams(lab: Lab) -> None:
    quiet = lab.up("--progress", "quiet")
    assert re.fullmatch(rf"cluster {lab.name} is unchanged: .*\n", quiet.stdout)
    assert quiet.stderr == ""
    told = lab.up("--progress", "json")
    result = json.loads(told.stdout)
    assert (result["cluster"], result["state"], result["nodes"]) == (lab.name, "unchanged", 2)
    for line in told.stderr.splitlines():
        assert set(json.loads(line)) == {"progress"}


def test_up_shows_its_progress_on_a_terminal(lab: Lab) -> None:
    lab.nsk8s("scale", "deployment", "web", "--replicas=0")
    with Terminal(lab.argv("up", str(lab.topology)), lab.environ()) as screen:
        screen.until("deployment.apps/web configured")
        screen.until("pods ready: ")
        screen.until(f"cluster {lab.name} is changed")
        assert screen.wait() == 0


def test_an_option_may_come_from_the_environment_and_the_flag_wins(lab: Lab) -> None:
    env = {**lab.environ(), "NSK8S_GET_OUTPUT": "name", "NSK8S_GET_SELECTOR": "app=tools"}

    def get(*words: str) -> str:
        return subprocess.run(lab.argv("get", "pods", *words), env=env, capture_output=True, text=True).stdout

    assert get() == "pod/tools\n"
    assert json.loads(get("-o", "json"))["items"][0]["metadata"]["name"] == "tools"


def test_a_reader_that_goes_is_no_error(lab: Lab) -> None:
    words = " ".join(lab.argv("get", "pods", "-A", "-o", "yaml"))
    script = f"set -o pipefail; {words} | head -1"
    done = subprocess.run(["bash", "-c", script], env=lab.environ(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "apiVersion: v1\n", "")
    full = subprocess.run(
        ["bash", "-c", f"{words} > /dev/full"], env=lab.environ(), capture_output=True, text=True
    )
    assert full.returncode == 1
    assert full.stderr == "error: cannot write the output: No space left on device\n"


def test_nor_is_one_that_goes_while_a_command_runs(lab: Lab) -> None:
    words = " ".join(lab.argv("exec", "tools", "--", "sh", "-c", "'while echo more; do sleep 0.01; done'"))
    script = f"set -o pipefail; {words} | head -1"
    done = subprocess.run(
        ["bash", "-c", script], env=lab.environ(), capture_output=True, text=True, timeout=20
    )
    assert (done.stdout, done.stderr) == ("more\n", "")
    full = f"{words} > /dev/full"
    done = subprocess.run(["bash", "-c", full], env=lab.environ(), capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (1, "error: cannot write the output: No space left on device\n")


def test_nobody_else_can_open_the_socket(lab: Lab) -> None:
    paths = ClusterPaths(lab.name)
    assert paths.socket.stat().st_mode & 0o777 == 0o600
    assert paths.directory.stat().st_mode & 0o777 == 0o700
    ask = ["curl", "-sS", "--unix-socket", str(paths.socket), "http://x/version"]
    assert subprocess.run(ask, capture_output=True).returncode == 0
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *ask]
    refused = subprocess.run(other, capture_output=True, text=True)
    assert refused.returncode != 0
    assert refused.stdout == ""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("nsk8s de", {"delete", "describe"}),
        ("nsk8s get dep", {"deployments"}),
        ("nsk8s get pods to", {"tools"}),
        ("nsk8s get pod/to", {"pod/tools"}),
        ("nsk8s describe svc w", {"web"}),
        ("nsk8s exec to", {"tools"}),
        ("nsk8s exec node/", {"node/w1", "node/w2"}),
        ("nsk8s exec client/", {"client/external"}),
        ("nsk8s logs to", {"tools"}),
        ("nsk8s get pods -o ", {"wide", "json", "yaml", "name"}),
        ("nsk8s get pods -n kube-s", {"kube-system"}),
        ("nsk8s get pods -C nothing-like-it ", set()),
        ("nsk8s expose deployment ", {"web"}),
    ],
)
def test_bash_completes(lab: Lab, tmp_path: Path, typed: str, offered: set[str]) -> None:
    if not shutil.which("bash"):
        pytest.skip("no bash here")
    program = tmp_path / "nsk8s"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m nsk8s "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(nsk8s completion bash)"\n'
        'words=($1); case "$1" in *" ") words+=("");; esac\n'
        'COMP_WORDS=("${words[@]}"); COMP_CWORD=$((${#words[@]} - 1)); COMP_LINE="$1"; COMP_POINT=${#1}\n'
        "_nsk8s_completion nsk8s\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    env = {**lab.environ(), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script, "-", typed], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == offered
    assert done.stderr == ""


def test_the_log_stays_empty(lab: Lab) -> None:
    """After all of the above: the control plane has had nothing to say."""
    assert ClusterPaths(lab.name).daemon_log.read_text() == ""
