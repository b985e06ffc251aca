"""Cluster DNS: what CoreDNS answers in a cluster that kubeadm made.

`zone` knows the records that Services, EndpointSlices and Namespaces make (pure); `answer` turns a query's
bytes into an answer's; `corefile` reads what of its configuration is acted on; `watch` learns the objects
from the control plane; `forward` asks the upstreams; `server` does all that for every DNS pod of the cluster,
in one process.
"""
