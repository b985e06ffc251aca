"""Who might select an object: the way back from labels to those whose selectors name them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nsk8s.cluster.store import Key


class SelectorIndex:
    """Keys of objects with a selector (Services, ReplicaSets), found by the labels of what they may
    select. Each is filed under one of its labels, so `candidates` may name some that do not match: to look
    once too often is cheap, to ask every selector about every pod is not."""

    def __init__(self) -> None:
        self._by_label: dict[tuple[str, str, str], dict[Key, None]] = {}
        self._filed: dict[Key, tuple[str, str, str]] = {}

    def put(self, key: Key, selector: Mapping[str, str]) -> None:
        """File `key` under its selector's last label (the hash, for those that have one). An empty
        selector is filed under none and found always."""
        label, value = max(selector.items(), default=("", ""))
        place = (key.namespace, label, value)
        if self._filed.get(key) == place:
            return
        self.drop(key)
        self._filed[key] = place
        self._by_label.setdefault(place, {})[key] = None

    def drop(self, key: Key) -> None:
        """Forget `key`."""
        place = self._filed.pop(key, None)
        if place is not None:
            keys = self._by_label[place]
            del keys[key]
            if not keys:
                del self._by_label[place]

    def candidates(self, namespace: str, labels: Mapping[str, str]) -> Iterator[Key]:
        """Those that may select an object with `labels`."""
        yield from self._by_label.get((namespace, "", ""), ())
        for label, value in labels.items():
            yield from self._by_label.get((namespace, label, value), ())
