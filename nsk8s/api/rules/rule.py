"""How the objects of a kind are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from nsk8s.api import names
from nsk8s.api.findings import Findings
from nsk8s.api.types import Obj, ObjectMeta, Struct


class AnyObject(Struct, frozen=True):
    """The part that objects of all kinds have; the view of a kind has its fields as well."""

    metadata: ObjectMeta = ObjectMeta()


class Rule(msgspec.Struct, frozen=True):
    """The `view` that a kind's fields must fit, what its names look like, what must hold for the view
    (`check`), what a change may not touch (`update`: the old and the new object, both defaulted), and what
    must hold for a status (`status`)."""

    view: type[Any] = AnyObject
    check: Callable[[Any, Findings], None] | None = None
    name: Callable[[str], str] = names.subdomain
    update: Callable[[Obj, Obj, Findings], None] | None = None
    status: Callable[[Any, Findings], None] | None = None


def frozen(old: Obj, new: Obj, path: str, findings: Findings, why: str = "field is immutable") -> None:
    """The field at a path of keys (``spec.selector``) must not change; absent and empty are the same."""
    before: Any = old
    after: Any = new
    for key in path.split("."):
        before = before.get(key) if isinstance(before, dict) else None
        after = after.get(key) if isinstance(after, dict) else None
    if (before or None) != (after or None):
        findings.invalid(path, after, why)
