"""Lifecycle hooks: which stops go through one, and what follows when one fails."""

from __future__ import annotations

from nsk8s.api.types import Obj
from nsk8s.cluster.lifecycle import HookFailed, StopContainer
from tests.unit.cluster.kubelets import Dialogue, container, pod


def hooked(**hooks: Obj) -> Dialogue:
    """A pod with a container `c` that has hooks, and one that has none; both run."""
    d = Dialogue()
    meta = {"name": "default"}
    d.store.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    d.create(pod(containers=[container("c", lifecycle=hooks), container("plain")]))
    d.created()
    d.started("c")
    d.started("plain")
    return d


def told(d: Dialogue) -> list[tuple[str, str]]:
    return [(event["reason"], event["message"]) for event in d.store.list("events")]


def test_only_a_container_with_a_pre_stop_hook_is_stopped_through_it() -> None:
    d = hooked(preStop={"sleep": {"seconds": 5}})
    d.registry.delete("pods", "default", "p")
    stops = [c for c in d.kubelet.sync(d.now) if isinstance(c, StopContainer)]
    assert [(stop.container, stop.spec is not None) for stop in stops] == [("c", True), ("plain", False)]


def test_a_failed_pre_stop_hook_is_told_and_the_stopping_goes_on() -> None:
    d = hooked(preStop={"exec": {"command": ["false"]}})
    uid = d.uid()
    d.delete()
    assert d.tell(HookFailed(uid, "c", "PreStop")) == []
    assert ("FailedPreStopHook", "PreStopHook failed") in told(d)


def test_after_a_failed_post_start_hook_the_container_is_ended_and_runs_again() -> None:
    d = hooked(postStart={"exec": {"command": ["false"]}})
    assert d.tell(HookFailed(d.uid(), "c", "PostStart")) == ["stop c 30s"]
    assert ("FailedPostStartHook", "PostStartHook failed") in told(d)
    assert ("Killing", "FailedPostStartHook") in told(d)
    assert d.exited(137) == ["start p/c #1"]
