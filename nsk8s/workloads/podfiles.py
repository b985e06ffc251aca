"""What a container finds in its environment and in /etc, as the kubelet and the container runtime put
it there. Pure text."""

from __future__ import annotations

from nsk8s.api.types import Container, Pod
from nsk8s.workloads.images import expand
from nsk8s.workloads.resolvconf import ZONE, resolv_conf

HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
fe00::\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hostname(pod: Pod) -> str:
    """The pod's host name: what it asks for, or its own name, cut to 63 characters as the kubelet does."""
    return (pod.spec.hostname or pod.metadata.name)[:63].rstrip("-.")


def hosts(pod: Pod) -> str:
    """/etc/hosts (pkg/kubelet/kubelet_pods.go, managedHostsFileContent)."""
    if pod.spec.hostNetwork:
        text = "# Kubernetes-managed hosts file (host network).\n" + HOSTS
        text += f"{pod.status.hostIP}\t{pod.spec.nodeName}\n"
    else:
        name = hostname(pod)
        full = (
            f"{name}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{ZONE}\t" if pod.spec.subdomain else ""
        )
        text = f"# Kubernetes-managed hosts file.\n{HOSTS}{pod.status.podIP}\t{full}{name}\n"
    if pod.spec.hostAliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join("\t".join((alias.ip, *alias.hostnames)) + "\n" for alias in pod.spec.hostAliases)
    return text


def files(pod: Pod, dns: str) -> dict[str, str]:
    """The files that are the pod's own, by path."""
    name = pod.spec.nodeName if pod.spec.hostNetwork else hostname(pod)
    return {
        "/etc/hosts": hosts(pod),
        "/etc/hostname": f"{name}\n",
        "/etc/resolv.conf": resolv_conf(pod, dns),
    }


def environment(pod: Pod, container: Container, api: str = "") -> dict[str, str]:
    """The container's environment: HOSTNAME, where the Service ``kubernetes`` is (at the address `api`), and
    what it asks for, with ``$(NAME)`` expanded. A variable from a source that nsk8s does not know
    (ConfigMaps, Secrets, resources) is left out."""
    env = {"HOSTNAME": pod.spec.nodeName if pod.spec.hostNetwork else hostname(pod)}
    if api:
        env |= service_variables("kubernetes", api, "https", 443)
    for variable in container.env:
        source = variable.valueFrom
        if source is None:
            env[variable.name] = expand((variable.value,), env)[0]
        elif source.fieldRef is not None:
            env[variable.name] = field(pod, source.fieldRef.fieldPath)
    return env


def service_variables(name: str, address: str, port_name: str, port: int) -> dict[str, str]:
    """What a container is told of a TCP service with one port (pkg/kubelet/envvars)."""
    service = name.upper().replace("-", "_")
    url, one = f"tcp://{address}:{port}", f"{service}_PORT_{port}_TCP"
    return {
        f"{service}_SERVICE_HOST": address,
        f"{service}_SERVICE_PORT": str(port),
        f"{service}_SERVICE_PORT_{port_name.upper()}": str(port),
        f"{service}_PORT": url,
        one: url,
        f"{one}_PROTO": "tcp",
        f"{one}_PORT": str(port),
        f"{one}_ADDR": address,
    }


def field(pod: Pod, path: str) -> str:
    """What the downward API says of a pod at `path`; "" where it has nothing to say (pkg/fieldpath)."""
    meta, spec, status = pod.metadata, pod.spec, pod.status
    name, bracket, rest = path.partition("['")
    key = rest.removesuffix("']")
    if bracket:
        maps = {"metadata.labels": meta.labels, "metadata.annotations": meta.annotations}
        return maps.get(name, {}).get(key, "")
    return {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": spec.nodeName,
        "spec.serviceAccountName": spec.serviceAccountName,
        "status.hostIP": status.hostIP,
        "status.hostIPs": status.hostIP,
        "status.podIP": status.podIP,
        "status.podIPs": status.podIP,
    }.get(path, "")
