"""Questions that are answered at once and stored nowhere: who am I, may I, whose token is this, and a token
please (authentication.k8s.io, authorization.k8s.io, serviceaccounts/token)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from nsk8s.api.types import Obj
from nsk8s.apiserver import answers
from nsk8s.apiserver.authentication import User
from nsk8s.apiserver.authorization import Authorizer
from nsk8s.apiserver.request import Request
from nsk8s.apiserver.server import ApiServer
from nsk8s.apiserver.tokens import DEFAULT_SECONDS, ISSUER, LONGEST, SHORTEST, Tokens
from nsk8s.cluster.rbac import Attributes, Rule
from nsk8s.cluster.store import Store
from nsk8s.errors import ApiError, Problem

AUTHN, AUTHZ = "authentication.k8s.io", "authorization.k8s.io"


class Reviews:
    """Answers the questions about one cluster."""

    def __init__(self, store: Store, authorizer: Authorizer, tokens: Tokens) -> None:
        self._store = store
        self._authorizer = authorizer
        self._tokens = tokens

    def serve(self, server: ApiServer) -> None:
        """Register with the server."""
        server.handle(f"selfsubjectreviews.{AUTHN}", "", self.who_am_i)
        server.handle(f"tokenreviews.{AUTHN}", "", self.whose)
        server.handle(f"selfsubjectaccessreviews.{AUTHZ}", "", self.may_i)
        server.handle(f"subjectaccessreviews.{AUTHZ}", "", self.may_they)
        server.handle(f"localsubjectaccessreviews.{AUTHZ}", "", self.may_they)
        server.handle(f"selfsubjectrulesreviews.{AUTHZ}", "", self.what_may_i)
        server.handle("serviceaccounts", "token", self.token)
        server.publish("/.well-known/openid-configuration", issuer)
        server.publish("/openid/v1/jwks", self._tokens.key_set)

    async def who_am_i(self, request: Request) -> web.StreamResponse:
        """SelfSubjectReview (``kubectl auth whoami``)."""
        await _asked(request)
        return _answer(request, {}, {"userInfo": _info(request.user)})

    async def whose(self, request: Request) -> web.StreamResponse:
        """TokenReview."""
        spec = await _asked(request)
        token, audiences = _text(spec, "token"), _texts(spec, "audiences")
        if not token:
            raise _invalid(
                request, [Problem("spec.token", "Required value: token is required for authentication")]
            )
        found = self._tokens.review(token, audiences)
        if found is None:
            return _answer(request, spec, {"user": {}, "error": "invalid bearer token"})
        status = {"authenticated": True, "user": _info(found[0]), "audiences": found[1]}
        return _answer(request, spec, status)

    async def may_i(self, request: Request) -> web.StreamResponse:
        """SelfSubjectAccessReview (``kubectl auth can-i``)."""
        spec = await _asked(request)
        return _answer(request, spec, self._decision(request.user, _wanted(request, spec)))

    async def may_they(self, request: Request) -> web.StreamResponse:
        """SubjectAccessReview, and LocalSubjectAccessReview for one namespace."""
        spec = await _asked(request)
        wanted = _wanted(request, spec)
        user = User(_text(spec, "user"), _text(spec, "uid"), tuple(_texts(spec, "groups")))
        assert request.where is not None
        namespace = request.where.namespace
        problems = []
        if not user.name and not user.groups:
            what = "at least one of user or group must be specified"
            problems.append(Problem("spec.user", f'Invalid value: "": {what}'))
        if namespace and wanted.namespace != namespace:
            what = f"must match metadata.namespace: {namespace}"
            path = "spec.resourceAttributes.namespace"
            problems.append(Problem(path, f'Invalid value: "{wanted.namespace}": {what}'))
        if problems:
            raise _invalid(request, problems)
        return _answer(request, spec, self._decision(user, wanted))

    async def what_may_i(self, request: Request) -> web.StreamResponse:
        """SelfSubjectRulesReview (``kubectl auth can-i --list``)."""
        spec = await _asked(request)
        namespace = _text(spec, "namespace")
        if not namespace:
            raise ApiError(400, "BadRequest", "no namespace on request")
        user = request.user
        rules, errors = self._authorizer.rbac.rules_for(user.name, user.groups, namespace)
        status: Obj = {
            "resourceRules": [_resource_rule(rule) for rule in rules if rule.resources],
            "nonResourceRules": [_path_rule(rule) for rule in rules if rule.paths],
            "incomplete": bool(errors),
        }
        if errors:
            status["evaluationError"] = errors
        return _answer(request, {}, status)

    async def token(self, request: Request) -> web.StreamResponse:
        """TokenRequest (``kubectl create token``)."""
        where = request.where
        assert where is not None
        spec = await _asked(request)
        namespace = where.namespace or ""
        account = self._store.find("serviceaccounts", namespace, where.name)
        seconds = spec.get("expirationSeconds") or DEFAULT_SECONDS
        what = ""
        if type(seconds) is not int or seconds < SHORTEST:
            what = "may not specify a duration less than 10 minutes"
        elif seconds > LONGEST:
            what = "may not specify a duration larger than 2^32 seconds"
        if what:
            problem = Problem("spec.expirationSeconds", f"Invalid value: {seconds}: {what}")
            raise _invalid(request, [problem], where.name)
        audiences = _texts(spec, "audiences") or [ISSUER]
        pod = self._bound(namespace, spec.get("boundObjectRef"), request)
        token, until = self._tokens.issue(account, audiences, seconds, pod)
        moment = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta = {"name": where.name, "namespace": namespace}
        shown = {**spec, "audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": None}
        if pod is not None:
            shown["boundObjectRef"] = spec["boundObjectRef"]
        return _answer(request, shown, {"token": token, "expirationTimestamp": moment}, meta)

    def _bound(self, namespace: str, reference: object, request: Request) -> Obj | None:
        if not isinstance(reference, dict):
            return None
        if reference.get("kind") != "Pod":
            what = f'Invalid value: "{reference.get("kind")}": cannot bind token to this type of object'
            raise _invalid(request, [Problem("spec.boundObjectRef.kind", what)])
        name = _text(reference, "name")
        pod = self._store.find("pods", namespace, name)
        uid = _text(reference, "uid")
        if uid and uid != pod["metadata"]["uid"]:
            raise ApiError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on Pod "{name}": the UID in the bound object reference '
                f"({uid}) does not match the UID in record. The object might have been deleted and then "
                "recreated",
                kind="pods",
                name=name,
            )
        return pod

    def _decision(self, user: User, wanted: Attributes) -> Obj:
        allowed, reason = self._authorizer.rbac.allowed(user.name, user.groups, wanted)
        return {"allowed": allowed, **({"reason": reason} if reason else {})}


def issuer() -> Obj:
    """Who signs the tokens of service accounts, for those who check them by themselves (OpenID Connect
    Discovery; KEP-1393)."""
    return {
        "issuer": ISSUER,
        "jwks_uri": f"{ISSUER}/openid/v1/jwks",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }


async def _asked(request: Request) -> Obj:
    """The spec of a question. Raises `ApiError` 405 for anything but a POST."""
    if request.method != "POST":
        raise ApiError(
            405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
        )
    spec = (await request.mapping()).get("spec") or {}
    if not isinstance(spec, dict):
        raise ApiError(400, "BadRequest", "spec is not an object")
    return spec


def _answer(
    request: Request, spec: Obj, status: Obj, meta: Mapping[str, Any] | None = None
) -> web.StreamResponse:
    where = request.where
    assert where is not None
    part = where.resource.subresource(where.subresource) if where.subresource else None
    version = f"{part.group}/{part.version}" if part else where.resource.api_version
    found: Obj = {
        "kind": part.kind if part else where.resource.kind,
        "apiVersion": version,
        "metadata": {**(meta or {}), "creationTimestamp": None},
        "spec": spec,
        "status": status,
    }
    if not spec:
        del found["spec"]
    return answers.json(found, 201)


def _wanted(request: Request, spec: Obj) -> Attributes:
    """What a review asks about. Raises `ApiError` 422."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(resource, dict) and not path:
        fields = ("verb", "group", "resource", "subresource", "namespace", "name")
        return Attributes(*(_text(resource, field) for field in fields))
    if isinstance(path, dict) and not resource:
        return Attributes(_text(path, "verb"), path=_text(path, "path"))
    what = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
    where, shown = "spec.resourceAttributes", "null"
    if resource and path:
        where, shown = "spec.nonResourceAttributes", "{...}"
        what = "cannot be specified in combination with resourceAttributes"
    raise _invalid(request, [Problem(where, f"Invalid value: {shown}: {what}")])


def _invalid(request: Request, problems: Sequence[Problem], name: str = "") -> ApiError:
    where = request.where
    assert where is not None
    part = where.resource.subresource(where.subresource) if where.subresource else None
    kind, group = (part.kind, part.group) if part else (where.resource.kind, where.resource.group)
    causes = [f"{problem.path}: {problem.what}" for problem in problems]
    text = causes[0] if len(causes) == 1 else f"[{', '.join(causes)}]"
    message = f'{kind}.{group} "{name}" is invalid: {text}'
    return ApiError(422, "Invalid", message, kind=kind, name=name, causes=problems)


def _info(user: User) -> Obj:
    found: Obj = {"username": user.name}
    if user.uid:
        found["uid"] = user.uid
    if user.groups:
        found["groups"] = list(user.groups)
    if user.extra:
        found["extra"] = {key: list(values) for key, values in user.extra.items()}
    return found


def _resource_rule(rule: Rule) -> Obj:
    found: Obj = {
        "verbs": sorted(rule.verbs),
        "apiGroups": sorted(rule.groups),
        "resources": sorted(rule.resources),
    }
    if rule.names:
        found["resourceNames"] = sorted(rule.names)
    return found


def _path_rule(rule: Rule) -> Obj:
    return {"verbs": sorted(rule.verbs), "nonResourceURLs": sorted(rule.paths)}


def _text(values: Mapping[str, Any], field: str) -> str:
    """A string field; empty if it is not there. Raises `ApiError` 400 for anything else."""
    found = values.get(field) or ""
    if not isinstance(found, str):
        raise ApiError(400, "BadRequest", f"{field}: a string, not {found!r}")
    return found


def _texts(values: Mapping[str, Any], field: str) -> list[str]:
    found = values.get(field) or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ApiError(400, "BadRequest", f"{field}: a list of strings")
    return found
