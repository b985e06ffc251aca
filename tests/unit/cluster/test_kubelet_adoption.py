"""The control plane dies and comes back: what runs goes on, nothing is started twice."""

from __future__ import annotations

from tests.unit.cluster.kubelets import Dialogue, container, pod, running


def test_what_runs_is_taken_over_without_a_word() -> None:
    d = running()
    before = d.store.revision
    assert d.restart({d.uid()}, {(d.uid(), "c"): "id0"}) == []
    assert d.store.revision == before
    assert d.wanted() == ["p"]
    assert d.exited(1) == ["start p/c #1"]


def test_a_start_whose_report_was_lost() -> None:
    d = Dialogue()
    d.create(pod())
    d.created()
    assert d.restart({d.uid()}, {(d.uid(), "c"): "id0"}) == []
    assert d.phase() == "Running"
    assert d.container()["containerID"] == "nsk8s://id0"
    assert d.container()["restartCount"] == 0


def test_a_restart_whose_report_was_lost() -> None:
    d = running()
    assert d.exited(1) == ["start p/c #1"]
    assert d.restart({d.uid()}, {(d.uid(), "c"): "id1"}) == []
    assert d.container()["restartCount"] == 1
    assert d.container()["lastState"]["terminated"]["exitCode"] == 1


def test_a_start_that_was_never_carried_out() -> None:
    d = Dialogue()
    d.create(pod())
    d.created()
    assert d.restart({d.uid()}) == ["start p/c #0"]


def test_a_container_that_vanished_meanwhile() -> None:
    d = running()
    assert d.restart({d.uid()}) == ["start p/c #1"]
    ended = d.container()["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "ContainerStatusUnknown")


def test_a_sandbox_that_was_not_made_yet_keeps_its_address() -> None:
    d = Dialogue()
    d.create(pod())
    assert d.restart() == ["create p 10.244.1.2"]
    assert d.create(pod("q")) == ["create q 10.244.1.3"]


def test_a_sandbox_that_vanished_meanwhile() -> None:
    d = running()
    assert d.restart() == ["remove p"]
    assert d.removed(d.uid()) == ["create p 10.244.1.3"]
    assert d.created() == ["start p/c #1"]


def test_a_deletion_goes_on() -> None:
    d = running()
    uid = d.uid()
    d.delete(grace=20)
    d.later(5)
    assert d.restart({uid}, {(uid, "c"): "id0"}) == ["stop c 15s"]
    assert d.exited(0) == ["remove p"]
    assert d.restart({uid}) == ["remove p"]
    d.removed(uid)
    assert not d.exists()


def test_a_pod_deleted_before_it_had_anything() -> None:
    d = Dialogue()
    d.create(pod())
    uid = d.uid()
    d.delete()
    assert d.restart() == []
    assert d.store.get("pods", "default", "p") is None
    assert d.removed(uid) == []


def test_a_pod_that_was_done() -> None:
    d = running(restartPolicy="Never")
    d.exited(0)
    assert d.restart({d.uid()}) == ["remove p"]
    d.removed(d.uid())
    assert d.phase() == "Succeeded"
    assert d.restart() == []


def test_back_off_goes_on() -> None:
    d = running()
    d.exited(1)
    d.started()
    d.exited(1)
    d.later(3)
    assert d.restart({d.uid()}) == []
    assert d.container()["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert d.later(6) == []
    assert d.later(1) == ["start p/c #2"]


def test_nothing_becomes_unready() -> None:
    http = {"httpGet": {"port": 80}}
    d = running(containers=[container(readinessProbe=http, startupProbe=http)])
    d.probed("startup", True)
    d.probed("readiness", True)
    assert d.ready()
    before = d.store.revision
    assert d.restart({d.uid()}, {(d.uid(), "c"): "id0"}) == ["readiness c 10.244.1.2:80"]
    assert d.store.revision == before
    d.probed("readiness", True)
    assert d.ready()


def test_init_containers_are_not_run_again() -> None:
    d = Dialogue()
    d.create(pod(initContainers=[container("i")]))
    d.created()
    d.started("i")
    d.exited(0, "i")
    assert d.restart({d.uid()}, {(d.uid(), "c"): "id0"}) == []
    assert d.phase() == "Running"


def test_an_init_container_that_is_through_stays_so_though_nothing_else_has_started() -> None:
    d = Dialogue()
    d.create(pod(initContainers=[container("i")]))
    d.created()
    d.started("i")
    assert d.exited(0, "i") == ["start p/c #0"]
    assert d.restart({d.uid()}) == ["start p/c #0"]


def test_containers_of_nobody_are_ended() -> None:
    d = running()
    assert d.restart({d.uid(), "stray"}, {(d.uid(), "c"): "id0", ("stray", "x"): "id9"}) == ["stop x 0s"]


def test_an_address_that_its_node_no_longer_has() -> None:
    from tests.unit.cluster.worlds import three_nodes

    d = running()
    uid = d.uid()
    d.topology = three_nodes(w1={"pod_cidrs": ("10.244.77.0/24",)})
    assert d.restart({uid}, {(uid, "c"): "id0"}) == ["remove p"]
    assert d.removed(uid) == ["create p 10.244.77.2"]
