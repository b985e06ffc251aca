"""What controllers do to traffic, by packets: rows 41, 42, 48, 96, 97 and 99, in both proxy modes and
the first three in both families.

master  w1 (zone a)  w2 (zone a)  w3 (zone b); clients c1, c2 and c3 on the workers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import yaml

from nsk8s.api.families import family, of_family
from nsk8s.client import Client
from nsk8s.errors import ApiError
from nsk8s.paths import ClusterPaths
from tests.conftest import labs
from tests.lab import Lab
from tests.netns import rolling
from tests.netns.scenario import DUAL_STACK, Obj, Scenario, pod, port, refusal, seen, service

pytestmark = pytest.mark.netns

ZONE = "topology.kubernetes.io/zone"
NUMBER = 8080
DNS = "10.96.0.10"
DEADLINE = 40.0
READY = {"httpGet": {"path": "/", "port": NUMBER}, "periodSeconds": 1}
BRIEF = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
    for key in ("not-ready", "unreachable")
]


def topology(mode: str) -> Obj:
    nodes: list[Obj] = [{"name": "master", "role": "control-plane"}]
    nodes += [{"name": f"w{i}", "labels": {ZONE: zone}} for i, zone in enumerate("aab", 1)]
    return {
        "apiVersion": "nsk8s.dev/v1",
        "kind": "Cluster",
        "metadata": {"name": "shapers"},
        "spec": {"nodes": nodes, "proxyMode": mode, **DUAL_STACK},
    }


def template(name: str, *, linger: float = 0, **spec: object) -> Obj:
    """A template of stand-ins on port 8080, which serve `linger` seconds after they were told to end."""
    container: Obj = {
        "name": "c",
        "image": "example/echo:1",
        "ports": [{"name": "http", "containerPort": NUMBER}],
    }
    if linger:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": linger}}}
    made: Obj = {"containers": [container], "terminationGracePeriodSeconds": 60, **spec}
    return {"metadata": {"labels": {"app": name}}, "spec": made}


def dual(name: str, selector: dict[str, str] | None = None, **spec: object) -> Obj:
    """A service with an address of each family."""
    return service(
        name, selector or {"app": name}, port(80, NUMBER), ipFamilyPolicy="PreferDualStack", **spec
    )


def workload(kind: str, name: str, inside: Obj, **spec: object) -> Obj:
    chosen = {"selector": {"matchLabels": {"app": name}}, "template": inside, **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": chosen}


class Shapers(Scenario):
    """The cluster, asked over its socket."""

    def __init__(self, lab: Lab, mode: str) -> None:
        super().__init__(lab)
        self.mode = mode
        self.client = Client(ClusterPaths(lab.name))

    def read(self, path: str) -> Obj:
        """What the API says at `path`."""
        found: Obj = self.client.get(path)
        return found

    def items(self, path: str, selector: str) -> list[Obj]:
        """The objects with the label ``app=selector``."""
        found: list[Obj] = self.read(f"{path}?labelSelector=app%3D{selector}")["items"]
        return found

    def pods_of(self, name: str) -> list[Obj]:
        """The pods of an application."""
        return self.items("/api/v1/namespaces/default/pods", name)

    def patch(self, path: str, change: Obj, kind: str = "merge") -> None:
        """Change an object."""
        self.client.request("PATCH", path, change, content_type=f"application/{kind}-patch+json")

    def all_ready(self, name: str, count: int) -> None:
        """Wait for that many pods, all of them ready."""

        def there() -> bool:
            found = [p for p in self.pods_of(name) if "deletionTimestamp" not in p["metadata"]]
            return len(found) == count and all(map(is_ready, found))

        self.until(there, f"{count} pods of {name} are ready", DEADLINE)

    def servers(self, client: str, address: str, count: int = 12) -> set[str]:
        """Who answers `count` requests to port 80 of `address`."""
        return {str(self.ask(f"default.{client}", address, 80)["pod"]) for _ in range(count)}

    def until_served_by(self, client: str, name: str, wanted: set[str], why: str) -> None:
        """Wait until at every address of a service only those answer, and the packets go to them."""
        for address in self.get("service", name)["spec"]["clusterIPs"]:
            end = time.monotonic() + DEADLINE
            while (seen := self.reached(client, address)) != wanted:
                assert time.monotonic() < end, f"{why}: {seen}, not {wanted}{self.lab.log()}"

    def reached(self, client: str, address: str) -> set[str]:
        """Who answers 12 requests; nobody if one fails. Their addresses are those that the packets leave the
        client's node for."""
        kind = family(address)
        pods = self.read("/api/v1/namespaces/default/pods")["items"]
        ips = {p["metadata"]["name"]: [each["ip"] for each in p["status"].get("podIPs", ())] for p in pods}
        node = next(p["spec"]["nodeName"] for p in pods if p["metadata"]["name"] == client)
        with self.capture(node, "") as packets:
            try:
                found = self.servers(client, address)
            except (OSError, ValueError):
                return set()
            asked = [p for p in packets.look() if p.src == of_family(ips[client], kind) and p.flags == "S"]
        assert {p.dst for p in asked if p.dport == NUMBER} == {of_family(ips[name], kind) for name in found}
        return found

    def resolves(self, client: str, name: str, address: str) -> None:
        """Wait until a name of namespace default leads to that address alone."""
        kind = "AAAA" if ":" in address else "A"
        words = ["dig", "+short", "+time=2", "+tries=1", f"@{DNS}", kind, f"{name}.default.svc.cluster.local"]
        said = ""

        def found() -> bool:
            nonlocal said
            said = self.run(f"default.{client}", *words, check=False).stdout.strip()
            return said == address

        end = time.monotonic() + DEADLINE
        while not found():
            assert time.monotonic() < end, f"{name}: {said!r}, not {address}{self.lab.log()}"

    def evicted(self, name: str) -> bool:
        """Whether a budget lets a pod be evicted."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        try:
            self.client.request("POST", f"/api/v1/namespaces/default/pods/{name}/eviction", eviction)
        except ApiError as error:
            if error.code == 429:
                return False
            raise
        return True

    def remove(self, *names: str) -> None:
        """Delete objects (``deployment/web``) and wait for the end of their pods."""
        for name in names:
            kind, _, which = name.partition("/")
            self.lab.nsk8s("delete", kind, which, "--ignore-not-found")


def is_ready(obj: Obj) -> bool:
    conditions = obj.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@pytest.fixture(scope="module", params=["iptables", "nftables"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shapers]:
    clients = [pod(f"c{i}", f"w{i}", ports=()) for i in (1, 2, 3)]
    with labs("shapers", tmp_path_factory.mktemp("lab")) as make:
        made = Shapers(make(yaml.safe_dump_all([topology(request.param), *clients])), request.param)
        yield made
        made.client.close()


def test_row_41_new_connections_are_served_by_terminating_endpoints_while_there_are_no_others(
    lab: Shapers,
) -> None:
    slow = template("ending", linger=45)
    lab.apply(
        workload("Deployment", "ending", slow, replicas=2),
        dual("ending"),
    )
    lab.all_ready("ending", 2)
    old = {p["metadata"]["name"] for p in lab.pods_of("ending")}
    lab.until_served_by("c1", "ending", old, "both serve")
    lab.patch("/apis/apps/v1/namespaces/default/deployments/ending", {"spec": {"replicas": 0}})
    lab.until(
        lambda: all("deletionTimestamp" in p["metadata"] for p in lab.pods_of("ending")), "all are leaving"
    )
    pieces = lab.read(
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        "?labelSelector=kubernetes.io%2Fservice-name%3Dending"
    )["items"]
    assert sorted(piece["addressType"] for piece in pieces) == ["IPv4", "IPv6"]
    for piece in pieces:
        states = [e["conditions"] for e in piece["endpoints"]]
        assert states == [{"ready": False, "serving": True, "terminating": True}] * 2
    for client in ("c1", "c3"):
        lab.until_served_by(client, "ending", old, "those that are leaving serve on")
    lab.patch("/apis/apps/v1/namespaces/default/deployments/ending", {"spec": {"replicas": 1}})
    lab.all_ready("ending", 1)
    new = {p["metadata"]["name"] for p in lab.pods_of("ending")} - old
    lab.until_served_by("c3", "ending", new, "with one that is ready only that")
    lab.delete("deployment", "ending")
    lab.delete("service", "ending")
    for name in old | new:
        lab.delete("pod", name, "--force", "--grace-period=0", "--ignore-not-found")


def test_row_42_with_publish_not_ready_addresses_an_unready_pod_gets_traffic(lab: Shapers) -> None:
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    lab.apply(
        pod("early", "w2", readinessProbe=never),
        dual("early", publishNotReadyAddresses=True),
        dual("late", {"app": "early"}),
        dual("named", {"app": "early"}, publishNotReadyAddresses=True, clusterIP="None"),
    )
    lab.until(lambda: "podIP" in lab.get("pod", "early").get("status", {}), "it has an address")
    lab.until_served_by("c1", "early", {"early"}, "it is published")
    for each in lab.get("pod", "early")["status"]["podIPs"]:
        lab.resolves("c1", "named", each["ip"])
    assert not is_ready(lab.get("pod", "early"))
    for ip in lab.get("service", "late")["spec"]["clusterIPs"]:
        with lab.capture("default.c1", "eth0") as packets:
            assert lab.http_fails("default.c1", ip, 80) == "refused"
            assert seen(packets, refusal)
    endpoints = lab.get("endpoints", "early")["subsets"][0]
    assert "notReadyAddresses" not in endpoints
    lab.remove("service/early", "service/late", "service/named", "pod/early")


def test_row_48_traffic_stays_in_its_zone_or_on_its_node_while_it_can(lab: Shapers) -> None:
    def change(distribution: str) -> None:
        spec = {"spec": {"trafficDistribution": distribution}}
        lab.patch("/api/v1/namespaces/default/services/near", spec)

    lab.apply(
        *[pod(f"s{i}", f"w{i}", labels={"app": "near"}) for i in (1, 2, 3)],
        dual("near", trafficDistribution="PreferSameZone"),
    )
    lab.all_ready("near", 3)
    for client, zone in (("c1", {"s1", "s2"}), ("c2", {"s1", "s2"}), ("c3", {"s3"})):
        lab.until_served_by(client, "near", zone, "its zone")
    change("PreferSameNode")
    for i in (1, 2, 3):
        lab.until_served_by(f"c{i}", "near", {f"s{i}"}, "its node")
    lab.delete("pod", "s1")
    lab.until_served_by("c1", "near", {"s2"}, "none on its node: its zone")
    lab.delete("pod", "s2")
    lab.until_served_by("c1", "near", {"s3"}, "none in its zone: all")
    lab.remove("service/near", "pod/s3")


ROLLED = "10.96.96.96"
"""An address that no service had before. A SYN to a service without rules as yet leaves by the default way,
and connection tracking remembers it untranslated for two minutes (SYN_SENT), also when the rules are there or
another service has the address: one from the same port goes the same way, on a real node as well. The tests
before this one begin to ask as soon as they may, and the kernel's choice of ports comes round."""


def test_row_96_a_rolling_update_under_load_loses_no_request(lab: Shapers) -> None:
    wanted = 20_000 if lab.mode == "iptables" else 5_000
    # Longer than a SYN takes to come again (1 s, then 2): the machine's table of neighbours is one for all
    # namespaces, and one that finds it full loses its first packet.
    rollout = template("rolled", linger=4)
    rollout["spec"]["containers"][0]["readinessProbe"] = READY
    lab.apply(
        workload("Deployment", "rolled", rollout, replicas=10),
        service("rolled", {"app": "rolled"}, port(80, NUMBER), clusterIP=ROLLED),
    )
    lab.all_ready("rolled", 10)

    def all_serve() -> bool:
        try:
            return len(lab.servers("c1", ROLLED, 60)) == 10
        except ConnectionRefusedError:  # the rules follow what is ready
            return False

    lab.until(all_serve, "all ten serve", DEADLINE)
    fewest, rollouts, seen = 10, 0, set[str]()
    program = [sys.executable, rolling.__file__, ROLLED, "80", str(wanted), "4", "10"]
    with subprocess.Popen(
        ["nsenter", f"--net={lab.lab.netns('default.c1')}", *program], stdout=subprocess.PIPE, text=True
    ) as load:
        try:
            assert load.stdout is not None
            assert load.stdout.readline() == "all have answered\n"  # also those that leave first
            while load.poll() is None:  # one rollout after the other, as long as the load lasts
                old = {p["metadata"]["name"] for p in lab.pods_of("rolled")}
                rollouts += 1
                again = {"template": {"metadata": {"annotations": {"again": str(rollouts)}}}}
                lab.patch("/apis/apps/v1/namespaces/default/deployments/rolled", {"spec": again})

                def renewed(old: set[str] = old) -> bool:
                    nonlocal fewest
                    found = lab.pods_of("rolled")
                    staying = [p for p in found if "deletionTimestamp" not in p["metadata"]]
                    fewest = min(fewest, sum(map(is_ready, staying)))
                    new = {p["metadata"]["name"] for p in found} - old
                    return len(new) == len(found) == 10 and all(map(is_ready, found))

                lab.until(renewed, "ten new pods", 90)
                seen |= old
            counts = json.loads(load.stdout.read())
        finally:
            load.kill()
    assert counts["failures"] == []
    assert sum(counts["answers"].values()) == wanted
    assert rollouts >= 1
    assert len(seen & set(counts["answers"])) >= 10
    assert fewest >= 8, "maxUnavailable is a quarter, rounded down"
    lab.remove("service/rolled", "deployment/rolled")


def test_row_97_a_drained_node_gives_its_pods_away_as_their_budget_allows(lab: Shapers) -> None:
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "moved"},
        "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "moved"}}},
    }
    lab.apply(
        workload("Deployment", "moved", template("moved", nodeSelector={ZONE: "a"}), replicas=4),
        service("moved", {"app": "moved"}, port(80, NUMBER)),
        budget,
    )
    lab.all_ready("moved", 4)
    lab.patch("/api/v1/nodes/w1", {"spec": {"unschedulable": True}})
    left = {p["metadata"]["name"] for p in lab.pods_of("moved") if p["spec"]["nodeName"] == "w1"}
    assert len(left) == 2
    refusals = 0
    end = time.monotonic() + DEADLINE
    while left:
        assert time.monotonic() < end, f"still there: {left}{lab.lab.log()}"
        name = sorted(left)[0]
        refusals += not lab.evicted(name)
        found = lab.pods_of("moved")
        assert sum(map(is_ready, found)) >= 3
        left &= {p["metadata"]["name"] for p in found if "deletionTimestamp" not in p["metadata"]}
    lab.all_ready("moved", 4)
    found = [p for p in lab.pods_of("moved") if "deletionTimestamp" not in p["metadata"]]
    lab.until_served_by("c3", "moved", {p["metadata"]["name"] for p in found}, "where they are now")
    assert {p["spec"]["nodeName"] for p in found} == {"w2"}
    lab.patch("/api/v1/nodes/w1", {"spec": {"unschedulable": None}})
    lab.remove("pdb/moved", "service/moved", "deployment/moved")


def test_row_97_a_lost_node_s_endpoints_leave_at_once_and_its_pods_when_they_tolerate_it_no_longer(
    lab: Shapers,
) -> None:
    lab.apply(
        workload(
            "Deployment", "fled", template("fled", tolerations=BRIEF, nodeSelector={ZONE: "a"}), replicas=2
        ),
        pod("stays", "w1", labels={"app": "stays"}),
        service("fled", {"app": "fled"}, port(80, NUMBER)),
        service("stays", {"app": "stays"}, port(80, NUMBER)),
    )
    lab.all_ready("fled", 2)
    lab.all_ready("stays", 1)
    ip, other = lab.cluster_ip("fled"), lab.cluster_ip("stays")
    lab.until_served_by("c3", "stays", {"stays"}, "it serves")
    (lost,) = [p["metadata"]["name"] for p in lab.pods_of("fled") if p["spec"]["nodeName"] == "w1"]
    lab.lab.nsk8s("node", "stop", "w1", "--now")
    assert "NotReady" in lab.lab.nsk8s("get", "node", "w1").stdout
    lab.until(
        lambda: lab.http_fails("default.c3", other, 80) == "refused", "its only endpoint has left", DEADLINE
    )
    lab.until(lambda: lost not in lab.servers("c3", ip), "nobody is sent there", DEADLINE)

    def elsewhere() -> bool:
        found = [p for p in lab.pods_of("fled") if "deletionTimestamp" not in p["metadata"]]
        return len(found) == 2 and all(is_ready(p) and p["spec"]["nodeName"] == "w2" for p in found)

    lab.until(elsewhere, "both on the other node", DEADLINE)
    assert "deletionTimestamp" in lab.get("pod", lost)["metadata"], "its kubelet cannot end it"
    assert "deletionTimestamp" not in lab.get("pod", "stays")["metadata"], "it tolerates that for 300 s"
    lab.lab.nsk8s("node", "start", "w1")
    lab.until(lambda: lost not in {p["metadata"]["name"] for p in lab.pods_of("fled")}, "it ends", DEADLINE)
    lab.until_served_by("c3", "stays", {"stays"}, "it serves again")
    lab.remove("service/fled", "service/stays", "deployment/fled", "pod/stays")


def test_row_99_a_stateful_set_s_pods_come_in_order_and_keep_their_names(lab: Shapers) -> None:
    inside = template("peer", nodeSelector={ZONE: "a"})
    inside["spec"]["containers"][0]["readinessProbe"] = READY
    lab.apply(
        service("peer", {"app": "peer"}, port(80, NUMBER), clusterIP="None"),
        workload("StatefulSet", "peer", inside, replicas=3, serviceName="peer"),
    )
    lab.all_ready("peer", 3)
    stamps = {
        p["metadata"]["name"]: (
            int(p["metadata"]["resourceVersion"]),
            p["metadata"]["creationTimestamp"],
            next(c["lastTransitionTime"] for c in p["status"]["conditions"] if c["type"] == "Ready"),
        )
        for p in lab.pods_of("peer")
    }
    assert list(stamps) == ["peer-0", "peer-1", "peer-2"]
    for first, second in (("peer-0", "peer-1"), ("peer-1", "peer-2")):
        assert stamps[first][2] <= stamps[second][1], "made when the one before was ready"
    before = lab.get("pod", "peer-1")
    lab.resolves("c3", "peer-1.peer", before["status"]["podIP"])
    lab.client.request("DELETE", "/api/v1/namespaces/default/pods/peer-1", {"gracePeriodSeconds": 1})

    def back() -> bool:
        found = {p["metadata"]["name"]: p for p in lab.pods_of("peer")}
        new = found.get("peer-1")
        return new is not None and new["metadata"]["uid"] != before["metadata"]["uid"] and is_ready(new)

    lab.until(back, "peer-1 is back", DEADLINE)
    after = lab.get("pod", "peer-1")
    assert after["spec"]["hostname"] == "peer-1"
    lab.resolves("c3", "peer-1.peer", after["status"]["podIP"])
    answer = json.loads(lab.http("default.c3", after["status"]["podIP"], NUMBER))
    assert answer["pod"] == "peer-1"
    slices = lab.read(
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        "?labelSelector=kubernetes.io%2Fservice-name%3Dpeer"
    )["items"]
    named = {e["hostname"]: e["addresses"][0] for s in slices for e in s["endpoints"]}
    assert named["peer-1"] == after["status"]["podIP"]
    lab.remove("statefulset/peer", "service/peer")


def test_jobs_and_daemons_run_on_real_nodes(lab: Shapers) -> None:
    container = {"name": "c", "image": "busybox", "command": ["sh", "-c", "echo index $JOB_COMPLETION_INDEX"]}
    spec = {
        "completions": 3,
        "parallelism": 3,
        "completionMode": "Indexed",
        "template": {
            "metadata": {"labels": {"app": "counted"}},
            "spec": {"containers": [container], "restartPolicy": "Never"},
        },
    }
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "counted"}, "spec": spec}
    lab.apply(job, workload("DaemonSet", "agent", template("agent")))
    path = "/apis/batch/v1/namespaces/default/jobs/counted"

    def complete() -> bool:
        conditions = lab.read(path).get("status", {}).get("conditions", ())
        return any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)

    lab.until(complete, "the job is complete", DEADLINE)
    assert lab.read(path)["status"]["completedIndexes"] == "0-2"
    written = {lab.lab.nsk8s("logs", p["metadata"]["name"]).stdout for p in lab.pods_of("counted")}
    assert written == {"index 0\n", "index 1\n", "index 2\n"}
    lab.all_ready("agent", 3)
    assert {p["spec"]["nodeName"] for p in lab.pods_of("agent")} == {"w1", "w2", "w3"}
    lab.remove("job/counted", "daemonset/agent")
    lab.until(lambda: not lab.pods_of("counted"), "its pods go with it", DEADLINE)
