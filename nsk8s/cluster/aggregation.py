"""Aggregated ClusterRoles: those whose rules are the rules of others, chosen by label
(kube-controller-manager's clusterrole-aggregation-controller)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from nsk8s.api.selectors import matches
from nsk8s.api.types import LabelSelector, Obj
from nsk8s.cluster.rbac import CLUSTER_ROLES
from nsk8s.cluster.store import Change, Key, Store


class Aggregation:
    """Writes the rules of ClusterRoles that have an aggregationRule."""

    informers = frozenset({CLUSTER_ROLES})

    def __init__(self, store: Store) -> None:
        self._store = store
        self._aggregated: dict[Key, None] = {}  # a set would change its order from run to run

    def touched(self, change: Change) -> Iterable[Key]:
        """Every aggregated ClusterRole, whenever any ClusterRole changes: there are few."""
        if change.key.resource != CLUSTER_ROLES:
            return ()
        if change.type != "DELETED" and change.new.get("aggregationRule"):
            self._aggregated[change.key] = None
        else:
            self._aggregated.pop(change.key, None)
        return tuple(self._aggregated)

    def sync(self, key: Key, now: float) -> float | None:
        """Collect the rules, in order of the roles' names, each once."""
        role = self._store.get(*key)
        if role is None or not role.get("aggregationRule"):
            return None
        rules: list[Obj] = []
        for selector in role["aggregationRule"].get("clusterRoleSelectors") or ():
            try:
                wanted = msgspec.convert(selector, LabelSelector)
            except msgspec.ValidationError:  # stored without being looked at; it selects nothing
                continue
            for other in self._store.list(CLUSTER_ROLES):
                meta = other["metadata"]
                if meta["name"] != key.name and matches(wanted, meta.get("labels") or {}):
                    rules += [rule for rule in other.get("rules") or () if rule not in rules]
        if rules != role.get("rules"):
            self._store.update(CLUSTER_ROLES, {**role, "rules": rules})
        return None
