"""Which interface plays a port, what becomes of one that no longer does, and when a port that is listened to opens."""

from dataclasses import replace

import pytest

from cleanroomd.model.listening import Found, Heard
from cleanroomd.model.observed import Interface, Observed
from cleanroomd.model.plan import Plan
from cleanroomd.model.status import PortState
from cleanroomd.model.steps import ApplyRules, SetLink
from cleanroomd.restore.order import Outline
from cleanroomd.restore.quarantine import STRANGERS_FOR, judge_ports, match_ports
from cleanroomd.restore.reconcile import reconcile

from .plans import CARE, UPLINK, observed, plan, service
from .test_leases import OF, leased, taken

PLAN = plan(service("imaging"))
TWIN = Interface("twin", CARE.mac)
STRANGER = "equipment with the address 192.168.1.20"
LOST = "more than can be listened to: a loop between switches, or a flood"


def links(seen: Observed) -> dict[str, tuple[bool, frozenset[str]]]:
    return {each.name: (each.up, each.addresses) for each in seen.interfaces}


def moved(port: str) -> Plan:
    return replace(OF, ports=tuple(replace(p, mac="52:54:00:00:00:99") if p.name == port else p for p in OF.ports))


# What is no port any more ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "of", "clone"),
    [
        (UPLINK, moved("uplink"), False),
        (CARE, moved("care"), False),
        (UPLINK, replace(OF, ports=tuple(port for port in OF.ports if port.name != "uplink"), windows=()), False),
        (UPLINK, OF, True),
        (CARE, OF, True),
    ],
    ids=["another uplink card", "another care card", "no uplink", "two uplinks", "two care ports"],
)
def test_what_is_no_port_any_more_goes_down_before_its_guard_goes(card: Interface, of: Plan, clone: bool) -> None:
    _, seen, _ = taken(leased())
    assert links(seen)[card.name][0]
    if clone:
        seen = replace(seen, interfaces=(*seen.interfaces, Interface("twin", card.mac)))
    steps, seen, turn = taken(seen, of)
    assert isinstance(steps[0], SetLink)
    assert (steps[0].interface, steps[0].up) == (card.name, False)
    assert not links(seen)[card.name][0]
    assert not links(seen)[card.name][1]
    assert seen.deadline is None
    assert card.name not in {guard.interface for guard in turn.posture.ports}
    assert reconcile(Outline(of), seen).steps == turn.steps


def test_a_daemon_that_knows_no_rules_finds_by_deadline_and_by_mark_what_was_a_port() -> None:
    _, seen, _ = taken(leased())
    touched = tuple(replace(each, found=None, marked=each.name == CARE.name) for each in seen.interfaces)
    seen = replace(seen, proof=None, interfaces=touched)
    of = replace(OF, ports=tuple(replace(port, mac=f"52:54:00:00:01:{n:02x}") for n, port in enumerate(OF.ports)))
    steps = reconcile(Outline(of), seen).steps
    assert {step.interface for step in steps[:2] if isinstance(step, SetLink) and not step.up} == {"care0", "uplink0"}
    assert isinstance(steps[2], ApplyRules)


def test_a_sub_interface_of_a_port_that_is_claimed_twice_goes_down_though_no_rules_are_known() -> None:
    begin = observed(PLAN)
    above = Interface("vlan30-care", CARE.mac, up=True, addresses=frozenset({"10.78.0.1/24"}), parent="care0", vlan=30)
    seen = replace(begin, interfaces=(*begin.interfaces, above, TWIN), rules_retry_at=begin.now + 2.0)
    downs = {step.interface for step in reconcile(Outline(PLAN), seen).steps if isinstance(step, SetLink)}
    assert {"vlan30-care", "care0"} <= downs


def test_a_card_that_never_was_a_port_is_left_alone() -> None:
    begin = observed(PLAN)
    other = Interface("office0", "52:54:00:00:00:77", up=True, addresses=frozenset({"172.16.0.9/16"}))
    _, seen, _ = taken(replace(begin, interfaces=(*begin.interfaces, other)), PLAN)
    assert links(seen)["office0"] == (True, other.addresses)


# Who is the port ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claimants", "port"),
    [
        ((CARE, replace(TWIN, stacked=True)), "care0"),
        ((replace(CARE, permanent=True), replace(TWIN, stacked=True, permanent=True)), "care0"),
        ((replace(CARE, permanent=True), TWIN), "care0"),
        ((CARE, TWIN), None),
        ((replace(CARE, permanent=True), replace(TWIN, permanent=True)), None),
        ((replace(TWIN, stacked=True),), "twin"),
    ],
    ids=["a bridge", "a macvlan passthru", "a card that was given the MAC", "two veths", "two cards", "a bridge alone"],
)
def test_the_card_is_the_port_and_not_what_has_taken_its_mac(
    claimants: tuple[Interface, ...], port: str | None
) -> None:
    found = match_ports(PLAN, (UPLINK, *claimants))
    assert (found["care"].name if "care" in found else None) == port
    state = judge_ports(PLAN, replace(observed(PLAN), interfaces=(UPLINK, *claimants)))["care"].state
    assert (state is PortState.ABSENT) is (port is None)


# How long strangers are waited for ---------------------------------------------------------------------------------


def judged_after(seconds: float, heard: Heard) -> tuple[PortState, str, float | None]:
    begin = observed(PLAN)
    care = replace(CARE, found=None)
    seen = replace(begin, now=begin.now + seconds, interfaces=(care, UPLINK), heard={"care0": heard})
    judged = judge_ports(PLAN, seen)["care"]
    return judged.state, judged.reason, judged.wake_at


def stranger(seconds: float, words: str = STRANGER) -> Heard:
    return Heard(0, 1000.0, stranger=words, stranger_at=1000.0 + seconds)


PATIENCE = STRANGERS_FOR * PLAN.enclosure.quarantine


def test_a_stranger_that_never_falls_silent_keeps_no_port_closed_for_ever() -> None:
    state, _, wake_at = judged_after(PATIENCE - 0.5, stranger(PATIENCE - 1))
    assert (state, wake_at) == (PortState.LISTENING, 1000.0 + PATIENCE)
    state, reason, _ = judged_after(PATIENCE, stranger(PATIENCE - 1))
    assert state is PortState.OPEN
    assert STRANGER in reason


@pytest.mark.parametrize(
    ("heard", "state"),
    [
        (replace(stranger(PATIENCE), router="a DHCP server"), PortState.FOREIGN),
        (replace(stranger(PATIENCE), problem="cannot listen to care0"), PortState.LISTENING),
        (stranger(PATIENCE, LOST), PortState.LISTENING),
    ],
    ids=["a server", "a card that cannot be listened to", "frames that were lost"],
)
def test_whatever_else_was_heard_is_not_outwaited(heard: Heard, state: PortState) -> None:
    assert judged_after(PATIENCE + 1, heard)[0] is state


def test_an_open_port_goes_on_telling_of_strangers() -> None:
    seen = replace(observed(PLAN), heard={"care0": stranger(1.0)})
    judged = judge_ports(PLAN, seen)["care"]
    assert (judged.state, judged.found) == (PortState.OPEN, Found())
    assert STRANGER in judged.reason
