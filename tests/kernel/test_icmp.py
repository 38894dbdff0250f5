"""ICMP errors that keep connections working pass, about connections that exist; nothing else of ICMP does."""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import ICMP_ERRORS, compile_posture
from cleanroomd.isolation.ruleset import Family, Ruleset
from tests.kernel import world as worlds
from tests.kernel.attacks import MARKER, from_workstation
from tests.kernel.namespaces import Namespace, move
from tests.kernel.packets import icmp, ipv4, udp
from tests.kernel.world import IMAGING, POSTURE, WORKSTATION, World, eventually, opened, silent

CLIENT = "10.77.0.200"
NARROW = 1280
SIZE = 2_000_000


@contextmanager
def behind_a_narrow_link(world: World) -> Iterator[Namespace]:
    """A client in the workstations' network, behind a router whose further link carries only smaller packets."""
    router, client = world.workstation, Namespace()
    try:
        router.ip("link add narrow type veth peer name eth1 address 02:00:00:00:77:09")
        move("eth1", router, client)
        client.ip(f"addr add {CLIENT}/32 dev eth1")
        client.ip("link set eth1 up")
        client.ip("route add default dev eth1")
        router.ip(f"link set narrow mtu {NARROW} up")
        router.ip(f"route add {CLIENT}/32 dev narrow")
        with router.entered():
            for key in ("ip_forward", "conf/all/forwarding", "conf/eth0/proxy_arp", "conf/narrow/proxy_arp"):
                Path(f"/proc/sys/net/ipv4/{key}").write_text("1")
            for link in ("eth0", "narrow"):
                Path(f"/proc/sys/net/ipv4/neigh/{link}/proxy_delay").write_text("0")
        yield client
    finally:
        client.close()


class Transfer:
    """A machine that sends a lot to whoever connects, and the bytes that have arrived."""

    def __init__(self, world: World, client: Namespace) -> None:
        listener = world.imaging.listener(IMAGING, 4242)
        self.near = client.open_socket()
        self.near.connect((IMAGING, 4242))
        self.far, _ = listener.accept()
        listener.close()
        self.near.settimeout(20)
        self.received = 0
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        try:
            self.far.sendall(bytes(SIZE))
        except OSError:
            # The test has closed it.
            return

    def read(self) -> bool:
        """Whether the rest of it arrived."""
        while self.received < SIZE:
            try:
                self.received += len(self.near.recv(1 << 16))
            except (TimeoutError, BlockingIOError):
                return False
        return True

    def close(self) -> None:
        self.near.close()
        self.far.shutdown(socket.SHUT_RDWR)
        self.far.close()
        self._thread.join()


def test_a_large_transfer_through_a_smaller_path_mtu_arrives(world: World, writer: RuleWriter) -> None:
    with behind_a_narrow_link(world) as client:
        transfer = Transfer(world, client)
        assert transfer.read()
        segment = transfer.far.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        transfer.close()
    assert segment <= NARROW - 40


def test_without_icmp_errors_it_would_not(world: World, writer: RuleWriter) -> None:
    rules = compile_posture(POSTURE)
    table = rules.table(Family.INET, "cleanroom")
    assert table is not None
    item = table.set(ICMP_ERRORS)
    assert item is not None
    deaf = replace(table, sets=table.sets - {item} | {replace(item, elements=frozenset())})
    writer.apply(Ruleset(rules.tables - {table} | {deaf}))
    before = writer.denied()["forward"]
    with behind_a_narrow_link(world) as client:
        transfer = Transfer(world, client)
        eventually(lambda: writer.denied()["forward"] > before + 1, "two denied ICMP errors")
        transfer.near.settimeout(0)
        assert not transfer.read()
        transfer.close()


KINDS = {"source quench": 4, "redirect": 5, "parameter problem": 12, "timestamp": 13, "address mask": 17}


@contextmanager
def conversation(world: World) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Both ends of a UDP exchange between the workstation and the machine, known to conntrack."""
    near = world.workstation.open_socket(kind=socket.SOCK_DGRAM)
    with near, world.imaging.receiver(IMAGING, 9) as far:
        near.connect((IMAGING, 9))
        near.send(b"ask")
        far.sendto(b"answer", far.recvfrom(8)[1])
        near.recv(8)
        yield near.getsockname(), far.getsockname()


def about(kind: int, near: tuple[str, int], far: tuple[str, int]) -> bytes:
    """A message of the workstation's side about what the machine sent it."""
    quoted = ipv4(far[0], near[0], socket.IPPROTO_UDP, udp(far[1], near[1], b"answer"))
    message = icmp(kind, 0, struct.pack(">I", 0) + quoted + MARKER)
    return from_workstation(ipv4(WORKSTATION, IMAGING, socket.IPPROTO_ICMP, message))


def arrives(card: socket.socket) -> bool:
    card.settimeout(0)
    while True:
        try:
            if MARKER in card.recv(1 << 16):
                return True
        except BlockingIOError:
            return False


@pytest.mark.parametrize("kind", [3, 11], ids=["destination unreachable", "time exceeded"])
def test_an_error_about_an_open_conversation_passes(world: World, writer: RuleWriter, kind: int) -> None:
    with conversation(world) as (near, far), world.imaging.frames("eth0") as card:
        with world.workstation.frames("eth0") as frames:
            frames.send(about(kind, near, far))
        eventually(lambda: arrives(card), "the error")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_other_icmp_about_an_open_conversation_does_not(world: World, writer: RuleWriter, kind: int) -> None:
    with conversation(world) as (near, far), world.imaging.frames("eth0") as card:
        before = writer.denied()["forward"]
        with world.workstation.frames("eth0") as frames:
            frames.send(about(kind, near, far))
            eventually(lambda: writer.denied()["forward"] > before, "the message counted")
            assert not arrives(card)
            writer.apply(opened(compile_posture(POSTURE)))
            frames.send(about(kind, near, far))
        eventually(lambda: arrives(card), "the message, once the rules are gone")


def test_an_error_about_a_conversation_that_was_closed_does_not_pass(world: World, writer: RuleWriter) -> None:
    with conversation(world) as (near, far), world.imaging.frames("eth0") as card:
        world.allow(writer, *(POSTURE.allowances - {worlds.TO_IMAGING_UDP}))
        before = writer.denied()["forward"]
        with world.workstation.frames("eth0") as frames:
            frames.send(about(3, near, far))
        eventually(lambda: writer.denied()["forward"] > before, "the error counted")
        assert not arrives(card)


def fragments(payload: bytes, port: int, *, overlap: bytes = b"") -> list[bytes]:
    """A UDP datagram of the workstation in two fragments; with `overlap` another one in the place of the first."""
    whole = udp(40000, port, payload)
    half = len(whole) // 16 * 8
    first = ipv4(WORKSTATION, IMAGING, socket.IPPROTO_UDP, whole[:half], fragment=0x2000)
    second = ipv4(WORKSTATION, IMAGING, socket.IPPROTO_UDP, whole[half:], fragment=half // 8)
    middle = [ipv4(WORKSTATION, IMAGING, socket.IPPROTO_UDP, overlap, fragment=0x2000)] if overlap else []
    return [from_workstation(packet) for packet in (first, *middle, second)]


def test_an_allowed_datagram_in_fragments_arrives(world: World, writer: RuleWriter) -> None:
    payload = os.urandom(1200)
    with world.imaging.receiver(IMAGING, 9) as receiver, world.workstation.frames("eth0") as frames:
        for frame in fragments(payload, 9):
            frames.send(frame)
        assert receiver.recv(2000) == payload


@pytest.mark.parametrize("size", [8, 608], ids=["within", "beyond"])
def test_overlapping_fragments_bring_nothing_that_was_not_judged(world: World, writer: RuleWriter, size: int) -> None:
    """A forbidden port written over an allowed one.

    The kernel puts a datagram together before the rules see it, and apart again behind them. It ignores a fragment
    within another, and drops everything of a datagram with one that overlaps otherwise.
    """
    payload = MARKER * 75
    overlap = udp(40000, 1234, bytes(1200))[:size]
    with world.imaging.receiver(IMAGING, 9) as receiver, world.imaging.receiver(IMAGING, 1234) as forbidden:
        with world.workstation.frames("eth0") as frames:
            for frame in fragments(payload, 9, overlap=overlap):
                frames.send(frame)
        with world.workstation.open_socket(kind=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"after", (IMAGING, 9))
        wanted = [payload, b"after"] if size == 8 else [b"after"]
        assert [receiver.recv(2000) for _ in wanted] == wanted
        assert silent(forbidden)


def test_without_the_rules_overlapping_fragments_arrive(world: World) -> None:
    with world.writer() as writer, world.imaging.frames("eth0") as card:
        writer.apply(opened(compile_posture(POSTURE)))
        with world.workstation.frames("eth0") as frames:
            for frame in fragments(MARKER * 75, 9, overlap=udp(40000, 1234, bytes(1200))[:608]):
                frames.send(frame)
        eventually(lambda: arrives(card), "a fragment")
