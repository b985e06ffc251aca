"""What `nsk8s exec` and `nsk8s capture` ask: which processes are a container, a node or a client."""

from __future__ import annotations

from collections.abc import Callable

from nsk8s.api.topology import Topology
from nsk8s.api.types import Container, Obj, Pod
from nsk8s.daemon.places import Places
from nsk8s.daemon.runs import Runs
from nsk8s.dataplane.compiler import pod_namespace
from nsk8s.errors import ApiError, NsK8sError
from nsk8s.kernel.machine import Machine
from nsk8s.kernel.processes import Inside


class Targets:
    """Of one cluster. `find` gives a pod by namespace and name or raises `ApiError` 404."""

    def __init__(
        self,
        machine: Machine,
        topology: Callable[[], Topology],
        find: Callable[[str, str], Pod],
        places: Places,
        runs: Runs,
    ) -> None:
        self._machine = machine
        self._topology = topology
        self._find = find
        self._places = places
        self._runs = runs

    async def target(self, query: Obj) -> Obj:
        """`GET /nsk8s/v1/target`: where `exec` and `capture` find a pod's container (``namespace``,
        ``name``, ``container``), a node or a client (``kind``, ``name``). Raises `ApiError` 404."""
        kind, name = query.get("kind", "pod"), query.get("name", "")
        if kind == "pod":
            return self._container(query.get("namespace") or "default", name, query.get("container", ""))
        topology = self._topology()
        known = {one.name for one in (topology.nodes if kind == "node" else topology.clients)}
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ApiError(
                404, "NotFound", f'{kind}s "{name}" not found (there is: {names})', kind=kind, name=name
            )
        return {"namespace": name, "pid": self._machine.pid(name), "container_pid": 0}

    def _container(self, namespace: str, name: str, wanted: str) -> Obj:
        pod = self._find(namespace, name)
        container = _container(pod, wanted)
        try:
            place = self._places.beside(pod, container)
        except NsK8sError:  # its sandbox is gone, or not there yet; its logs are
            place = Inside(pid=0, env={}, files={})
        return {
            "namespace": pod_namespace(namespace, name),
            "pid": place.pid,
            "container_pid": place.container,
            "container": container.name,
            "running": (pod.metadata.uid, container.name) in self._runs,
            "env": place.env,
            "files": place.files,
            "workdir": place.workdir,
        }


def _container(pod: Pod, name: str) -> Container:
    """The container called `name`, or the first one. Raises `ApiError` 400 in kubectl's words."""
    containers = (*pod.spec.containers, *pod.spec.initContainers, *pod.spec.ephemeralContainers)
    if not name:
        return containers[0]
    for container in containers:
        if container.name == name:
            return container
    names = ", ".join(c.name for c in containers)
    raise ApiError(
        400, "BadRequest", f"container {name} is not valid for pod {pod.metadata.name} (it has: {names})"
    )
