"""The table of resources: which kinds exist, how they are named, and whether nsk8s acts on them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """One row of ``kubectl api-resources``. `acts` is False for kinds that are stored, watched and
    deleted but change nothing in the emulated network."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    acts: bool = False

    @property
    def name(self) -> str:
        """The group-resource: ``pods``, ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """The apiVersion of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        """The lower-case kind."""
        return self.kind.lower()


R = Resource
RESOURCES: tuple[Resource, ...] = (
    R("pods", "Pod", short=("po",), categories=("all",), acts=True),
    R("services", "Service", short=("svc",), categories=("all",), acts=True),
    R("endpoints", "Endpoints", short=("ep",), acts=True),
    R("nodes", "Node", namespaced=False, short=("no",), acts=True),
    R("namespaces", "Namespace", namespaced=False, short=("ns",), acts=True),
    R("events", "Event", short=("ev",), acts=True),
    R("configmaps", "ConfigMap", short=("cm",)),
    R("secrets", "Secret"),
    R("serviceaccounts", "ServiceAccount", short=("sa",)),
    R("persistentvolumes", "PersistentVolume", namespaced=False, short=("pv",)),
    R("persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",)),
    R("resourcequotas", "ResourceQuota", short=("quota",)),
    R("limitranges", "LimitRange", short=("limits",)),
    R("replicationcontrollers", "ReplicationController", short=("rc",), categories=("all",)),
    R("deployments", "Deployment", "apps", short=("deploy",), categories=("all",), acts=True),
    R("replicasets", "ReplicaSet", "apps", short=("rs",), categories=("all",), acts=True),
    R("daemonsets", "DaemonSet", "apps", short=("ds",), categories=("all",)),
    R("statefulsets", "StatefulSet", "apps", short=("sts",), categories=("all",)),
    R("jobs", "Job", "batch", categories=("all",)),
    R("cronjobs", "CronJob", "batch", short=("cj",), categories=("all",)),
    R("horizontalpodautoscalers", "HorizontalPodAutoscaler", "autoscaling", "v2", short=("hpa",)),
    R("ingresses", "Ingress", "networking.k8s.io", short=("ing",)),
    R("ingressclasses", "IngressClass", "networking.k8s.io", namespaced=False),
    R("networkpolicies", "NetworkPolicy", "networking.k8s.io", short=("netpol",)),
    R("endpointslices", "EndpointSlice", "discovery.k8s.io", acts=True),
    R("poddisruptionbudgets", "PodDisruptionBudget", "policy", short=("pdb",)),
    R("roles", "Role", "rbac.authorization.k8s.io"),
    R("rolebindings", "RoleBinding", "rbac.authorization.k8s.io"),
    R("clusterroles", "ClusterRole", "rbac.authorization.k8s.io", namespaced=False),
    R("clusterrolebindings", "ClusterRoleBinding", "rbac.authorization.k8s.io", namespaced=False),
    R("leases", "Lease", "coordination.k8s.io"),
    R("storageclasses", "StorageClass", "storage.k8s.io", namespaced=False, short=("sc",)),
    R("priorityclasses", "PriorityClass", "scheduling.k8s.io", namespaced=False, short=("pc",)),
    R("customresourcedefinitions", "CustomResourceDefinition", "apiextensions.k8s.io", namespaced=False,
      short=("crd",)),
    R("clusters", "Cluster", "nsk8s.dev", namespaced=False, acts=True),
)  # fmt: skip
"""All resources, in the order of ``kubectl api-resources`` sections."""

BY_NAME: dict[str, Resource] = {r.name: r for r in RESOURCES}
BY_KIND: dict[tuple[str, str], Resource] = {(r.api_version, r.kind): r for r in RESOURCES}


def resource_of(word: str) -> Resource | None:
    """The resource a person means by `word`: plural, singular, short name, kind, or ``plural.group``."""
    wanted = word.lower()
    for r in RESOURCES:
        if wanted in (r.plural, r.singular, r.name, *r.short):
            return r
    return None
