"""Flows that are proposed from what was denied: in the plan's words, few, and valid as they are printed."""

import tomllib
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.model.plan import Card, Flow, Plan, Port, Zone
from cleanroomd.restore.learning import MOST_OTHERS, MOST_PORTS, Attempt, as_toml, learn
from cleanroomd.restore.order import Outline

from .plans import CARE, UPLINK, plan, service

TCP, UDP, ICMP = 6, 17, 1
RECORD, DATABASE, MODALITIES = "10.1.0.1", "10.1.0.2", "10.30.0.14"
WORKSTATION, DEVICE = "10.77.0.100", "10.78.0.50"
HOSPITAL = "192.168.40.10"


def staged() -> Plan:
    second = Card("modalities", "52:54:00:01:01:01", IPv4Address(MODALITIES), IPv4Address("10.30.0.1"))
    of = plan(
        replace(service("record", number=1), nics=(second,)),
        service("database", number=2),
        flows=(Flow("workstations", "record", tcp=(443,)),),
    )
    uplink = Port("uplink", mac=UPLINK.mac, address=IPv4Interface("192.168.40.5/24"))
    devices = Zone("devices", "care", IPv4Interface("10.78.0.1/24"), vlan=30)
    return replace(of, ports=(uplink, Port("care", mac=CARE.mac)), zones=(*of.zones, devices))


PLAN = staged()


def denied(source: str, destination: str, protocol: int, port: int, packets: int = 1) -> Attempt:
    return Attempt(IPv4Address(source), IPv4Address(destination), protocol, port, packets)


def test_ports_are_merged_and_the_most_frequent_pair_comes_first() -> None:
    lesson = learn(
        (
            denied(RECORD, DATABASE, TCP, 5432, 3),
            denied(WORKSTATION, RECORD, TCP, 80, 2),
            denied("10.77.0.101", RECORD, TCP, 80, 5),
            denied(WORKSTATION, RECORD, UDP, 53),
            denied(WORKSTATION, RECORD, TCP, 22),
            denied(DEVICE, MODALITIES, TCP, 104),
        ),
        Outline(PLAN),
    )
    assert [(flow.origin, flow.to, flow.tcp, flow.udp, flow.packets) for flow in lesson.flows] == [
        ("workstations", "record", (22, 80), (53,), 9),
        ("record", "database", (5432,), (), 3),
        ("devices", "record.modalities", (104,), (), 1),
    ]
    assert lesson.flows[0].detail == "tcp 80 (7), tcp 22 (1), udp 53 (1)"
    assert lesson.others == ()
    assert list(as_toml(lesson))[3:8] == [
        "# 9 packets denied: tcp 80 (7), tcp 22 (1), udp 53 (1)",
        "[[flow]]",
        'from = "workstations"',
        'to = "record"',
        "tcp = [22, 80]",
    ]


def test_what_the_plan_allows_already_is_not_proposed() -> None:
    """It was asked for before the service was ready."""
    lesson = learn((denied(WORKSTATION, RECORD, TCP, 443, 50),), Outline(PLAN))
    assert (lesson.flows, lesson.others) == ((), ())


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (denied(RECORD, HOSPITAL, TCP, 25), "takes a [[window]] and a lease"),
        (denied(RECORD, "8.8.8.8", UDP, 53), "record asked 8.8.8.8 for udp 53, which is no service and in no zone"),
        (denied(WORKSTATION, "10.77.0.1", UDP, 53), "workstations asked the enclosure itself for udp 53"),
        (denied(RECORD, "10.30.0.1", TCP, 22), "the enclosure itself"),
        (denied(WORKSTATION, "10.77.0.255", UDP, 137), "called to everybody"),
        (denied(WORKSTATION, "239.255.255.250", UDP, 1900), "called to everybody"),
        (denied(RECORD, DATABASE, ICMP, 0), "record sent ICMP to database; flows are TCP and UDP"),
        (denied("10.9.9.9", RECORD, TCP, 80), "10.9.9.9, which is no service and in no zone"),
        (denied(WORKSTATION, "10.77.0.101", TCP, 445), "workstations asked itself"),
    ],
)
def test_what_no_flow_can_allow_is_told_and_not_proposed(attempt: Attempt, words: str) -> None:
    lesson = learn((attempt,), Outline(PLAN))
    assert lesson.flows == ()
    (other,) = lesson.others
    assert words in other


def test_who_looks_around_is_named_and_gets_no_proposal() -> None:
    scan = [denied(RECORD, DATABASE, TCP, port) for port in range(1, MOST_PORTS + 2)]
    lesson = learn(scan, Outline(PLAN))
    assert lesson.flows == ()
    many = MOST_PORTS + 1
    assert lesson.others == (
        f"{many} packets: record asked database for {many} ports: it looks around, or is attacked",
    )


addresses = st.sampled_from(
    [RECORD, DATABASE, MODALITIES, WORKSTATION, DEVICE, HOSPITAL, "10.77.0.1", "10.77.0.255", "0.0.0.0", "8.8.8.8"]
).map(IPv4Address)
attempts = st.builds(Attempt, addresses, addresses, st.integers(0, 255), st.integers(0, 65535), st.integers(1, 1 << 40))


@given(st.lists(attempts, max_size=60))
def test_whatever_was_denied_the_print_is_a_plans_flows_and_bounded(denials: list[Attempt]) -> None:
    outline = Outline(PLAN)
    lesson = learn(denials, outline)
    tables = tomllib.loads("\n".join(as_toml(lesson))).get("flow", [])
    names = {*outline.cards, *(zone.name for zone in PLAN.zones)}
    for table, flow in zip(tables, lesson.flows, strict=True):
        assert {table["from"], table["to"]} <= names
        assert table["from"] != table["to"]
        assert (tuple(table.get("tcp", ())), tuple(table.get("udp", ()))) == (flow.tcp, flow.udp)
        assert 0 < len(flow.tcp) + len(flow.udp) <= MOST_PORTS
        assert all(0 < port < 65536 for port in (*flow.tcp, *flow.udp))
    assert len(lesson.others) <= MOST_OTHERS
    assert [flow.packets for flow in lesson.flows] == sorted((flow.packets for flow in lesson.flows), reverse=True)
