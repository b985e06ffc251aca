"""StatefulSets: pods with names that stay, made and removed one after the other (kube-controller-manager's
statefulset controller).

Every pod has an ordinal; it is made when all before it are available, and removed when all after it are gone,
unless the pods are managed in parallel. A pod that was deleted comes back under its name, with its claims.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from nsk8s.api.types import Obj, Pod
from nsk8s.cluster import revisions
from nsk8s.cluster.events import Recorder
from nsk8s.cluster.ownership import Claims, create_pod, from_template, owner_reference
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.revisions import HASH
from nsk8s.cluster.shares import share
from nsk8s.cluster.store import Change, Key, Store
from nsk8s.errors import ApiError

RESOURCE = "statefulsets.apps"
CLAIMS = "persistentvolumeclaims"
REVISION_HASH = "controller.kubernetes.io/hash"
"""Label of a revision."""
POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
RETRY = 5.0
"""Seconds until what could not be made is tried again."""


class _Plan(Struct):
    """One sync of a set: its pods by ordinal, those beyond its range, and its two revisions: the one that it
    comes from, and the one with its present template. `due` is when a pod will be available."""

    obj: Obj
    now: float
    pods: dict[int, Pod]
    condemned: list[int]
    current: Obj
    update: Obj
    due: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    @property
    def ordinals(self) -> range:
        """Those that the set should have."""
        spec = self.obj["spec"]
        start = (spec.get("ordinals") or {}).get("start", 0)
        return range(start, start + spec["replicas"])

    @property
    def ordered(self) -> bool:
        policy: str = self.obj["spec"]["podManagementPolicy"]
        return policy != "Parallel"

    def is_new(self, ordinal: int) -> bool:
        """Whether a pod that is made now has the new template (isCurrentRevisionNeeded)."""
        strategy = self.obj["spec"]["updateStrategy"]
        rolling = strategy.get("rollingUpdate") if strategy["type"] == "RollingUpdate" else None
        partition: int = (rolling or {}).get("partition", 0)
        return ordinal >= self.ordinals.start + partition

    @property
    def most_unavailable(self) -> int | None:
        """How many may be unavailable while the set is renewed, if it says so
        (getStatefulSetMaxUnavailable)."""
        rolling = self.obj["spec"]["updateStrategy"].get("rollingUpdate") or {}
        most = rolling.get("maxUnavailable")
        return None if most is None else max(1, share(most, self.obj["spec"]["replicas"], up=False))


class StatefulSets:
    """Makes, renews and removes the pods, in order, and counts them."""

    informers = frozenset({RESOURCE, "pods", "serviceaccounts"})

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._claims = Claims(store, RESOURCE, "StatefulSet")
        self._events = Recorder(store, "statefulset-controller")

    def touched(self, change: Change) -> Iterable[Key]:
        """Those whose pods may have changed."""
        return self._claims.touched(change)

    def sync(self, key: Key, now: float) -> float | None:
        """Bring the pods one step closer to what they should be, and write the status."""
        obj = self._store.get(*key)
        if obj is None:
            return None
        known = revisions.history(self._store, obj)
        deleting = bool(obj["metadata"].get("deletionTimestamp"))
        if deleting and not known:
            return None
        update = known[-1] if deleting else revisions.current(self._store, obj, known, REVISION_HASH)
        named = (obj.get("status") or {}).get("currentRevision")
        current = next((r for r in known if r["metadata"]["name"] == named), update)
        plan = self._look(obj, current, update, now)
        if not deleting:
            self._act(plan)
        plan = self._look(obj, current, update, now, plan.due)
        self._report(plan)
        live = {r["metadata"]["name"] for r in (current, update)}
        live |= {pod.metadata.labels.get(HASH, "") for pod in plan.pods.values()}
        revisions.truncate(self._store, obj, known, live)
        return min(plan.due, default=None)

    def _look(self, obj: Obj, current: Obj, update: Obj, now: float, due: Sequence[float] = ()) -> _Plan:
        parse = re.compile(re.escape(obj["metadata"]["name"]) + r"-(0|[1-9][0-9]*)").fullmatch
        pods = {}
        for pod in self._claims.pods(obj, lambda name: parse(name) is not None):
            if found := parse(pod.metadata.name):
                pods[int(found[1])] = pod
        plan = _Plan(obj, now, pods, [], current, update, list(due))
        plan.condemned = sorted((o for o in pods if o not in plan.ordinals), reverse=True)
        return plan

    # --- in order -----------------------------------------------------------------------------------

    def _act(self, plan: _Plan) -> None:
        for ordinal in plan.ordinals:
            if self._keep(plan, ordinal) and plan.ordered:
                return
        for ordinal in plan.condemned:
            if self._condemn(plan, ordinal) and plan.ordered:
                return
        if plan.obj["spec"]["updateStrategy"]["type"] == "RollingUpdate":
            self._roll(plan)

    def _keep(self, plan: _Plan, ordinal: int) -> bool:
        """Have the pod, as it should be; whether the others must wait for it (processReplica)."""
        pod = plan.pods.get(ordinal)
        if pod is None:
            self._make(plan, ordinal)
            return True
        if pod.terminal:
            if not pod.metadata.deletionTimestamp:
                self._delete(plan, pod)
            return True
        if not pod.metadata.deletionTimestamp:
            self._identify(pod, ordinal)
        return bool(pod.metadata.deletionTimestamp) or not self._available(plan, pod)

    def _condemn(self, plan: _Plan, ordinal: int) -> bool:
        """Remove a pod that is one too many; whether the others must wait for it (processCondemned)."""
        pod = plan.pods[ordinal]
        if pod.metadata.deletionTimestamp:
            return True
        every = (*plan.ordinals, *reversed(plan.condemned))
        first = next((o for o in every if o in plan.pods and not self._healthy(plan, plan.pods[o])), None)
        if plan.ordered and ordinal != first and not self._available(plan, pod):
            return True
        if _retention(plan.obj)["whenScaled"] == "Delete":
            self._hand_over(plan, pod)
        self._delete(plan, pod)
        return True

    def _roll(self, plan: _Plan) -> None:
        """Renew the pod with the highest ordinal that has an older template, once all above are well; or as
        many as may be unavailable at a time."""
        if (most := plan.most_unavailable) is not None:
            self._roll_together(plan, most)
            return
        for ordinal in reversed(plan.ordinals):
            pod = plan.pods.get(ordinal)
            if not plan.is_new(ordinal) or pod is None:
                return
            if pod.metadata.labels.get(HASH) != plan.update["metadata"]["name"]:
                if not pod.metadata.deletionTimestamp:
                    self._delete(plan, pod)
                return
            if not self._healthy(plan, pod):
                return

    def _roll_together(self, plan: _Plan, most: int) -> None:
        pods = [plan.pods.get(ordinal) for ordinal in plan.ordinals]
        left = most - sum(pod is None or not self._healthy(plan, pod) for pod in pods)
        for ordinal, pod in reversed([*zip(plan.ordinals, pods, strict=True)]):
            if left <= 0 or not plan.is_new(ordinal):
                return
            if pod is None or pod.metadata.deletionTimestamp:
                continue
            if pod.metadata.labels.get(HASH) != plan.update["metadata"]["name"]:
                self._delete(plan, pod)
                left -= 1

    def _healthy(self, plan: _Plan, pod: Pod) -> bool:
        return not pod.metadata.deletionTimestamp and self._available(plan, pod)

    def _available(self, plan: _Plan, pod: Pod) -> bool:
        if pod.status.phase != "Running":
            return False
        due = self._claims.patience.due(pod, plan.obj["spec"].get("minReadySeconds", 0), plan.now)
        if due is not None and due > plan.now:
            plan.due.append(due)
        return due is not None and due <= plan.now

    # --- pods ---------------------------------------------------------------------------------------

    def _make(self, plan: _Plan, ordinal: int) -> None:
        revision = plan.update if plan.is_new(ordinal) else plan.current
        pod = _pod(plan.obj, revision, ordinal)
        name = pod["metadata"]["name"]
        try:
            self._claim(plan, name)
            create_pod(self._store, pod)
        except ApiError as error:
            what = f"create Pod {name} in StatefulSet {plan.name} failed error: {error.message}"
            self._events.event(plan.obj, "Warning", "FailedCreate", what)
            plan.due.append(plan.now + RETRY)
            return
        what = f"create Pod {name} in StatefulSet {plan.name} successful"
        self._events.event(plan.obj, "Normal", "SuccessfulCreate", what)

    def _delete(self, plan: _Plan, pod: Pod) -> None:
        self._registry.delete("pods", pod.metadata.namespace, pod.metadata.name)
        what = f"delete Pod {pod.metadata.name} in StatefulSet {plan.name} successful"
        self._events.event(plan.obj, "Normal", "SuccessfulDelete", what)

    def _identify(self, pod: Pod, ordinal: int) -> None:
        """Give back the labels that say who a pod is."""
        wanted = {POD_NAME: pod.metadata.name, POD_INDEX: str(ordinal)}
        if wanted.items() <= pod.metadata.labels.items():
            return
        stored = self._store.find("pods", pod.metadata.namespace, pod.metadata.name)
        meta = stored["metadata"]
        labels = {**(meta.get("labels") or {}), **wanted}
        self._store.update("pods", {**stored, "metadata": {**meta, "labels": labels}})

    # --- claims -------------------------------------------------------------------------------------

    def _claim(self, plan: _Plan, pod: str) -> None:
        """Make the claims of a pod that are missing; they stay when it goes. No volume is ever bound."""
        namespace = plan.obj["metadata"]["namespace"]
        selector = (plan.obj["spec"].get("selector") or {}).get("matchLabels") or {}
        for template in plan.obj["spec"].get("volumeClaimTemplates") or ():
            meta = template["metadata"]
            name = f"{meta['name']}-{pod}"
            if self._store.get(CLAIMS, namespace, name) is not None:
                continue
            kept = {k: v for k, v in meta.items() if k in ("labels", "annotations")}
            made: Obj = {
                **kept,
                "name": name,
                "namespace": namespace,
                "labels": {**(meta.get("labels") or {}), **selector},
            }
            if _retention(plan.obj)["whenDeleted"] == "Delete":
                made["ownerReferences"] = [owner_reference(plan.obj)]
            claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": made}
            stored = self._store.create(
                CLAIMS, {**claim, "spec": template["spec"], "status": {"phase": "Pending"}}
            )
            what = f"create Claim {name} Pod {pod} in StatefulSet {plan.name} success"
            self._events.event(plan.obj, "Normal", "SuccessfulCreate", what)
            what = (
                "no volume is bound to this claim: its data is in a directory of this machine "
                "while the claim lives"
            )
            self._events.event(stored, "Normal", "NoVolume", what)

    def _hand_over(self, plan: _Plan, pod: Pod) -> None:
        """Let the claims of a pod go with it."""
        stored = self._store.find("pods", pod.metadata.namespace, pod.metadata.name)
        reference = {**owner_reference(stored), "controller": False}
        for template in plan.obj["spec"].get("volumeClaimTemplates") or ():
            name = f"{template['metadata']['name']}-{pod.metadata.name}"
            claim = self._store.get(CLAIMS, pod.metadata.namespace, name)
            if claim is not None:
                meta = {**claim["metadata"], "ownerReferences": [reference]}
                self._store.update(CLAIMS, {**claim, "metadata": meta})

    # --- how far ------------------------------------------------------------------------------------

    def _report(self, plan: _Plan) -> None:
        obj = self._store.find(RESOURCE, plan.obj["metadata"]["namespace"], plan.name)
        pods = plan.pods.values()
        staying = [pod.metadata.labels.get(HASH) for pod in pods if not pod.metadata.deletionTimestamp]
        current, update = (r["metadata"]["name"] for r in (plan.current, plan.update))
        ready = [pod for pod in pods if pod.ready and pod.status.phase == "Running"]
        counts = {
            "readyReplicas": len(ready),
            "currentReplicas": staying.count(current),
            "updatedReplicas": staying.count(update),
        }
        wanted = obj["spec"]["replicas"]
        complete = counts["updatedReplicas"] == counts["readyReplicas"] == len(pods) == wanted
        if obj["spec"]["updateStrategy"]["type"] == "RollingUpdate" and complete:
            current, counts["currentReplicas"] = update, counts["updatedReplicas"]
        status = {
            "observedGeneration": obj["metadata"]["generation"],
            "replicas": len(pods),
            **{name: count for name, count in counts.items() if count},
            "availableReplicas": sum(self._available(plan, pod) for pod in ready),
            "currentRevision": current,
            "updateRevision": update,
            "collisionCount": 0,
        }
        if obj.get("status") != status:
            self._store.update(RESOURCE, {**obj, "status": status}, generation=False)


def _retention(obj: Obj) -> dict[str, str]:
    given = obj["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return {"whenDeleted": "Retain", "whenScaled": "Retain", **given}


def _pod(obj: Obj, revision: Obj, ordinal: int) -> Obj:
    """The pod with that ordinal, of a revision's template."""
    template = revisions.template_of(revision)
    name = f"{obj['metadata']['name']}-{ordinal}"
    meta = template.get("metadata") or {}
    labels = {
        **(meta.get("labels") or {}),
        POD_INDEX: str(ordinal),
        HASH: revision["metadata"]["name"],
        POD_NAME: name,
    }
    claims = [claim["metadata"]["name"] for claim in obj["spec"].get("volumeClaimTemplates") or ()]
    spec = {**template["spec"], "hostname": name, "subdomain": obj["spec"].get("serviceName", "")}
    if not spec["subdomain"]:
        del spec["subdomain"]
    if claims:
        others = [v for v in spec.get("volumes") or () if v["name"] not in claims]
        bound = [{"name": c, "persistentVolumeClaim": {"claimName": f"{c}-{name}"}} for c in claims]
        spec["volumes"] = [*bound, *others]
    return from_template(obj, {**template, "metadata": {**meta, "labels": labels}, "spec": spec}, name=name)
