"""CronJobs: a Job whenever it is time (kube-controller-manager's cronjob controller, v2)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from nsk8s.api import schedules
from nsk8s.api.schedules import Schedule
from nsk8s.api.types import Obj
from nsk8s.cluster import jobs, jobstate
from nsk8s.cluster.events import Recorder
from nsk8s.cluster.ownership import controlled_by, controller_of, owner_reference
from nsk8s.cluster.registry import Registry
from nsk8s.cluster.store import Change, Key, Store
from nsk8s.errors import ApiError

RESOURCE = "cronjobs.batch"
SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
"""Annotation of a Job: the time it was for."""
TOO_MANY = 100
"""Missed times that are worth a warning."""
_WINDOWS = (timedelta(hours=2), timedelta(days=2), timedelta(days=62), timedelta(days=1830))
"""How far back to look for the last of many missed times, the nearest first."""


class CronJobs:
    """Begins Jobs, forgets old ones, and says which are at work."""

    informers = frozenset({RESOURCE, jobs.RESOURCE})

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._events = Recorder(store, "cronjob-controller")

    def touched(self, change: Change) -> Iterable[Key]:
        """CronJobs, and the owners of Jobs."""
        if change.key.resource == RESOURCE:
            if change.type != "DELETED":
                yield change.key
        elif change.key.resource == jobs.RESOURCE:
            owner = controlled_by(change.new, RESOURCE, "CronJob")
            if owner is not None:
                yield owner

    def sync(self, key: Key, now: float) -> float | None:
        """Begin a Job if it is time, and say when it will be next."""
        obj = self._store.get(*key)
        if obj is None:
            return None
        mine = self._jobs(obj)
        status = dict(obj.get("status") or {})
        self._look(obj, mine, status)
        self._forget(obj, mine)
        moment = datetime.fromisoformat(self._store.now())
        again: datetime | None = None
        if not obj["metadata"].get("deletionTimestamp") and not obj["spec"].get("suspend"):
            again = self._run(obj, status, moment)
        if not status.get("active"):
            status.pop("active", None)
        if (obj.get("status") or {}) != status:
            self._store.update(RESOURCE, {**self._store.find(*key), "status": status}, generation=False)
        return None if again is None else now + (again - moment).total_seconds()

    def _jobs(self, obj: Obj) -> dict[str, Obj]:
        """The Jobs it controls, by uid."""
        owned = self._store.owned(obj["metadata"]["uid"])
        found = [self._store.find(*key) for key in owned if key.resource == jobs.RESOURCE]
        return {job["metadata"]["uid"]: job for job in found if controller_of(job) is not None}

    # --- what has become of the Jobs ----------------------------------------------------------------

    def _look(self, obj: Obj, mine: dict[str, Obj], status: Obj) -> None:
        """Keep the list of those at work (syncCronJob)."""
        active: list[Obj] = list(status.get("active") or ())
        known = {ref["uid"] for ref in active}
        for uid, job in mine.items():
            end, name = jobstate.finished(job), job["metadata"]["name"]
            if uid not in known and end is None:
                what = f"Saw a job that the controller did not create or forgot: {name}"
                self._events.event(obj, "Warning", "UnexpectedJob", what)
            elif uid in known and end is not None:
                what = f"Saw completed job: {name}, condition: {end['type']}"
                self._events.event(obj, "Normal", "SawCompletedJob", what)
            if end is not None and end["type"] == "Complete":
                done = job["status"]["completionTime"]
                status["lastSuccessfulTime"] = max(done, status.get("lastSuccessfulTime", ""))
        left = []
        for ref in active:
            if ref["uid"] not in mine:
                what = f"Active job went missing: {ref['name']}"
                self._events.event(obj, "Normal", "MissingJob", what)
            elif jobstate.finished(mine[ref["uid"]]) is None:
                left.append(ref)
        status["active"] = left

    def _forget(self, obj: Obj, mine: dict[str, Obj]) -> None:
        """Delete the oldest Jobs that are over, beyond the limits of history."""
        for type_, limit in (
            ("Complete", obj["spec"].get("successfulJobsHistoryLimit", 3)),
            ("Failed", obj["spec"].get("failedJobsHistoryLimit", 1)),
        ):
            over = [
                job
                for job in mine.values()
                if (end := jobstate.finished(job)) is not None
                and end["type"] == type_
                and not job["metadata"].get("deletionTimestamp")
            ]
            over.sort(key=lambda job: ((job["status"].get("startTime") or ""), job["metadata"]["name"]))
            for job in over[: max(0, len(over) - limit)]:
                self._delete(obj, job)

    def _delete(self, obj: Obj, job: Obj) -> None:
        name = job["metadata"]["name"]
        self._registry.delete(jobs.RESOURCE, job["metadata"]["namespace"], name, propagation="Background")
        self._events.event(obj, "Normal", "SuccessfulDelete", f"Deleted job {name}")

    # --- when ---------------------------------------------------------------------------------------

    def _run(self, obj: Obj, status: Obj, moment: datetime) -> datetime | None:
        """Begin the Job of the last time that has passed; the next time after `moment`."""
        spec = obj["spec"]
        schedule, zone = schedules.parse(spec["schedule"]), _zone(spec)
        last = self._last(obj, status, schedule, zone, moment)
        again = schedule.after(moment, zone)
        if last is None:
            return again
        deadline = spec.get("startingDeadlineSeconds")
        if deadline is not None and last + timedelta(seconds=deadline) < moment:
            what = f"Missed scheduled time to start a job: {last.strftime('%a, %d %b %Y %H:%M:%S +0000')}"
            self._events.event(obj, "Warning", "MissSchedule", what)
            return again
        policy = spec.get("concurrencyPolicy", "Allow")
        if policy == "Forbid" and status["active"]:
            what = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._events.event(obj, "Normal", "JobAlreadyActive", what)
            return again
        if policy == "Replace":
            for ref in status["active"]:
                job = self._store.get(jobs.RESOURCE, ref["namespace"], ref["name"])
                if job is not None:
                    self._delete(obj, job)
            status["active"] = []
        self._begin(obj, status, last, zone)
        return again

    def _last(
        self, obj: Obj, status: Obj, schedule: Schedule, zone: tzinfo, moment: datetime
    ) -> datetime | None:
        """The last time until `moment` that nothing was begun for (mostRecentScheduleTime)."""
        earliest = datetime.fromisoformat(
            status.get("lastScheduleTime") or obj["metadata"]["creationTimestamp"]
        )
        deadline = obj["spec"].get("startingDeadlineSeconds")
        if deadline is not None:
            earliest = max(earliest, moment - timedelta(seconds=deadline))
        found = None
        at = schedule.after(earliest, zone)
        missed = 0
        while at is not None and at <= moment:
            found = at
            missed += 1
            if missed > TOO_MANY:
                what = (
                    "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check "
                    "clock skew"
                )
                self._events.event(obj, "Warning", "TooManyMissedTimes", what)
                return _latest(schedule, zone, max(found, earliest), moment)
            at = schedule.after(at, zone)
        return found

    def _begin(self, obj: Obj, status: Obj, at: datetime, zone: tzinfo) -> None:
        meta = obj["metadata"]
        template = obj["spec"]["jobTemplate"]
        given = template.get("metadata") or {}
        stamp = at.astimezone(zone).isoformat().replace("+00:00", "Z")
        name = f"{meta['name']}-{int(at.timestamp()) // 60}"
        job: Obj = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": meta["namespace"],
                "annotations": {**(given.get("annotations") or {}), SCHEDULED: stamp},
                "ownerReferences": [owner_reference(obj)],
            },
            "spec": template["spec"],
        }
        if given.get("labels"):
            job["metadata"]["labels"] = given["labels"]
        try:
            made = self._registry.create(job)
        except ApiError as error:
            found = self._store.get(jobs.RESOURCE, meta["namespace"], name)
            owner = controller_of(found) if found is not None else None
            if found is None or owner is None or owner["uid"] != meta["uid"]:
                self._events.event(obj, "Warning", "FailedCreate", f"Error creating job: {error.message}")
                return
            made = found
        else:
            self._events.event(obj, "Normal", "SuccessfulCreate", f"Created job {name}")
        if jobstate.finished(made) is None:
            status["active"] = [*status["active"], _reference(made)]
        status["lastScheduleTime"] = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _zone(spec: Obj) -> tzinfo:
    name = spec.get("timeZone")
    return ZoneInfo(name) if name else UTC


def _latest(schedule: Schedule, zone: tzinfo, known: datetime, moment: datetime) -> datetime:
    """The last time from `known`, itself one, until `moment`, without going through all."""
    for window in _WINDOWS:
        at = schedule.after(max(known, moment - window), zone)
        if at is not None and at <= moment:
            while at is not None and at <= moment:
                known, at = at, schedule.after(at, zone)
            break
    return known


def _reference(job: Obj) -> Obj:
    meta = job["metadata"]
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "name": meta["name"],
        "namespace": meta["namespace"],
        "resourceVersion": meta["resourceVersion"],
        "uid": meta["uid"],
    }
