"""Connections to every port of the enclosure: counted, unanswered, and answered once the rules are gone."""

import socket
from collections.abc import Callable, Iterator, Sequence

import pytest

from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from tests.kernel import packets
from tests.kernel.attacks import from_imaging, from_workstation
from tests.kernel.namespaces import Namespace
from tests.kernel.packets import ipv4, tcp, udp
from tests.kernel.world import CARE, GATEWAY, IMAGING, POSTURE, WORKSTATION, World, built, eventually, opened

SYN, RST = 0x02, 0x04
BATCH = 256
"""Frames in flight: fewer than any queue on the way holds."""
EVERY_PORT = range(1, 1 << 16)
SAMPLE = (*range(1, 1025), *range(1025, 1 << 16, 97))

WAYS = {
    "a workstation": ("workstation", WORKSTATION, CARE, from_workstation),
    "a machine": ("imaging", IMAGING, GATEWAY, from_imaging),
}


def syn(source: str, target: str, port: int) -> bytes:
    return ipv4(source, target, socket.IPPROTO_TCP, tcp(source, target, 40000, port, SYN, b""))


def datagram(source: str, target: str, port: int) -> bytes:
    return ipv4(source, target, socket.IPPROTO_UDP, udp(40000, port, b"scan"))


def answers(card: socket.socket, scanned: str) -> Iterator[bytes]:
    """What came back so far from an address, as IPv4 packets."""
    card.settimeout(0)
    while True:
        try:
            frame, address = card.recvfrom(1 << 16)
        except BlockingIOError:
            return
        is_ipv4 = int.from_bytes(frame[12:14], "big") == packets.IPV4
        if is_ipv4 and address[2] != socket.PACKET_OUTGOING and frame[26:30] == socket.inet_aton(scanned):
            yield frame[14:]


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[World, RuleWriter]]:
    with built() as world, world.writer() as writer:
        world.allow(writer, *POSTURE.allowances)
        yield world, writer


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("forge", "ports"), [(syn, EVERY_PORT), (datagram, SAMPLE)], ids=["tcp", "udp"])
def test_no_port_of_the_enclosure_answers(
    guarded: tuple[World, RuleWriter], way: str, forge: Callable[[str, str, int], bytes], ports: Sequence[int]
) -> None:
    world, writer = guarded
    origin, own, target, framed = WAYS[way]
    before = writer.denied()["input"]
    with getattr(world, origin).frames("eth0") as card:
        for start in range(0, len(ports), BATCH):
            batch = ports[start : start + BATCH]
            for port in batch:
                card.send(framed(forge(own, target, port)))
            wanted = before + start + len(batch)
            eventually(lambda wanted=wanted: writer.denied()["input"] >= wanted, "every packet counted")  # type: ignore[misc]
        assert list(answers(card, target)) == []


@pytest.mark.parametrize("way", WAYS)
def test_without_the_rules_the_ports_answer(way: str) -> None:
    origin, own, target, framed = WAYS[way]
    with built() as world, world.writer() as writer:
        writer.apply(opened(compile_posture(POSTURE)))
        sender: Namespace = getattr(world, origin)
        with sender.frames("eth0") as card, world.enclosure.listener(target, 443):
            for forge, ports in ((syn, (1, 443, 65535)), (datagram, (7,))):
                for port in ports:
                    card.send(framed(forge(own, target, port)))
            found: list[int] = []

            def answered() -> bool:
                found.extend(packet[9] for packet in answers(card, target))
                return len(found) >= 4

            eventually(answered, "an answer for each port")
        assert set(found) == {socket.IPPROTO_TCP, socket.IPPROTO_ICMP}
