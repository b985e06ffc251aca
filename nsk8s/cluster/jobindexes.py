"""The indexes of an Indexed Job: which are done, which have failed, and when one that may fail on its own
(backoffLimitPerIndex) is tried again (indexed_job_utils.go, backoff_utils.go of pkg/controller/job)."""

from __future__ import annotations

from collections.abc import Sequence

from nsk8s.api.types import Pod
from nsk8s.cluster import indexes
from nsk8s.cluster.jobpods import ended, failed, fails_index, failures_before, index_of
from nsk8s.cluster.jobstate import JobState

FIRST_BACKOFF, MAX_BACKOFF = 10.0, 600.0
"""Seconds until a failed pod is replaced: doubled with each failure after the last success."""


def index_within(job: JobState, pod: Pod) -> int | None:
    """The index of an Indexed Job's pod, if the Job has that."""
    index = index_of(pod)
    return index if index is not None and index < job.spec["completions"] else None


def count_indexes(job: JobState, pods: Sequence[Pod]) -> None:
    """Put down which indexes have succeeded and failed, and which failed pods are to be followed by another.
    `pods` are those that are not counted yet (getPodsWithDelayedDeletionPerIndex)."""
    if not job.indexed:
        return
    ended_now = [(index, pod) for pod in pods if (index := index_within(job, pod)) is not None]
    done = job.indexes("completedIndexes")
    done |= {index for index, pod in ended_now if pod.status.phase == "Succeeded"}
    if done or "succeeded" in job.status:
        job.status["succeeded"], job.status["completedIndexes"] = len(done), indexes.text(done)
    if not job.per_index:
        return
    failures = [(index, pod) for index, pod in ended_now if failed(job.spec, pod)]
    lost = job.indexes("failedIndexes")
    lost |= {index for index, pod in failures if fails_index(job.spec, pod)}
    job.status["failedIndexes"] = indexes.text(lost)
    job.waiting = {}
    if job.over or job.obj["metadata"].get("deletionTimestamp"):
        return
    settled = done | lost | {index_within(job, pod) for pod in job.active}
    for index, pod in sorted(failures, key=lambda one: (sum(failures_before(one[1])), _end_of(one[1]))):
        if index not in settled:
            job.waiting[index] = pod


def may_follow(job: JobState, index: int) -> bool:
    """Whether it is time for another pod of an index, each of which has a patience of its own."""
    before = job.waiting.get(index)
    if before is None:
        return True
    return patient(job, sum(failures_before(before)) + 1, job.now - job.elapsed(_end_of(before)))


def patient(job: JobState, failures: int, last: float) -> bool:
    """Whether enough time has passed since the last of some failures; else when it will have is due."""
    if not failures:
        return True
    at = last + min(MAX_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures - 1, 16))
    if at > job.now:
        job.due.append(at)
    return at <= job.now


def _end_of(pod: Pod) -> str:
    """When a pod has ended, as far as it tells (getFinishedTime)."""
    return ended(pod) or pod.metadata.deletionTimestamp or pod.metadata.creationTimestamp
