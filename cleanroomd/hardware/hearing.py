"""What one frame says about the network behind a cable; pure. The frame is whatever anybody sent.

Three things matter. *Routers* and servers that hand out addresses or routes belong to a network that somebody else
runs: a clean switch with workstations has none but the enclosure. *Strangers* have an address of no zone of the port:
equipment of another network, or one workstation that still has the settings of its old place. Switches that are
managed are *noted*.

What counts as a router's voice:
DHCP replies (RFC 2131, 8415), router advertisements and redirects (RFC 4861), neighbour advertisements of routers,
ICMP router advertisements and redirects (RFC 1256, 792), RIP (2453), RIPng (2080), OSPF (2328), EIGRP (7868), IS-IS
(10589), PIM (7761), HSRP (2281), GLBP, VRRP (9568), and whoever claims one of the enclosure's own addresses, since
these are the gateways that equipment has configured.

The last one, redirects and neighbour advertisements are *weak*: one workstation that is set up wrongly, or means ill,
sends such a frame as easily. On a port that is open they need to be repeated (`Doubts`).
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address

LONGEST = 512
"""Bytes of a frame that are looked at; everything that is told apart here lies before."""
_MOST_HEADERS = 8
"""IPv6 extension headers that are followed."""

_IPV4, _ARP, _IPV6, _LLDP = 0x0800, 0x0806, 0x86DD, 0x88CC
_TAGS = frozenset({0x8100, 0x88A8})
_LENGTHS_BELOW = 0x0600
"""IEEE 802.3: smaller values are lengths, and an LLC header follows."""
_STP, _SNAP, _ISIS = b"\x42\x42\x03", b"\xaa\xaa\x03", b"\xfe\xfe\x03"
_CDP, _PVST = b"\x00\x00\x0c\x20\x00", b"\x00\x00\x0c\x01\x0b"
_ICMP, _IGMP, _UDP, _ICMP6 = 1, 2, 17, 58
_EXTENSIONS = frozenset({0, 43, 60, 135})
_FRAGMENT = 44
_ROUTING = {88: "EIGRP", 89: "OSPF", 103: "PIM", 112: "VRRP"}
_ROUTING_PORTS = {520: "RIP", 521: "RIPng", 1985: "HSRP", 2029: "HSRP", 3222: "GLBP"}
_REDIRECT, _REDIRECT6 = 5, 137
_ICMP_VOICES = {_REDIRECT: "redirects", 9: "router advertisements"}
_ICMP6_VOICES = {134: "router advertisements", _REDIRECT6: "redirects"}
_NEIGHBOUR, _IS_ROUTER, _MLD_QUERY, _IGMP_QUERY = 136, 0x80, 130, 0x11
_DHCP_SERVER, _DHCP_REPLY, _DHCP6_SERVER, _DHCP6_CLIENT = 67, 2, 547, 546
SIGHTINGS, WITHIN, APART = 3, 60.0, 1.0
"""An open port takes somebody for a router by weak signs that it had from one MAC so often, in so many seconds. Those
that come within `APART` seconds of one another count once: a burst is one event, and a gateway goes on speaking."""
_MOST_DOUBTED = 64
"""MACs that are remembered; whoever makes up more of them forgets the oldest."""
_LINK_LOCAL = IPv4Network("169.254.0.0/16")
_NOBODY = IPv4Address(0)


class Voice(StrEnum):
    ROUTER = "router"
    """The cable leads to a network that somebody else runs."""
    STRANGER = "stranger"
    """Equipment of another network, or set up for one."""
    NOTE = "note"
    """No sign of another network."""


@dataclass(frozen=True, slots=True)
class Sign:
    voice: Voice
    text: str
    """Who was heard, in words: "a DHCP server at 192.168.40.1 (02:00:00:00:40:02)"."""
    weak: bool = False
    """Of a router's voice: not only routers sound like that."""


class Doubts:
    """Who gave weak signs on a port that is open, and when; for one cable. `clock` tells seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, ...]] = {}

    def confirmed(self, mac: str) -> bool:
        """Whether the weak sign that came from `mac` just now makes enough of them."""
        now = self._clock()
        before = tuple(at for at in self._seen.pop(mac, ()) if now - at < WITHIN)
        if not before or now - before[-1] >= APART:
            before = (*before, now)[-SIGHTINGS:]
        if len(self._seen) >= _MOST_DOUBTED:
            del self._seen[next(iter(self._seen))]
        self._seen[mac] = before
        return len(before) >= SIGHTINGS


@dataclass(frozen=True)
class Expected:
    """Who may be behind a port."""

    networks: Mapping[int | None, tuple[IPv4Network, ...]]
    """The networks of the port's zones by VLAN tag; None for those without."""
    own: frozenset[IPv4Address]
    """The enclosure's addresses on the port."""
    hospital: IPv4Network | None = None
    """The uplink's network."""
    machines: Mapping[IPv4Address, str] = field(default_factory=dict)
    """The addresses of machines that are restored here -> their services: heard outside, they are the originals."""
    doubts: Doubts | None = None
    """Of a port that is open; None while one weak sign is enough to keep it closed."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """One that is whole enough to be judged."""

    source: str
    vlan: int | None
    ethertype: int
    payload: bytes


def sign_of(untrusted_frame: bytes, expected: Expected, macs: frozenset[str] = frozenset()) -> Sign | None:
    """The weightiest thing that a frame says; None for what is as expected, and for what makes no sense.

    `macs` are the enclosure's own: what bears one of them is no news.
    """
    try:
        frame = _parsed(untrusted_frame[:LONGEST])
        if frame.source in macs:
            return None
        return _weighed(next(_signs(frame, expected), None), frame.source, expected.doubts)
    except (struct.error, IndexError):
        # It ends too early, or was cut off: nobody acts on such a frame.
        return None


def _weighed(sign: Sign | None, mac: str, doubts: Doubts | None) -> Sign | None:
    if sign is None or not sign.weak or doubts is None or doubts.confirmed(mac):
        return sign
    return replace(sign, voice=Voice.NOTE, text=f"{sign.text} (no more than a hint: the port stays open)")


def _parsed(frame: bytes) -> _Frame:
    source = frame[6:12].hex(":")
    (ethertype,) = struct.unpack_from(">H", frame, 12)
    vlan, offset = None, 14
    for _ in range(2):
        if ethertype not in _TAGS:
            break
        tag, ethertype = struct.unpack_from(">HH", frame, offset)
        # Of two tags the outer one is what a switch of ours goes by; 0 is a priority, and no VLAN (IEEE 802.1Q).
        vlan = vlan or tag & 0x0FFF or None
        offset += 4
    return _Frame(source, vlan, ethertype, frame[offset:])


def _signs(frame: _Frame, expected: Expected) -> Iterator[Sign]:
    """Weightiest first."""
    if frame.ethertype == _IPV4:
        yield from _ipv4(frame, expected)
    elif frame.ethertype == _ARP:
        yield from _arp(frame, expected)
    elif frame.ethertype == _IPV6:
        yield from _ipv6(frame)
    elif frame.ethertype == _LLDP:
        yield Sign(Voice.NOTE, f"a managed switch (LLDP, {frame.source})")
    elif frame.ethertype < _LENGTHS_BELOW:
        yield from _llc(frame)


def _llc(frame: _Frame) -> Iterator[Sign]:
    header = frame.payload[:3]
    if header == _ISIS:
        yield Sign(Voice.ROUTER, f"a router ({frame.source}, IS-IS)")
    elif header == _STP or (header == _SNAP and frame.payload[3:8] == _PVST):
        yield Sign(Voice.NOTE, f"a switch with spanning tree ({frame.source})")
    elif header == _SNAP and frame.payload[3:8] == _CDP:
        yield Sign(Voice.NOTE, f"a managed switch (CDP, {frame.source})")


def _arp(frame: _Frame, expected: Expected) -> Iterator[Sign]:
    hardware, protocol, sizes = struct.unpack_from(">HHH", frame.payload)
    if (hardware, protocol, sizes) == (1, _IPV4, 0x0604):
        yield from _address(IPv4Address(_exactly(frame.payload, 14, 4)), frame, expected)


def _ipv4(frame: _Frame, expected: Expected) -> Iterator[Sign]:
    packet = frame.payload
    version, length = packet[0] >> 4, (packet[0] & 0x0F) * 4
    (fragment,) = struct.unpack_from(">H", packet, 6)
    if version != 4 or length < 20:
        return
    source, protocol = IPv4Address(_exactly(packet, 12, 4)), packet[9]
    if not fragment & 0x1FFF:
        yield from _voice(f"{source} ({frame.source})", protocol, packet[length:])
    yield from _address(source, frame, expected)


def _ipv6(frame: _Frame) -> Iterator[Sign]:
    packet = frame.payload
    source, header = IPv6Address(_exactly(packet, 8, 16)), packet[6]
    if packet[0] >> 4 != 6:
        return
    rest = packet[40:]
    for _ in range(_MOST_HEADERS):
        if header in _EXTENSIONS:
            # RFC 8200 section 4: the length counts eight octets, and not the first eight.
            header, rest = rest[0], rest[rest[1] * 8 + 8 :]
        elif header == _FRAGMENT:
            if struct.unpack_from(">H", rest, 2)[0] & 0xFFF8:
                break
            header, rest = rest[0], rest[8:]
        else:
            yield from _voice(f"{source} ({frame.source})", header, rest)
            break
    if source.is_global or (source.is_private and not (source.is_link_local or source.is_unspecified)):
        yield Sign(Voice.STRANGER, f"equipment with the address {source} ({frame.source}), which is of no zone there")


def _voice(who: str, protocol: int, rest: bytes) -> Iterator[Sign]:
    """Signs of a router or of a server, from what an IP packet of either version carries."""
    if protocol in _ROUTING:
        yield Sign(Voice.ROUTER, f"a router at {who}, by {_ROUTING[protocol]}")
    elif protocol == _UDP:
        yield from _udp(who, rest)
    elif protocol == _ICMP and rest and rest[0] in _ICMP_VOICES:
        yield Sign(Voice.ROUTER, f"a router at {who}, by its {_ICMP_VOICES[rest[0]]}", rest[0] == _REDIRECT)
    elif protocol == _ICMP6 and rest and rest[0] in _ICMP6_VOICES:
        yield Sign(Voice.ROUTER, f"a router at {who}, by its {_ICMP6_VOICES[rest[0]]}", rest[0] == _REDIRECT6)
    elif protocol == _ICMP6 and rest and rest[0] == _NEIGHBOUR and rest[4] & _IS_ROUTER:
        yield Sign(Voice.ROUTER, f"a router at {who}, by what it tells its neighbours", weak=True)
    elif (protocol == _IGMP and rest and rest[0] == _IGMP_QUERY) or (
        protocol == _ICMP6 and rest and rest[0] == _MLD_QUERY
    ):
        yield Sign(Voice.NOTE, f"a switch or router that asks for multicast listeners, {who}")


def _udp(who: str, segment: bytes) -> Iterator[Sign]:
    source, target = struct.unpack_from(">HH", segment)
    if source == _DHCP_SERVER and segment[8] == _DHCP_REPLY:
        yield Sign(Voice.ROUTER, f"a DHCP server at {who}")
    elif source == _DHCP6_SERVER and target == _DHCP6_CLIENT:
        yield Sign(Voice.ROUTER, f"a DHCPv6 server at {who}")
    elif target in _ROUTING_PORTS and source == target:
        yield Sign(Voice.ROUTER, f"a router at {who}, by {_ROUTING_PORTS[target]}")


def _address(source: IPv4Address, frame: _Frame, expected: Expected) -> Iterator[Sign]:
    who = f"{source} ({frame.source})"
    if source == _NOBODY or source in _LINK_LOCAL:
        return
    if source in expected.own:
        text = f"another machine with the enclosure's own address {who}: the old gateway is there"
        yield Sign(Voice.ROUTER, text, weak=True)
    elif not any(source in network for network in expected.networks.get(frame.vlan, ())):
        yield Sign(Voice.STRANGER, _stranger(source, who, frame.vlan, expected))


def _stranger(source: IPv4Address, who: str, vlan: int | None, expected: Expected) -> str:
    tagged = f" in VLAN {vlan}" if vlan is not None else ""
    if source in expected.machines:
        return f"the original of {expected.machines[source]} at {who}{tagged}: this looks like the hospital's network"
    if expected.hospital is not None and source in expected.hospital:
        return f"{who}{tagged}, of the uplink's network: this looks like the hospital's network"
    return f"equipment with the address {who}{tagged}, which is of no zone there"


def _exactly(data: bytes, offset: int, size: int) -> bytes:
    found = data[offset : offset + size]
    if len(found) < size:
        raise IndexError(offset)
    return found
