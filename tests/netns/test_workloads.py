"""Deployments and the scheduler on a real cluster: what an outsider sees of a rollout, and where pods go."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest
import yaml

from tests.conftest import MakeLab
from tests.netns.podlab import CLUSTER, PODS, Obj, Pods, condition, container, pod, ready, service, state

pytestmark = pytest.mark.netns

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SETS = "/apis/apps/v1/namespaces/default/replicasets"


@pytest.fixture(scope="module")
def pods(shared_cluster: MakeLab) -> Pods:
    client = pod("client", container("c", "sleep", "infinity"), nodeName="w2")
    return Pods(shared_cluster(CLUSTER + "---\n" + yaml.safe_dump_all([client])))


def deployment(name: str, replicas: int, *, image: str = "jwilder/whoami", **spec: object) -> Obj:
    """A Deployment of one container."""
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": image, "ports": [{"containerPort": 8000}]}],
        },
    }
    whole = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": whole}


def rolled_out(obj: Obj) -> bool:
    """What `kubectl rollout status` waits for."""
    status: Obj = obj.get("status") or {}
    wanted: int = obj["spec"]["replicas"]
    counts = [status.get(which, 0) for which in ("updatedReplicas", "replicas", "availableReplicas")]
    observed: int = status.get("observedGeneration", 0)
    generation: int = obj["metadata"]["generation"]
    return observed == generation and counts == [wanted] * 3


def rollout(pods: Pods, name: str) -> Obj:
    """Wait until a deployment is what it should be."""
    return pods.until(name, rolled_out, "rolled out", path=DEPLOYMENTS)


def its(pods: Pods, name: str) -> list[Obj]:
    """The pods of a deployment."""
    found: list[Obj] = pods.client.get(f"{PODS}?labelSelector=app%3D{name}")["items"]
    return [p for p in found if not p["metadata"].get("deletionTimestamp")]


def sets(pods: Pods, name: str) -> dict[str, Obj]:
    """Its ReplicaSets by image."""
    found = pods.client.get(f"{SETS}?labelSelector=app%3D{name}")["items"]
    return {rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs for rs in found}


def remove(pods: Pods, *names: str) -> None:
    """Delete deployments."""
    pods.lab.nsk8s("delete", "deployment", *names)


# --- deployments --------------------------------------------------------------------------------------------


def test_names_and_owners_tell_where_a_pod_comes_from(pods: Pods) -> None:
    pods.apply(deployment("web", 2))
    owner = rollout(pods, "web")
    (rs,) = sets(pods, "web").values()
    hashed = rs["metadata"]["labels"]["pod-template-hash"]
    assert rs["metadata"]["name"] == f"web-{hashed}"
    assert re.fullmatch("[bcdfghjklmnpqrstvwxz2456789]+", hashed)
    (ref,) = rs["metadata"]["ownerReferences"]
    assert (ref["kind"], ref["name"], ref["uid"]) == ("Deployment", "web", owner["metadata"]["uid"])
    assert ref["controller"] is ref["blockOwnerDeletion"] is True
    made = its(pods, "web")
    assert len(made) == 2
    for each in made:
        assert re.fullmatch(f"web-{hashed}-[bcdfghjklmnpqrstvwxz2456789]{{5}}", each["metadata"]["name"])
        assert each["metadata"]["labels"]["pod-template-hash"] == hashed
        assert each["metadata"]["ownerReferences"][0]["uid"] == rs["metadata"]["uid"]
    remove(pods, "web")
    pods.soon(lambda: not its(pods, "web") and not sets(pods, "web"), "all goes with the deployment")


def test_scale_up_and_down(pods: Pods) -> None:
    pods.apply(deployment("sized", 1))
    rollout(pods, "sized")
    assert (
        pods.lab.nsk8s("scale", "deployment", "sized", "--replicas=4").stdout
        == "deployment.apps/sized scaled\n"
    )
    rollout(pods, "sized")
    nodes = [p["spec"]["nodeName"] for p in its(pods, "sized")]
    assert sorted(nodes) == ["w1", "w1", "w2", "w2"], "spread evenly, none on the control plane"
    pods.lab.nsk8s("scale", "deployment", "sized", "--replicas=0")
    rollout(pods, "sized")
    pods.soon(lambda: not its(pods, "sized"), "none is left")
    remove(pods, "sized")


def test_a_deleted_pod_comes_back_under_another_name_and_address(pods: Pods) -> None:
    pods.apply(deployment("healing", 2))
    rollout(pods, "healing")
    before = {p["metadata"]["name"]: p["status"]["podIP"] for p in its(pods, "healing")}
    gone = min(before)
    pods.delete(gone)
    pods.soon(
        lambda: sum(ready(p) and p["metadata"]["name"] != gone for p in its(pods, "healing")) == 2, "healed"
    )
    after = {p["metadata"]["name"]: p["status"]["podIP"] for p in its(pods, "healing")}
    (new,) = after.keys() - before.keys()
    assert after[new] not in before.values()
    assert pods.fetch("default.client", f"http://{after[new]}:8000/") == f"I'm {new}\n"
    remove(pods, "healing")


class Requests:
    """Asks a service over and over, from a pod; `failed` is what went wrong."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self.answers: list[str] = []
        self.failed: list[str] = []
        self._ask = ask
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(self._ask())
            except AssertionError as error:
                self.failed.append(str(error))

    def __enter__(self) -> Requests:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize(
    ("name", "surge", "unavailable"), [("surging", 1, 0), ("shrinking", 0, 1), ("both", "50%", "25%")]
)
def test_a_rolling_update_keeps_its_promises_and_the_service_answers(
    pods: Pods, name: str, surge: int | str, unavailable: int | str
) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    most, least = {"surging": (5, 4), "shrinking": (4, 3), "both": (6, 3)}[name]
    old = deployment(name, 4, strategy=strategy)
    pods.apply(old, service(name, {"app": name}, 80, 8000))
    rollout(pods, name)
    before = {p["metadata"]["name"] for p in its(pods, name)}
    virtual = pods.client.get(f"/api/v1/namespaces/default/services/{name}")["spec"]["clusterIP"]
    fetch = lambda: pods.fetch("default.client", f"http://{virtual}/", "--connect-timeout", "0.5")  # noqa: E731
    pods.soon(lambda: _answers(fetch), "the service answers")
    since = pods.revision()
    new = deployment(name, 4, strategy=strategy)
    new["spec"]["template"]["metadata"]["annotations"] = {"version": "2"}
    with Requests(fetch) as requests:
        pods.apply(new)
        rollout(pods, name)
    after = {p["metadata"]["name"] for p in its(pods, name)}
    assert len(after) == 4
    assert not before & after
    assert not requests.failed
    assert {a.removeprefix("I'm ").strip() for a in requests.answers} <= before | after
    # Every state between, as a watch tells it.
    alive = dict.fromkeys(before, True)
    for type_, obj in pods.events(since):
        meta = obj["metadata"]
        if meta.get("labels", {}).get("app") != name:
            continue
        if type_ == "DELETED" or meta.get("deletionTimestamp"):
            alive.pop(meta["name"], None)
        else:
            alive[meta["name"]] = ready(obj)
        assert len(alive) <= most, alive
        assert sum(alive.values()) >= least, alive
        if alive.keys() == after and all(alive.values()):
            break
    remove(pods, name)
    pods.lab.nsk8s("delete", "service", name)


def _answers(fetch: Callable[[], str]) -> bool:
    try:
        return bool(fetch())
    except AssertionError:
        return False


def test_recreate_never_runs_two_versions(pods: Pods) -> None:
    strategy = {"type": "Recreate"}
    pods.apply(deployment("anew", 3, strategy=strategy))
    rollout(pods, "anew")
    live = {p["metadata"]["name"]: "jwilder/whoami" for p in its(pods, "anew")}
    assert len(live) == 3
    since = pods.revision()
    pods.apply(deployment("anew", 3, image="traefik/whoami", strategy=strategy))
    rollout(pods, "anew")
    final = {p["metadata"]["name"] for p in its(pods, "anew")}
    for type_, obj in pods.events(since):
        meta = obj["metadata"]
        if not meta["name"].startswith("anew-"):
            continue
        live[meta["name"]] = obj["spec"]["containers"][0]["image"]
        if type_ == "DELETED":
            del live[meta["name"]]
        assert len(set(live.values())) <= 1, live
        if live.keys() == final:
            break
    remove(pods, "anew")


def test_applying_the_old_template_again_rolls_back(pods: Pods) -> None:
    pods.apply(deployment("undone", 2))
    rollout(pods, "undone")
    first = sets(pods, "undone")["jwilder/whoami"]["metadata"]["name"]
    pods.apply(deployment("undone", 2, image="traefik/whoami"))
    rollout(pods, "undone")
    pods.apply(deployment("undone", 2))
    back = rollout(pods, "undone")
    assert back["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    both = sets(pods, "undone")
    assert both["jwilder/whoami"]["metadata"]["name"] == first, "the same ReplicaSet serves again"
    assert both["jwilder/whoami"]["status"]["replicas"] == 2
    assert both["traefik/whoami"]["spec"]["replicas"] == 0
    remove(pods, "undone")


def test_a_paused_deployment_waits(pods: Pods) -> None:
    pods.apply(deployment("paused", 2))
    rollout(pods, "paused")
    pods.apply(deployment("paused", 2, image="traefik/whoami", paused=True))
    seen = pods.until(
        "paused",
        lambda d: condition(d, "Progressing")["reason"] == "DeploymentPaused",
        "it pauses",
        path=DEPLOYMENTS,
    )
    assert "updatedReplicas" not in seen["status"]
    assert set(sets(pods, "paused")) == {"jwilder/whoami"}
    pods.client.merge(f"{DEPLOYMENTS}/paused", {"spec": {"paused": None}})
    rollout(pods, "paused")
    assert {p["spec"]["containers"][0]["image"] for p in its(pods, "paused")} == {"traefik/whoami"}
    remove(pods, "paused")


def test_a_rollout_that_cannot_progress_keeps_the_old_pods(pods: Pods) -> None:
    pods.apply(deployment("stuck", 3, progressDeadlineSeconds=1))
    rollout(pods, "stuck")
    before = {p["metadata"]["name"] for p in its(pods, "stuck")}
    broken = deployment("stuck", 3, progressDeadlineSeconds=1)
    broken["spec"]["template"]["spec"]["containers"][0]["command"] = ["no-such-program"]
    pods.apply(broken)
    late = pods.until(
        "stuck",
        lambda d: condition(d, "Progressing").get("reason") == "ProgressDeadlineExceeded",
        "it is late",
        path=DEPLOYMENTS,
    )
    assert condition(late, "Available")["status"] == "True"
    running = {p["metadata"]["name"] for p in its(pods, "stuck") if ready(p)}
    assert running == before, "25% of 3 unavailable is none"
    assert late["status"]["updatedReplicas"] == 1
    (new,) = (p for p in its(pods, "stuck") if p["metadata"]["name"] not in before)
    ended = state(new, "c", "lastState") or state(new, "c")
    assert ended["terminated"]["exitCode"] == 127
    remove(pods, "stuck")


def test_a_replica_set_adopts_what_it_selects_and_lets_go_what_it_does_not(pods: Pods) -> None:
    orphan = pod("orphan", container("c", image="jwilder/whoami"), labels={"app": "adopting"})
    pods.apply(orphan)
    pods.until_ready("orphan")
    spec = {k: v for k, v in deployment("adopting", 2)["spec"].items() if k != "strategy"}
    pods.apply(
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "adopting"}, "spec": spec}
    )
    ready_sets = lambda rs: (rs.get("status") or {}).get("readyReplicas") == 2  # noqa: E731
    owner = pods.until("adopting", ready_sets, "two are ready", path=SETS)
    assert len(its(pods, "adopting")) == 2, "the orphan is one of them"
    assert pods.get("orphan")["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
    pods.lab.nsk8s("label", "pod", "orphan", "app=free", "--overwrite")
    free = pods.until("orphan", lambda p: not p["metadata"].get("ownerReferences"), "it is let go")
    assert ready(free)
    pods.soon(lambda: sum(map(ready, its(pods, "adopting"))) == 2, "and replaced")
    pods.lab.nsk8s("delete", "replicaset", "adopting")
    pods.delete("orphan", "--now")


# --- the scheduler ------------------------------------------------------------------------------------------

TAINTED = "1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }"


def refused(pods: Pods, name: str) -> str:
    """Why a pod is not scheduled."""
    waiting = pods.until(
        name, lambda p: condition(p, "PodScheduled").get("reason") == "Unschedulable", "it is refused"
    )
    assert waiting["status"]["phase"] == "Pending"
    assert not waiting["status"].get("podIP")
    message = str(condition(waiting, "PodScheduled")["message"])
    assert message in pods.lab.nsk8s("describe", "pod", name).stdout
    return message


def test_a_label_makes_a_pending_pod_run(pods: Pods) -> None:
    pods.apply(pod("choosy", container("c", image="nginx"), nodeSelector={"gpu": "yes"}))
    assert refused(pods, "choosy") == (
        "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
        "2 node(s) didn't match Pod's node affinity/selector. "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    pods.lab.nsk8s("label", "node", "w2", "gpu=yes")
    assert pods.until_ready("choosy")["spec"]["nodeName"] == "w2"
    pods.lab.nsk8s("label", "node", "w2", "gpu-")
    assert ready(pods.get("choosy")), "IgnoredDuringExecution"
    pods.delete("choosy", "--now")


def test_a_host_port_is_taken_once_on_a_node(pods: Pods) -> None:
    one = container("c", image="nginx", ports=[{"containerPort": 80, "hostPort": 8765}])
    pods.apply(pod("port-1", one, nodeSelector={"disk": "ssd"}))
    pods.until_ready("port-1")
    pods.apply(pod("port-2", one, nodeSelector={"disk": "ssd"}))
    assert refused(pods, "port-2") == (
        "0/3 nodes are available: 1 node(s) didn't have free ports for the requested pod ports, "
        "1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }. "
        "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling."
    )
    pods.delete("port-1", "--now")
    assert pods.until_ready("port-2")["spec"]["nodeName"] == "w1", "the port is free again"
    pods.delete("port-2", "--now")


def test_a_cordoned_node_takes_nobody_new(pods: Pods) -> None:
    for name in ("w1", "w2"):
        pods.client.merge(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
    try:
        nodes = pods.lab.nsk8s("get", "nodes").stdout
        assert re.search(r"w1 +Ready,SchedulingDisabled", nodes)
        pods.apply(pod("nowhere", container("c", image="nginx")))
        assert refused(pods, "nowhere") == (
            f"0/3 nodes are available: {TAINTED}, 2 node(s) were unschedulable. "
            "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        )
        pods.client.merge("/api/v1/nodes/w1", {"spec": {"unschedulable": None}})
        assert pods.until_ready("nowhere")["spec"]["nodeName"] == "w1"
    finally:
        for name in ("w1", "w2"):
            pods.client.merge(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": None}})
    pods.delete("nowhere", "--now")


def test_a_taint_keeps_away_who_does_not_tolerate_it(pods: Pods) -> None:
    taints = [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]
    pods.client.merge("/api/v1/nodes/w1", {"spec": {"taints": taints}})
    try:
        pods.apply(
            pod("stranger", container("c", image="nginx"), nodeSelector={"disk": "ssd"}),
            pod(
                "friend",
                container("c", image="nginx"),
                nodeSelector={"disk": "ssd"},
                tolerations=[
                    {"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"}
                ],
            ),
            pod(
                "master-friend",
                container("c", image="nginx"),
                nodeSelector={"node-role.kubernetes.io/control-plane": ""},
                tolerations=[{"operator": "Exists"}],
            ),
        )
        assert pods.until_ready("friend")["spec"]["nodeName"] == "w1"
        assert pods.until_ready("master-friend")["spec"]["nodeName"] == "master"
        assert "1 node(s) had untolerated taint {dedicated: db}" in refused(pods, "stranger")
    finally:
        pods.client.merge("/api/v1/nodes/w1", {"spec": {"taints": None}})
    assert pods.until_ready("stranger")["spec"]["nodeName"] == "w1", "the taint is gone"
    for name in ("stranger", "friend", "master-friend"):
        pods.delete(name, "--now")


# --- checklist row 98 ---------------------------------------------------------------------------------------


def test_row_98_expose_and_scale_defaults(pods: Pods) -> None:
    labelled = deployment("shown", 1)
    labelled["metadata"]["labels"] = {"tier": "front"}
    pods.apply(labelled)
    rollout(pods, "shown")
    assert pods.lab.nsk8s("expose", "deployment", "shown").stdout == "service/shown exposed\n"
    plain = pods.client.get("/api/v1/namespaces/default/services/shown")
    assert plain["metadata"]["labels"] == {"tier": "front"}
    assert plain["spec"]["selector"] == {"app": "shown"}
    assert plain["spec"]["type"] == "ClusterIP"
    assert plain["spec"]["ports"] == [{"port": 8000, "protocol": "TCP", "targetPort": 8000}]
    assert plain["spec"]["sessionAffinity"] == "None"
    pods.lab.nsk8s(
        "expose",
        "deployment",
        "shown",
        "--name=outside",
        "--type=NodePort",
        "--port=80",
        "--target-port=8000",
    )
    outside = pods.client.get("/api/v1/namespaces/default/services/outside")
    (port,) = outside["spec"]["ports"]
    assert {**port, "nodePort": 0} == {"port": 80, "protocol": "TCP", "targetPort": 8000, "nodePort": 0}
    assert 30000 <= port["nodePort"] <= 32767
    node = pods.client.get("/api/v1/nodes/w1")["status"]["addresses"][0]["address"]
    (only,) = its(pods, "shown")
    pods.soon(
        lambda: _answers(lambda: pods.fetch("external", f"http://{node}:{port['nodePort']}/")), "it answers"
    )
    seen = pods.fetch("external", f"http://{node}:{port['nodePort']}/")
    assert seen == f"I'm {only['metadata']['name']}\n"
    refused_scale = pods.lab.nsk8s(
        "scale", "deployment", "shown", "--replicas=3", "--current-replicas=7", check=False
    )
    assert refused_scale.returncode == 1
    assert pods.client.get(f"{DEPLOYMENTS}/shown")["spec"]["replicas"] == 1
    pods.lab.nsk8s("delete", "service", "shown", "outside")
    remove(pods, "shown")
