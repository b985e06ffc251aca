"""Pods come up and go down: sandboxes, addresses, phases, deletion."""

from __future__ import annotations

from nsk8s.cluster.lifecycle import ContainerStarted
from tests.unit.cluster.kubelets import Dialogue, container, pod, running
from tests.unit.cluster.worlds import three_nodes


def test_a_pod_comes_up_with_two_status_writes() -> None:
    d = Dialogue()
    assert d.create(pod()) == ["create p 10.244.1.2"]
    assert d.status() == {
        "phase": "Pending",
        "conditions": [
            {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": d.stamp()},
            {"type": "Initialized", "status": "True", "lastTransitionTime": d.stamp()},
            {
                "type": "Ready",
                "status": "False",
                "lastTransitionTime": d.stamp(),
                "reason": "ContainersNotReady",
                "message": "containers with unready status: [c]",
            },
            {
                "type": "ContainersReady",
                "status": "False",
                "lastTransitionTime": d.stamp(),
                "reason": "ContainersNotReady",
                "message": "containers with unready status: [c]",
            },
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": d.stamp()},
        ],
        "hostIP": "172.18.0.3",
        "hostIPs": [{"ip": "172.18.0.3"}],
        "podIP": "10.244.1.2",
        "podIPs": [{"ip": "10.244.1.2"}],
        "startTime": d.stamp(),
        "containerStatuses": [
            {
                "name": "c",
                "image": "nginx",
                "imageID": "",
                "ready": False,
                "started": False,
                "restartCount": 0,
                "state": {"waiting": {"reason": "ContainerCreating"}},
                "lastState": {},
            }
        ],
        "qosClass": "BestEffort",
    }
    pending = d.store.revision
    assert d.created() == ["start p/c #0"]
    assert d.store.revision == pending
    assert d.started(id_="abc") == []
    assert d.store.revision == pending + 1
    assert d.phase() == "Running"
    assert d.ready()
    assert d.container() == {
        "name": "c",
        "image": "nginx",
        "imageID": "stand-in: nginx",
        "containerID": "nsk8s://abc",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": d.stamp()}},
        "lastState": {},
    }
    assert d.kubelet.wake() is None
    assert d.sync() == []


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    d = Dialogue()
    d.create(pod())
    begin = d.stamp()
    d.created()
    d.later(5)
    d.started()
    assert d.condition("Initialized")["lastTransitionTime"] == begin
    assert d.condition("Ready")["lastTransitionTime"] == d.stamp() != begin


def test_containers_start_together_and_are_reported_together() -> None:
    d = Dialogue()
    d.create(pod(containers=[container("a"), container("b")]))
    assert d.created() == ["start p/a #0", "start p/b #0"]
    before = d.store.revision
    d.started("a")
    assert d.store.revision == before
    d.started("b")
    assert d.store.revision == before + 1
    assert d.ready()


def test_what_others_put_into_the_conditions_stays() -> None:
    d = Dialogue()
    obj = pod()
    obj["status"] = {"phase": "Pending", "conditions": [{"type": "example.com/gate", "status": "True"}]}
    d.store.create("pods", obj)
    d.sync()
    assert d.condition("example.com/gate")["status"] == "True"


def test_a_pod_that_is_not_bound_is_not_run() -> None:
    d = Dialogue()
    assert d.create(pod(node="")) == []
    obj = d.get()
    d.store.update("pods", {**obj, "spec": {**obj["spec"], "nodeName": "w2"}})
    assert d.sync() == ["create p 10.244.2.2"]


def test_a_host_network_pod_has_its_nodes_address() -> None:
    d = Dialogue()
    assert d.create(pod(hostNetwork=True)) == ["create p 172.18.0.3"]
    assert d.create(pod("q")) == ["create q 10.244.1.2"]


def test_a_sandbox_that_cannot_be_made_is_tried_again() -> None:
    d = Dialogue()
    d.create(pod())
    assert d.failed("no space left") == []
    assert d.condition("PodReadyToStartContainers")["message"] == "no space left"
    assert d.wanted() == []
    assert d.later(0.9) == []
    assert d.later(0.1) == ["create p 10.244.1.2"]
    d.failed()
    assert d.later(1.9) == []
    assert d.later(0.1) == ["create p 10.244.1.2"]
    assert d.created() == ["start p/c #0"]


def test_without_a_free_address_a_pod_waits_for_one() -> None:
    d = Dialogue(three_nodes(w1={"pod_cidrs": ("10.244.1.0/30",)}))
    d.create(pod())
    d.created()
    d.started()
    assert d.create(pod("q")) == []
    assert "no IP addresses available" in d.condition("PodReadyToStartContainers", "q")["message"]
    uid = d.uid()
    d.delete()
    d.exited(0)
    assert d.removed(uid) == ["create q 10.244.1.2"]


# --- deletion ---------------------------------------------------------------------------------------


def test_graceful_deletion() -> None:
    d = running(containers=[container("a"), container("b")])
    uid = d.uid()
    assert d.delete() == ["stop a 30s", "stop b 30s"]
    assert d.ready()
    assert d.wanted() == ["p"]
    assert d.exited(0, "a") == []
    assert not d.ready()
    assert d.exited(143, "b") == ["remove p"]
    assert d.phase() == "Failed"
    assert d.wanted() == []
    assert d.removed(uid) == []
    assert not d.exists()


def test_a_shorter_second_deletion_counts() -> None:
    d = running()
    assert d.delete() == ["stop c 30s"]
    d.later(2)
    assert d.delete(grace=5) == ["stop c 5s"]
    assert d.delete(grace=20) == []


def test_an_end_that_nobody_reports_is_not_waited_for_for_ever() -> None:
    d = running()
    d.delete(grace=3)
    assert d.later(7) == []
    assert d.later(2) == ["remove p"]


def test_deleted_at_once() -> None:
    d = running()
    uid = d.uid()
    assert d.delete(grace=0) == ["remove p"]
    assert not d.exists()
    assert d.removed(uid) == []
    assert d.wanted() == []


def test_deleted_while_its_sandbox_is_made() -> None:
    d = Dialogue()
    d.create(pod())
    uid = d.uid()
    assert d.delete() == ["remove p"]
    assert d.created() == []
    assert d.removed(uid) == []
    assert not d.exists()


def test_deleted_while_its_container_starts() -> None:
    d = Dialogue()
    d.create(pod())
    d.created()
    uid = d.uid()
    assert d.delete() == []
    assert d.started() == ["stop c 30s"]
    assert d.exited(0) == ["remove p"]
    d.removed(uid)
    assert not d.exists()


def test_a_finalizer_keeps_the_object_and_nothing_else() -> None:
    d = Dialogue()
    obj = pod()
    obj["metadata"]["finalizers"] = ["example.com/wait"]
    d.create(obj)
    d.created()
    d.started()
    d.delete()
    d.exited(0)
    assert d.removed(d.uid()) == []
    assert d.get()["metadata"]["deletionGracePeriodSeconds"] == 0
    assert d.create(pod("q")) == ["create q 10.244.1.3"]


def test_a_namesake_waits_until_the_name_is_free() -> None:
    d = running()
    uid = d.uid()
    assert d.delete(grace=0) == ["remove p"]
    assert d.create(pod()) == []
    assert d.phase() == "Pending"
    assert d.removed(uid) == ["create p 10.244.1.3"]
    assert d.created() == ["start p/c #0"]


def test_an_address_is_given_again_only_after_the_sandbox_is_gone() -> None:
    d = Dialogue(three_nodes(w1={"pod_cidrs": ("10.244.1.0/29",)}))
    for name in "abcde":
        d.create(pod(name))
    uid = d.uid("a")
    d.delete("a", grace=0)
    assert d.create(pod("f")) == []
    assert d.removed(uid) == ["create f 10.244.1.2"]


# --- the sandbox ends by itself -----------------------------------------------------------------------


def test_a_sandbox_that_died_is_made_anew() -> None:
    d = running()
    assert d.died() == ["remove p"]
    assert d.wanted() == []
    assert not d.ready()
    assert d.removed(d.uid()) == ["create p 10.244.1.3"]
    assert d.status()["podIP"] == "10.244.1.3"
    assert d.created() == ["start p/c #1"]
    d.started(id_="second")
    assert d.ready()
    assert d.container()["restartCount"] == 1
    assert d.container()["lastState"]["terminated"]["exitCode"] == 137


def test_an_address_lost_to_another_pod_is_no_longer_shown() -> None:
    d = Dialogue(three_nodes(w1={"pod_cidrs": ("10.244.1.0/30",)}))
    d.create(pod())
    d.create(pod("q"))
    uid = d.uid()
    d.died()
    d.removed(uid)
    assert d.wanted() == ["q"]
    assert d.status("q")["podIP"] == "10.244.1.2"
    assert "podIP" not in d.status()
    assert d.restart({d.uid("q")}) == ["start q/c #0"]
    assert d.wanted() == ["q"]


def test_a_pod_that_waits_for_an_address_remembers_its_runs() -> None:
    d = Dialogue(three_nodes(w1={"pod_cidrs": ("10.244.1.0/30",)}))
    d.create(pod())
    d.created()
    d.started()
    d.create(pod("q"))
    uid = d.uid()
    d.died()
    d.removed(uid)
    assert d.restart({d.uid("q")}) == ["remove p", "start q/c #0"]
    d.removed(uid)
    q = d.uid("q")
    d.delete("q", grace=0)
    assert d.removed(q) == ["create p 10.244.1.2"]
    assert d.created() == ["start p/c #1"]


def test_a_pod_that_never_restarts_gets_no_new_sandbox() -> None:
    d = running(restartPolicy="Never")
    assert d.died() == ["remove p"]
    assert d.removed(d.uid()) == []
    assert d.phase() == "Failed"


def test_what_concerns_unknown_pods_is_ignored() -> None:
    d = Dialogue()
    assert d.tell(ContainerStarted("nobody", "c", "id", "")) == []


# --- wanted -------------------------------------------------------------------------------------------


def test_wanted_pods_stay_the_same_value_while_only_their_status_changes() -> None:
    d = Dialogue()
    d.create(pod())
    before = d.kubelet.wanted()
    assert before[0].status.podIP == "10.244.1.2"
    d.created()
    d.started()
    assert d.kubelet.wanted() is before
    d.create(pod("q"))
    assert d.kubelet.wanted()[0] is before[0]
    obj = d.get()
    d.registry.update({**obj, "metadata": {**obj["metadata"], "labels": {"app": "x"}}})
    d.sync()
    assert d.kubelet.wanted()[0].metadata.labels == {"app": "x"}
