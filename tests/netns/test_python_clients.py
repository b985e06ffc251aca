"""The Python clients kubernetes, lightkube and kr8s on a real cluster, with the kubeconfig that it gives out.

lightkube has neither exec nor port-forward; kr8s has no server-side apply.
"""

from __future__ import annotations

import gc
import http.client
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kr8s
import lightkube
import pytest
from kr8s import objects
from kubernetes import client, config, dynamic, watch
from kubernetes.dynamic.resource import Resource
from kubernetes.leaderelection import electionconfig
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream
from lightkube.core.exceptions import ApiError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod

from nsk8s.api.types import Obj
from tests.conformity import faults
from tests.conftest import MakeLab
from tests.lab import Lab
from tests.netns.standing import deployment

pytestmark = [
    pytest.mark.netns,
    # the clients' own: they leave connections to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning"),
]

TOPOLOGY = """
apiVersion: nsk8s.dev/v1
kind: Cluster
spec:
  nodes: [{name: master, role: control-plane}, {name: w1}, {name: w2}]
"""
Foreign = Any
"""What a client makes; its types are not looked into."""

DEADLINE = 30
SPEAK = ["sh", "-c", "read word; echo $word; echo oh >&2; exit 3"]


@pytest.fixture(scope="module")
def lab(shared_cluster: MakeLab) -> Lab:
    return shared_cluster(TOPOLOGY)


@pytest.fixture(scope="module")
def kubeconfig(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    file: Path = tmp_path_factory.mktemp("python") / "kubeconfig"
    file.write_text(lab.nsk8s("kubeconfig").stdout)
    return str(file)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()  # what a client has left open is closed while it may be


def pod(name: str) -> Obj:
    web = {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}
    shell = {"name": "shell", "image": "busybox", "command": ["sleep", "1000"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [web, shell], "terminationGracePeriodSeconds": 1},
    }


# --- kubernetes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official(kubeconfig: str) -> Iterator[Foreign]:
    with config.new_client_from_config(kubeconfig) as api:
        yield api


@pytest.fixture(scope="module")
def official_pod(official: Foreign) -> Foreign:
    """A pod that was watched until it was ready."""
    core = client.CoreV1Api(official)
    core.create_namespaced_pod("default", pod("official"))
    seen = watch.Watch()
    select = {"field_selector": "metadata.name=official", "timeout_seconds": DEADLINE}
    for event in seen.stream(core.list_namespaced_pod, "default", **select):
        found = event["object"]
        if any(c.type == "Ready" and c.status == "True" for c in found.status.conditions or ()):
            seen.stop()
            return found
    raise AssertionError("the pod did not become ready while it was watched")


def test_official_lists_typed_objects(official: Foreign, official_pod: Foreign) -> None:
    core = client.CoreV1Api(official)
    assert [node.metadata.name for node in core.list_node().items] == ["master", "w1", "w2"]
    assert official_pod.metadata.name in [p.metadata.name for p in core.list_pod_for_all_namespaces().items]
    assert core.list_event_for_all_namespaces().items
    assert client.VersionApi(official).get_code().minor == "33"


def test_official_exec(official: Foreign, official_pod: Foreign) -> None:
    call = client.CoreV1Api(official).connect_get_namespaced_pod_exec
    name = official_pod.metadata.name
    asked = {"container": "shell", "command": SPEAK, "stdin": True, "stdout": True, "stderr": True}
    session = stream(call, name, "default", **asked, tty=False, _preload_content=False)
    session.write_stdin("hello\n")
    session.run_forever(timeout=DEADLINE)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("hello\n", "oh\n", 3)
    session.close()


def test_official_port_forward(official: Foreign, official_pod: Foreign) -> None:
    call = client.CoreV1Api(official).connect_get_namespaced_pod_portforward
    forward = portforward(call, official_pod.metadata.name, "default", ports="80")
    connection = http.client.HTTPConnection("web")
    connection.sock = forward.socket(80)
    connection.sock.setblocking(True)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    assert forward.error(80) is None
    connection.close()


def test_official_server_side_apply(official: Foreign) -> None:
    maps = dynamic.DynamicClient(official).resources.get(api_version="v1", kind="ConfigMap")

    def apply(manager: str, value: str, **more: object) -> Foreign:
        meta = {"name": "official", "namespace": "default"}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": value}}
        return maps.server_side_apply(body=body, field_manager=manager, **more)

    assert apply("one", "1").metadata.managedFields[0].manager == "one"
    with pytest.raises(client.ApiException) as conflict:
        apply("two", "2")
    assert conflict.value.status == 409
    assert apply("two", "2", force_conflicts=True).data.a == "2"


def test_official_leader_election(official: Foreign) -> None:
    led: queue.Queue[str] = queue.Queue()
    resigned = {name: threading.Event() for name in ("one", "two")}
    candidates = []
    for name, may_resign in resigned.items():
        lock = LeaseLock("official", "default", name)
        lock.api_instance = client.CoordinationV1Api(official)

        def lead(name: str = name, may_resign: threading.Event = may_resign) -> None:
            led.put(name)
            may_resign.wait(DEADLINE)
            raise InterruptedError  # the one way to end an election

        elected = LeaderElection(electionconfig.Config(lock, 3, 2, 1, lead, None))
        candidates.append(threading.Thread(target=elected.run))
    candidates[0].start()
    assert led.get(timeout=DEADLINE) == "one"
    candidates[1].start()
    seen = watch.Watch()
    renewals = 0
    leases = client.CoordinationV1Api(official).list_namespaced_lease
    for event in seen.stream(leases, "default", timeout_seconds=DEADLINE):
        renewals += event["object"].spec.holder_identity == "one"
        if renewals == 3:
            seen.stop()
    assert led.empty()
    resigned["one"].set()
    assert led.get(timeout=DEADLINE) == "two"
    resigned["two"].set()
    for candidate in candidates:
        candidate.join(DEADLINE)
        assert not candidate.is_alive()


def test_every_object_has_what_its_schema_requires(official: Foreign, official_pod: Foreign) -> None:
    resources = dynamic.DynamicClient(official).resources
    wrong: set[str] = set()
    kinds: set[str] = set()
    for found in resources.search():
        if type(found) is not Resource or "list" not in found.verbs or found.group == "nsk8s.dev":
            continue
        for item in found.get().to_dict()["items"]:
            whole = {**item, "apiVersion": found.group_version, "kind": found.kind}
            kinds.add(found.kind)
            wrong.update(faults(whole))
    assert wrong == set()
    assert {"Node", "Pod", "Event", "Service", "EndpointSlice", "Lease", "ClusterRole"} <= kinds


# --- lightkube --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def light(kubeconfig: str) -> Iterator[Foreign]:
    given = lightkube.KubeConfig.from_file(kubeconfig)
    with lightkube.Client(config=given, field_manager="light", trust_env=False) as found:
        yield found


def test_lightkube_lists_and_watches(light: Foreign) -> None:
    assert [node.metadata.name for node in light.list(Node)] == ["master", "w1", "w2"]
    light.create(Pod.from_dict(pod("light")))
    light.wait(Pod, "light", for_conditions=["Ready"])
    kinds = []
    for kind, found in light.watch(Pod, fields={"metadata.name": "light"}, server_timeout=DEADLINE):
        kinds.append(kind)
        if kind == "ADDED":
            assert found.status.phase == "Running"
            light.delete(Pod, "light")
        if kind == "DELETED":
            break
    assert (kinds[0], kinds[-1]) == ("ADDED", "DELETED")


def test_lightkube_applies(light: Foreign) -> None:
    def made(value: str) -> Foreign:
        return ConfigMap(metadata=ObjectMeta(name="light", namespace="default"), data={"a": value})

    assert light.apply(made("1")).metadata.managedFields[0].manager == "light"
    with pytest.raises(ApiError) as conflict:
        light.apply(made("2"), field_manager="another")
    assert conflict.value.status.reason == "Conflict"
    assert light.apply(made("2"), field_manager="another", force=True).data == {"a": "2"}


def test_lightkube_scales_and_patches(light: Foreign) -> None:
    light.create(Deployment.from_dict(deployment("light", 1)), namespace="default")
    light.patch(Deployment.Scale, "light", {"spec": {"replicas": 2}})
    light.wait(Deployment, "light", for_conditions=["Available"])
    assert light.get(Deployment, "light").spec.replicas == 2
    light.delete(Deployment, "light")


# --- kr8s -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eight(kubeconfig: str) -> Foreign:
    return kr8s.api(kubeconfig=kubeconfig)


@pytest.fixture(scope="module")
def eight_pod(eight: Foreign) -> Foreign:
    found = objects.Pod(pod("eight"), api=eight)
    found.create()
    found.wait("condition=Ready", timeout=DEADLINE)
    return found


def test_kr8s_lists_and_watches(eight: Foreign, eight_pod: Foreign) -> None:
    assert [node.name for node in eight.get("nodes")] == ["master", "w1", "w2"]
    assert "eight" in [p.name for p in eight.get("pods", namespace="default")]
    kind, found = next(iter(eight.watch("pods", namespace="default", field_selector="metadata.name=eight")))
    assert (kind, found.name) == ("ADDED", "eight")
    eight_pod.label({"seen": "yes"})
    assert eight_pod.labels["seen"] == "yes"


def test_kr8s_exec(eight_pod: Foreign) -> None:
    done = eight_pod.exec(["sh", "-c", "echo out; echo oh >&2; exit 3"], container="shell", check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"oh\n", 3)


def test_kr8s_port_forward(eight_pod: Foreign) -> None:
    with eight_pod.portforward(80, local_port="auto") as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
