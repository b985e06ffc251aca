"""The JSON Schema of the Cluster document, and the check of a value against such a schema.

`CLUSTER` is what ``nsk8s schema`` prints (draft 2020-12; editors complete and explain the document with
it) and what `conform` checks documents with, so that the two cannot differ. What a schema cannot say
(networks that overlap, names given twice) is `cluster`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nsk8s.api.findings import Findings, shown
from nsk8s.api.names import nearest
from nsk8s.api.topology import KUBERNETES

Schema = Mapping[str, Any]

LABEL = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
IPV4 = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$"
_ADDRESS = r"([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-fA-F]*:[0-9a-fA-F:.]*)"
ADDRESS = f"^{_ADDRESS}(, *{_ADDRESS})?$"
"""One address, or two."""
VERSION = r"^v?1\.[0-9]{1,2}(\.[0-9]{1,3})?$"
NETWORK = f"^{_ADDRESS}/[0-9]{{1,3}}(, *{_ADDRESS}/[0-9]{{1,3}})?$"
"""One network, or two."""


def _pair(pattern: str, wants: str, description: str) -> dict[str, Any]:
    """One of either family, or one of each as a list or as text with a comma between."""
    item = {"type": "string", "pattern": pattern, "x-wants": wants}
    return {
        **item,
        "type": ["string", "array"],
        "items": item,
        "minItems": 1,
        "description": f"{description} For dual stack one of each family, the primary family first.",
    }


def _network(description: str, default: str | None = None) -> dict[str, Any]:
    schema = _pair(NETWORK, "a network such as 10.1.0.0/16 or fd00:10:1::/56", description)
    return schema if default is None else schema | {"default": default}


def _name(description: str) -> dict[str, Any]:
    return {
        "type": "string",
        "pattern": LABEL,
        "x-wants": "an RFC 1123 label: lower case letters, digits and '-', at most 63, "
        "starting and ending with a letter or digit",
        "description": description,
    }


def _address(description: str) -> dict[str, Any]:
    return _pair(ADDRESS, "an address such as 172.18.0.61 or fd00:18::61", description)


def _labels(description: str) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": {"type": "string"}, "description": description}


TAINT: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["key", "effect"],
    "description": "Keeps pods away that do not tolerate it.",
    "properties": {
        "key": {"type": "string", "minLength": 1, "description": "Such as node.kubernetes.io/maintenance."},
        "value": {"type": "string", "description": "May be left out."},
        "effect": {
            "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
            "description": "NoSchedule: no new pods; NoExecute: running ones leave, too.",
        },
    },
}

NODE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": _name("The node's name, and that of its network namespace (CLUSTER.NAME for `ip netns`)."),
        "role": {
            "enum": ["control-plane", "worker"],
            "description": "If no node is said to be the control plane, the first one without a role is, and "
            "runs pods like any other. A node that is said to be it has, if there are workers, the taint "
            "node-role.kubernetes.io/control-plane:NoSchedule unless `taints` is given.",
        },
        "address": _address("Its address on the underlay, inside nodeCIDR; the next free one if left out."),
        "podCIDR": _network(
            "The addresses of its pods, inside the cluster's; the next free /24 (IPv6: /64) if left out."
        ),
        "labels": _labels("Labels of the Node object, for nodeSelector and zones."),
        "taints": {"type": "array", "items": TAINT, "description": "Taints of the Node object; [] for none."},
    },
}

CLIENT: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": _name("The client's name, and that of its network namespace."),
        "address": _address("Its address on the underlay, inside nodeCIDR; the next free one if left out."),
    },
}

DNS: Schema = {
    "type": "object",
    "additionalProperties": False,
    "default": {},
    "description": "Cluster DNS: the Service kube-dns at the tenth address of serviceCIDR, and the "
    "Deployment coredns behind it.",
    "properties": {
        "replicas": {
            "type": "integer",
            "minimum": 0,
            "maximum": 100,
            "default": 2,
            "description": "How many pods answer; 0 for no cluster DNS at all.",
        },
        "upstreams": {
            "type": "array",
            "items": {
                "type": "string",
                "pattern": f"^{_ADDRESS}$",
                "x-wants": "an address such as 172.18.0.61 or fd00:18::61",
                "description": "A DNS server inside the emulated network, asked on port 53.",
            },
            "maxItems": 15,
            "default": [],
            "description": "Who is asked about names outside the cluster's zone, such as a client of this "
            "cluster; without any such names are refused.",
        },
    },
}

IMAGE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "description": "What runs when a container of this image gives no command of its own.",
    "properties": {
        "command": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "description": "The image's entrypoint: a program of this host with its arguments.",
        },
        "args": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The image's default arguments, replaced by a container's own.",
        },
    },
}


def _section(description: str, **properties: Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "description": description,
        "properties": properties,
    }


MASQUERADE_ALL: Schema = {
    "type": "boolean",
    "description": "Everything to a ClusterIP gets its node's address as its source.",
}
KUBE_PROXY: Schema = _section(
    "kube-proxy's options on all nodes, named as in its KubeProxyConfiguration.",
    iptables=_section(
        "For proxyMode iptables.",
        masqueradeAll=MASQUERADE_ALL,
        localhostNodePorts={
            "type": "boolean",
            "description": "Whether nodePorts answer on 127.0.0.1 of a node; true if left out.",
        },
    ),
    nftables=_section("For proxyMode nftables.", masqueradeAll=MASQUERADE_ALL),
    detectLocalMode={
        "enum": ["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"],
        "description": "How pods are told from others, whose connections to ClusterIPs get the node's "
        "address: by clusterCIDR (if left out), the node's own podCIDR, or the interface they come in on.",
    },
    detectLocal=_section(
        "Which interfaces.",
        bridgeInterface={
            "type": "string",
            "minLength": 1,
            "description": "For BridgeInterface; here it is cni0.",
        },
        interfaceNamePrefix={
            "type": "string",
            "minLength": 1,
            "description": "For InterfaceNamePrefix: how the names of pods' interfaces begin.",
        },
    ),
    clusterCIDR={
        "type": "string",
        "pattern": f"^$|{NETWORK}",
        "x-wants": "a network such as 10.1.0.0/16, or one of each family, or empty",
        "description": 'podCIDR if left out. "": pods are not told from others.',
    },
    nodePortAddresses={
        "type": "array",
        "items": {"type": "string", "minLength": 1},
        "description": "Networks whose addresses, as far as a node has them, take nodePorts; or primary, for "
        "the node's InternalIP. Left out: all of a node's addresses, or in proxyMode nftables primary.",
    },
    conntrack=_section(
        "Connection tracking.",
        tcpBeLiberal={
            "type": "boolean",
            "description": "Out-of-window TCP packets are not invalid (nf_conntrack_tcp_be_liberal).",
        },
    ),
)

CLUSTER: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://nsk8s.dev/schema/v1/cluster.json",
    "title": "nsk8s Cluster",
    "description": "A Kubernetes cluster whose network nsk8s builds on one Linux host.",
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata"],
    "properties": {
        "apiVersion": {"const": "nsk8s.dev/v1"},
        "kind": {"const": "Cluster"},
        "metadata": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": _name("The cluster's name; clusters with different names run side by side."),
                "labels": _labels("Labels of the Cluster object."),
                "annotations": _labels("Annotations of the Cluster object."),
            },
        },
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "description": "Everything in it has a default.",
            "properties": {
                "podCIDR": _network(
                    "The addresses of all pods; each node has a part of it.", "10.244.0.0/16"
                ),
                "serviceCIDR": _network("The addresses of services (ClusterIPs).", "10.96.0.0/16"),
                "nodeCIDR": _network(
                    "The underlay that joins nodes and clients. Its first address is the fabric's, "
                    "its last the host's.",
                    "172.18.0.0/24",
                ),
                "network": {
                    "enum": ["vxlan"],
                    "default": "vxlan",
                    "x-later": True,
                    "description": "How pods of different nodes reach each other. vxlan: as flannel's "
                    "vxlan backend does.",
                },
                "proxyMode": {
                    "enum": ["iptables", "nftables", "none"],
                    "default": "iptables",
                    "x-later": True,
                    "description": "How services work. iptables, nftables: the rules of kube-proxy's mode of "
                    "that name. none: not at all, for a kube-proxy that you run yourself.",
                },
                "kubeProxy": {**KUBE_PROXY, "default": {}},
                "nodes": {
                    "type": "array",
                    "items": NODE,
                    "minItems": 1,
                    "default": [{"name": "n1"}],
                    "description": "The machines of the cluster, each a network namespace.",
                },
                "clients": {
                    "type": "array",
                    "items": CLIENT,
                    "default": [],
                    "description": "Network namespaces outside the cluster, on the underlay.",
                },
                "hostAccess": {
                    "type": "boolean",
                    "default": False,
                    "description": "One link from this host to the underlay: browser and curl reach nodes.",
                },
                "kubernetesVersion": {
                    "type": "string",
                    "pattern": VERSION,
                    "x-wants": "a version of Kubernetes such as 1.33 or v1.29.4",
                    "default": KUBERNETES,
                    "description": f"The version that the API says it has; it is that of {KUBERNETES} "
                    "whatever it says. Some programs choose by it how they talk to the cluster.",
                },
                "legacyAPIs": {
                    "type": "boolean",
                    "default": False,
                    "description": "Old manifests apply as they are: extensions/v1beta1, apps/v1beta1 and "
                    "v1beta2, networking.k8s.io/v1beta1, rbac.authorization.k8s.io/v1beta1, policy/v1beta1 "
                    "and batch/v1beta1 are served, with a warning.",
                },
                "dns": DNS,
                "images": {
                    "type": "object",
                    "additionalProperties": IMAGE,
                    "default": {},
                    "description": "What containers run, by image name; * stands for any characters.",
                },
            },
        },
        "status": {"type": "object"},
    },
}
"""The whole document. `x-wants` says a pattern in words; `x-later` marks a choice that will grow."""

_TYPES: dict[str, tuple[type, str]] = {
    "object": (dict, "a mapping"),
    "array": (list, "a list"),
    "string": (str, "a string"),
    "boolean": (bool, "true or false"),
    "integer": (int, "a whole number"),
}
_WORDS: dict[type, str] = {
    dict: "a mapping",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "nothing",
}

WRONG = object()
"""Stands for a value that does not conform, in a list whose positions matter."""


def conform(value: object, schema: Schema, findings: Findings, path: str = "") -> object:
    """The part of `value` that conforms to `schema`, or `WRONG`; what does not is found, and left out
    (in lists replaced by `WRONG`), so that later checks can go on with the rest."""
    if "const" in schema:
        return value
    if "enum" in schema:
        if value in schema["enum"]:
            return value
        listed = ", ".join(schema["enum"])
        near = nearest(value, schema["enum"]) if isinstance(value, str) else ""
        later = "; others come later" if schema.get("x-later") else ""
        hint = f'did you mean "{near}"?' if near else f"what there is: {listed}{later}"
        findings.add(path, f"cannot be {shown(value)}", hint)
        return WRONG
    wanted, words = _type(schema["type"])
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        hint = (
            "put it in quotes"
            if wanted in (str, (str, list)) and isinstance(value, bool | int | float)
            else ""
        )
        findings.add(path, f"must be {words}, not {_WORDS.get(type(value), 'that')}", hint)
        return WRONG
    if isinstance(value, dict):
        return _conform_mapping(value, schema, findings, path)
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            findings.add(path, "must not be empty", "name at least one")
            return WRONG
        if len(value) > schema.get("maxItems", len(value)):
            findings.add(path, f"must have at most {schema['maxItems']} items")
            return WRONG
        return [conform(v, schema["items"], findings, f"{path}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            findings.add(path, "must not be empty")
            return WRONG
        if "pattern" in schema and not re.search(schema["pattern"], value):
            findings.add(path, f"{shown(value)} is not {schema['x-wants']}", _nearby(value, schema))
            return WRONG
    least, most = schema.get("minimum", 0), schema.get("maximum", 0)
    if "minimum" in schema and isinstance(value, int) and not least <= value <= most:
        findings.add(path, f"{value} is not between {least} and {most}")
        return WRONG
    return value


def _type(name: str | list[str]) -> tuple[type | tuple[type, ...], str]:
    """The Python type or types, and how to call them."""
    if isinstance(name, str):
        return _TYPES[name]
    return tuple(_TYPES[each][0] for each in name), " or ".join(_TYPES[each][1] for each in name)


def _conform_mapping(
    value: dict[Any, object], schema: Schema, findings: Findings, path: str
) -> dict[str, Any]:
    known: Mapping[str, Schema] = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    kept: dict[str, Any] = {}
    for key, item in value.items():
        below = f"{path}.{key}" if path else str(key)
        if key in known:
            if item is None:
                continue  # "podCIDR:" with nothing behind it is the default, as in Kubernetes
            checked = conform(item, known[key], findings, below)
            if checked is not WRONG:
                kept[key] = checked
        elif others is False:
            near = nearest(str(key), known)
            hint = f'did you mean "{near}"?' if near else f"fields here: {', '.join(known)}"
            findings.add(below, "unknown field", hint)
        elif others is True:
            kept[key] = item
        else:
            checked = conform(item, others, findings, f"{path}[{key}]")
            if checked is not WRONG:
                kept[key] = checked
    for key in schema.get("required", ()):
        if value.get(key) is None:
            findings.add(f"{path}.{key}" if path else key, "is missing", f"add `{key}:`")
    return kept


def _nearby(value: str, schema: Schema) -> str:
    """A value that would have matched, if one is near."""
    from nsk8s.api.names import repaired

    if schema["pattern"] == LABEL and (better := repaired(value)):
        return f'"{better}" would do'
    if schema["pattern"] == NETWORK and re.search(IPV4, value):
        return f'add the prefix length: "{value}/24"?'
    return ""
