"""The records of the cluster's zone: Services, EndpointSlices and Namespaces in, answers out. Pure.

Names and their meaning are those of the Kubernetes DNS specification 1.1.0; where it leaves a choice, and for
what names that hold nothing say, this follows CoreDNS 1.12 as kubeadm configures it (plugins kubernetes,
with ``pods insecure`` and ``ttl 30``, and loadbalance).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, TypeVar

from msgspec import Struct

from nsk8s.api.types import Endpoint, EndpointSlice, Service, ServicePort
from nsk8s.workloads.resolvconf import ZONE

TTL = 30
"""Seconds an answer may be kept."""
VERSION = "1.1.0"
"""Of the DNS specification."""
VERSION_TTL = 28800
REVERSE: Mapping[tuple[str, ...], int] = {("in-addr", "arpa"): 4, ("ip6", "arpa"): 16}
"""The reverse zones, and how many octets an address there has."""
SERVICE_NAME = "kubernetes.io/service-name"
CHAIN = 8
"""Most CNAMEs that are followed."""

V = TypeVar("V")
Labels = tuple[str, ...]
"""A name's labels in lower case, without the root's."""
Key = tuple[str, str]
"""Namespace and name of an object."""


class Record(NamedTuple):
    """A record of class IN. `name` is empty for the name that was asked for, else absolute; `data` is text
    as in a zone file."""

    name: str
    ttl: int
    type: str
    data: str


class Found(Struct, frozen=True):
    """What the zone says to a question. Neither `records` nor `missing`: the name is there, and has no such
    records. `outside` is where a CNAME among the records leads when it leaves the zone."""

    zone: Labels
    records: tuple[Record, ...] = ()
    extra: tuple[Record, ...] = ()
    missing: bool = False
    outside: str = ""


class _Host(NamedTuple):
    """An answer to any question of addresses or ports: an address, or another name (ExternalName), and what
    it is called in SRV records."""

    address: str
    port: int
    name: str


class _NoName(Exception):
    """There is no such name."""


class Zone:
    """The cluster's zone and its reverse zones. `addresses` are those of the DNS pods; `serial` is the number
    that SOA records give."""

    def __init__(self, domain: str = ZONE) -> None:
        self.domain: Labels = tuple(domain.split("."))
        self.serial = 0
        self.addresses: Sequence[str] = ()
        self._suffix = f"svc.{domain}."
        self._namespaces: set[str] = set()
        self._services: dict[Key, Service] = {}
        self._by_ip: dict[str, dict[Key, None]] = {}
        self._slices: dict[Key, dict[str, EndpointSlice]] = {}
        self._slice_of: dict[Key, Key] = {}
        self._hosts: dict[str, dict[tuple[Key, str], None]] = {}

    # --- objects --------------------------------------------------------------------------------------

    def put_namespace(self, name: str) -> None:
        """A namespace is there."""
        self._namespaces.add(name)

    def drop_namespace(self, name: str) -> None:
        """A namespace is gone."""
        self._namespaces.discard(name)

    def put_service(self, service: Service) -> None:
        """A Service is so."""
        key = service.metadata.namespace, service.metadata.name
        self.drop_service(key)
        self._services[key] = service
        for address in cluster_ips(service):
            self._by_ip.setdefault(address, {})[key] = None

    def drop_service(self, key: Key) -> None:
        """A Service is gone."""
        old = self._services.pop(key, None)
        if old is not None:
            for address in cluster_ips(old):
                _remove(self._by_ip, address, key)

    def put_slice(self, piece: EndpointSlice) -> None:
        """An EndpointSlice is so."""
        meta = piece.metadata
        self.drop_slice((meta.namespace, meta.name))
        service = meta.labels.get(SERVICE_NAME)
        if not service or piece.addressType == "FQDN":
            return
        key = meta.namespace, service
        self._slice_of[meta.namespace, meta.name] = key
        self._slices.setdefault(key, {})[meta.name] = piece
        for endpoint in piece.endpoints or ():
            if endpoint.hostname:
                for address in endpoint.addresses:
                    self._hosts.setdefault(address, {})[key, meta.name] = None

    def drop_slice(self, key: Key) -> None:
        """An EndpointSlice is gone."""
        service = self._slice_of.pop(key, None)
        if service is None:
            return
        pieces = self._slices[service]
        old = pieces.pop(key[1])
        if not pieces:
            del self._slices[service]
        for endpoint in old.endpoints or ():
            for address in endpoint.addresses:
                _remove(self._hosts, address, (service, key[1]))

    def names(self, resource: str) -> Iterable[Key]:
        """The objects of a resource (namespaces, services, endpointslices) that are known."""
        match resource:
            case "namespaces":
                return [("", name) for name in self._namespaces]
            case "services":
                return list(self._services)
            case _:
                return list(self._slice_of)

    # --- questions ------------------------------------------------------------------------------------

    def of(self, labels: Labels) -> Labels | None:
        """The zone that a name belongs to; None outside of all."""
        for zone in (self.domain, *REVERSE):
            if labels[-len(zone) :] == zone:
                return zone
        return None

    def soa(self, zone: Labels) -> Record:
        """The SOA record of a zone."""
        name = ".".join(zone)
        numbers = f"{self.serial} 7200 1800 86400 {TTL}"
        return Record(f"{name}.", TTL, "SOA", f"ns.dns.{name}. hostmaster.{name}. {numbers}")

    def find(self, labels: Labels, kind: str) -> Found | None:
        """What there is of `kind` (``A``, ``SRV``, ...) at a name; None outside of the zones."""
        zone = self.of(labels)
        if zone is None:
            return None
        try:
            return self._find(zone, labels[: -len(zone)], kind)
        except _NoName:
            return Found(zone, missing=True)

    def _find(self, zone: Labels, base: Labels, kind: str) -> Found:
        if zone in REVERSE:
            return self._reverse(zone, base, kind)
        if not base and kind in ("SOA", "NS"):
            return self._apex(zone, kind)
        if base == ("dns-version",) and kind == "TXT":
            return Found(zone, (Record("", VERSION_TTL, "TXT", f'"{VERSION}"'),))
        if base == ("ns", "dns"):
            records = [_address("", address) for _, address in self._servers()]
            return Found(zone, tuple(r for r in records if r.type == kind))
        hosts = list(self._hosts_at(base))
        if kind in ("A", "AAAA"):
            return self._addresses(zone, hosts, kind, (".".join(base),))
        if kind == "CNAME":
            names = [_dotted(h.address) for h in hosts[:1] if not _is_ip(h.address)]
            return Found(zone, tuple(Record("", TTL, "CNAME", name) for name in names))
        if kind == "SRV":
            return self._ports(zone, [h for h in hosts if _is_ip(h.address)])
        return Found(zone)

    def _apex(self, zone: Labels, kind: str) -> Found:
        if kind == "SOA":
            return Found(zone, (self.soa(zone)._replace(name=""),))
        servers = list(self._servers())
        names = dict.fromkeys(name for name, _ in servers)
        records = tuple(Record("", TTL, "NS", name) for name in names)
        return Found(zone, records, tuple(_address(name, address) for name, address in servers))

    def _servers(self) -> Iterator[tuple[str, str]]:
        """Names and addresses of the services behind which the DNS pods stand (CoreDNS, nsAddrs)."""
        own = set(self.addresses)
        found = False
        for key, pieces in self._slices.items():
            service = self._services.get(key)
            if service is None or not own.intersection(
                address for piece in pieces.values() for e in piece.endpoints or () for address in e.addresses
            ):
                continue
            for address in cluster_ips(service):
                found = True
                yield f"{key[1]}.{key[0]}.{self._suffix}", address
        if not found:
            yield from ((f"ns.dns.{'.'.join(self.domain)}.", address) for address in self.addresses)

    def _addresses(self, zone: Labels, hosts: Iterable[_Host], kind: str, chain: tuple[str, ...]) -> Found:
        records: dict[Record, None] = {}
        for host in hosts:
            if not _is_ip(host.address):
                return self._alias(zone, host.address, kind, chain)
            record = _address("", host.address)
            if record.type == kind:
                records[record] = None
        return Found(zone, tuple(records))

    def _alias(self, zone: Labels, target: str, kind: str, chain: tuple[str, ...]) -> Found:
        """An ExternalName, followed as far as the zone goes. What leads to nothing inside is no data."""
        alias = Record("", TTL, "CNAME", _dotted(target))
        labels = tuple(target.lower().rstrip(".").split("."))
        base = labels[: -len(zone)]
        if labels[-len(zone) :] != zone:
            return Found(zone, (alias,), outside=_dotted(target))
        if ".".join(base) in chain or len(chain) >= CHAIN:
            return Found(zone)
        try:
            further = self._addresses(zone, self._hosts_at(base), kind, (*chain, ".".join(base)))
        except _NoName:
            return Found(zone)
        if not further.records:
            return Found(zone)
        named = (r if r.name else r._replace(name=_dotted(target)) for r in further.records)
        return Found(zone, (alias, *named), outside=further.outside)

    def _ports(self, zone: Labels, hosts: Sequence[_Host]) -> Found:
        weight = max(1, 100 // len(hosts)) if hosts else 0
        records: dict[Record, None] = {}
        extra: dict[Record, None] = {}
        for host in hosts:
            if host.port < 0:
                continue
            records[Record("", TTL, "SRV", f"0 {weight} {host.port} {host.name}")] = None
            extra[_address(host.name, host.address)] = None
        return Found(zone, tuple(records), tuple(extra))

    def _hosts_at(self, base: Labels) -> Iterator[_Host]:
        """What stands at a name below the cluster's domain (CoreDNS, parseRequest and Records)."""
        if not base:
            return
        *rest, kind = base
        if kind not in ("svc", "pod") or len(rest) > 4:
            raise _NoName
        if not rest:
            return
        namespace = rest.pop()
        if namespace not in self._namespaces:
            raise _NoName
        if not rest:
            return
        name = rest.pop()
        if kind == "pod":
            yield _pod(name)
            return
        port = protocol = endpoint = ""
        if len(rest) == 2:
            port, protocol = (label.removeprefix("_") for label in rest)
        elif rest:
            endpoint = rest[0]
        service = self._services.get((namespace, name))
        if service is None:
            raise _NoName
        found = False
        for host in self._hosts_of(service, port, protocol, endpoint):
            found = True
            yield host
        if not found:
            raise _NoName

    def _hosts_of(self, service: Service, port: str, protocol: str, endpoint: str) -> Iterator[_Host]:
        meta, spec = service.metadata, service.spec
        own = f"{meta.name}.{meta.namespace}.{self._suffix}"
        if spec.type == "ExternalName":
            if not endpoint and not _is_ip(spec.externalName):
                yield _Host(spec.externalName, 0, own)
        elif endpoint or spec.clusterIP == "None":
            for piece in self._slices.get((meta.namespace, meta.name), {}).values():
                ports = [(p.name or "", p.protocol, p.port or -1) for p in piece.ports or ()]
                for one, address in _ready(piece):
                    called = one.hostname or dashed(address)
                    if endpoint and endpoint != called:
                        continue
                    for number in _matching(ports or [("", "", -1)], port, protocol):
                        yield _Host(address, number, f"{called}.{own}")
        else:
            for number in _matching(map(_port, spec.ports), port, protocol):
                for address in cluster_ips(service):
                    yield _Host(address, number, own)

    def _reverse(self, zone: Labels, base: Labels, kind: str) -> Found:
        if not base:
            return Found(zone, (self.soa(zone)._replace(name=""),) if kind == "SOA" else ())
        address = _address_of(zone, base)
        names = list(self._names_of(address)) if address else []
        if not names:
            raise _NoName
        return Found(zone, tuple(Record("", TTL, "PTR", n) for n in names) if kind == "PTR" else ())

    def _names_of(self, address: str) -> Iterator[str]:
        for namespace, name in self._by_ip.get(address, ()):
            yield f"{name}.{namespace}.{self._suffix}"
            return
        for (namespace, name), piece in self._hosts.get(address, ()):
            for one, ip in _ready(self._slices[namespace, name][piece]):
                if ip == address and one.hostname:
                    yield f"{one.hostname}.{name}.{namespace}.{self._suffix}"


def cluster_ips(service: Service) -> tuple[str, ...]:
    """The addresses of a Service; none of a headless one."""
    spec = service.spec
    found = spec.clusterIPs or (spec.clusterIP,)
    return tuple(str(ip_address(a)) for a in found if a and a != "None" and _is_ip(a))


def dashed(address: str) -> str:
    """What an endpoint without a host name is called, and a pod."""
    return address.replace(".", "-").replace(":", "-")


def _ready(piece: EndpointSlice) -> Iterator[tuple[Endpoint, str]]:
    """The endpoints of a slice that are ready, with each address."""
    for endpoint in piece.endpoints or ():
        if endpoint.conditions.ready is not False:
            for address in endpoint.addresses:
                yield endpoint, address


def _matching(ports: Iterable[tuple[str, str, int]], name: str, protocol: str) -> Iterator[int]:
    for called, kind, number in ports:
        if name in ("", called) and protocol in ("", kind.lower()):
            yield number


def _port(port: ServicePort) -> tuple[str, str, int]:
    return port.name, port.protocol, port.port


def _pod(name: str) -> _Host:
    """``10-244-1-2`` is a pod's name, whether there is such a pod or not (``pods insecure``)."""
    four = name.count("-") == 3 and "--" not in name
    address = name.replace("-", "." if four else ":")
    if not _is_ip(address):
        raise _NoName
    return _Host(address, 0, "")


def _address(name: str, address: str) -> Record:
    return Record(name, TTL, "AAAA" if ":" in address else "A", address)


def _address_of(zone: Labels, base: Labels) -> str:
    """The address that a reverse name is about; empty if it is not about one."""
    try:
        if REVERSE[zone] == 4:
            return str(IPv4Address(".".join(reversed(base))))
        if len(base) != 32 or any(len(nibble) != 1 for nibble in base):
            return ""
        return str(IPv6Address(int("".join(reversed(base)), 16)))
    except ValueError:
        return ""


def _is_ip(text: str) -> bool:
    if not text or not (text[0].isdigit() or ":" in text):
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _dotted(name: str) -> str:
    return name if name.endswith(".") else f"{name}."


def _remove(index: dict[str, dict[V, None]], key: str, value: V) -> None:
    entries = index.get(key)
    if entries is not None:
        entries.pop(value, None)
        if not entries:
            del index[key]
