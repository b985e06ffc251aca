"""The environment of a container, as the kubelet makes it (kubelet_pods.go, makeEnvironmentVariables).

Weakest first: the services of the pod's namespace, whole ConfigMaps and Secrets (`envFrom`), single
variables (`env`).
"""

from __future__ import annotations

from base64 import b64decode
from collections import ChainMap
from collections.abc import Iterable, Mapping

from nsk8s.api.expansion import expanded
from nsk8s.api.types import Container, EnvVarSource, KeySelector, Obj, Pod, Service, WholeRef
from nsk8s.cluster.downward import field, resource
from nsk8s.cluster.store import Key, Store

MASTER = ("default", "kubernetes")
"""The service that every container is told of."""


class Missing(Exception):
    """Something that a pod refers to does not exist, in the kubelet's words."""


def lacks(store: Store, pod: Pod, container: Container) -> str:
    """What a container needs for its environment and does not find, in the kubelet's words; "" if nothing."""
    if not container.envFrom and all(variable.valueFrom is None for variable in container.env):
        return ""
    try:
        _own(store, pod, container, {})
    except Missing as error:
        return str(error)
    return ""


def environment(store: Store, pod: Pod, container: Container) -> dict[str, str]:
    """All variables of a container, with ``$(NAME)`` expanded. Raises Missing."""
    services = service_environment(store, pod)
    return {**services, **_own(store, pod, container, services)}


def _own(store: Store, pod: Pod, container: Container, services: Mapping[str, str]) -> dict[str, str]:
    own: dict[str, str] = {}
    for source in container.envFrom:
        for resource_name, ref in (("configmaps", source.configMapRef), ("secrets", source.secretRef)):
            if ref is not None:
                data = texts(store, resource_name, pod.metadata.namespace, ref)
                own.update({source.prefix + key: value for key, value in data.items()})
    known = ChainMap(own, dict(services))
    for variable in container.env:
        if variable.value or variable.valueFrom is None:
            own[variable.name] = expanded((variable.value,), known)[0]
        else:
            value = _value(store, pod, container, variable.valueFrom)
            if value is not None:
                own[variable.name] = value
    return own


def texts(store: Store, resource_name: str, namespace: str, ref: WholeRef | KeySelector) -> dict[str, str]:
    """What a ConfigMap or Secret holds, as texts; nothing if it may be missing, and is. Raises Missing."""
    obj = found(store, resource_name, namespace, ref.name)
    if obj is None:
        if ref.optional:
            return {}
        raise Missing(f'{resource_name.removesuffix("s")} "{ref.name}" not found')
    data: Mapping[str, str] = obj.get("data") or {}
    if resource_name == "secrets":
        return {key: b64decode(value).decode(errors="surrogateescape") for key, value in data.items()}
    return dict(data)


def found(store: Store, resource_name: str, namespace: str, name: str) -> Obj | None:
    """A ConfigMap or Secret."""
    return store.get(resource_name, namespace, name)


def _value(store: Store, pod: Pod, container: Container, source: EnvVarSource) -> str | None:
    """The value from a source; None if it is missing and may be."""
    if source.fieldRef is not None:
        return field(pod, source.fieldRef.fieldPath)
    if source.resourceFieldRef is not None:
        return resource(store, pod, container, source.resourceFieldRef)
    namespace = pod.metadata.namespace
    for name, kind, ref in (
        ("configmaps", "ConfigMap", source.configMapKeyRef),
        ("secrets", "Secret", source.secretKeyRef),
    ):
        if ref is None:
            continue
        value = texts(store, name, namespace, ref).get(ref.key)
        if value is None and not ref.optional:
            raise Missing(f"couldn't find key {ref.key} in {kind} {namespace}/{ref.name}")
        return value
    return ""


def service_environment(store: Store, pod: Pod) -> dict[str, str]:
    """What a pod's containers are told of services: of the API server, and unless the pod does not want it
    of all services in its namespace that have an address."""
    seen: list[Service] = []
    namespace = pod.metadata.namespace
    if pod.spec.enableServiceLinks:
        seen += [s for s in store.views("services", namespace) if isinstance(s, Service)]
    master = store.view(Key("services", *MASTER))
    if isinstance(master, Service) and all(s.metadata.name != MASTER[1] for s in seen):
        seen.append(master)
    return service_variables(s for s in seen if s.spec.clusterIP not in ("", "None") and s.spec.ports)


def service_variables(services: Iterable[Service]) -> dict[str, str]:
    """The variables of services (pkg/kubelet/envvars)."""
    env: dict[str, str] = {}
    for service in services:
        name, ip = _variable(service.metadata.name), service.spec.clusterIP
        host = f"[{ip}]" if ":" in ip else ip
        ports = service.spec.ports
        env[f"{name}_SERVICE_HOST"] = ip
        env[f"{name}_SERVICE_PORT"] = str(ports[0].port)
        for port in ports:
            if port.name:
                env[f"{name}_SERVICE_PORT_{_variable(port.name)}"] = str(port.port)
        for port in ports:
            protocol = port.protocol.lower()
            url = f"{protocol}://{host}:{port.port}"
            env.setdefault(f"{name}_PORT", url)
            one = f"{name}_PORT_{port.port}_{port.protocol}"
            env |= {one: url, f"{one}_PROTO": protocol, f"{one}_PORT": str(port.port), f"{one}_ADDR": ip}
    return env


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")
