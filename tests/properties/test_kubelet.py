"""Whatever happens in whatever order: no container is started twice, no pod is lost, no address is shared,
and a control plane that dies in between finds its way."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nsk8s.api.types import Obj
from nsk8s.cluster.lifecycle import (
    Command,
    ContainerExited,
    ContainerStarted,
    CreateSandbox,
    Event,
    ProbeFinished,
    RemoveSandbox,
    RunProbe,
    SandboxCreated,
    SandboxDied,
    SandboxFailed,
    SandboxRemoved,
    StartContainer,
    StopContainer,
)
from tests.unit.cluster.kubelets import Dialogue, container, pod
from tests.unit.cluster.worlds import three_nodes

NAMES = st.sampled_from("abcdefg")
PROBE = {"httpGet": {"port": 80}, "failureThreshold": 1}


class World(RuleBasedStateMachine):
    """A runtime that is slow, forgetful and in disorder, under a kubelet; at the end it is left in peace."""

    def __init__(self) -> None:
        super().__init__()
        # Fewer addresses than names: pods compete for them.
        self.d = Dialogue(three_nodes(w1={"pod_cidrs": ("10.244.1.0/29",)}))
        self.todo: list[Command] = []
        self.sandboxes: dict[str, str] = {}
        self.running: dict[tuple[str, str], str] = {}
        self.attempts: set[tuple[str, str, int]] = set()
        self.finite: set[tuple[str, str]] = set()

    def hear(self, commands: list[Command]) -> None:
        self.todo += commands

    def sync(self) -> None:
        self.hear(self.d.kubelet.sync(self.d.now))

    def tell(self, event: Event) -> None:
        self.hear(self.d.kubelet.handle(event, self.d.now))
        self.sync()

    # --- the user -------------------------------------------------------------------------------------

    @rule(name=NAMES, policy=st.sampled_from(["Always", "OnFailure", "Never"]), shape=st.integers(0, 4))
    def create(self, name: str, policy: str, shape: int) -> None:
        if self.d.exists(name):
            return
        spec: Obj = {"containers": [container("c")], "restartPolicy": policy}
        match shape:
            case 1:
                spec["containers"].append(container("d", readinessProbe=PROBE))
            case 2:
                spec["initContainers"] = [container("i")]
            case 3:
                spec["initContainers"] = [container("s", restartPolicy="Always"), container("i")]
            case 4:
                spec["containers"][0] |= {"livenessProbe": PROBE, "startupProbe": PROBE}
        self.d.store.create("pods", {**pod(name, **spec), "status": {"phase": "Pending"}})
        self.sync()

    @rule(name=NAMES, grace=st.sampled_from([None, 0, 2]))
    def delete(self, name: str, grace: int | None) -> None:
        if self.d.exists(name):
            self.d.registry.delete("pods", "default", name, grace=grace)
            self.sync()

    # --- the runtime ----------------------------------------------------------------------------------

    @precondition(lambda self: self.todo)
    @rule(data=st.data(), well=st.booleans())
    def obey(self, data: st.DataObject, well: bool) -> None:
        """One of the commands, not always the oldest, is carried out."""
        command = self.todo.pop(data.draw(st.integers(0, len(self.todo) - 1)))
        self.carry_out(command, well)

    def carry_out(self, command: Command, well: bool) -> None:
        pod_ = command.pod
        match command:
            case CreateSandbox():
                if any(isinstance(c, RemoveSandbox) and c.pod == pod_ for c in self.todo):
                    return  # overtaken
                if not well:
                    self.tell(SandboxFailed(pod_, "not now"))
                    return
                assert pod_ not in self.sandboxes
                self.sandboxes[pod_] = command.view.status.podIP
                assert len(set(self.sandboxes.values())) == len(self.sandboxes), "an address is shared"
                self.tell(SandboxCreated(pod_))
            case RemoveSandbox():
                self.sandboxes.pop(pod_, None)
                self.running = {k: v for k, v in self.running.items() if k[0] != pod_}
                self.todo = [c for c in self.todo if c.pod != pod_ or isinstance(c, RunProbe)]
                self.tell(SandboxRemoved(pod_))
            case StartContainer():
                key = (pod_, command.container.name)
                assert key not in self.running, "started while it runs"
                run = (*key, command.attempt)
                assert run not in self.attempts, "the same run twice"
                self.attempts.add(run)
                self.running[key] = f"{pod_}/{command.container.name}/{command.attempt}"
                if command.container.name == "i":
                    self.finite.add(key)
                self.tell(ContainerStarted(*key, self.running[key], ""))
            case StopContainer():
                self.end((pod_, command.container), 0 if well else 137)
            case RunProbe():
                self.tell(ProbeFinished(pod_, command.container, command.kind, well, ""))

    def end(self, key: tuple[str, str], code: int) -> None:
        if self.running.pop(key, None) is not None:
            self.tell(ContainerExited(*key, code, "Error" if code else "Completed"))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), code=st.sampled_from([0, 1]))
    def exit_(self, data: st.DataObject, code: int) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.running))), code)

    @precondition(lambda self: self.sandboxes)
    @rule(data=st.data())
    def sandbox_dies(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.sandboxes)))
        del self.sandboxes[uid]
        self.running = {k: v for k, v in self.running.items() if k[0] != uid}
        self.todo = [c for c in self.todo if c.pod != uid or isinstance(c, RemoveSandbox | RunProbe)]
        self.tell(SandboxDied(uid))

    @rule(seconds=st.sampled_from([1, 15, 400]))
    def time_passes(self, seconds: int) -> None:
        self.d.now += seconds
        self.sync()

    @rule()
    def control_plane_dies(self) -> None:
        """What was asked for and not carried out is forgotten; sandboxes of pods that are no more are
        found by comparing the kernel with what is wanted."""
        self.todo = []
        self.d.kubelet = self.d.new_kubelet()
        self.hear(self.d.kubelet.adopt(set(self.sandboxes), dict(self.running), self.d.now))
        there = {obj["metadata"]["uid"] for obj in self.d.store.list("pods")}
        self.sandboxes = {uid: ip for uid, ip in self.sandboxes.items() if uid in there}
        self.running = {key: id_ for key, id_ in self.running.items() if key[0] in there}

    # --- laws -----------------------------------------------------------------------------------------

    @invariant()
    def addresses_belong_to_one_pod(self) -> None:
        ips = [view.status.podIP for view in self.d.kubelet.wanted()]
        assert all(ips)
        assert len(set(ips)) == len(ips)

    @invariant()
    def nothing_more_to_say(self) -> None:
        revision = self.d.store.revision
        assert self.d.kubelet.sync(self.d.now) == []
        assert self.d.store.revision == revision

    def teardown(self) -> None:
        """Left in peace, every pod is ready, has ended, waits for an address, or is gone."""
        for _ in range(400):
            while self.todo:
                self.carry_out(self.todo.pop(0), True)
            for key in sorted(self.finite & set(self.running)):
                self.end(key, 0)
            if not self.todo:
                at = self.d.kubelet.wake()
                if at is None or all(self.settled(obj) for obj in self.d.store.list("pods")):
                    break
                assert at > self.d.now
                self.d.now = at
                self.sync()
        pods = list(self.d.store.list("pods"))
        uids = {obj["metadata"]["uid"] for obj in pods}
        assert set(self.sandboxes) <= uids, "a sandbox of nobody"
        for obj in pods:
            assert self.settled(obj), obj["status"]
        assert {view.metadata.uid for view in self.d.kubelet.wanted()} == set(self.sandboxes)

    def settled(self, obj: Obj) -> bool:
        if obj["metadata"].get("deletionTimestamp"):
            return False
        status = obj["status"]
        if status["phase"] in ("Succeeded", "Failed"):
            return True
        conditions = {c["type"]: c for c in status.get("conditions", ())}
        if "no IP addresses" in conditions["PodReadyToStartContainers"].get("message", ""):
            return len(self.sandboxes) >= 5
        ready: bool = conditions["Ready"]["status"] == "True"
        # under other policies some containers may have ended for good
        return ready or (obj["spec"]["restartPolicy"] != "Always" and status["phase"] == "Running")


World.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)
TestKubelet = World.TestCase
