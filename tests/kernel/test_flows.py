"""Allowed flows pass with their replies, for exactly as long as they are allowed."""

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import replace

import pytest

from cleanroomd.errors import IsolationError
from cleanroomd.isolation.expressions import Lookup
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import TABLE, compile_posture
from cleanroomd.isolation.ruleset import Chain, Family, Ruleset
from cleanroomd.model.posture import DENY_ALL, Allowance
from tests.kernel import packets
from tests.kernel import world as worlds
from tests.kernel.namespaces import Namespace
from tests.kernel.world import (
    DATABASE,
    IMAGING,
    PROBE,
    TO_DATABASE,
    TO_DATABASE_UDP,
    TO_IMAGING,
    TO_IMAGING_UDP,
    World,
    eventually,
    silent,
)

IP_MTU = 14
"""include/uapi/linux/in.h; Python lacks the constant."""


def connected(client: Namespace, server: Namespace, address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new TCP connection, after a word in each direction."""
    with server.listener(address, port) as listener:
        near = client.open_socket()
        near.connect((address, port))
        far, _ = listener.accept()
    far.settimeout(5)
    near.sendall(b"ask")
    assert far.recv(8) == b"ask"
    far.sendall(b"answer")
    assert near.recv(8) == b"answer"
    return near, far


def test_a_workstation_reaches_a_machine(world: World, writer: RuleWriter) -> None:
    near, far = connected(world.workstation, world.imaging, IMAGING, 4242)
    assert far.getpeername()[0] == worlds.WORKSTATION
    near.close()
    far.close()


def test_a_machine_reaches_another_in_its_own_network(world: World, writer: RuleWriter) -> None:
    near, far = connected(world.imaging, world.database, DATABASE, 5432)
    assert far.getpeername()[0] == IMAGING
    near.close()
    far.close()


def test_the_enclosure_probes_a_machine(world: World, writer: RuleWriter) -> None:
    near, far = connected(world.enclosure, world.database, DATABASE, 5432)
    assert far.getpeername()[0] == worlds.GATEWAY
    near.close()
    far.close()


@pytest.mark.parametrize(
    ("allowance", "client", "server", "address"),
    [
        (TO_IMAGING, "workstation", "imaging", IMAGING),
        (TO_DATABASE, "imaging", "database", DATABASE),
        (PROBE, "enclosure", "database", DATABASE),
    ],
    ids=["from a zone", "between machines", "a probe"],
)
def test_removing_an_allowance_cuts_an_established_connection_both_ways(
    world: World, writer: RuleWriter, allowance: Allowance, client: str, server: str, address: str
) -> None:
    near, far = connected(getattr(world, client), getattr(world, server), address, allowance.port)
    with near, far:
        world.allow(writer, *(worlds.POSTURE.allowances - {allowance}))
        before = sum(writer.denied().values())
        far.sendall(b"late answer")
        eventually(lambda: sum(writer.denied().values()) > before, "a denied packet")
        between = sum(writer.denied().values())
        near.sendall(b"late question")
        eventually(lambda: sum(writer.denied().values()) > between, "a denied packet")
        assert silent(near)
        assert silent(far)

        world.allow(writer, *worlds.POSTURE.allowances)
        near.settimeout(5)
        far.settimeout(5)
        assert far.recv(16) == b"late question"
        assert near.recv(16) == b"late answer"


def test_no_allowed_packet_is_lost_while_others_come_and_go(world: World, writer: RuleWriter) -> None:
    """A stream of datagrams through one flow, and changes of other flows of the same and of other pairs."""
    receiver = world.imaging.receiver(IMAGING, 9)
    sender = world.workstation.open_socket(kind=socket.SOCK_DGRAM)
    sender.connect((IMAGING, 9))
    exchanged: list[bool] = []
    changed = threading.Event()

    def stream() -> None:
        while not changed.is_set():
            datagram = len(exchanged).to_bytes(4, "big")
            sender.send(datagram)
            exchanged.append(receiver.recv(8) == datagram)

    with receiver, sender:
        thread = threading.Thread(target=stream)
        thread.start()
        for number in range(40):
            extra = {TO_IMAGING, TO_DATABASE, PROBE} if number % 2 else {TO_DATABASE_UDP}
            world.allow(writer, TO_IMAGING_UDP, *extra)
        changed.set()
        thread.join()
    assert len(exchanged) > 100
    assert all(exchanged)


def test_a_refused_datagram_comes_back_as_an_icmp_error(world: World, writer: RuleWriter) -> None:
    with world.workstation.open_socket(kind=socket.SOCK_DGRAM) as sender:
        sender.connect((IMAGING, 9))
        sender.send(b"nobody listens")
        with pytest.raises(ConnectionRefusedError):
            sender.recv(1)


def test_a_path_mtu_error_reaches_the_sender(world: World, writer: RuleWriter) -> None:
    """The workstation's side tells the machine that its answer is too big (RFC 1191)."""
    near = world.workstation.open_socket(kind=socket.SOCK_DGRAM)
    with near, world.imaging.receiver(IMAGING, 9) as far, world.workstation.frames("eth0") as frames:
        near.connect((IMAGING, 9))
        near.send(b"ask")
        far.connect(far.recvfrom(8)[1])
        frames.send(too_big(near.getsockname(), far.getsockname(), mtu=1000))
        eventually(lambda: far.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1000, "the smaller path MTU")


def too_big(receiver: tuple[str, int], sender: tuple[str, int], *, mtu: int) -> bytes:
    """ICMP 3/4 about a datagram from `sender` to `receiver`, in a frame of the workstation."""
    quoted = packets.ipv4(sender[0], receiver[0], socket.IPPROTO_UDP, packets.udp(sender[1], receiver[1], b""))
    message = packets.icmp(3, 4, struct.pack(">HH", 0, mtu) + quoted)
    packet = packets.ipv4(receiver[0], sender[0], socket.IPPROTO_ICMP, message)
    return packets.ethernet(worlds.CARE_MAC, worlds.WORKSTATION_MAC, packets.IPV4, packet)


def test_a_failed_batch_leaves_the_rules_as_they_were(world: World, writer: RuleWriter) -> None:
    before = writer.read_back()
    wanted = compile_posture(DENY_ALL)
    table = wanted.table(Family.INET, TABLE)
    assert table is not None
    broken = replace(table, chains=table.chains | {Chain("broken", ((Lookup("no-such-set", 0),),))})
    with pytest.raises(IsolationError, match=r"^cannot apply the rules: add rule 1 of chain broken .*still in force"):
        writer.apply(Ruleset(wanted.tables - {table} | {broken}))
    assert writer.read_back() == before


def test_a_stream_at_a_thousand_flows_loses_nothing_while_others_change(world: World, writer: RuleWriter) -> None:
    """Numbered datagrams, some always in flight, while flows of the same pair, and other pairs, come and go."""
    many = [replace(TO_IMAGING_UDP, port=port) for port in range(1000, 2000)]
    world.allow(writer, TO_IMAGING_UDP, *many)
    receiver = world.imaging.receiver(IMAGING, 9)
    sender = world.workstation.open_socket(kind=socket.SOCK_DGRAM)
    sender.connect((IMAGING, 9))
    in_flight = threading.Semaphore(16)
    changed = threading.Event()
    sent: list[int] = []
    arrived: list[int] = []

    def send() -> None:
        while not changed.is_set() and in_flight.acquire(timeout=5):
            sender.send(len(sent).to_bytes(4, "big"))
            sent.append(len(sent))
        sender.send(b"")

    def receive() -> None:
        while number := receiver.recv(8):
            arrived.append(int.from_bytes(number, "big"))
            in_flight.release()

    with receiver, sender:
        threads = [threading.Thread(target=send), threading.Thread(target=receive)]
        for thread in threads:
            thread.start()
        for number in range(20):
            kept = [*many[:number], *many[number + 1 :]]
            world.allow(writer, TO_IMAGING_UDP, *kept, *([TO_DATABASE] if number % 2 else []))
        changed.set()
        for thread in threads:
            thread.join()
    assert len(sent) > 100
    assert arrived == sent


def test_a_running_stream_is_cut(world: World, writer: RuleWriter) -> None:
    """A machine that sends without end to a workstation whose flow closes: nothing more arrives."""
    near, far = connected(world.workstation, world.imaging, IMAGING, 4242)
    ended = threading.Event()

    def send() -> None:
        with suppress(OSError):
            while not ended.is_set():
                far.sendall(bytes(1 << 16))

    with near, far:
        thread = threading.Thread(target=send)
        thread.start()
        arrived = 0
        while arrived < 1 << 20:
            arrived += len(near.recv(1 << 16))
        world.allow(writer, *(worlds.POSTURE.allowances - {TO_IMAGING}))
        before = writer.denied()["forward"]
        eventually(lambda: writer.denied()["forward"] > before, "a denied segment")
        near.settimeout(0)
        with suppress(BlockingIOError):
            while near.recv(1 << 20):
                pass
        before = writer.denied()["forward"]
        eventually(lambda: writer.denied()["forward"] > before, "a segment sent again in vain")
        assert silent(near)
        ended.set()
        far.shutdown(socket.SHUT_RDWR)
        thread.join()
