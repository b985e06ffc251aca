"""What the control plane does and tells over time, asked by every kubectl there is. No kernel is needed:
what the kubelets want goes well at once (see `played`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns import kubectls
from tests.netns.kubectls import Kubectl
from tests.netns.played import played

DISRUPTION = 21
"""The minor version from which on kubectl knows policy/v1."""
DEBUG = 23
"""... and from which on it debugs without a feature gate, in today's words."""
EVENTS = 26
"""... and from which on there is ``kubectl events``."""


@pytest.fixture(
    scope="module",
    params=kubectls.found(),
    ids=kubectls.label,
)
def kubectl(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with played() as cluster:
        yield Kubectl(request.param, tmp_path_factory.mktemp("home"), cluster.kubeconfig)


def rolled_out(kubectl: Kubectl, name: str) -> None:
    said = kubectl("rollout", "status", f"deploy/{name}", "--timeout=20s")
    assert f'deployment "{name}" successfully rolled out' in said


def made(kubectl: Kubectl, name: str, replicas: int = 2) -> None:
    kubectl("create", "deployment", name, "--image=nginx:1", f"--replicas={replicas}")
    rolled_out(kubectl, name)


def read(kubectl: Kubectl, *words: str) -> Any:  # noqa: ANN401  # any JSON
    return json.loads(kubectl("get", *words, "-o", "json"))


def names(kubectl: Kubectl, what: str, selector: str) -> list[str]:
    return [item["metadata"]["name"] for item in read(kubectl, what, "-l", selector)["items"]]


# --- rollouts ---------------------------------------------------------------------------------------------


def test_a_rollout_goes_forth_and_back(kubectl: Kubectl) -> None:
    made(kubectl, "roll")
    kubectl("annotate", "deploy/roll", "kubernetes.io/change-cause=first")
    kubectl("set", "image", "deploy/roll", "nginx=nginx:2")
    kubectl("annotate", "deploy/roll", "kubernetes.io/change-cause=second", "--overwrite")
    rolled_out(kubectl, "roll")
    history = kubectl("rollout", "history", "deploy/roll")
    assert [line.split() for line in history.splitlines()[2:4]] == [["1", "first"], ["2", "second"]]
    kubectl("rollout", "undo", "deploy/roll")
    rolled_out(kubectl, "roll")
    deployment = read(kubectl, "deploy", "roll")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1"
    assert deployment["metadata"]["annotations"]["kubernetes.io/change-cause"] == "first"
    assert len(names(kubectl, "rs", "app=roll")) == 2, "undo finds the old one again"
    history = kubectl("rollout", "history", "deploy/roll")
    assert [line.split() for line in history.splitlines()[2:4]] == [["2", "second"], ["3", "first"]]
    assert "nginx:2" in kubectl("rollout", "history", "deploy/roll", "--revision=2")


def test_a_paused_rollout_waits(kubectl: Kubectl) -> None:
    made(kubectl, "pause")
    kubectl("rollout", "pause", "deploy/pause")
    kubectl("set", "env", "deploy/pause", "A=b")
    progressing = next(
        c for c in read(kubectl, "deploy", "pause")["status"]["conditions"] if c["type"] == "Progressing"
    )
    assert (progressing["status"], progressing["reason"]) == ("Unknown", "DeploymentPaused")
    assert len(names(kubectl, "rs", "app=pause")) == 1
    kubectl("rollout", "resume", "deploy/pause")
    rolled_out(kubectl, "pause")
    assert len(names(kubectl, "rs", "app=pause")) == 2
    before = set(names(kubectl, "pods", "app=pause"))
    kubectl("rollout", "restart", "deploy/pause")
    rolled_out(kubectl, "pause")
    assert not before & set(names(kubectl, "pods", "app=pause"))


def test_scaling_is_told(kubectl: Kubectl) -> None:
    made(kubectl, "scale", 1)
    kubectl("scale", "deploy/scale", "--replicas=3")
    rolled_out(kubectl, "scale")
    (replica_set,) = names(kubectl, "rs", "app=scale")
    said = kubectl("describe", "deploy", "scale")
    assert f"Scaled up replica set {replica_set} from 0 to 1" in said
    assert f"Scaled up replica set {replica_set} from 1 to 3" in said
    assert "SuccessfulCreate" in kubectl("describe", "rs", replica_set)


# --- events -----------------------------------------------------------------------------------------------


def test_the_life_of_a_pod_is_told(kubectl: Kubectl) -> None:
    kubectl("run", "told", "--image=nginx")
    kubectl("wait", "--for=condition=Ready", "pod/told", "--timeout=20s")
    said = kubectl("describe", "pod", "told")
    for words in (
        "Successfully assigned default/told to w",
        "nothing was pulled",
        "Created container: told",
        "Started container told",
    ):
        assert words in said
    kubectl("delete", "pod", "told", "--now")
    assert "Stopping container told" in kubectl("get", "events")
    if kubectl.minor >= EVENTS:
        assert "Stopping container told" in kubectl("events", "--for", "pod/told")


def test_what_cannot_be_scheduled_is_told(kubectl: Kubectl) -> None:
    overrides = '{"apiVersion": "v1", "spec": {"nodeSelector": {"no": "where"}}}'
    kubectl("run", "stuck", "--image=nginx", f"--overrides={overrides}")
    said = kubectl("describe", "pod", "stuck")
    assert "FailedScheduling" in said
    assert "0/3 nodes are available: " in said
    kubectl("delete", "pod", "stuck")


# --- nodes ------------------------------------------------------------------------------------------------


def test_a_node_is_drained_and_comes_back(kubectl: Kubectl) -> None:
    made(kubectl, "drain", 4)
    kubectl("drain", "w1", "--ignore-daemonsets", "--force", "--timeout=20s")
    assert read(kubectl, "node", "w1")["spec"]["taints"][0]["key"] == "node.kubernetes.io/unschedulable"
    rolled_out(kubectl, "drain")
    pods = read(kubectl, "pods", "-l", "app=drain")["items"]
    assert {p["spec"]["nodeName"] for p in pods if "deletionTimestamp" not in p["metadata"]} == {"w2"}
    said = kubectl("describe", "node", "w1")
    assert "NodeNotSchedulable" in said
    assert "HolderIdentity:  w1" in said
    kubectl("uncordon", "w1")
    assert "taints" not in read(kubectl, "node", "w1")["spec"]
    kubectl("taint", "node", "w1", "a=b:NoExecute")
    kubectl("taint", "node", "w1", "a-")


def test_a_budget_stands_in_the_way(kubectl: Kubectl) -> None:
    if kubectl.minor < DISRUPTION:
        pytest.skip("this kubectl knows policy/v1beta1 only, which 1.33 does not serve")
    made(kubectl, "safe")
    kubectl("create", "poddisruptionbudget", "safe", "--selector=app=safe", "--min-available=2")
    node = read(kubectl, "pods", "-l", "app=safe")["items"][0]["spec"]["nodeName"]
    said = kubectl.fails("drain", node, "--pod-selector=app=safe", "--timeout=1s")
    assert "Cannot evict pod as it would violate the pod's disruption budget." in said
    kubectl("delete", "pdb", "safe")
    kubectl("drain", node, "--pod-selector=app=safe", "--timeout=20s")
    kubectl("uncordon", node)


def test_there_are_no_metrics(kubectl: Kubectl) -> None:
    assert "Metrics API not available" in kubectl.fails("top", "nodes")


# --- the end ----------------------------------------------------------------------------------------------


def test_a_namespace_ends_when_it_is_empty(kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "lab")
    kubectl("create", "configmap", "held", "-n", "lab", "--from-literal=a=b")
    finalizers = '{"metadata": {"finalizers": ["example.com/wait"]}}'
    kubectl("patch", "configmap", "held", "-n", "lab", "-p", finalizers)
    kubectl("create", "deployment", "web", "-n", "lab", "--image=nginx")
    kubectl("delete", "namespace", "lab", "--wait=false")
    assert "Terminating" in kubectl("get", "namespace", "lab")
    refused = kubectl.fails("create", "configmap", "new", "-n", "lab")
    assert "unable to create new content in namespace lab because it is being terminated" in refused
    remaining = next(
        c
        for c in read(kubectl, "namespace", "lab")["status"]["conditions"]
        if c["type"] == "NamespaceFinalizersRemaining"
    )
    assert remaining["message"].endswith("example.com/wait in 1 resource instances")
    kubectl("patch", "configmap", "held", "-n", "lab", "-p", '{"metadata": {"finalizers": null}}')
    assert "NotFound" in _gone(kubectl, "namespace", "lab")


def _gone(kubectl: Kubectl, *words: str) -> str:
    """Wait for the end of something, then ask for it."""
    kubectl.run("wait", "--for=delete", "/".join(words), "--timeout=20s", rc=None)
    return kubectl.fails("get", *words)


@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
def test_dependents_go_or_stay(kubectl: Kubectl, cascade: str) -> None:
    made(kubectl, cascade)
    kubectl("delete", "deploy", cascade, f"--cascade={cascade}")
    if cascade == "orphan":
        (replica_set,) = names(kubectl, "rs", f"app={cascade}")
        assert len(names(kubectl, "pods", f"app={cascade}")) == 2
        kubectl("delete", "rs", replica_set)
    assert names(kubectl, "rs", f"app={cascade}") == []


def test_force_removes_a_pod_at_once(kubectl: Kubectl) -> None:
    kubectl("run", "forced", "--image=nginx")
    kubectl("delete", "pod", "forced", "--grace-period=0", "--force")
    assert "NotFound" in kubectl.fails("get", "pod", "forced")


def test_a_debugger_joins_a_running_pod(kubectl: Kubectl) -> None:
    if kubectl.minor < DEBUG:
        pytest.skip("debug is alpha here and speaks an older API")
    kubectl("run", "looked-at", "--image=nginx")
    kubectl("wait", "--for=condition=Ready", "pod/looked-at", "--timeout=20s")
    kubectl("debug", "looked-at", "--image=busybox", "--container=debugger", "--target=looked-at", "-q")
    running = "jsonpath={.status.ephemeralContainerStatuses[0].state.running.startedAt}"
    assert kubectl("get", "pod", "looked-at", "-o", running)
    assert "Started container debugger" in kubectl("describe", "pod", "looked-at")
