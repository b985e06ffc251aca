"""Containers start, end and start again; init containers, sidecars, probes."""

from __future__ import annotations

from typing import Any

from tests.unit.cluster.kubelets import Dialogue, container, pod, running

HTTP: dict[str, Any] = {"httpGet": {"path": "/", "port": 80}}


def probed(kind: str, **fields: Any) -> Dialogue:  # noqa: ANN401 - JSON
    """A pod whose container has one probe, just started."""
    probe = {**HTTP, **fields}
    probed_container = {**container(), f"{kind}Probe": probe}
    return running(containers=[probed_container], terminationGracePeriodSeconds=7)


# --- restarts -----------------------------------------------------------------------------------------


def test_back_off_doubles_from_ten_seconds_to_five_minutes() -> None:
    d = running()
    waits = []
    for attempt in range(1, 9):
        said, waited = d.exited(1), 0
        while not said:
            said = d.later(1)
            waited += 1
        assert said == [f"start p/c #{attempt}"]
        waits.append(waited)
        d.started(id_=f"id{attempt}")
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


def test_back_off_starts_anew_after_ten_good_minutes() -> None:
    d = running()
    d.exited(1)
    d.started()
    d.exited(1)
    d.later(10)
    d.started()
    d.later(601)
    assert d.exited(1) == ["start p/c #3"]


def test_states_of_a_crashing_container() -> None:
    d = running()
    first = d.stamp()
    d.later(3)
    d.exited(2, message="boom")
    ended = {
        "exitCode": 2,
        "reason": "Error",
        "startedAt": first,
        "finishedAt": d.stamp(),
        "containerID": "nsk8s://id0",
        "message": "boom",
    }
    assert d.container()["state"] == {"terminated": ended}
    assert not d.ready()
    d.started(id_="id1")
    assert d.container()["state"] == {"running": {"startedAt": d.stamp()}}
    assert d.container()["lastState"] == {"terminated": ended}
    assert d.container()["restartCount"] == 1
    d.exited(0)
    assert d.phase() == "Running"
    waiting = d.container()["state"]["waiting"]
    assert waiting["reason"] == "CrashLoopBackOff"
    assert waiting["message"] == f"back-off 10s restarting failed container=c pod=p_default({d.uid()})"
    assert d.container()["lastState"]["terminated"]["reason"] == "Completed"


def test_restart_policies() -> None:
    for policy, code, again, phase in (
        ("Always", 0, True, "Running"),
        ("OnFailure", 1, True, "Running"),
        ("OnFailure", 0, False, "Succeeded"),
        ("Never", 0, False, "Succeeded"),
        ("Never", 3, False, "Failed"),
    ):
        d = running(restartPolicy=policy)
        assert d.exited(code) == (["start p/c #1"] if again else ["remove p"])
        assert (policy, code, d.phase()) == (policy, code, phase)


def test_a_pod_that_is_done_gives_its_address_back_and_stays() -> None:
    d = running(restartPolicy="Never")
    d.exited(0)
    assert d.condition("Ready")["reason"] == "PodCompleted"
    d.removed(d.uid())
    assert d.status()["podIP"] == "10.244.1.2"
    assert d.condition("PodReadyToStartContainers")["status"] == "False"
    assert d.condition("Initialized") == {
        "type": "Initialized",
        "status": "True",
        "reason": "PodCompleted",
        "lastTransitionTime": d.stamp(),
    }
    assert d.later(1000) == []
    assert d.delete() == []
    assert not d.exists()


def test_one_of_two_containers_ends_and_the_pod_runs_on() -> None:
    d = running(containers=[container("a"), container("b")], restartPolicy="Never")
    assert d.exited(0, "a") == []
    assert d.phase() == "Running"
    assert d.condition("Ready")["message"] == "containers with unready status: [a]"
    assert d.exited(1, "b") == ["remove p"]
    assert d.phase() == "Failed"


def test_a_changed_image_restarts_the_container() -> None:
    d = running(restartPolicy="Never", terminationGracePeriodSeconds=4)
    obj = d.get()
    spec = {**obj["spec"], "containers": [{**obj["spec"]["containers"][0], "image": "httpd"}]}
    d.registry.update({**obj, "spec": spec})
    assert d.sync() == ["stop c 4s"]
    assert d.exited(0) == ["start p/c #1"]
    d.started()
    assert d.container()["image"] == "httpd"
    assert d.sync() == []


# --- init containers and sidecars ---------------------------------------------------------------------


def test_init_containers_run_one_after_the_other() -> None:
    d = Dialogue()
    d.create(pod(initContainers=[container("i1"), container("i2")]))
    assert d.created() == ["start p/i1 #0"]
    assert d.started("i1") == []
    assert d.container()["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert d.condition("Initialized")["message"] == "containers with incomplete status: [i1 i2]"
    assert d.exited(0, "i1") == ["start p/i2 #0"]
    d.started("i2")
    assert d.phase() == "Pending"
    assert d.exited(0, "i2") == ["start p/c #0"]
    d.started()
    assert d.phase() == "Running"
    assert d.ready()
    assert d.condition("Initialized")["status"] == "True"
    assert d.container("i1")["state"]["terminated"]["reason"] == "Completed"
    assert d.container("i1")["ready"]


def test_a_failing_init_container_is_tried_again_with_back_off() -> None:
    d = Dialogue()
    d.create(pod(initContainers=[container("i")]))
    d.created()
    d.started("i")
    assert d.exited(1, "i") == ["start p/i #1"]
    d.started("i")
    assert d.exited(1, "i") == []
    assert d.container("i")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert d.phase() == "Pending"
    assert d.later(10) == ["start p/i #2"]


def test_a_failing_init_container_of_a_pod_that_never_restarts_fails_it() -> None:
    d = Dialogue()
    d.create(pod(initContainers=[container("i")], restartPolicy="Never"))
    d.created()
    d.started("i")
    assert d.exited(1, "i") == ["remove p"]
    assert d.phase() == "Failed"


def test_a_sidecar_starts_first_and_ends_last() -> None:
    d = Dialogue()
    d.create(pod(initContainers=[container("s", restartPolicy="Always")], restartPolicy="Never"))
    assert d.created() == ["start p/s #0"]
    assert d.started("s") == ["start p/c #0"]
    d.started()
    assert d.ready()
    assert d.exited(1, "s") == ["start p/s #1"]
    assert not d.ready()
    d.started("s")
    assert d.exited(0) == ["stop s 30s"]
    assert d.phase() == "Running"
    assert d.exited(0, "s") == ["remove p"]
    assert d.phase() == "Succeeded"


def test_a_deleted_pods_sidecar_ends_after_its_containers() -> None:
    d = Dialogue()
    d.create(pod(initContainers=[container("s", restartPolicy="Always")]))
    d.created()
    d.started("s")
    d.started()
    assert d.delete(grace=10) == ["stop c 10s"]
    assert d.later(4) == []
    assert d.exited(0) == ["stop s 6s"]
    assert d.later(1) == []
    assert d.exited(0, "s") == ["remove p"]


def test_what_waits_for_a_startup_probe_does_not_keep_the_kubelet_awake() -> None:
    d = Dialogue()
    slow = container("s", restartPolicy="Always", startupProbe={**HTTP, "periodSeconds": 60})
    d.create(pod(initContainers=[slow, container("i")]))
    d.created()
    assert d.started("s") == ["startup s 10.244.1.2:80"]
    assert d.probed("startup", False, "s") == []
    assert d.kubelet.wake() == d.now + 60
    assert d.later(60) == ["startup s 10.244.1.2:80"]
    assert d.probed("startup", True, "s") == ["start p/i #0"]


# --- probes -------------------------------------------------------------------------------------------


def test_readiness() -> None:
    d = probed("readiness")
    assert d.log[-1] == "readiness c 10.244.1.2:80"
    assert d.phase() == "Running"
    assert not d.ready()
    assert d.later(30) == []  # one probe at a time
    assert d.probed("readiness", True) == ["readiness c 10.244.1.2:80"]
    assert d.ready()
    for _ in range(2):
        d.probed("readiness", False)
        assert d.ready()
        assert d.later(10) == ["readiness c 10.244.1.2:80"]
    d.probed("readiness", False)
    assert not d.ready()
    assert d.container()["started"]


def test_the_first_probe_comes_after_the_initial_delay() -> None:
    d = probed("readiness", initialDelaySeconds=5, periodSeconds=3)
    assert d.later(4) == []
    assert d.later(1) == ["readiness c 10.244.1.2:80"]
    d.probed("readiness", True)
    assert d.later(2) == []
    assert d.later(1) == ["readiness c 10.244.1.2:80"]


def test_success_threshold() -> None:
    d = probed("readiness", successThreshold=2)
    d.probed("readiness", True)
    assert not d.ready()
    d.later(10)
    d.probed("readiness", True)
    assert d.ready()


def test_liveness_ends_the_container_and_it_starts_again() -> None:
    d = probed("liveness", failureThreshold=2)
    assert d.ready()
    d.probed("liveness", False)
    d.later(10)
    assert d.probed("liveness", False) == ["stop c 7s"]
    assert d.later(100) == []
    assert d.exited(137) == ["start p/c #1"]
    assert d.started() == ["liveness c 10.244.1.2:80"]


def test_a_probes_own_grace_period() -> None:
    d = probed("liveness", failureThreshold=1, terminationGracePeriodSeconds=1)
    assert d.probed("liveness", False) == ["stop c 1s"]


def test_an_answer_about_an_earlier_run_does_not_count() -> None:
    d = probed("readiness")
    d.exited(1)
    d.started()
    assert d.probed("readiness", True) == ["readiness c 10.244.1.2:80"]
    assert not d.ready()
    d.probed("readiness", True)
    assert d.ready()


def test_startup_holds_the_others_back() -> None:
    d = running(
        containers=[
            container(
                startupProbe={**HTTP, "failureThreshold": 2},
                livenessProbe={"tcpSocket": {"port": "web"}},
                readinessProbe={"exec": {"command": ["true"]}},
                ports=[{"containerPort": 8080, "name": "web"}],
            )
        ]
    )
    assert d.log[-1] == "startup c 10.244.1.2:80"
    assert not d.container()["started"]
    d.probed("startup", False)
    assert d.later(10) == ["startup c 10.244.1.2:80"]
    assert d.probed("startup", True) == ["liveness c 10.244.1.2:8080", "readiness c 10.244.1.2:0"]
    assert d.container()["started"]
    assert not d.ready()
    d.probed("readiness", True)
    assert d.ready()


def test_a_startup_probe_that_fails_ends_the_container() -> None:
    d = probed("startup", failureThreshold=1)
    assert d.probed("startup", False) == ["stop c 7s"]


def test_a_port_name_that_does_not_exist_is_never_ready() -> None:
    d = running(containers=[container(readinessProbe={"httpGet": {"port": "web"}})])
    assert d.kubelet.wake() is None
    assert not d.ready()


def test_while_a_pod_is_deleted_readiness_goes_on_and_liveness_stops() -> None:
    d = running(containers=[container(readinessProbe=HTTP, livenessProbe={**HTTP, "failureThreshold": 1})])
    d.probed("readiness", True)
    d.delete()
    assert d.probed("liveness", False) == []
    assert d.later(10) == ["readiness c 10.244.1.2:80"]
    for _ in range(3):
        d.probed("readiness", False)
        d.later(5)
    assert d.later(0) == []
    d.probed("readiness", False)
    assert d.container()["state"].keys() == {"running"}
