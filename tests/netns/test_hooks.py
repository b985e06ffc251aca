"""postStart and preStop, and the grace period that the latter is a part of, in real pods."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml

from tests.conftest import MakeLab
from tests.netns.podlab import CLUSTER, Pods, container, pod, shell, state, waits
from tests.netns.processes_of import Processes, kill

pytestmark = pytest.mark.netns


def hooks(**handlers: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"lifecycle": handlers}


def says(script: str) -> dict[str, Any]:
    return {"exec": {"command": ["sh", "-c", script]}}


SLEEP = {"sleep": {"seconds": 3}}
STANDING = [
    pod("serves", container("c", image="nginx", **hooks(preStop=SLEEP)), terminationGracePeriodSeconds=20),
    pod(
        "leaves",
        shell(
            "c",
            "trap 'echo term at $(date +%s); exit 0' TERM; while :; do sleep 0.1; done",
            **hooks(preStop=says("echo stop at $(date +%s) >/proc/1/fd/1; sleep 2")),
        ),
        terminationGracePeriodSeconds=20,
    ),
    pod("persists", container("c", image="nginx", **hooks(preStop=SLEEP)), terminationGracePeriodSeconds=20),
    pod("short", shell("c", "sleep infinity", **hooks(preStop=says("sleep 60")))),
    pod("fails", container("c", image="nginx", **hooks(preStop=says("exit 3")))),
    pod("greeted", shell("c", "sleep infinity", **hooks(postStart=says("echo welcome >/tmp/greeting")))),
    pod("asked", container("c", image="nginx", **hooks(preStop={"httpGet": {"port": 80, "path": "/bye"}}))),
]


@pytest.fixture(scope="module")
def pods(shared_cluster: MakeLab) -> Pods:
    return Pods(shared_cluster(CLUSTER + "---\n" + yaml.safe_dump_all(STANDING)))


def reasons(pods: Pods, name: str) -> list[tuple[str, str]]:
    events = pods.client.get("/api/v1/namespaces/default/events")["items"]
    return [(e["reason"], e["message"]) for e in events if e["involvedObject"]["name"] == name]


def test_a_stand_in_serves_on_while_its_pre_stop_hook_sleeps(pods: Pods) -> None:
    address, since = pods.ip("serves"), pods.revision()
    begun = time.monotonic()
    pods.delete("serves")
    answers = 0
    while time.monotonic() - begun < 2:
        assert "nginx" in pods.fetch("w1", f"http://{address}/")
        answers += 1
    assert answers
    pods.until_gone("serves", since)
    assert time.monotonic() - begun >= 3


def test_a_hook_outlives_the_control_plane(pods: Pods) -> None:
    address = pods.ip("persists")
    pods.delete("persists")
    kill(Processes(pods.lab.name).daemon())
    assert "nginx" in pods.fetch("w1", f"http://{address}/"), "nobody has ended it"
    pods.lab.nsk8s("delete", "pod", "persists")  # starts the next one, and waits
    assert ("Killing", "Stopping container c") in reasons(pods, "persists")


def test_sigterm_comes_after_the_pre_stop_hook(pods: Pods) -> None:
    since = pods.revision()
    pods.delete("leaves")
    written = pods.logs("leaves", "-f")  # to the container's end
    stopped, ended = (int(line.split()[-1]) for line in written.splitlines())
    assert ended - stopped >= 2, written
    pods.until_gone("leaves", since)


def test_a_hook_that_takes_too_long_ends_with_the_grace_period(pods: Pods) -> None:
    since = pods.revision()
    pods.delete("short")
    pods.until_gone("short", since)
    assert ("FailedPreStopHook", "PreStopHook failed") in reasons(pods, "short")


def test_a_hook_that_fails_is_told(pods: Pods) -> None:
    since = pods.revision()
    pods.delete("fails")
    pods.until_gone("fails", since)
    assert ("FailedPreStopHook", "PreStopHook failed") in reasons(pods, "fails")


def test_a_hook_may_ask_a_port_and_every_answer_will_do(pods: Pods) -> None:
    since = pods.revision()
    pods.delete("asked")
    pods.until_gone("asked", since)
    assert "FailedPreStopHook" not in dict(reasons(pods, "asked"))


def test_a_container_has_started_once_its_post_start_hook_is_over(pods: Pods) -> None:
    assert pods.run("greeted", "cat", "/tmp/greeting") == "welcome\n"


def test_a_container_whose_post_start_hook_fails_is_ended_and_runs_again(pods: Pods) -> None:
    pods.apply(pod("unwelcome", shell("c", "sleep infinity", **hooks(postStart=says("exit 1")))))
    pods.until("unwelcome", lambda p: waits(p, "c") == "CrashLoopBackOff", "restarted")
    told = reasons(pods, "unwelcome")
    assert ("FailedPostStartHook", "PostStartHook failed") in told
    assert ("Killing", "FailedPostStartHook") in told
    assert state(pods.get("unwelcome"), "c", "lastState")["terminated"]["exitCode"] == 137


def test_without_grace_no_hook_is_run(pods: Pods) -> None:
    pods.apply(pod("hasty", container("c", image="nginx", **hooks(preStop={"sleep": {"seconds": 1}}))))
    pods.until_ready("hasty")
    since = pods.revision()
    pods.delete("hasty", "--grace-period=0", "--force")
    pods.until_gone("hasty", since)
    assert "FailedPreStopHook" not in dict(reasons(pods, "hasty"))
