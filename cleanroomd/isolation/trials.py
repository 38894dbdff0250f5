"""What must not pass, as packets: for every ordered pair of endpoints some of each kind; pure.

Three layers stand behind one another: the guard at the entrance (netdev ingress), the decision (inet), the guard at
the exit (netdev egress). A trial names each layer that must stop it by itself, so that a hole in one is found while
another still covers it. The layers of a trial follow from what design and posture promise:

- the entrance lets in only who belongs there: a machine's MAC and address, a port's networks, IPv4 and ARP, without
  VLAN tags and IP options;
- the decision lets pass what the posture allows, between these two interfaces and addresses, in state;
- the exit lets out only what the decision has marked, so by itself nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from cleanroomd.isolation import frames
from cleanroomd.isolation.endpoints import Endpoint, Flow, Scene, heard, words
from cleanroomd.isolation.frames import ACK, SYN, TCP, UDP, Tuple4
from cleanroomd.model.verification import EndpointKind

CLIENT_PORTS = range(20_000, 60_000)
"""Source ports of allowed flows; forbidden packets have others, lest one is the answer to an allowed one."""
FORBIDDEN_CLIENT = 61_000
NEARBY = 8
"""Allowed ports beside which a forbidden one is tried, for each pair."""
IN_FULL = 30
"""Endpoints up to which every pair gets every trial; beyond, pairs that may not talk at all get a few."""
STRANGERS = 6
"""Foreign addresses that each endpoint pretends to have, for each target."""
_OFTEN_OPEN = {TCP: (22, 80, 135, 443, 445, 3389), UDP: (53, 123, 161, 500)}
_HOST_PORTS = {TCP: (22, 53, 80, 111, 443, 5353), UDP: (53, 67, 123, 137, 5353)}
"""What an ordinary host has listening."""
_OTHER_PROTOCOLS = {2: "IGMP", 41: "IPv6 in IPv4", 47: "GRE", 50: "ESP", 132: "SCTP"}
"""IANA protocol numbers."""
_BROADCAST, _ALL_SYSTEMS = IPv4Address("255.255.255.255"), IPv4Address("224.0.0.1")
_ECHO = 8
_UNREACHABLE, _TOO_BIG = 3, 4
"""ICMP type and code of RFC 1191."""


class Layer(StrEnum):
    ENTRANCE = "the guard at its entrance"
    DECISION = "the decision between interfaces"
    EXIT = "the guard at its exit"


ENTRANCE, DECISION, EXIT = (frozenset({layer}) for layer in Layer)
NOBODY: frozenset[Layer] = frozenset()


@dataclass(frozen=True, slots=True)
class Trial:
    """One packet that must not arrive."""

    origin: Endpoint
    target: Endpoint
    words: str
    data: bytes
    """A frame; an IPv4 packet where the enclosure itself is the origin."""
    serial: int
    layers: frozenset[Layer]
    """Each of them stops it alone."""


@dataclass(frozen=True, slots=True)
class ArpTrial:
    """One question of an endpoint for the enclosure's own address on its wire; never answered if `layers`."""

    origin: Endpoint
    words: str
    frame: bytes
    asker: bytes
    """The MAC that an answer would go to."""
    layers: frozenset[Layer]


def inner6(number: int, host: int) -> IPv6Address:
    """Address of a host on the wire with this number, in the twin; RFC 4193."""
    return IPv6Address((0xFD63_7200 << 96) | number << 64 | host)


def forbidden(scene: Scene, flows: Iterable[Flow], serials: Iterator[int]) -> Iterator[Trial]:
    return _Forbidden(scene, flows, serials).all()


def arp_trials(scene: Scene) -> Iterator[ArpTrial]:
    """Whoever belongs there is answered, so that the trials that must fail are not vacuous."""
    for endpoint in scene.endpoints:
        if endpoint.gateway is None or endpoint.network is None:
            continue
        mac, address = endpoint.mac, endpoint.address
        yield _question(endpoint, f"ARP question from {address}", mac, mac, address, NOBODY)
        for stranger in _strangers(scene, endpoint):
            if stranger != endpoint.gateway:
                text = f"ARP question that claims to be {stranger}"
                yield _question(endpoint, text, mac, mac, stranger, ENTRANCE)
        if endpoint.kind is EndpointKind.MACHINE:
            other = _another(mac)
            text = f"ARP question in a frame of another MAC, {other}"
            yield _question(endpoint, text, other, other, address, ENTRANCE)
            yield _question(endpoint, f"ARP question that claims another MAC, {other}", mac, other, address, ENTRANCE)


def _question(
    endpoint: Endpoint, text: str, mac: str, claimed: str, sender: IPv4Address, layers: frozenset[Layer]
) -> ArpTrial:
    request = frames.arp_request(claimed, sender, endpoint.gateway or IPv4Address(0))
    return ArpTrial(endpoint, text, frames.arp_frame(mac, request), frames.mac(claimed), layers)


class _Forbidden:
    def __init__(self, scene: Scene, flows: Iterable[Flow], serials: Iterator[int]) -> None:
        self._scene = scene
        self._serials = serials
        self._opened: dict[tuple[str, str], list[Flow]] = {}
        for flow in flows:
            self._opened.setdefault(flow.pair, []).append(flow)
        self._numbers = {e.interface: number for number, e in enumerate(scene.endpoints)}

    def all(self) -> Iterator[Trial]:
        for origin in self._scene.endpoints:
            for target in self._scene.endpoints:
                if target.kind is EndpointKind.ENCLOSURE:
                    if origin is not target:
                        yield from self._to_enclosure(_Way(origin, target, _usual(origin)))
                elif origin is not target:
                    yield from self._between(_Way(origin, target, _usual(origin) | EXIT))
                elif origin.kind is EndpointKind.ZONE:
                    yield from self._among_neighbours(_Way(origin, target, _usual(origin) | EXIT))

    def _between(self, way: "_Way") -> Iterator[Trial]:
        source = self._source(way)
        if source is None:
            return
        flows = self._opened.get((way.origin.name, way.target.name), [])
        brief = not flows and len(self._scene.endpoints) > IN_FULL
        ends = Tuple4(source, way.target.address, TCP)
        if brief:
            yield from self._unless_allowed(way, ends, [(TCP, 445)])
        else:
            yield from self._unless_allowed(way, ends, _ports(flows))
            yield from self._protocols(way, source, way.target.address)
            yield from self._states(way, source)
        if way.origin.kind is EndpointKind.ENCLOSURE:
            return
        # What would be allowed, were it not for the way in which it is sent.
        port, layers = 445, way.layers
        if flows:
            port, layers = flows[0].port, EXIT
            ends = Tuple4(flows[0].by.source, flows[0].by.destination, flows[0].protocol)
        yield from self._disguised(way, ends, port, layers)
        for stranger in _strangers(self._scene, way.origin)[: 1 if brief else STRANGERS]:
            yield from self._spoofed(way, stranger, ends, port)
        if way.origin.interface != way.target.interface:
            yield self._ipv6(way, port)

    def _among_neighbours(self, way: "_Way") -> Iterator[Trial]:
        """Two on one wire reach each other without the enclosure, but not through it unless the posture says so."""
        zone = way.origin
        other = zone.network and self._scene.station(zone.network, other_than=(zone.address,))
        if isinstance(other, IPv4Address):
            yield from self._unless_allowed(way, Tuple4(zone.address, other, TCP), _numbered(_OFTEN_OPEN))

    def _to_enclosure(self, way: "_Way") -> Iterator[Trial]:
        origin = way.origin
        ours = list(dict.fromkeys(a for a in (origin.gateway, *self._scene.own_addresses) if a))
        for address in ours[:2]:
            ends = Tuple4(origin.address, address, UDP)
            yield from self._unless_allowed(way, ends, _numbered(_HOST_PORTS))
            yield from self._protocols(way, origin.address, address)
            yield from self._disguised(way, ends, 53, way.layers)
            for stranger in _strangers(self._scene, origin)[:2]:
                if stranger != address:
                    text = f"udp 53 from {stranger}, which is not its address, to {address}"
                    yield self._transport(way, Tuple4(stranger, address, UDP), 53, text, ENTRANCE | way.layers)
        for everybody in (_BROADCAST, _ALL_SYSTEMS):
            yield self._transport(way, Tuple4(origin.address, everybody, UDP), 5353)

    def _unless_allowed(self, way: "_Way", ends: Tuple4, openings: Iterable[tuple[int, int]]) -> Iterator[Trial]:
        """TCP and UDP to these ports, between the two addresses, but for what the posture allows."""
        for protocol, port in dict.fromkeys(openings):
            if 0 < port < 1 << 16 and not self._permits(way, ends, protocol, port):
                yield self._transport(way, Tuple4(ends.source, ends.target, protocol), port)

    def _protocols(self, way: "_Way", source: IPv4Address, to: IPv4Address) -> Iterator[Trial]:
        serial = next(self._serials)
        echo = frames.icmp(source, to, _ECHO, 0, b"\0\1\0\1", serial)
        yield self._trial(way, f"ICMP echo request from {source} to {to}", echo, serial)
        serial = next(self._serials)
        quoted = b"\0\0\5\x78" + frames.template(Tuple4(to, source, UDP))(5, 5, 0)
        error = frames.icmp(source, to, _UNREACHABLE, _TOO_BIG, quoted, serial)
        yield self._trial(way, f"ICMP error about no connection, from {source} to {to}", error, serial)
        for protocol, name in _OTHER_PROTOCOLS.items():
            serial = next(self._serials)
            text = f"{name} (protocol {protocol}) from {source} to {to}"
            yield self._trial(way, text, frames.other(source, to, protocol, serial), serial)

    def _states(self, way: "_Way", source: IPv4Address) -> Iterator[Trial]:
        """Segments and datagrams that pretend to belong to a connection that nobody opened."""
        to = way.target.address
        if not self._permits(way, Tuple4(source, to, TCP), TCP, 445):
            serial = next(self._serials)
            segment = frames.template(Tuple4(source, to, TCP), flags=ACK, sequence=7, acknowledged=7)
            text = f"tcp 445 segment of no connection, from {source} to {to}"
            yield self._trial(way, text, segment(FORBIDDEN_CLIENT, 445, serial), serial)
        for flow in self._opened.get((way.target.name, way.origin.name), [])[:1]:
            ends = Tuple4(source, to, flow.protocol)
            if not self._permits(way, ends, flow.protocol, FORBIDDEN_CLIENT):
                serial = next(self._serials)
                answer = frames.template(ends, flags=SYN | ACK, acknowledged=1)
                text = f"answer from {words(flow.protocol)} {flow.port} of {source} to {to}, which asked nothing"
                yield self._trial(way, text, answer(flow.port, FORBIDDEN_CLIENT, serial), serial)

    def _disguised(self, way: "_Way", ends: Tuple4, port: int, layers: frozenset[Layer]) -> Iterator[Trial]:
        """The right words on the wrong paper: under another MAC, a VLAN tag, an IP option."""
        origin = way.origin
        layers |= ENTRANCE
        what = f"{words(ends.protocol)} {port} from {ends.source} to {ends.target}"
        packet = frames.template(ends)
        if origin.kind is EndpointKind.MACHINE:
            serial, other = next(self._serials), _another(origin.mac)
            frame = frames.ethernet(origin.ours, other, packet(FORBIDDEN_CLIENT, port, serial))
            yield Trial(origin, way.target, f"{what}, in a frame of another MAC, {other}", frame, serial, layers)
        # The tag of priority alone, which the kernel takes off; it drops all others that no sub-interface is for.
        serial = next(self._serials)
        frame = frames.ethernet(origin.ours, origin.mac, packet(FORBIDDEN_CLIENT, port, serial))
        yield Trial(origin, way.target, f"{what}, under VLAN tag 0", frames.vlan_tagged(frame, 0), serial, layers)
        serial = next(self._serials)
        optional = frames.with_option(packet(FORBIDDEN_CLIENT, port, serial))
        yield self._trial(way, f"{what}, with an IP option", optional, serial, layers)

    def _spoofed(self, way: "_Way", stranger: IPv4Address, ends: Tuple4, port: int) -> Iterator[Trial]:
        if stranger == ends.target:
            return
        claimed = Tuple4(stranger, ends.target, ends.protocol)
        # The decision lets the address through, whoever speaks, if the posture gives it a passage here.
        lawful = self._permits(way, claimed, ends.protocol, port)
        layers = ENTRANCE | EXIT if lawful else ENTRANCE | way.layers
        text = f"{words(ends.protocol)} {port} from {stranger}, which is not its address, to {ends.target}"
        yield self._transport(way, claimed, port, text, layers)

    def _ipv6(self, way: "_Way", port: int) -> Trial:
        serial = next(self._serials)
        source, target = (inner6(self._numbers[end.interface], 2) for end in (way.origin, way.target))
        packet = frames.ipv6_udp(source, target, port, serial)
        return self._trial(way, f"udp {port} from {source} to {target}", packet, serial, ENTRANCE | DECISION | EXIT)

    def _transport(
        self, way: "_Way", ends: Tuple4, port: int, text: str = "", layers: frozenset[Layer] | None = None
    ) -> Trial:
        serial = next(self._serials)
        text = text or f"{words(ends.protocol)} {port} from {ends.source} to {ends.target}"
        return self._trial(way, text, frames.template(ends)(FORBIDDEN_CLIENT, port, serial), serial, layers)

    def _trial(
        self, way: "_Way", text: str, packet: bytes, serial: int, layers: frozenset[Layer] | None = None
    ) -> Trial:
        origin = way.origin
        if origin.kind is not EndpointKind.ENCLOSURE:
            packet = frames.ethernet(origin.ours, origin.mac, packet)
        return Trial(origin, way.target, text, packet, serial, way.layers if layers is None else layers)

    def _source(self, way: "_Way") -> IPv4Address | None:
        """The address that the origin speaks from to this target."""
        if way.origin.kind is not EndpointKind.ENCLOSURE:
            return way.origin.address if way.origin.address != way.target.address else None
        return next((address for address in (way.target.gateway, *self._scene.own_addresses) if address), None)

    def _permits(self, way: "_Way", ends: Tuple4, protocol: int, port: int) -> bool:
        interfaces = way.origin.interface, way.target.interface
        return self._scene.permits(interfaces[0], ends.source, interfaces[1], ends.target, protocol, port)


@dataclass(frozen=True, slots=True)
class _Way:
    origin: Endpoint
    target: Endpoint
    layers: frozenset[Layer]
    """What stops there alone whatever the posture does not allow."""


def _usual(origin: Endpoint) -> frozenset[Layer]:
    return ENTRANCE | DECISION if origin.dark else DECISION


def _numbered(table: Mapping[int, Iterable[int]]) -> Iterator[tuple[int, int]]:
    return ((protocol, port) for protocol, numbers in table.items() for port in numbers)


def _ports(flows: list[Flow]) -> Iterator[tuple[int, int]]:
    """Allowed ports, for whoever they are not allowed to; those beside, of the other protocol, or often open."""
    step = max(1, len(flows) // NEARBY)
    for flow in flows[::step][:NEARBY]:
        yield flow.protocol, flow.port
        yield flow.protocol, flow.port - 1
        yield flow.protocol, flow.port + 1
        yield UDP if flow.protocol == TCP else TCP, flow.port
    yield from _numbered(_OFTEN_OPEN)


def _strangers(scene: Scene, endpoint: Endpoint) -> list[IPv4Address]:
    """Addresses that the endpoint's guard must not take from it: ours on its wire first, then those of others."""
    own = {network for port in scene.posture.ports if port.interface == endpoint.interface for network in heard(port)}
    if endpoint.kind is EndpointKind.MACHINE and endpoint.network is not None:
        own = {endpoint.network}
    if endpoint.dark:
        own = set()
    ours = [address for address in (endpoint.gateway,) if address]
    others = [e.address for e in scene.endpoints if e.network is not None and e.interface != endpoint.interface]
    # Right beside what is its own, where a mask of one bit less would begin.
    beside = [edge for network in sorted(own) for edge in (network[0] - 1, network[-1] + 1) if network.prefixlen]
    found = [address for address in (*beside, *others) if not any(address in network for network in own)]
    return list(dict.fromkeys([*ours, *found]))[:STRANGERS]


def _another(mac: str) -> str:
    """A MAC that differs in its last bit."""
    octets = bytearray(frames.mac(mac))
    octets[-1] ^= 1
    return octets.hex(":")
