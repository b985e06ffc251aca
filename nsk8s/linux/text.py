"""States and operations as a person would read and type them: ip(8), bridge(8), sysctl(8), iptables-save(8),
nft(8).

`render` is the golden form of a state and `parse` reads it back; `commands` says an operation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from nsk8s.linux import iptables, nftables, nfttext
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
    Transaction,
    VethPair,
    Vxlan,
    family,
)

OWN = ("",)
"""In a rendered state every chain is ours."""
_IP6TABLES = "ip6tables"
"""The line behind which the rules of ip6tables stand."""


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
    text = "".join(f"{line}\n" for line in lines) + iptables.render(state.rules)
    if rules6 := iptables.render(state.rules6):
        text += f"{_IP6TABLES}\n{rules6}"
    return text + nfttext.render(state.nft)


def parse(text: str) -> NamespaceState:
    """What `render` wrote. Raises ValueError for a line that it would not write."""
    rest, found, tables = text.partition("\ntable ")
    nft = nfttext.parse(found.removeprefix("\n") + tables) if found else nftables.EMPTY
    rest, _, rules6 = rest.partition(f"\n{_IP6TABLES}\n")
    head, star, rest = rest.partition("\n*")
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
        iptables.parse(rules6, OWN) if rules6 else iptables.EMPTY,
        nft,
    )


def commands(op: Op, prefix: str = "") -> tuple[str, ...]:
    """What a person would type to do `op`; namespaces are called `prefix` + name, and "" is the one typed in.

    A host name is only mentioned: ip-netns(8) knows no UTS namespaces. The end of a wish for a sysctl is no
    command, for nobody knows what its value was.
    """
    shell = _Shell(prefix, op.namespace)
    value, delete = op.value, op.verb == "delete"
    verb = {"add": "add", "change": "replace", "delete": "del"}[op.verb]
    match value:
        case Namespace() if delete:
            return (f"ip netns del {shell.netns}",)
        case Namespace() if op.verb == "change":
            return (f"# the host name in {shell.netns} becomes {value.hostname}",)
        case Namespace():
            return (f"ip netns add {shell.netns}", f"{shell.ip} link set lo up")
        case VethPair():
            far = _Shell(prefix, value.inner.peer.namespace if value.inner.peer else "")
            peer = f"name {_basics(value.outer)} netns {far.netns or 1}"
            make = f"{shell.ip} link add {_basics(value.inner)} type veth peer {peer}"
            return (make, *far.placed(value.outer), *shell.placed(value.inner))
        case Link() if delete:
            return (f"{shell.ip} link del {value.name}",)
        case Link() if op.verb == "change":
            return tuple(shell.changed(value))
        case Link():
            return (f"{shell.ip} link add {_basics(value)} type {_kind(value)}", *shell.placed(value))
        case Address():
            host, _, length = value.cidr.partition("/")
            flags = ""
            if family(host) == 6:
                flags = " nodad" if not delete else ""
            elif op.verb == "add" and int(length) < 31:
                flags = " brd +"
            return (f"{shell.ip} addr {verb} {value.cidr}{flags} dev {value.dev}",)
        case Route():
            return (f"{shell.ip} route {verb} {_route(value)}",)
        case Neighbour():
            tail = "" if delete else f" lladdr {value.mac} nud permanent"
            return (f"{shell.ip} neigh {verb} {value.address}{tail} dev {value.dev}",)
        case FdbEntry():
            verb = "append" if op.verb == "add" else verb
            entry = f"{value.mac} dev {value.dev} dst {value.dst} self" + ("" if delete else " permanent")
            return (f"{shell.bridge} fdb {verb} {entry}",)
        case Sysctl() if delete:
            return (f"# {value.key} stays as it is",)
        case Sysctl():
            return (f"{shell.run}sysctl -w {value.key}={_quoted(value.value)}",)
        case Restore():
            program = "ip6tables-restore" if value.family == 6 else "iptables-restore"
            return (f"{shell.run}{program} --noflush --counters <<'EOF'\n{value.script}EOF",)
        case Transaction():
            return (f"{shell.run}nft -f - <<'EOF'\n{nfttext.script(value.commands)}EOF",)


class _Shell:
    """How commands begin that act in one namespace."""

    def __init__(self, prefix: str, namespace: str) -> None:
        self.netns = prefix + namespace if namespace else ""
        within = f" -n {self.netns}" if namespace else ""
        self.ip, self.bridge = f"ip{within}", f"bridge{within}"
        self.run = f"ip netns exec {self.netns} " if namespace else ""

    def placed(self, link: Link) -> Iterator[str]:
        """What a new link needs besides its creation."""
        if link.kind == "bridge":  # one given at creation would follow the ports (br_mtu_auto_adjust)
            yield f"{self.ip} link set {link.name} mtu {link.mtu}"
        if link.master:
            yield f"{self.ip} link set {link.name} master {link.master}"
        if link.hairpin:
            yield f"{self.bridge} link set dev {link.name} hairpin on"
        yield from self._settings(link)
        if link.up:
            yield f"{self.ip} link set {link.name} up"

    def changed(self, link: Link) -> Iterator[str]:
        """Everything about a link that can be changed."""
        address = f" address {link.mac}" if link.mac else ""
        master = f"master {link.master}" if link.master else "nomaster"
        yield f"{self.ip} link set {link.name} mtu {link.mtu}{address} {master}"
        if link.master:
            hairpin = "on" if link.hairpin else "off"
            yield f"{self.bridge} link set dev {link.name} hairpin {hairpin}"
        yield from self._settings(link)
        yield f"{self.ip} link set {link.name} {'up' if link.up else 'down'}"

    def _settings(self, link: Link) -> Iterator[str]:
        device = link.name.replace(".", "/")  # as sysctl(8) wants the dots of a name
        return (f"{self.run}sysctl -w net.ipv4.conf.{device}.{key}={value}" for key, value in link.conf)


def _basics(link: Link) -> str:
    mtu = f" mtu {link.mtu}" if link.kind != "bridge" else ""
    return f"{link.name}{mtu}" + (f" address {link.mac}" if link.mac else "")


def _kind(link: Link) -> str:
    if link.vxlan:
        v = link.vxlan
        return f"vxlan id {v.vni} dstport {v.port} local {v.local} dev {v.dev} nolearning"
    return f"{link.kind} mcast_snooping 0" if link.kind == "bridge" else link.kind


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value or "\t" in value else value


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
        words += _kind(link).split(" ")[1:]
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
