"""What a path of the Kubernetes API means: ``/api/v1/namespaces/default/pods/web/status``."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from nsk8s.api import selectors
from nsk8s.api.kinds import Kinds, Resource
from nsk8s.api.types import Obj
from nsk8s.errors import ApiError

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}


class Address(Struct, frozen=True):
    """A resource's objects: all of them (`namespace` None), those of a namespace, or the one called
    `name`; perhaps one of its subresources, and the path `tail` behind that (``proxy/a/b``)."""

    resource: Resource
    namespace: str | None
    name: str = ""
    subresource: str = ""
    tail: str = ""


def address(path: str, kinds: Kinds) -> Address | None:
    """The meaning of a path; None if it is not the path of a resource, or of a part of one."""
    words = [word for word in path.split("/") if word]
    if words[:1] == ["api"] and len(words) > 2:
        group, version, rest = "", words[1], words[2:]
    elif words[:1] == ["apis"] and len(words) > 3:
        group, version, rest = words[1], words[2], words[3:]
    else:
        return None
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and (group, version, rest[2]) in kinds.by_path:
        namespace, rest = rest[1], rest[2:]
    resource = kinds.by_path.get((group, version, rest[0]))
    if resource is None or (namespace is not None and not resource.namespaced):
        return None
    if not resource.namespaced:
        namespace = ""
    name = rest[1] if len(rest) > 1 else ""
    if name and namespace is None:
        return None  # an object of a namespace is found there only
    subresource = rest[2] if len(rest) > 2 else ""
    if len(rest) > 3 and subresource != "proxy":
        return None
    if subresource and resource.subresource(subresource) is None:
        return None
    return Address(resource, namespace, name, subresource, "/".join(rest[3:]))


def truth(query: Mapping[str, str], key: str) -> bool:
    """A boolean parameter, as Go's ParseBool reads it."""
    return query.get(key, "") in _TRUE


def number(query: Mapping[str, str], key: str, default: int = 0) -> int:
    """A whole number. Raises `ApiError` 400."""
    text = query.get(key, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ApiError(400, "BadRequest", f"{key}: {text!r} is not a whole number")
    return int(text)


class Filter(Struct, frozen=True):
    """Which of a resource's objects a list or a watch is about."""

    address: Address
    labels: selectors.Selector
    fields: selectors.FieldSelector
    stored_as: str
    everything: bool

    @classmethod
    def of(cls, address: Address, query: Mapping[str, str]) -> Filter:
        """From ``labelSelector`` and ``fieldSelector``. Raises `ApiError` 400."""
        labels = selectors.parse(query.get("labelSelector", ""))
        resource = address.resource
        known = resource.name if resource.name in selectors.FIELDS else resource.stored_as
        own = resource.selectable if resource.custom else None
        fields = selectors.fields(query.get("fieldSelector", ""), known, own)
        everything = address.namespace is None or not address.resource.namespaced
        if address.name or labels.requirements or fields.terms:
            everything = False
        return cls(address, labels, fields, address.resource.stored_as, everything)

    def passes(self, obj: Obj) -> bool:
        """Whether `obj` (of the resource) is one of them."""
        meta = obj["metadata"]
        where, name = self.address.namespace, self.address.name
        return (
            (where is None or meta.get("namespace", "") == where)
            and (not name or meta["name"] == name)
            and self.labels.matches(meta.get("labels"))
            and self.fields.matches(obj)
        )
