from __future__ import annotations

from typing import Any

from nsk8s.cluster.endpoints import MANAGED_BY, MIRROR, PER_SLICE, SLICES
from tests.unit.cluster.worlds import World, deployment, pod, service


def slices(world: World, name: str) -> list[dict[str, Any]]:
    return list(world.store.select(SLICES, "default", {"kubernetes.io/service-name": name}))


def conditions(world: World, name: str) -> dict[str, tuple[bool, bool, bool]]:
    return {
        e["targetRef"]["name"]: (
            e["conditions"]["ready"],
            e["conditions"]["serving"],
            e["conditions"]["terminating"],
        )
        for piece in slices(world, name)
        for e in piece["endpoints"]
    }


def test_a_service_without_pods_has_one_empty_slice() -> None:
    world = World()
    world.create(service("web"))
    (piece,) = slices(world, "web")
    assert (piece["endpoints"], piece["ports"], piece["addressType"]) == ([], None, "IPv4")
    assert piece["metadata"]["labels"][MANAGED_BY] == "endpointslice-controller.k8s.io"
    assert piece["metadata"]["ownerReferences"][0]["kind"] == "Service"
    assert "subsets" not in world.get("endpoints", "web")


def test_ready_pods_stand_behind_their_service() -> None:
    world = World()
    labels = {"topology.kubernetes.io/zone": "a"}
    world.registry.patch("nodes", "", "w1", {"metadata": {"labels": labels}}, "merge")
    world.create(service("web", ports=[{"port": 80, "targetPort": 8080}]))
    world.create(pod("p", {"app": "web"}))
    world.status(world.view("p"), ready=True, ip="10.244.1.2")
    world.settle()
    (piece,) = slices(world, "web")
    assert piece["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
    uid = world.view("p").metadata.uid
    reference = {"kind": "Pod", "namespace": "default", "name": "p", "uid": uid}
    assert piece["endpoints"] == [
        {
            "addresses": ["10.244.1.2"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": "w1",
            "targetRef": reference,
            "zone": "a",
        }
    ]
    assert world.get("endpoints", "web")["subsets"] == [
        {
            "addresses": [{"ip": "10.244.1.2", "nodeName": "w1", "targetRef": reference}],
            "ports": [{"port": 8080, "protocol": "TCP"}],
        }
    ]
    world.registry.patch("nodes", "", "w1", {"metadata": {"labels": None}}, "merge")
    world.settle()
    assert "zone" not in slices(world, "web")[0]["endpoints"][0]


def test_the_life_of_an_endpoint() -> None:
    world = World()
    world.create(service("web"))
    world.create(pod("p", {"app": "web"}))
    assert conditions(world, "web") == {}  # no address yet
    world.status(world.view("p"), ready=False)
    world.settle()
    assert conditions(world, "web") == {"p": (False, False, False)}
    assert "notReadyAddresses" in world.get("endpoints", "web")["subsets"][0]
    world.status(world.view("p"), ready=True)
    world.settle()
    assert conditions(world, "web") == {"p": (True, True, False)}
    world.registry.delete("pods", "default", "p")
    world.settle()
    assert conditions(world, "web") == {"p": (False, True, True)}
    assert "subsets" not in world.get("endpoints", "web")
    world.reap()
    assert conditions(world, "web") == {}


def test_pods_that_have_ended_leave() -> None:
    world = World()
    world.create(service("web"))
    world.create(pod("p", {"app": "web"}))
    world.status(world.view("p"), ready=True)
    world.settle()
    world.status(world.view("p"), ready=False, phase="Succeeded")
    world.settle()
    assert conditions(world, "web") == {}


def test_unready_addresses_can_be_published() -> None:
    world = World()
    world.create(service("web", publishNotReadyAddresses=True))
    world.create(pod("p", {"app": "web"}))
    world.status(world.view("p"), ready=False)
    world.settle()
    assert conditions(world, "web") == {"p": (True, False, False)}
    assert "addresses" in world.get("endpoints", "web")["subsets"][0]


def test_labels_and_selectors_that_change() -> None:
    world = World()
    world.create(service("web"))
    world.create(service("api"))
    world.create(pod("p", {"app": "web"}))
    world.status(world.view("p"), ready=True)
    world.settle()
    world.registry.patch("pods", "default", "p", {"metadata": {"labels": {"app": "api"}}}, "merge")
    world.settle()
    assert [set(conditions(world, n)) for n in ("web", "api")] == [set(), {"p"}]
    world.registry.patch("services", "default", "web", {"spec": {"selector": {"app": "api"}}}, "merge")
    world.settle()
    assert set(conditions(world, "web")) == {"p"}


def test_named_ports_are_looked_up_in_each_pod() -> None:
    world = World()
    ports = [{"name": "web", "port": 80, "targetPort": "http"}, {"name": "admin", "port": 9, "targetPort": 9}]
    world.create(service("web", ports=ports))
    for name, number in (("a", 8080), ("b", 8081), ("c", 8080)):
        container = {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": number}]}
        world.create(pod(name, {"app": "web"}, containers=[container]))
        world.status(world.view(name), ready=True)
    world.create(pod("d", {"app": "web"}))
    world.status(world.view("d"), ready=True)
    world.settle()
    found = {
        tuple((p["name"], p["port"]) for p in piece["ports"]): {
            e["targetRef"]["name"] for e in piece["endpoints"]
        }
        for piece in slices(world, "web")
    }
    assert found == {
        (("web", 8080), ("admin", 9)): {"a", "c"},
        (("web", 8081), ("admin", 9)): {"b"},
        (("admin", 9),): {"d"},
    }


def test_slices_hold_a_hundred_and_are_written_once() -> None:
    world = World()
    world.create(service("web"))
    world.create(deployment("web", PER_SLICE + 20))
    for each in world.pods():
        world.status(each, ready=True)
    world.store.commit()
    world.settle()
    written = [c.key.name for c in world.store.pending() if c.key.resource == SLICES]
    assert len(written) == len(set(written)) == 2
    assert sorted(len(piece["endpoints"]) for piece in slices(world, "web")) == [20, PER_SLICE]
    full = next(p for p in slices(world, "web") if len(p["endpoints"]) == PER_SLICE)
    victim = full["endpoints"][0]["targetRef"]["name"]
    world.store.commit()
    world.registry.delete("pods", "default", victim, grace=0)
    world.settle()
    touched = [c.key.name for c in world.store.pending() if c.key.resource == SLICES]
    assert touched == [full["metadata"]["name"]]


def test_pods_on_one_nodes_network_are_two_endpoints() -> None:
    world = World()
    world.create(service("web"))
    for name in ("a", "b"):
        world.create(pod(name, {"app": "web"}, hostNetwork=True, nodeName="w1"))
        world.status(world.view(name), ready=True, ip="172.18.0.3")
    world.settle()
    assert set(conditions(world, "web")) == {"a", "b"}


def test_headless_services_say_so() -> None:
    world = World()
    world.create(service("web", clusterIP="None"))
    obj = pod("p", {"app": "web"}, hostname="h", subdomain="web")
    world.create(obj)
    world.status(world.view("p"), ready=True)
    world.settle()
    (piece,) = slices(world, "web")
    assert "service.kubernetes.io/headless" in piece["metadata"]["labels"]
    assert piece["endpoints"][0]["hostname"] == "h"


def manual(*addresses: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "ext"},
        "subsets": [{"addresses": [{"ip": ip} for ip in addresses], "ports": [{"port": 9000}]}],
    }


def test_endpoints_by_hand_are_mirrored() -> None:
    world = World()
    world.create(service("ext", selector=None))
    assert slices(world, "ext") == []
    world.apply(manual("172.18.0.100"))
    (piece,) = slices(world, "ext")
    assert piece["metadata"]["labels"][MANAGED_BY] == MIRROR
    assert piece["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
    assert piece["ports"] == [{"name": "", "port": 9000, "protocol": "TCP"}]
    world.apply(manual("172.18.0.101"))
    (same,) = slices(world, "ext")
    assert same["metadata"]["name"] == piece["metadata"]["name"]
    assert [e["addresses"] for e in same["endpoints"]] == [["172.18.0.101"]]
    world.registry.delete("endpoints", "default", "ext")
    world.settle()
    assert slices(world, "ext") == []


def test_everything_goes_with_the_service() -> None:
    world = World()
    world.create(service("web"))
    world.registry.delete("services", "default", "web")
    world.settle()
    assert slices(world, "web") == []
    assert world.names("endpoints") == ["kubernetes"]


def test_what_somebody_breaks_is_repaired() -> None:
    world = World()
    world.create(service("web"))
    world.create(pod("p", {"app": "web"}))
    world.status(world.view("p"), ready=True)
    world.settle()
    (piece,) = slices(world, "web")
    world.registry.delete(SLICES, "default", piece["metadata"]["name"])
    world.registry.delete("endpoints", "default", "web")
    world.settle()
    assert set(conditions(world, "web")) == {"p"}
    assert world.get("endpoints", "web")["subsets"]


def zoned(world: World, **zones: str) -> None:
    for node, zone in zones.items():
        labels = {"topology.kubernetes.io/zone": zone}
        world.registry.patch("nodes", "", node, {"metadata": {"labels": labels}}, "merge")


def hints(world: World, name: str) -> dict[str, Any]:
    return {e["nodeName"]: e.get("hints") for s in slices(world, name) for e in s["endpoints"]}


def test_endpoints_say_whom_they_are_for() -> None:
    world = World()
    zoned(world, w1="a")
    world.create(deployment("web", 2))
    world.create(service("web", trafficDistribution="PreferClose"))
    world.make_ready()
    assert hints(world, "web") == {"w1": {"forZones": [{"name": "a"}]}, "w2": None}
    zoned(world, w2="b")
    world.settle()
    assert hints(world, "web")["w2"] == {"forZones": [{"name": "b"}]}
    world.apply(service("web", trafficDistribution="PreferSameNode"))
    assert hints(world, "web")["w2"] == {"forZones": [{"name": "b"}], "forNodes": [{"name": "w2"}]}
    unready = next(p for p in world.active() if p.spec.nodeName == "w2")
    world.status(unready, ready=False)
    world.settle()
    assert hints(world, "web")["w2"] is None
    world.registry.patch("services", "default", "web", {"spec": {"trafficDistribution": None}}, "merge")
    world.settle()
    assert hints(world, "web") == {"w1": None, "w2": None}
