"""What an API server fills in before it stores an object.

The values of Kubernetes' `pkg/apis/*/v1/defaults.go`, and of the admission plugins that every cluster
has (DefaultTolerationSeconds, Priority, ServiceAccount without its volume). Nothing is filled in inside of
lists that are replaced as a whole, such as the rules of a NetworkPolicy: who applies the same manifest
again would be told that it changes them. A null counts as absent and is dropped. The user's fields stay
as they are and where they are; defaults follow.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from nsk8s.api.defaults.fill import Fill
from nsk8s.api.kinds import BY_KIND
from nsk8s.api.types import Obj

_MODULES = ("pods", "workloads", "services", "storage", "cluster")


def default(obj: Obj) -> Obj:
    """`obj` as it is stored, with a namespace if its kind has one. Pure: `obj` is not changed, though the
    result may share parts of it. Fields of a wrong type are left for `validation` to find."""
    obj = without_nulls(obj)
    resource = BY_KIND.get((str(obj.get("apiVersion")), str(obj.get("kind"))))
    if resource is None:
        return obj
    if resource.namespaced and isinstance(meta := obj.get("metadata"), dict) and not meta.get("namespace"):
        obj = {**obj, "metadata": {**meta, "namespace": "default"}}
    fill = _kinds().get(resource.kind)
    return obj if fill is None else fill(obj)


@cache
def _kinds() -> dict[str, Fill]:
    found: dict[str, Fill] = {}
    for module in _MODULES:
        found |= import_module(f"{__name__}.{module}").KINDS
    return found


def without_nulls(obj: Obj) -> Obj:
    """`obj` without the null members of its mappings; the very same object if it has none."""
    new: Obj | None = None
    for key, item in obj.items():
        kept = _kept(item)
        if kept is not item or item is None:
            new = dict(obj) if new is None else new
            if item is None:
                del new[key]
            else:
                new[key] = kept
    return obj if new is None else new


def _kept(value: object) -> object:
    if type(value) is dict:
        return without_nulls(value)
    if type(value) is list:
        for position, item in enumerate(value):
            if (type(item) is dict or type(item) is list) and (kept := _kept(item)) is not item:
                return [*value[:position], kept, *map(_kept, value[position + 1 :])]
    return value
