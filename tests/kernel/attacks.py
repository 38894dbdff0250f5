"""The attacks that test_attacks.py tries, one by one."""

import socket
import struct
from dataclasses import dataclass

from cleanroomd.isolation.policy import tap_mac
from tests.kernel import packets
from tests.kernel.packets import BROADCAST, arp, ethernet, icmp, icmpv6, ipv4, ipv6, ipv6_udp, tcp, udp, vlan_tagged
from tests.kernel.world import (
    CARE,
    CARE_MAC,
    DATABASE,
    DATABASE_MAC,
    GATEWAY,
    HOSPITAL,
    HOSPITAL_MAC,
    IMAGING,
    IMAGING_MAC,
    UPLINK_MAC,
    WORKSTATION,
    WORKSTATION_MAC,
)

MARKER = b"cleanroom attack"
IMG_TAP, DB_TAP = tap_mac("cr-img"), tap_mac("cr-db")
TCP, UDP, ICMP, ICMPV6 = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6
GROUP = "224.0.0.251"
ALL_NODES, MULTICAST_MAC = "ff02::1", "33:33:00:00:00:01"


@dataclass(frozen=True)
class Attack:
    name: str
    origin: str
    """The namespace that sends, from its eth0 or, for the enclosure, from `link`."""
    frames: tuple[bytes, ...]
    victim: str
    """The namespace where it must not arrive."""
    counter: str
    """The chain that must count it."""
    link: str = "eth0"


def from_imaging(packet: bytes, ethertype: int = packets.IPV4, source: str = IMAGING_MAC) -> bytes:
    return ethernet(IMG_TAP, source, ethertype, packet)


def from_workstation(packet: bytes) -> bytes:
    return ethernet(CARE_MAC, WORKSTATION_MAC, packets.IPV4, packet)


def datagram(source: str, target: str, port: int) -> bytes:
    return ipv4(source, target, UDP, udp(port, port, MARKER))


def segment_to_workstation(flags: int) -> bytes:
    return from_imaging(ipv4(IMAGING, WORKSTATION, TCP, tcp(IMAGING, WORKSTATION, 4242, 50000, flags, MARKER)))


def neighbour_discovery(kind: int, rest: bytes) -> bytes:
    """RFC 4861."""
    message = icmpv6("fe80::1", ALL_NODES, kind, rest)
    return ethernet(MULTICAST_MAC, IMAGING_MAC, packets.IPV6, ipv6("fe80::1", ALL_NODES, ICMPV6, message, hops=255))


def redirect(towards: str, about: str) -> bytes:
    """RFC 792: send what goes to `about` to the router `towards` from now on."""
    quoted = ipv4(GATEWAY, about, UDP, udp(77, 78, b""))
    return icmp(5, 1, socket.inet_aton(towards) + quoted + MARKER)


def arp_from_imaging(message: bytes) -> bytes:
    return ethernet(BROADCAST, IMAGING_MAC, packets.ARP, message + MARKER)


def arp_from_workstation(message: bytes) -> bytes:
    return ethernet(BROADCAST, WORKSTATION_MAC, packets.ARP, message + MARKER)


LONG = udp(1234, 1234, MARKER + bytes(64))
FORGED_ERROR = icmp(3, 1, bytes(4) + ipv4(DATABASE, IMAGING, UDP, udp(77, 78, MARKER)) + MARKER)

SOURCE_ROUTE = b"\x83\x07\x04" + socket.inet_aton(DATABASE) + b"\0"
"""RFC 791: loose source and record route, one hop, then the end of the list."""
RECORD_ROUTE = b"\x07\x07\x04" + bytes(4) + b"\0"

ATTACKS = (
    Attack(
        "another port of an allowed pair",
        "imaging",
        (from_imaging(datagram(IMAGING, DATABASE, 1234)),),
        "database",
        "forward",
    ),
    Attack(
        "another protocol on an allowed port",
        "imaging",
        (from_imaging(datagram(IMAGING, DATABASE, 5432)),),
        "database",
        "forward",
    ),
    Attack(
        "a forbidden port in fragments",
        "imaging",
        (
            from_imaging(ipv4(IMAGING, DATABASE, UDP, LONG[:24], fragment=0x2000)),
            from_imaging(ipv4(IMAGING, DATABASE, UDP, LONG[24:], fragment=3)),
        ),
        "database",
        "forward",
    ),
    Attack(
        "a machine as another MAC",
        "imaging",
        (from_imaging(datagram(IMAGING, DATABASE, 9), source=DATABASE_MAC),),
        "database",
        "ingress//cr-img",
    ),
    Attack(
        "a machine as another address",
        "imaging",
        (from_imaging(datagram(WORKSTATION, DATABASE, 9)),),
        "database",
        "ingress//cr-img",
    ),
    Attack(
        "an allowed flow in a priority-tagged frame",
        "imaging",
        (vlan_tagged(from_imaging(datagram(IMAGING, DATABASE, 9))),),
        "database",
        "ingress//cr-img",
    ),
    Attack(
        "a DHCP request of a machine",
        "imaging",
        (ethernet(BROADCAST, IMAGING_MAC, packets.IPV4, datagram("0.0.0.0", "255.255.255.255", 67)),),
        "enclosure",
        "ingress//cr-img",
    ),
    Attack(
        "IPv6 to all nodes",
        "imaging",
        (ethernet(MULTICAST_MAC, IMAGING_MAC, packets.IPV6, ipv6_udp("fe80::1", ALL_NODES, 67, MARKER)),),
        "enclosure",
        "ingress//cr-img",
    ),
    Attack(
        "an allowed flow backwards",
        "database",
        (ethernet(DB_TAP, DATABASE_MAC, packets.IPV4, datagram(DATABASE, IMAGING, 9)),),
        "imaging",
        "forward",
    ),
    Attack(
        "an answer that nobody asked for",
        "imaging",
        (
            from_imaging(
                ipv4(IMAGING, WORKSTATION, TCP, tcp(IMAGING, WORKSTATION, 4242, 50000, 0x18, MARKER)),
            ),
        ),
        "workstation",
        "forward",
    ),
    Attack(
        "an echo request between machines that may talk",
        "imaging",
        (from_imaging(ipv4(IMAGING, DATABASE, ICMP, icmp(8, 0, bytes(4) + MARKER))),),
        "database",
        "forward",
    ),
    Attack(
        "an ICMP error about no connection",
        "imaging",
        (from_imaging(ipv4(IMAGING, DATABASE, ICMP, FORGED_ERROR)),),
        "database",
        "forward",
    ),
    Attack(
        "a machine to the enclosure at its gateway",
        "imaging",
        (from_imaging(datagram(IMAGING, GATEWAY, 67)),),
        "enclosure",
        "input",
    ),
    Attack(
        "a machine to the enclosure at the care port's address",
        "imaging",
        (from_imaging(datagram(IMAGING, CARE, 67)),),
        "enclosure",
        "input",
    ),
    Attack(
        "a workstation to the enclosure",
        "workstation",
        (from_workstation(datagram(WORKSTATION, CARE, 67)),),
        "enclosure",
        "input",
    ),
    Attack(
        "a workstation to a machine that the plan does not open",
        "workstation",
        (from_workstation(datagram(WORKSTATION, DATABASE, 9)),),
        "database",
        "forward",
    ),
    Attack(
        "a workstation as a machine",
        "workstation",
        (from_workstation(datagram(IMAGING, DATABASE, 9)),),
        "database",
        "ingress//care",
    ),
    Attack(
        "a workstation as the enclosure",
        "workstation",
        (from_workstation(datagram(CARE, IMAGING, 9)),),
        "imaging",
        "ingress//care",
    ),
    Attack(
        "the hospital through a dark port that somebody raised",
        "hospital",
        (ethernet(UPLINK_MAC, HOSPITAL_MAC, packets.IPV4, datagram(HOSPITAL, CARE, 67)),),
        "enclosure",
        "ingress//up0",
    ),
    Attack(
        "a raw frame to the hospital",
        "enclosure",
        (ethernet(HOSPITAL_MAC, UPLINK_MAC, packets.IPV4, datagram(CARE, HOSPITAL, 9)),),
        "hospital",
        "egress//up0",
        link="up0",
    ),
    Attack(
        "a raw frame to a machine, past the output chain",
        "enclosure",
        (ethernet(DATABASE_MAC, DB_TAP, packets.IPV4, datagram(GATEWAY, DATABASE, 5432)),),
        "database",
        "egress//cr-db",
        link="cr-db",
    ),
    Attack(
        "a raw frame to a workstation in somebody else's name",
        "enclosure",
        (ethernet(WORKSTATION_MAC, IMAGING_MAC, packets.IPV4, datagram(IMAGING, WORKSTATION, 9)),),
        "workstation",
        "egress//care",
        link="care",
    ),
    Attack(
        "an allowed flow in a double-tagged frame",
        "imaging",
        (vlan_tagged(vlan_tagged(from_imaging(datagram(IMAGING, DATABASE, 9)))),),
        "database",
        "ingress//cr-img",
    ),
    Attack(
        "an allowed flow of a workstation in a tagged frame",
        "workstation",
        (vlan_tagged(from_workstation(datagram(WORKSTATION, IMAGING, 9))),),
        "imaging",
        "ingress//care",
    ),
    Attack("a SYN-ACK that nobody asked for", "imaging", (segment_to_workstation(0x12),), "workstation", "forward"),
    Attack("a RST about no connection", "imaging", (segment_to_workstation(0x04),), "workstation", "forward"),
    Attack(
        "a bare ACK from a workstation that pretends to go on",
        "workstation",
        (from_workstation(ipv4(WORKSTATION, DATABASE, TCP, tcp(WORKSTATION, DATABASE, 50000, 5432, 0x10, MARKER))),),
        "database",
        "forward",
    ),
    Attack(
        "a DHCP offer of a machine",
        "imaging",
        (ethernet(BROADCAST, IMAGING_MAC, packets.IPV4, datagram(IMAGING, "255.255.255.255", 68)),),
        "enclosure",
        "input",
    ),
    Attack(
        "a router advertisement of a machine",
        "imaging",
        (neighbour_discovery(134, bytes(12) + MARKER),),
        "enclosure",
        "ingress//cr-img",
    ),
    Attack(
        "a neighbour advertisement in another machine's name",
        "imaging",
        (neighbour_discovery(136, bytes(20) + MARKER),),
        "enclosure",
        "ingress//cr-img",
    ),
    Attack(
        "IPv6 behind an extension header",
        "imaging",
        (
            ethernet(
                MULTICAST_MAC,
                IMAGING_MAC,
                packets.IPV6,
                # RFC 8200: destination options that hold one PadN of four bytes.
                ipv6_udp("fe80::1", ALL_NODES, 67, MARKER, extension=(60, b"\1\4\0\0\0\0")),
            ),
        ),
        "enclosure",
        "ingress//cr-img",
    ),
    Attack(
        "a source route through the enclosure",
        "imaging",
        (from_imaging(ipv4(IMAGING, GATEWAY, UDP, udp(9, 9, MARKER), options=SOURCE_ROUTE)),),
        "database",
        "ingress//cr-img",
    ),
    Attack(
        "an allowed flow with an IP option",
        "imaging",
        (from_imaging(ipv4(IMAGING, DATABASE, UDP, udp(9, 9, MARKER), options=RECORD_ROUTE)),),
        "database",
        "ingress//cr-img",
    ),
    Attack(
        "a broadcast of a machine",
        "imaging",
        (ethernet(BROADCAST, IMAGING_MAC, packets.IPV4, datagram(IMAGING, "255.255.255.255", 67)),),
        "enclosure",
        "input",
    ),
    Attack(
        "a broadcast to the workstations' network",
        "imaging",
        (from_imaging(datagram(IMAGING, "10.77.0.255", 67)),),
        "enclosure",
        "input",
    ),
    Attack(
        "a multicast of a machine",
        "imaging",
        (ethernet("01:00:5e:00:00:fb", IMAGING_MAC, packets.IPV4, datagram(IMAGING, GROUP, 67)),),
        "enclosure",
        "input",
    ),
    Attack(
        "an ICMP redirect to the enclosure",
        "imaging",
        (from_imaging(ipv4(IMAGING, GATEWAY, ICMP, redirect(DATABASE, IMAGING))),),
        "enclosure",
        "input",
    ),
    Attack(
        "an ICMP redirect to another machine",
        "imaging",
        (from_imaging(ipv4(IMAGING, DATABASE, ICMP, redirect(DATABASE, WORKSTATION))),),
        "database",
        "forward",
    ),
    Attack(
        "a workstation as loopback",
        "workstation",
        (from_workstation(datagram("127.0.0.1", CARE, 67)),),
        "enclosure",
        "ingress//care",
    ),
    Attack(
        "a workstation to loopback",
        "workstation",
        (from_workstation(datagram(WORKSTATION, "127.0.0.1", 67)),),
        "enclosure",
        "input",
    ),
    Attack(
        "a machine as loopback",
        "imaging",
        (from_imaging(datagram("127.0.0.1", GATEWAY, 67)),),
        "enclosure",
        "ingress//cr-img",
    ),
    Attack(
        "a workstation with a link-local address",
        "workstation",
        (from_workstation(datagram("169.254.7.7", IMAGING, 9)),),
        "imaging",
        "ingress//care",
    ),
    Attack(
        "SCTP on the number of an allowed port",
        "imaging",
        (from_imaging(ipv4(IMAGING, DATABASE, 132, struct.pack(">HHII", 9, 9, 0, 0) + MARKER)),),
        "database",
        "forward",
    ),
    *(
        Attack(
            f"{name} between machines that may talk",
            "imaging",
            (from_imaging(ipv4(IMAGING, DATABASE, number, bytes(8) + MARKER)),),
            "database",
            "forward",
        )
        for name, number in (("IPv4 in IPv4", 4), ("IPv6 in IPv4", 41), ("GRE", 47), ("ESP", 50), ("UDP-Lite", 136))
    ),
    Attack(
        "a traceroute through the enclosure",
        "workstation",
        (from_workstation(ipv4(WORKSTATION, IMAGING, UDP, udp(1234, 9, MARKER), ttl=1)),),
        "workstation",
        "output",
    ),
    Attack(
        "ARP of a machine as another machine",
        "imaging",
        (arp_from_imaging(arp(1, IMAGING_MAC, DATABASE, "00:00:00:00:00:00", GATEWAY)),),
        "enclosure",
        "ingress//cr-img",
    ),
    Attack(
        "gratuitous ARP of a machine as the gateway",
        "imaging",
        (arp_from_imaging(arp(2, IMAGING_MAC, GATEWAY, BROADCAST, GATEWAY)),),
        "enclosure",
        "ingress//cr-img",
    ),
    Attack(
        "ARP of a machine with another MAC inside",
        "imaging",
        (arp_from_imaging(arp(1, DATABASE_MAC, IMAGING, "00:00:00:00:00:00", GATEWAY)),),
        "enclosure",
        "ingress//cr-img",
    ),
    Attack(
        "an ARP probe for another machine's address",
        "imaging",
        (arp_from_imaging(arp(1, IMAGING_MAC, "0.0.0.0", "00:00:00:00:00:00", DATABASE)),),
        "enclosure",
        "ingress//cr-img",
    ),
    Attack(
        "gratuitous ARP of a workstation as its gateway",
        "workstation",
        (arp_from_workstation(arp(2, WORKSTATION_MAC, CARE, BROADCAST, CARE)),),
        "enclosure",
        "ingress//care",
    ),
    Attack(
        "ARP of a workstation as a machine",
        "workstation",
        (
            ethernet(
                BROADCAST, WORKSTATION_MAC, packets.ARP, arp(1, WORKSTATION_MAC, IMAGING, BROADCAST, CARE) + MARKER
            ),
        ),
        "enclosure",
        "ingress//care",
    ),
    Attack(
        "ARP of the hospital on the dark port",
        "hospital",
        (ethernet(BROADCAST, HOSPITAL_MAC, packets.ARP, arp(1, HOSPITAL_MAC, HOSPITAL, BROADCAST, CARE) + MARKER),),
        "enclosure",
        "ingress//up0",
    ),
    Attack(
        "the hospital as a workstation",
        "hospital",
        (ethernet(UPLINK_MAC, HOSPITAL_MAC, packets.IPV4, datagram(WORKSTATION, IMAGING, 9)),),
        "imaging",
        "ingress//up0",
    ),
)
