"""nsk8s holds a Kubernetes cluster's network in your hand.

Every node and every pod is a real network namespace, every packet crosses the real kernel. Data flows
one way:

     YAML / kubectl ─▶ api ─▶ cluster ─▶ dataplane ─▶ linux          PURE: values in, values out
                                                        ▲
     ───────────────────────────────────────────────────┼──────────────────────────────────────
     cli ─▶ client ≈≈▶ daemon (apiserver + loop) ─▶ kernel ┘         IMPURE: sockets, setns, processes
                              ├────▶ workloads   (what runs in pods)
                              └────▶ observe     (witnesses: look and probe, never configure)

A manifest becomes objects (`api`); controllers complete them (`cluster`); `dataplane` compiles each
namespace's whole desired state as one frozen value; `linux` compares it with what is there; `kernel`
applies the difference in batches. Kubernetes words stop at `dataplane`, Linux words start there.
"""

__version__ = "0.1.0"
