"""EndpointSlices and Endpoints: which pods stand behind a Service (kube-controller-manager's
endpointslice, endpoints and endpointslicemirroring controllers).

A pod stands in the slices from when it has an IP until it is gone or has ended; its conditions say
whether it is ready. Endpoints written by hand, for a Service without a selector, are mirrored into slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from nsk8s.api.families import BY_NAME, NAMES, family, of_family
from nsk8s.api.topology import Topology
from nsk8s.api.types import ZONE, Obj, Pod, Service, ServicePort
from nsk8s.cluster.ownership import NAME_ROOM, owner_reference
from nsk8s.cluster.selection import SelectorIndex
from nsk8s.cluster.services import kubernetes_service
from nsk8s.cluster.store import Change, Key, Store

SLICES = "endpointslices.discovery.k8s.io"
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
HEADLESS = "service.kubernetes.io/headless"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
ENDPOINTS_MANAGED_BY = "endpoints.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
MIRROR = "endpointslicemirroring-controller.k8s.io"
NEAR = ("PreferClose", "PreferSameZone", "PreferSameNode")
"""spec.trafficDistribution of Services whose endpoints are meant for their own zone, the last for their own
node too (KEP-4444, KEP-3015)."""

PER_SLICE = 100
"""Endpoints a slice holds (--max-endpoints-per-slice)."""
PER_ENDPOINTS = 1000
"""Addresses an Endpoints object holds; what is left out is said by an annotation."""

Ports = tuple[tuple[str, int, str], ...]
"""Name, number, protocol of each port."""


class EndpointsController:
    """Keeps the slices and Endpoints of every Service."""

    informers = frozenset({"services", "pods", "nodes", "endpoints", SLICES})

    def __init__(self, store: Store, topology: Topology) -> None:
        self._store = store
        self._topology = topology
        self._selectors = SelectorIndex()

    def bootstrap(self) -> None:
        """Make the Service ``kubernetes`` and its endpoints what the topology says."""
        wanted = kubernetes_service(self._topology)
        for resource, obj in zip(("services", "endpoints", SLICES), wanted, strict=True):
            old = self._store.get(resource, "default", "kubernetes")
            if obj is None:
                if old is not None:
                    self._store.delete(resource, "default", "kubernetes")
            elif old is None:
                self._store.create(resource, obj)
            else:
                self._store.update(resource, {**old, **{k: v for k, v in obj.items() if k != "metadata"}})

    def touched(self, change: Change) -> Iterable[Key]:
        """The Services that select a pod, before and after; those whose own objects changed."""
        key = change.key
        match key.resource:
            case "pods":
                old = _facets(change.old) if change.old is not None else None
                new = _facets(change.new) if change.type != "DELETED" else None
                if old != new:
                    for obj in (change.old, change.new):
                        if obj is not None:
                            labels = obj["metadata"].get("labels") or {}
                            yield from self._selectors.candidates(key.namespace, labels)
            case "services":
                if change.type == "DELETED":
                    self._selectors.drop(key)
                    yield key
                    return
                selector = (change.new.get("spec") or {}).get("selector")
                if selector:
                    self._selectors.put(key, selector)
                else:
                    self._selectors.drop(key)
                yield key
            case "nodes":
                if change.old is not None and _zone(change.old) != _zone(change.new):
                    for service in self._store.list("services"):
                        meta = service["metadata"]
                        yield Key("services", meta["namespace"], meta["name"])
            case "endpoints":
                yield Key("services", key.namespace, key.name)
            case "endpointslices.discovery.k8s.io":
                name = (change.new["metadata"].get("labels") or {}).get(SERVICE_NAME)
                if name:
                    yield Key("services", key.namespace, name)

    def sync(self, key: Key, now: float) -> float | None:
        """Write the slices and the Endpoints of one Service, as far as they differ."""
        service = self._store.view(key)
        if key[1:] == ("default", "kubernetes"):
            self.bootstrap()
        elif not isinstance(service, Service):
            self._remove(key)
        elif service.spec.type == "ExternalName":
            pass
        elif service.spec.selector:
            self._follow_pods(key, service)
        else:
            self._mirror(key)
        return None

    def _remove(self, key: Key) -> None:
        """Endpoints end with their Service (slices are its dependents: the garbage collector's)."""
        endpoints = self._store.get("endpoints", key.namespace, key.name)
        if endpoints is None:
            return
        if ENDPOINTS_MANAGED_BY in (endpoints["metadata"].get("labels") or {}):
            self._store.delete("endpoints", key.namespace, key.name)
            return
        for obj in self._own(key, MIRROR):
            self._store.delete(SLICES, key.namespace, obj["metadata"]["name"])

    # --- services with a selector -------------------------------------------------------------------

    def _follow_pods(self, key: Key, service: Service) -> None:
        families = service.spec.ipFamilies or tuple(NAMES[each] for each in self._topology.families[:1])
        groups: dict[str, dict[Ports, list[Obj]]] = {name: {} for name in families}
        subsets: dict[Ports, tuple[list[Obj], list[Obj]]] = {}
        for obj in self._store.select("pods", key.namespace, service.spec.selector or {}):
            pod = self._store.view(Key("pods", key.namespace, obj["metadata"]["name"]))
            if not isinstance(pod, Pod) or not pod.status.podIP or pod.terminal:
                continue
            ports = _resolved(service.spec.ports, pod)
            if service.spec.ports and not ports:
                continue  # no port of this pod has the name the service asks for
            for name, of_type in groups.items():
                if ip := of_family(pod.status.ips, BY_NAME[name]):
                    of_type.setdefault(ports, []).append(self._endpoint(service, pod, ip))
            primary = of_family(pod.status.ips, BY_NAME[families[0]])
            if not primary:
                continue
            if pod.metadata.deletionTimestamp and not service.spec.publishNotReadyAddresses:
                continue
            ready, waiting = subsets.setdefault(ports, ([], []))
            good = pod.ready or service.spec.publishNotReadyAddresses
            (ready if good else waiting).append(_address(service, pod, primary))
        obj = self._store.find(*key)
        labels = self._labels(obj, service)
        self._write_slices(key, obj, {**labels, SERVICE_NAME: key.name, MANAGED_BY: CONTROLLER}, groups)
        self._write_endpoints(key, {**labels, ENDPOINTS_MANAGED_BY: "endpoint-controller"}, subsets)

    def _labels(self, obj: Obj, service: Service) -> dict[str, str]:
        labels = dict(obj["metadata"].get("labels") or {})
        for reserved in (SERVICE_NAME, MANAGED_BY, HEADLESS):
            labels.pop(reserved, None)
        if service.spec.clusterIP == "None":
            labels[HEADLESS] = ""
        return labels

    def _endpoint(self, service: Service, pod: Pod, ip: str) -> Obj:
        ending = pod.metadata.deletionTimestamp is not None
        endpoint: Obj = {
            "addresses": [ip],
            "conditions": {
                "ready": service.spec.publishNotReadyAddresses or (pod.ready and not ending),
                "serving": pod.ready,
                "terminating": ending,
            },
            "nodeName": pod.spec.nodeName,
            "targetRef": _reference(pod),
        }
        if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
            endpoint["hostname"] = pod.spec.hostname
        node = self._store.get("nodes", "", pod.spec.nodeName)
        zone = _zone(node) if node else ""
        if zone:
            endpoint["zone"] = zone
        if endpoint["conditions"]["ready"] and (hints := _hints(service, zone, pod.spec.nodeName)):
            endpoint["hints"] = hints
        return endpoint

    def _write_slices(
        self,
        key: Key,
        owner: Obj,
        labels: Mapping[str, str],
        families: Mapping[str, Mapping[Ports, list[Obj]]],
    ) -> None:
        """Slices for each of `families`, by addressType; those of others go."""
        existing = self._own(key, labels[MANAGED_BY])
        for name, groups in families.items():
            mine = [piece for piece in existing if piece["addressType"] == name]
            self._write_family(key, owner, labels, name, groups, mine)
        for piece in existing:
            if piece["addressType"] not in families:
                self._store.delete(SLICES, key.namespace, piece["metadata"]["name"])

    def _write_family(
        self,
        key: Key,
        owner: Obj,
        labels: Mapping[str, str],
        address_type: str,
        groups: Mapping[Ports, list[Obj]],
        existing: Sequence[Obj],
    ) -> None:
        """Endpoints stay in the slice they are in; new ones fill it up, and then new slices. A Service
        without any endpoint has one empty slice."""
        store = self._store
        wanted: list[tuple[Obj | None, list[Obj] | None, list[Obj]]] = []
        spare = list(existing)
        for ports, endpoints in groups.items():
            shape: list[Obj] = [{"name": n, "port": p, "protocol": t} for n, p, t in ports]
            left = {_who(endpoint): endpoint for endpoint in endpoints}
            mine = [s for s in spare if s.get("ports") == shape]
            kept = []
            for piece in mine:
                stay = [left.pop(who) for e in piece.get("endpoints") or () if (who := _who(e)) in left]
                kept.append((piece, stay))
                spare.remove(piece)
            rest = list(left.values())
            for piece, stay in kept:
                fill = PER_SLICE - len(stay)
                stay, rest = stay + rest[:fill], rest[fill:]
                if stay:
                    wanted.append((piece, shape, stay))
                else:
                    spare.append(piece)
            while rest:
                wanted.append((None, shape, rest[:PER_SLICE]))
                rest = rest[PER_SLICE:]
        if not wanted:
            wanted = [(spare[0] if spare else None, None, [])]
        free = [s for s in spare if s is not wanted[0][0]]
        for old, named, members in wanted:
            reused = old or (free.pop(0) if free else None)
            content = {"addressType": address_type, "endpoints": members, "ports": named}
            if reused is not None:
                meta = {**reused["metadata"], "labels": dict(labels)}
                store.update(SLICES, {**reused, **content, "metadata": meta})
                continue
            store.create(
                SLICES,
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "generateName": key.name[: NAME_ROOM - 1] + "-",
                        "namespace": key.namespace,
                        "labels": dict(labels),
                        "ownerReferences": [owner_reference(owner)],
                    },
                    **content,
                },
            )
        for piece in free:
            store.delete(SLICES, key.namespace, piece["metadata"]["name"])

    def _own(self, key: Key, manager: str) -> list[Obj]:
        """The slices of a Service that `manager` keeps."""
        labels = {SERVICE_NAME: key.name, MANAGED_BY: manager}
        return list(self._store.select(SLICES, key.namespace, labels))

    def _write_endpoints(
        self, key: Key, labels: dict[str, str], subsets: Mapping[Ports, tuple[list[Obj], list[Obj]]]
    ) -> None:
        written = []
        for ports, (ready, waiting) in sorted(subsets.items(), key=lambda item: item[0]):
            subset: Obj = {}
            if ready:
                subset["addresses"] = sorted(ready, key=_by_ip)[:PER_ENDPOINTS]
            if waiting:
                subset["notReadyAddresses"] = sorted(waiting, key=_by_ip)[:PER_ENDPOINTS]
            if ports:
                subset["ports"] = [_port(n, p, t) for n, p, t in ports]
            written.append(subset)
        old = self._store.get("endpoints", key.namespace, key.name)
        if old is None:
            meta: Obj = {"name": key.name, "namespace": key.namespace, "labels": labels}
            content: Obj = {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta}
            self._store.create("endpoints", {**content, **({"subsets": written} if written else {})})
            return
        new = {**old, "metadata": {**old["metadata"], "labels": labels}, "subsets": written}
        if not written:
            del new["subsets"]
        self._store.update("endpoints", new)

    # --- Endpoints written by hand ------------------------------------------------------------------

    def _mirror(self, key: Key) -> None:
        """Slices with what the Endpoints object of the same name says; none if there is none."""
        manual = self._store.get("endpoints", key.namespace, key.name)
        labels = (manual["metadata"].get("labels") or {}) if manual else {}
        if manual is not None and ENDPOINTS_MANAGED_BY in labels:
            # The Service has lost its selector: what was there stays, and is the user's from now on.
            labels = {k: v for k, v in labels.items() if k != ENDPOINTS_MANAGED_BY}
            meta = {**manual["metadata"], "labels": labels}
            manual = self._store.update("endpoints", {**manual, "metadata": meta})
        for obj in self._own(key, CONTROLLER):
            self._store.delete(SLICES, key.namespace, obj["metadata"]["name"])
        if manual is None or labels.get(SKIP_MIRROR) == "true":
            for obj in self._own(key, MIRROR):
                self._store.delete(SLICES, key.namespace, obj["metadata"]["name"])
            return
        groups: dict[str, dict[Ports, list[Obj]]] = {}
        for subset in manual.get("subsets") or ():
            ports = tuple(
                (p.get("name", ""), p["port"], p.get("protocol", "TCP")) for p in subset.get("ports") or ()
            )
            for field, ready in (("addresses", True), ("notReadyAddresses", False)):
                for address in subset.get(field) or ():
                    of_type = groups.setdefault(NAMES[family(address["ip"])], {})
                    of_type.setdefault(ports, []).append(_mirrored(address, ready=ready))
        mirrored = {k: v for k, v in labels.items() if k not in (SERVICE_NAME, MANAGED_BY)}
        groups = groups or {NAMES[self._topology.families[0]]: {}}
        self._write_slices(key, manual, {**mirrored, SERVICE_NAME: key.name, MANAGED_BY: MIRROR}, groups)


def _facets(pod: Obj) -> tuple[Any, ...] | None:
    """What endpoints show of a pod; None while it has no address."""
    status = pod.get("status") or {}
    if not status.get("podIP"):
        return None
    meta = pod["metadata"]
    ready = next((c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"), "")
    ips = status.get("podIPs") or status["podIP"]
    return ips, ready, status.get("phase"), meta.get("deletionTimestamp") is None, meta.get("labels")


def _who(endpoint: Obj) -> tuple[str, str]:
    """Pods on their node's network share its address."""
    return endpoint["addresses"][0], (endpoint.get("targetRef") or {}).get("uid", "")


def _hints(service: Service, zone: str, node: str) -> Obj:
    """Whose traffic a ready endpoint is meant for (trafficdist.ReconcileHints)."""
    wanted = service.spec.trafficDistribution
    if wanted not in NEAR:
        return {}
    hints: Obj = {"forZones": [{"name": zone}]} if zone else {}
    return {**hints, "forNodes": [{"name": node}]} if wanted == "PreferSameNode" else hints


def _zone(node: Obj) -> str:
    return str((node["metadata"].get("labels") or {}).get(ZONE, ""))


def _resolved(ports: Sequence[ServicePort], pod: Pod) -> Ports:
    """The service's ports as this pod has them: named targetPorts found among its containers."""
    found = []
    for port in ports:
        number = port.targetPort or port.port
        if isinstance(number, str):
            number = next(
                (
                    p.containerPort
                    for c in (*pod.spec.containers, *pod.spec.initContainers)
                    if c in pod.spec.containers or c.restartPolicy == "Always"
                    for p in c.ports
                    if p.name == number and p.protocol == port.protocol
                ),
                0,
            )
        if number:
            found.append((port.name, number, port.protocol))
    return tuple(found)


def _port(name: str, number: int, protocol: str) -> Obj:
    return {**({"name": name} if name else {}), "port": number, "protocol": protocol}


def _reference(pod: Pod) -> Obj:
    meta = pod.metadata
    return {"kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid}


def _address(service: Service, pod: Pod, ip: str) -> Obj:
    address: Obj = {"ip": ip, "nodeName": pod.spec.nodeName, "targetRef": _reference(pod)}
    if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
        address["hostname"] = pod.spec.hostname
    return address


def _mirrored(address: Obj, *, ready: bool) -> Obj:
    endpoint: Obj = {
        "addresses": [address["ip"]],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
    }
    for field in ("hostname", "nodeName", "targetRef"):
        if address.get(field):
            endpoint[field] = address[field]
    return endpoint


def _by_ip(address: Obj) -> int:
    return int(ip_address(address["ip"]))
