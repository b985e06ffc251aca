"""The ``eviction`` subresource of pods: a deletion that PodDisruptionBudgets may refuse
(pkg/registry/core/pod/storage/eviction.go)."""

from __future__ import annotations

from nsk8s.api.types import Obj, Pod
from nsk8s.cluster.disruption import RESOURCE, conditions, covers
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Key
from nsk8s.errors import ApiError, Problem

MAX_DISRUPTED = 2000
"""Evictions that may be granted and not yet be deletions (MaxDisruptedPodSize)."""


def evict(registry: Registry, namespace: str, name: str, *, grace: int | None = None) -> None:
    """Evict a pod, with `grace` seconds to end. Raises `ApiError`: 404, 429 where a budget forbids it, 403
    and 500 where its budgets make no sense."""
    store = registry.store
    pod = store.find("pods", namespace, name)
    if not _ignorable(pod):
        _grant(registry, pod)
    registry.delete("pods", namespace, name, grace=grace)


def _ignorable(pod: Obj) -> bool:
    """Whether the pod disrupts nothing, for it has not begun, or is over (canIgnorePDB)."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or bool(pod["metadata"].get("deletionTimestamp"))


def _grant(registry: Registry, pod: Obj) -> None:
    """Take one of the disruptions that the pod's budget allows, and say so on the pod."""
    store, meta = registry.store, pod["metadata"]
    labels = meta.get("labels") or {}
    budgets = [pdb for pdb in store.list(RESOURCE, meta["namespace"]) if covers(pdb, labels)]
    if len(budgets) > 1:
        what = (
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
        raise ApiError(500, "InternalError", what)
    if not budgets:
        return
    pdb = budgets[0]
    status = pdb.get("status") or {}
    view = store.view(Key("pods", meta["namespace"], meta["name"]))
    assert isinstance(view, Pod)
    if not view.ready:
        if pdb["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
            return
        if status.get("currentHealthy", 0) >= status.get("desiredHealthy", 0) > 0:
            return
    _check(pdb)
    allowed = status["disruptionsAllowed"] - 1
    granted = {**(status.get("disruptedPods") or {}), meta["name"]: store.now()}
    new = {**status, "disruptionsAllowed": allowed, "disruptedPods": granted}
    if not allowed:
        new["conditions"] = conditions(status, allowed, pdb["metadata"]["generation"], store.now())
    store.update(RESOURCE, {**pdb, "status": new}, generation=False)


def _check(pdb: Obj) -> None:
    """Raise unless the budget allows a disruption (checkAndDecrement)."""
    name, status = pdb["metadata"]["name"], pdb.get("status") or {}
    if status.get("observedGeneration", 0) < pdb["metadata"]["generation"]:
        raise _too_many(f"The disruption budget {name} is still being processed by the server.")
    allowed = status.get("disruptionsAllowed", 0)
    if allowed < 0:
        raise _forbidden(name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or {}) > MAX_DISRUPTED:
        what = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise _forbidden(name, what)
    if not allowed:
        desired, healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        raise _too_many(
            f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        )


def _too_many(why: str) -> ApiError:
    return ApiError(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        causes=[Problem("", why, reason="DisruptionBudget")],
    )


def _forbidden(name: str, why: str) -> ApiError:
    what = f'poddisruptionbudget.policy "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", what, kind=RESOURCE, name=name)
