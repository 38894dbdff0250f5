"""What is judged to lead around the rules, from facts alone."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from cleanroomd.isolation.bypasses import (
    Link,
    PolicyRule,
    Queueing,
    RemoveAddress,
    RemoveRoute,
    RestoreRoute,
    Route,
    SetSysctl,
    Surroundings,
    TakeDown,
    findings,
)
from cleanroomd.model.plan import UPLINK
from cleanroomd.model.posture import PortGuard, Posture, TapGuard

TAP = TapGuard("record", "tap-record", "52:54:00:00:00:01", IPv4Address("10.1.20.14"), IPv4Address("10.1.20.1"))
CARE = PortGuard("care", "care0", "02:00:00:00:00:01", dark=False, addresses=(IPv4Interface("10.77.0.1/24"),))
DARK = PortGuard(UPLINK, "up0", "02:00:00:00:00:02")
POSTURE = Posture(ports=(DARK, CARE), taps=(TAP,))
TO_RECORD = Route("10.1.20.14/32", 254, "tap-record", protocol=4)
LINKS = (
    Link("lo", 1, up=True, loopback=True),
    Link("up0", 2),
    Link("care0", 3, up=True, addresses=frozenset({"10.77.0.1/24"})),
    Link("tap-record", 4, kind="tun", up=True, addresses=frozenset({"10.1.20.1/32"})),
)
SYSCTLS = {"ipv4/ip_forward": "1"}
CALM = Surroundings(
    links=LINKS,
    routes=(TO_RECORD, Route("10.77.0.0/24", 254, "care0", protocol=2), Route("10.77.0.1/32", 255, "care0")),
    rules=frozenset(PolicyRule(2, *each) for each in ((0, 255), (32766, 254), (32767, 253))),
    queueing=(Queueing("care0", "mq", 0xFFFFFFFF), Queueing("tap-record", "fq_codel", 0xFFFFFFFF)),
    sysctls=SYSCTLS,
)


def judged(facts: Surroundings, posture: Posture = POSTURE) -> list[str]:
    return [finding.what for finding in findings(facts, posture, SYSCTLS)]


def with_link(name: str, **changes: object) -> Surroundings:
    links = tuple(replace(link, **changes) if link.name == name else link for link in LINKS)  # type: ignore[arg-type]
    return replace(CALM, links=links)


def test_a_calm_network_has_nothing_to_find() -> None:
    assert judged(CALM) == []


@pytest.mark.parametrize("name", ["care0", "up0", "tap-record"])
def test_a_link_of_ours_with_a_master_or_a_program_is_serious(name: str) -> None:
    for changes in ({"master": 9}, {"programs": ("xdp",)}, {"programs": ("ingress",)}):
        (finding,) = findings(with_link(name, **changes), POSTURE, SYSCTLS)
        assert finding.serious
        assert name in finding.what


def test_a_program_that_is_held_by_another_cannot_be_undone() -> None:
    (finding,) = findings(with_link("care0", programs=("egress",)), POSTURE, SYSCTLS)
    assert finding.undo is None
    assert "bpftool net list" in finding.remedy


@pytest.mark.parametrize("kind", ["clsact", "ingress", "htb", "netem", "prio", ""])
def test_traffic_control_is_serious_on_ours_and_nobodys_business_elsewhere(kind: str) -> None:
    (finding,) = findings(replace(CALM, queueing=(Queueing("care0", kind, 1),)), POSTURE, SYSCTLS)
    assert finding.serious
    assert judged(replace(CALM, queueing=(Queueing("other", kind, 1),))) == []


def test_addresses_that_nobody_planned_are_removed() -> None:
    facts = with_link("care0", addresses=frozenset({"10.77.0.1/24", "10.9.9.9/32", "2001:db8::1/64"}))
    acts = [finding.undo for finding in findings(facts, POSTURE, SYSCTLS)]
    assert acts == [RemoveAddress("care0", "10.9.9.9/32"), RemoveAddress("care0", "2001:db8::1/64")]


def test_a_dark_port_that_is_up_is_taken_down_unless_it_is_listened_to() -> None:
    facts = with_link("up0", up=True)
    assert [finding.undo for finding in findings(facts, POSTURE, SYSCTLS)] == [TakeDown("up0")]
    assert judged(facts, replace(POSTURE, ports=(replace(DARK, quarantined=True), CARE))) == []


@pytest.mark.parametrize(
    "route",
    [
        Route("0.0.0.0/0", 254, "care0", gateway="10.77.0.9", protocol=3),
        Route("10.1.20.14/32", 254, "care0", protocol=3, metric=0),
        Route("10.1.20.14/32", 254, "", kind=6, protocol=3),
        Route("10.1.20.14/32", 77, "tap-record", protocol=4),
    ],
)
def test_a_route_that_is_not_ours_goes(route: Route) -> None:
    acts = [finding.undo for finding in findings(replace(CALM, routes=(*CALM.routes, route)), POSTURE, SYSCTLS)]
    assert acts == [RemoveRoute(route)]


def test_the_way_to_a_machine_comes_back() -> None:
    (finding,) = findings(replace(CALM, routes=CALM.routes[1:]), POSTURE, SYSCTLS)
    assert finding.undo == RestoreRoute(TAP)


def test_an_open_uplink_may_have_routes_of_its_own() -> None:
    opened = replace(DARK, dark=False, addresses=(IPv4Interface("192.168.40.5/24"),))
    route = Route("0.0.0.0/0", 254, "up0", gateway="192.168.40.1", protocol=4)
    assert judged(replace(CALM, routes=(*CALM.routes, route)), replace(POSTURE, ports=(opened, CARE))) == []


def test_a_sysctl_is_set_back_and_one_that_the_kernel_lacks_is_none() -> None:
    (finding,) = findings(replace(CALM, sysctls={"ipv4/ip_forward": "0"}), POSTURE, SYSCTLS)
    assert finding.undo == SetSysctl("ipv4/ip_forward", "1")
    assert judged(replace(CALM, sysctls={})) == []


def test_a_tap_that_is_needed_no_longer_is_no_stranger() -> None:
    posture = replace(POSTURE, taps=())
    assert judged(CALM, posture) == []


def test_the_serious_comes_first() -> None:
    facts = replace(with_link("tap-record", master=9), sysctls={"ipv4/ip_forward": "0"}, old_tables=("ip nat",))
    found = findings(facts, POSTURE, SYSCTLS)
    assert [finding.serious for finding in found] == [True, False, False]
