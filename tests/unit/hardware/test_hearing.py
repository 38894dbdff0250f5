"""What is taken for another network's voice, and what is not; frames are whatever anybody sends."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.hardware.hearing import LONGEST, Doubts, Expected, Sign, Voice, sign_of
from tests.kernel import packets
from tests.kernel.packets import BROADCAST, arp, ethernet, icmp, ipv4, udp, vlan_tagged

OURS = "52:54:00:00:00:02"
THEIRS = "02:00:00:00:40:02"
EXPECTED = Expected(
    networks={None: (IPv4Network("10.77.0.0/24"),), 30: (IPv4Network("10.1.30.0/24"),)},
    own=frozenset({IPv4Address("10.77.0.1"), IPv4Address("10.1.30.1")}),
    hospital=IPv4Network("192.168.40.0/24"),
    machines={IPv4Address("10.1.20.14"): "Imagerie (PACS)"},
)
MACS = frozenset({OURS})
UDP, ICMP, ICMP6 = 17, 1, 58


def heard(frame: bytes) -> Sign | None:
    return sign_of(frame, EXPECTED, MACS)


def on_ipv4(packet: bytes, source: str = THEIRS) -> bytes:
    return ethernet(BROADCAST, source, packets.IPV4, packet)


def on_ipv6(source: str, header: int, payload: bytes) -> bytes:
    from ipaddress import IPv6Address

    packet = struct.pack(">IHBB", 6 << 28, len(payload), header, 255) + IPv6Address(source).packed
    return ethernet("33:33:00:00:00:01", THEIRS, packets.IPV6, packet + IPv6Address("ff02::1").packed + payload)


def asking(sender: str, wanted: str = "10.77.0.1", source: str = THEIRS) -> bytes:
    return ethernet(BROADCAST, source, packets.ARP, arp(1, source, sender, "00:00:00:00:00:00", wanted))


OFFER = udp(67, 68, b"\2\1\6\0" + bytes(240))
ADVERTISEMENT = b"\x86\0\0\0" + bytes(12)
PADDED = b"\x3a\0" + b"\1\4\0\0\0\0" + ADVERTISEMENT
"""A hop-by-hop header with padding (RFC 8200), then the advertisement."""
LLC_IS_IS = ethernet("01:80:c2:00:00:14", THEIRS, 20, b"\xfe\xfe\x03\x83" + bytes(40))

ROUTERS = {
    "a DHCP server": on_ipv4(ipv4("192.168.40.1", "255.255.255.255", UDP, OFFER)),
    "a DHCP server with a zone's address": on_ipv4(ipv4("10.77.0.254", "255.255.255.255", UDP, OFFER)),
    "a DHCP server in a VLAN": vlan_tagged(on_ipv4(ipv4("10.9.0.1", "255.255.255.255", UDP, OFFER)), 77),
    "a DHCPv6 server": on_ipv6("fe80::1", UDP, udp(547, 546, bytes(8))),
    "an IPv6 router": on_ipv6("fe80::1", ICMP6, ADVERTISEMENT),
    "an IPv6 router behind an extension header": on_ipv6("fe80::1", 0, PADDED),
    "an IPv6 redirect": on_ipv6("fe80::1", ICMP6, b"\x89" + bytes(39)),
    "a neighbour that is a router": on_ipv6("fe80::1", ICMP6, b"\x88\0\0\0\x80" + bytes(19)),
    "an ICMP router": on_ipv4(ipv4("10.77.0.254", "224.0.0.1", ICMP, icmp(9, 0, bytes(8)))),
    "an ICMP redirect": on_ipv4(ipv4("10.77.0.254", "10.77.0.100", ICMP, icmp(5, 1, bytes(32)))),
    "OSPF": on_ipv4(ipv4("10.77.0.254", "224.0.0.5", 89, bytes(44))),
    "VRRP": on_ipv4(ipv4("10.77.0.254", "224.0.0.18", 112, bytes(20))),
    "EIGRP": on_ipv4(ipv4("10.77.0.254", "224.0.0.10", 88, bytes(20))),
    "PIM": on_ipv4(ipv4("10.77.0.254", "224.0.0.13", 103, bytes(20))),
    "HSRP": on_ipv4(ipv4("10.77.0.254", "224.0.0.2", UDP, udp(1985, 1985, bytes(20)))),
    "RIP": on_ipv4(ipv4("10.77.0.254", "224.0.0.9", UDP, udp(520, 520, bytes(24)))),
    "IS-IS": LLC_IS_IS,
    "the old gateway, in ARP": asking("10.77.0.1"),
    "the old gateway, in IPv4": on_ipv4(ipv4("10.77.0.1", "10.77.0.100", UDP, udp(9, 9, b""))),
    "the old gateway of a tagged zone": vlan_tagged(asking("10.1.30.1"), 30),
}

STRANGERS = {
    "ARP of another network": (asking("10.1.20.57"), "the address 10.1.20.57"),
    "IPv4 of another network": (on_ipv4(ipv4("10.1.20.57", "10.1.20.255", UDP, udp(9, 9, b""))), "10.1.20.57"),
    "the hospital's network": (asking("192.168.40.77"), "the uplink's network"),
    "the original of a machine": (asking("10.1.20.14"), "the original of Imagerie (PACS)"),
    "a zone's address without its tag": (asking("10.1.30.50"), "10.1.30.50"),
    "an address in a VLAN of no zone": (vlan_tagged(asking("10.77.0.100"), 31), "in VLAN 31"),
    "an IPv6 network": (on_ipv6("2001:db8::7", UDP, udp(9, 9, b"")), "2001:db8::7"),
    "a later fragment": (on_ipv4(ipv4("10.1.20.57", "10.1.20.1", UDP, OFFER, fragment=3)), "10.1.20.57"),
}

NOTES = {
    "spanning tree": ethernet("01:80:c2:00:00:00", THEIRS, 38, b"\x42\x42\x03" + bytes(35)),
    "spanning tree for each VLAN": ethernet(
        "01:00:0c:cc:cc:cd", THEIRS, 50, b"\xaa\xaa\x03\0\0\x0c\x01\x0b" + bytes(42)
    ),
    "LLDP": ethernet("01:80:c2:00:00:0e", THEIRS, 0x88CC, b"\x02\x07" + bytes(60)),
    "CDP": ethernet("01:00:0c:cc:cc:cc", THEIRS, 60, b"\xaa\xaa\x03\0\0\x0c\x20\0" + bytes(52)),
    "an IGMP query": on_ipv4(ipv4("0.0.0.0", "224.0.0.1", 2, b"\x11" + bytes(7))),
}

SILENT = {
    "a workstation": asking("10.77.0.100"),
    "a device of a tagged zone": vlan_tagged(asking("10.1.30.50"), 30),
    "a device of a tagged zone, with priority": vlan_tagged(asking("10.1.30.50"), 0xE000 | 30),
    "a workstation that asks for an address": on_ipv4(ipv4("0.0.0.0", "255.255.255.255", UDP, udp(68, 67, bytes(240)))),
    "a workstation that probes for its address": asking("0.0.0.0", "10.77.0.100"),
    "a workstation without an address": asking("169.254.7.7"),
    "a priority tag": vlan_tagged(asking("10.77.0.100"), 0xE000),
    "an IPv6 neighbour": on_ipv6("fe80::7", ICMP6, b"\x87" + bytes(23)),
    "the enclosure itself": asking("10.77.0.1", source=OURS),
    "a router advertisement of the enclosure's own card": on_ipv4(ipv4("1.2.3.4", "224.0.0.5", 89, b""), OURS),
    "nothing": b"",
    "half a header": asking("10.1.20.57")[:20],
    "ARP that ends too early": asking("10.1.20.57")[:30],
}


@pytest.mark.parametrize("frame", ROUTERS.values(), ids=ROUTERS.keys())
def test_whoever_runs_a_network_is_heard(frame: bytes) -> None:
    sign = heard(frame)
    assert sign is not None
    assert sign.voice is Voice.ROUTER
    assert THEIRS in sign.text


@pytest.mark.parametrize(("frame", "words"), STRANGERS.values(), ids=STRANGERS.keys())
def test_equipment_of_another_network_is_heard(frame: bytes, words: str) -> None:
    sign = heard(frame)
    assert sign is not None
    assert sign.voice is Voice.STRANGER
    assert words in sign.text
    assert THEIRS in sign.text


@pytest.mark.parametrize("frame", NOTES.values(), ids=NOTES.keys())
def test_a_managed_switch_is_worth_telling_and_nothing_more(frame: bytes) -> None:
    sign = heard(frame)
    assert sign is not None
    assert sign.voice is Voice.NOTE


@pytest.mark.parametrize("frame", SILENT.values(), ids=SILENT.keys())
def test_what_belongs_there_is_no_news(frame: bytes) -> None:
    assert heard(frame) is None


@given(st.binary(max_size=2 * LONGEST))
def test_no_bytes_are_too_odd(frame: bytes) -> None:
    heard(frame)


@given(
    st.sampled_from([*ROUTERS.values(), *(frame for frame, _ in STRANGERS.values()), *NOTES.values()]),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=6),
    st.integers(0, 400),
)
def test_no_frame_that_was_damaged_is_too_odd(frame: bytes, changes: list[tuple[int, int]], length: int) -> None:
    damaged = bytearray(frame)
    for place, value in changes:
        if place < len(damaged):
            damaged[place] = value
    sign = heard(bytes(damaged[:length]))
    assert sign is None or (sign.text and len(sign.text) < 200)


# Weak signs --------------------------------------------------------------------------------------------------------

WEAK = {
    name: ROUTERS[name]
    for name in (
        "the old gateway, in ARP",
        "the old gateway, in IPv4",
        "an ICMP redirect",
        "an IPv6 redirect",
        "a neighbour that is a router",
    )
}
STRONG = {name: frame for name, frame in ROUTERS.items() if name not in WEAK and "the old gateway" not in name}


class Open:
    """A port that is open, at an instant."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.expected = replace(EXPECTED, doubts=Doubts(lambda: self.now))

    def hears(self, frame: bytes) -> Voice:
        sign = sign_of(frame, self.expected, MACS)
        assert sign is not None
        return sign.voice


@pytest.mark.parametrize("frame", WEAK.values(), ids=WEAK.keys())
def test_one_weak_sign_closes_no_port_that_is_open(frame: bytes) -> None:
    port = Open()
    assert port.hears(frame) is Voice.NOTE
    port.now += 30.0
    assert port.hears(frame) is Voice.NOTE
    port.now += 29.0
    assert port.hears(frame) is Voice.ROUTER


@pytest.mark.parametrize("frame", STRONG.values(), ids=STRONG.keys())
def test_what_only_routers_and_servers_say_closes_it_at_once(frame: bytes) -> None:
    assert Open().hears(frame) is Voice.ROUTER


def test_a_burst_is_one_sign_and_what_is_long_past_is_none() -> None:
    port = Open()
    assert {port.hears(asking("10.77.0.1")) for _ in range(20)} == {Voice.NOTE}
    for _ in range(5):
        port.now += 31.0
        assert port.hears(asking("10.77.0.1")) is Voice.NOTE


def test_weak_signs_of_several_are_not_added_up() -> None:
    port = Open()
    for number in range(200):
        port.now += 1.0
        assert port.hears(asking("10.77.0.1", source=f"02:00:00:00:41:{number:02x}")) is Voice.NOTE
