"""Ports that are listened to before they open: real cables, real frames, and the loop's own decisions."""

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from cleanroomd.clock import now
from cleanroomd.engine.listening import CareListening, expectations
from cleanroomd.errors import IsolationError
from cleanroomd.hardware import listening
from cleanroomd.hardware.listening import PortListening
from cleanroomd.isolation import links
from cleanroomd.isolation.counts import denied_flows
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.keeper.tables import own_tables
from cleanroomd.model.listening import Found, Heard
from cleanroomd.model.observed import Capacity, Interface, MachineFacts, MachinePhase, Observed
from cleanroomd.model.plan import Disk, Enclosure, Flow, Plan, Port, Service, StartKind, TcpProbe, Zone
from cleanroomd.model.posture import Proof
from cleanroomd.model.status import PortState
from cleanroomd.model.steps import ApplyRules, MakeTap, MakeZoneLink, SetLink, Step
from cleanroomd.restore.learning import Attempt, learn
from cleanroomd.restore.order import Outline
from cleanroomd.restore.quarantine import judge_ports
from cleanroomd.restore.reconcile import reconcile
from tests.kernel import packets
from tests.kernel.namespaces import Cable, Namespace, move
from tests.kernel.packets import BROADCAST, arp, ethernet, ipv4, udp, vlan_tagged
from tests.kernel.world import CARE_MAC, WORKSTATION_MAC, eventually

CARE, WORKSTATION, IMAGING, GATEWAY = "10.77.0.1", "10.77.0.100", "10.1.20.14", "10.1.20.1"
IMAGING_MAC = "52:54:00:00:00:14"
PLAN = Plan(
    enclosure=Enclosure("test", quarantine=0.4),
    ports=(Port("care", mac=CARE_MAC),),
    zones=(Zone("workstations", "care", IPv4Interface(f"{CARE}/24")),),
    services=(
        Service(
            name="imaging",
            title="Imaging",
            priority=1,
            address=IPv4Address(IMAGING),
            mac=IMAGING_MAC,
            memory=1,
            memory_min=1,
            disks=(Disk("d"),),
            ready=(TcpProbe(4242, b"ok"),),
            gateway=IPv4Address(GATEWAY),
        ),
    ),
    flows=(Flow("workstations", "imaging", tcp=(4242,)),),
)
DHCP_OFFER = ethernet(
    BROADCAST,
    WORKSTATION_MAC,
    packets.IPV4,
    ipv4("192.168.40.1", "255.255.255.255", 17, udp(67, 68, b"\2" + bytes(240))),
)
STRANGER = ethernet(BROADCAST, WORKSTATION_MAC, packets.ARP, arp(1, WORKSTATION_MAC, "10.9.9.9", BROADCAST, CARE))


@dataclass
class Daemon:
    """The loop's decisions and effects for one enclosure, turn by turn, in the namespace of the caller."""

    outline: Outline
    writer: RuleWriter
    ears: CareListening
    taps: list[int]
    machine: Namespace
    cables: list[Cable]
    proof: Proof | None = None
    zone_problems: dict[str, str] | None = None
    steps: list[Step] | None = None

    def observed(self) -> Observed:
        interfaces, taps = links.look()
        facts = MachineFacts("imaging", 1, MachinePhase.RUNNING, StartKind.COLD, 1, 1, 0.0, 0.0, ready_at=0.0)
        return Observed(
            now=now(),
            power_on=0.0,
            capacity=Capacity(1 << 30, 1),
            interfaces=interfaces,
            heard=self.ears.attend(self.outline, interfaces),
            zone_problems=self.zone_problems or {},
            taps=taps,
            proof=self.proof,
            machines={"imaging": facts},
            watched=frozenset({"imaging"}),
        )

    async def turn(self) -> PortState:
        """One round, and what it was told of the care port."""
        await asyncio.sleep(0.01)
        seen = self.observed()
        self.steps = list(reconcile(self.outline, seen).steps)
        for step in self.steps:
            match step:
                case MakeTap(interface=name):
                    links.make_tap(name)
                    self.cables.append(Cable(links.open_tap(name), self.machine, IMAGING_MAC))
                    self.machine.ip(f"addr add {IMAGING}/24 dev eth0")
                    self.machine.ip(f"route add default via {GATEWAY}")
                case ApplyRules(posture=posture):
                    self.writer.apply(compile_posture(posture))
                    self.proof = self.writer.prove(posture)
                    links.enable_forwarding()
                    for tap in posture.taps:
                        links.attach_tap(tap)
                case SetLink():
                    links.set_port(
                        step.interface,
                        up=step.up,
                        addresses=step.addresses,
                        found=step.found,
                        carrier_changes=step.carrier_changes,
                    )
                case MakeZoneLink():
                    with suppress(IsolationError):
                        links.make_zone_link(step.interface, parent=step.parent, vlan=step.vlan)
        return judge_ports(self.outline.plan, seen)["care"].state

    async def until(self, state: PortState) -> None:
        """Rounds, until the port is in the state and nothing is left to do about it."""
        end = time.monotonic() + 10
        while await self.turn() is not state or self.steps:
            assert time.monotonic() < end, f"the port never became {state}"


@dataclass
class Place:
    enclosure: Namespace
    machine: Namespace
    workstation: Namespace
    cables: list[Cable]

    @contextmanager
    def daemon(self, plan: Plan = PLAN, writer: RuleWriter | None = None) -> Iterator[Daemon]:
        with self.enclosure.entered():
            ears = CareListening(lambda _: None)
            rules = writer or RuleWriter(own_tables())
            try:
                yield Daemon(Outline(plan), rules, ears, [], self.machine, self.cables)
            finally:
                ears.close()
                if writer is None:
                    rules.close()

    def reaches(self) -> bool:
        """Whether the workstation gets through to the machine at this moment."""
        with self.machine.listener(IMAGING, 4242), self.workstation.open_socket() as client:
            client.settimeout(0.3)
            try:
                client.connect((IMAGING, 4242))
            except OSError:
                return False
            return True

    def send(self, *frames: bytes) -> None:
        with self.workstation.frames("eth0") as card:
            for frame in frames:
                card.send(frame)


@pytest.fixture
def place() -> Iterator[Place]:
    spaces = [Namespace() for _ in range(3)]
    enclosure, machine, workstation = spaces
    built = Place(enclosure, machine, workstation, [])
    enclosure.ip(f"link add care address {CARE_MAC} type veth peer name eth0 address {WORKSTATION_MAC}")
    move("eth0", enclosure, workstation)
    with workstation.entered():
        links._disable_ipv6("default")
        links._disable_ipv6("eth0")
    workstation.ip(f"addr add {WORKSTATION}/24 dev eth0")
    workstation.ip("link set eth0 up")
    workstation.ip(f"route add default via {CARE}")
    yield built
    for cable in built.cables:
        cable.close()
    for space in spaces:
        space.close()


async def opened(place: Place, daemon: Daemon) -> None:
    await daemon.until(PortState.OPEN)
    eventually(place.reaches, "the workstation's getting through")


async def test_a_quiet_cable_opens_and_nothing_passes_before(place: Place) -> None:
    with place.daemon() as daemon:
        await daemon.until(PortState.LISTENING)
        (care,) = [each for each in links.interfaces() if each.name == "care"]
        assert care.up
        assert not care.addresses
        before = daemon.writer.denied()["ingress//care"]
        place.send(
            ethernet(BROADCAST, WORKSTATION_MAC, packets.ARP, arp(1, WORKSTATION_MAC, WORKSTATION, BROADCAST, CARE))
        )
        assert daemon.writer.denied()["ingress//care"] > before
        await opened(place, daemon)


@pytest.mark.parametrize("while_open", [False, True], ids=["before it opens", "while it is open"])
async def test_another_network_closes_the_port_until_the_cable_is_pulled(place: Place, while_open: bool) -> None:
    with place.daemon() as daemon:
        await daemon.until(PortState.LISTENING)
        if while_open:
            await opened(place, daemon)
        place.send(DHCP_OFFER)
        await daemon.until(PortState.FOREIGN)
        for _ in range(60):
            assert await daemon.turn() is PortState.FOREIGN
        assert not place.reaches()
        judged = judge_ports(PLAN, daemon.observed())["care"]
        assert judged.reason == f"heard a DHCP server at 192.168.40.1 ({WORKSTATION_MAC})"
        place.workstation.ip("link set eth0 down")
        await daemon.until(PortState.UNPLUGGED)
        place.workstation.ip("link set eth0 up")
        place.workstation.ip(f"route replace default via {CARE}")
        await opened(place, daemon)


async def test_one_frame_with_the_enclosures_own_address_is_told_and_closes_no_open_port(place: Place) -> None:
    gateway = ethernet(BROADCAST, WORKSTATION_MAC, packets.ARP, arp(1, WORKSTATION_MAC, CARE, BROADCAST, CARE))
    with place.daemon() as daemon:
        await opened(place, daemon)
        assert await daemon.turn() is PortState.OPEN
        place.send(gateway, gateway, gateway)
        for _ in range(30):
            assert await daemon.turn() is PortState.OPEN
        (note,) = [each for each in daemon.observed().heard["care"].notes if CARE in each]
        assert "the port stays open" in note
        for _ in range(2):
            await asyncio.sleep(1.1)
            place.send(gateway)
        await daemon.until(PortState.FOREIGN)


async def test_a_workstation_with_a_wrong_address_is_not_waited_for_for_ever(place: Place) -> None:
    with place.daemon(replace(PLAN, enclosure=Enclosure("test", quarantine=0.1))) as daemon:
        end = time.monotonic() + 10
        while await daemon.turn() is not PortState.OPEN:
            place.send(STRANGER)
            assert time.monotonic() < end


async def test_a_workstation_with_a_wrong_address_delays_the_port_and_closes_none(place: Place) -> None:
    with place.daemon() as daemon:
        await daemon.until(PortState.LISTENING)
        for _ in range(60):
            place.send(STRANGER)
            assert await daemon.turn() is PortState.LISTENING
        await opened(place, daemon)
        for _ in range(30):
            place.send(STRANGER)
            assert await daemon.turn() is PortState.OPEN


async def test_a_cable_pulled_for_a_moment_is_another_cable(place: Place) -> None:
    """Shorter than the loop's look: the kernel's count of carrier changes tells."""
    with place.daemon() as daemon:
        await opened(place, daemon)
        place.workstation.ip("link set eth0 down")
        place.workstation.ip("link set eth0 up")
        assert await daemon.turn() is PortState.LISTENING
        assert not [each for each in links.interfaces() if each.addresses and each.name == "care"]


async def test_the_next_daemon_does_not_close_what_was_found_clean(place: Place) -> None:
    with place.enclosure.entered():
        writer = RuleWriter(own_tables())
    with place.daemon(writer=writer) as first:
        await opened(place, first)
    with place.daemon(writer=writer) as second:
        second.proof = first.proof
        for _ in range(5):
            assert await second.turn() is PortState.OPEN
            assert second.steps == []
        assert place.reaches()
    with place.daemon(writer=writer) as third:
        third.proof = first.proof
        place.send(DHCP_OFFER)
        await third.turn()
        place.send(DHCP_OFFER)
        await third.until(PortState.FOREIGN)
    with place.daemon(writer=writer) as fourth:
        assert await fourth.turn() is PortState.FOREIGN
        assert not place.reaches()
    writer.close()


async def test_a_port_that_comes_back_under_another_name_is_listened_to_again(place: Place) -> None:
    with place.daemon() as daemon:
        await opened(place, daemon)
        place.workstation.ip("link set eth0 down")
        place.enclosure.ip("link set care down")
        place.enclosure.ip("link set care name enp0s31f6np0xyz")
        place.workstation.ip("link set eth0 up")
        await daemon.until(PortState.LISTENING)
        assert daemon.proof is not None
        assert [port.interface for port in daemon.proof.posture.ports] == ["enp0s31f6np0xyz"]
        await daemon.until(PortState.OPEN)
        place.workstation.ip(f"route replace default via {CARE}")
        assert place.reaches()


async def test_of_two_cards_with_one_mac_neither_opens(place: Place) -> None:
    with place.daemon() as daemon:
        await opened(place, daemon)
        place.enclosure.ip(f"link add twin address {CARE_MAC} type veth peer name twin-end")
        await daemon.until(PortState.ABSENT)
        judged = judge_ports(PLAN, daemon.observed())["care"]
        assert judged.reason == f"care and twin both have the MAC address {CARE_MAC}: neither is used"
        assert not [each for each in links.interfaces() if each.mac == CARE_MAC and (each.up or each.addresses)]
        assert not place.reaches()


@pytest.mark.parametrize("kind", ["macvlan mode passthru", "bridge"])
async def test_what_takes_the_mac_of_a_card_is_no_second_card(place: Place, kind: str) -> None:
    with place.daemon() as daemon:
        await opened(place, daemon)
        below = "" if kind == "bridge" else "link care "
        place.enclosure.ip(f"link add taker {below}address {CARE_MAC} type {kind}")
        assert [each.name for each in links.interfaces() if each.mac == CARE_MAC] == ["care", "taker"]
        for _ in range(3):
            assert await daemon.turn() is PortState.OPEN


async def test_what_the_kernel_denied_is_proposed_in_the_words_of_the_plan(place: Place) -> None:
    with place.daemon() as daemon:
        await opened(place, daemon)
        for _ in range(3):
            with place.workstation.open_socket(kind=socket.SOCK_DGRAM) as sender:
                sender.sendto(b"knock", (IMAGING, 161))
        found = denied_flows(daemon.writer)
        attempts = [Attempt(f.source, f.destination, f.protocol, f.port, tally.packets) for f, tally in found.items()]
        lesson = learn(attempts, daemon.outline)
    assert [(flow.origin, flow.to, flow.tcp, flow.udp) for flow in lesson.flows] == [
        ("workstations", "imaging", (), (161,))
    ]
    assert lesson.flows[0].packets == 3


# Silence -----------------------------------------------------------------------------------------------------------


@contextmanager
def captured(place: Place) -> Iterator[list[bytes]]:
    """Every frame that reaches the far end of the cable."""
    seen: list[bytes] = []
    with place.workstation.frames("eth0") as card:
        card.settimeout(0)
        yield seen
        with suppress(BlockingIOError):
            while True:
                frame, (_, _, kind, _, source) = card.recvfrom(1 << 16)
                if kind != socket.PACKET_OUTGOING and source.hex(":") == CARE_MAC:
                    seen.append(frame)


async def test_not_one_frame_leaves_a_port_that_is_listened_to(place: Place) -> None:
    with captured(place) as frames, place.daemon(replace(PLAN, enclosure=Enclosure("test", quarantine=60))) as daemon:
        await daemon.until(PortState.LISTENING)
        place.send(DHCP_OFFER, STRANGER)
        await asyncio.sleep(QUIET)
    assert frames == []


QUIET = 2.5
"""Longer than a link takes to look for duplicates of its address and for routers (RFC 4861, 4862): a second or two."""


def test_even_without_guards_not_one_frame_leaves_it(place: Place) -> None:
    with captured(place) as frames, place.enclosure.entered():
        links.set_port("care", up=True, addresses=())
        time.sleep(QUIET)
    assert frames == []


def test_a_link_that_is_merely_set_up_speaks_at_once(place: Place) -> None:
    """What the two tests above would see."""
    with captured(place) as frames, place.enclosure.entered():
        place.enclosure.ip("link set care up")
        time.sleep(QUIET)
    assert frames != []


# Listening ---------------------------------------------------------------------------------------------------------


def ear(place: Place, told: list[str]) -> tuple[PortListening, Callable[[], Heard]]:
    ports = PortListening(told.append)

    def look() -> Heard:
        interfaces = links.interfaces()
        (care,) = [each for each in interfaces if each.name == "care"]
        ports.attend({"care": expectations(Outline(PLAN))["care"]}, interfaces, frozenset({care.mac}))
        return ports.heard()["care"]

    return ports, look


async def test_a_tag_that_the_kernel_took_off_is_heard(place: Place) -> None:
    with place.enclosure.entered():
        links.set_port("care", up=True, addresses=())
        ports, look = ear(place, [])
        look()
        place.send(vlan_tagged(STRANGER, 77))
        await asyncio.sleep(0.05)
        assert look().stranger.startswith(f"equipment with the address 10.9.9.9 ({WORKSTATION_MAC}) in VLAN 77")
        ports.close()


async def test_a_storm_is_read_in_small_parts_and_counts_as_no_silence(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand frames within a moment: the loop goes on meanwhile, and what was dropped is told."""
    judged = 0

    def judge(*_: object) -> None:
        nonlocal judged
        judged += 1

    with place.enclosure.entered():
        links.set_port("care", up=True, addresses=())
        told: list[str] = []
        ports, look = ear(place, told)
        look()
        monkeypatch.setattr(listening, "sign_of", judge)
        quiet = ethernet(BROADCAST, WORKSTATION_MAC, packets.ARP, arp(1, WORKSTATION_MAC, WORKSTATION, BROADCAST, CARE))
        place.send(*([quiet] * 10_000))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 0 < judged <= listening._AT_ONCE
        await asyncio.sleep(0.1)
        assert judged < 2_000
        assert "more than can be listened to" in look().stranger
        assert len(told) == 1
        ports.close()


async def test_the_bulk_of_an_open_port_never_reaches_the_daemon(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def judge(frame: bytes, *_: object) -> None:
        seen.append(frame)

    with place.enclosure.entered():
        links.set_port("care", up=True, addresses=())
        ports, look = ear(place, [])
        look()
        monkeypatch.setattr(listening, "sign_of", judge)
        segment = packets.tcp(WORKSTATION, IMAGING, 50000, 4242, 0x18, bytes(1200))
        bulk = ethernet(CARE_MAC, WORKSTATION_MAC, packets.IPV4, ipv4(WORKSTATION, IMAGING, 6, segment))
        large = ethernet(
            CARE_MAC, WORKSTATION_MAC, packets.IPV4, ipv4(WORKSTATION, IMAGING, 17, udp(9, 9, bytes(1200)))
        )
        place.send(bulk, large, bulk)
        await asyncio.sleep(0.05)
        assert [len(frame) for frame in seen] == [listening.LONGEST]
        ports.close()


async def test_a_card_that_cannot_be_listened_to_never_opens(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Interface) -> socket.socket:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(listening, "_listener", refuse)
    with place.daemon() as daemon:
        await daemon.until(PortState.LISTENING)
        await asyncio.sleep(0.6)
        assert await daemon.turn() is PortState.LISTENING
        judged = judge_ports(PLAN, daemon.observed())["care"]
        assert judged.reason == "cannot listen to care: Operation not permitted"


def test_what_was_found_lasts_as_long_as_the_cable_and_no_alias_of_others_counts(place: Place) -> None:
    def found() -> Found | None:
        return next(each.found for each in links.interfaces() if each.name == "care")

    with place.enclosure.entered():
        links.set_port("care", up=True, addresses=())
        (care,) = [each for each in links.interfaces() if each.name == "care"]
        words = "a router at fe80::1 (02:00:00:00:00:01), " + "x" * 300
        for what in (Found(), Found("a DHCP server at 192.168.40.1"), Found(words)):
            links.set_port("care", up=True, addresses=(), found=what, carrier_changes=care.carrier_changes)
            kept = found()
            assert kept is not None
            assert what.foreign.startswith(kept.foreign)
            assert bool(kept.foreign) is bool(what.foreign)
        place.workstation.ip("link set eth0 down")
        eventually(lambda: found() is None, "the cable's being noticed")
        place.workstation.ip("link set eth0 up")
        assert found() is None
        for alias in (
            "cleanroom",
            "cleanroom 0",
            "uplink to the core switch",
            f"cleanroom {care.carrier_changes}x clean",
        ):
            place.enclosure.run("ip", "link", "set", "care", "alias", alias)
            assert found() is None


# Tags --------------------------------------------------------------------------------------------------------------


async def test_a_kernel_without_vlans_keeps_only_the_tagged_zone_closed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_vlans(*_: object, **__: object) -> None:
        raise NetlinkError(errno.EOPNOTSUPP)

    devices = Zone("devices", "care", IPv4Interface("10.1.30.1/24"), vlan=30)
    with place.daemon(replace(PLAN, zones=(*PLAN.zones, devices))) as daemon:
        end = time.monotonic() + 10
        while not any(isinstance(step, MakeZoneLink) for step in daemon.steps or ()):
            await daemon.turn()
            assert time.monotonic() < end
        monkeypatch.setattr(links, "_add_vlan", without_vlans)
        with pytest.raises(IsolationError, match="cannot make zone devices on care: this kernel has no VLAN support"):
            links.make_zone_link("vlan31-care", parent="care", vlan=31)
        while await daemon.turn() is not PortState.OPEN:
            assert time.monotonic() < end
        await daemon.turn()
        await daemon.turn()
        eventually(place.reaches, "the workstation's getting through")
