"""CustomResourceDefinitions: the kinds they add, and what becomes of their objects.

`Definitions` derives the cluster's kinds from the stored definitions, so that they are right after a
restart, a rollback and in the middle of an apply; `DefinitionsController` tells in their status what came of
them (apiextensions-apiserver's naming, establishing, non-structural-schema and finalizing controllers).
Versions of a custom resource differ in their apiVersion only (``conversion: None``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from nsk8s.api.bundled import BUNDLED
from nsk8s.api.customresources import resources_of
from nsk8s.api.kinds import Kinds, Resource
from nsk8s.api.openapi import Schema, structural
from nsk8s.api.types import Obj
from nsk8s.cluster.store import Change, Cursor, Key, Store

CRDS = "customresourcedefinitions.apiextensions.k8s.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""Finalizer of a definition: its objects are deleted before it."""


class Verdict(Struct, frozen=True):
    """Which of a definition's names are free: those it may use, and why not all, if so (`reason` and
    `message` of the condition NamesAccepted)."""

    names: Mapping[str, Any]
    reason: str = ""
    message: str = ""


class Definitions:
    """The kinds of a cluster: the built-in ones of `kinds`, and those of the definitions in the store."""

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store = store
        self._cursor = Cursor(store)
        self._kinds = kinds
        self._own = frozenset(kinds.by_name)
        self._verdicts: dict[str, Verdict] = {}
        self._schemas: dict[tuple[str, str], tuple[Obj, Schema]] = {}
        self._added: dict[str, tuple[Obj, list[Resource]]] = {}

    def kinds(self) -> Kinds:
        """All kinds, as of now."""
        changes = self._cursor.read()
        if changes is None or any(change.key.resource == CRDS for change in changes):
            self._refresh()
        return self._kinds

    def verdict(self, name: str) -> Verdict:
        """What came of the names of the definition `name`."""
        self.kinds()
        return self._verdicts[name]

    def version(self, resource: Resource) -> Obj:
        """What a definition says of a custom resource in its version: ``schema``, ``subresources``,
        ``additionalPrinterColumns``."""
        self.kinds()
        crd, _ = self._added[resource.name]
        found: Obj = next(v for v in crd["spec"]["versions"] if v["name"] == resource.version)
        return found

    def schema(self, resource: Resource) -> Schema:
        """The schema of a custom resource in its version."""
        crd, _ = self._added[resource.name]
        key = resource.name, resource.version
        known = self._schemas.get(key)
        if known is None or known[0] is not crd:
            given = self.version(resource).get("schema") or {}
            known = self._schemas[key] = crd, structural(given.get("openAPIV3Schema") or {})
        return known[1]

    def _refresh(self) -> None:
        crds = list(self._store.list(CRDS))
        self._verdicts = _verdicts(crds, self._kinds, self._own)
        wanted = {c["metadata"]["name"]: c for c in crds if not self._verdicts[c["metadata"]["name"]].reason}
        for name in [n for n in self._added if n not in wanted]:
            self._kinds.remove(name)
            del self._added[name]
        for name, crd in wanted.items():
            before = self._added.get(name)
            if before is not None and before[0] is crd:
                continue
            new = resources_of(crd)
            self._added[name] = crd, new
            if before is None or new != before[1]:
                if before is not None:
                    self._kinds.remove(name)
                for resource in new:
                    self._kinds.add(resource)


def bootstrap(store: Store) -> None:
    """Define what every cluster begins with, as its installer does, unless it is there, perhaps in the
    user's own version."""
    for crd in BUNDLED:
        if store.get(CRDS, "", crd["metadata"]["name"]) is None:
            store.create(CRDS, completed(crd))
    store.commit()


def completed(crd: Obj) -> Obj:
    """A new definition with the defaults of upstream's SetDefaults_CustomResourceDefinitionSpec, its
    finalizer and a status that says nothing yet."""
    spec = crd["spec"]
    names = {"listKind": f"{spec['names']['kind']}List", "singular": spec["names"]["kind"].lower()}
    names |= {k: v for k, v in spec["names"].items() if v != ""}
    meta = {**crd["metadata"], "finalizers": [*(crd["metadata"].get("finalizers") or ()), CLEANUP]}
    spec = {"conversion": {"strategy": "None"}, **spec, "names": names}
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    status = {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": [storage]}
    return {**crd, "metadata": meta, "spec": spec, "status": status}


def _verdicts(crds: Iterable[Obj], kinds: Kinds, own: frozenset[str]) -> dict[str, Verdict]:
    """First come, first served: names belong to who has had them accepted, then to who is older."""
    taken: dict[tuple[str, str], dict[str, str]] = {}
    for resource in (kinds.by_name[name] for name in own):
        words = taken.setdefault((resource.group, "words"), {})
        words.update(dict.fromkeys((resource.plural, resource.singular, *resource.short), resource.name))
        taken.setdefault((resource.group, "kinds"), {})[resource.kind] = resource.name
    found: dict[str, Verdict] = {}
    for crd in sorted(crds, key=_seniority):
        name, spec = crd["metadata"]["name"], crd["spec"]
        words = taken.setdefault((spec["group"], "words"), {})
        kinds_taken = taken.setdefault((spec["group"], "kinds"), {})
        accepted: dict[str, Any] = {}
        reason = message = ""
        for field, holders in (
            ("plural", words),
            ("singular", words),
            ("shortNames", words),
            ("kind", kinds_taken),
            ("listKind", kinds_taken),
        ):
            value = spec["names"].get(field)
            values = value if isinstance(value, list) else [value] if value else []
            used = [word for word in values if holders.get(word, name) != name]
            if used:
                reason = f"{field[0].upper()}{field[1:]}Conflict"
                message = ", ".join(f'"{word}" is already in use' for word in used)
                continue
            holders.update(dict.fromkeys(values, name))
            if value:
                accepted[field] = value
        if spec["names"].get("categories"):
            accepted["categories"] = spec["names"]["categories"]
        found[name] = Verdict(accepted, reason, message)
    return found


def _seniority(crd: Obj) -> tuple[bool, str, str]:
    meta = crd["metadata"]
    return not _true(crd, "Established"), meta["creationTimestamp"], meta["name"]


def _true(crd: Obj, type_: str) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c["type"] == type_ and c["status"] == "True" for c in conditions)


class DefinitionsController:
    """Keeps the status of definitions, and ends those that are deleted."""

    informers = None

    def __init__(self, store: Store, definitions: Definitions) -> None:
        self._store = store
        self._definitions = definitions

    def touched(self, change: Change) -> Iterable[Key]:
        """Every definition of a group whose names may have become free or taken; the definition of an
        object that has gone."""
        if change.key.resource == CRDS:
            group = change.new["spec"]["group"]
            for other in self._store.list(CRDS):
                if other["spec"]["group"] == group:
                    yield Key(CRDS, "", other["metadata"]["name"])
        elif change.type == "DELETED":
            crd = self._store.get(CRDS, "", change.key.resource)
            if crd is not None and crd["metadata"].get("deletionTimestamp"):
                yield Key(CRDS, "", change.key.resource)

    def sync(self, key: Key, now: float) -> float | None:
        """Bring the status of a definition in order, or delete its objects and then it."""
        crd = self._store.get(*key)
        if crd is None:
            return None
        ending = bool(crd["metadata"].get("deletionTimestamp"))
        status = self._status(crd, ending)
        if status != crd.get("status"):
            crd = self._store.update(CRDS, {**crd, "status": status}, generation=False)
        if ending and CLEANUP in (crd["metadata"].get("finalizers") or ()):
            self._end(crd)
        return None

    def _status(self, crd: Obj, ending: bool) -> Obj:
        verdict = self._definitions.verdict(crd["metadata"]["name"])
        status = dict(crd.get("status") or {})
        conditions = {c["type"]: c for c in status.get("conditions") or ()}

        def say(type_: str, true: bool, reason: str, message: str) -> None:
            old = conditions.get(type_)
            value = "True" if true else "False"
            same = old is not None and old["status"] == value
            since = old["lastTransitionTime"] if old and same else self._store.now()
            conditions[type_] = {
                "type": type_,
                "status": value,
                "lastTransitionTime": since,
                "reason": reason,
                "message": message,
            }

        if verdict.reason:
            say("NamesAccepted", False, verdict.reason, verdict.message)
            if not _true(crd, "Established"):
                say("Established", False, "NotAccepted", "not all names are accepted")
        else:
            say("NamesAccepted", True, "NoConflicts", "no conflicts found")
            say("Established", True, "InitialNamesAccepted", "the initial names have been accepted")
        if ending:
            say("Terminating", True, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
        stored = status.get("storedVersions") or []
        storage = next(v["name"] for v in crd["spec"]["versions"] if v.get("storage"))
        status["storedVersions"] = stored if storage in stored else [*stored, storage]
        status["acceptedNames"] = {"plural": "", "kind": "", **verdict.names}
        status["conditions"] = list(conditions.values())
        return status

    def _end(self, crd: Obj) -> None:
        """Delete the objects of a definition; once none is left, let it go."""
        name = crd["metadata"]["name"]
        for obj in list(self._store.list(name)):
            meta = obj["metadata"]
            if not meta.get("finalizers"):
                self._store.delete(name, meta.get("namespace", ""), meta["name"])
            elif not meta.get("deletionTimestamp"):
                marked = {**meta, "deletionTimestamp": self._store.now(), "deletionGracePeriodSeconds": 0}
                self._store.update(name, {**obj, "metadata": marked})
        if self._store.count(name):
            return
        meta = crd["metadata"]
        finalizers = [f for f in meta["finalizers"] if f != CLEANUP]
        if finalizers:
            self._store.update(CRDS, {**crd, "metadata": {**meta, "finalizers": finalizers}})
        else:
            self._store.delete(CRDS, "", name)
