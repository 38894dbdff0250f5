"""What the rules count: what passes by each flow, and who was denied what."""

import socket
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from cleanroomd.engine.isolating import IsolationControl
from cleanroomd.isolation import policy
from cleanroomd.isolation.counts import DeniedFlow, denied_flows, denied_pairs, passed
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.isolation.ruleset import Dynamic
from cleanroomd.model.posture import DENY_ALL
from tests.kernel import packets
from tests.kernel import world as worlds
from tests.kernel.test_flows import connected
from tests.kernel.world import (
    DATABASE,
    IMAGING,
    POSTURE,
    TO_DATABASE,
    TO_DATABASE_UDP,
    TO_IMAGING,
    World,
    eventually,
)


def test_both_directions_of_a_flow_are_counted_and_nobody_elses(world: World, writer: RuleWriter) -> None:
    near, far = connected(world.workstation, world.imaging, IMAGING, 4242)
    near.close()
    far.close()
    found = passed(writer, POSTURE.allowances)
    assert found.keys() == POSTURE.allowances
    # Three segments of the handshake and two words with their acknowledgements, at the least.
    assert found[TO_IMAGING].packets >= 5
    assert found[TO_IMAGING].bytes > 5 * 40
    assert found[TO_DATABASE].packets == 0


def test_a_flow_keeps_its_count_while_others_come_and_go(world: World, writer: RuleWriter) -> None:
    near, far = connected(world.workstation, world.imaging, IMAGING, 4242)
    with near, far:
        before = passed(writer, {TO_IMAGING})[TO_IMAGING].packets
        for allowances in ({TO_IMAGING}, {TO_IMAGING, TO_DATABASE_UDP}, POSTURE.allowances):
            world.allow(writer, *allowances)
        assert passed(writer, {TO_IMAGING})[TO_IMAGING].packets >= before > 0
    assert passed(writer, {replace(TO_IMAGING, port=1)})[replace(TO_IMAGING, port=1)].packets == 0


@pytest.mark.parametrize(
    ("origin", "target", "pair"),
    [
        ("workstation", DATABASE, ("care", "cr-db")),
        ("workstation", worlds.CARE, ("care", "")),
        ("enclosure", IMAGING, ("", "cr-img")),
        ("imaging", DATABASE, ("cr-img", "cr-db")),
    ],
)
def test_what_is_denied_is_noted_by_pair_and_by_flow(
    world: World, writer: RuleWriter, origin: str, target: str, pair: tuple[str, str]
) -> None:
    with getattr(world, origin).open_socket(kind=socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            try:
                sender.sendto(b"in vain", (target, 23))
            except PermissionError:
                assert origin == "enclosure"
        eventually(lambda: pair in denied_pairs(writer) and denied_pairs(writer)[pair].packets == 3, "three notes")
    assert denied_pairs(writer).keys() == {pair}
    ((flow, tally),) = denied_flows(writer).items()
    assert (flow.destination, flow.protocol, flow.port) == (IPv4Address(target), socket.IPPROTO_UDP, 23)
    assert tally.packets == 3


def test_protocols_without_ports_are_noted_with_port_0(world: World, writer: RuleWriter) -> None:
    echo = packets.icmp(8, 0, bytes(4))
    packet = packets.ipv4(worlds.WORKSTATION, DATABASE, socket.IPPROTO_ICMP, echo)
    with world.workstation.frames("eth0") as frames:
        frames.send(packets.ethernet(worlds.CARE_MAC, worlds.WORKSTATION_MAC, packets.IPV4, packet))
    wanted = DeniedFlow(IPv4Address(worlds.WORKSTATION), IPv4Address(DATABASE), socket.IPPROTO_ICMP, 0)
    eventually(lambda: wanted in denied_flows(writer), "a note")


def test_what_belongs_to_a_connection_that_was_cut_is_no_denied_flow(world: World, writer: RuleWriter) -> None:
    near, far = connected(world.workstation, world.imaging, IMAGING, 4242)
    with near, far:
        world.allow(writer, *(POSTURE.allowances - {TO_IMAGING}))
        far.sendall(b"late")
        near.sendall(b"late")
        pairs = {("care", "cr-img"), ("cr-img", "care")}
        eventually(lambda: denied_pairs(writer).keys() == pairs, "both directions noted")
    assert denied_flows(writer) == {}


def test_notes_are_bounded_and_no_part_of_the_proof(
    world: World, writer: RuleWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is denied chooses what is noted: more than the bound is dropped without a note, then forgotten."""
    monkeypatch.setattr(policy, "FLOWS_NOTED", Dynamic(size=16, lifetime=1000))
    rules = compile_posture(POSTURE)
    writer.apply(compile_posture(DENY_ALL))
    writer.apply(rules)
    proof = writer.prove(POSTURE)
    with world.workstation.open_socket(kind=socket.SOCK_DGRAM) as sender:
        for port in range(1, 200):
            sender.sendto(b"in vain", (DATABASE, port))
        eventually(lambda: denied_pairs(writer)["care", "cr-db"].packets == 199, "every packet counted by pair")
    assert 0 < len(denied_flows(writer)) <= 16
    assert writer.prove(POSTURE).digest == proof.digest
    assert writer.generation() == proof.generation
    eventually(lambda: denied_flows(writer) == {}, "the notes forgotten")
    assert writer.generation() == proof.generation


def test_the_daemon_tells_what_was_denied(world: World, writer: RuleWriter) -> None:
    control = IsolationControl(Path("keeper"), alarm=lambda _text, /, **_fields: None)
    control._writer, control.proof = writer, writer.prove(POSTURE)
    with world.workstation.open_socket(kind=socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            sender.sendto(b"in vain", (DATABASE, 23))
        eventually(lambda: denied_pairs(writer)["care", "cr-db"].packets == 3, "three notes")
    assert "denied 3 packets from port care to database: udp 23 at 10.1.20.15 (3)" in control.denials()
    assert control.denials() == []
