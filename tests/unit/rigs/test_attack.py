from typing import Any

import pytest

from rigs import attack
from rigs.attack import Attacker
from tests.unit.rigs.samples import DATABASE, PLAN, RECORD

PORT = 41000


def at_workstation() -> Attacker:
    return attack.workstation_attacker(
        PLAN, zone="workstations", address="10.77.0.100", fallback_mac="02:00:00:00:00:01"
    )


def in_hospital() -> Attacker:
    return attack.hospital_attacker(PLAN, addresses=("192.168.40.1",), fallback_mac="02:00:00:00:00:01")


def heard(*frames: dict[str, Any]) -> dict[str, Any]:
    return {"tried": 100, "source_port": PORT, "heard": list(frames)}


def reply(source: str, port: int, kind: str = "tcp") -> dict[str, Any]:
    return {"kind": kind, "source": source, "source_port": port, "target": "10.77.0.100", "port": PORT}


def test_the_plans_flow_alone_is_a_clean_strike() -> None:
    strike = attack.judge(at_workstation(), heard(reply(RECORD, 8000)), ())
    assert (strike.through, strike.permitted, strike.answered, strike.findings) == (0, 1, 1, ())
    assert strike.tried == 99


def test_a_strike_whose_permitted_flow_was_not_answered_proves_nothing() -> None:
    strike = attack.judge(at_workstation(), heard(), ())
    assert strike.through == 0
    assert strike.findings == (f"workstation got no answer from {RECORD}:8000, which the plan opens",)


@pytest.mark.parametrize(
    "answer",
    [
        reply(RECORD, 22),
        reply(DATABASE, 5432),
        reply(RECORD, 8000, kind="udp"),
        {"kind": "icmp", "source": RECORD, "target": "10.77.0.100"},
        {"kind": "arp-reply", "source": RECORD, "target": "10.77.0.100"},
        {"kind": "ipv6"},
    ],
)
def test_any_other_answer_got_through(answer: dict[str, Any]) -> None:
    strike = attack.judge(at_workstation(), heard(reply(RECORD, 8000), answer), ())
    assert strike.through == 1
    assert len(strike.findings) == 1


def test_the_gateway_may_answer_and_ask_in_arp() -> None:
    frames = (
        reply(RECORD, 8000),
        {"kind": "arp-reply", "source": "10.77.0.1", "target": "10.77.0.100"},
        {"kind": "arp-request", "source": "10.77.0.1", "target": "10.77.0.100"},
    )
    assert attack.judge(at_workstation(), heard(*frames), ()).through == 0


def test_the_hospital_network_may_hear_nothing_not_even_arp() -> None:
    frame = {"kind": "arp-request", "source": "192.168.40.5", "target": "192.168.40.1"}
    assert attack.judge(in_hospital(), heard(frame), ()).through == 1


def test_a_forged_packet_that_leaves_the_enclosure_got_through_though_nobody_answered() -> None:
    attacker = at_workstation()
    forged = attacker.sources[1]
    packet = {"kind": "tcp", "source": forged, "target": RECORD, "port": 8000, "mark": attacker.mark, "interface": "t1"}
    strike = attack.judge(attacker, heard(reply(RECORD, 8000)), (packet,))
    assert strike.through == 1
    assert forged in strike.findings[0]


def test_packets_of_other_attackers_are_theirs() -> None:
    attacker = at_workstation()
    packet = {"kind": "udp", "source": "10.9.9.9", "target": RECORD, "port": 53, "mark": attacker.mark + 1}
    assert attack.judge(attacker, heard(reply(RECORD, 8000)), (packet,)).through == 0


def test_an_infected_machine_is_permitted_its_own_flows_only() -> None:
    machine = attack.machine_attacker(PLAN, PLAN.service("record"), beyond=("10.77.0.100",))
    assert machine.permitted == {(DATABASE, 5432)}
    assert machine.neighbours == {"10.1.20.1", DATABASE}
    assert set(machine.targets) == {"10.1.20.1", DATABASE, "10.77.0.1", "10.77.0.100"}
    assert machine.sources == (RECORD, DATABASE)
    server = attack.machine_attacker(PLAN, PLAN.service("database"), beyond=())
    assert server.permitted == set()
    assert server.neighbours == {"10.1.20.1", RECORD}


def test_every_attacker_has_a_mark_of_its_own() -> None:
    machines = [attack.machine_attacker(PLAN, service, beyond=()) for service in PLAN.services]
    marks = [each.mark for each in (in_hospital(), at_workstation(), *machines)]
    assert len(set(marks)) == len(marks)


def test_an_order_scans_every_port_that_the_plan_opens() -> None:
    order = attack.order(at_workstation(), PLAN)
    for target in order["targets"]:
        assert {8000, 5432} <= set(target["tcp"])
