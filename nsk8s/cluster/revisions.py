"""ControllerRevisions: the templates that a DaemonSet or StatefulSet has had, by which it is rolled back
(pkg/controller/history).

The data of a revision is the strategic merge patch that brings its template back: what ``kubectl rollout
undo`` sends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from nsk8s.api.selectors import matches
from nsk8s.api.types import Obj
from nsk8s.cluster.deployments import same, template_hash
from nsk8s.cluster.ownership import adopt, controller_of, owner_reference, selector_of
from nsk8s.cluster.store import Store

RESOURCE = "controllerrevisions.apps"
HASH = "controller-revision-hash"
"""Label of a pod: the revision that it is of."""


def history(store: Store, obj: Obj) -> list[Obj]:
    """The revisions of `obj`, the oldest first; those that nobody owns any more are adopted."""
    namespace, uid = obj["metadata"]["namespace"], obj["metadata"]["uid"]
    found = []
    selector, deleting = selector_of(obj), "deletionTimestamp" in obj["metadata"]
    for revision in store.list(RESOURCE, namespace):
        meta = revision["metadata"]
        owner = controller_of(revision)
        if owner is not None and owner["uid"] == uid:
            found.append(revision)
        elif owner is None and not deleting and matches(selector, meta.get("labels") or {}):
            found.append(adopt(store, RESOURCE, revision, obj))
    return sorted(found, key=lambda r: (r["revision"], r["metadata"]["name"]))


def current(store: Store, obj: Obj, revisions: list[Obj], label: str) -> Obj:
    """The revision with the template that `obj` has now, which is the last of `revisions` afterwards: made if
    there is none, renumbered if it has come back. `label` is what a revision carries its hash in."""
    template = {**obj["spec"]["template"], "$patch": "replace"}
    data = {"spec": {"template": _sorted(template)}}
    number = max((r["revision"] for r in revisions), default=0)
    found = next((r for r in reversed(revisions) if same(r["data"], data)), None)
    if found is None:
        found = _make(store, obj, data, label, number + 1)
    else:
        revisions.remove(found)
        if found["revision"] < number:
            found = store.update(RESOURCE, {**found, "revision": number + 1})
    revisions.append(found)
    return found


def template_of(revision: Obj) -> Obj:
    """The pod template that a revision keeps."""
    return {k: v for k, v in revision["data"]["spec"]["template"].items() if k != "$patch"}


def truncate(store: Store, obj: Obj, revisions: Sequence[Obj], live: Collection[str]) -> None:
    """Forget the oldest revisions beyond revisionHistoryLimit, but none whose name is in `live`."""
    old = [r for r in revisions if r["metadata"]["name"] not in live]
    for revision in old[: max(0, len(old) - obj["spec"].get("revisionHistoryLimit", 10))]:
        store.delete(RESOURCE, revision["metadata"]["namespace"], revision["metadata"]["name"])


def _make(store: Store, obj: Obj, data: Obj, label: str, number: int) -> Obj:
    meta, collisions = obj["metadata"], 0
    while True:
        hashed = template_hash(data, collisions)
        name = f"{meta['name']}-{hashed}"
        if store.get(RESOURCE, meta["namespace"], name) is None:
            break
        collisions += 1
    labels = (obj["spec"]["template"].get("metadata") or {}).get("labels") or {}
    made: Obj = {
        "name": name,
        "namespace": meta["namespace"],
        "labels": {**labels, label: hashed},
        "ownerReferences": [owner_reference(obj)],
    }
    if meta.get("annotations"):
        made["annotations"] = meta["annotations"]
    kind = {"apiVersion": "apps/v1", "kind": "ControllerRevision"}
    return store.create(RESOURCE, {**kind, "metadata": made, "data": data, "revision": number})


def _sorted(value: Any) -> Any:  # noqa: ANN401  # any JSON
    """With keys in the order in which Go writes a map: kubectl compares the bytes."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value
