from __future__ import annotations

from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from nsk8s.cli.inside import find
from nsk8s.client import Client
from nsk8s.errors import ApiError, UsageError, UserError

DEPLOYMENT = {"spec": {"selector": {"matchLabels": {"app": "web"}}}}
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
PODS = [
    {"metadata": {"name": "web-a"}, "status": {"phase": "Pending"}},
    {"metadata": {"name": "web-b"}, "status": READY},
    {"metadata": {"name": "web-c"}, "status": READY},
]
ANSWERS: dict[str, Any] = {
    "/apis/apps/v1/namespaces/shop/deployments/web": DEPLOYMENT,
    "/api/v1/namespaces/shop/services/manual": {"spec": {"ports": []}},
    "/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb": {"items": PODS},
}
PLACES = {("pod", "web-b"), ("node", "w1"), ("client", "external"), ("pod", "w2"), ("node", "w2")}


class Fake:
    """A control plane that knows ANSWERS and PLACES."""

    def get(self, asked: str) -> dict[str, Any]:
        if asked in ANSWERS:
            found: dict[str, Any] = ANSWERS[asked]
            return found
        query = {key: value[0] for key, value in parse_qs(urlsplit(asked).query).items()}
        if asked.startswith("/nsk8s/v1/target?") and (query["kind"], query["name"]) in PLACES:
            return {"namespace": query["name"], "pid": 7}
        raise ApiError(404, "NotFound", f"{asked} not found")


CLIENT = cast("Client", Fake())


@pytest.mark.parametrize(
    ("target", "kind", "name"),
    [
        ("web-b", "pod", "web-b"),
        ("pod/web-b", "pod", "web-b"),
        ("po/web-b", "pod", "web-b"),
        ("deploy/web", "pod", "web-b"),
        ("node/w1", "node", "w1"),
        ("client/external", "client", "external"),
        ("w1", "node", "w1"),
        ("external", "client", "external"),
        ("w2", "pod", "w2"),
    ],
)
def test_a_target_is_found(target: str, kind: str, name: str) -> None:
    found = find(CLIENT, target, "shop", "")
    assert (found["kind"], found["namespace"]) == (kind, name)


@pytest.mark.parametrize(
    ("target", "error"),
    [("nobody", ApiError), ("pod/", UsageError), ("pudding/x", UsageError), ("svc/manual", UserError)],
)
def test_what_is_no_target(target: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        find(CLIENT, target, "shop", "")


def test_only_pods_have_logs() -> None:
    for target in ("w1", "node/w1", "client/external"):
        with pytest.raises((ApiError, UsageError, UserError)):
            find(CLIENT, target, "shop", "", pods_only=True)
