"""Zones of equipment: fixed addresses behind their old gateway, VLAN tags, and what can be odd about ports."""

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import links
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import MARK, compile_posture
from cleanroomd.keeper import tables
from cleanroomd.keeper.tables import own_tables
from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import Allowance, PortGuard, Posture
from tests.kernel import packets
from tests.kernel.namespaces import Namespace
from tests.kernel.packets import BROADCAST, arp, ethernet, ipv4, udp, vlan_tagged
from tests.kernel.world import CARE_MAC, IMAGING, IMG, POSTURE, WORKSTATION_MAC, World, built, eventually

DEVICE, OLD_GATEWAY = "10.1.30.50", "10.1.30.1"
MARKER = b"cleanroom tag"
SO_MARK = 36


def care(**changes: object) -> Posture:
    """The world's posture with another care port."""
    uplink, port = POSTURE.ports
    return replace(POSTURE, ports=(uplink, replace(port, **changes)), allowances=frozenset())  # type: ignore[arg-type]


@contextmanager
def in_force(world: World, posture: Posture) -> Iterator[RuleWriter]:
    with world.writer() as writer:
        writer.apply(compile_posture(posture))
        writer.prove(posture)
        yield writer


def test_a_device_with_a_fixed_address_finds_its_machine_through_its_old_gateway() -> None:
    """Nothing on it was changed: its address, its mask and its default route are those of the hospital's network."""
    network = IPv4Network("10.1.30.0/24")
    allowed = Allowance("care", network, "cr-img", IMG, Protocol.TCP, 4242)
    posture = replace(care(addresses=(IPv4Interface(f"{OLD_GATEWAY}/24"),)), allowances=frozenset({allowed}))
    with built() as world, in_force(world, posture):
        device = world.workstation
        device.ip("addr flush dev eth0")
        device.ip(f"addr add {DEVICE}/24 dev eth0")
        device.ip(f"route add default via {OLD_GATEWAY}")
        with world.enclosure.entered():
            links.set_port("care", up=True, addresses=(f"{OLD_GATEWAY}/24",))
        with world.imaging.listener(IMAGING, 4242) as listener, device.open_socket() as near:
            near.connect((IMAGING, 4242))
            far, (source, _) = listener.accept()
            far.close()
        assert source == DEVICE
        with device.frames("eth0") as card:
            for wanted in ("10.1.30.254", IMAGING, OLD_GATEWAY):
                question = arp(1, WORKSTATION_MAC, DEVICE, "00:00:00:00:00:00", wanted)
                card.send(ethernet(BROADCAST, WORKSTATION_MAC, packets.ARP, question))
            assert answered(card) == (OLD_GATEWAY, CARE_MAC)


def answered(card: socket.socket) -> tuple[str, str]:
    """Sender address and MAC of the next ARP answer."""
    while True:
        frame = card.recv(1 << 16)
        if frame[12:14] == b"\x08\x06" and struct.unpack(">H", frame[20:22])[0] == 2:
            return socket.inet_ntoa(frame[28:32]), frame[22:28].hex(":")


# Tags --------------------------------------------------------------------------------------------------------------

TAGS = care(addresses=(), tags=(30,))
INWARD = ethernet(CARE_MAC, WORKSTATION_MAC, packets.IPV4, ipv4(DEVICE, IMAGING, 17, udp(9, 9, MARKER)))
OUTWARD = ethernet(WORKSTATION_MAC, CARE_MAC, packets.IPV4, ipv4(IMAGING, DEVICE, 17, udp(9, 9, MARKER)))
ARP_OUT = ethernet(BROADCAST, CARE_MAC, packets.ARP, arp(1, CARE_MAC, OLD_GATEWAY, BROADCAST, DEVICE) + MARKER)
FORGED_ARP_OUT = ethernet(
    BROADCAST, CARE_MAC, packets.ARP, arp(1, WORKSTATION_MAC, OLD_GATEWAY, BROADCAST, DEVICE) + MARKER
)


@pytest.mark.parametrize(
    ("frame", "passes"),
    [
        (vlan_tagged(INWARD, 30), True),
        (vlan_tagged(INWARD, 0xE000 | 30), True),
        (INWARD, False),
        (vlan_tagged(INWARD, 31), False),
        (vlan_tagged(INWARD), False),
        (vlan_tagged(vlan_tagged(INWARD, 30), 30), False),
        (vlan_tagged(vlan_tagged(INWARD, 31), 30), False),
        (vlan_tagged(vlan_tagged(INWARD, 30), 31), False),
        (vlan_tagged(INWARD, 30).replace(b"\x81\x00", b"\x88\xa8", 1), False),
        (vlan_tagged(ethernet(CARE_MAC, WORKSTATION_MAC, packets.IPV6, bytes(60)), 30), False),
    ],
    ids=["its tag", "with a priority", "none", "another", "priority only", "twice", "outside another", "inside another",
         "as a service tag", "around IPv6"],
)  # fmt: skip
def test_a_port_lets_the_tags_of_its_zones_in_and_nothing_else(frame: bytes, passes: bool) -> None:
    with built() as world, in_force(world, TAGS) as writer, world.workstation.frames("eth0") as card:
        before = writer.denied()["ingress//care"]
        card.send(frame)
        # Frames of one card stay in order: the last one is denied by all rules.
        card.send(vlan_tagged(INWARD, 4000))
        eventually(lambda: writer.denied()["ingress//care"] > before, "the last frame's being counted")
        assert writer.denied()["ingress//care"] - before == (1 if passes else 2)


@pytest.mark.parametrize(
    ("frame", "mark", "passes"),
    [
        (vlan_tagged(OUTWARD, 30), MARK, True),
        (vlan_tagged(ARP_OUT, 30), 0, True),
        (vlan_tagged(OUTWARD, 30), 0, False),
        (vlan_tagged(OUTWARD, 31), MARK, False),
        (vlan_tagged(vlan_tagged(OUTWARD, 30), 30), MARK, False),
        (OUTWARD, MARK, False),
        (vlan_tagged(FORGED_ARP_OUT, 30), 0, False),
        (ARP_OUT, 0, False),
    ],
    ids=["its tag", "ARP", "unmarked", "another tag", "twice", "untagged", "ARP in another name", "untagged ARP"],
)
def test_a_port_lets_only_the_tags_of_its_zones_out(frame: bytes, mark: int, passes: bool) -> None:
    with built() as world, in_force(world, TAGS) as writer, world.workstation.frames("eth0") as card:
        before = writer.denied()["egress//care"]
        with world.enclosure.frames("care") as sender:
            sender.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
            # ENOBUFS is what the kernel tells a local sender whose frame an egress chain dropped.
            with suppress(OSError):
                sender.send(frame)
        assert writer.denied()["egress//care"] - before == (0 if passes else 1)
        if passes:
            while MARKER not in card.recv(1 << 16):
                pass


# What ports may be called, and what becomes of them -------------------------------------------------------------------

ODD_NAMES = ("enp0s31f6np0xyz", "x'\";{}$(id)#&*", "-rf", "care.30", "élan-soins", "a" * 15)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_port_of_any_name_is_guarded_and_set_up(name: str) -> None:
    space = Namespace()
    try:
        with space.entered():
            with links.IPRoute() as ip:
                ip.link("add", ifname=name, kind="veth", address=CARE_MAC, peer={"ifname": "far"})
                ip.link("set", index=socket.if_nametoindex("far"), state="up")
            guard = PortGuard("care", name, CARE_MAC, dark=False, addresses=(IPv4Interface("10.77.0.1/24"),))
            with RuleWriter(own_tables()) as writer:
                posture = Posture(ports=(guard,))
                writer.apply(compile_posture(posture))
                writer.prove(posture)
                links.set_port(name, up=True, addresses=("10.77.0.1/24",))
                found = next(each for each in links.interfaces() if each.name == name)
                assert found.up
                assert found.addresses == {"10.77.0.1/24"}
    finally:
        space.close()


def test_rules_for_a_port_that_has_just_vanished_are_in_force_as_a_whole_or_not_at_all() -> None:
    """Kernels before 6.16 refuse a guard without its interface, later ones keep it for when the interface comes."""
    with built() as world, world.writer() as writer:
        writer.apply(compile_posture(POSTURE))
        gone = PortGuard("other", "gone", "02:00:00:00:00:99", False, (IPv4Interface("10.99.0.1/24"),))
        wanted = replace(POSTURE, ports=(*POSTURE.ports, gone))
        in_force = wanted
        try:
            writer.apply(compile_posture(wanted))
        except IsolationError:
            in_force = POSTURE
        writer.prove(in_force)
        world.enclosure.ip("link add gone type veth peer name far")
        writer.apply(compile_posture(wanted))
        writer.prove(wanted)


def test_a_port_that_vanishes_opens_nothing_and_is_guarded_from_its_first_frame_when_it_is_back() -> None:
    with built() as world, world.writer() as writer:
        posture = care(addresses=(), dark=True)
        writer.apply(compile_posture(posture))
        world.enclosure.ip("link del care")
        world.enclosure.ip(f"link add care address {CARE_MAC} type veth peer name far")
        writer.apply(compile_posture(posture))
        writer.prove(posture)
        world.enclosure.ip("link set far up")
        world.enclosure.ip("link set care up")
        before = writer.denied()["ingress//care"]
        with world.enclosure.frames("far") as far:
            far.send(INWARD)
        eventually(lambda: writer.denied()["ingress//care"] > before, "a denied frame")


def test_a_kernel_without_nf_tables_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(tables.socket, "socket", refuse)
    with pytest.raises(IsolationError) as refused:
        own_tables()
    assert refused.value.message == "cannot own the rule tables: the kernel has no nf_tables"
    assert "nf_tables" in refused.value.hint
