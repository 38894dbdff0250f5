"""Everybody who can speak to the enclosure or through it, and what a posture lets them open; pure.

This is the plan's side of the proof. It knows the posture's meaning and nothing of how `policy` compiles it: what the
two have in common they have from model/posture.py alone.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from itertools import islice

from cleanroomd.isolation.policy import tap_mac
from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import PortGuard, Posture, TapGuard
from cleanroomd.model.verification import EndpointKind, EndpointView, Relation

ENCLOSURE = "enclosure"
PROTOCOLS: Mapping[Protocol, int] = {Protocol.TCP: 6, Protocol.UDP: 17}
"""IANA protocol numbers."""
_STATION = "02:63:72:00:00:01"
"""MAC of whoever speaks behind a port in the twin: locally administered (IEEE 802)."""
_ELSEWHERE = tuple(map(IPv4Network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))
"""RFC 5737: where the equipment behind a port without a network is said to be."""
_LOOKED_AT = 4096
"""Addresses of a network that are looked at for one that nobody has."""

_Ends = tuple[str, IPv4Network, str, IPv4Network, IPv4Address | None]

_NOBODY = IPv4Address(0)

Names = Mapping[str, str]
"""Network in CIDR notation -> what the plan calls the zone."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    name: str
    kind: EndpointKind
    interface: str = ""
    mac: str = ""
    """Who it is on the wire; whoever is behind a port may have any."""
    ours: str = ""
    """The enclosure's own MAC on that wire."""
    network: IPv4Network | None = None
    """Its own addresses, those that it may speak from; None for the enclosure."""
    address: IPv4Address = _NOBODY
    """The one that it speaks from; the enclosure's own on its wire is `gateway`."""
    gateway: IPv4Address | None = None
    dark: bool = False

    def view(self) -> EndpointView:
        shown = "" if self.network is None or self.dark else str(self.network)
        return EndpointView(self.name, self.kind, self.interface, shown.removesuffix("/32"), self.dark)


@dataclass(frozen=True, slots=True)
class Opened:
    """What one endpoint may open to another, between two addresses that stand for all that the posture names."""

    origin: Endpoint
    target: Endpoint
    source: IPv4Address
    destination: IPv4Address
    appears_as: IPv4Address | None = None
    """What the target sees in place of `source`."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One port of what is opened."""

    by: Opened
    protocol: int
    port: int

    @property
    def pair(self) -> tuple[str, str]:
        return self.by.origin.name, self.by.target.name

    def __str__(self) -> str:
        return f"{words(self.protocol)} {self.port} from {self.by.source} to {self.by.destination}"


@dataclass(frozen=True, slots=True)
class Permission:
    """All ports that the posture opens between the same interfaces and networks."""

    origin: str
    source: IPv4Network
    target: str
    destination: IPv4Network
    appears_as: IPv4Address | None
    openings: frozenset[tuple[int, int]]
    """Protocol and port."""
    labels: tuple[str, ...]


def words(protocol: int) -> str:
    return {6: "tcp", 17: "udp"}.get(protocol, f"protocol {protocol}")


@dataclass(frozen=True)
class Scene:
    """A posture at one moment: passages that have ended are not there any more."""

    posture: Posture
    now: float
    """CLOCK_BOOTTIME seconds."""
    names: Names = field(default_factory=dict)

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The enclosure first, then ports and taps in the order of the posture."""
        found = [Endpoint(ENCLOSURE, EndpointKind.ENCLOSURE)]
        for port in self.posture.ports:
            found += self._behind(port)
        cards: defaultdict[str, int] = defaultdict(int)
        for tap in self.posture.taps:
            cards[tap.service] += 1
            name = tap.service if cards[tap.service] == 1 else f"{tap.service} ({tap.interface})"
            found.append(_machine(name, tap))
        return tuple(found)

    def contradiction(self) -> str:
        """Why the posture cannot be tried: two have one address, so that nobody could say who a packet is for."""
        taken: dict[IPv4Address, str] = dict.fromkeys(self.own_addresses, "the enclosure")
        for tap in self.posture.taps:
            if tap.address in taken:
                return f"{taken[tap.address]} and {tap.service} both have {tap.address}"
            taken[tap.address] = tap.service
        networks = [(port.role, item.network) for port in self.posture.ports for item in port.addresses]
        for number, (role, network) in enumerate(networks):
            for other, there in networks[:number]:
                if role != other and network.overlaps(there):
                    return f"{network} is behind the ports {other} and {role}"
        return ""

    @cached_property
    def own_addresses(self) -> tuple[IPv4Address, ...]:
        ports = [item.ip for port in self.posture.ports for item in port.addresses]
        return tuple(dict.fromkeys([*ports, *(tap.gateway for tap in self.posture.taps if tap.gateway)]))

    @cached_property
    def machines(self) -> frozenset[IPv4Address]:
        return frozenset(tap.address for tap in self.posture.taps)

    @cached_property
    def permissions(self) -> tuple[Permission, ...]:
        """Allowances inside, the enclosure's own among them, and passages out that have not ended."""
        outer = {port.interface for port in self.posture.ports if not port.dark and port.peers}
        inner = {port.interface for port in self.posture.ports if not port.dark} - outer
        inner |= {tap.interface for tap in self.posture.taps}
        origins = inner | {""}
        openings: defaultdict[_Ends, set[tuple[int, int]]] = defaultdict(set)
        labels: defaultdict[_Ends, dict[str, None]] = defaultdict(dict)
        for each in self.posture.allowances:
            if each.target in inner and each.origin in origins:
                ends = each.origin, each.source, each.target, each.destination, None
                openings[ends].add((PROTOCOLS[each.protocol], each.port))
                labels[ends].setdefault(each.label)
        for passage in self.posture.passages:
            if passage.target in outer and passage.origin in inner and passage.until > self.now:
                out = passage.origin, passage.source, passage.target, passage.destination, passage.appears_as
                openings[out].add((PROTOCOLS[passage.protocol], passage.port))
                labels[out].setdefault(passage.label)
        found = (
            Permission(*ends, frozenset(ports), tuple(sorted(filter(None, labels[ends]))))
            for ends, ports in openings.items()
        )
        return tuple(sorted(found, key=lambda p: (p.origin, p.target, p.source, p.destination, str(p.appears_as))))

    def permits(
        self, origin: str, source: IPv4Address, target: str, destination: IPv4Address, protocol: int, port: int
    ) -> bool:
        """Whether the posture lets a connection through, by interfaces and addresses."""
        return any(
            (protocol, port) in each.openings and source in each.source and destination in each.destination
            for each in self._by_pair.get((origin, target), ())
        )

    @cached_property
    def opened(self) -> tuple[tuple[Permission, Opened], ...]:
        """Every permission with endpoints that can use it; one that nobody can use is left out."""
        found = ((each, self._ends(each)) for each in self.permissions)
        return tuple((each, ends) for each, ends in found if ends is not None)

    def flows(self) -> Iterator[Flow]:
        for permission, ends in self.opened:
            for protocol, port in sorted(permission.openings):
                yield Flow(ends, protocol, port)

    def relations(self, passed: Callable[[Permission], int] = lambda _: 0) -> tuple[Relation, ...]:
        """The pairs that may connect, in the order of `endpoints`; `passed` counts packets."""
        packets: Counter[tuple[str, str]] = Counter()
        openings: defaultdict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
        why: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        for permission, ends in self.opened:
            pair = ends.origin.name, ends.target.name
            openings[pair] |= permission.openings
            why[pair] |= dict.fromkeys(permission.labels)
            packets[pair] += passed(permission)
        place = {endpoint.name: number for number, endpoint in enumerate(self.endpoints)}
        pairs = sorted(openings, key=lambda pair: (place[pair[0]], place[pair[1]]))
        return tuple(Relation(*pair, in_words(openings[pair]), tuple(why[pair]), packets[pair]) for pair in pairs)

    def station(self, network: IPv4Network, *, other_than: Iterable[IPv4Address] = ()) -> IPv4Address | None:
        """An address of a network that is neither ours, nor a machine's, nor one of those given."""
        taken = {*self.own_addresses, *self.machines, *other_than}
        hosts = network if network.num_addresses <= 2 else islice(network.hosts(), _LOOKED_AT)
        return next((address for address in hosts if address not in taken), None)

    @cached_property
    def _by_pair(self) -> Mapping[tuple[str, str], Sequence[Permission]]:
        found: defaultdict[tuple[str, str], list[Permission]] = defaultdict(list)
        for each in self.permissions:
            found[each.origin, each.target].append(each)
        return found

    @cached_property
    def _by_interface(self) -> Mapping[str, Sequence[Endpoint]]:
        found: defaultdict[str, list[Endpoint]] = defaultdict(list)
        for endpoint in self.endpoints:
            found[endpoint.interface].append(endpoint)
        return found

    def _behind(self, port: PortGuard) -> Iterator[Endpoint]:
        networks = () if port.dark else heard(port)
        if not networks:
            away, ours = self._elsewhere, port.mac
            yield Endpoint(
                port.role, EndpointKind.PORT, port.interface, _STATION, ours, away, away[10], None, dark=True
            )
        for network in networks:
            address = self.station(network)
            if address is None:
                continue
            name = self.names.get(str(network), f"{port.role} {network}".removesuffix("/32"))
            own = [item.ip for item in port.addresses if address in item.network]
            own = own or [item.ip for item in port.addresses]
            gateway = own[0] if own else None
            yield Endpoint(name, EndpointKind.ZONE, port.interface, _STATION, port.mac, network, address, gateway)

    @cached_property
    def _elsewhere(self) -> IPv4Network:
        used = [item.network for port in self.posture.ports for item in port.addresses]
        used += [IPv4Network(address) for address in self.machines]
        return next((network for network in _ELSEWHERE if not any(network.overlaps(u) for u in used)), _ELSEWHERE[0])

    def _ends(self, item: Permission) -> Opened | None:
        target = self._whoever(item.target, item.destination)
        if target is None:
            return None
        destination = self._within(target, item.destination, other_than=())
        if item.origin == "":
            origin = self.endpoints[0]
            source = next((a for a in (target.gateway, *self.own_addresses) if a and a in item.source), None)
        else:
            found = self._whoever(item.origin, item.source)
            if found is None:
                return None
            origin = found
            source = self._within(origin, item.source, other_than=() if destination is None else (destination,))
        if source is None or destination is None:
            return None
        return Opened(origin, target, source, destination, item.appears_as)

    def _whoever(self, interface: str, network: IPv4Network) -> Endpoint | None:
        candidates = self._by_interface.get(interface, ())
        return next((e for e in candidates if e.network and not e.dark and e.network.overlaps(network)), None)

    def _within(
        self, endpoint: Endpoint, network: IPv4Network, *, other_than: Sequence[IPv4Address]
    ) -> IPv4Address | None:
        """An address of an endpoint inside a network."""
        if endpoint.address in network and endpoint.address not in other_than:
            return endpoint.address
        if endpoint.network is None or endpoint.kind is EndpointKind.MACHINE:
            return None
        narrower = network if network.prefixlen > endpoint.network.prefixlen else endpoint.network
        return self.station(narrower, other_than=other_than)


def heard(port: PortGuard) -> tuple[IPv4Network, ...]:
    """The sources that a port's guard lets in."""
    return tuple(dict.fromkeys(port.peers or (item.network for item in port.addresses)))


def in_words(openings: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    """Protocols and ports as "tcp 104, 4242-4250", runs together."""
    by_protocol: defaultdict[int, set[int]] = defaultdict(set)
    for protocol, port in openings:
        by_protocol[protocol].add(port)
    return tuple(f"{words(protocol)} {_runs(sorted(by_protocol[protocol]))}" for protocol in sorted(by_protocol))


def _runs(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _machine(name: str, tap: TapGuard) -> Endpoint:
    network = IPv4Network(tap.address)
    kind, ours = EndpointKind.MACHINE, tap_mac(tap.interface)
    return Endpoint(name, kind, tap.interface, tap.mac.lower(), ours, network, tap.address, tap.gateway)
