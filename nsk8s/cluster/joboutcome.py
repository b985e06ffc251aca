"""Whether a Job has failed or is complete (syncJob of pkg/controller/job, success_policy.go): said at once,
though pods may still be on their way out."""

from __future__ import annotations

from nsk8s.api.types import Obj
from nsk8s.cluster import indexes
from nsk8s.cluster.jobpods import judged
from nsk8s.cluster.jobstate import JobState


def decide(job: JobState) -> None:
    """Say it, if it is so now; failures come before successes."""
    if job.over:
        return
    reason, message = _failure(job)
    if reason:
        job.say("FailureTarget", reason, message)
        return
    reason, message = _success(job)
    if reason:
        job.say("SuccessCriteriaMet", reason, message)


def _failure(job: JobState) -> tuple[str, str]:
    if job.verdict is not None:
        return "PodFailurePolicy", job.verdict.message
    waiting = (judged(job.spec, pod) for pod in job.waiting.values())
    failures = job.count("failed") + sum(verdict is None or verdict.action != "Ignore" for verdict in waiting)
    if failures > job.spec["backoffLimit"] or _past_limit(job):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    if _late(job):
        return "DeadlineExceeded", "Job was active longer than specified deadline"
    if job.per_index and (failed := job.indexes("failedIndexes")):
        most = job.spec.get("maxFailedIndexes")
        if most is not None and len(failed) > most:
            return (
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            )
        if len(failed | job.indexes("completedIndexes")) >= job.spec["completions"]:
            return "FailedIndexes", "Job has failed indexes"
    return "", ""


def _success(job: JobState) -> tuple[str, str]:
    if job.indexed and (succeeded := job.indexes("completedIndexes")):
        rules = (job.spec.get("successPolicy") or {}).get("rules") or ()
        for position, rule in enumerate(rules):
            if _matches(rule, succeeded):
                return "SuccessPolicy", f"Matched rules at index {position}"
    wanted, succeeded_pods = job.spec.get("completions"), job.count("succeeded")
    enough = succeeded_pods >= wanted if wanted is not None else succeeded_pods > 0 and not job.active
    return ("CompletionsReached", "Reached expected number of succeeded pods") if enough else ("", "")


def _matches(rule: Obj, succeeded: set[int]) -> bool:
    """Whether a rule of a successPolicy is met: by all the indexes that it names, or by as many of them (of
    any, if it names none) as it says."""
    count = rule.get("succeededCount")
    if rule.get("succeededIndexes") is None:
        return count is not None and len(succeeded) >= count
    named = indexes.parse(rule["succeededIndexes"])
    met = len(named & succeeded)
    return bool(named) and (met == len(named) or (count is not None and met >= count))


def _late(job: JobState) -> bool:
    limit, start = job.spec.get("activeDeadlineSeconds"), job.status.get("startTime")
    if limit is None or not start or job.spec.get("suspend"):
        return False
    left = limit - job.elapsed(start)
    if left > 0:
        job.due.append(job.now + left)
    return bool(left <= 0)


def _past_limit(job: JobState) -> bool:
    """Whether containers that are restarted in place have failed too often (pastBackoffLimitOnFailure)."""
    if job.spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        status.restartCount
        for pod in job.pods
        if pod.status.phase in ("Running", "Pending")
        for status in (*pod.status.initContainerStatuses, *pod.status.containerStatuses)
    )
    limit: int = job.spec["backoffLimit"]
    return restarts > 0 if limit == 0 else restarts >= limit
