"""What the kubelet tells, and the containers that are added to look at a pod."""

from __future__ import annotations

from nsk8s.api.types import Obj
from nsk8s.cluster.lifecycle import ContainerExited, ContainerStarted, ProbeFinished
from tests.unit.cluster.kubelets import Dialogue
from tests.unit.cluster.worlds import pod


def talk(**spec: object) -> Dialogue:
    """A pod ``p`` on w1 whose sandbox is there."""
    dialogue = Dialogue()
    meta = {"name": "default"}
    dialogue.store.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    made = pod("p")
    dialogue.create(
        {
            **made,
            "spec": {**made["spec"], "nodeName": "w1", **spec},
            "metadata": {"name": "p", "namespace": "default"},
        }
    )
    return dialogue


def told(dialogue: Dialogue) -> list[str]:
    return [f"{e['reason']}: {e['message']}" for e in dialogue.store.list("events")]


PULLED = 'Pulled: Container image "nginx" is emulated on this machine by a stand-in: nothing was pulled'


def test_the_life_of_a_container_is_told() -> None:
    dialogue = talk()
    dialogue.created()
    dialogue.started()
    assert told(dialogue) == [PULLED, "Created: Created container: c", "Started: Started container c"]
    event: Obj = next(iter(dialogue.store.list("events")))
    assert event["source"] == {"component": "kubelet", "host": "w1"}
    assert event["involvedObject"]["fieldPath"] == "spec.containers{c}"
    dialogue.delete()
    assert told(dialogue)[3:] == ["Killing: Stopping container c"]


def test_a_real_command_pulls_nothing_either() -> None:
    dialogue = talk()
    dialogue.created()
    dialogue.tell(ContainerStarted(dialogue.uid(), "c", "id0", "real process: sh (command)"))
    assert told(dialogue)[0].endswith("the command runs on this machine's own files: nothing was pulled")


def test_what_cannot_run_was_not_started() -> None:
    dialogue = talk()
    dialogue.created()
    dialogue.tell(
        ContainerStarted(dialogue.uid(), "c", "id0", "real process: x (command)"),
        ContainerExited(dialogue.uid(), "c", 127, "ContainerCannotRun", "x: not found"),
    )
    assert told(dialogue)[1:] == ["Created: Created container: c", "Failed: Error: x: not found"]


def test_back_off_is_told_from_the_second_end_on() -> None:
    dialogue = talk()
    dialogue.created()
    for _ in range(2):
        dialogue.started()
        dialogue.exited(1)
    uid = dialogue.uid()
    assert told(dialogue)[-1] == (f"BackOff: Back-off restarting failed container c in pod p_default({uid})")
    assert sum(line.startswith("BackOff") for line in told(dialogue)) == 1


def test_a_failing_probe_is_told_and_a_restart_says_why() -> None:
    probe = {"httpGet": {"port": 80}, "failureThreshold": 2}
    dialogue = talk(containers=[{"name": "c", "image": "nginx", "livenessProbe": probe}])
    dialogue.created()
    dialogue.started()
    for _ in range(2):
        output = "HTTP probe failed with statuscode: 500"
        dialogue.tell(ProbeFinished(dialogue.uid(), "c", "liveness", False, output))
        dialogue.later(10)
    assert told(dialogue)[3:] == [
        "Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 500",
        "Killing: Container c failed liveness probe, will be restarted",
    ]
    assert [e["count"] for e in dialogue.store.list("events")] == [1, 1, 1, 2, 1]


def test_a_sandbox_that_cannot_be_made_is_told() -> None:
    dialogue = talk()
    dialogue.failed("no space")
    assert told(dialogue) == ["FailedCreatePodSandBox: Failed to create pod sandbox: no space"]
    dialogue.later(2)
    dialogue.created()
    dialogue.started()
    dialogue.died()
    assert told(dialogue)[-1] == "SandboxChanged: Pod sandbox changed, it will be killed and re-created."


def test_a_new_control_plane_does_not_tell_old_news() -> None:
    dialogue = talk()
    dialogue.created()
    dialogue.started()
    before = told(dialogue)
    dialogue.restart({dialogue.uid()}, {(dialogue.uid(), "c"): "id0"})
    assert told(dialogue) == before


# --- ephemeral containers ---------------------------------------------------------------------------------


def debug(dialogue: Dialogue, name: str = "debugger") -> list[str]:
    obj = dialogue.get()
    added = [*obj["spec"].get("ephemeralContainers", ()), {"name": name, "image": "busybox"}]
    dialogue.store.update("pods", {**obj, "spec": {**obj["spec"], "ephemeralContainers": added}})
    return dialogue.sync()


def standing() -> Dialogue:
    dialogue = talk()
    dialogue.created()
    dialogue.started()
    return dialogue


def test_an_ephemeral_container_is_started_once() -> None:
    dialogue = standing()
    assert debug(dialogue) == ["start p/debugger #0"]
    (waiting,) = dialogue.status()["ephemeralContainerStatuses"]
    assert waiting["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert dialogue.started("debugger", id_="id1") == []
    (running,) = dialogue.status()["ephemeralContainerStatuses"]
    assert "running" in running["state"]
    assert (running["ready"], "started" in running) == (False, False)
    event = list(dialogue.store.list("events"))[-1]
    assert event["involvedObject"]["fieldPath"] == "spec.ephemeralContainers{debugger}"
    assert dialogue.exited(0, "debugger") == []
    assert dialogue.later(600) == []
    (ended,) = dialogue.status()["ephemeralContainerStatuses"]
    assert ended["state"]["terminated"]["exitCode"] == 0
    assert (dialogue.phase(), dialogue.ready()) == ("Running", True)


def test_a_second_one_joins_the_first() -> None:
    dialogue = standing()
    debug(dialogue)
    dialogue.started("debugger", id_="id1")
    assert debug(dialogue, "another") == ["start p/another #0"]
    assert [s["name"] for s in dialogue.status()["ephemeralContainerStatuses"]] == ["debugger", "another"]


def test_a_pod_that_is_done_does_not_wait_for_its_debugger() -> None:
    dialogue = talk(restartPolicy="Never")
    dialogue.created()
    dialogue.started()
    debug(dialogue)
    dialogue.started("debugger", id_="id1")
    assert dialogue.exited(0) == ["remove p"]
    assert dialogue.phase() == "Succeeded"


def test_a_debugger_is_stopped_with_its_pod() -> None:
    dialogue = standing()
    debug(dialogue)
    dialogue.started("debugger", id_="id1")
    assert sorted(dialogue.delete(grace=5)) == ["stop c 5s", "stop debugger 5s"]


def test_a_new_sandbox_does_not_bring_a_debugger_back() -> None:
    dialogue = standing()
    debug(dialogue)
    dialogue.started("debugger", id_="id1")
    dialogue.died()
    dialogue.removed(dialogue.uid())
    assert dialogue.created() == ["start p/c #1"]


def test_a_new_control_plane_adopts_a_debugger() -> None:
    dialogue = standing()
    debug(dialogue)
    dialogue.started("debugger", id_="id1")
    uid = dialogue.uid()
    assert dialogue.restart({uid}, {(uid, "c"): "id0", (uid, "debugger"): "id1"}) == []
    (running,) = dialogue.status()["ephemeralContainerStatuses"]
    assert "running" in running["state"]
