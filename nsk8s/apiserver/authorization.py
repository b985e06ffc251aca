"""Who may do what: requests as RBAC sees them, refusals in kube-apiserver's words, acting as somebody else.

Sources: apiserver's RequestInfo and ``Forbidden`` (pkg/endpoints), its impersonation filter, and the checks
against escalation of pkg/registry/rbac.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote

from aiohttp import web
from msgspec.structs import replace

from nsk8s.api.types import Obj
from nsk8s.apiserver.authentication import AUTHENTICATED, User
from nsk8s.apiserver.request import Request
from nsk8s.cluster.rbac import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    MASTERS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNT,
    Attributes,
    Rbac,
    Rule,
    compact,
    uncovered,
)
from nsk8s.cluster.store import Key, Store
from nsk8s.errors import ApiError

AUTHENTICATION = "authentication.k8s.io"
IMPERSONATE = "impersonate-"
EXTRA = "impersonate-extra-"
APPLY = "application/apply-patch"


class Authorizer:
    """Decides by the roles that are in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.rbac = Rbac(store)

    def check(self, request: Request) -> None:
        """Raises `ApiError` 403 for what the request's user may not do. A server-side apply of what is
        not there is a patch and a create."""
        user, where = request.user, request.where
        if MASTERS in user.groups:
            return
        wanted = attributes(request)
        self.demand(user, wanted)
        if where is None or not request.http.content_type.startswith(APPLY):
            return
        if self._store.get(where.resource.stored_as, where.namespace or "", where.name) is None:
            self.demand(user, replace(wanted, verb="create"))

    def demand(self, user: User, wanted: Attributes) -> None:
        """Raises `ApiError` 403 for what `user` may not do."""
        allowed, reason = self.rbac.allowed(user.name, user.groups, wanted)
        if not allowed:
            raise forbidden(user, wanted, reason)

    # --- as somebody else ---------------------------------------------------------------------------

    def impersonated(self, user: User, http: web.BaseRequest) -> User:
        """Whom `user` wants to be (``kubectl --as``), or `user`. Raises `ApiError` 403, and 400 for
        groups and the like without a name."""
        headers = http.headers
        for name in headers:
            if name[:12].lower() == IMPERSONATE:
                break
        else:
            return user
        name, uid = headers.get("Impersonate-User", ""), headers.get("Impersonate-Uid", "")
        groups = headers.getall("Impersonate-Group", [])
        extra: dict[str, tuple[str, ...]] = {}
        for header, value in headers.items():
            if header.lower().startswith(EXTRA):
                key = unquote(header[len(EXTRA) :].lower())
                extra[key] = (*extra.get(key, ()), value)
        if not name:
            raise ApiError(
                400, "BadRequest", "requested to impersonate groups, a UID or extra without a user"
            )
        account = service_account(name)
        if account is None:
            self.demand(user, _impersonate("users", name))
        else:
            namespace, own = account
            self.demand(user, Attributes("impersonate", "", "serviceaccounts", "", namespace, own))
            groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        for group in headers.getall("Impersonate-Group", []):
            self.demand(user, _impersonate("groups", group))
        if uid:
            self.demand(user, _impersonate("uids", uid, AUTHENTICATION))
        for key, values in extra.items():
            for value in values:
                self.demand(user, Attributes("impersonate", AUTHENTICATION, "userextras", key, "", value))
        if name != "system:anonymous" and AUTHENTICATED not in groups:
            groups = [*groups, AUTHENTICATED]
        return User(name, uid, tuple(groups), extra)

    # --- granting -----------------------------------------------------------------------------------

    def granting(self, request: Request) -> Callable[[Obj], None] | None:
        """For a request that writes a role or a binding: what looks at the object it has become, and
        raises `ApiError` 403 if it grants what its writer does not have. To be asked before the write,
        for the writer must not gain by it. None for all other requests."""
        where = request.where
        if where is None or where.resource.name not in _GRANTS or MASTERS in request.user.groups:
            return None
        if request.verb not in ("create", "update", "patch"):
            return None
        user, namespace = request.user, where.namespace or ""
        resource = where.resource.name
        # What the write itself gives must not count: all that is asked below is asked of these.
        owned, errors = self.rbac.rules_for(user.name, user.groups, namespace)

        def look(role: Obj) -> None:
            name = role["metadata"]["name"]
            if resource in (ROLES, CLUSTER_ROLES):
                wanted = Attributes(
                    "escalate", where.resource.group, where.resource.plural, "", namespace, name
                )
                granted: Iterable[Rule] = [Rule.of(rule) for rule in role.get("rules") or ()]
                if not any(rule.allows(wanted) for rule in owned):
                    _must_have(user, owned, granted, where.resource.name, name, errors)
                return
            reference = role.get("roleRef") or {}
            bound = Key(ROLES, namespace, str(reference.get("name")))
            if reference.get("kind") == "ClusterRole":
                bound = Key(CLUSTER_ROLES, "", bound.name)
            plural, _, group = bound.resource.partition(".")
            wanted = Attributes("bind", group, plural, "", namespace, bound.name)
            if any(rule.allows(wanted) for rule in owned):
                return
            rules = self.rbac.rules_of(bound)
            if rules is None:
                raise ApiError(
                    404,
                    "NotFound",
                    f'{bound.resource} "{bound.name}" not found',
                    kind=bound.resource,
                    name=bound.name,
                )
            _must_have(user, owned, rules, where.resource.name, name, errors)

        return look


_GRANTS = (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)


def attributes(request: Request) -> Attributes:
    """What a request wants. A Namespace is in itself; a list or watch of one name is about that name."""
    where = request.where
    if where is None:
        return Attributes(request.verb, path=request.path)
    resource, name = where.resource, where.name
    namespace = name if resource.name == "namespaces" else where.namespace or ""
    if not name and request.verb in ("list", "watch"):
        name = _selected_name(request.query)
    return Attributes(request.verb, resource.group, resource.plural, where.subresource, namespace, name)


def service_account(user: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user name means; None for other users."""
    words = user.removeprefix(SERVICE_ACCOUNT).split(":")
    return (words[0], words[1]) if user.startswith(SERVICE_ACCOUNT) and len(words) == 2 else None


def forbidden(user: User, wanted: Attributes, reason: str = "") -> ApiError:
    """The refusal (403), as kube-apiserver words it."""
    why = f": {reason}" if reason else ""
    if not wanted.resource:
        what = f'User "{user.name}" cannot {wanted.verb} path "{wanted.path}"{why}'
        return ApiError(403, "Forbidden", f"forbidden: {what}")
    name = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
    scope = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    return _refused(
        name,
        wanted.name,
        f'User "{user.name}" cannot {wanted.verb} resource "{wanted.combined}" in API group '
        f'"{wanted.group}" {scope}{why}',
    )


def _refused(resource: str, name: str, what: str) -> ApiError:
    subject = f'{resource} "{name}"' if name else resource
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {what}", kind=resource, name=name)


def _must_have(
    user: User, owned: list[Rule], granted: Iterable[Rule], resource: str, name: str, errors: str
) -> None:
    lacking = compact(uncovered(owned, granted))
    if lacking:
        groups = " ".join(f'"{group}"' for group in user.groups)
        broken = f"; resolution errors: {errors}" if errors else ""
        raise _refused(
            resource,
            name,
            f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently '
            "held:\n" + "\n".join(lacking) + broken,
        )


def _impersonate(resource: str, name: str, group: str = "") -> Attributes:
    return Attributes("impersonate", group, resource, name=name)


def _selected_name(query: Mapping[str, str]) -> str:
    """The one name that a field selector leaves."""
    for term in query.get("fieldSelector", "").split(","):
        key, _, value = term.replace("==", "=").partition("=")
        if key.strip() == "metadata.name":
            return value.strip()
    return ""
