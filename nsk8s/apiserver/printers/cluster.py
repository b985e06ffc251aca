"""Nodes, namespaces and what is in every namespace; events; what extends the API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nsk8s.api.age import age
from nsk8s.api.types import Obj
from nsk8s.apiserver.printers.columns import (
    AGE,
    NAME,
    NONE,
    UNSET,
    Column,
    Printer,
    age_of,
    at,
    name_of,
    wide,
)

_ROLE = "node-role.kubernetes.io/"


def _node(obj: Obj, now: datetime) -> list[Any]:
    status = obj.get("status") or {}
    ready = next((c.get("status") for c in status.get("conditions") or () if c.get("type") == "Ready"), None)
    state = "Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"
    if at(obj, "spec", "unschedulable"):
        state += ",SchedulingDisabled"
    labels = obj["metadata"].get("labels") or {}
    roles = {k.removeprefix(_ROLE) for k in labels if k.startswith(_ROLE)} | {
        labels.get("kubernetes.io/role", "")
    }
    info = status.get("nodeInfo") or {}
    return [
        name_of(obj),
        state,
        ",".join(sorted(roles - {""})) or NONE,
        age_of(obj, now),
        info.get("kubeletVersion", ""),
        _address(status, "InternalIP"),
        _address(status, "ExternalIP"),
        *(info.get(f) or "<unknown>" for f in ("osImage", "kernelVersion", "containerRuntimeVersion")),
    ]


def _address(status: Obj, kind: str) -> str:
    return next((a["address"] for a in status.get("addresses") or () if a.get("type") == kind), NONE)


def _namespace(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), at(obj, "status", "phase") or "", age_of(obj, now)]


def _config_map(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age_of(obj, now)]


def _secret(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), obj.get("type", ""), len(obj.get("data") or ()), age_of(obj, now)]


def _service_account(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), len(obj.get("secrets") or ()), age_of(obj, now)]


def _quota(obj: Obj, now: datetime) -> list[Any]:
    hard, used = at(obj, "status", "hard") or {}, at(obj, "status", "used") or {}
    texts: dict[bool, list[str]] = {True: [], False: []}
    for name in sorted(hard):
        texts[name.startswith("limits.")].append(f"{name}: {used.get(name, '0')}/{hard[name]}")
    return [name_of(obj), ", ".join(texts[False]), ", ".join(texts[True]), age_of(obj, now)]


def _component(obj: Obj, now: datetime) -> list[Any]:
    healthy = next((c for c in obj.get("conditions") or () if c.get("type") == "Healthy"), None)
    if healthy is None:
        return [name_of(obj), "Unknown", "", ""]
    state = "Healthy" if healthy.get("status") == "True" else "Unhealthy"
    return [name_of(obj), state, healthy.get("message", ""), healthy.get("error", "")]


def _event(obj: Obj, now: datetime) -> list[Any]:
    about, source = obj.get("involvedObject") or {}, obj.get("source") or {}
    first = age(obj.get("firstTimestamp") or obj.get("eventTime"), now)
    last = age(obj["lastTimestamp"], now) if obj.get("lastTimestamp") else first
    count = obj.get("count") or 1
    if series := obj.get("series"):
        last, count = age(series.get("lastObservedTime"), now), series.get("count", 0)
    kind = about.get("kind", "").lower()
    component = source.get("component") or obj.get("reportingComponent") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return [
        last,
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{about['name']}" if about.get("name") else kind,
        about.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        obj.get("message", "").strip(),
        first,
        count,
        name_of(obj),
    ]


def _event_of_group(obj: Obj, now: datetime) -> list[Any]:
    """An event as events.k8s.io/v1 has it: the same, with other names."""
    renamed = {
        "involvedObject": "regarding",
        "message": "note",
        "source": "deprecatedSource",
        "firstTimestamp": "deprecatedFirstTimestamp",
        "lastTimestamp": "deprecatedLastTimestamp",
        "count": "deprecatedCount",
        "reportingComponent": "reportingController",
    }
    return _event({**obj, **{old: obj.get(new) or obj.get(old, "") for old, new in renamed.items()}}, now)


def _lease(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), at(obj, "spec", "holderIdentity") or "", age_of(obj, now)]


def _priority_class(obj: Obj, now: datetime) -> list[Any]:
    return [
        name_of(obj),
        obj.get("value", 0),
        bool(obj.get("globalDefault")),
        age_of(obj, now),
        obj.get("preemptionPolicy", ""),
    ]


def _runtime_class(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), obj.get("handler", ""), age_of(obj, now)]


def _api_service(obj: Obj, now: datetime) -> list[Any]:
    service = at(obj, "spec", "service")
    backend = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    available = next(
        (c for c in at(obj, "status", "conditions") or () if c.get("type") == "Available"),
        {"status": "Unknown"},
    )
    state = available.get("status", "")
    if state != "True" and available.get("reason"):
        state = f"{state} ({available['reason']})"
    return [name_of(obj), backend, state, age_of(obj, now)]


def _webhooks(obj: Obj, now: datetime) -> list[Any]:
    return [name_of(obj), len(obj.get("webhooks") or ()), age_of(obj, now)]


def _admission_policy(obj: Obj, now: datetime) -> list[Any]:
    kind = at(obj, "spec", "paramKind")
    about = f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else UNSET
    return [name_of(obj), len(at(obj, "spec", "validations") or ()), about, age_of(obj, now)]


def _admission_binding(obj: Obj, now: datetime) -> list[Any]:
    about = at(obj, "spec", "paramRef") or {}
    parameters = f"{about.get('namespace') or '*'}/{about['name']}" if about.get("name") else UNSET
    return [name_of(obj), at(obj, "spec", "policyName") or "", parameters, age_of(obj, now)]


def _flow_schema(obj: Obj, now: datetime) -> list[Any]:
    conditions = at(obj, "status", "conditions") or ()
    return [
        name_of(obj),
        at(obj, "spec", "priorityLevelConfiguration", "name") or "",
        at(obj, "spec", "matchingPrecedence") or 0,
        at(obj, "spec", "distinguisherMethod", "type") or NONE,
        age_of(obj, now),
        next((c.get("status") for c in conditions if c.get("type") == "Dangling"), "?"),
    ]


def _priority_level(obj: Obj, now: datetime) -> list[Any]:
    limited = at(obj, "spec", "limited") or {}
    queuing = at(limited, "limitResponse", "queuing") or {}
    return [
        name_of(obj),
        at(obj, "spec", "type") or "",
        limited.get("nominalConcurrencyShares", NONE),
        *(queuing.get(field, NONE) for field in ("queues", "handSize", "queueLengthLimit")),
        age_of(obj, now),
    ]


_EVENT = (
    Column("Last Seen", description="The time since it was seen last."),
    Column("Type", description="Normal or Warning."),
    Column("Reason", description="One word for programs."),
    Column("Object", description="What it is about."),
    *wide(
        Column("Subobject", description="The part of the object it is about."),
        Column("Source", description="Who has seen it, and on which node."),
    ),
    Column("Message", description="A sentence for people."),
    *wide(
        Column("First Seen", description="The time since it was seen first."),
        Column("Count", description="How often it was seen."),
        NAME,
    ),
)
_WEBHOOKS = (NAME, Column("Webhooks", "integer", "How many webhooks it registers."), AGE)

PRINTERS: dict[str, Printer] = {
    "nodes": Printer(
        (
            NAME,
            Column("Status", description="Whether it is ready, and open for new pods."),
            Column("Roles", description="What it is labelled to do."),
            AGE,
            Column("Version", description="The version of its kubelet."),
            *wide(
                Column("Internal-IP", description="Its address inside the cluster."),
                Column("External-IP", description="Its address outside the cluster."),
                Column("OS-Image", description="Its operating system."),
                Column("Kernel-Version", description="The release of its kernel."),
                Column("Container-Runtime", description="What runs its containers."),
            ),
        ),
        _node,
    ),
    "namespaces": Printer((NAME, Column("Status", description="Active or Terminating."), AGE), _namespace),
    "configmaps": Printer((NAME, Column("Data", description="How many keys it has."), AGE), _config_map),
    "secrets": Printer(
        (
            NAME,
            Column("Type", description="What kind of secret it is."),
            Column("Data", description="How many keys it has."),
            AGE,
        ),
        _secret,
    ),
    "serviceaccounts": Printer(
        (NAME, Column("Secrets", description="How many secrets its pods may use."), AGE), _service_account
    ),
    "resourcequotas": Printer(
        (
            NAME,
            Column("Request", description="What is used, of what may be."),
            Column("Limit", description="The limits used, of those allowed."),
            AGE,
        ),
        _quota,
    ),
    "componentstatuses": Printer(
        (
            NAME,
            Column("Status", description="Whether it is healthy."),
            Column("Message", description="What it says of itself."),
            Column("Error", description="What is wrong."),
        ),
        _component,
    ),
    "events": Printer(_EVENT, _event),
    "events.events.k8s.io": Printer(_EVENT, _event_of_group),
    "leases.coordination.k8s.io": Printer(
        (NAME, Column("Holder", description="Who holds the lease."), AGE), _lease
    ),
    "priorityclasses.scheduling.k8s.io": Printer(
        (
            NAME,
            Column("Value", "integer", "The priority of its pods."),
            Column("Global-Default", "boolean", "Whether pods without a class have this one."),
            AGE,
            Column("PreemptionPolicy", description="Whether its pods may take the place of others."),
        ),
        _priority_class,
    ),
    "runtimeclasses.node.k8s.io": Printer(
        (NAME, Column("Handler", description="The configuration of the container runtime."), AGE),
        _runtime_class,
    ),
    "apiservices.apiregistration.k8s.io": Printer(
        (
            NAME,
            Column("Service", description="The service that serves it."),
            Column("Available", description="Whether it can be reached."),
            AGE,
        ),
        _api_service,
    ),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": Printer(_WEBHOOKS, _webhooks),
    "validatingwebhookconfigurations.admissionregistration.k8s.io": Printer(_WEBHOOKS, _webhooks),
    "validatingadmissionpolicies.admissionregistration.k8s.io": Printer(
        (
            NAME,
            Column("Validations", "integer", "How many expressions it evaluates."),
            Column("ParamKind", description="The kind of its parameters."),
            AGE,
        ),
        _admission_policy,
    ),
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": Printer(
        (
            NAME,
            Column("PolicyName", description="The policy it binds."),
            Column("ParamRef", description="The parameters of the policy."),
            AGE,
        ),
        _admission_binding,
    ),
    "flowschemas.flowcontrol.apiserver.k8s.io": Printer(
        (
            NAME,
            Column("PriorityLevel", description="The level its requests belong to."),
            Column("MatchingPrecedence", description="The lowest number matches first."),
            Column("DistinguisherMethod", description="What tells its flows apart."),
            AGE,
            Column("MissingPL", description="Whether its level is missing."),
        ),
        _flow_schema,
    ),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": Printer(
        (
            NAME,
            Column("Type", description="Limited or Exempt."),
            Column("NominalConcurrencyShares", description="Its share of all concurrent requests."),
            Column("Queues", description="How many queues it has."),
            Column("HandSize", description="How many queues a flow is dealt."),
            Column("QueueLengthLimit", description="How many requests can wait in a queue."),
            AGE,
        ),
        _priority_level,
    ),
}
