from __future__ import annotations

from nsk8s.api.types import Container, EnvVar, HostAlias, ObjectMeta, Pod, PodSpec, PodStatus
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


def test_the_environment_expands_what_was_set_before() -> None:
    env = (EnvVar(name="A", value="1"), EnvVar(name="B", value="$(A)$(HOSTNAME)$(NO)"))
    assert podfiles.environment(pod(), Container(env=env)) == {
        "HOSTNAME": "web-0",
        "A": "1",
        "B": "1web-0$(NO)",
    }


def test_a_container_finds_the_api_by_its_variables() -> None:
    env = (EnvVar(name="URL", value="https://$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)"),)
    found = podfiles.environment(pod(), Container(env=env), "10.96.0.1")
    assert found["URL"] == "https://10.96.0.1:443"
    assert {name: value for name, value in found.items() if name.startswith("KUBERNETES_")} == {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
        "KUBERNETES_PORT_443_TCP_PORT": "443",
        "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
    }
