"""Typed, read-only views of the objects nsk8s acts on, with Kubernetes' own field names.

An object is stored as the dict the user wrote; `nsk8s.api.views.view` gives the part of it that the emulator
reads, and ignores every other field. Field meanings are those of the Kubernetes API reference (v1,
apps/v1, discovery.k8s.io/v1).
"""

from __future__ import annotations

from typing import Any

import msgspec

Obj = dict[str, Any]
"""A whole Kubernetes object as JSON. Never change one that the store handed out."""

Labels = dict[str, str]
IntOrString = int | str


class Struct(msgspec.Struct, frozen=True):
    """A view: frozen, unknown fields ignored, absent fields at Kubernetes' default."""


class OwnerReference(Struct, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""
    apiVersion: str = ""
    controller: bool = False


class ObjectMeta(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generation: int = 0
    creationTimestamp: str = ""
    deletionTimestamp: str | None = None
    deletionGracePeriodSeconds: int | None = None
    labels: Labels = {}
    annotations: Labels = {}
    ownerReferences: tuple[OwnerReference, ...] = ()
    generateName: str = ""


class Requirement(Struct, frozen=True):
    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class LabelSelector(Struct, frozen=True):
    matchLabels: Labels | None = None
    matchExpressions: tuple[Requirement, ...] | None = None


# --- pods -------------------------------------------------------------------------------------------


class ContainerPort(Struct, frozen=True):
    containerPort: int = 0
    name: str = ""
    protocol: str = "TCP"
    hostPort: int = 0
    hostIP: str = ""


class ObjectFieldSelector(Struct, frozen=True):
    fieldPath: str = ""


class ResourceFieldSelector(Struct, frozen=True):
    resource: str = ""
    containerName: str = ""
    divisor: IntOrString = ""


class KeySelector(Struct, frozen=True):
    """One key of a ConfigMap or a Secret."""

    name: str = ""
    key: str = ""
    optional: bool = False


class EnvVarSource(Struct, frozen=True):
    fieldRef: ObjectFieldSelector | None = None
    resourceFieldRef: ResourceFieldSelector | None = None
    configMapKeyRef: KeySelector | None = None
    secretKeyRef: KeySelector | None = None


class WholeRef(Struct, frozen=True):
    """All keys of a ConfigMap or a Secret."""

    name: str = ""
    optional: bool = False


class EnvFromSource(Struct, frozen=True):
    prefix: str = ""
    configMapRef: WholeRef | None = None
    secretRef: WholeRef | None = None


class EnvVar(Struct, frozen=True):
    name: str = ""
    value: str = ""
    valueFrom: EnvVarSource | None = None


class ExecAction(Struct, frozen=True):
    command: tuple[str, ...] = ()


class HTTPHeader(Struct, frozen=True):
    name: str = ""
    value: str = ""


class HTTPGetAction(Struct, frozen=True):
    port: IntOrString = 0
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    httpHeaders: tuple[HTTPHeader, ...] = ()


class TCPSocketAction(Struct, frozen=True):
    port: IntOrString = 0
    host: str = ""


class GRPCAction(Struct, frozen=True):
    port: int = 0
    service: str | None = None


class SleepAction(Struct, frozen=True):
    seconds: int = 0


class LifecycleHandler(Struct, frozen=True):
    exec: ExecAction | None = None
    httpGet: HTTPGetAction | None = None
    tcpSocket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Struct, frozen=True):
    postStart: LifecycleHandler | None = None
    preStop: LifecycleHandler | None = None


class Probe(Struct, frozen=True):
    exec: ExecAction | None = None
    httpGet: HTTPGetAction | None = None
    tcpSocket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initialDelaySeconds: int = 0
    periodSeconds: int = 10
    timeoutSeconds: int = 1
    successThreshold: int = 1
    failureThreshold: int = 3
    terminationGracePeriodSeconds: int | None = None


ACCOUNT_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a container finds its token, the API server's CA and its namespace."""


class VolumeMount(Struct, frozen=True):
    name: str = ""
    mountPath: str = ""
    subPath: str = ""
    subPathExpr: str = ""
    readOnly: bool = False


class Resources(Struct, frozen=True):
    limits: dict[str, Any] = {}
    requests: dict[str, Any] = {}


class KeyToPath(Struct, frozen=True):
    key: str = ""
    path: str = ""
    mode: int | None = None


class ConfigMapSource(Struct, frozen=True):
    """Of a volume, or a projected one's (without `defaultMode`)."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    defaultMode: int | None = None
    optional: bool = False


class SecretVolumeSource(Struct, frozen=True):
    secretName: str = ""
    items: tuple[KeyToPath, ...] = ()
    defaultMode: int | None = None
    optional: bool = False


class DownwardFile(Struct, frozen=True):
    path: str = ""
    fieldRef: ObjectFieldSelector | None = None
    resourceFieldRef: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardSource(Struct, frozen=True):
    items: tuple[DownwardFile, ...] = ()
    defaultMode: int | None = None


class TokenProjection(Struct, frozen=True):
    path: str = ""
    audience: str = ""
    expirationSeconds: int = 3600


class Projection(Struct, frozen=True):
    configMap: ConfigMapSource | None = None
    secret: ConfigMapSource | None = None
    downwardAPI: DownwardSource | None = None
    serviceAccountToken: TokenProjection | None = None


class ProjectedSource(Struct, frozen=True):
    sources: tuple[Projection, ...] = ()
    defaultMode: int | None = None


class HostPathSource(Struct, frozen=True):
    path: str = ""
    type: str = ""


class ClaimSource(Struct, frozen=True):
    claimName: str = ""
    readOnly: bool = False


class Volume(Struct, frozen=True):
    """One that has none of these sources is of a kind that is kept and not acted on, or an emptyDir."""

    name: str = ""
    configMap: ConfigMapSource | None = None
    secret: SecretVolumeSource | None = None
    downwardAPI: DownwardSource | None = None
    projected: ProjectedSource | None = None
    hostPath: HostPathSource | None = None
    persistentVolumeClaim: ClaimSource | None = None


class Container(Struct, frozen=True):
    name: str = ""
    image: str = ""
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    workingDir: str = ""
    env: tuple[EnvVar, ...] = ()
    envFrom: tuple[EnvFromSource, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    readinessProbe: Probe | None = None
    livenessProbe: Probe | None = None
    startupProbe: Probe | None = None
    restartPolicy: str | None = None
    resources: Resources = Resources()
    volumeMounts: tuple[VolumeMount, ...] = ()
    lifecycle: Lifecycle = Lifecycle()
    stdin: bool = False
    stdinOnce: bool = False
    tty: bool = False
    targetContainerName: str = ""
    """Of an ephemeral container: whose processes it sees."""


class Toleration(Struct, frozen=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class HostAlias(Struct, frozen=True):
    ip: str = ""
    hostnames: tuple[str, ...] = ()


class PodDNSConfigOption(Struct, frozen=True):
    name: str = ""
    value: str | None = None


class PodDNSConfig(Struct, frozen=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class PodSpec(Struct, frozen=True):
    containers: tuple[Container, ...] = ()
    initContainers: tuple[Container, ...] = ()
    ephemeralContainers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    nodeName: str = ""
    nodeSelector: Labels = {}
    tolerations: tuple[Toleration, ...] = ()
    hostNetwork: bool = False
    hostname: str = ""
    subdomain: str = ""
    hostAliases: tuple[HostAlias, ...] = ()
    restartPolicy: str = "Always"
    serviceAccountName: str = ""
    terminationGracePeriodSeconds: int | None = None
    enableServiceLinks: bool = True
    dnsPolicy: str = "ClusterFirst"
    dnsConfig: PodDNSConfig | None = None


class Condition(Struct, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    lastTransitionTime: str | None = None


class ContainerStatus(Struct, frozen=True):
    name: str = ""
    ready: bool = False
    started: bool | None = None
    restartCount: int = 0
    containerID: str = ""
    state: dict[str, Any] = {}
    lastState: dict[str, Any] = {}


class PodIP(Struct, frozen=True):
    ip: str = ""


class PodStatus(Struct, frozen=True):
    phase: str = ""
    podIP: str = ""
    podIPs: tuple[PodIP, ...] = ()
    hostIP: str = ""
    hostIPs: tuple[PodIP, ...] = ()
    startTime: str | None = None
    conditions: tuple[Condition, ...] = ()
    containerStatuses: tuple[ContainerStatus, ...] = ()
    initContainerStatuses: tuple[ContainerStatus, ...] = ()
    ephemeralContainerStatuses: tuple[ContainerStatus, ...] = ()

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses, the primary one first."""
        return tuple(each.ip for each in self.podIPs) or ((self.podIP,) if self.podIP else ())


class Pod(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ready(self) -> bool:
        """The Ready condition."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)

    @property
    def terminal(self) -> bool:
        """Succeeded or Failed: no container will ever run again."""
        return self.status.phase in ("Succeeded", "Failed")


# --- nodes ------------------------------------------------------------------------------------------


class Taint(Struct, frozen=True):
    key: str = ""
    value: str = ""
    effect: str = ""


ZONE = "topology.kubernetes.io/zone"
"""The label that says which zone a node is in."""


class NodeSpec(Struct, frozen=True):
    podCIDR: str = ""
    podCIDRs: tuple[str, ...] = ()
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeAddress(Struct, frozen=True):
    type: str = ""
    address: str = ""


class NodeStatus(Struct, frozen=True):
    conditions: tuple[Condition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()


class Node(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


# --- services and endpoints ---------------------------------------------------------------------------


class ServicePort(Struct, frozen=True):
    port: int = 0
    name: str = ""
    protocol: str = "TCP"
    targetPort: IntOrString = 0
    nodePort: int = 0


class ClientIPConfig(Struct, frozen=True):
    timeoutSeconds: int = 10800


class SessionAffinityConfig(Struct, frozen=True):
    clientIP: ClientIPConfig = ClientIPConfig()


class ServiceSpec(Struct, frozen=True):
    type: str = "ClusterIP"
    clusterIP: str = ""
    clusterIPs: tuple[str, ...] = ()
    ipFamilies: tuple[str, ...] = ()
    ipFamilyPolicy: str | None = None
    selector: Labels | None = None
    ports: tuple[ServicePort, ...] = ()
    externalIPs: tuple[str, ...] = ()
    externalName: str = ""
    sessionAffinity: str = "None"
    sessionAffinityConfig: SessionAffinityConfig | None = None
    externalTrafficPolicy: str | None = None
    internalTrafficPolicy: str = "Cluster"
    publishNotReadyAddresses: bool = False
    trafficDistribution: str | None = None
    loadBalancerSourceRanges: tuple[str, ...] = ()
    healthCheckNodePort: int = 0
    allocateLoadBalancerNodePorts: bool | None = None
    loadBalancerClass: str | None = None

    @property
    def cluster_ips(self) -> tuple[str, ...]:
        """Its addresses, the primary one first; none of a headless Service."""
        return tuple(ip for ip in self.clusterIPs or (self.clusterIP,) if ip not in ("", "None"))


class LoadBalancerIngress(Struct, frozen=True):
    ip: str = ""
    hostname: str = ""
    ipMode: str | None = None


class LoadBalancerStatus(Struct, frozen=True):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Struct, frozen=True):
    loadBalancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointConditions(Struct, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ObjectReference(Struct, frozen=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Hint(Struct, frozen=True):
    name: str = ""


class EndpointHints(Struct, frozen=True):
    forZones: tuple[Hint, ...] | None = None
    forNodes: tuple[Hint, ...] | None = None


class Endpoint(Struct, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    nodeName: str = ""
    hints: EndpointHints | None = None
    targetRef: ObjectReference | None = None


class EndpointPort(Struct, frozen=True):
    name: str | None = None
    port: int | None = None
    protocol: str = "TCP"


class EndpointSlice(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    addressType: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()


# --- workload controllers -------------------------------------------------------------------------------


class PodTemplate(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


class RollingUpdate(Struct, frozen=True):
    maxSurge: IntOrString = "25%"
    maxUnavailable: IntOrString = "25%"


class DeploymentStrategy(Struct, frozen=True):
    type: str = "RollingUpdate"
    rollingUpdate: RollingUpdate | None = None


class DeploymentSpec(Struct, frozen=True):
    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    strategy: DeploymentStrategy = DeploymentStrategy()
    minReadySeconds: int = 0
    revisionHistoryLimit: int = 10
    paused: bool = False


class Deployment(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: DeploymentSpec = DeploymentSpec()


class ReplicaSetSpec(Struct, frozen=True):
    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    minReadySeconds: int = 0


class ReplicaSet(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ReplicaSetSpec = ReplicaSetSpec()


# --- namespaces ------------------------------------------------------------------------------------------


class Namespace(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
