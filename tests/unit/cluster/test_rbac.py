"""Role-based access control, by rules and by what stands in the store."""

from __future__ import annotations

import pytest

from nsk8s.api.types import Obj
from nsk8s.cluster import rbac, rbac_defaults
from nsk8s.cluster.rbac import Attributes, Rbac, Rule, compact, uncovered
from tests.unit.cluster.worlds import World

GROUPS = ("system:authenticated",)


def rule(verbs: str, groups: str, resources: str, names: str = "") -> Obj:
    return {
        "verbs": verbs.split(),
        "apiGroups": ["" if group == "core" else group for group in groups.split()],
        "resources": resources.split(),
        "resourceNames": names.split(),
    }


PODS = rule("get list", "core", "pods")


@pytest.mark.parametrize(
    ("given", "wanted", "allowed"),
    [
        (PODS, Attributes("get", "", "pods", "", "default", "a"), True),
        (PODS, Attributes("delete", "", "pods"), False),
        (PODS, Attributes("get", "apps", "pods"), False),
        (PODS, Attributes("get", "", "pods", "log"), False),
        (rule("*", "core", "pods"), Attributes("delete", "", "pods"), True),
        (rule("get", "*", "*"), Attributes("get", "apps", "deployments", "scale"), True),
        (rule("get", "core", "pods/log"), Attributes("get", "", "pods", "log"), True),
        (rule("get", "core", "pods/log"), Attributes("get", "", "pods"), False),
        (rule("get", "*", "*/scale"), Attributes("get", "apps", "deployments", "scale"), True),
        (rule("get", "*", "*/scale"), Attributes("get", "apps", "deployments"), False),
        (rule("get", "core", "pods/*"), Attributes("get", "", "pods", "log"), False),
        (rule("get", "core", "secrets", "a b"), Attributes("get", "", "secrets", name="b"), True),
        (rule("get", "core", "secrets", "a b"), Attributes("get", "", "secrets", name="c"), False),
        (rule("list", "core", "secrets", "a"), Attributes("list", "", "secrets"), False),
        (rule("create", "core", "pods"), Attributes("get", path="/api"), False),
        ({"verbs": ["get"], "nonResourceURLs": ["/api"]}, Attributes("get", path="/api"), True),
        ({"verbs": ["get"], "nonResourceURLs": ["/api"]}, Attributes("get", path="/api/v1"), False),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, Attributes("get", path="/api/v1"), True),
        ({"verbs": ["get"], "nonResourceURLs": ["*"]}, Attributes("get", path="/x"), True),
        ({"verbs": ["get"], "nonResourceURLs": ["*"]}, Attributes("get", "", "pods"), False),
        ({"verbs": "get", "apiGroups": [1], "resources": {"pods": 1}}, Attributes("get", "", "pods"), False),
    ],
)
def test_a_rule(given: Obj, wanted: Attributes, allowed: bool) -> None:
    assert Rule.of(given).allows(wanted) is allowed


def put(world: World, kind: str, name: str, namespace: str = "", **fields: object) -> None:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    obj = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": meta, **fields}
    world.store.create(f"{kind.lower()}s.{rbac.API_GROUP}", obj)


def bind(world: World, kind: str, name: str, role: str, *subjects: Obj, namespace: str = "") -> None:
    reference = {"apiGroup": rbac.API_GROUP, "kind": role.split("/")[0], "name": role.split("/")[1]}
    put(world, kind, name, namespace, roleRef=reference, subjects=list(subjects))


def user(name: str) -> Obj:
    return {"apiGroup": rbac.API_GROUP, "kind": "User", "name": name}


def test_a_role_holds_in_its_namespace_and_follows_every_change() -> None:
    world = World()
    access = Rbac(world.store)
    wanted = Attributes("get", "", "pods", "", "default", "a")
    assert access.allowed("jane", GROUPS, wanted) == (False, "")
    bind(world, "RoleBinding", "b", "Role/reader", user("jane"), namespace="default")
    missing = 'RBAC: role.rbac.authorization.k8s.io "reader" not found'
    assert access.allowed("jane", GROUPS, wanted) == (False, missing)
    put(world, "Role", "reader", "default", rules=[PODS])
    reason = 'RBAC: allowed by RoleBinding "b/default" of Role "reader" to User "jane"'
    assert access.allowed("jane", GROUPS, wanted) == (True, reason)
    assert access.allowed("john", GROUPS, wanted) == (False, "")
    assert access.allowed("jane", GROUPS, Attributes("get", "", "pods", "", "other"))[0] is False
    assert access.allowed("jane", GROUPS, Attributes("list", "", "pods"))[0] is False
    role = world.store.find(rbac.ROLES, "default", "reader")
    world.store.update(rbac.ROLES, {**role, "rules": []})
    assert access.allowed("jane", GROUPS, wanted)[0] is False
    world.store.update(rbac.ROLES, {**world.store.find(rbac.ROLES, "default", "reader"), "rules": [PODS]})
    assert access.allowed("jane", GROUPS, wanted)[0] is True
    world.store.commit()
    world.store.delete(rbac.ROLE_BINDINGS, "default", "b")
    assert access.allowed("jane", GROUPS, wanted)[0] is False
    world.store.rollback()
    assert access.allowed("jane", GROUPS, wanted)[0] is True


def test_a_cluster_role_may_be_bound_for_one_namespace() -> None:
    world = World()
    access = Rbac(world.store)
    bind(world, "RoleBinding", "b", "ClusterRole/view", user("jane"), namespace="default")
    assert access.allowed("jane", GROUPS, Attributes("list", "", "pods", "", "default"))[0]
    assert not access.allowed("jane", GROUPS, Attributes("list", "", "pods", "", "kube-system"))[0]
    assert not access.allowed("jane", GROUPS, Attributes("list", "", "pods"))[0]
    assert not access.allowed("jane", GROUPS, Attributes("list", "", "secrets", "", "default"))[0]
    assert not access.allowed("jane", GROUPS, Attributes("delete", "", "pods", "", "default"))[0]


def test_service_accounts_and_groups_are_subjects() -> None:
    world = World()
    access = Rbac(world.store)
    account = {"kind": "ServiceAccount", "name": "robot", "namespace": "default"}
    group = {"apiGroup": rbac.API_GROUP, "kind": "Group", "name": "devs"}
    bind(world, "ClusterRoleBinding", "b", "ClusterRole/edit", account, group)
    wanted = Attributes("delete", "apps", "deployments", "", "x", "y")
    assert access.allowed("system:serviceaccount:default:robot", (), wanted)[0]
    assert not access.allowed("system:serviceaccount:other:robot", (), wanted)[0]
    assert not access.allowed("robot", (), wanted)[0]
    assert access.allowed("anybody", ("devs",), wanted)[0]


def test_masters_need_no_role() -> None:
    world = World()
    world.store.delete(rbac.CLUSTER_ROLE_BINDINGS, "", "cluster-admin")
    access = Rbac(world.store)
    assert access.allowed("a", ("system:masters",), Attributes("delete", "", "nodes"))[0]
    assert rbac.EVERYTHING in access.rules_for("a", ("system:masters",), "default")[0]


@pytest.mark.parametrize(
    ("role", "verb", "resource", "allowed"),
    [
        ("view", "get", "pods", True),
        ("view", "get", "secrets", False),
        ("view", "get", "rolebindings.rbac.authorization.k8s.io", False),
        ("view", "list", "endpointslices.discovery.k8s.io", True),
        ("edit", "create", "pods", True),
        ("edit", "create", "pods/exec", True),
        ("edit", "get", "secrets", True),
        ("edit", "update", "endpoints", False),
        ("edit", "create", "rolebindings.rbac.authorization.k8s.io", False),
        ("edit", "update", "resourcequotas", False),
        ("admin", "create", "rolebindings.rbac.authorization.k8s.io", True),
        ("admin", "delete", "deployments.apps", True),
        ("admin", "get", "nodes", False),
        ("cluster-admin", "delete", "nodes", True),
        ("system:basic-user", "create", "selfsubjectreviews.authentication.k8s.io", True),
        ("system:node", "patch", "nodes/status", True),
        ("system:kube-dns", "watch", "services", True),
    ],
)
def test_the_default_roles(role: str, verb: str, resource: str, allowed: bool) -> None:
    world = World()
    bind(world, "ClusterRoleBinding", "b", f"ClusterRole/{role}", user("jane"))
    name, _, part = resource.partition("/")
    plural, _, group = name.partition(".")
    wanted = Attributes(verb, group, plural, part, "default")
    assert Rbac(world.store).allowed("jane", (), wanted)[0] is allowed


def test_aggregated_roles_take_in_what_carries_their_label() -> None:
    world = World()
    rules = [rule("get", "example.com", "widgets")]
    wanted = Attributes("get", "example.com", "widgets", "", "default")
    bind(world, "ClusterRoleBinding", "b", "ClusterRole/admin", user("jane"))
    access = Rbac(world.store)
    put(world, "ClusterRole", "widgets", rules=rules)
    world.settle()
    assert not access.allowed("jane", (), wanted)[0]
    role = world.store.find(rbac.CLUSTER_ROLES, "", "widgets")
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    world.store.update(rbac.CLUSTER_ROLES, {**role, "metadata": {**role["metadata"], "labels": labels}})
    world.settle()
    assert access.allowed("jane", (), wanted)[0]
    world.store.delete(rbac.CLUSTER_ROLES, "", "widgets")
    world.settle()
    assert not access.allowed("jane", (), wanted)[0]


def test_a_default_role_that_is_changed_stays_so_and_one_that_is_gone_comes_back_with_the_next_start() -> (
    None
):
    world = World()
    role = world.store.find(rbac.CLUSTER_ROLES, "", "system:kube-dns")
    world.store.update(rbac.CLUSTER_ROLES, {**role, "rules": []})
    world.store.delete(rbac.CLUSTER_ROLES, "", "system:node")
    rbac_defaults.bootstrap(world.store)
    assert world.store.find(rbac.CLUSTER_ROLES, "", "system:kube-dns")["rules"] == []
    assert world.store.find(rbac.CLUSTER_ROLES, "", "system:node")["rules"]


def test_what_one_does_not_have_cannot_be_granted() -> None:
    owned = [Rule.of(rule("get list", "core", "pods")), Rule.of(rule("*", "apps", "*"))]
    assert uncovered(owned, [Rule.of(rule("get", "core", "pods"))]) == []
    assert uncovered(owned, [Rule.of(rule("get", "core", "pods", "a"))]) == []
    assert uncovered(owned, [Rule.of(rule("patch", "apps", "deployments deployments/scale"))]) == []
    lacking = uncovered(owned, [Rule.of(rule("get delete watch", "core apps", "pods secrets"))])
    assert compact(lacking) == [
        '{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}',
        '{APIGroups:[""], Resources:["secrets"], Verbs:["delete" "get" "watch"]}',
    ]
    named = [Rule.of(rule("get", "core", "secrets", "a"))]
    assert uncovered(named, [Rule.of(rule("get", "core", "secrets"))])
    assert uncovered(named, [Rule.of(rule("get", "core", "secrets", "a"))]) == []
    paths = [Rule.of({"verbs": ["get"], "nonResourceURLs": ["/api/*"]})]
    assert uncovered(paths, [Rule.of({"verbs": ["get"], "nonResourceURLs": ["/api/v1"]})]) == []
    assert uncovered(paths, [Rule.of({"verbs": ["get"], "nonResourceURLs": ["*"]})])
