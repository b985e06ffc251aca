"""What a container finds in its environment and in /etc, as the kubelet and the container runtime put
it there. Pure text."""

from __future__ import annotations

from nsk8s.api.types import Pod
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
        addresses = [each.ip for each in pod.status.hostIPs] or [pod.status.hostIP]
        text += "".join(f"{ip}\t{pod.spec.nodeName}\n" for ip in addresses)
    else:
        name = hostname(pod)
        full = (
            f"{name}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{ZONE}\t" if pod.spec.subdomain else ""
        )
        own = "".join(f"{ip}\t{full}{name}\n" for ip in pod.status.ips or ("",))
        text = f"# Kubernetes-managed hosts file.\n{HOSTS}{own}"
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
