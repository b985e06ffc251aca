"""Which node a pod runs on (kube-scheduler, as far as a network cares).

Filters, in upstream's order: NodeUnschedulable, TaintToleration, NodeAffinity, NodePorts, and room for
another address in the node's pod CIDR. Among those left: least untolerated PreferNoSchedule taints, least
pods of the same owner, least pods, name. There is no CPU or memory to run out of, and no pod is
ever preempted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from nsk8s.api.selectors import holds
from nsk8s.api.topology import Topology
from nsk8s.api.types import Node, Obj, Pod, Requirement, Taint, Toleration
from nsk8s.cluster.events import Recorder
from nsk8s.cluster.ipam import room
from nsk8s.cluster.nodes import BRIDGE_PORTS
from nsk8s.cluster.ownership import controller_of
from nsk8s.cluster.store import Change, Key, Store

UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
"""The taint that a cordon means."""
CORDON = (UNSCHEDULABLE.key, UNSCHEDULABLE.effect)

NAME = "default-scheduler"
"""spec.schedulerName of the pods that are ours to bind."""

MISMATCH = "node(s) didn't match Pod's node affinity/selector"
CROWDED = ("node(s) didn't have free ports for the requested pod ports", "Too many pods")
"""Refusals that would not stand if another pod gave way."""

HostPort = tuple[str, str, int]
"""hostIP, protocol, port."""


class _Seat:
    """What a node has room for, and what is taken."""

    def __init__(self, node: Node) -> None:
        self.pods = 0
        self.addresses = 0
        self.owners: Counter[str] = Counter()
        self.ports: Counter[HostPort] = Counter()
        self.show(node)

    def show(self, node: Node) -> None:
        self.node = node
        self.name = node.metadata.name
        self.labels = node.metadata.labels
        self.room = min(BRIDGE_PORTS, room(node.spec.podCIDRs)) if node.spec.podCIDRs else BRIDGE_PORTS
        taints = tuple(t for t in node.spec.taints if (t.key, t.effect) != CORDON)
        hard = tuple(t for t in taints if t.effect in ("NoSchedule", "NoExecute"))
        self.hard = ((UNSCHEDULABLE,) if node.spec.unschedulable else ()) + hard
        self.soft = tuple(t for t in taints if t.effect == "PreferNoSchedule")


class _Claim:
    """What a bound pod takes of its node."""

    __slots__ = ("address", "node", "owner", "ports")

    def __init__(self, node: str, pod: Obj) -> None:
        owner = controller_of(pod)
        spec = pod["spec"]
        self.node = node
        self.owner: str = owner["uid"] if owner else ""
        self.ports = host_ports(spec)
        self.address = not spec.get("hostNetwork")


class Scheduler:
    """Binds pods to nodes; keeps count of what is taken."""

    informers = frozenset({"nodes", "pods"})

    def __init__(self, store: Store, topology: Topology) -> None:
        self._store = store
        self._seats: dict[str, _Seat] = {}
        self._claims: dict[Key, _Claim] = {}
        self._waiting: dict[Key, None] = {}
        self._events = Recorder(store, NAME, modern=True)

    def touched(self, change: Change) -> Iterable[Key]:
        """Pods without a node; all of those when a node changes or a pod makes room."""
        key = change.key
        if key.resource == "nodes":
            if change.old is None or change.type == "DELETED" or _facets(change.old) != _facets(change.new):
                self._see_node(change)
                yield from self._waiting
            return
        if key.resource != "pods":
            return
        if change.old is not None and change.old["metadata"]["uid"] != change.new["metadata"]["uid"]:
            self._free(key)
        node = change.new["spec"].get("nodeName")
        phase = (change.new.get("status") or {}).get("phase")
        if change.type == "DELETED" or phase in ("Succeeded", "Failed"):
            self._waiting.pop(key, None)
            if self._free(key):
                yield from self._waiting
        elif node:
            self._waiting.pop(key, None)
            if key not in self._claims:
                self._take(key, _Claim(node, change.new))
        elif not change.new["metadata"].get("deletionTimestamp") and _ours(change.new):
            self._waiting[key] = None
            yield key

    def sync(self, key: Key, now: float) -> float | None:
        """Bind a pod, or say why it cannot be."""
        pod = self._store.get(*key)
        if pod is None or pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
            return None
        if pod["spec"].get("schedulingGates"):
            gated = "Scheduling is blocked due to non-empty scheduling gates"
            self._refuse(pod, "SchedulingGated", gated)
            return None
        view = self._store.view(key)
        assert isinstance(view, Pod)
        claim = _Claim("", pod)
        reasons: Counter[str] = Counter()
        best: tuple[int, int, int, str] | None = None
        required = _required(pod["spec"])
        for seat in self._seats.values():
            reason = _refusal(seat, view, claim, required)
            if reason:
                reasons[reason] += 1
                continue
            soft = sum(not tolerated(t, view.spec.tolerations) for t in seat.soft) if seat.soft else 0
            crowd = seat.owners[claim.owner] if claim.owner else 0
            score = (soft, crowd, seat.pods, seat.name)
            if best is None or score < best:
                best = score
        if best is None:
            self._refuse(pod, "Unschedulable", _misfit(reasons, len(self._seats)))
            return None
        claim.node = best[3]
        self._take(key, claim)
        self._waiting.pop(key, None)
        bound = self._store.update("pods", assigned(pod, claim.node, self._store.now()), generation=False)
        what = f"Successfully assigned {key.namespace}/{key.name} to {claim.node}"
        self._events.event(bound, "Normal", "Scheduled", what, action="Binding")
        return None

    def _refuse(self, pod: Obj, reason: str, message: str) -> None:
        """Say why a pod has no node; in an event only when there is something new to say."""
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": None,
        }
        said = ""
        for old in (pod.get("status") or {}).get("conditions") or ():
            if old["type"] == "PodScheduled" and old["status"] == "False":
                condition["lastTransitionTime"] = old["lastTransitionTime"]
                said = old.get("message", "")
        condition.setdefault("lastTransitionTime", self._store.now())
        self._store.update("pods", _conditioned(pod, condition), generation=False)
        if said != message and reason != "SchedulingGated":
            self._events.event(pod, "Warning", "FailedScheduling", message, action="Scheduling")

    # --- counting -----------------------------------------------------------------------------------

    def _see_node(self, change: Change) -> None:
        name = change.key.name
        if change.type == "DELETED":
            self._seats.pop(name, None)
            return
        node = self._store.view(change.key)
        if not isinstance(node, Node):
            return  # deleted by a later change
        if name in self._seats:
            self._seats[name].show(node)
            return
        seat = self._seats[name] = _Seat(node)
        for claim in self._claims.values():
            if claim.node == name:
                _count(seat, claim, 1)

    def _take(self, key: Key, claim: _Claim) -> None:
        self._claims[key] = claim
        seat = self._seats.get(claim.node)
        if seat is not None:
            _count(seat, claim, 1)

    def _free(self, key: Key) -> bool:
        claim = self._claims.pop(key, None)
        if claim is None:
            return False
        seat = self._seats.get(claim.node)
        if seat is not None:
            _count(seat, claim, -1)
        return True


def _count(seat: _Seat, claim: _Claim, step: int) -> None:
    seat.pods += step
    seat.addresses += step * claim.address
    if claim.owner:
        seat.owners[claim.owner] += step
    for port in claim.ports:
        seat.ports[port] += step


def assigned(pod: Obj, node: str, now: str) -> Obj:
    """`pod` bound to `node`."""
    condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    return _conditioned({**pod, "spec": {**pod["spec"], "nodeName": node}}, condition)


def _ours(pod: Obj) -> bool:
    return (pod["spec"].get("schedulerName") or NAME) == NAME


def _misfit(reasons: Mapping[str, int], total: int) -> str:
    """FitError.Error(): reasons with their counts, sorted as text; then why preemption would not help."""
    if not reasons:
        return "no nodes available to schedule pods"
    verdicts: Counter[str] = Counter()
    for reason, count in reasons.items():
        unhelpful = "Preemption is not helpful for scheduling"
        verdicts["No preemption victims found for incoming pod" if reason in CROWDED else unhelpful] += count
    why, preemption = (
        ", ".join(sorted(f"{count} {what}" for what, count in counted.items()))
        for counted in (reasons, verdicts)
    )
    head = f"0/{total} nodes are available: "
    return f"{head}{why}. preemption: {head}{preemption}."


def _facets(obj: Obj) -> tuple[object, object]:
    """What scheduling looks at in a Node."""
    return obj["metadata"].get("labels"), obj.get("spec")


def _conditioned(pod: Obj, condition: Obj) -> Obj:
    status = pod.get("status") or {}
    others = [c for c in status.get("conditions") or () if c["type"] != condition["type"]]
    return {**pod, "status": {**status, "conditions": [*others, condition]}}


# --- filters ----------------------------------------------------------------------------------------


def _refusal(seat: _Seat, pod: Pod, claim: _Claim, required: list[Any] | None) -> str:
    """Why not this node, in the scheduler's words; "" if it may be."""
    if seat.hard:
        for taint in seat.hard:
            if not tolerated(taint, pod.spec.tolerations):
                if taint is UNSCHEDULABLE:
                    return "node(s) were unschedulable"
                return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
    if pod.spec.nodeSelector and not pod.spec.nodeSelector.items() <= seat.labels.items():
        return MISMATCH
    if required is not None and not any(_term(term, seat.name, seat.labels) for term in required):
        return MISMATCH
    if claim.ports and any(_conflict(port, seat.ports) for port in claim.ports):
        return CROWDED[0]
    if claim.address and seat.addresses >= seat.room:
        return CROWDED[1]
    return ""


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """Whether one of `tolerations` tolerates `taint` (v1.Toleration.ToleratesTaint)."""
    return any(
        (not t.effect or t.effect == taint.effect)
        and (t.key == taint.key or (not t.key and t.operator == "Exists"))
        and (t.operator == "Exists" or t.value == taint.value)
        for t in tolerations
    )


def host_ports(spec: Obj) -> tuple[HostPort, ...]:
    """The ports a pod takes of its node. With hostNetwork its container ports are host ports."""
    shared = spec.get("hostNetwork")
    return tuple(
        (port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", number)
        for container in spec.get("containers") or ()
        for port in container.get("ports") or ()
        if (number := port.get("hostPort") or (port.get("containerPort") if shared else 0))
    )


def _conflict(wanted: HostPort, taken: Mapping[HostPort, int]) -> bool:
    ip, protocol, port = wanted
    if ip != "0.0.0.0":
        return bool(taken.get(wanted) or taken.get(("0.0.0.0", protocol, port)))
    return any(count and key[1] == protocol and key[2] == port for key, count in taken.items())


def _required(spec: Obj) -> list[Any] | None:
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return None if affinity is None else affinity.get("nodeSelectorTerms") or []


def affine(spec: Obj, node: Node) -> bool:
    """Whether a pod's nodeSelector and required node affinity let it run on `node`."""
    labels, required = node.metadata.labels, _required(spec)
    if not (spec.get("nodeSelector") or {}).items() <= labels.items():
        return False
    return required is None or any(_term(term, node.metadata.name, labels) for term in required)


def _term(term: Obj, node: str, labels: Mapping[str, str]) -> bool:
    """A nodeSelectorTerm: all its expressions hold; an empty one matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    name = {"metadata.name": node}
    return all(_holds(e, labels) for e in expressions) and all(_holds(f, name) for f in fields)


def _holds(expression: Obj, labels: Mapping[str, str]) -> bool:
    values = tuple(expression.get("values") or ())
    return holds(Requirement(expression.get("key", ""), expression.get("operator", ""), values), labels)
