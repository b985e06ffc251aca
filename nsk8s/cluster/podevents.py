"""What the kubelets tell of their pods, in upstream's words (pkg/kubelet/events and where they are used).

One sentence is ours: no image is ever pulled here, and Pulled says so.
"""

from __future__ import annotations

from nsk8s.cluster.containers import ContainerRun, Role
from nsk8s.cluster.events import Recorder, Type
from nsk8s.cluster.lifecycle import HookFailed, ProbeFinished
from nsk8s.cluster.podworker import PodWorker
from nsk8s.cluster.store import Store

FIELDS: dict[Role, str] = {
    "app": "spec.containers",
    "init": "spec.initContainers",
    "sidecar": "spec.initContainers",
    "ephemeral": "spec.ephemeralContainers",
}


class PodEvents:
    """Records events about pods and their containers."""

    def __init__(self, store: Store) -> None:
        self._recorder = Recorder(store, "kubelet")

    def started(self, worker: PodWorker) -> None:
        """Containers that run since they were last told of; some may have ended again, or never begun."""
        for run in worker.runs():
            if not run.untold:
                continue
            run.untold = False
            self._tell(worker, "Normal", "Pulled", _pulled(run), run)
            self._tell(worker, "Normal", "Created", f"Created container: {run.spec.name}", run)
            ended = run.terminated if run.phase != "running" else None
            if ended is not None and ended["reason"] == "ContainerCannotRun":
                self._tell(worker, "Warning", "Failed", f"Error: {ended.get('message', '')}", run)
            else:
                self._tell(worker, "Normal", "Started", f"Started container {run.spec.name}", run)

    def refused(self, worker: PodWorker, run: ContainerRun) -> None:
        """A container lacks something that it needs to start."""
        self._tell(worker, "Warning", "Failed", f"Error: {run.why}", run)

    def failed_mount(self, worker: PodWorker, why: str) -> None:
        """A volume lacks something."""
        self._tell(worker, "Warning", "FailedMount", why)

    def backing_off(self, worker: PodWorker, run: ContainerRun) -> None:
        """A container that has ended must wait before it runs again."""
        pod = f"{worker.name}_{worker.namespace}({worker.uid})"
        what = f"Back-off restarting failed container {run.spec.name} in pod {pod}"
        self._tell(worker, "Warning", "BackOff", what, run)

    def stopping(self, worker: PodWorker, run: ContainerRun) -> None:
        """A container is being ended: with its pod, or in order to run again."""
        name = run.spec.name
        what = f"Stopping container {name}"
        if not worker.deleting:
            failed = next((p for p in run.probes if p.kind != "readiness" and p.last is False), None)
            if run.unwelcome:
                what = "FailedPostStartHook"
            elif run.renewed:
                what = f"Container {name} definition changed, will be restarted"
            elif failed is not None:
                what = f"Container {name} failed {failed.kind} probe, will be restarted"
        self._tell(worker, "Normal", "Killing", what, run)

    def hook_failed(self, worker: PodWorker, event: HookFailed) -> None:
        """A hook did not succeed; why is not told, for it may be secret."""
        run = worker.run(event.container)
        if run is not None:
            self._tell(worker, "Warning", f"Failed{event.hook}Hook", f"{event.hook}Hook failed", run)

    def probed(self, worker: PodWorker, event: ProbeFinished) -> None:
        """A probe was answered."""
        run = worker.run(event.container)
        probe = run.probe(event.kind) if run else None
        if event.ok or run is None or probe is None or probe.stale or run.phase != "running":
            return
        what = f"{event.kind.capitalize()} probe failed: {event.output}"
        self._tell(worker, "Warning", "Unhealthy", what, run)

    def sandbox_failed(self, worker: PodWorker, why: str) -> None:
        """The pod's namespaces could not be made."""
        self._tell(worker, "Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {why}")

    def sandbox_died(self, worker: PodWorker) -> None:
        """The pod's namespaces have gone by themselves."""
        what = "Pod sandbox changed, it will be killed and re-created."
        self._tell(worker, "Normal", "SandboxChanged", what)

    def _tell(
        self, worker: PodWorker, type_: Type, reason: str, message: str, run: ContainerRun | None = None
    ) -> None:
        field = f"{FIELDS[run.role]}{{{run.spec.name}}}" if run else ""
        node = worker.view.spec.nodeName
        self._recorder.event(worker.obj, type_, reason, message, host=node, field=field)


def _pulled(run: ContainerRun) -> str:
    image = f'Container image "{run.spec.image}"'
    if run.says.startswith("stand-in"):
        return f"{image} is emulated on this machine by a stand-in: nothing was pulled"
    return f"{image} is not used, the command runs on this machine's own files: nothing was pulled"
