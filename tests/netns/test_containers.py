"""Containers as processes: what those of a pod share, in which order they start, how they end, what they
see of the world."""

from __future__ import annotations

import json
import os
import platform
import time

import pytest
import yaml

from nsk8s.paths import ClusterPaths
from tests.conftest import MakeLab
from tests.netns.podlab import (
    CLUSTER,
    PODS,
    Obj,
    Pods,
    condition,
    container,
    pod,
    shell,
    state,
    status_of,
    waits,
)

pytestmark = pytest.mark.netns

STANDING = [
    pod(
        "pair",
        container("web", "python3", "-m", "http.server", "--bind", "127.0.0.1", "9001"),
        container("other", "sleep", "infinity"),
        hostname="twin",
        subdomain="family",
        hostAliases=[{"ip": "203.0.113.9", "hostnames": ["far", "far.example"]}],
    ),
    pod(
        "equipped",
        container(
            "c",
            image="busybox",
            args=[
                "sh",
                "-c",
                'echo "$1 in $(pwd)"; exec sleep infinity',
                "sh",
                "$(GREETING), $(NAME)$$(NAME)",
            ],
            workingDir="/usr",
            env=[
                {"name": "NAME", "value": "world"},
                {"name": "GREETING", "value": "hello $(NAME) $(NOBODY)"},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            ],
        ),
    ),
    pod("quiet", container("c", "cat", stdin=True)),
    pod(
        "stand-in",
        container("web", image="nginx", volumeMounts=[{"name": "cache", "mountPath": "/tmp/cache"}]),
        container("store", image="redis"),
        volumes=[{"name": "cache", "emptyDir": {}}],
    ),
    pod("on-node", container("c", "sleep", "infinity"), hostNetwork=True, nodeName="w2"),
    pod("five", *(container(f"c{number}", "sleep", "infinity") for number in range(5))),
]


@pytest.fixture(scope="module")
def pods(shared_cluster: MakeLab) -> Pods:
    return Pods(shared_cluster(CLUSTER + "---\n" + yaml.safe_dump_all(STANDING)))


# --- what the containers of a pod share -------------------------------------------------------------------


def test_they_share_address_localhost_host_name_and_ipc(pods: Pods) -> None:
    own = pods.run("pair", "hostname", "-I", container="other").strip()
    assert own == pods.ip("pair")
    assert "Directory listing" in pods.run(
        "pair", "curl", "-s", "http://127.0.0.1:9001/usr/", container="other"
    )
    assert pods.run("pair", "hostname", container="web") == pods.run("pair", "hostname", container="other")
    pods.run("pair", "ipcmk", "-Q", container="web")
    assert "0x" in pods.run("pair", "ipcs", "-q", container="other")
    assert "0x" not in pods.run("five", "ipcs", "-q"), "another pod has its own"


def test_nobody_debugs_a_container_that_does_not_run(pods: Pods) -> None:
    pods.apply(
        pod("half", container("ended", "true"), container("on", "sleep", "infinity"), restartPolicy="Never")
    )
    pods.until(
        "half", lambda p: "terminated" in state(p, "ended") and "running" in state(p, "on"), "half runs"
    )
    debugger = {**container("debugger", "true"), "targetContainerName": "ended"}
    pods.client.ask(
        "PATCH",
        f"{PODS}/half/ephemeralcontainers",
        {"spec": {"ephemeralContainers": [debugger]}},
        kind="application/strategic-merge-patch+json",
    )

    def debugged(obj: Obj) -> Obj:
        statuses = obj["status"].get("ephemeralContainerStatuses") or [{}]
        return statuses[0].get("state", {}).get("terminated") or {}

    ended = debugged(pods.until("half", debugged, "its debugger has ended"))
    assert (ended["exitCode"], ended["reason"]) == (128, "ContainerCannotRun")
    assert ended["message"] == 'invalid target container: container "ended" is not running'
    pods.delete("half")


def test_they_share_neither_processes_nor_files(pods: Pods) -> None:
    commands = pods.run("pair", "ps", "-eo", "args", container="other")
    assert "sleep infinity" in commands
    assert "http.server" not in commands
    pods.run("pair", "touch", "/tmp/mine", container="web")
    assert pods.run("pair", "ls", "/tmp", container="web") == "mine\n"
    assert pods.run("pair", "ls", "/tmp", container="other") == ""


SERVER = ("python3", "-m", "http.server", "80")


@pytest.mark.parametrize(
    ("name", "first", "second", "said"),
    [
        ("clash-1", container("first", *SERVER), container("second", *SERVER), "Address already in use"),
        ("clash-2", container("first", *SERVER), container("second", image="httpd"), "AH00072: make_sock"),
        (
            "clash-3",
            container("first", image="nginx"),
            container("second", *SERVER),
            "Address already in use",
        ),
        (
            "clash-4",
            container("first", image="nginx"),
            container("second", image="httpd"),
            "AH00072: make_sock",
        ),
    ],
)
def test_a_port_is_taken_once(
    pods: Pods, name: str, first: dict[str, object], second: dict[str, object], said: str
) -> None:
    """The first one is a sidecar, so that it is certain which one comes too late."""
    probe = {"tcpSocket": {"port": 80}, "periodSeconds": 1}
    pods.apply(
        pod(name, second, initContainers=[{**first, "restartPolicy": "Always", "startupProbe": probe}])
    )
    failed = pods.until(name, lambda p: waits(p, "second") == "CrashLoopBackOff", "the second gives up")
    ended = state(failed, "second", "lastState")["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (1, "Error")
    assert "running" in state(failed, "first")
    assert said in pods.logs(name, "-c", "second")
    assert said in pods.logs(name, "-c", "second", "--previous")
    assert pods.lab.nsk8s("get", "pod", name).stdout.splitlines()[1].split()[1:3] == [
        "1/2",
        "CrashLoopBackOff",
    ]
    described = pods.lab.nsk8s("describe", "pod", name).stdout
    assert "back-off 10s restarting failed container=second" in described
    pods.delete(name, "--now")


# --- order --------------------------------------------------------------------------------------------------


def test_init_containers_run_one_after_the_other_before_all_else(pods: Pods) -> None:
    """They share nothing but the IPC namespace: each leaves a message queue there, and counts."""
    count = "$(ipcs -q | grep -c 0x)"
    step = f'echo "{count} before me"; ipcmk -Q >/dev/null; sleep 0.2'
    since = pods.revision()
    pods.apply(
        pod(
            "steps",
            shell("app", f'echo "{count} before me"; exec sleep infinity'),
            initContainers=[shell("one", step), shell("two", step)],
        )
    )
    pods.until_ready("steps")
    said = [pods.logs("steps", "-c", name) for name in ("one", "two", "app")]
    assert said == [f"{number} before me\n" for number in range(3)]
    for _, seen in pods.events(since, name="steps"):
        assert waits(seen, "app") in ("", "PodInitializing")
        if "running" in state(seen, "two"):
            assert state(seen, "one")["terminated"]["reason"] == "Completed"
        if "running" in state(seen, "app"):
            assert state(seen, "two")["terminated"]["reason"] == "Completed"
            break
    pods.delete("steps", "--now")


def test_a_failed_init_container_ends_a_pod_that_must_not_restart(pods: Pods) -> None:
    pods.apply(
        pod(
            "init-never",
            container("app", "sleep", "infinity"),
            initContainers=[shell("one", "exit 4"), shell("two", "true")],
            restartPolicy="Never",
        )
    )
    failed = pods.until("init-never", lambda p: p["status"].get("phase") == "Failed", "it fails")
    assert state(failed, "one")["terminated"]["exitCode"] == 4
    assert waits(failed, "two") == waits(failed, "app") == "PodInitializing"
    assert "Init:Error" in pods.lab.nsk8s("get", "pod", "init-never").stdout
    pods.delete("init-never", "--now")


def test_a_failed_init_container_is_tried_again_on_failure(pods: Pods) -> None:
    once = "ipcs -q | grep -q 0x && exit 0; ipcmk -Q; exit 5"
    pods.apply(
        pod(
            "init-again",
            container("app", "sleep", "infinity"),
            initContainers=[shell("one", once)],
            restartPolicy="OnFailure",
        )
    )
    up = pods.until_ready("init-again")
    assert status_of(up, "one")["restartCount"] == 1
    assert state(up, "one")["terminated"]["exitCode"] == 0
    assert state(up, "one", "lastState")["terminated"]["exitCode"] == 5
    pods.delete("init-again", "--now")


def test_a_sidecar_serves_from_before_the_app_until_after_it(pods: Pods) -> None:
    sidecar = container("side", "python3", "-m", "http.server", "9000", restartPolicy="Always")
    sidecar["startupProbe"] = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
    since = pods.revision()
    pods.apply(
        pod(
            "helped",
            shell("app", "exec curl -sSf -o /dev/null http://127.0.0.1:9000/usr/"),
            initContainers=[sidecar],
            restartPolicy="Never",
        )
    )
    over = pods.until("helped", lambda p: "terminated" in state(p, "side"), "the sidecar ends")
    assert state(over, "app")["terminated"]["exitCode"] == 0, pods.logs("helped", "-c", "app")
    assert pods.until("helped", lambda p: p["status"]["phase"] == "Succeeded", "it succeeds")
    for _, seen in pods.events(since, name="helped"):
        if "running" in state(seen, "app"):
            assert status_of(seen, "side")["started"] is True
        if "terminated" in state(seen, "app"):
            break
    pods.delete("helped", "--now")


# --- how they end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "script", "code", "reason", "phase"),
    [
        ("Never", "exit 0", 0, "Completed", "Succeeded"),
        ("Never", "exit 3", 3, "Error", "Failed"),
        ("OnFailure", "exit 0", 0, "Completed", "Succeeded"),
    ],
)
def test_a_pod_that_has_ended(
    pods: Pods, policy: str, script: str, code: int, reason: str, phase: str
) -> None:
    name = f"ends-{policy.lower()}-{code}"
    pods.apply(pod(name, shell("c", script), restartPolicy=policy))
    over = pods.until(name, lambda p: p["status"].get("phase") == phase, phase)
    ended = state(over, "c")["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (code, reason)
    assert status_of(over, "c")["restartCount"] == 0
    assert reason in pods.lab.nsk8s("get", "pod", name).stdout
    pods.delete(name, "--now")


@pytest.mark.parametrize(
    ("policy", "script", "code", "reason"),
    [
        ("Always", "exit 0", 0, "Completed"),
        ("Always", "exit 9", 9, "Error"),
        ("OnFailure", "exit 1", 1, "Error"),
    ],
)
def test_a_container_that_always_ends_is_restarted_ever_later(
    pods: Pods, policy: str, script: str, code: int, reason: str
) -> None:
    name = f"again-{policy.lower()}-{code}"
    pods.apply(pod(name, shell("c", f"echo $$; {script}"), restartPolicy=policy))
    waiting = pods.until(name, lambda p: waits(p, "c") == "CrashLoopBackOff", "it backs off")
    uid = waiting["metadata"]["uid"]
    assert status_of(waiting, "c")["restartCount"] == 1
    assert state(waiting, "c")["waiting"]["message"] == (
        f"back-off 10s restarting failed container=c pod={name}_default({uid})"
    )
    ended = state(waiting, "c", "lastState")["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (code, reason)
    assert waiting["status"]["phase"] == "Running"
    assert condition(waiting, "Ready")["reason"] == "ContainersNotReady"
    pods.delete(name, "--now")


def test_the_second_restart_waits_ten_seconds_and_the_count_goes_on(pods: Pods) -> None:
    pods.apply(pod("looping", shell("c", "exit 1")))
    pods.until(
        "looping",
        lambda p: status_of(p, "c").get("restartCount") == 1,
        "the first restart is at once",
        deadline=5,
    )
    again = pods.until(
        "looping", lambda p: status_of(p, "c").get("restartCount") == 2, "the second one", deadline=15
    )
    pods.until("looping", lambda p: "back-off 20s" in str(state(p, "c")), "and then it waits longer")
    assert again["status"]["phase"] == "Running"
    pods.delete("looping", "--now")


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("no-such-program", 127, 'exec: "no-such-program": executable file not found in $PATH'),
        ("/no/such/program", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
    ],
)
def test_what_cannot_run(pods: Pods, command: str, code: int, message: str) -> None:
    name = f"cannot-{code}-{len(command)}"
    pods.apply(pod(name, container("c", command), restartPolicy="Never"))
    over = pods.until(name, lambda p: p["status"].get("phase") == "Failed", "it fails")
    ended = state(over, "c")["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (code, "ContainerCannotRun")
    assert message in ended["message"]
    assert message in pods.lab.nsk8s("describe", "pod", name).stdout
    pods.delete(name, "--now")


# --- what they find -----------------------------------------------------------------------------------------


def test_arguments_environment_and_working_directory(pods: Pods) -> None:
    pods.soon(lambda: pods.logs("equipped"), "it speaks")
    assert pods.logs("equipped") == "hello world $(NOBODY), world$(NAME) in /usr\n"
    env = dict(line.partition("=")[::2] for line in pods.run("equipped", "env").splitlines())
    shown = pods.get("equipped")
    assert env["GREETING"] == "hello world $(NOBODY)"
    assert (env["NODE"], env["ADDRESS"], env["LABEL"]) == (
        shown["spec"]["nodeName"],
        shown["status"]["podIP"],
        "equipped",
    )
    assert env["HOSTNAME"] == "equipped"
    assert env["PATH"].startswith("/usr/local/sbin:")
    assert "SUDO_USER" not in env
    assert "NSK8S_STATE" not in env
    assert pods.run("equipped", "pwd") == "/usr\n", "exec begins where the container does"


def test_standard_input_is_empty_or_never_ends(pods: Pods) -> None:
    assert status_of(pods.get("quiet"), "c")["restartCount"] == 0
    assert "running" in state(pods.get("quiet"), "c"), "cat waits for ever"
    pods.apply(pod("empty", container("c", "cat"), restartPolicy="Never"))
    pods.until("empty", lambda p: p["status"].get("phase") == "Succeeded", "cat finds the end at once")
    pods.delete("empty", "--now")


@pytest.mark.parametrize("name", ["web", "other"])
def test_the_pods_own_files(pods: Pods, name: str) -> None:
    ip = pods.ip("pair")
    hosts = pods.run("pair", "cat", "/etc/hosts", container=name)
    assert hosts.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert f"\n{ip}\ttwin.family.default.svc.cluster.local\ttwin\n" in hosts
    assert hosts.endswith("\n# Entries added by HostAliases.\n203.0.113.9\tfar\tfar.example\n")
    assert pods.run("pair", "cat", "/etc/hostname", container=name) == "twin\n"
    assert pods.run("pair", "hostname", container=name) == "twin\n"
    resolv = pods.run("pair", "cat", "/etc/resolv.conf", container=name).splitlines()
    assert "search default.svc.cluster.local svc.cluster.local cluster.local" in resolv
    assert "options ndots:5" in resolv
    assert pods.run("pair", "getent", "hosts", "far.example", container=name).split()[0] == "203.0.113.9"


def test_host_network_is_the_nodes_and_nothing_else(pods: Pods) -> None:
    node = pods.client.get("/api/v1/nodes/w2")["status"]["addresses"][0]["address"]
    shown = pods.get("on-node")["status"]
    assert shown["podIP"] == shown["hostIP"] == node
    links = [link["ifname"] for link in json.loads(pods.run("on-node", "ip", "-j", "link"))]
    assert links == [link["ifname"] for link in json.loads(pods.lab.inside("w2", "ip", "-j", "link"))]
    assert {"eth0", "cni0", "flannel.1"} <= set(links)
    assert pods.run("on-node", "hostname") == "w2\n"
    assert f"{node}\tw2\n" in pods.run("on-node", "cat", "/etc/hosts")
    assert len(pods.run("on-node", "ps", "-e").splitlines()) == 3, "a header, the container, ps itself"


# --- what they may not --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr/bin", "/root", "/home", "/sys/kernel", "/proc/sys/kernel"]
)
def test_the_hosts_files_are_read_only(pods: Pods, path: str) -> None:
    done = pods.lab.run("five", "sh", "-c", f"echo x > {path}/nsk8s-was-here", check=False)
    assert done.returncode != 0
    assert "nsk8s-was-here" in done.stderr


@pytest.mark.parametrize("path", ["/tmp", "/run", "/var/log", "/var/tmp", "/dev/shm"])
def test_private_directories_are_empty_writable_and_private(pods: Pods, path: str) -> None:
    given = "secrets\n" if path == "/run" else ""  # the service account's
    assert pods.run("five", "ls", "-A", path, container="c1") == given
    pods.run("five", "touch", f"{path}/mine", container="c1")
    assert pods.run("five", "ls", path, container="c1") == "mine\n" + given
    assert pods.run("five", "ls", path, container="c2") == given
    pods.run("five", "rm", f"{path}/mine", container="c1")


def test_what_is_left_in_a_stand_in_is_found_there_again(pods: Pods) -> None:
    uid = pods.get("stand-in")["metadata"]["uid"]
    volumes = ClusterPaths(pods.lab.name).volumes / "pods" / uid
    pods.sh("stand-in", "echo one > /tmp/1; echo two > /tmp/cache/2; echo 3 > /var/tmp/3", "web")
    assert pods.sh("stand-in", "cat /tmp/1 /tmp/cache/2 /var/tmp/3", "web") == "one\ntwo\n3\n"
    assert pods.sh("stand-in", "stat -c %a /tmp /var/tmp /tmp/1", "web") == "1777\n1777\n644\n"
    assert pods.sh("stand-in", "ls -A /tmp /var/tmp", "store") == "/tmp:\n\n/var/tmp:\n"
    assert (volumes / "cache" / "2").read_text() == "two\n"
    pods.lab.nsk8s("delete", "pod", "stand-in")
    pods.soon(lambda: not volumes.exists(), "its files are gone")


def test_new_files_may_be_read_by_others(pods: Pods) -> None:
    assert pods.sh("five", "umask; touch /tmp/new; stat -c %a /tmp/new; rm /tmp/new") == "0022\n644\n"
    assert "Umask:\t0022\n" in pods.run("five", "cat", "/proc/1/status"), "the container's own program"


def test_capabilities_are_those_of_a_container(pods: Pods) -> None:
    status = pods.run("five", "cat", "/proc/1/status").splitlines()
    held = {line.split()[0]: int(line.split()[1], 16) for line in status if line.startswith("Cap")}
    docker = 0xA80425FB & ~(1 << 27)  # without CAP_MKNOD
    assert held["CapEff:"] == held["CapPrm:"] == docker
    assert pods.lab.run("five", "ip", "link", "set", "eth0", "down", check=False).returncode != 0
    assert pods.lab.run("five", "mount", "-t", "tmpfs", "none", "/mnt", check=False).returncode != 0
    own = pods.run("five", "cat", "/proc/self/status").splitlines()
    assert [line for line in own if line.startswith("CapEff")] == [f"CapEff:\t{docker:016x}"], "exec too"


def test_the_hosts_processes_are_out_of_sight_and_reach(pods: Pods) -> None:
    assert len(pods.run("five", "ps", "-e").splitlines()) == 3, "a header, the container, ps itself"
    assert pods.sh("five", "ls /proc | grep -c '^[0-9]'").strip() in ("2", "3", "4")


# --- how quickly --------------------------------------------------------------------------------------------


def test_five_containers_start_in_well_under_a_second(pods: Pods) -> None:
    begin = time.monotonic()
    pods.client.ask("POST", PODS, pod("quick", *(container(f"c{n}", "sleep", "infinity") for n in range(5))))
    pods.until_ready("quick")
    took = time.monotonic() - begin
    pods.delete("quick", "--now")
    assert took < 1, f"{took:.2f} s"


def test_up_does_not_wait_for_what_has_failed_for_good(pods: Pods) -> None:
    doomed = pod("doomed", container("c", "no-such-program"), restartPolicy="Never")
    file = pods.lab.directory / "doomed.yaml"
    file.write_text(pods.lab.topology.read_text() + "---\n" + yaml.safe_dump(doomed))
    begin = time.monotonic()
    done = pods.lab.nsk8s("up", str(file), check=False)
    took = time.monotonic() - begin
    pods.lab.nsk8s("up", str(pods.lab.topology))
    assert done.returncode == 1
    assert (
        'pod default/doomed: Failed: container c: ContainerCannotRun: exec: "no-such-program"' in done.stderr
    )
    assert took < 10, f"{took:.1f} s"


def test_nodes_tell_the_truth_about_their_machine(pods: Pods) -> None:
    info = pods.client.get("/api/v1/nodes/w1")["status"]["nodeInfo"]
    assert info["kernelVersion"] == os.uname().release
    assert info["architecture"] == {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert info["osImage"] == platform.freedesktop_os_release()["PRETTY_NAME"]
    shown = pods.lab.nsk8s("get", "nodes", "-o", "wide").stdout
    assert info["kernelVersion"] in shown
    assert info["osImage"] in shown
