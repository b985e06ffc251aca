"""Which kinds exist, how they are named, what can be asked of them, and whether nsk8s acts on them.

`RESOURCES` are the kinds of a kube-apiserver 1.33 with its default feature gates (upstream:
``api/discovery/*.json``) and `Cluster`; `VIEWS` are further versions of the same stored objects. A cluster
has a `Kinds` of its own, to which CustomResourceDefinitions add theirs while it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

READ = ("get", "list", "watch")
"""Verbs of what is shown but not changed through the API."""
ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
"""Verbs of an ordinary resource, in the order of discovery documents."""
CHANGE = ("get", "patch", "update")
"""Verbs of a part of an object, such as its status."""


@dataclass(frozen=True, slots=True)
class Subresource:
    """A part of an object or an action on it: ``pods/log``. `kind` is what it takes and gives; `group` and
    `version` are the kind's if they are not the resource's own."""

    name: str
    kind: str
    verbs: tuple[str, ...] = CHANGE
    group: str = ""
    version: str = ""


SCALE = Subresource("scale", "Scale", CHANGE, "autoscaling", "v1")


@dataclass(frozen=True, slots=True)
class Resource:
    """One row of ``kubectl api-resources``.

    `acts` is False for kinds that are stored, watched and deleted but change nothing in the emulated
    network. `stored_as` is the group-resource under which its objects are kept: its own name, but for views
    such as events.k8s.io. `served` is False for a version that objects are only kept in; `custom` ones
    are of a CustomResourceDefinition, which names the fields they are `selectable` by. `warning` is told to
    everybody who asks for it."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    acts: bool = False
    verbs: tuple[str, ...] = ALL
    subresources: tuple[Subresource, ...] = ()
    stored_as: str = ""
    singular: str = ""
    list_kind: str = ""
    served: bool = True
    custom: bool = False
    selectable: tuple[str, ...] = ()
    warning: str = ""
    name: str = field(init=False)
    """The group-resource: ``pods``, ``deployments.apps``."""
    api_version: str = field(init=False)
    """The apiVersion of its objects."""

    def __post_init__(self) -> None:
        def fill(field: str, value: str) -> None:
            object.__setattr__(self, field, value)

        fill("name", f"{self.plural}.{self.group}" if self.group else self.plural)
        fill("api_version", f"{self.group}/{self.version}" if self.group else self.version)
        fill("stored_as", self.stored_as or self.name)
        fill("singular", self.singular or self.kind.lower())
        fill("list_kind", self.list_kind or f"{self.kind}List")

    @property
    def virtual(self) -> bool:
        """Whether there are no objects of it: a question that is answered at once, like a
        SubjectAccessReview."""
        return "watch" not in self.verbs

    def subresource(self, name: str) -> Subresource | None:
        """Its subresource of that name."""
        return next((s for s in self.subresources if s.name == name), None)


def _status(kind: str) -> tuple[Subresource, ...]:
    return (Subresource("status", kind),)


def _scaled(kind: str) -> tuple[Subresource, ...]:
    return (SCALE, Subresource("status", kind))


def _proxy(kind: str) -> Subresource:
    return Subresource("proxy", kind, ("create", "delete", "get", "patch", "update"))


R = Resource
_STREAM = ("create", "get")
_CREATE = ("create",)
_EXTENDS = ("api-extensions",)
_AUTHN, _AUTHZ, _RBAC = "authentication.k8s.io", "authorization.k8s.io", "rbac.authorization.k8s.io"
_NET, _STORAGE, _ADMISSION = "networking.k8s.io", "storage.k8s.io", "admissionregistration.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"

RESOURCES: tuple[Resource, ...] = (
    R("pods", "Pod", short=("po",), categories=("all",), acts=True, subresources=(
        Subresource("attach", "PodAttachOptions", _STREAM),
        Subresource("binding", "Binding", _CREATE),
        Subresource("ephemeralcontainers", "Pod"),
        Subresource("eviction", "Eviction", _CREATE, "policy", "v1"),
        Subresource("exec", "PodExecOptions", _STREAM),
        Subresource("log", "Pod", ("get",)),
        Subresource("portforward", "PodPortForwardOptions", _STREAM),
        _proxy("PodProxyOptions"),
        Subresource("resize", "Pod"),
        Subresource("status", "Pod"),
    )),
    R("services", "Service", short=("svc",), categories=("all",), acts=True,
      subresources=(_proxy("ServiceProxyOptions"), *_status("Service"))),
    R("endpoints", "Endpoints", short=("ep",), acts=True,
      warning="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    R("nodes", "Node", namespaced=False, short=("no",), acts=True,
      subresources=(_proxy("NodeProxyOptions"), *_status("Node"))),
    R("namespaces", "Namespace", namespaced=False, short=("ns",), acts=True,
      verbs=tuple(verb for verb in ALL if verb != "deletecollection"),
      subresources=(Subresource("finalize", "Namespace", ("update",)), *_status("Namespace"))),
    R("events", "Event", short=("ev",), acts=True),
    R("configmaps", "ConfigMap", short=("cm",), acts=True),
    R("secrets", "Secret", acts=True),
    R("serviceaccounts", "ServiceAccount", short=("sa",), acts=True,
      subresources=(Subresource("token", "TokenRequest", _CREATE, _AUTHN, "v1"),)),
    R("persistentvolumes", "PersistentVolume", namespaced=False, short=("pv",),
      subresources=_status("PersistentVolume")),
    R("persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",), acts=True,
      subresources=_status("PersistentVolumeClaim")),
    R("resourcequotas", "ResourceQuota", short=("quota",), subresources=_status("ResourceQuota")),
    R("limitranges", "LimitRange", short=("limits",)),
    R("podtemplates", "PodTemplate"),
    R("replicationcontrollers", "ReplicationController", short=("rc",), categories=("all",), acts=True,
      subresources=_scaled("ReplicationController")),
    R("bindings", "Binding", verbs=_CREATE),
    R("componentstatuses", "ComponentStatus", namespaced=False, short=("cs",), verbs=("get", "list"),
      warning="v1 ComponentStatus is deprecated in v1.19+"),
    R("apiservices", "APIService", "apiregistration.k8s.io", namespaced=False, categories=_EXTENDS,
      subresources=_status("APIService")),
    R("deployments", "Deployment", "apps", short=("deploy",), categories=("all",), acts=True,
      subresources=_scaled("Deployment")),
    R("replicasets", "ReplicaSet", "apps", short=("rs",), categories=("all",), acts=True,
      subresources=_scaled("ReplicaSet")),
    R("daemonsets", "DaemonSet", "apps", short=("ds",), categories=("all",), acts=True,
      subresources=_status("DaemonSet")),
    R("statefulsets", "StatefulSet", "apps", short=("sts",), categories=("all",), acts=True,
      subresources=_scaled("StatefulSet")),
    R("controllerrevisions", "ControllerRevision", "apps", acts=True),
    R("selfsubjectreviews", "SelfSubjectReview", _AUTHN, namespaced=False, verbs=_CREATE),
    R("tokenreviews", "TokenReview", _AUTHN, namespaced=False, verbs=_CREATE),
    R("localsubjectaccessreviews", "LocalSubjectAccessReview", _AUTHZ, verbs=_CREATE),
    R("selfsubjectaccessreviews", "SelfSubjectAccessReview", _AUTHZ, namespaced=False, verbs=_CREATE),
    R("selfsubjectrulesreviews", "SelfSubjectRulesReview", _AUTHZ, namespaced=False, verbs=_CREATE),
    R("subjectaccessreviews", "SubjectAccessReview", _AUTHZ, namespaced=False, verbs=_CREATE),
    R("horizontalpodautoscalers", "HorizontalPodAutoscaler", "autoscaling", "v2", short=("hpa",),
      categories=("all",), subresources=_status("HorizontalPodAutoscaler")),
    R("jobs", "Job", "batch", categories=("all",), acts=True, subresources=_status("Job")),
    R("cronjobs", "CronJob", "batch", short=("cj",), categories=("all",), acts=True,
      subresources=_status("CronJob")),
    R("certificatesigningrequests", "CertificateSigningRequest", "certificates.k8s.io", namespaced=False,
      short=("csr",), subresources=(Subresource("approval", "CertificateSigningRequest"),
                                    *_status("CertificateSigningRequest"))),
    R("ingresses", "Ingress", _NET, short=("ing",), subresources=_status("Ingress")),
    R("ingressclasses", "IngressClass", _NET, namespaced=False),
    R("networkpolicies", "NetworkPolicy", _NET, short=("netpol",), acts=True),
    R("ipaddresses", "IPAddress", _NET, namespaced=False, short=("ip",)),
    R("servicecidrs", "ServiceCIDR", _NET, namespaced=False, subresources=_status("ServiceCIDR")),
    R("poddisruptionbudgets", "PodDisruptionBudget", "policy", short=("pdb",), acts=True,
      subresources=_status("PodDisruptionBudget")),
    R("roles", "Role", _RBAC, acts=True),
    R("rolebindings", "RoleBinding", _RBAC, acts=True),
    R("clusterroles", "ClusterRole", _RBAC, namespaced=False, acts=True),
    R("clusterrolebindings", "ClusterRoleBinding", _RBAC, namespaced=False, acts=True),
    R("storageclasses", "StorageClass", _STORAGE, namespaced=False, short=("sc",)),
    R("csidrivers", "CSIDriver", _STORAGE, namespaced=False),
    R("csinodes", "CSINode", _STORAGE, namespaced=False),
    R("csistoragecapacities", "CSIStorageCapacity", _STORAGE),
    R("volumeattachments", "VolumeAttachment", _STORAGE, namespaced=False,
      subresources=_status("VolumeAttachment")),
    R("mutatingwebhookconfigurations", "MutatingWebhookConfiguration", _ADMISSION, namespaced=False,
      categories=_EXTENDS),
    R("validatingwebhookconfigurations", "ValidatingWebhookConfiguration", _ADMISSION, namespaced=False,
      categories=_EXTENDS),
    R("validatingadmissionpolicies", "ValidatingAdmissionPolicy", _ADMISSION, namespaced=False,
      categories=_EXTENDS, subresources=_status("ValidatingAdmissionPolicy")),
    R("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", _ADMISSION,
      namespaced=False, categories=_EXTENDS),
    R("customresourcedefinitions", "CustomResourceDefinition", "apiextensions.k8s.io", namespaced=False,
      short=("crd", "crds"), categories=_EXTENDS, acts=True,
      subresources=_status("CustomResourceDefinition")),
    R("priorityclasses", "PriorityClass", "scheduling.k8s.io", namespaced=False, short=("pc",)),
    R("leases", "Lease", "coordination.k8s.io"),
    R("runtimeclasses", "RuntimeClass", "node.k8s.io", namespaced=False),
    R("endpointslices", "EndpointSlice", "discovery.k8s.io", acts=True),
    R("flowschemas", "FlowSchema", _FLOW, namespaced=False, subresources=_status("FlowSchema")),
    R("prioritylevelconfigurations", "PriorityLevelConfiguration", _FLOW, namespaced=False,
      subresources=_status("PriorityLevelConfiguration")),
    R("clusters", "Cluster", "nsk8s.dev", namespaced=False, acts=True, verbs=READ),
)  # fmt: skip
"""One row per group-resource, in the version it is stored in; groups in the order of kube-apiserver's
discovery, in which kubectl looks for a short name."""

VIEWS: tuple[Resource, ...] = (
    R("events", "Event", "events.k8s.io", short=("ev",), acts=True, stored_as="events"),
    R("horizontalpodautoscalers", "HorizontalPodAutoscaler", "autoscaling", "v1", short=("hpa",),
      categories=("all",), subresources=_status("HorizontalPodAutoscaler")),
)  # fmt: skip
"""Other versions in which objects are read and written, see `nsk8s.api.conversions`."""


def _old(group: str, version: str, deprecated: int, removed: int, *names: str) -> list[Resource]:
    """Stored resources as a group's old version had them, with upstream's deprecation warning (`deprecated`
    in and `removed` from Kubernetes 1.x). Without short names, which mean the new ones."""
    found = []
    for now in (r for r in RESOURCES if r.name in names):
        row = replace(now, group=group, version=version, stored_as=now.name, short=(), categories=())
        warning = (
            f"{row.api_version} {row.kind} is deprecated in v1.{deprecated}+, unavailable in v1.{removed}+; "
            f"use {now.api_version} {now.kind}"
        )
        found.append(replace(row, warning=warning))
    return found


LEGACY: tuple[Resource, ...] = (
    *_old("extensions", "v1beta1", 14, 22, f"ingresses.{_NET}"),
    *_old("extensions", "v1beta1", 9, 16, f"networkpolicies.{_NET}"),
    *_old("extensions", "v1beta1", 8, 16, "deployments.apps", "daemonsets.apps", "replicasets.apps"),
    *_old("apps", "v1beta1", 8, 16, "deployments.apps", "statefulsets.apps", "controllerrevisions.apps"),
    *_old("apps", "v1beta2", 9, 16, "deployments.apps", "daemonsets.apps", "replicasets.apps",
          "statefulsets.apps", "controllerrevisions.apps"),
    *_old(_NET, "v1beta1", 19, 22, f"ingresses.{_NET}", f"ingressclasses.{_NET}"),
    *_old(_RBAC, "v1beta1", 17, 22, f"roles.{_RBAC}", f"rolebindings.{_RBAC}", f"clusterroles.{_RBAC}",
          f"clusterrolebindings.{_RBAC}"),
    *_old("policy", "v1beta1", 21, 25, "poddisruptionbudgets.policy"),
    *_old("batch", "v1beta1", 21, 25, "cronjobs.batch"),
)  # fmt: skip
"""What clusters with ``legacyAPIs`` serve besides: the versions in which manifests of 2019 are written
(upstream: ``zz_generated.prerelease-lifecycle.go``)."""


_KUBE_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def priority(version: str) -> tuple[int, int, int, str]:
    """Sorts versions as Kubernetes prefers them: v2, v1, v1beta2, v1alpha1, then others by name
    (apimachinery's CompareKubeAwareVersionStrings)."""
    found = _KUBE_VERSION.fullmatch(version)
    if found is None:
        return (3, 0, 0, version)
    major, stage, minor = found.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), version)


class Kinds:
    """The kinds of one cluster, in order of registration. Of a group-resource's versions the first is the
    one its objects are stored in. `revision` changes whenever the kinds do."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.by_name: dict[str, Resource] = {}
        """Group-resource -> the version it is stored in; of a view its own."""
        self.by_kind: dict[tuple[str, str], Resource] = {}
        """(apiVersion, kind) -> resource."""
        self.by_path: dict[tuple[str, str, str], Resource] = {}
        """(group, version, plural) -> resource, for what is served."""
        self.revision = 0
        for resource in resources:
            self.add(resource)

    def __iter__(self) -> Iterator[Resource]:
        """Everything that is served."""
        return iter(self.by_path.values())

    def add(self, resource: Resource) -> None:
        """Register a resource; versions that are not preferred come after the stored one."""
        self.by_name.setdefault(resource.name, resource)
        self.by_kind[resource.api_version, resource.kind] = resource
        if resource.served:
            self.by_path[resource.group, resource.version, resource.plural] = resource
        self.revision += 1

    def remove(self, name: str) -> None:
        """Forget all versions of a group-resource."""
        del self.by_name[name]
        self.by_kind = {key: r for key, r in self.by_kind.items() if r.name != name}
        self.by_path = {key: r for key, r in self.by_path.items() if r.name != name}
        self.revision += 1

    def stored(self) -> list[Resource]:
        """The group-resources that have objects, each in the version they are stored in."""
        return [r for r in self.by_name.values() if r.stored_as == r.name and not r.virtual]

    def storage_of(self, resource: Resource) -> Resource:
        """The resource in whose version the objects of `resource` are stored: itself, or of a view
        what it is a view of."""
        return self.by_name[resource.stored_as]

    def resource_of(self, word: str) -> Resource | None:
        """The resource a person means by `word`: plural, singular, short name or kind, each also with the
        group: ``deployment.apps``."""
        wanted, _, group = word.lower().partition(".")
        for r in self.by_name.values():
            if wanted in (r.plural, r.singular, *r.short) and group in ("", r.group):
                return r
        return None


def kinds_of(*, legacy: bool) -> Kinds:
    """The kinds of a new cluster, with or without `LEGACY`."""
    return Kinds((*RESOURCES, *VIEWS, *LEGACY) if legacy else (*RESOURCES, *VIEWS))


BUILTIN = kinds_of(legacy=False)
"""The kinds that every cluster has, for callers that have no cluster; never changed."""
BY_NAME = BUILTIN.by_name
BY_KIND = BUILTIN.by_kind
resource_of = BUILTIN.resource_of
