"""Pods and the pod templates of workload controllers (`pkg/apis/core/validation`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from nsk8s.api import names
from nsk8s.api.findings import Findings, shown
from nsk8s.api.quantities import QUANTITIES, quantity
from nsk8s.api.rules import contents
from nsk8s.api.rules.rule import AnyObject, Rule
from nsk8s.api.types import (
    Container,
    Lifecycle,
    LifecycleHandler,
    Obj,
    Pod,
    PodSpec,
    PodTemplate,
    Probe,
    Taint,
    Toleration,
)

PROTOCOLS = ("TCP", "UDP", "SCTP")
GRACE = 30
"""terminationGracePeriodSeconds of a pod that says nothing."""
DNS_NAMESERVERS = 3
DNS_SEARCHES = 32
DNS_SEARCH_CHARACTERS = 2048
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def pod(view: Pod, findings: Findings) -> None:
    """A Pod."""
    pod_spec(view.spec, "spec", findings)


def pod_spec(spec: PodSpec, path: str, findings: Findings) -> None:
    """The spec of a Pod, or of a template (`path` says where)."""
    if not spec.containers:
        findings.required(f"{path}.containers", hint="a pod has at least one container: name and image")
    taken: set[str] = set()
    host_ports: set[tuple[str, str, int]] = set()
    volumes = contents.volumes(spec, path, findings)
    for field, containers in (("initContainers", spec.initContainers), ("containers", spec.containers)):
        for i, container in enumerate(containers):
            at = f"{path}.{field}[{i}]"
            _container(container, at, field == "initContainers", findings)
            if container.name and container.name in taken:
                findings.duplicate(f"{at}.name", container.name, "container names are unique in a pod")
            taken.add(container.name)
            _ports(container, at, spec.hostNetwork, host_ports, findings)
            contents.mounts(container, at, volumes, findings)
            if field == "containers" or container.restartPolicy == "Always":
                _lifecycle(container, spec.terminationGracePeriodSeconds, at, findings)
            elif container.lifecycle != Lifecycle():
                why = "may not be set for init containers without restartPolicy=Always"
                findings.forbidden(f"{at}.lifecycle", why)
            _resources(container, at, findings)
    findings.one_of(f"{path}.restartPolicy", spec.restartPolicy, ("Always", "OnFailure", "Never"))
    findings.one_of(
        f"{path}.dnsPolicy", spec.dnsPolicy, ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
    )
    _dns_config(spec, f"{path}.dnsConfig", findings)
    findings.at_least(f"{path}.terminationGracePeriodSeconds", spec.terminationGracePeriodSeconds, 0)
    for field, value in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        if value:
            findings.name(f"{path}.{field}", value, names.label(value))
    if spec.nodeName:
        findings.name(f"{path}.nodeName", spec.nodeName, names.subdomain(spec.nodeName))
    findings.labels(f"{path}.nodeSelector", spec.nodeSelector)
    for i, toleration in enumerate(spec.tolerations):
        _toleration(toleration, f"{path}.tolerations[{i}]", findings)
    for i, alias in enumerate(spec.hostAliases):
        ip_address(alias.ip, f"{path}.hostAliases[{i}].ip", findings)
        for j, hostname in enumerate(alias.hostnames):
            at = f"{path}.hostAliases[{i}].hostnames[{j}]"
            findings.name(at, hostname, names.subdomain(hostname))


def _dns_config(spec: PodSpec, path: str, findings: Findings) -> None:
    config = spec.dnsConfig
    if spec.dnsPolicy == "None" and config is None:
        findings.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
    elif spec.dnsPolicy == "None" and config is not None and not config.nameservers:
        why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        findings.required(f"{path}.nameservers", why)
    if config is None:
        return
    if len(config.nameservers) > DNS_NAMESERVERS:
        why = f"must not have more than {DNS_NAMESERVERS} nameservers"
        findings.invalid(f"{path}.nameservers", list(config.nameservers), why)
    for i, server in enumerate(config.nameservers):
        ip_address(server, f"{path}.nameservers[{i}]", findings)
    searches = list(config.searches)
    if len(searches) > DNS_SEARCHES:
        findings.invalid(f"{path}.searches", searches, f"must not have more than {DNS_SEARCHES} search paths")
    if len(" ".join(searches)) > DNS_SEARCH_CHARACTERS:
        most = f"must not have more than {DNS_SEARCH_CHARACTERS} characters (including spaces)"
        findings.invalid(f"{path}.searches", searches, f"{most} in the search list")
    for i, search in enumerate(searches):
        domain = search.removesuffix(".")
        if search != "." and (wrong := names.subdomain(domain.replace("_", "-"))):
            findings.invalid(f"{path}.searches[{i}]", domain, wrong)
    for i, option in enumerate(config.options):
        if not option.name:
            findings.required(f"{path}.options[{i}]", "must not be empty")


def ip_address(value: str, path: str, findings: Findings) -> bool:
    """Whether `value` is an address of either family; a finding if not."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        findings.invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
        return False
    return True


def taints(found: Sequence[Taint], path: str, findings: Findings) -> None:
    """The taints of a node: unique by key and effect."""
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(found):
        at = f"{path}[{i}]"
        if wrong := names.label_key(taint.key):
            findings.invalid(f"{at}.key", taint.key, wrong)
        if wrong := names.label_value(taint.value):
            findings.invalid(f"{at}.value", taint.value, wrong)
        findings.one_of(f"{at}.effect", taint.effect, EFFECTS)
        if (taint.key, taint.effect) in seen:
            findings.duplicate(at, f"{taint.key}:{taint.effect}", "taints are unique by key and effect")
        seen.add((taint.key, taint.effect))


# --- containers -------------------------------------------------------------------------------------


def _container(container: Container, path: str, init: bool, findings: Findings) -> None:
    if container.name:
        findings.name(f"{path}.name", container.name, names.label(container.name))
    else:
        findings.required(f"{path}.name", hint="give the container a name, such as web")
    if not container.image:
        findings.required(f"{path}.image", hint="name an image, such as nginx")
    elif container.image != container.image.strip():
        findings.invalid(f"{path}.image", container.image, "must not have leading or trailing whitespace")
    contents.variables(container, path, findings)
    if container.restartPolicy is not None and (not init or container.restartPolicy != "Always"):
        if init:
            findings.one_of(f"{path}.restartPolicy", container.restartPolicy, ("Always",))
        else:
            findings.forbidden(f"{path}.restartPolicy", "may not be set for non-init containers")
    for field, probe in (
        ("readinessProbe", container.readinessProbe),
        ("livenessProbe", container.livenessProbe),
        ("startupProbe", container.startupProbe),
    ):
        if probe is None:
            continue
        if init and container.restartPolicy != "Always":
            findings.forbidden(
                f"{path}.{field}", "may not be set for init containers without restartPolicy=Always"
            )
        else:
            _probe(probe, f"{path}.{field}", field, findings)


def _lifecycle(container: Container, grace: int | None, path: str, findings: Findings) -> None:
    for field, handler in (
        ("postStart", container.lifecycle.postStart),
        ("preStop", container.lifecycle.preStop),
    ):
        if handler is None:
            continue
        at = f"{path}.lifecycle.{field}"
        kinds = (handler.exec, handler.httpGet, handler.tcpSocket, handler.sleep)
        _one_of(kinds, at, "exec, httpGet, sleep", findings)
        _actions(handler, at, findings)
        if handler.sleep is not None:
            most = GRACE if grace is None else grace
            if not 0 <= handler.sleep.seconds <= most:
                why = f"must be non-negative and less than terminationGracePeriodSeconds ({most})"
                findings.invalid(f"{at}.sleep", handler.sleep.seconds, why)


def _actions(handler: Probe | LifecycleHandler, path: str, findings: Findings) -> None:
    if handler.exec is not None and not handler.exec.command:
        findings.required(f"{path}.exec.command")
    if handler.httpGet is not None:
        findings.port_or_name(f"{path}.httpGet.port", handler.httpGet.port)
        findings.one_of(f"{path}.httpGet.scheme", handler.httpGet.scheme, ("HTTP", "HTTPS"))
    if handler.tcpSocket is not None:
        findings.port_or_name(f"{path}.tcpSocket.port", handler.tcpSocket.port)


def _ports(
    container: Container,
    path: str,
    host_network: bool,
    host_ports: set[tuple[str, str, int]],
    findings: Findings,
) -> None:
    taken: set[str] = set()
    for i, port in enumerate(container.ports):
        at = f"{path}.ports[{i}]"
        if port.containerPort:
            findings.port(f"{at}.containerPort", port.containerPort)
        else:
            findings.required(f"{at}.containerPort")
        findings.one_of(f"{at}.protocol", port.protocol, PROTOCOLS)
        if port.name:
            if wrong := names.port_name(port.name):
                findings.invalid(f"{at}.name", port.name, wrong)
            elif port.name in taken:
                findings.duplicate(f"{at}.name", port.name, "port names are unique in a container")
            taken.add(port.name)
        if port.hostIP:
            ip_address(port.hostIP, f"{at}.hostIP", findings)
        if not port.hostPort:
            continue
        findings.port(f"{at}.hostPort", port.hostPort)
        if host_network and port.hostPort != port.containerPort:
            findings.invalid(
                f"{at}.hostPort", port.hostPort, "must match `containerPort` when `hostNetwork` is true"
            )
        claim = (port.protocol, port.hostIP, port.hostPort)
        if claim in host_ports:
            findings.duplicate(f"{at}.hostPort", f"{port.protocol}/{port.hostIP}/{port.hostPort}")
        host_ports.add(claim)


def _resources(container: Container, path: str, findings: Findings) -> None:
    limits, requests = container.resources.limits, container.resources.requests
    found = {}
    for field, values in (("limits", limits), ("requests", requests)):
        for name, value in values.items():
            at = f"{path}.resources.{field}[{name}]"
            amount = found[field, name] = quantity(value)
            if amount is None:
                findings.invalid(at, value, QUANTITIES)
            elif amount < 0:
                findings.invalid(at, str(value), "must be greater than or equal to 0")
    for name, limit in limits.items():
        most, wanted = found["limits", name], found.get(("requests", name))
        if most is not None and wanted is not None and wanted > most:
            why = f"must be less than or equal to {name} limit of {limit}"
            findings.invalid(f"{path}.resources.requests", str(requests[name]), why)


def _one_of(kinds: Iterable[object], path: str, names: str, findings: Findings) -> None:
    """A hook or a probe is of one kind."""
    given = sum(kind is not None for kind in kinds)
    if not given:
        findings.required(path, "must specify a handler type", f"one of {names}")
    elif given > 1:
        findings.forbidden(path, "may not specify more than 1 handler type")


def _probe(probe: Probe, path: str, field: str, findings: Findings) -> None:
    kinds = (probe.exec, probe.httpGet, probe.tcpSocket, probe.grpc)
    _one_of(kinds, path, "exec, httpGet, tcpSocket, grpc", findings)
    _actions(probe, path, findings)
    if probe.grpc is not None:
        findings.port(f"{path}.grpc.port", probe.grpc.port)
    findings.at_least(f"{path}.initialDelaySeconds", probe.initialDelaySeconds, 0)
    for name in ("timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        findings.at_least(f"{path}.{name}", getattr(probe, name), 0)
    if field != "readinessProbe" and probe.successThreshold > 1:
        findings.invalid(f"{path}.successThreshold", probe.successThreshold, "must be 1")


def _toleration(toleration: Toleration, path: str, findings: Findings) -> None:
    operator = toleration.operator or "Equal"
    findings.one_of(f"{path}.operator", operator, ("Equal", "Exists"))
    if toleration.key:
        if wrong := names.label_key(toleration.key):
            findings.invalid(f"{path}.key", toleration.key, wrong)
    elif operator != "Exists":
        findings.invalid(
            f"{path}.operator",
            operator,
            'operator must be Exists when `key` is empty, which means "match all values and all keys"',
        )
    if operator == "Exists" and toleration.value:
        findings.invalid(f"{path}.value", toleration.value, "value must be empty when `operator` is 'Exists'")
    if operator == "Equal" and (wrong := names.label_value(toleration.value)):
        findings.invalid(f"{path}.value", toleration.value, wrong)
    if toleration.effect:
        findings.one_of(f"{path}.effect", toleration.effect, EFFECTS)


MUTABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
    "(allow it to be set to 1 if it was previously negative)"
)


def _update(old: Obj, new: Obj, findings: Findings) -> None:
    """What a change of a Pod's spec may not touch: everything but images, activeDeadlineSeconds, added
    tolerations, and a negative grace period that becomes 1."""
    before, after = old["spec"], new["spec"]
    if before == after:
        return
    for field in ("containers", "initContainers"):
        if len(before.get(field) or ()) != len(after.get(field) or ()):
            findings.forbidden(f"spec.{field}", "pod updates may not add or remove containers")
            return
    kept = [{k: v for k, v in t.items() if k != "tolerationSeconds"} for t in after.get("tolerations") or ()]
    for toleration in before.get("tolerations") or ():
        if {k: v for k, v in toleration.items() if k != "tolerationSeconds"} not in kept:
            why = "existing toleration can not be modified except its tolerationSeconds"
            findings.forbidden("spec.tolerations", why)
            break
    was, now = _frozen_part(before), _frozen_part(after)
    if was != now:
        changed = "\n".join(_difference(was, now, ""))
        findings.forbidden(
            "spec",
            f"pod updates may not change fields other than {MUTABLE}\n{changed}\n",
            "delete the pod and create it anew",
        )


def _difference(old: object, new: object, path: str) -> Iterator[str]:
    """What has gone (-) and what is new (+), field by field."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            if old.get(key) != new.get(key):
                yield from _difference(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (one, other) in enumerate(zip(old, new, strict=True)):
            if one != other:
                yield from _difference(one, other, f"{path}[{i}]")
    else:
        for sign, value in (("-", old), ("+", new)):
            if value is not None:
                yield f"{sign} {path}: {shown(value)}"


def _frozen_part(spec: Obj) -> Obj:
    frozen = {k: v for k, v in spec.items() if k not in ("activeDeadlineSeconds", "tolerations")}
    for field in ("containers", "initContainers"):
        if field in frozen:
            frozen[field] = [
                {k: v for k, v in c.items() if k not in ("image", "imagePullPolicy")} for c in frozen[field]
            ]
    if frozen.get("terminationGracePeriodSeconds") == 1:
        frozen["terminationGracePeriodSeconds"] = -1
    return frozen


class PodTemplateObject(AnyObject, frozen=True):
    """A PodTemplate."""

    template: PodTemplate | None = None


def _pod_template(view: PodTemplateObject, findings: Findings) -> None:
    if view.template is not None:
        findings.labels("template.labels", view.template.metadata.labels)
        pod_spec(view.template.spec, "template.spec", findings)


RULES: dict[str, Rule] = {
    "Pod": Rule(Pod, pod, update=_update),
    "PodTemplate": Rule(PodTemplateObject, _pod_template),
}
