"""Pods and pod templates as `describe` shows them (kubectl's describe.go)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nsk8s.api.types import Obj
from nsk8s.cli.layout import controller, head, indented, moment, notes, pairs, several

RESOURCES = ("cpu", "memory")


def pod(obj: Obj) -> Iterator[str]:
    """The lines about a pod, without its events."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    yield from head(obj)
    if spec.get("priority") is not None:
        yield f"Priority:\t{spec['priority']}"
    if spec.get("priorityClassName"):
        yield f"Priority Class Name:\t{spec['priorityClassName']}"
    if spec.get("serviceAccountName"):
        yield f"Service Account:\t{spec['serviceAccountName']}"
    node = spec.get("nodeName")
    yield f"Node:\t{node}/{status.get('hostIP', '')}" if node else "Node:\t<none>"
    if status.get("startTime"):
        yield f"Start Time:\t{moment(status['startTime'])}"
    yield from pairs("Labels", meta.get("labels"))
    yield from notes(meta.get("annotations"))
    phase = status.get("phase", "")
    if meta.get("deletionTimestamp") and phase not in ("Failed", "Succeeded"):
        yield f"Status:\tTerminating (until {moment(meta['deletionTimestamp'])})"
        yield f"Termination Grace Period:\t{meta.get('deletionGracePeriodSeconds', 0)}s"
    else:
        yield f"Status:\t{phase}"
    if status.get("reason"):
        yield f"Reason:\t{status['reason']}"
    if status.get("message"):
        yield f"Message:\t{status['message']}"
    yield f"IP:\t{status.get('podIP', '')}"
    addresses = status.get("podIPs") or ()
    yield "IPs:" if addresses else "IPs:\t<none>"
    yield from (f"  IP:\t{address['ip']}" for address in addresses)
    yield from controller(obj)
    if spec.get("initContainers"):
        yield from _containers(
            "Init Containers", spec["initContainers"], status.get("initContainerStatuses") or ()
        )
    yield from _containers("Containers", spec["containers"], status.get("containerStatuses") or ())
    if status.get("conditions"):
        yield "Conditions:"
        yield "  Type\tStatus"
        yield from (f"  {one['type']} \t{one['status']} " for one in status["conditions"])
    yield from _volumes(spec)
    yield f"QoS Class:\t{quality(spec)}"
    yield from pairs("Node-Selectors", spec.get("nodeSelector"))
    yield from several("Tolerations", _tolerations(spec))


def template(template: Obj) -> Iterator[str]:
    """The lines about a pod template."""
    meta, spec = template.get("metadata") or {}, template["spec"]
    yield "Pod Template:"
    yield from pairs("Labels", meta.get("labels"), indent="  ")
    if meta.get("annotations"):
        yield from indented(notes(meta["annotations"]))
    if spec.get("serviceAccountName"):
        yield f"  Service Account:\t{spec['serviceAccountName']}"
    if spec.get("initContainers"):
        yield from _containers("Init Containers", spec["initContainers"], None)
    yield from _containers("Containers", spec["containers"], None)
    yield from _volumes(spec, indent="  ")
    yield from pairs("Node-Selectors", spec.get("nodeSelector"), indent="  ")
    yield from several("Tolerations", _tolerations(spec), indent="  ")


def _containers(title: str, containers: Sequence[Obj], statuses: Sequence[Obj] | None) -> Iterator[str]:
    """`statuses` None: those of a template, one space and not two below their title."""
    found = {one["name"]: one for one in statuses or ()}
    yield f"{'  ' if statuses is None else ''}{title}:"
    for container in containers:
        yield f"{'   ' if statuses is None else '  '}{container['name']}:"
        yield from indented(_container(container, found.get(container["name"])), "    ")


def _container(container: Obj, status: Obj | None) -> Iterator[str]:
    if status is not None:
        yield f"Container ID:\t{status.get('containerID', '')}"
    yield f"Image:\t{container.get('image', '')}"
    if status is not None:
        yield f"Image ID:\t{status.get('imageID', '')}"
    ports = container.get("ports") or ()
    for title, field in (("Port", "containerPort"), ("Host Port", "hostPort")):
        listed = ", ".join(f"{p.get(field, 0)}/{p.get('protocol', 'TCP')}" for p in ports)
        yield f"{title}{'s' if len(ports) > 1 else ''}:\t{listed or '<none>'}"
    for title, words in (("Command", container.get("command")), ("Args", container.get("args"))):
        if words:
            yield f"{title}:"
            yield from indented(line for word in words for line in str(word).split("\n"))
    if status is not None:
        yield from _state("State", status.get("state") or {})
        if (status.get("lastState") or {}).get("terminated"):
            yield from _state("Last State", status["lastState"])
        yield f"Ready:\t{bool(status.get('ready'))}"
        yield f"Restart Count:\t{status.get('restartCount', 0)}"
    for title in ("limits", "requests"):
        amounts = (container.get("resources") or {}).get(title)
        if amounts:
            yield f"{title.capitalize()}:"
            yield from (f"  {name}:\t{amount}" for name, amount in sorted(amounts.items()))
    for title in ("liveness", "readiness", "startup"):
        if container.get(f"{title}Probe"):
            yield f"{title.capitalize()}:\t{_probe(container[f'{title}Probe'])}"
    yield "Environment:" if container.get("env") else "Environment:\t<none>"
    for variable in container.get("env") or ():
        yield from indented(_variable(variable))
    mounts = container.get("volumeMounts") or ()
    yield "Mounts:" if mounts else "Mounts:\t<none>"
    for mount in sorted(mounts, key=lambda m: str(m["mountPath"])):
        mode = "ro" if mount.get("readOnly") else "rw"
        sub = f',path="{mount["subPath"]}"' if mount.get("subPath") else ""
        yield f"  {mount['mountPath']} from {mount['name']} ({mode}{sub})"


def _state(title: str, state: Obj) -> Iterator[str]:
    if "running" in state:
        yield f"{title}:\tRunning"
        yield f"  Started:\t{moment((state['running'] or {}).get('startedAt'))}"
        return
    ended = state.get("terminated")
    detail: Obj = ended or state.get("waiting") or {}
    yield f"{title}:\t{'Terminated' if ended else 'Waiting'}"
    if detail.get("reason"):
        yield f"  Reason:\t{detail['reason']}"
    if detail.get("message"):
        yield f"  Message:\t{detail['message']}"
    if ended:
        yield f"  Exit Code:\t{ended.get('exitCode', 0)}"
        if ended.get("signal"):
            yield f"  Signal:\t{ended['signal']}"
        yield f"  Started:\t{moment(ended.get('startedAt'))}"
        yield f"  Finished:\t{moment(ended.get('finishedAt'))}"


def _probe(probe: Obj) -> str:
    if action := probe.get("httpGet"):
        scheme, host = action.get("scheme", "HTTP").lower(), action.get("host", "")
        path = action.get("path", "")
        what = f"http-get {scheme}://{host}:{action['port']}{'' if path.startswith('/') else '/'}{path}"
    elif action := probe.get("tcpSocket"):
        what = f"tcp-socket {action.get('host', '')}:{action['port']}"
    elif action := probe.get("grpc"):
        what = f"grpc <pod>:{action['port']} {action.get('service') or ''}"
    elif action := probe.get("exec"):
        what = f"exec [{' '.join(action.get('command') or ())}]"
    else:
        what = "unknown"
    return (
        f"{what} delay={probe.get('initialDelaySeconds', 0)}s timeout={probe.get('timeoutSeconds', 1)}s "
        f"period={probe.get('periodSeconds', 10)}s #success={probe.get('successThreshold', 1)} "
        f"#failure={probe.get('failureThreshold', 3)}"
    )


def _variable(variable: Obj) -> Iterator[str]:
    source = variable.get("valueFrom") or {}
    if field := source.get("fieldRef"):
        yield f"{variable['name']}:\t ({field.get('apiVersion', 'v1')}:{field.get('fieldPath', '')})"
        return
    for word, kind in (("configMapKeyRef", "config map"), ("secretKeyRef", "secret")):
        if ref := source.get(word):
            optional = str(bool(ref.get("optional"))).lower()
            yield (
                f"{variable['name']}:\t<set to the key '{ref.get('key', '')}' of {kind} "
                f"'{ref.get('name', '')}'>\tOptional: {optional}"
            )
            return
    for index, line in enumerate(str(variable.get("value", "")).split("\n")):
        yield f"{variable['name']}:\t{line}" if index == 0 else f"\t{line}"


def _volumes(spec: Obj, *, indent: str = "") -> Iterator[str]:
    volumes = spec.get("volumes") or ()
    yield f"{indent}Volumes:" if volumes else f"{indent}Volumes:\t<none>"
    for volume in volumes:
        kind = next((key for key in volume if key != "name"), "emptyDir")
        yield f"{indent}  {volume['name']}:"
        if kind != "projected":
            yield f"{indent}    Type:\t{kind[:1].upper()}{kind[1:]}"
            continue
        yield f"{indent}    Type:\tProjected (a volume that contains injected data from multiple sources)"
        for source in volume[kind].get("sources") or ():
            yield from (f"{indent}    {line}" for line in _source(source))


def _source(source: Obj) -> Iterator[str]:
    """One source of a projected volume."""
    for kind, given in source.items():
        match kind:
            case "secret" | "configMap":
                yield f"{kind[:1].upper()}{kind[1:]}Name:\t{given['name']}"
                yield f"Optional:\t{str(bool(given.get('optional'))).lower()}"
            case "downwardAPI":
                yield "DownwardAPI:\ttrue"
            case "serviceAccountToken":
                yield f"TokenExpirationSeconds:\t{given['expirationSeconds']}"


def _tolerations(spec: Obj) -> list[str]:
    found = []
    for one in sorted(spec.get("tolerations") or (), key=lambda t: str(t.get("key", ""))):
        text = str(one.get("key", ""))
        if one.get("value"):
            text += f"={one['value']}"
        if one.get("effect"):
            text += f":{one['effect']}"
        if one.get("operator") == "Exists" and not one.get("value"):
            text += " op=Exists" if text else "op=Exists"
        if one.get("tolerationSeconds") is not None:
            text += f" for {one['tolerationSeconds']}s"
        found.append(text)
    return found


def quality(spec: Obj) -> str:
    """The quality-of-service class (k8s.io/kubernetes/pkg/apis/core/helper/qos)."""
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    asked = False
    guaranteed = True
    for container in containers:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        asked = asked or any(name in limits or name in requests for name in RESOURCES)
        for name in RESOURCES:
            guaranteed = guaranteed and name in limits and requests.get(name, limits[name]) == limits[name]
    return "BestEffort" if not asked else ("Guaranteed" if guaranteed else "Burstable")
