"""Who may do what: bindings of roles, and requests for certificates."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from nsk8s.api.age import duration
from nsk8s.api.types import Obj
from nsk8s.apiserver.printers.columns import AGE, NAME, NONE, Column, Printer, age_of, at, name_of, wide


def _binding(obj: Obj, now: datetime) -> list[Any]:
    role = obj.get("roleRef") or {}
    subjects: list[Obj] = obj.get("subjects") or []

    def named(kind: str) -> str:
        return ", ".join(one.get("name", "") for one in subjects if one.get("kind") == kind)

    accounts = [
        f"{one['namespace']}/{one.get('name', '')}" if one.get("namespace") else one.get("name", "")
        for one in subjects
        if one.get("kind") == "ServiceAccount"
    ]
    return [
        name_of(obj),
        f"{role.get('kind', '')}/{role.get('name', '')}",
        age_of(obj, now),
        named("User"),
        named("Group"),
        ", ".join(accounts),
    ]


def _signing_request(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    seconds = spec.get("expirationSeconds")
    found = {c.get("type") for c in status.get("conditions") or ()}
    state = "Denied" if "Denied" in found else "Approved" if "Approved" in found else "Pending"
    state += ",Failed" if "Failed" in found else ""
    state += ",Issued" if at(status, "certificate") else ""
    return [
        name_of(obj),
        age_of(obj, now),
        spec.get("signerName") or NONE,
        spec.get("username", ""),
        NONE if seconds is None else duration(timedelta(seconds=seconds)),
        state,
    ]


_BINDING = (
    NAME,
    Column("Role", description="The role it grants."),
    AGE,
    *wide(
        Column("Users", description="The users it grants it to."),
        Column("Groups", description="The groups it grants it to."),
        Column("ServiceAccounts", description="The service accounts it grants it to."),
    ),
)

PRINTERS: dict[str, Printer] = {
    "rolebindings.rbac.authorization.k8s.io": Printer(_BINDING, _binding),
    "clusterrolebindings.rbac.authorization.k8s.io": Printer(_BINDING, _binding),
    "certificatesigningrequests.certificates.k8s.io": Printer(
        (
            NAME,
            AGE,
            Column("SignerName", description="Who is to sign it."),
            Column("Requestor", description="Who asks for it."),
            Column("RequestedDuration", description="How long it is to be valid."),
            Column("Condition", description="Whether it is approved and issued."),
        ),
        _signing_request,
    ),
}
