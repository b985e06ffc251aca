"""The subresources of pods that change one part of them: ``binding``, ``ephemeralcontainers``, ``resize``
(pkg/registry/core/pod)."""

from __future__ import annotations

from typing import Any

from nsk8s.api.types import Obj
from nsk8s.cluster.patch import Json, json_patch, merge
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.scheduler import assigned
from nsk8s.cluster.strategic import strategic
from nsk8s.cluster.structure import UNTYPED, structure_of
from nsk8s.errors import ApiError, Problem

PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
EPHEMERAL = "spec.ephemeralContainers"


def bind(registry: Registry, namespace: str, name: str, binding: Obj) -> None:
    """Assign a pod to a node, as a scheduler does (BindingREST.assignPod). Raises `ApiError` 404, 409 where
    it is assigned already or on its way out, and 422."""
    target = binding.get("target")
    target = target if isinstance(target, dict) else {}
    problems = []
    if target.get("kind") not in (None, "", "Node"):
        what = f'Unsupported value: "{target["kind"]}": supported values: "Node", "<empty>"'
        problems.append(Problem("target.kind", what))
    if not isinstance(target.get("name"), str) or not target["name"]:
        problems.append(Problem("target.name", "Required value"))
    if problems:
        raise ApiError.invalid("Binding", name, problems)
    pod = registry.store.find("pods", namespace, name)
    meta, spec = pod["metadata"], pod["spec"]
    given = binding.get("metadata") or {}
    if given.get("uid") not in (None, "", meta["uid"]):
        why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {meta['uid']}"
        raise _conflict("pods/binding", name, why)
    if meta.get("deletionTimestamp"):
        raise _conflict("pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
        raise _conflict("pods/binding", name, why)
    if spec.get("schedulingGates"):
        raise _conflict("pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
    annotations = {**(meta.get("annotations") or {}), **(given.get("annotations") or {})}
    if annotations:
        pod = {**pod, "metadata": {**meta, "annotations": annotations}}
    bound = assigned(pod, target["name"], registry.store.now())
    registry.store.update("pods", bound, generation=False)


def add_containers(registry: Registry, new: Obj) -> Obj:
    """Add the ephemeral containers that `new`, the pod as it shall be, has more; all else stays as it is.
    Raises `ApiError` 404, 409 and 422."""
    old = _current(registry, new)
    before = {c["name"]: c for c in old["spec"].get("ephemeralContainers") or ()}
    wanted = (new.get("spec") or {}).get("ephemeralContainers") or []
    after = _checked(old, wanted)
    problems = []
    for name, container in before.items():
        if name not in after:
            what = f'Forbidden: existing ephemeral containers "{name}" may not be removed\n'
            problems.append(Problem(EPHEMERAL, what))
        elif any(after[name].get(field) != value for field, value in container.items()):
            what = f'Forbidden: existing ephemeral containers "{name}" may not be changed\n'
            problems.append(Problem(EPHEMERAL, what))
    if problems:
        raise ApiError.invalid("Pod", old["metadata"]["name"], problems)
    completed = [before.get(c["name"]) or _defaulted(c) for c in wanted]
    return registry.store.update("pods", {**old, "spec": {**old["spec"], "ephemeralContainers": completed}})


def patched(pod: Obj, patch: Json, media_type: str) -> Obj:
    """`pod` as a patch of this media type wants it. Raises `ApiError` 400, 415 and 422."""
    match media_type:
        case "application/json-patch+json":
            new = json_patch(pod, patch)
        case "application/merge-patch+json":
            new = merge(pod, patch)
        case "application/strategic-merge-patch+json":
            new = strategic(pod, patch, structure_of("v1", "Pod") or UNTYPED)
        case _:
            raise ApiError(
                415,
                "UnsupportedMediaType",
                f"the body of the request was in an unknown format - accepted media types include: "
                f"{', '.join(PATCHES)}",
            )
    if not isinstance(new, dict):
        raise ApiError(400, "BadRequest", "the patch does not leave an object")
    return new


def resize(registry: Registry, new: Obj) -> Obj:
    """Keep what `new` says of its containers' resources; nothing here limits them. Raises `ApiError` 404 and
    409."""
    old = _current(registry, new)
    spec = dict(old["spec"])
    for field in ("containers", "initContainers"):
        given = {c.get("name"): c for c in (new.get("spec") or {}).get(field) or () if isinstance(c, dict)}
        if field in spec:
            spec[field] = [_resized(c, given.get(c["name"], c)) for c in spec[field]]
    return registry.store.update("pods", {**old, "spec": spec})


def _current(registry: Registry, new: Obj) -> Obj:
    """The stored pod of which `new` is a newer state."""
    meta = new["metadata"]
    old = registry.store.find("pods", meta.get("namespace", ""), meta["name"])
    version = meta.get("resourceVersion")
    if version and version != old["metadata"]["resourceVersion"]:
        why = "the object has been modified; please apply your changes to the latest version and try again"
        raise _conflict("pods", meta["name"], why)
    return old


def _checked(pod: Obj, wanted: Any) -> dict[str, Obj]:  # noqa: ANN401  # any JSON
    """The wanted ephemeral containers by name. Raises `ApiError` 422."""
    spec = pod["spec"]
    others = {c["name"] for field in ("initContainers", "containers") for c in spec.get(field) or ()}
    found: dict[str, Obj] = {}
    problems = []
    for index, container in enumerate(wanted if isinstance(wanted, list) else ()):
        at = f"{EPHEMERAL}[{index}]"
        given = container if isinstance(container, dict) else {}
        name, target = given.get("name"), given.get("targetContainerName")
        if not isinstance(name, str) or not name:
            problems.append(Problem(f"{at}.name", "Required value"))
            continue
        if name in found or name in others:
            problems.append(Problem(f"{at}.name", f'Duplicate value: "{name}"'))
        if not given.get("image"):
            problems.append(Problem(f"{at}.image", "Required value"))
        if target and target not in others:
            problems.append(Problem(f"{at}.targetContainerName", f'Not found: "{target}"'))
        for field in ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"):
            if given.get(field):
                what = "Forbidden: cannot be set for an Ephemeral Container"
                problems.append(Problem(f"{at}.{field}", what))
        found[name] = given
    if problems:
        raise ApiError.invalid("Pod", pod["metadata"]["name"], problems)
    return found


def _defaulted(container: Obj) -> Obj:
    """v1.SetDefaults_Container, for what an ephemeral container may have."""
    latest = ":" not in container["image"].rpartition("/")[2] or container["image"].endswith(":latest")
    return {
        **container,
        "resources": {},
        "terminationMessagePath": container.get("terminationMessagePath") or "/dev/termination-log",
        "terminationMessagePolicy": container.get("terminationMessagePolicy") or "File",
        "imagePullPolicy": container.get("imagePullPolicy") or ("Always" if latest else "IfNotPresent"),
    }


def _resized(container: Obj, given: Obj) -> Obj:
    kept = {k: v for k, v in container.items() if k not in ("resources", "resizePolicy")}
    return kept | {k: given[k] for k in ("resources", "resizePolicy") if k in given}


def _conflict(resource: str, name: str, why: str) -> ApiError:
    what = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return ApiError(409, "Conflict", what, kind=resource, name=name)
