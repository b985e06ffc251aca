"""`meta/v1.Status`: how the API says that something went wrong, or is done."""

from __future__ import annotations

from nsk8s.api.kinds import BY_NAME, Resource
from nsk8s.api.types import Obj
from nsk8s.errors import ApiError, NsK8sError, Problem, UserError

REASONS = {
    "Required value": "FieldValueRequired",
    "Duplicate value": "FieldValueDuplicate",
    "Unsupported value": "FieldValueNotSupported",
    "Forbidden": "FieldValueForbidden",
    "Not found": "FieldValueNotFound",
    "Too long": "FieldValueTooLong",
    "Too many": "FieldValueTooMany",
    "Internal error": "InternalError",
}
"""First words of a finding -> meta/v1.CauseType."""


def failure(error: NsK8sError) -> Obj:
    """The Status of an error. `details` also carries our `hint`: what to do about it. What is the user's
    fault without being an `ApiError` is 422, everything else 500."""
    if not isinstance(error, ApiError):
        code, reason = (422, "Invalid") if isinstance(error, UserError) else (500, "InternalError")
        told = ApiError(code, reason, error.message)
        told.hint = error.hint
        error = told
    resource = BY_NAME.get(error.kind)
    details: Obj = {
        "name": error.name,
        "group": resource.group if resource else "",
        "kind": resource.plural if resource else error.kind,
        "hint": error.hint,
    }
    if error.causes:
        details["causes"] = [_cause(problem) for problem in error.causes]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason,
        "details": {key: value for key, value in details.items() if value},
        "code": error.code,
    }


def success(resource: Resource, name: str, uid: str) -> Obj:
    """The Status of a deletion that is complete."""
    details = {"name": name, "group": resource.group, "kind": resource.plural, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


def _cause(problem: Problem) -> Obj:
    reason = problem.reason or REASONS.get(problem.what.partition(":")[0], "FieldValueInvalid")
    return {"reason": reason, "message": problem.what, "field": problem.path}
