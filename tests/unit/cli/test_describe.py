"""What the recordings of kubectl have no object for."""

from __future__ import annotations

from typing import Any

from nsk8s.api.types import Obj
from nsk8s.cli.describe import WRITERS


class NoSlices:
    """A control plane that has no EndpointSlices."""

    def get(self, _path: str) -> Obj:
        return {"items": []}


def test_a_load_balancer_as_kubectl_1_33_describes_it() -> None:
    obj: Obj = {
        "metadata": {"name": "lb", "namespace": "default"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.1.1",
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000,
            "loadBalancerSourceRanges": ["10.0.0.0/8", "172.18.0.0/24"],
        },
        "status": {
            "loadBalancer": {
                "ingress": [{"ip": "172.18.255.200", "ipMode": "VIP"}, {"hostname": "a.example.com"}]
            }
        },
    }
    client: Any = NoSlices()
    lines = list(WRITERS["Service"](client, obj))
    assert "LoadBalancer Ingress:\t172.18.255.200 (VIP), a.example.com" in lines
    assert lines[-3:] == [
        "External Traffic Policy:\tLocal",
        "HealthCheck NodePort:\t31000",
        "LoadBalancer Source Ranges:\t10.0.0.0/8,172.18.0.0/24",
    ]
