"""Events: what the control plane and the kubelets tell people (``kubectl describe``, ``kubectl events``).

Correlated as client-go does it (tools/record/events_cache.go, EventCorrelator): the same event again
only counts; from the tenth different message with one reason about one object within ten minutes on, they
are told as one, ``(combined from similar events): ...``; and one source may say 25 things about an object,
then one more every five minutes. Like the API server's etcd leases, `Expiry` forgets an event an hour after
it was last seen.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from nsk8s.api.types import Obj
from nsk8s.cluster.store import Change, Key, Store

RESOURCE = "events"

TTL = 3600.0
"""Seconds that an event is kept (kube-apiserver's --event-ttl)."""
MOST = 25_000
"""Events that are kept in all; beyond that the oldest go early."""

REMEMBERED = 4096
"""Objects that a recorder remembers (client-go's maxLruCacheEntries)."""
SIMILAR = 10
SIMILAR_INTERVAL = 600.0
"""Messages with one reason that are told one by one, within so many seconds."""
BURST = 25
REFILL = 300.0
"""Events about one object that may come at once, and seconds until there may be one more."""

Type = Literal["Normal", "Warning"]


def seconds(stamp: str) -> float:
    """An RFC 3339 time in seconds since the epoch."""
    return datetime.fromisoformat(stamp).timestamp()


class _Told:
    """What a recorder remembers of one object: `names` of its events by what they say, the messages of
    each reason and when the last came, and the tokens that are left."""

    __slots__ = ("at", "names", "similar", "tokens")

    def __init__(self, at: float) -> None:
        self.names: dict[tuple[str, ...], str] = {}
        self.similar: dict[tuple[str, str], tuple[set[str], float]] = {}
        self.tokens = float(BURST)
        self.at = at

    def accept(self, at: float) -> bool:
        """Take a token, if there is one."""
        self.tokens = min(float(BURST), self.tokens + (at - self.at) / REFILL)
        self.at = at
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def crowded(self, kind: tuple[str, str], message: str, at: float) -> bool:
        """Whether `message` is one of too many with the same type and reason."""
        messages, last = self.similar.get(kind, (None, at))
        if messages is None or at - last > SIMILAR_INTERVAL:
            messages = set()
        messages.add(message)
        self.similar[kind] = (messages, at)
        if len(messages) < SIMILAR:
            return False
        messages.discard(message)
        return True


class Recorder:
    """Records the events of one `component`. A scheduler speaks the newer events.k8s.io/v1 (`modern`):
    it tells when with ``eventTime``, and repetitions as a ``series``."""

    def __init__(self, store: Store, component: str, *, modern: bool = False) -> None:
        self._store = store
        self._component = component
        self._modern = modern
        self._told: dict[tuple[str, str], _Told] = {}
        self._clock = ("", 0.0)
        self._count = 0

    def event(
        self,
        involved: Obj,
        type_: Type,
        reason: str,
        message: str,
        *,
        host: str = "",
        field: str = "",
        action: str = "",
    ) -> None:
        """Something has happened to `involved`, an object as the store has it (a kubelet knows its Node only
        by name: its uid is that name). `host` is the node of the component; `field` the part of the object
        that it is about (``spec.containers{web}``); `action` what was being done, for modern events."""
        meta = involved["metadata"]
        namespace = meta.get("namespace") or "default"
        space = self._store.get("namespaces", "", namespace)
        if space is None or "deletionTimestamp" in space["metadata"]:
            return  # as forbidden as any other new content
        stamp = self._store.now()
        if stamp != self._clock[0]:
            self._clock = (stamp, seconds(stamp))
        at = self._clock[1]
        told = self._recall((meta["uid"], host), at)
        what: tuple[str, ...] = (type_, reason, field, message)
        if not self._modern:
            if told.crowded((type_, reason), message, at):
                message = f"(combined from similar events): {message}"
                what = (type_, reason)
            if not told.accept(at):
                return
        name = told.names.get(what)
        old = self._store.get(RESOURCE, namespace, name) if name else None
        if old is not None:
            self._store.update(RESOURCE, self._again(old, message, stamp), generation=False)
            return
        if len(told.names) >= 4 * BURST:
            told.names.clear()
        told.names[what] = name = self._name(namespace, meta["name"], at)
        source: Obj = {}
        if not self._modern:
            source["component"] = self._component
            if host:
                source["host"] = host
        self._store.create(
            RESOURCE,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": _reference(involved, field),
                "reason": reason,
                "message": message,
                "source": source,
                **self._times(stamp),
                "type": type_,
                **({"action": action} if action else {}),
                "reportingComponent": self._component,
                "reportingInstance": self._component if self._modern else host,
            },
        )

    def _recall(self, key: tuple[str, str], at: float) -> _Told:
        """What is remembered of an object; the least recently met are forgotten."""
        told = self._told.pop(key, None) or _Told(at)
        self._told[key] = told
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        return told

    def _name(self, namespace: str, about: str, at: float) -> str:
        """``<object>.<nanoseconds in hex>``; a counter stands for the nanoseconds within the second."""
        while True:
            self._count += 1
            name = f"{about}.{int(at) * 1_000_000_000 + self._count % 1_000_000_000:016x}"
            if self._store.get(RESOURCE, namespace, name) is None:
                return name

    def _times(self, stamp: str) -> Obj:
        if self._modern:
            return {"firstTimestamp": None, "lastTimestamp": None, "eventTime": micro(stamp)}
        return {"firstTimestamp": stamp, "lastTimestamp": stamp, "count": 1, "eventTime": None}

    def _again(self, old: Obj, message: str, stamp: str) -> Obj:
        if self._modern:
            count = (old.get("series") or {}).get("count", 1) + 1
            return {**old, "series": {"count": count, "lastObservedTime": micro(stamp)}}
        return {**old, "message": message, "count": old["count"] + 1, "lastTimestamp": stamp}


def _reference(involved: Obj, field: str) -> Obj:
    """`v1.ObjectReference`."""
    meta = involved["metadata"]
    reference: Obj = {"kind": involved["kind"], "name": meta["name"], "uid": meta["uid"]}
    if "namespace" in meta:
        reference["namespace"] = meta["namespace"]
    reference["apiVersion"] = involved["apiVersion"]
    if "resourceVersion" in meta:
        reference["resourceVersion"] = meta["resourceVersion"]
    if field:
        reference["fieldPath"] = field
    return reference


def micro(stamp: str) -> str:
    """A time as v1.MicroTime."""
    return f"{stamp.removesuffix('Z')}.000000Z"


def last_seen(event: Obj) -> str:
    """When an event was seen last, however it tells."""
    series: dict[str, Any] = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )


class Expiry:
    """Removes events that are an hour old, and the oldest of too many. A `Controller`."""

    informers = frozenset({RESOURCE})

    KEY = Key(RESOURCE, "", "")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fresh: dict[Key, str] = {}
        self._due: dict[Key, float] = {}
        self._queue: list[tuple[float, Key]] = []

    def touched(self, change: Change) -> Iterable[Key]:
        """The one and only key, when an event was seen."""
        if change.key.resource != RESOURCE:
            return ()
        if change.type == "DELETED":
            self._fresh.pop(change.key, None)
            self._due.pop(change.key, None)
            return ()
        self._fresh[change.key] = last_seen(change.new)
        return (self.KEY,)

    def sync(self, key: Key, now: float) -> float | None:
        """Forget what is old; returns when the next will be."""
        self._take_in(now)
        while self._queue and (self._queue[0][0] <= now or len(self._due) > MOST):
            due, oldest = heapq.heappop(self._queue)
            if self._due.get(oldest) == due:
                del self._due[oldest]
                if self._store.get(*oldest) is not None:
                    self._store.delete(*oldest)
        return self._queue[0][0] if self._queue else None

    def _take_in(self, now: float) -> None:
        stamp = self._store.now()
        for key, seen in self._fresh.items():
            due = now + TTL
            if seen != stamp:
                due -= max(0.0, self._age(stamp, seen))
            self._due[key] = due
            heapq.heappush(self._queue, (due, key))
        self._fresh.clear()

    @staticmethod
    def _age(stamp: str, seen: str) -> float:
        try:
            return seconds(stamp) - seconds(seen)
        except (ValueError, TypeError):  # an event that somebody else has written, with a time of its own
            return 0.0
