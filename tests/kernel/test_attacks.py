"""What must not pass, each thing tried twice: under the rules, and with every chain opened.

Under the rules the chain named must count it and nothing may arrive; with the chains opened the same attack must
arrive, which shows that the test would notice.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from tests.kernel import packets
from tests.kernel.attacks import ATTACKS, GROUP, IMG_TAP, MARKER, Attack
from tests.kernel.packets import BROADCAST, arp, ethernet
from tests.kernel.world import (
    DATABASE,
    GATEWAY,
    IMAGING,
    IMAGING_MAC,
    POSTURE,
    World,
    built,
    eventually,
    opened,
    remove_source_checks,
)


class Witness:
    """Says whether the marker reached a namespace: in a frame on its card, or in a socket of the enclosure.

    A packet socket for one protocol sees what comes after the guard, unlike one for all.
    """

    def __init__(self, world: World, victim: str, stack: ExitStack) -> None:
        self._sockets = _ears(world) if victim == "enclosure" else [getattr(world, victim).frames("eth0")]
        for receiver in self._sockets:
            stack.enter_context(receiver)
            receiver.settimeout(0)
        self._seen = False

    def seen(self) -> bool:
        for receiver in self._sockets:
            with suppress(BlockingIOError):
                while not self._seen:
                    data, address = receiver.recvfrom(1 << 16)
                    own = receiver.family == socket.AF_PACKET and address[2] == socket.PACKET_OUTGOING
                    self._seen = MARKER in data and not own
        return self._seen


def _ears(world: World) -> list[socket.socket]:
    """Everything that might hear an attack on the enclosure itself."""
    enclosure = world.enclosure
    plain = [enclosure.receiver("0.0.0.0", port) for port in (67, 68)]
    with enclosure.entered():
        member = socket.inet_aton(GROUP) + bytes(4) + struct.pack("=i", socket.if_nametoindex("cr-img"))
    plain[0].setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    six = enclosure.open_socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    six.bind(("::", 67))
    with enclosure.entered():
        raw = [
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
            socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(packets.ARP)),
        ]
    return [*plain, six, *raw]


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


def test_without_the_rules_forged_arp_poisons(defenceless: World) -> None:
    with defenceless.imaging.frames("eth0") as sender:
        sender.send(
            ethernet(BROADCAST, IMAGING_MAC, packets.ARP, arp(1, IMAGING_MAC, DATABASE, "00:00:00:00:00:00", GATEWAY))
        )
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
