"""Jobs: pods that end, until enough of them have succeeded (kube-controller-manager's job and
ttl-after-finished controllers).

A pod of a Job carries a finalizer until it is counted, so that each is counted once however it ends. What a
Job has come to stands in its status; only how long to wait after failures is remembered, and found again from
the pods that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from nsk8s.api.types import Obj, Pod
from nsk8s.cluster.deletion import Deletion
from nsk8s.cluster.events import Recorder, seconds
from nsk8s.cluster.jobindexes import count_indexes, index_within, may_follow, patient
from nsk8s.cluster.joboutcome import decide
from nsk8s.cluster.jobpods import FINALIZER, JOB_NAME, ended, failed, index_of, job_pod, judged
from nsk8s.cluster.jobstate import JobState, condition, finished
from nsk8s.cluster.ownership import Claims, controller_of, create_pod
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Key, Store
from nsk8s.errors import ApiError

RESOURCE = "jobs.batch"
CONTROLLER = "kubernetes.io/job-controller"
"""spec.managedBy of the Jobs that are ours."""


class Jobs:
    """Makes the pods, counts them, and says what has become of it."""

    informers = frozenset({RESOURCE, "pods", "serviceaccounts"})

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._deletion = Deletion(store)
        self._claims = Claims(store, RESOURCE, "Job")
        self._failures: dict[str, tuple[int, float]] = {}
        self._events = Recorder(store, "job-controller")

    def touched(self, change: Change) -> Iterable[Key]:
        """Jobs, those of pods, and what has been a Job whose pods nobody counts any more."""
        key = change.key
        if key.resource == RESOURCE and change.type == "DELETED":
            self._failures.pop(change.new["metadata"]["uid"], None)
            yield key
        yield from self._claims.touched(change)
        if key.resource == "pods" and change.type != "DELETED" and _tracked(change.new):
            name = (change.new["metadata"].get("labels") or {}).get(JOB_NAME)
            owner = controller_of(change.new)
            if name and (owner is None or owner["kind"] == "Job"):
                yield Key(RESOURCE, key.namespace, name)

    def sync(self, key: Key, now: float) -> float | None:
        """Count what has ended, make or end pods, and write the status."""
        obj = self._store.get(*key)
        self._let_go(key, obj)
        if obj is None or obj["spec"].get("managedBy", CONTROLLER) != CONTROLLER:
            return None
        job = JobState(obj, self._claims.pods(obj), dict(obj.get("status") or {}), now, self._store.now())
        if finished(obj):
            self._count(job)
            return self._expire(job)
        self._failures.setdefault(obj["metadata"]["uid"], _found(job))
        if not job.status.get("startTime") and not job.spec.get("suspend"):
            job.status["startTime"] = job.stamp
        self._count(job)
        if not obj["metadata"].get("deletionTimestamp"):
            decide(job)
            if job.over and job.waiting:
                self._count(job)  # nobody succeeds them
            self._suspend(job)
            self._manage(job)
        job.pods = self._claims.pods(obj)
        self._conclude(job)
        self._report(key, job)
        if finished(self._store.find(*key)):
            return self._expire(job)
        return min(job.due, default=None)

    # --- counting -----------------------------------------------------------------------------------

    def _let_go(self, key: Key, obj: Obj | None) -> None:
        """Nobody will count the pods of a Job that is gone, or that are no longer its own."""
        uid = obj["metadata"]["uid"] if obj is not None else ""
        for pod in list(self._store.select("pods", key.namespace, {JOB_NAME: key.name})):
            owner = controller_of(pod)
            if _tracked(pod) and (owner is None or owner["uid"] != uid):
                other = owner is not None and self._store.get(RESOURCE, key.namespace, owner["name"])
                if not other:
                    self._untrack(pod)

    def _untrack(self, pod: Obj) -> None:
        meta = dict(pod["metadata"])
        meta["finalizers"] = [f for f in meta["finalizers"] if f != FINALIZER]
        if not meta["finalizers"]:
            del meta["finalizers"]
        self._deletion.finished("pods", self._store.update("pods", {**pod, "metadata": meta}))

    def _count(self, job: JobState) -> None:
        """Count the pods that have ended since the last time, each once."""
        uid = job.obj["metadata"]["uid"]
        tracked = []
        for pod in job.pods:
            stored = self._store.get("pods", pod.metadata.namespace, pod.metadata.name)
            if stored is not None and _tracked(stored):
                tracked.append((pod, stored))
        count_indexes(job, [pod for pod, _ in tracked])
        for pod, stored in tracked:
            if pod.status.phase == "Succeeded":
                if not job.indexed:
                    job.status["succeeded"] = job.count("succeeded") + 1
                self._failures[uid] = (0, job.now)
            elif failed(job.spec, pod):
                verdict = judged(job.spec, pod)
                if verdict is not None and verdict.action == "FailJob":
                    job.verdict = job.verdict or verdict
                if pod in job.waiting.values():
                    continue
                known = not job.indexed or index_within(job, pod) is not None
                if known and (verdict is None or verdict.action != "Ignore"):
                    job.status["failed"] = job.count("failed") + 1
                    count, _ = self._failures.get(uid, (0, 0.0))
                    self._failures[uid] = (count + 1, job.now)
            else:
                continue
            self._untrack(stored)

    # --- saying --------------------------------------------------------------------------------------

    def _suspend(self, job: JobState) -> None:
        """Follow spec.suspend, which puts the clock back."""
        suspended = condition(job.status, "Suspended") is not None
        if bool(job.spec.get("suspend")) is suspended:
            return
        if suspended:
            job.say("Suspended", "JobResumed", "Job resumed", "False")
            job.status["startTime"] = job.stamp
            self._events.event(job.obj, "Normal", "Resumed", "Job resumed")
        else:
            job.say("Suspended", "JobSuspended", "Job suspended")
            job.status.pop("startTime", None)
            self._events.event(job.obj, "Normal", "Suspended", "Job suspended")

    def _conclude(self, job: JobState) -> None:
        """Say the last word, when no pod runs any more."""
        if job.active or job.terminating:
            return
        if target := condition(job.status, "FailureTarget"):
            job.say("Failed", target["reason"], target["message"])
            self._events.event(job.obj, "Warning", target["reason"], target["message"])
        elif target := condition(job.status, "SuccessCriteriaMet"):
            job.say("Complete", target["reason"], target["message"])
            job.status["completionTime"] = job.stamp
            self._events.event(job.obj, "Normal", "Completed", "Job completed")

    # --- making -------------------------------------------------------------------------------------

    def _manage(self, job: JobState) -> None:
        """Have as many pods at work as there should be (manageJob)."""
        active = job.active
        if job.over or job.spec.get("suspend"):
            self._end(job, active)
            if active and job.has("FailureTarget"):
                job.status["failed"] = job.count("failed") + len(active)
            return
        parallel, wanted = job.spec["parallelism"], job.spec.get("completions")
        succeeded = job.count("succeeded")
        if wanted is None:
            most = len(active) if succeeded else parallel
        else:
            most = max(0, min(parallel, wanted - succeeded))
        if len(active) > most:
            self._end(job, sorted(active, key=lambda p: (p.ready, _newest(p)))[: len(active) - most])
            return
        busy = len(active)
        if job.spec.get("podReplacementPolicy") == "Failed":
            busy += len(job.terminating)
        if busy < most and self._may_begin(job):
            self._begin(job, most - busy)

    def _may_begin(self, job: JobState) -> bool:
        count, last = self._failures[job.obj["metadata"]["uid"]]
        return job.per_index or patient(job, count, last)

    def _begin(self, job: JobState, count: int) -> None:
        slots: Sequence[int | None] = [None] * count
        if job.indexed:
            busy = job.active if job.spec.get("podReplacementPolicy") != "Failed" else job.pods
            taken = {index_of(p) for p in busy if not p.terminal}
            taken |= job.indexes("completedIndexes") | job.indexes("failedIndexes")
            free = (i for i in range(job.spec["completions"]) if i not in taken)
            slots = [index for index in islice(free, count) if may_follow(job, index)]
        for index in slots:
            try:
                before = job.waiting.get(index) if index is not None else None
                made = create_pod(self._store, job_pod(job.obj, index, before))
            except ApiError as error:
                what = f"Error creating: {error.message}"
                self._events.event(job.obj, "Warning", "FailedCreate", what)
                return
            what = f"Created pod: {made['metadata']['name']}"
            self._events.event(job.obj, "Normal", "SuccessfulCreate", what)

    def _end(self, job: JobState, pods: Iterable[Pod]) -> None:
        for pod in pods:
            self._registry.delete("pods", pod.metadata.namespace, pod.metadata.name)
            stored = self._store.get("pods", pod.metadata.namespace, pod.metadata.name)
            if stored is not None and _tracked(stored):
                self._untrack(stored)  # it was not its own failure
            what = f"Deleted pod: {pod.metadata.name}"
            self._events.event(job.obj, "Normal", "SuccessfulDelete", what)

    # --- how far ------------------------------------------------------------------------------------

    def _report(self, key: Key, job: JobState) -> None:
        obj = self._store.find(*key)
        status = {k: v for k, v in job.status.items() if k not in ("active", "ready", "terminating")}
        if job.active:
            status["active"] = len(job.active)
        status["ready"] = sum(pod.ready for pod in job.active)
        status["terminating"] = len(job.terminating)
        status["uncountedTerminatedPods"] = {}
        if obj.get("status") != status:
            self._store.update(RESOURCE, {**obj, "status": status}, generation=False)

    def _expire(self, job: JobState) -> float | None:
        """Delete a Job some time after its end, if it says so."""
        stored = self._store.find(RESOURCE, job.obj["metadata"]["namespace"], job.obj["metadata"]["name"])
        limit, end = stored["spec"].get("ttlSecondsAfterFinished"), finished(stored)
        if limit is None or end is None or stored["metadata"].get("deletionTimestamp"):
            return None
        left = limit - job.elapsed(end["lastTransitionTime"])
        if left > 0:
            return float(job.now + left)
        meta = stored["metadata"]
        self._registry.delete(RESOURCE, meta["namespace"], meta["name"], propagation="Foreground")
        return None


def _tracked(pod: Obj) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def _found(job: JobState) -> tuple[int, float]:
    """How many failures there have been since the last success, and when the last was, from the pods."""
    over = [pod for pod in job.pods if pod.terminal]
    ends = sorted((ended(pod) or job.stamp, pod.status.phase == "Failed") for pod in over)
    count = 0
    last = job.now
    for stamp, bad in ends:
        count = count + 1 if bad else 0
        last = job.now - job.elapsed(stamp)
    return count, last


def _newest(pod: Pod) -> float:
    return -seconds(pod.metadata.creationTimestamp)
