"""403 in kube-apiserver's words, impersonation, reviews and tokens, over TLS."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from nsk8s.api.types import Obj
from nsk8s.apiserver.authentication import Authenticator
from nsk8s.apiserver.authorization import Authorizer
from nsk8s.apiserver.reviews import Reviews
from nsk8s.apiserver.server import Identify
from nsk8s.apiserver.tokens import Tokens
from nsk8s.cluster.rbac import API_GROUP
from nsk8s.daemon.pki import Keys
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.entrance import Answer, Entrance, entrance
from tests.unit.apiserver.served import Served

RBAC = "/apis/rbac.authorization.k8s.io/v1"
DEFAULT = "/api/v1/namespaces/default"


def authenticator(world: Served) -> Identify:
    """Everything there is, as the daemon wires it."""
    store = world.world.store
    tokens = Tokens(store, Keys(world.paths).signing_key)
    authorizer, known = Authorizer(store), Authenticator(tokens.user)
    world.server.check, world.server.granting = authorizer.check, authorizer.granting
    Reviews(store, authorizer, tokens).serve(world.server)
    return lambda http: authorizer.impersonated(known.identify(http), http)


class Door(Entrance):
    """Who asks is named."""

    def by(
        self,
        user: str,
        path: str,
        method: str = "GET",
        body: object = None,
        groups: tuple[str, ...] = (),
        **headers: str,
    ) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask(self.client(user, groups), path, sent, method=method, body=body)

    def admin(self, path: str, method: str = "POST", body: object = None) -> Obj:
        code, found = self.by("admin", path, method, body, ("system:masters",))
        assert code < 300, found
        return found

    def review(self, user: str, kind: str, spec: Obj) -> Obj:
        group = "authentication" if kind in ("TokenReview", "SelfSubjectReview") else "authorization"
        path = f"/apis/{group}.k8s.io/v1/{kind.lower()}s"
        body = {"apiVersion": f"{group}.k8s.io/v1", "kind": kind, "spec": spec}
        code, found = self.by(user, path, "POST", body)
        assert code == 201, found
        assert (found["apiVersion"], found["kind"]) == (body["apiVersion"], kind)
        status: Obj = found["status"]
        return status


@pytest.fixture
def door(state: Path, tmp_path: Path) -> Iterator[Door]:
    with entrance(ClusterPaths("c"), tmp_path, authenticator) as found:
        yield Door(found.world, found.keys, found.port, tmp_path)


def role(name: str, *rules: Obj) -> Obj:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": f"{API_GROUP}/v1", "kind": "Role", "metadata": meta, "rules": list(rules)}


def binding(name: str, of: str, *users: str) -> Obj:
    kind, _, called = of.partition("/")
    subjects = [{"apiGroup": API_GROUP, "kind": "User", "name": user} for user in users]
    return {
        "apiVersion": f"{API_GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": "default"},
        "roleRef": {"apiGroup": API_GROUP, "kind": kind, "name": called},
        "subjects": subjects,
    }


def bound(door: Door, of: str, *users: str) -> None:
    door.admin(f"{RBAC}/namespaces/default/rolebindings", "POST", binding("b", of, *users))


@pytest.mark.parametrize(
    ("method", "path", "message", "details"),
    [
        (
            "GET",
            f"{DEFAULT}/pods",
            'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace '
            '"default"',
            {"kind": "pods"},
        ),
        (
            "GET",
            "/api/v1/pods?watch=1",
            'pods is forbidden: User "jane" cannot watch resource "pods" in API group "" at the cluster '
            "scope",
            {"kind": "pods"},
        ),
        (
            "DELETE",
            "/apis/apps/v1/namespaces/default/deployments/web",
            'deployments.apps "web" is forbidden: User "jane" cannot delete resource "deployments" in API '
            'group "apps" in the namespace "default"',
            {"name": "web", "group": "apps", "kind": "deployments"},
        ),
        (
            "DELETE",
            f"{DEFAULT}/pods",
            'pods is forbidden: User "jane" cannot deletecollection resource "pods" in API group "" in the '
            'namespace "default"',
            {"kind": "pods"},
        ),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/default/deployments/web/scale",
            'deployments.apps "web" is forbidden: User "jane" cannot patch resource "deployments/scale" in '
            'API group "apps" in the namespace "default"',
            {"name": "web", "group": "apps", "kind": "deployments"},
        ),
        (
            "GET",
            "/api/v1/namespaces/default",
            'namespaces "default" is forbidden: User "jane" cannot get resource "namespaces" in API group "" '
            'in the namespace "default"',
            {"name": "default", "kind": "namespaces"},
        ),
        ("GET", "/metrics", 'forbidden: User "jane" cannot get path "/metrics"', None),
        ("POST", "/api", 'forbidden: User "jane" cannot post path "/api"', None),
    ],
)
def test_a_refusal(door: Door, method: str, path: str, message: str, details: Obj | None) -> None:
    code, body = door.by("jane", path, method)
    assert (code, body["reason"], body["message"]) == (403, "Forbidden", message)
    assert body.get("details") in (details, {} if details is None else details)


@pytest.mark.parametrize("path", ["/api", "/apis", "/api/v1", "/apis/apps/v1", "/openapi/v3", "/version"])
def test_discovery_is_for_everybody_who_is_known(door: Door, path: str) -> None:
    assert door.by("jane", path)[0] == 200


def test_a_role_opens_what_it_names(door: Door) -> None:
    pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    one = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get", "watch"]}
    door.admin(f"{RBAC}/namespaces/default/roles", "POST", role("r", pods, one))
    bound(door, "Role/r", "jane")
    assert door.by("jane", f"{DEFAULT}/pods")[0] == 200
    assert door.by("jane", "/api/v1/pods")[0] == 403
    assert door.by("jane", f"{DEFAULT}/configmaps/a")[0] == 404
    assert door.by("jane", f"{DEFAULT}/configmaps/b")[0] == 403
    named = f"{DEFAULT}/configmaps?watch=1&timeoutSeconds=1&fieldSelector=metadata.name"
    assert door.by("jane", f"{named}%3Da")[0] == 200
    assert door.by("jane", f"{named}%3Db")[0] == 403


def test_nobody_grants_what_he_does_not_have(door: Door) -> None:
    bound(door, "ClusterRole/admin", "jane")
    path = f"{RBAC}/namespaces/default/roles"
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}
    assert door.by("jane", path, "POST", role("fine", secrets))[0] == 201
    code, body = door.by("jane", path, "POST", role("more", secrets, nodes))
    assert code == 403
    assert body["message"] == (
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "jane" (groups=["system:authenticated"]) '
        'is attempting to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["nodes"], '
        'Verbs:["get" "list"]}'
    )
    assert door.by("admin", f"{path}/more", groups=("system:masters",))[0] == 404
    assert door.by("jane", f"{path}/fine", "PUT", role("fine", nodes))[0] == 403
    bindings = f"{RBAC}/namespaces/default/rolebindings"
    assert door.by("jane", bindings, "POST", binding("x", "ClusterRole/cluster-admin", "jane"))[0] == 403
    assert door.by("jane", bindings, "POST", binding("y", "ClusterRole/view", "john"))[0] == 201
    assert door.by("jane", bindings, "POST", binding("z", "Role/none", "john"))[0] == 404


def test_an_apply_that_creates_must_be_allowed_to(door: Door) -> None:
    patch = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}
    door.admin(f"{RBAC}/namespaces/default/roles", "POST", role("r", patch))
    bound(door, "Role/r", "jane")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}}
    path = f"{DEFAULT}/configmaps/a?fieldManager=x"
    sent = {"Content_Type": "application/apply-patch+yaml"}
    code, found = door.by("jane", path, "PATCH", body, **sent)  # type: ignore[arg-type]
    assert (code, found["message"].partition(" resource")[0]) == (
        403,
        'configmaps "a" is forbidden: User "jane" cannot create',
    )
    door.admin(f"{DEFAULT}/configmaps", "POST", body)
    assert door.by("jane", path, "PATCH", body, **sent)[0] == 200  # type: ignore[arg-type]


def test_to_be_somebody_else_must_be_allowed(door: Door) -> None:
    code, body = door.by("jane", "/api", Impersonate_User="john")
    assert (code, body["message"]) == (
        403,
        'users "john" is forbidden: User "jane" cannot impersonate resource "users" in API group "" at the '
        "cluster scope",
    )
    assert door.by("jane", "/api", Impersonate_Group="system:masters")[0] == 400
    admin = {"groups": ("system:masters",)}
    code, body = door.by("admin", f"{DEFAULT}/pods", Impersonate_User="john", **admin)  # type: ignore[arg-type]
    assert (code, body["message"].partition(" cannot")[0]) == (403, 'pods is forbidden: User "john"')
    found = door.by(
        "admin",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        "POST",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
        ("system:masters",),
        Impersonate_User="system:serviceaccount:default:robot",
        Impersonate_Uid="7",
        **{"Impersonate_Extra_example.com%2Fa": "1"},
    )[1]
    assert found["status"]["userInfo"] == {
        "username": "system:serviceaccount:default:robot",
        "uid": "7",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
        "extra": {"example.com/a": ["1"]},
    }


def test_whoever_may_impersonate_one_group_may_not_another(door: Door) -> None:
    rules = [
        {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": ["devs"]},
    ]
    cluster = {**role("r", *rules), "kind": "ClusterRole", "metadata": {"name": "r"}}
    door.admin(f"{RBAC}/clusterroles", "POST", cluster)
    wide = {**binding("b", "ClusterRole/r", "jane"), "kind": "ClusterRoleBinding", "metadata": {"name": "b"}}
    door.admin(f"{RBAC}/clusterrolebindings", "POST", wide)
    assert door.by("jane", "/api", Impersonate_User="john", Impersonate_Group="devs")[0] == 200
    assert door.by("jane", "/api", Impersonate_User="john", Impersonate_Group="system:masters")[0] == 403


def test_can_i_tells_the_truth(door: Door) -> None:
    bound(door, "ClusterRole/view", "jane")
    pods = {"verb": "list", "resource": "pods", "namespace": "default"}
    asked = {"resourceAttributes": pods}
    assert door.review("jane", "SelfSubjectAccessReview", asked) == {
        "allowed": True,
        "reason": 'RBAC: allowed by RoleBinding "b/default" of ClusterRole "view" to User "jane"',
    }
    assert door.review("john", "SelfSubjectAccessReview", asked) == {"allowed": False}
    path = {"nonResourceAttributes": {"verb": "get", "path": "/api"}}
    assert door.review("john", "SelfSubjectAccessReview", path)["allowed"] is True
    admins = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    where = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    found = door.admin(where, "POST", {**admins, "spec": {"user": "jane", **asked}})
    assert found["status"]["allowed"] is True
    assert door.by("jane", where, "POST", {**admins, "spec": {"user": "jane", **asked}})[0] == 403
    local = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews"
    body = {**admins, "kind": "LocalSubjectAccessReview", "spec": {"user": "john", **asked}}
    assert door.admin(local, "POST", body)["status"] == {"allowed": False}
    for spec in ({}, {**asked, **path}):
        broken = {**admins, "kind": "SelfSubjectAccessReview", "spec": spec}
        assert door.by("jane", where.replace("/sub", "/selfsub"), "POST", broken)[0] == 422
    assert door.by("jane", where.replace("/sub", "/selfsub"), "GET")[0] == 403
    assert door.by("admin", where, "GET", groups=("system:masters",))[0] == 405


def test_the_list_of_what_one_may(door: Door) -> None:
    bound(door, "ClusterRole/view", "jane")
    status = door.review("jane", "SelfSubjectRulesReview", {"namespace": "default"})
    assert status["incomplete"] is False
    assert any("pods" in rule["resources"] and "list" in rule["verbs"] for rule in status["resourceRules"])
    assert any("/api" in rule["nonResourceURLs"] for rule in status["nonResourceRules"])
    elsewhere = door.review("jane", "SelfSubjectRulesReview", {"namespace": "kube-system"})
    assert not any("pods" in rule["resources"] for rule in elsewhere["resourceRules"])


def account(door: Door, name: str = "robot") -> Obj:
    meta = {"name": name, "namespace": "default"}
    return door.admin(
        f"{DEFAULT}/serviceaccounts", "POST", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
    )


def token(door: Door, **spec: object) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    found = door.admin(f"{DEFAULT}/serviceaccounts/robot/token", "POST", body)
    assert (found["kind"], found["metadata"]["name"]) == ("TokenRequest", "robot")
    text: str = found["status"]["token"]
    return text


def with_token(door: Door, text: str, path: str) -> Answer:
    return door.ask(door.anonymous(), path, {"Authorization": f"Bearer {text}"})


def test_a_token_gets_its_service_account_in(door: Door) -> None:
    uid = account(door)["metadata"]["uid"]
    text = token(door)
    claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
    assert claims["kubernetes.io"] == {
        "namespace": "default",
        "serviceaccount": {"name": "robot", "uid": uid},
    }
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("system:serviceaccount:default:robot", 3600)
    assert claims["aud"] == [claims["iss"]] == ["https://kubernetes.default.svc.cluster.local"]
    code, body = with_token(door, text, f"{DEFAULT}/pods")
    assert (code, body["message"].partition(" cannot")[0]) == (
        403,
        'pods is forbidden: User "system:serviceaccount:default:robot"',
    )
    assert with_token(door, text, "/api")[0] == 200
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": text}}
    status = door.admin("/apis/authentication.k8s.io/v1/tokenreviews", "POST", review)["status"]
    assert (status["authenticated"], status["user"]["username"]) == (True, claims["sub"])
    door.admin(f"{DEFAULT}/serviceaccounts/robot", "DELETE")
    assert with_token(door, text, "/api")[0] == 401
    account(door)
    assert with_token(door, text, "/api")[0] == 401  # another one of the same name


def test_a_token_for_somebody_else_is_none_here(door: Door) -> None:
    account(door)
    text = token(door, audiences=["vault"])
    assert with_token(door, text, "/api")[0] == 401
    for audiences, known in ((["vault"], True), (["x"], False), ([], False)):
        spec = {"token": text, "audiences": audiences}
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        status = door.admin("/apis/authentication.k8s.io/v1/tokenreviews", "POST", review)["status"]
        assert status.get("authenticated", False) is known


def test_a_forged_token_is_refused(door: Door) -> None:
    account(door)
    header, claims, signature = token(door).split(".")
    other = Tokens(door.world.world.store, Keys(ClusterPaths("other")).signing_key)
    (door.world.paths.directory.parent / "other").mkdir()
    mine = door.world.world.store.find("serviceaccounts", "default", "robot")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    changed = claims[:-4] + ("AAAA" if claims[-4:] != "AAAA" else "BBBB")
    for forged in (
        f"{header}.{changed}.{signature}",
        f"{header}.{claims}.{signature[:-4]}AAAA",
        f"{header}.{claims}.",
        f"{none}.{claims}.",
        f"{header}.{claims}",
        "..",
        "a.b.c",
        other.issue(mine)[0],
    ):
        assert with_token(door, forged, "/api")[0] == 401, forged


def test_a_token_lasts_as_long_as_it_says(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    account(door)
    text = token(door, expirationSeconds=600)
    assert with_token(door, text, "/api")[0] == 200
    later = time.time() + 601
    monkeypatch.setattr("nsk8s.apiserver.tokens.time.time", lambda: later)
    assert with_token(door, text, "/api")[0] == 401


def test_a_token_is_not_made_for_less_than_ten_minutes(door: Door) -> None:
    account(door)
    path = f"{DEFAULT}/serviceaccounts/robot/token"
    code, body = door.by("admin", path, "POST", {"spec": {"expirationSeconds": 1}}, ("system:masters",))
    assert (code, body["message"]) == (
        422,
        'TokenRequest.authentication.k8s.io "robot" is invalid: spec.expirationSeconds: Invalid value: 1: '
        "may not specify a duration less than 10 minutes",
    )


def test_others_can_check_a_token_by_the_published_key(door: Door) -> None:
    account(door)
    text = token(door)
    assert door.by("jane", "/openid/v1/jwks")[0] == 403
    about = with_token(door, text, "/.well-known/openid-configuration")[1]
    assert about["jwks_uri"].endswith("/openid/v1/jwks")
    (key,) = with_token(door, text, "/openid/v1/jwks")[1]["keys"]
    signed, _, signature = text.encode().rpartition(b".")
    x, y, raw = (base64.urlsafe_b64decode(part + "==") for part in (key["x"], key["y"], signature.decode()))
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1()
    )
    halves = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    numbers.public_key().verify(encode_dss_signature(*halves), signed, ec.ECDSA(hashes.SHA256()))
