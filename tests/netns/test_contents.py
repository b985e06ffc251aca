"""What containers find in their environment and their volumes, as real processes see it."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from nsk8s.paths import ClusterPaths
from tests.conftest import MakeLab
from tests.netns.podlab import CLUSTER, Obj, Pods, container, pod, shell, waits
from tests.netns.processes_of import Processes, kill

pytestmark = pytest.mark.netns

FOREVER = ("sleep", "infinity")


def config(name: str, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> Obj:
    encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def mount(name: str, path: str, **more: Any) -> Obj:  # noqa: ANN401 - JSON
    return {"name": name, "mountPath": path, **more}


VOLUMES: list[Obj] = [
    {"name": "settings", "configMap": {"name": "settings"}},
    {"name": "login", "secret": {"secretName": "login", "defaultMode": 0o400}},
    {
        "name": "me",
        "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
    },
    {"name": "scratch", "emptyDir": {}},
    {"name": "disk", "hostPath": {"path": "/etc"}},
    {
        "name": "all",
        "projected": {
            "sources": [
                {"secret": {"name": "login", "items": [{"key": "user", "path": "who/user"}]}},
                {"serviceAccountToken": {"path": "token", "audience": "vault"}},
            ]
        },
    },
]
MOUNTS = [
    mount("settings", "/etc/shop/conf.d"),
    mount("settings", "/usr/share/nsk8s-test/one.conf", subPath="level"),
    mount("login", "/secrets"),
    mount("me", "/about"),
    mount("scratch", "/data"),
    mount("scratch", "/data/inner", subPath="elsewhere"),
    mount("disk", "/node/etc"),
    mount("all", "/var/run/all"),
]
STANDING = [
    config("settings", level="debug", colour="red"),
    secret("login", user="admin", password="s3cret"),
    pod(
        "real",
        container("c", *FOREVER, volumeMounts=MOUNTS, envFrom=[{"secretRef": {"name": "login"}}]),
        container("other", *FOREVER, volumeMounts=[mount("scratch", "/shared", readOnly=True)]),
        volumes=VOLUMES,
        nodeName="w1",
    ),
    pod("served", container("c", image="nginx", volumeMounts=MOUNTS), volumes=VOLUMES, nodeName="w1"),
]


@pytest.fixture(scope="module")
def pods(shared_cluster: MakeLab) -> Pods:
    return Pods(shared_cluster(CLUSTER + "---\n" + yaml.safe_dump_all(STANDING)))


@pytest.mark.parametrize("name", ["real", "served"])
def test_volumes_are_where_they_are_mounted(pods: Pods, name: str) -> None:
    expected = {
        "cat /etc/shop/conf.d/level": "debug",
        "cat /usr/share/nsk8s-test/one.conf": "debug",
        "cat /secrets/password": "s3cret",
        "cat /about/labels": f'app="{name}"',
        "cat /var/run/all/who/user": "admin",
        "tr -cd . </var/run/all/token": "..",
        "stat -Lc %a /secrets/user": "400",
        "ls /node/etc": "",  # a node's disk is not the host's
        "head -c 4 /etc/passwd": "root",  # what else is in a directory is still there
        "head -n 1 /etc/hosts": "# Kubernetes-managed hosts file.",
        "ls /usr/share/zoneinfo/UTC": "/usr/share/zoneinfo/UTC",
    }
    script = "; echo; echo ---; ".join(expected)
    found = [part.strip() for part in pods.sh(name, script, container="c").split("---\n")]
    assert dict(zip(expected, found, strict=True)) == expected


def test_an_empty_dir_is_the_pods_own_and_shared_by_its_containers(pods: Pods) -> None:
    pods.sh("real", "echo mine >/data/file; echo inner >/data/inner/file", container="c")
    assert pods.run("real", "cat", "/shared/file", container="other") == "mine\n"
    assert pods.run("real", "cat", "/shared/elsewhere/file", container="other") == "inner\n"
    assert "file" not in pods.run("served", "ls", "/data", container="c"), "another pod's"
    assert pods.sh("real", "touch /shared/x || echo refused", container="other") == "refused\n"


@pytest.mark.parametrize("name", ["real", "served"])
def test_nothing_of_the_host_can_be_changed(pods: Pods, name: str) -> None:
    paths = ("/etc/shop/x", "/etc/x", "/x", "/usr/share/x", "/run/host/etc/x", "/etc/shop/conf.d/level")
    script = f"for path in {' '.join(paths)}; do echo x >$path && echo $path; done; true"
    assert pods.sh(name, script, container="c") == ""
    assert not Path("/etc/shop").exists()
    assert not Path("/data").exists()


def test_a_sub_path_does_not_follow_symbolic_links(pods: Pods) -> None:
    pods.apply(
        pod(
            "tricky",
            container("c", *FOREVER, volumeMounts=[mount("v", "/mnt/x", subPath="link")]),
            initContainers=[shell("i", "ln -s /etc /v/link", volumeMounts=[mount("v", "/v")])],
            volumes=[{"name": "v", "emptyDir": {}}],
            restartPolicy="Never",
        )
    )
    failed = pods.until("tricky", lambda p: p["status"].get("phase") == "Failed", "refused")
    terminated = failed["status"]["containerStatuses"][0]["state"]["terminated"]
    assert terminated["reason"] == "ContainerCannotRun"
    assert "symbolic link" in terminated["message"]


def test_changes_arrive_in_the_files_and_not_by_sub_path(pods: Pods) -> None:
    pods.apply(config("settings", level="info", added="yes"))
    pods.soon(lambda: pods.run("real", "cat", "/etc/shop/conf.d/level", container="c") == "info", "updated")
    assert pods.run("real", "ls", "/etc/shop/conf.d", container="c") == "added\nlevel\n"
    assert pods.run("real", "readlink", "/etc/shop/conf.d/level", container="c") == "..data/level\n"
    assert pods.run("real", "cat", "/usr/share/nsk8s-test/one.conf", container="c") == "debug"
    pods.client.merge("/api/v1/namespaces/default/pods/real", {"metadata": {"labels": {"zone": "z"}}})
    pods.soon(lambda: "zone" in pods.run("real", "cat", "/about/labels", container="c"), "labels")


def test_a_container_starts_once_what_it_needs_is_there(pods: Pods) -> None:
    late = pod(
        "late",
        container("env", *FOREVER, envFrom=[{"configMapRef": {"name": "late"}}]),
        container("plain", *FOREVER),
    )
    pods.apply(late)
    pods.until("late", lambda p: waits(p, "env") == "CreateContainerConfigError", "waiting")
    pods.apply(config("late", A="1"))
    pods.until_ready("late")
    assert pods.sh("late", "echo $A", container="env") == "1\n"


def test_the_environment_is_that_of_the_containers_start(pods: Pods) -> None:
    pods.apply(secret("login", user="admin", password="changed"))
    assert pods.sh("real", "echo $password", container="c") == "s3cret\n"
    kill(Processes(pods.lab.name).daemon())
    assert pods.sh("real", "echo $password", container="c") == "s3cret\n", (
        "the next control plane asks the process"
    )
    assert pods.run("real", "cat", "/secrets/password", container="c") == "changed"


def test_a_claim_outlives_its_pods(pods: Pods) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    user = pod("user", container("c", *FOREVER, volumeMounts=[mount("v", "/data")]), volumes=volumes)
    pods.apply(user)
    pods.apply(claim)
    pods.until_ready("user")
    pods.sh("user", "echo kept >/data/file")
    since = pods.revision()
    pods.delete("user", "--grace-period=0", "--force")
    pods.until_gone("user", since)
    pods.apply(user)
    pods.until_ready("user")
    assert pods.run("user", "cat", "/data/file") == "kept\n"
    claims = ClusterPaths(pods.lab.name).volumes / "claims"
    assert len(list(claims.iterdir())) == 1
    pods.lab.nsk8s("delete", "pod", "user", "--grace-period=0", "--force")
    pods.lab.nsk8s("delete", "pvc", "data")
    pods.soon(lambda: not list(claims.iterdir()), "the claim's data is gone")


def test_what_a_pod_had_goes_with_it(pods: Pods) -> None:
    uid = pods.get("served")["metadata"]["uid"]
    there = ClusterPaths(pods.lab.name).volumes / "pods" / uid
    assert there.is_dir()
    since = pods.revision()
    pods.delete("served", "--grace-period=0", "--force")
    pods.until_gone("served", since)
    pods.soon(lambda: not there.exists(), "the volumes are gone")
