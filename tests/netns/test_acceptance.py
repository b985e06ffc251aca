"""What a user of kubectl does, with every kubectl that there is: the list by which the API is accepted.

Every kubectl works in a namespace of its own on the same cluster. What an old kubectl cannot ask is left out
by its version (`needs`), and named there.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import MakeLab
from tests.lab import Lab
from tests.netns import kubectls
from tests.netns.kubectls import Kubectl

pytestmark = pytest.mark.netns

TOPOLOGY = """
apiVersion: nsk8s.dev/v1
kind: Cluster
spec:
  nodes: [{name: master, role: control-plane}, {name: w1}, {name: w2}]
"""

APPLICATION = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue, size: "3"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: nginx
        env: [{name: A, value: "1"}, {name: B, value: "2"}]
        ports: [{name: http, containerPort: 80}]
      - name: side
        image: busybox
        command: [sleep, "86400"]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: other, port: 81, targetPort: 80}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules:
  - host: web.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]
"""


@pytest.fixture(scope="module")
def lab(shared_cluster: MakeLab) -> Lab:
    return shared_cluster(TOPOLOGY)


@pytest.fixture(scope="module", params=kubectls.found(), ids=kubectls.label)
def kubectl(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubectl]:
    name = re.sub(r"[^a-z0-9]+", "-", kubectls.label(request.param))
    config = lab.nsk8s("kubeconfig").stdout
    one = Kubectl(request.param, tmp_path_factory.mktemp("home"), config, name)
    one("create", "namespace", name)
    yield one
    one("delete", "namespace", name)


@pytest.fixture(scope="module")
def web(kubectl: Kubectl) -> Kubectl:
    """The application stands and is ready."""
    kubectl("apply", "-f", "-", stdin=APPLICATION)
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    return kubectl


def needs(kubectl: Kubectl, minor: int, what: str) -> None:
    """Leaves out what a kubectl that is older than `minor` has no word for."""
    if kubectl.minor < minor:
        pytest.skip(f"kubectl 1.{kubectl.minor} has no {what} (since 1.{minor})")


def until(what: str, holds: Callable[[], object], deadline: float = 30.0) -> None:
    end = time.monotonic() + deadline
    while not holds():
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}"


def test_there_is_a_kubectl() -> None:
    assert kubectls.found(), "no kubectl on PATH: scripts/test installs Debian's kubernetes-client"


# --- 1, 2: what there is ------------------------------------------------------------------------------


def test_version_and_discovery(kubectl: Kubectl) -> None:
    assert re.search(r'Server Version.*v?1[".,: a-zA-Z]*33', kubectl("version"))
    said = re.sub(r"\x1b\[[0-9;]*m", "", kubectl("cluster-info"))  # old ones colour it whatever it goes to
    assert "is running at https://127.0.0.1:" in said
    resources = kubectl("api-resources")
    assert re.search(r"^networkpolicies +netpol +networking.k8s.io/v1 +true +NetworkPolicy$", resources, re.M)
    assert re.search(r"^pods +po +v1 +true +Pod$", resources, re.M)
    versions = kubectl("api-versions").split()
    assert {"v1", "apps/v1", "batch/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1"} <= set(
        versions
    )
    assert "extensions/v1beta1" not in versions


def test_get_nodes(kubectl: Kubectl) -> None:
    table = kubectl("get", "nodes", "-o", "wide")
    assert re.search(r"^master +Ready +control-plane +\S+ +v1\.33\S* +172\.18\.0\.\d+ +<none> ", table, re.M)
    assert re.search(r"^w1 +Ready +<none> ", table, re.M)


def test_get_in_every_form(web: Kubectl) -> None:
    every = web("get", "pods", "-A", "-o", "wide")
    assert re.match(r"NAMESPACE +NAME +READY +STATUS +RESTARTS +AGE +IP +NODE +NOMINATED NODE", every)
    assert len(re.findall(rf"^{web.namespace} +web-\S+ +2/2 +Running +0 +\S+ +10\.244\.", every, re.M)) == 2
    listed = json.loads(web("get", "pods", "-o", "json"))
    assert (listed["kind"], {pod["kind"] for pod in listed["items"]}) == ("List", {"Pod"})
    assert yaml.safe_load(web("get", "deployment", "web", "-o", "yaml"))["spec"]["replicas"] == 2
    names = web("get", "pods", "-o", "name").split()
    assert [re.sub(r"-[a-z0-9]+-[a-z0-9]+$", "", name) for name in names] == ["pod/web", "pod/web"]
    ips = web("get", "pods", "-o", "jsonpath={.items[*].status.podIP}").split()
    columns = web("get", "pods", "-o", "custom-columns=IP:.status.podIP,NODE:.spec.nodeName", "--no-headers")
    assert sorted(line.split()[0] for line in columns.splitlines()) == sorted(ips)
    assert "app=web,pod-template-hash=" in web("get", "pods", "--show-labels")
    assert len(web("get", "pods", "-l", "app in (web, other), pod-template-hash", "-o", "name").split()) == 2
    assert web("get", "pods", "-l", "app notin (web)", "-o", "name") == ""
    nodes = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in listed["items"]}
    on_w1 = web("get", "pods", "--field-selector", "spec.nodeName=w1", "-o", "name").split()
    assert set(on_w1) == {f"pod/{name}" for name, node in nodes.items() if node == "w1"}
    everything = web("get", "all")
    assert all(
        f"{kind}/web" in everything for kind in ("pod", "service", "deployment.apps", "replicaset.apps")
    )
    assert "configmap" not in everything


def test_get_sorts_by_a_field(kubectl: Kubectl) -> None:
    for name, size in (("n10", "b"), ("n9", "c"), ("n100", "a")):
        kubectl("create", "configmap", name, f"--from-literal=size={size}")
        kubectl("label", "configmap", name, "sorted=yes")

    def by(field: str) -> list[str]:
        return kubectl("get", "configmaps", "-l", "sorted", f"--sort-by={field}", "-o", "name").split()

    # Numbers within a name counted as numbers (fvbommel/sortorder) until 1.31 dropped that library.
    names = ["n9", "n10", "n100"] if kubectl.minor < 31 else ["n10", "n100", "n9"]
    assert by(".metadata.name") == [f"configmap/{name}" for name in names]
    assert by(".data.size") == ["configmap/n100", "configmap/n10", "configmap/n9"]
    kubectl("delete", "configmaps", "-l", "sorted")


def test_row_100_get_w_shows_what_happens(kubectl: Kubectl) -> None:
    with kubectl.popen(["get", "pods", "-w", "-l", "run=watched"], stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        seen: list[str] = []
        reader = threading.Thread(target=lambda: seen.extend(line.decode() for line in watching.stdout or ()))
        reader.start()
        try:
            kubectl("run", "watched", "--image=nginx", "--restart=Never")
            until("it runs", lambda: any(" Running " in line for line in seen))
            kubectl("delete", "pod", "watched", "--grace-period=1")
            until("it goes", lambda: any(" Terminating " in line for line in seen))
        finally:
            watching.send_signal(signal.SIGINT)
            watching.wait(20)
            reader.join(20)
    assert seen[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]


# --- 3, 4: apply --------------------------------------------------------------------------------------


def test_apply_creates_leaves_alone_configures_and_prunes(kubectl: Kubectl) -> None:
    namespace = f"{kubectl.namespace}-apply"
    own = Kubectl(kubectl.path, kubectl.home, kubectl.kubeconfig.read_text(), namespace)
    first = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---" + APPLICATION
    try:
        made = own("apply", "-f", "-", stdin=first).splitlines()
        assert made == [
            f"namespace/{namespace} created",
            "configmap/settings created",
            "deployment.apps/web created",
            "service/web created",
            "ingress.networking.k8s.io/web created",
            "networkpolicy.networking.k8s.io/web created",
        ]
        again = own("apply", "-f", "-", stdin=first).splitlines()
        assert [line.split()[1] for line in again] == ["unchanged"] * 6
        changed = first.replace('size: "3"', 'shape: "round"').replace(', {name: B, value: "2"}', "")
        changed = changed.replace("port: 81, targetPort: 80", "port: 82, targetPort: 80").replace(
            "replicas: 2", "replicas: 3"
        )
        third = own("apply", "-f", "-", stdin=changed).splitlines()
        assert [line.split()[1] for line in third] == [
            *("unchanged", "configured", "configured", "configured", "unchanged", "unchanged")
        ]
        data = json.loads(own("get", "configmap", "settings", "-o", "json"))["data"]
        assert data == {"colour": "blue", "shape": "round"}
        template = json.loads(own("get", "deployment", "web", "-o", "json"))["spec"]["template"]["spec"]
        assert [c["name"] for c in template["containers"]] == ["web", "side"]
        assert template["containers"][0]["env"] == [{"name": "A", "value": "1"}]
        ports = json.loads(own("get", "service", "web", "-o", "json"))["spec"]["ports"]
        assert [port["port"] for port in ports] == [80, 82]
    finally:
        own("delete", "namespace", namespace)


def config_map(name: str, **data: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def test_server_side_apply(kubectl: Kubectl) -> None:
    made = kubectl("apply", "--server-side", "-f", "-", stdin=config_map("ssa", a="1", b="2"))
    assert made == "configmap/ssa serverside-applied\n"
    kubectl("apply", "--server-side", "-f", "-", stdin=config_map("ssa", a="1", c="3"))
    assert json.loads(kubectl("get", "configmap", "ssa", "-o", "json"))["data"] == {"a": "1", "c": "3"}


def test_from_client_side_to_server_side(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=config_map("migrant", a="1", b="2"))
    kubectl("apply", "--server-side", "-f", "-", stdin=config_map("migrant", a="1", b="2"))
    kubectl("apply", "--server-side", "-f", "-", stdin=config_map("migrant", a="1"))
    data = json.loads(kubectl("get", "configmap", "migrant", "-o", "json"))["data"]
    # the migration of managers is kubectl's own since 1.26; before, the old manager keeps what it had
    assert data == ({"a": "1"} if kubectl.minor >= 26 else {"a": "1", "b": "2"})


def test_a_conflict_between_managers(kubectl: Kubectl) -> None:
    deployment = APPLICATION.split("---")[1].replace("name: web}", "name: contested}", 1)
    kubectl("apply", "--server-side", "-f", "-", stdin=deployment)
    kubectl("scale", "deployment/contested", "--replicas=1")
    said = kubectl.fails("apply", "--server-side", "-f", "-", stdin=deployment)
    assert (
        'Apply failed with 1 conflict: conflict with "kubectl' in said
    )  # the manager is called as the program is
    assert ".spec.replicas" in said
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=deployment)
    assert kubectl("get", "deployment", "contested", "-o", "jsonpath={.spec.replicas}") == "2"
    kubectl("delete", "deployment", "contested")


# --- 5, 6: what is refused ----------------------------------------------------------------------------

WRONG = """
apiVersion: v1
kind: Pod
metadata: {name: wrong}
spec: {containers: [{name: web, image: nginx, portz: []}]}
"""


def test_an_unknown_field(kubectl: Kubectl) -> None:
    said = kubectl.fails("apply", "-f", "-", stdin=WRONG)
    if kubectl.minor >= 27:
        assert 'unknown field "spec.containers[0].portz"' in said
    else:  # checks by itself, with the OpenAPI document
        assert 'unknown field "portz" in io.k8s.api.core.v1.Container' in said
    assert kubectl.fails("get", "pod", "wrong") == 'Error from server (NotFound): pods "wrong" not found\n'
    if kubectl.minor >= 27:
        done = kubectl.run("apply", "--validate=warn", "-f", "-", stdin=WRONG)
        assert 'Warning: unknown field "spec.containers[0].portz"' in done.stderr
        assert done.stdout == "pod/wrong created\n"
        kubectl("delete", "pod", "wrong", "--now")


def test_a_wrong_type_and_a_missing_field(kubectl: Kubectl) -> None:
    kubectl.fails("apply", "-f", "-", stdin=WRONG.replace("portz: []", "ports: 80"))
    ingress = APPLICATION.split("---")[3].replace("pathType: Prefix, ", "")
    assert "Required value" in kubectl.fails("apply", "-f", "-", stdin=ingress) or kubectl.minor < 27


def test_a_kind_that_is_gone(kubectl: Kubectl) -> None:
    spec = {"backend": {"serviceName": "x", "servicePort": 80}}
    old = {"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "old"}, "spec": spec}
    said = kubectl.fails("apply", "-f", "-", stdin=json.dumps(old))
    assert 'no matches for kind "Ingress" in version "extensions/v1beta1"' in said


def test_a_node_port_that_is_taken(web: Kubectl) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "one"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]},
    }
    web("apply", "-f", "-", stdin=json.dumps(service))
    port = int(web("get", "service", "one", "-o", "jsonpath={.spec.ports[0].nodePort}"))
    other = {
        **service,
        "metadata": {"name": "two"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]},
    }
    said = web.fails("apply", "-f", "-", stdin=json.dumps(other))
    assert (
        f'The Service "two" is invalid: spec.ports[0].nodePort: Invalid value: {port}: '
        "provided port is already allocated" in said
    )


# --- 7: describe --------------------------------------------------------------------------------------


def test_describe(web: Kubectl) -> None:
    names = web("get", "pods", "-l", "app=web", "-o", "name").split()
    said = web("describe", next(name for name in names if name.startswith("pod/web-")))
    for word in ("Scheduled", "Pulled", "Created", "Started", "Ready ", "True", "Node: ", "IP: "):
        assert word in said, said
    assert re.search(r"Endpoints: +10\.244\.\d+\.\d+:80,10\.244\.", web("describe", "service", "web"))
    ingress = web("describe", "ingress", "web")
    assert "web.example.com" in ingress
    assert re.search(r"web:80 \(10\.244\.\d+\.\d+:80,10\.244\.", ingress)
    assert "ScalingReplicaSet" in web("describe", "deployment", "web")
    assert "app=web" in web("describe", "networkpolicy", "web")
    assert re.search(r"Status: +Active", web("describe", "namespace", web.namespace))
    assert "10.244." in web("describe", "endpoints", "web")
    if web.minor >= 21:  # asks for discovery.k8s.io/v1beta1 before
        assert "10.244." in web("describe", "endpointslices")
    node = web("describe", "node", "w1")
    assert re.search(r"Ready +True", node)
    assert "Non-terminated Pods" in node
    assert web("describe", "replicaset", "-l", "app=web")
    assert web("describe", "configmap", "settings")


# --- 8, 9: create, run, expose, roll out --------------------------------------------------------------


def test_create(kubectl: Kubectl) -> None:
    assert (
        kubectl("create", "deployment", "made", "--image=nginx", "--port=80")
        == "deployment.apps/made created\n"
    )
    assert kubectl("create", "configmap", "made", "--from-literal=a=1") == "configmap/made created\n"
    assert kubectl("create", "secret", "generic", "made", "--from-literal=a=1") == "secret/made created\n"
    assert kubectl("get", "secret", "made", "-o", "jsonpath={.data.a}") == "MQ=="
    assert kubectl("create", "serviceaccount", "made") == "serviceaccount/made created\n"
    assert kubectl("create", "job", "made", "--image=busybox", "--", "true") == "job.batch/made created\n"
    assert kubectl("create", "ingress", "made", "--rule=a.example.com/x*=made:80").endswith("/made created\n")
    assert kubectl("create", "service", "clusterip", "made", "--tcp=80:80") == "service/made created\n"
    kubectl("create", "deployment", "dry", "--image=nginx", "--dry-run=server")
    assert "not found" in kubectl.fails("get", "deployment", "dry")
    said = kubectl.fails("create", "configmap", "made", "--from-literal=a=2")
    assert said == 'error: failed to create configmap: configmaps "made" already exists\n' or (
        kubectl.minor < 22 and 'configmaps "made" already exists' in said
    )
    if kubectl.minor >= 24:
        assert kubectl("create", "token", "made").count(".") == 2
    kubectl("delete", "deployment,service,ingress,job,secret,configmap,serviceaccount", "made")


def test_expose_run_scale_and_set(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "shown", "--image=nginx", "--replicas=2")
    kubectl("rollout", "status", "deployment/shown", "--timeout=60s")
    assert (
        kubectl("expose", "deployment", "shown", "--port=80", "--type=NodePort") == "service/shown exposed\n"
    )
    assert re.search(
        r"^shown +NodePort +10\.96\.\d+\.\d+ +<none> +80:3[012]\d\d\d/TCP ", kubectl("get", "svc"), re.M
    )
    assert (
        kubectl("run", "one", "--image=busybox", "--restart=Never", "--", "sleep", "9999")
        == "pod/one created\n"
    )
    assert kubectl("scale", "deployment/shown", "--replicas=3") == "deployment.apps/shown scaled\n"
    kubectl("set", "image", "deployment/shown", "nginx=nginx:1.27")
    kubectl("set", "env", "deployment/shown", "COLOUR=blue")
    kubectl("rollout", "status", "deployment/shown", "--timeout=60s")
    history = kubectl("rollout", "history", "deployment/shown")
    assert re.findall(r"^(\d+) ", history, re.M) == ["1", "2", "3"]
    kubectl("rollout", "undo", "deployment/shown", "--to-revision=1")
    kubectl("rollout", "status", "deployment/shown", "--timeout=60s")
    image = "jsonpath={.spec.template.spec.containers[0].image}"
    assert kubectl("get", "deployment", "shown", "-o", image) == "nginx"
    assert kubectl("rollout", "restart", "deployment/shown") == "deployment.apps/shown restarted\n"
    kubectl("rollout", "status", "deployment/shown", "--timeout=60s")
    kubectl("delete", "service,deployment", "shown")
    kubectl("delete", "pod", "one", "--now")


# --- 10: patch, edit, label ---------------------------------------------------------------------------


def test_patches(web: Kubectl) -> None:
    strategic = (
        '{"spec":{"template":{"spec":{"containers":[{"name":"side","env":[{"name":"X","value":"1"}]}]}}}}'
    )
    assert web("patch", "deployment", "web", "-p", strategic) == "deployment.apps/web patched\n"
    containers = json.loads(web("get", "deployment", "web", "-o", "json"))["spec"]["template"]["spec"][
        "containers"
    ]
    assert [c["name"] for c in containers] == ["web", "side"]
    assert containers[1]["env"] == [{"name": "X", "value": "1"}]
    web("patch", "configmap", "settings", "--type=merge", "-p", '{"data":{"size":null,"new":"1"}}')
    assert web("get", "configmap", "settings", "-o", "jsonpath={.data}") == '{"colour":"blue","new":"1"}'
    web("patch", "configmap", "settings", "--type=json", "-p", '[{"op":"remove","path":"/data/new"}]')
    web.fails("patch", "configmap", "settings", "--type=json", "-p", '[{"op":"remove","path":"/data/none"}]')
    assert web("get", "configmap", "settings", "-o", "jsonpath={.data}") == '{"colour":"blue"}'


def test_patch_of_a_subresource(web: Kubectl) -> None:
    needs(web, 24, "--subresource")
    said = web("get", "deployment", "web", "--subresource=scale")
    assert re.match(r"NAME +DESIRED +AVAILABLE", said)
    web("patch", "deployment", "web", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":2}}')
    web("create", "service", "loadbalancer", "outside", "--tcp=80")
    given = '{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.7"}]}}}'
    web("patch", "service", "outside", "--subresource=status", "--type=merge", "-p", given)
    assert "203.0.113.7" in web("get", "svc", "outside", "--no-headers")
    refused = web.run("patch", "service", "web", "--subresource=status", "--type=merge", "-p", given, rc=1)
    assert "may only be used when `spec.type` is 'LoadBalancer'" in refused.stderr
    web("delete", "service", "outside")


def test_apply_of_a_subresource(web: Kubectl) -> None:
    needs(web, 32, "apply --subresource")
    web("create", "service", "loadbalancer", "applied", "--tcp=80")
    meta = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "applied"}}
    given = {**meta, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}]}}}
    words = ("apply", "--server-side", "-f", "-")
    web(*words, "--subresource=status", stdin=json.dumps(given))
    assert "203.0.113.8" in web("get", "svc", "applied", "--no-headers")
    web("delete", "service", "applied")
    # kubectl sends the object that the Scale belongs to, which is not what a scale is of.
    whole = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 3},
    }
    refused = web.fails(*words, "--subresource=scale", "--validate=false", stdin=json.dumps(whole))
    assert "Specified patch version: apps/v1, expected: autoscaling/v1" in refused


def test_edit(web: Kubectl) -> None:
    editor = {"KUBE_EDITOR": "sed -i s/colour:.*/colour:\\ green/"}
    assert web.run("edit", "configmap", "settings", env=editor).stdout == "configmap/settings edited\n"
    assert web("get", "configmap", "settings", "-o", "jsonpath={.data.colour}") == "green"
    editor = {"KUBE_EDITOR": "sed -i s/app:\\ web$/app:\\ other/"}
    done = web.run("edit", "service", "web", env=editor, rc=None)
    assert web("get", "service", "web", "-o", "jsonpath={.spec.selector.app}") == "other", done.stderr
    web("patch", "service", "web", "-p", '{"spec":{"selector":{"app":"web"}}}')


def test_label_annotate_and_taint(web: Kubectl) -> None:
    assert web("label", "configmap", "settings", "tier=back") == "configmap/settings labeled\n"
    assert web("get", "configmap", "-l", "tier=back", "-o", "name") == "configmap/settings\n"
    said = web.fails("label", "configmap", "settings", "tier=front")
    assert "'tier' already has a value (back), and --overwrite is false" in said
    web("label", "configmap", "settings", "tier-")
    assert (
        web("annotate", "configmap", "settings", "note=hello") == "configmap/settings annotated\n"
        or web.minor < 28
    )
    web("annotate", "configmap", "settings", "note-")
    assert web("taint", "node", "w2", "acceptance=yes:NoSchedule") == "node/w2 tainted\n"
    web("taint", "node", "w2", "acceptance-")
    assert "acceptance" not in web("get", "node", "w2", "-o", "jsonpath={.spec.taints}")


# --- 11 to 13: delete, replace, diff, explain, wait ---------------------------------------------------


def test_delete_waits(kubectl: Kubectl) -> None:
    kubectl("run", "short", "--image=nginx", "--restart=Never")
    kubectl("wait", "--for=condition=Ready", "pod/short", "--timeout=30s")
    assert 'pod "short" deleted' in kubectl("delete", "pod", "short", "--grace-period=1")
    assert "not found" in kubectl.fails("get", "pod", "short")
    kubectl("apply", "-f", "-", stdin=config_map("kept", a="1"))
    kubectl(
        "patch", "configmap", "kept", "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/keep"]}}'
    )
    kubectl("delete", "configmap", "kept", "--wait=false")
    assert kubectl("get", "configmap", "kept", "-o", "jsonpath={.metadata.deletionTimestamp}")
    kubectl("patch", "configmap", "kept", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kubectl.run("wait", "--for=delete", "configmap/kept", "--timeout=10s", rc=None)  # gone already: 1 of old
    assert "not found" in kubectl.fails("get", "configmap", "kept")
    kubectl("run", "forced", "--image=nginx", "--restart=Never")
    kubectl("delete", "pod", "forced", "--grace-period=0", "--force")
    assert "not found" in kubectl.fails("get", "pod", "forced")
    kubectl("apply", "-f", "-", stdin=config_map("file", a="1"))
    kubectl("delete", "-f", "-", stdin=config_map("file", a="1"))
    assert "not found" in kubectl.fails("get", "configmap", "file")


def test_delete_of_a_namespace_takes_all_with_it(kubectl: Kubectl) -> None:
    name = f"{kubectl.namespace}-gone"
    own = Kubectl(kubectl.path, kubectl.home, kubectl.kubeconfig.read_text(), name)
    own("create", "namespace", name)
    own("create", "deployment", "web", "--image=nginx")
    own("rollout", "status", "deployment/web", "--timeout=30s")
    own("delete", "namespace", name)
    assert "not found" in own.fails("get", "namespace", name)
    assert name not in own("get", "pods,deployments,replicasets,events", "-A")


def test_replace_and_diff(web: Kubectl) -> None:
    web("apply", "-f", "-", stdin=config_map("swap", a="1"))
    assert web("diff", "-f", "-", stdin=config_map("swap", a="1")) == ""
    done = web.run("diff", "-f", "-", stdin=config_map("swap", a="2"), rc=1)
    assert re.search(r'^-  a: "1"$', done.stdout, re.M)
    assert re.search(r'^\+  a: "2"$', done.stdout, re.M)
    assert web("replace", "-f", "-", stdin=config_map("swap", a="3")) == "configmap/swap replaced\n"
    before = web("get", "configmap", "swap", "-o", "jsonpath={.metadata.uid}")
    web("replace", "--force", "-f", "-", stdin=config_map("swap", a="4"))
    assert web("get", "configmap", "swap", "-o", "jsonpath={.metadata.uid}") != before


def test_explain(kubectl: Kubectl) -> None:
    said = kubectl("explain", "pod.spec.containers.ports")
    assert "containerPort" in said
    assert "hostPort" in said
    assert "pathType" in kubectl("explain", "ingress", "--recursive")


def test_wait(web: Kubectl) -> None:
    web("wait", "--for=condition=Available", "deployment/web", "--timeout=30s")
    web("wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=30s")
    said = web.fails("wait", "--for=condition=Never", "deployment/web", "--timeout=1s")
    assert "timed out waiting for the condition" in said
    if web.minor >= 23:
        web("wait", "--for=jsonpath={.status.phase}=Running", "pod", "-l", "app=web", "--timeout=30s")
    if web.minor >= 31:
        with web.popen(["wait", "--for=create", "configmap/awaited", "--timeout=30s"]) as waiting:
            web("apply", "-f", "-", stdin=config_map("awaited", a="1"))
            assert waiting.wait(30) == 0


# --- 14: inside ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shell(kubectl: Kubectl) -> Kubectl:
    """A pod to be inside of: `shell`, with a real process that reads its input; and nginx's stand-in."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "shell"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "cat", "image": "busybox", "stdin": True,
                 "command": ["sh", "-c", "for n in 1 2 3; do echo line $n; done; exec cat"]},
                {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]},
            ],
        },
    }  # fmt: skip
    kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    kubectl("wait", "--for=condition=Ready", "pod/shell", "--timeout=30s")
    return kubectl


def ways(kubectl: Kubectl) -> list[dict[str, str]]:
    """The kubectls that speak WebSocket also speak SPDY when told to."""
    return [{}, {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}] if kubectl.minor >= 30 else [{}]


def test_row_100_exec(shell: Kubectl) -> None:
    for env in ways(shell):
        run = ("exec", "shell", "-c", "cat", "--")
        done = shell.run(*run, "sh", "-c", "echo out; echo err >&2", env=env)
        assert (done.stdout, done.stderr) == ("out\n", "err\n")
        assert "exit code 3" in shell.run(*run, "sh", "-c", "exit 3", env=env, rc=3).stderr
        shell.run(*run, "no-such-program", env=env, rc=None)
        assert (
            shell.run("exec", "-i", "shell", "-c", "cat", "--", "cat", stdin="hello\n", env=env).stdout
            == "hello\n"
        )
        assert (
            shell.run(
                "exec", "-i", "shell", "-c", "cat", "--", "wc", "-c", stdin="x" * 100_000, env=env
            ).stdout.strip()
            == "100000"
        )


def test_row_100_logs(shell: Kubectl) -> None:
    assert shell("logs", "shell", "-c", "cat") == "line 1\nline 2\nline 3\n"
    assert shell("logs", "shell", "-c", "cat", "--tail=1") == "line 3\n"
    with shell.popen(["logs", "-f", "shell", "-c", "cat"], stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert [following.stdout.readline() for _ in range(3)] == [b"line 1\n", b"line 2\n", b"line 3\n"]
        shell.run("exec", "-i", "shell", "-c", "cat", "--", "sh", "-c", "echo more >/proc/1/fd/1", rc=None)
        following.terminate()


def test_attach(shell: Kubectl) -> None:
    with shell.popen(
        ["attach", "-i", "shell", "-c", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write(b"said to it\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == b"said to it\n"
        attached.terminate()


@pytest.mark.parametrize("container", ["cat", "web"])
def test_cp(shell: Kubectl, tmp_path: Path, container: str) -> None:
    (tmp_path / "there").write_bytes(os.urandom(300_000))
    (tmp_path / "there").chmod(0o644)
    shell("cp", str(tmp_path / "there"), f"{shell.namespace}/shell:/tmp/there", "-c", container)
    shell("cp", f"{shell.namespace}/shell:/tmp/there", str(tmp_path / "back"), "-c", container)
    listed = shell("exec", "shell", "-c", container, "--", "sh", "-c", "umask; stat -c %a /tmp/there")
    assert listed == "0022\n644\n"
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()


def forwarded(kubectl: Kubectl, target: str, ports: str) -> tuple[subprocess.Popen[bytes], int]:
    """A port-forward in the background, and the local port that it says."""
    process = kubectl.popen(["port-forward", target, ports], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    match = re.search(r"127\.0\.0\.1:(\d+) -> ", line)
    assert match, line
    return process, int(match[1])


def test_row_100_port_forward(shell: Kubectl) -> None:
    process, port = forwarded(shell, "pod/shell", ":80")
    with process:
        for _ in range(5):
            done = subprocess.run(
                ["curl", "-sS", "-f", "-m", "5", f"http://127.0.0.1:{port}/"], capture_output=True, text=True
            )
            assert "shell" in done.stdout, done.stderr
        process.terminate()
    process, port = forwarded(shell, "pod/shell", ":8099")
    with process:
        assert subprocess.run(["curl", "-s", "-m", "5", f"http://127.0.0.1:{port}/"]).returncode
        assert process.stderr is not None
        assert b"refused" in process.stderr.readline()
        process.terminate()


# --- 15, 16: nodes, rights, events --------------------------------------------------------------------


def test_cordon_drain_uncordon(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "moved", "--image=nginx", "--replicas=2")
    kubectl("rollout", "status", "deployment/moved", "--timeout=30s")
    assert kubectl("cordon", "w2") == "node/w2 cordoned\n"
    assert re.search(r"^w2 +Ready,SchedulingDisabled ", kubectl("get", "nodes"), re.M)
    local = "--delete-emptydir-data" if kubectl.minor >= 20 else "--delete-local-data"
    kubectl(
        "drain", "w2", "--ignore-daemonsets", "--force", local, "--pod-selector=app=moved", "--timeout=60s"
    )
    on_w2 = kubectl("get", "pods", "-l", "app=moved", "--field-selector", "spec.nodeName=w2", "-o", "name")
    assert on_w2 == ""
    assert kubectl("uncordon", "w2") == "node/w2 uncordoned\n"
    kubectl("delete", "deployment", "moved")


def test_debug(shell: Kubectl) -> None:
    needs(shell, 25, "debug of the ephemeralcontainers subresource that is left")
    done = shell.run(
        "debug", "shell", "--image=busybox", "-c", "inspector", "--", "sh", "-c", "ip -br address show eth0"
    )
    until("it has run", lambda: "10.244." in shell.run("logs", "shell", "-c", "inspector", rc=None).stdout)
    assert done.returncode == 0


def test_debug_among_the_processes_of_a_container(kubectl: Kubectl) -> None:
    needs(kubectl, 25, "debug of the ephemeralcontainers subresource that is left")
    kubectl("run", "target", "--image=busybox", "--", "sleep", "31415")
    kubectl("wait", "--for=condition=Ready", "pod/target", "--timeout=30s")
    script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done"

    def debugged(name: str, *words: str) -> list[str]:
        """What a debugging container sees when it runs, one program in a line."""
        kubectl(
            "debug", "target", "--image=busybox", "-c", name, *words, "--", "sh", "-c", f"{script}; echo end"
        )
        until("it has run", lambda: "end\n" in kubectl.run("logs", "target", "-c", name, rc=None).stdout)
        return [line.strip() for line in kubectl("logs", "target", "-c", name).splitlines()]

    assert "sleep 31415" in debugged("inside", "--target=target")
    assert "sleep 31415" not in debugged("beside")
    kubectl("delete", "pod", "target", "--grace-period=1")


def test_rights(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    assert re.search(r"\*\.\* .*\[\*\]", kubectl("auth", "can-i", "--list"))
    account = f"system:serviceaccount:{kubectl.namespace}:default"
    assert kubectl.run("auth", "can-i", "list", "pods", "--as", account, rc=1).stdout == "no\n"
    said = kubectl.fails("get", "pods", "--as", account)
    assert said == (
        f'Error from server (Forbidden): pods is forbidden: User "{account}" cannot list resource "pods" '
        f'in API group "" in the namespace "{kubectl.namespace}"\n'
    )
    kubectl(
        "create",
        "rolebinding",
        "viewer",
        "--clusterrole=view",
        f"--serviceaccount={kubectl.namespace}:default",
    )
    assert kubectl("auth", "can-i", "list", "pods", "--as", account) == "yes\n"
    assert kubectl.run("auth", "can-i", "delete", "pods", "--as", account, rc=1).stdout == "no\n"
    if kubectl.minor >= 28:
        assert "system:masters" in kubectl("auth", "whoami")


def test_nobody_gets_in_with_a_wrong_token(kubectl: Kubectl) -> None:
    config = yaml.safe_load(kubectl.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "wrong"}
    stranger = Kubectl(kubectl.path, kubectl.home / "stranger", yaml.safe_dump(config), kubectl.namespace)
    said = stranger.fails("get", "pods")
    assert "You must be logged in to the server" in said


def test_events_raw_and_top(web: Kubectl) -> None:
    assert re.search(r"Normal +Scheduled +pod/web-\S+ +Successfully assigned ", web("get", "events"))
    if web.minor >= 26:
        assert "Successfully assigned" in web("events")
    assert web("get", "--raw", "/healthz") == "ok"
    assert json.loads(web("get", "--raw", "/api/v1/nodes/w1"))["kind"] == "Node"
    assert "Metrics API not available" in web.fails("top", "nodes")


# --- 17: kinds of one's own ---------------------------------------------------------------------------

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: PLURAL, singular: SINGULAR, kind: KIND}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties: {size: {type: integer, minimum: 1}, colour: {type: string, default: blue}}
"""


def test_custom_resources(kubectl: Kubectl) -> None:
    word = "w" + re.sub(r"\W", "", kubectl.namespace)
    definition = (
        DEFINITION.replace("PLURAL", f"{word}s").replace("SINGULAR", word).replace("KIND", word.capitalize())
    )
    kubectl("apply", "-f", "-", stdin=definition)
    kubectl("wait", "--for=condition=Established", f"crd/{word}s.example.com", "--timeout=20s")

    def one(size: object) -> str:
        kind = word.capitalize()
        return json.dumps(
            {
                "apiVersion": "example.com/v1",
                "kind": kind,
                "metadata": {"name": "one"},
                "spec": {"size": size},
            }
        )

    assert kubectl("apply", "-f", "-", stdin=one(3)) == f"{word}.example.com/one created\n"
    assert kubectl("apply", "-f", "-", stdin=one(4)) == f"{word}.example.com/one configured\n"
    table = kubectl("get", f"{word}s")
    assert re.search(r"^NAME +SIZE\none +4$", table.strip(), re.M)
    assert kubectl("get", word, "one", "-o", "jsonpath={.spec.colour}") == "blue"
    said = kubectl.fails("apply", "-f", "-", stdin=one(0))
    assert "spec.size" in said
    assert "size" in kubectl("explain", f"{word}.spec")
    kubectl("delete", word, "one")
    kubectl("delete", "crd", f"{word}s.example.com")
    said = kubectl.fails("get", f"{word}s")  # from its cache, kubectl may still know the kind
    assert "doesn't have a resource type" in said or "could not find the requested resource" in said
