"""Which ports may open: a cable is listened to first, and one that hears another network opens nothing.

    unplugged -> listening -> open -> unplugged ...
                     |          |
                     +--------> foreign -> unplugged ...

Whatever the state, it lasts no longer than the cable stays plugged in.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cleanroomd.model.listening import Found, Heard
from cleanroomd.model.observed import Interface, Observed
from cleanroomd.model.plan import UPLINK, Plan, Port
from cleanroomd.model.status import PortState
from cleanroomd.model.units import format_duration

STRANGERS_FOR = 12
"""Periods of listening after which strangers alone keep no port closed: somebody who runs a network had the time to
speak, and one workstation with a wrong setting must not shut out all others. The guards drop strangers anyway."""
_UNHEARD = "more than can be listened to"
"""What a stranger is called when frames were lost: a router may have been among them, so this is never outwaited."""


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
    """The interfaces that have what the plan knows the port by; of several, the cards before what is made of them.

    A card whose own MAC is the plan's goes before one that was given it. But not a macvlan: one that passes
    everything through takes over the MAC of the card below it as a permanent one.
    """
    found = tuple(interface for interface in interfaces if _plays(port, interface))
    cards = tuple(interface for interface in found if not interface.stacked)
    own = tuple(interface for interface in cards if port.mac is not None and interface.permanent)
    return own or cards or found


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
        return PortJudgement(PortState.OPEN, _opened(heard), found=Found())
    if heard is None:
        return PortJudgement(PortState.LISTENING, "listening has not begun yet")
    if heard.problem:
        return PortJudgement(PortState.LISTENING, heard.problem)
    opens_at, words = _opening(heard, plan.enclosure.quarantine)
    if observed.now >= opens_at:
        return PortJudgement(PortState.OPEN, _opened(heard), found=Found())
    return PortJudgement(PortState.LISTENING, words, opens_at)


def _opening(heard: Heard, quarantine: float) -> tuple[float, str]:
    """When a port that is listened to opens, if nothing else is heard; in words too."""
    period = format_duration(quarantine)
    if heard.stranger_at is None:
        return heard.since + quarantine, f"is listened to for {period} before it opens"
    words = f"heard {heard.stranger}; opens {period} after the last of it"
    quiet_at = max(heard.since, heard.stranger_at) + quarantine
    if heard.stranger.startswith(_UNHEARD):
        return quiet_at, words
    longest = STRANGERS_FOR * quarantine
    return min(quiet_at, heard.since + longest), f"{words}, or when no router was heard for {format_duration(longest)}"


def _opened(heard: Heard | None) -> str:
    if heard is None or heard.stranger_at is None:
        return "nothing of another network was heard"
    return f"no router or server of another network was heard; dropped is what comes from {heard.stranger}"


def _known_by(port: Port) -> str:
    return f"the MAC address {port.mac}" if port.mac is not None else f"the path {port.path}"
