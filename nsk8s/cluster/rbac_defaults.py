"""The roles every cluster begins with: what kube-apiserver 1.33 bootstraps for users, nodes and components
(upstream: plugin/pkg/auth/authorizer/rbac/bootstrappolicy). Roles of the controllers inside
kube-controller-manager are left out: ours do not come through the API.

A rule is written in one line: verbs, then ``GROUP:`` and its resources, perhaps ``=`` and names of objects;
or verbs and paths. ``core`` is the group without a name; several groups are joined by ``+``.
"""

from __future__ import annotations

from collections.abc import Mapping

from nsk8s.api.types import Obj
from nsk8s.cluster import rbac
from nsk8s.cluster.store import Store

READ = "get,list,watch"
WRITE = "create,delete,deletecollection,patch,update"
_EVENTS = "create,patch,update core+events.k8s.io: events"
_REVIEWS = (
    "create authentication.k8s.io: tokenreviews",
    "create authorization.k8s.io: subjectaccessreviews",
)
_PUBLIC = "/healthz /livez /readyz /version /version/"
_WORKLOADS = "daemonsets deployments deployments/scale replicasets replicasets/scale"
_SIGNER = "approve certificates.k8s.io: signers = kubernetes.io/"

CLUSTER_ROLES: Mapping[str, tuple[str, ...]] = {
    "cluster-admin": ("* *: *", "* *"),
    "admin": (),
    "edit": (),
    "view": (),
    "system:aggregate-to-admin": (
        "create authorization.k8s.io: localsubjectaccessreviews",
        f"{READ},{WRITE} rbac.authorization.k8s.io: rolebindings roles",
    ),
    "system:aggregate-to-edit": (
        f"{READ} core: pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
        "impersonate core: serviceaccounts",
        f"{WRITE} core: pods pods/attach pods/exec pods/portforward pods/proxy",
        "create core: pods/eviction",
        f"{WRITE} core: configmaps events persistentvolumeclaims replicationcontrollers "
        "replicationcontrollers/scale secrets serviceaccounts services services/proxy",
        "create core: serviceaccounts/token",
        f"{WRITE} apps: {_WORKLOADS} deployments/rollback statefulsets statefulsets/scale",
        f"{WRITE} autoscaling: horizontalpodautoscalers",
        f"{WRITE} batch: cronjobs jobs",
        f"{WRITE} extensions: {_WORKLOADS} deployments/rollback ingresses networkpolicies "
        "replicationcontrollers/scale",
        f"{WRITE} policy: poddisruptionbudgets",
        f"{WRITE} networking.k8s.io: ingresses networkpolicies",
        f"{READ},{WRITE} coordination.k8s.io: leases",
    ),
    "system:aggregate-to-view": (
        f"{READ} core: configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods "
        "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
        f"{READ} core: bindings events limitranges namespaces/status pods/log pods/status "
        "replicationcontrollers/status resourcequotas resourcequotas/status",
        f"{READ} core: namespaces",
        f"{READ} discovery.k8s.io: endpointslices",
        f"{READ} apps: {_WORKLOADS} controllerrevisions daemonsets/status deployments/status "
        "replicasets/status statefulsets statefulsets/scale statefulsets/status",
        f"{READ} autoscaling: horizontalpodautoscalers horizontalpodautoscalers/status",
        f"{READ} batch: cronjobs cronjobs/status jobs jobs/status",
        f"{READ} extensions: {_WORKLOADS} daemonsets/status deployments/status ingresses ingresses/status "
        "networkpolicies replicasets/status replicationcontrollers/scale",
        f"{READ} policy: poddisruptionbudgets poddisruptionbudgets/status",
        f"{READ} networking.k8s.io: ingresses ingresses/status networkpolicies",
    ),
    "system:auth-delegator": _REVIEWS,
    "system:basic-user": (
        "create authorization.k8s.io: selfsubjectaccessreviews selfsubjectrulesreviews",
        "create authentication.k8s.io: selfsubjectreviews",
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        "create certificates.k8s.io: certificatesigningrequests/nodeclient",
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        "create certificates.k8s.io: certificatesigningrequests/selfnodeclient",
    ),
    "system:certificates.k8s.io:kube-apiserver-client-approver": (f"{_SIGNER}kube-apiserver-client",),
    "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver": (
        f"{_SIGNER}kube-apiserver-client-kubelet",
    ),
    "system:certificates.k8s.io:kubelet-serving-approver": (f"{_SIGNER}kubelet-serving",),
    "system:certificates.k8s.io:legacy-unknown-approver": (f"{_SIGNER}legacy-unknown",),
    "system:discovery": (f"get /api /api/* /apis /apis/* /openapi /openapi/* {_PUBLIC}",),
    "system:heapster": (f"{READ} core: events namespaces nodes pods", f"{READ} extensions: deployments"),
    "system:kube-aggregator": (f"{READ} core: endpoints services",),
    "system:kube-controller-manager": (
        _EVENTS,
        "create coordination.k8s.io: leases",
        "get,update coordination.k8s.io: leases = kube-controller-manager",
        "create core: secrets serviceaccounts",
        "delete core: secrets",
        "get core: configmaps namespaces secrets serviceaccounts",
        "update core: secrets serviceaccounts",
        *_REVIEWS,
        "list,watch *: *",
        "create core: serviceaccounts/token",
    ),
    "system:kube-dns": ("list,watch core: endpoints services",),
    "system:kube-scheduler": (
        _EVENTS,
        "create coordination.k8s.io: leases",
        "get,update coordination.k8s.io: leases = kube-scheduler",
        f"{READ} core: nodes",
        f"delete,{READ} core: pods",
        "create core: bindings pods/binding",
        "patch,update core: pods/status",
        f"{READ} core: replicationcontrollers services",
        f"{READ} apps+extensions: replicasets",
        f"{READ} apps: statefulsets",
        f"{READ} policy: poddisruptionbudgets",
        f"{READ} core: persistentvolumeclaims persistentvolumes",
        *_REVIEWS,
        f"{READ} storage.k8s.io: csinodes",
        f"{READ} core: namespaces",
        f"{READ} storage.k8s.io: csidrivers",
        f"{READ} storage.k8s.io: csistoragecapacities",
    ),
    "system:kubelet-api-admin": (
        f"{READ} core: nodes",
        "proxy core: nodes",
        "* core: nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats",
    ),
    "system:monitoring": (
        "get /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*",
    ),
    "system:node": (
        "create authentication.k8s.io: tokenreviews",
        "create authorization.k8s.io: localsubjectaccessreviews subjectaccessreviews",
        f"{READ} core: services",
        f"create,{READ} core: nodes",
        "patch,update core: nodes/status",
        "patch,update core: nodes",
        "create,patch,update core+events.k8s.io: events",
        f"{READ} core: pods",
        "create,delete core: pods",
        "patch,update core: pods/status",
        "create core: pods/eviction",
        f"{READ} core: configmaps secrets",
        "get core: persistentvolumeclaims persistentvolumes",
        "get core: endpoints",
        f"create,{READ} certificates.k8s.io: certificatesigningrequests",
        "create,delete,get,patch,update coordination.k8s.io: leases",
        "get storage.k8s.io: volumeattachments",
        "get,patch,update core: persistentvolumeclaims/status",
        "create core: serviceaccounts/token",
        f"{READ} storage.k8s.io: csidrivers",
        "create,delete,get,patch,update storage.k8s.io: csinodes",
        f"{READ} node.k8s.io: runtimeclasses",
    ),
    "system:node-bootstrapper": (f"create,{READ} certificates.k8s.io: certificatesigningrequests",),
    "system:node-problem-detector": ("get core: nodes", "patch core: nodes/status", _EVENTS),
    "system:node-proxier": (
        "list,watch core: endpoints services",
        f"{READ} core: nodes",
        _EVENTS,
        "list,watch discovery.k8s.io: endpointslices",
        "list,watch networking.k8s.io: servicecidrs",
    ),
    "system:persistent-volume-provisioner": (
        f"create,delete,{READ} core: persistentvolumes",
        f"{READ},update core: persistentvolumeclaims",
        f"{READ} storage.k8s.io: storageclasses",
        "watch core: events",
        _EVENTS,
    ),
    "system:public-info-viewer": (f"get {_PUBLIC}",),
    "system:service-account-issuer-discovery": ("get /.well-known/openid-configuration /openid/v1/jwks",),
    "system:volume-scheduler": (
        f"{READ},patch,update core: persistentvolumes",
        f"{READ} storage.k8s.io: storageclasses",
        f"{READ},patch,update core: persistentvolumeclaims",
    ),
}
"""Name -> rules."""

AGGREGATED = ("admin", "edit", "view")
"""ClusterRoles whose rules are those of all that carry ``aggregate-to-NAME``."""
AGGREGATES = {
    "edit": "admin",
    "view": "edit",
    "system:aggregate-to-admin": "admin",
    "system:aggregate-to-edit": "edit",
    "system:aggregate-to-view": "view",
}
"""ClusterRole -> the one that it is added to."""

CLUSTER_BINDINGS: Mapping[str, tuple[str, ...]] = {
    "cluster-admin": ("Group system:masters",),
    "system:basic-user": ("Group system:authenticated",),
    "system:discovery": ("Group system:authenticated",),
    "system:kube-controller-manager": ("User system:kube-controller-manager",),
    "system:kube-dns": ("ServiceAccount kube-system/kube-dns",),
    "system:kube-scheduler": ("User system:kube-scheduler",),
    "system:monitoring": ("Group system:monitoring",),
    "system:node": (),
    "system:node-proxier": ("User system:kube-proxy",),
    "system:public-info-viewer": ("Group system:authenticated", "Group system:unauthenticated"),
    "system:service-account-issuer-discovery": ("Group system:serviceaccounts",),
    "system:volume-scheduler": ("User system:kube-scheduler",),
}
"""ClusterRoleBinding, called as the ClusterRole that it binds -> subjects."""

READER = "extension-apiserver-authentication-reader"
"""A Role in kube-system, which add-ons that bring an API of their own bind."""


def bootstrap(store: Store) -> None:
    """Make the default roles and bindings that are missing."""
    for name, rules in CLUSTER_ROLES.items():
        if store.get(rbac.CLUSTER_ROLES, "", name) is None:
            store.create(rbac.CLUSTER_ROLES, _cluster_role(name, rules))
    for name, subjects in CLUSTER_BINDINGS.items():
        if store.get(rbac.CLUSTER_ROLE_BINDINGS, "", name) is None:
            store.create(rbac.CLUSTER_ROLE_BINDINGS, _binding(name, subjects))
    if store.get(rbac.ROLES, "kube-system", READER) is None:
        rule = f"{READ} core: configmaps = extension-apiserver-authentication"
        meta = {**_meta(READER), "namespace": "kube-system"}
        store.create(rbac.ROLES, {**_kind("Role"), "metadata": meta, "rules": [parse(rule)]})


def parse(line: str) -> Obj:
    """A PolicyRule from its line."""
    verbs, _, rest = line.partition(" ")
    rule: Obj = {"verbs": sorted(verbs.split(","))}
    groups, colon, resources = rest.partition(": ")
    if not colon:
        return {"nonResourceURLs": sorted(rest.split()), **rule}
    resources, _, names = resources.partition(" = ")
    found: Obj = {"apiGroups": ["" if group == "core" else group for group in groups.split("+")]}
    if names:
        found["resourceNames"] = names.split()
    return {**found, "resources": sorted(resources.split()), **rule}


def _cluster_role(name: str, rules: tuple[str, ...]) -> Obj:
    meta = _meta(name)
    if name in AGGREGATES:
        meta["labels"] = {**meta["labels"], _label(AGGREGATES[name]): "true"}
    role: Obj = {**_kind("ClusterRole"), "metadata": meta, "rules": [parse(rule) for rule in rules]}
    if name in AGGREGATED:
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {_label(name): "true"}}]}
    return role


def _binding(name: str, subjects: tuple[str, ...]) -> Obj:
    reference = {"apiGroup": rbac.API_GROUP, "kind": "ClusterRole", "name": name}
    found: Obj = {**_kind("ClusterRoleBinding"), "metadata": _meta(name), "roleRef": reference}
    if subjects:
        found["subjects"] = [_subject(*subject.split(" ")) for subject in subjects]
    return found


def _subject(kind: str, name: str) -> Obj:
    if kind != "ServiceAccount":
        return {"apiGroup": rbac.API_GROUP, "kind": kind, "name": name}
    namespace, _, account = name.partition("/")
    return {"kind": kind, "name": account, "namespace": namespace}


def _kind(kind: str) -> Obj:
    return {"apiVersion": f"{rbac.API_GROUP}/v1", "kind": kind}


def _meta(name: str) -> Obj:
    return {
        "name": name,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
    }


def _label(name: str) -> str:
    return f"rbac.authorization.k8s.io/aggregate-to-{name}"
