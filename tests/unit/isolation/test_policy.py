"""The compiled rules let through what the posture lists, and nothing else, judged by an evaluator of the rules."""

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cleanroomd.errors import IsolationError
from cleanroomd.isolation.expressions import CtState, Direction
from cleanroomd.isolation.policy import MARK, compile_posture, name_bytes, tap_mac
from cleanroomd.isolation.ruleset import Family, HookPoint
from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import DENY_ALL, Allowance, PortGuard, Posture, TapGuard
from tests.unit.isolation.evaluator import Connection, Packet, passes
from tests.unit.isolation.postures import addresses, postures, service_ports, unhurried

PORTS, TAPS = ("care", "up0"), ("cr-img", "cr-db", "x'\";{}")
NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, None: 1}
IPV4, ARP, IPV6, VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
ENDPOINTS = st.sampled_from(["", "nobody", *PORTS, *TAPS])


@dataclass(frozen=True)
class Opening:
    """The first packet of a connection."""

    origin: str
    source: IPv4Address
    target: str
    destination: IPv4Address
    protocol: Protocol
    port: int


openings = st.builds(Opening, ENDPOINTS, addresses, ENDPOINTS, addresses, st.sampled_from(Protocol), service_ports)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Posture, Opening]:
    """A posture, and an opening that an allowance of it covers more often than chance would have it."""
    posture = draw(postures(ports=PORTS, taps=TAPS))
    if not posture.allowances or draw(st.integers(0, 3)) == 0:
        return posture, draw(openings)
    allowance = draw(st.sampled_from(sorted(posture.allowances)))
    source = draw(st.sampled_from([allowance.source[0], allowance.source[-1]]))
    destination = draw(st.sampled_from([allowance.destination[0], allowance.destination[-1]]))
    ends = (allowance.origin, source, allowance.target, destination)
    return posture, Opening(*ends, allowance.protocol, allowance.port)


def frame(
    source: IPv4Address,
    destination: IPv4Address,
    protocol: int,
    ports: tuple[int, int],
    *,
    mac: str = "02:00:00:00:00:09",
    ethertype: int = IPV4,
) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 28, 1, 0, 64, protocol, 0) + source.packed + destination.packed
    link = bytes(6) + bytes.fromhex(mac.replace(":", "")) + struct.pack(">H", ethertype)
    return link + header + struct.pack(">HHHH", *ports, 8, 0)


def listed(posture: Posture, opening: Opening) -> bool:
    """The meaning of a posture, said a second time."""
    guarded = {tap.interface for tap in posture.taps} | {p.interface for p in posture.ports if not p.dark}
    return any(
        allowance.origin == opening.origin
        and allowance.target == opening.target
        and opening.target in guarded
        and (opening.origin in guarded or opening.origin == "")
        and opening.source in allowance.source
        and opening.destination in allowance.destination
        and (opening.protocol, opening.port) == (allowance.protocol, allowance.port)
        for allowance in posture.allowances
    )


def hook(origin: str, target: str) -> HookPoint:
    if origin == "":
        return HookPoint.OUTPUT
    return HookPoint.INPUT if target == "" else HookPoint.FORWARD


def connection(opening: Opening, state: CtState, direction: Direction) -> Connection:
    protocol = NUMBERS[opening.protocol]
    return Connection(state, direction, opening.source, opening.destination, protocol, opening.port)


def forth(opening: Opening, state: CtState) -> Packet:
    data = frame(opening.source, opening.destination, NUMBERS[opening.protocol], (40000, opening.port))
    return Packet(data, opening.origin, opening.target, connection=connection(opening, state, Direction.ORIGINAL))


def back(opening: Opening, state: CtState) -> Packet:
    data = frame(opening.destination, opening.source, NUMBERS[opening.protocol], (opening.port, 40000))
    return Packet(data, opening.target, opening.origin, connection=connection(opening, state, Direction.REPLY))


def with_connection(
    packet: Packet,
    *,
    state: CtState | None = None,
    direction: Direction | None = None,
    protocol: int | None = None,
    port: int | None = None,
) -> Packet:
    """The packet with other facts about its connection."""
    known = packet.connection
    assert known is not None
    changed = Connection(
        known.state if state is None else state,
        known.direction if direction is None else direction,
        known.source,
        known.destination,
        known.protocol if protocol is None else protocol,
        known.port if port is None else port,
    )
    return replace(packet, connection=changed)


def icmp_error(packet: Packet, kind: int) -> Packet:
    """An ICMP message from the packet's sender about the other direction of its connection."""
    data = packet.frame[:23] + b"\1" + packet.frame[24:34] + bytes([kind]) + bytes(7)
    return with_connection(replace(packet, frame=data), state=CtState.RELATED)


@unhurried
@given(cases())
def test_only_what_is_listed_opens_a_connection(case: tuple[Posture, Opening]) -> None:
    posture, opening = case
    rules = compile_posture(posture)
    for state in (CtState.NEW, CtState.ESTABLISHED):
        after = passes(rules, hook(opening.origin, opening.target), forth(opening, state))
        assert (after is not None) is listed(posture, opening)
        assert after is None or after.mark == MARK


@unhurried
@given(cases())
def test_replies_pass_as_long_as_what_they_answer_is_listed(case: tuple[Posture, Opening]) -> None:
    posture, opening = case
    rules = compile_posture(posture)
    where = hook(opening.target, opening.origin)
    reply = back(opening, CtState.ESTABLISHED)
    assert (passes(rules, where, reply) is not None) is listed(posture, opening)
    assert passes(rules, where, with_connection(reply, direction=Direction.ORIGINAL)) is None
    for state in (CtState.NEW, CtState.RELATED, CtState.INVALID):
        assert passes(rules, where, back(opening, state)) is None
    assert passes(rules, where, replace(reply, connection=None)) is None


@unhurried
@given(cases())
def test_a_packet_of_the_reply_direction_is_judged_by_what_it_replies_to(case: tuple[Posture, Opening]) -> None:
    """Its own addresses and port may well be listed: that opens nothing."""
    posture, opening = case
    replied_to = replace(opening, origin=opening.target, target=opening.origin)
    forged = with_connection(forth(opening, CtState.ESTABLISHED), direction=Direction.REPLY)
    after = passes(compile_posture(posture), hook(opening.origin, opening.target), forged)
    assert (after is not None) is listed(posture, replied_to)


@unhurried
@given(cases())
def test_of_icmp_only_errors_about_listed_connections_pass(case: tuple[Posture, Opening]) -> None:
    posture, opening = case
    rules = compile_posture(posture)
    replied_to = replace(opening, origin=opening.target, target=opening.origin)
    there, here = hook(opening.target, opening.origin), hook(opening.origin, opening.target)
    for kind in (0, 3, 5, 8, 11, 12):
        wanted = listed(posture, opening) and kind in (3, 11)
        answer = icmp_error(back(opening, CtState.ESTABLISHED), kind)
        assert (passes(rules, there, answer) is not None) is wanted
        own = icmp_error(forth(opening, CtState.ESTABLISHED), kind)
        assert (passes(rules, here, own) is not None) is (wanted and opening.origin != "")
        about_reply = with_connection(own, direction=Direction.REPLY)
        wanted = listed(posture, replied_to) and kind in (3, 11)
        assert (passes(rules, here, about_reply) is not None) is wanted
        for state in (CtState.NEW, CtState.INVALID):
            assert passes(rules, there, with_connection(answer, state=state)) is None
            assert passes(rules, here, with_connection(own, state=state)) is None
        for state in (CtState.NEW, CtState.ESTABLISHED, CtState.INVALID):
            echo = with_connection(answer, state=state, protocol=1, port=0)
            assert passes(rules, there, echo) is None


@unhurried
@given(
    postures(ports=PORTS, taps=TAPS), openings, st.sampled_from([HookPoint.INPUT, HookPoint.FORWARD, HookPoint.OUTPUT])
)
def test_ipv6_passes_nowhere_but_on_loopback(posture: Posture, opening: Opening, point: HookPoint) -> None:
    rules = compile_posture(posture)
    six = replace(forth(opening, CtState.NEW), frame=bytes(12) + b"\x86\xdd" + bytes(48))
    assert passes(rules, point, six) is None
    inside = passes(rules, point, replace(six, iifname="lo", oifname="lo"))
    assert (inside is not None) is (point is not HookPoint.FORWARD)


def arp(ethernet: str, sender_mac: str, sender: IPv4Address, *, head: bytes = b"\0\1\x08\0\6\4\0\1") -> bytes:
    macs = [bytes.fromhex(mac.replace(":", "")) for mac in (ethernet, sender_mac)]
    return bytes(6) + macs[0] + struct.pack(">H", ARP) + head + macs[1] + sender.packed + bytes(10)


MACHINE, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
ADDRESS, ELSEWHERE = IPv4Address("10.1.20.14"), IPv4Address("10.1.20.15")
GATEWAY = IPv4Address("10.1.20.1")
TAP = TapGuard("imaging", "cr-img", MACHINE, ADDRESS, GATEWAY)
CARE_MAC, OWN, CLEAN = "02:00:00:00:00:77", IPv4Address("10.77.0.1"), IPv4Address("10.77.0.9")
CARE = PortGuard("care", "care", CARE_MAC, dark=False, addresses=(IPv4Interface("10.77.0.1/24"),))
DARK = PortGuard("uplink", "up0", "02:00:00:00:00:40", addresses=(IPv4Interface("192.168.40.5/24"),))
GUARDS = compile_posture(Posture(ports=(CARE, DARK), taps=(TAP,)))


def ip(source: IPv4Address, mac: str, ethertype: int = IPV4) -> bytes:
    return frame(source, IPv4Address("10.9.9.9"), 17, (1, 2), mac=mac, ethertype=ethertype)


@pytest.mark.parametrize(
    ("data", "accepted"),
    [
        (ip(ADDRESS, MACHINE), True),
        (ip(ELSEWHERE, MACHINE), False),
        (ip(IPv4Address(0), MACHINE), False),
        (ip(ADDRESS, OTHER), False),
        (ip(ADDRESS, MACHINE, IPV6), False),
        (ip(ADDRESS, MACHINE, VLAN), False),
        (arp(MACHINE, MACHINE, ADDRESS), True),
        (arp(OTHER, MACHINE, ADDRESS), False),
        (arp(MACHINE, OTHER, ADDRESS), False),
        (arp(MACHINE, MACHINE, GATEWAY), False),
        (arp(MACHINE, MACHINE, ADDRESS, head=b"\0\6\x08\0\6\4\0\1"), False),
        (arp(MACHINE, MACHINE, ADDRESS, head=b"\0\1\x08\0\6\x10\0\1"), False),
    ],
)
def test_a_machine_speaks_only_for_itself(data: bytes, accepted: bool) -> None:
    after = passes(GUARDS, HookPoint.INGRESS, Packet(data, iifname="cr-img", mark=MARK))
    assert (after is not None) is accepted
    if after and data[12:14] == b"\x08\x00":
        assert after.mark == 0


@pytest.mark.parametrize(
    ("data", "accepted"),
    [
        (ip(CLEAN, OTHER), True),
        (ip(OWN, OTHER), False),
        (ip(ADDRESS, OTHER), False),
        (ip(CLEAN, OTHER, IPV6), False),
        (ip(CLEAN, OTHER, VLAN), False),
        (arp(OTHER, OTHER, CLEAN), True),
        (arp(OTHER, OTHER, OWN), False),
        (arp(OTHER, OTHER, ADDRESS), False),
    ],
)
def test_a_port_speaks_only_for_its_networks(data: bytes, accepted: bool) -> None:
    after = passes(GUARDS, HookPoint.INGRESS, Packet(data, iifname="care", mark=MARK))
    assert (after is not None) is accepted
    if after and data[12:14] == b"\x08\x00":
        assert after.mark == 0


@pytest.mark.parametrize(("interface", "mac"), [("cr-img", tap_mac("cr-img")), ("care", CARE_MAC)])
def test_the_gate_passes_marked_packets_and_our_own_arp(interface: str, mac: str) -> None:
    def leaves(data: bytes, mark: int = 0) -> bool:
        return passes(GUARDS, HookPoint.EGRESS, Packet(data, oifname=interface, mark=mark)) is not None

    assert leaves(ip(CLEAN, mac), MARK)
    assert not leaves(ip(CLEAN, mac))
    assert not leaves(ip(CLEAN, mac), MARK ^ 1)
    assert not leaves(ip(CLEAN, OTHER), MARK)
    assert not leaves(ip(CLEAN, mac, IPV6), MARK)
    assert leaves(arp(mac, mac, GATEWAY))
    assert not leaves(arp(mac, OTHER, GATEWAY))
    assert not leaves(arp(OTHER, OTHER, GATEWAY), MARK)


@unhurried
@given(st.binary(min_size=14, max_size=60), st.sampled_from([0, MARK]))
@example(ip(IPv4Address("192.168.40.9"), OTHER), MARK)
def test_a_dark_port_passes_nothing(data: bytes, mark: int) -> None:
    for point in (HookPoint.INGRESS, HookPoint.EGRESS):
        assert passes(GUARDS, point, Packet(data, iifname="up0", oifname="up0", mark=mark)) is None


def test_every_base_chain_drops_what_it_does_not_decide() -> None:
    for posture in (DENY_ALL, Posture(ports=(CARE, DARK), taps=(TAP,))):
        for table in compile_posture(posture).tables:
            assert all(not chain.hook.accepts for chain in table.chains if chain.hook)


@unhurried
@given(postures(ports=PORTS, taps=TAPS))
def test_the_order_of_a_posture_does_not_matter(posture: Posture) -> None:
    turned = replace(posture, ports=posture.ports[::-1], taps=posture.taps[::-1])
    assert compile_posture(turned).digest == compile_posture(posture).digest


def test_overlapping_networks_need_no_merging() -> None:
    wide = Allowance("care", IPv4Network("10.77.0.0/24"), "cr-img", IPv4Network(ADDRESS), Protocol.TCP, 80)
    narrow = replace(wide, source=IPv4Network("10.77.0.9/32"), label="the same, narrower")
    rules = compile_posture(Posture(ports=(CARE,), taps=(TAP,), allowances=frozenset({wide, narrow})))
    table = rules.table(Family.INET, "cleanroom")
    assert table is not None
    assert {item.name for item in table.sets if item.name.startswith("flows")} == {
        "flows//care//cr-img//24-32",
        "flows//care//cr-img//32-32",
    }


def test_no_key_has_more_than_five_fields() -> None:
    allowance = Allowance("care", IPv4Network("10.77.0.0/24"), "cr-img", IPv4Network(ADDRESS), Protocol.TCP, 80)
    rules = compile_posture(Posture(ports=(CARE,), taps=(TAP,), allowances=frozenset({allowance})))
    assert max(len(item.fields) for table in rules.tables for item in table.sets) <= 5


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 16, "a/b", "a b", "a:b", "a\0b", "é" * 8])
def test_impossible_interface_names_are_refused(name: str) -> None:
    with pytest.raises(IsolationError, match="is no name of an interface"):
        compile_posture(Posture(taps=(replace(TAP, interface=name),)))


@unhurried
@given(st.text(min_size=1, max_size=15))
def test_no_two_interfaces_share_a_chain(text: str) -> None:
    try:
        name_bytes(text)
    except IsolationError:
        return
    others = [name for name in ("cr-img", "2f", "a", "enclosure") if name != text]
    posture = Posture(taps=tuple(replace(TAP, interface=name) for name in (text, *others)))
    table = compile_posture(posture).table(Family.NETDEV, "cleanroom")
    assert table is not None
    assert len({chain.name for chain in table.chains}) == len(table.chains) == 2 * (1 + len(others))


def test_contradictions_are_refused() -> None:
    with pytest.raises(IsolationError, match="cr-img is guarded twice"):
        compile_posture(Posture(taps=(TAP, replace(TAP, service="other"))))
    with pytest.raises(IsolationError, match="lo is guarded twice"):
        compile_posture(Posture(taps=(replace(TAP, interface="lo"),)))
    with pytest.raises(IsolationError, match="'52:54' is no MAC address"):
        compile_posture(Posture(taps=(replace(TAP, mac="52:54"),)))


def test_a_taps_own_mac_is_unicast_stable_and_its_own() -> None:
    assert tap_mac("cr-img") == tap_mac("cr-img") != tap_mac("cr-db")
    assert int(tap_mac("cr-img")[:2], 16) & 0x03 == 0x02


TAGGED = Posture(
    ports=(
        PortGuard("care", "care", "02:00:00:00:77:01", dark=False, tags=(30, 4094)),
        PortGuard("care", "vlan30-care", "02:00:00:00:77:01", False, (IPv4Interface("10.1.30.1/24"),)),
    )
)


some_tags = st.sampled_from([30, 0xE000 | 30, 4094, 31, 0]) | st.integers(0, 0xFFFF)


def tagged(frame_: bytes, *tags: int, kind: int = VLAN) -> bytes:
    """The frame with these tags, the outermost first."""
    inner = frame_[12:]
    for tag in reversed(tags):
        inner = struct.pack(">HH", kind, tag) + inner
    return frame_[:12] + inner


@unhurried
@given(st.lists(some_tags, max_size=2), st.sampled_from([IPV4, ARP, IPV6, 0x88A8]), st.booleans())
def test_a_port_passes_the_tags_of_its_zones_and_of_two_tags_none(tags: list[int], ethertype: int, out: bool) -> None:
    """In either direction; the priority in the upper bits does not matter, and nothing untagged passes there."""
    rules = compile_posture(TAGGED)
    data = frame(
        IPv4Address("10.1.30.50"), IPv4Address("10.1.30.1"), 6, (1, 2), mac="02:00:00:00:77:01", ethertype=ethertype
    )
    if ethertype == ARP:
        data = data[:14] + struct.pack(">HHBBH", 1, IPV4, 6, 4, 1) + data[6:12] + bytes(14)
    packet = Packet(tagged(data, *tags), "" if out else "care", "care" if out else "", mark=MARK)
    point = HookPoint.EGRESS if out else HookPoint.INGRESS
    allowed = len(tags) == 1 and tags[0] & 0xFFF in (30, 4094) and ethertype in (IPV4, ARP)
    assert (passes(rules, point, packet) is not None) is allowed


def test_nothing_tagged_leaves_without_the_mark_or_in_another_name() -> None:
    rules = compile_posture(TAGGED)
    own = frame(IPv4Address("10.1.30.1"), IPv4Address("10.1.30.50"), 6, (1, 2), mac="02:00:00:00:77:01")
    other = frame(IPv4Address("10.1.30.1"), IPv4Address("10.1.30.50"), 6, (1, 2), mac="02:00:00:00:77:09")
    for data, mark, leaves in ((own, MARK, True), (own, 0, False), (other, MARK, False)):
        packet = Packet(tagged(data, 30), "", "care", mark=mark)
        assert (passes(rules, HookPoint.EGRESS, packet) is not None) is leaves
