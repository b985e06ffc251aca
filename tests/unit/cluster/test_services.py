from __future__ import annotations

import pytest

from nsk8s.cluster.services import Span, static_band
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import World, service


def test_the_static_band_is_upstreams() -> None:
    # KEP-3070: /24 -> 16, /20 -> 256, /16 -> 256
    assert [static_band(size) for size in (14, 254, 4094, 65534)] == [0, 16, 255, 256]


def test_a_span_gives_the_lowest_of_the_upper_band_first() -> None:
    span = Span(6, 3)
    given = []
    while (number := span.lowest({4})) is not None:
        span.add(number)
        given.append(number)
    assert given == [3, 5, 0, 1, 2]
    span.discard(1)
    assert span.lowest(set()) == 4
    assert 4 not in span


def test_cluster_ips_ascend_and_are_free_again_after_deletion() -> None:
    world = World()
    ips = [world.create(service(name))["spec"]["clusterIP"] for name in "abc"]
    assert ips == ["10.96.1.1", "10.96.1.2", "10.96.1.3"]
    world.registry.delete("services", "default", "b")
    assert world.create(service("d"))["spec"]["clusterIP"] == "10.96.1.2"


def test_an_address_asked_for_is_given_once() -> None:
    world = World()
    made = world.create(service("a", clusterIP="10.96.0.10"))
    assert made["spec"]["clusterIPs"] == ["10.96.0.10"]
    for ip, why in (("10.96.0.10", "already allocated"), ("10.97.0.1", "not in the valid range")):
        with pytest.raises(ApiError, match=f'Service "b" is invalid: spec.clusterIPs: .*{why}') as error:
            world.create(service("b", clusterIP=ip))
        assert error.value.code == 422
    assert world.create(service("headless", clusterIP="None"))["spec"]["clusterIPs"] == ["None"]
    assert "clusterIP" not in world.create(service("name", type="ExternalName", externalName="x"))["spec"]


def test_node_ports_start_above_the_static_band() -> None:
    world = World()
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    made = world.create(service("a", type="NodePort", ports=ports))
    assert [p["nodePort"] for p in made["spec"]["ports"]] == [30086, 30087]
    taken = service("b", type="NodePort", ports=[{"port": 80, "nodePort": 30086}])
    message = (
        r'Service "b" is invalid: spec.ports\[0\].nodePort: Invalid value: 30086: '
        "provided port is already allocated"
    )
    with pytest.raises(ApiError, match=message):
        world.create(taken)


def test_one_number_serves_both_protocols_of_a_port() -> None:
    ports = [{"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53, "protocol": "TCP"}]
    made = World().create(service("dns", type="NodePort", ports=ports))
    assert [p["nodePort"] for p in made["spec"]["ports"]] == [30086, 30086]


def test_an_update_keeps_what_was_allocated() -> None:
    world = World()
    made = world.create(service("a", type="NodePort"))
    again = service("a", type="NodePort", ports=[{"port": 80}, {"port": 90, "name": "new"}])
    again["spec"]["ports"][0]["name"] = "old"
    updated = world.registry.update(again)
    assert updated["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    assert [p["nodePort"] for p in updated["spec"]["ports"]] == [30086, 30087]
    plain = world.registry.update({**updated, "spec": {**updated["spec"], "type": "ClusterIP"}})
    assert all("nodePort" not in p for p in plain["spec"]["ports"])
    assert world.create(service("b", type="NodePort"))["spec"]["ports"][0]["nodePort"] == 30086


def test_a_cluster_ip_may_not_change() -> None:
    world = World()
    made = world.create(service("a"))
    with pytest.raises(ApiError, match="may not change once set"):
        world.registry.update({**made, "spec": {**made["spec"], "clusterIP": "10.96.3.3"}})


def test_a_local_load_balancer_gets_a_health_check_port() -> None:
    made = World().create(service("lb", type="LoadBalancer", externalTrafficPolicy="Local"))
    assert made["spec"]["ports"][0]["nodePort"] == 30086
    assert made["spec"]["healthCheckNodePort"] == 30087


def test_a_health_check_port_that_somebody_has() -> None:
    world = World()
    world.create(service("a", type="NodePort", ports=[{"port": 80, "nodePort": 31000}]))
    wanted = service("lb", type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=31000)
    why = "failed to allocate requested HealthCheck NodePort 31000: provided port is already allocated"
    with pytest.raises(ApiError, match=why):
        world.create(wanted)
    made = world.create({**wanted, "spec": {**wanted["spec"], "healthCheckNodePort": 31001}})
    assert made["spec"]["healthCheckNodePort"] == 31001


def test_a_load_balancer_without_node_ports() -> None:
    world = World()
    made = world.create(service("lb", type="LoadBalancer", allocateLoadBalancerNodePorts=False))
    assert "nodePort" not in made["spec"]["ports"][0]
    # On one that has them it takes none away, until they are left out.
    made = world.create(service("had", type="LoadBalancer"))
    spec = {**made["spec"], "allocateLoadBalancerNodePorts": False}
    kept = world.registry.update({**made, "spec": spec})
    assert kept["spec"]["ports"] == made["spec"]["ports"]
    ports = [{k: v for k, v in port.items() if k != "nodePort"} for port in spec["ports"]]
    assert (
        "nodePort"
        not in world.registry.update({**kept, "spec": {**spec, "ports": ports}})["spec"]["ports"][0]
    )


def test_a_load_balancers_status_is_nodes_business_only_while_it_is_one() -> None:
    world = World()
    made = world.create(
        service("lb", type="LoadBalancer", externalTrafficPolicy="Local", loadBalancerClass="a/b")
    )
    ingress = [{"ip": "203.0.113.7"}, {"hostname": "lb.example.com"}]
    told = world.registry.update_status({**made, "status": {"loadBalancer": {"ingress": ingress}}})
    assert told["status"]["loadBalancer"]["ingress"] == [{"ip": "203.0.113.7", "ipMode": "VIP"}, ingress[1]]
    plain = world.registry.update({**told, "spec": {**told["spec"], "type": "ClusterIP"}})
    assert plain["status"] == {"loadBalancer": {}}
    gone = {
        "healthCheckNodePort",
        "externalTrafficPolicy",
        "allocateLoadBalancerNodePorts",
        "loadBalancerClass",
    }
    assert not gone & plain["spec"].keys()
    with pytest.raises(ApiError, match="may only be used when `spec"):
        world.registry.update_status({**plain, "status": {"loadBalancer": {"ingress": ingress}}})


def test_allocations_follow_a_rollback() -> None:
    world = World()
    world.store.commit()
    world.registry.create(service("a"))
    world.store.rollback()
    world.settle()
    assert world.create(service("b"))["spec"]["clusterIP"] == "10.96.1.1"


def test_the_api_server_has_a_service_of_its_own() -> None:
    world = World()
    assert world.get("services", "kubernetes")["spec"]["clusterIP"] == "10.96.0.1"
    piece = world.get("endpointslices.discovery.k8s.io", "kubernetes")
    assert [e["addresses"] for e in piece["endpoints"]] == [["172.18.0.2"]]
    assert piece["ports"][0]["port"] == 6443
    for resource in ("endpointslices.discovery.k8s.io", "services", "endpoints"):
        world.registry.delete(resource, "default", "kubernetes")
        world.settle()
        assert world.names("endpointslices.discovery.k8s.io") == ["kubernetes"]
        assert world.get("services", "kubernetes")["spec"]["clusterIP"] == "10.96.0.1"
