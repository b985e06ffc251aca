"""DaemonSets, StatefulSets, Jobs, CronJobs and ReplicationControllers, asked by the oldest and the
newest kubectl there is. No kernel is needed (see `played`); the pods of Jobs are ended by the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nsk8s.cluster.lifecycle import ContainerExited
from tests.netns import kubectls
from tests.netns.kubectls import Kubectl
from tests.netns.played import Played, played

DISRUPTION = 21
"""The minor version from which on kubectl knows policy/v1."""
CRON = 21
"""... and from which on it creates CronJobs of batch/v1, not of a version that 1.33 does not serve."""

TEMPLATE = {
    "metadata": {"labels": {"app": "NAME"}},
    "spec": {"containers": [{"name": "c", "image": "nginx:1"}]},
}


KUBECTLS: list[str] = list(dict.fromkeys([*kubectls.found()[:1], *kubectls.found()[-1:]]))


@pytest.fixture(
    scope="module",
    params=KUBECTLS,
    ids=kubectls.label,
)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Kubectl, Played]]:
    with played() as cluster:
        yield Kubectl(request.param, tmp_path_factory.mktemp("home"), cluster.kubeconfig), cluster


@pytest.fixture
def kubectl(stage: tuple[Kubectl, Played]) -> Kubectl:
    return stage[0]


def workload(kind: str, name: str, **spec: object) -> str:
    template = json.loads(json.dumps(TEMPLATE).replace("NAME", name))
    selector = {"matchLabels": {"app": name}}
    whole = {"selector": selector, "template": template, **spec}
    return json.dumps({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": whole})


def read(kubectl: Kubectl, *words: str) -> Any:  # noqa: ANN401  # any JSON
    return json.loads(kubectl("get", *words, "-o", "json"))


def row(kubectl: Kubectl, *words: str) -> list[str]:
    """The only row of a table, without the age."""
    return kubectl("get", *words).splitlines()[1].split()


def images(kubectl: Kubectl, app: str) -> set[str]:
    found = read(kubectl, "pods", "-l", f"app={app}")["items"]
    return {p["spec"]["containers"][0]["image"] for p in found if "deletionTimestamp" not in p["metadata"]}


@pytest.mark.parametrize("kind", ["DaemonSet", "StatefulSet"])
def test_a_rollout_goes_forth_and_back(kubectl: Kubectl, kind: str) -> None:
    name, short = f"roll-{kind.lower()}", {"DaemonSet": "ds", "StatefulSet": "sts"}[kind]
    more: dict[str, object] = {} if kind == "DaemonSet" else {"replicas": 2, "serviceName": name}
    kubectl("apply", "-f", "-", stdin=workload(kind, name, **more))
    done = {
        "DaemonSet": f'daemon set "{name}" successfully rolled out',
        "StatefulSet": "partitioned roll out complete: 2 new pods have been updated...",
    }[kind]
    assert done in kubectl("rollout", "status", f"{short}/{name}", "--timeout=20s")
    kubectl("set", "image", f"{short}/{name}", "c=nginx:2")
    assert done in kubectl("rollout", "status", f"{short}/{name}", "--timeout=20s")
    assert images(kubectl, name) == {"nginx:2"}
    history = kubectl("rollout", "history", f"{short}/{name}").splitlines()
    assert [line.split()[0] for line in history[2:] if line.strip()] == ["1", "2"]
    assert "nginx:1" in kubectl("rollout", "history", f"{short}/{name}", "--revision=1")
    assert "rolled back" in kubectl("rollout", "undo", f"{short}/{name}")
    kubectl("rollout", "status", f"{short}/{name}", "--timeout=20s")
    assert images(kubectl, name) == {"nginx:1"}
    history = kubectl("rollout", "history", f"{short}/{name}").splitlines()
    assert [line.split()[0] for line in history[2:] if line.strip()] == ["2", "3"]
    before = {p["metadata"]["uid"] for p in read(kubectl, "pods", "-l", f"app={name}")["items"]}
    kubectl("rollout", "restart", f"{short}/{name}")
    kubectl("rollout", "status", f"{short}/{name}", "--timeout=20s")
    after = {p["metadata"]["uid"] for p in read(kubectl, "pods", "-l", f"app={name}")["items"]}
    assert not before & after
    revisions = kubectl("get", "controllerrevisions", "-l", f"app={name}")
    assert f"{kind.lower()}.apps/{name}" in revisions
    assert "SuccessfulCreate" in kubectl("describe", short, name)
    kubectl("delete", short, name)


def test_tables(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=workload("DaemonSet", "table"))
    kubectl("rollout", "status", "ds/table", "--timeout=20s")
    assert row(kubectl, "ds", "table")[:7] == ["table", "2", "2", "2", "2", "2", "<none>"]
    kubectl("delete", "ds", "table")
    kubectl("apply", "-f", "-", stdin=workload("StatefulSet", "table", replicas=2, serviceName="table"))
    kubectl("rollout", "status", "sts/table", "--timeout=20s")
    assert row(kubectl, "sts", "table")[:2] == ["table", "2/2"]
    kubectl("scale", "sts/table", "--replicas=1")
    # An old one that comes too late says that it finds nothing to wait for.
    kubectl.run("wait", "--for=delete", "pod/table-1", "--timeout=20s", rc=None)
    assert "not found" in kubectl.fails("get", "pod", "table-1")
    assert row(kubectl, "sts", "table")[:2] == ["table", "1/1"]
    kubectl("delete", "sts", "table")


def test_a_replication_controller(kubectl: Kubectl) -> None:
    template = json.loads(json.dumps(TEMPLATE).replace("NAME", "old"))
    controller = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": "old"},
        "spec": {"replicas": 2, "selector": {"app": "old"}, "template": template},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(controller))
    kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=old", "--timeout=20s")
    kubectl("scale", "rc/old", "--replicas=1")
    assert row(kubectl, "rc", "old")[:2] == ["old", "1"]
    kubectl("expose", "rc", "old", "--port=80")
    kubectl("delete", "rc,svc", "old")


def test_a_drain_leaves_daemons_and_heeds_budgets(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=workload("DaemonSet", "agent"))
    kubectl("rollout", "status", "ds/agent", "--timeout=20s")
    said = kubectl.fails("drain", "w1", "--timeout=2s")
    assert "cannot delete" in said
    assert "DaemonSet-managed Pods" in said
    kubectl("uncordon", "w1")
    if kubectl.minor >= DISRUPTION:
        kubectl("apply", "-f", "-", stdin=workload("StatefulSet", "kept", replicas=2, serviceName="kept"))
        kubectl("rollout", "status", "sts/kept", "--timeout=20s")
        kubectl("create", "poddisruptionbudget", "kept", "--selector=app=kept", "--min-available=2")
        node = read(kubectl, "pod", "kept-0")["spec"]["nodeName"]
        said = kubectl.fails("drain", node, "--ignore-daemonsets", "--timeout=1s")
        assert "Cannot evict pod as it would violate the pod's disruption budget." in said
        kubectl("delete", "pdb", "kept")
        kubectl("drain", node, "--ignore-daemonsets", "--timeout=20s")
        kubectl("rollout", "status", "sts/kept", "--timeout=20s")
        assert read(kubectl, "pod", "kept-0")["spec"]["nodeName"] != node
        assert len(read(kubectl, "pods", "-l", "app=agent")["items"]) == 2
        kubectl("delete", "sts", "kept")
        kubectl("uncordon", node)
    kubectl("delete", "ds", "agent")


def test_jobs(stage: tuple[Kubectl, Played]) -> None:
    kubectl, cluster = stage
    if kubectl.minor < CRON:
        pytest.skip(f"kubectl 1.{kubectl.minor} knows CronJobs of batch/v1beta1 only")
    kubectl("create", "cronjob", "every", "--image=busybox", "--schedule=0 0 1 1 *", "--", "true")
    assert row(kubectl, "cronjob", "every")[0] == "every"
    kubectl("create", "job", "once", "--from=cronjob/every")
    (pod,) = read(kubectl, "pods", "-l", "job-name=once")["items"]
    assert read(kubectl, "job", "once")["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    assert row(kubectl, "job", "once")[:2] in (["once", "Running"], ["once", "0/1"])
    kubectl.fails("wait", "--for=condition=complete", "job/once", "--timeout=1s")
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=20s")
    cluster.happen(ContainerExited(uid, pod["spec"]["containers"][0]["name"], 0, "Completed"))
    kubectl("wait", "--for=condition=complete", "job/once", "--timeout=20s")
    assert "Job completed" in kubectl("describe", "job", "once")
    kubectl("delete", "cronjob", "every")
    kubectl.fails("get", "job", "once")


def test_what_is_wrong_is_refused_in_words(kubectl: Kubectl) -> None:
    if kubectl.minor >= CRON:
        said = kubectl.fails("create", "cronjob", "bad", "--image=busybox", "--schedule=61 * * * *")
        assert 'Invalid value: "61 * * * *": end of range (61) above maximum (59): 61' in said
    wrong = workload("StatefulSet", "bad", updateStrategy={"type": "Sometimes"}, serviceName="x")
    assert "must be 'RollingUpdate' or 'OnDelete'" in kubectl.fails("apply", "-f", "-", stdin=wrong)
