"""States and operations as a person would read and type them: ip(8), bridge(8), sysctl(8), iptables-save(8).

`render` is the golden form of a state and `parse` reads it back; `commands` says an operation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from nsk8s.linux import iptables
from nsk8s.linux.values import (
    Address,
    FdbEntry,
    Kind,
    Link,
    Namespace,
    NamespaceState,
    Neighbour,
    Op,
    Peer,
    Restore,
    Route,
    Sysctl,
    VethPair,
    Vxlan,
)

OWN = ("",)
"""In a rendered state every chain is ours."""


def render(state: NamespaceState, *, why: bool = False) -> str:
    """The whole state, one value a line in a fixed order; with `why`, each line says what it is for."""

    def said(line: str, value: Any) -> str:  # noqa: ANN401  # any value with a `why`
        return f"{line}  # {value.why}" if why and value.why else line

    lines = [f"netns {state.name}" + (f" hostname {state.hostname}" if state.hostname else "")]
    lines += [said(f"link {_link(link)}", link) for link in state.links]
    lines += [said(f"address {a.cidr} dev {a.dev}", a) for a in _sorted(state.addresses)]
    lines += [said(f"route {_route(r)}", r) for r in _sorted(state.routes)]
    lines += [
        said(f"neigh {n.address} dev {n.dev} lladdr {n.mac} nud permanent", n)
        for n in _sorted(state.neighbours)
    ]
    lines += [said(f"fdb {f.mac} dev {f.dev} dst {f.dst} self permanent", f) for f in _sorted(state.fdb)]
    lines += [said(f"sysctl {s.key} = {s.value}", s) for s in _sorted(state.sysctls)]
    text = "".join(f"{line}\n" for line in lines)
    return text + iptables.render(state.rules)


def parse(text: str) -> NamespaceState:
    """What `render` wrote. Raises ValueError for a line that it would not write."""
    head, star, rest = text.partition("\n*")
    rules = iptables.parse(star.removeprefix("\n") + rest, OWN) if star else iptables.EMPTY
    fields: dict[str, list[Any]] = {}
    name = hostname = ""
    for line in head.splitlines():
        word, _, body = line.partition("  # ")[0].partition(" ")
        if word == "netns":
            name, _, hostname = body.partition(" hostname ")
        else:
            fields.setdefault(word, []).append(_parse(word, body.split(" "), line))
    return NamespaceState(
        name,
        hostname,
        tuple(fields.get("link", ())),
        frozenset(fields.get("address", ())),
        frozenset(fields.get("route", ())),
        frozenset(fields.get("neigh", ())),
        frozenset(fields.get("fdb", ())),
        frozenset(fields.get("sysctl", ())),
        rules,
    )


def commands(op: Op, prefix: str = "") -> tuple[str, ...]:
    """What a person would type to do `op`; namespaces are called `prefix` + name."""
    netns = prefix + op.namespace if op.namespace else ""
    at = f"-n {netns} " if netns else ""
    run = f"ip netns exec {netns} " if netns else ""
    value, delete = op.value, op.verb == "delete"
    match value:
        case Namespace():
            if delete:
                return (f"ip netns delete {netns}",)
            named = (f"{run}hostname {value.hostname}",) if value.hostname else ()
            return (*((f"ip netns add {netns}",) if op.verb == "add" else ()), *named)
        case VethPair():
            peer = value.inner.peer
            far = prefix + peer.namespace if peer else ""
            make = f"ip {at}link add {value.inner.name} type veth peer name {value.outer.name} netns {far}"
            return (make, *_settings(value.inner, at, run), *_settings(value.outer, f"-n {far} ", ""))
        case Link() if delete:
            return (f"ip {at}link delete {value.name}",)
        case Link():
            return (*((_creation(value, at),) if op.verb == "add" else ()), *_settings(value, at, run))
        case Address():
            return (f"ip {at}address {'delete' if delete else 'add'} {value.cidr} dev {value.dev}",)
        case Route():
            return (f"ip {at}route {'delete' if delete else 'replace'} {_route(value)}",)
        case Neighbour():
            tail = "" if delete else f" lladdr {value.mac} nud permanent"
            verb = "delete" if delete else "replace"
            return (f"ip {at}neigh {verb} {value.address} dev {value.dev}{tail}",)
        case FdbEntry():
            verb = "delete" if delete else "append"
            return (f"bridge {at}fdb {verb} {value.mac} dev {value.dev} dst {value.dst} self permanent",)
        case Sysctl():
            return (f"{run}sysctl -w {value.key}={value.value}",)
        case Restore():
            return (f"{run}iptables-restore --noflush --counters <<'EOF'\n{value.script}EOF",)


def _creation(link: Link, at: str) -> str:
    text = f"ip {at}link add {link.name} type {link.kind}"
    if link.vxlan:
        v = link.vxlan
        text += f" id {v.vni} dstport {v.port} local {v.local} dev {v.dev} nolearning"
    if link.kind == "bridge":
        text += " mcast_snooping 0"
    return text


def _settings(link: Link, at: str, run: str) -> Iterator[str]:
    text = f"ip {at}link set {link.name} mtu {link.mtu}"
    if link.mac:
        text += f" address {link.mac}"
    if link.master:
        text += f" master {link.master}"
    yield text + " addrgenmode none"
    if link.hairpin:
        yield f"bridge {at}link set dev {link.name} hairpin on"
    yield from (f"{run}sysctl -w net.ipv4.conf.{link.name}.{key}={value}" for key, value in link.conf)
    yield f"ip {at}link set {link.name} {'up' if link.up else 'down'}"


def _link(link: Link) -> str:
    words = [link.name, "type", link.kind, "mtu", str(link.mtu)]
    if link.mac:
        words += ["address", link.mac]
    if link.master:
        words += ["master", link.master]
    if link.hairpin:
        words += ["hairpin", "on"]
    if link.peer:
        words += ["peer", f"{link.peer.namespace}/{link.peer.name}"]
    if link.vxlan:
        v = link.vxlan
        words += ["id", str(v.vni), "dstport", str(v.port), "local", v.local, "dev", v.dev, "nolearning"]
    for key, value in link.conf:
        words += [f"conf.{key}", str(value)]
    return " ".join([*words, "up" if link.up else "down"])


def _route(route: Route) -> str:
    text = route.dst + (f" via {route.via}" if route.via else "") + f" dev {route.dev}"
    return text + (" onlink" if route.onlink else "") + (f" src {route.src}" if route.src else "")


def _parse(word: str, words: list[str], line: str) -> Any:  # noqa: ANN401  # one of the values
    try:
        if word == "link":
            return _parse_link(words)
        if word == "sysctl":
            key, _, value = " ".join(words).partition(" = ")
            return Sysctl(key, value)
        flags = {"onlink", "self", "permanent"}
        pairs = [w for w in words[1:] if w not in flags]
        named = dict(zip(pairs[::2], pairs[1::2], strict=False))
        match word:
            case "address":
                return Address(named["dev"], words[0])
            case "route":
                onlink = "onlink" in words
                return Route(words[0], named["dev"], named.get("via", ""), onlink, named.get("src", ""))
            case "neigh":
                return Neighbour(named["dev"], words[0], named["lladdr"])
            case "fdb":
                return FdbEntry(named["dev"], words[0], named["dst"])
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{line!r} cannot be read: {error}") from error
    raise ValueError(f"{line!r} cannot be read")


def _parse_link(words: list[str]) -> Link:
    pairs = [w for w in words[1:-1] if w != "nolearning"]
    named = dict(zip(pairs[::2], pairs[1::2], strict=True))
    kinds: dict[str, Kind] = {"veth": "veth", "bridge": "bridge", "vxlan": "vxlan"}
    vxlan = None
    if "id" in named:
        vxlan = Vxlan(int(named["id"]), int(named["dstport"]), named["local"], named["dev"])
    peer = Peer(*named["peer"].split("/")) if "peer" in named else None
    conf = tuple((k.removeprefix("conf."), int(v)) for k, v in named.items() if k.startswith("conf."))
    return Link(
        words[0],
        kinds[named["type"]],
        int(named["mtu"]),
        mac=named.get("address", ""),
        up=words[-1] == "up",
        master=named.get("master", ""),
        hairpin="hairpin" in named,
        peer=peer,
        vxlan=vxlan,
        conf=conf,
    )


def _sorted(values: Iterable[Any]) -> list[Any]:
    """By device, then naturally, so that 10.0.0.9 stands before 10.0.0.10."""
    return sorted(values, key=_natural)


def _natural(value: Any) -> list[Any]:  # noqa: ANN401  # one of the values
    text = " ".join(str(getattr(value, f)) for f in value.__slots__ if f != "why")
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]
