"""DaemonSets: one pod on every node that should have one (kube-controller-manager's daemon controller).

The pods are bound by the scheduler, each by an affinity to its node; taints that say that a node is not well
keep no daemon away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nsk8s.api.types import Node, Obj, Pod, Toleration
from nsk8s.cluster import revisions
from nsk8s.cluster.events import Recorder
from nsk8s.cluster.ownership import NAME_ROOM, Claims, create_pod, from_template
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.revisions import HASH
from nsk8s.cluster.scheduler import affine, tolerated
from nsk8s.cluster.shares import share
from nsk8s.cluster.store import Change, Key, Store, key_of
from nsk8s.cluster.strategies import TEMPLATE_GENERATION
from nsk8s.errors import ApiError

RESOURCE = "daemonsets.apps"
GENERATION = "pod-template-generation"
"""Label of a pod, from before there were revisions."""

_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
"""Taints that every daemon tolerates (AddOrUpdateDaemonPodTolerations)."""
_NO_NETWORK = ("node.kubernetes.io/network-unavailable", "NoSchedule")
"""... and one in its node's network."""


class _Fit(NamedTuple):
    """Whether a node should get the daemon, and whether it may keep it."""

    run: bool
    stay: bool


class _Here(NamedTuple):
    """A node's daemons that are not on their way out: with the newest template, and with an older one."""

    new: list[Pod]
    old: list[Pod]


class DaemonSets:
    """Makes and renews the pods, and counts them."""

    informers = frozenset({RESOURCE, "pods", "serviceaccounts", "nodes"})

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._claims = Claims(store, RESOURCE, "DaemonSet")
        self._events = Recorder(store, "daemonset-controller")

    def touched(self, change: Change) -> Iterable[Key]:
        """Those whose pods may have changed; all when there is another node, or other facts of one."""
        if change.key.resource == "nodes":
            old = _facets(change.old) if change.old is not None else None
            if change.type == "DELETED" or old != _facets(change.new):
                yield from (key_of(RESOURCE, obj) for obj in self._store.list(RESOURCE))
        else:
            yield from self._claims.touched(change)

    def sync(self, key: Key, now: float) -> float | None:
        """Give every node the pods it should have, renew some, and write the status."""
        obj = self._store.get(*key)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        known = revisions.history(self._store, obj)
        newest = revisions.current(self._store, obj, known, HASH)
        hashed = newest["metadata"]["labels"][HASH]
        nodes = {node.metadata.name: node for node in self._store.views("nodes") if isinstance(node, Node)}
        fits = {name: _fit(obj, node) for name, node in nodes.items()}
        pods = self._by_node(obj)
        if self._populate(obj, hashed, fits, pods, now):
            pods = self._by_node(obj)
        if obj["spec"]["updateStrategy"]["type"] == "RollingUpdate" and self._roll(
            obj, hashed, fits, pods, now
        ):
            pods = self._by_node(obj)
        live = {pod.metadata.labels.get(HASH) for here in pods.values() for pod in here}
        used = [r["metadata"]["name"] for r in known if r["metadata"]["labels"].get(HASH) in live]
        revisions.truncate(self._store, obj, known, {newest["metadata"]["name"], *used})
        return self._report(key, hashed, fits, pods, now)

    def _by_node(self, obj: Obj) -> dict[str, list[Pod]]:
        """The pods by the node that they run on or are meant for, on each the oldest first."""
        found: dict[str, list[Pod]] = {}
        for pod in self._claims.pods(obj):
            stored = self._store.find("pods", pod.metadata.namespace, pod.metadata.name)
            found.setdefault(pod.spec.nodeName or _target(stored), []).append(pod)
        for pods in found.values():
            pods.sort(key=lambda p: (not p.spec.nodeName, p.metadata.creationTimestamp, p.metadata.name))
        return found

    def _available(self, obj: Obj, pod: Pod, now: float) -> bool:
        due = self._claims.patience.due(pod, obj["spec"].get("minReadySeconds", 0), now)
        return due is not None and due <= now

    # --- which nodes --------------------------------------------------------------------------------

    def _populate(
        self, obj: Obj, hashed: str, fits: dict[str, _Fit], pods: dict[str, list[Pod]], now: float
    ) -> bool:
        """Make the pods that are missing and delete those that are too many (manage)."""
        missing, surplus = [], []
        for node, fit in fits.items():
            here = pods.get(node, [])
            if fit.run and not here:
                missing.append(node)
            elif fit.stay:
                surplus += self._surplus(obj, hashed, here, now)
            else:
                surplus += [pod for pod in here if not pod.metadata.deletionTimestamp]
        self._delete(obj, surplus)
        self._make(obj, hashed, missing)
        return bool(missing or surplus)

    def _surplus(self, obj: Obj, hashed: str, pods: Sequence[Pod], now: float) -> list[Pod]:
        """The daemons of a node that must go: those that have ended, and more than there should be."""
        running = []
        gone = []
        for pod in (p for p in pods if not p.metadata.deletionTimestamp):
            if not pod.terminal:
                running.append(pod)
                continue
            gone.append(pod)
            failed = pod.status.phase == "Failed"
            name, node = pod.metadata.name, pod.spec.nodeName
            what = f"Found {'failed' if failed else 'succeeded'} daemon pod {pod.metadata.namespace}/{name}"
            self._events.event(
                obj,
                "Warning" if failed else "Normal",
                "FailedDaemonPod" if failed else "SucceededDaemonPod",
                f"{what} on node {node}, will try to {'kill' if failed else 'delete'} it",
            )
        if len(running) <= 1:
            return gone
        if not _surge(obj, 1):
            return gone + running[1:]
        here = _split(running, hashed)
        gone += here.new[1:] + here.old[1:]
        if here.new and here.old:
            old, new = here.old[0], here.new[0]
            if not old.ready or self._available(obj, new, now):
                gone.append(old)
        return gone

    # --- from one template to the next ------------------------------------------------------------

    def _roll(
        self, obj: Obj, hashed: str, fits: dict[str, _Fit], pods: dict[str, list[Pod]], now: float
    ) -> bool:
        """Renew as many daemons as may be out of order, or doubled, at one time (rollingUpdate)."""
        wanted = sum(fit.run for fit in fits.values())
        surge = _surge(obj, wanted)
        here = {
            node: _split([p for p in pods[node] if not p.metadata.deletionTimestamp], hashed)
            for node in fits
            if node in pods
        }
        if surge:
            return self._double(obj, hashed, here, surge, now)
        rolling = obj["spec"]["updateStrategy"].get("rollingUpdate") or {}
        most = share(rolling.get("maxUnavailable", 1), wanted, up=True)
        broken: list[Pod] = []
        sound: list[Pod] = []
        for daemons in here.values():
            if len(daemons.old) == 1 and not daemons.new:
                (sound if self._available(obj, daemons.old[0], now) else broken).append(daemons.old[0])
            elif len(daemons.new) != 1 or daemons.old or not self._available(obj, daemons.new[0], now):
                most -= 1
        leaving = broken + sound[: max(0, most)]
        self._delete(obj, leaving)
        return bool(leaving)

    def _double(self, obj: Obj, hashed: str, here: dict[str, _Here], surge: int, now: float) -> bool:
        """New daemons beside the old ones, which go when the new ones are available."""
        leaving: list[Pod] = []
        urgent: list[str] = []
        others: list[str] = []
        for node, daemons in here.items():
            if len(daemons.old) > 1 or len(daemons.new) > 1:
                surge -= 1
            elif daemons.old and daemons.new:
                if not self._available(obj, daemons.old[0], now):
                    leaving.append(daemons.old[0])
                    continue
                surge -= 1
                if self._available(obj, daemons.new[0], now):
                    leaving.append(daemons.old[0])
            elif daemons.old:
                (others if self._available(obj, daemons.old[0], now) else urgent).append(node)
        beginning = urgent + others[: max(0, surge)]
        self._delete(obj, leaving)
        self._make(obj, hashed, beginning)
        return bool(leaving or beginning)

    # --- pods ---------------------------------------------------------------------------------------

    def _make(self, obj: Obj, hashed: str, nodes: Iterable[str]) -> None:
        for node in nodes:
            pod = _daemon(obj, hashed, node)
            try:
                made = create_pod(self._store, pod)
            except ApiError as error:
                self._events.event(obj, "Warning", "FailedCreate", f"Error creating: {error.message}")
                return
            self._events.event(obj, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")

    def _delete(self, obj: Obj, pods: Iterable[Pod]) -> None:
        for pod in pods:
            self._registry.delete("pods", pod.metadata.namespace, pod.metadata.name)
            self._events.event(obj, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

    def _report(
        self, key: Key, hashed: str, fits: dict[str, _Fit], pods: dict[str, list[Pod]], now: float
    ) -> float | None:
        obj = self._store.find(*key)
        first = {node: pods[node][0] for node in fits if pods.get(node)}
        wanted = {node for node, fit in fits.items() if fit.run}
        running = [pod for node, pod in first.items() if node in wanted]
        available, again = self._claims.patience.available(
            running, obj["spec"].get("minReadySeconds", 0), now
        )
        counts = {
            "updatedNumberScheduled": sum(pod.metadata.labels.get(HASH) == hashed for pod in running),
            "numberAvailable": available,
            "numberUnavailable": len(wanted) - available,
        }
        status = {
            "currentNumberScheduled": len(running),
            "numberMisscheduled": len(first) - len(running),
            "desiredNumberScheduled": len(wanted),
            "numberReady": sum(pod.ready for pod in running),
            "observedGeneration": obj["metadata"]["generation"],
            **{field: count for field, count in counts.items() if count},
        }
        if obj.get("status") != status:
            self._store.update(RESOURCE, {**obj, "status": status}, generation=False)
        return again


def _facets(node: Obj) -> tuple[object, object]:
    """What daemons look at in a Node."""
    return node["metadata"].get("labels"), (node.get("spec") or {}).get("taints")


def _split(pods: Iterable[Pod], hashed: str) -> _Here:
    here = _Here([], [])
    for pod in pods:
        (here.new if pod.metadata.labels.get(HASH) == hashed else here.old).append(pod)
    return here


def _surge(obj: Obj, wanted: int) -> int:
    """How many nodes may have two daemons at a time."""
    strategy = obj["spec"]["updateStrategy"]
    rolling = strategy.get("rollingUpdate") if strategy["type"] == "RollingUpdate" else None
    return share((rolling or {}).get("maxSurge", 0), wanted, up=True)


def _fit(obj: Obj, node: Node) -> _Fit:
    """Whether a node gets the daemon (NodeShouldRunDaemonPod)."""
    template = obj["spec"]["template"]["spec"]
    named = template.get("nodeName") or node.metadata.name
    if named != node.metadata.name or not affine(template, node):
        return _Fit(False, False)
    wants = _tolerations(template)
    bad = {
        taint.effect
        for taint in node.spec.taints
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerated(taint, wants)
    }
    return _Fit(not bad, "NoExecute" not in bad)


def _tolerations(template: Obj) -> tuple[Toleration, ...]:
    return tuple(
        Toleration(t.get("key", ""), t.get("operator", "Equal"), t.get("value", ""), t.get("effect", ""))
        for t in _with_tolerations(template)
    )


def _with_tolerations(template: Obj) -> list[Obj]:
    own: list[Obj] = template.get("tolerations") or []
    taints = (*_TOLERATED, _NO_NETWORK) if template.get("hostNetwork") else _TOLERATED
    added: list[Obj] = [{"effect": effect, "key": key, "operator": "Exists"} for key, effect in taints]
    return [t for t in own if t not in added] + added


def _daemon(obj: Obj, hashed: str, node: str) -> Obj:
    """The pod for a node."""
    template = obj["spec"]["template"]
    spec = template["spec"]
    affinity = spec.get("affinity") or {}
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    nodes = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
    }
    meta = template.get("metadata") or {}
    labels = {**(meta.get("labels") or {}), HASH: hashed}
    generation = (obj["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION)
    if generation is not None:
        labels[GENERATION] = generation
    given = {
        **spec,
        "affinity": {**affinity, "nodeAffinity": nodes},
        "tolerations": _with_tolerations(spec),
    }
    made = {**template, "metadata": {**meta, "labels": labels}, "spec": given}
    return from_template(obj, made, generateName=obj["metadata"]["name"][: NAME_ROOM - 1] + "-")


def _target(pod: Obj) -> str:
    """The node that a daemon without one is meant for."""
    required = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and len(field.get("values") or ()) == 1:
                return str(field["values"][0])
    return ""
