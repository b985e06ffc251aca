"""What `up` waits for."""

from __future__ import annotations

import pytest

from nsk8s.api.types import Obj
from nsk8s.daemon.bringup import expected, readiness
from tests.unit.cluster.test_daemonsets import daemon_set
from tests.unit.cluster.test_jobs import end, job, ticking
from tests.unit.cluster.test_statefulsets import stateful_set
from tests.unit.cluster.worlds import World, deployment


@pytest.mark.parametrize(
    "obj", [deployment("x"), daemon_set("x"), stateful_set("x"), stateful_set("x", 3, serviceName="y")]
)
def test_everybody_s_pods_are_waited_for(obj: Obj) -> None:
    world = World()
    world.registry.create(obj)
    assert not readiness(world.store).over, "nobody has looked at it yet"
    world.settle()
    assert not readiness(world.store).over
    world.finish()
    assert readiness(world.store).over


def test_a_new_cluster_is_expected_to_have_the_pods_that_the_objects_ask_for() -> None:
    pod: Obj = {"kind": "Pod", "spec": {}}
    service: Obj = {"kind": "Service", "spec": {"replicas": 7}}
    assert expected([deployment("x", 4), stateful_set("y", 2), pod, service, {"kind": "ConfigMap"}]) == 7
    strange: list[Obj] = [{"kind": "Pod"}, {"kind": "Pod", "spec": 3}, deployment("x", -2)]
    assert expected([*strange, {"kind": "Deployment", "spec": {"replicas": "many"}}]) == 0


def test_an_update_is_waited_for_unless_it_stops_half_way() -> None:
    world = World()
    world.apply(stateful_set("x", 2))
    world.finish()
    world.apply(stateful_set("x", 2, image="httpd"))
    world.reap()
    state = readiness(world.store)
    assert (state.over, state.waiting[0].startswith("pod default/x-1")) == (False, True)
    world.finish()
    partition: Obj = {"updateStrategy": {"rollingUpdate": {"partition": 1}}}
    world.apply(stateful_set("x", 2, image="tomcat", **partition))
    world.finish()
    assert readiness(world.store).over


def test_a_job_s_failure_is_told_by_the_job() -> None:
    world = ticking()
    world.create(job("x", backoffLimit=1))
    end(world, world.active()[0], "Failed", 1)
    assert readiness(world.store).waiting == ()
    world.settle(10)
    end(world, world.active()[0], "Failed", 1)
    state = readiness(world.store)
    assert state.over
    assert state.waiting == (
        "job default/x: BackoffLimitExceeded: Job has reached the specified backoff limit",
    )
