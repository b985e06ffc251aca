"""The API from the host and from inside the cluster, by real packets: who gets in, and that it is there again
after whatever happens to the control plane or to its node."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from nsk8s.api.families import family
from nsk8s.paths import ClusterPaths
from tests.conftest import MakeLab
from tests.lab import Lab
from tests.netns import kubectls
from tests.netns.kubectls import Kubectl
from tests.netns.processes_of import Processes, kill
from tests.netns.scenario import Obj, pod, url
from tests.netns.standing import until

pytestmark = pytest.mark.netns

DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
CURL = ["curl", "-sS", "--max-time", "5", "--cacert", f"{DIRECTORY}/ca.crt"]
API = "https://10.96.0.1"
PODS = f"{API}/api/v1/namespaces/default/pods"
AS_ITSELF = f'{" ".join(CURL)} -H "Authorization: Bearer $(cat {DIRECTORY}/token)"'


def topology(*workers: str, master: str = "master") -> Obj:
    nodes = [{"name": master, "role": "control-plane"}, *({"name": name} for name in workers)]
    return {
        "apiVersion": "nsk8s.dev/v1",
        "kind": "Cluster",
        "metadata": {"name": "x"},
        "spec": {"nodes": nodes},
    }


def shell(name: str, **spec: object) -> Obj:
    made = pod(name, "w1", ports=(), command=["sleep", "86400"])
    return {**made, "spec": {**made["spec"], **spec}}


OBJECTS = [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": "default"}},
    shell("client"),
    shell("reader", serviceAccountName="reader"),
    shell("without", automountServiceAccountToken=False),
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "readers", "namespace": "default"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
    },
]


def files(*workers: str, master: str = "master") -> str:
    return yaml.safe_dump_all([topology(*workers, master=master), *OBJECTS])


@pytest.fixture(scope="module")
def lab(shared_cluster: MakeLab) -> Lab:
    return shared_cluster(files("w1", "w2"))


@pytest.fixture(scope="module", params=kubectls.found()[-1:], ids=kubectls.label)
def kubectl(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    config = lab.nsk8s("kubeconfig").stdout
    return Kubectl(request.param, tmp_path_factory.mktemp("home"), config)


def address(lab: Lab, node: str) -> str:
    found: str = lab.get("node", node)[0]["status"]["addresses"][0]["address"]
    return found


def status(lab: Lab, name: str, script: str) -> Obj:
    """The JSON that a shell in a pod gets."""
    found: Obj = json.loads(lab.run(name, "sh", "-c", script).stdout)
    return found


def answers(lab: Lab, name: str = "client") -> bool:
    """Whether a pod reaches the API, and knows it."""
    done = lab.run(name, *CURL, f"{API}/version", check=False)
    return done.returncode == 0 and "gitVersion" in done.stdout


# --- from the inside ---------------------------------------------------------------------------------


def test_a_pod_reaches_the_api_through_the_service(lab: Lab) -> None:
    master = address(lab, "master")
    with lab.capture("default.client", "eth0") as there, lab.capture("master", "eth0") as here:
        assert answers(lab)
        sent = there.wait_for(lambda f: f.kind == "tcp" and f.outgoing and f.flags == "S")
        assert (sent.dst, sent.dport) == ("10.96.0.1", 443)
        arrived = here.wait_for(lambda f: f.kind == "tcp" and not f.outgoing and f.dport == 6443)
        assert (arrived.dst, arrived.flags) == (master, "S")
        assert not [f for f in here.look() if f.dst == "10.96.0.1"], "the address was translated before"


def test_who_has_no_token_is_not_let_in(lab: Lab) -> None:
    refused = status(lab, "client", f"{' '.join(CURL)} {PODS}")
    assert (refused["code"], refused["message"]) == (401, "Unauthorized")


def test_a_pod_is_its_service_account(lab: Lab) -> None:
    refused = status(lab, "client", f"{AS_ITSELF} {PODS}")
    assert (refused["code"], refused["message"]) == (
        403,
        'pods is forbidden: User "system:serviceaccount:default:default" cannot list resource "pods" in API '
        'group "" in the namespace "default"',
    )
    listed = status(lab, "reader", f"{AS_ITSELF} {PODS}")
    assert {one["metadata"]["name"] for one in listed["items"]} >= {"client", "reader", "without"}
    assert status(lab, "reader", f"{AS_ITSELF} {API}/api/v1/secrets")["code"] == 403
    assert status(lab, "reader", f"{AS_ITSELF} -X DELETE {PODS}/client")["code"] == 403
    assert lab.run("client", "cat", f"{DIRECTORY}/namespace").stdout == "default"


def test_a_pod_that_wants_no_token_has_none(lab: Lab) -> None:
    assert lab.run("without", "ls", DIRECTORY, check=False).returncode != 0


def test_a_node_reaches_the_api_as_well(lab: Lab) -> None:
    ca = ClusterPaths(lab.name).pki / "ca.pem"
    for where, at in (("w2", API), ("w2", f"https://{address(lab, 'master')}:6443")):
        assert "gitVersion" in lab.inside(where, "curl", "-sS", "--cacert", str(ca), f"{at}/version")


@pytest.mark.parametrize("pods", ["10.244.0.0/16,fd00:10:244::/56", "fd00:10:244::/56,10.244.0.0/16"])
def test_the_api_is_at_the_nodes_addresses_of_both_families_and_its_certificate_names_them(
    cluster: MakeLab, pods: str
) -> None:
    made = topology("w1")
    made["spec"]["podCIDR"] = pods
    lab = cluster(yaml.safe_dump_all([made, shell("client")]))
    ca = str(ClusterPaths(lab.name).pki / "ca.pem")
    service = lab.get("service", "kubernetes")[0]["spec"]["clusterIP"]
    first, second = (a["address"] for a in lab.get("node", "master")[0]["status"]["addresses"][:2])
    assert {family(first), family(second)} == {4, 6}
    assert family(service) == family(first) == family(pods.partition(",")[0])
    for source, ip, number, arrives in (
        ("w1", first, 6443, first),
        ("w1", second, 6443, second),
        ("default.client", service, 443, first),
    ):
        with lab.capture("master", "eth0") as packets:
            asked = f"{url(ip, number, 'https')}version"
            assert "gitVersion" in lab.inside(source, "curl", "-sS", "--max-time", "5", "--cacert", ca, asked)
            begun = [f for f in packets.look() if f.dport == 6443 and f.flags == "S" and not f.outgoing]
        assert {f.dst for f in begun} == {arrives}


def test_the_token_of_a_pod_ends_with_it(lab: Lab, kubectl: Kubectl) -> None:
    lab.nsk8s("apply", "-f", "-", stdin=yaml.safe_dump(shell("short")))
    until(lab, lambda: lab.pods()["short"]["status"]["phase"] == "Running", "the pod runs")
    token = lab.run("short", "cat", f"{DIRECTORY}/token").stdout
    ask = ["curl", "-sSk", "-H", f"Authorization: Bearer {token}", f"{API}/api"]
    assert json.loads(lab.inside("w1", *ask))["kind"] == "APIVersions"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    found = json.loads(kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review)))
    assert found["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["short"]
    assert found["status"]["user"]["extra"]["authentication.kubernetes.io/node-name"] == ["w1"]
    lab.nsk8s("delete", "pod", "short")
    assert json.loads(lab.inside("w1", *ask))["code"] == 401


# --- from the host -----------------------------------------------------------------------------------


def test_the_host_is_served_on_loopback_only(lab: Lab) -> None:
    port = ClusterPaths(lab.name).port.read_text().strip()
    shown = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True)
    assert [line.split()[3] for line in shown.stdout.splitlines()] == [f"127.0.0.1:{port}"]
    assert stat.S_IMODE(ClusterPaths(lab.name).kubeconfig.stat().st_mode) == 0o600


def test_kubectl_is_the_administrator(lab: Lab, kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "*", "*").strip() == "yes"
    assert "kubernetes-admin" in kubectl("auth", "whoami")
    assert kubectl.run("auth", "can-i", "list", "pods", "--as", "jane", rc=1).stdout.strip() == "no"
    assert kubectl.fails("get", "pods", "--as", "jane") == (
        'Error from server (Forbidden): pods is forbidden: User "jane" cannot list resource "pods" in API '
        'group "" in the namespace "default"\n'
    )
    reader = "system:serviceaccount:default:reader"
    assert kubectl("auth", "can-i", "list", "pods", "--as", reader).strip() == "yes"
    assert "pods/log" in kubectl("auth", "can-i", "--list", "--as", reader)


def test_a_token_made_by_kubectl_is_good_for_kubectl(lab: Lab, kubectl: Kubectl, tmp_path: Path) -> None:
    token = kubectl("create", "token", "reader").strip()
    config = yaml.safe_load(kubectl.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    other = Kubectl(kubectl.path, tmp_path / "home", yaml.safe_dump(config))
    assert "client" in other("get", "pods")
    assert "Forbidden" in other.fails("delete", "pod", "client")
    config["users"][0]["user"] = {"token": token[:-8] + "AAAAAAAA"}
    wrong = Kubectl(kubectl.path, tmp_path / "wrong", yaml.safe_dump(config))
    assert "error: You must be logged in to the server" in wrong.fails("get", "pods")


# --- and again ---------------------------------------------------------------------------------------


def test_a_new_control_plane_is_found_where_the_old_one_was(lab: Lab, kubectl: Kubectl) -> None:
    token = lab.run("reader", "cat", f"{DIRECTORY}/token").stdout
    before = kubectl.kubeconfig.read_text()
    kill(Processes(lab.name).daemon())
    assert lab.nsk8s("kubeconfig").stdout == before
    assert "client" in kubectl("get", "pods")
    until(lab, lambda: answers(lab), "the API is there again inside")
    assert lab.run("reader", "cat", f"{DIRECTORY}/token").stdout == token
    assert status(lab, "reader", f"{AS_ITSELF} {PODS}")["kind"] == "PodList"
    lab.nsk8s("apply", "-f", "-", stdin=yaml.safe_dump(shell("later")))
    until(lab, lambda: lab.pods()["later"]["status"]["phase"] == "Running", "the pod runs")
    assert answers(lab, "later"), "the CA is the same"


def test_a_new_node_for_the_control_plane_is_listened_on(lab: Lab) -> None:
    kill(Processes(lab.name).pause("master"))
    until(lab, lambda: answers(lab), "the API is there again inside", deadline=40)


def test_the_api_moves_with_the_topology(cluster: MakeLab) -> None:
    lab = cluster(files("w1"))
    assert answers(lab)
    lab.write(files("w1", "w2"))
    lab.up()
    assert answers(lab)
    lab.write(files("w1", "w2", master="boss"))
    lab.up()
    until(lab, lambda: answers(lab), "the API is there again inside")
    assert not lab.netns("master").exists()
    listening = lab.inside("boss", "ss", "-Hltn", "sport = :6443")
    assert listening.split()[3] == "*:6443"
