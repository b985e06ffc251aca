"""Jobs and CronJobs (`pkg/apis/batch/validation`)."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import msgspec

from nsk8s.api import names, schedules
from nsk8s.api.findings import Findings
from nsk8s.api.rules.jobpolicies import PodFailurePolicy, SuccessPolicy, failure_policy, success_policy
from nsk8s.api.rules.pods import pod_spec
from nsk8s.api.rules.rule import AnyObject, Rule, frozen
from nsk8s.api.rules.workloads import label_selector
from nsk8s.api.selectors import matches
from nsk8s.api.types import LabelSelector, Obj, PodTemplate, Struct

CRON_JOB_NAME = 52
"""Characters of a CronJob's name: those of its jobs have 11 more."""
MOST_INDEXES = 100_000
"""Of an Indexed Job: how many may run at a time and fail, and the completions from which on ..."""
MOST_OF_MANY = 10_000
"""... no more than that many may run at a time and fail."""


class JobSpec(Struct, frozen=True):
    """A JobSpec."""

    parallelism: int | None = None
    completions: int | None = None
    activeDeadlineSeconds: int | None = None
    backoffLimit: int | None = None
    backoffLimitPerIndex: int | None = None
    maxFailedIndexes: int | None = None
    ttlSecondsAfterFinished: int | None = None
    completionMode: str = "NonIndexed"
    manualSelector: bool = False
    suspend: bool = False
    managedBy: str | None = None
    podReplacementPolicy: str | None = None
    podFailurePolicy: PodFailurePolicy | None = None
    successPolicy: SuccessPolicy | None = None
    selector: LabelSelector | None = None
    template: PodTemplate = PodTemplate()


class Job(AnyObject, frozen=True):
    """A Job."""

    spec: JobSpec = JobSpec()


class JobTemplate(Struct, frozen=True):
    """A JobTemplateSpec."""

    spec: JobSpec = JobSpec()


class CronJobSpec(Struct, frozen=True):
    """A CronJobSpec."""

    schedule: str = ""
    timeZone: str | None = None
    startingDeadlineSeconds: int | None = None
    concurrencyPolicy: str = "Allow"
    suspend: bool = False
    successfulJobsHistoryLimit: int | None = None
    failedJobsHistoryLimit: int | None = None
    jobTemplate: JobTemplate = JobTemplate()


class CronJob(AnyObject, frozen=True):
    """A CronJob."""

    spec: CronJobSpec = CronJobSpec()


def _job(view: Job, findings: Findings) -> None:
    _job_spec(view.spec, "spec", findings)
    selector, labels = view.spec.selector, view.spec.template.metadata.labels
    if selector is None:
        return
    before = len(findings.problems)
    label_selector(selector, "spec.selector", findings)
    manual = view.spec.manualSelector  # else it is made, and checked, when the object is stored
    if manual and len(findings.problems) == before and not matches(selector, labels):
        why = "`selector` does not match template `labels`"
        findings.invalid("spec.template.metadata.labels", labels, why)


def _job_spec(spec: JobSpec, path: str, findings: Findings) -> None:
    for field in (
        *("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"),
        *("backoffLimitPerIndex", "maxFailedIndexes"),
    ):
        findings.at_least(f"{path}.{field}", getattr(spec, field), 0)
    if spec.maxFailedIndexes is not None and spec.backoffLimitPerIndex is None:
        findings.required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    findings.one_of(f"{path}.completionMode", spec.completionMode, ("NonIndexed", "Indexed"))
    if spec.completionMode == "Indexed":
        _indexed(spec, path, findings)
    elif spec.completionMode == "NonIndexed":
        for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if (given := getattr(spec, field)) is not None:
                findings.invalid(f"{path}.{field}", given, "requires indexed completion mode")
    containers = (*spec.template.spec.containers, *spec.template.spec.initContainers)
    if spec.podFailurePolicy is not None:
        named = {container.name for container in containers}
        per_index = spec.backoffLimitPerIndex is not None
        failure_policy(spec.podFailurePolicy, f"{path}.podFailurePolicy", named, per_index, findings)
    if spec.successPolicy is not None:
        if spec.completionMode != "Indexed":
            given = msgspec.to_builtins(spec.successPolicy)
            findings.invalid(f"{path}.successPolicy", given, "requires indexed completion mode")
        elif spec.completions is not None:
            success_policy(spec.successPolicy, f"{path}.successPolicy", spec.completions, findings)
    if spec.podReplacementPolicy is not None:
        supported = ("Failed",) if spec.podFailurePolicy is not None else ("Failed", "TerminatingOrFailed")
        findings.one_of(f"{path}.podReplacementPolicy", spec.podReplacementPolicy, supported)
    findings.labels(f"{path}.template.labels", spec.template.metadata.labels)
    pod_spec(spec.template.spec, f"{path}.template.spec", findings)
    policy = spec.template.spec.restartPolicy
    if policy == "Always":
        findings.required(f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    elif policy == "OnFailure" and spec.podFailurePolicy is not None:
        why = 'only "Never" is supported when podFailurePolicy is specified'
        findings.invalid(f"{path}.template.spec.restartPolicy", policy, why)


def _indexed(spec: JobSpec, path: str, findings: Findings) -> None:
    if spec.completions is None:
        findings.required(f"{path}.completions", "when completion mode is Indexed")
    parallelism, lost = spec.parallelism or 0, spec.maxFailedIndexes
    if parallelism > MOST_INDEXES:
        why = f"must be less than or equal to {MOST_INDEXES} when completion mode is Indexed"
        findings.invalid(f"{path}.parallelism", parallelism, why)
    if spec.completions is not None and lost is not None and lost > spec.completions:
        findings.invalid(f"{path}.maxFailedIndexes", lost, "must be less than or equal to completions")
    if lost is not None and lost > MOST_INDEXES:
        findings.invalid(f"{path}.maxFailedIndexes", lost, f"must be less than or equal to {MOST_INDEXES}")
    if (spec.completions or 0) > MOST_INDEXES and spec.backoffLimitPerIndex is not None:
        why = f"must be less than or equal to {MOST_OF_MANY} when completions are above {MOST_INDEXES} and "
        why += "used with backoff limit per index"
        if lost is None:
            what = f"must be specified when completions is above {MOST_INDEXES}"
            findings.required(f"{path}.maxFailedIndexes", what)
        for field, given in (("parallelism", parallelism), ("maxFailedIndexes", lost or 0)):
            if given > MOST_OF_MANY:
                findings.invalid(f"{path}.{field}", given, why)


def _job_update(old: Obj, new: Obj, findings: Findings) -> None:
    before, after = old["spec"], new["spec"]
    if before.get("completionMode") != "Indexed" or after.get("completions") != after.get("parallelism"):
        frozen(old, new, "spec.completions", findings)
    frozen(old, new, "spec.selector", findings)
    if not before.get("suspend") or (old.get("status") or {}).get("startTime"):
        frozen(old, new, "spec.template", findings)
    for field in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        frozen(old, new, f"spec.{field}", findings)


def _cron_job(view: CronJob, findings: Findings) -> None:
    spec = view.spec
    if not spec.schedule:
        findings.required("spec.schedule")
    else:
        if wrong := _wrong_schedule(spec.schedule):
            findings.invalid("spec.schedule", spec.schedule, wrong)
        if "TZ" in spec.schedule:
            why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            findings.invalid("spec.schedule", spec.schedule, why)
    if spec.timeZone == "":
        findings.invalid("spec.timeZone", "", "timeZone must be nil or non-empty string")
    elif spec.timeZone is not None and spec.timeZone.casefold() == "local":
        why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        findings.invalid("spec.timeZone", spec.timeZone, why)
    elif spec.timeZone is not None and not _known(spec.timeZone):
        findings.invalid("spec.timeZone", spec.timeZone, f"unknown time zone {spec.timeZone}")
    for field in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        findings.at_least(f"spec.{field}", getattr(spec, field), 0)
    findings.one_of("spec.concurrencyPolicy", spec.concurrencyPolicy, ("Allow", "Forbid", "Replace"))
    job = spec.jobTemplate.spec
    _job_spec(job, "spec.jobTemplate.spec", findings)
    if job.selector is not None:
        findings.invalid("spec.jobTemplate.spec.selector", {}, "`selector` will be auto-generated")
    if job.manualSelector:
        findings.one_of("spec.jobTemplate.spec.manualSelector", "true", ("nil", "false"))


def _cron_job_name(name: str) -> str:
    if len(name) > CRON_JOB_NAME:
        return f"must be no more than {CRON_JOB_NAME} characters"
    return names.subdomain(name)


def _wrong_schedule(text: str) -> str:
    try:
        schedules.parse(text)
    except ValueError as error:
        return str(error)
    return ""


def _known(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (LookupError, ValueError, OSError):
        return False
    return True


RULES: dict[str, Rule] = {
    "Job": Rule(Job, _job, update=_job_update),
    "CronJob": Rule(CronJob, _cron_job, _cron_job_name),
}
