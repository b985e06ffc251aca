from __future__ import annotations

from nsk8s.api.types import HostAlias, ObjectMeta, Pod, PodSpec, PodStatus
from nsk8s.workloads import podfiles


def pod(**spec: object) -> Pod:
    given = {"nodeName": "w1", **spec}
    return Pod(
        metadata=ObjectMeta(name="web-0", namespace="shop"),
        spec=PodSpec(**given),  # type: ignore[arg-type]  # a test's own fields
        status=PodStatus(podIP="10.244.1.2", hostIP="172.18.0.3"),
    )


def test_hosts_names_the_pod() -> None:
    assert podfiles.hosts(pod()).splitlines()[-1] == "10.244.1.2\tweb-0"


def test_hosts_has_the_full_name_of_a_pod_with_a_subdomain() -> None:
    text = podfiles.hosts(pod(hostname="db", subdomain="data"))
    assert text.splitlines()[-1] == "10.244.1.2\tdb.data.shop.svc.cluster.local\tdb"


def test_hosts_has_aliases_and_on_the_nodes_network_the_node() -> None:
    aliases = (HostAlias(ip="10.0.0.9", hostnames=("a", "b")),)
    text = podfiles.hosts(pod(hostNetwork=True, hostAliases=aliases))
    assert text.startswith("# Kubernetes-managed hosts file (host network).\n")
    assert "172.18.0.3\tw1\n" in text
    assert text.endswith("# Entries added by HostAliases.\n10.0.0.9\ta\tb\n")
