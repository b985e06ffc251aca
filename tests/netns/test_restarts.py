"""The control plane is killed a hundred times, during watches, applies and rollouts: clients come back to
what they knew, revisions never go backwards, nothing acknowledged is lost."""

from __future__ import annotations

import threading
from abc import abstractmethod

import pytest

from nsk8s.client import Client
from nsk8s.errors import ApiError, ClusterGone
from nsk8s.paths import ClusterPaths
from tests.conftest import MakeLab
from tests.lab import Lab
from tests.netns.processes_of import Processes, kill
from tests.netns.standing import CLUSTER, deployment, stream, until

pytestmark = pytest.mark.netns

KILLS = 100
MAPS = "/api/v1/namespaces/default/configmaps"
ROLLED = "/apis/apps/v1/namespaces/default/deployments/rolled"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


class User(threading.Thread):
    """Somebody who does one thing again and again, and comes back whenever the control plane goes away."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(daemon=True)
        self.lab = lab
        self.client = Client(ClusterPaths(lab.name))
        self.revisions: list[int] = []
        self.returns = 0
        self.enough = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                try:
                    self.once()
                except ClusterGone:
                    self.returns += 1
                    self.enough.wait(0.01)
        except BaseException as error:  # told by `end`, in the thread of the test
            self.failure = error
            raise
        finally:
            self.client.close()

    def await_more(self, count: int) -> None:
        """Until that many more things have been acknowledged."""
        done = len(self.revisions)
        until(self.lab, lambda: len(self.revisions) >= done + count, f"{type(self).__name__} gets on")

    @abstractmethod
    def once(self) -> None:
        """The one thing."""

    def end(self) -> None:
        self.enough.set()
        self.join(30)
        assert not self.is_alive()
        assert self.failure is None
        assert self.revisions == sorted(self.revisions), "revisions never go backwards"


class Creator(User):
    """Creates ConfigMaps, and remembers which were acknowledged."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.acknowledged: set[str] = set()
        self._number = 0

    def once(self) -> None:
        self._number += 1
        name = f"made-{self._number}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        made = self.client.post(MAPS, body)
        self.revisions.append(int(made["metadata"]["resourceVersion"]))
        self.acknowledged.add(name)
        self.enough.wait(0.02)


class Applier(User):
    """Applies a ConfigMap with a number that grows."""

    acknowledged = 0

    def once(self) -> None:
        number = self.acknowledged + 1
        data = {"number": str(number)}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data}
        path = f"{MAPS}/applied?fieldManager=test&force=true"
        made = self.client.request("PATCH", path, body, content_type=APPLY)
        self.revisions.append(int(made["metadata"]["resourceVersion"]))
        self.acknowledged = number
        self.enough.wait(0.02)


class Roller(User):
    """Rolls a deployment out anew."""

    acknowledged = 0

    def once(self) -> None:
        number = self.acknowledged + 1
        template = {"metadata": {"annotations": {"rollout": str(number)}}}
        body = {"spec": {"template": template}}
        made = self.client.request("PATCH", ROLLED, body, content_type=MERGE)
        self.revisions.append(int(made["metadata"]["resourceVersion"]))
        self.acknowledged = number
        self.enough.wait(0.5)


class Reader(User):
    """Lists and watches ConfigMaps as a reflector does, and knows which there are."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.known: set[str] = set()
        self.resumed = 0
        self._revision = ""

    def once(self) -> None:
        if not self._revision:
            found = self.client.get(MAPS)
            self.known = {item["metadata"]["name"] for item in found["items"]}
            self._saw(found["metadata"]["resourceVersion"])
        else:
            self.resumed += 1
        path = f"{MAPS}?watch=1&resourceVersion={self._revision}&allowWatchBookmarks=true&timeoutSeconds=5"
        try:
            for event in self.client.watch(path):
                meta = event["object"]["metadata"]
                if event["type"] != "BOOKMARK":
                    self.known.add(meta["name"])
                self._saw(meta["resourceVersion"])
                if self.enough.is_set():
                    return
        except ApiError as error:
            if error.code != 410:
                raise
            self._revision = ""

    def _saw(self, revision: str) -> None:
        self._revision = revision
        self.revisions.append(int(revision))


def test_a_hundred_kills(cluster: MakeLab) -> None:
    lab = cluster(stream(CLUSTER, deployment("rolled", 3)))
    processes = Processes(lab.name)
    creator, applier, roller, reader = users = Creator(lab), Applier(lab), Roller(lab), Reader(lab)
    for user in users:
        user.start()
    for number in range(KILLS):
        creator.await_more(1 + number % 5)
        applier.await_more(1)
        kill(processes.daemon())
        lab.nsk8s("get", "namespaces")
    until(lab, lambda: reader.known >= creator.acknowledged, "the watcher knows all that was acknowledged")
    for user in users:
        user.end()
        assert user.returns, f"{type(user).__name__} has lost its control plane"
    there = {one["metadata"]["name"]: one for one in lab.get("configmaps")}
    assert creator.acknowledged <= set(there)
    assert int(there["applied"]["data"]["number"]) >= applier.acknowledged
    template = lab.get("deployment", "rolled")[0]["spec"]["template"]
    assert int(template["metadata"]["annotations"]["rollout"]) >= roller.acknowledged
    lab.up()
    assert len([name for name in lab.pods() if name.startswith("rolled-")]) == 3
    assert processes.count("nsk8s.daemon") == 1
