"""The objects of cluster DNS, as kubeadm makes them with a cluster (cmd/kubeadm/app/phases/addons/dns): the
Service ``kube-dns``, the Deployment ``coredns`` and what they need.

They are made once, and belong to the user from then on: what he changes or deletes stays so. Only a change of
``spec.dns`` changes them again, and then only what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import Any

from nsk8s.api.topology import DnsTopology, Topology
from nsk8s.api.types import Obj
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Key, Store

NAMESPACE = "kube-system"
SERVICE = "kube-dns"
DEPLOYMENT = "coredns"
IMAGE = "registry.k8s.io/coredns/coredns:v1.12.0"
"""What kubeadm 1.33 runs."""
TENTH = 10
"""DNS has the tenth address of the service network (kubeadm, GetDNSIP)."""

_LABELS = {"k8s-app": SERVICE}
_RULES = [
    {
        "apiGroups": [""],
        "resources": ["endpoints", "services", "pods", "namespaces"],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
]


def address(service_cidr: str) -> str:
    """The address of DNS in a service network."""
    return str(ip_network(service_cidr)[TENTH])


def install(
    registry: Registry,
    store: Store,
    topology: Topology,
    before: Topology | None,
    given: Iterable[Obj] = (),
) -> None:
    """Make the objects of a cluster's DNS what `topology` says, after a cluster that was as `before` says, or
    a new one. Objects that the user brings himself, `given`, are his. Raises `ApiError`."""
    old = before.dns if before is not None else DnsTopology(0)
    new = topology.dns
    own = {_name(obj) for obj in given}
    wanted = [(_key(obj), obj) for obj in objects(topology) if _name(obj) not in own]
    if new.replicas and not old.replicas:
        for key, obj in wanted:
            if store.get(*key) is None:
                registry.create(obj)
    elif old.replicas and not new.replicas:
        for key, _ in reversed(wanted):
            if store.get(*key) is not None:
                registry.delete(*key)
    elif new.replicas and before is not None:
        _change(store, dict(wanted), before, topology)


def _change(store: Store, wanted: Mapping[Key, Obj], old: Topology, new: Topology) -> None:
    """Change what the two say differently in objects that are there, and nothing else of them."""
    ip = address(new.service_cidr)
    changes: list[tuple[str, str, bool, str, Obj]] = [
        (
            "deployments.apps",
            DEPLOYMENT,
            new.dns.replicas != old.dns.replicas,
            "spec",
            {"replicas": new.dns.replicas},
        ),
        (
            "configmaps",
            DEPLOYMENT,
            new.dns.upstreams != old.dns.upstreams,
            "data",
            {"Corefile": corefile(new.dns)},
        ),
        (
            "services",
            SERVICE,
            ip != address(old.service_cidr),
            "spec",
            {"clusterIP": ip, "clusterIPs": [ip]},
        ),
    ]
    for resource, name, changed, field, part in changes:
        key = Key(resource, NAMESPACE, name)
        there = store.get(*key)
        if changed and there is not None and key in wanted:
            store.update(resource, {**there, field: {**(there.get(field) or {}), **part}})


def _name(obj: Obj) -> tuple[str, str, str]:
    meta = obj.get("metadata") or {}
    return obj["kind"], meta.get("namespace") or "", meta.get("name") or ""


def _key(obj: Obj) -> Key:
    group, _, _ = obj["apiVersion"].rpartition("/")
    resource = f"{obj['kind'].lower()}s"
    return Key(f"{resource}.{group}" if group else resource, *_name(obj)[1:])


def objects(topology: Topology) -> list[Obj]:
    """The objects that a cluster's DNS is made of."""
    account = {"kind": "ServiceAccount", "name": DEPLOYMENT, "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}
    return [
        _object("v1", "ServiceAccount", DEPLOYMENT),
        _object("rbac.authorization.k8s.io/v1", "ClusterRole", "system:coredns", rules=_RULES),
        _object(
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            "system:coredns",
            roleRef=role,
            subjects=[account],
        ),
        _object("v1", "ConfigMap", DEPLOYMENT, data={"Corefile": corefile(topology.dns)}),
        _service(topology),
        _deployment(topology.dns.replicas),
    ]


def corefile(dns: DnsTopology) -> str:
    """The configuration that the DNS pods follow. Of changes to it, only those of `forward` are acted on."""
    outside = "forward . " + " ".join(dns.upstreams) if dns.upstreams else ""
    kubernetes = ["pods insecure", *(["fallthrough in-addr.arpa ip6.arpa"] if outside else []), "ttl 30"]
    lines = [
        "# From spec.dns of the Cluster document. nsk8s acts on changes of `forward`, and of nothing else.",
        ".:53 {" if outside else "cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {",
        "    errors",
        "    health",
        "    ready",
        "    kubernetes cluster.local in-addr.arpa ip6.arpa {",
        *(f"       {line}" for line in kubernetes),
        "    }",
        "    prometheus :9153",
        *([f"    {outside} {{", "       max_concurrent 1000", "    }"] if outside else []),
        "    loadbalance",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _object(version: str, kind: str, name: str, **content: object) -> Obj:
    meta: Obj = {"name": name}
    if not kind.startswith("Cluster"):
        meta["namespace"] = NAMESPACE
    return {"apiVersion": version, "kind": kind, "metadata": meta, **content}


def _service(topology: Topology) -> Obj:
    ports = (("dns", 53, "UDP"), ("dns-tcp", 53, "TCP"), ("metrics", 9153, "TCP"))
    found = _object(
        "v1",
        "Service",
        SERVICE,
        spec={
            "clusterIP": address(topology.service_cidr),
            "ports": [
                {"name": name, "port": port, "protocol": protocol, "targetPort": port}
                for name, port, protocol in ports
            ],
            "selector": _LABELS,
        },
    )
    found["metadata"] |= {
        "labels": {
            **_LABELS,
            "kubernetes.io/cluster-service": "true",
            "kubernetes.io/name": "CoreDNS",
        },
        "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
    }
    return found


def _deployment(replicas: int) -> Obj:
    found = _object(
        "apps/v1",
        "Deployment",
        DEPLOYMENT,
        spec={
            "replicas": replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": _pod()},
        },
    )
    found["metadata"]["labels"] = _LABELS
    return found


def _pod() -> dict[str, Any]:
    ports = (
        ("dns", 53, "UDP"),
        ("dns-tcp", 53, "TCP"),
        ("metrics", 9153, "TCP"),
        ("liveness-probe", 8080, "TCP"),
        ("readiness-probe", 8181, "TCP"),
    )
    own = {"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": [SERVICE]}]}
    apart = {"labelSelector": own, "topologyKey": "kubernetes.io/hostname"}
    return {
        "priorityClassName": "system-cluster-critical",
        "serviceAccountName": DEPLOYMENT,
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": apart}]
            }
        },
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
        ],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [
            {
                "name": DEPLOYMENT,
                "image": IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
                "args": ["-conf", "/etc/coredns/Corefile"],
                "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": True}],
                "ports": [
                    {"containerPort": port, "name": name, "protocol": protocol}
                    for name, port, protocol in ports
                ],
                "livenessProbe": {
                    "httpGet": {"path": "/health", "port": "liveness-probe", "scheme": "HTTP"},
                    "initialDelaySeconds": 60,
                    "timeoutSeconds": 5,
                    "successThreshold": 1,
                    "failureThreshold": 5,
                },
                "readinessProbe": {
                    "httpGet": {"path": "/ready", "port": "readiness-probe", "scheme": "HTTP"}
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
            }
        ],
        "dnsPolicy": "Default",
        "volumes": [
            {
                "name": "config-volume",
                "configMap": {"name": DEPLOYMENT, "items": [{"key": "Corefile", "path": "Corefile"}]},
            }
        ],
    }
