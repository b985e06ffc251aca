from __future__ import annotations

import pytest

from nsk8s.api.types import ACCOUNT_DIRECTORY, Obj
from nsk8s.cluster.deletion import SYSTEM_NAMESPACES
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import World, deployment, pod

NAMESPACE: Obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
ACCOUNT: Obj = {
    "apiVersion": "v1",
    "kind": "ServiceAccount",
    "metadata": {"name": "robot", "namespace": "default"},
}


def with_spec(name: str, **spec: object) -> Obj:
    made = pod(name)
    return {**made, "spec": {**made["spec"], **spec}}


def credentials(obj: Obj) -> list[str]:
    """The mounts of the account's directory, container by container."""
    return [
        mount["name"]
        for container in obj["spec"]["containers"]
        for mount in container.get("volumeMounts") or ()
        if mount["mountPath"] == ACCOUNT_DIRECTORY
    ]


def test_every_namespace_has_a_default_account_and_the_ca() -> None:
    world = World()
    world.control.trust("PEM")
    world.create(NAMESPACE)
    for namespace in (*SYSTEM_NAMESPACES, "team"):
        assert world.store.find("serviceaccounts", namespace, "default")
        assert world.store.find("configmaps", namespace, "kube-root-ca.crt")["data"] == {"ca.crt": "PEM"}


def test_they_come_back_and_are_put_right() -> None:
    world = World()
    world.control.trust("PEM")
    world.settle()
    world.store.delete("serviceaccounts", "default", "default")
    changed = {**world.store.find("configmaps", "default", "kube-root-ca.crt"), "data": {}}
    world.store.update("configmaps", changed)
    world.settle()
    assert world.store.get("serviceaccounts", "default", "default")
    assert world.store.find("configmaps", "default", "kube-root-ca.crt")["data"] == {"ca.crt": "PEM"}
    world.store.delete("configmaps", "default", "kube-root-ca.crt")
    world.control.trust("NEW")
    world.settle()
    assert world.store.find("configmaps", "default", "kube-root-ca.crt")["data"] == {"ca.crt": "NEW"}


def test_a_namespace_that_ends_gets_nothing_any_more() -> None:
    world = World()
    world.create(NAMESPACE)
    world.registry.delete("namespaces", "", "team")
    world.settle()
    assert world.store.get("namespaces", "", "team") is None
    assert world.store.get("serviceaccounts", "team", "default") is None


def test_a_pod_gets_its_credentials_mounted() -> None:
    made = World().create(pod("a"))
    (name,) = credentials(made)
    assert name.startswith("kube-api-access-")
    volume = next(volume for volume in made["spec"]["volumes"] if volume["name"] == name)
    assert [next(iter(source)) for source in volume["projected"]["sources"]] == [
        "serviceAccountToken",
        "configMap",
        "downwardAPI",
    ]
    assert (made["spec"]["serviceAccountName"], made["spec"]["serviceAccount"]) == ("default", "default")


@pytest.mark.parametrize(
    ("account", "own", "mounted"),
    [(None, None, 1), (False, None, 0), (False, True, 1), (True, False, 0), (None, False, 0)],
)
def test_mounting_can_be_switched_off(account: bool | None, own: bool | None, mounted: int) -> None:
    world = World()
    world.create({**ACCOUNT, **({} if account is None else {"automountServiceAccountToken": account})})
    spec = {} if own is None else {"automountServiceAccountToken": own}
    made = world.create(with_spec("a", serviceAccountName="robot", **spec))
    assert len(credentials(made)) == mounted
    assert bool(made["spec"].get("volumes")) is bool(mounted)


def test_a_container_that_has_its_own_files_there_keeps_them() -> None:
    mount = {"name": "mine", "mountPath": ACCOUNT_DIRECTORY}
    containers = [{"name": "a", "image": "i", "volumeMounts": [mount]}, {"name": "b", "image": "i"}]
    volumes = [{"name": "mine", "emptyDir": {}}]
    made = World().create(with_spec("a", containers=containers, volumes=volumes))
    mine, other = credentials(made)
    assert (mine, other.startswith("kube-api-access-")) == ("mine", True)


def test_a_pod_whose_account_is_missing_is_refused() -> None:
    with pytest.raises(ApiError) as refused:
        World().create(with_spec("a", serviceAccountName="nobody"))
    assert (refused.value.code, refused.value.message) == (
        403,
        'pods "a" is forbidden: error looking up service account default/nobody: serviceaccount "nobody" not '
        "found",
    )


def test_a_replica_set_waits_for_the_account() -> None:
    world = World()
    wanted = deployment("web", 2)
    wanted["spec"]["template"]["spec"]["serviceAccountName"] = "robot"
    world.create(wanted)
    assert not [*world.store.list("pods")]
    assert any(event["reason"] == "FailedCreate" for event in world.store.list("events"))
    world.create(ACCOUNT)
    made = [*world.store.list("pods")]
    assert len(made) == 2
    assert len({name for obj in made for name in credentials(obj)}) == 2


def test_an_account_gives_its_pods_its_secrets() -> None:
    world = World()
    world.create({**ACCOUNT, "imagePullSecrets": [{"name": "s"}]})
    assert world.create(with_spec("a", serviceAccountName="robot"))["spec"]["imagePullSecrets"] == [
        {"name": "s"}
    ]
