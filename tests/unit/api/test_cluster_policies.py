"""ClusterNetworkPolicies are refused as their CustomResourceDefinition words it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nsk8s.api import manifest
from nsk8s.api.types import Obj
from nsk8s.errors import ManifestError

EVERYBODY: Obj = {"namespaces": {}}


def cnp(**spec: Any) -> Obj:  # noqa: ANN401  # any field
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {"tier": "Admin", "priority": 1, "subject": EVERYBODY, **spec},
    }


def egress(**rule: Any) -> list[Obj]:  # noqa: ANN401  # any field
    return [{"action": "Deny", "to": [EVERYBODY], **rule}]


def wrong(tmp_path: Path, obj: Obj) -> list[str]:
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(obj))
    try:
        manifest.read([str(file)])
    except ManifestError as error:
        return [f"{p.path}: {p.what}" for p in error.problems]
    return []


def test_a_good_one_is_acted_on(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(cnp(egress=egress(to=[{"networks": ["10.0.0.0/8", "fd00::/8"]}]))))
    assert manifest.read([str(file)]).ignored == ()


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (
            {"tier": "Default"},
            'spec.tier: Unsupported value: "Default": supported values: "Admin", "Baseline"',
        ),
        (
            {"priority": 1001},
            "spec.priority: Invalid value: 1001: spec.priority in body should be less than or equal to 1000",
        ),
        (
            {"subject": {}},
            "spec.subject: Invalid value: 0: spec.subject in body should have at least 1 properties",
        ),
        (
            {"subject": {"namespaces": {}, "pods": {"podSelector": {}}}},
            "spec.subject: Invalid value: 2: spec.subject in body should have at most 1 properties",
        ),
        ({"egress": egress() * 26}, "spec.egress: Too many: 26: must have at most 25 items"),
        (
            {"egress": egress(to=[{"networks": ["10.0.0.0"]}])},
            'spec.egress[0].to[0].networks[0]: Invalid value: "string": Invalid CIDR format provided',
        ),
        (
            {"egress": egress(protocols=[{"tcp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}])},
            'spec.egress[0].protocols[0].tcp.destinationPort.range: Invalid value: "object": '
            "Start port must be less than End port",
        ),
        (
            {"egress": egress(action="Allow")},
            'spec.egress[0].action: Unsupported value: "Allow": supported values: "Accept", "Deny", "Pass"',
        ),
        ({"ingress": [{"action": "Deny"}]}, "spec.ingress[0].from: Required value"),
    ],
)
def test_what_is_wrong(tmp_path: Path, spec: Obj, what: str) -> None:
    assert wrong(tmp_path, cnp(**spec)) == [what]
