"""What must not pass, each thing tried twice: under the rules, and with every chain opened.

Under the rules the chain named must count it and nothing may arrive; with the chains opened the same attack must
arrive, which shows that the test would notice.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture, tap_mac
from tests.kernel import packets
from tests.kernel.packets import BROADCAST, arp, ethernet, icmp, ipv4, ipv6_udp, tcp, udp, vlan_tagged
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
    POSTURE,
    UPLINK_MAC,
    WORKSTATION,
    WORKSTATION_MAC,
    World,
    built,
    eventually,
    opened,
    remove_source_checks,
)

MARKER = b"cleanroom attack"
IMG_TAP, DB_TAP = tap_mac("cr-img"), tap_mac("cr-db")
TCP, UDP, ICMP = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP
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


LONG = udp(1234, 1234, MARKER + bytes(64))
FORGED_ERROR = icmp(3, 1, bytes(4) + ipv4(DATABASE, IMAGING, UDP, udp(77, 78, MARKER)) + MARKER)

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
)


class Witness:
    """Says whether the marker reached a namespace: in a frame on its card, or in a socket of the enclosure."""

    def __init__(self, world: World, victim: str, stack: ExitStack) -> None:
        if victim == "enclosure":
            plain = world.enclosure.receiver("0.0.0.0", 67)
            six = world.enclosure.open_socket(socket.AF_INET6, socket.SOCK_DGRAM)
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            six.bind(("::", 67))
            self._sockets = [plain, six]
        else:
            self._sockets = [getattr(world, victim).frames("eth0")]
        for receiver in self._sockets:
            stack.enter_context(receiver)
            receiver.settimeout(0)
        self._seen = False

    def seen(self) -> bool:
        for receiver in self._sockets:
            with suppress(BlockingIOError):
                while not self._seen:
                    self._seen = MARKER in receiver.recv(1 << 16)
        return self._seen


def launch(world: World, attack: Attack, stack: ExitStack) -> None:
    sender = stack.enter_context(getattr(world, attack.origin).frames(attack.link))
    for frame in attack.frames:
        # ENOBUFS is what the kernel tells a local sender whose frame an egress chain dropped.
        with suppress(OSError):
            sender.send(frame)


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[World, RuleWriter]]:
    """The rules in force, the dark port's link raised by somebody, and no help from the kernel's own source checks."""
    with built() as world, world.writer() as writer:
        world.allow(writer, *POSTURE.allowances)
        world.enclosure.ip("link set up0 up")
        remove_source_checks(world)
        yield world, writer


@pytest.fixture(scope="module")
def defenceless() -> Iterator[World]:
    """The same, with every chain accepting everything, and IPv6 on the taps."""
    with built() as world, world.writer() as writer:
        writer.apply(opened(compile_posture(POSTURE)))
        world.enclosure.ip("link set up0 up")
        remove_source_checks(world)
        with world.enclosure.entered():
            Path("/proc/sys/net/ipv6/conf/cr-img/disable_ipv6").write_text("0")
        yield world


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_it_is_stopped_and_counted(guarded: tuple[World, RuleWriter], attack: Attack) -> None:
    world, writer = guarded
    with ExitStack() as stack:
        witness = Witness(world, attack.victim, stack)
        before = writer.denied()[attack.counter]
        launch(world, attack, stack)
        eventually(lambda: writer.denied()[attack.counter] > before, f"a packet counted by {attack.counter}")
        assert not witness.seen()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_without_the_rules_it_arrives(defenceless: World, attack: Attack) -> None:
    with ExitStack() as stack:
        witness = Witness(defenceless, attack.victim, stack)

        def arrives() -> bool:
            # Again and again: IPv6 needs a moment on a link where it was just enabled.
            launch(defenceless, attack, stack)
            return witness.seen()

        eventually(arrives, "the attack's arrival")


ARP_ATTACKS: dict[str, Callable[[], bytes]] = {
    "as another machine": lambda: arp(1, IMAGING_MAC, DATABASE, "00:00:00:00:00:00", GATEWAY),
    "as the gateway": lambda: arp(2, IMAGING_MAC, GATEWAY, BROADCAST, GATEWAY),
    "with another MAC inside": lambda: arp(1, DATABASE_MAC, IMAGING, "00:00:00:00:00:00", GATEWAY),
}


@pytest.mark.parametrize("forge", ARP_ATTACKS.values(), ids=ARP_ATTACKS.keys())
def test_forged_arp_is_stopped_and_counted(guarded: tuple[World, RuleWriter], forge: Callable[[], bytes]) -> None:
    world, writer = guarded
    before = writer.denied()["ingress//cr-img"]
    with world.imaging.frames("eth0") as sender:
        sender.send(ethernet(BROADCAST, IMAGING_MAC, packets.ARP, forge()))
    eventually(lambda: writer.denied()["ingress//cr-img"] > before, "a denied ARP frame")
    assert not poisoned(world)


def test_without_the_rules_forged_arp_poisons(defenceless: World) -> None:
    with defenceless.imaging.frames("eth0") as sender:
        sender.send(ethernet(BROADCAST, IMAGING_MAC, packets.ARP, ARP_ATTACKS["as another machine"]()))
    eventually(lambda: poisoned(defenceless), "a wrong entry in the enclosure's ARP table")


def poisoned(world: World) -> bool:
    """Whether the enclosure believes that the database is behind the imaging machine's tap."""
    with world.enclosure.entered():
        rows = [line.split() for line in Path("/proc/thread-self/net/arp").read_text().splitlines()[1:]]
    return any(row[0] == DATABASE and row[3] == IMAGING_MAC for row in rows)


def test_the_enclosure_reaches_a_machine_only_for_its_probe(guarded: tuple[World, RuleWriter]) -> None:
    world, writer = guarded
    before = writer.denied()["output"]
    with world.enclosure.open_socket(kind=socket.SOCK_DGRAM) as sender, pytest.raises(PermissionError):
        sender.sendto(MARKER, (DATABASE, 5432))
    assert writer.denied()["output"] > before


def test_without_the_rules_the_enclosure_reaches_a_machine(defenceless: World) -> None:
    with ExitStack() as stack:
        witness = Witness(defenceless, "database", stack)
        stack.enter_context(defenceless.enclosure.open_socket(kind=socket.SOCK_DGRAM)).sendto(MARKER, (DATABASE, 5432))
        eventually(witness.seen, "the datagram's arrival")


def test_a_machine_gets_answers_to_arp_only_for_whom_it_may_talk_to(guarded: tuple[World, RuleWriter]) -> None:
    """Proxy ARP for the database and the gateway; nothing for a neighbour that the plan does not name."""
    world, _ = guarded
    with world.imaging.frames("eth0") as card:
        for wanted in ("10.1.20.99", DATABASE, GATEWAY):
            card.send(ethernet(BROADCAST, IMAGING_MAC, packets.ARP, arp(1, IMAGING_MAC, IMAGING, BROADCAST, wanted)))
        answers = [_answer(card), _answer(card)]
    assert answers == [(DATABASE, IMG_TAP), (GATEWAY, IMG_TAP)]


def _answer(card: socket.socket) -> tuple[str, str]:
    """Sender address and MAC of the next ARP answer."""
    while True:
        frame = card.recv(1 << 16)
        if frame[12:14] == b"\x08\x06" and struct.unpack(">H", frame[20:22])[0] == 2:
            return socket.inet_ntoa(frame[28:32]), frame[22:28].hex(":")
