"""One sync of a Job: its pods, and its status, which grows as it goes."""

from __future__ import annotations

from msgspec import Struct, field

from nsk8s.api.types import Obj, Pod
from nsk8s.cluster import indexes
from nsk8s.cluster.events import seconds
from nsk8s.cluster.jobpods import Verdict

OVER = ("FailureTarget", "SuccessCriteriaMet")
"""Conditions that say what will become of a Job when its last pod has ended."""


class JobState(Struct):
    """What a sync knows. `waiting` are the last pods of indexes that are to be tried again, which are counted
    when that is done: their successors carry on how often the index has failed. `due` is when to look again,
    `verdict` why a podFailurePolicy ends the Job."""

    obj: Obj
    pods: list[Pod]
    status: Obj
    now: float
    stamp: str
    due: list[float] = field(default_factory=list)
    verdict: Verdict | None = None
    waiting: dict[int, Pod] = field(default_factory=dict)

    @property
    def spec(self) -> Obj:
        """The Job's."""
        found: Obj = self.obj["spec"]
        return found

    @property
    def indexed(self) -> bool:
        """Whether each of its pods has an index."""
        return bool(self.spec.get("completionMode") == "Indexed")

    @property
    def per_index(self) -> bool:
        """Whether each index fails on its own."""
        return self.indexed and self.spec.get("backoffLimitPerIndex") is not None

    @property
    def over(self) -> bool:
        """Whether it is known what will become of it."""
        return any(self.has(type_) for type_ in OVER)

    @property
    def active(self) -> list[Pod]:
        """The pods at work."""
        return [p for p in self.pods if not p.terminal and not p.metadata.deletionTimestamp]

    @property
    def terminating(self) -> list[Pod]:
        """The pods that have been told to end."""
        return [p for p in self.pods if not p.terminal and p.metadata.deletionTimestamp]

    def count(self, name: str) -> int:
        """A number of the status."""
        return int(self.status.get(name, 0))

    def indexes(self, name: str) -> set[int]:
        """Indexes of the status (``completedIndexes``, ``failedIndexes``) that the Job still has."""
        return {i for i in indexes.parse(self.status.get(name, "")) if i < self.spec["completions"]}

    def elapsed(self, stamp: str) -> float:
        """Seconds since then."""
        return seconds(self.stamp) - seconds(stamp)

    def has(self, type_: str) -> bool:
        """Whether a condition is true."""
        return condition(self.status, type_) is not None

    def say(self, type_: str, reason: str, message: str, status: str = "True") -> None:
        """Add a condition, or turn it round."""
        others = [c for c in self.status.get("conditions") or () if c["type"] != type_]
        new = {
            "type": type_,
            "status": status,
            "lastProbeTime": self.stamp,
            "lastTransitionTime": self.stamp,
            "reason": reason,
            "message": message,
        }
        self.status["conditions"] = [*others, new]


def condition(status: Obj, type_: str) -> Obj | None:
    """The condition of that type, if it is true."""
    found: list[Obj] = status.get("conditions") or []
    return next((c for c in found if c["type"] == type_ and c["status"] == "True"), None)


def finished(obj: Obj) -> Obj | None:
    """The condition that says that a Job is over."""
    status = obj.get("status") or {}
    return condition(status, "Complete") or condition(status, "Failed")
