"""Jobs and CronJobs (`pkg/apis/batch/validation`), and the schedules of crontab(5) (robfig/cron)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nsk8s.api import names
from nsk8s.api.findings import Findings
from nsk8s.api.rules.pods import pod_spec
from nsk8s.api.rules.rule import AnyObject, Rule, frozen
from nsk8s.api.rules.workloads import label_selector
from nsk8s.api.selectors import matches
from nsk8s.api.types import LabelSelector, Obj, PodTemplate, Struct

CRON_JOB_NAME = 52
"""Characters of a CronJob's name: those of its jobs have 11 more."""


class JobSpec(Struct, frozen=True):
    """A JobSpec."""

    parallelism: int | None = None
    completions: int | None = None
    activeDeadlineSeconds: int | None = None
    backoffLimit: int | None = None
    ttlSecondsAfterFinished: int | None = None
    completionMode: str = "NonIndexed"
    manualSelector: bool = False
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
    if len(findings.problems) == before and not matches(selector, labels):
        why = "`selector` does not match template `labels`"
        findings.invalid("spec.template.metadata.labels", labels, why)


def _job_spec(spec: JobSpec, path: str, findings: Findings) -> None:
    for field in (
        *("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"),
    ):
        findings.at_least(f"{path}.{field}", getattr(spec, field), 0)
    findings.one_of(f"{path}.completionMode", spec.completionMode, ("Indexed", "NonIndexed"))
    if spec.completionMode == "Indexed" and spec.completions is None:
        findings.required(f"{path}.completions", "when completion mode is Indexed")
    findings.labels(f"{path}.template.labels", spec.template.metadata.labels)
    pod_spec(spec.template.spec, f"{path}.template.spec", findings)
    policy = spec.template.spec.restartPolicy
    if policy == "Always":
        findings.one_of(f"{path}.template.spec.restartPolicy", policy, ("OnFailure", "Never"))


def _job_update(old: Obj, new: Obj, findings: Findings) -> None:
    before, after = old["spec"], new["spec"]
    if before.get("completionMode") != "Indexed" or after.get("completions") != after.get("parallelism"):
        frozen(old, new, "spec.completions", findings)
    frozen(old, new, "spec.selector", findings)
    if not before.get("suspend") or (old.get("status") or {}).get("startTime"):
        frozen(old, new, "spec.template", findings)
    for field in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"):
        frozen(old, new, f"spec.{field}", findings)


def _cron_job(view: CronJob, findings: Findings) -> None:
    spec = view.spec
    if not spec.schedule:
        findings.required("spec.schedule")
    else:
        if wrong := schedule(spec.schedule):
            findings.invalid("spec.schedule", spec.schedule, wrong)
        if "TZ" in spec.schedule:
            why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            findings.invalid("spec.schedule", spec.schedule, why)
    if spec.timeZone == "":
        findings.invalid("spec.timeZone", "", "timeZone must be nil or non-empty string")
    elif spec.timeZone is not None and spec.timeZone.casefold() == "local":
        why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        findings.invalid("spec.timeZone", spec.timeZone, why)
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


# --- schedules --------------------------------------------------------------------------------------

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[int, int, Mapping[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: i + 1 for i, name in enumerate(_MONTHS)}),
    (0, 6, {name: i for i, name in enumerate(_DAYS)}),
)
"""Minute, hour, day of the month, month, day of the week: least, most, names."""
_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_is_duration = re.compile(r"([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+").fullmatch


def schedule(text: str) -> str:
    """What is wrong with a schedule, in the words of robfig/cron's ParseStandard; "" if nothing is."""
    if text.startswith("@"):
        if text in _DESCRIPTORS:
            return ""
        if text.startswith("@every "):
            every = _is_duration(text.removeprefix("@every "))
            return "" if every else f"failed to parse duration {text}"
        return f"unrecognized descriptor: {text}"
    fields = text.split()
    if fields and fields[0].startswith(("TZ=", "CRON_TZ=")):
        fields = fields[1:]
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for field, (least, most, words) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if wrong := _range(part, least, most, words):
                return wrong
    return ""


def _range(text: str, least: int, most: int, words: Mapping[str, int]) -> str:
    bounds, *steps = text.split("/")
    ends = bounds.split("-")
    if len(steps) > 1:
        return f"too many slashes: {text}"
    if len(ends) > 2:
        return f"too many hyphens: {text}"
    numbers = []
    for end in [] if ends[0] in ("*", "?") else ends:
        number = words.get(end.lower(), -1) if not end.isdecimal() else int(end)
        if number < 0:
            return f'failed to parse int from {end}: strconv.Atoi: parsing "{end}": invalid syntax'
        numbers.append(number)
    if steps and not steps[0].isdecimal():
        return f'failed to parse int from {steps[0]}: strconv.Atoi: parsing "{steps[0]}": invalid syntax'
    first, last = (numbers[0], numbers[-1]) if numbers else (least, most)
    if first < least:
        return f"beginning of range ({first}) below minimum ({least}): {text}"
    if last > most:
        return f"end of range ({last}) above maximum ({most}): {text}"
    if first > last:
        return f"beginning of range ({first}) beyond end of range ({last}): {text}"
    return f"step of range should be a positive number: {text}" if steps and int(steps[0]) == 0 else ""


RULES: dict[str, Rule] = {
    "Job": Rule(Job, _job, update=_job_update),
    "CronJob": Rule(CronJob, _cron_job, _cron_job_name),
}
