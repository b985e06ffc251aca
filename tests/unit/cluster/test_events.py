"""Events: what they look like, how they are correlated, and when they are forgotten."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from nsk8s.api.types import Obj
from nsk8s.cluster.control import Control
from nsk8s.cluster.events import BURST, MOST, Expiry, Recorder
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Store, key_of
from tests.unit.cluster.worlds import World, deployment, new_store, pod, three_nodes

BEGIN = 1_000_000_000.0


class Told:
    """A recorder, a clock and an object to speak of."""

    def __init__(self, *, modern: bool = False) -> None:
        self.now = BEGIN
        self.store = new_store()
        self.store.now = self.stamp
        Control(self.store, Registry(self.store, three_nodes()), three_nodes()).settle(0.0)
        for event in self.events():
            self.store.delete("events", "default", event["metadata"]["name"])
        self.recorder = Recorder(self.store, "kubelet", modern=modern)
        self.pod = self.store.create(
            "pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "a", "namespace": "default"},
                "spec": {},
            },
        )

    def stamp(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def say(self, message: str, reason: str = "Started") -> None:
        self.recorder.event(
            self.pod, "Normal", reason, message, host="w1", field="spec.containers{c}", action="Doing"
        )

    def events(self) -> list[Obj]:
        return list(self.store.list("events"))


def test_an_event_has_the_fields_of_a_kubelets() -> None:
    told = Told()
    told.say("Started container c")
    (event,) = told.events()
    meta = event.pop("metadata")
    assert re.fullmatch(r"a\.[0-9a-f]{16}", meta["name"])
    assert meta["namespace"] == "default"
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": {
            "kind": "Pod",
            "namespace": "default",
            "name": "a",
            "uid": told.pod["metadata"]["uid"],
            "apiVersion": "v1",
            "resourceVersion": told.pod["metadata"]["resourceVersion"],
            "fieldPath": "spec.containers{c}",
        },
        "reason": "Started",
        "message": "Started container c",
        "source": {"component": "kubelet", "host": "w1"},
        "firstTimestamp": told.stamp(),
        "lastTimestamp": told.stamp(),
        "count": 1,
        "type": "Normal",
        "eventTime": None,
        "action": "Doing",
        "reportingComponent": "kubelet",
        "reportingInstance": "w1",
    }


def test_a_modern_event_tells_when_in_another_field_and_repeats_as_a_series() -> None:
    told = Told(modern=True)
    told.say("hello")
    (event,) = told.events()
    assert (event["eventTime"], event["firstTimestamp"]) == ("2001-09-09T01:46:40.000000Z", None)
    assert event["source"] == {}
    assert "count" not in event
    told.now += 5
    told.say("hello")
    (event,) = told.events()
    assert event["series"] == {"count": 2, "lastObservedTime": "2001-09-09T01:46:45.000000Z"}


def test_the_same_again_only_counts() -> None:
    told = Told()
    for _ in range(3):
        told.say("hello")
        told.now += 10
    (event,) = told.events()
    assert event["count"] == 3
    assert (event["firstTimestamp"], event["lastTimestamp"]) == (
        "2001-09-09T01:46:40Z",
        "2001-09-09T01:47:00Z",
    )


def test_too_many_alike_are_combined() -> None:
    told = Told()
    for number in range(12):
        told.say(f"hello {number}")
    messages = [event["message"] for event in told.events()]
    assert messages[:9] == [f"hello {number}" for number in range(9)]
    assert messages[9:] == ["(combined from similar events): hello 11"]
    assert told.events()[-1]["count"] == 3
    told.now += 601
    told.say("hello 99")
    assert told.events()[-1]["message"] == "hello 99"


def test_a_source_may_say_only_so_much_of_an_object() -> None:
    told = Told()
    for number in range(BURST + 5):
        told.say("hello", reason=f"Reason{number}")
    assert len(told.events()) == BURST
    told.now += 300
    told.say("hello", reason="Late")
    told.say("hello", reason="TooLate")
    assert [e["reason"] for e in told.events()][BURST:] == ["Late"]


def test_an_event_that_is_gone_begins_anew() -> None:
    told = Told()
    told.say("hello")
    (event,) = told.events()
    told.store.delete("events", "default", event["metadata"]["name"])
    told.say("hello")
    assert [e["count"] for e in told.events()] == [1]


def test_a_namespace_that_ends_gets_no_events() -> None:
    told = Told()
    space = told.store.find("namespaces", "", "default")
    told.store.update(
        "namespaces", {**space, "metadata": {**space["metadata"], "deletionTimestamp": told.stamp()}}
    )
    told.say("hello")
    assert told.events() == []


# --- expiry -----------------------------------------------------------------------------------------------


def seen(expiry: Expiry, store: Store) -> None:
    for event in store.list("events"):
        change = Change("ADDED", key_of("events", event), store.revision, None, event)
        assert list(expiry.touched(change)) == [Expiry.KEY]


def test_events_are_forgotten_an_hour_after_they_were_seen_last() -> None:
    told = Told()
    told.say("old", reason="Old")
    told.now += 1000
    told.say("new", reason="New")
    expiry = Expiry(told.store)
    seen(expiry, told.store)  # as after a restart
    assert expiry.sync(Expiry.KEY, told.now) == BEGIN + 3600
    told.now = BEGIN + 3600
    assert expiry.sync(Expiry.KEY, told.now) == BEGIN + 4600
    assert [e["reason"] for e in told.events()] == ["New"]
    told.say("new", reason="New")
    seen(expiry, told.store)
    assert expiry.sync(Expiry.KEY, told.now) == BEGIN + 4600, "when it would have gone, had it not come again"
    assert expiry.sync(Expiry.KEY, BEGIN + 4600) == BEGIN + 7200
    assert len(told.events()) == 1
    assert expiry.sync(Expiry.KEY, BEGIN + 7200) is None
    assert told.events() == []


def test_the_oldest_of_too_many_go_early() -> None:
    told = Told()
    expiry = Expiry(told.store)
    template = {"apiVersion": "v1", "kind": "Event", "involvedObject": {}, "lastTimestamp": told.stamp()}
    for number in range(MOST + 3):
        meta = {"name": f"e{number:06}", "namespace": "default"}
        told.store.create("events", {**template, "metadata": meta})
    seen(expiry, told.store)
    expiry.sync(Expiry.KEY, told.now)
    names = [e["metadata"]["name"] for e in told.events()]
    assert (len(names), names[0]) == (MOST, "e000003")


def test_somebody_elses_event_with_a_strange_time_expires_too() -> None:
    told = Told()
    expiry = Expiry(told.store)
    for number, stamp in enumerate(("gestern", "2001-09-09", 7)):
        meta = {"name": f"e{number}", "namespace": "default"}
        told.store.create("events", {"metadata": meta, "lastTimestamp": stamp})
    seen(expiry, told.store)
    expiry.sync(Expiry.KEY, told.now)
    expiry.sync(Expiry.KEY, told.now + 3600)
    assert told.events() == []


# --- what controllers tell --------------------------------------------------------------------------------


def said(world: World, kind: str, *, reason: str = "") -> list[str]:
    return [
        f"{e['type']} {e['reason']} {e['message']}"
        for e in world.store.list("events")
        if e["involvedObject"]["kind"] == kind and reason in ("", e["reason"])
    ]


def test_a_rollout_is_told() -> None:
    world = World()
    world.create(deployment("web", 2))
    world.finish()
    (first,) = world.names("replicasets.apps")
    assert said(world, "Deployment") == [
        f"Normal ScalingReplicaSet Scaled up replica set {first} from 0 to 2"
    ]
    names = [p.metadata.name for p in world.pods()]
    assert sorted(said(world, "ReplicaSet")) == sorted(
        f"Normal SuccessfulCreate Created pod: {name}" for name in names
    )
    world.registry.scale("deployments.apps", "default", "web", 1)
    world.settle()
    assert said(world, "Deployment")[-1].endswith(f"Scaled down replica set {first} from 2 to 1")
    assert len(said(world, "ReplicaSet", reason="SuccessfulDelete")) == 1


def test_scheduling_is_told_once() -> None:
    world = World()
    world.create(pod("a"))
    assert said(world, "Pod") == ["Normal Scheduled Successfully assigned default/a to w1"]
    world.create(pod("b", nodeSelector={"no": "where"}))
    failed = said(world, "Pod", reason="FailedScheduling")
    assert failed == [
        "Warning FailedScheduling 0/3 nodes are available: 1 node(s) had untolerated taint "
        "{node-role.kubernetes.io/control-plane: }, 2 node(s) didn't match Pod's node affinity/selector. "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    ]
    world.registry.patch("nodes", "", "w1", {"metadata": {"labels": {"x": "y"}}}, "merge")
    world.settle()
    assert said(world, "Pod", reason="FailedScheduling") == failed
