"""A stopped kubelet leaves everything as it is, and takes it up again."""

from __future__ import annotations

from nsk8s.api.types import Pod
from nsk8s.cluster.heartbeats import KUBELET
from nsk8s.cluster.lifecycle import Command, Event, StopContainer
from nsk8s.cluster.store import Key
from nsk8s.daemon.loop import Loop
from nsk8s.daemon.rehearsal import answer
from tests.unit.cluster.worlds import new_store, pod, three_nodes


class Stage:
    """A loop whose kubelets' wishes come true at once."""

    def __init__(self) -> None:
        self.loop = Loop(new_store(), three_nodes())
        self.loop.adopt(set(), {}, 0.0)
        self.now = 0.0

    def play(self) -> list[Command]:
        events: list[Event] = []
        asked: list[Command] = []
        while True:
            commands, _ = self.loop.turn(self.now, events)
            asked += commands
            events = [event for command in commands for event in answer(command)]
            if not events:
                return asked

    def kubelet(self, state: str | None) -> list[Command]:
        change = {"metadata": {"annotations": {KUBELET: state}}}
        self.loop.registry.patch("nodes", "", "w1", change, "merge")
        return self.play()

    def pod(self) -> Pod | None:
        found = self.loop.store.view(Key("pods", "default", "p"))
        assert found is None or isinstance(found, Pod)
        return found


def test_nothing_is_begun_and_nothing_ended() -> None:
    stage = Stage()
    stage.loop.registry.create(pod("p", nodeName="w1"))
    stage.play()
    before = stage.pod()
    assert before is not None
    assert before.ready
    assert stage.kubelet("lost") == []
    stage.loop.registry.create(pod("late", nodeName="w1"))
    stage.loop.registry.delete("pods", "default", "p")
    assert stage.play() == []
    found = stage.pod()
    assert found is not None
    assert (found.ready, bool(found.metadata.deletionTimestamp)) == (False, True)
    assert [p.metadata.name for p in stage.loop.kubelet.wanted()] == ["p"]
    asked = stage.kubelet(None)
    assert any(isinstance(command, StopContainer) for command in asked)
    assert stage.pod() is None
    assert [p.metadata.name for p in stage.loop.kubelet.wanted()] == ["late"]


def test_pods_are_ready_again_with_their_node() -> None:
    stage = Stage()
    stage.loop.registry.create(pod("p", nodeName="w1"))
    stage.play()
    stage.kubelet("lost")
    found = stage.pod()
    assert found is not None
    assert not found.ready
    assert stage.kubelet(None) == []
    found = stage.pod()
    assert found is not None
    assert found.ready


def test_what_nobody_wants_any_more_goes_all_the_same() -> None:
    stage = Stage()
    stage.loop.registry.create(pod("p", nodeName="w1"))
    stage.play()
    stage.kubelet("stopped")
    stage.loop.registry.delete("pods", "default", "p", grace=0)
    stage.play()
    assert stage.loop.kubelet.wanted() == ()
