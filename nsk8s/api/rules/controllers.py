"""DaemonSets, StatefulSets and ReplicationControllers (`pkg/apis/{apps,core}/validation`)."""

from __future__ import annotations

from msgspec.structs import replace

from nsk8s.api.findings import Findings
from nsk8s.api.rules.rule import AnyObject, Rule, frozen
from nsk8s.api.rules.workloads import amount, selected_template, template_of
from nsk8s.api.types import IntOrString, Labels, LabelSelector, Obj, PodTemplate, Struct, Volume

STATEFUL = ("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy", "minReadySeconds")  # fmt: skip
"""What a change of a StatefulSet may touch."""


class RollingSet(Struct, frozen=True):
    """How a set is renewed, step by step."""

    maxSurge: IntOrString = 0
    maxUnavailable: IntOrString = 1
    partition: int = 0


class Strategy(Struct, frozen=True):
    """How a set is renewed."""

    type: str = "RollingUpdate"
    rollingUpdate: RollingSet | None = None


class SetSpec(Struct, frozen=True):
    """The spec of a DaemonSet or StatefulSet."""

    replicas: int = 1
    selector: LabelSelector | None = None
    template: PodTemplate = PodTemplate()
    updateStrategy: Strategy = Strategy()
    podManagementPolicy: str = "OrderedReady"
    volumeClaimTemplates: tuple[AnyObject, ...] = ()
    minReadySeconds: int = 0
    revisionHistoryLimit: int = 10


class Set(AnyObject, frozen=True):
    """A DaemonSet or StatefulSet."""

    spec: SetSpec = SetSpec()


def _daemon_set(view: Set, findings: Findings) -> None:
    spec = view.spec
    if spec.selector is None:
        findings.required("spec.selector")
    selected_template(spec.selector or LabelSelector(), spec.template, "daemonset", findings)
    _counts(spec, findings)
    findings.one_of("spec.updateStrategy.type", spec.updateStrategy.type, ("RollingUpdate", "OnDelete"))
    rolling = spec.updateStrategy.rollingUpdate
    if rolling is None or spec.updateStrategy.type != "RollingUpdate":
        return
    at = "spec.updateStrategy.rollingUpdate"
    surge = amount(f"{at}.maxSurge", rolling.maxSurge, findings)
    unavailable = amount(f"{at}.maxUnavailable", rolling.maxUnavailable, findings)
    if surge == 0 and unavailable == 0:
        findings.required(at, "cannot be 0 when maxSurge is 0")
    elif surge and unavailable:
        findings.invalid(f"{at}.maxSurge", rolling.maxSurge, "may not be set when maxUnavailable is non-zero")


def _daemon_set_update(old: Obj, new: Obj, findings: Findings) -> None:
    frozen(old, new, "spec.selector", findings)


def _stateful_set(view: Set, findings: Findings) -> None:
    spec = view.spec
    policy, strategy = spec.podManagementPolicy, spec.updateStrategy
    if policy not in ("OrderedReady", "Parallel"):
        findings.invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'")
    if strategy.type not in ("RollingUpdate", "OnDelete"):
        findings.invalid("spec.updateStrategy", strategy.type, "must be 'RollingUpdate' or 'OnDelete'")
    elif strategy.rollingUpdate is not None:
        at = "spec.updateStrategy.rollingUpdate"
        if strategy.type == "OnDelete":
            findings.invalid(at, {}, "only allowed for updateStrategy 'RollingUpdate'")
        rolling = strategy.rollingUpdate
        findings.at_least(f"{at}.partition", rolling.partition, 0)
        unavailable = amount(f"{at}.maxUnavailable", rolling.maxUnavailable, findings)
        if unavailable == 0:
            findings.invalid(f"{at}.maxUnavailable", rolling.maxUnavailable, "cannot be 0")
        elif isinstance(rolling.maxUnavailable, str) and unavailable is not None and unavailable > 100:
            why = "must not be greater than 100%"
            findings.invalid(f"{at}.maxUnavailable", rolling.maxUnavailable, why)
    findings.at_least("spec.replicas", spec.replicas, 0)
    _counts(spec, findings)
    if spec.selector is None:
        findings.required("spec.selector")
    selected_template(spec.selector or LabelSelector(), _with_claims(spec), "statefulset", findings)


def _with_claims(spec: SetSpec) -> PodTemplate:
    """The template with the volumes that its pods will have: each claim makes one, in place of the
    template's own of that name."""
    pods = spec.template.spec
    claimed = [Volume(claim.metadata.name) for claim in spec.volumeClaimTemplates]
    others = [volume for volume in pods.volumes if volume not in claimed]
    return replace(spec.template, spec=replace(pods, volumes=(*claimed, *others)))


def _counts(spec: SetSpec, findings: Findings) -> None:
    findings.at_least("spec.minReadySeconds", spec.minReadySeconds, 0)
    findings.at_least("spec.revisionHistoryLimit", spec.revisionHistoryLimit, 0)


def _stateful_set_update(old: Obj, new: Obj, findings: Findings) -> None:
    before, after = ({k: v for k, v in o["spec"].items() if k not in STATEFUL} for o in (old, new))
    if before != after:
        findings.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
            "'minReadySeconds' are forbidden",
        )


# --- replication controllers ------------------------------------------------------------------------


class ControllerSpec(Struct, frozen=True):
    """A ReplicationControllerSpec."""

    replicas: int = 1
    selector: Labels = {}
    template: PodTemplate | None = None
    minReadySeconds: int = 0


class Controller(AnyObject, frozen=True):
    """A ReplicationController."""

    spec: ControllerSpec = ControllerSpec()


def _controller(view: Controller, findings: Findings) -> None:
    spec = view.spec
    findings.at_least("spec.replicas", spec.replicas, 0)
    findings.at_least("spec.minReadySeconds", spec.minReadySeconds, 0)
    if spec.template is None:
        findings.required("spec.template")
        return
    labels = spec.template.metadata.labels
    wanted = spec.selector or labels
    findings.labels("spec.selector", spec.selector)
    if not wanted:
        findings.required("spec.selector")
    elif any(labels.get(key) != value for key, value in wanted.items()):
        findings.invalid(
            "spec.template.metadata.labels", labels, "`selector` does not match template `labels`"
        )
    template_of(spec.template, findings)


RULES: dict[str, Rule] = {
    "DaemonSet": Rule(Set, _daemon_set, update=_daemon_set_update),
    "StatefulSet": Rule(Set, _stateful_set, update=_stateful_set_update),
    "ReplicationController": Rule(Controller, _controller),
}
