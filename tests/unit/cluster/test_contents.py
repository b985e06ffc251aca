"""What containers find in their environment and their volumes, and what they wait for."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from nsk8s.api.types import Obj, Pod, Volume
from nsk8s.api.views import view
from nsk8s.cluster.store import Store
from nsk8s.cluster.variables import Missing, environment, lacks
from nsk8s.cluster.volumes import File, files
from tests.unit.cluster.kubelets import Dialogue, container, pod
from tests.unit.cluster.worlds import new_store


def config(name: str, **data: str) -> Obj:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def secret(name: str, **data: str) -> Obj:
    encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
    return {**config(name), "kind": "Secret", "data": encoded}


def service(name: str, ip: str, *ports: Obj, namespace: str = "default") -> Obj:
    spec = {"clusterIP": ip, "ports": list(ports)}
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def env_of(store: Store, fields: Obj, **spec: Any) -> dict[str, str]:  # noqa: ANN401 - JSON
    obj = pod(containers=[container(**fields)], **spec)
    made = view({**obj, "metadata": {**obj["metadata"], "labels": {"app": "shop"}}})
    assert isinstance(made, Pod)
    return environment(store, made, made.spec.containers[0])


def variable(name: str, **source: Obj) -> Obj:
    return {"name": name, "valueFrom": source}


@pytest.fixture
def store() -> Store:
    made = new_store()
    made.create("configmaps", config("settings", level="debug", colour="red"))
    made.create("secrets", secret("login", user="admin", password="s3cret"))
    made.create(
        "services", service("kubernetes", "10.96.0.1", {"name": "https", "port": 443, "protocol": "TCP"})
    )
    made.create("services", service("the-db", "10.96.0.7", {"port": 5432, "protocol": "TCP"}))
    made.create("services", service("headless", "None", {"port": 1, "protocol": "TCP"}))
    made.create(
        "services", service("far", "10.96.0.9", {"port": 1, "protocol": "TCP"}, namespace="kube-system")
    )
    return made


def test_single_values_from_config_maps_secrets_and_the_pod(store: Store) -> None:
    env = env_of(
        store,
        {
            "env": [
                variable("LEVEL", configMapKeyRef={"name": "settings", "key": "level"}),
                variable("PASSWORD", secretKeyRef={"name": "login", "key": "password"}),
                variable("NONE", secretKeyRef={"name": "nothing", "key": "x", "optional": True}),
                variable("NODE", fieldRef={"fieldPath": "spec.nodeName"}),
                variable("APP", fieldRef={"fieldPath": "metadata.labels['app']"}),
                variable("CPU", resourceFieldRef={"resource": "limits.cpu"}),
                variable("MILLI", resourceFieldRef={"resource": "limits.cpu", "divisor": "1m"}),
                variable("MEM", resourceFieldRef={"resource": "requests.memory", "divisor": "1Mi"}),
                {"name": "URL", "value": "pw=$(PASSWORD) db=$(THE_DB_SERVICE_HOST) $(LATER) $$(LEVEL)"},
                {"name": "LATER", "value": "x"},
            ],
            "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}},
        },
    )
    own = {k: v for k, v in env.items() if not k.startswith(("KUBERNETES_", "THE_DB_"))}
    assert own == {
        "LEVEL": "debug",
        "PASSWORD": "s3cret",
        "NODE": "w1",
        "APP": "shop",
        "CPU": "2",
        "MILLI": "1500",
        "MEM": "64",
        "URL": "pw=s3cret db=10.96.0.7 $(LATER) $(LEVEL)",
        "LATER": "x",
    }


def test_whole_maps_with_a_prefix_are_weaker_than_single_variables(store: Store) -> None:
    env = env_of(
        store,
        {
            "envFrom": [
                {"configMapRef": {"name": "settings"}},
                {"prefix": "DB_", "secretRef": {"name": "login"}},
                {"configMapRef": {"name": "nothing", "optional": True}},
            ],
            "env": [{"name": "level", "value": "info, not $(colour)"}],
        },
    )
    assert (env["level"], env["colour"], env["DB_user"]) == ("info, not red", "red", "admin")


def test_services_of_the_namespace_and_the_api_are_told(store: Store) -> None:
    env = env_of(store, {})
    assert {name: value for name, value in env.items() if name.startswith("THE_DB")} == {
        "THE_DB_SERVICE_HOST": "10.96.0.7",
        "THE_DB_SERVICE_PORT": "5432",
        "THE_DB_PORT": "tcp://10.96.0.7:5432",
        "THE_DB_PORT_5432_TCP": "tcp://10.96.0.7:5432",
        "THE_DB_PORT_5432_TCP_PROTO": "tcp",
        "THE_DB_PORT_5432_TCP_PORT": "5432",
        "THE_DB_PORT_5432_TCP_ADDR": "10.96.0.7",
    }
    assert env["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert not [name for name in env if name.startswith(("HEADLESS", "FAR"))]
    assert {n.partition("_")[0] for n in env_of(store, {}, enableServiceLinks=False)} == {"KUBERNETES"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"envFrom": [{"configMapRef": {"name": "no"}}]}, 'configmap "no" not found'),
        ({"envFrom": [{"secretRef": {"name": "no"}}]}, 'secret "no" not found'),
        (
            {"env": [variable("A", configMapKeyRef={"name": "settings", "key": "no"})]},
            "couldn't find key no in ConfigMap default/settings",
        ),
        (
            {"env": [variable("A", secretKeyRef={"name": "login", "key": "no"})]},
            "couldn't find key no in Secret default/login",
        ),
    ],
)
def test_what_is_missing_is_said_in_the_kubelets_words(store: Store, fields: Obj, why: str) -> None:
    made = view(pod(containers=[container(**fields)]))
    assert isinstance(made, Pod)
    assert lacks(store, made, made.spec.containers[0]) == why


# --- volumes ----------------------------------------------------------------------------------------------


def made_of(store: Store, **volume: Obj) -> dict[str, File]:
    made = view({**pod(), "metadata": {"name": "p", "namespace": "default", "labels": {"b": "2", "a": "1"}}})
    assert isinstance(made, Pod)
    source = view({**pod(volumes=[{"name": "v", **volume}])})
    assert isinstance(source, Pod)
    found: Volume = source.spec.volumes[0]
    return files(store, made, found, lambda asked: f"token for {asked.audience}")


def test_the_files_of_config_maps_and_secrets(store: Store) -> None:
    assert made_of(store, configMap={"name": "settings", "defaultMode": 0o400}) == {
        "level": File(b"debug", 0o400),
        "colour": File(b"red", 0o400),
    }
    items = [{"key": "user", "path": "deep/name", "mode": 0o440}]
    assert made_of(store, secret={"secretName": "login", "items": items}) == {
        "deep/name": File(b"admin", 0o440)
    }
    assert made_of(store, configMap={"name": "nothing", "optional": True}) == {}


def test_the_files_of_several_sources_in_one_volume(store: Store) -> None:
    made = made_of(
        store,
        projected={
            "sources": [
                {"configMap": {"name": "settings", "items": [{"key": "level", "path": "level"}]}},
                {
                    "downwardAPI": {
                        "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
                    }
                },
                {"serviceAccountToken": {"path": "token", "audience": "vault"}},
            ]
        },
    )
    assert made == {
        "level": File(b"debug", 0o644),
        "labels": File(b'a="1"\nb="2"', 0o644),
        "token": File(b"token for vault", 0o600),
    }


@pytest.mark.parametrize(
    ("volume", "why"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        (
            {"configMap": {"name": "settings", "items": [{"key": "no", "path": "x"}]}},
            "configmap references non-existent config key: no",
        ),
        (
            {"secret": {"secretName": "login", "items": [{"key": "no", "path": "x"}]}},
            "references non-existent secret key: no",
        ),
    ],
)
def test_what_a_volume_misses(store: Store, volume: dict[str, Obj], why: str) -> None:
    with pytest.raises(Missing, match=f"^{why}$"):
        made_of(store, **volume)


# --- waiting ----------------------------------------------------------------------------------------------


def waiting(d: Dialogue) -> tuple[str, str]:
    state = d.container()["state"]["waiting"]
    return state["reason"], state.get("message", "")


def test_a_container_waits_for_what_its_environment_needs() -> None:
    d = Dialogue()
    meta = {"name": "default"}
    d.store.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    refs = [{"configMapRef": {"name": "later"}}, {"secretRef": {"name": "later"}}]
    d.create(pod(containers=[container("c", envFrom=refs), container("other")]))
    assert d.created() == ["start p/other #0"]
    d.started("other")
    assert waiting(d) == ("CreateContainerConfigError", 'configmap "later" not found')
    assert d.phase() == "Pending"
    d.store.create("configmaps", config("later"))
    assert d.sync() == []
    assert waiting(d) == ("CreateContainerConfigError", 'secret "later" not found')
    d.store.create("secrets", secret("later"))
    assert d.sync() == ["start p/c #0"]
    messages = [e["message"] for e in d.store.list("events") if e["reason"] == "Failed"]
    assert messages == ['Error: configmap "later" not found', 'Error: secret "later" not found']


def test_a_container_that_has_run_may_have_to_wait_before_it_runs_again() -> None:
    d = Dialogue()
    d.store.create("configmaps", config("there"))
    d.create(pod(containers=[container("c", envFrom=[{"configMapRef": {"name": "there"}}])]))
    assert d.created() == ["start p/c #0"]
    d.started()
    d.store.delete("configmaps", "default", "there")
    assert d.exited(1) == []
    assert waiting(d)[0] == "CreateContainerConfigError"
    assert d.container()["restartCount"] == 0
    d.store.create("configmaps", config("there"))
    assert d.sync() == ["start p/c #1"]


def test_a_pod_waits_for_what_its_volumes_need() -> None:
    d = Dialogue()
    meta = {"name": "default"}
    d.store.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    assert d.create(pod(volumes=[{"name": "v", "configMap": {"name": "later"}}])) == []
    assert waiting(d) == ("ContainerCreating", "")
    event = next(e for e in d.store.list("events") if e["reason"] == "FailedMount")
    assert event["message"] == 'MountVolume.SetUp failed for volume "v" : configmap "later" not found'
    d.store.create("configmaps", config("later"))
    assert d.sync() == ["create p 10.244.1.2"]


def test_a_pod_that_waits_can_be_deleted() -> None:
    d = Dialogue()
    d.create(pod(volumes=[{"name": "v", "secret": {"secretName": "later"}}]))
    d.delete()
    assert not d.exists()
