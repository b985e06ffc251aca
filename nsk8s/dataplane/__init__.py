"""Cluster objects → the whole desired state of every network namespace; the only room that speaks both
Kubernetes and Linux. Pure: the same view gives the same states.

`compiler` joins the parts: `fabric` (the underlay and what hangs on it), `node`, `pod`. A node's rules come
from `kubeproxy` (which asks `endpoints` what a service may use), `flannel`, `portmap` and `kubelet`;
`policy` writes those of network policies (`policyrules` one policy, `selections` who is selected).
`names` holds what is derived by hashing.
"""
