"""Leases on the uplink, with real packets: what passes, under which address, and that it ends with the lease."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import links
from cleanroomd.isolation.expressions import Action as Actions
from cleanroomd.isolation.expressions import CtState, Decide, Lookup, Verdict
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import LET_THROUGH, TABLE, _state, compile_posture
from cleanroomd.isolation.ruleset import Chain, Family, Ruleset
from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import Passage, PortGuard, Posture
from tests.kernel import packets
from tests.kernel.world import (
    DATABASE,
    HOSPITAL,
    HOSPITAL_MAC,
    IMAGING,
    IMG,
    POSTURE,
    UPLINK_MAC,
    World,
    eventually,
    remove_source_checks,
    silent,
)

OUTSIDE = "192.168.40.50"
RESULTS = 2575
STRANGER = "192.168.40.99"
SO_TIMESTAMPNS = 35
"""asm-generic/socket.h; the kernel's time of each packet, CLOCK_REALTIME."""
TIMESTAMP = struct.Struct("=qq")


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def lease(seconds: float) -> Passage:
    until = round(boottime() + seconds, 3)
    hospital = IPv4Network(HOSPITAL)
    return Passage("cr-img", IMG, "up0", hospital, Protocol.TCP, RESULTS, until, IPv4Address(OUTSIDE))


def opened(*passages: Passage) -> Posture:
    """The world's posture with the uplink open for these."""
    uplink = PortGuard(
        "uplink",
        "up0",
        UPLINK_MAC,
        dark=False,
        addresses=(IPv4Interface(f"{OUTSIDE}/24"),),
        peers=(IPv4Network(HOSPITAL),),
    )
    return replace(POSTURE, ports=(uplink, *POSTURE.ports[1:]), passages=frozenset(passages))


def put_in_force(world: World, writer: RuleWriter, posture: Posture) -> None:
    with world.enclosure.entered():
        writer.apply(compile_posture(posture))
        writer.prove(posture)
        links.set_port("up0", up=True, addresses=(f"{OUTSIDE}/24",))


def talking(world: World) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection of the machine with the hospital."""
    with world.hospital.listener(HOSPITAL, RESULTS) as listener:
        near = world.imaging.open_socket()
        near.connect((HOSPITAL, RESULTS))
        far, _ = listener.accept()
    far.settimeout(5)
    return near, far


@dataclass(frozen=True)
class Seen:
    at: float
    """CLOCK_BOOTTIME seconds."""
    frame: bytes

    @property
    def comes_from_the_enclosure(self) -> bool:
        return self.frame[6:12] == packets.mac(UPLINK_MAC)


@contextmanager
def capture(world: World) -> Iterator[list[Seen]]:
    """Every frame at the hospital's end of the uplink, with the kernel's own time of it; complete at the end."""
    found: list[Seen] = []
    with world.hospital.frames("eth0") as wire:
        wire.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        wire.settimeout(0.1)
        done = threading.Event()

        def read() -> None:
            while True:
                try:
                    frame, ancillary, _, _ = wire.recvmsg(1 << 16, 64)
                except TimeoutError:
                    if done.is_set():
                        return
                    continue
                seconds, nanoseconds = TIMESTAMP.unpack(ancillary[0][2])
                since = time.clock_gettime(time.CLOCK_REALTIME) - boottime()
                found.append(Seen(seconds + nanoseconds / 1e9 - since, frame))

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield found
        finally:
            done.set()
            thread.join()


@contextmanager
def transfer(near: socket.socket, far: socket.socket) -> Iterator[None]:
    """Bytes in both directions for as long as they go."""
    stop = threading.Event()

    def pour(sink: socket.socket) -> None:
        sink.settimeout(0.05)
        while not stop.is_set():
            try:
                sink.send(b"x" * 1200)
            except TimeoutError:
                continue
            stop.wait(0.002)

    def drain(source: socket.socket) -> None:
        while not stop.is_set():
            try:
                source.recv(1 << 16)
            except TimeoutError:
                continue

    threads = [threading.Thread(target=work, args=(end,)) for work in (pour, drain) for end in (near, far)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def wait_until(instant: float) -> None:
    """An instant of CLOCK_BOOTTIME has no event of its own."""
    while (left := instant - boottime()) > 0:
        time.sleep(left)


def ipv4(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00"


def test_a_transfer_ends_with_its_lease_and_shows_no_inner_address(world: World) -> None:
    with world.writer() as writer, capture(world) as seen:
        passage = lease(2.0)
        put_in_force(world, writer, opened(passage))
        near, far = talking(world)
        assert far.getpeername()[0] == OUTSIDE
        with near, far, transfer(near, far):
            wait_until(passage.until + 1.0)
    ours = [each for each in seen if each.comes_from_the_enclosure]
    late = [each for each in ours if each.at > passage.until and ipv4(each.frame)]
    assert len([each for each in ours if ipv4(each.frame)]) > 100, "there was a transfer"
    assert late == [], f"{len(late)} packets after the end"
    answers = [each for each in seen if not each.comes_from_the_enclosure and each.at > passage.until]
    assert answers, "the hospital went on sending, and nothing of it came in"
    inner = [IPv4Address(address).packed for address in (IMAGING, DATABASE)]
    assert not [each for each in ours if any(address in each.frame for address in inner)], "no inner address shows"
    assert {each.frame[26:30] for each in ours if ipv4(each.frame)} == {IPv4Address(OUTSIDE).packed}


def accepting_whatever_is_established(ruleset: Ruleset) -> Ruleset:
    """The same rules with a general accept of established connections, as in many a firewall."""
    pass_on = Decide(Verdict(Actions.GOTO, LET_THROUGH))

    def changed(chain: Chain) -> Chain:
        if "up0" not in chain.name or not any(isinstance(each, Lookup) for rule in chain.rules for each in rule):
            return chain
        return replace(chain, rules=((*_state(CtState.ESTABLISHED), pass_on), *chain.rules))

    return Ruleset(
        frozenset(
            replace(table, chains=frozenset(map(changed, table.chains))) if table.family is Family.INET else table
            for table in ruleset.tables
        )
    )


def test_the_same_transfer_would_outlive_its_lease_under_a_general_accept(world: World) -> None:
    with world.writer() as writer, capture(world) as seen:
        passage = lease(2.0)
        put_in_force(world, writer, opened(passage))
        writer.apply(accepting_whatever_is_established(compile_posture(opened(passage))))
        near, far = talking(world)
        with near, far, transfer(near, far):
            wait_until(passage.until + 0.5)
    assert [each for each in seen if each.comes_from_the_enclosure and each.at > passage.until and ipv4(each.frame)]


def test_nothing_is_opened_from_the_hospital(world: World) -> None:
    """The peer of a lease tries the machine, the enclosure, and a segment of the connection that it guessed wrong."""
    with world.writer() as writer:
        put_in_force(world, writer, opened(lease(60.0)))
        near, far = talking(world)
        world.hospital.ip(f"route add 10.1.20.0/24 via {OUTSIDE}")
        remove_source_checks(world)
        with (
            near,
            far,
            world.imaging.receiver(IMAGING, 9) as machine,
            world.enclosure.receiver("0.0.0.0", 9) as enclosure,
            world.imaging.listener(IMAGING, RESULTS) as service,
            world.hospital.frames("eth0") as wire,
        ):
            port = near.getsockname()[1]
            for target in (IMAGING, OUTSIDE):
                for packet in (
                    packets.ipv4(HOSPITAL, target, socket.IPPROTO_UDP, packets.udp(9, 9, b"in")),
                    packets.ipv4(
                        HOSPITAL, target, socket.IPPROTO_TCP, packets.tcp(HOSPITAL, target, 1, RESULTS, 2, b"")
                    ),
                    packets.ipv4(
                        HOSPITAL, target, socket.IPPROTO_TCP, packets.tcp(HOSPITAL, target, 2, port, 0x18, b"in")
                    ),
                    packets.ipv4(HOSPITAL, target, socket.IPPROTO_ICMP, packets.icmp(8, 0, b"ping")),
                ):
                    wire.send(packets.ethernet(UPLINK_MAC, HOSPITAL_MAC, packets.IPV4, packet))
            # The connection itself goes on, after all of it.
            far.sendall(b"still")
            assert near.recv(8) == b"still"
            assert silent(machine)
            assert silent(enclosure)
            service.settimeout(0)
            with pytest.raises(BlockingIOError):
                service.accept()


def answered(world: World, sender: str) -> bool:
    """Whether the enclosure answers an ARP request of `sender` for its own address."""
    with world.hospital.frames("eth0") as wire:
        request = packets.arp(1, HOSPITAL_MAC, sender, "00:00:00:00:00:00", OUTSIDE)
        wire.send(packets.ethernet(packets.BROADCAST, HOSPITAL_MAC, packets.ARP, request))
        wire.settimeout(0.5)
        end = boottime() + 0.5
        while boottime() < end:
            try:
                frame = wire.recv(1 << 16)
            except TimeoutError:
                return False
            if frame[6:12] == packets.mac(UPLINK_MAC) and frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2":
                return True
    return False


def test_only_the_peer_of_a_lease_is_heard(world: World) -> None:
    with world.writer() as writer:
        put_in_force(world, writer, opened(lease(60.0)))
        assert answered(world, HOSPITAL)
        assert not answered(world, STRANGER)


def test_another_port_and_another_machine_stay_inside(world: World) -> None:
    with world.writer() as writer, capture(world) as seen:
        put_in_force(world, writer, opened(lease(60.0)))
        for space, port in ((world.imaging, RESULTS + 1), (world.database, RESULTS), (world.enclosure, RESULTS)):
            with space.open_socket() as near:
                near.settimeout(0.3)
                with pytest.raises(OSError, match=r"timed out|not permitted"):
                    near.connect((HOSPITAL, port))
        near, far = talking(world)
        near.close()
        far.close()
    ours = [each.frame for each in seen if each.comes_from_the_enclosure and ipv4(each.frame)]
    assert ours
    assert {struct.unpack_from(">H", frame, 36)[0] for frame in ours} == {RESULTS}


def test_an_end_that_is_past_is_as_planned_and_never_added_again(world: World) -> None:
    with world.writer() as writer:
        passage = lease(1.5)
        posture = opened(passage)
        put_in_force(world, writer, posture)
        assert (elements := flows_out(writer))
        assert all(element.until is not None and element.until <= passage.until for element in elements)
        wait_until(passage.until)
        eventually(lambda: not flows_out(writer), "the end of the element")
        generation = writer.prove(posture).generation
        writer.apply(compile_posture(posture))
        assert writer.generation() == generation, "there is nothing to change"
        assert not flows_out(writer)
        writer.apply(compile_posture(POSTURE))
        writer.prove(POSTURE)


def flows_out(writer: RuleWriter) -> frozenset[object]:
    table = writer.read_back()[0].table(Family.INET, TABLE)
    assert table is not None
    return frozenset(element for item in table.sets if item.timed for element in item.elements)


@pytest.mark.parametrize("seconds", [3600.0, 20.0], ids=["longer", "shorter"])
def test_an_element_with_another_end_is_named_and_put_right(world: World, seconds: float) -> None:
    with world.writer() as writer:
        right = lease(60.0)
        writer.apply(compile_posture(opened(lease(seconds))))
        with pytest.raises(IsolationError, match=f"lacks {IMAGING} . {HOSPITAL} . tcp . {RESULTS} until"):
            writer.prove(opened(right))
        writer.apply(compile_posture(opened(right)))
        writer.prove(opened(right))


def test_a_lease_that_is_closed_early_cuts_its_connections(world: World) -> None:
    with world.writer() as writer:
        put_in_force(world, writer, opened(lease(60.0)))
        near, far = talking(world)
        with near, far:
            writer.apply(compile_posture(POSTURE))
            writer.prove(POSTURE)
            near.sendall(b"late")
            far.settimeout(0.5)
            with pytest.raises(TimeoutError):
                far.recv(8)


def test_opening_and_closing_disturbs_no_other_connection(world: World) -> None:
    with world.writer() as writer:
        world.allow(writer, *POSTURE.allowances)
        with world.imaging.listener(IMAGING, 4242) as listener:
            near = world.workstation.open_socket()
            near.connect((IMAGING, 4242))
            far, _ = listener.accept()
        with near, far:
            for number in range(20):
                posture = opened(lease(60.0)) if number % 2 == 0 else POSTURE
                writer.apply(compile_posture(posture))
                near.sendall(b"ask")
                assert far.recv(8) == b"ask"
                far.sendall(b"answer")
                assert near.recv(8) == b"answer"
