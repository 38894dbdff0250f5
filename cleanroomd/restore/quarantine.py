"""Which ports may open: a cable is listened to first, and one that hears another network opens nothing.

    unplugged -> listening -> open -> unplugged ...
                     |          |
                     +--------> foreign -> unplugged ...

Whatever the state, it lasts no longer than the cable stays plugged in.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cleanroomd.model.listening import Found
from cleanroomd.model.observed import Interface, Observed
from cleanroomd.model.plan import UPLINK, Plan, Port
from cleanroomd.model.status import PortState
from cleanroomd.model.units import format_duration


@dataclass(frozen=True, slots=True)
class PortJudgement:
    """Whether a port may open."""

    state: PortState
    reason: str
    """In words, always said."""
    wake_at: float | None = None
    """When the judgement changes by itself, if nothing else happens."""
    found: Found | None = None
    """What is to be kept with the interface."""


def care_ports(plan: Plan) -> tuple[Port, ...]:
    """The ports that zones are behind, in the order of the plan."""
    zoned = {zone.port for zone in plan.zones}
    return tuple(port for port in plan.ports if port.name in zoned and port.name != UPLINK)


def match_ports(plan: Plan, interfaces: tuple[Interface, ...]) -> Mapping[str, Interface]:
    """Port name -> the interface that plays it; a port that is absent or claimed twice is left out."""
    found = {}
    for port in plan.ports:
        candidates = claimants(port, interfaces)
        if len(candidates) == 1:
            found[port.name] = candidates[0]
    return found


def claimants(port: Port, interfaces: tuple[Interface, ...]) -> tuple[Interface, ...]:
    """The physical interfaces that have what the plan knows the port by."""
    return tuple(interface for interface in interfaces if _plays(port, interface))


def _plays(port: Port, interface: Interface) -> bool:
    # A VLAN sub-interface has the MAC of the one below it.
    if interface.vlan is not None:
        return False
    if port.mac is not None and interface.mac != port.mac:
        return False
    if port.path is not None and interface.path != port.path:
        return False
    return port.mac is not None or port.path is not None


def judge_ports(plan: Plan, observed: Observed) -> Mapping[str, PortJudgement]:
    """Every port that zones are behind -> whether it may open."""
    return {port.name: _judge(plan, port, observed) for port in care_ports(plan)}


def _judge(plan: Plan, port: Port, observed: Observed) -> PortJudgement:
    candidates = claimants(port, observed.interfaces)
    if not candidates:
        return PortJudgement(PortState.ABSENT, f"no network card has {_known_by(port)}")
    if len(candidates) > 1:
        names = " and ".join(sorted(interface.name for interface in candidates))
        return PortJudgement(PortState.ABSENT, f"{names} both have {_known_by(port)}: neither is used")
    (interface,) = candidates
    if not (interface.up and interface.carrier):
        return PortJudgement(PortState.UNPLUGGED, "no cable is seen" if interface.up else "it is not up yet")
    heard = observed.heard.get(interface.name)
    if heard is not None and heard.carrier_changes != interface.carrier_changes:
        heard = None
    foreign = interface.found.foreign if interface.found is not None else ""
    foreign = foreign or (heard.router if heard is not None else "")
    if foreign:
        return PortJudgement(PortState.FOREIGN, f"heard {foreign}", found=Found(foreign))
    if interface.found is not None:
        return PortJudgement(PortState.OPEN, "nothing of another network was heard", found=Found())
    if heard is None:
        return PortJudgement(PortState.LISTENING, "listening has not begun yet")
    if heard.problem:
        return PortJudgement(PortState.LISTENING, heard.problem)
    quiet_since = heard.since if heard.stranger_at is None else max(heard.since, heard.stranger_at)
    opens_at = quiet_since + plan.enclosure.quarantine
    if observed.now >= opens_at:
        return PortJudgement(PortState.OPEN, "nothing of another network was heard", found=Found())
    period = format_duration(plan.enclosure.quarantine)
    if heard.stranger_at is not None:
        return PortJudgement(
            PortState.LISTENING, f"heard {heard.stranger}; opens {period} after the last of it", opens_at
        )
    return PortJudgement(PortState.LISTENING, f"is listened to for {period} before it opens", opens_at)


def _known_by(port: Port) -> str:
    return f"the MAC address {port.mac}" if port.mac is not None else f"the path {port.path}"
